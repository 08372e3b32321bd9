/* Batch norm and update `sgd` of the CPU backend, whole operations on every instruction set and one and three threads, against
 * naive loops over the formulas of base/norm.h and base/sgd.h: channels and rows beyond what one task does. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/backend.h"
#include "backend/cpu/cpu.h"
#include "base/clip.h"
#include "base/norm.h"
#include "base/sgd.h"
#include "guarded.h"
#include "kernel_calls.h"

enum { STEP = 7, LAYER = 3 };
static const uint64_t seed = ((uint64_t)0xdeadbeef << 32) | 12345;
static const NitiRounding modes[] = {NITI_NEAREST, NITI_STOCHASTIC_BYTE, NITI_PSEUDO_STOCHASTIC, NITI_STOCHASTIC};

static NitiBackend *open_backend(NitiIsa isa, int threads) {
  NitiBackend *backend = NULL;
  const NitiBackendOptions options = {.name = "cpu", .isa = niti_isa_name(isa), .threads = threads};
  assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
  begin_step(backend, seed, STEP);
  return backend;
}

/* ---- tensors of any type ---- */

typedef struct Wide {
  NitiTensor tensor;
  int32_t exponent;
  size_t bytes;
} Wide;

static void wide_open(Wide *w, size_t rows, size_t channels, size_t element) {
  w->bytes = rows * channels * element;
  w->tensor =
      (NitiTensor){.data = guarded(w->bytes), .exponent = &w->exponent, .shape = {(int32_t)rows, 1, 1, (int32_t)channels}};
  memset(w->tensor.data, 0x55, w->bytes);
  w->exponent = 12345;
}

static void wide_close(Wide *w) {
  check_guards(w->tensor.data, w->bytes);
  release(w->tensor.data);
}

static void fill_bytes(Wide *w) {
  const int range = random_in(1, 127);
  for (size_t i = 0; i < w->bytes; ++i) w->tensor.data[i] = (int8_t)random_in(-range, range);
  w->exponent = random_in(-20, 5);
}

static void fill_words(Wide *w) {
  int16_t *x = (int16_t *)(void *)w->tensor.data;
  for (size_t i = 0; i < w->bytes / 2; ++i) x[i] = (int16_t)random_in(-NITI_SGD_WEIGHT_MAX, NITI_SGD_WEIGHT_MAX);
  w->exponent = random_in(-18, -10);
}

/* ---- batch norm ---- */

typedef struct Norm {
  size_t rows, channels;
  Wide x, dy, y, dx, weight, bias, running, sums, delta_sums, affine, affine_delta, weight_gradient, bias_gradient;
  int64_t *before; /* the running statistics before */
} Norm;

/* Channels that do not vary, among others that do. */
static void make_quiet(Wide *x, size_t channels) {
  const size_t every = (size_t)random_in(1, 4);
  for (size_t i = 0; i < x->bytes; ++i)
    if (i % channels % every == 0) x->tensor.data[i] = (int8_t)(i % channels % 100);
}

static void norm_open(Norm *n, size_t rows, size_t channels) {
  n->rows = rows;
  n->channels = channels;
  Wide *bytes[] = {&n->x, &n->dy, &n->y, &n->dx};
  for (size_t i = 0; i < 4; ++i) wide_open(bytes[i], rows, channels, 1);
  wide_open(&n->weight, 1, channels, 2);
  wide_open(&n->bias, 1, channels, 2);
  wide_open(&n->running, 2, channels, 8);
  wide_open(&n->sums, 2, channels, 8);
  wide_open(&n->delta_sums, 3, channels, 8);
  wide_open(&n->affine, 2, channels, 4);
  wide_open(&n->affine_delta, 3, channels, 4);
  wide_open(&n->weight_gradient, 1, channels, 8);
  wide_open(&n->bias_gradient, 1, channels, 8);
  fill_bytes(&n->x);
  if (random_in(0, 1)) make_quiet(&n->x, channels);
  fill_bytes(&n->dy);
  fill_words(&n->weight);
  fill_words(&n->bias);
  n->before = malloc(2 * channels * sizeof *n->before);
  assert_non_null(n->before);
  for (size_t c = 0; c < 2 * channels; ++c) n->before[c] = (int64_t)(next_random() >> 30);
  memcpy(n->running.tensor.data, n->before, 2 * channels * sizeof *n->before);
}

static void norm_close(Norm *n) {
  Wide *all[] = {&n->x,    &n->dy,         &n->y,      &n->dx,           &n->weight,          &n->bias,         &n->running,
                 &n->sums, &n->delta_sums, &n->affine, &n->affine_delta, &n->weight_gradient, &n->bias_gradient};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) wide_close(all[i]);
  free(n->before);
}

