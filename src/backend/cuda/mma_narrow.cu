/* Convolution forward, and backward to the input, with mma.sync, where there are too few rows and columns for tiles to keep the
 * device busy: a classifier's linear layer, one image. Blocks of 16 rows and 16 columns whose 8 warps share the sum, each loading
 * its operands as 16-byte runs straight into the instruction's registers. */
#include "backend/cuda/meet.cuh"
#include "backend/cuda/mma.cuh"
#include "base/norm.h"

enum { WARPS = 8, THREADS = WARPS * 32, SIDE = 16 };
static_assert(THREADS == SIDE * SIDE, "a thread finishes one accumulator");

static __device__ inline uint4 load(const int8_t *from, bool there) {
  return there ? __ldg((const uint4 *)from) : make_uint4(0, 0, 0, 0);
}

/* The block's sums of a tile: one accumulator a thread. The sum may take any order that both operands share: lane q takes bytes
 * 16 q
 * .. 16 q + 15 of every 64. */
static __device__ inline int multiply(const NitiMmaPass &p, uint32_t first, int across, int (*sums)[SIDE][SIDE]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, q = lane % 4;
  const int chunks = p.tap_rows * p.tap_columns * p.ic / 16;
  const NitiMmaWindow windows[2] = {niti_mma_window(p, first, g), niti_mma_window(p, first, g + 8)};
  const int8_t *w = p.w + (across + g) * p.w_pitch;
  int acc[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
#pragma unroll 4
  for (int begin = warp * 4; begin < chunks; begin += WARPS * 4) {
    const uint32_t chunk = begin + q, tap = niti_divide(p.runs, chunk), tap_y = niti_divide(p.taps, tap);
    const int y = (int)tap_y, x = (int)(tap - tap_y * p.taps.divisor), channel = (int)(chunk - tap * p.runs.divisor) * 16;
    const bool there = (int)chunk < chunks;
    const int from = y * p.in_row + x * p.ic + channel;
    const uint4 a = load(windows[0].at + from, there && niti_mma_inside(p, windows[0], y, x));
    const uint4 b = load(windows[1].at + from, there && niti_mma_inside(p, windows[1], y, x));
    const uint4 c = load(w + chunk * 16, there && across + g < p.oc);
    const uint4 d = load(w + 8 * p.w_pitch + chunk * 16, there && across + g + 8 < p.oc);
    niti_mma(acc[0], a.x, b.x, a.y, b.y, c.x, c.y);
    niti_mma(acc[1], a.x, b.x, a.y, b.y, d.x, d.y);
    niti_mma(acc[0], a.z, b.z, a.w, b.w, c.z, c.w);
    niti_mma(acc[1], a.z, b.z, a.w, b.w, d.z, d.w);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) sums[warp][g + i % 4 / 2 * 8][i / 4 * 8 + 2 * q + i % 2] = acc[i / 4][i % 4];
  __syncthreads();
  int sum = 0;
#pragma unroll
  for (int i = 0; i < WARPS; ++i) sum += sums[i][threadIdx.x / SIDE][threadIdx.x % SIDE];
  __syncthreads(); /* read; the next tile may write */
  return sum;
}

static __device__ inline int bias_of(const NitiMmaPass &p, int column) {
  if (p.rq.means) return niti_norm_centre(p.rq.means[column], *p.rq.e_a + *p.rq.e_b);
  return p.rq.bias ? p.rq.bias[column] : 0;
}

static __global__ void __launch_bounds__(THREADS) narrow(const __grid_constant__ NitiMmaPass p, const bool second) {
  niti_kernel_begin();
  __shared__ int sums[WARPS][SIDE][SIDE];
  int shift;
  if (!niti_mma_begin(p, second, &shift)) return;
  const uint32_t lowered = niti_lowered(p.rq.limit, p.rq.e_limit);
  for (uint32_t tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
    const uint32_t down = niti_divide(p.tiles_across, tile), first = down * ((uint32_t)SIDE >> p.image_bits);
    const int across = (int)(tile - down * p.tiles_across.divisor) * SIDE;
    const uint32_t seen = niti_mma_seen(p);
    const int column = across + (int)threadIdx.x % SIDE;
    const NitiMmaPlace place = niti_mma_place(p, first, threadIdx.x / SIDE);
    const bool inside = column < p.oc && place.image < p.n; /* what is beyond stays 0, which no range sees */
    const int bias = inside ? bias_of(p, column) : 0, acc = multiply(p, first, across, sums) + bias;
    if (p.meets)
      shift = niti_meet_all(p.rq, (uint32_t)abs(acc));
    else if (!second)
      niti_mma_raise(p, (uint32_t)abs(acc), seen);
    if (column >= p.oc) continue;
    const int64_t pixel = niti_mma_out(p, place) + column, at = place.image * p.out_image + pixel;
    int m = niti_requantise_one(p.rq, acc, shift, (uint64_t)at);
    if (p.rq.relu) m = max(m, 0);
    if (place.image < p.n) {
      if (p.mask && !(niti_passing_signs((uint8_t)p.mask[at], lowered) & 0x80)) m = 0;
      p.out[at] = (int8_t)m;
    }
    const int block = place.image / NITI_BLOCK_IMAGES;
    if (p.blocked && block * NITI_BLOCK_IMAGES < p.n) {
      p.blocked[(block * p.out_image + pixel) * NITI_BLOCK_IMAGES + niti_blocked_slot(place.image % NITI_BLOCK_IMAGES)] =
          (int8_t)m;
    }
  }
  if (second) {
    __syncthreads();
    if (threadIdx.x == 0) niti_range_end(p.rq, p.second_blocks);
  }
}

NitiMmaVariant niti_mma_narrow(void) { return NitiMmaVariant{narrow, NULL, SIDE, SIDE, THREADS, 0, 4, true}; }
