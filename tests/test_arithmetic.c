/* The public arithmetic against formulations that share no code with it: exact 128-bit comparisons, published vectors, and
 * long double mathematics with stated bounds. */
/* clang-format off */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <Random123/philox.h>
#include <cmocka.h>
/* clang-format on */

#include "base/bounds.h"
#include "base/loss.h"
#include "base/random.h"
#include "niti.h"
#include "splitmix.h"

typedef __int128 Wide;

static Wide wide_abs(Wide x) { return x < 0 ? -x : x; }

/* ---- bits and shifts ---- */

static int bits_by_definition(Wide v) {
  int b = 0;
  while (v > (Wide)1 << b) ++b;
  return b;
}

static void test_bits(void **state) {
  (void)state;
  for (uint64_t v = 0; v < 70000; ++v) assert_int_equal(niti_bits(v), bits_by_definition((Wide)v));
  for (int b = 1; b < 64; ++b) {
    const uint64_t power = (uint64_t)1 << b;
    for (uint64_t v = power - 1; v <= power + (b < 63); ++v) assert_int_equal(niti_bits(v), bits_by_definition((Wide)v));
  }
  assert_int_equal(niti_bits(0), 0);
  assert_int_equal(niti_bits(1), 0);
  assert_int_equal(niti_bits(128), 7);
  assert_int_equal(niti_bits(129), 8);
  assert_int_equal(niti_bits((uint64_t)1 << 63), 63);
}

static void test_requantise_shift(void **state) {
  (void)state;
  for (uint32_t max = 0; max < 70000; ++max) {
    const int b = bits_by_definition((Wide)max);
    assert_int_equal(niti_requantise_shift(max), b > 7 ? b - 7 : 0);
  }
  assert_int_equal(niti_requantise_shift(INT32_MAX), 24);
  assert_int_equal(niti_requantise_shift((uint32_t)1 << 31), 24);
  assert_int_equal(niti_requantise_shift(UINT32_MAX), 25);
}

/* ---- rounding ---- */

/* The nearest integer is the one at most half a step away; of two such the one further from zero. */
static bool is_nearest(Wide m, Wide x, int s) {
  const Wide step = (Wide)1 << s, error = wide_abs(m * step - x);
  if (2 * error != step) return 2 * error < step;
  return wide_abs(m * step) > wide_abs(x);
}

/* The fraction's s digits are cut in two halves, the second lengthened by a zero where it is shorter; round up where the
 * first comes after the second in the dictionary. */
static Wide pseudo_by_digits(Wide x, int s) {
  const Wide magnitude = wide_abs(x), step = (Wide)1 << s, whole = magnitude / step;
  Wide rest = magnitude % step;
  char digits[65];
  for (int i = s - 1; i >= 0; --i, rest /= 2) digits[i] = rest % 2 ? '1' : '0';
  digits[s] = s % 2 ? '0' : 0;
  digits[s + s % 2] = 0;
  const int half = (s + 1) / 2;
  const Wide m = whole + (strncmp(digits, digits + half, (size_t)half) > 0);
  return x < 0 ? -m : m;
}

static Wide stochastic_by_fraction(Wide x, int s, uint32_t word) {
  const Wide magnitude = wide_abs(x), step = (Wide)1 << s;
  const Wide u = ((Wide)word * step) / ((Wide)1 << 32); /* word as a fraction of 2^32, in steps, rounded down */
  const Wide m = magnitude / step + (u < magnitude % step);
  return x < 0 ? -m : m;
}

static int8_t clip(Wide m) { return (int8_t)(m > 127 ? 127 : m < -127 ? -127 : m); }

static void check_rounding(int64_t x, int s, uint32_t word) {
  Wide m = niti_round(x, s, NITI_NEAREST, 0);
  if (!is_nearest(m, x, s)) fail_msg("nearest(%lld, %d) = %lld", (long long)x, s, (long long)m);
  assert_int_equal(niti_round_int8(x, s, NITI_NEAREST, 0), clip(m));

  m = s == 0 ? (Wide)x : pseudo_by_digits(x, s);
  if (niti_round(x, s, NITI_PSEUDO_STOCHASTIC, word) != m) fail_msg("pseudo-stochastic(%lld, %d)", (long long)x, s);
  assert_int_equal(niti_round_int8(x, s, NITI_PSEUDO_STOCHASTIC, word), clip(m));

  m = (Wide)x / ((Wide)1 << s);
  if (niti_round(x, s, NITI_TRUNCATE, word) != m) fail_msg("truncate(%lld, %d)", (long long)x, s);
  assert_int_equal(niti_round_int8(x, s, NITI_TRUNCATE, word), clip(m));

  if (s > 32) return;
  m = stochastic_by_fraction(x, s, word);
  if (niti_round(x, s, NITI_STOCHASTIC, word) != m) fail_msg("stochastic(%lld, %d, %u)", (long long)x, s, (unsigned)word);
  assert_int_equal(niti_round_int8(x, s, NITI_STOCHASTIC, word), clip(m));
}

