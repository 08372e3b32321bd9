/* A bias at its accumulators' exponent, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Layers". */
#ifndef NITI_BASE_BIAS_H
#define NITI_BASE_BIAS_H

#include "base/round.h"

enum { NITI_BIAS_BITS = 29 }; /* |bias| <= 2^29 */

/* b * 2^d: nearest where d is negative, clipped to 2^NITI_BIAS_BITS in magnitude. b: an int16. */
NITI_INLINE int32_t niti_bias_at(int32_t b, int32_t d) {
  const int64_t most = (int64_t)1 << NITI_BIAS_BITS;
  if (b == 0 || d < -16) return 0;
  if (d < 0) return (int32_t)niti_round_inline(b, -d, NITI_NEAREST, 0);
  const int64_t v = d > NITI_BIAS_BITS ? (b < 0 ? -most : most) : (int64_t)b * ((int64_t)1 << d);
  return (int32_t)(v > most ? most : v < -most ? -most : v);
}

#endif
