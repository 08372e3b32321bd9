/* Packing of convolution operands for signed dot products: unchanged bytes. */
#include <arm_neon.h>
#include <string.h>

#include "backend/cpu/arm/conv_neon.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
enum {
  GROUPS_AT_ONCE = 64, /* of all columns: what is being written stays in the first-level cache */
  COLUMNS_AHEAD = 4,   /* to prefetch: columns are far apart */
};

void niti_convert_neon(void *out, const int8_t *in, size_t count) { memcpy(out, in, count); }

void niti_zero_neon(void *out, size_t count) { memset(out, 0, count); }

/* 16 positions x 16 channels. */
INLINE void transpose_16x16(int8x16_t v[16]) {
  int8x16_t t[16];
  UNROLL for (int round = 0; round < 4; ++round) {
    UNROLL for (int i = 0; i < 8; ++i) { /* position i beside i + 8 */
      t[2 * i] = vzip1q_s8(v[i], v[i + 8]);
      t[2 * i + 1] = vzip2q_s8(v[i], v[i + 8]);
    }
    UNROLL for (int i = 0; i < 16; ++i) v[i] = t[i];
  }
}

INLINE int8x16_t load_channels(const int8_t *from, int channels) {
  if (channels == 16) return vld1q_s8(from);
  int8_t some[16] = {0};
  memcpy(some, from, (size_t)channels);
  return vld1q_s8(some);
}

/* At most 16 channels. */
INLINE void transpose(int8_t *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions, int channels) {
  for (size_t p = 0; p < positions; p += 16) {
    int8x16_t v[16];
    UNROLL for (size_t i = 0; i < 16; ++i) {
      v[i] = offset[p + i] == SIZE_MAX ? vdupq_n_s8(0) : load_channels(in + offset[p + i], channels);
    }
    transpose_16x16(v);
    if (channels == 16) {
      UNROLL for (size_t c = 0; c < 16; ++c) vst1q_s8(out + c * plane_stride + p, v[c]);
    } else {
      for (int c = 0; c < channels; ++c) vst1q_s8(out + (size_t)c * plane_stride + p, v[c]);
    }
  }
}

void niti_transpose_neon(void *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions, int channels) {
  for (int c = 0; c < channels; c += 16) {
    int8_t *to = (int8_t *)out + (size_t)c * plane_stride;
    if (channels - c >= 16)
      transpose(to, plane_stride, in + c, offset, positions, 16);
    else
      transpose(to, plane_stride, in + c, offset, positions, channels - c);
  }
}

/* The rows of one group; missing rows are zeros. */
INLINE void rows_of(const int8_t **from, int group, const int8_t *in, const size_t *offset, size_t row, size_t rows) {
  static const int8_t zeros[NITI_NR_MAX];
  for (size_t j = 0; j < (size_t)group; ++j) {
    from[j] = row + j < rows && offset[row + j] != SIZE_MAX ? in + offset[row + j] : zeros;
  }
}

/* Columns from `column` on, past the last whole vector. */
INLINE void across_rest(int8_t *to, const int8_t *const *from, int group, int column, int columns, int padded) {
  for (; column < padded; ++column) {
    for (int j = 0; j < group; ++j) to[column * group + j] = column < columns ? from[j][column] : (int8_t)0;
  }
}

void niti_panel_across_8x4_neon(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded) {
  int8_t *to = out;
  for (size_t row = 0; row < rows; row += 4, to += (size_t)padded * 4) {
    const int8_t *from[4];
    int column = 0;
    rows_of(from, 4, in, offset, row, rows);
    for (; column + 16 <= columns; column += 16) {
      const int8x16x4_t v = {
          {vld1q_s8(from[0] + column), vld1q_s8(from[1] + column), vld1q_s8(from[2] + column), vld1q_s8(from[3] + column)}};
      vst4q_s8(to + column * 4, v);
    }
    across_rest(to, from, 4, column, columns, padded);
  }
}

/* Neighbouring rows side by side, as 16-bit elements: [0] of columns 0..7, [1] of 8..15. */
INLINE int16x8x2_t zip_rows(const int8_t *a, const int8_t *b) {
  const int8x16_t va = vld1q_s8(a), vb = vld1q_s8(b);
  return (int16x8x2_t){{vreinterpretq_s16_s8(vzip1q_s8(va, vb)), vreinterpretq_s16_s8(vzip2q_s8(va, vb))}};
}

void niti_panel_across_8x8_neon(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded) {
  int8_t *to = out;
  for (size_t row = 0; row < rows; row += 8, to += (size_t)padded * 8) {
    const int8_t *from[8];
    int column = 0;
    rows_of(from, 8, in, offset, row, rows);
    for (; column + 16 <= columns; column += 16) {
      int16x8x2_t pair[4];
      UNROLL for (int j = 0; j < 4; ++j) pair[j] = zip_rows(from[2 * j] + column, from[2 * j + 1] + column);
      UNROLL for (int half = 0; half < 2; ++half) {
        const int16x8x4_t v = {{pair[0].val[half], pair[1].val[half], pair[2].val[half], pair[3].val[half]}};
        vst4q_s16((int16_t *)(void *)(to + (column + half * 8) * 8), v);
      }
    }
    across_rest(to, from, 8, column, columns, padded);
  }
}

