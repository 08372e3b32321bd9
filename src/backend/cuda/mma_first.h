/* The mma family's way with small windows (mma_first.cu). */
#ifndef NITI_BACKEND_CUDA_MMA_FIRST_H
#define NITI_BACKEND_CUDA_MMA_FIRST_H

#include "backend/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

bool niti_mma_first_serves(const NitiConv *);
int64_t niti_mma_first_time(const NitiConv *); /* picoseconds, as expected on an H200 */
void niti_mma_first(NitiCuda *, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const int32_t *bias, const NitiConv *,
                    bool relu, const NitiRequantise *);

#ifdef __cplusplus
}
#endif

#endif
