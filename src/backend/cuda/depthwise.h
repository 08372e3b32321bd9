/* The grouped family's way with depthwise windows of 3 by 3 (depthwise.cu). Each returns false, and does nothing, where the
 * shape, the rounding or the memory is not its own. */
#ifndef NITI_BACKEND_CUDA_DEPTHWISE_H
#define NITI_BACKEND_CUDA_DEPTHWISE_H

#include "backend/cuda/cuda.h"

/* Forward, or backward to the input. mask: NULL, or where it is not positive out becomes 0. bias: forward, NULL or what is added
 * to each channel's accumulators, aligned to 16 bytes. */
bool niti_depthwise_pass(NitiCuda *, NitiTensor *out, const NitiTensor *in, const NitiTensor *w, const NitiTensor *mask,
                         const int32_t *bias, const NitiConv *, bool backward, bool relu, const NitiRequantise *);
/* Adds to the gradient. */
bool niti_depthwise_gradient(NitiCuda *, NitiGradient *, const NitiTensor *dy, const NitiTensor *x, const NitiConv *);

#endif
