/* The end of a tile of mma.sync accumulators: maximum, rounding, ReLU or mask, and the stores, NHWC and blocked, straight from
 * registers. A thread's columns are neighbours (niti_mma_column), its rows two images of a pixel, eight apart. */
#ifndef NITI_BACKEND_CUDA_MMA_FINISH_CUH
#define NITI_BACKEND_CUDA_MMA_FINISH_CUH

#include "backend/cuda/finish.cuh"
#include "backend/cuda/mma.cuh"

#ifdef __CUDACC__

/* The output channel, within its tile, that row `row` of the weights in shared memory holds; NI * 8 rows belong to one warp.
 * Accumulator columns ni * 8 + 2 q + b of thread q are then channels q * 2 NI + 2 ni + b. Additive in the bits of row. */
template <int NI>
__device__ __host__ constexpr int niti_mma_column(int row) {
  return row / (NI * 8) * (NI * 8) + (row & 7) / 2 * (2 * NI) + row % (NI * 8) / 8 * 2 + (row & 1);
}

/* The four words of 16-byte runs 0 .. 3, one word per thread, to one run per thread. Threads j = lane / STEP % 4 that are equal
 * otherwise exchange: in, run[i] is word j of run i; out, run[i] is word i of run j. */
template <int STEP>
__device__ inline void niti_mma_exchange(uint32_t (&run)[4]) {
  const bool upper = threadIdx.x & (2 * STEP), odd = threadIdx.x & STEP;
  const uint32_t keep0 = upper ? run[2] : run[0], keep1 = upper ? run[3] : run[1];
  const uint32_t got0 = __shfl_xor_sync(0xffffffffu, upper ? run[0] : run[2], 2 * STEP);
  const uint32_t got1 = __shfl_xor_sync(0xffffffffu, upper ? run[1] : run[3], 2 * STEP);
  const uint32_t low0 = upper ? got0 : keep0, high0 = upper ? keep0 : got0; /* of the even run of two: words with j < 2, others */
  const uint32_t low1 = upper ? got1 : keep1, high1 = upper ? keep1 : got1;
  const uint32_t low = odd ? low1 : low0, high = odd ? high1 : high0;
  const uint32_t got_low = __shfl_xor_sync(0xffffffffu, odd ? low0 : low1, STEP);
  const uint32_t got_high = __shfl_xor_sync(0xffffffffu, odd ? high0 : high1, STEP);
  run[0] = odd ? got_low : low;
  run[1] = odd ? low : got_low;
  run[2] = odd ? got_high : high;
  run[3] = odd ? high : got_high;
}

/* The blocked layout of one pixel and the warp's columns. words[h]: the thread's 2 NI columns of image lane / 4 + 8 h. at: the
 * blocked layout of column 0 of the pixel; columns from `columns` on are left out. Whole warps call it. */
template <int NI>
__device__ inline void niti_mma_blocked(int8_t *at, const uint32_t (&words)[2][NI / 2], int column, int columns) {
  const uint32_t lane = threadIdx.x & 31, odd = lane >> 2 & 1, j = lane >> 3;
  uint32_t run[NI]; /* run[2 w + b]: word j of the blocked layout of column 4 w + 2 b + odd */
#pragma unroll
  for (int w = 0; w < NI / 2; ++w) {
    const uint32_t even_columns = niti_permute(words[0][w], words[1][w], 0x6240); /* images g, g + 8 of columns 0, 2 */
    const uint32_t odd_columns = niti_permute(words[0][w], words[1][w], 0x7351);
    const uint32_t keep = odd ? odd_columns : even_columns;
    const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? even_columns : odd_columns, 4);
    const uint32_t even_image = odd ? got : keep, odd_image = odd ? keep : got;
    run[2 * w] = niti_permute(even_image, odd_image, 0x5140);
    run[2 * w + 1] = niti_permute(even_image, odd_image, 0x7362);
  }
  if (NI == 2) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int c = column + 2 * b + (int)odd;
      if (c < columns) *(uint32_t *)(at + (size_t)c * NITI_BLOCK_IMAGES + 4 * j) = run[b];
    }
  }
#pragma unroll
  for (int b = 0; NI > 2 && b < NI / 4; ++b) { /* NI 8: runs w of either b; NI 4: all four */
    uint32_t four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) four[i] = run[(NI == 8 ? 2 * i + b : i) % NI];
    niti_mma_exchange<8>(four);
    const int c = column + (NI == 8 ? 4 * (int)j + 2 * b : 2 * (int)j) + (int)odd;
    if (c < columns) *(uint4 *)(at + (size_t)c * NITI_BLOCK_IMAGES) = make_uint4(four[0], four[1], four[2], four[3]);
  }
}

