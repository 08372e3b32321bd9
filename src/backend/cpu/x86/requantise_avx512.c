/* Rounding by AVX-512, sixteen accumulators at a time, on magnitudes as unsigned numbers: nothing overflows. */
#include <immintrin.h>

#include "backend/cpu/requantise_drawn.h"
#include "backend/cpu/x86/conv_avx2.h"

#define INLINE static inline __attribute__((always_inline))
enum { LANES = 16 };

typedef struct Constants {
  __m512i half;          /* 2^(s-1) */
  __m512i shift;         /* s */
  __m512i fraction, low; /* 32 - s and 32 - s/2: bring the fraction and its lower half to the top */
  __m512i upper;         /* the top s - s/2 bits */
  __m512i carry, eight;  /* 2^(s-9) + 255 * 2^(s-8), and s - 8; s >= 9 */
  __m512i order;         /* of packed doublewords */
  __m512i top, top8;     /* the largest result, as 32 bits and as bytes */
  __m512i last8;         /* the largest mask that passes, as bytes */
} Constants;

INLINE Constants constants_of(const NitiRounder *r) {
  const int s = r->shift;
  const Constants c = {
      .half = _mm512_set1_epi32(s > 0 ? (int32_t)(1u << (s - 1)) : 0),
      .shift = _mm512_set1_epi32(s),
      .fraction = _mm512_set1_epi32(32 - s),
      .low = _mm512_set1_epi32(32 - s / 2),
      .carry = _mm512_set1_epi32(s >= 9 ? (int32_t)((1u << (s - 9)) + (255u << (s - 8))) : 0),
      .eight = _mm512_set1_epi32(s >= 9 ? s - 8 : 0),
      .upper = _mm512_set1_epi32(s > 0 ? (int32_t)(UINT32_MAX << (32 - (s - s / 2))) : 0),
      .top = _mm512_set1_epi32(niti_rounder_top(r)),
      .top8 = _mm512_set1_epi8((char)niti_rounder_top(r)),
      .last8 = _mm512_set1_epi8(niti_rounder_last(r)),
      .order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0),
  };
  return c;
}

/* The fraction's halves are compared where they reach the top: one shift each by a vector's counts, half the work of a shift by
 * one count. s = 0 needs no special case: shifts by 32 leave 0. */
INLINE __m512i round_magnitude(__m512i x, const Constants *c, NitiRounding mode, __m512i word) {
  if (mode == NITI_NEAREST) return _mm512_srlv_epi32(_mm512_add_epi32(x, c->half), c->shift);
  const __m512i q = _mm512_srlv_epi32(x, c->shift);
  const __m512i one = _mm512_set1_epi32(1);
  if (mode == NITI_TRUNCATE) return q;
  if (niti_rounding_draws(mode)) {
    __m512i r = _mm512_sllv_epi32(x, c->fraction);
    if (mode == NITI_STOCHASTIC_BYTE) r = _mm512_srli_epi32(r, 32 - 9);
    return _mm512_mask_add_epi32(q, _mm512_cmpgt_epu32_mask(r, word), q, one);
  }
  const __m512i hi = _mm512_and_si512(_mm512_sllv_epi32(x, c->fraction), c->upper);
  const __m512i lo = _mm512_sllv_epi32(x, c->low);
  return _mm512_mask_add_epi32(q, _mm512_cmpgt_epu32_mask(hi, lo), q, one);
}

/* What the fractions of sixteen elements are compared with; random: where the elements' bytes or words begin. */
INLINE __m512i words_of(const uint8_t *random, NitiRounding mode) {
  if (mode == NITI_STOCHASTIC) return _mm512_loadu_si512(random);
  if (mode != NITI_STOCHASTIC_BYTE) return _mm512_setzero_si512();
  return _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)random)), 1);
}

INLINE __m512i round_sixteen(__m512i acc, const Constants *c, NitiRounding mode, bool relu, const uint8_t *random, __m512i *max) {
  const __m512i magnitude = _mm512_abs_epi32(acc), zero = _mm512_setzero_si512();
  *max = _mm512_max_epu32(*max, magnitude);
  const __m512i rounded = round_magnitude(magnitude, c, mode, words_of(random, mode));
  const __m512i m = _mm512_min_epu32(rounded, c->top);
  const __mmask16 negative = _mm512_movepi32_mask(acc);
  return relu ? _mm512_mask_mov_epi32(m, negative, zero) : _mm512_mask_sub_epi32(m, negative, zero, m);
}

