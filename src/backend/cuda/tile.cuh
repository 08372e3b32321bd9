/* How the operations outside convolution share their work: a warp takes a tile of 32 * V positions of the same few images, V
 * consecutive positions a lane (V = 4: a word of four bytes; V = 1: where rows are not multiples of 4), so that it can also write
 * the tile's blocked. A position is the flat index of an element within its image; an image has fewer than 2^31 of them. */
#ifndef NITI_BACKEND_CUDA_TILE_CUH
#define NITI_BACKEND_CUDA_TILE_CUH

#include "backend/cuda/device.cuh"

enum {
  NITI_TILE_THREADS = 256,
  NITI_TILE_WARPS = NITI_TILE_THREADS / 32,
  NITI_TILE_BLOCKS = 8, /* a multiprocessor's, of a requantising operation: every block of its second launch costs an atomic */
  NITI_BLOCKED_UNITS = 128, /* positions of a tile with V = 4 */
};

/* By value to a kernel. */
struct NitiTiles {
  uint32_t image; /* elements */
  uint32_t tiles; /* of one image */
  uint32_t items; /* tiles in all */
  int32_t n;      /* images */
};

/* V positions by `images` images per tile. */
static inline NitiTiles niti_tiles_of(NitiShape s, int V, int images) {
  const uint32_t image = (uint32_t)niti_shape_image(s), tiles = (image + 32u * (uint32_t)V - 1) / (32u * (uint32_t)V);
  return NitiTiles{image, tiles, tiles * (uint32_t)((s.n + images - 1) / images), s.n};
}

static inline unsigned niti_tiles_grid(const NitiTiles &t) { return (t.items + NITI_TILE_WARPS - 1) / NITI_TILE_WARPS; }

static inline unsigned niti_tiles_grid_requantise(const NitiCuda *cuda, const NitiTiles &t) {
  const unsigned all = niti_tiles_grid(t), most = (unsigned)(cuda->multiprocessors * NITI_TILE_BLOCKS);
  return all < most ? all : most;
}

/* Whether lanes may take words: rows of `row` bytes, and memory (NULL counts as aligned). */
static inline bool niti_words_fit(size_t row, const void *a, const void *b, const void *c) {
  return row % 4 == 0 && ((uintptr_t)a | (uintptr_t)b | (uintptr_t)c) % 4 == 0;
}

/* Where an operation is to write the blocked layout of t itself; NULL: nowhere. V as in its tiles. */
static inline int8_t *niti_blocked_of(const NitiTensor *t, int V) {
  return niti_cuda_is_blocked(t) && V == 4 ? niti_cuda_blocked(t) : NULL;
}

#ifdef __CUDACC__

/* A lane's part of a tile. */
struct NitiTile {
  uint32_t block; /* of images */
  uint32_t p;     /* its first position */
  int images;     /* from the block's first on; 0 where p is past the image */
  size_t n, at;   /* the first image, and its element p */
};

__device__ inline uint32_t niti_tile_first() { return blockIdx.x * NITI_TILE_WARPS + threadIdx.x / 32; }
__device__ inline uint32_t niti_tile_step() { return gridDim.x * NITI_TILE_WARPS; }

template <int V, int IMAGES>
__device__ inline NitiTile niti_tile_at(const NitiTiles &t, uint32_t item) {
  NitiTile tile;
  tile.block = item / t.tiles;
  tile.p = ((item - tile.block * t.tiles) * 32 + (threadIdx.x & 31)) * V;
  const int first = (int)tile.block * IMAGES, left = t.n - first;
  tile.images = tile.p >= t.image ? 0 : left < IMAGES ? left : IMAGES;
  tile.n = (size_t)first;
  tile.at = tile.n * t.image + tile.p;
  return tile;
}

/* V bytes, zero-extended. */
template <int V>
__device__ inline uint32_t niti_word_load(const void *from) {
  return V == 4 ? *(const uint32_t *)from : *(const uint8_t *)from;
}

template <int V>
__device__ inline void niti_word_store(void *to, uint32_t word) {
  if (V == 4) {
    *(uint32_t *)to = word;
  } else {
    *(uint8_t *)to = (uint8_t)word;
  }
}

/* 0xff in every byte where the int8 is positive. */
__device__ inline uint32_t niti_word_positive(uint32_t word) { return __vcmpgts4(word, 0); }

/* acc[k] += int8 k of the word. */
template <int V>
__device__ inline void niti_word_add(int *acc, uint32_t word) {
#pragma unroll
  for (int k = 0; k < V; ++k) acc[k] = __dp4a((int)word, 1 << (8 * k), acc[k]);
}

/* The random words of elements index .. index + V - 1; index is a multiple of V. Not inlined: rare, and long. */
template <int V>
__device__ __noinline__ uint4 niti_word_draw(uint64_t seed, uint32_t step, uint32_t purpose, uint32_t layer, uint64_t index) {
  const NitiDraw draw = {seed, purpose, step, layer};
  const NitiWords words = niti_draw_block(&draw, (uint32_t)(index >> 2));
  if (V == 4) return make_uint4(words.word[0], words.word[1], words.word[2], words.word[3]);
  const int i = (int)(index & 3);
  return make_uint4(i == 0 ? words.word[0] : i == 1 ? words.word[1] : i == 2 ? words.word[2] : words.word[3], 0, 0, 0);
}

