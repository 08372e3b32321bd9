/* Flatten: [N][H][W][C] read as [N][H * W * C]; no data is moved. */
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

static void forward(NitiLowering *l, NitiLayer *layer) {
  layer->y = niti_lower_output(l, layer);
  const NitiOperation o = niti_lower_forward(l, layer, NITI_OP_RESHAPE, layer->x[0], layer->y);
  niti_lower_append(l, &o);
}

static void backward(NitiLowering *l, const NitiLayer *layer, int32_t dy, const bool *wanted, int32_t *dx) {
  if (!wanted[0]) return;
  dx[0] = niti_lower_delta(l, layer, 0);
  const NitiOperation o = niti_lower_backward(l, layer, NITI_OP_RESHAPE, dy, dx[0]);
  niti_lower_append(l, &o);
}

const NitiLayerType niti_layer_flatten = {
    .name = "flatten",
    .fields = fields,
    .inputs = 1,
    .shape = shape,
    .forward = forward,
    .backward = backward,
};
