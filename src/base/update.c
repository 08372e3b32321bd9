/* Update `niti` of a whole tensor, for niti.h. */
#include "base/update.h"

static void update(int8_t *weight, const int64_t *gradient, size_t count, int64_t mu) {
  uint64_t max = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t magnitude = gradient[i] < 0 ? 0 - (uint64_t)gradient[i] : (uint64_t)gradient[i];
    max = magnitude > max ? magnitude : max;
  }
  if (niti_bits_inline(max) == 0 || max >> 62) return;
  const NitiMu u = niti_mu(max, mu);
  for (size_t i = 0; i < count; ++i) weight[i] = niti_update_weight(weight[i], gradient[i], &u);
}

void niti_update_niti(int8_t *weight, const int64_t *gradient, size_t count, int mu) {
  if (!weight || !gradient || mu < 0 || mu > NITI_MU_MAX) return;
  update(weight, gradient, count, (int64_t)mu * NITI_MU_UNITS);
}

void niti_update_niti_fraction(int8_t *weight, const int64_t *gradient, size_t count, int32_t millionths) {
  if (!weight || !gradient || millionths < 0 || millionths > NITI_MU_MAX * NITI_MU_UNITS) return;
  update(weight, gradient, count, millionths);
}
