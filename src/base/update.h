/* Update `niti` of one weight, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Update `niti`". */
#ifndef NITI_BASE_UPDATE_H
#define NITI_BASE_UPDATE_H

#include "base/fixed.h"
#include "base/scalar.h"

enum {
  NITI_MU_UNITS = 1000000, /* mu is bound in millionths */
  NITI_MU_MAX = 30,
  NITI_MU_FACTOR_BITS = 15, /* fraction bits of 2 to the fraction of mu */
  NITI_MU_SUM_BITS = 45,    /* to which sums are shifted before it multiplies them */
};

/* What all weights of a tensor share in one step. */
typedef struct NitiMu {
  int shift;       /* of gradients, to the right; below 1 they are not shifted */
  int before;      /* fractional mu: bits that are rounded off before the factor multiplies */
  uint32_t factor; /* 0: mu is whole */
} NitiMu;

/* Of a tensor whose largest |gradient| is max > 1, at mu millionths; max <= 1 changes nothing. */
NITI_INLINE NitiMu niti_mu(uint64_t max, int64_t mu) {
  const int bits = niti_bits_inline(max);
  const uint32_t rest = (uint32_t)(mu % NITI_MU_UNITS), half = 1u << (30 - NITI_MU_FACTOR_BITS - 1);
  NitiMu u = {bits - (int)(mu / NITI_MU_UNITS), bits > NITI_MU_SUM_BITS ? bits - NITI_MU_SUM_BITS : 0, 0};
  if (rest > 0)
    u.factor = (niti_exp2_frac_inline((uint32_t)(((uint64_t)rest << 16) / NITI_MU_UNITS)) + half) >> (30 - NITI_MU_FACTOR_BITS);
  return u;
}

/* The weight after a step of at most 127. */
NITI_INLINE int8_t niti_update_step(int8_t w, int8_t step) {
  const int16_t most = NITI_MANTISSA_MAX, least = -NITI_MANTISSA_MAX;
  int16_t v = (int16_t)(w - step); /* vectors hold more of 16 bits than of 32 */
  v = v > most ? most : v;
  v = v < least ? least : v;
  return (int8_t)v;
}

/* The weight after gradient g. */
NITI_INLINE int8_t niti_update_weight(int8_t w, int64_t g, const NitiMu *u) {
  if (u->shift < 1) return niti_clip8(w - g);
  if (u->factor == 0) return niti_update_step(w, niti_clip8(niti_round_inline(g, u->shift, NITI_PSEUDO_STOCHASTIC, 0)));
  const int64_t scaled = niti_round_inline(g, u->before, NITI_NEAREST, 0) * (int64_t)u->factor;
  return niti_update_step(
      w, niti_clip8(niti_round_inline(scaled, u->shift - u->before + NITI_MU_FACTOR_BITS, NITI_PSEUDO_STOCHASTIC, 0)));
}

/* The same of a gradient of 32 bits, in 32 bits where mu is whole. */
NITI_INLINE int8_t niti_update_weight32(int8_t w, int32_t g, const NitiMu *u) {
  if (u->shift < 1 || u->factor != 0) return niti_update_weight(w, g, u);
  const int h = u->shift / 2; /* niti_round_magnitude's pseudo-stochastic rounding */
  const uint32_t magnitude = niti_magnitude32(g), rest = magnitude & ((1u << u->shift) - 1);
  const uint32_t low = (rest & ((1u << h) - 1)) << (u->shift & 1);
  const uint32_t rounded = (magnitude >> u->shift) + (rest >> h > low ? 1u : 0u);
  const int8_t step = (int8_t)(rounded > NITI_MANTISSA_MAX ? (uint32_t)NITI_MANTISSA_MAX : rounded);
  return niti_update_step(w, (int8_t)(g < 0 ? -step : step));
}

#endif
