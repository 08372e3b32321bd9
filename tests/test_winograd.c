/* Winograd's convolutions, forward and backward to the input. Every table's transforms against the plain ones, which are held to
 * the definition by whole convolutions; the driver with every table against the naive reference: odd sizes, paddings, every
 * rounding, masks, guards, and operands on both sides of the bound beyond which the channels must be split. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cpu/winograd.h"
#include "guarded.h"
#include "kernel_calls.h"

enum { PLANES = NITI_WINOGRAD_PLANES };

typedef enum Fill { FILL_RANDOM, FILL_WORST, FILL_MOST, FILL_LEAST, FILL_ALTERNATE, FILL_GROWING, FILLS } Fill;

/* any; +-127; all 127; all -127; 127 and -127 in turn; the later the greater, so that parts find ever greater maxima */
static void fill_with(int8_t *p, size_t count, Fill fill) {
  for (size_t i = 0; i < count; ++i) {
    const bool positive = fill == FILL_MOST || (fill == FILL_ALTERNATE ? i % 2 == 0 : fill == FILL_WORST && random_in(0, 1));
    p[i] = (int8_t)(fill == FILL_RANDOM ? random_in(-127, 127) : positive ? 127 : -127);
    if (fill == FILL_GROWING) p[i] = (int8_t)(random_in(-1, 1) * (1 + (int)(126 * (i + 1) / count)));
  }
}

static int8_t *operand(size_t count, Fill fill) {
  int8_t *p = guarded(count);
  fill_with(p, count, fill);
  return p;
}

/* The tables of this machine. */
static size_t tables(const NitiWinogradKernels *out[4]) {
  size_t count = 0;
  out[count++] = &niti_winograd_kernels_ref;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (niti_isa_supported(isa) && niti_winograd_kernels(isa)) out[count++] = niti_winograd_kernels(isa);
  }
  return count;
}

/* ---- transforms ---- */

static void check_input(const NitiWinogradKernels *k, size_t channels, Fill fill) {
  const NitiWinogradKernels *plain = &niti_winograd_kernels_ref;
  const size_t padded = niti_round_up(channels, (size_t)k->channels), stride = niti_round_up(channels, 64) + 32;
  const size_t bytes = ((PLANES - 1) * stride + padded) * sizeof(int16_t);
  int16_t *got = guarded(bytes), *want = calloc(PLANES * stride, sizeof(int16_t));
  int8_t *pixels[36];
  const int8_t *in[36];
  for (size_t i = 0; i < 36; ++i) in[i] = pixels[i] = operand(channels, i % 5 == 0 && fill == FILL_ALTERNATE ? FILL_WORST : fill);
  const uint64_t squares = plain->input(want, stride, in, channels);
  assert_int_equal(k->input(got, stride, in, channels), squares);
  uint64_t sum = 0;
  for (size_t i = 0; i < 36 * channels; ++i) sum += (uint64_t)(in[i % 36][i / 36] * in[i % 36][i / 36]);
  assert_int_equal(squares, sum);
  for (size_t plane = 0; plane < PLANES; ++plane) {
    for (size_t c = 0; c < padded; ++c) assert_int_equal(got[plane * stride + c], want[plane * stride + c]);
  }
  check_guards(got, bytes);
  for (size_t i = 0; i < 36; ++i) release(pixels[i]);
  release(got);
  free(want);
}

