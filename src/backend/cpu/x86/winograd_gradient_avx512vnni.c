/* AVX-512 VNNI: vpdpwssd sums pairs of int16 products without saturation. A full tile is 6 or 5 rows x 64 columns, so that 16
 * rows make three of them: 4 loads, 6 broadcasts and up to two prefetches feed 24 multiply-adds. Instructions besides these cost
 * time, so the loop takes several pairs of tiles at a time. */
#include <immintrin.h>

#include "backend/cpu/winograd_gradient_vector.h"

#define UNROLL _Pragma("GCC unroll 16")
enum { ROWS_MAX = 16, STEPS = 4 };

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

static void transform_dy(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels, uint32_t *sums) {
  transform_dy_of(out, stride, pixel, first, channels, sums);
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

/* One pair of tiles. columns[v] + i are its columns. */
NITI_VECTOR_INLINE void step(__m512i (*sum)[NITI_GRADIENT_COLUMN_PANELS], const int16_t *rows, const int16_t *const *columns,
                             size_t i, const int count, const int panels) {
  __m512i b[NITI_GRADIENT_COLUMN_PANELS];
  UNROLL for (int v = 0; v < panels; ++v) b[v] = _mm512_loadu_si512(columns[v] + i);
  UNROLL for (int m = 0; m < count; ++m) {
    const __m512i a = broadcast(rows + i + m * 2);
    UNROLL for (int v = 0; v < panels; ++v) sum[m][v] = dot(sum[m][v], a, b[v]);
  }
}

/* next: one line of each is prefetched for every pair; NULL, known when compiled: none. */
NITI_VECTOR_INLINE void tile_of(int32_t *acc, size_t acc_stride, const int16_t *rows, const int16_t *columns, size_t panel_stride,
                                size_t pairs, const int count, const int panels, const int16_t *next, const int16_t *also) {
  __m512i sum[ROWS_MAX][NITI_GRADIENT_COLUMN_PANELS];
  const int16_t *column[NITI_GRADIENT_COLUMN_PANELS];
  UNROLL for (int v = 0; v < panels; ++v) {
    column[v] = columns + (size_t)v * panel_stride;
    __asm__("" : "+r"(column[v])); /* one register each, which all steps share */
  }
  UNROLL for (int m = 0; m < count; ++m) {
    UNROLL for (int v = 0; v < panels; ++v) { sum[m][v] = _mm512_setzero_si512(); }
  }
  const size_t end = pairs * NITI_GRADIENT_PAIR, most = pairs / STEPS * STEPS * NITI_GRADIENT_PAIR;
  size_t i = 0;
  for (; i < most; i += STEPS * NITI_GRADIENT_PAIR) {
    UNROLL for (size_t s = 0; s < STEPS * NITI_GRADIENT_PAIR; s += NITI_GRADIENT_PAIR) {
      if (next) _mm_prefetch((const char *)(next + i + s), _MM_HINT_T0);
      if (also) _mm_prefetch((const char *)(also + i + s), _MM_HINT_T0);
      step(sum, rows, column, i + s, count, panels);
    }
  }
  for (; i < end; i += NITI_GRADIENT_PAIR) step(sum, rows, column, i, count, panels);
  UNROLL for (int m = 0; m < count; ++m) {
    UNROLL for (int v = 0; v < panels; ++v) _mm512_storeu_si512(acc + (size_t)m * acc_stride + v * 16, sum[m][v]);
  }
}

/* `count` rows from `first` on. */
#define CALL(first, count, panels, next, also) \
  tile_of(acc + (first)*acc_stride, acc_stride, rows + (first)*2, columns, panel_stride, pairs, count, panels, next, also)

static void multiply(int32_t *acc, size_t acc_stride, const int16_t *rows, const int16_t *columns, size_t panel_stride,
                     size_t pairs, int panels, const int16_t *next_rows, const int16_t *next_columns) {
  const int16_t *next[NITI_GRADIENT_COLUMN_PANELS];
  for (size_t v = 0; v < NITI_GRADIENT_COLUMN_PANELS; ++v) next[v] = next_columns + v * panel_stride;
  switch (panels) {
    case 1: CALL(0, 16, 1, next[0], next_rows); break;
    case 2:
      CALL(0, 8, 2, next[0], next_rows);
      CALL(8, 8, 2, next[1], NULL);
      break;
    case 3:
      CALL(0, 6, 3, next[0], next_rows);
      CALL(6, 5, 3, next[1], NULL);
      CALL(11, 5, 3, next[2], NULL);
      break;
    default:
      CALL(0, 6, 4, next[0], next_rows);
      CALL(6, 5, 4, next[1], next[2]);
      CALL(11, 5, 4, next[3], NULL);
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
    .transform_dy = transform_dy,
    .multiply = multiply,
    .finish = finish,
};
