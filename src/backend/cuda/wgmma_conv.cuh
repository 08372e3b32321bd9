/* What the wgmma family's two kernels of convolution share: forward, and backward to the input, as implicit GEMM over boxes of
 * NHWC. Stride is 1; backward is forward over the deltas with the weights turned round.
 *
 * A tile is 128 output positions times 128 output channels: a box of images x columns x rows, images innermost. In shared memory
 * a window's cell is then whole 8-row groups away, so that one copied box with its halo is enough for every tap. Zeros outside
 * the image come from the copy engine.
 *
 * A block has two pairs of warpgroups, each pair with tiles of its own, all with the same 128 output channels: while one pair
 * rounds and stores, the other has the tensor cores. Warps of a fifth warpgroup keep the copies ahead of them. Two neighbouring
 * blocks want the same weights, of which each copies half to both. */
#ifndef NITI_BACKEND_CUDA_WGMMA_CONV_CUH
#define NITI_BACKEND_CUDA_WGMMA_CONV_CUH

#include "backend/cuda/finish.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/wgmma.h"

enum {
  BN = NITI_WGMMA_CHANNELS,
  CHUNK = NITI_WGMMA_CHUNK,
  TILE_BYTES = BN * CHUNK, /* of packed weights: one tap, one chunk */
  CLUSTER = 2,             /* blocks that share their weights' copies */
  PAIRS = 2,
  PAIR_WARPS = 8,
  CONSUMERS = PAIRS * PAIR_WARPS * 32,
  THREADS = CONSUMERS + 128, /* and a warpgroup whose warps copy */
  BLOCKS = 2,                /* of 64 positions in a tile, a warpgroup each */
  STAGES_MAX = 32,           /* of weights */
  BOXES_MAX = 8,
  TAPS_MAX = 3, /* neighbours in a window row that a stage of weights holds */
  BARRIERS = 2 * STAGES_MAX + 2 * BOXES_MAX + PAIRS,
  MEETING = 8 * BARRIERS, /* after them a ConvMeeting for each pair */
  BARRIER_BYTES = MEETING + 16 * PAIRS,
  SHARED_ALIGN = 1024,
  SHARED_BYTES = 227 * 1024
};

struct ConvTiling {
  int n, oh, ow, k;                 /* output shape */
  int kh, kw, pad_h, pad_w;         /* of the stride-1 window over the input */
  int chunks;                       /* of input channels */
  int log_tn;                       /* a 64-row block is 2^log_tn images x 64 >> log_tn columns */
  int across;                       /* blocks of a tile go across images (1x1 images) rather than down the rows */
  int blocks_h, blocks_w, blocks_k; /* tiles along each */
  int tiles;                        /* of positions */
  int box_w, box_n;                 /* of the copied box, with halo */
  uint32_t box_bytes, box_stride;   /* of a box in shared memory: copied, rounded up */
  bool resident;                    /* all of the 128 channels' weights stay in shared memory */
  int pairs;                        /* that have tiles: PAIRS, or 1 where a tile each is enough for all blocks */
  bool once;                        /* no pair has more than one tile */
  int boxes;                        /* of the ring: a pair's own, or, with resident weights, the block's */
  int taps, stages;                 /* taps in a stage of weights; stages of their ring, or of all that stay */
};

#ifdef __CUDACC__

struct TilePlace {
  int n, h, w; /* past the last tile: n = t.n, all zeros and nothing stored */
};

__device__ inline TilePlace place_of(const ConvTiling &t, int tile) {
  TilePlace p;
  int at = tile;
  p.w = at % t.blocks_w * (64 >> t.log_tn);
  at /= t.blocks_w;
  p.h = at % t.blocks_h * (t.across ? 1 : BLOCKS);
  at /= t.blocks_h;
  p.n = tile < t.tiles ? at * ((t.across ? BLOCKS : 1) << t.log_tn) : t.n;
  return p;
}

