/* Every requantise kernel against the definition, niti_round_int8, bit for bit: edges, random numbers, tails, guards. */
/* clang-format off */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cpu/microkernel.h"
#include "backend/cpu/peak.h"
#include "base/round.h"
#include "base/shift_prediction.h"

enum { GUARD = 64, COUNT = 203, SHIFT_MAX = 30 };

static const NitiRounding modes[] = {NITI_NEAREST, NITI_PSEUDO_STOCHASTIC, NITI_STOCHASTIC, NITI_TRUNCATE, NITI_STOCHASTIC_BYTE};

static uint64_t state = 88172645463325252u;
static uint32_t random_word(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

/* Values near every power of two and its halves, extremes, and random numbers of every width. */
static void fill(int32_t *acc, size_t count) {
  size_t i = 0;
  for (int bit = 0; bit < 31 && i + 8 <= count; ++bit) {
    const int32_t p = (int32_t)(1u << bit);
    const int32_t edges[] = {p, p - 1, -p, 1 - p};
    memcpy(acc + i, edges, sizeof edges);
    i += 4;
  }
  const int32_t extremes[] = {0, INT32_MAX, -INT32_MAX, 16129, -16129, 127, -127, 128};
  for (size_t j = 0; j < sizeof extremes / sizeof extremes[0] && i < count; ++j) acc[i++] = extremes[j];
  while (i < count) acc[i++] = (int32_t)(random_word() >> (1 + random_word() % 31)) * (random_word() & 1 ? 1 : -1);
}

static uint32_t magnitude(int32_t v) { return v < 0 ? 0u - (uint32_t)v : (uint32_t)v; }

static void check(NitiRequantiseKernel kernel, const int32_t *acc, size_t count, const NitiRounder *r, uint64_t index,
                  uint32_t max) {
  int8_t buffer[GUARD + COUNT + GUARD];
  memset(buffer, 0x55, sizeof buffer);
  const uint32_t found = kernel(buffer + GUARD, acc, count, r, index, max);
  for (size_t i = 0; i < count; ++i) {
    int8_t want = niti_round_int8(acc[i], r->shift, r->mode, niti_rounding_word(&r->draw, r->mode, r->first + index + i));
    if (r->relu && want < 0) want = 0;
    if (r->relu && want > 128 - r->lowered) want = (int8_t)(128 - r->lowered);
    if (buffer[GUARD + i] != want) {
      fail_msg("mode %d shift %d relu %d lowered %d: %d became %d, not %d", (int)r->mode, r->shift, (int)r->relu, r->lowered,
               acc[i], buffer[GUARD + i], want);
    }
    if (magnitude(acc[i]) > max) max = magnitude(acc[i]);
  }
  assert_int_equal(found, max);
  for (size_t i = 0; i < GUARD; ++i) {
    assert_int_equal(buffer[i], 0x55);
    assert_int_equal(buffer[GUARD + count + i], 0x55);
  }
}

/* No limit, limits of 127, 1 and 0, or any. */
static int any_lowered(void) {
  static const int edges[] = {0, 1, 127, 128};
  return random_word() & 1 ? edges[random_word() % 4] : (int)(random_word() % 129);
}

static void check_isa(NitiIsa isa) {
  const NitiRequantiseKernel kernel = niti_requantise_kernel(isa);
  int32_t acc[COUNT + 1];
  for (size_t mode = 0; mode < sizeof modes / sizeof modes[0]; ++mode) {
    for (int shift = 0; shift <= SHIFT_MAX; ++shift) {
      for (int relu = 0; relu < 2; ++relu) {
        NitiRounder r = {modes[mode], shift,         relu != 0,    {0x123456789abcdefu, NITI_DRAW_ROUND_ACT, 7, 3}, NULL, false,
                         0,           random_word(), any_lowered()};
        fill(acc, COUNT + 1);
        check(kernel, acc, COUNT, &r, 0, 0);
        check(kernel, acc + 1, COUNT, &r, ((uint64_t)1 << 33) + 5, 0x80000000u); /* unaligned; a maximum from before stays */
        for (size_t count = 0; count <= 70; ++count) check(kernel, acc + random_word() % 100, count, &r, random_word(), 0);
      }
    }
  }
}

static void check_if_supported(NitiIsa isa) {
  if (!niti_isa_supported(isa)) skip();
  check_isa(isa);
}

static void test_ref(void **unused) {
  (void)unused;
  check_if_supported(NITI_ISA_REF);
}

static void test_avx2(void **unused) {
  (void)unused;
  check_if_supported(NITI_ISA_AVX2);
}

static void test_avx512(void **unused) {
  (void)unused;
  check_if_supported(NITI_ISA_AVX512VNNI);
}

static void test_amx(void **unused) {
  (void)unused;
  check_if_supported(NITI_ISA_AMX);
}

static void test_neon(void **unused) { /* rounding is the same for both sets */
  (void)unused;
  check_if_supported(NITI_ISA_NEON_DOTPROD);
}

enum { TILE_ROWS = 5, TILE_STRIDE = 64, TENSOR = 1000 };

/* A tile of rows `stride` apart at these offsets, with a mask and without one, against the definition row by row. */
static void check_tile(const NitiConvKernels *kernels, const NitiRounder *r, const size_t *offset, size_t stride, int columns) {
  int32_t acc[TILE_ROWS * TILE_STRIDE];
  int8_t tensor[TENSOR], want[TENSOR], mask[TENSOR];
  NitiRounder masked = *r;
  uint32_t max = 0;
  fill(acc, TILE_ROWS * TILE_STRIDE);
  memset(tensor, 0x55, sizeof tensor);
  memset(want, 0x55, sizeof want);
  for (size_t row = 0; row < TILE_ROWS; ++row) {
    const size_t at = offset[row] + 3;
    max = niti_requantise_ref(want + at, acc + row * stride, (size_t)columns, r, at, max);
  }
  assert_int_equal(kernels->requantise(tensor, offset, 3, acc, stride, TILE_ROWS, columns, r, 0), max);
  assert_memory_equal(tensor, want, sizeof want);
  masked.mask = mask;
  for (size_t i = 0; i < TENSOR; ++i) mask[i] = (int8_t)(random_word() % 3 == 0 ? 0 : (int)(random_word() % 255) - 127);
  memset(tensor, 0x55, sizeof tensor);
  for (size_t row = 0; row < TILE_ROWS; ++row) {
    for (size_t i = offset[row] + 3; i < offset[row] + 3 + (size_t)columns; ++i)
      want[i] = mask[i] > 0 && mask[i] < 128 - r->lowered ? want[i] : 0;
  }
  assert_int_equal(kernels->requantise(tensor, offset, 3, acc, stride, TILE_ROWS, columns, &masked, 0), max);
  assert_memory_equal(tensor, want, sizeof want);
}

/* Rows of a tile scattered over a tensor, or one after another, which kernels may round as one: each row's place is its random
 * index, what lies between stays. */
static void test_tiles(void **unused) {
  static const size_t scattered[TILE_ROWS] = {700, 13, 300, 501, 100};
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF + 1; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    const NitiConvKernels *kernels = niti_conv_kernels(isa);
    for (size_t mode = 0; mode < sizeof modes / sizeof modes[0]; ++mode) {
      for (int columns = 1; columns <= TILE_STRIDE; columns += 7) {
        const NitiRounder r = {modes[mode], 1 + columns % 20, columns % 2 == 0, {42, NITI_DRAW_ROUND_DELTA, 1, 2}, NULL, false,
                               0,           random_word(),    any_lowered()};
        size_t next[TILE_ROWS];
        for (size_t row = 0; row < TILE_ROWS; ++row) next[row] = 10 + row * (size_t)columns;
        check_tile(kernels, &r, scattered, TILE_STRIDE, columns);
        check_tile(kernels, &r, scattered, (size_t)columns, columns);
        check_tile(kernels, &r, next, (size_t)columns, columns);
        check_tile(kernels, &r, next, TILE_STRIDE, columns);
      }
    }
  }
}

