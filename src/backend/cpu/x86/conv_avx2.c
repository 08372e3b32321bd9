/* AVX2: operands widened to int16, vpmaddwd sums pairs exactly (vpmaddubsw would saturate). A full tile is 6 rows x 16 columns.
 */
#include "backend/cpu/x86/conv_avx2.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
enum { LANES = 8, VECTORS = 2, ROWS_MAX = 6 };

INLINE __m256i load(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }

INLINE void tile_of(const NitiMicrotile *t, const int rows, const int vectors) {
  __m256i sum[ROWS_MAX][VECTORS];
  const uint8_t *panel = t->panel;
  UNROLL for (int m = 0; m < rows; ++m) {
    UNROLL for (int v = 0; v < vectors; ++v) sum[m][v] = load(t->init + (size_t)m * t->init_stride + v * LANES);
  }
  const size_t bytes = t->groups * 4;
  for (size_t set = 0; set < t->sets; ++set) {
    const uint8_t *in[ROWS_MAX];
    UNROLL for (int m = 0; m < rows; ++m) {
      in[m] = t->in + t->row_offset[m] + set * t->set_stride;
      __asm__("" : "+r"(in[m])); /* one register each: gcc would add the parts up again in the inner loop */
    }
    for (size_t run = 0, i = 0; run < t->runs; ++run, i += t->run_stride - bytes) {
      for (const size_t end = i + bytes; i < end; i += 4) {
        __m256i weights[VECTORS];
        UNROLL for (int v = 0; v < vectors; ++v) weights[v] = load(panel + v * 32);
        panel += vectors * 32;
        UNROLL for (int m = 0; m < rows; ++m) {
          int32_t pair;
          __builtin_memcpy(&pair, in[m] + i, sizeof pair);
          const __m256i activations = _mm256_set1_epi32(pair);
          UNROLL for (int v = 0; v < vectors; ++v) {
            sum[m][v] = _mm256_add_epi32(sum[m][v], _mm256_madd_epi16(activations, weights[v]));
          }
        }
      }
    }
  }
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

const NitiConvKernels niti_conv_kernels_avx2 = {
    .name = "avx2 6x16 direct",
    .element = 2,
    .group = 2,
    .lanes = LANES,
    .vectors = VECTORS,
    .mr = {0, 6, 6},
    .microkernel = microkernel,
    .convert = niti_convert_16_avx2,
    .zero = niti_zero_16_avx2,
    .transpose = niti_transpose_16_avx2,
    .panel_across = niti_panel_across_16x2_avx2,
    .panel_along = niti_panel_along_16x2_avx2,
    .requantise = niti_requantise_tile_avx2,
    .store = niti_gradient_store_avx2,
};
