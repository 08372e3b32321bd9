/* Rounding by NEON, sixteen accumulators at a time, on magnitudes as unsigned numbers: nothing overflows. */
#include <arm_neon.h>
#include <string.h>

#include "backend/cpu/arm/conv_neon.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 4")
enum { LANES = 16 };

/* Shifts to the right are negative ones to the left. */
typedef struct Constants {
  uint32x4_t half, low, low_half; /* 2^(s-1); 2^s - 1; 2^(s/2) - 1 */
  int32x4_t shift, shift_half, odd;
} Constants;

INLINE Constants constants_of(int s) {
  return (Constants){
      .half = vdupq_n_u32(s > 0 ? 1u << (s - 1) : 0),
      .low = vdupq_n_u32((1u << s) - 1),
      .low_half = vdupq_n_u32((1u << (s / 2)) - 1),
      .shift = vdupq_n_s32(-s),
      .shift_half = vdupq_n_s32(-(s / 2)),
      .odd = vdupq_n_s32(s & 1),
  };
}

/* s = 0 needs no special case: half and r are 0. */
INLINE uint32x4_t round_magnitude(uint32x4_t x, const Constants *c, NitiRounding mode) {
  if (mode == NITI_NEAREST) return vshlq_u32(vaddq_u32(x, c->half), c->shift);
  const uint32x4_t q = vshlq_u32(x, c->shift);
  if (mode == NITI_TRUNCATE) return q;
  const uint32x4_t r = vandq_u32(x, c->low);
  const uint32x4_t hi = vshlq_u32(r, c->shift_half);
  const uint32x4_t lo = vshlq_u32(vandq_u32(r, c->low_half), c->odd);
  return vsubq_u32(q, vcgtq_u32(hi, lo));
}

INLINE int16x4_t round_four(int32x4_t acc, const Constants *c, NitiRounding mode, bool relu, uint32x4_t *max) {
  const uint32x4_t magnitude = vreinterpretq_u32_s32(vabsq_s32(acc));
  *max = vmaxq_u32(*max, magnitude);
  const int32x4_t m = vreinterpretq_s32_u32(vminq_u32(round_magnitude(magnitude, c, mode), vdupq_n_u32(127)));
  const int32x4_t negative = vshrq_n_s32(acc, 31); /* all ones: a negated number is its complement plus one */
  return vmovn_s32(relu ? vbicq_s32(m, negative) : vsubq_s32(veorq_s32(m, negative), negative));
}

INLINE int8x16_t round_sixteen(const int32_t *acc, const Constants *c, NitiRounding mode, bool relu, uint32x4_t *max) {
  int16x4_t m[4];
  UNROLL for (int i = 0; i < 4; ++i) m[i] = round_four(vld1q_s32(acc + i * 4), c, mode, relu, max);
  return vcombine_s8(vmovn_s16(vcombine_s16(m[0], m[1])), vmovn_s16(vcombine_s16(m[2], m[3])));
}

/* Rows of a tile; one row of any length when rows is 1. */
INLINE uint32_t round_rows(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride, int rows,
                           size_t columns, const NitiRounder *r, NitiRounding mode, bool relu, const int8_t *mask, uint32_t max) {
  const Constants c = constants_of(r->shift);
  uint32x4_t most = vdupq_n_u32(max);
  for (int row = 0; row < rows; ++row) {
    int8_t *out = tensor + offset[row] + first;
    const int32_t *from = acc + (size_t)row * stride;
    size_t i = 0;
    for (; i + LANES <= columns; i += LANES) vst1q_s8(out + i, round_sixteen(from + i, &c, mode, relu, &most));
    if (i < columns) {
      int32_t rest[LANES] = {0};
      int8_t rounded[LANES];
      memcpy(rest, from + i, (columns - i) * sizeof *rest);
      vst1q_s8(rounded, round_sixteen(rest, &c, mode, relu, &most));
      memcpy(out + i, rounded, columns - i);
    }
    if (mask) niti_mask_apply(out, mask + offset[row] + first, columns);
  }
  return vmaxvq_u32(most);
}

uint32_t niti_requantise_tile_neon(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                                   int rows, int columns, const NitiRounder *r, uint32_t max) {
#define ROUND(mode, relu) \
  return round_rows(tensor, offset, first, acc, stride, rows, (size_t)columns, r, mode, relu, r->mask, max)
  switch (r->mode) {
    case NITI_NEAREST:
      if (r->relu) ROUND(NITI_NEAREST, true);
      ROUND(NITI_NEAREST, false);
    case NITI_PSEUDO_STOCHASTIC: ROUND(NITI_PSEUDO_STOCHASTIC, r->relu);
    case NITI_TRUNCATE: ROUND(NITI_TRUNCATE, r->relu);
    case NITI_STOCHASTIC:
    case NITI_STOCHASTIC_BYTE: break;
  }
#undef ROUND
  for (int row = 0; row < rows; ++row) {
    const size_t at = offset[row] + first;
    max = niti_requantise_ref(tensor + at, acc + (size_t)row * stride, (size_t)columns, r, at, max);
    if (r->mask) niti_mask_apply(tensor + at, r->mask + at, (size_t)columns);
  }
  return max;
}

uint32_t niti_requantise_neon(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *r, uint64_t index, uint32_t max) {
  const size_t none = 0;
  if (niti_rounding_draws(r->mode)) return niti_requantise_ref(out, acc, count, r, index, max);
#define ROUND(mode) return round_rows(out, &none, 0, acc, 0, 1, count, r, mode, r->relu, NULL, max)
  if (r->mode == NITI_PSEUDO_STOCHASTIC) ROUND(NITI_PSEUDO_STOCHASTIC);
  if (r->mode == NITI_TRUNCATE) ROUND(NITI_TRUNCATE);
  ROUND(NITI_NEAREST);
#undef ROUND
}