/* The sums tell how many multiply-adds there were: in proportion to the rounds, each sum's lanes alike. */
static void test_peak(void **unused) {
  (void)unused;
  assert_null(niti_peak_kernel(NITI_ISA_REF));
  for (NitiIsa isa = NITI_ISA_REF + 1; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    const NitiPeakKernel kernel = niti_peak_kernel(isa);
    assert_int_equal(kernel(0), 0);
    const uint64_t once = kernel(1);
    assert_in_range(once, 64, 1 << 20);
    assert_int_equal(once % 16, 0);
    assert_int_equal(kernel(1000), 1000 * once);
    NitiBackend *backend = NULL;
    const NitiBackendOptions options = {.name = "cpu", .isa = niti_isa_name(isa), .threads = 2};
    assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
    const uint64_t done = backend->ops->multiply_add(backend);
    assert_in_range(done, 1000 * once, UINT64_MAX);
    assert_int_equal(done % once, 0);
    niti_backend_close(backend);
  }
}

/* The range pass: any prediction gives the true shift and its output; only a wrong one costs a second run. */
typedef struct Fixed {
  int32_t acc[4];
  int8_t out[4];
  int runs;
} Fixed;

static uint32_t fixed_task(void *context, const NitiRounder *rounder) {
  Fixed *f = context;
  ++f->runs;
  return niti_requantise_ref(f->out, f->acc, 4, rounder, 0, 0);
}

