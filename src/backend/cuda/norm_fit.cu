/* Batch norm's multipliers, forward and backward. Each block sums up its rows in 32 bits and adds that to a copy of the range's
 * sums; a slice's last block adds the copies up into the output, leaves zeros and goes on to the multipliers of its channels, a
 * thread per channel, with the scalars of base/norm.h. Backward the multipliers depend on all channels: where these are more than
 * one slice, another launch makes them. */
#include "backend/cuda/rows.cuh"
#include "base/norm.h"

enum {
  BLOCK_ROWS = INT32_MAX / (NITI_MANTISSA_MAX * NITI_MANTISSA_MAX), /* whose sums fit in 32 bits: 133,144 */
  BLOCKS = 2,                                                       /* a multiprocessor's */
  THREADS = NITI_ROWS_THREADS,                                      /* that end a slice, one per channel */
  REPLICAS = 8,                                                     /* at most */
  DELTA_THREADS = 512,                                              /* of the other launch */
};

/* Sums of x and its squares; or of deltas a, deltas times x, and deltas squared. */
typedef struct Sums {
  NitiRange *range;
  int64_t *sums; /* [channels][2 or 3] of all channels */
  int32_t *exponent;
  const int8_t *a, *x; /* x: with deltas alone */
  const int32_t *e_a, *e_x;
  int64_t count;
  uint32_t channels; /* in all */
  uint32_t replicas; /* of the range's sums, so that fewer blocks add to the same words */
  NitiRows rows;
} Sums;

typedef struct Fit {
  enum { SUMS = 2, ROWS = 2 * NITI_ROWS_AT_ONCE /* that a thread has under way */ };
  NitiAffine *affine;
  int32_t *exponent;
  int64_t *running; /* [2][channels] */
  const int16_t *weight, *bias;
  const int32_t *e_weight, *e_bias;
} Fit;

typedef struct DeltaFit {
  enum { SUMS = 3, ROWS = NITI_ROWS_AT_ONCE };
  NitiAffineDelta *affine;
  int64_t *weight_gradient, *bias_gradient;
  int32_t *exponent, *e_weight_gradient, *e_bias_gradient;
  const NitiNormSums *sums; /* of x */
  const int16_t *weight;
  const int32_t *e_weight;
  bool whole; /* all channels are one slice */
} DeltaFit;

/* With ranks: sums alone, which they exchange before anything is made of them. */
typedef struct NoFit {
  enum { SUMS = Fit::SUMS, ROWS = Fit::ROWS };
} NoFit;
typedef struct NoDeltaFit {
  enum { SUMS = DeltaFit::SUMS, ROWS = DeltaFit::ROWS };
} NoDeltaFit;

/* ---- reductions over a block: all threads call them, and get the result ---- */

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

/* ---- multipliers, forward ---- */

/* A scalar >= 0 as a number whose order is niti_scalar_less's. */
static __device__ inline uint64_t order_of(NitiScalar s) {
  return s.m == 0 ? 0 : (uint64_t)((uint32_t)s.e ^ 0x80000000u) << 31 | (uint64_t)s.m;
}

static __device__ inline NitiScalar scalar_of(uint64_t order) {
  const NitiScalar zero = {0, 0}, s = {(int64_t)(order & 0x7fffffffu), (int32_t)((uint32_t)(order >> 31) ^ 0x80000000u)};
  return order == 0 ? zero : s;
}

/* The output's, from all channels; the same in every block. */
static __device__ inline int32_t fit_exponent(const Fit &f, uint32_t channels) {
  uint64_t most = 0;
  for (uint32_t c = threadIdx.x; c < channels; c += THREADS) {
    const uint64_t range = order_of(niti_norm_range(f.weight[c], *f.e_weight, f.bias[c], *f.e_bias));
    most = range > most ? range : most;
  }
  return niti_norm_exponent(scalar_of(block_max(most)));
}

