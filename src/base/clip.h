/* Clipping gradients by their norm, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Clipping by norm".
 *
 * The rule is R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, in the
 * form of PyTorch's torch.nn.utils.clip_grad_norm_. */
#ifndef NITI_BASE_CLIP_H
#define NITI_BASE_CLIP_H

#include "base/scalar.h"

enum {
  NITI_SQUARES_BITS = 62,       /* a tensor's sum of squares is at most 2^62 */
  NITI_CLIP_UNITS = 1000000000, /* the norm's limit is bound in billionths */
  NITI_CLIP_DIVISOR = 1000000,  /* of 1: what is added to the norm */
};
#define NITI_CLIP_NORM_MAX INT64_C(1000000000000000) /* 10^6 */

/* By how many bits `count` gradients, the largest `max`, are shifted before they are squared. */
NITI_INLINE int niti_squares_shift(uint64_t max, uint64_t count) {
  const int shift = niti_bits_inline(max) - (NITI_SQUARES_BITS - niti_bits_inline(count)) / 2;
  return shift > 0 ? shift : 0;
}

NITI_INLINE uint64_t niti_square(int64_t g, int shift) {
  const uint64_t m = niti_round_magnitude(niti_magnitude64(g), shift, NITI_NEAREST, 0);
  return m * m;
}

/* The sum so far with that of a tensor of that exponent. */
NITI_INLINE NitiScalar niti_squares_add(NitiScalar total, uint64_t sum, int shift, int32_t exponent) {
  return niti_scalar_add(total, niti_scalar((int64_t)sum, 2 * (exponent + shift)));
}

/* What multiplies every gradient, at most 1: `total` of the squares of sums over `images` images, `norm` from 1 billionth. */
NITI_INLINE NitiScalar niti_clip_factor_inline(NitiScalar total, int64_t norm, int64_t images) {
  const NitiScalar limit = niti_scalar_div(niti_scalar(norm, 0), niti_scalar(NITI_CLIP_UNITS, 0));
  const NitiScalar found = niti_scalar_div(niti_scalar_sqrt(total), niti_scalar(images, 0));
  const NitiScalar more = niti_scalar_div(niti_scalar(1, 0), niti_scalar(NITI_CLIP_DIVISOR, 0));
  const NitiScalar factor = niti_scalar_div(limit, niti_scalar_add(found, more));
  return factor.e >= -30 ? niti_scalar(1, 0) : factor; /* m >= 2^30: the factor is 1 or more */
}

#endif