static void test_prediction(void **unused) {
  (void)unused;
  const int32_t predictions[] = {INT32_MIN,
                                 -1,
                                 0,
                                 1,
                                 niti_shift_prediction_of(3),
                                 niti_shift_prediction_of(4),
                                 niti_shift_prediction_of(5),
                                 niti_shift_prediction_of(24),
                                 INT32_MAX};
  for (size_t i = 0; i < sizeof predictions / sizeof predictions[0]; ++i) {
    NitiCpu cpu = {.isa = NITI_ISA_REF};
    int32_t prediction = predictions[i];
    const NitiRequantise rq = {NITI_NEAREST, NITI_DRAW_ROUND_ACT, 1, &prediction, 0, 0};
    Fixed f = {{1025, -1000, 4, 3}, {0}, 0}; /* 1024 < 1025 <= 2048 = 2^11: shift 4 */
    assert_int_equal(niti_cpu_requantise(&cpu, &rq, false, NULL, fixed_task, &f), 4);
    const int first = f.runs;
    assert_in_range(first, 1, 2);
    assert_int_equal(niti_shift_prediction_last(prediction), 4);
    for (int k = 0; k < 7; ++k) assert_int_equal(niti_cpu_requantise(&cpu, &rq, false, NULL, fixed_task, &f), 4);
    f.runs = 0; /* soon a steady shift is predicted */
    assert_int_equal(niti_cpu_requantise(&cpu, &rq, false, NULL, fixed_task, &f), 4);
    assert_int_equal(f.runs, 1);
    assert_int_equal(cpu.predicted, 9);
    assert_in_range(cpu.mispredicted, first - 1, 5);
    static const int8_t want[4] = {64, -63, 0, 0}; /* 1025/16 = 64.06; -62.5 away from zero; 0.25; 0.19 */
    assert_memory_equal(f.out, want, 4);
  }
}

