/* The limit of a clipped ReLU, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Layers". */
#ifndef NITI_BASE_RELU_H
#define NITI_BASE_RELU_H

#include "base/round.h"

enum { NITI_RELU_UNLIMITED = NITI_MANTISSA_MAX + 1 };

/* The mantissa nearest to a maximum in millionths, at most 2 * 10^9, at this exponent; NITI_RELU_UNLIMITED where it is beyond the
 * mantissas, or the maximum is 0: none. */
NITI_INLINE int32_t niti_relu_limit(int32_t max, int32_t exponent) {
  const int64_t million = 1000000, twice = (int64_t)2 * max;
  if (max == 0 || exponent < -30) return NITI_RELU_UNLIMITED; /* 2^31 millionths are 2147 */
  if (exponent > 12) return 0;
  /* (2 max + million 2^e) / (2 million 2^e), rounded down at 2^e first, which leaves a constant to divide by */
  const int64_t limit = ((exponent < 0 ? twice << -exponent : twice >> exponent) + million) / (2 * million);
  return limit > NITI_MANTISSA_MAX ? NITI_RELU_UNLIMITED : (int32_t)limit;
}

#endif
