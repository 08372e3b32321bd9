/* Batch norm: from a channel's sums to the multipliers that an operation applies to every value of the channel. Inline, shared
 * by every backend (C and CUDA): docs/arithmetic.md, "Batch norm". */
#ifndef NITI_BASE_NORM_H
#define NITI_BASE_NORM_H

#include "base/scalar.h"

enum {
  NITI_NORM_COUNT_LOG2 = 24,      /* values per channel: at most 2^24 */
  NITI_NORM_FRACTION = 16,        /* fraction bits of an affine map's accumulators */
  NITI_NORM_FACTOR_MAX = 1 << 22, /* of an affine map's multipliers */
  NITI_NORM_OFFSET_MAX = 1 << 29, /* of its offsets */
  NITI_NORM_RUNNING_EXPONENT = -32,
  NITI_NORM_RUNNING_SHARE = 10,     /* a step's statistics enter the running ones by 1 / 10 */
  NITI_NORM_DEVIATIONS = 4,         /* an output's range: |weight| times that, plus |bias| */
  NITI_NORM_DELTA_RMS = 64,         /* a delta's range: its root mean square times that */
  NITI_NORM_GRADIENT_EXPONENT = -8, /* of a weight's gradient, relative to the deltas' exponent */
  NITI_NORM_QUIET = 1 << 20,        /* beyond any exponent of a scalar; taken off those of quiet channels' squares */
};

#define NITI_NORM_RUNNING_MAX ((int64_t)1 << 60) /* magnitude of a running statistic */

/* Sums over the count values of a channel, exact. */
typedef struct NitiNormSums {
  int64_t x, xx;
} NitiNormSums;

typedef struct NitiNormDeltaSums {
  int64_t d, dx, dd; /* of deltas; of deltas times x; of deltas squared */
} NitiNormDeltaSums;

/* y = round((factor * x + offset) / 2^NITI_NORM_FRACTION), clipped. */
typedef struct NitiAffine {
  int32_t factor, offset;
} NitiAffine;

/* dx = round((factor * delta + slope * x + offset) / 2^NITI_NORM_FRACTION), clipped. */
typedef struct NitiAffineDelta {
  int32_t factor, slope, offset;
} NitiAffineDelta;

/* Whether a < b, for scalars >= 0. */
NITI_INLINE bool niti_scalar_less(NitiScalar a, NitiScalar b) {
  if (a.m == 0 || b.m == 0) return b.m != 0;
  return a.e < b.e || (a.e == b.e && a.m < b.m);
}

/* How many values a channel has. */
typedef struct NitiNormCount {
  int64_t count;
  NitiScalarDivisor n, nn; /* count, and its square */
} NitiNormCount;

/* What is known of a channel: value = mantissa * 2^exponent of x. */
typedef struct NitiNormChannel {
  NitiScalar mean, variance;   /* in mantissas and their squares, without epsilon */
  NitiScalarDivisor deviation; /* sqrt(variance + epsilon) in mantissas */
  bool quiet;                  /* variance < epsilon */
} NitiNormChannel;

NITI_INLINE NitiNormCount niti_norm_count(int64_t count) {
  const NitiScalar n = niti_scalar(count, 0);
  const NitiNormCount c = {count, niti_scalar_divisor(n), niti_scalar_divisor(niti_scalar_mul(n, n))};
  return c;
}

/* 10^-5 in squares of mantissas: a constant that compilers compute. */
NITI_INLINE NitiScalar niti_norm_epsilon(int32_t exponent) {
  NitiScalar epsilon = niti_scalar_over(niti_scalar32(1, 0), niti_scalar_divisor(niti_scalar32(100000, 0)));
  epsilon.e -= 2 * exponent;
  return epsilon;
}

NITI_INLINE NitiNormChannel niti_norm_channel(NitiScalar mean, NitiScalar variance, int32_t exponent) {
  const NitiScalar epsilon = niti_norm_epsilon(exponent), deviation = niti_scalar_sqrt(niti_scalar_add(variance, epsilon));
  const NitiNormChannel c = {mean, variance, niti_scalar_divisor(deviation), niti_scalar_less(variance, epsilon)};
  return c;
}

/* count^2 times the variance; 0 <= result < 2^62. */
NITI_INLINE int64_t niti_norm_spread(NitiNormSums s, int64_t count) { return count * s.xx - s.x * s.x; }

/* Of the batch at hand; exponent: of x. */
NITI_INLINE NitiNormChannel niti_norm_batch(NitiNormSums s, const NitiNormCount *n, int32_t exponent) {
  const NitiScalar spread = niti_scalar(niti_norm_spread(s, n->count), 0);
  return niti_norm_channel(niti_scalar_over(niti_scalar(s.x, 0), n->n), niti_scalar_over(spread, n->nn), exponent);
}

