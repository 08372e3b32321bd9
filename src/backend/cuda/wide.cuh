/* How operations take 16 neighbours per thread: where a tensor's images are multiples of 16, aligned to that, 16 neighbours are
 * one load and share a block of random words. What one value costs decides here: about ten instructions. */
#ifndef NITI_BACKEND_CUDA_WIDE_CUH
#define NITI_BACKEND_CUDA_WIDE_CUH

#include "backend/cuda/finish.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/tile.cuh"

enum {
  NITI_WIDE_THREADS = 256,
  NITI_WIDE_WARPS = NITI_WIDE_THREADS / 32,
  NITI_WIDE_POSITIONS = 128,                            /* of a warp's tile, by 16 images: 16 positions of 4 images per lane */
  NITI_WIDE_CHUNKS = NITI_WIDE_POSITIONS / 16,          /* of 16 positions */
  NITI_WIDE_WORDS = 4 * 16 + 4,                         /* a chunk's blocked layout, and four more against conflicts of banks */
  NITI_WIDE_STAGE = NITI_WIDE_CHUNKS * NITI_WIDE_WORDS, /* of a warp */
};

/* Whether niti_wide_requantise and niti_wide_requantise_down serve. */
static inline bool niti_wide_serves(const NitiRequantiseArgs &a) {
  return a.clip <= NITI_WIDE_CLIP && (a.mode == NITI_NEAREST || a.mode == NITI_STOCHASTIC_BYTE);
}

#ifdef __CUDACC__

/* Of accumulators so far. */
struct NitiExtremes {
  int least, most;
};

__device__ inline void niti_extremes_add(NitiExtremes *e, const int acc[4]) {
#pragma unroll
  for (int k = 0; k < 4; k += 2) {
    e->most = __vimax3_s32(acc[k], acc[k + 1], e->most);
    e->least = __vimin3_s32(acc[k], acc[k + 1], e->least);
  }
}

/* The first launch's end, with one atomic per block; every thread of every block of NITI_WIDE_THREADS calls it. */
__device__ inline void niti_wide_raise(const NitiRequantiseArgs &a, const NitiExtremes &e) {
  __shared__ uint32_t maxima[NITI_WIDE_WARPS];
  uint32_t max = __reduce_max_sync(0xffffffffu, (uint32_t)(e.most > -e.least ? e.most : -e.least));
  if ((threadIdx.x & 31) == 0) maxima[threadIdx.x / 32] = max;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  max = __reduce_max_sync(0xffffffffu, threadIdx.x < NITI_WIDE_WARPS ? maxima[threadIdx.x] : 0);
  if (threadIdx.x == 0 && max > 0) atomicMax(&a.range->max, max);
}

__device__ inline uint32_t niti_wide_least(const NitiRequantiseArgs &a) {
  return a.relu ? 0 : 0x10000u * ((uint32_t)-NITI_MANTISSA_MAX & 0xffffu) + ((uint32_t)-NITI_MANTISSA_MAX & 0xffffu);
}

/* The random words of 16 values, the first of which has this index in the rank's tensor. */
template <int ROUNDING>
__device__ inline NitiWords niti_wide_draw(const NitiRequantiseArgs &a, size_t index) {
  NitiWords words = {{0, 0, 0, 0}};
  if (ROUNDING != NITI_WIDE_BYTE) return words;
  const NitiDraw draw = {a.clock->seed, a.purpose, a.clock->step, a.layer};
  words = niti_draw_block(&draw, (uint32_t)((a.first + index) >> 4)); /* a multiple of 16 too, as all images are */
  return words;
}

__device__ inline uint32_t niti_word_of(const uint4 &v, int w) { return w == 0 ? v.x : w == 1 ? v.y : w == 2 ? v.z : v.w; }

__device__ inline void niti_set_word(uint4 *v, int w, uint32_t word) {
  if (w == 0) v->x = word;
  if (w == 1) v->y = word;
  if (w == 2) v->z = word;
  if (w == 3) v->w = word;
}

/* ---- tiles ---- */

/* A lane's part: the images 2 q, 2 q + 1, 2 q + 8 and 2 q + 9 of a block, which are the neighbours there, at 16 positions. */
struct NitiWidePart {
  uint32_t q, chunk;
  uint32_t block, first, p; /* of images; the tile's first position, and the lane's */
  bool inside[4];
  size_t at[4]; /* the first element of each image's */
};

