/* The kernels of grouped convolutions on vectors, written once for every instruction set: a file that includes this defines
 * NITI_GROUPED_PIXELS and NITI_GROUPED_TERMS, as many as its registers hold. Contracts: grouped.h.
 *
 * Two operands of each lane are multiplied and added at a time. x86 has an instruction for neighbouring pairs of int16; elsewhere
 * both products are added as int16, which their magnitude of at most 127^2 = 16,129 allows. */
#ifndef NITI_BACKEND_CPU_GROUPED_VECTOR_H
#define NITI_BACKEND_CPU_GROUPED_VECTOR_H

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "backend/cpu/grouped.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

enum { LANES = NITI_GROUPED_LANES };

/* Pairs: two operands for each lane of a vector. Sums: an accumulator for each. */
#if defined(__AVX2__)
INLINE __m128i load_bytes(const int8_t *from) { return _mm_loadu_si128((const __m128i *)(const void *)from); }
#endif
#if defined(__AVX512BW__)
typedef __m512i Pairs;
typedef __m512i Sums;

INLINE Pairs pairs_of(const int8_t *a, const int8_t *b) {
  const __m128i first = load_bytes(a), second = load_bytes(b);
  const __m256i low = _mm256_castsi128_si256(_mm_unpacklo_epi8(first, second));
  return _mm512_cvtepi8_epi16(_mm256_inserti128_si256(low, _mm_unpackhi_epi8(first, second), 1));
}
INLINE Pairs load_pairs(const int16_t *from) { return _mm512_loadu_si512(from); }
INLINE Sums load_sums(const int32_t *from) { return _mm512_loadu_si512(from); }
INLINE void store_sums(int32_t *to, Sums s) { _mm512_storeu_si512(to, s); }
INLINE Sums no_sums(void) { return _mm512_setzero_si512(); }
INLINE Sums dot(Sums sum, Pairs a, Pairs b) { return _mm512_dpwssd_epi32(sum, a, b); }
#elif defined(__AVX2__)
typedef struct Pairs {
  __m256i low, high; /* lanes 0 .. 7, 8 .. 15 */
} Pairs;
typedef Pairs Sums;

