/* AVX-512 VNNI: vpdpwssd sums pairs of int16 products without saturation. A full tile is 4 rows x 64 columns, so that 16 rows
 * make four of them: 4 loads and 4 broadcasts feed 16 multiply-adds. */
#include <immintrin.h>

#include "backend/cpu/winograd_gradient_vector.h"

#define UNROLL _Pragma("GCC unroll 16")
enum { ROWS_MAX = 16 };

NITI_VECTOR_INLINE NitiShorts load_pair(const int8_t *a, const int8_t *b) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                         19, 3, 18, 2, 17, 1, 16, 0);
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)a)),
                                               _mm_loadu_si128((const __m128i *)(const void *)b), 1);
  return (NitiShorts)_mm512_permutexvar_epi16(order, _mm512_cvtepi8_epi16(both));
}

static void transform_x(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels) {
  transform_x_of(out, stride, pixel, first, channels);
}

static void transform_error(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels, uint32_t *sums) {
  transform_error_of(out, stride, pixel, first, channels, sums);
}

/* As assembly because gcc 12 copies the accumulators of the intrinsic from register to register. */
NITI_VECTOR_INLINE __m512i dot(__m512i sum, __m512i a, __m512i b) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

NITI_VECTOR_INLINE __m512i broadcast(const int16_t *from) {
  __m512i v;
  __asm__("vpbroadcastd %1, %0" : "=v"(v) : "m"(*(const int32_t(*)[1])(const void *)from));
  return v;
}

NITI_VECTOR_INLINE void tile_of(int32_t *acc, size_t acc_stride, const int16_t *rows, const int16_t *columns, size_t panel_stride,
                                size_t pairs, const int count, const int panels, const int16_t *next, const int16_t *also) {
  __m512i sum[ROWS_MAX][NITI_GRADIENT_COLUMN_PANELS];
  UNROLL for (int m = 0; m < count; ++m) {
    UNROLL for (int v = 0; v < panels; ++v) { sum[m][v] = _mm512_setzero_si512(); }
  }
  for (size_t i = 0; i < pairs * NITI_GRADIENT_PAIR; i += NITI_GRADIENT_PAIR) {
    _mm_prefetch((const char *)(next + i), _MM_HINT_T0);
    if (also) _mm_prefetch((const char *)(also + i), _MM_HINT_T0);
    __m512i b[NITI_GRADIENT_COLUMN_PANELS];
    UNROLL for (int v = 0; v < panels; ++v) b[v] = _mm512_loadu_si512(columns + (size_t)v * panel_stride + i);
    UNROLL for (int m = 0; m < count; ++m) {
      const __m512i a = broadcast(rows + i + m * 2);
      UNROLL for (int v = 0; v < panels; ++v) sum[m][v] = dot(sum[m][v], a, b[v]);
    }
  }
  UNROLL for (int m = 0; m < count; ++m) {
    UNROLL for (int v = 0; v < panels; ++v) _mm512_storeu_si512(acc + (size_t)m * acc_stride + v * 16, sum[m][v]);
  }
}

/* Calls number 0, 1 .. prefetch the columns of panel 0, 1 .., the first the rows too. */
#define CALL(number, count, panels)                                                                                              \
  tile_of(acc + number * count * acc_stride, acc_stride, rows + number * count * 2, columns, panel_stride, pairs, count, panels, \
          next_columns + number * panel_stride, number == 0 ? next_rows : NULL)

static void multiply(int32_t *acc, size_t acc_stride, const int16_t *rows, const int16_t *columns, size_t panel_stride,
                     size_t pairs, int panels, const int16_t *next_rows, const int16_t *next_columns) {
  switch (panels) {
    case 1:
      CALL(0, 16, 1);
      break;
    case 2:
      CALL(0, 8, 2);
      CALL(1, 8, 2);
      break;
    case 3:
      CALL(0, 4, 3);
      CALL(1, 4, 3);
      CALL(2, 4, 3);
      CALL(3, 4, 3);
      break;
    default:
      CALL(0, 4, 4);
      CALL(1, 4, 4);
      CALL(2, 4, 4);
      CALL(3, 4, 4);
  }
}

static void finish(void *gradient, int bits, bool add, size_t tap_stride, const int32_t *acc, size_t stride, int channels) {
  if (bits == 32)
    finish_of(gradient, 32, add, tap_stride, acc, stride, channels);
  else
    finish_of(gradient, 64, add, tap_stride, acc, stride, channels);
}

const NitiWinogradGradientKernels niti_winograd_gradient_avx512vnni = {
    .name = "avx512vnni winograd 4x4",
    .pairs = 64,     /* 64 columns of a frequency fit the first-level cache twice, those of all the second */
    .pair_cost = 21, /* least times of both over 13 shapes of 2x2 to 32x32 pixels, 16 to 512 channels, batches 2 and 64 */
    .finish_cost = 236,
    .transform_x = transform_x,
    .transform_error = transform_error,
    .multiply = multiply,
    .finish = finish,
};
