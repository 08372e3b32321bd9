/* Batch norm's maps together with the max-pool of 2x2 behind the norm (program/fuse_pools.c): channels are multiples of 16, and
 * all memory is aligned to that. Forward, a lane maps the four cells of a window and keeps the first largest; backward, a value's
 * delta is its window's where it won. */
#include "backend/cuda/norm_map.cuh"

enum { CELLS = 4 };

/* By value to a kernel. */
typedef struct Windows {
  NitiPool p;
  const uint8_t *winner; /* backward */
  uint8_t *to_winner;    /* forward */
  int8_t *won;           /* or NULL */
  int32_t *e_won;
  const int32_t *e_x;
  NitiDivisor tiles, channels, columns; /* what divides an item, a position and a pixel of the tiles */
} Windows;

/* Where a lane's part lies in its image. */
typedef struct Spot {
  uint32_t h, w, channel;
} Spot;

static __device__ inline Spot spot_of(const Windows &v, uint32_t position) {
  const uint32_t pixel = niti_divide(v.channels, position), row = niti_divide(v.columns, pixel);
  return Spot{row, pixel - row * v.columns.divisor, position - pixel * v.channels.divisor};
}

/* Of bytes 0 .. 3: 0xff where bit `bit` is set. */
static __device__ inline uint32_t spread_bit(uint32_t word, int bit) { return niti_spread_signs(word << (7 - bit)); }

static __device__ inline uint32_t choose(uint32_t mask, uint32_t yes, uint32_t no) { return (yes & mask) | (no & ~mask); }

/* Four channels of a window: v, the results of its cells, and x, what they were made of. Values and how early their cell comes,
 * as 16 bits each: the largest of these is the first maximum. */
static __device__ inline void take_first_largest(const uint32_t v[CELLS], const uint32_t x[CELLS], uint32_t *y, uint32_t *winner,
                                                 uint32_t *won) {
  uint32_t best[2] = {0x80008000u, 0x80008000u};
#pragma unroll
  for (uint32_t k = 0; k < CELLS; ++k) {
    const uint32_t early = ~(k * 0x01010101u);
    best[0] = __vmaxs2(best[0], __byte_perm(v[k], early, 0x1404));
    best[1] = __vmaxs2(best[1], __byte_perm(v[k], early, 0x3424));
  }
  *y = __byte_perm(best[0], best[1], 0x7531);
  *winner = ~__byte_perm(best[0], best[1], 0x6420);
  const uint32_t right = spread_bit(*winner, 0), below = spread_bit(*winner, 1);
  *won = choose(below, choose(right, x[3], x[2]), choose(right, x[1], x[0]));
}

template <int ROUNDING>
static __global__ void __launch_bounds__(NITI_WIDE_THREADS, 2)
    forward_kernel(NitiNormMap<NitiAffine> m, NitiRequantiseArgs a, Windows v) {
  niti_kernel_announce();
  if (!m.early) niti_kernel_wait();
  enum { VECTORS = sizeof(NitiAffine) };
  __shared__ uint4 affines[NITI_WIDE_WARPS][NITI_NORM_STAGE(NitiAffine)];
  __shared__ __align__(16) uint32_t stage[NITI_WIDE_WARPS][NITI_WIDE_STAGE];
  const NitiTiles &t = m.tiles;
  const uint32_t warp = threadIdx.x / 32, index = blockIdx.x * NITI_WIDE_WARPS + warp, low = niti_wide_least(a);
  if (index >= t.items) return;
  const NitiWidePart part = niti_wide_part(t, v.tiles, index);
  const Spot spot = spot_of(v, part.p);
  const size_t pitch = (size_t)v.p.c, row = (size_t)v.p.w * pitch, image = (size_t)v.p.h * row;
  const size_t first = 2 * spot.h * row + 2 * spot.w * pitch + spot.channel;
  uint4 x[CELLS][4] = {};
#pragma unroll
  for (int k = 0; k < CELLS; ++k) {
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) {
      const size_t at = niti_wide_image(part, j, image) + first + (k >> 1) * row + (k & 1) * pitch;
      if (part.inside[j]) x[k][j] = __ldcg((const uint4 *)(m.x + at));
    }
  }
  if (m.early) niti_kernel_wait();
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    *a.exponent = *m.e_affine;
    if (v.won) *v.e_won = *v.e_x;
  }
  const uint32_t lowered = niti_lowered(a.limit, a.e_limit), most = 0x10001u * niti_lowered_top(a, lowered);
  niti_norm_stage_affine(affines[warp], m.affine, part.first, v.channels);
