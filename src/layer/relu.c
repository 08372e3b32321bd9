/* ReLU: y = max(x, 0). Its output tells where its input was positive, so backward needs no more. */
#include "layer/layer.h"

static const NitiLayerField fields[] = {{NULL, 0, 0, false, 0, 0, 0, NULL}};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  (void)spec;
  *out = *in;
  return NITI_OK;
}

static void forward(NitiNode *node, NitiBackend *backend) {
  if (node->fused_relu) { /* the layer before did it, in the same memory */
    niti_node_pass(backend, &node->y, &node->x[0]);
  } else {
    backend->ops->relu_forward(backend, &node->y, &node->x[0]);
  }
}

static void backward(NitiNode *node, NitiBackend *backend) {
  if (!node->dx[0].data) return;
  if (node->gated) { /* the layer behind did it */
    niti_node_pass(backend, &node->dx[0], &node->dy);
  } else {
    backend->ops->relu_backward(backend, &node->dx[0], &node->dy, &node->y);
  }
}

const NitiLayerType niti_layer_relu = {
    .name = "relu",
    .fields = fields,
    .inputs = 1,
    .in_place = true,
    .needs_output = true,
    .positive = true,
    .keeps_exponent = true,
    .shape = shape,
    .forward = forward,
    .backward = backward,
};
