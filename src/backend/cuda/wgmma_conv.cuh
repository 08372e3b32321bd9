/* What the wgmma family's two kernels of convolution share: forward, and backward to the input, as implicit GEMM over boxes of
 * NHWC. Forward the stride is 1; backward is forward over the deltas with the weights turned round, for each phase of the strides
 * with the taps that reach it.
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

#include "backend/cuda/divisor.cuh"
#include "backend/cuda/finish.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/meet.cuh"
#include "backend/cuda/wgmma.h"
#include "base/norm.h"

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
  REGISTERS = 112,           /* of a thread that multiplies, */
  COPY_REGISTERS = 32,       /* and of one that copies: with fewer of them all would keep values in local memory */
  STAGES_MAX = 32,           /* of weights */
  BOXES_MAX = 8,
  TAPS_MAX = 3, /* neighbours in a window row that a stage of weights holds */
  PHASES_MAX = 4,
  BARRIERS = 2 * STAGES_MAX + 2 * BOXES_MAX + PAIRS,
  SHARED = 8 * BARRIERS, /* after them a ConvShared */
  SHARED_ALIGN = 1024,
  SHARED_BYTES = 227 * 1024
};

/* Every stride-th row and column of the output. A phase that no tap reaches has one, of zeros (ConvTiling.zeros: or is none). */
struct ConvPhase {
  int kh, kw, pad_h, pad_w; /* of the stride-1 window over the input */
  int row, column;          /* of the output: the first */
  uint32_t packed;          /* bytes of weights before its own */
};

/* A pair's words in shared memory, 0 at first. */
struct ConvMeeting {
  uint32_t largest; /* of its first tile */
  int shift;        /* which all of the pair round it with, and 1 */
};

struct ConvShared {
  ConvMeeting meeting[PAIRS];
  int tiles;                    /* ConvWork's: registers are short, and local memory is far away */
  alignas(16) int32_t bias[BN]; /* of the block's channels, where there is one: every tile adds it */
};
enum { BARRIER_BYTES = SHARED + sizeof(ConvShared) };
static_assert(SHARED % 16 == 0, "words of biases are read four at a time");

struct ConvTiling {
  int n, oh, ow, k;   /* images; positions of the largest phase; output channels */
  int step_h, step_w; /* between a phase's rows and columns of the output */
  int phases;
  bool zeros; /* to be stored between the rows and columns of the only phase, whose weights are resident */
  ConvPhase phase[PHASES_MAX];
  int chunks;                       /* of input channels */
  int log_tn;                       /* a 64-row block is 2^log_tn images x 64 >> log_tn columns */
  int across;                       /* blocks of a tile go across images (1x1 images) rather than down the rows */
  int blocks_h, blocks_w, blocks_c; /* tiles along each, blocks_c along the output channels */
  int blocks_k;                     /* of the channels of all phases */
  NitiDivisor by_h, by_w;           /* blocks_h, blocks_w */
  int tiles;                        /* of positions */
  int box_w, box_n;                 /* of the copied box, with halo */
  uint32_t box_bytes, box_stride;   /* of a box in shared memory: copied, rounded up */
  bool resident;                    /* all of the 128 channels' weights stay in shared memory */
  int pairs;                        /* that have tiles: PAIRS, or 1: a tile each is enough for all blocks, or two have no room */
  bool meets;                       /* blocks wait for each other for as long as it takes */
  bool once;                        /* and no pair has more than one tile: there is no second launch */
  int boxes;                        /* of the ring: a pair's own, or, with resident weights, the block's */
  int taps, stages;                 /* taps in a stage of weights; stages of their ring, or of all that stay */
};

#ifdef __CUDACC__

struct TilePlace {
  int n, h, w; /* past the last tile: n = t.n, all zeros and nothing stored */
};

