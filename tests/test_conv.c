/* Convolutions in all three directions, on every instruction set this machine has, against a brute-force int64 oracle: odd
 * shapes, strides, paddings, worst-case operands, activations of either sign or none negative, wrong predictions, every rounding
 * mode, 1 to 3 threads, guards round every output and round a workspace of exactly the size that was announced. */
/* clang-format off */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cpu/cpu.h"
#include "base/bounds.h"
#include "base/shift_prediction.h"
#include "guarded.h"
#include "kernel_calls.h"

typedef enum Fill { FILL_RANDOM, FILL_WORST, FILL_TINY, FILL_GROWING } Fill; /* any; all +-127; -1..1; the later the greater */

static int8_t *operand(size_t count, Fill fill) {
  int8_t *p = guarded(count);
  const int sign = random_in(0, 3); /* worst case: all equal half of the time */
  for (size_t i = 0; i < count; ++i) {
    if (fill == FILL_RANDOM)
      p[i] = (int8_t)random_in(-127, 127);
    else if (fill == FILL_TINY)
      p[i] = (int8_t)random_in(-1, 1);
    else if (fill == FILL_GROWING)
      p[i] = (int8_t)(random_in(-1, 1) * (1 + (int)(126 * (i + 1) / count)));
    else
      p[i] = (int8_t)(sign == 0 ? 127 : sign == 1 ? -127 : random_in(0, 1) ? 127 : -127);
  }
  return p;
}

/* ---- the oracle ---- */

typedef struct Sizes {
  size_t x, y, w;
} Sizes;

