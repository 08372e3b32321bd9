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
  REPLICAS = 8,        /* of the range's sums where channels are few, so that fewer blocks add to the same words */
  DELTA_THREADS = 512, /* of the other launch */
};

/* Sums of x and its squares; or of deltas a, deltas times x, and deltas squared. */
typedef struct Sums {
  NitiRange *range;
  int64_t *sums; /* [channels][2 or 3] of all channels */
  int32_t *exponent;
  const int8_t *a, *x; /* x: with deltas alone */
  const int32_t *e_a, *e_x;
  NitiNormCount count;
  uint32_t channels; /* in all */
  bool replicated;
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
  NitiScalarDivisor channels;
  bool whole; /* all channels are one slice */
} DeltaFit;

/* With ranks: sums alone, which they exchange before anything is made of them. */
template <typename AnyFit>
struct NoFit {
  enum { SUMS = AnyFit::SUMS, ROWS = AnyFit::ROWS };
};

/* ---- reductions over a block: all threads call them, and get the result ---- */

static __device__ inline int32_t block_max(int32_t value) {
  __shared__ int32_t warps[32];
  const uint32_t lane = threadIdx.x % 32;
  value = __reduce_max_sync(0xffffffffu, value);
  if (lane == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  return __reduce_max_sync(0xffffffffu, lane < blockDim.x / 32 ? warps[lane] : INT32_MIN);
}

/* 0 <= value < 2^54. */
static __device__ inline int64_t warp_sum(int64_t value) {
  const uint32_t low = (uint32_t)value & ((1u << 27) - 1), high = (uint32_t)(value >> 27);
  return ((int64_t)__reduce_add_sync(0xffffffffu, high) << 27) + __reduce_add_sync(0xffffffffu, low);
}

/* 0 <= value < 2^49. */
static __device__ inline int64_t block_sum(int64_t value) {
  __shared__ int64_t warps[32];
  const uint32_t lane = threadIdx.x % 32;
  value = warp_sum(value);
  if (lane == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum(lane < blockDim.x / 32 ? warps[lane] : 0);
}

/* ---- multipliers, forward ---- */

/* What the end of a slice reads besides the sums: each thread's channel. It is read before, while others wait for the sums. */
typedef struct Operands {
  int16_t weight, bias;
  int16_t range_weight, range_bias; /* the channel of the thread's number, where the search for the largest range begins */
  int32_t e_weight, e_bias, e_a;
  int64_t mean, variance;
} Operands;

static __device__ inline Operands operands_of(const Sums &d, const Fit &f, uint32_t c, bool own) {
  Operands o = {};
  o.e_weight = *f.e_weight;
  o.e_bias = *f.e_bias;
  o.e_a = *d.e_a;
  if (threadIdx.x < d.channels) {
    o.range_weight = f.weight[threadIdx.x];
    o.range_bias = f.bias[threadIdx.x];
  }
  if (!own) return o;
  o.weight = f.weight[c];
  o.bias = f.bias[c];
  o.mean = f.running[c];
  o.variance = f.running[d.channels + c];
  return o;
}

/* The output's exponent, from all channels; the same in every block. A range's exponent grows with it, so the largest exponent is
 * that of the largest range. */
static __device__ inline int32_t fit_exponent(const Fit &f, const Operands &o, uint32_t channels) {
  int32_t most = INT32_MIN;
  int16_t weight = o.range_weight, bias = o.range_bias;
#pragma unroll 1
  for (uint32_t c = threadIdx.x; c < channels;) {
    const NitiScalar range = niti_norm_range(weight, o.e_weight, bias, o.e_bias);
    if (range.m != 0) most = max(most, niti_norm_exponent(range));
    c += THREADS;
    if (c < channels) {
      weight = f.weight[c];
      bias = f.bias[c];
    }
  }
  most = block_max(most);
  return most == INT32_MIN ? 0 : most;
}

static __device__ inline void write_affine(const Fit &f, uint32_t c, const NitiNormChannel &channel, const Operands &o,
                                           int32_t exponent) {
  f.affine[c] = niti_norm_affine(&channel, o.weight, o.e_weight, o.bias, o.e_bias, exponent);
  if (c == 0) *f.exponent = exponent;
}

/* What the end of a slice needs besides the sums: the output's exponent. */
static __device__ inline int32_t prepare_slice(const Sums &d, const Fit &f, bool, const Operands &o) {
  return fit_exponent(f, o, d.channels);
}

/* The end of a slice whose channels are c, one per thread, with these sums; own: there is such a channel. */
static __device__ inline void end_slice(const Sums &d, const Fit &f, uint32_t c, bool own, const Operands &o, int32_t exponent,
                                        const int64_t *sums) {
  const NitiNormSums all = {sums[0], sums[1]};
  if (!own) return;
  const NitiNormChannel now = niti_norm_batch(all, &d.count, o.e_a);
  NitiScalar m = now.mean, v = now.variance;
  m.e += o.e_a;
  v.e += 2 * o.e_a;
  write_affine(f, c, now, o, exponent);
  f.running[c] = niti_norm_run(o.mean, m);
  f.running[d.channels + c] = niti_norm_run(o.variance, v);
}

/* From the sums of all ranks, a thread per channel. */
static __global__ void __launch_bounds__(THREADS) fit_kernel(Sums d, Fit f) {
  niti_kernel_settle();
  const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
  const bool own = c < d.channels;
  const Operands o = operands_of(d, f, c, own);
  const int32_t exponent = fit_exponent(f, o, d.channels);
  const int64_t sums[Fit::SUMS] = {own ? d.sums[Fit::SUMS * c] : 0, own ? d.sums[Fit::SUMS * c + 1] : 0};
  end_slice(d, f, c, own, o, exponent, sums);
}

static __global__ void __launch_bounds__(THREADS) running_kernel(Sums d, Fit f) {
  niti_kernel_settle();
  const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
  const Operands o = operands_of(d, f, c, c < d.channels);
  const int32_t exponent = fit_exponent(f, o, d.channels);
  if (c < d.channels) write_affine(f, c, niti_norm_running(o.mean, o.variance, o.e_a), o, exponent);
}

/* ---- multipliers, backward ---- */

typedef struct DeltaOperands {
  NitiNormSums sums;
  int16_t weight;
  int32_t e_weight, e_x, e_a;
} DeltaOperands;

typedef struct DeltaChannel {
  NitiNormChannel x;
  NitiNormDelta d;
} DeltaChannel;

static __device__ inline DeltaOperands operands_of(const Sums &d, const DeltaFit &f, uint32_t c, bool own) {
  DeltaOperands o = {};
  o.e_weight = *f.e_weight;
  o.e_x = *d.e_x;
  o.e_a = *d.e_a;
  if (!own) return o;
  o.weight = f.weight[c];
  o.sums = f.sums[c];
  return o;
}

/* What is known of a channel before the range is, and the gradients of its weights. */
static __device__ inline DeltaChannel begin_channel(const Sums &d, const DeltaFit &f, uint32_t c, const DeltaOperands &o,
                                                    const NitiNormChannel &x, const NitiNormDeltaSums &t) {
  DeltaChannel channel;
  channel.x = x;
  channel.d = niti_norm_delta(&channel.x, o.sums, t, &d.count, o.weight, o.e_weight);
  f.weight_gradient[c] = niti_norm_gradient(&channel.x, o.sums, t, &d.count);
  f.bias_gradient[c] = t.d;
  return channel;
}

static __device__ inline void end_channel(const DeltaFit &f, uint32_t c, const DeltaOperands &o, const DeltaChannel &channel,
                                          int32_t exponent) {
  f.affine[c] = niti_norm_affine_delta(&channel.d, &channel.x, exponent - NITI_NORM_FRACTION);
  if (c > 0) return;
  *f.exponent = exponent + o.e_a - o.e_x;
  *f.e_weight_gradient = o.e_a + NITI_NORM_GRADIENT_EXPONENT;
  *f.e_bias_gradient = o.e_a;
}

/* The statistics of x. */
static __device__ inline NitiNormChannel prepare_slice(const Sums &d, const DeltaFit &f, bool own, const DeltaOperands &o) {
  NitiNormChannel x = {};
  if (own && f.whole) x = niti_norm_batch(o.sums, &d.count, o.e_x);
  return x;
}

/* One block, a channel per thread. */
static __device__ inline void end_slice(const Sums &d, const DeltaFit &f, uint32_t c, bool own, const DeltaOperands &o,
                                        const NitiNormChannel &x, const int64_t *sums) {
  if (!f.whole) return;
  const NitiNormDeltaSums t = {sums[0], sums[1], sums[2]};
  DeltaChannel channel = {};
  if (own) channel = begin_channel(d, f, c, o, x, t);
  NitiSquares squares = {0, block_max(niti_squares_exponent(NITI_SQUARES_NONE, channel.d.square))};
  squares.sum = block_sum(niti_squares_share(squares.exponent, channel.d.square));
  const int32_t exponent = niti_norm_delta_exponent(squares, f.channels);
  if (own) end_channel(f, c, o, channel, exponent);
}

/* Until its multipliers are known, affine[c] keeps a channel's square. */
static __device__ inline void keep_square(const DeltaFit &f, uint32_t c, NitiScalar square) {
  f.affine[c].factor = square.m;
  f.affine[c].slope = square.e;
}

/* largest: the exponent of a thread's; only: its one square, where there are no more channels than threads. */
static __device__ inline NitiSquares sum_squares(const DeltaFit &f, uint32_t channels, int32_t largest, NitiScalar only) {
  NitiSquares squares = {0, block_max(largest)};
  if (channels <= blockDim.x) squares.sum = niti_squares_share(squares.exponent, only);
#pragma unroll 1
  for (uint32_t c = threadIdx.x; channels > blockDim.x && c < channels; c += blockDim.x) {
    const NitiScalar square = {f.affine[c].factor, f.affine[c].slope};
    squares.sum += niti_squares_share(squares.exponent, square);
  }
  squares.sum = block_sum(squares.sum);
  return squares;
}

/* One block, any number of channels. Where a thread has more than one it computes them twice, by the same instructions, which so
 * have to be fetched but once. */
static __global__ void __launch_bounds__(DELTA_THREADS) deltas_kernel(Sums d, DeltaFit f) {
  niti_kernel_settle();
  const bool many = d.channels > blockDim.x;
  DeltaChannel channel = {};
  DeltaOperands o = {};
  int32_t largest = NITI_SQUARES_NONE, exponent = 0;
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
#pragma unroll 1
    for (uint32_t c = threadIdx.x; c < d.channels; c += blockDim.x) {
      if (pass == 0 || many) {
        const NitiNormDeltaSums t = ((const NitiNormDeltaSums *)d.sums)[c];
        o = operands_of(d, f, c, true);
        asm volatile("" ::: "memory"); /* all of them are under way at once */
        channel = begin_channel(d, f, c, o, niti_norm_batch(o.sums, &d.count, o.e_x), t);
      }
      if (pass == 0 && many) keep_square(f, c, channel.d.square);
      if (pass == 0) largest = niti_squares_exponent(largest, channel.d.square);
      if (pass == 1) end_channel(f, c, o, channel, exponent);
    }
    if (pass == 0) exponent = niti_norm_delta_exponent(sum_squares(f, d.channels, largest, channel.d.square), f.channels);
  }
}

/* ---- no multipliers yet ---- */

typedef struct NoOperands {
  int32_t e_a;
} NoOperands;

template <typename AnyFit>
static __device__ inline NoOperands operands_of(const Sums &d, const NoFit<AnyFit> &, uint32_t, bool) {
  return NoOperands{*d.e_a};
}

template <typename AnyFit>
static __device__ inline bool prepare_slice(const Sums &, const NoFit<AnyFit> &, bool, const NoOperands &) {
  return true;
}

template <typename AnyFit>
static __device__ inline void end_slice(const Sums &, const NoFit<AnyFit> &, uint32_t, bool, const NoOperands &, bool,
                                        const int64_t *) {}

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
  enum { AT_ONCE = V < 8 ? V : 8 }; /* there are about V rows per part */
  const uint32_t channels = r.width * V, parts = THREADS / channels, part = threadIdx.x / channels;
  const uint32_t channel = threadIdx.x - part * channels;
  const int *column = stage[channel % V] + channel / V;
  int sum = 0;
  __syncthreads(); /* the kind before has been read */
#pragma unroll
  for (int v = 0; v < V; ++v) stage[v][threadIdx.x] = acc[v];
  totals[threadIdx.x] = 0;
  __syncthreads();
#pragma unroll 1
  for (uint32_t first = part < parts ? part : r.lanes; first < r.lanes; first += AT_ONCE * parts) {
    int own[AT_ONCE];
#pragma unroll
    for (uint32_t i = 0; i < AT_ONCE; ++i) own[i] = column[min(first + i * parts, r.lanes - 1) * r.width];
#pragma unroll
    for (uint32_t i = 0; i < AT_ONCE; ++i) sum += first + i * parts < r.lanes ? own[i] : 0;
  }
  if (sum != 0) atomicAdd(&totals[channel], sum);
  __syncthreads();
}

