/* The loops of every instruction set against the definition, bit for bit: random numbers of every width, extremes, tails. */
/* clang-format off */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cpu/loops.h"
#include "base/clip.h"
#include "splitmix.h"

enum { COUNT = 300, GUARD = 8 };

static uint64_t state = 88172645463325252u;
static uint64_t random64(void) { return splitmix64(&state); }

static uint64_t below(uint64_t n) { return (random64() >> 8) % n; }

/* A number of 0 .. bits bits and either sign; now and then the largest of them. */
static int64_t any(int bits) {
  const uint64_t most = ((uint64_t)1 << bits) - 1;
  const int64_t magnitude = (int64_t)(below(16) == 0 ? most : random64() % (most + 1) >> below((uint64_t)bits));
  return random64() & 1 ? -magnitude : magnitude;
}

/* ---- largest magnitudes ---- */

static void test_largest(void **unused) {
  int16_t a[COUNT];
  int32_t b[COUNT];
  int64_t c[COUNT];
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    const NitiLoops *loops = niti_loops(isa);
    if (!niti_isa_supported(isa)) continue;
    for (int round = 0; round < 300; ++round) {
      const size_t count = (size_t)round;
      const int16_t low = (int16_t)(llabs(any(15)) % 14000), high = (int16_t)(low + llabs(any(14)));
      uint64_t most[3] = {0}, above_low = 0, above_high = 0;
      for (size_t i = 0; i < count; ++i) {
        a[i] = (int16_t)any(15);
        b[i] = round % 7 == 0 ? INT32_MIN : (int32_t)any(1 + round % 31);
        c[i] = any(1 + round % 62);
        above_low += abs(a[i]) > low;
        above_high += abs(a[i]) > high;
        if ((uint64_t)llabs(a[i]) > most[0]) most[0] = (uint64_t)llabs(a[i]);
        if ((uint64_t)llabs(b[i]) > most[1]) most[1] = (uint64_t)llabs(b[i]);
        if ((uint64_t)llabs(c[i]) > most[2]) most[2] = (uint64_t)llabs(c[i]);
      }
      assert_int_equal(loops->largest16(a, count), most[0]);
      const NitiSpread spread = loops->spread16(a, count, low, high);
      assert_int_equal(spread.largest, most[0]);
      assert_int_equal(spread.above_low, above_low);
      assert_int_equal(spread.above_high, above_high);
      assert_true(loops->largest32(b, count) == most[1]);
      assert_true(loops->largest64(c, count) == most[2]);
    }
  }
}

/* Sums of squares of numbers that are first rounded to what a tensor of as many allows. */
static void test_squares(void **unused) {
  static int32_t b[COUNT];
  static int64_t c[COUNT];
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    const NitiLoops *loops = niti_loops(isa);
    if (!niti_isa_supported(isa)) continue;
    for (int round = 0; round < 300; ++round) {
      const int most = round % 7 == 0 ? 62 : 1 + round % 62, shift = niti_squares_shift(UINT64_C(1) << most, COUNT);
      uint64_t narrow = 0, wide = 0;
      for (int i = 0; i < COUNT; ++i) {
        c[i] = round % 7 == 0 ? (INT64_C(1) << 62) - 1 : any(most);
        b[i] = round % 7 == 0 ? INT32_MIN : (int32_t)(c[i] % INT32_MAX);
        wide += niti_square(c[i], shift);
        narrow += niti_square(b[i], shift % 31);
      }
      assert_true(wide <= UINT64_C(1) << 62);
      assert_true(loops->squares64(c, COUNT, shift) == wide);
      assert_true(loops->squares32(b, COUNT, shift % 31) == narrow);
    }
  }
}

/* ---- batch norm ---- */

enum { ROWS = 40, COLUMNS = 200, STRIDE = 210 };

typedef struct Values {
  int8_t x[ROWS * STRIDE], d[ROWS * STRIDE];
  NitiAffine affine[COLUMNS];
  NitiAffineDelta affine_delta[COLUMNS];
} Values;

static void fill_values(Values *v) {
  const bool extreme = below(4) == 0;
  for (size_t i = 0; i < ROWS * STRIDE; ++i) {
    v->x[i] = (int8_t)(extreme ? -127 : any(7));
    v->d[i] = (int8_t)(extreme ? 127 : any(7));
  }
  for (size_t c = 0; c < COLUMNS; ++c) { /* the largest that batch norm makes are 2^22 and 2^29 */
    v->affine[c] = (NitiAffine){(int32_t)any(22), (int32_t)any(30)};
    v->affine_delta[c] = (NitiAffineDelta){(int32_t)any(22), (int32_t)any(22), (int32_t)any(29)};
    if (extreme) v->affine_delta[c] = (NitiAffineDelta){1 << 22, -(1 << 22), 1 << 29};
  }
}

