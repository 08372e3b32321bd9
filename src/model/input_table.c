/* Builds the table of input mantissas and checks its arguments; base/input.h has the arithmetic. */
#include "base/input.h"
#include "platform/status.h"

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
  int32_t e;
  if (!niti_input_exponent(&e, channels, mean, std)) {
    return niti_fail(NITI_ERROR_ARGUMENT, "niti_input_table: no exponent in %d..%d holds every pixel with this mean and std",
                     NITI_INPUT_EXPONENT_MIN, NITI_INPUT_EXPONENT_MAX);
  }
  for (int c = 0; c < channels; ++c) {
    for (int v = 0; v < 256; ++v) table[c * 256 + v] = niti_input_mantissa(v, mean[c], std[c], e);
  }
  *exponent = e;
  return NITI_OK;
}
