/* The epoch's permutation, and the random windows, squares and colours of images. */
#include "data/augment.h"

#include <assert.h>

#include "base/random.h"
#include "base/scalar.h"
#include "data/format.h"

enum { IMAGE_PIXELS_MAX = 1 << 28 };

void niti_order_shuffle(uint32_t *order, int64_t count, uint64_t seed, uint32_t epoch) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_SHUFFLE, .time = epoch};
  NitiWords words = {{0}};
  if (!order || count < 0 || count > UINT32_MAX) return;
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

void niti_crop_draw(int32_t *y, int32_t *x, int32_t span_y, int32_t span_x, uint64_t seed, uint32_t epoch, uint32_t image) {
  if (!y || !x || span_y < 0 || span_x < 0 || span_y == INT32_MAX || span_x == INT32_MAX) return;
  const NitiWindow window = niti_window_draw(seed, epoch, image);
  *y = niti_window_start(span_y, 0, 0, false, window.word_y);
  *x = niti_window_start(span_x, 0, 0, false, window.word_x);
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

static bool is_range(const int32_t range[2], int32_t least, int32_t most) {
  return range && range[0] >= least && range[0] <= range[1] && range[1] <= most;
}

void niti_rectangle_draw(int32_t rectangle[4], const int32_t scale[2], const int32_t aspect[2], int32_t h, int32_t w,
                         uint64_t seed, uint32_t epoch, uint32_t image) {
  if (!rectangle || !is_range(scale, 1, NITI_SCALE_MAX) || !is_range(aspect, NITI_ASPECT_MIN, NITI_ASPECT_MAX)) return;
  if (h < 1 || w < 1 || (int64_t)h * w > IMAGE_PIXELS_MAX) return;
  const NitiRectangle r = niti_rectangle(scale, aspect, h, w, niti_resized_draw(seed, epoch, image).words);
  rectangle[0] = r.y;
  rectangle[1] = r.x;
  rectangle[2] = r.h;
  rectangle[3] = r.w;
}

void niti_square_draw(int32_t *y, int32_t *x, int32_t size, int32_t h, int32_t w, uint64_t seed, uint32_t epoch, uint32_t image) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_CUTOUT, .time = epoch};
  const int32_t most = NITI_IMAGE_SIDE_MAX;
  if (!y || !x || size < 1 || size > most || h < 1 || h > most || w < 1 || w > most) return;
  const NitiWords words = niti_draw_block(&draw, image >> 1);
  const uint32_t first = (image & 1) * 2;
  *y = (int32_t)niti_word_below(words.word[first], (uint32_t)h) - size / 2;
  *x = (int32_t)niti_word_below(words.word[first + 1], (uint32_t)w) - size / 2;
}

void niti_cutout_draw(NitiSample *sample, const NitiDataOptions *options, NitiShape input, uint64_t seed, uint32_t epoch,
                      uint32_t image) {
  int32_t y = 0, x = 0;
  if (options->cutout == 0) return;
  niti_square_draw(&y, &x, options->cutout, input.h, input.w, seed, epoch, image);
  sample->cut = (uint16_t)options->cutout;
  sample->cut_y = (int16_t)y;
  sample->cut_x = (int16_t)x;
}

/* strengths: brightness, contrast and saturation. */
static NitiColours draw_colours(const int32_t strengths[3], uint16_t grey, uint64_t seed, uint32_t epoch, uint32_t image) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_COLOUR, .time = epoch};
  const NitiWords words = niti_draw_block(&draw, image);
  int32_t factors[3];
  for (int i = 0; i < 3; ++i) factors[i] = niti_colour_factor(strengths[i], words.word[i]);
  return niti_colours(factors[0], factors[1], factors[2], grey);
}

void niti_jitter_draw(int32_t map[3], const int32_t strengths[3], uint16_t grey, uint64_t seed, uint32_t epoch, uint32_t image) {
  if (!map || !strengths || grey > 255 << NITI_GREY_BITS) return;
  for (int i = 0; i < 3; ++i) {
    if (strengths[i] < 0 || strengths[i] > 1000000) return;
  }
  const NitiColours colours = draw_colours(strengths, grey, seed, epoch, image);
  map[0] = colours.pixel;
  map[1] = colours.grey;
  map[2] = colours.offset;
}

void niti_colours_draw(NitiSample *sample, const NitiDataOptions *options, uint16_t grey, uint64_t seed, uint32_t epoch,
                       uint32_t image) {
  const int32_t strengths[3] = {options->brightness, options->contrast, options->saturation};
  if (!niti_data_jitters(options)) return;
  sample->coloured = 1;
  sample->colours = draw_colours(strengths, grey, seed, epoch, image);
}

/* Sums of bytes that are so many apart: in columns of 16 bits, which 257 bytes cannot fill. */
enum { COLUMNS = 48, ROWS = 257 };

uint16_t niti_image_grey(const uint8_t *pixels, int64_t count, int32_t c) {
  static const uint64_t weights[3] = {19595, 38470, 7471};
  uint64_t sums[COLUMNS] = {0}, grey = 0;
  int64_t at = 0;
  if (!pixels || count < 1 || count > IMAGE_PIXELS_MAX || (c != 1 && c != 3)) return 0;
  const int64_t bytes = count * c;
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

enum { MIXUP_EDGES = 200000, MIXUP_EVEN = 1000000 };

int32_t niti_mixup_draw(int32_t mixup, uint64_t seed, uint32_t epoch, uint32_t image) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_MIXUP, .time = epoch};
  if (mixup != MIXUP_EDGES && mixup != MIXUP_EVEN) return 0;
  const uint32_t i = niti_draw(&draw, image) >> 24;
  return mixup == MIXUP_EDGES ? edges[i] : (int32_t)((2 * i + 3) >> 2);
}

uint8_t niti_share_draw(const NitiDataOptions *options, uint64_t seed, uint32_t epoch, uint32_t image) {
  if (options->mixup == NITI_MIXUP_NONE) return 0;
  return (uint8_t)niti_mixup_draw(options->mixup == NITI_MIXUP_EDGES ? MIXUP_EDGES : MIXUP_EVEN, seed, epoch, image);
}
