/* Convolutions in all three directions, on every instruction set this machine has, against a brute-force int64 oracle: odd
 * shapes, strides, paddings, worst-case operands, activations of either sign or none negative, wrong predictions, every rounding
 * mode, 1 to 3 threads, guards round every output and round a workspace of exactly the size that the plan announced. */
/* clang-format off */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cpu/conv_plan.h"
#include "base/bounds.h"
#include "base/round.h"
#include "base/shift_prediction.h"
#include "conv_check.h"

static void test_named_shapes(void **unused) {
  (void)unused;
  const NitiConv shapes[] = {
      conv_shape(2, 8, 8, 3, 64, 3, 3, 1, 1, 1, 1),
      conv_shape(3, 8, 8, 128, 70, 3, 3, 1, 1, 1, 1), /* a full block and a bit */
      conv_shape(5, 4, 4, 33, 48, 3, 3, 1, 1, 1, 1),
      conv_shape(1, 32, 32, 16, 16, 3, 3, 1, 1, 1, 1),
      conv_shape(2, 23, 25, 3, 33, 11, 11, 4, 4, 2, 2),
      conv_shape(2, 12, 9, 17, 31, 5, 5, 1, 1, 2, 2),
      conv_shape(2, 9, 9, 16, 32, 3, 3, 2, 2, 1, 1),
      conv_shape(2, 8, 8, 16, 32, 1, 1, 2, 2, 0, 0), /* phases without taps */
      conv_shape(3, 7, 5, 5, 10, 2, 3, 3, 2, 1, 2),
      conv_shape(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0),
      conv_shape(2, 5, 6, 7, 9, 1, 1, 1, 1, 0, 0),
      conv_shape(37, 1, 1, 100, 10, 1, 1, 1, 1, 0, 0), /* linear */
      conv_shape(64, 1, 1, 8, 130, 1, 1, 1, 1, 0, 0),
      conv_shape(1, 1, 1, 300, 71, 1, 1, 1, 1, 0, 0), /* linear layers of few images, whose weights are read in place */
      conv_shape(2, 1, 1, 65, 33, 1, 1, 1, 1, 0, 0),
      conv_shape(3, 1, 1, 2100, 13, 1, 1, 1, 1, 0, 0),
      conv_shape(4, 1, 1, 128, 192, 1, 1, 1, 1, 0, 0),
      conv_shape(1, 2, 2, 70, 40, 1, 1, 1, 1, 0, 0), /* pixels instead of images */
      conv_shape(2, 3, 3, 4, 6, 3, 3, 1, 1, 4, 3),   /* more padding than kernel */
      conv_shape(2, 4, 4, 6, 5, 4, 4, 4, 4, 0, 0),
      conv_shape(2, 6, 7, 2, 3, 2, 2, 4, 3, 0, 0), /* stride beyond the kernel */
      conv_shape(1, 3, 2100, 2, 5, 3, 3, 1, 1, 1, 1),
      conv_shape(1, 70, 60, 80, 4, 3, 3, 1, 1, 1, 1), /* bands */
      conv_shape(3, 1, 1, 3, 4, 3, 3, 2, 2, 1, 1),
      conv_shape(1, 2, 2, 1, 1, 3, 3, 5, 5, 1, 1),
      conv_shape(3, 11, 11, 1, 16, 2, 2, 1, 1, 0, 0), /* one channel: neighbouring taps are neighbours in memory */
      conv_shape(31, 64, 64, 8, 2, 3, 3, 1, 1, 1, 1), /* the gradient in several chunks */
      conv_shape(16, 11, 11, 1, 1, 1, 1, 1, 1, 0, 0), /* one tap: more pixels in a row than an image has */
      conv_shape(60, 45, 45, 5, 3, 1, 1, 1, 1, 0, 0),
      conv_shape(14, 8, 8, 40, 36, 5, 5, 1, 1, 2, 2),  /* many rows of the gradient; images packed in tens, and four more */
      conv_shape(2, 16, 32, 64, 33, 3, 3, 1, 1, 1, 1), /* pixels in whole rows of tiles */
      conv_shape(600, 8, 8, 64, 2, 5, 5, 3, 3, 2, 2),  /* outputs of three columns: flat chunks, and more than one */
      conv_shape(3, 12, 12, 20, 50, 5, 5, 1, 1, 0, 0), /* backward, a tile is a row, and some of its rows of taps in the border */
      conv_shape(2, 6, 6, 24, 30, 3, 3, 1, 1, 4, 1),   /* rows of outputs that lie in the border whole */
      conv_shape(3, 9, 24, 7, 8, 5, 3, 2, 1, 3, 1),
  };
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i) {
    for (int fill = FILL_RANDOM; fill <= FILL_GROWING; ++fill) {
      check_conv(&shapes[i], false, (Fill)fill, 1 + (int)i % 3);
      check_conv(&shapes[i], true, (Fill)fill, 1 + (int)i % 3);
    }
  }
  if (niti_cpu_best_isa() != NITI_ISA_REF) assert_in_range(largest_known, 100, INT_MAX);
}