static void test_round_all_int16(void **state) {
  uint64_t seed = 1;
  (void)state;
  for (int x = -32768; x <= 32767; ++x) {
    for (int s = 0; s <= 24; ++s) check_rounding(x, s, (uint32_t)splitmix64(&seed));
  }
}

static void test_round_all_int8_all_shifts(void **state) {
  uint64_t seed = 2;
  (void)state;
  for (int x = -128; x <= 127; ++x) {
    for (int s = 0; s <= 62; ++s) {
      check_rounding(x, s, 0);
      check_rounding(x, s, UINT32_MAX);
      check_rounding(x, s, (uint32_t)splitmix64(&seed));
    }
  }
}

static void test_round_edges(void **state) {
  uint64_t seed = 3;
  (void)state;
  for (int b = 0; b < 62; ++b) {
    for (int64_t off = -2; off <= 2; ++off) {
      const int64_t near_power = ((int64_t)1 << b) + off, between = near_power + ((int64_t)1 << (b / 2));
      const int64_t values[] = {near_power, -near_power, between, -between};
      for (size_t i = 0; i < 4; ++i) {
        if (values[i] >= (int64_t)1 << 62 || values[i] <= -((int64_t)1 << 62)) continue;
        for (int s = 0; s <= 62; ++s) check_rounding(values[i], s, (uint32_t)splitmix64(&seed));
      }
    }
  }
  const int64_t extremes[] = {INT32_MAX, INT32_MIN, -(int64_t)INT32_MAX, ((int64_t)1 << 62) - 1, 1 - ((int64_t)1 << 62)};
  for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; ++i) {
    for (int s = 0; s <= 62; ++s) check_rounding(extremes[i], s, (uint32_t)splitmix64(&seed));
  }
  for (int i = 0; i < 200000; ++i) {
    const int64_t x = (int64_t)splitmix64(&seed) >> (2 + splitmix64(&seed) % 60);
    check_rounding(x, (int)(splitmix64(&seed) % 63), (uint32_t)splitmix64(&seed));
  }
}

/* Exactly r of the 2^s draws round up, so the mean is x / 2^s. */
static void test_stochastic_is_unbiased(void **state) {
  (void)state;
  for (int s = 1; s <= 8; ++s) {
    for (int x = -600; x <= 600; ++x) {
      int64_t sum = 0;
      for (uint32_t u = 0; u < (uint32_t)1 << s; ++u) {
        sum += niti_round(x, s, NITI_STOCHASTIC, (u << (32 - s)) | (u * 2654435761u >> s));
      }
      assert_int_equal(sum, x);
    }
  }
}

static void test_round_known(void **state) {
  (void)state;
  assert_int_equal(niti_round(5, 1, NITI_NEAREST, 0), 3);
  assert_int_equal(niti_round(-5, 1, NITI_NEAREST, 0), -3);
  assert_int_equal(niti_round(1, 1, NITI_PSEUDO_STOCHASTIC, 0), 1);
  assert_int_equal(niti_round(-1, 1, NITI_PSEUDO_STOCHASTIC, 0), -1);
  assert_int_equal(niti_round(-7, 2, NITI_TRUNCATE, 0), -1);
  assert_int_equal(niti_round(2, 3, NITI_PSEUDO_STOCHASTIC, 0), 1); /* 010: 01 after 00 */
  assert_int_equal(niti_round(1, 3, NITI_PSEUDO_STOCHASTIC, 0), 0); /* 001: 00 before 10 */
  assert_int_equal(niti_round_int8(1000, 0, NITI_NEAREST, 0), 127);
  assert_int_equal(niti_round_int8(-128, 0, NITI_TRUNCATE, 0), -127);
  assert_int_equal(niti_round_int8(255, 1, NITI_NEAREST, 0), 127);
}

/* ---- random numbers ---- */