static void check_weights(const NitiWinogradKernels *k, size_t groups, int columns, Fill fill) {
  const size_t count = groups * (size_t)columns * 2, stride = count + 32, bytes = ((PLANES - 1) * stride + count) * 2;
  int8_t *mantissas = operand(NITI_WINOGRAD_TAPS * count, fill);
  int16_t *w = guarded(NITI_WINOGRAD_TAPS * count * 2), *got = guarded(bytes), *want = guarded(bytes);
  int32_t *sums[4];
  for (size_t i = 0; i < 4; ++i) sums[i] = guarded((size_t)columns * 4);
  for (size_t i = 0; i < 4; ++i) memset(sums[i], 0, (size_t)columns * 4);
  for (size_t i = 0; i < NITI_WINOGRAD_TAPS * count; ++i) w[i] = mantissas[i];
  for (int twice = 0; twice < 2; ++twice) { /* sums add up */
    k->weights(got, stride, w, count, groups, columns, sums[0], sums[1]);
    niti_winograd_kernels_ref.weights(want, stride, w, count, groups, columns, sums[2], sums[3]);
  }
  assert_memory_equal(sums[0], sums[2], (size_t)columns * 4);
  assert_memory_equal(sums[1], sums[3], (size_t)columns * 4);
  for (size_t plane = 0; plane < PLANES; ++plane) assert_memory_equal(got + plane * stride, want + plane * stride, count * 2);
  check_guards(got, bytes);
  for (size_t i = 0; i < 4; ++i) check_guards(sums[i], (size_t)columns * 4);
  for (size_t i = 0; i < 4; ++i) release(sums[i]);
  release(mantissas);
  release(w);
  release(got);
  release(want);
}

/* Products that stand for outputs y: 6x6 numbers that the output transform turns into 576 y must come from real operands. */
static void check_output(const NitiWinogradKernels *k, int columns, size_t channels, Fill fill) {
  const size_t stride = (size_t)columns + 16, acc_stride = (size_t)columns + 8, width = (size_t)columns;
  const size_t bytes = (15 * acc_stride + width) * 4;
  int32_t *m = calloc(PLANES * stride, 4), *got = guarded(bytes), *want = guarded(bytes);
  int8_t *d = operand(36 * channels, fill), *w = operand(NITI_WINOGRAD_TAPS * channels * width, fill);
  int16_t v[PLANES], u[PLANES], taps[NITI_WINOGRAD_TAPS * 2 * 4] = {0}, transformed[PLANES * 8];
  int64_t *y = calloc(16 * width, sizeof *y);
  for (size_t c = 0; c < channels; ++c) {
    const int8_t *in[36];
    int16_t padded[PLANES * 4];
    for (size_t i = 0; i < 36; ++i) in[i] = d + i * channels + c;
    niti_winograd_kernels_ref.input(padded, 4, in, 1);
    for (size_t i = 0; i < PLANES; ++i) v[i] = padded[i * 4];
    for (size_t column = 0; column < width; ++column) {
      const int8_t *weight = w + (c * width + column) * NITI_WINOGRAD_TAPS;
      int32_t sums[8] = {0};
      for (size_t tap = 0; tap < NITI_WINOGRAD_TAPS; ++tap) taps[tap * 8] = weight[tap];
      niti_winograd_kernels_ref.weights(transformed, 8, taps, 8, 1, 4, sums, sums + 4);
      for (size_t i = 0; i < PLANES; ++i) u[i] = transformed[i * 8];
      for (size_t i = 0; i < PLANES; ++i) {
        m[i * stride + column] = (int32_t)((uint32_t)m[i * stride + column] + (uint32_t)(u[i] * v[i]));
      }
      for (size_t pixel = 0; pixel < 16; ++pixel) {
        for (size_t tap = 0; tap < NITI_WINOGRAD_TAPS; ++tap) {
          y[pixel * width + column] += in[(pixel / 4 + tap / 3) * 6 + pixel % 4 + tap % 3][0] * weight[tap];
        }
      }
    }
  }
  for (int add = 0; add < 2; ++add) {
    k->output(got, acc_stride, m, stride, columns, add);
    niti_winograd_kernels_ref.output(want, acc_stride, m, stride, columns, add);
    for (size_t i = 0; i < 16 * width; ++i) {
      const size_t at = i / width * acc_stride + i % width;
      assert_int_equal(got[at], (add + 1) * y[i]);
      assert_int_equal(want[at], (add + 1) * y[i]);
    }
  }
  check_guards(got, bytes);
  free(m);
  free(y);
  release(d);
  release(w);
  release(got);
  release(want);
}

static void test_transforms(void **unused) {
  (void)unused;
  static const size_t channels[] = {1, 3, 8, 16, 17, 31, 32, 33, 64, 100};
  const NitiWinogradKernels *all[4];
  const size_t count = tables(all);
  for (size_t i = 0; i < count; ++i) {
    for (Fill fill = FILL_RANDOM; fill < FILLS; ++fill) {
      for (size_t c = 0; c < sizeof channels / sizeof channels[0]; ++c) check_input(all[i], channels[c], fill);
      for (int v = 1; v <= all[i]->vectors; ++v) check_weights(all[i], 1 + (size_t)v * 3 % 8, v * all[i]->lanes, fill);
      for (int v = 1; v <= all[i]->vectors; ++v) check_output(all[i], v * all[i]->lanes, 231, fill); /* the most channels */
    }
  }
}

