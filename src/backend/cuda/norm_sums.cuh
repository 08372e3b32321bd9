/* Batch norm's sums. Each block sums up its rows in 32 bits and adds that to a copy of the range's sums. A slice's last block
 * adds the copies up into the output, leaves zeros and goes on to what norm_fit.cu makes of the sums, a thread per channel. That
 * is a fit: SUMS per channel, ROWS that a thread has under way, and the functions operands_of (before the sums), prepare_slice
 * (while the block is counted; all blocks do it) and end_slice.
 *
 * Of joined rows (rows.cuh) a slice is of columns, each of which adds to its channel's sums. All slices then have one last block
 * between them, which adds up all channels, and goes on where there is a thread for each. */
#ifndef NITI_BACKEND_CUDA_NORM_SUMS_CUH
#define NITI_BACKEND_CUDA_NORM_SUMS_CUH

#include "backend/cuda/rows.cuh"
#include "base/norm.h"

enum {
  BLOCK_ROWS = INT32_MAX / (NITI_MANTISSA_MAX * NITI_MANTISSA_MAX), /* whose sums fit in 32 bits: 133,144 */
  BLOCKS = 2,                                                       /* a multiprocessor's */
  THREADS = NITI_ROWS_THREADS,                                      /* that end a slice, one per channel */
  REPLICAS = 8, /* of the range's sums where channels are few, so that fewer blocks add to the same words */
  X_SUMS = 2,
  DELTA_SUMS = 3,
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

/* out[v]: channel v of four rows. */
template <int V>
static __device__ inline void gather(uint32_t *out, const uint32_t (*words)[(V + 3) / 4]) {
  if (V == 1) out[0] = words[0][0] | words[1][0] << 8 | words[2][0] << 16 | words[3][0] << 24;
#pragma unroll
  for (int q = 0; q < V / 4; ++q) niti_transpose4(out + 4 * q, words[0][q], words[1][q], words[2][q], words[3][q]);
}

/* A thread's sums of its channels. Rows are read from the last to the first: what was written last before, and is read first
 * after that, may then still be in the cache. */
template <int V, int K, int ROWS>
static __device__ inline void walk(int (*acc)[V], const Sums &d, const NitiRowsLane &l) {
  const NitiRows &r = d.rows;
  const uint32_t turns = (r.rows + r.lanes * ROWS - 1) / (r.lanes * ROWS);
  for (uint32_t done = blockIdx.x; l.inside && done < turns; done += gridDim.x) {
    const uint32_t row = (turns - 1 - done) * r.lanes * ROWS + l.lane;
    uint32_t a[ROWS][(V + 3) / 4] = {}, x[ROWS][(V + 3) / 4] = {};
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      const uint32_t at = row + (uint32_t)i * r.lanes;
      if (at < r.rows) niti_vector_load<V>(a[i], d.a + (size_t)at * r.pitch + l.channel);
      if (K == DELTA_SUMS && at < r.rows) niti_vector_load<V>(x[i], d.x + (size_t)at * r.pitch + l.channel);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i += 4) {
      uint32_t as[V], xs[V];
      gather<V>(as, a + i);
      if (K == DELTA_SUMS) gather<V>(xs, x + i);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        acc[0][v] = __dp4a((int)as[v], 0x01010101, acc[0][v]);
        if (K == DELTA_SUMS) acc[1][v] = __dp4a((int)as[v], (int)xs[v], acc[1][v]);
        acc[K - 1][v] = __dp4a((int)as[v], (int)as[v], acc[K - 1][v]);
      }
    }
  }
}

/* sums[k]: of the block, of kind k and the channel of the slice that has this thread's number, from those of its threads. All
 * threads call it. One kind's values go to one half of the stage while others may still read the other half. */
template <int V, int K>
static __device__ inline void add_up(int sums[K], int (*stage)[V][THREADS + 1], int (*totals)[THREADS], const int (*acc)[V],
                                     const NitiRows &r) {
  enum { AT_ONCE = V < 8 ? V : 8 }; /* there are about V rows per part */
  const uint32_t channels = r.width * V, parts = THREADS / channels, part = threadIdx.x / channels;
  const uint32_t channel = threadIdx.x - part * channels;
#pragma unroll
  for (int k = 0; k < K; ++k) totals[k][threadIdx.x] = 0;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int *column = stage[k & 1][channel % V] + channel / V;
    sums[k] = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) stage[k & 1][v][threadIdx.x] = acc[k][v];
    __syncthreads();
#pragma unroll 1
    for (uint32_t first = part < parts ? part : r.lanes; first < r.lanes; first += AT_ONCE * parts) {
      int own[AT_ONCE];
#pragma unroll
      for (uint32_t i = 0; i < AT_ONCE; ++i) own[i] = column[min(first + i * parts, r.lanes - 1) * r.width];
#pragma unroll
      for (uint32_t i = 0; i < AT_ONCE; ++i) sums[k] += first + i * parts < r.lanes ? own[i] : 0;
    }
    if (parts > 1 && sums[k] != 0) atomicAdd(&totals[k][channel], sums[k]);
  }
  if (parts == 1) return;
  __syncthreads();
#pragma unroll
  for (int k = 0; k < K; ++k) sums[k] = totals[k][threadIdx.x];
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

