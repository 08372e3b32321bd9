/* Every operation of the CPU backend that treats each value by itself, and bias gradients, against a naive loop written from
 * docs/arithmetic.md: aliases, exponents far apart, every rounding mode, one and three threads, guard bytes round every output.
 * (Convolutions: test_conv*.c.) */
#include "ops_test.h"

/* ---- relu, dropout ---- */

/* nearest(max / 2^e) of a maximum in millionths, by trying; 1000: larger than any mantissa, or no maximum. */
static int naive_limit(int32_t max, int exponent) {
  for (int limit = 0; max > 0 && limit <= 127; ++limit) { /* the first above max / 2^e - 1/2 */
    const __int128 twice = (__int128)2 * max, unit = 1000000;
    const __int128 left = (2 * limit + 1) * unit * ((__int128)1 << (exponent > 0 ? exponent : 0));
    if (left > twice << (exponent < 0 ? -exponent : 0)) return limit;
  }
  return 1000;
}

static void check_relu(NitiBackend *backend, NitiShape shape, int32_t max, int exponent) {
  const size_t count = niti_shape_count(shape);
  const int limit = naive_limit(max, exponent);
  NitiTensor x = tensor_random(shape, 127, exponent), y = tensor_new(shape), expected = tensor_new(shape);
  for (size_t i = 0; i < count; ++i) expected.data[i] = (int8_t)(x.data[i] < 0 ? 0 : x.data[i] > limit ? limit : x.data[i]);
  *expected.exponent = exponent;
  backend->kernels->relu_forward(backend, &y, &x, max);
  assert_same(&y, &expected);
  backend->kernels->relu_forward(backend, &x, &x, max);
  assert_same(&x, &expected);

  NitiTensor dy = tensor_random(shape, 127, 4), dx = tensor_new(shape);
  for (size_t i = 0; i < count; ++i) expected.data[i] = (int8_t)(y.data[i] > 0 && y.data[i] < limit ? dy.data[i] : 0);
  *expected.exponent = 4;
  backend->kernels->relu_backward(backend, &dx, &dy, &y, max);
  assert_same(&dx, &expected);
  backend->kernels->relu_backward(backend, &dy, &dy, &y, max);
  assert_same(&dy, &expected);
  tensor_free(&x), tensor_free(&y), tensor_free(&expected), tensor_free(&dy), tensor_free(&dx);
}

static void test_relu(void **state) {
  static const struct {
    int32_t max;
    int exponent;
  } limits[] = {{0, -9},        {6000000, -4}, {6000000, -5},   {6000000, 0},     {6000000, 3},   {6000000, 4},
                {6000000, 40},  {1, -24},      {2000000000, 4}, {2000000000, 12}, {127000000, 0}, {127499999, 0},
                {127500000, 0}, {62500, -3},   {20500000, -2},  {500000, 0},      {499999, 0}};
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (size_t k = 0; k < FLAT_SHAPES; ++k) check_relu(backend, flat_shapes[k], 0, -9);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; ++i)
      check_relu(backend, flat_shapes[3], limits[i].max, limits[i].exponent);
    niti_backend_close(backend);
  }
}

/* 2^15 / (1 - rate) rounded, after it was halved until it is at most 2^15; the number of halvings. */
static int64_t naive_factor(int rate, int *halvings) {
  const int64_t left = 1000000 - rate;
  *halvings = 0;
  while (1000000 > left << *halvings) ++*halvings;
  const int64_t d = left << *halvings, n = (int64_t)32768 * 1000000;
  return n / d + (n % d * 2 >= d);
}

static void check_dropout(NitiBackend *backend, NitiShape shape, bool shared, int32_t rate) {
  const NitiDropout dropout = {shared, rate};
  const size_t image = niti_shape_image(shape);
  NitiTensor x = tensor_random(shape, 127, -2), y = tensor_new(shape), expected = tensor_new(shape);
  int halvings;
  const int64_t factor = naive_factor(rate, &halvings);
  const uint64_t threshold = (((uint64_t)rate << 33) / 1000000 + 1) / 2;
  for (size_t i = 0; i < niti_shape_count(shape); ++i) {
    const uint32_t word = niti_random(run_seed, NITI_DRAW_DROPOUT, STEP, 11, shared ? i % image : i);
    expected.data[i] = word >= threshold ? niti_round_int8(x.data[i] * factor, 15, NITI_NEAREST, 0) : 0;
    if (rate == 500000) assert_int_equal(expected.data[i], word >= 0x80000000u ? x.data[i] : 0);
    if (word >= threshold && x.data[i] != 0) assert_int_not_equal(expected.data[i], 0);
  }
  *expected.exponent = -2 + halvings;
  backend->kernels->dropout(backend, &y, &x, 11, &dropout);
  assert_same(&y, &expected);
  backend->kernels->dropout(backend, &x, &x, 11, &dropout);
  assert_same(&x, &expected);
  tensor_free(&x), tensor_free(&y), tensor_free(&expected);
}

