/* Batch norm's sums. Each block sums up its rows in 32 bits and adds that to a copy of the range's sums, whose words also count
 * who has added to them: so a slice's last block, once they are complete, takes them without any fence, leaves zeros, and goes on
 * to what norm_fit.cu makes of the sums, a thread per channel. That is a fit: SUMS per channel, ROWS that a thread has under way,
 * and the functions operands_of and prepare_slice, for which there is time until the sums are complete, and end_slice.
 *
 * Of joined rows (rows.cuh) a slice is of columns, each of which adds to its channel's sums. All slices then have one last block
 * between them, which takes all channels, and goes on where there is a thread for each. */
#ifndef NITI_BACKEND_CUDA_NORM_SUMS_CUH
#define NITI_BACKEND_CUDA_NORM_SUMS_CUH

#include "backend/cuda/norm_walk.cuh"

enum {
  BLOCK_ROWS = INT32_MAX / (NITI_MANTISSA_MAX * NITI_MANTISSA_MAX), /* whose sums fit in 32 bits: 133,144 */
  REPLICAS = 4,   /* of the range's sums where channels are few, so that fewer blocks add to the same words */
  COUNT_BIT = 48, /* of a word of the range's, from which on it counts what was added */
};

/* What a block adds to a word: itself once, and its sum plus 2^31. At most 2^16 blocks and columns add to a word. */
static __device__ inline unsigned long long counted(int sum) {
  return (1ull << COUNT_BIT) + (uint64_t)((int64_t)sum + ((int64_t)1 << 31));
}

/* The place of part i of a channel's sums, of kind i % K in copy i / K, from [COPIES][3][SUMS_CHANNELS / COPIES]. */
template <int K, int COPIES>
static __device__ inline size_t part_at(int i) {
  return (size_t)(i / K * 3 + i % K) * (NITI_SUMS_CHANNELS / COPIES);
}

/* sums[K]: of a channel whose words begin at so_far, once so many have been added to those of each kind; leaves zeros there. */
template <int K, int COPIES>
static __device__ inline void hear_sums(int64_t *sums, unsigned long long *so_far, uint32_t expected) {
  const volatile unsigned long long *words = so_far;
  uint64_t total[K];
  bool missing;
  do {
    uint64_t parts[K * COPIES]; /* all loads are under way at once */
#pragma unroll
    for (int i = 0; i < K * COPIES; ++i) parts[i] = words[part_at<K, COPIES>(i)];
    missing = false;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      total[k] = 0;
#pragma unroll
      for (int copy = 0; copy < COPIES; ++copy) total[k] += parts[copy * K + k];
      missing = missing || total[k] >> COUNT_BIT != expected;
    }
  } while (missing);
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const uint64_t low = total[k] & (((uint64_t)1 << COUNT_BIT) - 1);
    sums[k] = (int64_t)low - ((int64_t)expected << 31);
  }
#pragma unroll
  for (int i = 0; i < K * COPIES; ++i) so_far[part_at<K, COPIES>(i)] = 0;
}

/* The sums of channel c, whose words begin at so_far; also to the output. */
template <int K>
static __device__ inline void take_sums(int64_t *sums, const Sums &d, unsigned long long *so_far, uint32_t c, uint32_t expected) {
  if (d.replicated)
    hear_sums<K, REPLICAS>(sums, so_far, expected);
  else
    hear_sums<K, 1>(sums, so_far, expected);
#pragma unroll
  for (int k = 0; k < K; ++k) d.sums[(size_t)K * c + k] = sums[k];
}