/* philox4x32 with 10 rounds, from Random123's kat_vectors. */
static void test_philox_known_answers(void **state) {
  static const struct {
    uint32_t counter[4], key[2], out[4];
  } kat[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  (void)state;
  for (size_t k = 0; k < 3; ++k) {
    const uint64_t seed = kat[k].key[0] | (uint64_t)kat[k].key[1] << 32;
    for (uint32_t i = 0; i < 4; ++i) {
      const uint64_t index = (uint64_t)kat[k].counter[0] * 4 + i;
      const NitiDraw draw = {seed, kat[k].counter[3], kat[k].counter[1], kat[k].counter[2]};
      assert_int_equal(niti_draw(&draw, index), kat[k].out[i]);
      assert_int_equal(niti_draw_block(&draw, kat[k].counter[0]).word[i], kat[k].out[i]);
      assert_int_equal(niti_random(seed, (NitiPurpose)kat[k].counter[3], kat[k].counter[1], kat[k].counter[2], index),
                       kat[k].out[i]);
    }
  }
}

/* Beside Random123's own implementation, on counters and keys of every size. */
static void test_philox_beside_random123(void **state) {
  uint64_t x = 1;
  (void)state;
  for (int i = 0; i < 100000; ++i) {
    uint32_t w[6];
    for (int k = 0; k < 6; ++k) {
      x = x * 6364136223846793005u + 1442695040888963407u;
      w[k] = (uint32_t)(x >> 32) >> (i % 4 * 8);
    }
    const NitiWords counter = {{w[0], w[1], w[2], w[3]}}, words = niti_philox(counter, w[4] | (uint64_t)w[5] << 32);
    const philox4x32_ctr_t c = {{w[0], w[1], w[2], w[3]}};
    const philox4x32_key_t key = {{w[4], w[5]}};
    const philox4x32_ctr_t expected = philox4x32(c, key);
    assert_memory_equal(words.word, expected.v, sizeof words.word);
  }
}

static void test_purposes(void **state) {
  (void)state;
  assert_int_equal(NITI_DRAW_INIT, 1);
  assert_int_equal(NITI_DRAW_DROPOUT, 5);
  assert_int_equal(NITI_DRAW_ROUND_ACT, 6);
  assert_int_equal(NITI_DRAW_ROUND_DELTA, 7);
  assert_int_equal(NITI_DRAW_LOSS, 8);
  assert_int_equal(NITI_DRAW_FORK, 9);
  assert_int_equal(NITI_DRAW_VALIDATION, 10);
  assert_int_equal(NITI_DRAW_CUTOUT, 12);
  assert_int_equal(NITI_DRAW_COLOUR, 13);
  assert_int_equal(NITI_DRAW_RESIZED_CROP, 14);
  assert_int_equal(NITI_DRAW_MIXUP, 15);
}

/* ---- exp2 and log2 ---- */

/* A chord lies above the curve by at most step^2 / 8 * f'' = 2^x * (ln 2 / 256)^2 / 8, which is less than 2^x / 2^20; the table's
 * rounding and the last shift cost less than 1.5 units. At the table's own points only its rounding is left. */
static void test_exp2(void **state) {
  (void)state;
  for (uint32_t f = 0; f < 65536; ++f) {
    const long double exact = exp2l((long double)f / 65536 + 30), got = niti_exp2_frac(f);
    if (f % 256 == 0) assert_true(fabsl(got - exact) <= 0.5L);
    assert_true(got >= exact - 1.5L);
    assert_true(got <= exact * (1 + ldexpl(1, -20)) + 0.5L);
    if (f > 0) assert_true(got > (long double)niti_exp2_frac(f - 1));
  }
  assert_int_equal(niti_exp2_frac(0), (uint32_t)1 << 30);
}

/* Units of 2^-16. Above by the table's rounding at most; below by that, the chord (0.18), the floor (1) and, where v has more
 * than 17 bits, those cut off (1.45). */
static void check_log2(uint64_t v) {
  const long double exact = log2l((long double)v) * 65536, got = (long double)niti_log2(v);
  if (got > exact + 0.51L || got < exact - (v < 131072 ? 1.7L : 3.15L)) fail_msg("log2(%llu)", (unsigned long long)v);
}

static void test_log2(void **state) {
  uint64_t seed = 4;
  (void)state;
  for (uint64_t v = 1; v < 300000; ++v) check_log2(v);
  for (int i = 0; i < 300000; ++i) check_log2((splitmix64(&seed) >> (17 + splitmix64(&seed) % 46)) | 1);
  for (int n = 0; n < 47; ++n) assert_int_equal(niti_log2((uint64_t)1 << n), (int64_t)n << 16);
  check_log2(((uint64_t)1 << 47) - 1);
}

/* ---- loss ---- */

static Wide floor_divide(Wide a, Wide b) {
  const Wide q = a / b;
  return q * b > a ? q - 1 : q;
}

/* t of docs/arithmetic.md, with floor division for the shift to the right. */
static Wide base2(int8_t m, int32_t e) {
  const Wide t = (Wide)m * 94548;
  if (e > 0) return t * ((Wide)1 << (e > 16 ? 16 : e));
  return floor_divide(t, (Wide)1 << (e < -40 ? 40 : -e));
}

static Wide distance(const int8_t *logits, int32_t e, int classes, int j) {
  Wide top = base2(logits[0], e);
  for (int i = 1; i < classes; ++i) top = base2(logits[i], e) > top ? base2(logits[i], e) : top;
  return base2(logits[j], e) - top;
}

static Wide softmax_weight(Wide d) {
  const Wide whole = floor_divide(d, 65536), fraction = d - whole * 65536;
  return (Wide)niti_exp2_frac((uint32_t)fraction) / ((Wide)1 << (whole < -31 ? 31 : -whole));
}

static Wide niti_weight(Wide d) {
  const Wide s = d + 10 * 65536 < 0 ? 0 : d + 10 * 65536;
  return (Wide)niti_exp2_frac((uint32_t)(s % 65536)) / ((Wide)1 << (14 - s / 65536)) - 65536;
}

enum { CLASSES_MAX = 700 };

static void fill_logits(int8_t *logits, int classes, uint64_t *seed, int range) {
  for (int j = 0; j < classes; ++j) logits[j] = (int8_t)((int)(splitmix64(seed) % (uint64_t)(2 * range + 1)) - range);
}

static void check_losses(const int8_t *logits, int32_t e, int classes, int target, uint64_t seed, uint32_t step,
                         uint64_t index0) {
  Wide sum_s = 0, sum_n = 0;
  for (int j = 0; j < classes; ++j) {
    sum_s += softmax_weight(distance(logits, e, classes, j));
    sum_n += niti_weight(distance(logits, e, classes, j));
  }

  int32_t acc[CLASSES_MAX];
  niti_loss_softmax(acc, logits, e, classes, target);
  for (int j = 0; j < classes; ++j) {
    const Wide g = floor_divide(softmax_weight(distance(logits, e, classes, j)) << 24, sum_s) - (j == target ? 1 << 24 : 0);
    assert_true(acc[j] == g);
  }

  const Wide value = (Wide)niti_log2((uint64_t)sum_s) - 30 * 65536 - distance(logits, e, classes, target);
  assert_true(niti_loss_value(logits, e, classes, target) == value);

  Wide g[CLASSES_MAX], total = 0;
  int8_t delta[CLASSES_MAX + 2];
  memset(delta, 0x55, sizeof delta);
  for (int j = 0; j < classes; ++j) total += g[j] = floor_divide(niti_weight(distance(logits, e, classes, j)) << 11, sum_n);
  g[target] -= total;
  niti_loss_niti(delta + 1, logits, e, classes, target, seed, step, index0);
  for (int j = 0; j < classes; ++j) {
    const uint32_t word = niti_random(seed, NITI_DRAW_LOSS, step, 0, index0 + (uint64_t)j);
    assert_int_equal(delta[1 + j], clip(stochastic_by_fraction(g[j], 4, word)));
  }
  assert_int_equal(delta[0], 0x55);
  assert_int_equal(delta[classes + 1], 0x55);
}

static void test_losses(void **state) {
  static const int class_counts[] = {1, 2, 3, 10, 100, 257, CLASSES_MAX};
  uint64_t seed = 5;
  int8_t logits[CLASSES_MAX];
  (void)state;
  for (size_t k = 0; k < sizeof class_counts / sizeof class_counts[0]; ++k) {
    const int classes = class_counts[k];
    for (int32_t e = -45; e <= 18; e += classes > 100 ? 7 : 1) {
      const int range = e % 2 ? 127 : 9;
      fill_logits(logits, classes, &seed, range);
      const int target = (int)(splitmix64(&seed) % (uint64_t)classes);
      check_losses(logits, e, classes, target, splitmix64(&seed), (uint32_t)e + 50, splitmix64(&seed) >> 40);
    }
  }
  memset(logits, 127, sizeof logits);
  check_losses(logits, 2, 10, 3, 1, 0, 1);
  memset(logits, -127, sizeof logits);
  logits[6] = 127;
  check_losses(logits, 30, 10, 6, 1, 0, 2);
  check_losses(logits, 30, 10, 5, 1, 0, 3);
  check_losses(logits, INT32_MIN, 10, 5, 1, 0, 3);
  check_losses(logits, INT32_MAX, 10, 5, 1, 0, 3);
}

/* The parts give what the whole gives, wherever they are cut. */
static void test_softmax_parts(void **state) {
  uint64_t seed = 6;
  int8_t logits[CLASSES_MAX];
  int32_t whole[CLASSES_MAX], parts[CLASSES_MAX];
  (void)state;
  fill_logits(logits, CLASSES_MAX, &seed, 127);
  niti_loss_softmax(whole, logits, -4, CLASSES_MAX, 555);
  const NitiSoftmax softmax = niti_softmax_sum(logits, -4, CLASSES_MAX);
  for (int first = 0; first < CLASSES_MAX; first += 97) {
    const int count = CLASSES_MAX - first < 97 ? CLASSES_MAX - first : 97;
    niti_softmax_acc(parts + first, &softmax, logits, first, count, 555);
  }
  assert_memory_equal(whole, parts, sizeof whole);
}

/* Against real mathematics. For |z| <= 16 and at most 100 classes the fixed-point p is off by less than 2e-4 (94548 is 5e-6 short
 * of log2(e), each t is floored to 2^-16) and the loss by less than 1e-3 bits. */
static void test_losses_are_cross_entropy(void **state) {
  uint64_t seed = 7;
  int8_t logits[100];
  (void)state;
  for (int round = 0; round < 400; ++round) {
    const int classes = 2 + round % 99, target = round % classes;
    const int32_t e = -3 - round % 5;
    int32_t acc[100];
    long double z[100], sum = 0;
    fill_logits(logits, classes, &seed, 127);
    niti_loss_softmax(acc, logits, e, classes, target);
    for (int j = 0; j < classes; ++j) sum += expl(z[j] = ldexpl(logits[j], e));
    for (int j = 0; j < classes; ++j) {
      const long double exact = expl(z[j]) / sum - (j == target), got = ldexpl(acc[j], -24);
      assert_true(fabsl(got - exact) < 2e-4L);
    }
    const long double bits = (logl(sum) - z[target]) / logl(2);
    assert_true(fabsl(ldexpl((long double)niti_loss_value(logits, e, classes, target), -16) - bits) < 1e-3L);
  }
}

/* 65536 equal logits: every p is 2^30, their sum 2^46, the loss 16 bits exactly. */
static void test_loss_most_classes(void **state) {
  enum { MOST = 65536 };
  int8_t *logits = malloc(MOST), *delta = malloc(MOST);
  (void)state;
  assert_non_null(logits);
  assert_non_null(delta);
  memset(logits, 5, MOST);
  assert_int_equal(niti_loss_value(logits, -3, MOST, 77), 16 << 16);
  const NitiSoftmax softmax = niti_softmax_sum(logits, -3, MOST);
  int32_t acc[3];
  niti_softmax_acc(acc, &softmax, logits, MOST - 3, 3, MOST - 2);
  assert_int_equal(acc[0], 1 << 8);
  assert_int_equal(acc[1], (1 << 8) - (1 << 24));
  niti_loss_niti(delta, logits, -3, MOST, 77, 1, 2, 0);
  for (int j = 0; j < MOST; ++j) assert_int_equal(delta[j], 0); /* floor(2^11 / 65536) = 0 */
  free(logits);
  free(delta);
}

/* ---- initial weights ---- */

static bool enough(int k, Wide fan) { return k >= 0 ? fan << (2 * k) >= 6 : fan >= (Wide)6 << (-2 * k); }

static void test_init_exponent(void **state) {
  uint64_t seed = 8;
  (void)state;
  for (int64_t fan = 2; fan < 100000; ++fan) {
    const int k = niti_init_exponent(fan / 3 + 1, fan - fan / 3 - 1) + 7;
    assert_true(enough(k, fan) && !enough(k - 1, fan));
  }
  for (int i = 0; i < 10000; ++i) {
    const int64_t in = (int64_t)(splitmix64(&seed) >> (2 + splitmix64(&seed) % 60)) + 1, out = in / 2 + 1;
    const int k = niti_init_exponent(in, out) + 7;
    assert_true(enough(k, (Wide)in + out) && !enough(k - 1, (Wide)in + out));
  }
}

static void test_init_weight(void **state) {
  int seen[255] = {0};
  (void)state;
  for (uint64_t i = 0; i < 255 * 400; ++i) {
    const int w = niti_init_weight(42, 7, i);
    const uint32_t word = niti_random(42, NITI_DRAW_INIT, 0, 7, i);
    assert_true(w == (int)((Wide)word * 255 / ((Wide)1 << 32)) - 127);
    ++seen[w + 127];
  }
  /* Uniform: 400 expected each, standard deviation 20. */
  for (int m = 0; m < 255; ++m) assert_in_range(seen[m], 280, 520);
}

/* ---- input table ---- */

typedef struct Fraction {
  Wide top, bottom;
} Fraction;

static Fraction pixel_fraction(int v, int32_t mean, int32_t std, int e) {
  Fraction f = {(Wide)v * 1000000 - (Wide)255 * mean, (Wide)255 * std};
  if (e < 0) f.top *= (Wide)1 << -e;
  if (e > 0) f.bottom *= (Wide)1 << e;
  return f;
}

static bool needs_clipping(int channels, const int32_t *mean, const int32_t *std, int e) {
  for (int c = 0; c < channels; ++c) {
    for (int v = 0; v < 256; ++v) {
      const Fraction f = pixel_fraction(v, mean[c], std[c], e);
      if (2 * wide_abs(f.top) >= 255 * f.bottom) return true; /* |x| >= 127.5 rounds to 128 */
    }
  }
  return false;
}

static int check_input_table(int channels, const int32_t *mean, const int32_t *std) {
  int8_t table[4 * 256];
  int32_t e = 99;
  assert_int_equal(niti_input_table(table, &e, channels, mean, std), NITI_OK);
  assert_in_range(e + 20, 0, 40);
  assert_false(needs_clipping(channels, mean, std, e));
  if (e > -20) assert_true(needs_clipping(channels, mean, std, e - 1));
  for (int c = 0; c < channels; ++c) {
    for (int v = 0; v < 256; ++v) {
      const Fraction f = pixel_fraction(v, mean[c], std[c], e);
      const Wide m = table[c * 256 + v], error = wide_abs(m * f.bottom - f.top);
      assert_true(2 * error < f.bottom || (2 * error == f.bottom && wide_abs(m * f.bottom) > wide_abs(f.top)));
    }
  }
  return e;
}

static void test_input_table(void **state) {
  static const int32_t cifar_mean[] = {491400, 482200, 446500}, cifar_std[] = {247000, 243500, 261600};
  static const int32_t zero[] = {0}, one[] = {1000000}, tiny[] = {1}, big[] = {INT32_MAX}, low[] = {INT32_MIN};
  uint64_t seed = 9;
  (void)state;
  assert_int_equal(check_input_table(3, cifar_mean, cifar_std), -5);
  assert_int_equal(check_input_table(1, zero, one), -6); /* 1.0 is 64; 128 at -7 would be too much */
  check_input_table(1, zero, tiny);
  check_input_table(1, big, big);
  check_input_table(1, low, big);
  for (int i = 0; i < 300; ++i) {
    int32_t mean[4], std[4];
    for (int c = 0; c < 4; ++c) {
      mean[c] = (int32_t)(splitmix64(&seed) % 3000000) - 1000000;
      std[c] = (int32_t)(splitmix64(&seed) % (i % 2 ? 2000000 : 300)) + 1;
    }
    check_input_table(1 + i % 4, mean, std);
  }
}

static void test_input_table_errors(void **state) {
  static const int32_t zero[] = {0, 0}, bad[] = {5, 0}, negative[] = {-5}, tiny[] = {1}, huge_mean[] = {INT32_MAX};
  int8_t table[512];
  int32_t e;
  (void)state;
  assert_int_equal(niti_input_table(table, &e, 2, zero, bad), NITI_ERROR_ARGUMENT);
  assert_non_null(strstr(niti_error(), "channel 1"));
  assert_int_equal(niti_input_table(table, &e, 1, zero, negative), NITI_ERROR_ARGUMENT);
  assert_int_equal(niti_input_table(table, &e, 0, zero, bad), NITI_ERROR_ARGUMENT);
  assert_int_equal(niti_input_table(table, &e, 1, huge_mean, tiny), NITI_ERROR_ARGUMENT); /* 2^31 > 127 * 2^20 */
  assert_non_null(strstr(niti_error(), "exponent"));
}

/* ---- update ---- */

static void check_update(const int8_t *before, const int64_t *g, size_t count, int mu) {
  int8_t after[64];
  Wide max = 0;
  memcpy(after, before, count);
  for (size_t i = 0; i < count; ++i) max = wide_abs(g[i]) > max ? wide_abs(g[i]) : max;
  const int b = bits_by_definition(max), s = b - mu;
  niti_update_niti(after, g, count, mu);
  for (size_t i = 0; i < count; ++i) {
    const Wide step = b == 0 ? 0 : s < 1 ? (Wide)g[i] : clip(pseudo_by_digits(g[i], s));
    assert_int_equal(after[i], clip(before[i] - step));
  }
}

static void test_update(void **state) {
  uint64_t seed = 10;
  int8_t w[64];
  int64_t g[64];
  (void)state;
  for (int mu = 1; mu <= 30; ++mu) {
    for (int width = 1; width <= 61; ++width) {
      const int64_t most = ((int64_t)1 << width) - 1 + (width < 61);
      for (size_t i = 0; i < 64; ++i) {
        w[i] = (int8_t)((int)(splitmix64(&seed) % 255) - 127);
        g[i] = (int64_t)(splitmix64(&seed) % (uint64_t)(2 * most + 1)) - most;
      }
      g[5] = width % 2 ? most : -most;
      check_update(w, g, 64, mu);
    }
  }
  /* Every small gradient on every weight. */
  for (int wi = -127; wi <= 127; ++wi) {
    for (int64_t gi = -300; gi <= 300; ++gi) {
      w[0] = (int8_t)wi;
      check_update(w, &gi, 1, 5);
    }
  }
}

static void test_update_without_gradient(void **state) {
  const int8_t before[4] = {1, -127, 127, 0};
  const int64_t ones[4] = {1, -1, 1, 0}, zeros[4] = {0};
  int8_t w[4];
  (void)state;
  memcpy(w, before, 4);
  niti_update_niti(w, ones, 4, 5); /* B(1) = 0 */
  assert_memory_equal(w, before, 4);
  niti_update_niti(w, zeros, 4, 5);
  assert_memory_equal(w, before, 4);
}

/* ---- formulas that backends share ---- */

static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

/* At the common exponent that docs/arithmetic.md gives: the smaller one, but no further than 15 below the larger. */
static void test_align(void **state) {
  (void)state;
  int64_t most = 0;
  for (int32_t d = -40; d <= 40; ++d) {
    const NitiAlignment r = niti_align(100 + d, 100);
    const int32_t large_e = d > 0 ? 100 + d : 100, small_e = d > 0 ? 100 : 100 + d;
    assert_int_equal(r.a_larger, d >= 0);
    assert_int_equal(r.exponent, large_e - 15 > small_e ? large_e - 15 : small_e);
    for (int large = -127; large <= 127; large += 1 + (large & 7)) {
      for (int small = -127; small <= 127; ++small) {
        int64_t expected = (int64_t)large * ((int64_t)1 << (large_e - r.exponent));
        const int right = r.exponent - small_e;
        expected += right > 0 ? niti_round(small, right, NITI_NEAREST, 0) : small;
        assert_int_equal(niti_align_sum(large, small, r.left, r.right), expected);
        most = magnitude(expected) > most ? magnitude(expected) : most;
      }
    }
  }
  assert_int_equal(niti_align(INT32_MAX, INT32_MIN).exponent, INT32_MAX - 15);
  assert_int_equal(niti_bound_add(), (most + 127 * 127 - 1) / (127 * 127));
}

/* Beside a search through every window and tap. */
static void check_axis(int32_t size, int32_t kernel, int32_t stride, int32_t pad) {
  const int32_t windows = (size + 2 * pad - kernel) / stride + 1;
  int32_t most = 0;
  for (int32_t at = 0; at < size; ++at) {
    const NitiWindows covering = niti_windows(at + pad, kernel, stride, windows);
    const NitiStridePhase phase = niti_stride_phase(at % stride, size, kernel, stride, pad);
    int32_t count = 0, reached = 0;
    for (int32_t o = 0; o < windows; ++o) {
      const int32_t tap = at + pad - o * stride, i = o - at / stride - phase.offset;
      const bool covers = tap >= 0 && tap < kernel;
      assert_int_equal(covers, o >= covering.first && o <= covering.last);
      assert_int_equal(covers, i >= 0 && i < phase.taps);
      if (covers) assert_int_equal(tap, phase.last - i * stride);
      count += covers;
    }
    for (int32_t other = at % stride; other < size; other += stride) ++reached;
    assert_int_equal(phase.positions, reached);
    most = count > most ? count : most;
  }
  if (size >= 4 * kernel + stride) assert_int_equal(niti_windows_most(kernel, stride), most);
  assert_true(most <= niti_windows_most(kernel, stride));
}

static void test_windows(void **state) {
  (void)state;
  for (int32_t kernel = 1; kernel <= 7; ++kernel) {
    for (int32_t stride = 1; stride <= 5; ++stride) {
      for (int32_t pad = 0; pad <= 8; pad += 2) {
        for (int32_t size = kernel; size < 40; size += 3) check_axis(size, kernel, stride, pad);
      }
    }
  }
  assert_int_equal(niti_stride_phase(2, 2, 3, 4, 0).positions, 0);
}

/* The factor is the integer nearest to 2^15 / cells, or the division is exact. */
static void test_reciprocal(void **state) {
  (void)state;
  for (int32_t cells = 1; cells <= 32768; ++cells) {
    const NitiReciprocal r = niti_reciprocal(cells);
    if (r.factor == 1 && r.exponent > -15) {
      assert_int_equal((int64_t)1 << -r.exponent, cells);
    } else {
      assert_int_equal(r.exponent, -15);
      assert_true(2 * magnitude((int64_t)r.factor * cells - 32768) <= cells);
    }
  }
}

static void test_bounds(void **state) {
  (void)state;
  assert_true((int64_t)NITI_ACCUMULATION_MAX * 127 * 127 <= INT32_MAX &&
              ((int64_t)NITI_ACCUMULATION_MAX + 1) * 127 * 127 > INT32_MAX);
  assert_int_equal(niti_bound_conv_forward(3, 5, 64), 960);
  assert_int_equal(niti_bound_conv_backward(3, 5, 2, 1, 64), 2 * 5 * 64);
  assert_int_equal(niti_bound_conv_backward(1024, 1024, 1, 1, 65536), (int64_t)1 << 36);
  assert_int_equal(niti_bound_conv_gradient(65536, 65536, 4), (int64_t)1 << 34);
  assert_int_equal(niti_bound_avgpool_forward(2, 2), 1);          /* 4 mantissas */
  assert_int_equal(niti_bound_avgpool_forward(3, 3), 259);        /* 9 * 3641 = 258.02 * 127 */
  assert_int_equal(niti_bound_avgpool_backward(3, 3, 2, 2), 115); /* 4 * 3641 = 114.7 * 127 */
  for (int64_t bound = 1; bound <= NITI_ACCUMULATION_MAX; bound += 1 + bound / 3) {
    const int bits = niti_bound_headroom(bound);
    assert_true(bound << bits <= NITI_ACCUMULATION_MAX && bound << (bits + 1) > NITI_ACCUMULATION_MAX);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bits),
      cmocka_unit_test(test_requantise_shift),
      cmocka_unit_test(test_round_known),
      cmocka_unit_test(test_round_all_int16),
      cmocka_unit_test(test_round_all_int8_all_shifts),
      cmocka_unit_test(test_round_edges),
      cmocka_unit_test(test_stochastic_is_unbiased),
      cmocka_unit_test(test_philox_known_answers),
      cmocka_unit_test(test_philox_beside_random123),
      cmocka_unit_test(test_align),
      cmocka_unit_test(test_windows),
      cmocka_unit_test(test_reciprocal),
      cmocka_unit_test(test_bounds),
      cmocka_unit_test(test_purposes),
      cmocka_unit_test(test_exp2),
      cmocka_unit_test(test_log2),
      cmocka_unit_test(test_losses),
      cmocka_unit_test(test_softmax_parts),
      cmocka_unit_test(test_losses_are_cross_entropy),
      cmocka_unit_test(test_loss_most_classes),
      cmocka_unit_test(test_init_exponent),
      cmocka_unit_test(test_init_weight),
      cmocka_unit_test(test_input_table),
      cmocka_unit_test(test_input_table_errors),
      cmocka_unit_test(test_update),
      cmocka_unit_test(test_update_without_gradient),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
