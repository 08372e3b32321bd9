/* Residual add. Small ones are one launch whose blocks keep their sums until the range is known (meet.cuh). Others are two; where
 * the output is an input's memory the first writes nothing, so that the second still finds both. */
#include "backend/cuda/meet.cuh"
#include "backend/cuda/wide.cuh"
#include "base/align.h"

typedef struct Add {
  int8_t *y; /* may be a or b */
  const int8_t *a, *b;
  const int32_t *e_a, *e_b; /* y's may be one of them */
  int8_t *blocked;          /* of y, or NULL */
  const int8_t *mask;       /* or NULL */
  bool in_place;
  NitiTiles tiles;
  uint32_t channels;
  uint2 *bits;            /* of y, or NULL */
  const uint2 *mask_bits; /* instead of the mask, or NULL */
} Add;

static __device__ inline int accumulate(const NitiAlignment &r, int a, int b) {
  return niti_align_sum(r.a_larger ? a : b, r.a_larger ? b : a, r.left, r.right);
}

template <int V, bool MASKED>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) add_kernel(Add d, NitiRequantiseArgs a, bool second) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  const NitiTiles &t = d.tiles;
  const NitiAlignment r = niti_align(*d.e_a, *d.e_b);
  const bool write = second || !d.in_place;
  uint32_t max = 0;
  int shift;
  if (niti_range_begin(a, second, &shift) || d.in_place) {
    for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
      const NitiTile tile = niti_tile_at<V, NITI_BLOCK_IMAGES>(t, item);
      uint32_t words[NITI_BLOCK_IMAGES], others[NITI_BLOCK_IMAGES], masks[NITI_BLOCK_IMAGES];
#pragma unroll
      for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
        const size_t at = tile.at + (size_t)i * t.image;
        words[i] = i < tile.images ? niti_word_load<V>(d.a + at) : 0;
        others[i] = i < tile.images ? niti_word_load<V>(d.b + at) : 0;
        masks[i] = MASKED && i < tile.images ? niti_word_load<V>(d.mask + at) : 0;
      }
#pragma unroll
      for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
        const size_t at = tile.at + (size_t)i * t.image;
        int acc[V];
#pragma unroll
        for (int k = 0; k < V; ++k) {
          acc[k] = accumulate(r, (int8_t)(words[i] >> (8 * k)), (int8_t)(others[i] >> (8 * k)));
          max = niti_magnitude(acc[k]) > max ? niti_magnitude(acc[k]) : max;
        }
        if (i >= tile.images || !write) continue;
        words[i] = niti_word_requantise<V>(a, acc, shift, at);
        if (a.relu) words[i] &= niti_word_positive(words[i]);
        if (MASKED) words[i] &= niti_word_positive(masks[i]);
        niti_word_store<V>(d.y + at, words[i]);
      }
      if (V == 4 && d.blocked && write) {
        niti_tile_blocked(niti_blocked_block(d.blocked, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
      }
    }
  }
  a.e_a = a.e_b = NULL;
  a.e_c = r.exponent;
  niti_pass_end(a, second, max);
}

/* ---- images of a multiple of 16 elements ---- */

enum {
  AT_ONCE = 4,            /* vectors of each operand that a thread of the first launch has under way */
  MEETING_THREADS = 1024, /* of a block of the one launch, at most */
  MEETING_STAGES = 16,    /* warps of it that write the blocked layout at once */
};

/* By value to a kernel. large has the larger exponent. */
typedef struct Wide {
  NitiAlignment align;
  const int8_t *large, *small;
} Wide;

static __device__ inline Wide wide_of(const Add &d) {
  const NitiAlignment align = niti_align(*d.e_a, *d.e_b);
  return Wide{align, align.a_larger ? d.a : d.b, align.a_larger ? d.b : d.a};
}

/* niti_align_sum's shift of four mantissas: magnitudes and half are at most 255 together, so nothing passes on to the next byte.
 */
static __device__ inline uint32_t shift_right(uint32_t word, int right) {
  const uint32_t signs = niti_spread_signs(word), ones = 0x01010101u;
  const uint32_t magnitudes = (word ^ signs) + (signs & ones), half = ones << (right - 1);
  const uint32_t shifted = ((magnitudes + half) >> right) & ((0xffu >> right) * ones);
  return (((shifted ^ signs) & 0x7f7f7f7fu) + (signs & ones)) ^ (signs & 0x80808080u);
}

static __device__ inline void align_small(const Wide &w, uint4 *small) {
  if (w.align.right == 0) return; /* nearly always */
  small->x = shift_right(small->x, w.align.right), small->y = shift_right(small->y, w.align.right);
  small->z = shift_right(small->z, w.align.right), small->w = shift_right(small->w, w.align.right);
}

