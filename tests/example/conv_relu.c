/* Convolution and ReLU as one layer: `- conv-relu: {out: 32, kernel: 3, padding: 1}`. */
#include <stdio.h>

#include "layer/product.h"
#include "layer/shape.h"

static const NitiLayerField fields[] = {
    {"out", NITI_FIELD_COUNT, offsetof(NitiLayerSpec, out), true, 0, 1, 65536, NULL},
    {"kernel", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, kernel), true, 0, 1, 1024, NULL},
    {"stride", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, stride), false, 1, 1, 1024, NULL},
    {"padding", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, padding), false, 0, 0, 1024, NULL},
    {NULL, 0, 0, false, 0, 0, 0, NULL},
};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  out->n = in->n;
  out->c = spec->out;
  return niti_window_shape(spec, *in, out);
}

static void weight_shape(const NitiLayerSpec *spec, NitiShape in, NitiShape *out) {
  *out = (NitiShape){spec->out, spec->kernel[0], spec->kernel[1], in.c};
}

/* A tensor of the output's shape: "NAME.what". */
static int32_t add_tensor(NitiLowering *l, const NitiLayer *layer, NitiRole role, const char *what) {
  NitiTensorDesc t = niti_tensor_desc(role, layer->out);
  t.layer = layer->number;
  (void)snprintf(t.name, sizeof t.name, "%s.%s", layer->spec->name, what);
  return niti_program_add_tensor(l->program, &t);
}

static void forward(NitiLowering *l, NitiLayer *layer) {
  niti_product_forward(l, layer); /* declares the weight and "NAME.out", which is still before the ReLU */
  const int32_t product = layer->y;
  layer->y = add_tensor(l, layer, NITI_ROLE_ACTIVATION, "relu");
  const NitiOperation o = niti_lower_forward(l, layer, NITI_OP_RELU_FORWARD, product, layer->y);
  niti_lower_append(l, &o);
}

static void backward(NitiLowering *l, const NitiLayer *layer, int32_t dy, const bool *wanted, int32_t *dx) {
  const int32_t product = add_tensor(l, layer, NITI_ROLE_DELTA, "out.delta");
  NitiOperation o = niti_lower_backward(l, layer, NITI_OP_RELU_BACKWARD, dy, product);
  o.inputs[1] = layer->y; /* positive exactly where the convolution's output is */
  niti_lower_append(l, &o);
  niti_product_backward(l, layer, product, wanted, dx);
}

const NitiLayerType niti_layer_conv_relu = {
    .name = "conv-relu",
    .fields = fields,
    .inputs = 1,
    .shape = shape,
    .weight_shape = weight_shape,
    .forward = forward,
    .backward = backward,
};
