/* Batch norm's maps, forward and backward: a multiply-add or two per element, then rounding. The exponent is known beforehand, so
 * there is no range. Where the blocked layout is wanted too, tiles of 16 images; else rows. Where channels are multiples of 16,
 * rows of several pixels are, or images are beside channels that are multiples of 4, norm_wide.cu does it. */
#include "backend/cuda/finish.cuh"
#include "backend/cuda/norm.cuh"

enum { BLOCKS = 8 /* a multiprocessor's, of rows */ };

/* acc / 2^16, ties away from zero; |acc| < 2^31 - 2^15. */
static __device__ inline int nearest(int acc) {
  return (acc + (1 << (NITI_NORM_FRACTION - 1)) + (acc >> 31)) >> NITI_NORM_FRACTION;
}

/* V = 4 or 1 bytes of the output; index: of the first; bytes: their random bytes, NITI_STOCHASTIC_BYTE only; top: the largest, in
 * each byte. */
template <int V, typename Affine>
static __device__ inline uint32_t map_word(const NitiRequantiseArgs &a, const Affine *f, uint32_t x, uint32_t d, uint64_t index,
                                           uint32_t bytes, uint32_t top) {
  int acc[V];
  uint32_t word;
#pragma unroll
  for (int k = 0; k < V; ++k) acc[k] = niti_norm_apply(f[k], (int8_t)(x >> (8 * k)), (int8_t)(d >> (8 * k)));
  if (a.mode == NITI_STOCHASTIC_BYTE) {
    const NitiByteRounding round = niti_byte_rounding(NITI_NORM_FRACTION);
    int m[4] = {0, 0, 0, 0};
#pragma unroll
    for (int k = 0; k < V; ++k) m[k] = niti_byte_round(acc[k], round, bytes >> (8 * k) & 255);
    word = niti_clip4(niti_pack4(m[0], m[1], m[2], m[3]));
  } else if (a.mode != NITI_NEAREST) {
    word = niti_word_requantise<V>(a, acc, NITI_NORM_FRACTION, index);
  } else if (V == 4) {
    word = niti_clip4(niti_pack4(nearest(acc[0]), nearest(acc[1 % V]), nearest(acc[2 % V]), nearest(acc[3 % V])));
  } else {
    word = niti_clip4(niti_pack4(nearest(acc[0]), 0, 0, 0));
  }
  return a.relu ? __vmins4(word & ~niti_spread_signs(word), top) : word;
}

/* bytes[j]: the random bytes of the lane's four neighbours in image j of four, `image` elements apart, the first at `index`.
 * Where images are multiples of 16, four lanes share a block of random words: each draws one image's. Whole warps call it. */
template <int ALIGNED>
static __device__ inline void draw_four(uint32_t *bytes, const NitiDraw &draw, uint64_t index, uint32_t image) {
  if (image % ALIGNED != 0) {
#pragma unroll
    for (int j = 0; j < 4; ++j) bytes[j] = niti_draw(&draw, (index + (uint64_t)j * image) >> 2);
    return;
  }
  const int lane = (int)(threadIdx.x & 3);
  const NitiWords own = niti_draw_block(&draw, (uint32_t)((index + (uint64_t)lane * image) >> 4));
#pragma unroll
  for (int j = 0; j < 4; ++j) { /* word `lane` of what lane j of the four drew; each lane offers the word that the reader wants */
    uint32_t got = 0;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const uint32_t offered = __shfl_sync(0xffffffffu, own.word[c], (int)(threadIdx.x & 28) + j);
      if (c == lane) got = offered;
    }
    bytes[j] = got;
  }
}

/* The multipliers of V channels. */
template <int V, typename Affine>
static __device__ inline void load_affine(Affine *f, const Affine *from) {
  enum { VECTORS = sizeof(Affine) / 4 }; /* of 16 bytes: those of four channels */
  if (V == 1) f[0] = from[0];
#pragma unroll
  for (int i = 0; i < V / 4 * VECTORS; ++i) ((int4 *)f)[i] = ((const int4 *)from)[i];
}

