/* Scaled, coloured and mixed elements, for niti.h: docs/arithmetic.md, "Augmentation". */
#include "base/colour.h"
#include "base/mix.h"
#include "base/scale.h"

enum { SIDE_MAX = 65536, CHANNELS_MAX = 4096 };

static bool is_side(int32_t side) { return side >= 1 && side <= SIDE_MAX; }

/* first .. first + length - 1 lies in 0 .. size - 1. */
static bool is_inside(int32_t first, int32_t length, int32_t size) {
  return is_side(size) && length >= 1 && length <= size && first >= 0 && first <= size - length;
}

static bool is_place(const int32_t hwc[3], const int32_t rectangle[4], const int32_t size[2], int32_t y, int32_t x, int32_t c) {
  return is_inside(rectangle[0], rectangle[2], hwc[0]) && is_inside(rectangle[1], rectangle[3], hwc[1]) &&
         hwc[2] <= CHANNELS_MAX && c >= 0 && c < hwc[2] && is_side(size[0]) && is_side(size[1]) && y >= 0 && y < size[0] &&
         x >= 0 && x < size[1];
}

uint8_t niti_pixel_scale(const uint8_t *pixels, const int32_t hwc[3], const int32_t rectangle[4], const int32_t size[2],
                         int32_t y, int32_t x, int32_t c) {
  if (!pixels || !hwc || !rectangle || !size || !is_place(hwc, rectangle, size, y, x, c)) return 0;
  const NitiTaps rows = niti_taps(y, rectangle[2], size[0]), columns = niti_taps(x, rectangle[3], size[1]);
  const uint64_t total = niti_taps_total(rectangle[2], size[0]) * niti_taps_total(rectangle[3], size[1]);
  uint64_t sum = 0;
  for (int32_t j = rows.first; j <= rows.last; ++j) {
    const uint8_t *row = pixels + ((int64_t)(rectangle[0] + j) * hwc[1] + rectangle[1]) * hwc[2] + c;
    sum += (uint64_t)niti_taps_weight(&rows, j) * niti_taps_sum(&columns, row, hwc[2]);
  }
  return (uint8_t)((2 * sum + total) / (2 * total));
}

uint8_t niti_pixel_grey(uint8_t red, uint8_t green, uint8_t blue) { return (uint8_t)niti_grey(red, green, blue); }

uint8_t niti_jitter_value(const int32_t map[3], uint8_t value, uint8_t grey) {
  const int32_t reach = 1 << 13, most = 1 << 20;
  if (!map || map[0] < 0 || map[0] > 2 * reach || map[1] < -reach || map[1] > reach || map[2] < -most || map[2] > most) return 0;
  return niti_coloured((NitiColours){(int16_t)map[0], (int16_t)map[1], map[2]}, value, grey);
}

int8_t niti_mixup_value(int8_t own, int8_t other, int32_t share) {
  const bool mantissas = own >= -NITI_MANTISSA_MAX && other >= -NITI_MANTISSA_MAX;
  return mantissas && share >= 0 && share <= NITI_SHARE_MAX ? niti_mixed(own, other, share) : 0;
}
