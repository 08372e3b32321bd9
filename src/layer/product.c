/* Convolution and linear, lowered: a product forward, the weights' gradient and a product backward. */
#include "layer/product.h"

#include "base/bounds.h"
#include "program/bounds.h"

static NitiShape weight_shape(const NitiLayer *layer) {
  NitiShape shape;
  layer->spec->type->weight_shape(layer->spec, layer->in[0], &shape);
  return shape;
}

/* A linear layer has no window fields: 1x1. */
static NitiConv conv_of(const NitiLayer *layer) {
  const NitiLayerSpec *s = layer->spec;
  const NitiShape in = layer->in[0], out = layer->out, w = weight_shape(layer);
  const bool windows = s->kernel[0] > 0;
  return (NitiConv){.n = in.n,
                    .h = in.h,
                    .w = in.w,
                    .c = in.c,
                    .oh = out.h,
                    .ow = out.w,
                    .k = out.c,
                    .kh = w.h,
                    .kw = w.w,
                    .stride_h = windows ? s->stride[0] : 1,
                    .stride_w = windows ? s->stride[1] : 1,
                    .pad_h = s->padding[0],
                    .pad_w = s->padding[1],
                    .groups = in.c / w.c};
}

void niti_product_forward(NitiLowering *l, NitiLayer *layer) {
  const NitiShape w = weight_shape(layer);
  const int64_t window = (int64_t)w.h * w.w, groups = layer->in[0].c / w.c;
  layer->weight = niti_lower_weight(l, layer, w, layer->spec->kernel[0] > 0 ? 4 : 2, window * w.c, window * w.n / groups);
  if (layer->spec->bias) layer->bias = niti_lower_parameter(l, layer, "bias", NITI_DTYPE_S16, NITI_INITIAL_ZERO, 0, w.n);
  layer->y = niti_lower_output(l, layer);
  NitiOperation o = niti_lower_forward(l, layer, NITI_OP_CONV_FORWARD, layer->x[0], layer->y);
  o.inputs[1] = layer->weight;
  o.inputs[2] = layer->bias;
  o.conv = conv_of(layer);
  niti_lower_append(l, &o);
}

/* The layer's record that makes y; NULL: there is none. */
static NitiOperation *maker_of(NitiProgram *p, int32_t layer, int32_t y) {
  for (int32_t i = p->operation_count - 1; i >= 0; --i) {
    if (p->operations[i].layer == layer && p->operations[i].outputs[0] == y) return &p->operations[i];
  }
  return NULL;
}

bool niti_product_centre(NitiLowering *l, int32_t layer, int32_t y, int32_t running) {
  NitiOperation *o = maker_of(l->program, layer, y);
  if (!o || o->opcode != NITI_OP_CONV_FORWARD || o->inputs[2] != NITI_NONE) return false;
  if (niti_accumulation_length(o) > niti_bound_bias()) return false;
  o->inputs[2] = running;
  return true;
}

static void gradient(NitiLowering *l, const NitiLayer *layer, int32_t dy) {
  NitiOperation o = niti_lower_backward(l, layer, NITI_OP_CONV_GRADIENT, dy, NITI_NONE);
  o.inputs[1] = layer->x[0];
  o.conv = conv_of(layer);
  NitiOperation whole = o; /* the sum over all ranks */
  whole.conv.n = l->program->whole;
  o.outputs[0] = niti_lower_gradient(l, layer->weight, niti_accumulation_length(&whole));
  niti_lower_append(l, &o);
}

void niti_product_backward(NitiLowering *l, const NitiLayer *layer, int32_t dy, const bool *wanted, int32_t *dx) {
  if (!layer->frozen) gradient(l, layer, dy);
  if (layer->bias != NITI_NONE && !layer->frozen) {
    const NitiOperation sums = niti_lower_backward(l, layer, NITI_OP_BIAS_GRADIENT, dy, niti_lower_sum(l, layer->bias));
    niti_lower_append(l, &sums);
  }
  if (!wanted[0]) return;
  dx[0] = niti_lower_delta(l, layer, 0);
  NitiOperation o = niti_lower_backward(l, layer, NITI_OP_CONV_BACKWARD, dy, dx[0]);
  o.inputs[1] = layer->weight;
  o.conv = conv_of(layer);
  niti_lower_append(l, &o);
}