#pragma unroll
  for (uint32_t j = 0; j < 4; ++j) {
    NitiWords random[CELLS];
#pragma unroll
    for (int k = 0; k < CELLS; ++k)
      random[k] = niti_wide_draw<ROUNDING>(a, niti_wide_image(part, j, image) + first + (k >> 1) * row + (k & 1) * pitch);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      __align__(16) NitiAffine f[4];
#pragma unroll
      for (int i = 0; i < VECTORS / 4; ++i)
        ((uint4 *)f)[i] = affines[warp][part.chunk * (VECTORS + 1) + (uint32_t)(w * VECTORS / 4 + i)];
      niti_norm_prepare<ROUNDING>(f, 4);
      uint32_t cells[CELLS], from[CELLS], y, winner, won;
#pragma unroll
      for (int k = 0; k < CELLS; ++k) {
        from[k] = niti_word_of(x[k][j], w);
        cells[k] = niti_norm_map_four<ROUNDING>(f, from[k], 0, random[k].word[w], low, most);
      }
      take_first_largest(cells, from, &y, &winner, &won);
      niti_set_word(&x[0][j], w, y);
      niti_set_word(&x[1][j], w, winner);
      niti_set_word(&x[2][j], w, won);
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (!part.inside[j]) x[0][j] = make_uint4(0, 0, 0, 0);
    if (m.y && part.inside[j]) *(uint4 *)(m.y + part.at[j]) = x[0][j];
    if (part.inside[j]) *(uint4 *)(v.to_winner + part.at[j]) = x[1][j];
    if (v.won && part.inside[j]) *(uint4 *)(v.won + part.at[j]) = x[2][j];
  }
  if (m.bits) niti_wide_store_bits(m.bits, x[0], part, t.image, (uint32_t)v.p.c, lowered);
  if (m.blocked) niti_wide_store_blocked(m.blocked, stage[warp], x[0], part, t.image, true);
}

template <int ROUNDING>
static __global__ void __launch_bounds__(NITI_WIDE_THREADS, 3)
    backward_kernel(NitiNormMap<NitiAffineDelta> m, NitiRequantiseArgs a, Windows v) {
  niti_kernel_announce();
  if (!m.early) niti_kernel_wait();
  __shared__ uint4 affines[NITI_WIDE_WARPS][NITI_NORM_STAGE(NitiAffineDelta)];
  __shared__ __align__(16) uint32_t stage[NITI_WIDE_WARPS][NITI_WIDE_STAGE];
  const NitiTiles &t = m.tiles;
  const uint32_t warp = threadIdx.x / 32, index = blockIdx.x * NITI_WIDE_WARPS + warp;
  if (index >= t.items) return;
  const NitiWidePart part = niti_wide_part(t, v.tiles, index);
  const Spot spot = spot_of(v, part.p);
  const size_t pitch = (size_t)v.p.c, row = (size_t)v.p.ow * pitch, image = (size_t)v.p.oh * row;
  const size_t window = spot.h / 2 * row + spot.w / 2 * pitch + spot.channel;
  const uint32_t cell = (2 * (spot.h & 1) + (spot.w & 1)) * 0x01010101u;
  uint4 x[4] = {}, d[4] = {}, winner[4] = {};
#pragma unroll
  for (uint32_t j = 0; j < 4; ++j) {
    const size_t at = niti_wide_image(part, j, image) + window;
    if (part.inside[j]) x[j] = __ldcg((const uint4 *)(m.x + part.at[j]));
    if (part.inside[j]) d[j] = __ldcg((const uint4 *)(m.d + at));
    if (part.inside[j]) winner[j] = __ldcg((const uint4 *)(v.winner + at));
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#pragma unroll
    for (int w = 0; w < 4; ++w) /* a winner is below 128 */
      niti_set_word(&d[j], w, niti_word_of(d[j], w) & niti_spread_signs(0x80808080u - (niti_word_of(winner[j], w) ^ cell)));
  }
  niti_norm_map_tile<ROUNDING>(m, a, part, v.channels, x, d, affines[warp], stage[warp]);
}

