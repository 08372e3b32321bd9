/* Updates `sgd` and `niti16` of a weight tensor: the largest magnitudes first, then every weight. */
#include "backend/cpu/chunk.h"
#include "backend/cpu/loops.h"
#include "base/clip.h"

enum { CHUNK = 1 << 14 }; /* a multiple of NITI_SGD_FIRST */

typedef struct Update {
  const NitiLoops *loops;
  int8_t *operand; /* NULL: the weights are 16-bit themselves */
  int16_t *weight, *velocity;
  const void *gradient;
  int bits;
  size_t count;
  bool known; /* the gradient's largest */
  uint64_t gradient_max;
  _Atomic uint64_t above_low, above_high; /* weights beyond NITI_SGD_WEIGHT_LOW and _HIGH */
  uint32_t weight_max, velocity_max;
  NitiSgd step;
  NitiDraw draw;
} Update;

static void raise64(uint64_t *max, uint64_t value) {
  uint64_t seen = __atomic_load_n(max, __ATOMIC_RELAXED);
  while (value > seen && !__atomic_compare_exchange_n(max, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

static void look_tile(void *context, size_t thread, size_t item) {
  Update *u = context;
  const size_t first = item * CHUNK, count = niti_chunk_count(u->count, CHUNK, item);
  const NitiLoops *loops = u->loops;
  (void)thread;
  if (!u->known)
    raise64(&u->gradient_max, u->bits == 32 ? loops->largest32((const int32_t *)u->gradient + first, count)
                                            : loops->largest64((const int64_t *)u->gradient + first, count));
  const NitiSpread weights = loops->spread16(u->weight + first, count, NITI_SGD_WEIGHT_LOW, NITI_SGD_WEIGHT_HIGH);
  niti_max_raise((_Atomic uint32_t *)&u->weight_max, weights.largest);
  u->above_low += weights.above_low;
  u->above_high += weights.above_high;
  niti_max_raise((_Atomic uint32_t *)&u->velocity_max, loops->largest16(u->velocity + first, count));
}

static void update_tile(void *context, size_t thread, size_t item) {
  const Update *u = context;
  const size_t first = item * CHUNK, bytes = (size_t)u->bits / 8;
  const NitiSgdRange range = {.weight = u->weight + first,
                              .velocity = u->velocity + first,
                              .gradient = (const uint8_t *)u->gradient + first * bytes,
                              .operand = u->operand ? u->operand + first : NULL,
                              .first = first,
                              .count = niti_chunk_count(u->count, CHUNK, item),
                              .bits = u->bits};
  (void)thread;
  u->loops->sgd(&range, &u->step, &u->draw);
}

static int64_t scalar_of(const NitiCpu *cpu, int32_t scalar) { return scalar == NITI_NONE ? 0 : cpu->scalars[scalar]; }

static int32_t exponent_of(const NitiGradient *g) {
  return (g->exponents[0] ? *g->exponents[0] : 0) + (g->exponents[1] ? *g->exponents[1] : 0);
}

static NitiScalar clip_of(const NitiCpu *cpu, const NitiSgdUpdate *update) {
  const NitiScalar none = {0, 0};
  const NitiSgdScalars *scalars = update->scalars;
  if (!update->squares || scalars->clip == NITI_NONE) return none;
  const NitiScalar total = {(int32_t)update->squares[0], (int32_t)update->squares[1]};
  return niti_clip_factor_inline(total, cpu->scalars[scalars->clip], cpu->scalars[scalars->images]);
}

static NitiSgd step_of(const NitiCpu *cpu, const Update *u, const NitiSgdUpdate *update) {
  const NitiSgdScalars *scalars = update->scalars;
  const NitiSgdSettings settings = {.rate = cpu->scalars[scalars->rate],
                                    .momentum = cpu->scalars[scalars->momentum],
                                    .decay = scalar_of(cpu, scalars->decay),
                                    .images = scalar_of(cpu, scalars->images),
                                    .nesterov = scalars->nesterov,
                                    .normalised = scalars->normalised,
                                    .clip = clip_of(cpu, update)};
  const NitiSgdTensor tensor = {.gradient_max = u->gradient_max,
                                .count = u->count,
                                .above_low = u->above_low,
                                .above_high = u->above_high,
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
  Update u = {.loops = niti_loops(cpu->isa),
              .operand = update->master ? update->w->data : NULL,
              .weight = (int16_t *)(void *)own->data,
              .velocity = (int16_t *)(void *)update->velocity->data,
              .gradient = gradient->data,
              .bits = gradient->bits,
              .count = gradient->count,
              .draw = {.seed = cpu->seed, .purpose = update->rq->purpose, .time = cpu->step, .layer = update->rq->layer}};
  const size_t tiles = niti_divide_up(u.count, CHUNK);
  u.known = niti_cpu_take_largest(cpu, gradient, &u.gradient_max);
  niti_threads_run(cpu->threads, look_tile, &u, tiles);
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
