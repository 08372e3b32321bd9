/* Updates `sgd` and `niti16` of several tensors at once. The first launch finds the largest magnitudes of each tensor's gradient,
 * velocity and master, and the tensor's last block makes the step's multipliers of them, writes the exponents and clears what was
 * found; the second launch takes the steps. */
#include "backend/cuda/device.cuh"
#include "base/clip.h"

enum { THREADS = 256, FOURS = 2, BLOCK_WEIGHTS = 4 * THREADS * FOURS }; /* FOURS: groups of four weights of a thread */

typedef struct Tensor {
  int8_t *w; /* NULL: the master has no operand of its own */
  int16_t *master, *velocity;
  const void *g;
  size_t count;
  const int32_t *e_g[2]; /* either may be NULL */
  int32_t *e_w, *e_master, *e_velocity;
  NitiSgdScalars scalars;
  uint32_t purpose, layer;
  uint32_t end; /* the first block that is not its own */
  bool wide;    /* g is int64_t, else int32_t */
} Tensor;

typedef struct Sgd {
  NitiRange *range;
  const NitiClock *clock;
  const int64_t *squares; /* NULL, or the scalar of all gradients' squares */
  Tensor tensors[NITI_UPDATES_MAX];
} Sgd;

/* The most that a device of any capability takes as a kernel's arguments. */
static_assert(sizeof(Sgd) <= 4096, "an update's tensors are a kernel's arguments");

/* The tensor of this block, and the block's number among its own. */
static __device__ inline int find_tensor(const Sgd &d, uint32_t *block) {
  int t = 0;
  while (d.tensors[t].end <= blockIdx.x) ++t;
  *block = blockIdx.x - (t > 0 ? d.tensors[t - 1].end : 0);
  return t;
}

/* ---- four neighbours, from 4 i on; fewer where the tensor ends ---- */

typedef struct Four {
  int64_t g[4];
  int16_t velocity[4], weight[4];
  int count;
} Four;

static __device__ inline void load_word(Four *four, const Tensor &t, size_t i) {
  const short4 v = ((const short4 *)t.velocity)[i], w = ((const short4 *)t.master)[i];
  four->velocity[0] = v.x, four->velocity[1] = v.y, four->velocity[2] = v.z, four->velocity[3] = v.w;
  four->weight[0] = w.x, four->weight[1] = w.y, four->weight[2] = w.z, four->weight[3] = w.w;
  if (t.wide) {
    const longlong2 low = ((const longlong2 *)t.g)[2 * i], high = ((const longlong2 *)t.g)[2 * i + 1];
    four->g[0] = low.x, four->g[1] = low.y, four->g[2] = high.x, four->g[3] = high.y;
  } else {
    const int4 g = ((const int4 *)t.g)[i];
    four->g[0] = g.x, four->g[1] = g.y, four->g[2] = g.z, four->g[3] = g.w;
  }
}

static __device__ inline Four load_four(const Tensor &t, size_t i) {
  const size_t left = 4 * i < t.count ? t.count - 4 * i : 0;
  Four four = {};
  four.count = left < 4 ? (int)left : 4;
  if (four.count == 4) {
    load_word(&four, t, i);
    return four;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (k >= four.count) break;
    four.g[k] = t.wide ? ((const int64_t *)t.g)[4 * i + k] : ((const int32_t *)t.g)[4 * i + k];
    four.velocity[k] = t.velocity[4 * i + k];
    four.weight[k] = t.master[4 * i + k];
  }
  return four;
}

static __device__ inline void store_four(const Tensor &t, size_t i, const Four &four) {
  uint32_t operands = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) operands |= (uint32_t)(uint8_t)niti_sgd_operand(four.weight[k]) << (8 * k);
  if (four.count == 4) {
    ((short4 *)t.velocity)[i] = make_short4(four.velocity[0], four.velocity[1], four.velocity[2], four.velocity[3]);
    ((short4 *)t.master)[i] = make_short4(four.weight[0], four.weight[1], four.weight[2], four.weight[3]);
    if (t.w) ((uint32_t *)t.w)[i] = operands;
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (k >= four.count) break;
    t.velocity[4 * i + k] = four.velocity[k];
    t.master[4 * i + k] = four.weight[k];
    if (t.w) t.w[4 * i + k] = (int8_t)(operands >> (8 * k));
  }
}

