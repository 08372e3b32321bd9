/* Scales images and cuts windows out of them, in integers. */
#include <stdlib.h>
#include <string.h>

#include "base/scale.h"
#include "base/wide.h"
#include "data/augment.h"
#include "data/format.h"

enum { FITTED_SIDE_MAX = 1 << 22 }; /* keeps a row's sums, 255 * 2 D, in uint32 */

/* out[count][c] = weighted sums along one source row. */
static void sum_row(uint32_t *out, const uint8_t *row, const NitiTaps *taps, int32_t count, int32_t c) {
  for (int32_t x = 0; x < count; ++x) {
    for (int32_t k = 0; k < c; ++k) *out++ = niti_taps_sum(&taps[x], row + k, c);
  }
}

/* Writes count pixels of c channels as C channels. */
static void put_pixels(uint8_t *out, const uint8_t *in, int32_t count, int32_t c, int32_t C) {
  if (c == C) {
    memcpy(out, in, (size_t)count * (size_t)c);
    return;
  }
  for (int32_t x = 0; x < count; ++x) memset(out + (size_t)x * (size_t)C, in[x], (size_t)C);
}

/* Fitted size D = {height, width} of an image for a window H x W. */
static void fitted_size(int64_t D[2], const NitiImage *image, const NitiDataOptions *options, NitiShape size) {
  const int64_t h = image->h, w = image->w, H = size.h, W = size.w;
  if (options->fit == NITI_FIT_STRETCH) {
    D[0] = H;
    D[1] = W;
    return;
  }
  /* By height: the height is the side that is given, and the width follows. */
  const bool by_height = options->resize > 0 ? h <= w : H * w >= W * h;
  const int64_t side = options->resize > 0 ? options->resize : by_height ? H : W;
  D[0] = by_height ? side : (2 * h * side + w) / (2 * w);
  D[1] = by_height ? (2 * w * side + h) / (2 * h) : side;
}

NitiStatus niti_fit_check(const NitiDataOptions *options, NitiShape size) {
  const int64_t longer = size.h > size.w ? size.h : size.w;
  if (size.n != 1 || size.h < 1 || size.w < 1 || longer > NITI_IMAGE_SIDE_MAX)
    return niti_fail(NITI_ERROR_ARGUMENT, "images cannot be fitted to %dx%d: sides must be 1 to %d pixels", size.h, size.w,
                     NITI_IMAGE_SIDE_MAX);
  if (size.c != 1 && size.c != 3)
    return niti_fail(NITI_ERROR_ARGUMENT, "images cannot be read with %d channels: expected 1 (grey) or 3 (RGB)", size.c);
  if (options->fit == NITI_FIT_CROP && options->resize > 0 && options->resize + 2 * (int64_t)options->pad < longer)
    return niti_fail(NITI_ERROR_ARGUMENT, "resize %d with padding %d is smaller than the input %dx%d", options->resize,
                     options->pad, size.h, size.w);
  return NITI_OK;
}

/* One fitting under way; the buffers hold the part of the window that is in the image. */
typedef struct Fit {
  NitiImage image; /* what is scaled: all of it, or a rectangle inside; rows are `stride` bytes apart */
  size_t stride;
  int64_t D[2];
  int32_t y0, x0;       /* the window's start in the fitted image */
  int32_t left, count;  /* its columns [left, left + count) are in the image */
  NitiTaps *taps;       /* [count] */
  uint32_t *rows[2];    /* [count][c]: sums of source row j in rows[j & 1] */
  int32_t row_index[2]; /* which row that is; -1 none */
  uint64_t *sums;       /* [count][c] */
  uint8_t *line;        /* [count][c] */
} Fit;

/* n / d with reciprocal = (2^64 - 1) / d, for n < 2^60: the product is at most one too small, and far faster than dividing. */
static uint64_t divide(uint64_t n, uint64_t d, uint64_t reciprocal) {
  const uint64_t q = niti_wide_high(n, reciprocal);
  return q + (n - q * d >= d);
}