static Sizes sizes(const NitiConv *s) {
  return (Sizes){(size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c,
                 (size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->k,
                 (size_t)s->k * (size_t)s->kh * (size_t)s->kw * (size_t)s->c};
}

/* Calls for every product the three sums share: element iy of y, ix of x, iw of w. */
typedef enum Direction { FORWARD, BACKWARD, GRADIENT } Direction;

static void oracle(int64_t *sum, Direction direction, const int8_t *x, const int8_t *y, const int8_t *w, const NitiConv *s) {
  for (int n = 0; n < s->n; ++n)
    for (int oy = 0; oy < s->oh; ++oy)
      for (int ox = 0; ox < s->ow; ++ox)
        for (int k = 0; k < s->k; ++k)
          for (int ky = 0; ky < s->kh; ++ky)
            for (int kx = 0; kx < s->kw; ++kx) {
              const int py = oy * s->stride_h + ky - s->pad_h, px = ox * s->stride_w + kx - s->pad_w;
              if (py < 0 || py >= s->h || px < 0 || px >= s->w) continue;
              const size_t iy = (size_t)(((n * s->oh + oy) * s->ow + ox) * s->k + k);
              const size_t ix0 = (size_t)(((n * s->h + py) * s->w + px) * s->c),
                           iw0 = (size_t)(((k * s->kh + ky) * s->kw + kx) * s->c);
              for (size_t c = 0; c < (size_t)s->c; ++c) {
                if (direction == FORWARD)
                  sum[iy] += x[ix0 + c] * w[iw0 + c];
                else if (direction == BACKWARD)
                  sum[ix0 + c] += y[iy] * w[iw0 + c];
                else
                  sum[iw0 + c] += y[iy] * x[ix0 + c];
              }
            }
}

static int true_shift(const int64_t *sum, size_t count) {
  int64_t max = 0;
  int shift = 0;
  for (size_t i = 0; i < count; ++i) {
    const int64_t m = sum[i] < 0 ? -sum[i] : sum[i];
    if (m > max) max = m;
  }
  while (max > (int64_t)128 << shift) ++shift; /* the least with max <= 2^(7 + shift) */
  return shift;
}

/* ---- one convolution on one backend ---- */

typedef struct Bench {
  NitiBackend *backend;
  void *own; /* the backend's workspace, put back before it closes */
  uint8_t *workspace;
  size_t bytes;
} Bench;

/* The workspace is of just the size that is asked for. */
static Bench open_bench(NitiIsa isa, int threads, const NitiConv *s, bool nonnegative) {
  const NitiBackendOptions options = {.name = "cpu", .isa = niti_isa_name(isa), .threads = threads, .direct = nonnegative};
  Bench b;
  assert_int_equal(niti_backend_open(&b.backend, &options), NITI_OK);
  b.bytes = call_conv_workspace(b.backend, s, nonnegative);
  b.workspace = guarded(b.bytes);
  b.own = niti_cpu(b.backend)->workspace;
  niti_cpu(b.backend)->workspace = b.workspace;
  niti_cpu(b.backend)->workspace_bytes = b.bytes;
  begin_step(b.backend, 0xfeedface12345678u, 9);
  return b;
}

static void close_bench(Bench *b) {
  check_guards(b->workspace, b->bytes);
  niti_cpu(b->backend)->workspace = b->own;
  niti_backend_close(b->backend);
  release(b->workspace);
}

/* mask: NULL, or elements that must be 0 where it is not positive. */
static void check_rounded(const int8_t *got, const int64_t *sum, size_t count, const NitiRequantise *rq, int shift, bool relu,
                          const int8_t *mask, const char *what) {
  const NitiDraw draw = {0xfeedface12345678u, rq->purpose, 9, rq->layer};
  for (size_t i = 0; i < count; ++i) {
    int8_t want = niti_round_int8(sum[i], shift, rq->mode, niti_draw(&draw, i));
    if ((relu && want < 0) || (mask && mask[i] <= 0)) want = 0;
    if (got[i] != want)
      fail_msg("%s: element %zu is %d, not %d (sum %lld, shift %d)", what, i, got[i], want, (long long)sum[i], shift);
  }
}

static void check_gradient(const NitiGradient *g, const int64_t *sum, const char *what) {
  for (size_t i = 0; i < g->count; ++i) {
    const int64_t got = g->bits == 32 ? ((const int32_t *)g->data)[i] : ((const int64_t *)g->data)[i];
    if (got != sum[i]) fail_msg("%s: element %zu is %lld, not %lld", what, i, (long long)got, (long long)sum[i]);
  }
}

static NitiConv shape(int n, int h, int w, int c, int k, int kh, int kw, int sh, int sw, int ph, int pw) {
  return (NitiConv){.n = n,
                    .h = h,
                    .w = w,
                    .c = c,
                    .k = k,
                    .kh = kh,
                    .kw = kw,
                    .stride_h = sh,
                    .stride_w = sw,
                    .pad_h = ph,
                    .pad_w = pw,
                    .oh = (h + 2 * ph - kh) / sh + 1,
                    .ow = (w + 2 * pw - kw) / sw + 1};
}

static void check_conv(const NitiConv *s, Fill fill, int threads, bool nonnegative) {
  const Sizes z = sizes(s);
  int8_t *x = operand(z.x, fill), *w = operand(z.w, fill), *delta = operand(z.y, fill);
  int8_t *y = guarded(z.y), *dx = guarded(z.x);
  if (nonnegative) {
    for (size_t i = 0; i < z.x; ++i) x[i] = (int8_t)abs(x[i]);
    if (fill == FILL_WORST) memset(w, -127, z.w);
  }
  int64_t *sums[3] = {calloc(z.y, sizeof(int64_t)), calloc(z.x, sizeof(int64_t)), calloc(z.w, sizeof(int64_t))};
  oracle(sums[FORWARD], FORWARD, x, delta, w, s);
  oracle(sums[BACKWARD], BACKWARD, x, delta, w, s);
  oracle(sums[GRADIENT], GRADIENT, x, delta, w, s);
  const int shift_y = true_shift(sums[FORWARD], z.y), shift_x = true_shift(sums[BACKWARD], z.x);
  if (fill == FILL_TINY) { /* nothing was rounded: the three directions are one bilinear form */
    int64_t form[3] = {0, 0, 0};
    for (size_t i = 0; i < z.y; ++i) form[0] += sums[FORWARD][i] * delta[i];
    for (size_t i = 0; i < z.x; ++i) form[1] += sums[BACKWARD][i] * x[i];
    for (size_t i = 0; i < z.w; ++i) form[2] += sums[GRADIENT][i] * w[i];
    assert_int_equal(form[0], form[1]);
    assert_int_equal(form[0], form[2]);
  }

  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    Bench b = open_bench(isa, threads, s, nonnegative);
    char what[200];
    snprintf(what, sizeof what, "%s, %d threads, n %d, %dx%dx%d, k %d, kernel %dx%d, stride %d,%d, pad %d,%d, fill %d%s",
             niti_isa_name(isa), threads, s->n, s->h, s->w, s->c, s->k, s->kh, s->kw, s->stride_h, s->stride_w, s->pad_h,
             s->pad_w, (int)fill, nonnegative ? ", x not negative" : "");
    int32_t ex = -3, ew = 5, ed = -20, ey = 99, edx = 99;
    const NitiTensor tx = {.data = x, .exponent = &ex, .shape = {s->n, s->h, s->w, s->c}},
                     tw = {.data = w, .exponent = &ew, .shape = {s->k, s->kh, s->kw, s->c}};
    const NitiTensor td = {.data = delta, .exponent = &ed, .shape = {s->n, s->oh, s->ow, s->k}};
    NitiTensor ty = {.data = y, .exponent = &ey, .shape = td.shape}, tdx = {.data = dx, .exponent = &edx, .shape = tx.shape};
    int32_t predicted = niti_shift_prediction_of(random_in(0, 25)); /* too small, too large or right */
    const NitiRequantise rq = {(NitiRounding)random_in(0, 3), NITI_DRAW_ROUND_ACT, 11, &predicted};
    const bool relu = random_in(0, 1);

    call_conv_forward(b.backend, &ty, &tx, &tw, s, relu, nonnegative, &rq);
    check_rounded(y, sums[FORWARD], z.y, &rq, shift_y, relu, NULL, what);
    assert_int_equal(ey, ex + ew + shift_y);
    assert_int_equal(niti_shift_prediction_last(predicted), shift_y);
    check_guards(y, z.y);

    /* Constant weights: packed by the first call, used by the second, forgotten when they are written. */
    int8_t *other = operand(z.w, FILL_RANDOM);
    const NitiTensor to = {.data = other, .exponent = &ew, .shape = tw.shape};
    NitiConvCall keeping = call_prepare(b.backend, s, NITI_FORWARD, relu, nonnegative, true);
    b.backend->kernels->conv_forward(b.backend, &ty, &tx, &to, &keeping, &rq);
    b.backend->kernels->conv_forget(b.backend, &keeping);
    for (int call = 0; call < 2; ++call) {
      predicted = niti_shift_prediction_of(random_in(0, 25));
      memset(y, GUARD_BYTE, z.y);
      b.backend->kernels->conv_forward(b.backend, &ty, &tx, call == 0 || isa == NITI_ISA_REF ? &tw : &to, &keeping, &rq);
      check_rounded(y, sums[FORWARD], z.y, &rq, shift_y, relu, NULL, what);
    }
    call_release(b.backend, &keeping);
    release(other);

    predicted = niti_shift_prediction_of(random_in(0, 1) ? shift_x : random_in(0, 24));
    const bool masked = random_in(0, 1); /* by the layer's own input, as behind a ReLU */
    call_conv_backward(b.backend, &tdx, &td, &tw, masked ? &tx : NULL, s, &rq);
    check_rounded(dx, sums[BACKWARD], z.x, &rq, shift_x, false, masked ? x : NULL, what);
    assert_int_equal(edx, ed + ew + shift_x);
    assert_int_equal(niti_shift_prediction_last(predicted), shift_x);
    check_guards(dx, z.x);

    for (int bits = 32; bits <= 64; bits += 32) {
      NitiGradient g = {guarded(z.w * (size_t)bits / 8), bits, z.w};
      call_conv_gradient(b.backend, &g, &td, &tx, s, nonnegative);
      check_gradient(&g, sums[GRADIENT], what);
      check_guards(g.data, z.w * (size_t)bits / 8);
      release(g.data);
    }
    check_guards(x, z.x);
    check_guards(w, z.w);
    check_guards(delta, z.y);
    close_bench(&b);
  }
  for (int i = 0; i < 3; ++i) free(sums[i]);
  release(x);
  release(w);
  release(delta);
  release(y);
  release(dx);
}

/* ---- tests ---- */

static void test_named_shapes(void **unused) {
  (void)unused;
  const NitiConv shapes[] = {
      shape(2, 8, 8, 3, 64, 3, 3, 1, 1, 1, 1),
      shape(3, 8, 8, 128, 70, 3, 3, 1, 1, 1, 1), /* a full block and a bit */
      shape(5, 4, 4, 33, 48, 3, 3, 1, 1, 1, 1),
      shape(1, 32, 32, 16, 16, 3, 3, 1, 1, 1, 1),
      shape(2, 23, 25, 3, 33, 11, 11, 4, 4, 2, 2),
      shape(2, 12, 9, 17, 31, 5, 5, 1, 1, 2, 2),
      shape(2, 9, 9, 16, 32, 3, 3, 2, 2, 1, 1),
      shape(2, 8, 8, 16, 32, 1, 1, 2, 2, 0, 0), /* phases without taps */
      shape(3, 7, 5, 5, 10, 2, 3, 3, 2, 1, 2),
      shape(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0),
      shape(2, 5, 6, 7, 9, 1, 1, 1, 1, 0, 0),
      shape(37, 1, 1, 100, 10, 1, 1, 1, 1, 0, 0), /* linear */
      shape(64, 1, 1, 8, 130, 1, 1, 1, 1, 0, 0),
      shape(2, 3, 3, 4, 6, 3, 3, 1, 1, 4, 3), /* more padding than kernel */
      shape(2, 4, 4, 6, 5, 4, 4, 4, 4, 0, 0),
      shape(2, 6, 7, 2, 3, 2, 2, 4, 3, 0, 0), /* stride beyond the kernel */
      shape(1, 3, 2100, 2, 5, 3, 3, 1, 1, 1, 1),
      shape(1, 70, 60, 80, 4, 3, 3, 1, 1, 1, 1), /* bands */
      shape(3, 1, 1, 3, 4, 3, 3, 2, 2, 1, 1),
      shape(1, 2, 2, 1, 1, 3, 3, 5, 5, 1, 1),
      shape(3, 11, 11, 1, 16, 2, 2, 1, 1, 0, 0), /* one channel: neighbouring taps are neighbours in memory */
      shape(31, 64, 64, 8, 2, 3, 3, 1, 1, 1, 1), /* the gradient in several chunks */
      shape(16, 11, 11, 1, 1, 1, 1, 1, 1, 0, 0), /* one tap: more pixels in a row than an image has */
      shape(60, 45, 45, 5, 3, 1, 1, 1, 1, 0, 0),
      shape(14, 8, 8, 40, 36, 5, 5, 1, 1, 2, 2),  /* many rows of the gradient; images packed in tens, and four more */
      shape(2, 16, 32, 64, 33, 3, 3, 1, 1, 1, 1), /* pixels in whole rows of tiles */
      shape(600, 8, 8, 64, 2, 5, 5, 3, 3, 2, 2),  /* outputs of three columns: flat chunks, and more than one */
  };
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i) {
    for (int fill = FILL_RANDOM; fill <= FILL_GROWING; ++fill) {
      check_conv(&shapes[i], (Fill)fill, 1 + (int)i % 3, false);
      check_conv(&shapes[i], (Fill)fill, 1 + (int)i % 3, true);
    }
  }
}