struct Ring {
  uint32_t stage, parity;
  __device__ inline void next(uint32_t stages) {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
  __device__ inline void skip(uint32_t count, uint32_t stages) {
    for (stage += count; stage >= stages; stage -= stages) parity ^= 1;
  }
};

/* What a block is to do. */
struct ConvWork {
  int k0;          /* first output channel */
  int begin, step; /* pair p's tiles are (begin + i * step) * pairs + p */
  int tiles;       /* of each pair */
};

__device__ inline ConvWork conv_work(const ConvTiling &t, uint32_t rank) {
  const int cluster = (int)(blockIdx.x / CLUSTER), first = cluster / t.blocks_k * CLUSTER;
  ConvWork w;
  w.k0 = cluster % t.blocks_k * BN;
  w.begin = first + (int)rank;
  w.step = (int)(gridDim.x / t.blocks_k);
  w.tiles = ((t.tiles + t.pairs - 1) / t.pairs - first + w.step - 1) / w.step;
  return w;
}

/* ---- the range. Before they round their first tile, all blocks' first pairs tell each other their largest values, and round with
 * the shift that these demand; so do the second pairs, which know both. Where the device has other work than this the others may
 * be long in coming, so the wait ends after a while, with no less than the predicted shift. A warp that later meets a value too
 * large for its shift takes a larger one from that tile on and publishes it to all others. Each warp leaves a mark of its shift
 * and since when it has used it, so that the second launch repeats only what was rounded with another shift than the right one.
 * Where all blocks find that they used the same shift and that it was right, the last to find so leaves the exponent and the
 * prediction, and the second launch ends before it has begun. With ranks only the second launch knows. ---- */

/* A pair's words in shared memory, 0 at first. */
struct ConvMeeting {
  uint32_t largest; /* of its first tile */
  uint32_t shift;   /* its first tile's, plus 1 */
  uint32_t unsure;  /* some had not come, or some warp took another shift later */
  uint32_t unused;
};

struct ConvRange {
  int shift, since; /* in use, and the first tile that it was used for */
  uint32_t largest; /* this thread's |acc| so far */
  uint32_t known;   /* the largest that others have told of */
};

enum {
  MARK_SHIFT = 24,
  MEET_NANOSECONDS = 10000,
  TOLD = 1 << 31,    /* beside a largest value: it has been told */
  UNSURE = 1 << 16,  /* added to `agreed` by a block that did not round all with one shift; above the number of blocks */
};
static_assert(CLUSTER * PAIRS * PAIR_WARPS == 32, "a lane reads each mark of a cluster");

__device__ inline uint32_t *conv_marks(const NitiRequantiseArgs &rq, uint32_t block) {
  return rq.range->marks + block * PAIRS * PAIR_WARPS;
}

/* The shift that a launch begins with. */
__device__ inline int conv_range_begin(const NitiRequantiseArgs &rq, bool second) {
  return second ? niti_clipped_shift(rq.range->max, rq.clip) : niti_range_predicted(rq);
}

/* The second launch: how many of its first tiles this cluster does again. Whole warps call it. */
__device__ inline int conv_tiles_again(const ConvTiling &t, const NitiRequantiseArgs &rq, int shift, int tiles) {
  const uint32_t lane = threadIdx.x & 31, mark = conv_marks(rq, blockIdx.x / CLUSTER * CLUSTER)[lane];
  int again = mark >> MARK_SHIFT == (uint32_t)shift ? (int)(mark & ((1u << MARK_SHIFT) - 1)) : tiles;
  if ((int)lane / PAIR_WARPS % PAIRS >= t.pairs) again = 0;
  return (int)__reduce_max_sync(0xffffffffu, (uint32_t)again);
}

/* The second launch: whether the first has closed the range, and clears what else it left. Every thread calls it. */
__device__ inline bool conv_range_closed(const NitiRequantiseArgs &rq) {
  if (*(const volatile uint32_t *)&rq.range->agreed != gridDim.x) return false;
  if (threadIdx.x < PAIRS) rq.range->told[threadIdx.x][blockIdx.x] = 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) rq.range->max = 0;
  return true;
}

/* The second launch's end; one thread of every block calls it. again: whether the block computed again. */
__device__ inline void conv_range_end(const NitiRequantiseArgs &rq, bool again) {
  for (int pair = 0; pair < PAIRS; ++pair) rq.range->told[pair][blockIdx.x] = 0;
  if (again) rq.range->again = 1;
  if (!niti_range_last(rq, gridDim.x)) return;
  niti_range_close(rq, __ldcg(&rq.range->again) != 0);
  rq.range->again = 0;
}

/* The first launch's begin. Nobody counts on `agreed` before this block has told, unless unsure. */
__device__ inline void conv_range_open(const NitiRequantiseArgs &rq) {
  if (blockIdx.x > 0 || threadIdx.x > 0) return;
  rq.range->agreed = 0;
  __threadfence();
}

/* A block's word on whether it rounded all with this shift; one thread calls it. The last word closes the range. final: whether
 * the shift is known to be right; otherwise the range's maximum says so, once all have raised it. */
