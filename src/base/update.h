/* Update `niti` of one weight, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Update". */
#ifndef NITI_BASE_UPDATE_H
#define NITI_BASE_UPDATE_H

#include "base/round.h"

/* The shift of a tensor whose largest |gradient| is max > 1; below 1 the gradient is taken as it is. max <= 1 changes nothing. */
NITI_INLINE int niti_update_shift(uint64_t max, int mu) { return niti_bits_inline(max) - mu; }

/* The weight after gradient g with that shift. */
NITI_INLINE int8_t niti_update_weight(int8_t w, int64_t g, int shift) {
  const int64_t step = shift < 1 ? g : niti_clip8(niti_round_inline(g, shift, NITI_PSEUDO_STOCHASTIC, 0));
  return niti_clip8(w - step);
}

#endif
