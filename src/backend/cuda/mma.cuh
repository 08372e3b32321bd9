/* What the mma.sync kernels share: division by constants, a pass as a matrix product, and the end of a pass.
 *
 * A pass (forward, or backward to the input) is a product: rows are output pixels, columns output channels, the sum runs over
 * taps and input channels. From 16 images on, row ((block * pixels + pixel) * 16 + i) is pixel `pixel` of image 16 * block + i:
 * 16 neighbouring rows are the images of one pixel, as the blocked layout has them. With fewer images, row (image * pixels +
 * pixel). */
#ifndef NITI_BACKEND_CUDA_MMA_CUH
#define NITI_BACKEND_CUDA_MMA_CUH

#include "backend/cuda/device.cuh"
#include "backend/cuda/divisor.cuh"

enum {
  NITI_MMA_THREADS = 128,
  NITI_MMA_RUN = 64,        /* bytes of the sum in one stage of a tile whose input channels are a multiple of 16 */
  NITI_MMA_GATHER_RUN = 32, /* the same where single bytes or words are gathered */
  NITI_MMA_PHASES = 4,      /* passes that one launch can take: those of stride 2 */
  NITI_MMA_FAST_SHIFT = 23, /* with larger shifts 32 bits may not hold acc + half */
};

/* NitiDivisor for dividends and divisors, each at least 2, whose product is below 2^32. */
struct NitiSmallDivisor {
  uint32_t divisor, multiplier;
};

static inline NitiSmallDivisor niti_small_divisor(uint32_t divisor) {
  return NitiSmallDivisor{divisor, (uint32_t)((((uint64_t)1 << 32) + divisor - 1) / divisor)};
}

/* An input position of the flattened sum: its offset from the window's first element, and its tap. */
struct NitiMmaEntry {
  int32_t offset;
  uint16_t tap_y, tap_x;
};

/* By value to a kernel. Offsets and strides in elements. */
struct NitiMmaPass {
  const int8_t *in;          /* [N][IH][IW][IC] */
  const int8_t *w;           /* [OC] rows of w_pitch bytes: [TAP_ROWS][TAP_COLUMNS][IC] */
  const NitiMmaEntry *table; /* of a gathered pass: as many as a row of w has bytes */
  int8_t *out, *blocked;     /* blocked NULL: not to be written */
  const int8_t *mask;        /* NULL, or the output becomes 0 where it is <= 0 or not below rq.limit; laid out like out */
  int32_t n, ih, iw, ic;
  int32_t jh, jw, oc; /* output pixels (y, x) of this pass; its window starts at (y * step_y + tap_y, x * step_x + tap_x) */
  int32_t step_y, step_x, tap_y, tap_x, tap_rows, tap_columns;
  int32_t group; /* input channels that one tap takes before the next: the sum's order is (tap row, group, tap column, channel) */
  NitiSmallDivisor sum_rows, sum_groups, sum_cells; /* 8-byte units of the sum in one tap row, one group of it, one tap of that */
  int32_t by_words;                                 /* a gathered pass may read 4 bytes at once */
  int32_t image_bits;                               /* 4: rows are blocks of 16 images; 0: they are not */
  size_t w_pitch;
  int32_t in_row;
  int64_t in_image;
  int64_t out_base, out_pixel, out_row, out_image;
  NitiDivisor pixels, columns; /* jh * jw, jw */
  NitiDivisor taps, runs;      /* tap_columns, ic / 16 */
  NitiDivisor tiles_across;
  uint32_t tiles;
  uint32_t second_blocks; /* of every second launch of the operation together */
  bool meets;             /* each block has one tile, and all meet: there is no second launch (meet.cuh) */
  NitiRequantiseArgs rq;
};

/* The passes of an operation as one launch, by value to a kernel. */
struct NitiMmaPhases {
  NitiMmaPass pass[NITI_MMA_PHASES]; /* of equal rq and second_blocks */
  uint32_t from[NITI_MMA_PHASES];    /* the first tile of each; past the last pass: tiles */
  uint32_t tiles;
};

/* Host: a kernel and its tile. */
typedef void (*NitiMmaKernel)(NitiMmaPass, bool);
typedef void (*NitiMmaPhasedKernel)(NitiMmaPhases, bool);
struct NitiMmaVariant {
  NitiMmaKernel kernel;
  NitiMmaPhasedKernel phased;                 /* the same for several passes; NULL: none */
  int rows, columns, threads, shared, blocks; /* of one multiprocessor */
  bool centres;                               /* takes rq.means */
};
NitiMmaVariant niti_mma_tiled(int oc, bool gather, int columns); /* mma_tiled.cu; columns: of a tile, 0: by oc */
bool niti_mma_tiles(int oc, int columns);                        /* whether there are such tiles for these channels */
NitiMmaVariant niti_mma_narrow(void); /* mma_narrow.cu: few rows and columns, a long sum; IC % 16 == 0 */

void niti_mma_gradient(NitiCuda *, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x, const NitiConv *, int way);
int niti_mma_gradient_ways(NitiWay ways[NITI_WAYS_MAX], int count);
int niti_mma_gradient_way(const NitiConv *, int multiprocessors, int64_t *picoseconds); /* the fastest, as expected */