static void check_sums(const NitiLoops *loops, const Values *v, size_t rows, size_t columns, size_t stride) {
  int32_t want[3][NITI_SUMS_COLUMNS], got[3][NITI_SUMS_COLUMNS];
  for (size_t i = 0; i < 3; ++i) {
    for (size_t c = 0; c < NITI_SUMS_COLUMNS; ++c) want[i][c] = got[i][c] = (int32_t)any(20);
  }
  niti_loops_ref.sums(want, v->x, rows, columns, stride);
  loops->sums(got, v->x, rows, columns, stride);
  assert_memory_equal(got, want, sizeof got);
  niti_loops_ref.delta_sums(want, v->d, v->x, rows, columns, stride);
  loops->delta_sums(got, v->d, v->x, rows, columns, stride);
  assert_memory_equal(got, want, sizeof got);
}

static void check_affine(const NitiLoops *loops, const Values *v, size_t rows, size_t columns, size_t stride) {
  static int32_t want[ROWS * COLUMNS + GUARD], got[ROWS * COLUMNS + GUARD];
  memset(want, 0x55, sizeof want);
  memset(got, 0x55, sizeof got);
  niti_loops_ref.affine(want, v->affine, v->x, rows, columns, stride);
  loops->affine(got, v->affine, v->x, rows, columns, stride);
  assert_memory_equal(got, want, sizeof got);
  niti_loops_ref.affine_delta(want, v->affine_delta, v->d, v->x, rows, columns, stride);
  loops->affine_delta(got, v->affine_delta, v->d, v->x, rows, columns, stride);
  assert_memory_equal(got, want, sizeof got);
}

static void test_norm(void **unused) {
  static Values v;
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF + 1; isa < NITI_ISAS; ++isa) {
    const NitiLoops *loops = niti_loops(isa);
    if (!niti_isa_supported(isa)) continue;
    for (int round = 0; round < 400; ++round) {
      fill_values(&v);
      const size_t rows = below(ROWS + 1), few = round % 2 ? NITI_SUMS_COLUMNS : 1 + below(NITI_SUMS_COLUMNS);
      const size_t columns = round % 3 ? 1 + below(COLUMNS) : 2 * NITI_SUMS_COLUMNS;
      check_sums(loops, &v, rows, few, STRIDE);
      check_sums(loops, &v, rows, few, few); /* rows without gaps may be taken together */
      check_affine(loops, &v, rows, columns, STRIDE);
      check_affine(loops, &v, rows, columns, columns);
      check_affine(loops, &v, rows, few, few);
    }
  }
}

/* As many rows as int32 sums are exact for, of the largest products. */
static void test_sums_range(void **unused) {
  static int8_t x[NITI_SUMS_ROWS], d[NITI_SUMS_ROWS];
  (void)unused;
  memset(x, 127, sizeof x);
  memset(d, -127, sizeof d);
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    int32_t s[2][NITI_SUMS_COLUMNS] = {{0}}, t[3][NITI_SUMS_COLUMNS] = {{0}};
    if (!niti_isa_supported(isa)) continue;
    niti_loops(isa)->sums(s, x, NITI_SUMS_ROWS, 1, 1);
    niti_loops(isa)->delta_sums(t, d, x, NITI_SUMS_ROWS, 1, 1);
    assert_int_equal(s[0][0], NITI_SUMS_ROWS * 127);
    assert_int_equal(s[1][0], NITI_SUMS_ROWS * 127 * 127);
    assert_int_equal(t[0][0], -NITI_SUMS_ROWS * 127);
    assert_int_equal(t[1][0], -NITI_SUMS_ROWS * 127 * 127);
    assert_int_equal(t[2][0], NITI_SUMS_ROWS * 127 * 127);
  }
}

/* ---- update niti at a fractional mu ---- */

static void test_update_fraction(void **unused) {
  static int8_t given[COUNT + GUARD], want[COUNT + GUARD], got[COUNT + GUARD];
  static int32_t g[COUNT];
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    for (int round = 0; round < 3000; ++round) {
      const int width = 1 + (int)below(31);
      const NitiMu mu = niti_mu(UINT64_C(1) << width, (int64_t)below((uint64_t)width * 1000000));
      const size_t count = below(COUNT + 1);
      if (mu.shift < 1 || mu.factor == 0) continue;
      for (size_t i = 0; i < COUNT + GUARD; ++i) given[i] = (int8_t)any(7);
      for (size_t i = 0; i < COUNT; ++i) g[i] = i == 0 && width == 31 ? INT32_MIN : (int32_t)any(width);
      memcpy(want, given, sizeof want);
      memcpy(got, given, sizeof got);
      for (size_t i = 0; i < count; ++i) want[i] = niti_update_weight(want[i], g[i], &mu);
      niti_loops(isa)->update(got, g, count, &mu);
      assert_memory_equal(got, want, sizeof got);
    }
  }
}