/* ---- the first launch ---- */

static __device__ inline void take_in(NitiSgdMaxima *m, const Four &four) {
#pragma unroll
  for (int k = 0; k < 4; ++k) { /* what lies past the end is 0 */
    const uint64_t g = niti_magnitude64(four.g[k]);
    const uint32_t v = (uint32_t)abs((int)four.velocity[k]), w = (uint32_t)abs((int)four.weight[k]);
    m->gradient = g > m->gradient ? g : m->gradient;
    m->velocity = v > m->velocity ? v : m->velocity;
    m->weight = w > m->weight ? w : m->weight;
    m->above_low += w > NITI_SGD_WEIGHT_LOW;
    m->above_high += w > NITI_SGD_WEIGHT_HIGH;
  }
}

static __device__ inline void raise_all(NitiSgdMaxima *to, const NitiSgdMaxima &m) {
  if (m.gradient > 0) atomicMax((unsigned long long *)&to->gradient, (unsigned long long)m.gradient);
  if (m.velocity > 0) atomicMax(&to->velocity, m.velocity);
  if (m.weight > 0) atomicMax(&to->weight, m.weight);
  if (m.above_low > 0) atomicAdd(&to->above_low, m.above_low);
  if (m.above_high > 0) atomicAdd(&to->above_high, m.above_high);
}

static __device__ inline NitiSgdMaxima warp_max(NitiSgdMaxima m) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, (unsigned long long)m.gradient, lanes);
    m.gradient = other > m.gradient ? other : m.gradient;
  }
  m.velocity = __reduce_max_sync(0xffffffffu, m.velocity);
  m.weight = __reduce_max_sync(0xffffffffu, m.weight);
  m.above_low = __reduce_add_sync(0xffffffffu, m.above_low);
  m.above_high = __reduce_add_sync(0xffffffffu, m.above_high);
  return m;
}

static __device__ inline NitiScalar clip_of(const Sgd &d, const Tensor &t) {
  const NitiScalar none = {0, 0};
  if (!d.squares || t.scalars.clip == NITI_NONE) return none;
  const NitiScalar total = {(int32_t)d.squares[0], (int32_t)d.squares[1]};
  return niti_clip_factor_inline(total, d.clock->scalars[t.scalars.clip], d.clock->scalars[t.scalars.images]);
}

static __device__ inline NitiSgd step_of(const Sgd &d, const Tensor &t, const NitiSgdMaxima &m) {
  const int64_t *scalars = d.clock->scalars, images = t.scalars.images == NITI_NONE ? 0 : scalars[t.scalars.images];
  const NitiSgdTensor tensor = {m.gradient,
                                t.count,
                                m.above_low,
                                m.above_high,
                                m.velocity,
                                m.weight,
                                (t.e_g[0] ? *t.e_g[0] : 0) + (t.e_g[1] ? *t.e_g[1] : 0),
                                *t.e_velocity,
                                *t.e_master};
  const NitiSgdSettings settings = {scalars[t.scalars.rate],
                                    scalars[t.scalars.momentum],
                                    t.scalars.decay == NITI_NONE ? 0 : scalars[t.scalars.decay],
                                    images,
                                    t.scalars.nesterov,
                                    t.scalars.normalised,
                                    clip_of(d, t)};
  return niti_sgd(&tensor, &settings);
}

/* One thread of the tensor's last block. */
static __device__ inline void finish(const Sgd &d, int number) {
  const Tensor &t = d.tensors[number];
  const NitiSgdMaxima none = {};
  const NitiSgd step = step_of(d, t, d.range->maxima[number]);
  d.range->maxima[number] = none;
  d.range->steps[number] = step;
  if (step.idle) return;
  *t.e_velocity = step.velocity_exponent;
  *t.e_master = step.weight_exponent;
  if (t.w) *t.e_w = step.weight_exponent + NITI_SGD_OPERAND_SHIFT;
}