static NitiNormSums sums_of(const Norm *n, size_t c) {
  NitiNormSums s = {0, 0};
  for (size_t r = 0; r < n->rows; ++r) {
    const int64_t x = n->x.tensor.data[r * n->channels + c];
    s.x += x;
    s.xx += x * x;
  }
  return s;
}

static NitiNormDeltaSums delta_sums_of(const Norm *n, size_t c) {
  NitiNormDeltaSums s = {0, 0, 0};
  for (size_t r = 0; r < n->rows; ++r) {
    const int64_t x = n->x.tensor.data[r * n->channels + c], d = n->dy.tensor.data[r * n->channels + c];
    s.d += d;
    s.dx += d * x;
    s.dd += d * d;
  }
  return s;
}

static NitiScalar at_exponent(NitiScalar s, int32_t e) { return s.m == 0 ? s : (NitiScalar){s.m, s.e + e}; }

static int16_t word_at(const Wide *w, size_t c) { return ((const int16_t *)(const void *)w->tensor.data)[c]; }
static int64_t long_at(const Wide *w, size_t c) { return ((const int64_t *)(const void *)w->tensor.data)[c]; }

static NitiRequantise rounding(NitiRounding mode, uint32_t purpose) {
  return (NitiRequantise){.mode = mode, .purpose = purpose, .layer = LAYER};
}

static int8_t want_rounded(int64_t acc, const NitiRequantise *rq, size_t index) {
  const NitiDraw draw = {.seed = seed, .purpose = rq->purpose, .time = STEP, .layer = rq->layer};
  return niti_clip8(niti_round_inline(acc, NITI_NORM_FRACTION, rq->mode, niti_rounding_word(&draw, rq->mode, index)));
}

/* Gives y, at this exponent, the maximum of a ReLU, or none; returns the largest mantissa that leaves. Which maximum gives it is
 * the definition of docs/arithmetic.md: a mantissa times 2^exponent, in millionths. */
static int32_t any_limit(NitiTensor *y, int32_t exponent) {
  static const int32_t edges[] = {0, 1, 2, 126, 127};
  const int32_t most = random_in(0, 1) ? edges[random_in(0, 4)] : random_in(0, 127);
  const int64_t all = (int64_t)1000000 * most, at = exponent < 0 ? all >> -exponent : all << exponent;
  const int64_t max = at == 0 ? 1 : at; /* what is cut off is less than half a mantissa, and a millionth is, too */
  y->limit = random_in(0, 3) > 0 && exponent > -19 && max <= 2000000000 ? (int32_t)max : 0;
  return y->limit == 0 ? 127 : most;
}

static void check_forward(NitiBackend *b, Norm *n, NitiRounding mode, bool relu) {
  const NitiRequantise rq = rounding(mode, NITI_DRAW_ROUND_ACT);
  const NitiNormCount count = niti_norm_count((int64_t)n->rows);
  NitiScalar range = {0, 0};
  const bool centred = random_in(0, 1);
  b->kernels->norm_fit(b, &n->affine.tensor, &n->running.tensor, &n->sums.tensor, &n->x.tensor, &n->weight.tensor,
                       &n->bias.tensor, centred);
  const int32_t limit = any_limit(&n->y.tensor, n->affine.exponent);
  b->kernels->norm_forward(b, &n->y.tensor, &n->x.tensor, &n->affine.tensor, relu, &rq);
  for (size_t c = 0; c < n->channels; ++c) {
    const NitiScalar own = niti_norm_range(word_at(&n->weight, c), n->weight.exponent, word_at(&n->bias, c), n->bias.exponent);
    if (niti_scalar_less(range, own)) range = own;
  }
  assert_int_equal(n->affine.exponent, niti_norm_exponent(range));
  assert_int_equal(n->y.exponent, n->affine.exponent);
  for (size_t c = 0; c < n->channels; ++c) {
    const NitiNormChannel channel = niti_norm_batch(sums_of(n, c), &count, n->x.exponent);
    const NitiAffine a = niti_norm_affine(&channel, word_at(&n->weight, c), n->weight.exponent, word_at(&n->bias, c),
                                          n->bias.exponent, n->affine.exponent);
    for (size_t r = 0; r < n->rows; ++r) {
      const size_t i = r * n->channels + c;
      const int8_t want = want_rounded((int64_t)a.factor * n->x.tensor.data[i] + a.offset, &rq, i);
      assert_int_equal(n->y.tensor.data[i], !relu ? want : want < 0 ? 0 : want > limit ? limit : want);
    }
    const NitiScalar mean = at_exponent(channel.mean, n->x.exponent), variance = at_exponent(channel.variance, 2 * n->x.exponent);
    assert_true(long_at(&n->running, c) == (centred ? niti_norm_run_centred : niti_norm_run)(n->before[c], mean));
    assert_true(long_at(&n->running, n->channels + c) == niti_norm_run(n->before[n->channels + c], variance));
  }
}

