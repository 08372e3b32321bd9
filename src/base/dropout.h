/* Dropout's threshold and scale, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Layers". */
#ifndef NITI_BASE_DROPOUT_H
#define NITI_BASE_DROPOUT_H

#include "base/round.h"

enum {
  NITI_DROPOUT_BITS = 15,
  NITI_DROPOUT_WHOLE = 1 << NITI_DROPOUT_BITS, /* the factor that leaves mantissas as they are */
  NITI_MILLION = 1000000,
};

/* A value stays where its random word is at least the threshold, as nearest(m * factor, 15) at `exponent` more. */
typedef struct NitiDropoutScale {
  uint32_t threshold;
  int32_t factor; /* 2^14 to 2^15 */
  int32_t exponent;
} NitiDropoutScale;

/* rate in millionths, 0 to 999999. */
NITI_INLINE NitiDropoutScale niti_dropout_scale(int32_t rate) {
  const int64_t kept = NITI_MILLION - rate;
  int k = 0;
  while (kept << k < NITI_MILLION) ++k;
  const int64_t numerator = (int64_t)NITI_MILLION << NITI_DROPOUT_BITS, denominator = kept << k;
  const NitiDropoutScale s = {(uint32_t)((((uint64_t)rate << 32) + NITI_MILLION / 2) / NITI_MILLION),
                              (int32_t)((2 * numerator + denominator) / (2 * denominator)), k};
  return s;
}

/* Of a value that stays; |m| <= 127. */
NITI_INLINE int32_t niti_dropout_scaled(int32_t m, int32_t factor) {
  const int32_t magnitude = ((m < 0 ? -m : m) * factor + NITI_DROPOUT_WHOLE / 2) >> NITI_DROPOUT_BITS;
  return m < 0 ? -magnitude : magnitude;
}

#endif