template <int V, bool JOINED, typename AnyFit>
static __global__ void __launch_bounds__(THREADS, BLOCKS) sums_kernel(Sums d, AnyFit f) {
  niti_kernel_begin();
  enum { K = AnyFit::SUMS };
  NITI_DYNAMIC_SHARED(shared);
  const NitiRows &r = d.rows;
  const uint32_t own = blockIdx.y * r.width * V + threadIdx.x; /* a thread's column, whose sums it adds to the range's */
  const uint32_t c = JOINED ? threadIdx.x : r.first + own;     /* and its channel in the end */
  const bool has_column = threadIdx.x < r.width * V && own < r.channels, has_channel = JOINED ? c < d.channels : has_column;
  unsigned long long *so_far = (unsigned long long *)&d.range->sums[JOINED ? own % d.channels : own];
  if (blockIdx.x < d.walkers) {
    int sums[K];
    BlockSums<V, K, AnyFit::ROWS>::find(sums, d, shared);
    const uint32_t replica = d.replicated ? blockIdx.x % REPLICAS : 0;
    unsigned long long *to = so_far + replica * 3 * (NITI_SUMS_CHANNELS / REPLICAS);
    const uint32_t kinds = NITI_SUMS_CHANNELS / (d.replicated ? REPLICAS : 1);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (has_column) atomicAdd(to + (uint32_t)k * kinds, counted(sums[k]));
    }
  }
  if (blockIdx.x + 1 < gridDim.x || (JOINED && blockIdx.y + 1 < gridDim.y)) return;
  if (JOINED) __syncthreads(); /* this block has added its own */
  const uint32_t expected = JOINED ? d.walkers * (r.channels / d.channels) : d.walkers;
  const auto operands = operands_of(d, f, c, has_channel);
  const auto ready = prepare_slice(d, f, has_channel, operands);
  int64_t sums[K] = {};
  if (has_channel) take_sums<K>(sums, d, JOINED ? (unsigned long long *)&d.range->sums[c] : so_far, c, expected);
#pragma unroll 1
  for (uint32_t more = c + THREADS; JOINED && more < d.channels; more += THREADS) {
    int64_t others[K];
    take_sums<K>(others, d, (unsigned long long *)&d.range->sums[more], more, expected);
  }
  if (threadIdx.x == 0 && c == 0) *d.exponent = operands.e_a;
  end_slice(d, f, c, has_channel, operands, ready, sums);
}

template <int V, bool JOINED, typename AnyFit>
static void launch(NitiCuda *cuda, Sums d, const AnyFit &f) {
  const NitiRows &r = d.rows;
  const size_t shared = shared_bytes<V, AnyFit::SUMS, AnyFit::ROWS>();
  const uint32_t turn = r.lanes * AnyFit::ROWS, turns = (r.rows + turn - 1) / turn, most = BLOCK_ROWS / turn;
  const uint32_t full = niti_rows_blocks(cuda, r, BLOCKS, JOINED), least = (turns + most - 1) / most;
  const uint32_t others = full > 1 && !JOINED ? full - 1 : full; /* one place is the last block's, which only waits */
  const uint32_t wanted = others < turns ? others : turns;
  void (*kernel)(Sums, AnyFit) = sums_kernel<V, JOINED, AnyFit>;
  d.walkers = wanted > least ? wanted : least;
  niti_cuda_note(
      cuda,
      niti_cuda_runtime.cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
      "batch norm's sums: shared memory");
  NITI_LAUNCH(cuda, kernel, dim3(d.walkers + (JOINED ? 0 : 1), r.slices), THREADS, shared, d, f);
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

/* positions: of an image. */
static Sums sums_of(const NitiCuda *cuda, NitiTensor *sums, const NitiTensor *a, const NitiTensor *x, int64_t positions) {
  const uint32_t channels = (uint32_t)a->shape.c;
  return Sums{cuda->range,
              sums ? (int64_t *)(void *)sums->data : NULL,
              sums ? sums->exponent : NULL,
              a->data,
              x ? x->data : NULL,
              a->exponent,
              x ? x->exponent : NULL,
              niti_norm_count(niti_whole_batch(&cuda->base, a->shape.n) * positions),
              channels,
              0,
              false,
              NitiRows{}};
}

#endif
