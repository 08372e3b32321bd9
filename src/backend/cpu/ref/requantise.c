/* The definition of rounding, one accumulator after another; all other kernels must agree with it. */
#include "backend/cpu/requantise.h"

#include "base/round.h"

uint32_t niti_requantise_ref(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *rounder, uint64_t index,
                             uint32_t max) {
  NitiWords words = {{0}};
  const bool bytes = rounder->mode == NITI_STOCHASTIC_BYTE, draws = niti_rounding_draws(rounder->mode);
  const uint64_t per_block = bytes ? 16 : 4;
  const int32_t top = niti_rounder_top(rounder);
  bool drawn = false;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t at = rounder->first + index + i;
    const uint32_t magnitude = acc[i] < 0 ? 0u - (uint32_t)acc[i] : (uint32_t)acc[i];
    if (draws && (!drawn || (at & (per_block - 1)) == 0)) {
      words = niti_draw_block(&rounder->draw, (uint32_t)(at / per_block));
      drawn = true;
    }
    const uint32_t word = bytes ? words.word[at >> 2 & 3] >> (8 * (at & 3)) : words.word[at & 3];
    const int8_t m = niti_clip8(niti_round_inline(acc[i], rounder->shift, rounder->mode, word));
    out[i] = rounder->relu && m < 0 ? (int8_t)0 : m > top ? (int8_t)top : m;
    if (magnitude > max) max = magnitude;
  }
  return max;
}
