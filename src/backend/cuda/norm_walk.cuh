/* What a block adds up for batch norm's sums (norm_sums.cuh): each thread its channels over rows, then the block over its
 * threads. */
#ifndef NITI_BACKEND_CUDA_NORM_WALK_CUH
#define NITI_BACKEND_CUDA_NORM_WALK_CUH

#include "backend/cuda/rows.cuh"
#include "base/norm.h"

enum {
  BLOCKS = 2, /* a multiprocessor's */
  THREADS = NITI_ROWS_THREADS,
  WARPS = THREADS / 32,
  X_SUMS = 2,
  DELTA_SUMS = 3,
  TURNS_AHEAD = 1, /* of a thread's rows that are on their way to shared memory while it adds up others */
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
  uint32_t walkers;  /* blocks of a slice that add up rows */
  bool replicated;
  NitiRows rows;
} Sums;

/* Bytes of shared memory: of rows on their way, or later of what threads add up together. */
template <int V, int K, int ROWS>
static constexpr size_t shared_bytes() {
  return V == 16 ? (TURNS_AHEAD + 1) * ROWS * (K - 1) * THREADS * (size_t)16 : sizeof(int[2][V][THREADS + 1]);
}

/* out[v]: channel v of four rows. */
template <int V>
static __device__ inline void gather(uint32_t *out, const uint32_t (*words)[(V + 3) / 4]) {
  if (V == 1) out[0] = words[0][0] | words[1][0] << 8 | words[2][0] << 16 | words[3][0] << 24;
#pragma unroll
  for (int q = 0; q < V / 4; ++q) niti_transpose4(out + 4 * q, words[0][q], words[1][q], words[2][q], words[3][q]);
}

/* Four rows. */
template <int V, int K>
static __device__ inline void add_rows(int (*acc)[V], const uint32_t (*a)[(V + 3) / 4], const uint32_t (*x)[(V + 3) / 4]) {
  uint32_t as[V], xs[V];
  gather<V>(as, a);
  if (K == DELTA_SUMS) gather<V>(xs, x);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    acc[0][v] = __dp4a((int)as[v], 0x01010101, acc[0][v]);
    if (K == DELTA_SUMS) acc[1][v] = __dp4a((int)as[v], (int)xs[v], acc[1][v]);
    acc[K - 1][v] = __dp4a((int)as[v], (int)as[v], acc[K - 1][v]);
  }
}

/* A thread's first row of the turn that its block takes as number `done`. Rows are read from the last to the first: what was
 * written last before, and is read first after that, may then still be in the cache. */
static __device__ inline uint32_t row_of(const NitiRows &r, uint32_t lane, uint32_t rows, uint32_t turns, uint32_t done) {
  return (turns - 1 - done) * r.lanes * rows + lane;
}

/* A thread's sums of its channels. */
template <int V, int K, int ROWS>
static __device__ inline void walk_loading(int (*acc)[V], const Sums &d, const NitiRowsLane &l) {
  const NitiRows &r = d.rows;
  const uint32_t turns = (r.rows + r.lanes * ROWS - 1) / (r.lanes * ROWS);
  for (uint32_t done = blockIdx.x; l.inside && done < turns; done += d.walkers) {
    const uint32_t row = row_of(r, l.lane, ROWS, turns, done);
    uint32_t a[ROWS][(V + 3) / 4] = {}, x[ROWS][(V + 3) / 4] = {};
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      const uint32_t at = row + (uint32_t)i * r.lanes;
      if (at < r.rows) niti_vector_load<V>(a[i], d.a + (size_t)at * r.pitch + l.channel);
      if (K == DELTA_SUMS && at < r.rows) niti_vector_load<V>(x[i], d.x + (size_t)at * r.pitch + l.channel);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i += 4) add_rows<V, K>(acc, a + i, x + i);
  }
}

/* The same for V = 16. A thread copies its rows to shared memory ahead, where nobody else reads them. */
template <int K, int ROWS>
static __device__ inline void walk_copying(int (*acc)[16], const Sums &d, const NitiRowsLane &l, uint8_t *shared) {
  enum { TENSORS = K - 1, SLOTS = TURNS_AHEAD + 1 };
  const NitiRows &r = d.rows;
  const uint32_t turns = l.inside ? (r.rows + r.lanes * ROWS - 1) / (r.lanes * ROWS) : 0;
  const auto slot_of = [&](uint32_t slot, int i, int t) {
    return shared + (((slot * ROWS + (uint32_t)i) * TENSORS + (uint32_t)t) * THREADS + threadIdx.x) * 16;
  };
  const auto copy = [&](uint32_t slot, uint32_t done) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      const uint32_t at = row_of(r, l.lane, ROWS, turns, done) + (uint32_t)i * r.lanes;
      const bool there = done < turns && at < r.rows;
      const size_t from = there ? (size_t)at * r.pitch + l.channel : 0;
      niti_copy16(niti_shared_address(slot_of(slot, i, 0)), d.a + from, there);
      if (K == DELTA_SUMS) niti_copy16(niti_shared_address(slot_of(slot, i, TENSORS - 1)), d.x + from, there);
    }
    niti_copy_commit();
  };
  uint32_t ahead = blockIdx.x, slot = 0;
