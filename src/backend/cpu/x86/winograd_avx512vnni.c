/* Winograd by AVX-512: vpdpwssd sums pairs of int16 products without saturation. A full tile is 6 rows x 64 columns: 4 loads of
 * weights, 6 broadcasts and a prefetch feed 24 multiply-adds. Instructions besides the multiply-adds cost time, so the loop takes
 * several groups at a time. */
#include <immintrin.h>

#include "backend/cpu/winograd.h"
#include "backend/cpu/winograd_vector.h"
#include "backend/cpu/x86/conv_avx2.h"

#define UNROLL _Pragma("GCC unroll 16")
enum { LANES = 16, ROWS_MAX = 12, STEPS = 4 };

/* As assembly because gcc 12 copies the accumulators of the intrinsic from register to register. */
NITI_VECTOR_INLINE __m512i dot(__m512i sum, __m512i activations, __m512i weights) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(activations), "v"(weights));
  return sum;
}

NITI_VECTOR_INLINE __m512i broadcast(const uint8_t *from) {
  __m512i v;
  __asm__("vpbroadcastd %1, %0" : "=v"(v) : "m"(*(const uint32_t(*)[1])(const void *)from));
  return v;
}

/* One group: in[m] + i are its activations. */
NITI_VECTOR_INLINE void step(__m512i (*sum)[NITI_NR_VECTORS], const uint8_t *const *in, size_t i, const uint8_t *panel,
                             const uint8_t *ahead, const int rows, const int vectors) {
  __m512i weights[NITI_NR_VECTORS];
  UNROLL for (int v = 0; v < vectors; ++v) weights[v] = _mm512_loadu_si512(panel + v * 64);
  _mm_prefetch((const char *)ahead, _MM_HINT_T1);
  UNROLL for (int m = 0; m < rows; ++m) {
    const __m512i activations = broadcast(in[m] + i);
    UNROLL for (int v = 0; v < vectors; ++v) sum[m][v] = dot(sum[m][v], activations, weights[v]);
  }
}

/* sets and runs are 1. */
NITI_VECTOR_INLINE void tile_of(const NitiMicrotile *t, const int rows, const int vectors) {
  __m512i sum[ROWS_MAX][NITI_NR_VECTORS];
  const uint8_t *panel = t->panel, *ahead = t->ahead ? t->ahead : t->panel, *in[ROWS_MAX];
  UNROLL for (int m = 0; m < rows; ++m) {
    UNROLL for (int v = 0; v < vectors; ++v) { sum[m][v] = _mm512_loadu_si512(t->init + (size_t)m * t->init_stride + v * LANES); }
    in[m] = t->in + t->row_offset[m];
    __asm__("" : "+r"(in[m])); /* one register each: gcc would add the parts up again in the inner loop */
  }
  const size_t end = t->groups * 4, most = t->groups / STEPS * STEPS * 4;
  size_t i = 0;
  for (; i < most; i += STEPS * 4, panel += STEPS * vectors * 64, ahead += STEPS * 64) {
    UNROLL for (int s = 0; s < STEPS; ++s) {
      step(sum, in, i + (size_t)s * 4, panel + s * vectors * 64, ahead + s * 64, rows, vectors);
    }
  }
  for (; i < end; i += 4, panel += vectors * 64, ahead += 64) step(sum, in, i, panel, ahead, rows, vectors);
  UNROLL for (int m = 0; m < rows; ++m) {
    UNROLL for (int v = 0; v < vectors; ++v) _mm512_storeu_si512(t->acc + (m * vectors + v) * LANES, sum[m][v]);
  }
}

#define TILE(rows, vectors) \
  static void tile_##rows##x##vectors(const NitiMicrotile *t) { tile_of(t, rows, vectors); }
#define TILES_1_TO_6(vectors) \
  TILE(1, vectors) TILE(2, vectors) TILE(3, vectors) TILE(4, vectors) TILE(5, vectors) TILE(6, vectors)
#define TILES_7_TO_12(vectors) \
  TILE(7, vectors) TILE(8, vectors) TILE(9, vectors) TILE(10, vectors) TILE(11, vectors) TILE(12, vectors)
TILES_1_TO_6(1)
TILES_1_TO_6(2)
TILES_1_TO_6(3)
TILES_1_TO_6(4)
TILES_7_TO_12(1)
TILES_7_TO_12(2)
TILE(7, 3)
TILE(8, 3)

static void microkernel(const NitiMicrotile *t) {
  typedef void (*Tile)(const NitiMicrotile *);
  static const Tile tiles[NITI_NR_VECTORS][ROWS_MAX] = {
      {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1, tile_7x1, tile_8x1, tile_9x1, tile_10x1, tile_11x1, tile_12x1},
      {tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2, tile_7x2, tile_8x2, tile_9x2, tile_10x2, tile_11x2, tile_12x2},
      {tile_1x3, tile_2x3, tile_3x3, tile_4x3, tile_5x3, tile_6x3, tile_7x3, tile_8x3},
      {tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4},
  };
  tiles[t->vectors - 1][t->rows - 1](t);
}

static uint64_t transform_input(int16_t *v, size_t stride, const int8_t *const *in, size_t channels) {
  return niti_winograd_input_tile(v, stride, in, channels);
}

static void transform_weights(int16_t *u, size_t stride, const int16_t *w, size_t tap_stride, size_t groups, int columns,
                              int32_t *magnitudes, int32_t *squares) {
  niti_winograd_weights_panel(u, stride, w, tap_stride, groups, columns, magnitudes, squares);
}

static void transform_output(int32_t *acc, size_t acc_stride, const int32_t *m, size_t stride, int columns, bool add) {
  if (add)
    niti_winograd_output_tile(acc, acc_stride, m, stride, columns, true);
  else
    niti_winograd_output_tile(acc, acc_stride, m, stride, columns, false);
}

#define KERNELS                                                                                                             \
  .name = "avx512vnni winograd 4x4", .channels = NITI_VECTOR_SHORTS, .lanes = LANES, .vectors = 4, .mr = {0, 12, 12, 8, 6}, \
  .microkernel = microkernel, .panel_across = niti_panel_across_16x2_avx2, .panel_along = niti_panel_along_16x2_avx2,       \
  .requantise = niti_requantise_tile_avx512, .input = transform_input, .weights = transform_weights, .output = transform_output

/* Worth: both drivers timed in turn on one core of an Ice Lake server, least of 7 runs, 16 to 512 channels, images of 2x2 to
 * 32x32, batches of 1 to 64. 128 -> 128 gains 1.1 at 64 tiles and 1.3 and more at 1,024 and 4,096; 64 -> 64 loses 2 to 15 %; 512
 * -> 512 gains 1.1 at 64 tiles of 4x4 images and loses at 16; 7x7 images (77 % of their tiles) gain nothing. */
const NitiWinogradKernels niti_winograd_kernels_avx512vnni = {KERNELS, .worth = {.channels = 128, .tiles = 64, .percent = 85}};

/* Half as many multiply-adds a cycle leave the transforms' share smaller. On one core of a Zen 4 server, batch 64: 16 -> 16 and
 * 32 -> 16 lose 30 to 50 %, 32 -> 32 gains 1.15, 48 -> 48 nothing, 64 -> 64 1.4, 128 -> 128 1.6; 7x7 and 14x14 images gain 1.1 at
 * 64 channels and 1.2 to 1.4 from 128 on. */
const NitiWinogradKernels niti_winograd_kernels_avx512vnni_halves = {KERNELS,
                                                                     .worth = {.channels = 32, .tiles = 64, .percent = 70}};
