/* Rounding and bit counts as functions, for niti.h. */
#include "base/round.h"

int niti_bits(uint64_t v) { return niti_bits_inline(v); }

int niti_requantise_shift(uint32_t max) { return niti_shift_inline(max); }

int64_t niti_round(int64_t x, int shift, NitiRounding mode, uint32_t word) { return niti_round_inline(x, shift, mode, word); }

int8_t niti_round_int8(int64_t x, int shift, NitiRounding mode, uint32_t word) {
  return niti_clip8(niti_round_inline(x, shift, mode, word));
}