/* Adds 1; all that the block's threads wrote before a barrier can be seen by those that see the sum, and the other way round. */
static __device__ inline uint32_t count_block(uint32_t *counter) {
  uint32_t old;
  asm volatile("atom.acq_rel.gpu.add.u32 %0, [%1], 1;" : "=r"(old) : "l"(counter) : "memory");
  return old;
}

/* Whether this block is the slice's last, after all that its threads have written; they all call it. */
static __device__ inline bool is_last(NitiRange *range) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) last = count_block(&range->summed[blockIdx.y]) + 1 == gridDim.x;
  __syncthreads();
  return last;
}

/* The K * COPIES parts of a channel's sums, from [COPIES][3][SUMS_CHANNELS / COPIES]; leaves zeros there. No load is on a
 * condition of its own: compilers then read one after the other, and each takes as long as all of them together. */
template <int K, int COPIES>
static __device__ inline void take_parts(unsigned long long *parts, unsigned long long *so_far) {
#pragma unroll
  for (int i = 0; i < K * COPIES; ++i) parts[i] = __ldcg(so_far + (i / K * 3 + i % K) * NITI_SUMS_CHANNELS / COPIES);
#pragma unroll
  for (int i = 0; i < K * COPIES; ++i) so_far[(i / K * 3 + i % K) * NITI_SUMS_CHANNELS / COPIES] = 0;
}