static void other_writer(NitiCpu *cpu, const NitiGradient *g) {
  uint64_t kept;
  niti_cpu_keep_largest(cpu, g, 7);
  niti_cpu_forget_largest(cpu, g);
  assert_false(niti_cpu_take_largest(cpu, g, &kept));
}

/* What is kept lasts until the gradient is written again, ranks add theirs or a step begins; no more is kept than there is room
 * for. */
static void test_largest_kept(void **unused) {
  (void)unused;
  static int32_t numbers[NITI_UPDATES_MAX + 1];
  const int64_t scalars[NITI_SCALARS_MAX] = {0};
  NitiCpu *cpu = open_cpu(NITI_ISA_REF, 1, false);
  const NitiGradient g = {numbers, 32, 1, {NULL, NULL}};
  uint64_t kept = 0;
  other_writer(cpu, &g);
  niti_cpu_keep_largest(cpu, &g, 3);
  niti_cpu_keep_largest(cpu, &g, 5);
  assert_true(niti_cpu_take_largest(cpu, &g, &kept) && kept == 5);
  niti_cpu_keep_largest(cpu, &g, 3);
  cpu->base.kernels->begin_step(&cpu->base, 1, 2, scalars);
  assert_false(niti_cpu_take_largest(cpu, &g, &kept));
  niti_cpu_keep_largest(cpu, &g, 3);
  cpu->base.together.whole = 2;
  assert_false(niti_cpu_take_largest(cpu, &g, &kept));
  cpu->base.together.whole = 0;
  for (int i = 0; i <= NITI_UPDATES_MAX; ++i)
    niti_cpu_keep_largest(cpu, &(NitiGradient){numbers + i, 32, 1, {NULL, NULL}}, (uint64_t)i);
  assert_false(niti_cpu_take_largest(cpu, &(NitiGradient){numbers + NITI_UPDATES_MAX, 32, 1, {NULL, NULL}}, &kept));
  assert_true(niti_cpu_take_largest(cpu, &(NitiGradient){numbers + 9, 32, 1, {NULL, NULL}}, &kept) && kept == 9);
  close_cpu(cpu);
}

/* What `niti tune` may choose: instruction sets, drivers, parts of other sizes, one thread. */
static void test_every_way(void **unused) {
  (void)unused;
  const NitiConv shapes[] = {
      conv_shape(3, 8, 8, 40, 70, 3, 3, 1, 1, 1, 1),  conv_shape(31, 64, 64, 8, 2, 3, 3, 1, 1, 1, 1),
      conv_shape(1, 70, 60, 40, 4, 3, 3, 1, 1, 1, 1), conv_shape(14, 8, 8, 40, 36, 5, 5, 1, 1, 2, 2),
      conv_shape(2, 9, 9, 16, 32, 3, 3, 2, 2, 1, 1),  conv_shape(600, 8, 8, 64, 2, 5, 5, 3, 3, 2, 2),
      conv_shape(60, 45, 45, 5, 3, 1, 1, 1, 1, 0, 0), conv_shape(15, 1, 1, 90, 70, 1, 1, 1, 1, 0, 0),
      conv_shape(3, 1, 1, 200, 70, 1, 1, 1, 1, 0, 0), grouped(conv_shape(5, 23, 21, 64, 64, 3, 3, 1, 1, 1, 1), 64),
  };
  for (turn = 1; turn <= 18; ++turn) { /* each shape takes half of its ways */
    for (size_t i = (size_t)turn % 2; i < sizeof shapes / sizeof shapes[0]; i += 2)
      check_conv(&shapes[i], random_in(0, 1), turn % 4 == 0 ? FILL_WORST : FILL_RANDOM, 1 + turn % 3);
  }
  turn = 0;
}

