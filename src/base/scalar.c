/* Scalars as functions, for niti.h. */
#include "base/scalar_form.h"

static bool is_exponent(int32_t e) { return e >= -NITI_SCALAR_EXPONENT_MAX && e <= NITI_SCALAR_EXPONENT_MAX; }

static bool are_scalars(const int64_t *out, const int64_t *a, const int64_t *b) {
  return out && a && b && niti_is_scalar(a) && niti_is_scalar(b);
}

void niti_scalar_of(int64_t *s, int64_t x, int32_t exponent) {
  if (s && x > INT64_MIN && is_exponent(exponent)) niti_scalar_out(s, niti_scalar(x, exponent));
}

void niti_scalar_product(int64_t *s, const int64_t *a, const int64_t *b) {
  if (are_scalars(s, a, b)) niti_scalar_out(s, niti_scalar_mul(niti_scalar_in(a), niti_scalar_in(b)));
}

void niti_scalar_quotient(int64_t *s, const int64_t *a, const int64_t *b) {
  if (are_scalars(s, a, b) && b[0] != 0) niti_scalar_out(s, niti_scalar_div(niti_scalar_in(a), niti_scalar_in(b)));
}

void niti_scalar_sum(int64_t *s, const int64_t *a, const int64_t *b) {
  if (are_scalars(s, a, b)) niti_scalar_out(s, niti_scalar_add(niti_scalar_in(a), niti_scalar_in(b)));
}

void niti_scalar_root(int64_t *s, const int64_t *a) {
  if (are_scalars(s, a, a) && a[0] >= 0) niti_scalar_out(s, niti_scalar_sqrt(niti_scalar_in(a)));
}

int64_t niti_scalar_nearest(const int64_t *a, int32_t exponent, int64_t limit) {
  if (!are_scalars(a, a, a) || !is_exponent(exponent) || limit < 1 || limit >= (int64_t)1 << 62) return 0;
  return niti_scalar_fixed(niti_scalar_in(a), exponent, limit);
}

int64_t niti_scalar_multiple(int64_t x, const int64_t *a, int32_t exponent) {
  if (!are_scalars(a, a, a) || !is_exponent(exponent) || x <= -((int64_t)1 << 31) || x >= (int64_t)1 << 31) return 0;
  return niti_scalar_times(x, niti_scalar_in(a), exponent);
}
