/* AVX2: vpmaddwd sums pairs of int16 products, at most 2 * 12,700 * 28,575, exactly. A tile is 6 or 5 rows x 16 columns. */
#include <immintrin.h>

#include "backend/cpu/winograd_gradient_vector.h"

#define UNROLL _Pragma("GCC unroll 8")
enum { STEPS = 4 }; /* pairs per iteration */

NITI_VECTOR_INLINE NitiShorts load_pair(const int8_t *a, const int8_t *b) {
  const __m128i low = _mm_loadl_epi64((const __m128i *)(const void *)a), high = _mm_loadl_epi64((const __m128i *)(const void *)b);
  return (NitiShorts)_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(low, high));
}

static void transform_x(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels) {
  transform_x_of(out, stride, pixel, first, channels);
}

static void transform_dy(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels, uint32_t *sums) {
  transform_dy_of(out, stride, pixel, first, channels, sums);
}

/* sum + a . b as assembly because gcc 12 copies accumulators from register to register, and spills them. */
NITI_VECTOR_INLINE __m256i dot(__m256i sum, __m256i a, __m256i b) {
  __m256i product;
  __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a), "x"(b));
  return sum;
}

/* One pair of tiles. */
NITI_VECTOR_INLINE void step(__m256i (*sum)[2], const int16_t *rows, const int16_t *columns, const int count) {
  const __m256i b0 = _mm256_loadu_si256((const __m256i *)(const void *)columns),
                b1 = _mm256_loadu_si256((const __m256i *)(const void *)(columns + 16));
  UNROLL for (int m = 0; m < count; ++m) {
    int32_t pair;
    __builtin_memcpy(&pair, rows + m * 2, sizeof pair);
    const __m256i a = _mm256_set1_epi32(pair);
    sum[m][0] = dot(sum[m][0], a, b0);
    sum[m][1] = dot(sum[m][1], a, b1);
  }
}

/* next: one line of it is prefetched for every pair; NULL, known when compiled: none. */
NITI_VECTOR_INLINE void tile_of(int32_t *acc, size_t acc_stride, const int16_t *rows, const int16_t *columns, size_t pairs,
                                const int count, const int16_t *next) {
  __m256i sum[6][2];
  UNROLL for (int m = 0; m < count; ++m) sum[m][0] = sum[m][1] = _mm256_setzero_si256();
  size_t i = 0;
  for (; i + STEPS <= pairs; i += STEPS, rows += STEPS * NITI_GRADIENT_PAIR, columns += STEPS * NITI_GRADIENT_PAIR) {
    UNROLL for (size_t s = 0; s < STEPS; ++s) {
      if (next) _mm_prefetch((const char *)(next + (i + s) * NITI_GRADIENT_PAIR), _MM_HINT_T0);
      step(sum, rows + s * NITI_GRADIENT_PAIR, columns + s * NITI_GRADIENT_PAIR, count);
    }
  }
  for (; i < pairs; ++i, rows += NITI_GRADIENT_PAIR, columns += NITI_GRADIENT_PAIR) step(sum, rows, columns, count);
  UNROLL for (int m = 0; m < count; ++m) {
    _mm256_storeu_si256((__m256i *)(void *)(acc + (size_t)m * acc_stride), sum[m][0]);
    _mm256_storeu_si256((__m256i *)(void *)(acc + (size_t)m * acc_stride + 8), sum[m][1]);
  }
}

static void multiply(int32_t *acc, size_t acc_stride, const int16_t *rows, const int16_t *columns, size_t panel_stride,
                     size_t pairs, int panels, const int16_t *next_rows, const int16_t *next_columns) {
  for (int panel = 0; panel < panels;
       ++panel, acc += NITI_GRADIENT_PANEL, columns += panel_stride, next_columns += panel_stride) {
    tile_of(acc, acc_stride, rows, columns, pairs, 6, next_columns);
    tile_of(acc + 6 * acc_stride, acc_stride, rows + 12, columns, pairs, 5, next_rows);
    tile_of(acc + 11 * acc_stride, acc_stride, rows + 22, columns, pairs, 5, NULL);
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
    .pairs = 128,    /* slower products need less cache bandwidth */
    .pair_cost = 10, /* least times of both over 13 shapes of 2x2 to 32x32 pixels, 16 to 512 channels, batches 2 and 64 */
    .finish_cost = 70,
    .transform_x = transform_x,
    .transform_dy = transform_dy,
    .multiply = multiply,
    .finish = finish,
};
