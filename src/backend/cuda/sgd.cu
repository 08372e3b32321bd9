/* Update `sgd`: the first launch finds the largest magnitudes of gradient, velocity and master, the second changes them and
 * clears what was found. */
#include "backend/cuda/device.cuh"
#include "base/sgd.h"

enum { THREADS = 256, FOURS = 2, BLOCKS = 4 }; /* groups of four weights that a thread has under way; a multiprocessor's blocks */

typedef struct Sgd {
  NitiRange *range;
  const NitiClock *clock;
  int8_t *w; /* NULL: the master has no operand of its own */
  int16_t *master, *velocity;
  const void *g;
  size_t count;
  const int32_t *e_g[2]; /* either may be NULL */
  int32_t *e_w, *e_master, *e_velocity;
  NitiSgdScalars scalars;
  uint32_t purpose, layer;
} Sgd;

/* ---- four neighbours ---- */

static __device__ inline void load_four(int64_t out[4], const int32_t *g, size_t i) {
  const int4 four = ((const int4 *)g)[i];
  out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
}

static __device__ inline void load_four(int64_t out[4], const int64_t *g, size_t i) {
  const longlong2 low = ((const longlong2 *)g)[2 * i], high = ((const longlong2 *)g)[2 * i + 1];
  out[0] = low.x, out[1] = low.y, out[2] = high.x, out[3] = high.y;
}

static __device__ inline void load_four(int16_t out[4], const int16_t *from, size_t i) {
  const short4 four = ((const short4 *)from)[i];
  out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
}

static __device__ inline void store_four(int16_t *to, size_t i, const int16_t four[4]) {
  ((short4 *)to)[i] = make_short4(four[0], four[1], four[2], four[3]);
}

/* ---- the first launch ---- */

typedef struct Maxima {
  uint64_t gradient;
  uint32_t velocity, weight;
} Maxima;

static __device__ inline void take_in(Maxima *m, int64_t g, int16_t velocity, int16_t weight) {
  const uint32_t v = (uint32_t)(velocity < 0 ? -velocity : velocity), w = (uint32_t)(weight < 0 ? -weight : weight);
  m->gradient = niti_magnitude64(g) > m->gradient ? niti_magnitude64(g) : m->gradient;
  m->velocity = v > m->velocity ? v : m->velocity;
  m->weight = w > m->weight ? w : m->weight;
}

static __device__ inline Maxima warp_max(Maxima m) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, (unsigned long long)m.gradient, lanes);
    m.gradient = other > m.gradient ? other : m.gradient;
  }
  m.velocity = __reduce_max_sync(0xffffffffu, m.velocity);
  m.weight = __reduce_max_sync(0xffffffffu, m.weight);
  return m;
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) max_kernel(Sgd d) {
  niti_kernel_begin();
  __shared__ Maxima all;
  const size_t fours = d.count / 4, step = (size_t)gridDim.x * THREADS, first = (size_t)blockIdx.x * THREADS + threadIdx.x;
  const T *g = (const T *)d.g;
  Maxima m = {};
  if (threadIdx.x == 0) all = m;
  for (size_t i = first; i < fours; i += FOURS * step) {
    int64_t gs[FOURS][4] = {};
    int16_t vs[FOURS][4] = {}, ws[FOURS][4] = {};
#pragma unroll
    for (int u = 0; u < FOURS; ++u) {
      if (i + (size_t)u * step >= fours) continue;
      load_four(gs[u], g, i + (size_t)u * step);
      load_four(vs[u], d.velocity, i + (size_t)u * step);
      load_four(ws[u], d.master, i + (size_t)u * step);
    }
#pragma unroll
    for (int u = 0; u < FOURS; ++u) {
#pragma unroll
      for (int k = 0; k < 4; ++k) take_in(&m, gs[u][k], vs[u][k], ws[u][k]);
    }
  }
  if (first < d.count % 4) take_in(&m, g[4 * fours + first], d.velocity[4 * fours + first], d.master[4 * fours + first]);
  m = warp_max(m);
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    atomicMax((unsigned long long *)&all.gradient, (unsigned long long)m.gradient);
    atomicMax(&all.velocity, m.velocity);
    atomicMax(&all.weight, m.weight);
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  if (all.gradient > 0) atomicMax((unsigned long long *)&d.range->gradient_max, (unsigned long long)all.gradient);
  if (all.velocity > 0) atomicMax(&d.range->velocity_max, all.velocity);
  if (all.weight > 0) atomicMax(&d.range->weight_max, all.weight);
}

/* ---- the second ---- */