static void check_backward(NitiBackend *b, Norm *n, NitiRounding mode) {
  const NitiRequantise rq = rounding(mode, NITI_DRAW_ROUND_DELTA);
  const NitiNormCount count = niti_norm_count((int64_t)n->rows);
  const NitiScalarDivisor channels = niti_scalar_divisor(niti_scalar((int64_t)n->channels, 0));
  NitiSquares squares = {0, NITI_SQUARES_NONE};
  b->kernels->norm_delta_fit(b, &n->affine_delta.tensor, &n->weight_gradient.tensor, &n->bias_gradient.tensor,
                             &n->delta_sums.tensor, &n->dy.tensor, &n->x.tensor, &n->sums.tensor, &n->weight.tensor,
                             (int64_t)n->x.tensor.shape.h * n->x.tensor.shape.w);
  b->kernels->norm_backward(b, &n->dx.tensor, &n->dy.tensor, &n->x.tensor, &n->affine_delta.tensor, &rq);
  for (int pass = 0; pass < 3; ++pass) {
    const int32_t relative = pass == 2 ? niti_norm_delta_exponent(squares, channels) : 0;
    if (pass == 2) assert_int_equal(n->dx.exponent, relative + n->dy.exponent - n->x.exponent);
    for (size_t c = 0; c < n->channels; ++c) {
      const NitiNormSums s = sums_of(n, c);
      const NitiNormDeltaSums t = delta_sums_of(n, c);
      const NitiNormChannel channel = niti_norm_batch(s, &count, n->x.exponent);
      const NitiNormDelta d = niti_norm_delta(&channel, s, t, &count, word_at(&n->weight, c), n->weight.exponent);
      if (pass == 0) squares.exponent = niti_squares_exponent(squares.exponent, d.square);
      if (pass == 1) squares.sum += niti_squares_share(squares.exponent, d.square);
      if (pass < 2) continue;
      const NitiAffineDelta a = niti_norm_affine_delta(&d, &channel, relative - NITI_NORM_FRACTION);
      assert_true(long_at(&n->weight_gradient, c) == niti_norm_gradient(&channel, s, t, &count));
      assert_true(long_at(&n->bias_gradient, c) == t.d);
      for (size_t r = 0; r < n->rows; ++r) {
        const size_t i = r * n->channels + c;
        const int64_t acc = (int64_t)a.factor * n->dy.tensor.data[i] + (int64_t)a.slope * n->x.tensor.data[i] + a.offset;
        assert_int_equal(n->dx.tensor.data[i], want_rounded(acc, &rq, i));
      }
    }
  }
}

static void check_norm(NitiIsa isa, int threads, size_t rows, size_t channels, NitiRounding mode, bool relu) {
  NitiBackend *b = open_backend(isa, threads);
  Norm n;
  norm_open(&n, rows, channels);
  check_forward(b, &n, mode, relu);
  check_backward(b, &n, mode);
  norm_close(&n);
  niti_backend_close(b);
}

static void test_norm(void **unused) {
  static const size_t sizes[][2] = {{1, 1}, {5, 3}, {70, 33}, {40, 130}, {2500, 66}, {3, 4200}};
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i)
      check_norm(isa, i % 2 ? 3 : 1, sizes[i][0], sizes[i][1], modes[(i + (size_t)isa) % 4], i % 3 == 0);
  }
}

/* ---- update sgd ---- */

static void random_gradient(int64_t *wide, int32_t *narrow, size_t count, NitiSgdTensor *t) {
  for (size_t i = 0; i < count; ++i) {
    narrow[i] = random_in(-100000, 100000);
    wide[i] = narrow[i];
    if (niti_magnitude64(wide[i]) > t->gradient_max) t->gradient_max = niti_magnitude64(wide[i]);
  }
}

static uint32_t largest_of(const Wide *w) {
  uint32_t most = 0;
  for (size_t i = 0; i < w->bytes / 2; ++i) most = (uint32_t)abs(word_at(w, i)) > most ? (uint32_t)abs(word_at(w, i)) : most;
  return most;
}

/* The factor of two tensors with these gradients, at exponent -22. */
static NitiScalar clip_of(const int64_t *wide, size_t count, uint64_t max, const NitiSgdSettings *settings, int64_t norm) {
  const int shift = niti_squares_shift(max, count);
  NitiScalar total = {0, 0};
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum += niti_square(wide[i], shift);
  for (int i = 0; i < 2; ++i) total = niti_squares_add(total, sum, shift, -22);
  const NitiScalar factor = niti_clip_factor_inline(total, norm, settings->images);
  assert_true(count < 1000 || factor.e < -30); /* it clips */
  return factor;
}