static void test_random_shapes(void **unused) {
  (void)unused;
  static const int channels[] = {1, 2, 3, 4, 5, 8, 16, 17, 32, 33}, outputs[] = {1, 2, 10, 16, 31, 33, 48, 65};
  static const int taps[] = {1, 2, 3, 5, 11};
  for (int i = 0; i < 250; ++i) {
    const int kh = taps[random_in(0, 4)], kw = taps[random_in(0, 4)], ph = random_in(0, kh - 1), pw = random_in(0, kw - 1);
    const int h = kh + random_in(0, 9), w = kw + random_in(0, 9);
    const NitiConv s = conv_shape(random_in(1, 5), h - (h > ph ? ph : 0) > 0 ? h : 1, w, channels[random_in(0, 9)],
                                  outputs[random_in(0, 7)], kh, kw, random_in(1, 4), random_in(1, 4), ph, pw);
    check_conv(&s, random_in(0, 1), (Fill)random_in(0, 3), random_in(1, 3));
  }
}

static void test_groups(void **unused) {
  (void)unused;
  const NitiConv shapes[] = {
      grouped(conv_shape(2, 8, 8, 32, 32, 3, 3, 1, 1, 1, 1), 32), /* depthwise */
      grouped(conv_shape(3, 9, 7, 48, 48, 3, 3, 2, 2, 1, 1), 48),
      grouped(conv_shape(2, 9, 7, 24, 24, 5, 3, 2, 1, 2, 1), 24), /* half a vector left over */
      grouped(conv_shape(1, 6, 5, 7, 21, 3, 3, 1, 1, 1, 1), 7),   /* three outputs per channel */
      grouped(conv_shape(2, 6, 5, 6, 3, 2, 2, 1, 1, 0, 0), 3),
      grouped(conv_shape(2, 7, 7, 64, 32, 3, 3, 1, 1, 1, 1), 4),
      grouped(conv_shape(2, 5, 5, 12, 18, 1, 1, 1, 1, 0, 0), 6),
      grouped(conv_shape(1, 5, 5, 160, 96, 3, 3, 2, 2, 1, 1), 2), /* many terms: channels in several chunks */
      grouped(conv_shape(2, 6, 7, 4, 4, 2, 2, 4, 3, 0, 0), 4),    /* stride beyond the kernel */
      grouped(conv_shape(2, 3, 3, 4, 8, 3, 3, 1, 1, 4, 3), 2),    /* more padding than kernel */
      grouped(conv_shape(1, 3, 2100, 4, 4, 3, 3, 1, 1, 1, 1), 4), /* wide, high: several parts of a row and an image */
      grouped(conv_shape(1, 150, 60, 20, 20, 3, 3, 1, 1, 1, 1), 20),
      grouped(conv_shape(37, 1, 1, 100, 50, 1, 1, 1, 1, 0, 0), 50),
      grouped(conv_shape(1, 4, 4, 4500, 4500, 3, 3, 1, 1, 1, 1), 4500),
      grouped(conv_shape(2, 9, 8, 3, 6, 3, 2, 3, 2, 0, 1), 3),
  };
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i) {
    for (int fill = FILL_RANDOM; fill <= FILL_GROWING; ++fill) check_conv(&shapes[i], fill % 2, (Fill)fill, 1 + (int)i % 3);
  }
  for (int i = 0; i < 150; ++i) {
    const int groups = random_in(1, 40), kh = random_in(1, 4), kw = random_in(1, 4);
    const NitiConv s =
        conv_shape(random_in(1, 4), kh + random_in(0, 9), kw + random_in(0, 9), groups * random_in(1, 3),
                   groups * random_in(1, 3), kh, kw, random_in(1, 4), random_in(1, 4), random_in(0, kh), random_in(0, kw));
    const NitiConv in_groups = grouped(s, groups);
    check_conv(&in_groups, random_in(0, 1), (Fill)random_in(0, 3), random_in(1, 3));
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
          conv_shape(random_in(1, 4), random_in(5, 12), random_in(5, 12), random_in(1, 12), random_in(1, 12), random_in(1, 3),
                     random_in(1, 3), random_in(1, 3), random_in(1, 3), random_in(0, 2), random_in(0, 2));
      const Sizes z = sizes(&s);
      int8_t *x = operand(z.x, FILL_TINY), *w = operand(z.w, FILL_TINY), *delta = operand(z.y, FILL_TINY);
      int8_t *y = guarded(z.y), *dx = guarded(z.x);
      int32_t predicted = 3;
      const NitiRequantise rq = {NITI_NEAREST, NITI_DRAW_ROUND_ACT, 1, &predicted, 0, 0};
      const NitiConvTraits none = {0};
      NitiGradient g = {guarded(z.w * 4), 32, z.w, {NULL, NULL}};
      NitiCpu *cpu = open_cpu(isa, 2, false);
      Bench b = open_bench(cpu, &s, NITI_FORWARD, none);
      assert_int_equal(niti_conv_forward(cpu, b.plan, y, x, w, NULL, NULL, &rq), 0); /* 108 terms of at most 1 need no shift */
      close_bench(&b);
      b = open_bench(cpu, &s, NITI_BACKWARD, none);
      assert_int_equal(niti_conv_backward(cpu, b.plan, dx, delta, w, NULL, &rq), 0);
      close_bench(&b);
      b = open_bench(cpu, &s, NITI_GRADIENT, none);
      niti_conv_gradient(cpu, b.plan, &g, delta, x);
      close_bench(&b);
      int64_t form[3] = {0, 0, 0};
      for (size_t j = 0; j < z.y; ++j) form[0] += y[j] * delta[j];
      for (size_t j = 0; j < z.x; ++j) form[1] += dx[j] * x[j];
      for (size_t j = 0; j < z.w; ++j) form[2] += (int64_t)((int32_t *)g.data)[j] * w[j];
      assert_int_equal(form[0], form[1]);
      assert_int_equal(form[0], form[2]);
      close_cpu(cpu);
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
    NitiGradient g = {guarded(z.w * 8), 64, z.w, {NULL, NULL}};
    NitiCpu *cpu = open_cpu(isa, 2, false);
    Bench b = open_bench(cpu, s, NITI_GRADIENT, (NitiConvTraits){0});
    niti_conv_gradient(cpu, b.plan, &g, delta, x);
    for (size_t i = 0; i < z.w; ++i) assert_int_equal(((int64_t *)g.data)[i], want);
    check_guards(g.data, z.w * 8);
    close_bench(&b);
    close_cpu(cpu);
    release(g.data);
  }
  free(x);
  free(delta);
}