static void test_random_shapes(void **unused) {
  (void)unused;
  static const int channels[] = {1, 2, 3, 4, 5, 8, 16, 17, 32, 33}, outputs[] = {1, 2, 10, 16, 31, 33, 48, 65};
  static const int taps[] = {1, 2, 3, 5, 11};
  for (int i = 0; i < 250; ++i) {
    const int kh = taps[random_in(0, 4)], kw = taps[random_in(0, 4)], ph = random_in(0, kh - 1), pw = random_in(0, kw - 1);
    const int h = kh + random_in(0, 9), w = kw + random_in(0, 9);
    NitiConv s = shape(random_in(1, 5), h - (h > ph ? ph : 0) > 0 ? h : 1, w, channels[random_in(0, 9)], outputs[random_in(0, 7)],
                       kh, kw, random_in(1, 4), random_in(1, 4), ph, pw);
    check_conv(&s, (Fill)random_in(0, 3), random_in(1, 3), random_in(0, 1));
  }
}

/* Exact accumulators: sums small enough that the shift is 0 and nothing clips, so outputs are the sums, and the three directions,
 * each from the backend, must be one bilinear form: <conv(x, w), e> = <x, backward(e, w)> = <w, gradient(x, e)>. */
static void test_identity(void **unused) {
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    for (int i = 0; i < 20; ++i) {
      const NitiConv s =
          shape(random_in(1, 4), random_in(5, 12), random_in(5, 12), random_in(1, 12), random_in(1, 12), random_in(1, 3),
                random_in(1, 3), random_in(1, 3), random_in(1, 3), random_in(0, 2), random_in(0, 2));
      const Sizes z = sizes(&s);
      int8_t *x = operand(z.x, FILL_TINY), *w = operand(z.w, FILL_TINY), *delta = operand(z.y, FILL_TINY);
      int8_t *y = guarded(z.y), *dx = guarded(z.x);
      int32_t zero = 0, ey, edx, predicted = 3;
      const NitiRequantise rq = {NITI_NEAREST, NITI_DRAW_ROUND_ACT, 1, &predicted};
      const NitiTensor tx = {.data = x, .exponent = &zero, .shape = {s.n, s.h, s.w, s.c}}, tw = {.data = w, .exponent = &zero, .shape = {s.k, s.kh, s.kw, s.c}},
                       td = {.data = delta, .exponent = &zero, .shape = {s.n, s.oh, s.ow, s.k}};
      NitiTensor ty = {.data = y, .exponent = &ey, .shape = td.shape}, tdx = {.data = dx, .exponent = &edx, .shape = tx.shape};
      NitiGradient g = {guarded(z.w * 4), 32, z.w};
      Bench b = open_bench(isa, 2, &s, false);
      call_conv_forward(b.backend, &ty, &tx, &tw, &s, false, false, &rq);
      call_conv_backward(b.backend, &tdx, &td, &tw, NULL, &s, &rq);
      call_conv_gradient(b.backend, &g, &td, &tx, &s, false);
      assert_int_equal(ey, 0); /* 108 terms of at most 1 never need a shift */
      assert_int_equal(edx, 0);
      int64_t form[3] = {0, 0, 0};
      for (size_t j = 0; j < z.y; ++j) form[0] += y[j] * delta[j];
      for (size_t j = 0; j < z.x; ++j) form[1] += dx[j] * x[j];
      for (size_t j = 0; j < z.w; ++j) form[2] += (int64_t)((int32_t *)g.data)[j] * w[j];
      assert_int_equal(form[0], form[1]);
      assert_int_equal(form[0], form[2]);
      close_bench(&b);
      release(g.data);
      release(x);
      release(w);
      release(delta);
      release(y);
      release(dx);
    }
  }
}

