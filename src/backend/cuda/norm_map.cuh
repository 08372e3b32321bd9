/* How batch norm's maps of 16 neighbours at a time compute: what kernels in norm_wide.cu and norm_pool.cu share. */
#ifndef NITI_BACKEND_CUDA_NORM_MAP_CUH
#define NITI_BACKEND_CUDA_NORM_MAP_CUH

#include "backend/cuda/norm.cuh"
#include "backend/cuda/wide.cuh"

/* Vectors of a warp's own in shared memory, for a tile's multipliers. */
#define NITI_NORM_STAGE(Affine) (NITI_WIDE_CHUNKS * (sizeof(Affine) + 1))

static_assert(NITI_NORM_FRACTION == 16, "what niti_wide_round takes");

/* Four results. f: with 2^15 in the offsets already where NITI_WIDE_RELU; low, most: niti_wide_round's. */
template <int ROUNDING, typename Affine>
__device__ inline uint32_t niti_norm_map_four(const Affine *f, uint32_t x, uint32_t d, uint32_t random, uint32_t low,
                                              uint32_t most) {
  int acc[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) acc[k] = niti_norm_apply(f[k], niti_byte_of(x, k), niti_byte_of(d, k));
  return niti_wide_round<ROUNDING>(acc, random, low, most);
}

template <int ROUNDING, typename Affine>
__device__ inline void niti_norm_prepare(Affine *f, int count) {
#pragma unroll
  for (int k = 0; k < count && ROUNDING == NITI_WIDE_RELU; ++k) f[k].offset += 1 << (NITI_NORM_FRACTION - 1);
}

/* A tile's multipliers, chunk by chunk, with a vector between them against conflicts of banks. Channels are a multiple of 4. */
template <typename Affine>
__device__ inline void niti_norm_stage_affine(uint4 *stage, const Affine *affine, uint32_t first, const NitiDivisor &pitch) {
  enum { VECTORS = sizeof(Affine), FOUR = VECTORS / 4 }; /* of 16 channels, and of four */
#pragma unroll
  for (uint32_t i = threadIdx.x & 31; i < NITI_WIDE_CHUNKS * VECTORS; i += 32) {
    const uint32_t chunk = i / VECTORS, vector = i - chunk * VECTORS;
    const uint32_t p = first + 16 * chunk + vector / FOUR * 4, channel = p - niti_divide(pitch, p) * pitch.divisor;
    stage[chunk * (VECTORS + 1) + vector] = ((const uint4 *)(affine + channel))[vector % FOUR];
  }
  __syncwarp();
}

/* A lane's part of the output, from what it has loaded. affines: NITI_NORM_STAGE of the warp's own, stage: NITI_WIDE_STAGE. */
template <int ROUNDING, typename Affine>
__device__ inline void niti_norm_map_tile(const NitiNormMap<Affine> &m, const NitiRequantiseArgs &a, const NitiWidePart &part,
                                          const NitiDivisor &pitch, uint4 x[4], const uint4 d[4], uint4 *affines,
                                          uint32_t *stage) {
  enum { BACKWARD = NitiNormMap<Affine>::BACKWARD, VECTORS = sizeof(Affine) };
  const NitiTiles &t = m.tiles;
  const uint32_t low = niti_wide_least(a);
  if (m.early) niti_kernel_wait();
  if (blockIdx.x == 0 && threadIdx.x == 0) *a.exponent = *m.e_affine;
  const uint32_t lowered = niti_lowered(a.limit, a.e_limit), most = 0x10001u * niti_lowered_top(a, lowered);
  niti_norm_stage_affine(affines, m.affine, part.first, pitch);
  NitiWords random[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) random[j] = niti_wide_draw<ROUNDING>(a, part.at[j]);
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    __align__(16) Affine f[4];
#pragma unroll
    for (int i = 0; i < VECTORS / 4; ++i) ((uint4 *)f)[i] = affines[part.chunk * (VECTORS + 1) + (uint32_t)(w * VECTORS / 4 + i)];
    niti_norm_prepare<ROUNDING>(f, 4);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      niti_set_word(&x[j], w,
                    niti_norm_map_four<ROUNDING>(f, niti_word_of(x[j], w), niti_word_of(d[j], w), random[j].word[w], low, most));
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (!part.inside[j]) x[j] = make_uint4(0, 0, 0, 0);
    if (m.y && part.inside[j]) *(uint4 *)(m.y + part.at[j]) = x[j];
  }
  if (!BACKWARD && m.bits) niti_wide_store_bits(m.bits, x, part, t.image, m.rows.pitch, lowered);
  if (m.blocked) niti_wide_store_blocked(m.blocked, stage, x, part, t.image, !BACKWARD);
}

#endif
