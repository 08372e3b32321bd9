/* Rounding by NEON, sixteen accumulators at a time, on magnitudes as unsigned numbers: nothing overflows. */
#include <arm_neon.h>
#include <string.h>

#include "backend/cpu/arm/conv_neon.h"
#include "backend/cpu/requantise_drawn.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 4")
enum { LANES = 16 };

/* Shifts to the right are negative ones to the left. */
typedef struct Constants {
  uint32x4_t half, low, low_half;        /* 2^(s-1); 2^s - 1; 2^(s/2) - 1 */
  uint32x4_t most;                       /* the largest result */
  int32x4_t shift, shift_half, odd, top; /* top: 32 - s */
} Constants;

INLINE Constants constants_of(const NitiRounder *r) {
  const int s = r->shift;
  return (Constants){
      .half = vdupq_n_u32(s > 0 ? 1u << (s - 1) : 0),
      .low = vdupq_n_u32((1u << s) - 1),
      .low_half = vdupq_n_u32((1u << (s / 2)) - 1),
      .shift = vdupq_n_s32(-s),
      .shift_half = vdupq_n_s32(-(s / 2)),
      .odd = vdupq_n_s32(s & 1),
      .top = vdupq_n_s32(32 - s),
      .most = vdupq_n_u32((uint32_t)niti_rounder_top(r)),
  };
}

/* What the fractions of four elements are compared with; random: where the elements' bytes or words begin. */
INLINE uint32x4_t words_of(const uint8_t *random, NitiRounding mode) {
  if (mode == NITI_STOCHASTIC) return vreinterpretq_u32_u8(vld1q_u8(random));
  if (mode != NITI_STOCHASTIC_BYTE) return vdupq_n_u32(0);
  uint32_t bytes;
  memcpy(&bytes, random, sizeof bytes);
  const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes)));
  return vshll_n_u16(vget_low_u16(wide), 1);
}

/* s = 0 needs no special case: half and r are 0, and shifts by 32 leave 0. */
INLINE uint32x4_t round_magnitude(uint32x4_t x, const Constants *c, NitiRounding mode, const uint8_t *random) {
  if (mode == NITI_NEAREST) return vshlq_u32(vaddq_u32(x, c->half), c->shift);
  const uint32x4_t q = vshlq_u32(x, c->shift);
  if (mode == NITI_TRUNCATE) return q;
  if (niti_rounding_draws(mode)) {
    uint32x4_t fraction = vshlq_u32(x, c->top);
    if (mode == NITI_STOCHASTIC_BYTE) fraction = vshrq_n_u32(fraction, 32 - 9);
    return vsubq_u32(q, vcgtq_u32(fraction, words_of(random, mode)));
  }
  const uint32x4_t r = vandq_u32(x, c->low);
  const uint32x4_t hi = vshlq_u32(r, c->shift_half);
  const uint32x4_t lo = vshlq_u32(vandq_u32(r, c->low_half), c->odd);
  return vsubq_u32(q, vcgtq_u32(hi, lo));
}

INLINE int16x4_t round_four(int32x4_t acc, const Constants *c, NitiRounding mode, bool relu, const uint8_t *random,
                            uint32x4_t *max) {
  const uint32x4_t magnitude = vreinterpretq_u32_s32(vabsq_s32(acc));
  *max = vmaxq_u32(*max, magnitude);
  const int32x4_t m = vreinterpretq_s32_u32(vminq_u32(round_magnitude(magnitude, c, mode, random), c->most));
  const int32x4_t negative = vshrq_n_s32(acc, 31); /* all ones: a negated number is its complement plus one */
  return vmovn_s32(relu ? vbicq_s32(m, negative) : vsubq_s32(veorq_s32(m, negative), negative));
}

INLINE int8x16_t round_sixteen(const int32_t *acc, const Constants *c, NitiRounding mode, bool relu, const uint8_t *random,
                               uint32x4_t *max) {
  const size_t bytes = random_bytes(mode);
  int16x4_t m[4];
  UNROLL for (size_t i = 0; i < 4; ++i) m[i] = round_four(vld1q_s32(acc + i * 4), c, mode, relu, random + i * 4 * bytes, max);
  return vcombine_s8(vmovn_s16(vcombine_s16(m[0], m[1])), vmovn_s16(vcombine_s16(m[2], m[3])));
}