/* A thread's 2 NI neighbouring columns of one row. NI > 2: OC is a multiple of 2 NI. */
template <int NI>
__device__ inline void niti_mma_load_row(uint32_t (&to)[NI / 2], const int8_t *from, int column, int columns) {
  if (NI == 8) {
    const uint4 v = *(const uint4 *)from;
    to[0] = v.x, to[1] = v.y, to[2 % (NI / 2)] = v.z, to[3 % (NI / 2)] = v.w;
  } else if (NI == 4) {
    const uint2 v = *(const uint2 *)from;
    to[0] = v.x, to[1 % (NI / 2)] = v.y;
  } else if (columns % 4 == 0) {
    to[0] = *(const uint32_t *)from;
  } else {
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      if (column + b < columns) to[0] |= (uint32_t)(uint8_t)from[b] << (8 * b);
    }
  }
}

template <int NI>
__device__ inline void niti_mma_store_row(int8_t *to, const uint32_t (&from)[NI / 2], int column, int columns) {
  if (NI == 8) {
    *(uint4 *)to = make_uint4(from[0], from[1], from[2 % (NI / 2)], from[3 % (NI / 2)]);
  } else if (NI == 4) {
    *(uint2 *)to = make_uint2(from[0], from[1 % (NI / 2)]);
  } else if (columns % 4 == 0) {
    *(uint32_t *)to = from[0];
  } else {
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      if (column + b < columns) to[b] = (int8_t)(from[0] >> (8 * b));
    }
  }
}

/* In what follows spots(r), for r below 2 MI, is where the thread's row r is: rows 2 i and 2 i + 1 are those of acc[i], eight
 * apart. column: of the output, the thread's first. */
struct NitiMmaSpot {
  bool inside;   /* it has an image */
  int64_t image; /* its image's offset in the output */
  int64_t at;    /* of its first channel in that */
  bool some;     /* of rows 2 i: its block has an image; */
  int64_t block; /* the block's first image's offset */
};

/* Rounding of any mode and shift: acc becomes twice its mantissa, which rounding to nearest with shift 1 gives back. mine[step
 * i]: scratch of this thread's own, for i below MI * NI * 4. */
template <int MI, int NI, typename SPOTS>
__device__ inline void niti_mma_settle(const NitiMmaPass &p, int (&acc)[MI][NI][4], const SPOTS &spots, int column, int shift,
                                       int *mine, int step) {
#pragma unroll
  for (int i = 0; i < MI * NI * 4; ++i) mine[i * step] = acc[i / (NI * 4)][i % (2 * NI) / 2][i / (2 * NI) % 2 * 2 + i % 2];
  NitiDraw draw = {0, p.rq.purpose, 0, p.rq.layer};
  const bool bytes = p.rq.mode == NITI_STOCHASTIC_BYTE;
  if (niti_rounding_draws(p.rq.mode)) draw.seed = p.rq.clock->seed, draw.time = p.rq.clock->step;
#pragma unroll 1
  for (int r = 0; r < MI * 2; ++r) {
    const NitiMmaSpot spot = spots(r);
    const uint64_t index = p.rq.first + (uint64_t)(spot.image + spot.at + column);
    NitiWords words = {{0, 0, 0, 0}};
#pragma unroll 1
    for (int c = 0; c < 2 * NI; ++c) {
      uint32_t word = 0;
      if (bytes && shift > 0) {
        if (c == 0 || ((index + c) & 15) == 0) words = niti_draw_block(&draw, (uint32_t)((index + c) >> 4));
        const uint32_t at = (uint32_t)(index + c) >> 2 & 3;
        word = at == 0 ? words.word[0] : at == 1 ? words.word[1] : at == 2 ? words.word[2] : words.word[3];
        word >>= 8 * ((index + c) & 3);
      }
      if (p.rq.mode == NITI_STOCHASTIC && shift > 0) {
        const uint32_t at = (uint32_t)(index + c) & 3;
        if (c == 0 || at == 0) words = niti_draw_block(&draw, (uint32_t)((index + c) >> 2));
        word = at == 0 ? words.word[0] : at == 1 ? words.word[1] : at == 2 ? words.word[2] : words.word[3];
      }
      int *one = mine + (r * 2 * NI + c) * step;
      *one = 2 * niti_clip8(niti_round_inline(*one, shift, p.rq.mode, word));
    }
  }
#pragma unroll
  for (int i = 0; i < MI * NI * 4; ++i) acc[i / (NI * 4)][i % (2 * NI) / 2][i / (2 * NI) % 2 * 2 + i % 2] = mine[i * step];
}

