/* Updates `sgd` and `niti16` of one weight, inline, shared by every backend (C and CUDA): docs/arithmetic.md has both. They
 * differ in what a gradient is worth alone.
 *
 * Momentum with or without Nesterov's look-ahead (I. Sutskever et al., "On the importance of initialization and momentum in deep
 * learning", ICML 2013) and weight decay, in the form of PyTorch's torch.optim.SGD, at the gradient's true scale. */
#ifndef NITI_BASE_SGD_H
#define NITI_BASE_SGD_H

#include "base/random.h"
#include "base/scalar.h"

enum {
  NITI_SGD_UNITS = 1000000000,                     /* hyperparameters are bound in billionths */
  NITI_SGD_FRACTION = 14,                          /* fraction bits before stochastic rounding */
  NITI_SGD_GRADIENT_BITS = 30,                     /* to which the largest gradient is scaled */
  NITI_SGD_OPERAND_SHIFT = 8,                      /* from a weight to its int8 operand */
  NITI_SGD_SHIFT_MIN = 7 - NITI_SGD_GRADIENT_BITS, /* normalised: sums of 7 bits and fewer count as they are */
  NITI_SGD_VELOCITY_MAX = INT16_MAX,
  NITI_SGD_WEIGHT_MAX = 127 * 256, /* its int8 rounding is at most 127 */
  NITI_SGD_WEIGHT_HIGH = 32000,    /* where one weight in NITI_SGD_HIGH_SHARE is larger, the weights' exponent rises */
  NITI_SGD_WEIGHT_LOW = 14000,     /* where fewer than one in NITI_SGD_LOW_SHARE is larger, it falls */
  NITI_SGD_HIGH_SHARE = 256,
  NITI_SGD_LOW_SHARE = 1024,
  NITI_SGD_EXPONENT_MIN = -1024, /* a velocity that has decayed beyond it stays as it is */
};

typedef struct NitiSgdSettings {
  int64_t rate, momentum, decay; /* billionths; rate, decay >= 0, 0 <= momentum < 10^9 */
  int64_t images;                /* of the batch: the gradient is their mean */
  bool nesterov;
  bool normalised; /* update `niti16`: each tensor's gradient is scaled to its own largest; `images` does not count */
  NitiScalar clip; /* multiplies the gradient; 0: nothing does */
} NitiSgdSettings;

/* What is known of one tensor's operands before the update: the largest magnitudes, how many weights lie beyond a limit, and
 * the exponents. */
typedef struct NitiSgdTensor {
  uint64_t gradient_max;
  uint64_t count, above_low, above_high; /* weights in all, and beyond NITI_SGD_WEIGHT_LOW and NITI_SGD_WEIGHT_HIGH */
  uint32_t velocity_max, weight_max;
  int32_t gradient_exponent, velocity_exponent, weight_exponent;
} NitiSgdTensor;

/* What all weights of a tensor share in one step. */
typedef struct NitiSgd {
  NitiScalar rate, momentum;                  /* momentum: without unit */
  NitiScalar gradient, decay, velocity;       /* of one unit of the scaled gradient, of a weight and of a velocity */
  int32_t gradient_shift;                     /* to the right; negative: to the left */
  int32_t unit;                               /* the exponent of sums before rounding: the new velocity's - NITI_SGD_FRACTION */
  int32_t weight_shift;                       /* of an old weight to new ones with NITI_SGD_FRACTION bits, to the left */
  int32_t velocity_exponent, weight_exponent; /* after the step */
  bool nesterov, idle;                        /* idle: nothing changes */
} NitiSgd;

NITI_INLINE NitiScalar niti_sgd_ratio(int64_t billionths) {
  return niti_scalar_div(niti_scalar(billionths, 0), niti_scalar(NITI_SGD_UNITS, 0));
}

/* A few outliers are clipped rather than that all other weights lose a bit. */
NITI_INLINE int32_t niti_sgd_weight_exponent(const NitiSgdTensor *t) {
  if (t->above_high * NITI_SGD_HIGH_SHARE > t->count) return t->weight_exponent + 1;
  return t->weight_max > 0 && t->above_low * NITI_SGD_LOW_SHARE < t->count ? t->weight_exponent - 1 : t->weight_exponent;
}

NITI_INLINE int32_t niti_sgd_gradient_shift(uint64_t max, bool normalised) {
  const int32_t shift = niti_bits_inline(max) - NITI_SGD_GRADIENT_BITS;
  if (max == 0) return 0;
  return normalised && shift < NITI_SGD_SHIFT_MIN ? NITI_SGD_SHIFT_MIN : shift;
}

/* What one unit of the scaled gradient is worth; of a normalised one 2^NITI_SGD_GRADIENT_BITS are one step of the int8 operand.
 */