typedef enum Kind { PLAIN, CLIPPED, NORMALISED, KINDS } Kind; /* update sgd twice, and niti16 */

static void check_update(NitiIsa isa, int threads, size_t count, int bits, Kind kind) {
  const bool clip = kind == CLIPPED, normalised = kind == NORMALISED;
  const int64_t scalars[NITI_SCALARS_MAX] = {50000000, 900000000, 500000, 64, 123456};
  const NitiSgdScalars numbers = {.rate = 0,
                                  .momentum = 1,
                                  .decay = 2,
                                  .images = 3,
                                  .clip = clip ? 4 : NITI_NONE,
                                  .nesterov = true,
                                  .normalised = normalised};
  NitiSgdSettings settings = {.rate = scalars[0],
                              .momentum = scalars[1],
                              .decay = scalars[2],
                              .images = scalars[3],
                              .nesterov = true,
                              .normalised = normalised};
  const NitiRequantise rq = rounding(NITI_STOCHASTIC, NITI_DRAW_UPDATE);
  const NitiDraw draw = {.seed = seed, .purpose = rq.purpose, .time = STEP, .layer = rq.layer};
  NitiBackend *b = open_backend(isa, threads);
  b->kernels->begin_step(b, seed, STEP, scalars);
  Wide operand, master, velocity;
  wide_open(&operand, 1, count, 1);
  wide_open(&master, 1, count, 2);
  wide_open(&velocity, 1, count, 2);
  fill_words(&master);
  fill_words(&velocity);
  int64_t *wide = malloc(count * sizeof *wide);
  int32_t *narrow = malloc(count * sizeof *narrow);
  int16_t *want = malloc(2 * count * sizeof *want);
  assert_true(wide && narrow && want);
  memcpy(want, master.tensor.data, master.bytes);
  memcpy(want + count, velocity.tensor.data, velocity.bytes);
  NitiSgdTensor t = {.gradient_exponent = -22, .weight_exponent = master.exponent, .velocity_exponent = velocity.exponent};
  random_gradient(wide, narrow, count, &t);
  t.count = count;
  t.weight_max = largest_of(&master);
  for (size_t i = 0; i < count; ++i) {
    const int magnitude = abs(want[i]);
    t.above_low += magnitude > NITI_SGD_WEIGHT_LOW;
    t.above_high += magnitude > NITI_SGD_WEIGHT_HIGH;
  }
  t.velocity_max = largest_of(&velocity);
  const int32_t exponents[2] = {-10, -12};
  const NitiGradient gradient = {
      .data = bits == 32 ? (void *)narrow : wide, .bits = bits, .count = count, .exponents = {&exponents[0], &exponents[1]}};
  NitiSgdUpdate update = {&operand.tensor, &master.tensor, &velocity.tensor, &gradient, &numbers, &rq, NULL};
  int64_t totals[2][2];
  if (clip) { /* of a first tensor and this one, which are the same */
    const NitiSquareSum sums[] = {{&gradient, NULL, totals[0]}, {&gradient, totals[0], totals[1]}};
    b->kernels->gradient_squares(b, sums, 2);
    settings.clip = clip_of(wide, count, t.gradient_max, &settings, scalars[4]);
    update.squares = totals[1];
  }
  const NitiSgd step = niti_sgd(&t, &settings);
  b->kernels->update_sgd(b, &update, 1);
  assert_int_equal(master.exponent, step.weight_exponent);
  assert_int_equal(velocity.exponent, step.velocity_exponent);
  assert_int_equal(operand.exponent, step.weight_exponent + NITI_SGD_OPERAND_SHIFT);
  for (size_t i = 0; i < count; ++i) {
    niti_sgd_weight(&want[i], &want[count + i], wide[i], niti_draw(&draw, i), &step);
    assert_int_equal(word_at(&master, i), want[i]);
    assert_int_equal(word_at(&velocity, i), want[count + i]);
    assert_int_equal(operand.tensor.data[i], niti_sgd_operand(want[i]));
  }
  free(wide);
  free(narrow);
  free(want);
  wide_close(&operand);
  wide_close(&master);
  wide_close(&velocity);
  niti_backend_close(b);
}

static void test_update(void **unused) {
  static const size_t counts[] = {1, 63, 1000, 16384, 40001};
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; ++i) {
      for (int kind = PLAIN; kind < KINDS; ++kind) {
        check_update(isa, i % 2 ? 3 : 1, counts[i], 32, (Kind)kind);
        check_update(isa, i % 2 ? 1 : 3, counts[i], 64, (Kind)kind);
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_norm), cmocka_unit_test(test_update)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
