/* The gradient of a bias: sums of the deltas of each channel. */
#include <string.h>

#include "backend/cpu/chunk.h"

enum {
  SLICE = 256,    /* channels whose sums a task keeps on its stack */
  ROWS = 1 << 12, /* rows of a task: int32 sums of so many mantissas are exact */
};

typedef struct BiasGradient {
  int64_t *sums;
  const int8_t *dy;
  size_t rows, channels, slices;
} BiasGradient;

static void add_row(int32_t *restrict sums, const int8_t *restrict dy, size_t count) {
  for (size_t c = 0; c < count; ++c) sums[c] += dy[c];
}

static void sum_rows(void *context, size_t thread, size_t item) {
  const BiasGradient *b = context;
  const size_t first = item % b->slices * SLICE, row = item / b->slices * ROWS, end = row + niti_least(ROWS, b->rows - row);
  const size_t count = niti_least(SLICE, b->channels - first);
  int32_t sums[SLICE] = {0};
  (void)thread;
  for (size_t r = row; r < end; ++r) add_row(sums, b->dy + r * b->channels + first, count);
  for (size_t c = 0; c < count; ++c) (void)__atomic_fetch_add(&b->sums[first + c], sums[c], __ATOMIC_RELAXED);
}

void niti_cpu_bias_gradient(NitiBackend *backend, NitiTensor *gradient, const NitiTensor *dy) {
  const size_t channels = (size_t)dy->shape.c, rows = niti_shape_count(dy->shape) / channels;
  BiasGradient b = {(int64_t *)(void *)gradient->data, dy->data, rows, channels, niti_divide_up(channels, SLICE)};
  memset(b.sums, 0, channels * sizeof *b.sums);
  niti_threads_run(niti_cpu(backend)->threads, sum_rows, &b, b.slices * niti_divide_up(rows, ROWS));
  *gradient->exponent = *dy->exponent;
}