static __device__ inline void sum_four(int acc[4], const Wide &w, uint32_t large, uint32_t small, NitiExtremes *e) {
  const int factor = 1 << w.align.left;
#pragma unroll
  for (int k = 0; k < 4; ++k) acc[k] = niti_byte_of(large, k) * factor + niti_byte_of(small, k);
  niti_extremes_add(e, acc);
}

/* The range alone: the first launch where the output is an input's memory. count: vectors of 16. */
static __global__ void __launch_bounds__(NITI_WIDE_THREADS) add_range_kernel(Add d, NitiRequantiseArgs a, size_t count) {
  niti_kernel_begin();
  const Wide w = wide_of(d);
  const uint4 *larges = (const uint4 *)w.large, *smalls = (const uint4 *)w.small;
  NitiExtremes e = {0, 0};
  for (size_t first = (size_t)blockIdx.x * NITI_WIDE_THREADS * AT_ONCE + threadIdx.x; first < count;
       first += (size_t)gridDim.x * NITI_WIDE_THREADS * AT_ONCE) {
    uint4 large[AT_ONCE] = {}, small[AT_ONCE] = {};
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      const size_t at = first + (size_t)i * NITI_WIDE_THREADS;
      if (at < count) large[i] = __ldcg(larges + at);
      if (at < count) small[i] = __ldcg(smalls + at);
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      int acc[4];
      align_small(w, &small[i]);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum_four(acc, w, niti_word_of(large[i], k), niti_word_of(small[i], k), &e);
    }
  }
  niti_wide_raise(a, e);
}

/* The sums of one image, rounded. at: the index of the first. */
template <int ROUNDING>
static __device__ inline uint4 round_sixteen(const Wide &w, const NitiRequantiseArgs &a, int shift, const uint4 &large,
                                             const uint4 &small, size_t at, NitiExtremes *e) {
  const NitiWords random = niti_wide_draw<ROUNDING>(a, at);
  const uint32_t low = niti_wide_least(a), up = niti_wide_up(shift); /* a sum is below 2^22 */
  uint4 y = make_uint4(0, 0, 0, 0);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    int acc[4];
    sum_four(acc, w, niti_word_of(large, k), niti_word_of(small, k), e);
    niti_set_word(&y, k, niti_wide_requantise<ROUNDING>(acc, up, random.word[k], low));
  }
  return y;
}

/* The bytes of y whose bit is set in what niti_positive_bits made. */
static __device__ inline uint4 masked(uint4 y, uint32_t bits) {
#pragma unroll
  for (int k = 0; k < 4; ++k) niti_set_word(&y, k, niti_word_of(y, k) & niti_spread_signs(bits << k));
  return y;
}

enum AddMask { NO_MASK, MASK_ELEMENTS, MASK_BITS };

/* In place the tiles go from the last to the first: what the first launch read last may still be in the cache. */
template <int ROUNDING, int MASK>
static __global__ void __launch_bounds__(NITI_WIDE_THREADS, MASK == NO_MASK ? 4 : 3)
    add_wide_kernel(Add d, NitiRequantiseArgs a, NitiDivisor tiles, bool second) {
  niti_kernel_begin();
  __shared__ __align__(16) uint32_t stage[NITI_WIDE_WARPS][NITI_WIDE_STAGE];
  const NitiTiles &t = d.tiles;
  const Wide w = wide_of(d);
  enum { WRITES_BITS = MASK == NO_MASK && ROUNDING == NITI_WIDE_NEAREST }; /* in others registers are short */
  const uint32_t warp = threadIdx.x / 32;
  NitiExtremes e = {0, 0};
  int shift;
  if (niti_range_begin(a, second, &shift) || d.in_place) {
    for (uint32_t item = blockIdx.x * NITI_WIDE_WARPS + warp; item < t.items; item += gridDim.x * NITI_WIDE_WARPS) {
      const NitiWidePart part = niti_wide_part(t, tiles, d.in_place ? t.items - 1 - item : item);
      uint4 large[4] = {}, small[4] = {}, mask = make_uint4(0, 0, 0, 0); /* niti_positive_bits of each image's */
      if (MASK == MASK_BITS) mask = niti_wide_load_bits(d.mask_bits, part, t.image, d.channels);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (part.inside[j]) large[j] = __ldcg((const uint4 *)(w.large + part.at[j]));
        if (part.inside[j]) small[j] = __ldcg((const uint4 *)(w.small + part.at[j]));
        if (MASK == MASK_ELEMENTS && part.inside[j])
          niti_set_word(&mask, j, niti_positive_bits(__ldcg((const uint4 *)(d.mask + part.at[j]))));
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        align_small(w, &small[j]);
        large[j] = round_sixteen<ROUNDING>(w, a, shift, large[j], small[j], part.at[j], &e);
        if (MASK != NO_MASK) large[j] = masked(large[j], niti_word_of(mask, j));
        if (part.inside[j]) *(uint4 *)(d.y + part.at[j]) = large[j];
      }
      if (WRITES_BITS && d.bits) niti_wide_store_bits(d.bits, large, part, t.image, d.channels, 0);
      __syncwarp(); /* the tile before has left the stage */
      if (d.blocked) niti_wide_store_blocked(d.blocked, stage[warp], large, part, t.image, false);
    }
  }
  a.e_a = a.e_b = NULL;
  a.e_c = w.align.exponent;
  if (!second)
    niti_wide_raise(a, e);
  else
    niti_pass_end(a, second, 0);
}

