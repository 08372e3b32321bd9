/* Sums of the squares of several gradients at once, for clipping by norm. The first launch finds each tensor's largest magnitude;
 * the second sums up the squares, and its last block makes the totals of them, one after the other, and clears what was found. */
#include "backend/cuda/tensors.cuh"
#include "base/clip.h"

enum { THREADS = 256, VALUES = 8, BLOCK_VALUES = THREADS * VALUES }; /* VALUES: of a thread */

typedef struct Tensor {
  const void *g;
  size_t count;
  const int32_t *e_g[2]; /* either may be NULL */
  const int64_t *before; /* NULL: 0 */
  int64_t *total;
  uint32_t end; /* the first block that is not its own */
  bool wide;    /* g is int64_t, else int32_t */
} Tensor;

enum { MOST = (NITI_ARGUMENTS_SMALL - 16) / sizeof(Tensor) };

typedef struct Squares {
  NitiRange *range;
  int count;
  Tensor tensors[MOST];
} Squares;

static_assert(sizeof(Squares) <= NITI_ARGUMENTS_SMALL, "the tensors are a kernel's arguments");

/* Value k of this thread, 0 past the end. */
static __device__ inline int64_t value(const Tensor &t, uint32_t block, int k) {
  const size_t i = (size_t)block * BLOCK_VALUES + (size_t)k * THREADS + threadIdx.x;
  if (i >= t.count) return 0;
  return t.wide ? ((const int64_t *)t.g)[i] : ((const int32_t *)t.g)[i];
}

static __global__ void __launch_bounds__(THREADS) max_kernel(const __grid_constant__ Squares s) {
  niti_kernel_begin();
  uint32_t block;
  const int number = niti_find_tensor(s.tensors, s.count, blockIdx.x, &block);
  uint64_t max = 0;
#pragma unroll
  for (int k = 0; k < VALUES; ++k) {
    const uint64_t magnitude = niti_magnitude64(value(s.tensors[number], block, k));
    max = magnitude > max ? magnitude : max;
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, (unsigned long long)max, lanes);
    max = other > max ? other : max;
  }
  if (threadIdx.x % 32 == 0 && max > 0)
    atomicMax((unsigned long long *)&s.range->maxima[number].gradient, (unsigned long long)max);
}

/* One thread of the last block. */
static __device__ inline void finish(const Squares &s) {
  for (int i = 0; i < s.count; ++i) {
    const Tensor &t = s.tensors[i];
    const int32_t exponent = (t.e_g[0] ? *t.e_g[0] : 0) + (t.e_g[1] ? *t.e_g[1] : 0);
    const NitiScalar before = {t.before ? (int32_t)t.before[0] : 0, t.before ? (int32_t)t.before[1] : 0};
    const uint64_t sum = *(volatile uint64_t *)&s.range->squares[i];
    const NitiScalar total = niti_squares_add(before, sum, niti_squares_shift(s.range->maxima[i].gradient, t.count), exponent);
    t.total[0] = total.m;
    t.total[1] = total.e;
    s.range->maxima[i].gradient = 0;
    s.range->squares[i] = 0;
  }
  s.range->done = 0;
}

static __global__ void __launch_bounds__(THREADS) sum_kernel(const __grid_constant__ Squares s) {
  niti_kernel_begin();
  __shared__ unsigned long long all;
  uint32_t block;
  const int number = niti_find_tensor(s.tensors, s.count, blockIdx.x, &block);
  const Tensor &t = s.tensors[number];
  const int shift = niti_squares_shift(s.range->maxima[number].gradient, t.count);
  uint64_t sum = 0;
  if (threadIdx.x == 0) all = 0;
#pragma unroll
  for (int k = 0; k < VALUES; ++k) sum += niti_square(value(t, block, k), shift);
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, (unsigned long long)sum, lanes);
  __syncthreads();
  if (threadIdx.x % 32 == 0) atomicAdd(&all, (unsigned long long)sum);
  __syncthreads(); /* the block no longer uses the maxima */
  if (threadIdx.x > 0) return;
  if (all > 0) atomicAdd((unsigned long long *)&s.range->squares[number], all);
  __threadfence();
  const bool last = atomicAdd(&s.range->done, 1u) + 1 == gridDim.x;
  __threadfence();
  if (last) finish(s);
}

static Tensor tensor_of(const NitiSquareSum *sum, uint32_t before) {
  const NitiGradient *g = sum->gradient;
  return Tensor{g->data,      g->count,   {g->exponents[0], g->exponents[1]},
                sum->before,  sum->total, before + (uint32_t)((g->count + BLOCK_VALUES - 1) / BLOCK_VALUES),
                g->bits == 64};
}

static void run(NitiCuda *cuda, const NitiSquareSum *sums, int count) {
  Squares args = {};
  uint32_t blocks = 0;
  args.range = cuda->range;
  args.count = count;
  for (int i = 0; i < count; ++i) {
    args.tensors[i] = tensor_of(&sums[i], blocks);
    blocks = args.tensors[i].end;
  }
  NITI_LAUNCH(cuda, max_kernel, blocks, THREADS, 0, args);
  NITI_LAUNCH(cuda, sum_kernel, blocks, THREADS, 0, args);
}

extern "C" void niti_cuda_gradient_squares(NitiBackend *backend, const NitiSquareSum *sums, int count) {
  for (int first = 0; first < count; first += MOST)
    run(niti_cuda(backend), sums + first, count - first < MOST ? count - first : MOST);
}
