/* Linear without bias: x [N][in], weights [out][in], y [N][out]; a 1x1 convolution over 1x1 images. */
#include "base/bounds.h"
#include "layer/product.h"

static const NitiLayerField fields[] = {
    {"out", NITI_FIELD_COUNT, offsetof(NitiLayerSpec, out), true, 0, 1, 65536, NULL},
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

static void terms(const NitiNode *node, int64_t *forward, int64_t *backward, int64_t *gradient) {
  *forward = niti_bound_conv_forward(1, 1, node->in[0].c);
  *backward = niti_bound_conv_backward(1, 1, 1, 1, node->out.c);
  *gradient = niti_bound_conv_gradient(node->out.n, 1, 1);
}

const NitiLayerType niti_layer_linear = {
    .name = "linear",
    .fields = fields,
    .inputs = 1,
    .needs_input = true,
    .fuses_relu = true,
    .weight_dims = 2,
    .shape = shape,
    .weight_shape = weight_shape,
    .terms = terms,
    .multiply_adds = niti_product_multiply_adds,
    .workspace = niti_product_workspace,
    .packed = niti_product_packed,
    .gate = niti_product_gate,
    .kernel = niti_product_kernel,
    .forward = niti_product_forward,
    .backward = niti_product_backward,
};