/* sums[K]: channel c's, whose copies begin at so_far; and to the output. */
template <int K>
static __device__ inline void take_sums(int64_t *sums, const Sums &d, unsigned long long *so_far, uint32_t c, bool has_channel) {
  unsigned long long parts[K * REPLICAS] = {};
#pragma unroll
  for (int k = 0; k < K; ++k) sums[k] = 0;
  if (has_channel && d.replicated) take_parts<K, REPLICAS>(parts, so_far);
  if (has_channel && !d.replicated) take_parts<K, 1>(parts, so_far);
#pragma unroll
  for (int i = 0; i < K * REPLICAS; ++i) sums[i % K] += (int64_t)parts[i];
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (has_channel) d.sums[(size_t)K * c + k] = sums[k];
  }
}

template <int V, bool JOINED, typename AnyFit>
static __global__ void __launch_bounds__(THREADS, BLOCKS) sums_kernel(Sums d, AnyFit f) {
  niti_kernel_begin();
  enum { K = AnyFit::SUMS };
  __shared__ int stage[2][V][THREADS + 1], totals[K][THREADS];
  const NitiRows &r = d.rows;
  const uint32_t own = blockIdx.y * r.width * V + threadIdx.x; /* a thread's column, whose sums it adds to the range's */
  const uint32_t c = JOINED ? threadIdx.x : r.first + own;     /* and its channel in the end */
  const bool has_column = threadIdx.x < r.width * V && own < r.channels, has_channel = JOINED ? c < d.channels : has_column;
  unsigned long long *so_far = (unsigned long long *)&d.range->sums[JOINED ? own % d.channels : own];
  const uint32_t replica = d.replicated ? blockIdx.x % REPLICAS : 0;
  const auto operands = operands_of(d, f, c, has_channel);
  int acc[K][V] = {};
  walk<V, K, AnyFit::ROWS>(acc, d, niti_rows_lane<V>(r));
  int block_sums[K];
  add_up<V, K>(block_sums, stage, totals, acc, r);
#pragma unroll
  for (int k = 0; k < K; ++k) {
    unsigned long long *to = so_far + (replica * 3 + (uint32_t)k) * (NITI_SUMS_CHANNELS / (d.replicated ? REPLICAS : 1));
    if (has_column && block_sums[k] != 0) atomicAdd(to, (unsigned long long)(long long)block_sums[k]);
  }
  __shared__ bool last; /* of the slice's blocks, after all that their threads have written */
  uint32_t before = 0;
  const uint32_t slice = JOINED ? 0 : blockIdx.y; /* that counts */
  __syncthreads();
  if (threadIdx.x == 0) before = niti_count_up(&d.range->summed[slice]);
  const auto ready = prepare_slice(d, f, has_channel, operands); /* the count takes as long */
  if (threadIdx.x == 0) last = before + 1 == (JOINED ? gridDim.x * gridDim.y : gridDim.x);
  __syncthreads();
  if (!last) return;
  int64_t sums[K];
  take_sums<K>(sums, d, JOINED ? (unsigned long long *)&d.range->sums[c] : so_far, c, has_channel);
#pragma unroll 1
  for (uint32_t more = THREADS; JOINED && more < d.channels; more += THREADS) {
    int64_t others[K];
    take_sums<K>(others, d, (unsigned long long *)&d.range->sums[c + more], c + more, c + more < d.channels);
  }
  if (threadIdx.x == 0) d.range->summed[slice] = 0;
  if (threadIdx.x == 0 && c == 0) *d.exponent = operands.e_a;
  end_slice(d, f, c, has_channel, operands, ready, sums);
}

template <int V, bool JOINED, typename AnyFit>
static void launch(NitiCuda *cuda, const Sums &d, const AnyFit &f) {
  const NitiRows &r = d.rows;
  const uint32_t turn = r.lanes * AnyFit::ROWS, turns = (r.rows + turn - 1) / turn, most = BLOCK_ROWS / turn;
  const uint32_t full = niti_rows_blocks(cuda, r, BLOCKS, JOINED), least = (turns + most - 1) / most;
  const uint32_t wanted = full < turns ? full : turns;
  NITI_LAUNCH(cuda, (sums_kernel<V, JOINED, AnyFit>), dim3(wanted > least ? wanted : least, r.slices), THREADS, 0, d, f);
}

/* The rows that run_sums joins; .n = 0: none. */
static NitiShape joined_of(const Sums &d, NitiShape shape) { return niti_rows_joined(shape, d.a, d.x, NULL); }

/* As many channels at a time as the range has room for; of joined rows all. */
template <typename AnyFit>
static void run_sums(NitiCuda *cuda, Sums d, NitiShape shape, const AnyFit &f) {
  const NitiShape joined = joined_of(d, shape);
  if (joined.n > 0) {
    d.rows = niti_rows_of(joined, 0, (uint32_t)joined.c, 16);
    d.replicated = d.channels <= NITI_SUMS_CHANNELS / REPLICAS;
    launch<16, true>(cuda, d, f);
    return;
  }
  const int V = niti_rows_vector(d.channels, d.a, d.x, NULL);
  for (uint32_t first = 0; first < d.channels; first += NITI_SUMS_CHANNELS) {
    const uint32_t left = d.channels - first;
    d.rows = niti_rows_of(shape, first, left < NITI_SUMS_CHANNELS ? left : (uint32_t)NITI_SUMS_CHANNELS, V);
    d.replicated = d.rows.channels <= NITI_SUMS_CHANNELS / REPLICAS;
    if (V == 16) launch<16, false>(cuda, d, f);
    if (V == 4) launch<4, false>(cuda, d, f);
    if (V == 1) launch<1, false>(cuda, d, f);
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

#endif
