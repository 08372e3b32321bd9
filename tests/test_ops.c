/* Every small operation of the CPU backend against a naive loop written from docs/arithmetic.md: odd shapes, padding, windows
 * that overlap or leave gaps, aliases, exponents far apart, every rounding mode, one and three threads, guard bytes round
 * every output. (Convolutions: test_conv*.c.) */
/* clang-format off */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/backend.h"
#include "backend/cpu/cpu.h"
#include "guarded.h"
#include "kernel_calls.h"

enum { SEED_LOW = 12345, STEP = 7 };
static const uint64_t run_seed = ((uint64_t)0xdeadbeef << 32) | SEED_LOW;
static const int thread_counts[] = {1, 3};
static const NitiRounding modes[] = {NITI_NEAREST, NITI_PSEUDO_STOCHASTIC, NITI_STOCHASTIC, NITI_TRUNCATE, NITI_STOCHASTIC_BYTE};

/* ---- guarded memory and tensors ---- */

static void guarded_free(void *p, size_t bytes) {
  check_guards(p, bytes);
  release(p);
}

static NitiTensor tensor_new(NitiShape shape) {
  NitiTensor t = {.data = guarded(niti_shape_count(shape)), .exponent = malloc(sizeof(int32_t)), .shape = shape};
  assert_non_null(t.exponent);
  *t.exponent = INT_MIN;
  return t;
}

/* Mantissas within the range, many of them equal where it is small. */
static NitiTensor tensor_random(NitiShape shape, int range, int exponent) {
  NitiTensor t = tensor_new(shape);
  for (size_t i = 0; i < niti_shape_count(shape); ++i) t.data[i] = (int8_t)random_in(-range, range);
  *t.exponent = exponent;
  return t;
}

static NitiTensor tensor_copy(const NitiTensor *t) {
  NitiTensor c = tensor_new(t->shape);
  memcpy(c.data, t->data, niti_shape_count(t->shape));
  *c.exponent = *t->exponent;
  return c;
}

static void tensor_free(NitiTensor *t) {
  guarded_free(t->data, niti_shape_count(t->shape));
  free(t->exponent);
}

static void assert_same(const NitiTensor *got, const NitiTensor *expected) {
  const size_t count = niti_shape_count(expected->shape);
  assert_int_equal(*got->exponent, *expected->exponent);
  for (size_t i = 0; i < count; ++i) {
    if (got->data[i] != expected->data[i]) {
      fail_msg("element %zu of %zu: got %d, expected %d", i, count, got->data[i], expected->data[i]);
    }
  }
}

static NitiBackend *open_backend(int threads) {
  NitiBackend *backend = NULL;
  const NitiBackendOptions options = {.name = "cpu", .isa = NULL, .threads = threads};
  assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
  begin_step(backend, run_seed, STEP);
  return backend;
}

/* ---- the definition of requantise ---- */

static int bits(int64_t v) {
  int b = 0;
  while (v > (int64_t)1 << b) ++b;
  return b;
}

static void requantise(NitiTensor *out, const int64_t *acc, int32_t exponent, const NitiRequantise *rq) {
  const size_t count = niti_shape_count(out->shape);
  int64_t max = 0;
  for (size_t i = 0; i < count; ++i) max = llabs(acc[i]) > max ? llabs(acc[i]) : max;
  const int shift = bits(max) > 7 ? bits(max) - 7 : 0;
  for (size_t i = 0; i < count; ++i) {
    const bool bytes = rq->mode == NITI_STOCHASTIC_BYTE;
    const uint32_t drawn = niti_random(run_seed, (NitiPurpose)rq->purpose, STEP, rq->layer, bytes ? i / 4 : i);
    const uint32_t word = bytes ? drawn >> (i % 4 * 8) & 255 : drawn;
    out->data[i] = niti_round_int8(acc[i], shift, rq->mode, word);
  }
  *out->exponent = exponent + shift;
}

static int64_t *acc_new(NitiShape shape) {
  int64_t *acc = calloc(niti_shape_count(shape) + 1, sizeof *acc);
  assert_non_null(acc);
  return acc;
}

static size_t at(NitiShape s, int n, int h, int w, int c) {
  return (((size_t)n * (size_t)s.h + (size_t)h) * (size_t)s.w + (size_t)w) * (size_t)s.c + (size_t)c;
}

/* ---- relu, copy, dropout ---- */

static const NitiShape flat_shapes[] = {{1, 1, 1, 1}, {3, 5, 7, 3}, {2, 1, 1, 333}, {5, 33, 31, 17}, {2, 64, 64, 33}};
enum { FLAT_SHAPES = sizeof flat_shapes / sizeof flat_shapes[0] };

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