/* niti_update_weight with gradients of 32 bits, the largest and the least among them, for every shift. */
static void test_update_weight32(void **unused) {
  (void)unused;
  for (int round = 0; round < 200000; ++round) {
    const int width = 1 + (int)below(31), part = below(4) == 0 ? (int)below(1000000) : 0;
    const NitiMu mu = niti_mu(UINT64_C(1) << width, (int64_t)below(30) * 1000000 + part);
    const int64_t g = below(8) == 0 ? (below(2) ? INT32_MIN : INT32_MAX) >> (31 - width) : any(width) >> (width == 31);
    const int8_t w = (int8_t)any(7);
    assert_int_equal(niti_update_weight32(w, (int32_t)g, &mu), niti_update_weight(w, (int32_t)g, &mu));
  }
}

/* ---- update sgd ---- */

typedef struct Tensor {
  int16_t weight[COUNT + GUARD], velocity[COUNT + GUARD];
  int8_t operand[COUNT + GUARD];
  int32_t narrow[COUNT];
  int64_t wide[COUNT];
} Tensor;

static uint64_t magnitude(int64_t x) { return (uint64_t)llabs(x); }

/* Operands of some widths, and their largest magnitudes; an operand's width 0 leaves only zeros. */
static NitiSgdTensor fill(Tensor *t, int bits, size_t count) {
  NitiSgdTensor s = {0};
  const int width = (int)below(bits == 32 ? 32 : 62), weight = (int)below(16), velocity = (int)below(16);
  memset(t, 0x55, sizeof *t);
  for (size_t i = 0; i < count; ++i) {
    const int64_t g = width ? any(width) : 0;
    t->narrow[i] = (int32_t)g;
    t->wide[i] = g;
    t->weight[i] = (int16_t)(weight ? any(weight) : 0);
    if (t->weight[i] > NITI_SGD_WEIGHT_MAX) t->weight[i] = NITI_SGD_WEIGHT_MAX;
    if (t->weight[i] < -NITI_SGD_WEIGHT_MAX) t->weight[i] = -NITI_SGD_WEIGHT_MAX;
    t->velocity[i] = (int16_t)(velocity ? any(velocity) : 0);
    if (magnitude(g) > s.gradient_max) s.gradient_max = magnitude(g);
    s.above_low += magnitude(t->weight[i]) > NITI_SGD_WEIGHT_LOW;
    s.above_high += magnitude(t->weight[i]) > NITI_SGD_WEIGHT_HIGH;
    if (magnitude(t->weight[i]) > s.weight_max) s.weight_max = (uint32_t)magnitude(t->weight[i]);
    if (magnitude(t->velocity[i]) > s.velocity_max) s.velocity_max = (uint32_t)magnitude(t->velocity[i]);
  }
  s.count = count;
  s.weight_exponent = -(int32_t)below(24);
  s.gradient_exponent = s.weight_exponent + 20 - (int32_t)below(70);
  s.velocity_exponent = s.weight_exponent + 10 - (int32_t)below(30);
  return s;
}

static NitiSgdSettings settings(void) {
  return (NitiSgdSettings){.rate = (int64_t)(below(4) == 0 ? below(8000000000u) : below(100000000)),
                           .momentum = (int64_t)(below(4) == 0 ? 0 : below(1000000000)),
                           .decay = (int64_t)(below(3) == 0 ? 0 : below(1000000000) >> below(30)),
                           .images = 1 + (int64_t)below(300),
                           .nesterov = random64() & 1,
                           .normalised = below(3) == 0};
}

/* Exponents and rates of any size: terms whose shifts would be to the left, or leave nothing. */
static void spread(NitiSgdTensor *t, NitiSgdSettings *s) {
  t->weight_exponent = 20 - (int32_t)below(60);
  t->gradient_exponent = 40 - (int32_t)below(120);
  t->velocity_exponent = 40 - (int32_t)below(120);
  s->rate = (int64_t)(below(4) == 0 ? 0 : (1 + below(1000000000000u)) >> below(40));
  s->images = (int64_t)1 << below(25);
  if (below(4) == 0) s->clip = niti_scalar((int64_t)(1 + below(1 << 20)), -20 - (int32_t)below(80));
}

