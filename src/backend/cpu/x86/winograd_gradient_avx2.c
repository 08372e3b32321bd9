/* AVX2: vpmaddwd sums pairs of int16 products, at most 2 * 12,700 * 28,575, exactly. A tile is 4 rows x 16 columns. */
#include <immintrin.h>

#include "backend/cpu/winograd_gradient_vector.h"

#define UNROLL _Pragma("GCC unroll 8")

NITI_VECTOR_INLINE NitiShorts load_pair(const int8_t *a, const int8_t *b) {
  const __m128i low = _mm_loadl_epi64((const __m128i *)(const void *)a), high = _mm_loadl_epi64((const __m128i *)(const void *)b);
  return (NitiShorts)_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(low, high));
}

static void transform_x(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels) {
  transform_x_of(out, stride, pixel, first, channels);
}

static void transform_error(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels, uint32_t *sums) {
  transform_error_of(out, stride, pixel, first, channels, sums);
}

NITI_VECTOR_INLINE __m256i load(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }

NITI_VECTOR_INLINE void tile_of(int32_t *acc, size_t acc_stride, const int16_t *rows, const int16_t *columns, size_t pairs,
                         const int count, bool add) {
  __m256i sum[6][2];
  UNROLL for (int m = 0; m < count; ++m) {
    UNROLL for (int v = 0; v < 2; ++v) sum[m][v] = add ? load(acc + (size_t)m * acc_stride + v * 8) : _mm256_setzero_si256();
  }
  for (size_t i = 0; i < pairs * NITI_GRADIENT_PAIR; i += NITI_GRADIENT_PAIR) {
    const __m256i b[2] = {load(columns + i), load(columns + i + 16)};
    UNROLL for (int m = 0; m < count; ++m) {
      int32_t pair;
      __builtin_memcpy(&pair, rows + i + m * 2, sizeof pair);
      const __m256i a = _mm256_set1_epi32(pair);
      UNROLL for (int v = 0; v < 2; ++v) sum[m][v] = _mm256_add_epi32(sum[m][v], _mm256_madd_epi16(a, b[v]));
    }
  }
  UNROLL for (int m = 0; m < count; ++m) {
    UNROLL for (int v = 0; v < 2; ++v) _mm256_storeu_si256((__m256i *)(void *)(acc + (size_t)m * acc_stride + v * 8), sum[m][v]);
  }
}

static void multiply(int32_t *acc, size_t acc_stride, const int16_t *rows, const int16_t *columns, size_t panel_stride,
                     size_t pairs, int panels, bool add) {
  for (int panel = 0; panel < panels; ++panel, acc += NITI_GRADIENT_PANEL, columns += panel_stride) {
    tile_of(acc, acc_stride, rows, columns, pairs, 6, add);
    tile_of(acc + 6 * acc_stride, acc_stride, rows + 12, columns, pairs, 5, add);
    tile_of(acc + 11 * acc_stride, acc_stride, rows + 22, columns, pairs, 5, add);
  }
}

static void finish(void *gradient, int bits, bool add, size_t tap_stride, const int32_t *acc, size_t stride, int channels) {
  if (bits == 32)
    finish_of(gradient, 32, add, tap_stride, acc, stride, channels);
  else
    finish_of(gradient, 64, add, tap_stride, acc, stride, channels);
}

const NitiWinogradGradientKernels niti_winograd_gradient_avx2 = {
    .name = "avx2 winograd 4x4",
    .block_rows = 64,
    .transform_x = transform_x,
    .transform_error = transform_error,
    .multiply = multiply,
    .finish = finish,
};
