/* Random blocks by vectors, written once for every instruction set: the Philox4x32-10 of base/random.h, word for word.
 *
 * On x86 a 64-bit lane holds one word of a counter and anything above it: products read the low halves alone, so that a round
 * needs neither masks nor blends. NEON has products of 32-bit lanes whose halves it separates. */
#ifndef NITI_BACKEND_CPU_RANDOM_VECTOR_H
#define NITI_BACKEND_CPU_RANDOM_VECTOR_H

#if defined(__AVX2__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

#include "base/random.h"

#define NITI_RANDOM_INLINE static inline __attribute__((always_inline))
#define NITI_RANDOM_UNROLL _Pragma("GCC unroll 10")

/* The blocks that are made at once at most, and their bytes. */
#if defined(__AVX512F__)
enum { NITI_RANDOM_BLOCKS = 32 };
#define NITI_RANDOM_WHOLE static __attribute__((noinline)) /* it needs the registers of its callers' constants */
#else
enum { NITI_RANDOM_BLOCKS = 16 };
#define NITI_RANDOM_WHOLE NITI_RANDOM_INLINE
#endif
enum { NITI_RANDOM_BYTES = 16 * NITI_RANDOM_BLOCKS };

/* Words: one word of each of NITI_RANDOM_LANES counters. Each set provides random_all(word), random_lanes(from),
 * random_round(counters, low, high), random_add(a, b) and random_store(out, counters), blocks in their order. */
#if defined(__AVX512F__)
enum { NITI_RANDOM_LANES = 8, NITI_RANDOM_TOGETHER = 4 };
typedef __m512i Words;
NITI_RANDOM_INLINE Words random_all(uint32_t word) { return _mm512_set1_epi32((int32_t)word); }
NITI_RANDOM_INLINE Words random_add(Words a, Words b) { return _mm512_add_epi32(a, b); }
NITI_RANDOM_INLINE Words random_lanes(const uint32_t *from) { /* in the order that random_store undoes */
  const __m256i words = _mm256_loadu_si256((const __m256i *)(const void *)from);
  return _mm512_cvtepu32_epi64(_mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}
NITI_RANDOM_INLINE void random_round(Words c[4], Words low, Words high) {
  enum { XOR3 = 0x96 };
  const Words a = _mm512_mul_epu32(c[0], random_all(0xd2511f53u)), b = _mm512_mul_epu32(c[2], random_all(0xcd9e8d57u));
  c[0] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(b, 32), c[1], low, XOR3);
  c[2] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(a, 32), c[3], high, XOR3);
  c[1] = b;
  c[3] = a;
}
NITI_RANDOM_INLINE void random_store(uint8_t *out, const Words c[4]) {
  const Words first = _mm512_mask_blend_epi32(0xaaaa, c[0], _mm512_slli_epi64(c[1], 32));
  const Words second = _mm512_mask_blend_epi32(0xaaaa, c[2], _mm512_slli_epi64(c[3], 32));
  _mm512_storeu_si512(out, _mm512_unpacklo_epi64(first, second));
  _mm512_storeu_si512(out + sizeof first, _mm512_unpackhi_epi64(first, second));
}
#elif defined(__AVX2__)
enum { NITI_RANDOM_LANES = 4, NITI_RANDOM_TOGETHER = 2 };
typedef __m256i Words;
NITI_RANDOM_INLINE Words random_all(uint32_t word) { return _mm256_set1_epi32((int32_t)word); }
NITI_RANDOM_INLINE Words random_add(Words a, Words b) { return _mm256_add_epi32(a, b); }
NITI_RANDOM_INLINE Words random_lanes(const uint32_t *from) { /* in the order that random_store undoes */
  const __m128i words = _mm_loadu_si128((const __m128i *)(const void *)from);
  return _mm256_cvtepu32_epi64(_mm_shuffle_epi32(words, _MM_SHUFFLE(3, 1, 2, 0)));
}
NITI_RANDOM_INLINE void random_round(Words c[4], Words low, Words high) {
  const Words a = _mm256_mul_epu32(c[0], random_all(0xd2511f53u)), b = _mm256_mul_epu32(c[2], random_all(0xcd9e8d57u));
  c[0] = _mm256_xor_si256(_mm256_srli_epi64(b, 32), _mm256_xor_si256(c[1], low));
  c[2] = _mm256_xor_si256(_mm256_srli_epi64(a, 32), _mm256_xor_si256(c[3], high));
  c[1] = b;
  c[3] = a;
}
NITI_RANDOM_INLINE void random_store(uint8_t *out, const Words c[4]) {
  const Words first = _mm256_blend_epi32(c[0], _mm256_slli_epi64(c[1], 32), 0xaa);
  const Words second = _mm256_blend_epi32(c[2], _mm256_slli_epi64(c[3], 32), 0xaa);
  _mm256_storeu_si256((__m256i *)(void *)out, _mm256_unpacklo_epi64(first, second));
  _mm256_storeu_si256((__m256i *)(void *)(out + sizeof first), _mm256_unpackhi_epi64(first, second));
}
#else
enum { NITI_RANDOM_LANES = 4, NITI_RANDOM_TOGETHER = 2 };
typedef uint32x4_t Words;
NITI_RANDOM_INLINE Words random_all(uint32_t word) { return vdupq_n_u32(word); }
NITI_RANDOM_INLINE Words random_add(Words a, Words b) { return vaddq_u32(a, b); }
NITI_RANDOM_INLINE Words random_lanes(const uint32_t *from) { return vld1q_u32(from); }
NITI_RANDOM_INLINE void random_multiply(Words *low, Words *high, Words a, Words b) {
  const uint32x4_t even = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(a), vget_low_u32(b)));
  const uint32x4_t odd = vreinterpretq_u32_u64(vmull_high_u32(a, b));
  *low = vuzp1q_u32(even, odd);
  *high = vuzp2q_u32(even, odd);
}
NITI_RANDOM_INLINE void random_round(Words c[4], Words low, Words high) {
  Words a, a_high, b, b_high;
  random_multiply(&a, &a_high, c[0], random_all(0xd2511f53u));
  random_multiply(&b, &b_high, c[2], random_all(0xcd9e8d57u));
  c[0] = veorq_u32(b_high, veorq_u32(c[1], low));
  c[2] = veorq_u32(a_high, veorq_u32(c[3], high));
  c[1] = b;
  c[3] = a;
}
NITI_RANDOM_INLINE void random_store(uint8_t *out, const Words c[4]) {
  const uint32x4x4_t words = {{c[0], c[1], c[2], c[3]}};
  vst4q_u32((uint32_t *)(void *)out, words);
}
#endif

