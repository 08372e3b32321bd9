/* Clipping by norm, for niti.h. */
#include "base/clip.h"

#include "base/scalar_form.h"

enum { EXPONENT_MAX = 4096 };

static bool is_total(const int64_t s[2]) {
  return niti_is_scalar(s) && s[0] >= 0 && s[1] >= -EXPONENT_MAX && s[1] <= EXPONENT_MAX;
}

void niti_gradient_squares(int64_t *total, const int64_t *gradient, int32_t gradient_exponent, size_t count) {
  if (!total || !gradient || !is_total(total) || gradient_exponent < -1024 || gradient_exponent > 1024) return;
  uint64_t max = 0, sum = 0;
  for (size_t i = 0; i < count; ++i) max = niti_magnitude64(gradient[i]) > max ? niti_magnitude64(gradient[i]) : max;
  if (max >> 62 || (uint64_t)count >> 34) return;
  const int shift = niti_squares_shift(max, count);
  for (size_t i = 0; i < count; ++i) sum += niti_square(gradient[i], shift);
  niti_scalar_out(total, niti_squares_add(niti_scalar_in(total), sum, shift, gradient_exponent));
}

void niti_clip_factor(int64_t *factor, const int64_t *total, int64_t norm, int64_t images) {
  if (!factor || !total || !is_total(total) || norm < 1 || norm > NITI_CLIP_NORM_MAX || images < 1 || images > 1 << 20) return;
  niti_scalar_out(factor, niti_clip_factor_inline(niti_scalar_in(total), norm, images));
}
