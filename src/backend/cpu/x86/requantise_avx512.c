/* Rounding by AVX-512, sixteen accumulators at a time, on magnitudes as unsigned numbers: nothing overflows. */
#include <immintrin.h>

#include "backend/cpu/x86/conv_avx2.h"

#define INLINE static inline __attribute__((always_inline))
enum { LANES = 16 };

typedef struct Constants {
  __m512i half, low, low_half; /* 2^(s-1); 2^s - 1; 2^(s/2) - 1 */
  __m128i shift, shift_half, odd;
} Constants;

INLINE Constants constants_of(int s) {
  const Constants c = {
      .half = _mm512_set1_epi32(s > 0 ? (int32_t)(1u << (s - 1)) : 0),
      .low = _mm512_set1_epi32((int32_t)((1u << s) - 1)),
      .low_half = _mm512_set1_epi32((int32_t)((1u << (s / 2)) - 1)),
      .shift = _mm_cvtsi32_si128(s),
      .shift_half = _mm_cvtsi32_si128(s / 2),
      .odd = _mm_cvtsi32_si128(s & 1),
  };
  return c;
}

/* s = 0 needs no case of its own: half and r are 0. */
INLINE __m512i round_magnitude(__m512i x, const Constants *c, NitiRounding mode) {
  if (mode == NITI_NEAREST) return _mm512_srl_epi32(_mm512_add_epi32(x, c->half), c->shift);
  const __m512i q = _mm512_srl_epi32(x, c->shift);
  if (mode == NITI_TRUNCATE) return q;
  const __m512i r = _mm512_and_si512(x, c->low);
  const __m512i hi = _mm512_srl_epi32(r, c->shift_half);
  const __m512i lo = _mm512_sll_epi32(_mm512_and_si512(r, c->low_half), c->odd);
  return _mm512_mask_add_epi32(q, _mm512_cmpgt_epi32_mask(hi, lo), q, _mm512_set1_epi32(1));
}

INLINE __m128i round_sixteen(__m512i acc, const Constants *c, NitiRounding mode, bool relu, __m512i *max) {
  const __m512i magnitude = _mm512_abs_epi32(acc), zero = _mm512_setzero_si512();
  *max = _mm512_max_epu32(*max, magnitude);
  const __m512i m = _mm512_min_epu32(round_magnitude(magnitude, c, mode), _mm512_set1_epi32(127));
  const __mmask16 negative = _mm512_movepi32_mask(acc);
  return _mm512_cvtepi32_epi8(relu ? _mm512_mask_mov_epi32(m, negative, zero) : _mm512_mask_sub_epi32(m, negative, zero, m));
}

INLINE uint32_t largest(__m512i v, uint32_t max) {
  const uint32_t most = _mm512_reduce_max_epu32(v);
  return most > max ? most : max;
}

/* v where `open` is positive, else 0. */
INLINE __m128i keep_positive(__m128i v, __m128i open) {
  return _mm_maskz_mov_epi8(_mm_cmpgt_epi8_mask(open, _mm_setzero_si128()), v);
}

/* Rows of a tile; one row of any length when rows is 1. */
INLINE uint32_t round_rows(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride, int rows,
                           size_t columns, const NitiRounder *r, NitiRounding mode, bool relu, const int8_t *mask, uint32_t max) {
  const Constants c = constants_of(r->shift);
  __m512i most = _mm512_setzero_si512();
  for (int row = 0; row < rows; ++row) {
    int8_t *out = tensor + offset[row] + first;
    const int8_t *gate = mask ? mask + offset[row] + first : NULL;
    const int32_t *from = acc + (size_t)row * stride;
    size_t i = 0;
    for (; i + LANES <= columns; i += LANES) {
      const __m128i v = round_sixteen(_mm512_loadu_si512(from + i), &c, mode, relu, &most);
      const __m128i open = gate ? _mm_loadu_si128((const __m128i *)(const void *)(gate + i)) : _mm_set1_epi8(1);
      _mm_storeu_si128((__m128i *)(void *)(out + i), gate ? keep_positive(v, open) : v);
    }
    if (i < columns) {
      const __mmask16 some = (__mmask16)((1u << (columns - i)) - 1);
      const __m128i v = round_sixteen(_mm512_maskz_loadu_epi32(some, from + i), &c, mode, relu, &most);
      const __m128i open = gate ? _mm_maskz_loadu_epi8(some, gate + i) : _mm_set1_epi8(1);
      _mm_mask_storeu_epi8(out + i, some, gate ? keep_positive(v, open) : v);
    }
  }
  return largest(most, max);
}

uint32_t niti_requantise_tile_avx512(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                                     int rows, int columns, const NitiRounder *r, uint32_t max) {
#define ROUND(mode, relu, mask) \
  return round_rows(tensor, offset, first, acc, stride, rows, (size_t)columns, r, mode, relu, mask, max)
  switch (r->mode) {
    case NITI_NEAREST:
      if (r->relu && !r->mask) ROUND(NITI_NEAREST, true, NULL);
      if (!r->relu && !r->mask) ROUND(NITI_NEAREST, false, NULL);
      ROUND(NITI_NEAREST, r->relu, r->mask);
    case NITI_PSEUDO_STOCHASTIC:
      if (!r->mask) ROUND(NITI_PSEUDO_STOCHASTIC, r->relu, NULL);
      ROUND(NITI_PSEUDO_STOCHASTIC, r->relu, r->mask);
    case NITI_TRUNCATE:
      ROUND(NITI_TRUNCATE, r->relu, r->mask);
    case NITI_STOCHASTIC:
      break;
  }
#undef ROUND
  for (int row = 0; row < rows; ++row) {
    const size_t at = offset[row] + first;
    max = niti_requantise_ref(tensor + at, acc + (size_t)row * stride, (size_t)columns, r, at, max);
    if (r->mask) niti_mask_apply(tensor + at, r->mask + at, (size_t)columns);
  }
  return max;
}

uint32_t niti_requantise_avx512(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *r, uint64_t index,
                                uint32_t max) {
  const size_t none = 0;
  if (r->mode == NITI_STOCHASTIC) return niti_requantise_ref(out, acc, count, r, index, max);
#define ROUND(mode) return round_rows(out, &none, 0, acc, 0, 1, count, r, mode, r->relu, NULL, max)
  if (r->mode == NITI_PSEUDO_STOCHASTIC) ROUND(NITI_PSEUDO_STOCHASTIC);
  if (r->mode == NITI_TRUNCATE) ROUND(NITI_TRUNCATE);
  ROUND(NITI_NEAREST);
#undef ROUND
}
