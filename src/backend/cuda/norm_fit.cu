/* Batch norm's multipliers, from the sums over each channel: a thread per channel, with the scalars of base/norm.h. */
#include "backend/cuda/device.cuh"
#include "base/norm.h"

enum { THREADS = 128, WIDE_THREADS = 512 };

/* ---- reductions over a block ---- */

/* All threads get the largest value; they all call it. */
static __device__ inline uint64_t block_max(uint64_t value) {
  __shared__ uint64_t warps[32];
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, (unsigned long long)value, lanes);
    value = other > value ? other : value;
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  for (uint32_t i = 0; i < blockDim.x / 32; ++i) value = warps[i] > value ? warps[i] : value;
  return value;
}

static __device__ inline int64_t block_sum(int64_t value) {
  __shared__ int64_t warps[32];
  int64_t sum = 0;
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, (long long)value, lanes);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  for (uint32_t i = 0; i < blockDim.x / 32; ++i) sum += warps[i];
  return sum;
}

/* A scalar >= 0 as a number whose order is niti_scalar_less's. */
static __device__ inline uint64_t order_of(NitiScalar s) {
  return s.m == 0 ? 0 : (uint64_t)((uint32_t)s.e ^ 0x80000000u) << 31 | (uint64_t)s.m;
}

static __device__ inline NitiScalar scalar_of(uint64_t order) {
  const NitiScalar zero = {0, 0}, s = {(int64_t)(order & 0x7fffffffu), (int32_t)((uint32_t)(order >> 31) ^ 0x80000000u)};
  return order == 0 ? zero : s;
}

/* ---- forward ---- */

typedef struct Fit {
  NitiAffine *affine;
  int32_t *exponent;
  int64_t *running; /* [2][channels] */
  const NitiNormSums *sums;
  const int16_t *weight, *bias;
  const int32_t *e_x, *e_weight, *e_bias;
  int64_t count; /* 0: from the running statistics */
  uint32_t channels;
} Fit;

/* The same in every block. */
static __device__ inline int32_t fit_exponent(const Fit &d) {
  uint64_t most = 0;
  for (uint32_t c = threadIdx.x; c < d.channels; c += THREADS) {
    const uint64_t range = order_of(niti_norm_range(d.weight[c], *d.e_weight, d.bias[c], *d.e_bias));
    most = range > most ? range : most;
  }
  return niti_norm_exponent(scalar_of(block_max(most)));
}

static __device__ inline NitiNormChannel channel_of(const Fit &d, uint32_t c) {
  int64_t *mean = &d.running[c], *variance = &d.running[d.channels + c];
  const int32_t e = *d.e_x;
  if (d.count == 0) return niti_norm_running(*mean, *variance, e);
  const NitiNormChannel now = niti_norm_batch(d.sums[c], d.count, e);
  NitiScalar m = now.mean, v = now.variance;
  m.e += e;
  v.e += 2 * e;
  *mean = niti_norm_run(*mean, m);
  *variance = niti_norm_run(*variance, v);
  return now;
}

static __global__ void __launch_bounds__(THREADS) fit_kernel(Fit d) {
  niti_kernel_begin();
  const int32_t exponent = fit_exponent(d);
  const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
  if (c == 0) *d.exponent = exponent;
  if (c >= d.channels) return;
  const NitiNormChannel channel = channel_of(d, c);
  d.affine[c] = niti_norm_affine(&channel, d.weight[c], *d.e_weight, d.bias[c], *d.e_bias, exponent);
}

static const int16_t *words_of(const NitiTensor *t) { return (const int16_t *)(const void *)t->data; }

extern "C" void niti_cuda_norm_fit(NitiBackend *backend, NitiTensor *affine, NitiTensor *running, const NitiTensor *sums,
                                   const NitiTensor *weight, const NitiTensor *bias, int64_t count) {
  const uint32_t channels = (uint32_t)niti_shape_count(weight->shape);
  const Fit args = {(NitiAffine *)(void *)affine->data,
                    affine->exponent,
                    (int64_t *)(void *)running->data,
                    (const NitiNormSums *)(const void *)sums->data,
                    words_of(weight),
                    words_of(bias),
                    sums->exponent,
                    weight->exponent,
                    bias->exponent,
                    count,
                    channels};
  NITI_LAUNCH(niti_cuda(backend), fit_kernel, (channels + THREADS - 1) / THREADS, THREADS, 0, args);
}

/* ---- backward ---- */

