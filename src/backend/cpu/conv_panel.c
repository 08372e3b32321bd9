/* Panels of columns whose elements are contiguous in memory: a transposition of groups, portable. */
#include <string.h>

#include "backend/cpu/conv.h"

enum {
  GROUPS_AT_ONCE = 64, /* of all columns: what is being written stays in the first-level cache */
  COLUMNS_AHEAD = 4,   /* to prefetch: columns lie far apart */
};

void niti_panel_along_8x4(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded) {
  uint8_t *panel = out;
  const size_t whole = rows / 4, groups = (rows + 3) / 4, width = (size_t)padded * 4;
  for (size_t first = 0; first < whole; first += GROUPS_AT_ONCE) {
    const size_t last = first + GROUPS_AT_ONCE < whole ? first + GROUPS_AT_ONCE : whole;
    for (size_t column = 0; column < (size_t)columns; ++column) {
      const int8_t *from = in + column * stride;
      uint8_t *to = panel + column * 4;
      for (size_t i = first * 4; column + COLUMNS_AHEAD < (size_t)columns && i < last * 4; i += 64) {
        __builtin_prefetch(from + COLUMNS_AHEAD * stride + i);
      }
      for (size_t g = first; g < last; ++g) memcpy(to + g * width, from + g * 4, 4);
    }
  }
  for (size_t column = 0; groups > whole && column < (size_t)columns; ++column) {
    uint8_t *to = panel + whole * width + column * 4;
    memset(to, 0, 4);
    memcpy(to, in + column * stride + whole * 4, rows - whole * 4);
  }
  for (size_t g = 0; columns < padded && g < groups; ++g)
    memset(panel + g * width + columns * 4, 0, (size_t)(padded - columns) * 4);
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
