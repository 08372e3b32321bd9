/* Residual add. The output may be an input's memory, so nothing is written before the largest accumulator is known: the
 * first pass finds it, the second rounds. */
#include "backend/cpu/chunk.h"
#include "base/align.h"
#include "base/shift_prediction.h"

typedef struct Add {
  int8_t *out;
  const int8_t *large, *small; /* by exponent */
  NitiAlignment align;
  size_t count;
  uint32_t max;
  NitiRequantiseKernel kernel;
  NitiRounder rounder;
} Add;

static size_t accumulate(int32_t acc[restrict NITI_ACC_CHUNK], const Add *a, size_t item) {
  const size_t first = item * NITI_ACC_CHUNK, count = niti_chunk_count(a->count, NITI_ACC_CHUNK, item);
  const int8_t *large = a->large + first, *small = a->small + first;
  const int32_t left = a->align.left, right = a->align.right;
  if (right == 0) {
    for (size_t i = 0; i < count; ++i) acc[i] = niti_align_sum(large[i], small[i], left, 0);
  } else { /* the exponents differ so much that the small operand loses bits */
    for (size_t i = 0; i < count; ++i) acc[i] = niti_align_sum(large[i], small[i], NITI_ALIGN_LEFT_MAX, right);
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
  if (a->rounder.mask) niti_mask_apply(a->out + first, a->rounder.mask + first, count, NITI_MANTISSA_MAX);
}

void niti_cpu_add(NitiBackend *backend, NitiTensor *y, const NitiTensor *a, const NitiTensor *b, const NitiTensor *mask,
                  bool relu, const NitiRequantise *rq) {
  NitiCpu *cpu = niti_cpu(backend);
  const NitiAlignment align = niti_align(*a->exponent, *b->exponent);
  Add add = {.out = y->data,
             .large = (align.a_larger ? a : b)->data,
             .small = (align.a_larger ? b : a)->data,
             .align = align,
             .count = niti_shape_count(a->shape),
             .kernel = cpu->requantise};
  const size_t tiles = niti_divide_up(add.count, NITI_ACC_CHUNK);
  niti_threads_run(cpu->threads, max_tile, &add, tiles);
  add.max = niti_cpu_largest(cpu, add.max);
  add.rounder = (NitiRounder){.mode = rq->mode,
                              .shift = niti_clipped_shift(add.max, rq->clip),
                              .relu = relu,
                              .mask = mask ? mask->data : NULL,
                              .first = niti_cpu_first(cpu, rq->image),
                              .draw = {.seed = cpu->seed, .purpose = rq->purpose, .time = cpu->step, .layer = rq->layer}};
  niti_threads_run(cpu->threads, round_tile, &add, tiles);
  *y->exponent = align.exponent + add.rounder.shift;
  *rq->prediction = niti_shift_prediction_update(*rq->prediction, add.rounder.shift);
}