__device__ inline void conv_range_agree(const NitiRequantiseArgs &rq, bool same, int shift, bool final) {
  const uint32_t before = niti_count_up(&rq.range->agreed, same ? 1 : 1 + UNSURE);
  if (!same || before + 1 != gridDim.x) return;
  if (final || niti_clipped_shift(*(const volatile uint32_t *)&rq.range->max, rq.clip) == shift)
    niti_range_settle(rq, shift, false);
  else
    atomicAdd(&rq.range->agreed, (uint32_t)UNSURE);
}

__device__ inline void conv_range_adopt(ConvRange &r, const NitiRequantiseArgs &rq, uint32_t largest, int tile) {
  const int shift = niti_clipped_shift(largest, rq.clip);
  if (shift > r.shift) r.shift = shift, r.since = tile;
}

/* To be used some time before the tile ends. */
__device__ inline void conv_range_ask(ConvRange &r, const NitiRequantiseArgs &rq) {
  r.known = *(const volatile uint32_t *)&rq.range->max;
}

/* The largest of what has been told, with TOLD only where all have. A warp calls it. */
__device__ inline uint32_t conv_range_heard(const NitiRequantiseArgs &rq, int pairs) {
  uint32_t largest = 0;
  bool missing = false;
  for (int pair = 0; pair < pairs; ++pair) {
#pragma unroll 5
    for (uint32_t block = threadIdx.x & 31; block < gridDim.x; block += 32) {
      const uint32_t told = *(const volatile uint32_t *)&rq.range->told[pair][block];
      largest = max(largest, told & ~TOLD);
      missing = missing || !(told & TOLD);
    }
  }
  return __reduce_max_sync(0xffffffffu, largest) | (__any_sync(0xffffffffu, missing) ? 0 : (uint32_t)TOLD);
}

/* The first launch, before the first tile is rounded: from here on the shift is what the first tiles of all blocks' pairs demand,
 * up to and with this pair's number. */
__device__ inline void conv_range_meet(ConvRange &r, const ConvTiling &t, const NitiRequantiseArgs &rq, uint32_t most,
                                       ConvMeeting *meeting) {
  const int pair = (int)threadIdx.x / (PAIR_WARPS * 32);
  ConvMeeting *own = meeting + pair;
  const bool first = (threadIdx.x & 31) == 0;
  most = __reduce_max_sync(0xffffffffu, most);
  if (first) atomicMax(&own->largest, most);
  niti_barrier_some(1 + (uint32_t)pair, PAIR_WARPS * 32);
  if (threadIdx.x / 32 % PAIR_WARPS == 0) {
    const int64_t start = niti_device_nanoseconds();
    if (first) *(volatile uint32_t *)&rq.range->told[pair][blockIdx.x] = own->largest | TOLD;
    uint32_t heard = conv_range_heard(rq, pair + 1);
    while (!(heard & TOLD) && niti_device_nanoseconds() - start < MEET_NANOSECONDS) heard = conv_range_heard(rq, pair + 1);
    heard = __shfl_sync(0xffffffffu, heard, 0); /* should clocks differ within the warp */
    const int demanded = niti_clipped_shift(max(heard & ~TOLD, own->largest), rq.clip);
    const int shift = heard & TOLD || demanded > r.shift ? demanded : r.shift;
    if (first) {
      own->unsure = !(heard & TOLD);
      *(volatile uint32_t *)&own->shift = (uint32_t)shift + 1;
    }
    if (first && rq.alone && t.once && pair == t.pairs - 1) { /* so all is known */
      bool same = (heard & TOLD) != 0;
      for (int other = 0; other < pair; ++other) {
        while (*(volatile uint32_t *)&meeting[other].shift == 0) {
        }
        same = same && *(volatile uint32_t *)&meeting[other].shift == (uint32_t)shift + 1;
      }
      conv_range_agree(rq, same, shift, true);
    }
  }
  niti_barrier_some(1 + (uint32_t)pair, PAIR_WARPS * 32);
  r.shift = (int)own->shift - 1;
}

/* The first launch, before a tile is rounded; most: of the thread's |acc|. Whether some element may round to -128. */
__device__ inline bool conv_range_tile(ConvRange &r, const ConvTiling &t, const NitiRequantiseArgs &rq, uint32_t most, int tile,
                                       ConvMeeting *meeting) {
  r.largest = most > r.largest ? most : r.largest;
  if (tile == 0)
    conv_range_meet(r, t, rq, most, meeting);
  else
    conv_range_adopt(r, rq, r.known, tile);
  if (!__any_sync(0xffffffffu, most >> r.shift >= NITI_MANTISSA_MAX)) return false;
  most = __reduce_max_sync(0xffffffffu, most);
  if (niti_clipped_shift(most, rq.clip) > r.shift && (threadIdx.x & 31) == 0) atomicMax(&rq.range->max, most);
  conv_range_adopt(r, rq, most, tile);
  return most >> r.shift >= NITI_MANTISSA_MAX;
}