template <int V, typename AnyFit>
static __global__ void __launch_bounds__(THREADS, BLOCKS) sums_kernel(Sums d, AnyFit f) {
  niti_kernel_settle();
  enum { K = AnyFit::SUMS };
  __shared__ int stage[V][THREADS + 1], totals[THREADS];
  const NitiRows &r = d.rows;
  const uint32_t own = blockIdx.y * r.width * V + threadIdx.x, c = r.first + own; /* a thread's channel in the end */
  const bool has_channel = threadIdx.x < r.width * V && own < r.channels;
  unsigned long long *so_far = (unsigned long long *)&d.range->sums[own];
  const uint32_t replica = d.replicated ? blockIdx.x % REPLICAS : 0;
  const auto operands = operands_of(d, f, c, has_channel);
  int acc[K][V] = {};
  walk<V, K, AnyFit::ROWS>(acc, d, niti_rows_lane<V>(r));
#pragma unroll
  for (int k = 0; k < K; ++k) {
    add_up<V>(totals, stage, acc[k], r);
    const int total = totals[threadIdx.x];
    unsigned long long *to = so_far + (replica * 3 + (uint32_t)k) * (NITI_SUMS_CHANNELS / (d.replicated ? REPLICAS : 1));
    if (has_channel && total != 0) atomicAdd(to, (unsigned long long)(long long)total);
  }
  if (!is_last(d.range)) return;
  unsigned long long parts[K * REPLICAS] = {};
  int64_t sums[K] = {};
  if (has_channel && d.replicated) take_parts<K, REPLICAS>(parts, so_far);
  if (has_channel && !d.replicated) take_parts<K, 1>(parts, so_far);
  const auto ready = prepare_slice(d, f, has_channel, operands); /* while these are on their way */
#pragma unroll
  for (int i = 0; i < K * REPLICAS; ++i) sums[i % K] += (int64_t)parts[i];
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (has_channel) d.sums[(size_t)K * c + k] = sums[k];
  }
  if (threadIdx.x == 0) d.range->summed[blockIdx.y] = 0;
  if (threadIdx.x == 0 && c == 0) *d.exponent = operands.e_a;
  end_slice(d, f, c, has_channel, operands, ready, sums);
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
    d.replicated = d.rows.channels <= NITI_SUMS_CHANNELS / REPLICAS;
    if (V == 16) launch<16>(cuda, d, f);
    if (V == 4) launch<4>(cuda, d, f);
    if (V == 1) launch<1>(cuda, d, f);
  }
}

