/* Updates `sgd` and `niti16` of several tensors at once. The first launch finds the largest magnitudes of each tensor's gradient,
 * velocity and master, and the tensor's last block makes the step's multipliers of them, writes the exponents and clears what was
 * found; the second launch takes the steps, from the last tensor to the first, as the second-level cache still has those. */
#include "backend/cuda/tensors.cuh"
#include "base/clip.h"

enum { THREADS = 256, FOURS = 2, PART = 4 * THREADS * FOURS }; /* FOURS: groups of four weights of a thread in a part */

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

typedef struct Common {
  NitiRange *range;
  const NitiClock *clock;
  const int64_t *squares; /* NULL, or the scalar of all gradients' squares */
  uint32_t parts;         /* of a block */
  int count;              /* tensors */
} Common;

template <int MOST>
struct Sgd {
  Common common;
  Tensor tensors[MOST];
};

enum {
  FEW = (NITI_ARGUMENTS_SMALL - sizeof(Common)) / sizeof(Tensor),
  ROOM = (NITI_ARGUMENTS_LARGE - sizeof(Common)) / sizeof(Tensor),
  MANY = (int)ROOM < (int)NITI_UPDATES_MAX ? (int)ROOM : (int)NITI_UPDATES_MAX,
};

/* ---- four neighbours, from 4 i on ---- */

template <typename G>
struct Four {
  G g[4];
  int16_t velocity[4], weight[4];
};

template <typename G>
static __device__ inline void load_four(Four<G> *four, const Tensor &t, size_t i) {
  const short4 v = ((const short4 *)t.velocity)[i], w = ((const short4 *)t.master)[i];
  four->velocity[0] = v.x, four->velocity[1] = v.y, four->velocity[2] = v.z, four->velocity[3] = v.w;
  four->weight[0] = w.x, four->weight[1] = w.y, four->weight[2] = w.z, four->weight[3] = w.w;
  niti_load_four(four->g, (const G *)t.g, i);
}

template <typename G>
static __device__ inline void store_four(const Tensor &t, size_t i, const Four<G> &four) {
  uint32_t operands = 0;
  ((short4 *)t.velocity)[i] = make_short4(four.velocity[0], four.velocity[1], four.velocity[2], four.velocity[3]);
  ((short4 *)t.master)[i] = make_short4(four.weight[0], four.weight[1], four.weight[2], four.weight[3]);
  if (!t.w) return;
#pragma unroll
  for (int k = 0; k < 4; ++k) operands |= (uint32_t)(uint8_t)niti_sgd_operand(four.weight[k]) << (8 * k);
  ((uint32_t *)t.w)[i] = operands;
}

/* Where the tensor's count is no multiple of four, the first block has a thread for each of the last weights. */
static __device__ inline bool has_last(const Tensor &t, uint32_t block) { return block == 0 && threadIdx.x < t.count % 4; }
static __device__ inline size_t last_of(const Tensor &t) { return t.count / 4 * 4 + threadIdx.x; }

/* ---- the first launch ---- */

static __device__ inline uint32_t magnitude(int32_t x) { return niti_magnitude32(x); }
static __device__ inline uint64_t magnitude(int64_t x) { return niti_magnitude64(x); }

template <typename M, typename G>
static __device__ inline void take_in(NitiSgdMaxima *m, M *gradient, G g, int velocity, int weight) {
  const uint32_t v = (uint32_t)abs(velocity), w = (uint32_t)abs(weight);
  *gradient = magnitude(g) > *gradient ? magnitude(g) : *gradient;
  m->velocity = v > m->velocity ? v : m->velocity;
  m->weight = w > m->weight ? w : m->weight;
  m->above_low += w > NITI_SGD_WEIGHT_LOW;
  m->above_high += w > NITI_SGD_WEIGHT_HIGH;
}

static __device__ inline uint32_t warp_largest(uint32_t m) { return __reduce_max_sync(0xffffffffu, m); }

static __device__ inline uint64_t warp_largest(uint64_t m) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, (unsigned long long)m, lanes);
    m = other > m ? other : m;
  }
  return m;
}