/* The first launch's end: all pairs that have tiles call it. */
__device__ inline void conv_range_leave(const ConvRange &r, const ConvTiling &t, const NitiRequantiseArgs &rq,
                                        ConvMeeting *meeting) {
  const bool first = (threadIdx.x & 31) == 0;
  if (first)
    conv_marks(rq, blockIdx.x)[threadIdx.x / 32] = (uint32_t)r.shift << MARK_SHIFT | (uint32_t)r.since;
  niti_range_raise(rq, r.largest);
  if (!rq.alone || t.once) return;
  if (first && r.since > 0) meeting[threadIdx.x / (PAIR_WARPS * 32)].unsure = 1;
  niti_barrier_some(1 + PAIRS, (uint32_t)t.pairs * PAIR_WARPS * 32);
  if (threadIdx.x > 0) return;
  bool same = true;
  for (int pair = 0; pair < t.pairs; ++pair)
    same = same && meeting[pair].unsure == 0 && meeting[pair].shift == meeting[0].shift;
  conv_range_agree(rq, same, r.shift, false);
}

/* A tile's place in the output, as niti_finish_block has it. */
__device__ inline NitiSpot conv_spot(const ConvTiling &t, const NitiOutput &d, const TilePlace &p, int k0) {
  const int warp = threadIdx.x >> 5, block = warp / 4 % BLOCKS, row = warp % 4 * 16; /* this warp's first of the block's 64 */
  return niti_spot(d, p.n + (t.across ? block << t.log_tn : 0) + (row & ((1 << t.log_tn) - 1)), p.h + (t.across ? 0 : block),
                   p.w + (row >> t.log_tn), k0);
}

/* Rounds and stores a tile. */
template <NitiFinish FINISH, int N>
__device__ inline void conv_finish(int (&acc)[N], const ConvTiling &t, const NitiOutput &d, const NitiRequantiseArgs &rq,
                                   ConvRange &range, const NitiSpot &spot, uint2 mask, int tile, bool second,
                                   ConvMeeting *meeting) {
  if (rq.bias) niti_add_bias(acc, rq.bias, d.k - spot.channels);
  const bool clips = second || conv_range_tile(range, t, rq, niti_largest_of(acc, spot), tile, meeting);
  niti_finish_block<FINISH>(acc, d, rq, range.shift, clips, spot, mask);
}

#endif

/* What a kernel is launched with. */
struct ConvLaunch {
  CUtensorMap map;
  ConvTiling tiling;
  NitiOutput output;
  const int8_t *packed;
  NitiRequantiseArgs requantise;
};
typedef void (*ConvKernel)(CUtensorMap, ConvTiling, NitiOutput, const int8_t *packed, NitiRequantiseArgs, bool second);

/* A kernel for each way to finish, and for stages of one tap and of TAPS_MAX. columns: of a product, 128, or 64 where there are no
 * more channels. */
#define CONV_TAPS(kernel, finish, columns)                                   \
  [finish] = {                                                               \
    kernel<finish, 1, columns>, kernel<finish, TAPS_MAX, columns>            \
  }
#define CONV_VARIANTS(kernel, columns)                                                                        \
  {                                                                                                           \
    CONV_TAPS(kernel, NITI_FINISH_RELU, columns), CONV_TAPS(kernel, NITI_FINISH_SIGNED, columns),             \
        CONV_TAPS(kernel, NITI_FINISH_MASKED, columns), CONV_TAPS(kernel, NITI_FINISH_BYTE, columns),         \
        CONV_TAPS(kernel, NITI_FINISH_ANY, columns)                                                           \
  }

size_t niti_wgmma_conv_shared(const ConvTiling &t);
void niti_wgmma_conv_launch(NitiCuda *cuda, const ConvKernel (*variants)[2], const ConvLaunch &l, unsigned blocks);
void niti_wgmma_conv_streamed(NitiCuda *cuda, const ConvLaunch &l, unsigned blocks);
void niti_wgmma_conv_resident(NitiCuda *cuda, const ConvLaunch &l, unsigned blocks);

#endif