static void test_dropout(void **state) {
  static const int32_t rates[] = {0, 1, 200000, 250000, 333333, 499999, 500001, 750000, 900000, 999999};
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (size_t k = 0; k < 2 * FLAT_SHAPES; ++k) check_dropout(backend, flat_shapes[k / 2], k % 2, 500000);
    for (size_t k = 0; k < 2 * sizeof rates / sizeof *rates; ++k) check_dropout(backend, flat_shapes[3], k % 2, rates[k / 2]);
    niti_backend_close(backend);
  }
}

/* ---- bias ---- */

static void test_bias_gradient(void **state) {
  static const NitiShape shapes[] = {{1, 1, 1, 1},    {3, 5, 7, 3},    {2, 1, 1, 333},
                                     {9000, 1, 1, 2}, {5, 33, 31, 17}, {2, 64, 64, 300}};
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (size_t k = 0; k < 2 * sizeof shapes / sizeof *shapes; ++k) {
      const NitiShape shape = shapes[k / 2];
      const size_t channels = (size_t)shape.c;
      NitiTensor dy = tensor_random(shape, 127, 9);
      if (k % 2) memset(dy.data, 127, niti_shape_count(shape));
      int64_t *sums = guarded(channels * sizeof *sums), *expected = calloc(channels, sizeof *expected);
      int32_t exponent = 0;
      NitiTensor gradient = {.data = (int8_t *)sums, .exponent = &exponent, .shape = {1, 1, 1, shape.c}};
      for (size_t i = 0; i < niti_shape_count(shape); ++i) expected[i % channels] += dy.data[i];
      backend->kernels->bias_gradient(backend, &gradient, &dy);
      assert_memory_equal(sums, expected, channels * sizeof *sums);
      assert_int_equal(exponent, 9);
      guarded_free(sums, channels * sizeof *sums);
      free(expected);
      tensor_free(&dy);
    }
    niti_backend_close(backend);
  }
}

/* b * 2^d, nearest, ties away from zero, at most 2^29, through a convolution of nothing. */
static void test_bias_at_exponents(void **state) {
  (void)state;
  NitiBackend *backend = open_backend(1);
  for (int d = -20; d <= 40; ++d) {
    const NitiConv one = conv_shape(1, 1, 1, 1, 4, 1, 1, 1, 1, 0, 0);
    const int16_t values[4] = {0, 32767, -3, (int16_t)random_in(-32767, 32767)};
    NitiTensor x = tensor_new((NitiShape){1, 1, 1, 1}), w = tensor_new((NitiShape){4, 1, 1, 1}),
               y = tensor_new((NitiShape){1, 1, 1, 4});
    NitiTensor bias = {.data = (int8_t *)values, .exponent = malloc(sizeof(int32_t)), .shape = {1, 1, 1, 4}},
               expected = tensor_new(y.shape);
    int64_t acc[4];
    int32_t predicted = 3;
    const NitiRequantise rq = {NITI_NEAREST, NITI_DRAW_ROUND_ACT, 1, &predicted, 0, 0};
    *x.data = 0, *x.exponent = -7, *w.exponent = 3, *bias.exponent = d - 4;
    memset(w.data, 55, 4);
    for (int k = 0; k < 4; ++k) {
      const int64_t magnitude = values[k] < 0 ? -values[k] : values[k];
      int64_t b = d < 0 ? (2 * magnitude + (1LL << -d)) / (1LL << (1 - d)) : magnitude << d;
      if (b > 1 << 29) b = 1 << 29;
      acc[k] = values[k] < 0 ? -b : b;
    }
    requantise(&expected, acc, -4, &rq);
    const NitiConvCall call = call_prepare(backend, &one, NITI_FORWARD, false, false, false);
    backend->kernels->conv_forward(backend, &y, &x, &w, &bias, &call, &rq);
    assert_same(&y, &expected);
    call_release(backend, (NitiConvCall *)&call);
    free(bias.exponent);
    tensor_free(&x), tensor_free(&w), tensor_free(&y), tensor_free(&expected);
  }
  niti_backend_close(backend);
}

/* ---- add ---- */

/* docs/arithmetic.md, "residual add". */
static void naive_add(NitiTensor *y, const NitiTensor *a, const NitiTensor *b, const NitiRequantise *rq) {
  const NitiTensor *large = *a->exponent > *b->exponent ? a : b, *small = large == a ? b : a;
  const int64_t d = (int64_t)*large->exponent - *small->exponent;
  int64_t *acc = acc_new(y->shape);
  for (size_t i = 0; i < niti_shape_count(y->shape); ++i) {
    if (d <= 15) {
      acc[i] = (int64_t)large->data[i] * ((int64_t)1 << d) + small->data[i];
    } else {
      const int64_t rest = d - 15 > 62 ? 0 : niti_round(small->data[i], (int)(d - 15), NITI_NEAREST, 0);
      acc[i] = (int64_t)large->data[i] * 32768 + rest;
    }
  }
  requantise(y, acc, d <= 15 ? *small->exponent : *large->exponent - 15, rq);
  free(acc);
}

