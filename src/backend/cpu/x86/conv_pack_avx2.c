/* Packing of convolution operands. 8: bytes, activations offset by 128 to be unsigned; s8: unchanged bytes; 16: int16. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/x86/conv_avx2.h"

#define INLINE static inline __attribute__((always_inline))
enum {
  OFFSET = 0x80,
  GROUPS_AT_ONCE = 64, /* of all columns: what is being written stays in the first-level cache */
};

void niti_convert_8_avx2(void *out, const int8_t *in, size_t count) {
  uint8_t *to = out;
  size_t i = 0;
  const __m256i offset = _mm256_set1_epi8((char)OFFSET);
  for (; i + 32 <= count; i += 32) {
    const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(in + i));
    _mm256_storeu_si256((__m256i *)(void *)(to + i), _mm256_xor_si256(v, offset));
  }
  for (; i < count; ++i) to[i] = (uint8_t)((uint8_t)in[i] ^ OFFSET);
}

void niti_convert_16_avx2(void *out, const int8_t *in, size_t count) {
  int16_t *to = out;
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(in + i));
    _mm256_storeu_si256((__m256i *)(void *)(to + i), _mm256_cvtepi8_epi16(v));
  }
  for (; i < count; ++i) to[i] = in[i];
}

void niti_convert_s8_avx2(void *out, const int8_t *in, size_t count) { memcpy(out, in, count); }

void niti_zero_8_avx2(void *out, size_t count) { memset(out, OFFSET, count); }
void niti_zero_s8_avx2(void *out, size_t count) { memset(out, 0, count); }
void niti_zero_16_avx2(void *out, size_t count) { memset(out, 0, count * sizeof(int16_t)); }

