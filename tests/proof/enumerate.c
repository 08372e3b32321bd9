/* Proofs by enumeration: every value of a function's domain, or every value on which its result depends, with the
 * undefined-behaviour sanitizer watching for overflow. docs/reliability.md lists what follows from each. enumerate [quick] quick:
 * every 4099th of the loops over 2^32 values */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/scalar.h"
#include "base/sgd.h"
#include "base/shift_prediction.h"
#include "base/softmax.h"
#include "base/update.h"
#include "base/wide.h"

static uint64_t cases;

#define PROVE(claim)                                                               \
  do {                                                                             \
    if (!(claim)) {                                                                \
      (void)fprintf(stderr, "enumerate: line %d: not so: %s\n", __LINE__, #claim); \
      exit(1);                                                                     \
    }                                                                              \
    ++cases;                                                                       \
  } while (0)

static const NitiRounding modes[] = {NITI_NEAREST, NITI_PSEUDO_STOCHASTIC, NITI_STOCHASTIC, NITI_TRUNCATE, NITI_STOCHASTIC_BYTE};

/* The largest accumulator of a tensor decides the shift; rounded in any mode it is at most 128, so that clipping costs one. */
static void shifts(uint64_t step) {
  for (uint64_t max = 0; max <= UINT32_MAX; max += step) {
    const int s = niti_shift_inline((uint32_t)max);
    PROVE(s >= 0 && s <= NITI_SHIFT_MAX && max >> s <= 128 && (s == 0 || max >> (s - 1) >= 128));
    PROVE(niti_round_magnitude(max, s, NITI_NEAREST, 0) <= 128);
    const int clipped = niti_clipped_shift((uint32_t)max, (int)(max & 7));
    PROVE(clipped >= 0 && clipped <= s);
  }
  for (int b = 0; b < 64; ++b) {
    const uint64_t power = (uint64_t)1 << b;
    PROVE(niti_bits_inline(power) == b && (b < 2 || niti_bits_inline(power - 1) == b) && niti_bits_inline(power + 1) == b + 1);
  }
}

/* Every remainder of every shift that an int32 accumulator can have: the result is the quotient or one more, in every mode with
 * the least and the largest random word; nearest is nearest. The quotient enters by addition alone. */
static void roundings(uint64_t step) {
  static const uint64_t quotients[] = {0, 1, 127, (uint64_t)1 << 36};
  for (int s = 1; s <= NITI_SHIFT_MAX; ++s) {
    const uint64_t unit = (uint64_t)1 << s;
    for (uint64_t r = 0; r<unit; r += unit>(1u << 16) ? step : 1) {
      const uint64_t q = quotients[r & 3], x = q << s | r;
      for (int m = 0; m < 5; ++m) {
        const uint64_t low = niti_round_magnitude(x, s, modes[m], 0), high = niti_round_magnitude(x, s, modes[m], UINT32_MAX);
        PROVE((low == q || low == q + 1) && (high == q || high == q + 1));
        if (r == 0) PROVE(low == q && high == q);
      }
      PROVE((niti_round_magnitude(x, s, NITI_NEAREST, 0) == q + 1) == (2 * r >= unit));
      PROVE(niti_round_magnitude(x, s, NITI_STOCHASTIC, UINT32_MAX) == q);
      PROVE((niti_round_magnitude(x, s, NITI_STOCHASTIC, 0) == q + 1) == (r > 0));
    }
  }
  for (int s = 0; s <= 62; ++s) { /* the ends of the stated domain */
    const int64_t most = ((int64_t)1 << 62) - 1;
    for (int m = 0; m < 5; ++m) {
      if (modes[m] == NITI_STOCHASTIC && s > 32) continue;
      const int64_t rounded = niti_round_inline(most, s, modes[m], 77);
      PROVE(rounded >= most >> s && rounded <= (most >> s) + 1 && niti_round_inline(-most, s, modes[m], 77) == -rounded);
    }
  }
}

/* 2^x: every argument. log2: a function of the highest bit and the 16 bits after it, so these are all. */
static void logarithms(void) {
  uint32_t before = 1u << 30;
  for (uint32_t f = 0; f < 65536; ++f) {
    const uint32_t v = niti_exp2_frac_inline(f);
    PROVE(v >= before && v < (uint32_t)1 << 31);
    before = v;
  }
  int64_t last = -1;
  for (int n = 0; n < 47; ++n) {
    for (uint64_t f = 0; f < 65536; ++f) {
      if (n < 16 && f & ((1u << (16 - n)) - 1)) continue; /* no such number */
      const uint64_t v = (((uint64_t)1 << 16 | f) << n) >> 16;
      const int64_t log = niti_log2_inline(v);
      PROVE(log >= last && log >= (int64_t)n << 16 && log <= (int64_t)(n + 1) << 16);
      last = log;
    }
  }
}

/* Weights of classes: every distance from the largest logit, until they stay the same; logits in base 2: every mantissa, every
 * exponent until they stay the same. */
static void losses(void) {
  uint64_t softmax = 0, niti = 0;
  for (int64_t d = -((int64_t)34 << 16); d <= 0; ++d) {
    const uint64_t a = niti_loss_weight_softmax(d), b = niti_loss_weight_niti(d);
    PROVE(a >= softmax && a <= (uint64_t)1 << 30 && b >= niti && b <= (1023u << 16));
    softmax = a;
    niti = b;
  }
  PROVE(softmax == (uint64_t)1 << 30);
  for (int32_t e = -45; e <= 20; ++e) {
    int64_t before = INT64_MIN;
    for (int m = -127; m <= 127; ++m) {
      const int64_t t = niti_loss_base2((int8_t)m, e);
      PROVE(t >= before && t > -((int64_t)1 << 40) && t < (int64_t)1 << 40);
      before = t;
    }
  }
  for (int32_t classes = 1; classes <= 65536; ++classes) {
    const int32_t off = niti_loss_off(999999999, classes), on = niti_loss_on(off, classes);
    PROVE(off >= 0 && on >= 0 && off <= 1 << 24 && on <= 1 << 24);
    PROVE(niti_loss_off(0, classes) == 0 && niti_loss_on(0, classes) == 1 << 24);
  }
}

static void updates(uint64_t step) {
  for (int w = -127; w <= 127; ++w) {
    for (int s = -127; s <= 127; ++s) {
      const int v = niti_update_step((int8_t)w, (int8_t)s), exact = w - s;
      PROVE(v == (exact > 127 ? 127 : exact < -127 ? -127 : exact));
    }
  }
  for (int64_t g = INT32_MIN; g <= INT32_MAX; g += (int64_t)step) {
    const NitiMu whole = niti_mu(niti_magnitude64(g), 4 * NITI_MU_UNITS), part = niti_mu(niti_magnitude64(g), 3500001);
    PROVE(niti_update_weight((int8_t)(g % 128), g, &whole) != INT8_MIN &&
          niti_update_weight((int8_t)(g % 128), g, &part) != INT8_MIN);
  }
  for (int w = -NITI_SGD_WEIGHT_MAX; w <= NITI_SGD_WEIGHT_MAX; ++w) {
    const int v = niti_sgd_operand((int16_t)w);
    PROVE(v >= -127 && v <= 127 && v * 256 - w <= 128 && w - v * 256 <= 128);
  }
}

/* Residual sums: every pair of mantissas at every distance of exponents. */
static void additions(void) {
  for (int32_t e = -30; e <= 30; ++e) {
    const NitiAlignment a = niti_align(e, 0);
    PROVE(a.left >= 0 && a.left <= NITI_ALIGN_LEFT_MAX && a.right >= 0 && a.right <= NITI_ALIGN_RIGHT_MAX);
    for (int x = -127; x <= 127; ++x) {
      for (int y = -127; y <= 127; ++y)
        PROVE(niti_magnitude64(niti_align_sum(x, y, a.left, a.right)) <= (uint64_t)niti_bound_add() * NITI_PRODUCT_MAX);
    }
  }
}

/* Every bound that is accepted fits into int32, and the head-room is what its name says. */
static void bounds(void) {
  for (int64_t bound = 1; bound <= NITI_ACCUMULATION_MAX; ++bound) {
    const int bits = niti_bound_headroom(bound);
    PROVE(bound * NITI_PRODUCT_MAX <= INT32_MAX);
    PROVE((bound << bits) <= NITI_ACCUMULATION_MAX && (bound << (bits + 1)) > NITI_ACCUMULATION_MAX);
  }
  PROVE(((int64_t)NITI_ACCUMULATION_MAX + 1) * NITI_PRODUCT_MAX > INT32_MAX);
  for (int32_t n = 1; n <= 32768; ++n) { /* average pools of every size */
    const int64_t sum = (int64_t)n * NITI_MANTISSA_MAX * niti_reciprocal(n).factor;
    PROVE(sum <= niti_bound_avgpool_forward(1, n) * NITI_PRODUCT_MAX);
    PROVE(niti_bound_avgpool_forward(1, n) > 0);
  }
}

/* Every word is a valid prediction. */
static void predictions(void) {
  for (int32_t word = 0; word < 1 << 24; ++word) {
    const int even = niti_shift_prediction_next(word, NITI_PREDICTION_EVEN),
              low = niti_shift_prediction_next(word, NITI_PREDICTION_LOW);
    PROVE(even >= 0 && even <= NITI_SHIFT_MAX && low >= 0 && low <= NITI_SHIFT_MAX && low <= even);
  }
  for (int mean = 0; mean <= 256 * NITI_SHIFT_MAX; ++mean) {
    for (int shift = 0; shift <= NITI_SHIFT_MAX; ++shift) {
      const int32_t word = niti_shift_prediction_update(mean << 8, shift);
      PROVE(niti_shift_prediction_last(word) == shift && (word >> 8) <= 256 * NITI_SHIFT_MAX && word >= 0);
    }
  }
  for (uint32_t rise = 0; rise < 256; ++rise) {
    static const uint32_t samples[] = {0, 1, 1000, 1u << 30, INT32_MAX};
    const int32_t word = (int32_t)(rise << 24 | 0x123456);
    for (int i = 0; i < 25; ++i) {
      const uint32_t sample = samples[i / 5], largest = niti_shift_prediction_largest(word, sample);
      const int32_t next = niti_shift_prediction_risen(word, sample, samples[i % 5]);
      PROVE(largest >= sample && largest / 3 <= sample && (next & 0xffffff) == 0x123456);
    }
  }
}

static bool is_scalar(NitiScalar s) {
  const uint64_t m = niti_magnitude64(s.m);
  return (m == 0 && s.e == 0) || (m >= (uint64_t)1 << 30 && m < (uint64_t)1 << 31);
}

/* Scalars: not every pair of 2^31 mantissas, but the ends of each range and its middle, at every distance of exponents. */
static void scalars(uint64_t step) {
  static const int32_t m[] = {1 << 30, (1 << 30) + 1, 1518500249, 1518500250, INT32_MAX - 1, INT32_MAX};
  for (int bits = 0; bits < 63; ++bits) {
    for (int64_t low = -2; low <= 2; ++low) {
      const int64_t x = ((int64_t)1 << bits) + low;
      PROVE(is_scalar(niti_scalar(x, 0)) && is_scalar(niti_scalar(-x, 0)));
    }
  }
  PROVE(is_scalar(niti_scalar(INT64_MAX, 0)) && is_scalar(niti_scalar(-INT64_MAX, 0)));
  for (int i = 0; i < 144; ++i) {
    const NitiScalar a = {i & 1 ? m[i / 2 % 6] : -m[i / 2 % 6], 0};
    for (int32_t e = -70; e <= 70; ++e) {
      const NitiScalar b = {i & 1 ? m[i / 12 % 6] : -m[i / 12 % 6], e}, c = {-b.m, e};
      PROVE(is_scalar(niti_scalar_mul(a, b)) && is_scalar(niti_scalar_div(a, b)) && is_scalar(niti_scalar_add(a, b)) &&
            is_scalar(niti_scalar_add(a, c)));
      if (a.m > 0) PROVE(is_scalar(niti_scalar_sqrt((NitiScalar){a.m, e})));
      const int64_t fixed = niti_scalar_fixed(a, e, (int64_t)1 << 60);
      PROVE(fixed >= -((int64_t)1 << 60) && fixed <= (int64_t)1 << 60);
      const int64_t times = niti_scalar_times(INT32_MAX, a, e), other = niti_scalar_times(-INT32_MAX, a, e);
      PROVE(niti_magnitude64(times) <= (uint64_t)1 << 62 && niti_magnitude64(other) <= (uint64_t)1 << 62);
    }
  }
  for (uint64_t r = 0; r < (uint64_t)1 << 31; r += 8191) {
    PROVE(niti_sqrt_floor(r * r) == r && (r == 0 || niti_sqrt_floor(r * r - 1) == r - 1));
  }
  for (uint64_t i = (uint64_t)1 << 30; i < (uint64_t)1 << 31; i += step) { /* each divisor; each root of a scalar */
    const NitiScalar s = {(int32_t)i, 0};
    const uint64_t even = niti_root(i << 30), odd = niti_root(i << 31);
    PROVE(niti_scalar_divisor(s).inverse == (uint32_t)(UINT64_MAX / (2 * i)));
    PROVE(even * even <= i << 30 && (even + 1) * (even + 1) > i << 30 && odd * odd <= i << 31 && (odd + 1) * (odd + 1) > i << 31);
  }
}

#ifdef __SIZEOF_INT128__
typedef unsigned __int128 Wide;

static Wide wide_of(NitiWide w) { return (Wide)w.high << 64 | w.low; }

/* The 128-bit integers that are ours beside the compiler's. */
static void wides(void) {
  uint64_t state = 1;
  for (int i = 0; i < 200000; ++i) {
    uint64_t v[4];
    for (int j = 0; j < 4; ++j) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      v[j] = state >> (i * (j + 3) % 64);
      if (i % 7 == j) v[j] = 0 - v[j];
    }
    const NitiWide a = {v[0], v[1]}, b = {v[2] >> 1, v[3]};
    PROVE(wide_of(niti_wide_product(v[0], v[1])) == (Wide)v[0] * v[1] &&
          niti_wide_high(v[0], v[1]) == niti_wide_product(v[0], v[1]).high);
    PROVE(wide_of(niti_wide_sum(a, b)) == wide_of(a) + wide_of(b) &&
          wide_of(niti_wide_difference(a, b)) == wide_of(a) - wide_of(b));
    PROVE(wide_of(niti_wide_times(a, v[2])) == wide_of(a) * v[2] && niti_wide_less(a, b) == (wide_of(a) < wide_of(b)));
    if (wide_of(b) == 0) continue;
    NitiWide rest = a;
    const uint64_t q = niti_wide_divide(&rest, b);
    const Wide exact = wide_of(a) / wide_of(b);
    PROVE(q == (exact > UINT64_MAX ? UINT64_MAX : (uint64_t)exact) && wide_of(rest) == wide_of(a) % wide_of(b));
  }
}
#else
static void wides(void) {}
#endif

static void report(const char *what) {
  (void)printf("%-12s %12llu claims\n", what, (unsigned long long)cases);
  cases = 0;
}

int main(int argc, char **argv) {
  const uint64_t step = argc > 1 && strcmp(argv[1], "quick") == 0 ? 4099 : 1;
  shifts(step);
  report("shifts");
  roundings(step == 1 ? 1 : 61);
  report("roundings");
  logarithms();
  report("logarithms");
  losses();
  report("losses");
  updates(step);
  report("updates");
  additions();
  report("additions");
  bounds();
  report("bounds");
  predictions();
  report("predictions");
  scalars(step);
  report("scalars");
  wides();
  report("wides");
  return 0;
}
