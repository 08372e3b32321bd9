/* Batch norm's maps where channels are multiples of 16, as they are in most networks, or images are and channels multiples of 4,
 * or rows can be joined (rows.cuh): a thread takes 16 neighbours at a time, which share a block of random words. */
#include "backend/cuda/norm_map.cuh"

enum {
  ROWS_AT_ONCE = 4,
  ROWS_BLOCKS = 2, /* a multiprocessor's, of rows */
};

/* ---- rows: each thread keeps its channels ---- */

/* The multipliers of a thread's 16 columns of joined rows. The block fetches its slice's in order, and a word between those of
 * threads keeps them from conflicts of banks. All threads call it. */
template <typename Affine>
static __device__ inline void load_joined(Affine *f, const Affine *affine, uint32_t channels, const NitiRows &r,
                                          const NitiRowsLane &l) {
  enum { WORDS = sizeof(Affine) / 4, ROOM = 16 * WORDS + 1 };
  __shared__ int32_t stage[NITI_SUMS_SLICE / 16 * ROOM];
  static_assert((int)NITI_ROWS_THREADS >= (int)NITI_SUMS_SLICE, "a thread per column");
  const uint32_t own = threadIdx.x, column = blockIdx.y * r.width * 16 + own;
  const int32_t *from = (const int32_t *)(affine + column % channels);
#pragma unroll
  for (int i = 0; i < WORDS; ++i) {
    if (own < r.width * 16) stage[own / 16 * ROOM + own % 16 * WORDS + (uint32_t)i] = from[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 16 * WORDS; ++i) ((int32_t *)f)[i] = stage[l.vector * ROOM + (uint32_t)i];
}

/* JOINED: rows of several pixels, of so many channels each. All threads of a block then take the same turns, as load_joined
 * demands, some of them without rows: a turn's `first` row is the block's, else the thread's own. */
template <int ROUNDING, bool JOINED, typename Affine>
static __global__ void __launch_bounds__(NITI_ROWS_THREADS, ROWS_BLOCKS)
    wide_rows_kernel(NitiNormMap<Affine> m, NitiRequantiseArgs a, uint32_t channels) {
  niti_kernel_announce();
  if (!m.early) niti_kernel_wait();
  enum { BACKWARD = NitiNormMap<Affine>::BACKWARD, VECTORS = sizeof(Affine) };
  const NitiRows &r = m.rows;
  const NitiRowsLane l = niti_rows_lane<16>(r);
  const uint32_t low = niti_wide_least(a);
  if (!JOINED && !l.inside) return;
  const uint32_t rows = JOINED && !l.inside ? 0 : r.rows, lane = JOINED ? l.lane : 0;
  __align__(16) Affine f[16];
  bool fresh = true;
  uint32_t most = 0;
  for (uint32_t first = blockIdx.x * r.lanes * ROWS_AT_ONCE + (JOINED ? 0 : l.lane); first < r.rows;
       first += gridDim.x * r.lanes * ROWS_AT_ONCE) {
    const uint32_t row = first + lane;
    uint4 x[ROWS_AT_ONCE] = {}, d[ROWS_AT_ONCE] = {};
#pragma unroll
    for (int i = 0; i < ROWS_AT_ONCE; ++i) {
      const size_t at = (size_t)(row + (uint32_t)i * r.lanes) * r.pitch + l.channel;
      if (row + (uint32_t)i * r.lanes < rows) x[i] = __ldcg((const uint4 *)(m.x + at));
      if (BACKWARD && row + (uint32_t)i * r.lanes < rows) d[i] = __ldcg((const uint4 *)(m.d + at));
    }
    if (fresh) { /* the first turn of each thread */
      if (m.early) niti_kernel_wait();
      if (JOINED) load_joined(f, m.affine, channels, r, l);
#pragma unroll
      for (int i = 0; i < VECTORS && !JOINED; ++i) ((uint4 *)f)[i] = ((const uint4 *)(m.affine + l.channel))[i];
      niti_norm_prepare<ROUNDING>(f, 16);
      if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *a.exponent = *m.e_affine;
      most = 0x10001u * niti_lowered_top(a, niti_lowered(a.limit, a.e_limit));
      fresh = false;
    }
#pragma unroll
    for (int i = 0; i < ROWS_AT_ONCE; ++i) {
      const size_t at = (size_t)(row + (uint32_t)i * r.lanes) * r.pitch + l.channel;
      if (row + (uint32_t)i * r.lanes >= rows) continue;
      const NitiWords random = niti_wide_draw<ROUNDING>(a, at);
#pragma unroll
      for (int w = 0; w < 4; ++w)
        niti_set_word(
            &x[i], w,
            niti_norm_map_four<ROUNDING>(f + 4 * w, niti_word_of(x[i], w), niti_word_of(d[i], w), random.word[w], low, most));
      *(uint4 *)(m.y + at) = x[i];
    }
  }
}

/* ---- tiles: the blocked layout too ---- */

template <int ROUNDING, typename Affine>
static __global__ void __launch_bounds__(NITI_WIDE_THREADS, NitiNormMap<Affine>::BACKWARD ? 3 : 4)
    wide_tiles_kernel(NitiNormMap<Affine> m, NitiRequantiseArgs a, NitiDivisor tiles, NitiDivisor pitch) {
  niti_kernel_announce();
  if (!m.early) niti_kernel_wait();
  enum { BACKWARD = NitiNormMap<Affine>::BACKWARD };
  __shared__ uint4 affines[NITI_WIDE_WARPS][NITI_NORM_STAGE(Affine)];
  __shared__ __align__(16) uint32_t stage[NITI_WIDE_WARPS][NITI_WIDE_STAGE];
  const NitiTiles &t = m.tiles;
  const uint32_t warp = threadIdx.x / 32, index = blockIdx.x * NITI_WIDE_WARPS + warp;
  if (index >= t.items) return;
  const NitiWidePart part = niti_wide_part(t, tiles, index);
  uint4 x[4] = {}, d[4] = {};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (part.inside[j]) x[j] = __ldcg((const uint4 *)(m.x + part.at[j]));
    if (BACKWARD && part.inside[j]) d[j] = __ldcg((const uint4 *)(m.d + part.at[j]));
  }
  niti_norm_map_tile<ROUNDING>(m, a, part, pitch, x, d, affines[warp], stage[warp]);
}

