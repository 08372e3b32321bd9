/* Sums of the squares of gradients, for clipping by norm: the largest magnitude of a tensor first. */
#include "base/clip.h"

#include "backend/cpu/chunk.h"
#include "backend/cpu/loops.h"

typedef struct Squares {
  const NitiLoops *loops;
  const NitiGradient *gradient;
  uint64_t max, sum;
  int shift;
} Squares;

static size_t at(const Squares *s, size_t item, const int32_t **narrow, const int64_t **wide) {
  *narrow = (const int32_t *)s->gradient->data + item * NITI_CHUNK;
  *wide = (const int64_t *)s->gradient->data + item * NITI_CHUNK;
  return niti_chunk_count(s->gradient->count, NITI_CHUNK, item);
}

static void max_tile(void *context, size_t thread, size_t item) {
  Squares *s = context;
  const int32_t *narrow;
  const int64_t *wide;
  const size_t count = at(s, item, &narrow, &wide);
  const uint64_t max = s->gradient->bits == 32 ? s->loops->largest32(narrow, count) : s->loops->largest64(wide, count);
  uint64_t seen = __atomic_load_n(&s->max, __ATOMIC_RELAXED);
  (void)thread;
  while (max > seen && !__atomic_compare_exchange_n(&s->max, &seen, max, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

static void sum_tile(void *context, size_t thread, size_t item) {
  Squares *s = context;
  const int32_t *narrow;
  const int64_t *wide;
  const size_t count = at(s, item, &narrow, &wide);
  const uint64_t sum =
      s->gradient->bits == 32 ? s->loops->squares32(narrow, count, s->shift) : s->loops->squares64(wide, count, s->shift);
  (void)thread;
  (void)__atomic_fetch_add(&s->sum, sum, __ATOMIC_RELAXED);
}

static void add_squares(NitiCpu *cpu, const NitiSquareSum *squares) {
  const NitiGradient *g = squares->gradient;
  const NitiScalar before = {squares->before ? (int32_t)squares->before[0] : 0,
                             squares->before ? (int32_t)squares->before[1] : 0};
  const int32_t exponent = (g->exponents[0] ? *g->exponents[0] : 0) + (g->exponents[1] ? *g->exponents[1] : 0);
  Squares s = {.loops = niti_loops(cpu->isa), .gradient = g};
  const size_t tiles = niti_divide_up(g->count, NITI_CHUNK);
  niti_threads_run(cpu->threads, max_tile, &s, tiles);
  s.shift = niti_squares_shift(s.max, g->count);
  niti_threads_run(cpu->threads, sum_tile, &s, tiles);
  const NitiScalar total = niti_squares_add(before, s.sum, s.shift, exponent);
  squares->total[0] = total.m;
  squares->total[1] = total.e;
}

void niti_cpu_gradient_squares(NitiBackend *backend, const NitiSquareSum *squares, int count) {
  for (int i = 0; i < count; ++i) add_squares(niti_cpu(backend), &squares[i]);
}