#pragma unroll
  for (int i = 0; i < TURNS_AHEAD; ++i, ahead += d.walkers) copy((uint32_t)i, ahead);
  for (uint32_t done = blockIdx.x; done < turns; done += d.walkers, ahead += d.walkers) {
    niti_copy_wait<TURNS_AHEAD - 1>();
    copy(slot == 0 ? (uint32_t)TURNS_AHEAD : slot - 1, ahead);
#pragma unroll
    for (int i = 0; i < ROWS; i += 4) {
      uint32_t a[4][4], x[4][4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        niti_vector_load<16>(a[k], (const int8_t *)slot_of(slot, i + k, 0));
        if (K == DELTA_SUMS) niti_vector_load<16>(x[k], (const int8_t *)slot_of(slot, i + k, TENSORS - 1));
      }
      add_rows<16, K>(acc, a, x);
    }
    slot = slot == TURNS_AHEAD ? 0 : slot + 1;
  }
  niti_copy_wait<0>();
}

/* sums[k]: of the block, of kind k and the channel of the slice that has this thread's number, from those of its threads. All
 * threads call it. One kind's values go to one half of the stage while others may still read the other half. */
template <int V, int K>
static __device__ inline void add_up_staged(int sums[K], uint8_t *shared, const int (*acc)[V], const NitiRows &r) {
  enum { AT_ONCE = V < 8 ? V : 8 }; /* there are about V rows per part */
  __shared__ int totals[K][THREADS];
  int(*stage)[V][THREADS + 1] = (int(*)[V][THREADS + 1])(void *)shared;
  const uint32_t channels = r.width * V, parts = THREADS / channels, part = threadIdx.x / channels;
  const uint32_t channel = threadIdx.x - part * channels;
#pragma unroll
  for (int k = 0; k < K; ++k) totals[k][threadIdx.x] = 0;
  __syncthreads(); /* all have read their rows, too */
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

/* Lanes whose vectors are the same share out their COUNT sums of each kind, by halves, until no two have the same left; then
 * they go to the warp's part of the stage. first: the channel of acc[.][0] in the slice; apart: how far such lanes are apart
 * that have not met yet. */
template <int COUNT, int K>
static __device__ inline void share_out(int (*stage)[NITI_SUMS_SLICE], int (*acc)[16], uint32_t width, uint32_t apart,
                                        uint32_t first) {
  if (apart >= width) {
    const bool upper = threadIdx.x & apart;
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
      for (int v = 0; v < COUNT / 2; ++v) {
        const int own = upper ? acc[k][v + COUNT / 2] : acc[k][v], other = upper ? acc[k][v] : acc[k][v + COUNT / 2];
        acc[k][v] = own + __shfl_xor_sync(0xffffffffu, other, (int)apart);
      }
    }
    share_out<COUNT / 2, K>(stage, acc, width, apart / 2, first + (upper ? COUNT / 2 : 0));
    return;
  }
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int v = 0; v < COUNT; ++v) stage[k][first + (uint32_t)v] = acc[k][v];
  }
}
template <>
__device__ inline void share_out<1, X_SUMS>(int (*stage)[NITI_SUMS_SLICE], int (*acc)[16], uint32_t, uint32_t, uint32_t first) {
  for (int k = 0; k < X_SUMS; ++k) stage[k][first] = acc[k][0];
}
template <>
__device__ inline void share_out<1, DELTA_SUMS>(int (*stage)[NITI_SUMS_SLICE], int (*acc)[16], uint32_t, uint32_t,
                                                uint32_t first) {
  for (int k = 0; k < DELTA_SUMS; ++k) stage[k][first] = acc[k][0];
}

/* The same as add_up_staged where a warp has several whole rows: widths 2, 4, 8 and 16. */
template <int K>
static __device__ inline void add_up_warps(int sums[K], uint8_t *shared, int (*acc)[16], const NitiRows &r) {
  int(*stage)[K][NITI_SUMS_SLICE] = (int(*)[K][NITI_SUMS_SLICE])(void *)shared;
  __syncthreads(); /* all have read their rows */
  share_out<16, K>(stage[threadIdx.x / 32], acc, r.width, 16, threadIdx.x % r.width * 16);
  __syncthreads();
#pragma unroll
  for (int k = 0; k < K; ++k) {
    sums[k] = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) sums[k] += stage[w][k][threadIdx.x];
  }
}

/* sums[K]: the block's, of the channel of its slice that has this thread's number; all threads call it. */
template <int V, int K, int ROWS>
struct BlockSums {
  static __device__ inline void find(int sums[K], const Sums &d, uint8_t *shared) {
    int acc[K][V] = {};
    walk_loading<V, K, ROWS>(acc, d, niti_rows_lane<V>(d.rows));
    add_up_staged<V, K>(sums, shared, acc, d.rows);
  }
};

template <int K, int ROWS>
struct BlockSums<16, K, ROWS> {
  static __device__ inline void find(int sums[K], const Sums &d, uint8_t *shared) {
    int acc[K][16] = {};
    const uint32_t width = d.rows.width;
    walk_copying<K, ROWS>(acc, d, niti_rows_lane<16>(d.rows), shared);
    if ((width & (width - 1)) == 0 && width > 1)
      add_up_warps<K>(sums, shared, acc, d.rows);
    else
      add_up_staged<16, K>(sums, shared, acc, d.rows);
  }
};

#endif