/* 16 positions x 16 channels in each 128-bit half. */
INLINE void transpose_16x16(__m256i v[16]) {
  __m256i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) { /* position i beside i + 8 */
    t[2 * i] = _mm256_unpacklo_epi8(v[i], v[i + 8]);
    t[2 * i + 1] = _mm256_unpackhi_epi8(v[i], v[i + 8]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    v[2 * i] = _mm256_unpacklo_epi8(t[i], t[i + 8]);
    v[2 * i + 1] = _mm256_unpackhi_epi8(t[i], t[i + 8]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm256_unpacklo_epi8(v[i], v[i + 8]);
    t[2 * i + 1] = _mm256_unpackhi_epi8(v[i], v[i + 8]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    v[2 * i] = _mm256_unpacklo_epi8(t[i], t[i + 8]);
    v[2 * i + 1] = _mm256_unpackhi_epi8(t[i], t[i + 8]);
  }
}

INLINE uint64_t load_word(const int8_t *from, size_t bytes) {
  uint64_t word = 0;
  memcpy(&word, from, bytes);
  return word;
}

/* The first `bytes` of eight at most, and zeros: two loads that may overlap, since nothing beyond may be read. */
INLINE uint64_t load_few(const int8_t *from, int bytes) {
  const int rest = 64 - 8 * bytes;
  if (bytes >= 8) return load_word(from, 8);
  if (bytes >= 4) return load_word(from, 4) | load_word(from + bytes - 4, 4) << 32 >> rest;
  if (bytes >= 2) return load_word(from, 2) | load_word(from + bytes - 2, 2) << 48 >> rest;
  return bytes == 1 ? load_word(from, 1) : 0;
}

/* The same of sixteen. */
INLINE __m128i load_some(const int8_t *from, int bytes) {
  if (bytes >= 16) return _mm_loadu_si128((const __m128i *)(const void *)from);
  if (bytes <= 8) return _mm_cvtsi64_si128((int64_t)load_few(from, bytes));
  return _mm_set_epi64x((int64_t)load_few(from + 8, bytes - 8), (int64_t)load_word(from, 8));
}

INLINE __m256i load_channels(const int8_t *from, int channels) {
  if (channels == 32) return _mm256_loadu_si256((const __m256i *)(const void *)from);
  const __m256i first = _mm256_castsi128_si256(load_some(from, channels));
  return channels <= 16 ? first : _mm256_inserti128_si256(first, load_some(from + 16, channels - 16), 1);
}

INLINE void store_plane(uint8_t *out, __m128i v, int element, int offset) {
  if (element == 1) {
    _mm_storeu_si128((__m128i *)(void *)out, offset ? _mm_xor_si128(v, _mm_set1_epi8((char)offset)) : v);
  } else {
    _mm256_storeu_si256((__m256i *)(void *)out, _mm256_cvtepi8_epi16(v));
  }
}

INLINE void transpose(uint8_t *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions, int channels,
                      int element, int zero) {
  for (size_t p = 0; p < positions; p += 16) {
    __m256i v[16];
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; ++i) {
      v[i] = offset[p + i] == SIZE_MAX ? _mm256_setzero_si256() : load_channels(in + offset[p + i], channels);
    }
    transpose_16x16(v);
    uint8_t *to = out + p * (size_t)element;
    if (channels == 32) {
#pragma GCC unroll 16
      for (size_t i = 0; i < 16; ++i) {
        store_plane(to + i * plane_stride, _mm256_castsi256_si128(v[i]), element, zero);
        store_plane(to + (i + 16) * plane_stride, _mm256_extracti128_si256(v[i], 1), element, zero);
      }
    } else {
      for (int c = 0; c < channels; ++c) {
        const __m128i half = c < 16 ? _mm256_castsi256_si128(v[c]) : _mm256_extracti128_si256(v[c - 16], 1);
        store_plane(to + (size_t)c * plane_stride, half, element, zero);
      }
    }
  }
}

void niti_transpose_8_avx2(void *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions,
                           int channels) {
  if (channels == 32)
    transpose(out, plane_stride, in, offset, positions, 32, 1, OFFSET);
  else
    transpose(out, plane_stride, in, offset, positions, channels, 1, OFFSET);
}

void niti_transpose_s8_avx2(void *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions,
                            int channels) {
  if (channels == 32)
    transpose(out, plane_stride, in, offset, positions, 32, 1, 0);
  else
    transpose(out, plane_stride, in, offset, positions, channels, 1, 0);
}

void niti_transpose_16_avx2(void *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions,
                            int channels) {
  if (channels == 32)
    transpose(out, plane_stride, in, offset, positions, 32, 2, 0);
  else
    transpose(out, plane_stride, in, offset, positions, channels, 2, 0);
}

void niti_panel_across_8x4_avx2(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded) {
  static const int8_t zeros[NITI_NR_MAX];
  uint8_t *to = out;
  for (size_t row = 0; row < rows; row += 4, to += (size_t)padded * 4) {
    const int8_t *from[4];
    for (size_t j = 0; j < 4; ++j) from[j] = row + j < rows && offset[row + j] != SIZE_MAX ? in + offset[row + j] : zeros;
    for (int column = 0; column < padded; column += 16) {
      const int some = columns - column;
      const __m128i a = load_some(from[0] + column, some), b = load_some(from[1] + column, some);
      const __m128i c = load_some(from[2] + column, some), d = load_some(from[3] + column, some);
      const __m128i ab0 = _mm_unpacklo_epi8(a, b), ab1 = _mm_unpackhi_epi8(a, b);
      const __m128i cd0 = _mm_unpacklo_epi8(c, d), cd1 = _mm_unpackhi_epi8(c, d);
      __m128i *store = (__m128i *)(void *)(to + column * 4);
      _mm_storeu_si128(store, _mm_unpacklo_epi16(ab0, cd0));
      _mm_storeu_si128(store + 1, _mm_unpackhi_epi16(ab0, cd0));
      _mm_storeu_si128(store + 2, _mm_unpacklo_epi16(ab1, cd1));
      _mm_storeu_si128(store + 3, _mm_unpackhi_epi16(ab1, cd1));
    }
  }
}

void niti_panel_across_16x2_avx2(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded) {
  static const int8_t zeros[NITI_NR_MAX];
  int16_t *to = out;
  for (size_t row = 0; row < rows; row += 2, to += (size_t)padded * 2) {
    const int8_t *from[2];
    for (size_t j = 0; j < 2; ++j) from[j] = row + j < rows && offset[row + j] != SIZE_MAX ? in + offset[row + j] : zeros;
    for (int column = 0; column < padded; column += 16) {
      const __m128i a = load_some(from[0] + column, columns - column), b = load_some(from[1] + column, columns - column);
      __m256i *store = (__m256i *)(void *)(to + column * 2);
      _mm256_storeu_si256(store, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b)));
      if (column + 8 < padded) _mm256_storeu_si256(store + 1, _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b)));
    }
  }
}

