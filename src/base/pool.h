/* Average pooling's division, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Layers". */
#ifndef NITI_BASE_POOL_H
#define NITI_BASE_POOL_H

#include "base/round.h"

enum { NITI_RECIPROCAL_BITS = 15 };

/* A sum over cells divided by them: sum * factor at `exponent` more. The factor is 1 where the cells are a power of two. */
typedef struct NitiReciprocal {
  int32_t factor, exponent;
} NitiReciprocal;

/* 1 <= cells <= 2^15. */
NITI_INLINE NitiReciprocal niti_reciprocal(int32_t cells) {
  const bool power = (cells & (cells - 1)) == 0;
  const NitiReciprocal r = {power ? 1 : ((1 << NITI_RECIPROCAL_BITS) + cells / 2) / cells,
                            power ? -niti_bits_inline((uint64_t)cells) : -NITI_RECIPROCAL_BITS};
  return r;
}

#endif