/* What each warp finds in the block's parts; M holds a magnitude of G. */
template <typename G, typename M>
static __device__ inline NitiSgdMaxima find_maxima(const Tensor &t, uint32_t block, uint32_t parts) {
  NitiSgdMaxima m = {};
  M gradient = 0;
  for (uint32_t part = block * parts; part < (block + 1) * parts; ++part) {
    const size_t i = (size_t)part * (FOURS * THREADS) + threadIdx.x;
    Four<G> fours[FOURS] = {};
#pragma unroll
    for (int u = 0; u < FOURS; ++u) {
      if (i + (size_t)u * THREADS < t.count / 4) load_four(&fours[u], t, i + (size_t)u * THREADS);
    }
#pragma unroll
    for (int k = 0; k < 4 * FOURS; ++k) { /* what lies past the end is 0 */
      const Four<G> &four = fours[k / 4];
      take_in(&m, &gradient, four.g[k % 4], four.velocity[k % 4], four.weight[k % 4]);
    }
  }
  const size_t i = last_of(t);
  if (has_last(t, block)) take_in(&m, &gradient, ((const G *)t.g)[i], t.velocity[i], t.master[i]);
  m.gradient = warp_largest(gradient);
  m.velocity = __reduce_max_sync(0xffffffffu, m.velocity);
  m.weight = __reduce_max_sync(0xffffffffu, m.weight);
  m.above_low = __reduce_add_sync(0xffffffffu, m.above_low);
  m.above_high = __reduce_add_sync(0xffffffffu, m.above_high);
  return m;
}

static __device__ inline void raise_all(NitiSgdMaxima *to, const NitiSgdMaxima &m) {
  if (m.gradient > 0) atomicMax((unsigned long long *)&to->gradient, (unsigned long long)m.gradient);
  if (m.velocity > 0) atomicMax(&to->velocity, m.velocity);
  if (m.weight > 0) atomicMax(&to->weight, m.weight);
  if (m.above_low > 0) atomicAdd(&to->above_low, m.above_low);
  if (m.above_high > 0) atomicAdd(&to->above_high, m.above_high);
}

static __device__ inline NitiScalar clip_of(const Common &d, const Tensor &t) {
  const NitiScalar none = {0, 0};
  if (!d.squares || t.scalars.clip == NITI_NONE) return none;
  const NitiScalar total = {(int32_t)d.squares[0], (int32_t)d.squares[1]};
  return niti_clip_factor_inline(total, d.clock->scalars[t.scalars.clip], d.clock->scalars[t.scalars.images]);
}