static void check_add(NitiBackend *backend, NitiShape shape, int e_a, int e_b, int range, NitiRounding mode) {
  int32_t predicted = 3;
  const NitiRequantise rq = {.mode = mode, .purpose = NITI_DRAW_FORK, .layer = 65536 + 3, .prediction = &predicted};
  NitiTensor a = tensor_random(shape, range, e_a), b = tensor_random(shape, 127, e_b);
  NitiTensor y = tensor_new(shape), expected = tensor_new(shape);
  NitiTensor a2 = tensor_copy(&a), b2 = tensor_copy(&b);
  naive_add(&expected, &a, &b, &rq);
  backend->kernels->add(backend, &y, &a, &b, NULL, false, &rq);
  assert_same(&y, &expected);
  backend->kernels->add(backend, &a2, &a2, &b, NULL, false, &rq);
  assert_same(&a2, &expected);
  backend->kernels->add(backend, &b2, &a, &b2, NULL, false, &rq);
  assert_same(&b2, &expected);
  NitiTensor y2 = tensor_new(shape);
  /* A ReLU, and a mask. */
  const size_t count = niti_shape_count(shape);
  backend->kernels->add(backend, &y, &a, &b, NULL, true, &rq);
  for (size_t i = 0; i < count; ++i) y2.data[i] = expected.data[i] > 0 ? expected.data[i] : (int8_t)0;
  *y2.exponent = *expected.exponent;
  assert_same(&y, &y2);
  backend->kernels->add(backend, &y, &a, &b, &b, false, &rq);
  for (size_t i = 0; i < count; ++i) y2.data[i] = b.data[i] > 0 ? expected.data[i] : (int8_t)0;
  assert_same(&y, &y2);
  /* Only the exponent shared. */
  int32_t *own = y2.exponent;
  y2.exponent = a.exponent;
  backend->kernels->add(backend, &y2, &a, &b, NULL, false, &rq);
  assert_same(&y2, &expected);
  y2.exponent = own;
  tensor_free(&a), tensor_free(&b), tensor_free(&a2), tensor_free(&b2), tensor_free(&y), tensor_free(&y2), tensor_free(&expected);
}

static void test_add(void **state) {
  static const int distances[] = {0, 1, 2, 7, 8, 9, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 31, 40, 100, 100000};
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (size_t k = 0; k < sizeof distances / sizeof distances[0]; ++k) {
      for (size_t m = 0; m < 4; ++m) {
        const NitiShape shape = flat_shapes[m == 0 ? 3 : 1];
        check_add(backend, shape, -30, -30 + distances[k], 127, modes[m]);
        check_add(backend, shape, 5 + distances[k], 5, 127, modes[m]);
        check_add(backend, shape, 5 + distances[k], 5, 1, modes[m]);
        check_add(backend, shape, 5 + distances[k], 5, 0, modes[m]);
      }
    }
    check_add(backend, (NitiShape){1, 1, 1, 1}, INT_MIN / 2, INT_MAX / 2, 127, NITI_NEAREST);
    check_add(backend, (NitiShape){1, 1, 1, 1}, INT_MAX, INT_MIN, 127, NITI_NEAREST);
    niti_backend_close(backend);
  }
}

/* ---- stats ---- */

static void test_stats(void **state) {
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (size_t k = 0; k < FLAT_SHAPES; ++k) {
      NitiTensor x = tensor_random(flat_shapes[k], 127, -77);
      int64_t histogram[255] = {0};
      NitiTensorStats stats;
      memset(&stats, GUARD_BYTE, sizeof stats);
      for (size_t i = 0; i < niti_shape_count(x.shape); ++i) ++histogram[x.data[i] + 127];
      backend->kernels->stats(backend, &stats, &x);
      assert_memory_equal(stats.histogram, histogram, sizeof histogram);
      assert_int_equal(stats.count, niti_shape_count(x.shape));
      assert_int_equal(stats.saturated, histogram[0] + histogram[254]);
      assert_int_equal(stats.exponent, -77);
      tensor_free(&x);
    }
    niti_backend_close(backend);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_relu),          cmocka_unit_test(test_dropout),
                                     cmocka_unit_test(test_bias_gradient), cmocka_unit_test(test_bias_at_exponents),
                                     cmocka_unit_test(test_add),           cmocka_unit_test(test_stats)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
