/* How large an int32 accumulator can become, inline, as functions of shapes alone: docs/arithmetic.md, "No accumulator can
 * overflow". A bound counts products of two mantissas, each at most 127^2 in magnitude; an accumulator of other summands is
 * counted in the same unit, rounded up. */
#ifndef NITI_BASE_BOUNDS_H
#define NITI_BASE_BOUNDS_H

#include "base/align.h"
#include "base/bias.h"
#include "base/pool.h"
#include "base/window.h"

enum {
  NITI_PRODUCT_MAX = NITI_MANTISSA_MAX * NITI_MANTISSA_MAX,
  NITI_ACCUMULATION_MAX = INT32_MAX / NITI_PRODUCT_MAX, /* 133144: products that an int32 accumulator holds exactly */
};

/* Sums of `mantissas`, each times `factor`, in products. */
NITI_INLINE int64_t niti_bound_mantissas(int64_t mantissas, int32_t factor) {
  return (mantissas * factor + NITI_MANTISSA_MAX - 1) / NITI_MANTISSA_MAX;
}

NITI_INLINE int64_t niti_bound_conv_forward(int32_t kh, int32_t kw, int32_t channels) { return (int64_t)kh * kw * channels; }

/* What a bias adds to a bound. */
NITI_INLINE int64_t niti_bound_bias(void) { return (((int64_t)1 << NITI_BIAS_BITS) + NITI_PRODUCT_MAX - 1) / NITI_PRODUCT_MAX; }

/* Windows that cover an input position, times their channels. */
NITI_INLINE int64_t niti_bound_conv_backward(int32_t kh, int32_t kw, int32_t stride_h, int32_t stride_w, int32_t channels) {
  return (int64_t)niti_windows_most(kh, stride_h) * niti_windows_most(kw, stride_w) * channels;
}

/* Of one weight: every position of every image's output. */
NITI_INLINE int64_t niti_bound_conv_gradient(int32_t images, int32_t oh, int32_t ow) { return (int64_t)images * oh * ow; }

NITI_INLINE int64_t niti_bound_avgpool_forward(int32_t kh, int32_t kw) {
  return niti_bound_mantissas((int64_t)kh * kw, niti_reciprocal(kh * kw).factor);
}

NITI_INLINE int64_t niti_bound_avgpool_backward(int32_t kh, int32_t kw, int32_t stride_h, int32_t stride_w) {
  return niti_bound_mantissas((int64_t)niti_windows_most(kh, stride_h) * niti_windows_most(kw, stride_w),
                              niti_reciprocal(kh * kw).factor);
}

/* One mantissa shifted left by the most that is allowed, and one unshifted. */
NITI_INLINE int64_t niti_bound_add(void) { return niti_bound_mantissas(((int64_t)1 << NITI_ALIGN_LEFT_MAX) + 1, 1); }

/* How often a bound can double before it passes NITI_ACCUMULATION_MAX; 0 < bound. */
NITI_INLINE int niti_bound_headroom(int64_t bound) {
  int bits = 0;
  while (bound << (bits + 1) <= NITI_ACCUMULATION_MAX) ++bits;
  return bits;
}

#endif
