/* Max-pool where channels are multiples of 16, as they are in most networks: a thread takes 16 channels of four images at a time.
 */
#include "backend/cuda/maxpool.cuh"
#include "backend/cuda/wide.cuh"
#include "base/window.h"

enum {
  CELLS_MAX = 128,   /* of a window backward, so that a winner has seven bits */
  WINDOWS_MAX = 256, /* over a cell, whose bytes 16 bits then hold */
};

/* By value to a kernel: what divides an item, a position and a pixel; of the output, or backward of dx. */
typedef struct Divisors {
  NitiDivisor tiles, channels, columns;
} Divisors;

/* Where a lane's part lies. */
typedef struct Spot {
  int h, w;
  uint32_t channel;
} Spot;

static Divisors divisors_of(const NitiTiles &t, int channels, int columns) {
  return Divisors{niti_divisor(t.tiles), niti_divisor((uint32_t)channels), niti_divisor((uint32_t)columns)};
}

static __device__ inline Spot spot_of(const Divisors &v, uint32_t position) {
  const uint32_t pixel = niti_divide(v.channels, position), row = niti_divide(v.columns, pixel);
  return Spot{(int)row, (int)(pixel - row * v.columns.divisor), position - pixel * v.channels.divisor};
}

/* ---- forward ---- */

/* Values and how early their cell comes, as 16 bits each: the largest of these is the first maximum. early: four times. */
static __device__ inline void take_in(uint32_t best[8], const uint4 &x, uint32_t early) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    best[2 * k] = __vmaxs2(best[2 * k], __byte_perm(niti_word_of(x, k), early, 0x1404));
    best[2 * k + 1] = __vmaxs2(best[2 * k + 1], __byte_perm(niti_word_of(x, k), early, 0x3424));
  }
}

/* ACROSS: cells of a window's row that are under way at once, all of them or 1. */
template <int ACROSS>
static __global__ void __launch_bounds__(NITI_WIDE_THREADS, 2) forward_kernel(NitiMaxpoolForward f, Divisors v) {
  niti_kernel_begin();
  __shared__ __align__(16) uint32_t stage[NITI_WIDE_WARPS][NITI_WIDE_STAGE];
  const NitiTiles &t = f.tiles;
  const NitiPool &p = f.p;
  const uint32_t warp = threadIdx.x / 32, item = blockIdx.x * NITI_WIDE_WARPS + warp;
  if (blockIdx.x == 0 && threadIdx.x == 0) *f.e_y = *f.e_x;
  if (item >= t.items) return;
  const NitiWidePart part = niti_wide_part(t, v.tiles, item);
  const Spot spot = spot_of(v, part.p);
  const int top = spot.h * p.stride_h - p.pad_h, left = spot.w * p.stride_w - p.pad_w;
  const size_t pitch = (size_t)p.c, row = (size_t)p.w * pitch, image = (size_t)p.h * row;
  const int8_t *from[4];
  uint32_t best[4][8];
#pragma unroll
  for (uint32_t j = 0; j < 4; ++j) {
    from[j] = f.x + niti_wide_image(part, j, image) + spot.channel;
#pragma unroll
    for (int k = 0; k < 8; ++k) best[j][k] = 0x80008000u;
  }
  for (int kh = 0; kh < p.kh; ++kh) {
    for (int kw = 0; kw < p.kw; kw += ACROSS) {
      uint4 x[ACROSS][4];
#pragma unroll
      for (int i = 0; i < ACROSS; ++i) {
        const int h = top + kh, w = left + kw + i;
        const bool there = h >= 0 && h < p.h && w >= 0 && w < p.w;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          x[i][j] = make_uint4(0x80808080u, 0x80808080u, 0x80808080u, 0x80808080u); /* below every value */
          if (there && part.inside[j]) x[i][j] = __ldg((const uint4 *)(from[j] + (size_t)h * row + (size_t)w * pitch));
        }
      }
#pragma unroll
      for (int i = 0; i < ACROSS; ++i) {
        const uint32_t early = ~((uint32_t)(kh * p.kw + kw + i) * 0x01010101u);
#pragma unroll
        for (int j = 0; j < 4; ++j) take_in(best[j], x[i][j], early);
      }
    }
  }
  uint4 y[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    uint4 winner = make_uint4(0, 0, 0, 0);
    y[j] = make_uint4(0, 0, 0, 0);
    if (!part.inside[j]) continue;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      niti_set_word(&y[j], k, __byte_perm(best[j][2 * k], best[j][2 * k + 1], 0x7531));
      niti_set_word(&winner, k, ~__byte_perm(best[j][2 * k], best[j][2 * k + 1], 0x6420));
    }
    *(uint4 *)(f.y + part.at[j]) = y[j];
    *(uint4 *)(f.winner + part.at[j]) = winner;
  }
  if (f.blocked) niti_wide_store_blocked(f.blocked, stage[warp], y, part, t.image, true);
}

void niti_maxpool_wide(NitiCuda *cuda, const NitiMaxpoolForward &f) {
  const Divisors v = divisors_of(f.tiles, f.p.c, f.p.ow);
  void (*maxpool_forward)(NitiMaxpoolForward, Divisors) = f.p.kw == 2   ? forward_kernel<2>
                                                          : f.p.kw == 3 ? forward_kernel<3>
                                                                        : forward_kernel<1>;
  NITI_LAUNCH(cuda, maxpool_forward, (f.tiles.items + NITI_WIDE_WARPS - 1) / NITI_WIDE_WARPS, NITI_WIDE_THREADS, 0, f, v);
}

/* ---- backward, windows that overlap ---- */

