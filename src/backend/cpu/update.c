/* Update `niti` of a weight tensor. */
#include "base/update.h"

#include "backend/cpu/chunk.h"
#include "backend/cpu/loops.h"

typedef struct Update {
  int8_t *w;
  const void *gradient;
  int bits;
  NitiMu mu;
  const NitiLoops *loops;
  size_t count;
  NitiRequantiseKernel kernel;
  uint64_t max;
} Update;

static uint64_t largest64(const int64_t *g, size_t count) {
  int64_t max = 0;
  for (size_t i = 0; i < count; ++i) {
    const int64_t magnitude = g[i] < 0 ? -g[i] : g[i];
    max = magnitude > max ? magnitude : max;
  }
  return (uint64_t)max;
}

static void subtract(int8_t *restrict w, const int8_t *restrict step, size_t count) {
  for (size_t i = 0; i < count; ++i) w[i] = niti_update_step(w[i], step[i]);
}

static uint64_t largest32(NitiRequantiseKernel kernel, const int32_t *g, size_t count) {
  uint32_t max = 0;
  for (size_t i = 0; i < count; i += NITI_ACC_CHUNK) {
    max = niti_chunk_largest(kernel, g + i, count - i < NITI_ACC_CHUNK ? count - i : NITI_ACC_CHUNK, max);
  }
  return max;
}

/* niti_update_weight over a row, at a whole mu and shift >= 1. */
static void update32(NitiRequantiseKernel kernel, int8_t *w, const int32_t *g, size_t count, int shift) {
  const NitiRounder rounder = {.mode = NITI_PSEUDO_STOCHASTIC, .shift = shift};
  int8_t step[NITI_ACC_CHUNK];
  for (size_t i = 0; i < count; i += NITI_ACC_CHUNK) {
    const size_t some = count - i < NITI_ACC_CHUNK ? count - i : NITI_ACC_CHUNK;
    kernel(step, g + i, some, &rounder, 0, 0);
    subtract(w + i, step, some);
  }
}

static void max_tile(void *context, size_t thread, size_t item) {
  Update *u = context;
  const size_t first = item * NITI_CHUNK, count = niti_chunk_count(u->count, NITI_CHUNK, item);
  const uint64_t max = u->bits == 32 ? largest32(u->kernel, (const int32_t *)u->gradient + first, count)
                                     : largest64((const int64_t *)u->gradient + first, count);
  uint64_t seen = __atomic_load_n(&u->max, __ATOMIC_RELAXED);
  (void)thread;
  while (max > seen && !__atomic_compare_exchange_n(&u->max, &seen, max, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

static void update_tile(void *context, size_t thread, size_t item) {
  const Update *u = context;
  const size_t first = item * NITI_CHUNK, count = niti_chunk_count(u->count, NITI_CHUNK, item);
  int8_t *w = u->w + first;
  (void)thread;
  if (u->bits == 32) {
    const int32_t *g = (const int32_t *)u->gradient + first;
    if (u->mu.shift >= 1 && u->mu.factor == 0) {
      update32(u->kernel, w, g, count, u->mu.shift);
    } else if (u->mu.shift >= 1) {
      u->loops->update(w, g, count, &u->mu);
    } else {
      for (size_t i = 0; i < count; ++i) w[i] = niti_update_weight(w[i], g[i], &u->mu);
    }
  } else {
    const int64_t *g = (const int64_t *)u->gradient + first;
    for (size_t i = 0; i < count; ++i) w[i] = niti_update_weight(w[i], g[i], &u->mu);
  }
}

static void update(NitiCpu *cpu, NitiTensor *w, const NitiGradient *gradient, int64_t mu) {
  Update u = {.w = w->data,
              .gradient = gradient->data,
              .bits = gradient->bits,
              .count = gradient->count,
              .kernel = cpu->requantise,
              .loops = niti_loops(cpu->isa)};
  const size_t tiles = niti_divide_up(u.count, NITI_CHUNK);
  if (!niti_cpu_take_largest(cpu, gradient, &u.max)) niti_threads_run(cpu->threads, max_tile, &u, tiles);
  if (niti_bits_inline(u.max) == 0) return;
  u.mu = niti_mu(u.max, mu);
  niti_threads_run(cpu->threads, update_tile, &u, tiles);
}

void niti_cpu_update_niti(NitiBackend *backend, const NitiWeightUpdate *updates, int count) {
  NitiCpu *cpu = niti_cpu(backend);
  for (int i = 0; i < count; ++i) update(cpu, updates[i].w, updates[i].gradient, cpu->scalars[updates[i].scalar]);
}
