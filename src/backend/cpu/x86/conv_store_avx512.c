/* Storing weight gradients by AVX-512: sixteen rows and columns at a time, so that sums are read and gradients written in whole
 * lines of a cache. */
#include <immintrin.h>

#include "backend/cpu/x86/conv_avx2.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
enum { LANES = 16 };

/* The columns of sixteen rows. */
INLINE void transpose(__m512i out[LANES], __m512i r[LANES]) {
  __m512i t[LANES];
  UNROLL for (int i = 0; i < LANES; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  UNROLL for (int i = 0; i < LANES; i += 4) { /* lane l of r[i + k]: rows i .. i + 3 of column 4 l + k */
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  UNROLL for (int k = 0; k < 4; ++k) {
    const __m512i a = _mm512_shuffle_i32x4(r[k], r[4 + k], 0x88), b = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(r[k], r[4 + k], 0xdd), d = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0xdd);
    out[k] = _mm512_shuffle_i32x4(a, b, 0x88);
    out[4 + k] = _mm512_shuffle_i32x4(c, d, 0x88);
    out[8 + k] = _mm512_shuffle_i32x4(a, b, 0xdd);
    out[12 + k] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
}

INLINE void store_block(int32_t *gradient, bool add, size_t stride, const int32_t *acc, size_t acc_stride) {
  __m512i rows[LANES], columns[LANES];
  UNROLL for (size_t i = 0; i < LANES; ++i) rows[i] = _mm512_loadu_si512(acc + i * acc_stride);
  transpose(columns, rows);
  UNROLL for (size_t i = 0; i < LANES; ++i) {
    int32_t *to = gradient + i * stride;
    _mm512_storeu_si512(to, add ? _mm512_add_epi32(columns[i], _mm512_loadu_si512(to)) : columns[i]);
  }
}

/* What is left of whole blocks, and gradients of 64 bits, are stored as AVX2 does. */
void niti_gradient_store_avx512(void *gradient, int bits, bool add, size_t stride, const int32_t *acc, size_t acc_stride,
                                int rows, int columns) {
  const int whole_rows = bits == 32 ? rows / LANES * LANES : 0, whole_columns = bits == 32 ? columns / LANES * LANES : 0;
  int32_t *narrow = gradient;
  for (int column = 0; column < whole_columns; column += LANES) {
    for (int row = 0; row < whole_rows; row += LANES)
      store_block(narrow + (size_t)column * stride + (size_t)row, add, stride, acc + (size_t)row * acc_stride + column,
                  acc_stride);
  }
  if (whole_rows == 0 || whole_columns == 0) {
    niti_gradient_store_avx2(gradient, bits, add, stride, acc, acc_stride, rows, columns);
    return;
  }
  niti_gradient_store_avx2(narrow + whole_rows, bits, add, stride, acc + (size_t)whole_rows * acc_stride, acc_stride,
                           rows - whole_rows, whole_columns);
  niti_gradient_store_avx2(narrow + (size_t)whole_columns * stride, bits, add, stride, acc + whole_columns, acc_stride, rows,
                           columns - whole_columns);
}