static void test_large_gradient(void **unused) {
  (void)unused;
  const NitiConv images = conv_shape(150, 32, 32, 3, 5, 2, 1, 1, 1, 0, 0), one = conv_shape(1, 500, 401, 1, 2, 1, 2, 1, 1, 0, 0);
  const NitiConv many = conv_shape(140001, 1, 1, 2, 3, 1, 1, 1, 1, 0, 0);
  check_large_gradient(&images, 1);
  check_large_gradient(&one, -1);
  check_large_gradient(&many, -1);
  const NitiConv depthwise = grouped(conv_shape(150, 32, 32, 5, 5, 2, 1, 1, 1, 0, 0), 5);
  const NitiConv wide = grouped(conv_shape(1, 1, 140001, 2, 4, 1, 1, 1, 1, 0, 0), 2);
  check_large_gradient(&depthwise, 1);
  check_large_gradient(&wide, -1);
}

/* Forward and backward at the largest accumulation length. */
static void test_longest_sums(void **unused) {
  (void)unused;
  const NitiConv forward = conv_shape(2, 1, 1, NITI_ACCUMULATION_MAX, 2, 1, 1, 1, 1, 0, 0);
  const NitiConv backward = conv_shape(2, 1, 1, 2, NITI_ACCUMULATION_MAX, 1, 1, 1, 1, 0, 0);
  check_conv(&forward, false, FILL_WORST, 2);
  check_conv(&forward, true, FILL_WORST, 2);
  check_conv(&backward, false, FILL_WORST, 2);
}