#ifdef __CUDACC__

__device__ inline uint32_t niti_divide(const NitiSmallDivisor &d, uint32_t t) { return __umulhi(t, d.multiplier); }

/* b[2 j], b[2 j + 1]: two neighbouring blocks of 8 columns as one matrix load gives them. */
template <int MI, int NI>
__device__ inline void niti_mma_all(int (&acc)[MI][NI][4], const uint32_t (&a)[MI][4], const uint32_t (&b)[NI / 2][4]) {
#pragma unroll
  for (int mi = 0; mi < MI; ++mi) {
#pragma unroll
    for (int ni = 0; ni < NI; ++ni) {
      niti_mma(acc[mi][ni], a[mi][0], a[mi][1], a[mi][2], a[mi][3], b[ni / 2][ni % 2 * 2], b[ni / 2][ni % 2 * 2 + 1]);
    }
  }
}

/* ---- rows ---- */
struct NitiMmaPlace {
  int32_t image;
  int32_t y, x;
};

/* Row `row` of a tile whose first row's pixel number (with the block's, or the image's, before it) is `first`. */
__device__ inline NitiMmaPlace niti_mma_place(const NitiMmaPass &p, uint32_t first, int row) {
  const uint32_t at = first + ((uint32_t)row >> p.image_bits), block = niti_divide(p.pixels, at);
  const uint32_t pixel = at - block * p.pixels.divisor, y = niti_divide(p.columns, pixel);
  NitiMmaPlace place;
  place.image = (int32_t)((block << p.image_bits) + ((uint32_t)row & ((1u << p.image_bits) - 1)));
  place.y = (int32_t)y;
  place.x = (int32_t)(pixel - y * p.columns.divisor);
  return place;
}

/* Offset of a place's first channel in its image of the output. */
__device__ inline int64_t niti_mma_out(const NitiMmaPass &p, const NitiMmaPlace &place) {
  return p.out_base + place.y * p.out_row + place.x * p.out_pixel;
}

/* A row's window in the input; y is far outside where the row has no image. */
struct NitiMmaWindow {
  const int8_t *at; /* may lie outside the input, like taps of it */
  int32_t y, x;
};

__device__ inline NitiMmaWindow niti_mma_window(const NitiMmaPass &p, uint32_t first, int row) {
  const NitiMmaPlace place = niti_mma_place(p, first, row);
  NitiMmaWindow window;
  window.y = place.y * p.step_y + p.tap_y;
  window.x = place.x * p.step_x + p.tap_x;
  window.at = p.in + (place.image * p.in_image + (int64_t)window.y * p.in_row + (int64_t)window.x * p.ic);
  if (place.image >= p.n) window.y = -(1 << 30);
  return window;
}

__device__ inline bool niti_mma_inside(const NitiMmaPass &p, const NitiMmaWindow &window, int tap_y, int tap_x) {
  return (uint32_t)(window.y + tap_y) < (uint32_t)p.ih && (uint32_t)(window.x + tap_x) < (uint32_t)p.iw;
}

/* ---- the end of a pass ---- */

/* niti_range_raise, sparing the one address what it had already: `seen`, read by niti_mma_seen some time before. */
__device__ inline uint32_t niti_mma_seen(const NitiMmaPass &p) { return *(const volatile uint32_t *)&p.rq.range->max; }
__device__ inline void niti_mma_raise(const NitiMmaPass &p, uint32_t max, uint32_t seen) {
  max = __reduce_max_sync(0xffffffffu, max);
  if ((threadIdx.x & 31) == 0 && max > seen) atomicMax(&p.rq.range->max, max);
}

/* The beginning of a launch: its shift; false: all done. Every thread calls it. */
__device__ inline bool niti_mma_begin(const NitiMmaPass &p, bool second, int *shift) {
  const bool work = niti_range_begin(p.rq, second, shift);
  if (second) {
    __syncthreads(); /* all have read the range */
    if (!work && threadIdx.x == 0) niti_range_end(p.rq, p.second_blocks);
  }
  return work;
}

/* Four accumulators, plus half, shifted, to bytes; RELU: negative ones (wherever rounded to) to 0. */
template <bool RELU>
__device__ inline uint32_t niti_mma_round4(int a, int b, int c, int d, uint32_t half, int shift) {
  int v[4] = {a, b, c, d};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    /* Ties away from zero: one less for negative accumulators. Wraps only where the shift is not the true one. */
    const uint32_t sum = RELU ? (uint32_t)v[i] + half : (uint32_t)v[i] + half + (uint32_t)(v[i] >> 31);
    v[i] = (int)sum >> shift;
    if (!RELU) v[i] = max(v[i], -NITI_MANTISSA_MAX);
  }
  const uint32_t word = niti_pack4(v[0], v[1], v[2], v[3]);
  return RELU ? word & ~niti_spread_signs(word) : word;
}

/* Bytes of word that stay: those that the mask's pass; lowered: niti_lowered's. */
__device__ inline uint32_t niti_mma_masked(uint32_t word, uint32_t mask, uint32_t lowered) {
  return word & niti_passing_bytes(mask, lowered);
}

#endif
#endif