/* More channels than one sum of squares of int32 holds. */
static void test_many_channels(void **unused) {
  (void)unused;
  const NitiWinogradKernels *all[4];
  const size_t count = tables(all);
  for (size_t i = 0; i < count; ++i) check_input(all[i], 70003, FILL_WORST);
}

/* ---- the driver ---- */

typedef struct Case {
  NitiConv conv;
  int8_t *x, *w; /* of the pass: input and weights as the convolution names them */
  bool backward;
  int threads;
} Case;

static size_t x_count(const NitiConv *s) { return (size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c; }
static size_t y_count(const NitiConv *s) { return (size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->k; }
static size_t w_count(const NitiConv *s) { return (size_t)s->k * 9 * (size_t)s->c; }

static NitiCpu *open_cpu(int threads) {
  const NitiBackendOptions options = {.name = "cpu", .isa = "ref", .threads = threads};
  NitiBackend *backend;
  assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
  return niti_cpu(backend);
}

/* A plan in memory of its own, of exactly its size. */
typedef struct Prepared {
  NitiConvPlan *plan;
  void *memory;
} Prepared;

/* kernels: NULL for the reference. */
static NitiConvPlan *prepare_in(NitiWorkspace *w, const Case *t, const NitiWinogradKernels *kernels, int more) {
  NitiImplicitGemm g = t->backward ? niti_implicit_gemm_backward(&t->conv, 0, 0) : niti_implicit_gemm_forward(&t->conv);
  g.n += more;
  if (kernels) return niti_winograd_prepare(w, kernels, &g, (NitiConvCut){(size_t)t->threads, 0});
  return niti_conv_ref_prepare(w, &t->conv, t->backward ? NITI_BACKWARD : NITI_FORWARD, (size_t)t->threads);
}

static Prepared prepare(const Case *t, const NitiWinogradKernels *kernels, int more) {
  NitiWorkspace count = niti_workspace_begin(NULL, 0);
  assert_null(prepare_in(&count, t, kernels, more));
  Prepared p = {.memory = guarded(count.used)};
  NitiWorkspace w = niti_workspace_begin(p.memory, count.used);
  p.plan = prepare_in(&w, t, kernels, more);
  assert_int_equal(w.used, count.used);
  check_guards(p.memory, count.used);
  return p;
}

static void reserve(NitiCpu *cpu, size_t bytes) {
  cpu->workspace = guarded(bytes);
  cpu->workspace_bytes = bytes;
}

/* With every table, as the range pass runs it (from any prediction, again where that was wrong), in a workspace of the announced
 * size for a batch that may be larger. */
static void check_case(const Case *t, const NitiRounder *rounder) {
  if (is_left_out()) return;
  const NitiConv *s = &t->conv;
  const NitiImplicitGemm g = t->backward ? niti_implicit_gemm_backward(s, 0, 0) : niti_implicit_gemm_forward(s);
  const size_t count = t->backward ? x_count(s) : y_count(s);
  int8_t *want = guarded(count), *got = guarded(count);
  NitiCpu *cpu = open_cpu(t->threads);
  void *own = cpu->workspace;
  NitiConvOperands operands = {.out = want, .in = t->x, .w = t->w};
  const Prepared reference = prepare(t, NULL, 0);
  reserve(cpu, reference.plan->workspace);
  NitiRounder right = *rounder; /* what the true maximum asks for */
  right.shift = niti_shift_inline(reference.plan->pass(reference.plan, cpu, &operands, rounder));
  const uint32_t max = reference.plan->pass(reference.plan, cpu, &operands, &right);
  release(cpu->workspace);
  release(reference.memory);
  assert_true(niti_winograd_fits(&g));
  operands.out = got;
  const NitiWinogradKernels *all[4];
  const size_t tables_count = tables(all);
  for (size_t i = 0; i < tables_count; ++i) {
    const Prepared larger = prepare(t, all[i], random_in(0, 5)), p = prepare(t, all[i], 0);
    const size_t bytes = larger.plan->workspace;
    assert_true(p.plan->workspace <= bytes);
    reserve(cpu, bytes);
    memset(got, GUARD_BYTE, count);
    assert_int_equal(p.plan->pass(p.plan, cpu, &operands, rounder), max);
    if (rounder->shift != right.shift) {
      NitiRounder again = right;
      again.again = true;
      p.plan->pass(p.plan, cpu, &operands, &again);
    }
    for (size_t j = 0; j < count; ++j) {
      if (got[j] != want[j])
        fail_msg("%s, %s, n %d, %dx%dx%d, k %d, pad %d,%d, %d threads, rounding %d: element %zu is %d, not %d", all[i]->name,
                 t->backward ? "backward" : "forward", s->n, s->h, s->w, s->c, s->k, s->pad_h, s->pad_w, t->threads,
                 (int)rounder->mode, j, got[j], want[j]);
    }
    check_guards(got, count);
    check_guards(cpu->workspace, bytes);
    release(cpu->workspace);
    release(larger.memory);
    release(p.memory);
  }
  cpu->workspace = own;
  niti_backend_close(&cpu->base);
  release(want);
  release(got);
}

static NitiRounder any_rounder(int bits, const int8_t *mask) {
  const NitiRounder r = {.mode = (NitiRounding)random_in(0, 3),
                         .shift = random_in(bits > 4 ? bits - 4 : 0, bits),
                         .relu = random_in(0, 1),
                         .mask = mask,
                         .draw = {0xfeedface12345678u, NITI_DRAW_ROUND_ACT, 9, 11}};
  return r;
}

/* Both directions. */
static void check_shape(const NitiConv *s, Fill fill, int threads) {
  int8_t *x = operand(x_count(s), fill), *w = operand(w_count(s), fill), *dy = operand(y_count(s), fill);
  const Case forward = {*s, x, w, false, threads}, backward = {*s, dy, w, true, threads};
  const NitiRounder r = any_rounder(17, NULL), e = any_rounder(17, random_in(0, 1) ? x : NULL);
  check_case(&forward, &r);
  check_case(&backward, &e);
  release(x);
  release(w);
  release(dy);
}

static void test_shapes(void **unused) {
  (void)unused;
  static const int channels[] = {1, 2, 3, 16, 17, 32, 33, 65}, outputs[] = {1, 5, 16, 17, 64, 65, 70};
  for (int i = 0; i < 80; ++i) {
    const int pad_h = random_in(0, 2), pad_w = random_in(0, 2), h = random_in(3 - pad_h, 9), w = random_in(3 - pad_w, 11);
    const NitiConv s = conv3x3_shape(random_in(1, 4), h < 1 ? 1 : h, w < 1 ? 1 : w, channels[random_in(0, 7)],
                                     outputs[random_in(0, 6)], pad_h, pad_w);
    check_shape(&s, (Fill)random_in(0, FILLS - 1), random_in(1, 3));
  }
  const NitiConv more[] = {conv3x3_shape(3, 5, 7, 3, 17, 1, 1),     conv3x3_shape(70, 4, 4, 16, 130, 1, 1),
                           conv3x3_shape(2, 16, 16, 128, 64, 1, 1), conv3x3_shape(1, 1, 1, 40, 40, 1, 1),
                           conv3x3_shape(61, 8, 8, 16, 20, 1, 1),   conv3x3_shape(5, 20, 3, 32, 32, 0, 2)};
  for (size_t i = 0; i < sizeof more / sizeof more[0]; ++i) {
    for (Fill fill = FILL_RANDOM; fill < FILLS; ++fill) check_shape(&more[i], fill, 1 + (int)i % 3);
  }
}

/* Every rounding, with and without ReLU and mask, at a shift that clips and one that does not. */
static void test_roundings(void **unused) {
  (void)unused;
  const NitiConv s = conv3x3_shape(2, 6, 9, 20, 24, 1, 1);
  int8_t *x = operand(x_count(&s), FILL_RANDOM), *w = operand(w_count(&s), FILL_RANDOM), *dy = operand(y_count(&s), FILL_RANDOM);
  for (int mode = 0; mode < 4; ++mode) {
    for (int i = 0; i < 8; ++i) {
      NitiRounder r = any_rounder(13, i & 4 ? x : NULL);
      r.mode = (NitiRounding)mode;
      r.relu = i & 1;
      r.shift = i & 2 ? 8 : 14;
      const Case forward = {s, x, w, false, 2}, backward = {s, dy, w, true, 2};
      NitiRounder unmasked = r;
      unmasked.mask = NULL;
      check_case(&forward, &unmasked);
      check_case(&backward, &r);
    }
  }
  release(x);
  release(w);
  release(dy);
}

/* The bound: with all operands +-127, 9 * 127 * 127 * channels < 2^25 for 231 channels and not for 232. Beyond, the result modulo
 * 2^32 no longer tells y: a driver that did not split would be wrong, which `unsplit` proves of this very input. */
static int32_t unsplit(int64_t y) { return (int32_t)((uint32_t)(576 * y) * 0x38e38e39u) >> 6; }

static void test_bound(void **unused) {
  (void)unused;
  assert_int_equal(unsplit(231 * 9 * 127 * 127), 231 * 9 * 127 * 127);
  assert_int_equal(unsplit(-231 * 9 * 127 * 127), -231 * 9 * 127 * 127);
  assert_int_not_equal(unsplit(232 * 9 * 127 * 127), 232 * 9 * 127 * 127);
  assert_int_not_equal(unsplit(-232 * 9 * 127 * 127), -232 * 9 * 127 * 127);
  static const int channels[] = {230, 231, 232, 233, 256, 463, 464, 512};
  for (size_t i = 0; i < sizeof channels / sizeof channels[0]; ++i) {
    for (Fill fill = FILL_WORST; fill < FILLS; ++fill) {
      const NitiConv forward = conv3x3_shape(1, 3, 4, channels[i], 18, 1, 1),
                     backward = conv3x3_shape(1, 3, 4, 18, channels[i], 1, 1);
      check_shape(&forward, fill, 2);
      check_shape(&backward, fill, 2);
    }
  }
}

/* One column whose magnitudes sum to exactly the most that is allowed, 264,208 = floor((2^25 - 1) / 127), and to one more. */
static void test_bound_to_the_unit(void **unused) {
  (void)unused;
  assert_int_equal(unsplit(264208 * 127), 264208 * 127);
  assert_int_not_equal(unsplit(264209 * 127), 264209 * 127);
  const NitiConv s = conv3x3_shape(1, 3, 3, 240, 3, 1, 1);
  for (int i = 0; i < 8; ++i) {
    const Fill fill = i & 1 ? FILL_MOST : FILL_LEAST;
    const int sign = i & 1 ? 1 : -1, last = i & 2 ? 48 : 49; /* 2,080 * 127 + 48 = 264,208 */
    int8_t *x = operand(x_count(&s), i & 4 ? FILL_MOST : FILL_LEAST), *w = operand(w_count(&s), FILL_RANDOM);
    int8_t *column = w + w_count(&s) / (size_t)s.k;
    memset(column, 0, w_count(&s) / (size_t)s.k);
    fill_with(column, 2080, fill);
    column[2159] = (int8_t)(sign * last);
    const Case forward = {s, x, w, false, 1};
    NitiRounder r = any_rounder(19, NULL);
    r.relu = false;
    r.shift = 19;
    check_case(&forward, &r);
    release(x);
    release(w);
  }
}

/* Real weights lie near the bound. One column beyond it among others within, in inputs small and large, so that some parts prove
 * their sums by the input and others must split. */
static void test_bound_of_columns(void **unused) {
  (void)unused;
  for (int i = 0; i < 6; ++i) {
    const int c = random_in(300, 520);
    const NitiConv s = conv3x3_shape(24, 4, 4, c, 70, 1, 1);
    int8_t *x = operand(x_count(&s), FILL_RANDOM), *w = operand(w_count(&s), FILL_RANDOM);
    const size_t image = x_count(&s) / (size_t)s.n, column = w_count(&s) / (size_t)s.k, loud = (size_t)random_in(0, 23);
    for (size_t j = 0; j < x_count(&s); ++j) x[j] = (int8_t)(x[j] / 40);
    for (size_t j = 0; j < w_count(&s); ++j) w[j] = (int8_t)(w[j] / (1 + i % 3));
    const Fill fill = i % 2 ? FILL_MOST : FILL_LEAST;
    fill_with(w + (size_t)random_in(0, 69) * column, column, fill);
    fill_with(x + loud * image, image, FILL_MOST);
    const Case forward = {s, x, w, false, 1 + i % 2};
    const NitiRounder r = any_rounder(19, NULL);
    check_case(&forward, &r);
    release(x);
    release(w);
  }
}

/* Each driver is announced for its shapes. */
static void test_choice(void **unused) {
  (void)unused;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    const NitiBackendOptions options = {.name = "cpu", .isa = niti_isa_name(isa), .threads = 1};
    const NitiConv large = conv3x3_shape(64, 16, 16, 256, 256, 1, 1), small = conv3x3_shape(64, 16, 16, 3, 64, 1, 1);
    const NitiConv few = conv3x3_shape(1, 8, 8, 512, 512, 1, 1),
                   edges = conv3x3_shape(64, 5, 5, 256, 256, 1, 1); /* tiles; tiles' outputs */
    NitiConv strided = conv3x3_shape(64, 16, 16, 256, 256, 1, 1);
    strided.stride_h = strided.stride_w = 2;
    strided.oh = strided.ow = 8;
    NitiBackend *b;
    assert_int_equal(niti_backend_open(&b, &options), NITI_OK);
    for (int d = 0; d < 2; ++d) {
      const bool has = niti_winograd_kernels(isa);
      assert_int_equal(strstr(call_conv_kernel(b, &large, d), "winograd") != NULL, has);
      assert_null(strstr(call_conv_kernel(b, &small, d), "winograd"));
      assert_null(strstr(call_conv_kernel(b, &few, d), "winograd"));
      assert_null(strstr(call_conv_kernel(b, &edges, d), "winograd"));
      assert_null(strstr(call_conv_kernel(b, &strided, d), "winograd"));
      assert_non_null(strstr(call_conv_kernel(b, &large, d), niti_isa_name(isa)));
    }
    niti_backend_close(b);
  }
}

/* Zen 4 says so by its name elsewhere; it computes by Winograd what processors with whole units compute directly. */
static void test_halves(void **unused) {
  char model[128], features[256];
  (void)unused;
  niti_cpu_model(model, sizeof model);
  niti_cpu_features(features, sizeof features);
  if (!strstr(model, "AMD") || !strstr(features, "avx512vnni")) assert_false(niti_cpu_halves_512());
#if defined(__x86_64__)
  const NitiConv few = conv3x3_shape(64, 14, 14, 64, 64, 1, 1), image = conv3x3_shape(64, 16, 16, 64, 64, 1, 1);
  const NitiImplicitGemm edges = niti_implicit_gemm_forward(&few), whole = niti_implicit_gemm_forward(&image);
  assert_true(niti_winograd_serves(&niti_winograd_kernels_avx512vnni_halves, &edges));
  assert_true(niti_winograd_serves(&niti_winograd_kernels_avx512vnni_halves, &whole));
  assert_false(niti_winograd_serves(&niti_winograd_kernels_avx512vnni, &edges));
  assert_false(niti_winograd_serves(&niti_winograd_kernels_avx512vnni, &whole));
  if (niti_isa_supported(NITI_ISA_AVX512VNNI))
    assert_ptr_equal(niti_winograd_kernels(NITI_ISA_AVX512VNNI),
                     niti_cpu_halves_512() ? &niti_winograd_kernels_avx512vnni_halves : &niti_winograd_kernels_avx512vnni);
#endif
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_transforms),       cmocka_unit_test(test_many_channels), cmocka_unit_test(test_shapes),
      cmocka_unit_test(test_roundings),        cmocka_unit_test(test_bound),         cmocka_unit_test(test_bound_to_the_unit),
      cmocka_unit_test(test_bound_of_columns), cmocka_unit_test(test_choice),        cmocka_unit_test(test_halves),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