typedef struct DeltaFit {
  NitiAffineDelta *affine;
  int64_t *weight_gradient, *bias_gradient;
  int32_t *exponent, *e_weight_gradient, *e_bias_gradient;
  const NitiNormDeltaSums *deltas;
  const NitiNormSums *sums;
  const int16_t *weight;
  const int32_t *e_d, *e_x, *e_weight;
  int64_t count;
  uint32_t channels;
} DeltaFit;

typedef struct DeltaChannel {
  NitiNormChannel x;
  NitiNormDelta d;
} DeltaChannel;

static __device__ inline DeltaChannel delta_channel(const DeltaFit &f, uint32_t c) {
  DeltaChannel channel;
  channel.x = niti_norm_batch(f.sums[c], f.count, *f.e_x);
  channel.d = niti_norm_delta(&channel.x, f.sums[c], f.deltas[c], f.count, f.weight[c], *f.e_weight);
  return channel;
}

/* Until its multipliers are known, affine[c] keeps a channel's square. */
static __device__ inline void keep_square(const DeltaFit &f, uint32_t c, NitiScalar square) {
  f.affine[c].factor = (int32_t)square.m;
  f.affine[c].slope = square.e;
}

/* The range's exponent; own: the largest of a thread's squares. */
static __device__ inline int32_t delta_exponent(const DeltaFit &f, int32_t own) {
  const uint64_t top = block_max((uint32_t)own ^ 0x80000000u); /* the order of unsigned numbers */
  NitiSquares squares = {0, (int32_t)((uint32_t)top ^ 0x80000000u)};
  for (uint32_t c = threadIdx.x; c < f.channels; c += WIDE_THREADS) {
    const NitiScalar square = {f.affine[c].factor, f.affine[c].slope};
    squares.sum += niti_squares_share(squares.exponent, square);
  }
  squares.sum = block_sum(squares.sum);
  return niti_norm_delta_exponent(squares, f.channels);
}

/* One block. A thread keeps its first channel and computes any others twice. */
static __global__ void __launch_bounds__(WIDE_THREADS) delta_fit_kernel(DeltaFit f) {
  niti_kernel_begin();
  DeltaChannel first = {};
  int32_t own = NITI_SQUARES_NONE;
  for (uint32_t c = threadIdx.x; c < f.channels; c += WIDE_THREADS) {
    const DeltaChannel channel = delta_channel(f, c);
    if (c == threadIdx.x) first = channel;
    f.weight_gradient[c] = niti_norm_gradient(&channel.x, f.sums[c], f.deltas[c], f.count);
    f.bias_gradient[c] = f.deltas[c].d;
    keep_square(f, c, channel.d.square);
    own = niti_squares_exponent(own, channel.d.square);
  }
  const int32_t exponent = delta_exponent(f, own);
  for (uint32_t c = threadIdx.x; c < f.channels; c += WIDE_THREADS) {
    const DeltaChannel channel = c == threadIdx.x ? first : delta_channel(f, c);
    f.affine[c] = niti_norm_affine_delta(&channel.d, &channel.x, exponent - NITI_NORM_FRACTION);
  }
  if (threadIdx.x > 0) return;
  *f.exponent = exponent + *f.e_d - *f.e_x;
  *f.e_weight_gradient = *f.e_d + NITI_NORM_GRADIENT_EXPONENT;
  *f.e_bias_gradient = *f.e_d;
}

extern "C" void niti_cuda_norm_delta_fit(NitiBackend *backend, NitiTensor *affine, NitiTensor *weight_gradient,
                                         NitiTensor *bias_gradient, const NitiTensor *delta_sums, const NitiTensor *sums,
                                         const NitiTensor *weight, int64_t count) {
  const uint32_t channels = (uint32_t)niti_shape_count(weight->shape);
  const DeltaFit args = {(NitiAffineDelta *)(void *)affine->data,
                         (int64_t *)(void *)weight_gradient->data,
                         (int64_t *)(void *)bias_gradient->data,
                         affine->exponent,
                         weight_gradient->exponent,
                         bias_gradient->exponent,
                         (const NitiNormDeltaSums *)(const void *)delta_sums->data,
                         (const NitiNormSums *)(const void *)sums->data,
                         words_of(weight),
                         delta_sums->exponent,
                         sums->exponent,
                         weight->exponent,
                         count,
                         channels};
  const unsigned threads = channels < WIDE_THREADS ? (channels + 31) / 32 * 32 : WIDE_THREADS;
  NITI_LAUNCH(niti_cuda(backend), delta_fit_kernel, 1, threads, 0, args);
}