/* words[h]: a row of 16 rows' accumulators, the thread's columns. */
template <bool RELU, int NI>
__device__ inline void niti_mma_words(uint32_t (&words)[2][NI / 2], const int (&acc)[NI][4], uint32_t half, int shift) {
#pragma unroll
  for (int i = 0; i < NI; ++i) {
    const int h = i / (NI / 2), w = i % (NI / 2);
    words[h][w] = niti_mma_round4<RELU>(acc[2 * w][2 * h], acc[2 * w][2 * h + 1], acc[2 * w + 1][2 * h],
                                        acc[2 * w + 1][2 * h + 1], half, shift);
  }
}

/* Whether niti_mma_byte_words rounds: a thread's columns then share one block of random words, and 32 bits hold what is rounded.
 */
template <int NI>
__device__ inline bool niti_mma_by_bytes(const NitiMmaPass &p) {
  return p.rq.mode == NITI_STOCHASTIC_BYTE && p.rq.clip <= NITI_WIDE_CLIP && (NI > 2 || p.oc % 4 == 0);
}

/* Rows of which the threads that share a block of random words draw one each. Where they do not, code is shorter, and so takes
 * less time with little work. */
template <int NI, bool SHARES>
__device__ constexpr int niti_mma_drawn() {
  return SHARES ? 8 / NI : 1;
}

/* The random words of a thread's columns in each of those rows; index: of the first column in the whole batch's output, a
 * multiple of 2 NI. Whole warps call it. */
template <int NI, int ROWS>
__device__ inline void niti_mma_random(uint32_t (&random)[ROWS][NI / 2], const NitiMmaPass &p, const NitiDraw &draw,
                                       const uint64_t (&index)[ROWS]) {
  const int q = threadIdx.x & (ROWS - 1);
  if (ROWS == 1 || p.oc % 16 != 0) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const NitiWords drawn = niti_draw_block(&draw, (uint32_t)(index[r] >> 4));
      const bool upper = NI < 8 && (index[r] & 8), odd = NI < 4 && (index[r] & 4);
#pragma unroll
      for (int w = 0; w < NI / 2; ++w) {
        const uint32_t even_word = NI == 8 ? drawn.word[w] : upper ? drawn.word[2 + w % 2] : drawn.word[w % 2];
        random[r][w] = odd ? (upper ? drawn.word[3] : drawn.word[1]) : even_word;
      }
    }
    return;
  }
  uint64_t own = index[0];
#pragma unroll
  for (int r = 1; r < ROWS; ++r) own = q == r ? index[r] : own;
  const NitiWords drawn = niti_draw_block(&draw, (uint32_t)(own >> 4));
  if (ROWS == 2) {
    const bool odd = q & 1;
#pragma unroll
    for (int w = 0; w < NI / 2; ++w) {
      const uint32_t low = drawn.word[w % 4], high = drawn.word[(w + 2) % 4];
      const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? low : high, 1), kept = odd ? high : low;
      random[0][w] = odd ? got : kept;
      random[1 % ROWS][w] = odd ? kept : got;
    }
  } else {
    uint32_t words[4] = {drawn.word[0], drawn.word[1], drawn.word[2], drawn.word[3]};
    niti_mma_exchange<1>(words);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) random[r][0] = words[r];
  }
}

/* The thread's columns of row h of 16 rows' accumulators (0: lane / 4, 1: eight later). least: twice as 16 bits. */
template <int NI>
__device__ inline void niti_mma_byte_words(uint32_t (&words)[NI / 2], const int (&acc)[NI][4], int h, uint32_t up,
                                           const uint32_t (&random)[NI / 2], uint32_t least) {
#pragma unroll
  for (int w = 0; w < NI / 2; ++w) {
    int four[4] = {acc[2 * w][2 * h], acc[2 * w][2 * h + 1], acc[2 * w + 1][2 * h], acc[2 * w + 1][2 * h + 1]};
    words[w] = niti_wide_requantise<NITI_WIDE_BYTE>(four, up, random[w], least);
  }
}

/* Rows beyond the last image stay 0, which no range sees. */
template <int MI, int NI, typename SPOTS>
__device__ inline void niti_mma_add_bias(const NitiMmaPass &p, int (&acc)[MI][NI][4], const SPOTS &spots, int column) {
  bool inside[2 * MI];
#pragma unroll
  for (int r = 0; r < 2 * MI; ++r) inside[r] = spots(r).inside;
#pragma unroll
  for (int c = 0; c < 2 * NI; ++c) {
    const int bias = column + c < p.oc ? p.rq.bias[column + c] : 0;
#pragma unroll
    for (int r = 0; r < 2 * MI; ++r) acc[r / 2][c / 2][r % 2 * 2 + c % 2] += inside[r] ? bias : 0;
  }
}

