/* What convolution and linear share: both lower to the product operations, linear as a 1x1 window over 1x1 images. */
#ifndef NITI_LAYER_PRODUCT_H
#define NITI_LAYER_PRODUCT_H

#include "layer/layer.h"

void niti_product_forward(NitiLowering *, NitiLayer *);
void niti_product_backward(NitiLowering *, const NitiLayer *, int32_t dy, const bool *wanted, int32_t *dx);
/* Lets the product that makes a layer's output y subtract the running means of a norm, which alone reads y. The norm's statistics
 * are declared behind the product, so this completes a record that stands already. Returns whether the product does: not where it
 * has a bias or no room for one, or where y is no product. */
bool niti_product_centre(NitiLowering *, int32_t layer, int32_t y, int32_t running);

#endif
