/* ReLU: y = max(x, 0), and at most `max` where that is given. Its output is positive exactly where its input is, so backward
 * needs nothing else. */
#include "layer/layer.h"

static const NitiLayerField fields[] = {
    {"max", NITI_FIELD_MILLIONTHS, offsetof(NitiLayerSpec, max), false, 0, 1, 2000000000, NULL},
    {NULL, 0, 0, false, 0, 0, 0, NULL},
};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  (void)spec;
  *out = *in;
  return NITI_OK;
}

static void forward(NitiLowering *l, NitiLayer *layer) {
  layer->y = niti_lower_output(l, layer);
  NitiOperation o = niti_lower_forward(l, layer, NITI_OP_RELU_FORWARD, layer->x[0], layer->y);
  o.relu_max = layer->spec->max;
  niti_lower_append(l, &o);
}

static void backward(NitiLowering *l, const NitiLayer *layer, int32_t dy, const bool *wanted, int32_t *dx) {
  if (!wanted[0]) return;
  dx[0] = niti_lower_delta(l, layer, 0);
  NitiOperation o = niti_lower_backward(l, layer, NITI_OP_RELU_BACKWARD, dy, dx[0]);
  o.inputs[1] = layer->y;
  o.relu_max = layer->spec->max;
  niti_lower_append(l, &o);
}

const NitiLayerType niti_layer_relu = {
    .name = "relu",
    .fields = fields,
    .inputs = 1,
    .shape = shape,
    .forward = forward,
    .backward = backward,
};