__device__ inline TilePlace place_of(const ConvTiling &t, int tile) {
  TilePlace p;
  const int rows = (int)niti_divide(t.by_w, (uint32_t)tile), images = (int)niti_divide(t.by_h, (uint32_t)rows);
  p.w = (tile - rows * t.blocks_w) * (64 >> t.log_tn);
  p.h = (rows - images * t.blocks_h) * (t.across ? 1 : BLOCKS);
  p.n = tile < t.tiles ? images * ((t.across ? BLOCKS : 1) << t.log_tn) : t.n;
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
  int k0, phase;   /* first output channel */
  int begin, step; /* pair p's tiles are (begin + i * step) * pairs + p */
  int tiles;       /* of each pair */
};

__device__ inline ConvWork conv_work(const ConvTiling &t, uint32_t rank) {
  const int cluster = (int)(blockIdx.x / CLUSTER), first = cluster / t.blocks_k * CLUSTER;
  ConvWork w;
  w.phase = cluster % t.blocks_k / t.blocks_c;
  w.k0 = (cluster % t.blocks_k - w.phase * t.blocks_c) * BN;
  w.begin = first + (int)rank;
  w.step = (int)(gridDim.x / t.blocks_k);
  w.tiles = ((t.tiles + t.pairs - 1) / t.pairs - first + w.step - 1) / w.step;
  return w;
}

/* ---- the range. Before they round their first tile, all blocks' first pairs meet (meet.cuh), and round with the shift that
 * their largest values demand, or with a larger one where experience says that other tiles will; so do the second pairs, which
 * know both. Where no pair has another tile and all may wait, all
 * pairs meet before any rounds, and that is all there is. Else a warp that later meets a value too large for its shift takes a
 * larger one from that tile on and publishes it to all others. Each warp leaves a mark of its shift and since when it has used
 * it, so that the second launch repeats only what was rounded with another shift than the right one. ---- */

/* The layout of both operands: rows of a chunk. */
constexpr uint32_t CONV_LAYOUT = niti_descriptor_layout(NITI_SWIZZLE_64, 8 * CHUNK);

/* All consumers that work call it, after the kernels before have ended. */
template <int COLUMNS>
__device__ inline void conv_bias_fetch(ConvShared *shared, const ConvTiling &t, const NitiRequantiseArgs &rq,
                                       const ConvWork &work, int channels) {
  if (!rq.bias && !rq.means) return;
  const int k = work.k0 + (int)threadIdx.x;
  if (threadIdx.x < COLUMNS && rq.bias) shared->bias[threadIdx.x] = rq.bias[k];
  if (threadIdx.x < COLUMNS && rq.means)
    shared->bias[threadIdx.x] = k < channels ? niti_norm_centre(rq.means[k], *rq.e_a + *rq.e_b) : 0;
  niti_barrier_some(1 + PAIRS, (uint32_t)t.pairs * PAIR_WARPS * 32);
}

struct ConvRange {
  int shift, since; /* in use, and the first tile that it was used for */
  uint32_t largest; /* this thread's |acc| so far */
  uint32_t known;   /* the largest that others have told of */
};

enum { MARK_SHIFT = 24 };
static_assert(CLUSTER * PAIRS * PAIR_WARPS == 32, "a lane reads each mark of a cluster");

__device__ inline uint32_t *conv_marks(const NitiRequantiseArgs &rq, uint32_t block) {
  return rq.range->marks + block * PAIRS * PAIR_WARPS;
}

/* The second launch: how many of its first tiles this cluster does again. Whole warps call it. */
__device__ inline int conv_tiles_again(const ConvTiling &t, const NitiRequantiseArgs &rq, int shift, int tiles) {
  const uint32_t lane = threadIdx.x & 31, mark = conv_marks(rq, blockIdx.x / CLUSTER * CLUSTER)[lane];
  int again = mark >> MARK_SHIFT == (uint32_t)shift ? (int)(mark & ((1u << MARK_SHIFT) - 1)) : tiles;
  if ((int)lane / PAIR_WARPS % PAIRS >= t.pairs) again = 0;
  return (int)__reduce_max_sync(0xffffffffu, (uint32_t)again);
}

