/* Products of few rows, 64 bytes of weights at a time. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/thin.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

enum { BYTES = 64, INTS = 16, OUTPUTS = 4, DEEP = 8 };

INLINE __mmask64 mask_of(size_t left) { return left >= BYTES ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1; }
INLINE __m512i load(const void *from, __mmask64 mask) { return _mm512_maskz_loadu_epi8(mask, from); }

/* ---- dots ---- */

/* Lane i of the result is the sum of all lanes of v[i]. */
INLINE __m128i add_lanes(const __m512i v[OUTPUTS]) {
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
  const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
  const __m512i c = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  const __m256i d = _mm256_add_epi32(_mm512_castsi512_si256(c), _mm512_extracti64x4_epi64(c, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1));
}

INLINE void dots_step(__m512i acc[NITI_THIN_ROWS][OUTPUTS], __m512i correction[OUTPUTS], const uint8_t *in, size_t in_stride,
                      const int8_t *w, size_t length, __mmask64 mask, const size_t rows, const size_t outputs) {
  const __m512i offset = _mm512_set1_epi8((char)128);
  __m512i v[OUTPUTS];
  UNROLL for (size_t o = 0; o < outputs; ++o) {
    v[o] = load(w + o * length, mask);
    correction[o] = _mm512_dpbusd_epi32(correction[o], offset, v[o]);
  }
  UNROLL for (size_t r = 0; r < rows; ++r) {
    const __m512i x = load(in + r * in_stride, mask);
    UNROLL for (size_t o = 0; o < outputs; ++o) acc[r][o] = _mm512_dpbusd_epi32(acc[r][o], x, v[o]);
  }
}

INLINE void dots_tile(int32_t *out, size_t acc_stride, const uint8_t *in, size_t in_stride, const int8_t *w, size_t length,
                      const size_t rows, const size_t outputs) {
  __m512i acc[NITI_THIN_ROWS][OUTPUTS], correction[OUTPUTS];
  size_t i = 0;
  UNROLL for (size_t o = 0; o < OUTPUTS; ++o) {
    correction[o] = _mm512_setzero_si512();
    UNROLL for (size_t r = 0; r < rows; ++r) acc[r][o] = _mm512_setzero_si512();
  }
  for (; i + BYTES <= length; i += BYTES)
    dots_step(acc, correction, in + i, in_stride, w + i, length, ~(__mmask64)0, rows, outputs);
  if (i < length) dots_step(acc, correction, in + i, in_stride, w + i, length, mask_of(length - i), rows, outputs);
  UNROLL for (size_t r = 0; r < rows; ++r) {
    UNROLL for (size_t o = 0; o < OUTPUTS; ++o) acc[r][o] = _mm512_sub_epi32(acc[r][o], correction[o]);
    int32_t sums[OUTPUTS];
    _mm_storeu_si128((__m128i *)(void *)sums, add_lanes(acc[r]));
    memcpy(out + r * acc_stride, sums, outputs * sizeof *sums);
  }
}

INLINE void dots_rows(int32_t *acc, size_t acc_stride, const uint8_t *in, size_t in_stride, const int8_t *w, size_t count,
                      size_t length, const size_t rows) {
  size_t o = 0;
  for (; o + OUTPUTS <= count; o += OUTPUTS) dots_tile(acc + o, acc_stride, in, in_stride, w + o * length, length, rows, OUTPUTS);
  for (; o < count; ++o) dots_tile(acc + o, acc_stride, in, in_stride, w + o * length, length, rows, 1);
}

static void dots(int32_t *acc, size_t acc_stride, const uint8_t *in, size_t in_stride, size_t rows, const int8_t *w, size_t count,
                 size_t length) {
  if (rows == 1)
    dots_rows(acc, acc_stride, in, in_stride, w, count, length, 1);
  else if (rows == 2)
    dots_rows(acc, acc_stride, in, in_stride, w, count, length, 2);
  else if (rows == 3)
    dots_rows(acc, acc_stride, in, in_stride, w, count, length, 3);
  else
    dots_rows(acc, acc_stride, in, in_stride, w, count, length, 4);
}

/* ---- sums ---- */

enum { BLOCKS = NITI_THIN_COLUMNS / BYTES };

/* Sums of a block of 64 columns: lane l of vector j has columns 16 l + 4 j .. + 3, as unpacking leaves them. */
typedef struct Block {
  __m512i v[4];
} Block;

/* Four rows of 64 columns as vectors of four bytes of each column. */
INLINE Block interleave(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
  const __m512i cd = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
  return (Block){{_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd), _mm512_unpacklo_epi16(ab_high, cd_high),
                  _mm512_unpackhi_epi16(ab_high, cd_high)}};
}