/* One output row inside the image: rows are asked for in ascending order, so two of them are worth keeping. */
static void fit_row(Fit *fit, int32_t y) {
  const NitiImage *image = &fit->image;
  const size_t N = (size_t)fit->count * (size_t)image->c, stride = fit->stride;
  if (fit->D[0] == image->h && fit->D[1] == image->w) {
    memcpy(fit->line, image->pixels + (size_t)y * stride + (size_t)(fit->x0 + fit->left) * (size_t)image->c, N);
    return;
  }
  const NitiTaps taps = niti_taps(y, image->h, fit->D[0]);
  const uint64_t total = niti_taps_total(image->h, fit->D[0]) * niti_taps_total(image->w, fit->D[1]);
  memset(fit->sums, 0, N * sizeof *fit->sums);
  for (int32_t j = taps.first; j <= taps.last; ++j) {
    uint32_t *row = fit->rows[j & 1];
    const uint64_t weight = niti_taps_weight(&taps, j);
    if (fit->row_index[j & 1] != j) {
      sum_row(row, image->pixels + (size_t)j * stride, fit->taps, fit->count, image->c);
      fit->row_index[j & 1] = j;
    }
    for (size_t i = 0; i < N; ++i) fit->sums[i] += weight * row[i];
  }
  const uint64_t reciprocal = UINT64_MAX / (2 * total);
  for (size_t i = 0; i < N; ++i) fit->line[i] = (uint8_t)divide(2 * fit->sums[i] + total, 2 * total, reciprocal);
}

/* A rectangle of the image, scaled to the whole window. */
static void fit_rectangle(Fit *fit, NitiRectangle r, NitiShape size) {
  fit->image.pixels += (size_t)r.y * fit->stride + (size_t)r.x * (size_t)fit->image.c;
  fit->image.h = r.h;
  fit->image.w = r.w;
  fit->D[0] = size.h;
  fit->D[1] = size.w;
}

NitiStatus niti_image_fit(uint8_t *out, const NitiImage *source, const NitiDataOptions *options, NitiShape size,
                          NitiWindow window, const char *path) {
  Fit fit = {.image = *source, .stride = (size_t)source->w * (size_t)source->c, .row_index = {-1, -1}};
  const NitiImage *image = &fit.image;
  fitted_size(fit.D, image, options, size);
  if (window.resized)
    fit_rectangle(&fit, niti_rectangle(options->scale, options->aspect, image->h, image->w, window.words), size);
  for (int axis = 0; axis < 2; ++axis) {
    if (fit.D[axis] < 1 || fit.D[axis] > FITTED_SIDE_MAX)
      return niti_fail(NITI_ERROR_FORMAT, "%s: %dx%d pixels (height x width) are too narrow to be scaled to %dx%d", path,
                       image->h, image->w, size.h, size.w);
  }
  if (!window.resized) {
    fit.y0 = niti_window_start((int32_t)fit.D[0], options->pad, size.h, window.centre, window.word_y);
    fit.x0 = niti_window_start((int32_t)fit.D[1], options->pad, size.w, window.centre, window.word_x);
  }
  const int32_t right = fit.x0 + size.w < (int32_t)fit.D[1] ? size.w : (int32_t)fit.D[1] - fit.x0;
  fit.left = fit.x0 < 0 ? -fit.x0 : 0;
  fit.count = right > fit.left ? right - fit.left : 0;

  const size_t count = (size_t)fit.count, N = count * (size_t)image->c;
  const size_t row_bytes = (size_t)size.c * (size_t)size.w;
  memset(out, 0, niti_shape_image(size));
  if (count == 0) return NITI_OK; /* a window entirely in the padding */
  uint8_t *memory = malloc(N * sizeof *fit.sums + count * sizeof *fit.taps + 2 * N * sizeof **fit.rows + N);
  if (!memory) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for scaling", path);
  fit.sums = (uint64_t *)(void *)memory;
  fit.taps = (NitiTaps *)(void *)(fit.sums + N);
  fit.rows[0] = (uint32_t *)(void *)(fit.taps + count);
  fit.rows[1] = fit.rows[0] + N;
  fit.line = (uint8_t *)(fit.rows[1] + N);
  for (int32_t x = 0; x < fit.count; ++x) fit.taps[x] = niti_taps(fit.x0 + fit.left + x, image->w, fit.D[1]);
  for (int32_t y = 0; y < size.h; ++y) {
    if (fit.y0 + y < 0 || fit.y0 + y >= fit.D[0]) continue;
    fit_row(&fit, fit.y0 + y);
    put_pixels(out + (size_t)y * row_bytes + (size_t)fit.left * (size_t)size.c, fit.line, fit.count, image->c, size.c);
  }
  free(memory);
  return NITI_OK;
}
