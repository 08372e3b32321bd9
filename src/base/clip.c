/* Clipping by norm, for niti.h. */
#include "base/clip.h"

enum { EXPONENT_MAX = 4096 };

static bool is_scalar(const int64_t s[2]) {
  const uint64_t m = niti_magnitude64(s[0]);
  return (m >> 30 == 1 && s[0] > 0 && s[1] >= -EXPONENT_MAX && s[1] <= EXPONENT_MAX) || (s[0] == 0 && s[1] == 0);
}

void niti_gradient_squares(int64_t *total, const int64_t *gradient, int32_t gradient_exponent, size_t count) {
  if (!total || !gradient || !is_scalar(total) || gradient_exponent < -1024 || gradient_exponent > 1024) return;
  uint64_t max = 0, sum = 0;
  for (size_t i = 0; i < count; ++i) max = niti_magnitude64(gradient[i]) > max ? niti_magnitude64(gradient[i]) : max;
  if (max >> 62 || (uint64_t)count >> 34) return;
  const int shift = niti_squares_shift(max, count);
  for (size_t i = 0; i < count; ++i) sum += niti_square(gradient[i], shift);
  const NitiScalar before = {(int32_t)total[0], (int32_t)total[1]},
                   after = niti_squares_add(before, sum, shift, gradient_exponent);
  total[0] = after.m;
  total[1] = after.e;
}

void niti_clip_factor(int64_t *factor, const int64_t *total, int64_t norm, int64_t images) {
  if (!factor || !total || !is_scalar(total) || norm < 1 || norm > NITI_CLIP_NORM_MAX || images < 1 || images > 1 << 20) return;
  const NitiScalar squares = {(int32_t)total[0], (int32_t)total[1]}, f = niti_clip_factor_inline(squares, norm, images);
  factor[0] = f.m;
  factor[1] = f.e;
}
