/* Inside src/base: scalars as niti.h has them, pairs of mantissa and exponent. */
#ifndef NITI_BASE_SCALAR_FORM_H
#define NITI_BASE_SCALAR_FORM_H

#include "base/scalar.h"

enum { NITI_SCALAR_EXPONENT_MAX = 1 << 20 };

static inline bool niti_is_scalar(const int64_t s[2]) {
  return (niti_magnitude64(s[0]) >> 30 == 1 && s[1] >= -NITI_SCALAR_EXPONENT_MAX && s[1] <= NITI_SCALAR_EXPONENT_MAX) ||
         (s[0] == 0 && s[1] == 0);
}

/* Of niti_is_scalar. */
static inline NitiScalar niti_scalar_in(const int64_t s[2]) { return (NitiScalar){(int32_t)s[0], (int32_t)s[1]}; }

static inline void niti_scalar_out(int64_t *out, NitiScalar s) {
  out[0] = s.m;
  out[1] = s.e;
}

#endif