INLINE Pairs pairs_of(const int8_t *a, const int8_t *b) {
  const __m128i first = load_bytes(a), second = load_bytes(b);
  return (Pairs){_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(first, second)), _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(first, second))};
}
INLINE Pairs load_vectors(const void *from) {
  return (Pairs){_mm256_loadu_si256(from), _mm256_loadu_si256((const __m256i *)from + 1)};
}
INLINE Pairs load_pairs(const int16_t *from) { return load_vectors(from); }
INLINE Sums load_sums(const int32_t *from) { return load_vectors(from); }
INLINE void store_sums(int32_t *to, Sums s) {
  _mm256_storeu_si256((__m256i *)(void *)to, s.low);
  _mm256_storeu_si256((__m256i *)(void *)to + 1, s.high);
}
INLINE Sums no_sums(void) { return (Sums){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
INLINE Sums dot(Sums sum, Pairs a, Pairs b) {
  return (Sums){_mm256_add_epi32(sum.low, _mm256_madd_epi16(a.low, b.low)),
                _mm256_add_epi32(sum.high, _mm256_madd_epi16(a.high, b.high))};
}
#else
typedef int8_t Bytes __attribute__((vector_size(8)));
typedef int16_t Shorts __attribute__((vector_size(16)));
typedef int16_t FewShorts __attribute__((vector_size(8)));
typedef int32_t Ints __attribute__((vector_size(16)));
typedef struct Pairs {
  Shorts first[2], second[2];
} Pairs;
typedef struct Sums {
  Ints of[4];
} Sums;

INLINE Shorts widen(const int8_t *from) {
  Bytes bytes;
  memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(bytes, Shorts);
}
INLINE Pairs pairs_of(const int8_t *a, const int8_t *b) { return (Pairs){{widen(a), widen(a + 8)}, {widen(b), widen(b + 8)}}; }
INLINE Pairs load_pairs(const int16_t *from) {
  Shorts v[4];
  memcpy(v, from, sizeof v);
  return (Pairs){{__builtin_shufflevector(v[0], v[1], 0, 2, 4, 6, 8, 10, 12, 14),
                  __builtin_shufflevector(v[2], v[3], 0, 2, 4, 6, 8, 10, 12, 14)},
                 {__builtin_shufflevector(v[0], v[1], 1, 3, 5, 7, 9, 11, 13, 15),
                  __builtin_shufflevector(v[2], v[3], 1, 3, 5, 7, 9, 11, 13, 15)}};
}
INLINE Sums load_sums(const int32_t *from) {
  Sums s;
  memcpy(&s, from, sizeof s);
  return s;
}
INLINE void store_sums(int32_t *to, Sums s) { memcpy(to, &s, sizeof s); }
INLINE Sums no_sums(void) { return (Sums){{{0}}}; }
INLINE Sums dot(Sums sum, Pairs a, Pairs b) {
  UNROLL for (int h = 0; h < 2; ++h) {
    const Shorts p = a.first[h] * b.first[h] + a.second[h] * b.second[h];
    sum.of[2 * h] += __builtin_convertvector(__builtin_shufflevector(p, p, 0, 1, 2, 3), Ints);
    sum.of[2 * h + 1] += __builtin_convertvector(__builtin_shufflevector(p, p, 4, 5, 6, 7), Ints);
  }
  return sum;
}
#endif

/* lanes < LANES */
INLINE void store_some(int32_t *to, Sums s, size_t lanes) {
#if defined(__AVX512BW__)
  _mm512_mask_storeu_epi32(to, (__mmask16)((1u << lanes) - 1), s);
#else
  int32_t all[LANES];
  store_sums(all, s);
  memcpy(to, all, lanes * sizeof *to);
#endif
}

/* ---- sums ---- */

INLINE void sums_of(int32_t *acc, size_t acc_step, const int16_t *w, size_t w_step, const NitiGroupedRow *r, const int8_t *in,
                    size_t lanes, const int pixels) {
  Sums sum[NITI_GROUPED_PIXELS];
  UNROLL for (int p = 0; p < pixels; ++p) sum[p] = no_sums();
  for (size_t t = 0; t < r->terms; t += 2, w += 2 * w_step) {
    const Pairs weights = load_pairs(w);
    const int8_t *first = in + r->offset[t], *second = in + r->offset[t + 1];
    UNROLL for (int p = 0; p < pixels; ++p) sum[p] =
        dot(sum[p], pairs_of(first + (size_t)p * r->step, second + (size_t)p * r->step), weights);
  }
  UNROLL for (int p = 0; p < pixels; ++p) {
    if (lanes >= LANES)
      store_sums(acc + (size_t)p * acc_step, sum[p]);
    else
      store_some(acc + (size_t)p * acc_step, sum[p], lanes);
  }
}

static void sums(int32_t *acc, size_t acc_step, const int16_t *w, size_t w_step, const NitiGroupedRow *r) {
  size_t p = 0;
  for (; p + NITI_GROUPED_PIXELS <= r->pixels; p += NITI_GROUPED_PIXELS) {
    for (size_t l = 0; l < r->lanes; l += LANES)
      sums_of(acc + p * acc_step + l, acc_step, w + 2 * l, w_step, r, r->in + p * r->step + l, r->lanes - l, NITI_GROUPED_PIXELS);
  }
  for (; p < r->pixels; ++p) {
    for (size_t l = 0; l < r->lanes; l += LANES)
      sums_of(acc + p * acc_step + l, acc_step, w + 2 * l, w_step, r, r->in + p * r->step + l, r->lanes - l, 1);
  }
}

/* ---- products ---- */

/* Some terms of one vector of lanes. */
INLINE void products_of(int32_t *sum, size_t sum_step, const int8_t *dy, size_t dy_step, const NitiGroupedRow *r,
                        const int8_t *in, const size_t *offset, const int terms) {
  static const int8_t none[LANES];
  Sums total[NITI_GROUPED_TERMS];
  UNROLL for (int t = 0; t < terms; ++t) total[t] = load_sums(sum + (size_t)t * sum_step);
  for (size_t p = 0; p < r->pixels; p += 2, in += 2 * r->step, dy += 2 * dy_step) {
    const bool both = p + 1 < r->pixels;
    const Pairs delta = pairs_of(dy, both ? dy + dy_step : none);
    const int8_t *next = both ? in + r->step : in;
    UNROLL for (int t = 0; t < terms; ++t) total[t] = dot(total[t], pairs_of(in + offset[t], next + offset[t]), delta);
  }
  UNROLL for (int t = 0; t < terms; ++t) store_sums(sum + (size_t)t * sum_step, total[t]);
}

static void products(int32_t *sum, size_t sum_step, const int8_t *dy, size_t dy_step, const NitiGroupedRow *r) {
  for (size_t l = 0; l < r->lanes; l += LANES) {
    const int8_t *in = r->in + l;
    size_t t = 0;
    for (; t + NITI_GROUPED_TERMS <= r->terms; t += NITI_GROUPED_TERMS)
      products_of(sum + t * sum_step + l, sum_step, dy + l, dy_step, r, in, r->offset + t, NITI_GROUPED_TERMS);
    for (; t < r->terms; ++t) products_of(sum + t * sum_step + l, sum_step, dy + l, dy_step, r, in, r->offset + t, 1);
  }
}

#endif
