/* Panels of columns whose elements are contiguous in memory: a transposition of groups, portable. */
#include <string.h>

#include "backend/cpu/microkernel.h"

enum {
  GROUPS_AT_ONCE = 64, /* of all columns: what is being written stays in the first-level cache */
  COLUMNS_AHEAD = 4,   /* to prefetch: columns lie far apart */
};

static inline __attribute__((always_inline)) void panel_along_8(uint8_t *panel, const int8_t *in, size_t stride, size_t rows,
                                                                int columns, int padded, const size_t group) {
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

void niti_panel_along_8x4(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded) {
  panel_along_8(out, in, stride, rows, columns, padded, 4);
}

void niti_panel_along_8x8(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded) {
  panel_along_8(out, in, stride, rows, columns, padded, 8);
}

void niti_panel_along_16x2(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded) {
  int16_t *panel = out;
  const size_t groups = (rows + 1) / 2, width = (size_t)padded * 2;
  for (size_t first = 0; first < groups; first += GROUPS_AT_ONCE) {
    const size_t last = first + GROUPS_AT_ONCE < groups ? first + GROUPS_AT_ONCE : groups;
    for (size_t column = 0; column < (size_t)padded; ++column) {
      const int8_t *from = in + column * stride;
      for (size_t g = first; g < last; ++g) {
        int16_t *to = panel + g * width + column * 2;
        to[0] = column < (size_t)columns ? from[g * 2] : (int16_t)0;
        to[1] = column < (size_t)columns && g * 2 + 1 < rows ? from[g * 2 + 1] : (int16_t)0;
      }
    }
  }
}