static __device__ inline NitiSgd step_of(const Common &d, const Tensor &t, const NitiSgdMaxima &m) {
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
static __device__ inline void finish(const Common &d, const Tensor &t, int number) {
  const NitiSgdMaxima none = {};
  const NitiSgd step = step_of(d, t, d.range->maxima[number]);
  d.range->maxima[number] = none;
  d.range->terms[number] = niti_sgd_terms(&step);
  if (step.idle) return;
  *t.e_velocity = step.velocity_exponent;
  *t.e_master = step.weight_exponent;
  if (t.w) *t.e_w = step.weight_exponent + NITI_SGD_OPERAND_SHIFT;
}

/* blocks: of the tensor. */
static __device__ inline void find(const Common &d, const Tensor &t, int number, uint32_t block, uint32_t blocks) {
  __shared__ NitiSgdMaxima all;
  const NitiSgdMaxima none = {};
  if (threadIdx.x == 0) all = none;
  const NitiSgdMaxima m =
      t.wide ? find_maxima<int64_t, uint64_t>(t, block, d.parts) : find_maxima<int32_t, uint32_t>(t, block, d.parts);
  __syncthreads();
  if (threadIdx.x % 32 == 0) raise_all(&all, m);
  __syncthreads();
  if (threadIdx.x > 0) return;
  raise_all(&d.range->maxima[number], all);
  __threadfence();
  const bool last = atomicAdd(&d.range->maxima[number].done, 1u) + 1 == blocks;
  __threadfence();
  if (last) finish(d, t, number);
}

template <int MOST>
static __global__ void __launch_bounds__(THREADS, 5) max_kernel(const __grid_constant__ Sgd<MOST> d) {
  niti_kernel_begin();
  uint32_t block;
  const int number = niti_find_tensor(d.tensors, d.common.count, blockIdx.x, &block);
  find(d.common, d.tensors[number], number, block, d.tensors[number].end - (blockIdx.x - block));
}

/* ---- the second ---- */

template <typename G>
static __device__ inline void move_four(Four<G> *four, size_t i, const NitiSgdTerms &terms, const NitiDraw &draw) {
  const NitiWords words = niti_draw_block(&draw, (uint32_t)i);
#pragma unroll
  for (int k = 0; k < 4; ++k) niti_sgd_move(&four->weight[k], &four->velocity[k], four->g[k], words.word[k], &terms);
}

template <typename G>
static __device__ inline void move_last(const Tensor &t, const NitiSgdTerms &terms, const NitiDraw &draw) {
  const size_t i = last_of(t);
  niti_sgd_move(&t.master[i], &t.velocity[i], ((const G *)t.g)[i], niti_draw(&draw, i), &terms);
  if (t.w) t.w[i] = niti_sgd_operand(t.master[i]);
}

/* Of a half that a lane gave itself it is not known that all have the same: it stays out of the uniform registers, of which an
 * instruction reads one, so that a product and its sum are one instruction. */
static __device__ inline void spread(NitiSgdTerm *t) {
  t->half = __shfl_sync(0xffffffffu, (long long)t->half, (int)(threadIdx.x % 32));
}

static __device__ inline NitiSgdTerms terms_of(const Common &d, int number) {
  NitiSgdTerms terms = d.range->terms[number];
  spread(&terms.gradient);
  spread(&terms.decay);
  spread(&terms.velocity);
  spread(&terms.momentum);
  spread(&terms.rate);
  return terms;
}

template <typename G>
static __device__ inline void move(const Tensor &t, uint32_t block, uint32_t parts, const NitiSgdTerms &terms,
                                   const NitiDraw &draw) {
  for (uint32_t part = block * parts; part < (block + 1) * parts; ++part) {
    const size_t first = (size_t)part * (FOURS * THREADS) + threadIdx.x;
    Four<G> fours[FOURS];
#pragma unroll
    for (int u = 0; u < FOURS; ++u) {
      if (first + (size_t)u * THREADS < t.count / 4) load_four(&fours[u], t, first + (size_t)u * THREADS);
    }
#pragma unroll
    for (int u = 0; u < FOURS; ++u) {
      const size_t i = first + (size_t)u * THREADS;
      if (i >= t.count / 4) break;
      move_four(&fours[u], i, terms, draw);
      store_four(t, i, fours[u]);
    }
  }
  if (has_last(t, block)) move_last<G>(t, terms, draw);
}

template <int MOST>
static __global__ void __launch_bounds__(THREADS, 4) update_kernel(const __grid_constant__ Sgd<MOST> d) {
  niti_kernel_begin();
  uint32_t block;
  const int number = niti_find_tensor(d.tensors, d.common.count, gridDim.x - 1 - blockIdx.x, &block);
  const Tensor &t = d.tensors[number];
  const NitiSgdTerms terms = terms_of(d.common, number);
  const NitiDraw draw = {d.common.clock->seed, t.purpose, d.common.clock->step, t.layer};
  if (terms.idle) return;
  if (t.wide)
    move<int64_t>(t, block, d.common.parts, terms, draw);
  else
    move<int32_t>(t, block, d.common.parts, terms, draw);
}

/* ---- both ---- */

static Tensor tensor_of(const NitiSgdUpdate *u, uint32_t end) {
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
                end,
                g->bits == 64};
}

template <int MOST>
static void run(NitiCuda *cuda, const NitiSgdUpdate *updates, int count, uint32_t parts) {
  Sgd<MOST> args = {};
  uint32_t blocks = 0;
  args.common = Common{cuda->range, cuda->clock, updates[0].squares, parts, count};
  for (int i = 0; i < count; ++i) {
    blocks += niti_blocks(updates[i].gradient->count, (size_t)PART * parts);
    args.tensors[i] = tensor_of(&updates[i], blocks);
  }
  NITI_LAUNCH(cuda, max_kernel<MOST>, blocks, THREADS, 0, args);
  NITI_LAUNCH(cuda, update_kernel<MOST>, blocks, THREADS, 0, args);
}

extern "C" void niti_cuda_update_sgd(NitiBackend *backend, const NitiSgdUpdate *updates, int count) {
  NitiCuda *cuda = niti_cuda(backend);
  size_t weights = 0;
  for (int i = 0; i < count; ++i) weights += updates[i].gradient->count;
  const uint32_t parts = niti_parts(cuda, weights, PART);
  for (int first = 0; first < count; first += MANY) {
    const int some = count - first < MANY ? count - first : MANY;
    if (some <= FEW)
      run<FEW>(cuda, updates + first, some, parts);
    else
      run<MANY>(cuda, updates + first, some, parts);
  }
}
