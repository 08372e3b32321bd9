/* Batch norm's maps where channels are multiples of 16, as they are in most networks: a thread takes 16 neighbours at a time,
 * which share a block of random words. What one value costs decides here: about eight instructions. */
#include "backend/cuda/finish.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/norm.cuh"

enum {
  THREADS = 256,
  WARPS = THREADS / 32,
  POSITIONS = 128,         /* of a warp's tile, by 16 images: 16 positions of 4 images per lane */
  CHUNKS = POSITIONS / 16, /* of 16 positions */
  WORDS = 4 * 16 + 4,      /* a chunk's blocked layout, and four more against conflicts of banks */
  ROWS_AT_ONCE = 4,
  ROWS_BLOCKS = 2, /* a multiprocessor's, of rows */
};

enum Rounding { ROUND_NEAREST, ROUND_RELU /* to nearest, then ReLU */, ROUND_BYTE };

/* ---- four values ---- */

static __device__ inline uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) { /* with the signs, unlike __byte_perm */
  uint32_t out;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(selector));
  return out;
}

static __device__ inline int byte_of(uint32_t word, int k) { return (int)permute(word, 0, 0x8880u + 0x1111u * (uint32_t)k); }

/* Adds to each of two accumulators what rounds it, then cut off below bit 16. Upwards from a magnitude m is floor((m + R) /
 * 2^16), R = 256 (255 - byte) + 128; for a negative accumulator that is floor((acc + 65535 - R) / 2^16), and 65535 - R is R with
 * all bits flipped. bytes: both, each times 256 in 16 bits. */
static __device__ inline void add_rests(int *acc, uint32_t bytes) {
  const uint32_t rests = bytes ^ permute((uint32_t)acc[0], (uint32_t)acc[1], 0xffbb) ^ 0xff80ff80u;
  acc[0] = (int)__dp2a_lo(rests, 0x0001u, (uint32_t)acc[0]);
  acc[1] = (int)__dp2a_lo(rests, 0x0100u, (uint32_t)acc[1]);
}

/* Four results. f: with 2^15 in the offsets already where ROUND_RELU; low: the least, twice as 16 bits. */
template <int ROUNDING, typename Affine>
static __device__ inline uint32_t map_four(const Affine *f, uint32_t x, uint32_t d, uint32_t random, uint32_t low) {
  const int half = 1 << (NITI_NORM_FRACTION - 1);
  const uint32_t most = 0x10001u * NITI_MANTISSA_MAX;
  int acc[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) acc[k] = niti_norm_apply(f[k], byte_of(x, k), byte_of(d, k));
#pragma unroll
  for (int k = 0; k < 4 && ROUNDING == ROUND_NEAREST; ++k) acc[k] += half + (acc[k] >> 31); /* ties away from zero */
  if (ROUNDING == ROUND_BYTE) {
    add_rests(acc, permute(random, 0, 0x1404));
    add_rests(acc + 2, permute(random, 0, 0x3424));
  }
  const uint32_t first = __byte_perm((uint32_t)acc[0], (uint32_t)acc[1], 0x7632);
  const uint32_t second = __byte_perm((uint32_t)acc[2], (uint32_t)acc[3], 0x7632);
  return __byte_perm(__vmaxs2(__vmins2(first, most), low), __vmaxs2(__vmins2(second, most), low), 0x6420);
}

static __device__ inline uint32_t least_of(const NitiRequantiseArgs &a) {
  return a.relu ? 0 : 0x10000u * ((uint32_t)-NITI_MANTISSA_MAX & 0xffffu) + ((uint32_t)-NITI_MANTISSA_MAX & 0xffffu);
}

template <int ROUNDING, typename Affine>
static __device__ inline void prepare(Affine *f, int count) {
#pragma unroll
  for (int k = 0; k < count && ROUNDING == ROUND_RELU; ++k) f[k].offset += 1 << (NITI_NORM_FRACTION - 1);
}

