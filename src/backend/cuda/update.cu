/* Update `niti`: the first launch finds the largest |gradient|, the second changes the weights and clears what was found. */
#include "backend/cuda/device.cuh"
#include "base/update.h"

enum { THREADS = 256, FOURS = 4 }; /* groups of four gradients that a thread has under way */

/* Gradients 4 i .. 4 i + 3. */
static __device__ inline void load_four(int32_t out[4], const int32_t *g, size_t i) {
  const int4 four = ((const int4 *)g)[i];
  out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
}

static __device__ inline void load_four(int64_t out[4], const int64_t *g, size_t i) {
  const longlong2 low = ((const longlong2 *)g)[2 * i], high = ((const longlong2 *)g)[2 * i + 1];
  out[0] = low.x, out[1] = low.y, out[2] = high.x, out[3] = high.y;
}

static __device__ inline uint64_t larger(uint64_t max, int64_t g) {
  const uint64_t magnitude = g < 0 ? 0 - (uint64_t)g : (uint64_t)g;
  return magnitude > max ? magnitude : max;
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) max_kernel(NitiRange *range, const T *__restrict__ g, size_t count) {
  niti_kernel_begin();
  __shared__ uint64_t largest[THREADS / 32];
  const size_t fours = count / 4, step = (size_t)gridDim.x * THREADS, first = (size_t)blockIdx.x * THREADS + threadIdx.x;
  uint64_t max = 0;
  for (size_t i = first; i < fours; i += FOURS * step) {
    T four[FOURS][4] = {};
#pragma unroll
    for (int u = 0; u < FOURS; ++u) {
      if (i + (size_t)u * step < fours) load_four(four[u], g, i + (size_t)u * step);
    }
#pragma unroll
    for (int u = 0; u < FOURS; ++u) {
#pragma unroll
      for (int k = 0; k < 4; ++k) max = larger(max, four[u][k]);
    }
  }
  if (first < count % 4) max = larger(max, g[4 * fours + first]);
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, (unsigned long long)max, lanes);
    max = other > max ? other : max;
  }
  if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = max;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < THREADS / 32; ++i) max = largest[i] > max ? largest[i] : max;
  if (max > 0) atomicMax((unsigned long long *)&range->gradient_max, (unsigned long long)max);
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    update_kernel(NitiRange *range, const int64_t *mu, int8_t *__restrict__ w, const T *__restrict__ g, size_t count) {
  niti_kernel_begin();
  const size_t fours = count / 4, step = (size_t)gridDim.x * THREADS, first = (size_t)blockIdx.x * THREADS + threadIdx.x;
  const uint64_t max = range->gradient_max;
  if (niti_bits_inline(max) > 0) {
    const NitiMu rate = niti_mu(max, *mu);
    for (size_t i = first; i < fours; i += FOURS * step) {
      T four[FOURS][4] = {};
      uint32_t word[FOURS];
#pragma unroll
      for (int u = 0; u < FOURS; ++u) {
        if (i + (size_t)u * step >= fours) continue;
        load_four(four[u], g, i + (size_t)u * step);
        word[u] = ((const uint32_t *)w)[i + (size_t)u * step];
      }
#pragma unroll
      for (int u = 0; u < FOURS; ++u) {
        if (i + (size_t)u * step >= fours) continue;
        uint32_t result = 0;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          result |= (uint32_t)(uint8_t)niti_update_weight((int8_t)(word[u] >> (8 * k)), four[u][k], &rate) << (8 * k);
        }
        ((uint32_t *)w)[i + (size_t)u * step] = result;
      }
    }
    if (first < count % 4) w[4 * fours + first] = niti_update_weight(w[4 * fours + first], g[4 * fours + first], &rate);
  }
  __syncthreads(); /* the block no longer uses the range */
  if (threadIdx.x > 0) return;
  __threadfence();
  if (atomicAdd(&range->done, 1u) + 1 != gridDim.x) return;
  range->gradient_max = 0;
  range->done = 0;
}

template <typename T>
static void run(NitiCuda *cuda, int8_t *w, const T *g, size_t count, int32_t scalar) {
  const size_t all = (count + THREADS * FOURS * 4 - 1) / (THREADS * FOURS * 4), most = (size_t)cuda->multiprocessors * 4;
  const unsigned grid = (unsigned)(all < most ? all : most);
  NITI_LAUNCH(cuda, max_kernel<T>, grid, THREADS, 0, cuda->range, g, count);
  NITI_LAUNCH(cuda, update_kernel<T>, grid, THREADS, 0, cuda->range, (const int64_t *)&cuda->clock->scalars[scalar], w, g, count);
}

extern "C" void niti_cuda_update_niti(NitiBackend *backend, NitiTensor *w, const NitiGradient *gradient, int32_t scalar) {
  if (gradient->bits == 32) {
    run(niti_cuda(backend), w->data, (const int32_t *)gradient->data, gradient->count, scalar);
  } else {
    run(niti_cuda(backend), w->data, (const int64_t *)gradient->data, gradient->count, scalar);
  }
}