/* The largest |acc|. */
template <int MI, int NI>
__device__ inline uint32_t niti_mma_largest(const int (&acc)[MI][NI][4]) {
  int top = 0, bottom = 0;
#pragma unroll
  for (int i = 0; i < MI * NI; ++i) {
    const int(&four)[4] = acc[i / NI][i % NI];
    top = __vimax3_s32(__vimax3_s32(top, four[0], four[1]), four[2], four[3]);
    bottom = __vimin3_s32(__vimin3_s32(bottom, four[0], four[1]), four[2], four[3]);
  }
  return (uint32_t)max(top, -bottom);
}

/* Of a pass with a mask: the mask's elements of the thread's rows and columns. */
template <int MI, int NI, typename SPOTS>
__device__ inline void niti_mma_load_mask(const NitiMmaPass &p, uint32_t (&mask)[MI][2][NI / 2], const SPOTS &spots, int column) {
#pragma unroll
  for (int r = 0; r < MI * 2; ++r) {
    const NitiMmaSpot spot = spots(r);
#pragma unroll
    for (int w = 0; w < NI / 2; ++w) mask[r / 2][r % 2][w] = 0;
    if (spot.inside && column < p.oc)
      niti_mma_load_row<NI>(mask[r / 2][r % 2], p.mask + spot.image + spot.at + column, column, p.oc);
  }
}

/* Whether accumulators must be settled first: niti_mma_store rounds to nearest, and by bytes. */
template <int NI>
__device__ inline bool niti_mma_unsettled(const NitiMmaPass &p, int shift) {
  return !niti_mma_by_bytes<NI>(p) && (p.rq.mode != NITI_NEAREST || shift < 1 || shift > NITI_MMA_FAST_SHIFT);
}

/* Rounds, masks and stores. SHARES: niti_mma_drawn's. */
template <int MI, int NI, bool SHARES, typename SPOTS>
__device__ inline void niti_mma_store(const NitiMmaPass &p, int (&acc)[MI][NI][4], const uint32_t (&mask)[MI][2][NI / 2],
                                      const SPOTS &spots, int column, int shift) {
  const bool by_bytes = niti_mma_by_bytes<NI>(p);
  const uint32_t half = 1u << ((shift - 1) & 31);
  const uint32_t least = p.rq.relu ? 0 : 0x10001u * ((uint32_t)-NITI_MANTISSA_MAX & 0xffffu);
  constexpr int DRAWN = niti_mma_drawn<NI, SHARES>();
  uint32_t random[DRAWN][NI / 2];
  NitiDraw draw = {0, p.rq.purpose, 0, p.rq.layer};
  if (by_bytes) draw.seed = p.rq.clock->seed, draw.time = p.rq.clock->step;
  if (by_bytes && shift > 16) { /* rarely */
#pragma unroll
    for (int i = 0; i < MI * NI * 4; ++i)
      acc[i / (NI * 4)][i / 4 % NI][i % 4] = niti_wide_down(acc[i / (NI * 4)][i / 4 % NI][i % 4], (uint32_t)shift - 16);
  }
  const uint32_t lowered = niti_lowered(p.rq.limit, p.rq.e_limit);
#pragma unroll
  for (int mi = 0; mi < MI; ++mi) {
    const NitiMmaSpot spot = spots(2 * mi), second = spots(2 * mi + 1);
    const int64_t first_at = spot.image + spot.at, second_at = second.image + second.at;
    uint32_t words[2][NI / 2];
    if (by_bytes) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if ((2 * mi + h) % DRAWN == 0) {
          uint64_t index[DRAWN];
#pragma unroll
          for (int r = 0; r < DRAWN; ++r) {
            const NitiMmaSpot row = spots(2 * mi + h + r);
            index[r] = p.rq.first + (uint64_t)(row.image + row.at + column);
          }
          niti_mma_random<NI, DRAWN>(random, p, draw, index);
        }
        niti_mma_byte_words<NI>(words[h], acc[mi], h, niti_wide_up(shift), random[h % DRAWN + (DRAWN == 4 ? mi % 2 * 2 : 0)],
                                least);
      }
    } else if (p.rq.relu) {
      niti_mma_words<true, NI>(words, acc[mi], half, shift);
    } else {
      niti_mma_words<false, NI>(words, acc[mi], half, shift);
    }
    if (p.mask) {
#pragma unroll
      for (int i = 0; i < NI; ++i) words[i % 2][i / 2] = niti_mma_masked(words[i % 2][i / 2], mask[mi][i % 2][i / 2], lowered);
    }
    if (column < p.oc) {
      if (spot.inside) niti_mma_store_row<NI>(p.out + first_at + column, words[0], column, p.oc);
      if (second.inside) niti_mma_store_row<NI>(p.out + second_at + column, words[1], column, p.oc);
    }
    if (p.blocked && spot.some) niti_mma_blocked<NI>(p.blocked + (spot.block + spot.at) * NITI_BLOCK_IMAGES, words, column, p.oc);
  }
}

#endif
#endif
