/* Max-pool: the first maximum of a window wins and receives the window's delta. */
#include "layer/shape.h"

enum { WINDOW_MAX = 255 }; /* the winner's position is stored in a byte */

static const NitiLayerField fields[] = {
    {"kernel", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, kernel), true, 0, 1, WINDOW_MAX, NULL},
    {"stride", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, stride), false, NITI_FIELD_SAME_AS_KERNEL, 1, 1024, NULL},
    {"padding", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, padding), false, 0, 0, WINDOW_MAX, NULL},
    {NULL, 0, 0, false, 0, 0, 0, NULL},
};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  if (spec->kernel[0] * spec->kernel[1] > WINDOW_MAX) {
    return niti_fail(NITI_ERROR_MODEL, "a window of %dx%d has more than %d cells", spec->kernel[0], spec->kernel[1], WINDOW_MAX);
  }
  NITI_TRY(niti_check_padding(spec));
  out->n = in->n;
  out->c = in->c;
  return niti_window_shape(spec, *in, out);
}

static void forward(NitiLowering *l, NitiLayer *layer) {
  layer->y = niti_lower_output(l, layer);
  layer->saved = niti_lower_saved(l, layer, "winner");
  NitiOperation o = niti_lower_forward(l, layer, NITI_OP_MAXPOOL_FORWARD, layer->x[0], layer->y);
  o.outputs[1] = layer->saved;
  o.pool = niti_pool_of(layer);
  niti_lower_append(l, &o);
}

static void backward(NitiLowering *l, const NitiLayer *layer, int32_t dy, const bool *wanted, int32_t *dx) {
  if (!wanted[0]) return;
  dx[0] = niti_lower_delta(l, layer, 0);
  NitiOperation o = niti_lower_backward(l, layer, NITI_OP_MAXPOOL_BACKWARD, dy, dx[0]);
  o.inputs[1] = layer->saved;
  o.pool = niti_pool_of(layer);
  niti_lower_append(l, &o);
}

const NitiLayerType niti_layer_maxpool = {
    .name = "maxpool",
    .fields = fields,
    .inputs = 1,
    .shape = shape,
    .forward = forward,
    .backward = backward,
};