/* Each thread keeps its channels. */
template <int V, typename Affine>
static __global__ void __launch_bounds__(NITI_ROWS_THREADS) rows_kernel(NitiNormMap<Affine> m, NitiRequantiseArgs a) {
  niti_kernel_begin();
  enum { BACKWARD = NitiNormMap<Affine>::BACKWARD, AT_ONCE = NITI_ROWS_AT_ONCE };
  const NitiRows &r = m.rows;
  const NitiRowsLane l = niti_rows_lane<V>(r);
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *a.exponent = *m.e_affine;
  if (!l.inside) return;
  __align__(16) Affine f[V];
  load_affine<V>(f, m.affine + l.channel);
  const uint32_t top = 0x01010101u * niti_lowered_top(a, niti_lowered(a.limit, a.e_limit));
  const bool draws = a.mode == NITI_STOCHASTIC_BYTE;
  const NitiDraw draw = {draws ? a.clock->seed : 0, a.purpose, draws ? a.clock->step : 0, a.layer};
  for (uint32_t row = blockIdx.x * r.lanes * AT_ONCE + l.lane; row < r.rows; row += gridDim.x * r.lanes * AT_ONCE) {
    uint32_t x[AT_ONCE] = {}, d[AT_ONCE] = {};
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      const size_t at = (size_t)(row + (uint32_t)i * r.lanes) * r.pitch + l.channel;
      if (row + (uint32_t)i * r.lanes < r.rows) x[i] = niti_word_load<V>(m.x + at);
      if (BACKWARD && row + (uint32_t)i * r.lanes < r.rows) d[i] = niti_word_load<V>(m.d + at);
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      const size_t at = (size_t)(row + (uint32_t)i * r.lanes) * r.pitch + l.channel;
      if (row + (uint32_t)i * r.lanes >= r.rows) continue;
      const uint64_t index = a.first + at;
      const uint32_t bytes = draws ? niti_draw(&draw, index >> 2) >> (8 * (index & 3)) : 0;
      niti_word_store<V>(m.y + at, map_word<V>(a, f, x[i], d[i], at, bytes, top));
    }
  }
}

/* Rows of channels are multiples of 4, and so are images. */
template <typename Affine>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) tiles_kernel(NitiNormMap<Affine> m, NitiRequantiseArgs a) {
  niti_kernel_begin();
  enum { BACKWARD = NitiNormMap<Affine>::BACKWARD };
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  const NitiTiles &t = m.tiles;
  const uint32_t top = 0x01010101u * niti_lowered_top(a, niti_lowered(a.limit, a.e_limit));
  const bool draws = a.mode == NITI_STOCHASTIC_BYTE;
  const NitiDraw draw = {draws ? a.clock->seed : 0, a.purpose, draws ? a.clock->step : 0, a.layer};
  for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
    const NitiTile tile = niti_tile_at<4, NITI_BLOCK_IMAGES>(t, item);
    uint32_t x[NITI_BLOCK_IMAGES], d[NITI_BLOCK_IMAGES];
    __align__(16) Affine f[4];
    load_affine<4>(f, m.affine + tile.p % m.rows.pitch);
#pragma unroll
    for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
      const size_t at = tile.at + (size_t)i * t.image;
      x[i] = i < tile.images ? niti_word_load<4>(m.x + at) : 0;
      d[i] = BACKWARD && i < tile.images ? niti_word_load<4>(m.d + at) : 0;
    }
    uint32_t bytes[4] = {};
#pragma unroll
    for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
      const size_t at = tile.at + (size_t)i * t.image;
      if (draws && i % 4 == 0) draw_four<16>(bytes, draw, a.first + at, t.image);
      if (i >= tile.images) continue;
      x[i] = map_word<4>(a, f, x[i], d[i], at, bytes[i % 4], top);
      niti_word_store<4>(m.y + at, x[i]);
    }
    niti_tile_blocked(niti_blocked_block(m.blocked, tile.block, t.image), scratch[threadIdx.x / 32], x, tile.p, t.image);
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *a.exponent = *m.e_affine;
}

template <int V, typename Affine>
static void run_rows(NitiCuda *cuda, const NitiNormMap<Affine> &m, const NitiRequantiseArgs &a) {
  NITI_LAUNCH(cuda, (rows_kernel<V, Affine>), dim3(niti_rows_blocks(cuda, m.rows, BLOCKS, false), m.rows.slices),
              NITI_ROWS_THREADS, 0, m, a);
}