static __global__ void __launch_bounds__(THREADS) max_kernel(const __grid_constant__ Sgd d) {
  niti_kernel_begin();
  __shared__ NitiSgdMaxima all;
  uint32_t block;
  const int number = find_tensor(d, &block);
  const Tensor &t = d.tensors[number];
  NitiSgdMaxima m = {};
  if (threadIdx.x == 0) all = m;
  Four fours[FOURS];
#pragma unroll
  for (int u = 0; u < FOURS; ++u) fours[u] = load_four(t, ((size_t)block * FOURS + (size_t)u) * THREADS + threadIdx.x);
#pragma unroll
  for (int u = 0; u < FOURS; ++u) take_in(&m, fours[u]);
  m = warp_max(m);
  __syncthreads();
  if (threadIdx.x % 32 == 0) raise_all(&all, m);
  __syncthreads();
  if (threadIdx.x > 0) return;
  raise_all(&d.range->maxima[number], all);
  __threadfence();
  const bool last = atomicAdd(&d.range->maxima[number].done, 1u) + 1 == t.end - (blockIdx.x - block);
  __threadfence();
  if (last) finish(d, number);
}

/* ---- the second ---- */

static __global__ void __launch_bounds__(THREADS) update_kernel(const __grid_constant__ Sgd d) {
  niti_kernel_begin();
  uint32_t block;
  const int number = find_tensor(d, &block);
  const Tensor &t = d.tensors[number];
  const NitiSgd step = d.range->steps[number];
  const NitiDraw draw = {d.clock->seed, t.purpose, d.clock->step, t.layer};
  if (step.idle) return;
  Four fours[FOURS];
#pragma unroll
  for (int u = 0; u < FOURS; ++u) fours[u] = load_four(t, ((size_t)block * FOURS + (size_t)u) * THREADS + threadIdx.x);
#pragma unroll
  for (int u = 0; u < FOURS; ++u) {
    const size_t i = ((size_t)block * FOURS + (size_t)u) * THREADS + threadIdx.x;
    if (fours[u].count == 0) continue;
    const NitiWords words = niti_draw_block(&draw, (uint32_t)i);
#pragma unroll
    for (int k = 0; k < 4; ++k) niti_sgd_weight(&fours[u].weight[k], &fours[u].velocity[k], fours[u].g[k], words.word[k], &step);
    store_four(t, i, fours[u]);
  }
}

static Tensor tensor_of(const NitiSgdUpdate *u, uint32_t before) {
  const NitiTensor *master = u->master ? u->master : u->w;
  const NitiGradient *g = u->gradient;
  return Tensor{u->master ? u->w->data : NULL,
                (int16_t *)(void *)master->data,
                (int16_t *)(void *)u->velocity->data,
                g->data,
                g->count,
                {g->exponents[0], g->exponents[1]},
                u->w->exponent,
                master->exponent,
                u->velocity->exponent,
                *u->scalars,
                u->rq->purpose,
                u->rq->layer,
                before + (uint32_t)((g->count + BLOCK_WEIGHTS - 1) / BLOCK_WEIGHTS),
                g->bits == 64};
}

extern "C" void niti_cuda_update_sgd(NitiBackend *backend, const NitiSgdUpdate *updates, int count) {
  NitiCuda *cuda = niti_cuda(backend);
  Sgd args = {};
  uint32_t blocks = 0;
  args.range = cuda->range;
  args.clock = cuda->clock;
  args.squares = updates[0].squares;
  for (int i = 0; i < count; ++i) {
    args.tensors[i] = tensor_of(&updates[i], blocks);
    blocks = args.tensors[i].end;
  }
  NITI_LAUNCH(cuda, max_kernel, blocks, THREADS, 0, args);
  NITI_LAUNCH(cuda, update_kernel, blocks, THREADS, 0, args);
}