static __device__ inline void write_affine(const Fit &f, uint32_t c, const NitiNormChannel &channel, int32_t exponent) {
  f.affine[c] = niti_norm_affine(&channel, f.weight[c], *f.e_weight, f.bias[c], *f.e_bias, exponent);
  if (c == 0) *f.exponent = exponent;
}

/* The end of a slice whose channels are c, one per thread; own: there is such a channel. */
static __device__ inline void end_slice(const Sums &d, const Fit &f, uint32_t c, bool own) {
  const int32_t exponent = fit_exponent(f, d.channels), e = *d.e_a;
  if (!own) return;
  const NitiNormChannel now = niti_norm_batch(((const NitiNormSums *)d.sums)[c], d.count, e);
  int64_t *mean = &f.running[c], *variance = &f.running[d.channels + c];
  NitiScalar m = now.mean, v = now.variance;
  m.e += e;
  v.e += 2 * e;
  *mean = niti_norm_run(*mean, m);
  *variance = niti_norm_run(*variance, v);
  write_affine(f, c, now, exponent);
}

static __global__ void __launch_bounds__(THREADS) running_kernel(Fit f, const int32_t *e_x, uint32_t channels) {
  niti_kernel_settle();
  const int32_t exponent = fit_exponent(f, channels);
  const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
  if (c < channels) write_affine(f, c, niti_norm_running(f.running[c], f.running[channels + c], *e_x), exponent);
}

/* ---- multipliers, backward ---- */

typedef struct DeltaChannel {
  NitiNormChannel x;
  NitiNormDelta d;
} DeltaChannel;

static __device__ inline NitiNormDeltaSums delta_sums(const Sums &d, uint32_t c) {
  return ((const NitiNormDeltaSums *)d.sums)[c];
}

static __device__ inline DeltaChannel delta_channel(const Sums &d, const DeltaFit &f, uint32_t c) {
  DeltaChannel channel;
  channel.x = niti_norm_batch(f.sums[c], d.count, *d.e_x);
  channel.d = niti_norm_delta(&channel.x, f.sums[c], delta_sums(d, c), d.count, f.weight[c], *f.e_weight);
  return channel;
}

/* Until its multipliers are known, affine[c] keeps a channel's square. */
static __device__ inline void keep_square(const DeltaFit &f, uint32_t c, NitiScalar square) {
  f.affine[c].factor = (int32_t)square.m;
  f.affine[c].slope = square.e;
}

/* The range's exponent; own: the largest of a thread's squares. */
static __device__ inline int32_t delta_exponent(const DeltaFit &f, uint32_t channels, int32_t own) {
  const uint64_t top = block_max((uint32_t)own ^ 0x80000000u); /* the order of unsigned numbers */
  NitiSquares squares = {0, (int32_t)((uint32_t)top ^ 0x80000000u)};
  for (uint32_t c = threadIdx.x; c < channels; c += blockDim.x) {
    const NitiScalar square = {f.affine[c].factor, f.affine[c].slope};
    squares.sum += niti_squares_share(squares.exponent, square);
  }
  squares.sum = block_sum(squares.sum);
  return niti_norm_delta_exponent(squares, channels);
}

/* One block. A thread keeps its first channel and computes any others twice. */
static __device__ inline void fit_deltas(const Sums &d, const DeltaFit &f) {
  DeltaChannel first = {};
  int32_t own = NITI_SQUARES_NONE;
  for (uint32_t c = threadIdx.x; c < d.channels; c += blockDim.x) {
    const DeltaChannel channel = delta_channel(d, f, c);
    if (c == threadIdx.x) first = channel;
    f.weight_gradient[c] = niti_norm_gradient(&channel.x, f.sums[c], delta_sums(d, c), d.count);
    f.bias_gradient[c] = delta_sums(d, c).d;
    keep_square(f, c, channel.d.square);
    own = niti_squares_exponent(own, channel.d.square);
  }
  const int32_t exponent = delta_exponent(f, d.channels, own);
  for (uint32_t c = threadIdx.x; c < d.channels; c += blockDim.x) {
    const DeltaChannel channel = c == threadIdx.x ? first : delta_channel(d, f, c);
    f.affine[c] = niti_norm_affine_delta(&channel.d, &channel.x, exponent - NITI_NORM_FRACTION);
  }
  if (threadIdx.x > 0) return;
  *f.exponent = exponent + *d.e_a - *d.e_x;
  *f.e_weight_gradient = *d.e_a + NITI_NORM_GRADIENT_EXPONENT;
  *f.e_bias_gradient = *d.e_a;
}