/* One launch: a tile per warp, whose operands stay in registers. */
template <int ROUNDING, int MASK>
static __global__ void __launch_bounds__(MEETING_THREADS, 1) add_meeting_kernel(Add d, NitiRequantiseArgs a, NitiDivisor tiles) {
  niti_kernel_begin();
  __shared__ __align__(16) uint32_t stage[MEETING_STAGES][NITI_WIDE_STAGE];
  const NitiTiles &t = d.tiles;
  const uint32_t warp = threadIdx.x / 32, item = blockIdx.x * (blockDim.x / 32) + warp, turn = a.range->turn;
  const NitiWidePart part = niti_wide_part(t, tiles, item);
  uint4 large[4] = {}, small[4] = {}, mask = make_uint4(0, 0, 0, 0); /* as they come: a, b */
  NitiExtremes e = {0, 0};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (part.inside[j]) large[j] = __ldcg((const uint4 *)(d.a + part.at[j]));
    if (part.inside[j]) small[j] = __ldcg((const uint4 *)(d.b + part.at[j]));
    if (MASK == MASK_ELEMENTS && part.inside[j])
      niti_set_word(&mask, j, niti_positive_bits(__ldcg((const uint4 *)(d.mask + part.at[j]))));
  }
  if (MASK == MASK_BITS && item < t.items) mask = niti_wide_load_bits(d.mask_bits, part, t.image, d.channels);
  const Wide w = wide_of(d);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const uint4 first = large[j];
    large[j] = w.align.a_larger ? first : small[j];
    small[j] = w.align.a_larger ? small[j] : first;
    align_small(w, &small[j]);
    int acc[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) sum_four(acc, w, niti_word_of(large[j], k), niti_word_of(small[j], k), &e);
  }
  const int shift = niti_meet(a, turn, (uint32_t)(e.most > -e.least ? e.most : -e.least));
  if (item < t.items) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      large[j] = round_sixteen<ROUNDING>(w, a, shift, large[j], small[j], part.at[j], &e);
      if (MASK != NO_MASK) large[j] = masked(large[j], niti_word_of(mask, j));
      if (part.inside[j]) *(uint4 *)(d.y + part.at[j]) = large[j];
    }
    if (MASK == NO_MASK && d.bits) niti_wide_store_bits(d.bits, large, part, t.image, d.channels, 0);
  }
  for (uint32_t first = 0; d.blocked && first < blockDim.x / 32; first += MEETING_STAGES) {
    if (first > 0) __syncthreads(); /* the warps before have left the stages */
    if (item < t.items && warp - first < MEETING_STAGES)
      niti_wide_store_blocked(d.blocked, stage[warp - first], large, part, t.image, false);
  }
  if (blockIdx.x > 0 || threadIdx.x > 0) return;
  a.e_a = a.e_b = NULL;
  a.e_c = w.align.exponent;
  niti_meeting_end(a, turn, shift);
}

/* Threads of a block for which all tiles meet, 0: too many tiles. */
static unsigned meeting_threads(const NitiCuda *cuda, const NitiTiles &t) {
  unsigned threads = NITI_WIDE_THREADS;
  while (threads <= MEETING_THREADS && (t.items + threads / 32 - 1) / (threads / 32) > niti_meeting_most(cuda)) threads *= 2;
  return threads <= MEETING_THREADS ? threads : 0;
}