/* V channels to a thread. */
template <typename Affine>
static NitiNormMap<Affine> map_of(const NitiTensor *y, const NitiTensor *x, const NitiTensor *dy, const NitiTensor *affine,
                                  int V) {
  NitiNormMap<Affine> m = {};
  m.y = y->data;
  m.blocked = niti_blocked_of(y, V > 4 ? 4 : V);
  m.x = x->data;
  m.d = dy ? dy->data : NULL;
  m.affine = (const Affine *)(const void *)affine->data;
  m.e_affine = affine->exponent;
  m.rows = niti_rows_of(x->shape, 0, (uint32_t)x->shape.c, x->shape.c % V == 0 ? V : 4);
  m.tiles = niti_tiles_of(x->shape, 4, NITI_BLOCK_IMAGES);
  return m;
}

/* Whether norm_wide.cu did it. */
template <typename Affine>
static bool run_wide(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const NitiTensor *dy, const NitiTensor *affine,
                     const NitiRequantiseArgs &a) {
  NitiNormMap<Affine> m = map_of<Affine>(y, x, dy, affine, 16);
  if (m.blocked && y->uses == NITI_USE_GRADIENT) m.y = NULL;
  if (m.blocked && (y->uses & NITI_USE_MASK) && niti_cuda_bits_tiled(x->shape.c)) m.bits = niti_cuda_bits(y);
  m.early = cuda->settled;
  if (!niti_norm_wide(cuda, m, a, m.rows.pitch)) return false;
  niti_cuda_blocked_set(cuda, y, m.blocked != NULL);
  if (m.bits) niti_cuda_bits_set(cuda, y);
  return true;
}

/* The same in joined rows, without the blocked layout. */
template <typename Affine>
static bool run_joined(NitiCuda *cuda, NitiNormMap<Affine> m, NitiShape s, const NitiRequantiseArgs &a) {
  const NitiShape joined = niti_rows_joined(s, m.y, m.x, m.d);
  if (joined.n == 0 || a.first % 16 != 0) return false;
  m.rows = niti_rows_of(joined, 0, (uint32_t)joined.c, 16);
  m.early = cuda->settled;
  return niti_norm_wide(cuda, m, a, (uint32_t)s.c);
}

/* Whether 16 neighbours of an image are so in memory, too, though they may be of any four channels in a row. dy: NULL forward. */
static bool is_tiled(const NitiTensor *y, const NitiTensor *x, const NitiTensor *dy) {
  const uintptr_t all = (uintptr_t)y->data | (uintptr_t)x->data | (uintptr_t)(dy ? dy->data : NULL);
  return all % 16 == 0 && x->shape.c % 4 == 0 && niti_shape_image(x->shape) % 16 == 0;
}

template <typename Affine>
static void run(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *dy, const NitiTensor *affine,
                bool relu, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  NitiRequantiseArgs a = niti_requantise_args(cuda, rq, y->exponent, NULL, NULL, 0, relu);
  a.limit = y->limit, a.e_limit = affine->exponent; /* which is what y's will be */
  const bool aligned = (uintptr_t)affine->data % 16 == 0, tiles = niti_blocked_of(y, 4) && is_tiled(y, x, dy);
  const int V = aligned ? niti_rows_vector((uint32_t)x->shape.c, y->data, x->data, dy ? dy->data : NULL) : 1;
  if (aligned && (V == 16 || tiles) && run_wide<Affine>(cuda, y, x, dy, affine, a)) return;
  const NitiNormMap<Affine> m = map_of<Affine>(y, x, dy, affine, V > 4 ? 4 : V);
  if (m.blocked) {
    NITI_LAUNCH(cuda, tiles_kernel<Affine>, niti_tiles_grid(m.tiles), NITI_TILE_THREADS, 0, m, a);
  } else if (!run_joined(cuda, m, x->shape, a)) {
    if (V > 1) run_rows<4>(cuda, m, a);
    if (V == 1) run_rows<1>(cuda, m, a);
  }
  niti_cuda_blocked_set(cuda, y, m.blocked != NULL);
}

extern "C" void niti_cuda_norm_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *affine,
                                       bool relu, const NitiRequantise *rq) {
  run<NitiAffine>(backend, y, x, NULL, affine, relu, rq);
}

extern "C" void niti_cuda_norm_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *x,
                                        const NitiTensor *affine, const NitiRequantise *rq) {
  run<NitiAffineDelta>(backend, dx, x, dy, affine, false, rq);
}