static __device__ inline void end_slice(const Sums &d, const DeltaFit &f, uint32_t, bool) {
  if (f.whole) fit_deltas(d, f);
}

static __global__ void __launch_bounds__(DELTA_THREADS) deltas_kernel(Sums d, DeltaFit f) {
  niti_kernel_settle();
  fit_deltas(d, f);
}

static __device__ inline void end_slice(const Sums &, const NoFit &, uint32_t, bool) {}
static __device__ inline void end_slice(const Sums &, const NoDeltaFit &, uint32_t, bool) {}

/* A thread per channel. */
static __global__ void __launch_bounds__(THREADS) fit_kernel(Sums d, Fit f) {
  niti_kernel_settle();
  const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
  end_slice(d, f, c, c < d.channels);
}

/* ---- sums ---- */

/* out[v]: channel v of four rows. */
template <int V>
static __device__ inline void gather(uint32_t *out, const uint32_t (*words)[(V + 3) / 4]) {
  if (V == 1) out[0] = words[0][0] | words[1][0] << 8 | words[2][0] << 16 | words[3][0] << 24;
#pragma unroll
  for (int q = 0; q < V / 4; ++q) niti_transpose4(out + 4 * q, words[0][q], words[1][q], words[2][q], words[3][q]);
}

/* A thread's sums of its channels. */
template <int V, int K, int ROWS>
static __device__ inline void walk(int (*acc)[V], const Sums &d, const NitiRowsLane &l) {
  const NitiRows &r = d.rows;
  for (uint32_t row = blockIdx.x * r.lanes * ROWS + l.lane; l.inside && row < r.rows; row += gridDim.x * r.lanes * ROWS) {
    uint32_t a[ROWS][(V + 3) / 4] = {}, x[ROWS][(V + 3) / 4] = {};
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      const uint32_t at = row + (uint32_t)i * r.lanes;
      if (at < r.rows) niti_vector_load<V>(a[i], d.a + (size_t)at * r.pitch + l.channel);
      if (K == DeltaFit::SUMS && at < r.rows) niti_vector_load<V>(x[i], d.x + (size_t)at * r.pitch + l.channel);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i += 4) {
      uint32_t as[V], xs[V];
      gather<V>(as, a + i);
      if (K == DeltaFit::SUMS) gather<V>(xs, x + i);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        acc[0][v] = __dp4a((int)as[v], 0x01010101, acc[0][v]);
        if (K == DeltaFit::SUMS) acc[1][v] = __dp4a((int)as[v], (int)xs[v], acc[1][v]);
        acc[K - 1][v] = __dp4a((int)as[v], (int)as[v], acc[K - 1][v]);
      }
    }
  }
}

/* The block's sums of one kind, totals[channel of the slice], from those of its threads. All threads call it. */
template <int V>
static __device__ inline void add_up(int *totals, int (*stage)[THREADS + 1], const int *acc, const NitiRows &r) {
  const uint32_t channels = r.width * V, parts = THREADS / channels;
  const uint32_t channel = threadIdx.x % channels, vector = channel / V;
  int sum = 0;
  __syncthreads(); /* the kind before has been read */
#pragma unroll
  for (int v = 0; v < V; ++v) stage[v][threadIdx.x] = acc[v];
  totals[threadIdx.x] = 0;
  __syncthreads();
#pragma unroll 4
  for (uint32_t lane = threadIdx.x / channels; lane < r.lanes; lane += parts) {
    if (threadIdx.x < parts * channels) sum += stage[channel % V][lane * r.width + vector];
  }
  if (sum != 0) atomicAdd(&totals[channel], sum);
  __syncthreads();
}