/* Modes other than nearest. */
template <int V>
__device__ __noinline__ uint32_t niti_word_round(int4 acc, int shift, NitiRounding mode, uint4 random) {
  uint32_t word = (uint8_t)niti_clip8(niti_round_inline(acc.x, shift, mode, random.x));
  if (V == 4) {
    word |= (uint32_t)(uint8_t)niti_clip8(niti_round_inline(acc.y, shift, mode, random.y)) << 8;
    word |= (uint32_t)(uint8_t)niti_clip8(niti_round_inline(acc.z, shift, mode, random.z)) << 16;
    word |= (uint32_t)(uint8_t)niti_clip8(niti_round_inline(acc.w, shift, mode, random.w)) << 24;
  }
  return word;
}

/* V accumulators to int8; index: flat index of the first in this rank's tensor, a multiple of V. */
template <int V>
__device__ inline uint32_t niti_word_requantise(const NitiRequantiseArgs &a, const int *acc, int shift, uint64_t index) {
  if (a.mode != NITI_NEAREST) {
    index += a.first; /* a multiple of V too, as all images are */
    uint4 random = make_uint4(0, 0, 0, 0);
    if (a.mode == NITI_STOCHASTIC && shift > 0)
      random = niti_word_draw<V>(a.clock->seed, a.clock->step, a.purpose, a.layer, index);
    if (a.mode == NITI_STOCHASTIC_BYTE && shift > 0) {
      const uint32_t word = niti_word_draw<1>(a.clock->seed, a.clock->step, a.purpose, a.layer, index >> 2).x;
      const uint32_t first = V == 4 ? word : word >> (8 * (index & 3)); /* of each its lowest byte counts */
      random = make_uint4(first, word >> 8, word >> 16, word >> 24);
    }
    const int4 four = make_int4(acc[0], acc[1 % V], acc[2 % V], acc[3 % V]);
    return niti_word_round<V>(four, shift, a.mode, random);
  }
  const int64_t half = shift > 0 ? (int64_t)1 << (shift - 1) : 0;
  uint32_t word = 0;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int m = (int)(((int64_t)acc[k] + half + (shift > 0 ? acc[k] >> 31 : 0)) >> shift); /* ties away from zero */
    word |= (uint32_t)(uint8_t)(m > NITI_MANTISSA_MAX    ? NITI_MANTISSA_MAX
                                : m < -NITI_MANTISSA_MAX ? -NITI_MANTISSA_MAX
                                                         : m)
            << (8 * k);
  }
  return word;
}

__device__ inline uint32_t niti_magnitude(int acc) { return acc < 0 ? 0u - (uint32_t)acc : (uint32_t)acc; }

/* The end of a requantising kernel: every thread of every block calls it. */
__device__ inline void niti_pass_end(const NitiRequantiseArgs &a, bool second, uint32_t max) {
  if (!second) {
    niti_range_raise(a, max);
    return;
  }
  __syncthreads(); /* the block no longer uses the range and the exponents */
  if (threadIdx.x == 0) niti_range_end(a, gridDim.x);
}

/* Four words of four bytes each: byte i of the words makes word i. */
__device__ inline void niti_transpose4(uint32_t out[4], uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const uint32_t ab01 = __byte_perm(a, b, 0x5140), ab23 = __byte_perm(a, b, 0x7362);
  const uint32_t cd01 = __byte_perm(c, d, 0x5140), cd23 = __byte_perm(c, d, 0x7362);
  out[0] = __byte_perm(ab01, cd01, 0x5410);
  out[1] = __byte_perm(ab01, cd01, 0x7632);
  out[2] = __byte_perm(ab23, cd23, 0x5410);
  out[3] = __byte_perm(ab23, cd23, 0x7632);
}

__device__ inline uint32_t niti_blocked_swizzle(uint32_t unit) { return unit ^ ((unit >> 3) & 3); }

/* A warp writes the blocked layout of one tile (V = 4). words[i]: the lane's four positions of image i, 0 past the last image.
 * `at`: the first of the four among the image's elements; those from `image` on are left out. blocked: of these 16 images.
 * scratch: NITI_BLOCKED_UNITS of the warp's own. Each lane transposes its 16 x 4 bytes; the exchange lets stores cover whole
 * lines. */
__device__ inline void niti_tile_blocked(int8_t *blocked, uint4 *scratch, const uint32_t *words, uint32_t at, uint32_t image) {
  const uint32_t lane = threadIdx.x & 31;
  uint32_t unit[4][4]; /* [quarter of the 16 images][position] */
#pragma unroll
  for (int q = 0; q < 4; ++q) niti_transpose4(unit[q], words[2 * q], words[2 * q + 1], words[2 * q + 8], words[2 * q + 9]);
  __syncwarp(); /* the tile before has been read */
#pragma unroll
  for (uint32_t k = 0; k < 4; ++k) {
    scratch[niti_blocked_swizzle(4 * lane + k)] = make_uint4(unit[0][k], unit[1][k], unit[2][k], unit[3][k]);
  }
  __syncwarp();
#pragma unroll
  for (uint32_t j = 0; j < 4; ++j) {
    const uint4 bytes = scratch[niti_blocked_swizzle(32 * j + lane)];
    const uint32_t position = __shfl_sync(0xffffffffu, at, (int)(8 * j + lane / 4)) + (lane & 3);
    if (position < image) *(uint4 *)(blocked + (size_t)position * NITI_BLOCK_IMAGES) = bytes;
  }
}

/* The blocked layout of image block `block`. */
__device__ inline int8_t *niti_blocked_block(int8_t *blocked, uint32_t block, uint32_t image) {
  return blocked + (size_t)block * image * NITI_BLOCK_IMAGES;
}

#endif
#endif
