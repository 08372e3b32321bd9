/* Winograd by AVX2: vpmaddwd sums pairs of int16 products. A full tile is 6 rows x 16 columns; the loop takes several groups at a
 * time, since instructions besides multiplying and adding cost time. */
#include <immintrin.h>

#include "backend/cpu/winograd.h"
#include "backend/cpu/winograd_vector.h"
#include "backend/cpu/x86/conv_avx2.h"

#define UNROLL _Pragma("GCC unroll 8")
enum { LANES = NITI_VECTOR_INTS, VECTORS = 2, ROWS_MAX = 6, STEPS = 4 };

/* sum + a . b as assembly because gcc 12 copies accumulators from register to register, and spills them. */
NITI_VECTOR_INLINE __m256i dot(__m256i sum, __m256i a, __m256i b) {
  __m256i product;
  __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a), "x"(b));
  return sum;
}

/* One group: in[m] + i are its activations. */
NITI_VECTOR_INLINE void step(__m256i (*sum)[VECTORS], const uint8_t *const *in, size_t i, const uint8_t *panel, const int rows,
                             const int vectors) {
  __m256i weights[VECTORS];
  UNROLL for (int v = 0; v < vectors; ++v) weights[v] = _mm256_loadu_si256((const __m256i *)(const void *)(panel + v * 32));
  UNROLL for (int m = 0; m < rows; ++m) {
    int32_t pair;
    __builtin_memcpy(&pair, in[m] + i, sizeof pair);
    const __m256i activations = _mm256_set1_epi32(pair);
    UNROLL for (int v = 0; v < vectors; ++v) sum[m][v] = dot(sum[m][v], activations, weights[v]);
  }
}

/* sets and runs are 1. */
NITI_VECTOR_INLINE void tile_of(const NitiMicrotile *t, const int rows, const int vectors) {
  __m256i sum[ROWS_MAX][VECTORS];
  const uint8_t *panel = t->panel, *in[ROWS_MAX];
  UNROLL for (int m = 0; m < rows; ++m) {
    UNROLL for (int v = 0; v < vectors; ++v) {
      sum[m][v] = _mm256_loadu_si256((const __m256i *)(const void *)(t->init + (size_t)m * t->init_stride + v * LANES));
    }
    in[m] = t->in + t->row_offset[m];
    __asm__("" : "+r"(in[m])); /* one register each: gcc would add the parts up again in the inner loop */
  }
  const size_t end = t->groups * 4, most = t->groups / STEPS * STEPS * 4;
  size_t i = 0;
  for (; i < most; i += STEPS * 4, panel += STEPS * vectors * 32) {
    UNROLL for (int s = 0; s < STEPS; ++s) step(sum, in, i + (size_t)s * 4, panel + s * vectors * 32, rows, vectors);
  }
  for (; i < end; i += 4, panel += vectors * 32) step(sum, in, i, panel, rows, vectors);
  UNROLL for (int m = 0; m < rows; ++m) {
    UNROLL for (int v = 0; v < vectors; ++v) {
      _mm256_storeu_si256((__m256i *)(void *)(t->acc + (m * vectors + v) * LANES), sum[m][v]);
    }
  }
}

#define TILE(rows, vectors) \
  static void tile_##rows##x##vectors(const NitiMicrotile *t) { tile_of(t, rows, vectors); }
#define TILES_1_TO_6(vectors) \
  TILE(1, vectors) TILE(2, vectors) TILE(3, vectors) TILE(4, vectors) TILE(5, vectors) TILE(6, vectors)
TILES_1_TO_6(1)
TILES_1_TO_6(2)

static void microkernel(const NitiMicrotile *t) {
  typedef void (*Tile)(const NitiMicrotile *);
  static const Tile tiles[VECTORS][ROWS_MAX] = {
      {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1},
      {tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2},
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

/* Worth: both drivers timed in turn on one core of an Ice Lake server, least of 7 runs, 16 to 512 channels, images of 2x2 to
 * 32x32, batches of 1 to 64. 16 -> 16 gains 1.2, 32 -> 32 1.4 and more, 64 and more channels 2 to 4; 512 -> 512 gains 1.4 at 16
 * tiles and loses at 4; 6x6 images (56 % of their tiles) gain 2.5, 5x5 images (39 %) gain or lose, 2x2 images (25 %) lose. */
const NitiWinogradKernels niti_winograd_kernels_avx2 = {
    .name = "avx2 winograd 4x4",
    .worth = {.channels = 16, .tiles = 16, .percent = 50},
    .channels = NITI_VECTOR_SHORTS,
    .lanes = LANES,
    .vectors = VECTORS,
    .mr = {0, ROWS_MAX, ROWS_MAX},
    .microkernel = microkernel,
    .panel_across = niti_panel_across_16x2_avx2,
    .panel_along = niti_panel_along_16x2_avx2,
    .requantise = niti_requantise_tile_avx2,
    .input = transform_input,
    .weights = transform_weights,
    .output = transform_output,
};
