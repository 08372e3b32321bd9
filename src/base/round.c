/* Rounding and bit counts as functions, for niti.h. */
#include "base/round.h"

int niti_bits(uint64_t v) { return niti_bits_inline(v); }

int niti_requantise_shift(uint32_t max) { return niti_shift_inline(max); }

int niti_requantise_shift_clipped(uint32_t max, int clip) {
  return clip < 0 || clip > NITI_MANTISSA_BITS ? 0 : niti_clipped_shift(max, clip);
}

static bool in_range(int64_t x, int shift, NitiRounding mode) {
  const int64_t limit = (int64_t)1 << 62;
  const int most = mode == NITI_STOCHASTIC ? 32 : 62;
  return x > -limit && x < limit && shift >= 0 && shift <= most && (unsigned)mode <= NITI_STOCHASTIC_BYTE;
}

int64_t niti_round(int64_t x, int shift, NitiRounding mode, uint32_t word) {
  return in_range(x, shift, mode) ? niti_round_inline(x, shift, mode, word) : 0;
}

int8_t niti_round_int8(int64_t x, int shift, NitiRounding mode, uint32_t word) {
  return niti_clip8(niti_round(x, shift, mode, word));
}