/* From running statistics, at exponent NITI_NORM_RUNNING_EXPONENT. centred: x is measured from the running mean. */
NITI_INLINE NitiNormChannel niti_norm_running(int64_t mean, int64_t variance, int32_t exponent, bool centred) {
  return niti_norm_channel(niti_scalar(centred ? 0 : mean, NITI_NORM_RUNNING_EXPONENT - exponent),
                           niti_scalar(variance, NITI_NORM_RUNNING_EXPONENT - 2 * exponent), exponent);
}

/* q / NITI_NORM_RUNNING_SHARE to the nearest integer, ties away from zero. */
NITI_INLINE int64_t niti_norm_share(int64_t q) {
  const int64_t half = NITI_NORM_RUNNING_SHARE / 2;
  return (q < 0 ? q - half : q + half) / NITI_NORM_RUNNING_SHARE;
}

/* A running statistic after a step whose own is `now` (real units). */
NITI_INLINE int64_t niti_norm_run(int64_t running, NitiScalar now) {
  return running + niti_norm_share(niti_scalar_fixed(now, NITI_NORM_RUNNING_EXPONENT, NITI_NORM_RUNNING_MAX) - running);
}

/* A running mean after a step whose mean, measured from the running one, is `now`. */
NITI_INLINE int64_t niti_norm_run_centred(int64_t running, NitiScalar now) {
  const int64_t most = NITI_NORM_RUNNING_MAX;
  const int64_t moved = running + niti_norm_share(niti_scalar_fixed(now, NITI_NORM_RUNNING_EXPONENT, most));
  return moved > most ? most : moved < -most ? -most : moved;
}

/* What is added to a centred channel's accumulators, at their exponent; within +-2^NITI_BIAS_BITS. */
NITI_INLINE int32_t niti_norm_centre(int64_t mean, int32_t exponent) {
  return (int32_t)-niti_scalar_fixed(niti_scalar(mean, NITI_NORM_RUNNING_EXPONENT), exponent, NITI_NORM_OFFSET_MAX);
}

/* Whether running[2][channels] can be what training left. */
NITI_INLINE bool niti_norm_are_running(const int64_t *running, int32_t channels) {
  for (int64_t i = 0; i < 2 * (int64_t)channels; ++i) {
    const int64_t least = i < channels ? -NITI_NORM_RUNNING_MAX : 0;
    if (running[i] < least || running[i] > NITI_NORM_RUNNING_MAX) return false;
  }
  return true;
}

/* The range of a channel's output: what the tensor's exponent has to hold. */
NITI_INLINE NitiScalar niti_norm_range(int16_t weight, int32_t weight_exponent, int16_t bias, int32_t bias_exponent) {
  const int32_t w = weight < 0 ? -weight : weight, b = bias < 0 ? -bias : bias;
  return niti_scalar_add(niti_scalar32(NITI_NORM_DEVIATIONS * w, weight_exponent), niti_scalar32(b, bias_exponent));
}

/* The least exponent at which 127 mantissas hold the range; 0 for no range. */
NITI_INLINE int32_t niti_norm_exponent(NitiScalar range) {
  const int32_t most = NITI_MANTISSA_MAX << 24; /* 2^30 < most < 2^31 */
  if (range.m == 0) return 0;
  return range.e + 24 + (range.m > most ? 1 : 0);
}

/* Forward: weight (x - mean) / deviation + bias at exponent y_exponent. */
NITI_INLINE NitiAffine niti_norm_affine(const NitiNormChannel *c, int16_t weight, int32_t weight_exponent, int16_t bias,
                                        int32_t bias_exponent, int32_t y_exponent) {
  const int32_t unit = y_exponent - NITI_NORM_FRACTION;
  const NitiScalar factor = niti_scalar_over(niti_scalar32(weight, weight_exponent), c->deviation);
  NitiAffine a;
  a.factor = (int32_t)niti_scalar_fixed(factor, unit, NITI_NORM_FACTOR_MAX);
  a.offset = (int32_t)(niti_scalar_fixed(niti_scalar32(bias, bias_exponent), unit, NITI_NORM_OFFSET_MAX) -
                       niti_scalar_fixed(niti_scalar_mul(niti_scalar32(a.factor, 0), c->mean), 0, NITI_NORM_OFFSET_MAX));
  return a;
}

/* count^2 times the covariance of deltas and x; its magnitude is below 2^62. */
NITI_INLINE int64_t niti_norm_covariance(NitiNormSums s, NitiNormDeltaSums t, int64_t count) { return count * t.dx - s.x * t.d; }

/* What backward multiplies with, before the deltas' range is known. */
typedef struct NitiNormDelta {
  NitiScalar factor; /* weight / deviation */
  NitiScalar slope;  /* covariance / (variance + epsilon) */
  NitiScalar mean;   /* of the deltas */
  NitiScalar square; /* the mean square of the channel's results; of a quiet channel with its exponent NITI_NORM_QUIET lower */
} NitiNormDelta;

