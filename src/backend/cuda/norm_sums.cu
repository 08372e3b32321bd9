/* Batch norm's sums per channel, forward and backward. Each block sums up its rows in 32 bits and adds that to the range's sums;
 * a slice's last block moves these to the output and leaves zeros. */
#include "backend/cuda/rows.cuh"
#include "base/norm.h"

enum {
  SUMS_FORWARD = 2,                                                 /* x and its squares */
  SUMS_BACKWARD = 3,                                                /* deltas, deltas times x, and deltas squared */
  BLOCK_ROWS = INT32_MAX / (NITI_MANTISSA_MAX * NITI_MANTISSA_MAX), /* whose sums fit in 32 bits: 133,144 */
  BLOCKS = 2,                                                       /* a multiprocessor's */
};

typedef struct Sums {
  NitiRange *range;
  int64_t *sums; /* [channels][2 or 3] of all channels */
  int32_t *exponent;
  const int32_t *from; /* its value */
  const int8_t *a, *x; /* x: backward alone, where a are the deltas */
  NitiRows rows;
} Sums;

/* out[v]: channel v of four rows. */
template <int V>
static __device__ inline void gather(uint32_t *out, const uint32_t (*words)[(V + 3) / 4]) {
  if (V == 1) out[0] = words[0][0] | words[1][0] << 8 | words[2][0] << 16 | words[3][0] << 24;
#pragma unroll
  for (int q = 0; q < V / 4; ++q) niti_transpose4(out + 4 * q, words[0][q], words[1][q], words[2][q], words[3][q]);
}

/* A thread's sums of its channels. */
template <int V, int K>
static __device__ inline void walk(int (*acc)[V], const Sums &d, const NitiRowsLane &l) {
  const NitiRows &r = d.rows;
  for (uint32_t row = blockIdx.x * r.lanes * NITI_ROWS_AT_ONCE + l.lane; l.inside && row < r.rows;
       row += gridDim.x * r.lanes * NITI_ROWS_AT_ONCE) {
    uint32_t a[NITI_ROWS_AT_ONCE][(V + 3) / 4] = {}, x[NITI_ROWS_AT_ONCE][(V + 3) / 4] = {}, as[V], xs[V];
#pragma unroll
    for (int i = 0; i < NITI_ROWS_AT_ONCE; ++i) {
      const uint32_t at = row + (uint32_t)i * r.lanes;
      if (at < r.rows) niti_vector_load<V>(a[i], d.a + (size_t)at * r.pitch + l.channel);
      if (K == SUMS_BACKWARD && at < r.rows) niti_vector_load<V>(x[i], d.x + (size_t)at * r.pitch + l.channel);
    }
    gather<V>(as, a);
    if (K == SUMS_BACKWARD) gather<V>(xs, x);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      acc[0][v] = __dp4a((int)as[v], 0x01010101, acc[0][v]);
      if (K == SUMS_BACKWARD) acc[1][v] = __dp4a((int)as[v], (int)xs[v], acc[1][v]);
      acc[K - 1][v] = __dp4a((int)as[v], (int)as[v], acc[K - 1][v]);
    }
  }
}

/* The block's sums of one kind, totals[channel of the slice], from those of its threads. All threads call it. */
template <int V>
static __device__ inline void add_up(int *totals, int (*stage)[NITI_ROWS_THREADS + 1], const int *acc, const NitiRows &r) {
  const uint32_t channels = r.width * V, parts = NITI_ROWS_THREADS / channels;
  const uint32_t channel = threadIdx.x % channels, vector = channel / V;
  int sum = 0;
  __syncthreads(); /* the kind before has been read */
#pragma unroll
  for (int v = 0; v < V; ++v) stage[v][threadIdx.x] = acc[v];
  totals[threadIdx.x] = 0;
  __syncthreads();
  for (uint32_t lane = threadIdx.x / channels; lane < r.lanes; lane += parts) {
    if (threadIdx.x < parts * channels) sum += stage[channel % V][lane * r.width + vector];
  }
  if (sum != 0) atomicAdd(&totals[channel], sum);
  __syncthreads();
}

