/* Batch norm's multipliers, forward and backward, with the scalars of base/norm.h: the block that ends a slice's sums makes those
 * of its channels. Backward they depend on all channels: the blocks that end a few slices wait for each other. Another launch
 * makes them where slices are many or may not wait (meet.cuh). With ranks it does in both directions, after they have exchanged
 * their sums; and in both where the one block that ends the sums of joined rows has fewer threads than there are channels. */
#include "backend/cuda/meet.cuh"
#include "backend/cuda/norm_sums.cuh"

enum {
  DELTA_THREADS = 512, /* of the launch for all channels */
  DELTA_SLICES = 8,    /* that wait for each other */
};

typedef struct Fit {
  enum { SUMS = X_SUMS, ROWS = 2 * NITI_ROWS_AT_ONCE /* that a thread has under way */ };
  NitiAffine *affine;
  int32_t *exponent;
  int64_t *running; /* [2][channels] */
  const int16_t *weight, *bias;
  const int32_t *e_weight, *e_bias;
  bool centred; /* x is measured from the running means */
} Fit;

typedef struct DeltaFit {
  enum { SUMS = DELTA_SUMS, ROWS = NITI_ROWS_AT_ONCE };
  NitiAffineDelta *affine;
  int64_t *weight_gradient, *bias_gradient;
  int32_t *exponent, *e_weight_gradient, *e_bias_gradient;
  const NitiNormSums *sums; /* of x */
  const int16_t *weight;
  const int32_t *e_weight;
  NitiScalarDivisor channels;
  uint32_t slices; /* of all channels, whose ends wait for each other; 0: another launch makes the multipliers */
} DeltaFit;

/* Sums alone, of which another launch makes the rest. */
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
  f.running[c] = f.centred ? niti_norm_run_centred(o.mean, m) : niti_norm_run(o.mean, m);
  f.running[d.channels + c] = niti_norm_run(o.variance, v);
}

/* From the sums of all ranks, a thread per channel. */
static __global__ void __launch_bounds__(THREADS) fit_kernel(Sums d, Fit f) {
  niti_kernel_begin();
  const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
  const bool own = c < d.channels;
  const Operands o = operands_of(d, f, c, own);
  const int32_t exponent = fit_exponent(f, o, d.channels);
  const int64_t sums[Fit::SUMS] = {own ? d.sums[Fit::SUMS * c] : 0, own ? d.sums[Fit::SUMS * c + 1] : 0};
  end_slice(d, f, c, own, o, exponent, sums);
}

static __global__ void __launch_bounds__(THREADS) running_kernel(Sums d, Fit f) {
  niti_kernel_begin();
  const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
  const Operands o = operands_of(d, f, c, c < d.channels);
  const int32_t exponent = fit_exponent(f, o, d.channels);
  if (c < d.channels) write_affine(f, c, niti_norm_running(o.mean, o.variance, o.e_a, f.centred), o, exponent);
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
  if (own && f.slices > 0) x = niti_norm_batch(o.sums, &d.count, o.e_x);
  return x;
}

/* A thread's squares of several slices. Those of others come from the range's words, which say by themselves that they have been
 * written. */
static __device__ inline void hear_squares(NitiScalar *squares, const Sums &d, uint32_t c, bool own) {
  volatile NitiToldSquare *told = d.range->squares_of;
  if (own) {
    told[c].m = NITI_TOLD_SQUARE | (uint32_t)squares[0].m;
    told[c].e = NITI_TOLD_SQUARE | (uint32_t)squares[0].e;
  }
  bool missing;
  do {
    missing = false;
#pragma unroll
    for (uint32_t i = 0; i < DELTA_SLICES; ++i) {
      const uint32_t at = threadIdx.x + i * THREADS;
      uint64_t m = NITI_TOLD_SQUARE, e = NITI_TOLD_SQUARE;
      if (at < d.channels) m = told[at].m, e = told[at].e;
      squares[i] = NitiScalar{(int32_t)m, (int32_t)e};
      missing = missing || !(m & e & NITI_TOLD_SQUARE);
    }
  } while (missing);
}

/* Of blocks that have heard all squares, the last clears them. All its threads call it; last: the block's, shared. */
static __device__ inline void end_hearing(NitiRange *range, uint32_t channels, bool last) {
  for (uint32_t c = threadIdx.x; last && c < channels; c += THREADS) range->squares_of[c] = NitiToldSquare{0, 0};
  if (last && threadIdx.x == 0) range->norm_heard = 0;
}