/* A transposition of groups. */
INLINE void panel_along(uint8_t *panel, const int8_t *in, size_t stride, size_t rows, int columns, int padded,
                        const size_t group) {
  const size_t whole = rows / group, groups = (rows + group - 1) / group, width = (size_t)padded * group;
  for (size_t first = 0; first < whole; first += GROUPS_AT_ONCE) {
    const size_t last = first + GROUPS_AT_ONCE < whole ? first + GROUPS_AT_ONCE : whole;
    for (size_t column = 0; column < (size_t)columns; ++column) {
      const int8_t *from = in + column * stride;
      uint8_t *to = panel + column * group;
      for (size_t i = first * group; column + COLUMNS_AHEAD < (size_t)columns && i < last * group; i += 64) {
        __builtin_prefetch(from + COLUMNS_AHEAD * stride + i);
      }
      for (size_t g = first; g < last; ++g) memcpy(to + g * width, from + g * group, group);
    }
  }
  for (size_t column = 0; groups > whole && column < (size_t)columns; ++column) {
    uint8_t *to = panel + whole * width + column * group;
    memset(to, 0, group);
    memcpy(to, in + column * stride + whole * group, rows - whole * group);
  }
  const size_t there = (size_t)columns * group;
  for (size_t g = 0; there < width && g < groups; ++g) memset(panel + g * width + there, 0, width - there);
}

void niti_panel_along_8x4_neon(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded) {
  panel_along(out, in, stride, rows, columns, padded, 4);
}

void niti_panel_along_8x8_neon(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded) {
  panel_along(out, in, stride, rows, columns, padded, 8);
}

/* Four rows x four columns of accumulators as four rows of the gradient. */
INLINE void transpose_4x4(int32x4_t v[4]) {
  const int64x2_t a = vreinterpretq_s64_s32(vzip1q_s32(v[0], v[1])), b = vreinterpretq_s64_s32(vzip2q_s32(v[0], v[1]));
  const int64x2_t c = vreinterpretq_s64_s32(vzip1q_s32(v[2], v[3])), d = vreinterpretq_s64_s32(vzip2q_s32(v[2], v[3]));
  v[0] = vreinterpretq_s32_s64(vzip1q_s64(a, c));
  v[1] = vreinterpretq_s32_s64(vzip2q_s64(a, c));
  v[2] = vreinterpretq_s32_s64(vzip1q_s64(b, d));
  v[3] = vreinterpretq_s32_s64(vzip2q_s64(b, d));
}

static void store_one(void *gradient, int bits, bool add, size_t at, int32_t value) {
  int32_t *narrow = gradient;
  int64_t *wide = gradient;
  if (bits == 32)
    narrow[at] = add ? narrow[at] + value : value;
  else
    wide[at] = add ? wide[at] + value : value;
}

INLINE void store_four(void *gradient, int bits, bool add, size_t at, int32x4_t v) {
  if (bits == 32) {
    int32_t *to = (int32_t *)gradient + at;
    vst1q_s32(to, add ? vaddq_s32(vld1q_s32(to), v) : v);
  } else {
    int64_t *to = (int64_t *)gradient + at;
    vst1q_s64(to, add ? vaddw_s32(vld1q_s64(to), vget_low_s32(v)) : vmovl_s32(vget_low_s32(v)));
    vst1q_s64(to + 2, add ? vaddw_high_s32(vld1q_s64(to + 2), v) : vmovl_high_s32(v));
  }
}

void niti_gradient_store_neon(void *gradient, int bits, bool add, size_t stride, const int32_t *acc, size_t acc_stride, int rows,
                              int columns) {
  const int whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int column = 0; column < whole_columns; column += 4) {
    for (int row = 0; row < whole_rows; row += 4) {
      int32x4_t v[4];
      UNROLL for (int i = 0; i < 4; ++i) v[i] = vld1q_s32(acc + (size_t)(row + i) * acc_stride + column);
      transpose_4x4(v);
      UNROLL for (int i = 0; i < 4; ++i) store_four(gradient, bits, add, (size_t)(column + i) * stride + (size_t)row, v[i]);
    }
  }
  for (int row = 0; row < rows; ++row) {
    for (int column = row < whole_rows ? whole_columns : 0; column < columns; ++column) {
      store_one(gradient, bits, add, (size_t)column * stride + (size_t)row, acc[(size_t)row * acc_stride + (size_t)column]);
    }
  }
}