/* Whether this block is the slice's last, after all that its threads have written; they all call it. */
static __device__ inline bool is_last(NitiRange *range) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&range->summed[blockIdx.y], 1u) + 1 == gridDim.x;
  __syncthreads();
  __threadfence();
  return last;
}

template <int V, int K>
static __global__ void __launch_bounds__(NITI_ROWS_THREADS, BLOCKS) sums_kernel(Sums d) {
  niti_kernel_begin();
  __shared__ int stage[V][NITI_ROWS_THREADS + 1], totals[NITI_ROWS_THREADS];
  const NitiRows &r = d.rows;
  const uint32_t first = blockIdx.y * r.width * V, left = r.channels - first; /* within the launch */
  const uint32_t channels = left < r.width * V ? left : r.width * V;
  unsigned long long *so_far = (unsigned long long *)&d.range->sums[K * first];
  int acc[K][V] = {};
  walk<V, K>(acc, d, niti_rows_lane<V>(r));
#pragma unroll
  for (int k = 0; k < K; ++k) {
    add_up<V>(totals, stage, acc[k], r);
    const int total = totals[threadIdx.x];
    if (threadIdx.x < channels && total != 0) atomicAdd(&so_far[K * threadIdx.x + k], (unsigned long long)(long long)total);
  }
  if (!is_last(d.range)) return;
  for (uint32_t i = threadIdx.x; i < K * channels; i += NITI_ROWS_THREADS) {
    d.sums[(size_t)K * (r.first + first) + i] = (int64_t)__ldcg(&so_far[i]);
    so_far[i] = 0;
  }
  if (threadIdx.x > 0) return;
  d.range->summed[blockIdx.y] = 0;
  if (r.first + first == 0) *d.exponent = *d.from;
}

template <int V, int K>
static void launch(NitiCuda *cuda, const Sums &d) {
  const NitiRows &r = d.rows;
  const uint32_t turn = r.lanes * NITI_ROWS_AT_ONCE, turns = (r.rows + turn - 1) / turn, most = BLOCK_ROWS / turn;
  const uint32_t wanted = niti_rows_blocks(cuda, r, BLOCKS), least = (turns + most - 1) / most;
  NITI_LAUNCH(cuda, (sums_kernel<V, K>), dim3(wanted > least ? wanted : least, r.slices), NITI_ROWS_THREADS, 0, d);
}

template <int K>
static void run(NitiCuda *cuda, NitiTensor *sums, const NitiTensor *a, const int8_t *x) {
  const int V = niti_rows_vector((uint32_t)a->shape.c, a->data, x, NULL);
  for (uint32_t first = 0, all = (uint32_t)a->shape.c; first < all; first += NITI_SUMS_CHANNELS) {
    const uint32_t channels = all - first < NITI_SUMS_CHANNELS ? all - first : (uint32_t)NITI_SUMS_CHANNELS;
    const Sums args = {cuda->range,
                       (int64_t *)(void *)sums->data,
                       sums->exponent,
                       a->exponent,
                       a->data,
                       x,
                       niti_rows_of(a->shape, first, channels, V)};
    if (V == 16) launch<16, K>(cuda, args);
    if (V == 4) launch<4, K>(cuda, args);
    if (V == 1) launch<1, K>(cuda, args);
  }
}

extern "C" void niti_cuda_norm_sums(NitiBackend *backend, NitiTensor *sums, const NitiTensor *x) {
  run<SUMS_FORWARD>(niti_cuda(backend), sums, x, NULL);
}

extern "C" void niti_cuda_norm_delta_sums(NitiBackend *backend, NitiTensor *sums, const NitiTensor *dy, const NitiTensor *x) {
  run<SUMS_BACKWARD>(niti_cuda(backend), sums, dy, x->data);
}
