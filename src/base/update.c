/* Update `niti` of a whole tensor, for niti.h. */
#include "base/update.h"

void niti_update_niti(int8_t *weight, const int64_t *gradient, size_t count, int mu) {
  if (!weight || !gradient || mu < 0 || mu > 30) return;
  uint64_t max = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t magnitude = gradient[i] < 0 ? 0 - (uint64_t)gradient[i] : (uint64_t)gradient[i];
    max = magnitude > max ? magnitude : max;
  }
  if (niti_bits_inline(max) == 0 || max >> 62) return;
  const int shift = niti_update_shift(max, mu);
  for (size_t i = 0; i < count; ++i) weight[i] = niti_update_weight(weight[i], gradient[i], shift);
}