static bool rounds(NitiRounding mode) { return mode == NITI_NEAREST || mode == NITI_STOCHASTIC_BYTE; }

extern "C" bool niti_cuda_norm_pool_serves(const NitiBackend *, const NitiOperation *norm, const NitiPool *pool) {
  return pool->c % 16 == 0 && rounds(norm->rounding.mode);
}

/* What both directions share; t: y or dx, whose parts the lanes take. */
template <typename Affine>
static NitiNormMap<Affine> map_of(const NitiCuda *cuda, const NitiTensor *t, NitiShape shape, const NitiTensor *x,
                                  const NitiTensor *affine) {
  NitiNormMap<Affine> m = {};
  m.blocked = niti_blocked_of(t, 4);
  m.y = m.blocked && t->uses == NITI_USE_GRADIENT ? NULL : t->data;
  if (m.blocked && (t->uses & NITI_USE_MASK) && niti_cuda_bits_tiled(shape.c)) m.bits = niti_cuda_bits(t);
  m.x = x->data;
  m.affine = (const Affine *)(const void *)affine->data;
  m.e_affine = affine->exponent;
  m.rows.pitch = (uint32_t)shape.c;
  m.tiles = niti_tiles_of(shape, 4, NITI_BLOCK_IMAGES);
  m.early = cuda->settled;
  return m;
}

static Windows windows_of(const NitiPool *p, const NitiTiles &t, int columns) {
  Windows v = {};
  v.p = *p;
  v.tiles = niti_divisor(t.tiles);
  v.channels = niti_divisor((uint32_t)p->c);
  v.columns = niti_divisor((uint32_t)columns);
  return v;
}

template <typename Affine>
static void launch(NitiCuda *cuda, void (*norm_pool)(NitiNormMap<Affine>, NitiRequantiseArgs, Windows),
                   const NitiNormMap<Affine> &m, const NitiRequantiseArgs &a, const Windows &v, const NitiTensor *t) {
  NITI_LAUNCH(cuda, norm_pool, (m.tiles.items + NITI_WIDE_WARPS - 1) / NITI_WIDE_WARPS, NITI_WIDE_THREADS, 0, m, a, v);
  niti_cuda_blocked_set(cuda, t, m.blocked != NULL);
  if (m.bits) niti_cuda_bits_set(cuda, t);
}

extern "C" void niti_cuda_norm_pool_forward(NitiBackend *backend, NitiTensor *y, uint8_t *winner, NitiTensor *won,
                                            const NitiTensor *x, const NitiTensor *affine, bool relu, const NitiPool *p,
                                            const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiRequantiseArgs a = niti_requantise_args(cuda, rq, y->exponent, NULL, NULL, 0, relu);
  const NitiNormMap<NitiAffine> m = map_of<NitiAffine>(cuda, y, NitiShape{p->n, p->oh, p->ow, p->c}, x, affine);
  Windows v = windows_of(p, m.tiles, p->ow);
  v.to_winner = winner;
  v.won = won ? won->data : NULL;
  v.e_won = won ? won->exponent : NULL;
  v.e_x = x->exponent;
  launch(cuda,
         a.mode != NITI_NEAREST ? forward_kernel<NITI_WIDE_BYTE>
         : relu                 ? forward_kernel<NITI_WIDE_RELU>
                                : forward_kernel<NITI_WIDE_NEAREST>,
         m, a, v, y);
}

extern "C" void niti_cuda_norm_pool_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *x,
                                             const NitiTensor *affine, const uint8_t *winner, const NitiPool *p,
                                             const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiRequantiseArgs a = niti_requantise_args(cuda, rq, dx->exponent, NULL, NULL, 0, false);
  NitiNormMap<NitiAffineDelta> m = map_of<NitiAffineDelta>(cuda, dx, NitiShape{p->n, p->h, p->w, p->c}, x, affine);
  Windows v = windows_of(p, m.tiles, p->w);
  m.d = dy->data;
  v.winner = winner;
  launch(cuda, a.mode == NITI_NEAREST ? backward_kernel<NITI_WIDE_NEAREST> : backward_kernel<NITI_WIDE_BYTE>, m, a, v, dx);
}