/* ---- pooling ---- */

typedef struct PoolCase {
  int n, h, w, c, kh, kw, sh, sw, ph, pw;
} PoolCase;

static NitiPool make_pool(const PoolCase *p) {
  const NitiPool pool = {.n = p->n,
                         .h = p->h,
                         .w = p->w,
                         .c = p->c,
                         .oh = (p->h + 2 * p->ph - p->kh) / p->sh + 1,
                         .ow = (p->w + 2 * p->pw - p->kw) / p->sw + 1,
                         .kh = p->kh,
                         .kw = p->kw,
                         .stride_h = p->sh,
                         .stride_w = p->sw,
                         .pad_h = p->ph,
                         .pad_w = p->pw};
  return pool;
}

static const PoolCase max_cases[] = {
    {2, 8, 8, 16, 2, 2, 2, 2, 0, 0},   {3, 7, 9, 5, 2, 2, 2, 2, 0, 0},    {1, 2, 2, 1, 2, 2, 2, 2, 0, 0},
    {2, 9, 11, 67, 2, 2, 2, 2, 0, 0},  {2, 9, 7, 33, 3, 3, 2, 2, 0, 0},   {2, 8, 8, 19, 3, 3, 2, 2, 1, 1},
    {2, 6, 5, 4, 3, 3, 1, 1, 1, 1},    {1, 9, 9, 3, 2, 2, 3, 3, 0, 0},    {2, 7, 10, 3, 2, 3, 2, 3, 1, 2},
    {1, 5, 6, 7, 5, 6, 1, 1, 0, 0},    {2, 10, 6, 2, 4, 1, 3, 2, 3, 0},   {1, 16, 15, 3, 15, 15, 1, 1, 14, 14},
    {1, 4, 3, 5000, 3, 3, 1, 1, 1, 1}, {1, 5, 4, 9000, 2, 2, 2, 2, 0, 0}, {1, 3, 40, 130, 3, 3, 2, 1, 0, 2},
    {2, 4, 4, 3, 1, 1, 1, 1, 0, 0},    {2, 5, 4, 3, 2, 2, 2, 2, 1, 1},    {1, 6, 6, 2, 3, 3, 2, 3, 0, 0},
};
enum { MAX_CASES = sizeof max_cases / sizeof max_cases[0] };

/* The first maximum in row-major order of the cells inside the image. */
static void naive_maxpool(NitiTensor *y, uint8_t *winner, const NitiTensor *x, const NitiPool *p) {
  for (int n = 0; n < p->n; ++n) {
    for (int oh = 0; oh < p->oh; ++oh) {
      for (int ow = 0; ow < p->ow; ++ow) {
        for (int c = 0; c < p->c; ++c) {
          int best = INT_MIN, position = -1;
          for (int cell = 0; cell < p->kh * p->kw; ++cell) {
            const int h = oh * p->stride_h - p->pad_h + cell / p->kw, w = ow * p->stride_w - p->pad_w + cell % p->kw;
            if (h < 0 || w < 0 || h >= p->h || w >= p->w) continue;
            const int v = x->data[at(x->shape, n, h, w, c)];
            if (v > best) best = v, position = cell;
          }
          const size_t i = at(y->shape, n, oh, ow, c);
          y->data[i] = (int8_t)best;
          winner[i] = (uint8_t)position;
        }
      }
    }
  }
  *y->exponent = *x->exponent;
}

static void naive_maxpool_back(int64_t *acc, NitiShape in, const NitiTensor *dy, const uint8_t *winner, const NitiPool *p) {
  for (int n = 0; n < p->n; ++n) {
    for (int oh = 0; oh < p->oh; ++oh) {
      for (int ow = 0; ow < p->ow; ++ow) {
        for (int c = 0; c < p->c; ++c) {
          const size_t i = at(dy->shape, n, oh, ow, c);
          const int h = oh * p->stride_h - p->pad_h + winner[i] / p->kw, w = ow * p->stride_w - p->pad_w + winner[i] % p->kw;
          acc[at(in, n, h, w, c)] += dy->data[i];
        }
      }
    }
  }
}

