/* Update `sgd` of a weight tensor: the largest magnitudes first, then every weight. */
#include "base/sgd.h"

#include "backend/cpu/chunk.h"

enum { CHUNK = 1 << 14 };

typedef struct Update {
  int8_t *operand; /* NULL: the weights are 16-bit themselves */
  int16_t *weight, *velocity;
  const void *gradient;
  int bits;
  size_t count;
  uint64_t gradient_max;
  uint32_t weight_max, velocity_max;
  NitiSgd step;
  NitiDraw draw;
} Update;

static int64_t gradient_at(const Update *u, size_t i) {
  return u->bits == 32 ? ((const int32_t *)u->gradient)[i] : ((const int64_t *)u->gradient)[i];
}

static void raise64(uint64_t *max, uint64_t value) {
  uint64_t seen = __atomic_load_n(max, __ATOMIC_RELAXED);
  while (value > seen && !__atomic_compare_exchange_n(max, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

static uint32_t largest16(const int16_t *x, size_t count) {
  int32_t max = 0;
  for (size_t i = 0; i < count; ++i) {
    const int32_t magnitude = x[i] < 0 ? -x[i] : x[i];
    max = magnitude > max ? magnitude : max;
  }
  return (uint32_t)max;
}

static uint64_t largest32(const int32_t *x, size_t count) {
  int32_t least = 0, most = 0;
  for (size_t i = 0; i < count; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  const int64_t low = -(int64_t)least;
  return (uint64_t)(low > most ? low : most);
}

static uint64_t largest64(const int64_t *x, size_t count) {
  uint64_t max = 0;
  for (size_t i = 0; i < count; ++i) max = niti_magnitude64(x[i]) > max ? niti_magnitude64(x[i]) : max;
  return max;
}

static void max_tile(void *context, size_t thread, size_t item) {
  Update *u = context;
  const size_t first = item * CHUNK, count = niti_chunk_count(u->count, CHUNK, item);
  (void)thread;
  raise64(&u->gradient_max, u->bits == 32 ? largest32((const int32_t *)u->gradient + first, count)
                                          : largest64((const int64_t *)u->gradient + first, count));
  niti_max_raise((_Atomic uint32_t *)&u->weight_max, largest16(u->weight + first, count));
  niti_max_raise((_Atomic uint32_t *)&u->velocity_max, largest16(u->velocity + first, count));
}

static void update_tile(void *context, size_t thread, size_t item) {
  const Update *u = context;
  const size_t first = item * CHUNK, end = first + niti_chunk_count(u->count, CHUNK, item);
  (void)thread;
  for (size_t i = first; i < end; i += 4) { /* CHUNK is a multiple of 4 */
    const NitiWords words = niti_draw_block(&u->draw, (uint32_t)(i >> 2));
    for (size_t k = 0; k < 4 && i + k < end; ++k)
      niti_sgd_weight(&u->weight[i + k], &u->velocity[i + k], gradient_at(u, i + k), words.word[k], &u->step);
  }
  for (size_t i = first; u->operand && i < end; ++i) u->operand[i] = niti_sgd_operand(u->weight[i]);
}

static int64_t scalar_of(const NitiCpu *cpu, int32_t scalar) { return scalar == NITI_NONE ? 0 : cpu->scalars[scalar]; }

static int32_t exponent_of(const NitiGradient *g) {
  return (g->exponents[0] ? *g->exponents[0] : 0) + (g->exponents[1] ? *g->exponents[1] : 0);
}

static NitiSgd step_of(const NitiCpu *cpu, const Update *u, const NitiSgdUpdate *update) {
  const NitiSgdScalars *scalars = update->scalars;
  const NitiSgdSettings settings = {.rate = cpu->scalars[scalars->rate],
                                    .momentum = cpu->scalars[scalars->momentum],
                                    .decay = scalar_of(cpu, scalars->decay),
                                    .images = cpu->scalars[scalars->images],
                                    .nesterov = scalars->nesterov};
  const NitiSgdTensor tensor = {.gradient_max = u->gradient_max,
                                .velocity_max = u->velocity_max,
                                .weight_max = u->weight_max,
                                .gradient_exponent = exponent_of(update->gradient),
                                .velocity_exponent = *update->velocity->exponent,
                                .weight_exponent = *(update->master ? update->master : update->w)->exponent};
  return niti_sgd(&tensor, &settings);
}

static void update_tensor(NitiCpu *cpu, const NitiSgdUpdate *update) {
  const NitiGradient *gradient = update->gradient;
  NitiTensor *own = update->master ? update->master : update->w;
  Update u = {.operand = update->master ? update->w->data : NULL,
              .weight = (int16_t *)(void *)own->data,
              .velocity = (int16_t *)(void *)update->velocity->data,
              .gradient = gradient->data,
              .bits = gradient->bits,
              .count = gradient->count,
              .draw = {.seed = cpu->seed, .purpose = update->rq->purpose, .time = cpu->step, .layer = update->rq->layer}};
  const size_t tiles = niti_divide_up(u.count, CHUNK);
  niti_threads_run(cpu->threads, max_tile, &u, tiles);
  u.step = step_of(cpu, &u, update);
  if (u.step.idle) return;
  niti_threads_run(cpu->threads, update_tile, &u, tiles);
  *update->velocity->exponent = u.step.velocity_exponent;
  *own->exponent = u.step.weight_exponent;
  if (update->master) *update->w->exponent = u.step.weight_exponent + NITI_SGD_OPERAND_SHIFT;
}

void niti_cpu_update_sgd(NitiBackend *backend, const NitiSgdUpdate *updates, int count) {
  for (int i = 0; i < count; ++i) update_tensor(niti_cpu(backend), &updates[i]);
}
