/* Pixels as mantissas: docs/arithmetic.md, "Input and initial weights". */
#include "base/round.h"
#include "base/status.h"

enum { EXPONENT_MIN = -20, EXPONENT_MAX = 20, MILLION = 1000000 };

/* nearest(((v * 10^6 - 255 * mean) * 2^-e) / (255 * std)), ties away from zero. Magnitudes stay below 2^61. */
static int64_t pixel_value(int v, int32_t mean, int32_t std, int e) {
  const int64_t x = (int64_t)v * MILLION - 255 * (int64_t)mean;
  const int64_t n = (x < 0 ? -x : x) * ((int64_t)1 << (e < 0 ? -e : 0));
  const int64_t d = 255 * (int64_t)std * ((int64_t)1 << (e > 0 ? e : 0));
  const int64_t q = (2 * n + d) / (2 * d);
  return x < 0 ? -q : q;
}

/* A straight line: its ends are its extremes. */
static bool fits(int channels, const int32_t *mean, const int32_t *std, int e) {
  for (int c = 0; c < channels; ++c) {
    const int64_t low = pixel_value(0, mean[c], std[c], e), high = pixel_value(255, mean[c], std[c], e);
    if (low < -NITI_MANTISSA_MAX || high > NITI_MANTISSA_MAX) return false;
    if (low > NITI_MANTISSA_MAX || high < -NITI_MANTISSA_MAX) return false;
  }
  return true;
}

NitiStatus niti_input_table(int8_t *table, int32_t *exponent, int channels, const int32_t *mean, const int32_t *std) {
  NITI_WANT(table, "table");
  NITI_WANT(exponent, "exponent");
  NITI_WANT(mean, "mean");
  NITI_WANT(std, "std");
  if (channels < 1) return niti_fail(NITI_ERROR_ARGUMENT, "niti_input_table: channels is %d (expected at least 1)", channels);
  for (int c = 0; c < channels; ++c) {
    if (std[c] <= 0) {
      return niti_fail(NITI_ERROR_ARGUMENT, "niti_input_table: std of channel %d is %d millionths, expected more than 0", c,
                       (int)std[c]);
    }
  }
  int e = EXPONENT_MIN;
  while (e <= EXPONENT_MAX && !fits(channels, mean, std, e)) ++e;
  if (e > EXPONENT_MAX) {
    return niti_fail(NITI_ERROR_ARGUMENT, "niti_input_table: no exponent in %d..%d holds every pixel with this mean and std",
                     (int)EXPONENT_MIN, (int)EXPONENT_MAX);
  }
  for (int c = 0; c < channels; ++c) {
    for (int v = 0; v < 256; ++v) table[c * 256 + v] = (int8_t)pixel_value(v, mean[c], std[c], e);
  }
  *exponent = e;
  return NITI_OK;
}
