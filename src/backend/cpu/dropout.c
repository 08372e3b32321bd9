/* Dropout, forward and backward: draws the mask from its indices. */
#include "base/dropout.h"

#include "backend/cpu/chunk.h"

enum { MASK_TILE = 1 << 12 }; /* elements; a multiple of 4, the words of one random block */

typedef struct Dropout {
  int8_t *y;
  const int8_t *x;
  NitiDraw draw;
  NitiDropoutScale scale;
  size_t rows, count; /* rows of `count` elements share one mask */
  uint64_t first;     /* the index of the first of them */
} Dropout;

/* mask[i] = -1 where element first + i stays, else 0. */
static void make_mask(int8_t *mask, const NitiDraw *draw, uint32_t threshold, uint64_t first, size_t count) {
  size_t begun = 0; /* the rest of a block that another rank begins */
  for (; begun < count && (first + begun) % 4 != 0; ++begun)
    mask[begun] = (int8_t) - (niti_draw(draw, first + begun) >= threshold);
  for (size_t i = begun; i < count; i += 4) {
    const NitiWords words = niti_draw_block(draw, (uint32_t)((first + i) >> 2));
    for (size_t j = 0; j < 4; ++j) mask[i + j] = (int8_t) - (words.word[j] >= threshold);
  }
}

static void apply(int8_t *restrict y, const int8_t *restrict x, const int8_t *restrict mask, size_t count) {
  for (size_t i = 0; i < count; ++i) y[i] = x[i] & mask[i];
}

static void apply_in_place(int8_t *restrict y, const int8_t *restrict mask, size_t count) {
  for (size_t i = 0; i < count; ++i) y[i] &= mask[i];
}

static void scale(int8_t *y, size_t count, int32_t factor) {
  for (size_t i = 0; i < count; ++i) y[i] = (int8_t)niti_dropout_scaled(y[i], factor);
}

static void dropout_tile(void *context, size_t thread, size_t item) {
  const Dropout *d = context;
  const size_t first = item * MASK_TILE, count = niti_chunk_count(d->count, MASK_TILE, item);
  int8_t mask[MASK_TILE + 3]; /* whole blocks */
  (void)thread;
  make_mask(mask, &d->draw, d->scale.threshold, d->first + first, count);
  for (size_t row = 0; row < d->rows; ++row) {
    const size_t at = row * d->count + first;
    if (d->y == d->x) {
      apply_in_place(d->y + at, mask, count);
    } else {
      apply(d->y + at, d->x + at, mask, count);
    }
    if (d->scale.factor != NITI_DROPOUT_WHOLE) scale(d->y + at, count, d->scale.factor);
  }
}

void niti_cpu_dropout(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, uint32_t layer, const NitiDropout *dropout) {
  NitiCpu *cpu = niti_cpu(backend);
  const size_t rows = dropout->shared ? (size_t)x->shape.n : 1;
  Dropout d = {.y = y->data,
               .x = x->data,
               .draw = {.seed = cpu->seed, .purpose = NITI_DRAW_DROPOUT, .time = cpu->step, .layer = layer},
               .scale = niti_dropout_scale(dropout->rate),
               .rows = rows,
               .first = dropout->shared ? 0 : niti_cpu_first(cpu, niti_shape_image(x->shape)),
               .count = dropout->shared ? niti_shape_image(x->shape) : niti_shape_count(x->shape)};
  niti_threads_run(cpu->threads, dropout_tile, &d, niti_divide_up(d.count, MASK_TILE));
  *y->exponent = *x->exponent + d.scale.exponent;
}
