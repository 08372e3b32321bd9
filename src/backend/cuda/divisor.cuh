/* Division by what is known when a kernel is launched. */
#ifndef NITI_BACKEND_CUDA_DIVISOR_CUH
#define NITI_BACKEND_CUDA_DIVISOR_CUH

#include <stdint.h>

/* Division of numbers below 2^31 by a divisor known on the host. */
struct NitiDivisor {
  uint32_t divisor, multiplier;
  int shift;
};

static inline NitiDivisor niti_divisor(uint32_t divisor) {
  int bits = 0;
  while (((uint64_t)1 << bits) < divisor) ++bits;
  return NitiDivisor{divisor, (uint32_t)((((uint64_t)1 << (31 + bits)) + divisor - 1) / divisor), 31 + bits};
}

#ifdef __CUDACC__

__device__ inline uint32_t niti_divide(const NitiDivisor &d, uint32_t t) {
  return (uint32_t)(((uint64_t)t * d.multiplier) >> d.shift);
}

#endif
#endif
