/* Convolution: x [N][H][W][C], weights [K][KH][KW][C / groups], y [N][OH][OW][K]. */
#include "layer/product.h"
#include "layer/shape.h"

static const NitiLayerField fields[] = {
    {"out", NITI_FIELD_COUNT, offsetof(NitiLayerSpec, out), true, 0, 1, 65536, NULL},
    {"kernel", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, kernel), true, 0, 1, 1024, NULL},
    {"stride", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, stride), false, 1, 1, 1024, NULL},
    {"padding", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, padding), false, 0, 0, 1024, NULL},
    {"groups", NITI_FIELD_GROUPS, offsetof(NitiLayerSpec, groups), false, 1, 1, 1 << 28, NULL},
    {"bias", NITI_FIELD_FLAG, offsetof(NitiLayerSpec, bias), false, 0, 0, 1, NULL},
    {NULL, 0, 0, false, 0, 0, 0, NULL},
};

static int32_t groups_of(const NitiLayerSpec *spec, NitiShape in) {
  return spec->groups == NITI_GROUPS_CHANNELS ? in.c : spec->groups;
}

static NitiStatus check_groups(int32_t groups, int32_t in, int32_t out) {
  if (in % groups == 0 && out % groups == 0) return NITI_OK;
  return niti_fail(NITI_ERROR_MODEL,
                   "%d groups do not divide %d %s channels (expected a divisor of %d input and %d output channels)", groups,
                   in % groups ? in : out, in % groups ? "input" : "output", in, out);
}

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  NITI_TRY(check_groups(groups_of(spec, *in), in->c, spec->out));
  out->n = in->n;
  out->c = spec->out;
  return niti_window_shape(spec, *in, out);
}

static void weight_shape(const NitiLayerSpec *spec, NitiShape in, NitiShape *out) {
  *out = (NitiShape){spec->out, spec->kernel[0], spec->kernel[1], in.c / groups_of(spec, in)};
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
