#include "layer/product.h"

/* A linear layer has no window fields: 1x1. */
NitiConv niti_product_conv(const NitiNode *node, int32_t n) {
  const NitiLayerSpec *s = &node->spec;
  const NitiShape in = node->in[0], out = node->out, w = node->weight.shape;
  const bool windows = s->kernel[0] > 0;
  return (NitiConv){.n = n,
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
                    .x_positive = node->x_positive[0]};
}

size_t niti_product_workspace(const NitiNode *node, const NitiBackend *backend) {
  const NitiConv conv = niti_product_conv(node, node->in[0].n);
  return backend->ops->conv_workspace(backend, &conv);
}

size_t niti_product_packed(const NitiNode *node, const NitiBackend *backend) {
  const NitiConv conv = niti_product_conv(node, node->in[0].n);
  return backend->ops->conv_packed_bytes ? backend->ops->conv_packed_bytes(backend, &conv) : 0;
}

const char *niti_product_kernel(const NitiNode *node, const NitiBackend *backend, const char *direction) {
  const NitiConv conv = niti_product_conv(node, node->in[0].n);
  return backend->ops->conv_kernel(backend, &conv, direction);
}

int64_t niti_product_multiply_adds(const NitiNode *node) {
  const NitiShape w = node->weight.shape;
  return (int64_t)niti_shape_image(node->out) * w.h * w.w * w.c;
}

NitiGate niti_product_gate(const NitiNode *node) {
  (void)node;
  return NITI_GATE_INPUT;
}

void niti_product_forward(NitiNode *node, NitiBackend *backend) {
  NitiConv conv = niti_product_conv(node, node->y.shape.n);
  conv.packed = node->packed;
  backend->ops->conv_forward(backend, &node->y, &node->x[0], &node->weight, &conv, node->fused_relu, &node->forward_rq);
}

void niti_product_backward(NitiNode *node, NitiBackend *backend) {
  const NitiConv conv = niti_product_conv(node, node->y.shape.n);
  backend->ops->conv_gradient(backend, &node->gradient, &node->dy, &node->x[0], &conv);
  if (!node->dx[0].data) return;
  const NitiTensor *mask = node->gate == NITI_GATE_INPUT ? &node->x[0] : NULL;
  backend->ops->conv_backward(backend, &node->dx[0], &node->dy, &node->weight, mask, &conv, &node->backward_rq);
}