static __device__ inline NitiSgd plan(const Sgd &d) {
  const int64_t *scalars = d.clock->scalars;
  const NitiSgdTensor tensor = {d.range->gradient_max, d.range->velocity_max,
                                d.range->weight_max,   (d.e_g[0] ? *d.e_g[0] : 0) + (d.e_g[1] ? *d.e_g[1] : 0),
                                *d.e_velocity,         *d.e_master};
  const NitiSgdSettings settings = {scalars[d.scalars.rate], scalars[d.scalars.momentum],
                                    d.scalars.decay == NITI_NONE ? 0 : scalars[d.scalars.decay], scalars[d.scalars.images],
                                    d.scalars.nesterov};
  return niti_sgd(&tensor, &settings);
}

/* Weights 4 i .. 4 i + 3, with their gradients. */
static __device__ inline void update_four(const Sgd &d, const NitiSgd &u, size_t i, const int64_t g[4], int16_t v[4],
                                          int16_t w[4]) {
  const NitiDraw draw = {d.clock->seed, d.purpose, d.clock->step, d.layer};
  const NitiWords words = niti_draw_block(&draw, (uint32_t)i);
  uint32_t operands = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    niti_sgd_weight(&w[k], &v[k], g[k], words.word[k], &u);
    operands |= (uint32_t)(uint8_t)niti_sgd_operand(w[k]) << (8 * k);
  }
  store_four(d.velocity, i, v);
  store_four(d.master, i, w);
  if (d.w) ((uint32_t *)d.w)[i] = operands;
}

static __device__ inline void update_one(const Sgd &d, const NitiSgd &u, size_t i, int64_t g) {
  const NitiDraw draw = {d.clock->seed, d.purpose, d.clock->step, d.layer};
  niti_sgd_weight(&d.master[i], &d.velocity[i], g, niti_draw(&draw, i), &u);
  if (d.w) d.w[i] = niti_sgd_operand(d.master[i]);
}

/* One thread of the last block, after every block has read the exponents. */
static __device__ inline void finish(const Sgd &d, const NitiSgd &u) {
  d.range->gradient_max = 0;
  d.range->velocity_max = d.range->weight_max = 0;
  d.range->done = 0;
  if (u.idle) return;
  *d.e_velocity = u.velocity_exponent;
  *d.e_master = u.weight_exponent;
  if (d.w) *d.e_w = u.weight_exponent + NITI_SGD_OPERAND_SHIFT;
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) update_kernel(Sgd d) {
  niti_kernel_begin();
  __shared__ NitiSgd u;
  const size_t fours = d.count / 4, step = (size_t)gridDim.x * THREADS, first = (size_t)blockIdx.x * THREADS + threadIdx.x;
  const T *g = (const T *)d.g;
  if (threadIdx.x == 0) u = plan(d);
  __syncthreads();
  for (size_t i = first; i < fours && !u.idle; i += step) {
    int64_t gs[4];
    int16_t vs[4], ws[4];
    load_four(gs, g, i);
    load_four(vs, d.velocity, i);
    load_four(ws, d.master, i);
    update_four(d, u, i, gs, vs, ws);
  }
  if (first < d.count % 4 && !u.idle) update_one(d, u, 4 * fours + first, g[4 * fours + first]);
  if (threadIdx.x > 0) return;
  __threadfence();
  if (atomicAdd(&d.range->done, 1u) + 1 == gridDim.x) finish(d, u);
}

template <typename T>
static void run(NitiCuda *cuda, const Sgd &d) {
  const size_t all = (d.count + THREADS * 4 - 1) / (THREADS * 4), most = (size_t)cuda->multiprocessors * BLOCKS;
  const unsigned grid = (unsigned)(all < most ? all : most);
  NITI_LAUNCH(cuda, max_kernel<T>, grid, THREADS, 0, d);
  NITI_LAUNCH(cuda, update_kernel<T>, grid, THREADS, 0, d);
}

extern "C" void niti_cuda_update_sgd(NitiBackend *backend, NitiTensor *w, NitiTensor *master, NitiTensor *velocity,
                                     const NitiGradient *gradient, const NitiSgdScalars *scalars, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiTensor *m = master ? master : w;
  const Sgd args = {cuda->range,
                    cuda->clock,
                    master ? w->data : NULL,
                    (int16_t *)(void *)m->data,
                    (int16_t *)(void *)velocity->data,
                    gradient->data,
                    gradient->count,
                    {gradient->exponents[0], gradient->exponents[1]},
                    w->exponent,
                    m->exponent,
                    velocity->exponent,
                    *scalars,
                    rq->purpose,
                    rq->layer};
  if (gradient->bits == 32) {
    run<int32_t>(cuda, args);
  } else {
    run<int64_t>(cuda, args);
  }
}