/* Whether this block is the slice's last, after all that its threads have written; they all call it. */
static __device__ inline bool is_last(NitiRange *range) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) { /* one thread's fences order what all of the block's wrote, and will read */
    __threadfence();
    last = atomicAdd(&range->summed[blockIdx.y], 1u) + 1 == gridDim.x;
    __threadfence();
  }
  __syncthreads();
  return last;
}

template <int V, typename AnyFit>
static __global__ void __launch_bounds__(THREADS, BLOCKS) sums_kernel(Sums d, AnyFit f) {
  niti_kernel_settle();
  enum { K = AnyFit::SUMS };
  __shared__ int stage[V][THREADS + 1], totals[THREADS];
  const NitiRows &r = d.rows;
  const uint32_t own = blockIdx.y * r.width * V + threadIdx.x, c = r.first + own; /* a thread's channel in the end */
  const bool has_channel = threadIdx.x < r.width * V && own < r.channels;
  const uint32_t pitch = r.channels * K; /* from one replica to the next: [K][channels] each */
  unsigned long long *so_far = (unsigned long long *)&d.range->sums[own];
  int acc[K][V] = {};
  walk<V, K, AnyFit::ROWS>(acc, d, niti_rows_lane<V>(r));
#pragma unroll
  for (int k = 0; k < K; ++k) {
    add_up<V>(totals, stage, acc[k], r);
    const int total = totals[threadIdx.x];
    unsigned long long *to = so_far + blockIdx.x % d.replicas * pitch + k * r.channels;
    if (has_channel && total != 0) atomicAdd(to, (unsigned long long)(long long)total);
  }
  if (!is_last(d.range)) return;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    unsigned long long sum = 0;
#pragma unroll
    for (uint32_t i = 0; i < REPLICAS; ++i) {
      if (has_channel && i < d.replicas) sum += __ldcg(so_far + i * pitch + k * r.channels);
    }
    for (uint32_t i = 0; has_channel && i < d.replicas; ++i) so_far[i * pitch + k * r.channels] = 0;
    if (has_channel) d.sums[(size_t)K * c + k] = (int64_t)sum;
  }
  if (threadIdx.x == 0) d.range->summed[blockIdx.y] = 0;
  if (threadIdx.x == 0 && c == 0) *d.exponent = *d.e_a;
  end_slice(d, f, c, has_channel);
}

template <int V, typename AnyFit>
static void launch(NitiCuda *cuda, const Sums &d, const AnyFit &f) {
  const NitiRows &r = d.rows;
  const uint32_t turn = r.lanes * AnyFit::ROWS, turns = (r.rows + turn - 1) / turn, most = BLOCK_ROWS / turn;
  const uint32_t full = niti_rows_blocks(cuda, r, BLOCKS), least = (turns + most - 1) / most;
  const uint32_t wanted = full < turns ? full : turns;
  NITI_LAUNCH(cuda, (sums_kernel<V, AnyFit>), dim3(wanted > least ? wanted : least, r.slices), THREADS, 0, d, f);
}

/* As many channels at a time as the range has room for. */
template <typename AnyFit>
static void run_sums(NitiCuda *cuda, Sums d, NitiShape shape, const AnyFit &f) {
  const int V = niti_rows_vector(d.channels, d.a, d.x, NULL);
  for (uint32_t first = 0; first < d.channels; first += NITI_SUMS_CHANNELS) {
    const uint32_t left = d.channels - first;
    d.rows = niti_rows_of(shape, first, left < NITI_SUMS_CHANNELS ? left : (uint32_t)NITI_SUMS_CHANNELS, V);
    d.replicas = NITI_SUMS_CHANNELS / d.rows.channels < REPLICAS ? NITI_SUMS_CHANNELS / d.rows.channels : (uint32_t)REPLICAS;
    if (V == 16) launch<16>(cuda, d, f);
    if (V == 4) launch<4>(cuda, d, f);
    if (V == 1) launch<1>(cuda, d, f);
  }
}