/* The gradient with taps as shifts, which only AMX chooses, with every kernel that could: bytes without an offset. */
static void check_shifted(const NitiConvKernels *kernels, const NitiConv *s, Fill fill, size_t threads) {
  const Sizes z = sizes(s);
  int8_t *x = operand(z.x, fill), *delta = operand(z.y, fill);
  for (size_t i = 0; i < z.x; ++i) x[i] = (int8_t)abs(x[i]); /* some kernels take no others */
  int64_t *sum = calloc(z.w, sizeof *sum);
  oracle(sum, GRADIENT, x, delta, NULL, s);
  NitiConvKernels stepping = *kernels;
  stepping.step = 64;
  assert_true(niti_conv_gradient_shifted_fits(&stepping, s));
  NitiWorkspace w = niti_workspace_begin(NULL, 0);
  assert_null(niti_conv_gradient_shifted_prepare(&w, &stepping, s, (NitiConvCut){threads, 0}));
  const size_t plan_bytes = w.used;
  void *memory = guarded(plan_bytes);
  w = niti_workspace_begin(memory, plan_bytes);
  const NitiConvPlan *plan = niti_conv_gradient_shifted_prepare(&w, &stepping, s, (NitiConvCut){threads, 0});
  NitiCpu cpu = {.workspace = guarded(plan->workspace), .workspace_bytes = plan->workspace};
  assert_int_equal(niti_threads_open(&cpu.threads, (int)threads), NITI_OK);
  for (int bits = 32; bits <= 64; bits += 32) {
    NitiGradient g = {guarded(z.w * (size_t)bits / 8), bits, z.w, {NULL, NULL}};
    plan->gradient(plan, &cpu, &g, delta, x);
    check_gradient(&g, sum, kernels->name);
    check_guards(g.data, z.w * (size_t)bits / 8);
    release(g.data);
  }
  check_guards(cpu.workspace, plan->workspace);
  check_guards(memory, plan_bytes);
  niti_threads_close(cpu.threads);
  release(cpu.workspace);
  release(memory);
  release(x);
  release(delta);
  free(sum);
}

static void test_shifted_gradient(void **unused) {
  (void)unused;
  const NitiConv shapes[] = {
      conv_shape(3, 8, 8, 5, 70, 3, 3, 1, 1, 1, 1),   conv_shape(37, 5, 6, 33, 17, 3, 3, 1, 1, 1, 1),
      conv_shape(2, 9, 4, 40, 33, 5, 3, 1, 1, 2, 0),  conv_shape(5, 40, 30, 3, 4, 1, 1, 1, 1, 0, 0),
      conv_shape(9, 7, 7, 35, 130, 5, 5, 1, 1, 0, 4), conv_shape(1, 1, 2, 1, 1, 1, 1, 1, 1, 0, 0),
      conv_shape(31, 64, 64, 8, 2, 3, 3, 1, 1, 1, 1), /* several chunks */
  };
  for (NitiIsa isa = NITI_ISA_REF + 1; isa < NITI_ISAS; ++isa) {
    const NitiConvKernels *kernels = niti_isa_supported(isa) ? niti_conv_kernels(isa) : NULL;
    if (kernels && kernels->nonnegative) kernels = kernels->nonnegative;
    if (!kernels || kernels->element != 1) continue;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i) {
      for (Fill fill = FILL_RANDOM; fill <= FILL_WORST; ++fill) check_shifted(kernels, &shapes[i], fill, 1 + i % 3);
    }
  }
}

/* More pixels in all images together than int32 can number, which a kernel of one tap does. Nothing is computed: this is for a
 * sanitizer. */
static void test_many_pixels(void **unused) {
  (void)unused;
  const NitiConv many = conv_shape(65536, 256, 256, 1, 1, 1, 1, 1, 1, 0, 0);
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    NitiCpu *cpu = open_cpu(isa, 1, false);
    for (int direction = 0; direction < 3; ++direction) {
      NitiConvPlan *plan;
      assert_int_equal(niti_conv_prepare(&plan, cpu, &many, (NitiDirection)direction, (NitiConvTraits){0}), NITI_OK);
      niti_conv_close(plan);
    }
    close_cpu(cpu);
  }
}

static void test_names(void **unused) {
  (void)unused;
  const NitiConv s = conv_shape(1, 8, 8, 3, 8, 3, 3, 1, 1, 1, 1);
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    NitiCpu *cpu = open_cpu(isa, 1, false);
    Bench b = open_bench(cpu, &s, NITI_FORWARD, (NitiConvTraits){0});
    const char *name = niti_conv_kernel_name(b.plan), *isa_name = niti_isa_name(isa);
    assert_int_equal(strncmp(name, isa_name, strlen(isa_name)), 0);
    close_bench(&b);
    close_cpu(cpu);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_named_shapes), cmocka_unit_test(test_every_way),      cmocka_unit_test(test_random_shapes),
      cmocka_unit_test(test_identity),     cmocka_unit_test(test_large_gradient), cmocka_unit_test(test_longest_sums),
      cmocka_unit_test(test_names),        cmocka_unit_test(test_many_pixels),    cmocka_unit_test(test_shifted_gradient),
      cmocka_unit_test(test_groups),       cmocka_unit_test(test_largest_kept),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