/* The columns of a block in order, less the correction's. */
INLINE void finish(int32_t *out, size_t count, const Block *sums, const Block *correction) {
  __m512i v[4], rows[4];
  int32_t all[BYTES];
  UNROLL for (int j = 0; j < 4; ++j) v[j] = _mm512_sub_epi32(sums->v[j], correction->v[j]);
  const __m512i a = _mm512_shuffle_i32x4(v[0], v[1], 0x44), b = _mm512_shuffle_i32x4(v[0], v[1], 0xee);
  const __m512i c = _mm512_shuffle_i32x4(v[2], v[3], 0x44), d = _mm512_shuffle_i32x4(v[2], v[3], 0xee);
  rows[0] = _mm512_shuffle_i32x4(a, c, 0x88);
  rows[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
  rows[2] = _mm512_shuffle_i32x4(b, d, 0x88);
  rows[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
  UNROLL for (int j = 0; j < 4; ++j) _mm512_storeu_si512(all + INTS * j, rows[j]);
  memcpy(out, all, count * sizeof *all);
}

/* DEEP rows of the weights, those beyond the last of zeros. */
INLINE void sums_deep(Block acc[NITI_THIN_ROWS + 1][BLOCKS], const uint8_t *in, size_t in_stride, const int8_t *w,
                      size_t w_stride, size_t deep, size_t count, const size_t rows) {
  static const int8_t zeros[NITI_THIN_COLUMNS];
  const int8_t *row[DEEP];
  __m512i x[NITI_THIN_ROWS + 1][2];
  for (size_t i = 0; i < DEEP; ++i) row[i] = i < deep ? w + i * w_stride : zeros;
  UNROLL for (size_t r = 0; r < rows; ++r) {
    int32_t fours[2] = {0, 0};
    memcpy(fours, in + r * in_stride, deep);
    x[r][0] = _mm512_set1_epi32(fours[0]);
    x[r][1] = _mm512_set1_epi32(fours[1]);
  }
  x[rows][0] = x[rows][1] = _mm512_set1_epi8((char)128);
  for (size_t c = 0, block = 0; c < count; c += BYTES, ++block) {
    const __mmask64 mask = mask_of(count - c);
    __m512i v[DEEP];
    UNROLL for (size_t i = 0; i < DEEP; ++i) {
      v[i] = load(row[i] + c, mask);
      if (deep == DEEP) _mm_prefetch((const char *)(row[i] + DEEP * w_stride + c), _MM_HINT_T0);
    }
    const Block low = interleave(v[0], v[1], v[2], v[3]), high = interleave(v[4], v[5], v[6], v[7]);
    UNROLL for (size_t r = 0; r <= rows; ++r) {
      UNROLL for (int j = 0; j < 4; ++j) {
        const __m512i first = _mm512_dpbusd_epi32(acc[r][block].v[j], x[r][0], low.v[j]);
        acc[r][block].v[j] = _mm512_dpbusd_epi32(first, x[r][1], high.v[j]);
      }
    }
  }
}

INLINE void sums_rows(int32_t *out, size_t acc_stride, const uint8_t *in, size_t in_stride, const int8_t *w, size_t w_stride,
                      size_t count, size_t length, const size_t rows) {
  Block acc[NITI_THIN_ROWS + 1][BLOCKS];
  for (size_t r = 0; r <= rows; ++r) memset(acc[r], 0, (count + BYTES - 1) / BYTES * sizeof(Block));
  for (size_t i = 0; i < length; i += DEEP)
    sums_deep(acc, in + i, in_stride, w + i * w_stride, w_stride, niti_least(DEEP, length - i), count, rows);
  for (size_t c = 0; c < count; c += BYTES) {
    for (size_t r = 0; r < rows; ++r)
      finish(out + r * acc_stride + c, niti_least(BYTES, count - c), &acc[r][c / BYTES], &acc[rows][c / BYTES]);
  }
}

static void sums(int32_t *acc, size_t acc_stride, const uint8_t *in, size_t in_stride, size_t rows, const int8_t *w,
                 size_t w_stride, size_t count, size_t length) {
  if (rows == 1)
    sums_rows(acc, acc_stride, in, in_stride, w, w_stride, count, length, 1);
  else if (rows == 2)
    sums_rows(acc, acc_stride, in, in_stride, w, w_stride, count, length, 2);
  else if (rows == 3)
    sums_rows(acc, acc_stride, in, in_stride, w, w_stride, count, length, 3);
  else
    sums_rows(acc, acc_stride, in, in_stride, w, w_stride, count, length, 4);
}

/* ---- outer products ---- */

static void outer(int32_t *out, const int32_t *d, const int32_t *x, size_t pairs, size_t count) {
  const __m512i first = _mm512_set1_epi32(d[0]), second = _mm512_set1_epi32(pairs > 1 ? d[1] : 0);
  const int32_t *more = x + (pairs > 1 ? count : 0);
  for (size_t c = 0; c < count; c += INTS) {
    const __mmask16 mask = (__mmask16)mask_of(count - c);
    __m512i v = _mm512_madd_epi16(_mm512_maskz_loadu_epi32(mask, x + c), first);
    if (pairs > 1) v = _mm512_add_epi32(v, _mm512_madd_epi16(_mm512_maskz_loadu_epi32(mask, more + c), second));
    _mm512_mask_storeu_epi32(out + c, mask, v);
  }
}

const NitiThinKernels niti_thin_avx512vnni = {.name = "avx512vnni, weights in place", .dots = dots, .sums = sums, .outer = outer};