static void check_maxpool(NitiBackend *backend, const PoolCase *pool_case, NitiRounding mode, int range) {
  const NitiPool p = make_pool(pool_case);
  const NitiShape in = {p.n, p.h, p.w, p.c}, out = {p.n, p.oh, p.ow, p.c};
  const size_t count = niti_shape_count(out);
  NitiTensor x = tensor_random(in, range, -3), y = tensor_new(out), expected = tensor_new(out);
  uint8_t *winner = guarded(count), *expected_winner = guarded(count);
  naive_maxpool(&expected, expected_winner, &x, &p);
  backend->kernels->maxpool_forward(backend, &y, winner, &x, &p);
  assert_same(&y, &expected);
  assert_memory_equal(winner, expected_winner, count);
  check_guards(winner, count);

  int32_t predicted = random_in(0, 3);
  const NitiRequantise rq = {.mode = mode, .purpose = NITI_DRAW_ROUND_DELTA, .layer = 5, .prediction = &predicted};
  NitiTensor dy = tensor_random(out, 127, 6), dx = tensor_new(in), expected_dx = tensor_new(in);
  int64_t *acc = acc_new(in);
  naive_maxpool_back(acc, in, &dy, winner, &p);
  requantise(&expected_dx, acc, 6, &rq);
  backend->kernels->maxpool_backward(backend, &dx, &dy, winner, NULL, &p, &rq);
  assert_same(&dx, &expected_dx);
  if (niti_pool_apart(&p)) { /* and as after a ReLU: deltas count where the output is positive */
    NitiTensor masked = tensor_copy(&dy);
    for (size_t i = 0; i < count; ++i) masked.data[i] = y.data[i] > 0 ? dy.data[i] : (int8_t)0;
    memset(acc, 0, niti_shape_count(in) * sizeof *acc);
    naive_maxpool_back(acc, in, &masked, winner, &p);
    requantise(&expected_dx, acc, 6, &rq);
    backend->kernels->maxpool_backward(backend, &dx, &dy, winner, &y, &p, &rq);
    assert_same(&dx, &expected_dx);
    tensor_free(&masked);
  }
  free(acc);
  guarded_free(winner, count), guarded_free(expected_winner, count);
  tensor_free(&x), tensor_free(&y), tensor_free(&expected), tensor_free(&dy), tensor_free(&dx), tensor_free(&expected_dx);
}

static void test_maxpool(void **state) {
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (size_t k = 0; k < MAX_CASES; ++k) {
      for (size_t m = 0; m < 4; ++m) {
        check_maxpool(backend, &max_cases[k], modes[m], 127);
        check_maxpool(backend, &max_cases[k], modes[m], 1); /* ties */
      }
    }
    niti_backend_close(backend);
  }
}

static const PoolCase avg_cases[] = {
    {2, 8, 8, 16, 2, 2, 2, 2, 0, 0}, {3, 8, 8, 67, 8, 8, 1, 1, 0, 0},    {3, 7, 7, 20, 7, 7, 1, 1, 0, 0},
    {2, 9, 7, 5, 3, 3, 2, 2, 0, 0},  {2, 6, 5, 3, 3, 3, 1, 1, 0, 0},     {2, 7, 7, 4, 2, 2, 3, 3, 0, 0},
    {1, 5, 9, 1, 2, 4, 1, 2, 0, 0},  {1, 3, 2, 5000, 2, 2, 1, 1, 0, 0},  {1, 3, 3, 8200, 3, 3, 1, 1, 0, 0},
    {2, 4, 4, 3, 1, 1, 1, 1, 0, 0},  {1, 40, 50, 2, 37, 41, 1, 3, 0, 0}, {2, 20, 30, 7, 2, 3, 2, 3, 0, 0},
    {2, 8, 8, 5, 3, 3, 2, 2, 1, 1},  {2, 6, 5, 3, 3, 3, 1, 1, 1, 1},     {1, 5, 9, 17, 2, 4, 1, 3, 1, 2},
    {2, 4, 3, 2, 5, 6, 1, 1, 4, 5},  {1, 9, 9, 4, 2, 2, 3, 3, 1, 1},     {1, 2, 1, 5000, 4, 4, 2, 2, 3, 3},
};
enum { AVG_CASES = sizeof avg_cases / sizeof avg_cases[0] };