__device__ inline NitiWidePart niti_wide_part(const NitiTiles &t, const NitiDivisor &tiles, uint32_t item) {
  NitiWidePart part;
  const uint32_t lane = threadIdx.x & 31;
  part.q = lane & 3;
  part.chunk = lane >> 2;
  part.block = niti_divide(tiles, item);
  part.first = (item - part.block * t.tiles) * NITI_WIDE_POSITIONS;
  part.p = part.first + 16 * part.chunk;
#pragma unroll
  for (uint32_t j = 0; j < 4; ++j) {
    const uint32_t image = part.block * NITI_BLOCK_IMAGES + 2 * part.q + (j & 1) + 8 * (j >> 1);
    part.inside[j] = part.p < t.image && image < (uint32_t)t.n;
    part.at[j] = (size_t)image * t.image + part.p;
  }
  return part;
}

/* The first element of image j of a lane's part, in a tensor whose images have so many. */
__device__ inline size_t niti_wide_image(const NitiWidePart &part, uint32_t j, size_t image) {
  return (part.block * NITI_BLOCK_IMAGES + 2 * part.q + (j & 1) + 8 * (j >> 1)) * image;
}

/* y: the lane's results, 0 outside; lowered: niti_lowered's. Whole warps call it. */
__device__ inline void niti_wide_store_bits(uint2 *bits, const uint4 *y, const NitiWidePart &part, uint32_t image,
                                            uint32_t channels, uint32_t lowered) {
  uint32_t b[4];
  const uint32_t upper = part.chunk >> 2, entry = 8 * part.q + (part.chunk & 3);
#pragma unroll
  for (int j = 0; j < 4; ++j) b[j] = niti_passing_bits(y[j], lowered);
  if (channels == 64) { /* a tile is two pixels, without second runs of channels */
    uint32_t *at = (uint32_t *)bits + ((size_t)part.block * (image / 64) + part.p / 64) * 32 + entry;
    if (part.p >= image) return;
    at[0] = b[0] | b[2] >> 4;
    at[4] = b[1] | b[3] >> 4;
    return;
  }
  const uint32_t near = __shfl_xor_sync(0xffffffffu, upper ? b[0] : b[1], 16);
  const uint32_t far = __shfl_xor_sync(0xffffffffu, upper ? b[2] : b[3], 16);
  const uint2 both = upper ? make_uint2(near | b[1] >> 4, far | b[3] >> 4) : make_uint2(b[0] | near >> 4, b[2] | far >> 4);
  bits[((size_t)part.block * (image / NITI_WIDE_POSITIONS) + part.first / NITI_WIDE_POSITIONS) * 32 + entry + 4 * upper] = both;
}

/* What that wrote: of each image's 16 positions, as niti_passing_bits has them in its upper bits. */
__device__ inline uint4 niti_wide_load_bits(const uint2 *bits, const NitiWidePart &part, uint32_t image, uint32_t channels) {
  const uint32_t upper = part.chunk >> 2, entry = 8 * part.q + (part.chunk & 3);
  if (part.p >= image) return make_uint4(0, 0, 0, 0);
  if (channels == 64) {
    const uint32_t *at = (const uint32_t *)bits + ((size_t)part.block * (image / 64) + part.p / 64) * 32 + entry;
    const uint32_t even = __ldcg(at), odd = __ldcg(at + 4);
    return make_uint4(even, odd, even << 4, odd << 4);
  }
  const uint2 *at = bits + ((size_t)part.block * (image / NITI_WIDE_POSITIONS) + part.first / NITI_WIDE_POSITIONS) * 32 + entry;
  const uint2 even = __ldcg(at), odd = __ldcg(at + 4);
  const uint32_t left = 4 * upper;
  return make_uint4(even.x << left, odd.x << left, even.y << left, odd.y << left);
}

/* y: the lane's results, 0 outside; stage: NITI_WIDE_CHUNKS * NITI_WIDE_WORDS of the warp's own. */
__device__ inline void niti_wide_store_blocked(int8_t *blocked, uint32_t *stage, const uint4 *y, const NitiWidePart &part,
                                               uint32_t image, bool streams) {
  uint32_t *own = stage + part.chunk * NITI_WIDE_WORDS + part.q;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    uint32_t four[4]; /* images, at one position each */
    niti_transpose4(four, niti_word_of(y[0], w), niti_word_of(y[1], w), niti_word_of(y[2], w), niti_word_of(y[3], w));
#pragma unroll
    for (int k = 0; k < 4; ++k) own[16 * w + 4 * k] = four[k];
  }
  __syncwarp();
  uint4 *to = (uint4 *)(niti_blocked_block(blocked, part.block, image) + (size_t)part.first * NITI_BLOCK_IMAGES);
#pragma unroll
  for (uint32_t i = 0; i < NITI_WIDE_POSITIONS / 32; ++i) {
    const uint32_t position = 32 * i + (threadIdx.x & 31);
    const uint4 images = *(const uint4 *)(stage + 4 * position + 4 * (position / 16));
    if (part.first + position >= image) continue;
    if (streams)
      __stcs(to + position, images);
    else
      to[position] = images;
  }
}

#endif
#endif
