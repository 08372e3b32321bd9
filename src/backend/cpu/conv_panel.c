/* Panels of columns whose elements are contiguous in memory: a transposition of groups, portable. */
#include "backend/cpu/conv.h"

#include <string.h>

enum { GROUPS_AT_ONCE = 32 }; /* of all columns: what is being written stays in the first-level cache */

void niti_panel_along_8x4(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded) {
  uint8_t *panel = out;
  const size_t whole = rows / 4, groups = (rows + 3) / 4, width = (size_t)padded * 4;
  for (size_t first = 0; first < groups; first += GROUPS_AT_ONCE) {
    const size_t last = first + GROUPS_AT_ONCE < groups ? first + GROUPS_AT_ONCE : groups;
    for (size_t column = 0; column < (size_t)padded; ++column) {
      const int8_t *from = in + column * stride;
      for (size_t g = first; g < last; ++g) {
        uint8_t *to = panel + g * width + column * 4;
        if (column >= (size_t)columns) {
          memset(to, 0, 4);
        } else if (g < whole) {
          memcpy(to, from + g * 4, 4);
        } else {
          memset(to, 0, 4);
          memcpy(to, from + g * 4, rows - g * 4);
        }
      }
    }
  }
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