/* out = the words of `together` vectors of blocks: several, whose instructions do not wait for each other. */
NITI_RANDOM_INLINE void random_vectors(uint8_t *out, const uint32_t *block, const NitiDraw *draw, const int together) {
  Words low = random_all((uint32_t)draw->seed), high = random_all((uint32_t)(draw->seed >> 32));
  Words c[NITI_RANDOM_BLOCKS / NITI_RANDOM_LANES][4];
  NITI_RANDOM_UNROLL for (int i = 0; i < together; ++i) {
    c[i][0] = random_lanes(block + i * NITI_RANDOM_LANES);
    c[i][1] = random_all(draw->time);
    c[i][2] = random_all(draw->layer);
    c[i][3] = random_all(draw->purpose);
  }
  NITI_RANDOM_UNROLL for (int round = 0; round < 10; ++round) {
    NITI_RANDOM_UNROLL for (int i = 0; i < together; ++i) random_round(c[i], low, high);
    low = random_add(low, random_all(0x9e3779b9u));
    high = random_add(high, random_all(0xbb67ae85u));
  }
  NITI_RANDOM_UNROLL for (int i = 0; i < together; ++i) random_store(out + 16 * i * NITI_RANDOM_LANES, c[i]);
}

/* out = the words of `used` blocks, in memory's order, and of some more up to NITI_RANDOM_BLOCKS; out is aligned to 4 bytes. */
NITI_RANDOM_WHOLE void random_blocks(uint8_t out[NITI_RANDOM_BYTES], const uint32_t block[NITI_RANDOM_BLOCKS], size_t used,
                                     const NitiDraw *draw) {
  enum { FEW = 2, STEP = NITI_RANDOM_TOGETHER * NITI_RANDOM_LANES };
  if (used <= FEW * NITI_RANDOM_LANES) {
    random_vectors(out, block, draw, FEW);
    return;
  }
  for (size_t i = 0; i < used; i += STEP) random_vectors(out + 16 * i, block + i, draw, NITI_RANDOM_TOGETHER);
}

#endif
