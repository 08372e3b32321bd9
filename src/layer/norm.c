/* Batch norm over the last dimension (docs/arithmetic.md, "Batch norm"): S. Ioffe and C. Szegedy, "Batch Normalization", ICML
 * 2015. */
#include "base/norm.h"

#include "layer/product.h"

static const NitiLayerField fields[] = {{NULL, 0, 0, false, 0, 0, 0, NULL}};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  (void)spec;
  *out = in[0];
  return NITI_OK;
}

static void weight_shape(const NitiLayerSpec *spec, NitiShape in, NitiShape *out) {
  (void)spec;
  *out = (NitiShape){1, 1, 1, in.c};
}

static void append(NitiLowering *l, const NitiLayer *layer, NitiOperation *o, bool running, bool centred) {
  o->norm = (NitiNorm){(int64_t)layer->in[0].h * layer->in[0].w, running, centred};
  niti_lower_append(l, o);
}

static void forward(NitiLowering *l, NitiLayer *layer) {
  const int32_t c = layer->in[0].c;
  layer->weight = niti_lower_parameter(l, layer, "weight", NITI_DTYPE_S16, NITI_INITIAL_ONE, 0, c);
  layer->bias = niti_lower_parameter(l, layer, "bias", NITI_DTYPE_S16, NITI_INITIAL_ZERO, 0, c);
  const int32_t running = niti_lower_parameter(l, layer, "running", NITI_DTYPE_S64, NITI_INITIAL_RUNNING, 2, c);
  const int32_t affine = niti_lower_channels(l, layer, "affine", NITI_DTYPE_S32, c, 2);
  NitiOperation fit = niti_lower_forward(l, layer, NITI_OP_NORM_FIT, layer->x[0], affine);
  if (l->training) {
    layer->saved = niti_lower_channels(l, layer, "sums", NITI_DTYPE_S64, c, 2);
    fit.outputs[1] = running;
    fit.outputs[2] = layer->saved;
  }
  fit.inputs[1] = layer->weight;
  fit.inputs[2] = layer->bias;
  fit.inputs[3] = running;
  const bool centred = layer->alone && niti_product_centre(l, layer->sources[0], layer->x[0], running);
  append(l, layer, &fit, !l->training, centred);
  layer->y = niti_lower_output(l, layer);
  NitiOperation map = niti_lower_forward(l, layer, NITI_OP_NORM_FORWARD, layer->x[0], layer->y);
  map.inputs[1] = affine;
  append(l, layer, &map, false, false);
}

static void backward(NitiLowering *l, const NitiLayer *layer, int32_t dy, const bool *wanted, int32_t *dx) {
  const int32_t c = layer->in[0].c;
  const int32_t affine = niti_lower_channels(l, layer, "delta_affine", NITI_DTYPE_S32, c, 3);
  NitiOperation fit = niti_lower_backward(l, layer, NITI_OP_NORM_DELTA_FIT, dy, affine);
  fit.inputs[1] = layer->x[0];
  fit.inputs[2] = layer->saved;
  fit.inputs[3] = layer->weight;
  fit.outputs[1] = niti_lower_sum(l, layer->weight);
  fit.outputs[2] = niti_lower_sum(l, layer->bias);
  fit.outputs[3] = niti_lower_channels(l, layer, "delta_sums", NITI_DTYPE_S64, c, 3);
  append(l, layer, &fit, false, false);
  if (!wanted[0]) return;
  dx[0] = niti_lower_delta(l, layer, 0);
  NitiOperation map = niti_lower_backward(l, layer, NITI_OP_NORM_BACKWARD, dy, dx[0]);
  map.inputs[1] = layer->x[0];
  map.inputs[2] = affine;
  append(l, layer, &map, false, false);
}

const NitiLayerType niti_layer_norm = {
    .name = "norm",
    .fields = fields,
    .inputs = 1,
    .wide = true,
    .shape = shape,
    .weight_shape = weight_shape,
    .forward = forward,
    .backward = backward,
};