static void check_avgpool(NitiBackend *backend, const PoolCase *pool_case, NitiRounding mode, int range) {
  const NitiPool p = make_pool(pool_case);
  const NitiShape in = {p.n, p.h, p.w, p.c}, out = {p.n, p.oh, p.ow, p.c};
  const int cells = p.kh * p.kw;
  int64_t factor = (32768 + cells / 2) / cells;
  int extra = -15;
  for (int k = 0; k < 16; ++k) {
    if (cells == 1 << k) factor = 1, extra = -k;
  }
  NitiTensor x = tensor_random(in, range, -3), y = tensor_new(out), expected = tensor_new(out);
  NitiTensor dy = tensor_random(out, range, 6), dx = tensor_new(in), expected_dx = tensor_new(in);
  int64_t *sum = acc_new(out), *back = acc_new(in);
  for (int n = 0; n < p.n; ++n) {
    for (int oh = 0; oh < p.oh; ++oh) {
      for (int ow = 0; ow < p.ow; ++ow) {
        for (int cell = 0; cell < cells; ++cell) {
          for (int c = 0; c < p.c; ++c) {
            const size_t i = at(out, n, oh, ow, c);
            const int h = oh * p.stride_h - p.pad_h + cell / p.kw, w = ow * p.stride_w - p.pad_w + cell % p.kw;
            if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
            const size_t j = at(in, n, h, w, c);
            sum[i] += factor * x.data[j];
            back[j] += factor * dy.data[i];
          }
        }
      }
    }
  }
  int32_t predicted = random_in(0, 12);
  NitiRequantise rq = {.mode = mode, .purpose = NITI_DRAW_ROUND_ACT, .layer = 70000, .prediction = &predicted};
  requantise(&expected, sum, -3 + extra, &rq);
  backend->kernels->avgpool_forward(backend, &y, &x, &p, &rq);
  assert_same(&y, &expected);
  rq.purpose = NITI_DRAW_ROUND_DELTA;
  requantise(&expected_dx, back, 6 + extra, &rq);
  backend->kernels->avgpool_backward(backend, &dx, &dy, &p, &rq);
  assert_same(&dx, &expected_dx);
  free(sum), free(back);
  tensor_free(&x), tensor_free(&y), tensor_free(&expected), tensor_free(&dy), tensor_free(&dx), tensor_free(&expected_dx);
}

static void test_avgpool(void **state) {
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (size_t k = 0; k < AVG_CASES; ++k) {
      for (size_t m = 0; m < 4; ++m) {
        check_avgpool(backend, &avg_cases[k], modes[m], 127);
        check_avgpool(backend, &avg_cases[k], modes[m], 2);
      }
    }
    niti_backend_close(backend);
  }
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

/* ---- input ---- */

/* The weight of source pixel j in output i of D from S, and the weights' sum, from the definition: by area, or by distance. */
static int64_t scaling_weight(int64_t i, int64_t j, int64_t S, int64_t D) {
  if (D <= S) {
    const int64_t low = i * S > j * D ? i * S : j * D, high = (i + 1) * S < (j + 1) * D ? (i + 1) * S : (j + 1) * D;
    return high > low ? high - low : 0;
  }
  const int64_t place = (2 * i + 1) * S - D, most = 2 * D * (S - 1), p = place < 0 ? 0 : place > most ? most : place;
  const int64_t distance = p > 2 * D * j ? p - 2 * D * j : 2 * D * j - p;
  return distance < 2 * D ? 2 * D - distance : 0;
}

static int scaled_pixel(const uint8_t *image, NitiShape source, const NitiSample *s, NitiShape shape, int h, int w, int c) {
  int64_t sum = 0, total = 0;
  for (int y = 0; y < s->h; ++y) {
    for (int x = 0; x < s->w; ++x) {
      const int64_t weight = scaling_weight(h, y, s->h, shape.h) * scaling_weight(w, x, s->w, shape.w);
      sum += weight * image[at(source, 0, s->dy + y, s->dx + x, c)];
      total += weight;
    }
  }
  return (int)((2 * sum + total) / (2 * total));
}

static int window_pixel(const uint8_t *image, NitiShape source, const NitiSample *s, int h, int w, int c) {
  const int y = s->dy + h, x = s->dx + w;
  return y >= 0 && x >= 0 && y < source.h && x < source.w ? image[at(source, 0, y, x, c)] : 0;
}

/* The mantissa of one place as docs/arithmetic.md has it. */
static int expected_input(const uint8_t *images, NitiShape source, const NitiSample *s, NitiShape shape, const int8_t *table,
                          int h, int w, int c) {
  const uint8_t *image = images + s->image * niti_shape_image(source);
  const int column = s->flip ? shape.w - 1 - w : w;
  int v[4];
  for (int k = 0; k < shape.c; ++k)
    v[k] = s->h ? scaled_pixel(image, source, s, shape, h, column, k) : window_pixel(image, source, s, h, column, k);
  const int y = shape.c == 3 ? (19595 * v[0] + 38470 * v[1] + 7471 * v[2] + 32768) >> 16 : v[c];
  int sum = (s->colours.pixel * v[c] + s->colours.grey * y + s->colours.offset + 1024) >> 11;
  sum = sum < 0 ? 0 : sum > 255 ? 255 : sum;
  if (h >= s->cut_y && h < s->cut_y + s->cut && w >= s->cut_x && w < s->cut_x + s->cut) return 0;
  return table[c * 256 + (s->coloured ? sum : v[c])];
}

