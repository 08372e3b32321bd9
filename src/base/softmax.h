/* Integer softmax cross-entropy: the maths of one class, inline, shared by every backend (C and CUDA): docs/arithmetic.md,
 * "Loss". */
#ifndef NITI_BASE_SOFTMAX_H
#define NITI_BASE_SOFTMAX_H

#include "base/fixed.h"

enum {
  NITI_LOSS_LOG2_E = 94548,    /* log2(e), 16 fraction bits */
  NITI_LOSS_FRACTION = 65535,  /* the 16 fraction bits of t and d */
  NITI_LOSS_RANGE = 10,        /* loss `niti`: bits below the largest logit that still count */
  NITI_LOSS_BITS = 11,         /* loss `niti`: bits of the delta before it is rounded */
  NITI_LOSS_SHIFT = 4,         /* loss `niti`: bits removed by rounding */
  NITI_LOSS_SOFTMAX_BITS = 24, /* loss `softmax`: fraction bits of the delta */
  NITI_LOSS_EXP2_BITS = 30,
};

/* A logit in base 2 with 16 fraction bits. Never decreases with the mantissa, int8 or the sum of an image's and its mirror's. */
NITI_INLINE int64_t niti_loss_base2(int32_t mantissa, int32_t exponent) {
  const int64_t t = (int64_t)mantissa * NITI_LOSS_LOG2_E;
  if (exponent > 0) return t * ((int64_t)1 << (exponent > 16 ? 16 : exponent));
  return t >> (exponent < -40 ? 40 : -exponent);
}

/* d <= 0 -> 2^d, 30 fraction bits. */
NITI_INLINE uint64_t niti_loss_weight_softmax(int64_t d) {
  const int64_t whole = -(d >> 16);
  return (uint64_t)niti_exp2_frac_inline((uint32_t)(d & NITI_LOSS_FRACTION)) >> (whole > 31 ? 31 : whole);
}

/* d <= 0 -> 2^(d + 10) - 1, at least 0, 16 fraction bits. */
NITI_INLINE uint64_t niti_loss_weight_niti(int64_t d) {
  const int64_t s = d + ((int64_t)NITI_LOSS_RANGE << 16);
  if (s <= 0) return 0;
  return (niti_exp2_frac_inline((uint32_t)(s & NITI_LOSS_FRACTION)) >> (NITI_LOSS_EXP2_BITS - 16 - (s >> 16))) - 65536;
}

/* What smoothed labels expect, at exponent -24: of the target's class, and of every other. */
NITI_INLINE int32_t niti_loss_off(int64_t smoothing_billionths, int32_t classes) {
  return (int32_t)((smoothing_billionths << NITI_LOSS_SOFTMAX_BITS) / ((int64_t)1000000000 * classes));
}
NITI_INLINE int32_t niti_loss_on(int32_t off, int32_t classes) { return (1 << NITI_LOSS_SOFTMAX_BITS) - (classes - 1) * off; }

/* Loss `softmax`: the delta's accumulator at exponent -24 for a class with weight p. */
NITI_INLINE int32_t niti_loss_acc_softmax(uint64_t p, uint64_t sum, int32_t expected) {
  return (int32_t)((p << NITI_LOSS_SOFTMAX_BITS) / sum) - expected;
}

/* Loss `niti`: g of a class with weight p; for the target class the caller still subtracts the sum of all g. */
NITI_INLINE int64_t niti_loss_share_niti(uint64_t p, uint64_t sum) { return (int64_t)((p << NITI_LOSS_BITS) / sum); }

/* Loss `niti`: converts g to the delta at exponent 0. */
NITI_INLINE int8_t niti_loss_round_niti(int64_t g, uint32_t word) {
  return niti_clip8(niti_round_inline(g, NITI_LOSS_SHIFT, NITI_STOCHASTIC, word));
}

/* Cross-entropy in bits, 16 fraction bits, from the sum of the weights `softmax` and the target's d. */
NITI_INLINE int64_t niti_loss_bits(uint64_t sum, int64_t d) {
  return niti_log2_inline(sum) - ((int64_t)NITI_LOSS_EXP2_BITS << 16) - d;
}

#endif
