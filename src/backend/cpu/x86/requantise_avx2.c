/* Rounding by AVX2, eight accumulators at a time, on magnitudes as unsigned numbers: nothing overflows. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/requantise_drawn.h"
#include "backend/cpu/x86/conv_avx2.h"

#define INLINE static inline __attribute__((always_inline))
enum { LANES = 8 };

/* What the fractions of eight elements are compared with, by signed comparisons; random: where the elements' bytes or words
 * begin. */
INLINE __m256i words_of(const uint8_t *random, NitiRounding mode) {
  if (mode == NITI_STOCHASTIC)
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)random), _mm256_set1_epi32(INT32_MIN));
  if (mode != NITI_STOCHASTIC_BYTE) return _mm256_setzero_si256();
  return _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)random)), 1);
}

/* Magnitudes divided by 2^s, s >= 1; signs are the caller's. */
INLINE __m256i round_magnitude(__m256i x, int s, NitiRounding mode, __m256i word) {
  const __m128i shift = _mm_cvtsi32_si128(s);
  if (mode == NITI_NEAREST) return _mm256_srl_epi32(_mm256_add_epi32(x, _mm256_set1_epi32((int32_t)(1u << (s - 1)))), shift);
  const __m256i q = _mm256_srl_epi32(x, shift);
  if (mode == NITI_TRUNCATE) return q;
  if (niti_rounding_draws(mode)) { /* the fraction brought to the top */
    const __m256i top = _mm256_sll_epi32(x, _mm_cvtsi32_si128(32 - s));
    const __m256i fraction =
        mode == NITI_STOCHASTIC_BYTE ? _mm256_srli_epi32(top, 32 - 9) : _mm256_xor_si256(top, _mm256_set1_epi32(INT32_MIN));
    return _mm256_sub_epi32(q, _mm256_cmpgt_epi32(fraction, word));
  }
  const int h = s / 2;
  const __m256i r = _mm256_and_si256(x, _mm256_set1_epi32((int32_t)((1u << s) - 1)));
  const __m256i hi = _mm256_srl_epi32(r, _mm_cvtsi32_si128(h));
  const __m256i lo = _mm256_sll_epi32(_mm256_and_si256(r, _mm256_set1_epi32((int32_t)((1u << h) - 1))), _mm_cvtsi32_si128(s & 1));
  return _mm256_sub_epi32(q, _mm256_cmpgt_epi32(hi, lo));
}

/* top: the largest result. */
INLINE __m256i round_eight(__m256i acc, int s, NitiRounding mode, bool relu, int32_t top, const uint8_t *random, __m256i *max) {
  const __m256i magnitude = _mm256_abs_epi32(acc);
  *max = _mm256_max_epu32(*max, magnitude);
  __m256i m = s == 0 ? magnitude : round_magnitude(magnitude, s, mode, words_of(random, mode));
  m = _mm256_sign_epi32(_mm256_min_epu32(m, _mm256_set1_epi32(top)), acc);
  return relu ? _mm256_max_epi32(m, _mm256_setzero_si256()) : m;
}

INLINE void store_eight(int8_t *out, __m256i m) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  _mm_storel_epi64((__m128i *)(void *)out, _mm_packs_epi16(words, words));
}

/* A row; random: what its elements draw, or NULL. */
INLINE void round_row(int8_t *out, const int32_t *acc, size_t count, int s, NitiRounding mode, bool relu, int32_t top,
                      const uint8_t *random, __m256i *max) {
  const size_t bytes = random_bytes(mode);
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(acc + i));
    store_eight(out + i, round_eight(v, s, mode, relu, top, random + i * bytes, max));
  }
  if (i < count) {
    int32_t rest[LANES] = {0};
    int8_t rounded[LANES];
    memcpy(rest, acc + i, (count - i) * sizeof *acc);
    const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)rest);
    store_eight(rounded, round_eight(v, s, mode, relu, top, random + i * bytes, max));
    memcpy(out + i, rounded, count - i);
  }
}

INLINE uint32_t largest(__m256i v, uint32_t max) {
  uint32_t lanes[LANES];
  _mm256_storeu_si256((__m256i *)(void *)lanes, v);
  for (int lane = 0; lane < LANES; ++lane) max = lanes[lane] > max ? lanes[lane] : max;
  return max;
}

INLINE uint32_t round_all(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *r, NitiRounding mode, uint32_t max) {
  __m256i most = _mm256_setzero_si256();
  round_row(out, acc, count, r->shift, mode, r->relu, niti_rounder_top(r), NULL, &most);
  return largest(most, max);
}

/* Rows where rounding draws; index: of tensor[0]. */
INLINE uint32_t round_drawn(int8_t *tensor, uint64_t index, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                            int rows, size_t columns, const NitiRounder *r, NitiRounding mode, const int8_t *mask, uint32_t max) {
  __m256i most = _mm256_setzero_si256();
  const int32_t top = niti_rounder_top(r);
  Batch batch;
  for (start_batches(&batch); next_batch(&batch, r, mode, index + first, offset, (size_t)rows, columns);) {
    for (int i = 0; i < batch.count; ++i) {
      const Piece *p = &batch.pieces[i];
      const size_t at = offset[p->row] + first + p->first;
      const int32_t *from = acc + p->row * stride + p->first;
      round_row(tensor + at, from, p->count, r->shift, mode, r->relu, top, batch.random + p->random, &most);
      if (mask) niti_mask_apply(tensor + at, mask + at, p->count, niti_rounder_last(r));
    }
  }
  return largest(most, max);
}

static uint32_t drawn(int8_t *tensor, uint64_t index, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                      int rows, size_t columns, const NitiRounder *r, const int8_t *mask, uint32_t max) {
  if (r->mode == NITI_STOCHASTIC)
    return round_drawn(tensor, index, offset, first, acc, stride, rows, columns, r, NITI_STOCHASTIC, mask, max);
  return round_drawn(tensor, index, offset, first, acc, stride, rows, columns, r, NITI_STOCHASTIC_BYTE, mask, max);
}

uint32_t niti_requantise_avx2(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *r, uint64_t index, uint32_t max) {
  switch (r->mode) {
    case NITI_NEAREST: return round_all(out, acc, count, r, NITI_NEAREST, max);
    case NITI_PSEUDO_STOCHASTIC: return round_all(out, acc, count, r, NITI_PSEUDO_STOCHASTIC, max);
    case NITI_TRUNCATE: return round_all(out, acc, count, r, NITI_TRUNCATE, max);
    case NITI_STOCHASTIC:
    case NITI_STOCHASTIC_BYTE: break;
  }
  const size_t none = 0;
  return drawn(out, index, &none, 0, acc, 0, 1, count, r, NULL, max);
}

uint32_t niti_requantise_tile_avx2(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                                   int rows, int columns, const NitiRounder *r, uint32_t max) {
  int32_t joined[NITI_JOINED_MAX];
  const bool draws = niti_rounding_draws(r->mode);
  const NitiTileRows t = niti_join_rows(joined, offset, (NitiTileRows){acc, stride, (size_t)columns, rows}, draws);
  if (draws) return drawn(tensor, 0, offset, first, t.acc, t.stride, t.rows, t.columns, r, r->mask, max);
  for (int row = 0; row < t.rows; ++row) {
    const size_t at = offset[row] + first;
    max = niti_requantise_avx2(tensor + at, t.acc + (size_t)row * t.stride, t.columns, r, at, max);
    if (r->mask) niti_mask_apply(tensor + at, r->mask + at, t.columns, niti_rounder_last(r));
  }
  return max;
}