/* The same, mixed with the next image of the batch: ties towards plus infinity. */
static int mixed_input(const uint8_t *images, NitiShape source, const NitiSample *samples, int n, NitiShape shape,
                       const int8_t *table, int h, int w, int c) {
  const int own = expected_input(images, source, &samples[n], shape, table, h, w, c), share = samples[n].share;
  const int next = expected_input(images, source, &samples[(n + 1) % shape.n], shape, table, h, w, c);
  const int sum = (256 - share) * own + share * next + 128 + 256 * 128;
  return sum / 256 - 128;
}

static NitiSample random_sample(NitiShape source, int images, int reach, bool changes) {
  NitiSample s = {.image = (uint32_t)random_in(0, images - 1),
                  .dy = (int16_t)random_in(-reach, reach),
                  .dx = (int16_t)random_in(-reach, reach),
                  .flip = (uint32_t)random_in(0, 1)};
  if (!changes) return s;
  s.share = (uint8_t)(random_in(0, 1) * random_in(0, 128));
  s.cut = (uint16_t)random_in(0, 9);
  s.cut_y = (int16_t)random_in(-5, 12);
  s.cut_x = (int16_t)random_in(-5, 12);
  if (random_in(0, 2) > 0) {
    s.h = (uint16_t)random_in(1, source.h);
    s.w = (uint16_t)random_in(1, source.w);
    s.dy = (int16_t)random_in(0, source.h - s.h);
    s.dx = (int16_t)random_in(0, source.w - s.w);
  }
  if ((source.c == 1 || source.c == 3) && random_in(0, 2) > 0) {
    s.coloured = 1;
    s.colours = niti_colours(random_in(0, 8192), random_in(0, 8192), source.c == 3 ? random_in(0, 8192) : 4096,
                             (uint16_t)random_in(0, 65280));
  }
  return s;
}

static void check_input(NitiBackend *backend, NitiShape shape, NitiShape source, int reach, bool changes) {
  enum { IMAGES = 4 };
  const size_t image = niti_shape_image(source);
  uint8_t *images = malloc(IMAGES * image);
  int8_t *table = malloc(256 * (size_t)shape.c);
  NitiSample *samples = malloc((size_t)shape.n * sizeof *samples);
  NitiTensor out = tensor_new(shape);
  assert_true(images && table && samples);
  for (size_t i = 0; i < IMAGES * image; ++i) images[i] = (uint8_t)next_random();
  for (int i = 0; i < 256 * shape.c; ++i) table[i] = (int8_t)random_in(-127, 127);
  for (int n = 0; n < shape.n; ++n) samples[n] = random_sample(source, IMAGES, reach, changes);
  int32_t exponent = -5;
  const NitiTensor lookup = {.data = table, .exponent = &exponent, .shape = {1, 1, shape.c, 256}};
  backend->kernels->input(backend, &out, images, source, samples, &lookup, changes);
  assert_int_equal(*out.exponent, -5);
  for (int n = 0; n < shape.n; ++n) {
    for (int h = 0; h < shape.h; ++h) {
      for (int w = 0; w < shape.w; ++w) {
        for (int c = 0; c < shape.c; ++c)
          assert_int_equal(out.data[at(shape, n, h, w, c)], mixed_input(images, source, samples, n, shape, table, h, w, c));
      }
    }
  }
  free(images), free(table), free(samples);
  tensor_free(&out);
}

static void test_input(void **state) {
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (int c = 1; c <= 4; ++c) {
      for (int changes = 0; changes < 2; ++changes) {
        check_input(backend, (NitiShape){9, 8, 8, c}, (NitiShape){1, 8, 8, c}, 0, changes);
        check_input(backend, (NitiShape){33, 7, 9, c}, (NitiShape){1, 8, 6, c}, 4, changes);
        check_input(backend, (NitiShape){33, 6, 5, c}, (NitiShape){1, 11, 13, c}, 20, changes);
        check_input(backend, (NitiShape){5, 1, 1, c}, (NitiShape){1, 1, 1, c}, 2, changes);
      }
      check_input(backend, (NitiShape){2, 100, 90, c}, (NitiShape){1, 110, 95, c}, 5, false);
    }
    check_input(backend, (NitiShape){3, 2, 600, 3}, (NitiShape){1, 3, 70, 3}, 1, true);    /* columns in pieces */
    check_input(backend, (NitiShape){3, 1450, 1450, 1}, (NitiShape){1, 2, 3, 1}, 0, true); /* sums of 64 bits */
    niti_backend_close(backend);
  }
}