/* ---- launches ---- */

template <int ROUNDING, bool JOINED, typename Affine>
static void launch_rows(NitiCuda *cuda, const NitiNormMap<Affine> &m, const NitiRequantiseArgs &a, uint32_t channels) {
  const dim3 grid(niti_rows_blocks(cuda, m.rows, 2 * ROWS_BLOCKS, JOINED), m.rows.slices);
  NITI_LAUNCH(cuda, (wide_rows_kernel<ROUNDING, JOINED, Affine>), grid, NITI_ROWS_THREADS, 0, m, a, channels);
}

template <int ROUNDING, typename Affine>
static void launch(NitiCuda *cuda, const NitiNormMap<Affine> &m, const NitiRequantiseArgs &a, uint32_t channels) {
  if (m.rows.pitch != channels) return launch_rows<ROUNDING, true>(cuda, m, a, channels);
  if (!m.blocked) return launch_rows<ROUNDING, false>(cuda, m, a, channels);
  const NitiDivisor tiles = niti_divisor(m.tiles.tiles), pitch = niti_divisor(m.rows.pitch);
  NITI_LAUNCH(cuda, (wide_tiles_kernel<ROUNDING, Affine>), (m.tiles.items + NITI_WIDE_WARPS - 1) / NITI_WIDE_WARPS,
              NITI_WIDE_THREADS, 0, m, a, tiles, pitch);
}

bool niti_norm_wide(NitiCuda *cuda, const NitiNormMap<NitiAffine> &m, const NitiRequantiseArgs &a, uint32_t channels) {
  if (a.mode == NITI_NEAREST && a.relu)
    launch<NITI_WIDE_RELU>(cuda, m, a, channels);
  else if (a.mode == NITI_NEAREST)
    launch<NITI_WIDE_NEAREST>(cuda, m, a, channels);
  else if (a.mode == NITI_STOCHASTIC_BYTE)
    launch<NITI_WIDE_BYTE>(cuda, m, a, channels);
  else
    return false;
  return true;
}

bool niti_norm_wide(NitiCuda *cuda, const NitiNormMap<NitiAffineDelta> &m, const NitiRequantiseArgs &a, uint32_t channels) {
  if (a.mode == NITI_NEAREST)
    launch<NITI_WIDE_NEAREST>(cuda, m, a, channels);
  else if (a.mode == NITI_STOCHASTIC_BYTE)
    launch<NITI_WIDE_BYTE>(cuda, m, a, channels);
  else
    return false;
  return true;
}
