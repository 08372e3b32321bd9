/* Linear: x [N][in], weights [out][in], y [N][out]; a 1x1 convolution over 1x1 images. */
#include "layer/product.h"

static const NitiLayerField fields[] = {
    {"out", NITI_FIELD_COUNT, offsetof(NitiLayerSpec, out), true, 0, 1, 65536, NULL},
    {"bias", NITI_FIELD_FLAG, offsetof(NitiLayerSpec, bias), false, 0, 0, 1, NULL},
    {NULL, 0, 0, false, 0, 0, 0, NULL},
};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  if (in->h != 1 || in->w != 1) {
    return niti_fail(NITI_ERROR_MODEL, "needs a flat input, got %dx%dx%d (expected `flatten` or `global-avgpool` before it)",
                     in->h, in->w, in->c);
  }
  *out = (NitiShape){in->n, 1, 1, spec->out};
  return NITI_OK;
}

static void weight_shape(const NitiLayerSpec *spec, NitiShape in, NitiShape *out) { *out = (NitiShape){spec->out, 1, 1, in.c}; }

const NitiLayerType niti_layer_linear = {
    .name = "linear",
    .fields = fields,
    .inputs = 1,
    .shape = shape,
    .weight_shape = weight_shape,
    .forward = niti_product_forward,
    .backward = niti_product_backward,
};