static Sums sums_of(const NitiCuda *cuda, NitiTensor *sums, const NitiTensor *a, const NitiTensor *x) {
  const uint32_t channels = (uint32_t)a->shape.c;
  return Sums{cuda->range,
              sums ? (int64_t *)(void *)sums->data : NULL,
              sums ? sums->exponent : NULL,
              a->data,
              x ? x->data : NULL,
              a->exponent,
              x ? x->exponent : NULL,
              niti_norm_count((int64_t)niti_whole_batch(&cuda->base, a->shape.n) * a->shape.h * a->shape.w),
              channels,
              false,
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
  const Sums d = sums_of(cuda, sums, x, NULL);
  if (sums && backend->together.whole > 0) {
    run_sums(cuda, d, x->shape, NoFit<Fit>{});
    niti_cuda_all_sum(backend, d.sums, (size_t)channels * Fit::SUMS, 64);
    NITI_LAUNCH(cuda, fit_kernel, (channels + THREADS - 1) / THREADS, THREADS, 0, d, fit);
  } else if (sums) {
    run_sums(cuda, d, x->shape, fit);
  } else {
    NITI_LAUNCH(cuda, running_kernel, (channels + THREADS - 1) / THREADS, THREADS, 0, d, fit);
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
                        niti_scalar_divisor(niti_scalar32((int32_t)d.channels, 0)),
                        d.channels <= NITI_SUMS_SLICE};
  if (backend->together.whole > 0) {
    run_sums(cuda, d, dy->shape, NoFit<DeltaFit>{});
    niti_cuda_all_sum(backend, d.sums, (size_t)d.channels * DeltaFit::SUMS, 64);
    NITI_LAUNCH(cuda, deltas_kernel, 1, DELTA_THREADS, 0, d, fit);
  } else {
    run_sums(cuda, d, dy->shape, fit);
    if (!fit.whole) NITI_LAUNCH(cuda, deltas_kernel, 1, DELTA_THREADS, 0, d, fit);
  }
  cuda->settled = true;
}