static void run(NitiIsa isa, Tensor *t, int bits, size_t first, size_t count, bool operand, const NitiSgd *u) {
  const NitiDraw draw = {.seed = 0x123456789abcdefu, .purpose = NITI_DRAW_UPDATE, .time = 7, .layer = 65536 + 3};
  const NitiSgdRange range = {.weight = t->weight,
                              .velocity = t->velocity,
                              .gradient = bits == 32 ? (const void *)t->narrow : t->wide,
                              .operand = operand ? t->operand : NULL,
                              .first = first,
                              .count = count,
                              .bits = bits};
  niti_loops(isa)->sgd(&range, u, &draw);
}

static int check_sgd(NitiIsa isa, int bits) {
  static Tensor given, want, got;
  const size_t count = 1 + below(COUNT), first = below(1 << 20) * NITI_SGD_FIRST;
  NitiSgdTensor tensor = fill(&given, bits, count);
  NitiSgdSettings s = settings();
  if (below(2) == 0) spread(&tensor, &s);
  const NitiSgd u = niti_sgd(&tensor, &s);
  const bool operand = random64() & 1;
  if (u.idle) return 0;
  want = got = given;
  run(NITI_ISA_REF, &want, bits, first, count, operand, &u);
  run(isa, &got, bits, first, count, operand, &u);
  assert_memory_equal(&got, &want, sizeof got);
  return memcmp(want.weight, given.weight, sizeof want.weight) != 0;
}

/* The definition itself: niti_sgd_weight with the word at each weight's index. */
static void test_sgd_definition(void **unused) {
  static Tensor given, got;
  const NitiDraw draw = {.seed = 0x123456789abcdefu, .purpose = NITI_DRAW_UPDATE, .time = 7, .layer = 65536 + 3};
  (void)unused;
  for (int round = 0; round < 200; ++round) {
    const NitiSgdTensor tensor = fill(&given, 64, COUNT);
    const NitiSgdSettings s = settings();
    const NitiSgd u = niti_sgd(&tensor, &s);
    if (u.idle) continue;
    got = given;
    run(NITI_ISA_REF, &got, 64, 1024, COUNT, true, &u);
    for (size_t i = 0; i < COUNT; ++i) {
      niti_sgd_weight(&given.weight[i], &given.velocity[i], given.wide[i], niti_draw(&draw, 1024 + i), &u);
      assert_int_equal(got.weight[i], given.weight[i]);
      assert_int_equal(got.velocity[i], given.velocity[i]);
      assert_int_equal(got.operand[i], niti_sgd_operand(given.weight[i]));
    }
  }
}

/* The form with terms: niti_sgd_weight's bits, and an idle step is idle. */
static void test_sgd_terms(void **unused) {
  static Tensor given;
  int changed = 0, limits = 0;
  (void)unused;
  for (int round = 0; round < 20000; ++round) {
    const size_t count = 1 + below(24);
    NitiSgdTensor tensor = fill(&given, round % 2 ? 32 : 64, count);
    NitiSgdSettings s = settings();
    if (round % 4 >= 2) spread(&tensor, &s);
    const NitiSgd u = niti_sgd(&tensor, &s);
    const NitiSgdTerms terms = niti_sgd_terms(&u);
    assert_int_equal(terms.idle, u.idle);
    for (size_t i = 0; i < count && !u.idle; ++i) {
      const uint32_t word = below(4) == 0 ? (below(2) ? UINT32_MAX : 0) : (uint32_t)random64();
      int16_t w = given.weight[i], v = given.velocity[i], want_w = w, want_v = v;
      niti_sgd_weight(&want_w, &want_v, given.wide[i], word, &u);
      niti_sgd_move(&w, &v, given.wide[i], word, &terms);
      assert_int_equal(w, want_w);
      assert_int_equal(v, want_v);
      changed += w != given.weight[i];
      limits += abs(w) == NITI_SGD_WEIGHT_MAX;
    }
  }
  assert_in_range(changed, 50000, 1000000);
  assert_in_range(limits, 1000, 1000000);
}

static void test_sgd(void **unused) {
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF + 1; isa < NITI_ISAS; ++isa) {
    int changed = 0;
    if (!niti_isa_supported(isa)) continue;
    for (int round = 0; round < 4000; ++round) changed += check_sgd(isa, round % 2 ? 32 : 64);
    assert_in_range(changed, 1000, 4000); /* most steps move something */
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_largest),    cmocka_unit_test(test_squares),         cmocka_unit_test(test_norm),
      cmocka_unit_test(test_sums_range), cmocka_unit_test(test_update_fraction), cmocka_unit_test(test_sgd_definition),
      cmocka_unit_test(test_sgd),        cmocka_unit_test(test_sgd_terms),       cmocka_unit_test(test_update_weight32),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
