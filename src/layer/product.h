/* What convolution and linear share: both lower to the product operations, linear as a 1x1 window over 1x1 images. */
#ifndef NITI_LAYER_PRODUCT_H
#define NITI_LAYER_PRODUCT_H

#include "layer/layer.h"

void niti_product_forward(NitiLowering *, NitiLayer *);
void niti_product_backward(NitiLowering *, const NitiLayer *, int32_t dy, const bool *wanted, int32_t *dx);

#endif