/* A random byte against nine bits of the fraction, s >= 9: half of those bits, rounded up, is larger than the byte exactly where
 * its sum with 255 less the byte carries. */
INLINE __m512i round_byte(__m512i x, const Constants *c, const uint8_t *random) {
  const __m512i byte = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)random));
  return _mm512_srli_epi32(_mm512_sub_epi32(_mm512_srlv_epi32(_mm512_add_epi32(x, c->carry), c->eight), byte), 8);
}

INLINE __m512i pack_bytes(const __m512i v[4]) {
  return _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
}

/* Sixty-four as bytes: packing clips magnitudes to 127, and keeps the accumulators' signs. carries: round_byte serves. */
INLINE __m512i round_sixty_four(const int32_t *from, const Constants *c, NitiRounding mode, bool carries, bool relu,
                                const uint8_t *random, __m512i *max) {
  const size_t bytes = random_bytes(mode);
  __m512i acc[4], v[4];
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    const uint8_t *drawn = random + i * LANES * bytes;
    acc[i] = _mm512_loadu_si512(from + i * LANES);
    const __m512i magnitude = _mm512_abs_epi32(acc[i]);
    *max = _mm512_max_epu32(*max, magnitude);
    v[i] = carries ? round_byte(magnitude, c, drawn) : round_magnitude(magnitude, c, mode, words_of(drawn, mode));
  }
  const __m512i packed = pack_bytes(v), zero = _mm512_setzero_si512();
  const __m512i m = relu ? _mm512_min_epi8(packed, c->top8) : packed;
  const __mmask64 negative = _mm512_movepi8_mask(pack_bytes(acc));
  return _mm512_permutexvar_epi32(c->order,
                                  relu ? _mm512_mask_mov_epi8(m, negative, zero) : _mm512_mask_sub_epi8(m, negative, zero, m));
}

INLINE uint32_t largest(__m512i v, uint32_t max) {
  const uint32_t most = _mm512_reduce_max_epu32(v);
  return most > max ? most : max;
}

/* v where the mask `open` passes it, else 0. */
INLINE __m512i keep_open(__m512i v, __m512i open, const Constants *c) {
  const __mmask64 positive = _mm512_cmpgt_epi8_mask(open, _mm512_setzero_si512());
  return _mm512_maskz_mov_epi8(_mm512_mask_cmple_epi8_mask(positive, open, c->last8), v);
}

INLINE __m128i keep_sixteen(__m128i v, __m128i open, const Constants *c) {
  const __mmask16 positive = _mm_cmpgt_epi8_mask(open, _mm_setzero_si128());
  return _mm_maskz_mov_epi8(_mm_mask_cmple_epi8_mask(positive, open, _mm512_castsi512_si128(c->last8)), v);
}

/* One row; random: what its elements draw, or NULL. */
INLINE void round_row(int8_t *out, const int32_t *from, size_t columns, const Constants *c, NitiRounding mode, bool carries,
                      bool relu, const int8_t *mask, const uint8_t *random, __m512i *max) {
  const size_t bytes = random_bytes(mode);
  size_t i = 0;
  for (; i + 4 * LANES <= columns; i += 4 * LANES) {
    const __m512i v = round_sixty_four(from + i, c, mode, carries, relu, random + i * bytes, max);
    _mm512_storeu_si512(out + i, mask ? keep_open(v, _mm512_loadu_si512(mask + i), c) : v);
  }
  for (; i + LANES <= columns; i += LANES) {
    const __m512i acc = _mm512_loadu_si512(from + i);
    const __m128i v = _mm512_cvtepi32_epi8(round_sixteen(acc, c, mode, relu, random + i * bytes, max));
    const __m128i open = mask ? _mm_loadu_si128((const __m128i *)(const void *)(mask + i)) : _mm_set1_epi8(1);
    _mm_storeu_si128((__m128i *)(void *)(out + i), mask ? keep_sixteen(v, open, c) : v);
  }
  if (i < columns) {
    const __mmask16 some = (__mmask16)((1u << (columns - i)) - 1);
    const __m512i acc = _mm512_maskz_loadu_epi32(some, from + i);
    const __m128i v = _mm512_cvtepi32_epi8(round_sixteen(acc, c, mode, relu, random + i * bytes, max));
    const __m128i open = mask ? _mm_maskz_loadu_epi8(some, mask + i) : _mm_set1_epi8(1);
    _mm_mask_storeu_epi8(out + i, some, mask ? keep_sixteen(v, open, c) : v);
  }
}

