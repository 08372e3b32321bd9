/* The epoch's permutation and the random windows of images. */
#include "data/augment.h"

#include <assert.h>

#include "base/random.h"

void niti_order_shuffle(uint32_t *order, int64_t count, uint64_t seed, uint32_t epoch) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_SHUFFLE, .time = epoch};
  NitiWords words = {{0}};
  for (int64_t i = 0; i < count; ++i) order[i] = (uint32_t)i;
  for (int64_t i = count - 1; i > 0; --i) {
    /* Words come in blocks of four: a new block where the descending index enters one. */
    if (i == count - 1 || (i & 3) == 3) words = niti_draw_block(&draw, (uint32_t)(i >> 2));
    const uint32_t j = niti_word_below(words.word[i & 3], (uint32_t)(i + 1));
    const uint32_t swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
}

NitiWindow niti_window_draw(uint64_t seed, uint32_t epoch, uint32_t image) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_CROP, .time = epoch};
  const NitiWords words = niti_draw_block(&draw, image >> 1); /* words 2 * image and 2 * image + 1 share a block */
  const uint32_t first = (image & 1) * 2;
  const NitiWindow window = {.word_y = words.word[first], .word_x = words.word[first + 1]};
  return window;
}

bool niti_flip_draw(uint64_t seed, uint32_t epoch, uint32_t image) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_FLIP, .time = epoch};
  return niti_draw(&draw, image) >> 31;
}

int32_t niti_window_start(int32_t size, int32_t pad, int32_t window, bool centre, uint32_t word) {
  const int32_t span = size + 2 * pad - window;
  assert(span >= 0);
  return (centre ? span / 2 : (int32_t)niti_word_below(word, (uint32_t)span + 1)) - pad;
}
