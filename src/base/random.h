/* Counter-based random numbers (Philox4x32-10, Random123): docs/arithmetic.md, "Random numbers". */
#ifndef NITI_BASE_RANDOM_H
#define NITI_BASE_RANDOM_H

#include <Random123/philox.h>

#include "base/round.h"

/* What a stream of random words is for; a word is then a function of its index alone. */
typedef struct NitiDraw {
  uint64_t seed;
  uint32_t purpose, time, layer;
} NitiDraw;

typedef struct NitiWords {
  uint32_t word[4];
} NitiWords;

/* Words 4 * block .. 4 * block + 3 of a stream. */
NITI_INLINE NitiWords niti_draw_block(const NitiDraw *draw, uint32_t block) {
  const philox4x32_key_t key = {{(uint32_t)draw->seed, (uint32_t)(draw->seed >> 32)}};
  const philox4x32_ctr_t counter = {{block, draw->time, draw->layer, draw->purpose}};
  const philox4x32_ctr_t out = philox4x32(counter, key);
  const NitiWords words = {{out.v[0], out.v[1], out.v[2], out.v[3]}};
  return words;
}

/* One word; index < 2^34. */
NITI_INLINE uint32_t niti_draw(const NitiDraw *draw, uint64_t index) {
  return niti_draw_block(draw, (uint32_t)(index >> 2)).word[index & 3];
}

/* A word as a uniform integer in [0, range). */
NITI_INLINE uint32_t niti_word_below(uint32_t word, uint32_t range) { return (uint32_t)(((uint64_t)word * range) >> 32); }

#endif
