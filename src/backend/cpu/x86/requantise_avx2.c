/* Rounding by AVX2, eight accumulators at a time, on magnitudes as unsigned numbers: nothing overflows. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/x86/conv_avx2.h"

#define INLINE static inline __attribute__((always_inline))
enum { LANES = 8 };

/* Magnitudes divided by 2^s, s >= 1; signs are the caller's. */
INLINE __m256i round_magnitude(__m256i x, int s, NitiRounding mode) {
  const __m128i shift = _mm_cvtsi32_si128(s);
  if (mode == NITI_NEAREST) return _mm256_srl_epi32(_mm256_add_epi32(x, _mm256_set1_epi32((int32_t)(1u << (s - 1)))), shift);
  const __m256i q = _mm256_srl_epi32(x, shift);
  if (mode == NITI_TRUNCATE) return q;
  const int h = s / 2;
  const __m256i r = _mm256_and_si256(x, _mm256_set1_epi32((int32_t)((1u << s) - 1)));
  const __m256i hi = _mm256_srl_epi32(r, _mm_cvtsi32_si128(h));
  const __m256i lo = _mm256_sll_epi32(_mm256_and_si256(r, _mm256_set1_epi32((int32_t)((1u << h) - 1))), _mm_cvtsi32_si128(s & 1));
  return _mm256_sub_epi32(q, _mm256_cmpgt_epi32(hi, lo));
}

INLINE __m256i round_eight(__m256i acc, int s, NitiRounding mode, bool relu, __m256i *max) {
  const __m256i magnitude = _mm256_abs_epi32(acc);
  *max = _mm256_max_epu32(*max, magnitude);
  __m256i m = s == 0 ? magnitude : round_magnitude(magnitude, s, mode);
  m = _mm256_sign_epi32(_mm256_min_epu32(m, _mm256_set1_epi32(127)), acc);
  return relu ? _mm256_max_epi32(m, _mm256_setzero_si256()) : m;
}

INLINE uint32_t round_all(int8_t *out, const int32_t *acc, size_t count, int s, NitiRounding mode, bool relu, uint32_t max) {
  __m256i most = _mm256_set1_epi32((int32_t)max);
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    const __m256i m = round_eight(_mm256_loadu_si256((const __m256i *)(const void *)(acc + i)), s, mode, relu, &most);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    _mm_storel_epi64((__m128i *)(void *)(out + i), _mm_packs_epi16(words, words));
  }
  if (i < count) {
    int32_t rest[LANES] = {0};
    int8_t rounded[LANES];
    memcpy(rest, acc + i, (count - i) * sizeof *acc);
    const __m256i m = round_eight(_mm256_loadu_si256((const __m256i *)(const void *)rest), s, mode, relu, &most);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    _mm_storel_epi64((__m128i *)(void *)rounded, _mm_packs_epi16(words, words));
    memcpy(out + i, rounded, count - i);
  }
  uint32_t lanes[LANES];
  _mm256_storeu_si256((__m256i *)(void *)lanes, most);
  for (int lane = 0; lane < LANES; ++lane) max = lanes[lane] > max ? lanes[lane] : max;
  return max;
}

uint32_t niti_requantise_avx2(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *r, uint64_t index, uint32_t max) {
  switch (r->mode) {
    case NITI_NEAREST: return round_all(out, acc, count, r->shift, NITI_NEAREST, r->relu, max);
    case NITI_PSEUDO_STOCHASTIC: return round_all(out, acc, count, r->shift, NITI_PSEUDO_STOCHASTIC, r->relu, max);
    case NITI_TRUNCATE: return round_all(out, acc, count, r->shift, NITI_TRUNCATE, r->relu, max);
    case NITI_STOCHASTIC:
    case NITI_STOCHASTIC_BYTE: break;
  }
  return niti_requantise_ref(out, acc, count, r, index, max);
}

uint32_t niti_requantise_tile_avx2(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                                   int rows, int columns, const NitiRounder *r, uint32_t max) {
  for (int row = 0; row < rows; ++row) {
    const size_t at = offset[row] + first;
    max = niti_requantise_avx2(tensor + at, acc + (size_t)row * stride, (size_t)columns, r, at, max);
    if (r->mask) niti_mask_apply(tensor + at, r->mask + at, (size_t)columns);
  }
  return max;
}
