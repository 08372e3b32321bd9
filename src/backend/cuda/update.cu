/* Update `niti` of several tensors at once: the first launch finds each tensor's largest |gradient|, the second changes the
 * weights, and each tensor's last block clears what was found. */
#include "backend/cuda/tensors.cuh"
#include "base/update.h"

enum { THREADS = 256, FOURS = 4, PART = 4 * THREADS * FOURS }; /* FOURS: groups of four gradients that a thread has under way */

typedef struct Tensor {
  int8_t *w;
  const void *g;
  size_t count;
  uint32_t end;   /* the first block that is not its own */
  int32_t scalar; /* mu's number */
  bool wide;      /* g is int64_t, else int32_t */
} Tensor;

typedef struct Common {
  NitiRange *range;
  const NitiClock *clock;
  uint32_t parts; /* of a block */
  int count;      /* tensors */
} Common;

enum { MOST = (NITI_ARGUMENTS_SMALL - sizeof(Common)) / sizeof(Tensor) };

typedef struct Updates {
  Common common;
  Tensor tensors[MOST];
} Updates;

static_assert((int)MOST <= (int)NITI_UPDATES_MAX, "the range has room for as many");

static __device__ inline uint32_t magnitude(int32_t g) { return niti_magnitude32(g); }
static __device__ inline uint64_t magnitude(int64_t g) { return niti_magnitude64(g); }

static __device__ inline int8_t changed(int8_t w, int32_t g, const NitiMu &rate) { return niti_update_weight32(w, g, &rate); }
static __device__ inline int8_t changed(int8_t w, int64_t g, const NitiMu &rate) { return niti_update_weight(w, g, &rate); }

/* Of the groups of four that this thread has of a part, from `first` on; M holds a magnitude of T. */
template <typename M, typename T>
static __device__ inline M part_max(const T *__restrict__ g, size_t fours, size_t first) {
  T four[FOURS][4] = {};
  M max = 0;
#pragma unroll
  for (int u = 0; u < FOURS; ++u) {
    if (first + (size_t)u * THREADS < fours) niti_load_four(four[u], g, first + (size_t)u * THREADS);
  }
#pragma unroll
  for (int k = 0; k < 4 * FOURS; ++k) max = magnitude(four[k / 4][k % 4]) > max ? magnitude(four[k / 4][k % 4]) : max;
  return max;
}

/* Where the tensor's count is no multiple of four, the first block has a thread for each of the last weights. */
template <typename M, typename T>
static __device__ inline M find_max(const T *g, size_t count, uint32_t block, uint32_t parts) {
  const size_t last = count / 4 * 4 + threadIdx.x;
  M max = block == 0 && last < count ? magnitude(g[last]) : 0;
  for (uint32_t part = block * parts; part < (block + 1) * parts; ++part) {
    const M other = part_max<M>(g, count / 4, (size_t)part * (FOURS * THREADS) + threadIdx.x);
    max = other > max ? other : max;
  }
  return max;
}

static __global__ void __launch_bounds__(THREADS) max_kernel(const __grid_constant__ Updates d) {
  niti_kernel_begin();
  __shared__ uint64_t largest[THREADS / 32];
  uint32_t block;
  const int number = niti_find_tensor(d.tensors, d.common.count, blockIdx.x, &block);
  const Tensor &t = d.tensors[number];
  uint64_t max = t.wide ? find_max<uint64_t>((const int64_t *)t.g, t.count, block, d.common.parts)
                        : find_max<uint32_t>((const int32_t *)t.g, t.count, block, d.common.parts);
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, (unsigned long long)max, lanes);
    max = other > max ? other : max;
  }
  if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = max;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < THREADS / 32; ++i) max = largest[i] > max ? largest[i] : max;
  if (max > 0) atomicMax((unsigned long long *)&d.common.range->maxima[number].gradient, (unsigned long long)max);
}

template <typename T>
static __device__ inline void change_part(int8_t *__restrict__ w, const T *__restrict__ g, size_t count, size_t first,
                                          const NitiMu &rate) {
  const size_t fours = count / 4;
  T four[FOURS][4] = {};
  uint32_t word[FOURS];
#pragma unroll
  for (int u = 0; u < FOURS; ++u) {
    if (first + (size_t)u * THREADS >= fours) continue;
    niti_load_four(four[u], g, first + (size_t)u * THREADS);
    word[u] = ((const uint32_t *)w)[first + (size_t)u * THREADS];
  }
#pragma unroll
  for (int u = 0; u < FOURS; ++u) {
    if (first + (size_t)u * THREADS >= fours) continue;
    uint32_t result = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      result |= (uint32_t)(uint8_t)changed((int8_t)(word[u] >> (8 * k)), four[u][k], rate) << (8 * k);
    }
    ((uint32_t *)w)[first + (size_t)u * THREADS] = result;
  }
}

template <typename T>
static __device__ inline void change(const Tensor &t, uint32_t block, uint32_t parts, const NitiMu &rate) {
  const T *g = (const T *)t.g;
  for (uint32_t part = block * parts; part < (block + 1) * parts; ++part)
    change_part(t.w, g, t.count, (size_t)part * (FOURS * THREADS) + threadIdx.x, rate);
  const size_t last = t.count / 4 * 4 + threadIdx.x;
  if (block == 0 && last < t.count) t.w[last] = changed(t.w[last], g[last], rate);
}

static __global__ void __launch_bounds__(THREADS, 4) update_kernel(const __grid_constant__ Updates d) {
  niti_kernel_begin();
  uint32_t block;
  const uint32_t place = gridDim.x - 1 - blockIdx.x; /* the second-level cache still has the last */
  const int number = niti_find_tensor(d.tensors, d.common.count, place, &block);
  const Tensor &t = d.tensors[number];
  NitiSgdMaxima *found = &d.common.range->maxima[number];
  const uint64_t max = found->gradient;
  if (niti_bits_inline(max) > 0) {
    const NitiMu rate = niti_mu(max, d.common.clock->scalars[t.scalar]);
    if (t.wide)
      change<int64_t>(t, block, d.common.parts, rate);
    else
      change<int32_t>(t, block, d.common.parts, rate);
  }
  __syncthreads(); /* the block no longer uses what was found */
  if (threadIdx.x > 0) return;
  __threadfence();
  if (atomicAdd(&found->done, 1u) + 1 != t.end - (place - block)) return;
  found->gradient = 0;
  found->done = 0;
}

static void run(NitiCuda *cuda, const NitiWeightUpdate *updates, int count, uint32_t parts) {
  Updates args = {};
  uint32_t blocks = 0;
  args.common = Common{cuda->range, cuda->clock, parts, count};
  for (int i = 0; i < count; ++i) {
    const NitiGradient *g = updates[i].gradient;
    blocks += niti_blocks(g->count, (size_t)PART * parts);
    args.tensors[i] = Tensor{updates[i].w->data, g->data, g->count, blocks, updates[i].scalar, g->bits == 64};
  }
  NITI_LAUNCH(cuda, max_kernel, blocks, THREADS, 0, args);
  NITI_LAUNCH(cuda, update_kernel, blocks, THREADS, 0, args);
}

extern "C" void niti_cuda_update_niti(NitiBackend *backend, const NitiWeightUpdate *updates, int count) {
  NitiCuda *cuda = niti_cuda(backend);
  size_t weights = 0;
  for (int i = 0; i < count; ++i) weights += updates[i].gradient->count;
  const uint32_t parts = niti_parts(cuda, weights, PART);
  for (int first = 0; first < count; first += MOST)
    run(cuda, updates + first, count - first < MOST ? count - first : MOST, parts);
}
