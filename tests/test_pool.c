/* Pooling on the CPU against a naive loop: padding, windows that overlap or leave gaps, ties, every rounding mode. */
#include "ops_test.h"

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

/* With every rounding mode and number of threads, on mantissas of the whole range and on small ones. */
static void check_cases(void (*check)(NitiBackend *, const PoolCase *, NitiRounding, int range), const PoolCase *cases,
                        size_t count, int small) {
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (size_t k = 0; k < count; ++k) {
      for (size_t m = 0; m < 4; ++m) {
        check(backend, &cases[k], modes[m], 127);
        check(backend, &cases[k], modes[m], small);
      }
    }
    niti_backend_close(backend);
  }
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
  check_cases(check_maxpool, max_cases, MAX_CASES, 1); /* ties */
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
  check_cases(check_avgpool, avg_cases, AVG_CASES, 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_maxpool), cmocka_unit_test(test_avgpool)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