/* The second launch's end; one thread of every block calls it. again: whether the block computed again. */
__device__ inline void conv_range_end(const NitiRequantiseArgs &rq, bool again) {
  if (again) rq.range->again = 1;
  if (!niti_range_last(rq, gridDim.x)) return;
  const uint32_t sample = __ldcg(&rq.range->sample);
  if (sample > 0) *rq.prediction = niti_shift_prediction_risen(*rq.prediction, sample, __ldcg(&rq.range->max));
  rq.range->sample = 0;
  niti_range_close(rq, __ldcg(&rq.range->again) != 0);
  rq.range->again = 0;
  rq.range->turn += 1;
}

__device__ inline void conv_range_adopt(ConvRange &r, const NitiRequantiseArgs &rq, uint32_t largest, int tile) {
  const int shift = niti_clipped_shift(largest, rq.clip);
  if (shift > r.shift) r.shift = shift, r.since = tile;
}

/* To be used some time before the tile ends. */
__device__ inline void conv_range_ask(ConvRange &r, const NitiRequantiseArgs &rq) {
  r.known = *(const volatile uint32_t *)&rq.range->max;
}

/* The first launch, before the first tile is rounded: from here on the shift is what the first tiles of all blocks' pairs demand,
 * up to and with this pair's number, or what the rise makes of the first pairs'. */
__device__ inline void conv_range_meet(ConvRange &r, const ConvTiling &t, const NitiRequantiseArgs &rq, uint32_t most,
                                       ConvShared *shared) {
  const int pair = (int)threadIdx.x / (PAIR_WARPS * 32);
  const bool first = (threadIdx.x & 31) == 0;
  ConvMeeting *own = shared->meeting + pair;
  most = __reduce_max_sync(0xffffffffu, most);
  if (first) atomicMax(&own->largest, most);
  niti_barrier_some(1 + (uint32_t)pair, PAIR_WARPS * 32);
  if (threadIdx.x / 32 % PAIR_WARPS == 0) {
    const int groups = t.once ? t.pairs : pair + 1; /* what is rounded once must know all */
    const uint32_t turn = rq.range->turn, heard = niti_meeting_tell(rq.range, turn, pair, groups, own->largest, t.meets);
    const bool guesses = pair == 0 && !t.once && heard & NITI_TOLD;
    const uint32_t sample = heard & ~NITI_TOLD;
    int shift = niti_clipped_shift(guesses ? niti_shift_prediction_largest(*rq.prediction, sample) : sample, rq.clip);
    if (guesses && first && blockIdx.x == 0) rq.range->sample = sample;
    if (!(heard & NITI_TOLD) && r.shift > shift) shift = r.shift;
    for (int before = 0; pair > 0 && !t.once && before == 0; shift = max(shift, before - 1)) /* 0: not there yet */
      before = *(volatile int *)&shared->meeting[0].shift;
    if (first) *(volatile int *)&own->shift = shift + 1;
    if (first && t.once && blockIdx.x == 0 && pair == t.pairs - 1) niti_meeting_end(rq, turn, shift);
  }
  niti_barrier_some(1 + (uint32_t)pair, PAIR_WARPS * 32);
  r.shift = own->shift - 1;
}

/* The first launch, before a tile is rounded; most: of the thread's |acc|. Whether some element may round to -128. */
__device__ inline bool conv_range_tile(ConvRange &r, const ConvTiling &t, const NitiRequantiseArgs &rq, uint32_t most, int tile,
                                       ConvShared *shared) {
  r.largest = most > r.largest ? most : r.largest;
  if (tile == 0)
    conv_range_meet(r, t, rq, most, shared);
  else
    conv_range_adopt(r, rq, r.known, tile);
  if (!__any_sync(0xffffffffu, most >> r.shift >= NITI_MANTISSA_MAX)) return false;
  most = __reduce_max_sync(0xffffffffu, most);
  if (niti_clipped_shift(most, rq.clip) > r.shift && (threadIdx.x & 31) == 0) atomicMax(&rq.range->max, most);
  conv_range_adopt(r, rq, most, tile);
  return most >> r.shift >= NITI_MANTISSA_MAX;
}

