/* Flatten: [N][H][W][C] read as [N][H * W * C]; nothing moves. */
#include "layer/layer.h"

static const NitiLayerField fields[] = {{NULL, 0, 0, false, 0, 0, 0, NULL}};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  const size_t features = niti_shape_image(*in);
  (void)spec;
  if (features > INT32_MAX)
    return niti_fail(NITI_ERROR_MODEL, "%zu features are more than a layer can have (expected at most %d)", features, INT32_MAX);
  *out = (NitiShape){in->n, 1, 1, (int32_t)features};
  return NITI_OK;
}

static void forward(NitiNode *node, NitiBackend *backend) { niti_node_pass(backend, &node->y, &node->x[0]); }

static void backward(NitiNode *node, NitiBackend *backend) {
  if (node->dx[0].data) niti_node_pass(backend, &node->dx[0], &node->dy);
}

const NitiLayerType niti_layer_flatten = {
    .name = "flatten",
    .fields = fields,
    .inputs = 1,
    .in_place = true,
    .keeps_positive = true,
    .keeps_exponent = true,
    .shape = shape,
    .forward = forward,
    .backward = backward,
};