/* The random words of 16 values, the first of which has this index in the rank's tensor. */
template <int ROUNDING>
static __device__ inline NitiWords draw_sixteen(const NitiRequantiseArgs &a, size_t index) {
  NitiWords words = {{0, 0, 0, 0}};
  if (ROUNDING != ROUND_BYTE) return words;
  const NitiDraw draw = {a.clock->seed, a.purpose, a.clock->step, a.layer};
  words = niti_draw_block(&draw, (uint32_t)((a.first + index) >> 4)); /* a multiple of 16 too, as all images are */
  return words;
}

static __device__ inline uint32_t word_of(const uint4 &v, int w) { return w == 0 ? v.x : w == 1 ? v.y : w == 2 ? v.z : v.w; }

static __device__ inline void set_word(uint4 *v, int w, uint32_t word) {
  if (w == 0) v->x = word;
  if (w == 1) v->y = word;
  if (w == 2) v->z = word;
  if (w == 3) v->w = word;
}

/* ---- rows: each thread keeps its channels ---- */

template <int ROUNDING, typename Affine>
static __global__ void __launch_bounds__(NITI_ROWS_THREADS, ROWS_BLOCKS)
    wide_rows_kernel(NitiNormMap<Affine> m, NitiRequantiseArgs a) {
  niti_kernel_announce();
  if (!m.early) niti_kernel_wait();
  enum { BACKWARD = NitiNormMap<Affine>::BACKWARD, VECTORS = sizeof(Affine) };
  const NitiRows &r = m.rows;
  const NitiRowsLane l = niti_rows_lane<16>(r);
  const uint32_t low = least_of(a);
  if (!l.inside) return;
  __align__(16) Affine f[16];
  bool fresh = true;
  for (uint32_t row = blockIdx.x * r.lanes * ROWS_AT_ONCE + l.lane; row < r.rows; row += gridDim.x * r.lanes * ROWS_AT_ONCE) {
    uint4 x[ROWS_AT_ONCE] = {}, d[ROWS_AT_ONCE] = {};
#pragma unroll
    for (int i = 0; i < ROWS_AT_ONCE; ++i) {
      const size_t at = (size_t)(row + (uint32_t)i * r.lanes) * r.pitch + l.channel;
      if (row + (uint32_t)i * r.lanes < r.rows) x[i] = __ldcg((const uint4 *)(m.x + at));
      if (BACKWARD && row + (uint32_t)i * r.lanes < r.rows) d[i] = __ldcg((const uint4 *)(m.d + at));
    }
    if (fresh) { /* the first turn of each thread */
      if (m.early) niti_kernel_wait();
#pragma unroll
      for (int i = 0; i < VECTORS; ++i) ((uint4 *)f)[i] = ((const uint4 *)(m.affine + l.channel))[i];
      prepare<ROUNDING>(f, 16);
      if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *a.exponent = *m.e_affine;
      fresh = false;
    }
#pragma unroll
    for (int i = 0; i < ROWS_AT_ONCE; ++i) {
      const size_t at = (size_t)(row + (uint32_t)i * r.lanes) * r.pitch + l.channel;
      if (row + (uint32_t)i * r.lanes >= r.rows) continue;
      const NitiWords random = draw_sixteen<ROUNDING>(a, at);
#pragma unroll
      for (int w = 0; w < 4; ++w)
        set_word(&x[i], w, map_four<ROUNDING>(f + 4 * w, word_of(x[i], w), word_of(d[i], w), random.word[w], low));
      *(uint4 *)(m.y + at) = x[i];
    }
  }
}

/* ---- tiles: the blocked layout too ---- */

/* A lane's part: the images 2 q, 2 q + 1, 2 q + 8 and 2 q + 9 of a block, which are the neighbours there, at 16 positions. */
struct Part {
  uint32_t q, chunk;
  uint32_t block, first, p; /* of images; the tile's first position, and the lane's */
  bool inside[4];
  size_t at[4]; /* the first element of each image's */
};

