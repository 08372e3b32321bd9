/* What convolution and linear share: both are sums of products of their input and weights, one as windows, one as a 1x1 window.
 */
#ifndef NITI_LAYER_PRODUCT_H
#define NITI_LAYER_PRODUCT_H

#include "layer/layer.h"

/* The layer's convolution for n images. */
NitiConv niti_product_conv(const NitiNode *node, int32_t n);
size_t niti_product_workspace(const NitiNode *node, const NitiBackend *backend);
size_t niti_product_packed(const NitiNode *node, const NitiBackend *backend);
const char *niti_product_kernel(const NitiNode *node, const NitiBackend *backend, const char *direction);
int64_t niti_product_multiply_adds(const NitiNode *node);
NitiGate niti_product_gate(const NitiNode *node);
void niti_product_forward(NitiNode *node, NitiBackend *backend);
void niti_product_backward(NitiNode *node, NitiBackend *backend);

#endif