/* Eight groups of four bytes from eight columns. */
INLINE void panel_8x8(uint8_t *to, size_t width, const int8_t *from, size_t stride) {
  __m256i v[8], t[8];
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; ++i) v[i] = _mm256_loadu_si256((const __m256i *)(const void *)(from + i * stride));
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) { /* columns i and i + 1 of groups 0, 1 | 4, 5 and of 2, 3 | 6, 7 */
    t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) { /* four columns of groups 0 | 4, 1 | 5, 2 | 6 and 3 | 7 */
    v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    _mm256_storeu_si256((__m256i *)(void *)(to + i * width), _mm256_permute2x128_si256(v[i], v[i + 4], 0x20));
    _mm256_storeu_si256((__m256i *)(void *)(to + (i + 4) * width), _mm256_permute2x128_si256(v[i], v[i + 4], 0x31));
  }
}

void niti_panel_along_8x4_avx2(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded) {
  uint8_t *panel = out;
  const size_t whole = rows / 4, width = (size_t)padded * 4, there = (size_t)columns;
  for (size_t first = 0; first < whole; first += GROUPS_AT_ONCE) {
    const size_t last = niti_least(first + GROUPS_AT_ONCE, whole);
    for (size_t column = 0; column < there; column += 8) {
      size_t g = first;
      for (size_t next = column + 8; next < niti_least(column + 16, there); ++next) { /* columns are far apart */
        for (size_t i = first * 4; i < last * 4; i += 64) _mm_prefetch((const char *)(in + next * stride + i), _MM_HINT_T0);
      }
      for (; column + 8 <= there && g + 8 <= last; g += 8) {
        panel_8x8(panel + g * width + column * 4, width, in + column * stride + g * 4, stride);
      }
      for (; g < last; ++g) {
        for (size_t c = column; c < niti_least(column + 8, there); ++c) {
          memcpy(panel + g * width + c * 4, in + c * stride + g * 4, 4);
        }
      }
    }
  }
  for (size_t column = 0; whole * 4 < rows && column < there; ++column) {
    uint8_t *to = panel + whole * width + column * 4;
    memset(to, 0, 4);
    memcpy(to, in + column * stride + whole * 4, rows - whole * 4);
  }
  for (size_t g = 0; there * 4 < width && g < niti_divide_up(rows, 4); ++g) {
    memset(panel + g * width + there * 4, 0, width - there * 4);
  }
}

/* Sixteen rows of eight columns: bytes of each column become pairs of int16, eight pairs of neighbours per row of the panel. */
INLINE void panel_16x8(int16_t *to, size_t width, const int8_t *from, size_t stride) {
  __m128i v[8], t[8];
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; ++i) v[i] = _mm_loadu_si128((const __m128i *)(const void *)(from + i * stride));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) { /* columns 2 * i and 2 * i + 1 */
    t[i] = _mm_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
    t[i + 4] = _mm_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int half = 0; half < 8; half += 4) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) { /* four columns */
      v[half + i] = _mm_unpacklo_epi32(t[half + 2 * i], t[half + 2 * i + 1]);
      v[half + i + 2] = _mm_unpackhi_epi32(t[half + 2 * i], t[half + 2 * i + 1]);
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; ++i) {
      int16_t *at = to + ((size_t)half + 2 * i) * width;
      const __m128i even = _mm_unpacklo_epi64(v[half + 2 * (int)i], v[half + 2 * (int)i + 1]);
      const __m128i odd = _mm_unpackhi_epi64(v[half + 2 * (int)i], v[half + 2 * (int)i + 1]);
      _mm256_storeu_si256((__m256i *)(void *)at, _mm256_cvtepi8_epi16(even));
      _mm256_storeu_si256((__m256i *)(void *)(at + width), _mm256_cvtepi8_epi16(odd));
    }
  }
}