/* One row; last: the largest mask that passes; random: what its elements draw, or NULL. */
INLINE void round_row(int8_t *out, const int32_t *from, size_t columns, const Constants *c, NitiRounding mode, bool relu,
                      const int8_t *mask, int8_t last, const uint8_t *random, uint32x4_t *max) {
  const size_t bytes = random_bytes(mode);
  size_t i = 0;
  for (; i + LANES <= columns; i += LANES) vst1q_s8(out + i, round_sixteen(from + i, c, mode, relu, random + i * bytes, max));
  if (i < columns) {
    int32_t rest[LANES] = {0};
    int8_t rounded[LANES];
    memcpy(rest, from + i, (columns - i) * sizeof *rest);
    vst1q_s8(rounded, round_sixteen(rest, c, mode, relu, random + i * bytes, max));
    memcpy(out + i, rounded, columns - i);
  }
  if (mask) niti_mask_apply(out, mask, columns, last);
}

/* Rows of a tile; one row of any length when rows is 1. */
INLINE uint32_t round_rows(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride, int rows,
                           size_t columns, const NitiRounder *r, NitiRounding mode, bool relu, const int8_t *mask, uint32_t max) {
  const Constants c = constants_of(r);
  uint32x4_t most = vdupq_n_u32(max);
  for (int row = 0; row < rows; ++row) {
    const size_t at = offset[row] + first;
    round_row(tensor + at, acc + (size_t)row * stride, columns, &c, mode, relu, mask ? mask + at : NULL, niti_rounder_last(r),
              NULL, &most);
  }
  return vmaxvq_u32(most);
}

/* The same where rounding draws; index: of tensor[0]. */
INLINE uint32_t round_drawn(int8_t *tensor, uint64_t index, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                            int rows, size_t columns, const NitiRounder *r, NitiRounding mode, const int8_t *mask, uint32_t max) {
  const Constants c = constants_of(r);
  uint32x4_t most = vdupq_n_u32(max);
  Batch batch;
  for (start_batches(&batch); next_batch(&batch, r, mode, index + first, offset, (size_t)rows, columns);) {
    for (int i = 0; i < batch.count; ++i) {
      const Piece *p = &batch.pieces[i];
      const size_t at = offset[p->row] + first + p->first;
      const int32_t *from = acc + p->row * stride + p->first;
      round_row(tensor + at, from, p->count, &c, mode, r->relu, mask ? mask + at : NULL, niti_rounder_last(r),
                batch.random + p->random, &most);
    }
  }
  return vmaxvq_u32(most);
}

uint32_t niti_requantise_tile_neon(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                                   int rows, int columns, const NitiRounder *r, uint32_t max) {
  int32_t joined[NITI_JOINED_MAX];
  const bool draws = niti_rounding_draws(r->mode);
  const NitiTileRows t = niti_join_rows(joined, offset, (NitiTileRows){acc, stride, (size_t)columns, rows}, draws);
#define ROUND(mode, relu) \
  return round_rows(tensor, offset, first, t.acc, t.stride, t.rows, t.columns, r, mode, relu, r->mask, max)
#define DRAWN(mode) return round_drawn(tensor, 0, offset, first, t.acc, t.stride, t.rows, t.columns, r, mode, r->mask, max)
  switch (r->mode) {
    case NITI_NEAREST:
      if (r->relu) ROUND(NITI_NEAREST, true);
      ROUND(NITI_NEAREST, false);
    case NITI_PSEUDO_STOCHASTIC: ROUND(NITI_PSEUDO_STOCHASTIC, r->relu);
    case NITI_TRUNCATE: ROUND(NITI_TRUNCATE, r->relu);
    case NITI_STOCHASTIC: DRAWN(NITI_STOCHASTIC);
    case NITI_STOCHASTIC_BYTE: break;
  }
  DRAWN(NITI_STOCHASTIC_BYTE);
#undef ROUND
#undef DRAWN
}

uint32_t niti_requantise_neon(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *r, uint64_t index, uint32_t max) {
  const size_t none = 0;
#define ROUND(mode) return round_rows(out, &none, 0, acc, 0, 1, count, r, mode, r->relu, NULL, max)
#define DRAWN(mode) return round_drawn(out, index, &none, 0, acc, 0, 1, count, r, mode, NULL, max)
  if (r->mode == NITI_STOCHASTIC_BYTE) DRAWN(NITI_STOCHASTIC_BYTE);
  if (r->mode == NITI_STOCHASTIC) DRAWN(NITI_STOCHASTIC);
  if (r->mode == NITI_PSEUDO_STOCHASTIC) ROUND(NITI_PSEUDO_STOCHASTIC);
  if (r->mode == NITI_TRUNCATE) ROUND(NITI_TRUNCATE);
  ROUND(NITI_NEAREST);
#undef ROUND
#undef DRAWN
}
