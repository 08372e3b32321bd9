/* The mma family's way with input channels so few that windows begin anywhere in memory (mma_few.cu). */
#ifndef NITI_BACKEND_CUDA_MMA_FEW_H
#define NITI_BACKEND_CUDA_MMA_FEW_H

#include "backend/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of mma_first.cu, which is preferred where it serves, or this: whether either serves, and in how many picoseconds it is expected
 * to on an H200; INT64_MAX: it does not, or not as fast as others. */
bool niti_mma_windows_serve(const NitiConv *);
int64_t niti_mma_windows_time(const NitiConv *, int multiprocessors);
void niti_mma_few(NitiCuda *, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const int32_t *bias, const NitiConv *,
                  bool relu, const NitiRequantise *);

#ifdef __cplusplus
}
#endif

#endif