/* ---- loss ---- */

/* Moves a part of what is expected of each image to the next one's class. */
static void mix_labels(int32_t *labels, int64_t *acc, int N, int classes) {
  const int first = labels[0];
  for (int n = 0; n < N; ++n) {
    const int share = random_in(0, 128), own = labels[n], next = n + 1 < N ? labels[n + 1] : first;
    acc[(size_t)n * (size_t)classes + (size_t)own] += 65536 * share;
    acc[(size_t)n * (size_t)classes + (size_t)next] -= 65536 * share;
    labels[n] = own | share << 16;
  }
}

static void check_loss(NitiBackend *backend, int N, int classes, int32_t e, int range, NitiRounding mode) {
  const NitiShape shape = {N, 1, 1, classes};
  NitiTensor logits = tensor_random(shape, range, e), delta = tensor_new(shape), expected = tensor_new(shape);
  int32_t *labels = malloc((size_t)N * sizeof *labels), *acc32 = malloc((size_t)classes * sizeof *acc32);
  int64_t *acc = acc_new(shape);
  NitiMetrics metrics = {.loss = 1000, .correct = 2, .images = 3}, start = metrics;
  assert_true(labels && acc32);
  int64_t loss = 0, correct = 0;
  for (int n = 0; n < N; ++n) {
    const int8_t *row = logits.data + (size_t)n * (size_t)classes;
    int best = 0;
    for (int j = 1; j < classes; ++j) best = row[j] > row[best] ? j : best;
    labels[n] = n % 2 ? best : random_in(0, classes - 1);
    loss += niti_loss_value(row, e, classes, labels[n]);
    correct += best == labels[n];
  }

  for (int n = 0; n < N; ++n) {
    const size_t first = (size_t)n * (size_t)classes;
    niti_loss_niti(expected.data + first, logits.data + first, e, classes, labels[n], run_seed, STEP, first);
    niti_loss_softmax(acc32, logits.data + first, e, classes, labels[n]);
    for (int j = 0; j < classes; ++j) acc[first + (size_t)j] = acc32[j];
  }
  *expected.exponent = 0;
  int32_t predicted = 9;
  const NitiRequantise rq = {.mode = mode, .purpose = NITI_DRAW_ROUND_DELTA, .layer = 0, .prediction = &predicted};
  backend->kernels->loss(backend, &delta, &metrics, &logits, labels, (NitiLoss){NITI_LOSS_NITI, 0}, &rq);
  assert_same(&delta, &expected);

  requantise(&expected, acc, -24, &rq);
  backend->kernels->loss(backend, &delta, &metrics, &logits, labels, (NitiLoss){NITI_LOSS_SOFTMAX, 0}, &rq);
  assert_same(&delta, &expected);
  backend->kernels->loss(backend, NULL, &metrics, &logits, labels, (NitiLoss){NITI_LOSS_SOFTMAX, 0}, NULL);
  mix_labels(labels, acc, N, classes);
  requantise(&expected, acc, -24, &rq);
  backend->kernels->loss(backend, &delta, &metrics, &logits, labels, (NitiLoss){NITI_LOSS_SOFTMAX, 0}, &rq);
  assert_same(&delta, &expected);
  assert_int_equal(metrics.loss - start.loss, 4 * loss);
  assert_int_equal(metrics.correct - start.correct, 4 * correct);
  assert_int_equal(metrics.images - start.images, 4 * N);
  free(labels), free(acc32), free(acc);
  tensor_free(&logits), tensor_free(&delta), tensor_free(&expected);
}

static void test_loss(void **state) {
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (size_t m = 0; m < 4; ++m) {
      for (int e = -12; e <= 3; e += 5) {
        check_loss(backend, 1, 10, e, 127, modes[m]);
        check_loss(backend, 37, 10, e, 127, modes[m]);
        check_loss(backend, 16, 3, e, 1, modes[m]);
        check_loss(backend, 5, 1000, e, 127, modes[m]);
      }
    }
    check_loss(backend, 4, 1, 0, 127, NITI_NEAREST);
    check_loss(backend, 2, 65536, -4, 127, NITI_STOCHASTIC);
    check_loss(backend, 2, 4097, -4, 127, NITI_PSEUDO_STOCHASTIC);
    niti_backend_close(backend);
  }
}