/* Rows of a tile; one row of any length when rows is 1. */
INLINE uint32_t round_rows(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride, int rows,
                           size_t columns, const NitiRounder *r, NitiRounding mode, bool relu, const int8_t *mask, uint32_t max) {
  const Constants c = constants_of(r);
  __m512i most = _mm512_setzero_si512();
  for (int row = 0; row < rows; ++row) {
    const size_t at = offset[row] + first;
    round_row(tensor + at, acc + (size_t)row * stride, columns, &c, mode, false, relu, mask ? mask + at : NULL, NULL, &most);
  }
  return largest(most, max);
}

/* The same where rounding draws; index: of tensor[0]. */
INLINE uint32_t round_drawn(int8_t *tensor, uint64_t index, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                            int rows, size_t columns, const NitiRounder *r, NitiRounding mode, bool carries, const int8_t *mask,
                            uint32_t max) {
  const Constants c = constants_of(r);
  __m512i most = _mm512_setzero_si512();
  Batch batch;
  for (start_batches(&batch); next_batch(&batch, r, mode, index + first, offset, (size_t)rows, columns);) {
    for (int i = 0; i < batch.count; ++i) {
      const Piece *p = &batch.pieces[i];
      const size_t at = offset[p->row] + first + p->first;
      const int32_t *from = acc + p->row * stride + p->first;
      round_row(tensor + at, from, p->count, &c, mode, carries, r->relu, mask ? mask + at : NULL, batch.random + p->random,
                &most);
    }
  }
  return largest(most, max);
}

uint32_t niti_requantise_tile_avx512(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                                     int rows, int columns, const NitiRounder *r, uint32_t max) {
  int32_t joined[NITI_JOINED_MAX];
  const bool draws = niti_rounding_draws(r->mode);
  const NitiTileRows t = niti_join_rows(joined, offset, (NitiTileRows){acc, stride, (size_t)columns, rows}, draws);
#define ROUND(mode, relu, mask) \
  return round_rows(tensor, offset, first, t.acc, t.stride, t.rows, t.columns, r, mode, relu, mask, max)
#define DRAWN(mode) return round_drawn(tensor, 0, offset, first, t.acc, t.stride, t.rows, t.columns, r, mode, false, r->mask, max)
#define CARRIES(mask) \
  return round_drawn(tensor, 0, offset, first, t.acc, t.stride, t.rows, t.columns, r, NITI_STOCHASTIC_BYTE, true, mask, max)
  switch (r->mode) {
    case NITI_NEAREST:
      if (r->relu && !r->mask) ROUND(NITI_NEAREST, true, NULL);
      if (!r->relu && !r->mask) ROUND(NITI_NEAREST, false, NULL);
      ROUND(NITI_NEAREST, r->relu, r->mask);
    case NITI_PSEUDO_STOCHASTIC:
      if (!r->mask) ROUND(NITI_PSEUDO_STOCHASTIC, r->relu, NULL);
      ROUND(NITI_PSEUDO_STOCHASTIC, r->relu, r->mask);
    case NITI_TRUNCATE: ROUND(NITI_TRUNCATE, r->relu, r->mask);
    case NITI_STOCHASTIC: DRAWN(NITI_STOCHASTIC);
    case NITI_STOCHASTIC_BYTE: break;
  }
  if (r->shift >= 9 && !r->mask) CARRIES(NULL);
  if (r->shift >= 9) CARRIES(r->mask);
  DRAWN(NITI_STOCHASTIC_BYTE);
#undef ROUND
#undef DRAWN
#undef CARRIES
}

uint32_t niti_requantise_avx512(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *r, uint64_t index,
                                uint32_t max) {
  const size_t none = 0;
#define ROUND(mode) return round_rows(out, &none, 0, acc, 0, 1, count, r, mode, r->relu, NULL, max)
#define DRAWN(mode, carries) return round_drawn(out, index, &none, 0, acc, 0, 1, count, r, mode, carries, NULL, max)
  if (r->mode == NITI_STOCHASTIC_BYTE && r->shift >= 9) DRAWN(NITI_STOCHASTIC_BYTE, true);
  if (r->mode == NITI_STOCHASTIC_BYTE) DRAWN(NITI_STOCHASTIC_BYTE, false);
  if (r->mode == NITI_STOCHASTIC) DRAWN(NITI_STOCHASTIC, false);
  if (r->mode == NITI_PSEUDO_STOCHASTIC) ROUND(NITI_PSEUDO_STOCHASTIC);
  if (r->mode == NITI_TRUNCATE) ROUND(NITI_TRUNCATE);
  ROUND(NITI_NEAREST);
#undef ROUND
#undef DRAWN
}
