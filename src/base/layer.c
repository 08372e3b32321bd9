/* What layers add to sums of products and largest values, for niti.h: docs/arithmetic.md, "Layers". */
#include "base/align.h"
#include "base/bias.h"
#include "base/dropout.h"
#include "base/pool.h"
#include "base/relu.h"

enum { EXPONENT_MAX = 1024 };

static bool is_exponent(int32_t e) { return e >= -EXPONENT_MAX && e <= EXPONENT_MAX; }

int32_t niti_bias_align(int16_t bias, int32_t bias_exponent, int32_t exponent) {
  return is_exponent(bias_exponent) && is_exponent(exponent) ? niti_bias_at(bias, bias_exponent - exponent) : 0;
}

void niti_bias_gradient(int64_t *gradient, const int8_t *delta, int64_t count, int32_t channels) {
  if (!gradient || !delta || count < 1 || count > (int64_t)1 << 31 || channels < 1) return;
  for (int32_t c = 0; c < channels; ++c) {
    gradient[c] = 0;
    for (int64_t i = 0; i < count; ++i) gradient[c] += delta[i * channels + c];
  }
}

int32_t niti_relu_top(int32_t millionths, int32_t exponent) { return millionths < 0 ? 0 : niti_relu_limit(millionths, exponent); }

void niti_avgpool_factor(int32_t *factor, int32_t *exponent, int32_t cells) {
  if (!factor || !exponent || cells < 1 || cells > 1 << NITI_RECIPROCAL_BITS) return;
  const NitiReciprocal r = niti_reciprocal(cells);
  *factor = r.factor;
  *exponent = r.exponent;
}

static bool is_rate(int32_t rate) { return rate >= 0 && rate < NITI_MILLION; }

void niti_dropout_factor(uint32_t *threshold, int32_t *factor, int32_t *exponent, int32_t rate) {
  if (!threshold || !factor || !exponent || !is_rate(rate)) return;
  const NitiDropoutScale s = niti_dropout_scale(rate);
  *threshold = s.threshold;
  *factor = s.factor;
  *exponent = s.exponent;
}

int8_t niti_dropout_value(int8_t mantissa, int32_t rate, uint32_t word) {
  if (!is_rate(rate) || mantissa < -NITI_MANTISSA_MAX) return 0;
  const NitiDropoutScale s = niti_dropout_scale(rate);
  return word >= s.threshold ? (int8_t)niti_dropout_scaled(mantissa, s.factor) : 0;
}

void niti_add_aligned(int32_t *acc, int32_t *exponent, const int8_t *a, int32_t a_exponent, const int8_t *b, int32_t b_exponent,
                      size_t count) {
  if (!acc || !exponent || !a || !b) return;
  const NitiAlignment align = niti_align(a_exponent, b_exponent);
  const int8_t *large = align.a_larger ? a : b, *small = align.a_larger ? b : a;
  for (size_t i = 0; i < count; ++i) acc[i] = niti_align_sum(large[i], small[i], align.left, align.right);
  *exponent = align.exponent;
}