/* ---- update ---- */

static void check_update(NitiBackend *backend, size_t count, int width, int32_t mu, int gradient_bits) {
  const NitiShape shape = {1, 1, 1, (int32_t)count};
  NitiTensor w = tensor_random(shape, 127, -8), expected = tensor_copy(&w);
  int64_t *g = malloc(count * sizeof *g);
  int32_t *g32 = malloc(count * sizeof *g32);
  assert_true(g && g32);
  const int64_t most = ((int64_t)1 << width) - 1;
  for (size_t i = 0; i < count; ++i) {
    g[i] = (int64_t)(next_random() % (uint64_t)(2 * most + 1)) - most;
    if (next_random() % 2) g[i] /= 1 + (int64_t)(next_random() % 64);
  }
  g[count - 1] = width % 2 ? most : -most;
  for (size_t i = 0; i < count; ++i) g32[i] = (int32_t)g[i];
  niti_update_niti_fraction(expected.data, g, count, mu);
  const NitiGradient gradient = {.data = gradient_bits == 32 ? (void *)g32 : (void *)g, .bits = gradient_bits, .count = count};
  call_update_niti(backend, &w, &gradient, mu);
  assert_same(&w, &expected);
  free(g), free(g32);
  tensor_free(&w), tensor_free(&expected);
}

static void test_update(void **state) {
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (int width = 0; width <= 61; ++width) {
      for (int mu = 1; mu <= 30; mu += width % 5 ? 4 : 1) {
        for (int part = 0; part < 2; ++part) { /* whole, and not */
          const int32_t rate = 1000000 * mu - part * random_in(1, 999999);
          if (width <= 31) check_update(backend, 203, width, rate, 32);
          check_update(backend, 203, width, rate, 64);
        }
      }
    }
    check_update(backend, 200001, 20, 4000000, 32);
    check_update(backend, 200001, 20, 4321000, 32);
    check_update(backend, 200001, 40, 4000000, 64);
    check_update(backend, 200001, 60, 4999999, 64);
    check_update(backend, 1, 31, 1000000, 32);
    niti_backend_close(backend);
  }
}

static void test_update_of_each_isa(void **state) {
  (void)state;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    NitiBackend *backend = NULL;
    const NitiBackendOptions options = {.name = "cpu", .isa = niti_isa_name(isa), .threads = 1};
    assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
    for (int width = 0; width <= 31; ++width) {
      for (int mu = 1; mu <= 9; mu += 2) {
        check_update(backend, 203, width, 1000000 * mu, 32);
        check_update(backend, 203, width, 1000000 * mu + random_in(1, 999999), 32);
      }
    }
    check_update(backend, 70001, 24, 5000000, 32);
    check_update(backend, 70001, 24, 5500000, 32);
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

/* ---- the backend itself ---- */

static void expect_open_error(const char *name, const char *isa, int threads, NitiStatus status, const char *says) {
  NitiBackend *backend = (NitiBackend *)&random_state;
  const NitiBackendOptions options = {.name = name, .isa = isa, .threads = threads};
  assert_int_equal(niti_backend_open(&backend, &options), status);
  assert_null(backend);
  if (!strstr(niti_error(), says)) fail_msg("\"%s\" does not say \"%s\"", niti_error(), says);
  assert_null(strchr(niti_error(), '\n'));
}

static void test_open_errors(void **state) {
  (void)state;
  expect_open_error("tpu", NULL, 1, NITI_ERROR_UNSUPPORTED, "tpu");
  expect_open_error("tpu", NULL, 1, NITI_ERROR_UNSUPPORTED, "cpu, or auto");
  expect_open_error("", NULL, 1, NITI_ERROR_UNSUPPORTED, "backend");
  expect_open_error("cp", NULL, 1, NITI_ERROR_UNSUPPORTED, "\"cp\"");
  expect_open_error("cpux", NULL, 1, NITI_ERROR_UNSUPPORTED, "cpux");
  expect_open_error("cpu:1", NULL, 1, NITI_ERROR_UNSUPPORTED, "cpu:1");
  expect_open_error("cpu", "sse9", 1, NITI_ERROR_ARGUMENT, "sse9");
  expect_open_error("cpu", NULL, -1, NITI_ERROR_ARGUMENT, "threads");
  expect_open_error("auto", NULL, -1, NITI_ERROR_ARGUMENT, "threads");
}

static void test_open_names(void **state) {
  static const char *const names[] = {NULL, "auto", "cpu"};
  (void)state;
  for (size_t i = 0; i < 3; ++i) {
    NitiBackend *backend = NULL;
    const NitiBackendOptions options = {.name = names[i], .threads = 1};
    assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
    assert_string_equal(backend->ops->name, "cpu");
    niti_backend_close(backend);
  }
  niti_backend_close(NULL);
}

/* Every instruction set opens where the CPU has it, and says what is missing where not. */
static void test_isa(void **state) {
  (void)state;
  assert_true(niti_isa_supported(NITI_ISA_REF));
  assert_true(niti_isa_supported(niti_cpu_best_isa()));
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    const char *name = niti_isa_name(isa);
    NitiIsa parsed;
    if (niti_isa_supported(isa)) {
      assert_true(isa <= niti_cpu_best_isa());
      assert_int_equal(niti_isa_parse(&parsed, name), NITI_OK);
      assert_int_equal(parsed, isa);
    } else {
      expect_open_error("cpu", name, 1, NITI_ERROR_UNSUPPORTED, name);
    }
  }
  NitiIsa best;
  assert_int_equal(niti_isa_parse(&best, NULL), NITI_OK);
  assert_int_equal(best, niti_cpu_best_isa());
  assert_int_equal(niti_isa_parse(&best, "auto"), NITI_OK);
  assert_int_equal(best, niti_cpu_best_isa());
  char text[256], small[5];
  niti_cpu_features(text, sizeof text);
  assert_int_equal(niti_isa_supported(NITI_ISA_AVX2), strstr(text, "avx2") != NULL);
  assert_int_equal(niti_isa_supported(NITI_ISA_NEON_DOTPROD), strstr(text, "asimddp") != NULL);
  niti_cpu_features(small, sizeof small);
  assert_true(strlen(small) < sizeof small);
}