/* Worst-case gradients beyond int32: every product is +-127 * 127, so each sum is known without an oracle. */
static void check_large_gradient(const NitiConv *s, int sign) {
  const Sizes z = sizes(s);
  int8_t *x = malloc(z.x), *delta = malloc(z.y);
  const int64_t want = (int64_t)sign * 16129 * s->n * s->oh * s->ow;
  memset(x, 127, z.x);
  memset(delta, sign * 127, z.y);
  assert_true(want > INT32_MAX || want < INT32_MIN);
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    int32_t zero = 0;
    const NitiTensor tx = {.data = x, .exponent = &zero, .shape = {s->n, s->h, s->w, s->c}},
                     td = {.data = delta, .exponent = &zero, .shape = {s->n, s->oh, s->ow, s->k}};
    NitiGradient g = {guarded(z.w * 8), 64, z.w};
    Bench b = open_bench(isa, 2, s, false);
    call_conv_gradient(b.backend, &g, &td, &tx, s, false);
    for (size_t i = 0; i < z.w; ++i) assert_int_equal(((int64_t *)g.data)[i], want);
    check_guards(g.data, z.w * 8);
    close_bench(&b);
    release(g.data);
  }
  free(x);
  free(delta);
}

static void test_large_gradient(void **unused) {
  (void)unused;
  const NitiConv images = shape(150, 32, 32, 3, 5, 2, 1, 1, 1, 0, 0), one = shape(1, 500, 401, 1, 2, 1, 2, 1, 1, 0, 0);
  const NitiConv many = shape(140001, 1, 1, 2, 3, 1, 1, 1, 1, 0, 0);
  check_large_gradient(&images, 1);
  check_large_gradient(&one, -1);
  check_large_gradient(&many, -1);
}

