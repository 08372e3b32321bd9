/* The residual addition's common exponent, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Layers". */
#ifndef NITI_BASE_ALIGN_H
#define NITI_BASE_ALIGN_H

#include "base/round.h"

enum {
  NITI_ALIGN_LEFT_MAX = 15, /* of the operand with the larger exponent; beyond, the other is shifted right */
  NITI_ALIGN_RIGHT_MAX = 8, /* (127 + 2^7) >> 8 = 0: from here on it contributes nothing */
};

/* Accumulator: (large << left) + nearest(small, right) at `exponent`. right is 0 unless left is NITI_ALIGN_LEFT_MAX. */
typedef struct NitiAlignment {
  bool a_larger; /* operand a has the larger exponent, or the same */
  int32_t left, right, exponent;
} NitiAlignment;

NITI_INLINE NitiAlignment niti_align(int32_t e_a, int32_t e_b) {
  const bool a_larger = e_a >= e_b;
  const int64_t large = a_larger ? e_a : e_b, small = a_larger ? e_b : e_a, d = large - small, rest = d - NITI_ALIGN_LEFT_MAX;
  const bool far = rest > 0;
  const NitiAlignment r = {a_larger, far ? NITI_ALIGN_LEFT_MAX : (int32_t)d,
                           !far                          ? 0
                           : rest > NITI_ALIGN_RIGHT_MAX ? NITI_ALIGN_RIGHT_MAX
                                                         : (int32_t)rest,
                           (int32_t)(far ? large - NITI_ALIGN_LEFT_MAX : small)};
  return r;
}

/* The accumulator of two mantissas. */
NITI_INLINE int32_t niti_align_sum(int32_t large, int32_t small, int32_t left, int32_t right) {
  if (right > 0) {
    const int32_t magnitude = ((small < 0 ? -small : small) + (1 << (right - 1))) >> right;
    small = small < 0 ? -magnitude : magnitude;
  }
  return (int32_t)((uint32_t)large << left) + small;
}

#endif