/* A channel per thread. */
static __device__ inline void end_slice(const Sums &d, const DeltaFit &f, uint32_t c, bool own, const DeltaOperands &o,
                                        const NitiNormChannel &x, const int64_t *sums) {
  if (f.slices == 0) return;
  const NitiNormDeltaSums t = {sums[0], sums[1], sums[2]};
  DeltaChannel channel = {};
  if (own) channel = begin_channel(d, f, c, o, x, t);
  NitiScalar squares[DELTA_SLICES] = {channel.d.square};
  if (f.slices > 1) hear_squares(squares, d, c, own);
  int32_t largest = NITI_SQUARES_NONE;
#pragma unroll
  for (int i = 0; i < DELTA_SLICES; ++i) largest = niti_squares_exponent(largest, squares[i]);
  NitiSquares all = {0, block_max(largest)};
  __shared__ bool last; /* of the blocks that have heard all squares */
  if (f.slices > 1 && threadIdx.x == 0) last = niti_count_up(&d.range->norm_heard) + 1 == f.slices;
#pragma unroll
  for (int i = 0; i < DELTA_SLICES; ++i) all.sum += niti_squares_share(all.exponent, squares[i]);
  all.sum = block_sum(all.sum);
  const int32_t exponent = niti_norm_delta_exponent(all, f.channels);
  if (own) end_channel(f, c, o, channel, exponent);
  if (f.slices > 1) end_hearing(d.range, d.channels, last);
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
  niti_kernel_begin();
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

static const int16_t *words_of(const NitiTensor *t) { return (const int16_t *)(const void *)t->data; }

extern "C" void niti_cuda_norm_fit(NitiBackend *backend, NitiTensor *affine, NitiTensor *running, NitiTensor *sums,
                                   const NitiTensor *x, const NitiTensor *weight, const NitiTensor *bias, bool centred) {
  NitiCuda *cuda = niti_cuda(backend);
  const uint32_t channels = (uint32_t)x->shape.c;
  const Fit fit = {(NitiAffine *)(void *)affine->data,
                   affine->exponent,
                   (int64_t *)(void *)running->data,
                   words_of(weight),
                   words_of(bias),
                   weight->exponent,
                   bias->exponent,
                   centred};
  const Sums d = sums_of(cuda, sums, x, NULL, (int64_t)x->shape.h * x->shape.w);
  const bool shared = backend->together.whole > 0;
  if (sums && (shared || (channels > THREADS && joined_of(d, x->shape).n > 0))) {
    run_sums(cuda, d, x->shape, NoFit<Fit>{});
    if (shared) niti_cuda_all_sum(backend, d.sums, (size_t)channels * Fit::SUMS, 64);
    NITI_LAUNCH(cuda, fit_kernel, (channels + THREADS - 1) / THREADS, THREADS, 0, d, fit);
  } else if (sums) {
    run_sums(cuda, d, x->shape, fit);
  } else {
    NITI_LAUNCH(cuda, running_kernel, (channels + THREADS - 1) / THREADS, THREADS, 0, d, fit);
  }
  cuda->settled = true;
}

/* DeltaFit's. All blocks of these sums have room at once, or get it from blocks that do not wait; those that wait are few. */
static uint32_t waiting_slices(const NitiCuda *cuda, const Sums &d, NitiShape shape) {
  const uint32_t slices = (d.channels + NITI_SUMS_SLICE - 1) / NITI_SUMS_SLICE;
  if (slices <= 1) return slices;
  return joined_of(d, shape).n == 0 && slices <= DELTA_SLICES && slices <= niti_meeting_most(cuda) ? slices : 0;
}

extern "C" void niti_cuda_norm_delta_fit(NitiBackend *backend, NitiTensor *affine, NitiTensor *weight_gradient,
                                         NitiTensor *bias_gradient, NitiTensor *delta_sums, const NitiTensor *dy,
                                         const NitiTensor *x, const NitiTensor *sums, const NitiTensor *weight,
                                         int64_t positions) {
  NitiCuda *cuda = niti_cuda(backend);
  const Sums d = sums_of(cuda, delta_sums, dy, x, positions);
  const bool shared = backend->together.whole > 0;
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
                        shared ? 0 : waiting_slices(cuda, d, dy->shape)};
  if (shared) {
    run_sums(cuda, d, dy->shape, NoFit<DeltaFit>{});
    niti_cuda_all_sum(backend, d.sums, (size_t)d.channels * DeltaFit::SUMS, 64);
  } else {
    run_sums(cuda, d, dy->shape, fit);
  }
  if (fit.slices == 0) NITI_LAUNCH(cuda, deltas_kernel, 1, DELTA_THREADS, 0, d, fit);
  cuda->settled = true;
}