NITI_INLINE NitiNormDelta niti_norm_delta(const NitiNormChannel *c, NitiNormSums s, NitiNormDeltaSums t, const NitiNormCount *n,
                                          int16_t weight, int32_t weight_exponent) {
  const NitiScalar covariance = niti_scalar_over(niti_scalar(niti_norm_covariance(s, t, n->count), 0), n->nn);
  const NitiScalar power = niti_scalar_mul(c->deviation.of, c->deviation.of);
  const NitiScalar spread = niti_scalar_over(niti_scalar(n->count * t.dd - t.d * t.d, 0), n->nn);
  NitiNormDelta d;
  d.factor = niti_scalar_over(niti_scalar32(weight, weight_exponent), c->deviation);
  d.slope = niti_scalar_over(covariance, niti_scalar_divisor(power));
  d.mean = niti_scalar_over(niti_scalar(t.d, 0), n->n);
  /* the mean of (delta - mean - slope (x - its mean))^2 = spread - 2 slope covariance + slope^2 variance */
  const NitiScalar cross = niti_scalar_mul(d.slope, covariance), twice = {-cross.m, cross.e + (cross.m != 0)};
  NitiScalar square = niti_scalar_add(spread, twice);
  square = niti_scalar_add(square, niti_scalar_mul(niti_scalar_mul(d.slope, d.slope), c->variance));
  d.square = niti_scalar_mul(niti_scalar_mul(d.factor, d.factor), square);
  if (d.square.m < 0) d.square = niti_scalar32(0, 0);
  if (c->quiet && d.square.m != 0) d.square.e -= NITI_NORM_QUIET; /* beside any other square it is nothing */
  return d;
}

/* The sum of many squares, which does not depend on their order: mantissas shifted to the largest exponent. */
typedef struct NitiSquares {
  int64_t sum;
  int32_t exponent;
} NitiSquares;

enum { NITI_SQUARES_NONE = INT32_MIN }; /* the exponent before any square that is not 0 */

NITI_INLINE int32_t niti_squares_exponent(int32_t exponent, NitiScalar square) {
  return square.m != 0 && square.e > exponent ? square.e : exponent;
}

NITI_INLINE int64_t niti_squares_share(int32_t exponent, NitiScalar square) {
  return square.m == 0 || exponent - square.e > 30 ? 0 : square.m >> (exponent - square.e);
}

/* The exponent of backward's results, relative to the deltas', from their squares over all channels. */
NITI_INLINE int32_t niti_norm_delta_exponent(NitiSquares s, NitiScalarDivisor channels) {
  if (s.sum == 0) return 0;
  if (s.exponent < -NITI_NORM_QUIET / 2) s.exponent += NITI_NORM_QUIET; /* of quiet channels alone */
  const NitiScalar root = niti_scalar_sqrt(niti_scalar_over(niti_scalar(s.sum, s.exponent), channels));
  return niti_norm_exponent(niti_scalar_mul(niti_scalar32(NITI_NORM_DELTA_RMS, 0), root));
}

/* Backward: factor (delta - mean - slope (x - x's mean)), in units of 2^unit relative to the deltas' exponent. */
NITI_INLINE NitiAffineDelta niti_norm_affine_delta(const NitiNormDelta *d, const NitiNormChannel *c, int32_t unit) {
  const NitiScalar slope = niti_scalar_neg(niti_scalar_mul(d->factor, d->slope));
  NitiAffineDelta a;
  a.factor = (int32_t)niti_scalar_fixed(d->factor, unit, NITI_NORM_FACTOR_MAX);
  a.slope = (int32_t)niti_scalar_fixed(slope, unit, NITI_NORM_FACTOR_MAX);
  const NitiScalar offset =
      niti_scalar_add(niti_scalar_mul(niti_scalar32(a.factor, 0), d->mean), niti_scalar_mul(niti_scalar32(a.slope, 0), c->mean));
  a.offset = (int32_t)-niti_scalar_fixed(offset, 0, NITI_NORM_OFFSET_MAX);
  return a;
}

/* The gradient of a channel's weight, at NITI_NORM_GRADIENT_EXPONENT relative to the deltas' exponent. (The bias's is t.d.) */
NITI_INLINE int64_t niti_norm_gradient(const NitiNormChannel *c, NitiNormSums s, NitiNormDeltaSums t, const NitiNormCount *n) {
  const NitiScalar sum = niti_scalar_over(niti_scalar(niti_norm_covariance(s, t, n->count), 0), n->n);
  return niti_scalar_fixed(niti_scalar_over(sum, c->deviation), NITI_NORM_GRADIENT_EXPONENT, (int64_t)1 << 60);
}

#endif
