/* Sums of a tensor that changes its exponent, and their mean. */
#include "base/average.h"

#include "base/round.h"
#include "base/sgd.h"

enum { FAR = 62 }; /* no sum and no value has so many bits */

int64_t niti_average_most(int64_t samples) { return samples * ((int64_t)NITI_SGD_WEIGHT_MAX << NITI_AVERAGE_FRACTION); }

static int64_t shifted(int64_t x, int64_t right) {
  if (right <= 0) return x * ((int64_t)1 << -right);
  return right >= FAR ? 0 : niti_round_inline(x, (int)right, NITI_NEAREST, 0);
}

static bool in_range(int64_t samples, int32_t exponent) {
  return samples >= 0 && samples <= NITI_AVERAGE_SAMPLES_MAX && exponent >= -(1 << 20) && exponent <= 1 << 20;
}

static bool are_sums(const int64_t *sum, size_t count, int64_t samples) {
  const int64_t most = niti_average_most(samples);
  for (size_t i = 0; i < count; ++i)
    if (sum[i] < -most || sum[i] > most) return false;
  return true;
}

void niti_average_add(int64_t *sum, int32_t *exponent, int64_t samples, const int16_t *values, int32_t values_exponent,
                      size_t count) {
  if (!sum || !exponent || !values || samples >= NITI_AVERAGE_SAMPLES_MAX || !in_range(samples, values_exponent)) return;
  if (samples > 0 && (!in_range(samples, *exponent) || !are_sums(sum, count, samples))) return;
  const int64_t before = samples > 0 ? (int64_t)*exponent + NITI_AVERAGE_FRACTION : values_exponent;
  const int64_t now = values_exponent > before ? values_exponent : before;
  for (size_t i = 0; i < count; ++i) {
    const int64_t old = samples > 0 ? shifted(sum[i], now - before) : 0;
    sum[i] = old + shifted(values[i], now - values_exponent - NITI_AVERAGE_FRACTION);
  }
  *exponent = (int32_t)now - NITI_AVERAGE_FRACTION;
}

/* x / divisor to the nearest integer, ties away from zero; |x| < 2^60, divisor < 2^45. */
static int64_t divided(int64_t x, int64_t divisor) {
  const int64_t magnitude = (2 * (x < 0 ? -x : x) + divisor) / (2 * divisor);
  return x < 0 ? -magnitude : magnitude;
}

void niti_average_take(int16_t *values, int32_t *exponent, const int64_t *sum, int32_t sum_exponent, int64_t samples,
                       size_t count) {
  if (!values || !exponent || !sum || samples < 1 || !in_range(samples, sum_exponent) || !are_sums(sum, count, samples)) return;
  int64_t most = 0;
  int shift = 0;
  for (size_t i = 0; i < count; ++i) {
    const int64_t magnitude = sum[i] < 0 ? -sum[i] : sum[i];
    most = magnitude > most ? magnitude : most;
  }
  while (shift < NITI_AVERAGE_FRACTION && (most == 0 || divided(most, samples << shift) > NITI_SGD_WEIGHT_MAX)) ++shift;
  for (size_t i = 0; i < count; ++i) values[i] = (int16_t)divided(sum[i], samples << shift);
  *exponent = sum_exponent + shift;
}
