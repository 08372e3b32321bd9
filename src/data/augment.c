/* The epoch's permutation, and the random windows, squares and colours of images. */
#include "data/augment.h"

#include <assert.h>

#include "base/random.h"
#include "base/scalar.h"

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

NitiWindow niti_resized_draw(uint64_t seed, uint32_t epoch, uint32_t image) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_RESIZED_CROP, .time = epoch};
  return (NitiWindow){.resized = true, .words = niti_draw_block(&draw, image)};
}

/* An aspect ratio with 16 fraction bits, evenly between the logarithms of two. */
static int64_t draw_aspect(const int32_t aspect[2], uint32_t word) {
  const int64_t unit = niti_log2(1000000);
  const int64_t least = niti_log2((uint64_t)aspect[0]) - unit, most = niti_log2((uint64_t)aspect[1]) - unit;
  const int64_t t = least + niti_word_below(word, (uint32_t)(most - least) + 1);
  return (int64_t)(niti_exp2_frac((uint32_t)(t & 65535)) >> (14 - (t >> 16)));
}

/* nearest(sqrt(x / 4)), at least 1. */
static int64_t half_root(int64_t x) {
  const int64_t root = ((int64_t)niti_sqrt_floor((uint64_t)x) + 1) >> 1;
  return root > 1 ? root : 1;
}

/* A side in proportion, at least 1. */
static int64_t shrunk(int64_t side, int64_t from, int64_t to) {
  const int64_t out = (2 * side * to + from) / (2 * from);
  return out > 1 ? out : 1;
}

NitiRectangle niti_rectangle(const int32_t scale[2], const int32_t aspect[2], int32_t h, int32_t w, NitiWords words) {
  const int64_t share = scale[0] + (int64_t)niti_word_below(words.word[0], (uint32_t)(scale[1] - scale[0]) + 1);
  const int64_t part = (int64_t)h * w * share / 1000000, area = part > 1 ? part : 1, ratio = draw_aspect(aspect, words.word[1]);
  int64_t columns = half_root((4 * area * ratio) >> 16), rows = half_root(((4 * area) << 16) / ratio);
  if (columns > w) {
    rows = shrunk(rows, columns, w);
    columns = w;
  }
  if (rows > h) {
    columns = shrunk(columns, rows, h);
    rows = h;
  }
  return (NitiRectangle){.y = (int32_t)niti_word_below(words.word[2], (uint32_t)(h - rows) + 1),
                         .x = (int32_t)niti_word_below(words.word[3], (uint32_t)(w - columns) + 1),
                         .h = (int32_t)rows,
                         .w = (int32_t)columns};
}

void niti_cutout_draw(NitiSample *sample, const NitiDataOptions *options, NitiShape input, uint64_t seed, uint32_t epoch,
                      uint32_t image) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_CUTOUT, .time = epoch};
  if (options->cutout == 0) return;
  const NitiWords words = niti_draw_block(&draw, image >> 1);
  const uint32_t first = (image & 1) * 2;
  sample->cut = (uint16_t)options->cutout;
  sample->cut_y = (int16_t)((int32_t)niti_word_below(words.word[first], (uint32_t)input.h) - options->cutout / 2);
  sample->cut_x = (int16_t)((int32_t)niti_word_below(words.word[first + 1], (uint32_t)input.w) - options->cutout / 2);
}

void niti_colours_draw(NitiSample *sample, const NitiDataOptions *options, uint16_t grey, uint64_t seed, uint32_t epoch,
                       uint32_t image) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_COLOUR, .time = epoch};
  if (!niti_data_jitters(options)) return;
  const NitiWords words = niti_draw_block(&draw, image);
  sample->coloured = 1;
  sample->colours =
      niti_colours(niti_colour_factor(options->brightness, words.word[0]), niti_colour_factor(options->contrast, words.word[1]),
                   niti_colour_factor(options->saturation, words.word[2]), grey);
}

/* Sums of bytes that are so many apart: in columns of 16 bits, which 257 bytes cannot fill. */
enum { COLUMNS = 48, ROWS = 257 };

uint16_t niti_image_grey(const uint8_t *pixels, int64_t count, int32_t c) {
  static const uint64_t weights[3] = {19595, 38470, 7471};
  const int64_t bytes = count * c;
  uint64_t sums[COLUMNS] = {0}, grey = 0;
  int64_t at = 0;
  if (c != 1 && c != 3) return 0;
  while (at + COLUMNS <= bytes) {
    uint16_t some[COLUMNS] = {0};
    for (int row = 0; row < ROWS && at + COLUMNS <= bytes; ++row, at += COLUMNS) {
      for (int i = 0; i < COLUMNS; ++i) some[i] = (uint16_t)(some[i] + pixels[at + i]);
    }
    for (int i = 0; i < COLUMNS; ++i) sums[i] += some[i];
  }
  for (int i = 0; at < bytes; ++i, ++at) sums[i] += pixels[at];
  for (int i = 0; i < COLUMNS; ++i) grey += sums[i] * (c == 1 ? 65536 : weights[i % 3]);
  return (uint16_t)((grey * 256 + 32768 * (uint64_t)count) / (65536 * (uint64_t)count));
}

/* Quantiles of the smaller part of Beta(0.2, 0.2): docs/arithmetic.md, "Augmentation". */
static const uint8_t edges[256] = {
    0,  0,  0,  0,  0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,  0,  0,  0,
    0,  0,  0,  0,  0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,  0,  0,  0,
    0,  0,  0,  0,  0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,  0,  0,  1,
    1,  1,  1,  1,  1,   1,   1,   1,   1,   1,   1,   1,   1,   1,   1,   1,   1,   1,   2,   2,   2,   2,   2,  2,  2,  2,
    2,  2,  2,  3,  3,   3,   3,   3,   3,   3,   4,   4,   4,   4,   4,   4,   5,   5,   5,   5,   5,   6,   6,  6,  6,  6,
    7,  7,  7,  7,  8,   8,   8,   9,   9,   9,   10,  10,  10,  11,  11,  11,  12,  12,  13,  13,  13,  14,  14, 15, 15, 16,
    16, 17, 17, 18, 18,  19,  19,  20,  21,  21,  22,  22,  23,  24,  24,  25,  26,  26,  27,  28,  29,  29,  30, 31, 32, 32,
    33, 34, 35, 36, 37,  38,  39,  39,  40,  41,  42,  43,  44,  45,  46,  47,  48,  49,  51,  52,  53,  54,  55, 56, 57, 59,
    60, 61, 62, 63, 65,  66,  67,  68,  70,  71,  72,  74,  75,  76,  78,  79,  81,  82,  83,  85,  86,  88,  89, 91, 92, 93,
    95, 96, 98, 99, 101, 102, 104, 105, 107, 109, 110, 112, 113, 115, 116, 118, 119, 121, 123, 124, 126, 127,
};

uint8_t niti_share_draw(const NitiDataOptions *options, uint64_t seed, uint32_t epoch, uint32_t image) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_MIXUP, .time = epoch};
  if (options->mixup == NITI_MIXUP_NONE) return 0;
  const uint32_t i = niti_draw(&draw, image) >> 24;
  return options->mixup == NITI_MIXUP_EDGES ? edges[i] : (uint8_t)((2 * i + 3) >> 2);
}