/* The first launch's end, where there is a second. */
__device__ inline void conv_range_leave(const ConvRange &r, const NitiRequantiseArgs &rq) {
  if ((threadIdx.x & 31) == 0) conv_marks(rq, blockIdx.x)[threadIdx.x / 32] = (uint32_t)r.shift << MARK_SHIFT | (uint32_t)r.since;
  niti_range_raise(rq, r.largest);
}

/* A tile's place in the output, as niti_finish_block has it; down, right: from there on. */
__device__ inline NitiSpot conv_spot(const ConvTiling &t, const NitiOutput &d, const TilePlace &p, const ConvWork &work, int warp,
                                     int down = 0, int right = 0) {
  const int block = warp / 4 % BLOCKS, row = warp % 4 * 16; /* this warp's first of the block's 64 */
  const ConvPhase &phase = t.phase[work.phase];
  return niti_spot(d, p.n + (t.across ? block << t.log_tn : 0) + (row & ((1 << t.log_tn) - 1)),
                   (p.h + (t.across ? 0 : block)) * t.step_h + phase.row + down,
                   (p.w + (row >> t.log_tn)) * t.step_w + phase.column + right, work.k0);
}

/* What is between a tile's rows and columns, where nothing reaches it. */
template <int N>
__device__ inline void conv_zeros(const ConvTiling &t, const NitiOutput &d, const TilePlace &p, const ConvWork &work, int warp) {
  for (int i = 1; i < t.step_h * t.step_w; ++i) {
    const int down = i / t.step_w;
    niti_finish_zeros<N>(d, conv_spot(t, d, p, work, warp, down, i - down * t.step_w));
  }
}

/* Rounds and stores a tile. */
template <NitiFinish FINISH, int N>
__device__ inline void conv_finish(int (&acc)[N], const ConvTiling &t, const NitiOutput &d, const NitiRequantiseArgs &rq,
                                   ConvRange &range, const NitiSpot &spot, uint2 mask, int tile, bool second,
                                   ConvShared *shared) {
  if (rq.bias || rq.means) niti_add_bias(acc, shared->bias + (d.k - spot.channels) % BN);
  const bool clips = second || conv_range_tile(range, t, rq, niti_largest_of(acc, spot), tile, shared);
  if (FINISH == NITI_FINISH_LOOSE || FINISH == NITI_FINISH_LOOSE_BYTE || FINISH == NITI_FINISH_LOOSE_ANY)
    niti_finish_loose<FINISH>(acc, d, rq, range.shift, spot);
  else
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

/* A kernel for each way to finish, and for stages of one tap and of TAPS_MAX, or of one tap with zeros between the rows and
 * columns of the only phase. columns: of a product, 128, or 64 where there are no more channels. */
#define CONV_TAPS(kernel, finish, columns) [finish] = {kernel<finish, 1, columns>, kernel<finish, TAPS_MAX, columns>}
#define CONV_ZEROS(kernel, finish, columns) [finish] = {kernel<finish, 1, columns, true>, NULL}
#define CONV_VARIANTS(variant, kernel, columns)                                                           \
  {                                                                                                       \
    variant(kernel, NITI_FINISH_RELU, columns), variant(kernel, NITI_FINISH_SIGNED, columns),             \
        variant(kernel, NITI_FINISH_MASKED, columns), variant(kernel, NITI_FINISH_BYTE, columns),         \
        variant(kernel, NITI_FINISH_ANY, columns), variant(kernel, NITI_FINISH_LOOSE, columns),           \
        variant(kernel, NITI_FINISH_LOOSE_BYTE, columns), variant(kernel, NITI_FINISH_LOOSE_ANY, columns) \
  }

size_t niti_wgmma_conv_shared(const ConvTiling &t);
/* tiling.once: no pair has more than one tile, nor waits for another to have rounded. */
void niti_wgmma_conv_launch(NitiCuda *cuda, const ConvKernel (*variants)[2], const ConvLaunch &launch, unsigned blocks);
void niti_wgmma_conv_streamed(NitiCuda *cuda, const ConvLaunch &l, unsigned blocks);
void niti_wgmma_conv_resident(NitiCuda *cuda, const ConvLaunch &l, unsigned blocks);

#endif