/* Forward and backward at the most terms an accumulator may have. */
static void test_most_terms(void **unused) {
  (void)unused;
  const NitiConv forward = shape(2, 1, 1, NITI_MAX_TERMS, 2, 1, 1, 1, 1, 0, 0);
  const NitiConv backward = shape(2, 1, 1, 2, NITI_MAX_TERMS, 1, 1, 1, 1, 0, 0);
  check_conv(&forward, FILL_WORST, 2, false);
  check_conv(&forward, FILL_WORST, 2, true);
  check_conv(&backward, FILL_WORST, 2, false);
}

/* Pixels of all images beyond int32, which a kernel of one tap would like to number; nothing is computed, so a sanitizer notices.
 */
static void test_many_pixels(void **unused) {
  (void)unused;
  const NitiConv many = shape(65536, 256, 256, 1, 1, 1, 1, 1, 1, 0, 0), few = shape(64, 256, 256, 1, 1, 1, 1, 1, 1, 0, 0);
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    Bench b = open_bench(isa, 1, &few, false);
    assert_true(call_conv_workspace(b.backend, &many, false) > 0);
    close_bench(&b);
  }
}

static void test_names(void **unused) {
  (void)unused;
  const NitiConv s = shape(1, 8, 8, 3, 8, 3, 3, 1, 1, 1, 1);
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    Bench b = open_bench(isa, 1, &s, false);
    const char *name = call_conv_kernel(b.backend, &s, NITI_FORWARD), *isa_name = niti_isa_name(isa);
    assert_int_equal(strncmp(name, isa_name, strlen(isa_name)), 0);
    close_bench(&b);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_named_shapes),   cmocka_unit_test(test_random_shapes), cmocka_unit_test(test_identity),
      cmocka_unit_test(test_large_gradient), cmocka_unit_test(test_most_terms),    cmocka_unit_test(test_names),
      cmocka_unit_test(test_many_pixels),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
