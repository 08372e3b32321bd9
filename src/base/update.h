/* Update `niti` of one weight, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Update". */
#ifndef NITI_BASE_UPDATE_H
#define NITI_BASE_UPDATE_H

#include "base/round.h"

/* The shift of a tensor whose largest |gradient| is max > 1; below 1 the gradient is not shifted. max <= 1 changes nothing. */
NITI_INLINE int niti_update_shift(uint64_t max, int mu) { return niti_bits_inline(max) - mu; }

/* The weight after a step of at most 127. */
NITI_INLINE int8_t niti_update_step(int8_t w, int8_t step) {
  const int16_t most = NITI_MANTISSA_MAX, least = -NITI_MANTISSA_MAX;
  int16_t v = (int16_t)(w - step); /* vectors hold more of 16 bits than of 32 */
  v = v > most ? most : v;
  v = v < least ? least : v;
  return (int8_t)v;
}

/* The weight after gradient g with that shift. */
NITI_INLINE int8_t niti_update_weight(int8_t w, int64_t g, int shift) {
  if (shift < 1) return niti_clip8(w - g);
  return niti_update_step(w, niti_clip8(niti_round_inline(g, shift, NITI_PSEUDO_STOCHASTIC, 0)));
}

#endif
