/* Counter-based random numbers, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Random numbers".
 *
 * Philox4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011,
 * https://doi.org/10.1145/2063384.2063405, whose implementation is Random123. */
#ifndef NITI_BASE_RANDOM_H
#define NITI_BASE_RANDOM_H

#include "base/round.h"

/* Identifies a stream of random words; within it a word is a function of its index alone. */
typedef struct NitiDraw {
  uint64_t seed;
  uint32_t purpose, time, layer;
} NitiDraw;

typedef struct NitiWords {
  uint32_t word[4];
} NitiWords;

/* Ten rounds, each two products whose halves change places, on a counter c under a 64-bit key. */
NITI_INLINE NitiWords niti_philox(NitiWords c, uint64_t key) {
  uint32_t low = (uint32_t)key, high = (uint32_t)(key >> 32);
#if defined(__CUDA_ARCH__) || defined(__clang__)
#pragma unroll
#elif !defined(__CUDACC__)
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
#if defined(__CUDA_ARCH__) /* halves apart: nvcc would add zeros to the upper ones */
    const uint32_t a = 0xd2511f53u * c.word[0], b = 0xcd9e8d57u * c.word[2];
    const NitiWords next = {
        {__umulhi(0xcd9e8d57u, c.word[2]) ^ c.word[1] ^ low, b, __umulhi(0xd2511f53u, c.word[0]) ^ c.word[3] ^ high, a}};
#else
    const uint64_t a = (uint64_t)0xd2511f53u * c.word[0], b = (uint64_t)0xcd9e8d57u * c.word[2];
    const NitiWords next = {
        {(uint32_t)(b >> 32) ^ c.word[1] ^ low, (uint32_t)b, (uint32_t)(a >> 32) ^ c.word[3] ^ high, (uint32_t)a}};
#endif
    c = next;
    low += 0x9e3779b9u;  /* the golden ratio */
    high += 0xbb67ae85u; /* sqrt(3) - 1 */
  }
  return c;
}

/* Words 4 * block .. 4 * block + 3 of a stream. */
NITI_INLINE NitiWords niti_draw_block(const NitiDraw *draw, uint32_t block) {
  const NitiWords counter = {{block, draw->time, draw->layer, draw->purpose}};
  return niti_philox(counter, draw->seed);
}

/* One word; index < 2^34. */
NITI_INLINE uint32_t niti_draw(const NitiDraw *draw, uint64_t index) {
  return niti_draw_block(draw, (uint32_t)(index >> 2)).word[index & 3];
}

/* Whether a rounding mode draws random numbers. */
NITI_INLINE bool niti_rounding_draws(NitiRounding mode) { return mode == NITI_STOCHASTIC || mode == NITI_STOCHASTIC_BYTE; }

/* What rounding the element at this index draws: a word, or one byte of a word that four elements share. */
NITI_INLINE uint32_t niti_rounding_word(const NitiDraw *draw, NitiRounding mode, uint64_t index) {
  if (mode == NITI_STOCHASTIC) return niti_draw(draw, index);
  return mode == NITI_STOCHASTIC_BYTE ? niti_draw(draw, index >> 2) >> (8 * (index & 3)) & 255 : 0;
}

/* A word as a uniform integer in [0, range). */
NITI_INLINE uint32_t niti_word_below(uint32_t word, uint32_t range) { return (uint32_t)(((uint64_t)word * range) >> 32); }

#endif
