/* Convolution without bias: x [N][H][W][C], weights [K][KH][KW][C], y [N][OH][OW][K]. */
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

const NitiLayerType niti_layer_conv = {
    .name = "conv",
    .fields = fields,
    .inputs = 1,
    .shape = shape,
    .weight_shape = weight_shape,
    .forward = niti_product_forward,
    .backward = niti_product_backward,
};
