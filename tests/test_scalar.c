/* The scalars of base/scalar.h, the shares of squares and square roots, against their definitions, for random and extreme values.
 */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
/* clang-format on */

#include "base/norm.h"
#include "base/scalar.h"
#include "guarded.h"

/* S(x, e) of docs/arithmetic.md, word for word. */
static NitiScalar scalar_by_definition(int64_t x, int32_t e) {
  uint64_t m = x < 0 ? 0 - (uint64_t)x : (uint64_t)x;
  for (; m >= (uint64_t)1 << 31; ++e) m >>= 1;
  for (; m > 0 && m < (uint64_t)1 << 30; --e) m <<= 1;
  return (NitiScalar){x < 0 ? -(int32_t)m : (int32_t)m, m > 0 ? e : 0};
}

static void check_scalar(const char *what, NitiScalar a, NitiScalar b, NitiScalar got, NitiScalar expected) {
  if (got.m != expected.m || got.e != expected.e)
    fail_msg("%s of %d * 2^%d and %d * 2^%d: %d * 2^%d, expected %d * 2^%d", what, a.m, a.e, b.m, b.e, got.m, got.e, expected.m,
             expected.e);
}

static void check_products(NitiScalar a, NitiScalar b) {
  check_scalar("product", a, b, niti_scalar_mul(a, b), scalar_by_definition((int64_t)a.m * b.m, a.e + b.e));
  if (b.m == 0) return;
  const int64_t quotient = (int64_t)((niti_magnitude64(a.m) << 32) / niti_magnitude64(b.m));
  check_scalar("quotient", a, b, niti_scalar_div(a, b),
               scalar_by_definition((a.m < 0) == (b.m < 0) ? quotient : -quotient, a.e - b.e - 32));
}

static NitiScalar random_scalar(void) {
  const int32_t any = (int32_t)(next_random() & 0x3fffffff), kind = random_in(0, 9), near = random_in(0, 2);
  const int32_t low = kind == 0   ? near
                      : kind == 1 ? 0x3fffffff - near
                      : kind == 2 ? any & 0x3fff0000
                      : kind == 3 ? any | 0xffff
                      : kind == 4 ? any & 0xffff
                                  : any;
  const NitiScalar s = {1 << 30 | low, random_in(-70, 70)};
  return random_in(0, 99) == 0 ? (NitiScalar){0, 0} : random_in(0, 1) ? niti_scalar_neg(s) : s;
}

/* Products and quotients, which no 64-bit division makes; and of quotients those near 1, which need corrections. */
static void test_products(void **unused) {
  (void)unused;
  for (int i = 0; i < 1000000; ++i) {
    const NitiScalar a = random_scalar();
    NitiScalar b = random_scalar();
    if (i % 4 == 0 && a.m != 0) b.m = 1 << 30 | (int32_t)((niti_magnitude32(a.m) + (uint32_t)random_in(-2, 2)) & 0x3fffffff);
    check_products(a, b);
  }
}

static void test_integers(void **unused) {
  (void)unused;
  for (int i = 0; i < 200000; ++i) {
    const int64_t any = (int64_t)(next_random() >> random_in(1, 63)), x = i == 0 ? 0 : i % 2 ? -any : any;
    const NitiScalar none = {0, 0};
    check_scalar("64 bits", none, none, niti_scalar(x, 3), scalar_by_definition(x, 3));
    check_scalar("32 bits", none, none, niti_scalar32((int32_t)(x >> 32), 3), scalar_by_definition((int32_t)(x >> 32), 3));
  }
}

/* A bit at a time; what rounds is the last bit that is cut off. */
static int64_t fixed_by_definition(NitiScalar a, int32_t e, int64_t limit) {
  uint64_t v = niti_magnitude64(a.m), half = 0;
  for (; a.e < e; ++a.e) half = v & 1, v >>= 1;
  for (; a.e > e && v <= (uint64_t)limit; --a.e) v <<= 1;
  v += half;
  const int64_t clipped = v > (uint64_t)limit ? limit : (int64_t)v;
  return a.m < 0 ? -clipped : clipped;
}

static void test_fixed(void **unused) {
  static const int64_t limits[] = {127, 32512, 1 << 22, 1 << 29, 1 << 30, ((int64_t)1 << 30) + 1, (int64_t)1 << 60};
  (void)unused;
  for (int i = 0; i < 700000; ++i) {
    const NitiScalar a = random_scalar();
    const int32_t e = a.e + random_in(-40, 40);
    const int64_t limit = limits[i % 7];
    assert_true(niti_scalar_fixed(a, e, limit) == fixed_by_definition(a, e, limit));
  }
}

/* Squares that are far below the largest count 0, for any distance of their exponents. */
static void test_shares(void **unused) {
  (void)unused;
  for (int32_t distance = 0; distance < 200; ++distance) {
    const NitiScalar square = {random_in(1 << 30, INT32_MAX), 7 - distance};
    int64_t share = square.m;
    for (int32_t i = 0; i < distance; ++i) share /= 2;
    assert_true(niti_squares_share(7, square) == share);
  }
}

/* By its definition, around squares and the largest number that there may be. */
static void test_square_roots(void **unused) {
  (void)unused;
  for (int i = 0; i < 2000000; ++i) {
    const uint64_t near = next_random() >> 33 >> random_in(0, 30);
    const uint64_t x = i == 0 ? ((uint64_t)1 << 62) - 1 : i % 2 ? next_random() >> 2 : near * near - (near > 0 && i % 4 ? 1 : 0);
    const uint64_t root = niti_sqrt_floor(x);
    if (root * root > x || (root + 1) * (root + 1) <= x)
      fail_msg("the root of %llu: %llu", (unsigned long long)x, (unsigned long long)root);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_products), cmocka_unit_test(test_integers),
                                     cmocka_unit_test(test_fixed), cmocka_unit_test(test_shares),
                                     cmocka_unit_test(test_square_roots)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