NITI_INLINE NitiScalar niti_sgd_gradient_unit(const NitiSgdTensor *t, const NitiSgdSettings *s, int32_t shift) {
  if (s->normalised) return niti_scalar(1, t->weight_exponent + NITI_SGD_OPERAND_SHIFT - NITI_SGD_GRADIENT_BITS);
  const NitiScalar unit = niti_scalar_div(niti_scalar(1, t->gradient_exponent + shift), niti_scalar(s->images, 0));
  return s->clip.m != 0 ? niti_scalar_mul(unit, s->clip) : unit;
}

NITI_INLINE NitiSgd niti_sgd(const NitiSgdTensor *t, const NitiSgdSettings *s) {
  NitiSgd u;
  u.nesterov = s->nesterov;
  u.rate = niti_sgd_ratio(s->rate);
  u.momentum = niti_sgd_ratio(s->momentum);
  u.gradient_shift = niti_sgd_gradient_shift(t->gradient_max, s->normalised);
  u.gradient = niti_sgd_gradient_unit(t, s, u.gradient_shift);
  u.decay = niti_sgd_ratio(s->decay);
  u.decay.e += u.decay.m == 0 ? 0 : t->weight_exponent - (s->normalised ? 7 : 0); /* 2^15 units: one step of the operand */
  u.velocity = u.momentum;
  u.velocity.e += u.velocity.m == 0 ? 0 : t->velocity_exponent;
  /* no new velocity is larger than this, but for the truncation of scalars */
  NitiScalar bound = niti_scalar_mul(u.velocity, niti_scalar(t->velocity_max, 0));
  if (t->gradient_max > 0) bound = niti_scalar_add(bound, niti_scalar_mul(u.gradient, niti_scalar(1, NITI_SGD_GRADIENT_BITS)));
  bound = niti_scalar_add(bound, niti_scalar_mul(u.decay, niti_scalar(t->weight_max, 0)));
  u.velocity_exponent = bound.e + 16; /* bound < 2^(31 + e), and a velocity has 15 bits */
  u.idle = bound.m == 0 || u.velocity_exponent < NITI_SGD_EXPONENT_MIN;
  u.unit = u.velocity_exponent - NITI_SGD_FRACTION;
  u.weight_exponent = s->normalised ? t->weight_exponent : niti_sgd_weight_exponent(t);
  u.weight_shift = NITI_SGD_FRACTION + t->weight_exponent - u.weight_exponent;
  return u;
}

/* |x| < 2^62 rounded to a multiple of 2^NITI_SGD_FRACTION and divided by it; bits: as many random bits. */
NITI_INLINE int32_t niti_sgd_round(int64_t x, uint32_t bits, int32_t most) {
  const uint64_t magnitude = niti_magnitude64(x), rest = magnitude & ((1u << NITI_SGD_FRACTION) - 1);
  const uint64_t q = (magnitude >> NITI_SGD_FRACTION) + (bits < rest ? 1u : 0u);
  const int32_t clipped = q > (uint64_t)most ? most : (int32_t)q;
  return x < 0 ? -clipped : clipped;
}

/* A gradient at 30 bits. */
NITI_INLINE int64_t niti_sgd_scaled(int64_t g, int32_t shift) {
  if (shift <= 0) return g * ((int64_t)1 << -shift);
  return niti_round_inline(g, shift, NITI_NEAREST, 0);
}

/* One weight and its velocity after the step, which must not be idle. */
NITI_INLINE void niti_sgd_weight(int16_t *weight, int16_t *velocity, int64_t g, uint32_t word, const NitiSgd *u) {
  const int64_t scaled = niti_sgd_scaled(g, u->gradient_shift);
  const int64_t slope = niti_scalar_times(scaled, u->gradient, u->unit) + niti_scalar_times(*weight, u->decay, u->unit);
  const int64_t v = slope + niti_scalar_times(*velocity, u->velocity, u->unit);
  const int64_t d = u->nesterov ? slope + niti_scalar_times(v, u->momentum, 0) : v;
  const int64_t step = niti_scalar_times(d, u->rate, u->weight_exponent - NITI_SGD_FRACTION - u->unit);
  const int64_t w = *weight * ((int64_t)1 << u->weight_shift) - step;
  *velocity = (int16_t)niti_sgd_round(v, (word & 0xffff) >> 2, NITI_SGD_VELOCITY_MAX);
  *weight = (int16_t)niti_sgd_round(w, word >> 18, NITI_SGD_WEIGHT_MAX);
}

/* ---- the same with factors of 32 bits, made once per tensor ---- */

/* niti_scalar_times(x, a, e) as (x * m + half) >> shift. */
typedef struct NitiSgdTerm {
  int64_t half;
  int32_t m, shift;
} NitiSgdTerm;

