/* Pixels as mantissas: docs/arithmetic.md, "Input and initial weights". */
#include "base/input.h"

enum { MILLION = 1000000 };

/* nearest(((v * 10^6 - 255 * mean) * 2^-e) / (255 * std)), ties away from zero. Magnitudes stay below 2^61. */
static int64_t pixel_value(int v, int32_t mean, int32_t std, int32_t e) {
  const int64_t x = (int64_t)v * MILLION - 255 * (int64_t)mean;
  const int64_t n = (x < 0 ? -x : x) * ((int64_t)1 << (e < 0 ? -e : 0));
  const int64_t d = 255 * (int64_t)std * ((int64_t)1 << (e > 0 ? e : 0));
  const int64_t q = (2 * n + d) / (2 * d);
  return x < 0 ? -q : q;
}

/* A straight line: its ends are its extremes. */
static bool fits(int channels, const int32_t *mean, const int32_t *std, int32_t e) {
  for (int c = 0; c < channels; ++c) {
    const int64_t low = pixel_value(0, mean[c], std[c], e), high = pixel_value(255, mean[c], std[c], e);
    if (low < -NITI_MANTISSA_MAX || high > NITI_MANTISSA_MAX) return false;
    if (low > NITI_MANTISSA_MAX || high < -NITI_MANTISSA_MAX) return false;
  }
  return true;
}

bool niti_input_exponent(int32_t *exponent, int channels, const int32_t *mean, const int32_t *std) {
  int32_t e = NITI_INPUT_EXPONENT_MIN;
  while (e <= NITI_INPUT_EXPONENT_MAX && !fits(channels, mean, std, e)) ++e;
  *exponent = e;
  return e <= NITI_INPUT_EXPONENT_MAX;
}

int8_t niti_input_mantissa(int v, int32_t mean, int32_t std, int32_t exponent) {
  return (int8_t)pixel_value(v, mean, std, exponent);
}

int8_t niti_input_value(int32_t v, int32_t full, int32_t mean, int32_t std) {
  if ((full != 128 && full != 32768) || v < -full || v > full) return 0;
  return mean < -MILLION || mean > MILLION || std < 1 || std > 8 * MILLION ? 0 : niti_value_mantissa(v, full, mean, std);
}

/* Magnitudes stay below 2^43. */
int8_t niti_value_mantissa(int32_t v, int32_t full, int32_t mean, int32_t std) {
  const int64_t x = (int64_t)v * MILLION - (int64_t)full * mean;
  const int64_t n = (x < 0 ? -x : x) * (1 << -NITI_VALUE_EXPONENT), d = (int64_t)full * std;
  const int64_t q = (2 * n + d) / (2 * d);
  return niti_clip8(x < 0 ? -q : q);
}
