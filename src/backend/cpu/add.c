/* Residual add. The output may be an input's memory, so nothing is written before the largest accumulator is known: the
 * first pass finds it, the second rounds. */
#include "backend/cpu/chunk.h"
#include "base/guess.h"
#include "base/round.h"

enum { LARGEST_SHIFT = 15 }; /* of the operand with the larger exponent */

typedef struct Add {
  int8_t *out;
  const int8_t *large, *small; /* by exponent */
  int left, right;             /* acc = (large << left) + nearest(small, right) */
  size_t count;
  uint32_t max;
  NitiRequantiseKernel kernel;
  NitiRounder rounder;
} Add;

static void accumulate_left(int32_t *restrict acc, const int8_t *restrict large, const int8_t *restrict small, size_t count,
                            int left) {
  for (size_t i = 0; i < count; ++i) acc[i] = (int32_t)((uint32_t)(int32_t)large[i] << left) + small[i];
}

/* Where the exponents lie so far apart that the small operand loses bits. */
static void accumulate_far(int32_t *restrict acc, const int8_t *restrict large, const int8_t *restrict small, size_t count,
                           int right) {
  const int s = right > 8 ? 8 : right; /* (127 + 2^7) >> 8 = 0: nothing is left from 8 on */
  const int32_t half = 1 << (s - 1);
  for (size_t i = 0; i < count; ++i) {
    const int32_t m = small[i], magnitude = ((m < 0 ? -m : m) + half) >> s;
    acc[i] = large[i] * (1 << LARGEST_SHIFT) + (m < 0 ? -magnitude : magnitude);
  }
}

static size_t accumulate(int32_t acc[NITI_ACC_CHUNK], const Add *a, size_t item) {
  const size_t first = item * NITI_ACC_CHUNK, count = niti_chunk_count(a->count, NITI_ACC_CHUNK, item);
  if (a->right == 0) {
    accumulate_left(acc, a->large + first, a->small + first, count, a->left);
  } else {
    accumulate_far(acc, a->large + first, a->small + first, count, a->right);
  }
  return count;
}

static void max_tile(void *context, size_t thread, size_t item) {
  Add *a = context;
  int32_t acc[NITI_ACC_CHUNK];
  (void)thread;
  const size_t count = accumulate(acc, a, item);
  niti_max_raise((_Atomic uint32_t *)&a->max, niti_chunk_largest(a->kernel, acc, count, 0));
}

static void round_tile(void *context, size_t thread, size_t item) {
  const Add *a = context;
  const size_t first = item * NITI_ACC_CHUNK;
  int32_t acc[NITI_ACC_CHUNK];
  (void)thread;
  const size_t count = accumulate(acc, a, item);
  (void)a->kernel(a->out + first, acc, count, &a->rounder, first, 0);
}

void niti_cpu_add(NitiBackend *backend, NitiTensor *y, const NitiTensor *a, const NitiTensor *b, const NitiRequantise *rq) {
  NitiCpu *cpu = niti_cpu(backend);
  const bool a_larger = *a->exponent >= *b->exponent;
  const NitiTensor *large = a_larger ? a : b, *small = a_larger ? b : a;
  const int64_t d = (int64_t)*large->exponent - *small->exponent;
  const bool far = d > LARGEST_SHIFT;
  const int32_t exponent = far ? *large->exponent - LARGEST_SHIFT : *small->exponent;
  Add add = {.out = y->data,
             .large = large->data,
             .small = small->data,
             .left = far ? LARGEST_SHIFT : (int)d,
             .right = !far                    ? 0
                      : d - LARGEST_SHIFT > 8 ? 8
                                              : (int)(d - LARGEST_SHIFT),
             .count = niti_shape_count(a->shape),
             .kernel = niti_requantise_kernel(cpu->isa)};
  const size_t tiles = niti_chunks(add.count, NITI_ACC_CHUNK);
  niti_threads_run(cpu->threads, max_tile, &add, tiles);
  add.rounder = (NitiRounder){.mode = rq->mode,
                              .shift = niti_shift_inline(add.max),
                              .draw = {.seed = cpu->seed, .purpose = rq->purpose, .time = cpu->step, .layer = rq->layer}};
  niti_threads_run(cpu->threads, round_tile, &add, tiles);
  *y->exponent = exponent + add.rounder.shift;
  if (rq->guess) *rq->guess = niti_guess_update(*rq->guess, add.rounder.shift);
}