/* The prediction follows a steady shift and a lasting change, and ignores a single outlier. */
static void test_shift_prediction(void **unused) {
  (void)unused;
  int32_t word = 0; /* as memory is given out */
  assert_int_equal(niti_shift_prediction_next(word, NITI_PREDICTION_EVEN), 0);
  for (int i = 0; i < 3; ++i) {
    word = niti_shift_prediction_update(word, 10);
    assert_int_equal(niti_shift_prediction_last(word), 10);
    assert_int_equal(niti_shift_prediction_next(word, NITI_PREDICTION_EVEN), 10);
  }
  word = niti_shift_prediction_update(word, 11);
  assert_int_equal(niti_shift_prediction_last(word), 11);
  assert_int_equal(niti_shift_prediction_next(word, NITI_PREDICTION_EVEN), 10);
  for (int i = 0; i < 6; ++i) word = niti_shift_prediction_update(word, 11);
  assert_int_equal(niti_shift_prediction_next(word, NITI_PREDICTION_EVEN), 11);
  for (int i = 0; i < 6; ++i) word = niti_shift_prediction_update(word, 10);
  assert_int_equal(niti_shift_prediction_next(word, NITI_PREDICTION_EVEN), 10);
  word = niti_shift_prediction_update(niti_shift_prediction_update(word, 9),
                                      9); /* a leaning prediction takes the lower one sooner */
  assert_int_equal(niti_shift_prediction_next(word, NITI_PREDICTION_EVEN), 10);
  assert_int_equal(niti_shift_prediction_next(word, NITI_PREDICTION_LOW), 9);
  for (int shift = 0; shift <= NITI_SHIFT_MAX; ++shift)
    assert_int_equal(niti_shift_prediction_next(niti_shift_prediction_of(shift), NITI_PREDICTION_EVEN), shift);
  for (int i = 0; i < 10000; ++i) { /* any word gives a shift that an operation can use, and is corrected by one that lasts */
    word = (int32_t)random_word();
    assert_in_range(niti_shift_prediction_next(word, NITI_PREDICTION_EVEN), 0, NITI_SHIFT_MAX);
    for (int k = 0; k < 12; ++k) word = niti_shift_prediction_update(word, 7);
    assert_int_equal(niti_shift_prediction_next(word, NITI_PREDICTION_EVEN), 7);
  }
}

/* Samples of 1,000 whose whole has 1,250, or anything in a range: the guess lies between them, and is seldom too large. */
static void test_rise(void **unused) {
  (void)unused;
  int32_t word = niti_shift_prediction_of(7);
  assert_int_equal(niti_shift_prediction_largest(word, 1000), 1000);
  for (int i = 0; i < 200; ++i) word = niti_shift_prediction_risen(word, 1000, 1250);
  assert_in_range(niti_shift_prediction_largest(word, 1000), 1060, 1250);
  assert_int_equal(niti_shift_prediction_next(word, NITI_PREDICTION_EVEN), 7);
  assert_int_equal(niti_shift_prediction_rise(niti_shift_prediction_update(word, 9)), niti_shift_prediction_rise(word));
  int above = 0;
  for (int i = 0; i < 4000; ++i) {
    const uint32_t largest = 1300 + (uint32_t)(i * 37 % 101) * 5; /* 1,300 to 1,800, each as often */
    if (i >= 1000) above += niti_shift_prediction_largest(word, 1000) > largest;
    word = niti_shift_prediction_risen(word, 1000, largest);
  }
  assert_in_range(above, 3000 / 50, 3000 / 20);
  for (int i = 0; i < 4000; ++i) word = niti_shift_prediction_risen(word, 1, UINT32_MAX);
  assert_int_equal(niti_shift_prediction_rise(word), NITI_RISE_MAX);
  assert_int_equal(niti_shift_prediction_largest(word, INT32_MAX), UINT32_MAX);
  for (int i = 0; i < 100; ++i) word = niti_shift_prediction_risen(word, 1000, 1000);
  assert_int_equal(niti_shift_prediction_largest(word, 1000), 1000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_ref),        cmocka_unit_test(test_avx2),
      cmocka_unit_test(test_avx512),     cmocka_unit_test(test_neon),
      cmocka_unit_test(test_amx),        cmocka_unit_test(test_tiles),
      cmocka_unit_test(test_prediction), cmocka_unit_test(test_shift_prediction),
      cmocka_unit_test(test_rise),       cmocka_unit_test(test_peak),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
