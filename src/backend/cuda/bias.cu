/* Biases: at their accumulators' exponent before a convolution, and their gradients. */
#include "backend/cuda/tile.cuh"
#include "base/bias.h"
#include "base/norm.h"

enum {
  THREADS = 256,
  ROWS = 8 /* threads of a block that share channels */,
  SHARE = 1 << 14 /* rows of a block: sums fit int32 */
};

static __global__ void __launch_bounds__(THREADS) prepare_kernel(int32_t *out, const int16_t *bias, const int32_t *e_bias,
                                                                 const int32_t *e_x, const int32_t *e_w, int k, int padded) {
  niti_kernel_begin();
  const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
  if (i < padded) out[i] = i < k ? niti_bias_at(bias[i], *e_bias - *e_x - *e_w) : 0;
}

static __global__ void __launch_bounds__(THREADS)
    centre_kernel(int32_t *out, const int64_t *means, const int32_t *e_x, const int32_t *e_w, int k, int padded) {
  niti_kernel_begin();
  const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
  if (i < padded) out[i] = i < k ? niti_norm_centre(means[i], *e_x + *e_w) : 0;
}

extern "C" const int32_t *niti_cuda_bias_prepare(NitiCuda *cuda, const NitiCudaBias *b, const NitiTensor *x,
                                                 const NitiTensor *w) {
  const int k = b->channels, padded = (int)(niti_cuda_bias_bytes(k) / sizeof *b->room);
  const unsigned blocks = (unsigned)((padded + THREADS - 1) / THREADS);
  if (!b->of) return NULL;
  if (b->centred)
    NITI_LAUNCH(cuda, centre_kernel, blocks, THREADS, 0, b->room, (const int64_t *)(const void *)b->of->data, x->exponent,
                w->exponent, k, padded);
  else
    NITI_LAUNCH(cuda, prepare_kernel, blocks, THREADS, 0, b->room, (const int16_t *)(const void *)b->of->data, b->of->exponent,
                x->exponent, w->exponent, k, padded);
  return b->room;
}

struct Sums {
  unsigned long long *out; /* [channels] */
  const int8_t *dy;
  int32_t *e_out;
  const int32_t *e_dy;
  int64_t rows;
  int32_t channels, slices; /* slices: blocks side by side */
};

/* A thread has V neighbouring channels of every ROWS-th row of its block's share. */
template <int V>
static __global__ void __launch_bounds__(THREADS) gradient_kernel(Sums s) {
  niti_kernel_begin();
  __shared__ int sums[ROWS][32 * V];
  const uint32_t share = blockIdx.x / (uint32_t)s.slices, slice = blockIdx.x - share * (uint32_t)s.slices;
  const uint32_t row = threadIdx.x / 32, column = threadIdx.x % 32, channel = (slice * 32 + column) * V;
  const int64_t end = ((int64_t)share + 1) * SHARE < s.rows ? ((int64_t)share + 1) * SHARE : s.rows;
  int acc[V] = {};
  for (int64_t r = (int64_t)share * SHARE + row; channel < (uint32_t)s.channels && r < end; r += ROWS)
    niti_word_add<V>(acc, niti_word_load<V>(s.dy + r * s.channels + channel));
#pragma unroll
  for (int k = 0; k < V; ++k) sums[row][column * V + k] = acc[k];
  __syncthreads();
  const uint32_t mine = slice * 32 * V + threadIdx.x;
  if (threadIdx.x < 32 * V && mine < (uint32_t)s.channels) {
    int sum = 0;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) sum += sums[r][threadIdx.x];
    atomicAdd(s.out + mine, (unsigned long long)(long long)sum);
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *s.e_out = *s.e_dy;
}

extern "C" void niti_cuda_bias_gradient(NitiBackend *backend, NitiTensor *gradient, const NitiTensor *dy) {
  NitiCuda *cuda = niti_cuda(backend);
  const int32_t channels = dy->shape.c;
  const int V = niti_words_fit((size_t)channels, dy->data, NULL, NULL) ? 4 : 1;
  const int64_t rows = (int64_t)(niti_shape_count(dy->shape) / (size_t)channels);
  const Sums s = {(unsigned long long *)(void *)gradient->data,
                  dy->data,
                  gradient->exponent,
                  dy->exponent,
                  rows,
                  channels,
                  (channels + 32 * V - 1) / (32 * V)};
  void (*bias_gradient)(Sums) = V == 4 ? gradient_kernel<4> : gradient_kernel<1>;
  niti_cuda_note(cuda, niti_cuda_runtime.cudaMemsetAsync(gradient->data, 0, (size_t)channels * sizeof(int64_t), cuda->stream),
                 "cudaMemsetAsync");
  NITI_LAUNCH(cuda, bias_gradient, (unsigned)((rows + SHARE - 1) / SHARE) * (unsigned)s.slices, THREADS, 0, s);
}