static Sums sums_of(const NitiCuda *cuda, NitiTensor *sums, const NitiTensor *a, const NitiTensor *x) {
  const uint32_t channels = (uint32_t)a->shape.c;
  return Sums{cuda->range,
              (int64_t *)(void *)sums->data,
              sums->exponent,
              a->data,
              x ? x->data : NULL,
              a->exponent,
              x ? x->exponent : NULL,
              (int64_t)niti_whole_batch(&cuda->base, a->shape.n) * a->shape.h * a->shape.w,
              channels,
              0,
              NitiRows{}};
}

static const int16_t *words_of(const NitiTensor *t) { return (const int16_t *)(const void *)t->data; }

extern "C" void niti_cuda_norm_fit(NitiBackend *backend, NitiTensor *affine, NitiTensor *running, NitiTensor *sums,
                                   const NitiTensor *x, const NitiTensor *weight, const NitiTensor *bias) {
  NitiCuda *cuda = niti_cuda(backend);
  const uint32_t channels = (uint32_t)x->shape.c;
  const Fit fit = {(NitiAffine *)(void *)affine->data,
                   affine->exponent,
                   (int64_t *)(void *)running->data,
                   words_of(weight),
                   words_of(bias),
                   weight->exponent,
                   bias->exponent};
  if (sums && backend->together.whole > 0) {
    const Sums d = sums_of(cuda, sums, x, NULL);
    run_sums(cuda, d, x->shape, NoFit{});
    niti_cuda_all_sum(backend, d.sums, (size_t)channels * Fit::SUMS, 64);
    NITI_LAUNCH(cuda, fit_kernel, (channels + THREADS - 1) / THREADS, THREADS, 0, d, fit);
  } else if (sums) {
    run_sums(cuda, sums_of(cuda, sums, x, NULL), x->shape, fit);
  } else {
    const int32_t *exponent = x->exponent;
    NITI_LAUNCH(cuda, running_kernel, (channels + THREADS - 1) / THREADS, THREADS, 0, fit, exponent, channels);
  }
  cuda->settled = true;
}

extern "C" void niti_cuda_norm_delta_fit(NitiBackend *backend, NitiTensor *affine, NitiTensor *weight_gradient,
                                         NitiTensor *bias_gradient, NitiTensor *delta_sums, const NitiTensor *dy,
                                         const NitiTensor *x, const NitiTensor *sums, const NitiTensor *weight) {
  NitiCuda *cuda = niti_cuda(backend);
  const Sums d = sums_of(cuda, delta_sums, dy, x);
  const DeltaFit fit = {(NitiAffineDelta *)(void *)affine->data,
                        (int64_t *)(void *)weight_gradient->data,
                        (int64_t *)(void *)bias_gradient->data,
                        affine->exponent,
                        weight_gradient->exponent,
                        bias_gradient->exponent,
                        (const NitiNormSums *)(const void *)sums->data,
                        words_of(weight),
                        weight->exponent,
                        d.channels <= NITI_SUMS_SLICE};
  if (backend->together.whole > 0) {
    run_sums(cuda, d, dy->shape, NoDeltaFit{});
    niti_cuda_all_sum(backend, d.sums, (size_t)d.channels * DeltaFit::SUMS, 64);
    NITI_LAUNCH(cuda, deltas_kernel, 1, DELTA_THREADS, 0, d, fit);
  } else {
    run_sums(cuda, d, dy->shape, fit);
    if (!fit.whole) NITI_LAUNCH(cuda, deltas_kernel, 1, DELTA_THREADS, 0, d, fit);
  }
  cuda->settled = true;
}