void niti_panel_along_16x2_avx2(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded) {
  int16_t *panel = out;
  const size_t width = (size_t)padded * 2, whole_rows = rows / 16 * 16, whole_columns = (size_t)columns / 8 * 8;
  for (size_t column = 0; column < whole_columns; column += 8) {
    for (size_t row = 0; row < whole_rows; row += 16) {
      panel_16x8(panel + row / 2 * width + column * 2, width, in + column * stride + row, stride);
    }
  }
  for (size_t row = 0; row < rows; row += 2) {
    for (size_t column = row < whole_rows ? whole_columns : 0; column < (size_t)padded; ++column) {
      const int8_t *from = in + column * stride + row;
      const bool there = column < (size_t)columns;
      panel[row / 2 * width + column * 2] = there ? from[0] : (int16_t)0;
      panel[row / 2 * width + column * 2 + 1] = there && row + 1 < rows ? from[1] : (int16_t)0;
    }
  }
}

/* Four rows x four columns of accumulators as four rows of the gradient. */
INLINE void transpose_4x4(__m128i v[4]) {
  const __m128i a = _mm_unpacklo_epi32(v[0], v[1]), b = _mm_unpackhi_epi32(v[0], v[1]);
  const __m128i c = _mm_unpacklo_epi32(v[2], v[3]), d = _mm_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm_unpacklo_epi64(a, c);
  v[1] = _mm_unpackhi_epi64(a, c);
  v[2] = _mm_unpacklo_epi64(b, d);
  v[3] = _mm_unpackhi_epi64(b, d);
}

static void store_one(void *gradient, int bits, bool add, size_t at, int32_t value) {
  int32_t *narrow = gradient;
  int64_t *wide = gradient;
  if (bits == 32)
    narrow[at] = add ? narrow[at] + value : value;
  else
    wide[at] = add ? wide[at] + value : value;
}

void niti_gradient_store_avx2(void *gradient, int bits, bool add, size_t stride, const int32_t *acc, size_t acc_stride, int rows,
                              int columns) {
  const int whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int column = 0; column < whole_columns; column += 4) {
    for (int row = 0; row < whole_rows; row += 4) {
      __m128i v[4];
      for (int i = 0; i < 4; ++i)
        v[i] = _mm_loadu_si128((const __m128i *)(const void *)(acc + (size_t)(row + i) * acc_stride + column));
      transpose_4x4(v);
      for (int i = 0; i < 4; ++i) {
        const size_t at = (size_t)(column + i) * stride + (size_t)row;
        if (bits == 32) {
          __m128i *to = (__m128i *)(void *)((int32_t *)gradient + at);
          _mm_storeu_si128(to, add ? _mm_add_epi32(v[i], _mm_loadu_si128(to)) : v[i]);
        } else {
          __m256i *to = (__m256i *)(void *)((int64_t *)gradient + at);
          const __m256i wide = _mm256_cvtepi32_epi64(v[i]);
          _mm256_storeu_si256(to, add ? _mm256_add_epi64(wide, _mm256_loadu_si256(to)) : wide);
        }
      }
    }
  }
  for (int row = 0; row < rows; ++row) {
    for (int column = row < whole_rows ? whole_columns : 0; column < columns; ++column) {
      store_one(gradient, bits, add, (size_t)column * stride + (size_t)row, acc[(size_t)row * acc_stride + (size_t)column]);
    }
  }
}