typedef struct NitiSgdTerms {
  NitiSgdTerm gradient, decay, velocity, momentum, rate;
  int32_t gradient_shift, weight_shift;
  bool nesterov, idle;
} NitiSgdTerms;

/* 0 where the shift would be to the left. */
NITI_INLINE NitiSgdTerm niti_sgd_term(NitiScalar a, int32_t e) {
  const int32_t shift = e - a.e;
  NitiSgdTerm t = {0, 0, 0};
  if (shift < 0 || shift > 62) return t;
  t.half = shift > 0 ? (int64_t)1 << (shift - 1) : 0;
  t.m = a.m;
  t.shift = shift;
  return t;
}

/* Gradients, weights and velocities shift to the left only where all of the tensor's are 0, as the unit is at least the bound's
 * scale / 2^29; the momentum is below 1. A rate that shifts to the left takes every weight that moves to its limit, and so does
 * a factor of 2^31 - 1: |weight| * 2^weight_shift <= 2^30. */
NITI_INLINE NitiSgdTerms niti_sgd_terms(const NitiSgd *u) {
  const int32_t unit = u->weight_exponent - NITI_SGD_FRACTION - u->unit;
  NitiSgdTerms t;
  t.gradient = niti_sgd_term(u->gradient, u->unit);
  t.decay = niti_sgd_term(u->decay, u->unit);
  t.velocity = niti_sgd_term(u->velocity, u->unit);
  t.momentum = niti_sgd_term(u->momentum, 0);
  t.rate = niti_sgd_term(u->rate, unit);
  if (u->rate.m != 0 && unit < u->rate.e) t.rate.m = INT32_MAX;
  t.gradient_shift = u->gradient_shift;
  t.weight_shift = u->weight_shift;
  t.nesterov = u->nesterov;
  t.idle = u->idle;
  return t;
}

NITI_INLINE int64_t niti_sgd_times(int32_t x, const NitiSgdTerm *t) {
#if defined(__CUDA_ARCH__) /* one instruction: nvcc would widen the factors first */
  int64_t sum;
  asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(sum) : "r"(x), "r"(t->m), "l"(t->half));
#else
  const int64_t sum = (int64_t)x * t->m + t->half;
#endif
  return sum >> t->shift;
}

/* niti_sgd_scaled, which fits in 31 bits: where the shift is not to the right g does too. */
NITI_INLINE int32_t niti_sgd_scaled32(int64_t g, int32_t shift) {
  if (shift <= 0) return (int32_t)((uint32_t)g << -shift);
  const int32_t scaled = (int32_t)((niti_magnitude64(g) + ((uint64_t)1 << (shift - 1))) >> shift);
  return g < 0 ? -scaled : scaled;
}

/* niti_sgd_round of what 32 bits hold. others: the random bits, each the other way round, so that their sum with the magnitude
 * carries where the bits are less than its rest. */
NITI_INLINE int32_t niti_sgd_round32(int32_t x, uint32_t others, int32_t most) {
  const uint32_t q = (niti_magnitude32(x) + others) >> NITI_SGD_FRACTION;
  const int32_t clipped = q > (uint32_t)most ? most : (int32_t)q;
  return x < 0 ? -clipped : clipped;
}

/* niti_sgd_weight: all sums but the weight's are below 2^31, and beyond 2^29 a weight is at its limit. */
NITI_INLINE void niti_sgd_move(int16_t *weight, int16_t *velocity, int64_t g, uint32_t word, const NitiSgdTerms *t) {
  const int32_t scaled = niti_sgd_scaled32(g, t->gradient_shift);
  const int32_t slope = (int32_t)niti_sgd_times(scaled, &t->gradient) + (int32_t)niti_sgd_times(*weight, &t->decay);
  const int32_t v = slope + (int32_t)niti_sgd_times(*velocity, &t->velocity);
  const int32_t d = t->nesterov ? slope + (int32_t)niti_sgd_times(v, &t->momentum) : v;
  const int64_t w = *weight * (1 << t->weight_shift) - niti_sgd_times(d, &t->rate);
  const int32_t low = (int32_t)w, high = (int32_t)(w >> 32), clipped = high == low >> 31 ? low : high >> 31 ^ INT32_MAX;
  *velocity = (int16_t)niti_sgd_round32(v, (~word & 0xffff) >> 2, NITI_SGD_VELOCITY_MAX);
  *weight = (int16_t)niti_sgd_round32(clipped, ~word >> 18, NITI_SGD_WEIGHT_MAX);
}

/* The int8 operand of a weight, 8 bits above its exponent. */
NITI_INLINE int8_t niti_sgd_operand(int16_t weight) {
  const int32_t magnitude = weight < 0 ? -weight : weight, m = (magnitude + 128) >> 8;
  return (int8_t)(weight < 0 ? -m : m);
}

#endif