/* Few blocks where the second launch is there in case: each costs it an atomic. */
template <int ROUNDING, int MASK>
static void run_wide(NitiCuda *cuda, const Add &d, const NitiRequantiseArgs &a) {
  const NitiDivisor tiles = niti_divisor(d.tiles.tiles);
  const size_t count = (size_t)d.tiles.n * d.tiles.image / 16, turn = (size_t)NITI_WIDE_THREADS * AT_ONCE;
  const unsigned all = (d.tiles.items + NITI_WIDE_WARPS - 1) / NITI_WIDE_WARPS, most = (unsigned)cuda->multiprocessors * 2;
  const unsigned threads = meeting_threads(cuda, d.tiles), warps = threads / 32;
  if (threads > 0) {
    NITI_LAUNCH(cuda, (add_meeting_kernel<ROUNDING, MASK>), (d.tiles.items + warps - 1) / warps, threads, 0, d, a, tiles);
    return;
  }
  const unsigned turns = (unsigned)((count + turn - 1) / turn), few = (unsigned)cuda->multiprocessors * NITI_TILE_BLOCKS;
  if (d.in_place)
    NITI_LAUNCH(cuda, add_range_kernel, turns < few ? turns : few, NITI_WIDE_THREADS, 0, d, a, count);
  else
    NITI_LAUNCH(cuda, (add_wide_kernel<ROUNDING, MASK>), all, NITI_WIDE_THREADS, 0, d, a, tiles, false);
  niti_cuda_share_range(cuda);
  NITI_LAUNCH(cuda, (add_wide_kernel<ROUNDING, MASK>), d.in_place || all < most ? all : most, NITI_WIDE_THREADS, 0, d, a, tiles,
              true);
}

template <int ROUNDING>
static void run_masked(NitiCuda *cuda, const Add &d, const NitiRequantiseArgs &a) {
  if (d.mask_bits)
    run_wide<ROUNDING, MASK_BITS>(cuda, d, a);
  else if (d.mask)
    run_wide<ROUNDING, MASK_ELEMENTS>(cuda, d, a);
  else
    run_wide<ROUNDING, NO_MASK>(cuda, d, a);
}

/* Whether images, memory and rounding permit it. */
static bool is_wide(const Add &d, const NitiRequantiseArgs &a) {
  const uintptr_t all = (uintptr_t)d.y | (uintptr_t)d.a | (uintptr_t)d.b | (uintptr_t)d.mask | d.tiles.image;
  return all % 16 == 0 && niti_wide_serves(a);
}

extern "C" bool niti_cuda_add_reads_bits(NitiShape shape, NitiRounding mode, int clip) {
  NitiRequantiseArgs a = {};
  a.mode = mode;
  a.clip = clip;
  return niti_shape_image(shape) % 16 == 0 && niti_cuda_bits_tiled(shape.c) && niti_wide_serves(a);
}

/* ---- the operation ---- */

static void run_words(NitiCuda *cuda, const Add &d, const NitiRequantiseArgs &a, int V) {
  void (*add)(Add, NitiRequantiseArgs, bool) =
      V == 4 ? (d.mask ? add_kernel<4, true> : add_kernel<4, false>) : (d.mask ? add_kernel<1, true> : add_kernel<1, false>);
  const unsigned grid = niti_tiles_grid_requantise(cuda, d.tiles);
  NITI_LAUNCH(cuda, add, grid, NITI_TILE_THREADS, 0, d, a, false);
  niti_cuda_share_range(cuda);
  NITI_LAUNCH(cuda, add, grid, NITI_TILE_THREADS, 0, d, a, true);
}

extern "C" void niti_cuda_add(NitiBackend *backend, NitiTensor *y, const NitiTensor *a, const NitiTensor *b,
                              const NitiTensor *mask, bool relu, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const size_t image = niti_shape_image(a->shape);
  const bool fit =
      niti_words_fit(image, y->data, a->data, b->data) && niti_words_fit(image, mask ? mask->data : NULL, NULL, NULL);
  const int V = fit ? 4 : 1;
  Add args = {y->data,
              a->data,
              b->data,
              a->exponent,
              b->exponent,
              niti_blocked_of(y, V),
              mask ? mask->data : NULL,
              y->data == a->data || y->data == b->data,
              niti_tiles_of(a->shape, V, NITI_BLOCK_IMAGES),
              (uint32_t)a->shape.c,
              NULL,
              NULL};
  const NitiRequantiseArgs requantise = niti_requantise_args(cuda, rq, y->exponent, NULL, NULL, 0, relu);
  const bool wide = is_wide(args, requantise), tiled = wide && niti_cuda_bits_tiled(a->shape.c);
  if (tiled && !mask && requantise.mode == NITI_NEAREST && (y->uses & NITI_USE_MASK)) args.bits = niti_cuda_bits_wanted(y);
  if (tiled && mask && mask->placed && mask->layouts[1]) {
    args.mask_bits = niti_cuda_bits(mask);
    args.mask = NULL;
  }
  if (wide) {
    if (requantise.mode == NITI_NEAREST)
      run_masked<NITI_WIDE_NEAREST>(cuda, args, requantise);
    else
      run_masked<NITI_WIDE_BYTE>(cuda, args, requantise);
  } else {
    run_words(cuda, args, requantise, V);
  }
  niti_cuda_blocked_set(cuda, y, args.blocked != NULL);
  if (args.bits) niti_cuda_bits_set(cuda, y);
}