static __device__ inline Part part_of(const NitiTiles &t, const NitiDivisor &tiles, uint32_t item) {
  Part part;
  const uint32_t lane = threadIdx.x & 31;
  part.q = lane & 3;
  part.chunk = lane >> 2;
  part.block = niti_divide(tiles, item);
  part.first = (item - part.block * t.tiles) * POSITIONS;
  part.p = part.first + 16 * part.chunk;
#pragma unroll
  for (uint32_t j = 0; j < 4; ++j) {
    const uint32_t image = part.block * NITI_BLOCK_IMAGES + 2 * part.q + (j & 1) + 8 * (j >> 1);
    part.inside[j] = part.p < t.image && image < (uint32_t)t.n;
    part.at[j] = (size_t)image * t.image + part.p;
  }
  return part;
}

/* A tile's multipliers, chunk by chunk, with a vector between them against conflicts of banks. */
template <typename Affine>
static __device__ inline void stage_affine(uint4 *stage, const Affine *affine, uint32_t first, const NitiDivisor &pitch) {
  enum { VECTORS = sizeof(Affine) }; /* of 16 channels */
#pragma unroll
  for (uint32_t i = threadIdx.x & 31; i < CHUNKS * VECTORS; i += 32) {
    const uint32_t chunk = i / VECTORS, vector = i - chunk * VECTORS;
    const uint32_t p = first + 16 * chunk, channel = p - niti_divide(pitch, p) * pitch.divisor;
    stage[chunk * (VECTORS + 1) + vector] = ((const uint4 *)(affine + channel))[vector];
  }
  __syncwarp();
}

/* y: the lane's results, 0 outside. Whole warps call it. */
static __device__ inline void store_bits(uint2 *bits, const uint4 *y, const Part &part, uint32_t image, uint32_t channels) {
  uint32_t b[4];
  const uint32_t upper = part.chunk >> 2, entry = 8 * part.q + (part.chunk & 3);
#pragma unroll
  for (int j = 0; j < 4; ++j) b[j] = niti_positive_bits(y[j]);
  if (channels == 64) { /* a tile is two pixels, without second runs of channels */
    uint2 *at = bits + ((size_t)part.block * (image / 64) + part.p / 64) * 32 + entry;
    if (part.p >= image) return;
    at[0] = make_uint2(b[0], b[2]);
    at[4] = make_uint2(b[1], b[3]);
    return;
  }
  const uint32_t near = __shfl_xor_sync(0xffffffffu, upper ? b[0] : b[1], 16);
  const uint32_t far = __shfl_xor_sync(0xffffffffu, upper ? b[2] : b[3], 16);
  const uint2 both = upper ? make_uint2(near | b[1] >> 4, far | b[3] >> 4) : make_uint2(b[0] | near >> 4, b[2] | far >> 4);
  bits[((size_t)part.block * (image / POSITIONS) + part.first / POSITIONS) * 32 + entry + 4 * upper] = both;
}

/* y: the lane's results, 0 outside; stage: CHUNKS * WORDS of the warp's own. */
static __device__ inline void store_blocked(int8_t *blocked, uint32_t *stage, const uint4 *y, const Part &part, uint32_t image,
                                            bool streams) {
  uint32_t *own = stage + part.chunk * WORDS + part.q;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    uint32_t four[4]; /* images, at one position each */
    niti_transpose4(four, word_of(y[0], w), word_of(y[1], w), word_of(y[2], w), word_of(y[3], w));
#pragma unroll
    for (int k = 0; k < 4; ++k) own[16 * w + 4 * k] = four[k];
  }
  __syncwarp();
  uint4 *to = (uint4 *)(niti_blocked_block(blocked, part.block, image) + (size_t)part.first * NITI_BLOCK_IMAGES);
#pragma unroll
  for (uint32_t i = 0; i < POSITIONS / 32; ++i) {
    const uint32_t position = 32 * i + (threadIdx.x & 31);
    const uint4 images = *(const uint4 *)(stage + 4 * position + 4 * (position / 16));
    if (part.first + position >= image) continue;
    if (streams)
      __stcs(to + position, images);
    else
      to[position] = images;
  }
}