static void test_memory(void **state) {
  static const size_t sizes[] = {0, 1, 63, 64, 4097, (2u << 20) - 1, (2u << 20) + 5, 9u << 20};
  NitiBackend *backend = open_backend(1);
  const NitiBackendOps *ops = backend->ops;
  (void)state;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
    void *p = NULL;
    assert_int_equal(ops->alloc(backend, &p, sizes[i]), NITI_OK);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (size_t j = 0; j < sizes[i]; ++j) assert_true(((uint8_t *)p)[j] == 0);
    if (sizes[i] >= 8) {
      char back[8];
      ops->upload(backend, p, "integer", 8);
      ops->download(backend, back, p, 8);
      assert_string_equal(back, "integer");
    }
    ops->release(backend, p);
  }
  void *p = backend;
  assert_int_equal(ops->alloc(backend, &p, SIZE_MAX), NITI_ERROR_MEMORY);
  assert_null(p);
  assert_non_null(strstr(niti_error(), "18446744073709551615"));
  assert_int_equal(ops->synchronise(backend), NITI_OK);
  ops->release(backend, NULL);

  const NitiCpu *cpu = niti_cpu(backend);
  assert_int_equal(backend->kernels->reserve(backend, 1000), NITI_OK);
  assert_int_equal(backend->kernels->reserve(backend, 5000), NITI_OK);
  const uint8_t *workspace = cpu->workspace;
  assert_int_equal((uintptr_t)workspace % 64, 0);
  assert_int_equal(backend->kernels->reserve(backend, 10), NITI_OK);
  assert_ptr_equal(cpu->workspace, workspace);
  assert_int_equal(cpu->workspace_bytes, 5000);
  assert_int_equal(backend->kernels->reserve(backend, SIZE_MAX), NITI_ERROR_MEMORY);
  assert_ptr_equal(cpu->workspace, workspace);
  niti_backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_open_errors), cmocka_unit_test(test_open_names),    cmocka_unit_test(test_isa),
      cmocka_unit_test(test_memory),      cmocka_unit_test(test_relu),          cmocka_unit_test(test_dropout),
      cmocka_unit_test(test_maxpool),     cmocka_unit_test(test_bias_gradient), cmocka_unit_test(test_bias_at_exponents),
      cmocka_unit_test(test_avgpool),     cmocka_unit_test(test_add),           cmocka_unit_test(test_input),
      cmocka_unit_test(test_loss),        cmocka_unit_test(test_update),        cmocka_unit_test(test_update_of_each_isa),
      cmocka_unit_test(test_stats),
  };
  setenv("CUDA_VISIBLE_DEVICES", "", 1); /* "auto" is to find the CPU */
  return cmocka_run_group_tests(tests, NULL, NULL);
}