/* Adds the deltas of a window whose winner is at this position, each plus 128. position: four times, as won below 128. */
static __device__ inline void add_window(uint32_t sums[8], const uint4 &deltas, const uint4 &won, uint32_t position) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const uint32_t here = niti_spread_signs(0x80808080u - (niti_word_of(won, k) ^ position));
    const uint32_t bytes = (niti_word_of(deltas, k) & here) ^ 0x80808080u;
    sums[2 * k] += bytes & 0x00ff00ffu;
    sums[2 * k + 1] += bytes >> 8 & 0x00ff00ffu;
  }
}

/* Four neighbours' sums, of so many windows. */
static __device__ inline void unpack(int acc[4], uint32_t even, uint32_t odd, int windows) {
  const int bias = 128 * windows;
  acc[0] = (int)(even & 0xffffu) - bias;
  acc[1] = (int)(odd & 0xffffu) - bias;
  acc[2] = (int)(even >> 16) - bias;
  acc[3] = (int)(odd >> 16) - bias;
}

/* A lane's sums of four images; returns how many windows there are. */
static __device__ inline int sum_windows(uint32_t sums[4][8], const NitiMaxpoolBackward &b, const Divisors &v,
                                         const NitiWidePart &part) {
  const NitiPool &p = b.p;
  const Spot spot = spot_of(v, part.p);
  const size_t pitch = (size_t)p.c, image = (size_t)p.oh * (size_t)p.ow * pitch;
  const int at_h = spot.h + p.pad_h, at_w = spot.w + p.pad_w;
  const NitiWindows in_h = niti_windows(at_h, p.kh, p.stride_h, p.oh), in_w = niti_windows(at_w, p.kw, p.stride_w, p.ow);
  int windows = 0;
  for (int oh = in_h.first; oh <= in_h.last; ++oh) {
    for (int ow = in_w.first; ow <= in_w.last; ++ow, ++windows) {
      const size_t cell = ((size_t)oh * (size_t)p.ow + (size_t)ow) * pitch + spot.channel;
      const uint32_t position = (uint32_t)((at_h - oh * p.stride_h) * p.kw + at_w - ow * p.stride_w) * 0x01010101u;
      uint4 deltas[4] = {}, won[4] = {};
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j) {
        const size_t at = niti_wide_image(part, j, image) + cell;
        if (part.inside[j]) deltas[j] = __ldg((const uint4 *)(b.dy + at));
        if (part.inside[j]) won[j] = __ldg((const uint4 *)(b.winner + at));
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) add_window(sums[j], deltas[j], won[j], position);
    }
  }
  return windows;
}

template <int ROUNDING>
static __global__ void __launch_bounds__(NITI_WIDE_THREADS, 2)
    overlap_kernel(NitiMaxpoolBackward b, NitiRequantiseArgs a, Divisors v, bool second) {
  niti_kernel_begin();
  __shared__ __align__(16) uint32_t stage[NITI_WIDE_WARPS][NITI_WIDE_STAGE];
  const NitiTiles &t = b.tiles;
  const uint32_t warp = threadIdx.x / 32, low = niti_wide_least(a);
  NitiExtremes e = {0, 0};
  int shift;
  if (niti_range_begin(a, second, &shift)) {
    const uint32_t up = niti_wide_up(shift); /* a sum is below 2^15 */
    for (uint32_t item = blockIdx.x * NITI_WIDE_WARPS + warp; item < t.items; item += gridDim.x * NITI_WIDE_WARPS) {
      const NitiWidePart part = niti_wide_part(t, v.tiles, item);
      uint32_t sums[4][8] = {};
      const int windows = sum_windows(sums, b, v, part);
      uint4 y[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const NitiWords random = niti_wide_draw<ROUNDING>(a, part.at[j]);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          int acc[4];
          unpack(acc, sums[j][2 * k], sums[j][2 * k + 1], windows);
          niti_extremes_add(&e, acc);
          niti_set_word(&y[j], k, niti_wide_requantise<ROUNDING>(acc, up, random.word[k], low));
        }
        if (part.inside[j]) *(uint4 *)(b.dx + part.at[j]) = y[j];
      }
      __syncwarp(); /* the tile before has left the stage */
      if (b.blocked) niti_wide_store_blocked(b.blocked, stage[warp], y, part, t.image, false);
    }
  }
  if (!second)
    niti_wide_raise(a, e);
  else
    niti_pass_end(a, second, 0);
}

bool niti_maxpool_wide(NitiCuda *cuda, const NitiMaxpoolBackward &b, const NitiRequantiseArgs &a) {
  const NitiPool &p = b.p;
  const bool few =
      p.kh * p.kw <= CELLS_MAX && niti_windows_most(p.kh, p.stride_h) * niti_windows_most(p.kw, p.stride_w) <= WINDOWS_MAX;
  if (!few || !niti_wide_serves(a)) return false;
  const Divisors v = divisors_of(b.tiles, p.c, p.w);
  void (*overlap)(NitiMaxpoolBackward, NitiRequantiseArgs, Divisors, bool) =
      a.mode == NITI_NEAREST ? overlap_kernel<NITI_WIDE_NEAREST> : overlap_kernel<NITI_WIDE_BYTE>;
  const unsigned all = (b.tiles.items + NITI_WIDE_WARPS - 1) / NITI_WIDE_WARPS, most = (unsigned)cuda->multiprocessors * 2;
  NITI_LAUNCH(cuda, overlap, all, NITI_WIDE_THREADS, 0, b, a, v, false);
  niti_cuda_share_range(cuda);
  NITI_LAUNCH(cuda, overlap, all < most ? all : most, NITI_WIDE_THREADS, 0, b, a, v, true);
  return true;
}
