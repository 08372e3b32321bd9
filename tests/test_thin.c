/* Products of few rows of every instruction set against the plain ones in ref/, bit for bit: every number of rows, tails,
 * strides, random and worst-case operands, guards. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cpu/thin.h"
#include "splitmix.h"

enum { LENGTH = 300, OUTPUTS = 21, ROUNDS = 3000, GUARD = 16, SPACE = NITI_THIN_ROWS * NITI_THIN_COLUMNS + GUARD };

static uint64_t state = 88172645463325252u;
static uint64_t random64(void) { return splitmix64(&state); }
static size_t within(size_t low, size_t high) { return low + (size_t)(random64() >> 8) % (high - low + 1); }

/* Mantissas; now and then the largest alone. */
static void fill(int8_t *x, size_t count) {
  const size_t kind = within(0, 5);
  for (size_t i = 0; i < count; ++i) x[i] = kind == 0 ? 127 : kind == 1 ? -127 : (int8_t)((int)within(0, 254) - 127);
}

static int32_t want[SPACE], got[SPACE];

static void begin(void) {
  memset(want, 0x55, sizeof want);
  memset(got, 0x55, sizeof got);
}

static void check_rows(const NitiThinKernels *kernels) {
  static int8_t in[NITI_THIN_ROWS * LENGTH], w[LENGTH * NITI_THIN_COLUMNS];
  static uint8_t above[NITI_THIN_ROWS * LENGTH];
  const size_t rows = within(1, NITI_THIN_ROWS), length = within(1, LENGTH), in_stride = within(length, LENGTH);
  const size_t outputs = within(1, OUTPUTS), columns = within(0, 9) == 0 ? NITI_THIN_COLUMNS : within(1, 200);
  const size_t w_stride = within(columns, columns == NITI_THIN_COLUMNS ? columns : 220);
  fill(in, sizeof in);
  fill(w, length * (w_stride > outputs ? w_stride : outputs));
  for (size_t i = 0; i < sizeof in; ++i) above[i] = (uint8_t)(in[i] + 128);
  begin();
  niti_thin_ref.dots(want, OUTPUTS + 2, above, in_stride, rows, w, outputs, length);
  kernels->dots(got, OUTPUTS + 2, above, in_stride, rows, w, outputs, length);
  assert_memory_equal(got, want, sizeof got);
  begin();
  niti_thin_ref.sums(want, NITI_THIN_COLUMNS, above, in_stride, rows, w, w_stride, columns, length);
  kernels->sums(got, NITI_THIN_COLUMNS, above, in_stride, rows, w, w_stride, columns, length);
  assert_memory_equal(got, want, sizeof got);
}

static void check_outer(const NitiThinKernels *kernels) {
  int8_t d[4], x[4 * LENGTH];
  int32_t d_pairs[2], x_pairs[2 * LENGTH];
  const size_t pairs = within(1, 2), count = within(1, LENGTH);
  fill(d, sizeof d);
  fill(x, sizeof x);
  for (size_t p = 0; p < 2; ++p) d_pairs[p] = (int32_t)((uint32_t)d[2 * p] << 16 | (uint16_t)d[2 * p + 1]);
  for (size_t i = 0; i < 2 * LENGTH; ++i) x_pairs[i] = (int32_t)((uint32_t)x[2 * i] << 16 | (uint16_t)x[2 * i + 1]);
  begin();
  niti_thin_ref.outer(want, d_pairs, x_pairs, pairs, count);
  kernels->outer(got, d_pairs, x_pairs, pairs, count);
  assert_memory_equal(got, want, sizeof got);
}

static void test_every_set(void **unused) {
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF + 1; isa < NITI_ISAS; ++isa) {
    const NitiThinKernels *kernels = niti_thin_kernels(isa);
    if (!kernels || !niti_isa_supported(isa)) continue;
    for (int round = 0; round < ROUNDS; ++round) {
      check_rows(kernels);
      check_outer(kernels);
    }
  }
}

/* The definition: one sum by hand. */
static void test_definition(void **unused) {
  const uint8_t in[] = {128 + 3, 128 - 5};
  const int8_t w[] = {7, 11, -13, 17};
  const int32_t d = (int32_t)(2u << 16 | (uint16_t)-3), x = (int32_t)((uint32_t)-5 << 16 | 7);
  int32_t acc[2];
  (void)unused;
  niti_thin_ref.dots(acc, 2, in, 2, 1, w, 2, 2);
  assert_int_equal(acc[0], 3 * 7 - 5 * 11);
  assert_int_equal(acc[1], 3 * -13 - 5 * 17);
  niti_thin_ref.sums(acc, 2, in, 2, 1, w, 2, 2, 2);
  assert_int_equal(acc[0], 3 * 7 + 5 * 13);
  assert_int_equal(acc[1], 3 * 11 - 5 * 17);
  niti_thin_ref.outer(acc, &d, &x, 1, 1);
  assert_int_equal(acc[0], -3 * 7 - 2 * 5);
}

/* Which linear layers the driver takes. */
static void test_serves(void **unused) {
  const NitiConv few = {.n = 4, .h = 1, .w = 1, .c = 8, .k = 8, .kh = 1, .kw = 1, .stride_h = 1, .stride_w = 1, .oh = 1, .ow = 1};
  NitiConv more = few, large = few, window = few;
  (void)unused;
  more.n = 5;
  large.n = 16;
  large.c = large.k = 1024;
  window.kh = window.h = 2;
  assert_true(niti_thin_fits(&few, NITI_GRADIENT) && niti_thin_serves(&few));
  assert_true(niti_thin_fits(&more, NITI_FORWARD) && !niti_thin_serves(&more));
  assert_true(niti_thin_fits(&large, NITI_BACKWARD) && niti_thin_serves(&large));
  assert_false(niti_thin_fits(&more, NITI_GRADIENT));
  assert_false(niti_thin_fits(&window, NITI_FORWARD));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_definition), cmocka_unit_test(test_every_set),
                                     cmocka_unit_test(test_serves)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