/* Backward takes the tiles from the last to the first: what was read last before this launch may still be in the cache. */
template <int ROUNDING, typename Affine>
static __global__ void __launch_bounds__(THREADS, NitiNormMap<Affine>::BACKWARD ? 3 : 4)
    wide_tiles_kernel(NitiNormMap<Affine> m, NitiRequantiseArgs a, NitiDivisor tiles, NitiDivisor pitch) {
  niti_kernel_announce();
  if (!m.early) niti_kernel_wait();
  enum { BACKWARD = NitiNormMap<Affine>::BACKWARD, VECTORS = sizeof(Affine) };
  __shared__ uint4 affines[WARPS][CHUNKS * (VECTORS + 1)];
  __shared__ __align__(16) uint32_t stage[WARPS][CHUNKS * WORDS];
  const NitiTiles &t = m.tiles;
  const uint32_t warp = threadIdx.x / 32, index = blockIdx.x * WARPS + warp, low = least_of(a);
  if (index >= t.items) return;
  const Part part = part_of(t, tiles, t.items - 1 - index);
  uint4 x[4] = {}, d[4] = {};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (part.inside[j]) x[j] = __ldcg((const uint4 *)(m.x + part.at[j]));
    if (BACKWARD && part.inside[j]) d[j] = __ldcg((const uint4 *)(m.d + part.at[j]));
  }
  if (m.early) niti_kernel_wait();
  if (blockIdx.x == 0 && threadIdx.x == 0) *a.exponent = *m.e_affine;
  stage_affine(affines[warp], m.affine, part.first, pitch);
  NitiWords random[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) random[j] = draw_sixteen<ROUNDING>(a, part.at[j]);
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    __align__(16) Affine f[4];
#pragma unroll
    for (int i = 0; i < VECTORS / 4; ++i)
      ((uint4 *)f)[i] = affines[warp][part.chunk * (VECTORS + 1) + (uint32_t)(w * VECTORS / 4 + i)];
    prepare<ROUNDING>(f, 4);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      set_word(&x[j], w, map_four<ROUNDING>(f, word_of(x[j], w), word_of(d[j], w), random[j].word[w], low));
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (!part.inside[j]) x[j] = make_uint4(0, 0, 0, 0);
    if (m.y && part.inside[j]) *(uint4 *)(m.y + part.at[j]) = x[j];
  }
  if (!BACKWARD && m.bits) store_bits(m.bits, x, part, t.image, m.rows.pitch);
  store_blocked(m.blocked, stage[warp], x, part, t.image, !BACKWARD);
}

/* ---- launches ---- */

template <int ROUNDING, typename Affine>
static void launch(NitiCuda *cuda, const NitiNormMap<Affine> &m, const NitiRequantiseArgs &a) {
  if (!m.blocked) {
    const dim3 grid(niti_rows_blocks(cuda, m.rows, 2 * ROWS_BLOCKS), m.rows.slices);
    NITI_LAUNCH(cuda, (wide_rows_kernel<ROUNDING, Affine>), grid, NITI_ROWS_THREADS, 0, m, a);
    return;
  }
  const NitiDivisor tiles = niti_divisor(m.tiles.tiles), pitch = niti_divisor(m.rows.pitch);
  NITI_LAUNCH(cuda, (wide_tiles_kernel<ROUNDING, Affine>), (m.tiles.items + WARPS - 1) / WARPS, THREADS, 0, m, a, tiles, pitch);
}

bool niti_norm_wide(NitiCuda *cuda, const NitiNormMap<NitiAffine> &m, const NitiRequantiseArgs &a) {
  if (a.mode == NITI_NEAREST && a.relu)
    launch<ROUND_RELU>(cuda, m, a);
  else if (a.mode == NITI_NEAREST)
    launch<ROUND_NEAREST>(cuda, m, a);
  else if (a.mode == NITI_STOCHASTIC_BYTE)
    launch<ROUND_BYTE>(cuda, m, a);
  else
    return false;
  return true;
}

bool niti_norm_wide(NitiCuda *cuda, const NitiNormMap<NitiAffineDelta> &m, const NitiRequantiseArgs &a) {
  if (a.mode == NITI_NEAREST)
    launch<ROUND_NEAREST>(cuda, m, a);
  else if (a.mode == NITI_STOCHASTIC_BYTE)
    launch<ROUND_BYTE>(cuda, m, a);
  else
    return false;
  return true;
}
