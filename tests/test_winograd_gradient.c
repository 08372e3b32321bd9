/* The Winograd weight gradient: every kernel against its portable counterpart, and the whole against a brute-force int64 sum, on
 * both sides of the bound that cuts a sum, with guards round every output and round a workspace of exactly the announced size. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cpu/winograd_gradient.h"
#include "guarded.h"
#include "kernel_calls.h"

enum { X_MOST = 12700, DY_MOST = 28575 };

static int any_or_edge(int most, bool edge) { return edge ? (random_in(0, 1) ? most : -most) : random_in(-most, most); }

/* The sets of this machine, the portable one first. */
static const NitiWinogradGradientKernels *sets[3];
static size_t set_count;
static NitiIsa set_isas[3];

static int find_sets(void **unused) {
  (void)unused;
  sets[set_count++] = &niti_winograd_gradient_ref;
  const NitiConv conv = conv3x3_shape(64, 32, 32, 128, 128, 1, 1);
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    const NitiWinogradGradientKernels *kernels = niti_winograd_gradient_kernels(isa, &conv);
    if (!kernels || !niti_isa_supported(isa)) continue;
    set_isas[set_count] = isa;
    sets[set_count++] = kernels;
  }
  return 0;
}

/* ---- kernels against the portable ones ---- */

static void test_transforms(void **unused) {
  (void)unused;
  enum { STRIDE = 64 + NITI_GRADIENT_PAIR, COUNT = NITI_GRADIENT_FREQUENCIES * STRIDE, FIRST = 5 };
  int8_t values[NITI_GRADIENT_X_PIXELS][FIRST + NITI_GRADIENT_PANEL];
  const int8_t *pixel[NITI_GRADIENT_X_PIXELS];
  static int16_t got[COUNT], want[COUNT];
  int most_x = 0, most_dy = 0;
  for (size_t set = 1; set < set_count; ++set) {
    for (int round = 0; round < 400; ++round) {
      const int channels = round % 3 == 0 ? NITI_GRADIENT_PANEL : random_in(1, NITI_GRADIENT_PANEL);
      for (size_t i = 0; i < NITI_GRADIENT_X_PIXELS; ++i) {
        /* pixels end with their last channel: a sanitizer sees reads beyond */
        pixel[i] = values[i] + NITI_GRADIENT_PANEL - channels;
        for (size_t c = 0; c < sizeof values[i]; ++c) values[i][c] = (int8_t)any_or_edge(127, round % 2 == 1);
      }
      for (int of_dy = 0; of_dy < 2; ++of_dy) {
        uint32_t got_sums[18], want_sums[18];
        for (int i = 0; i < 18; ++i) got_sums[i] = want_sums[i] = (uint32_t)i * 1000;
        memset(got, GUARD_BYTE, sizeof got);
        memset(want, GUARD_BYTE, sizeof want);
        if (of_dy) {
          sets[set]->transform_dy(got + 32, STRIDE, pixel, FIRST, channels, got_sums + 1);
          sets[0]->transform_dy(want + 32, STRIDE, pixel, FIRST, channels, want_sums + 1);
        } else {
          sets[set]->transform_x(got + 32, STRIDE, pixel, FIRST, channels);
          sets[0]->transform_x(want + 32, STRIDE, pixel, FIRST, channels);
        }
        assert_memory_equal(got, want, sizeof got);
        assert_memory_equal(got_sums, want_sums, sizeof got_sums);
      }
    }
  }
  /* The magnitudes that the header states, reached by the signs of the worst row. */
  static const int8_t x_signs[6] = {1, 0, -1, 0, 1, 0}, dy_signs[4] = {1, 1, 1, 1};
  int8_t worst[NITI_GRADIENT_X_PIXELS] = {0};
  for (int i = 0; i < 36; ++i) worst[i / 6 * 10 + i % 6] = (int8_t)(127 * x_signs[i / 6] * x_signs[i % 6]);
  for (size_t i = 0; i < NITI_GRADIENT_X_PIXELS; ++i) pixel[i] = worst + i;
  sets[0]->transform_x(want, STRIDE, pixel, 0, 1);
  for (int f = 0; f < NITI_GRADIENT_FREQUENCIES; ++f) most_x = abs(want[f * STRIDE]) > most_x ? abs(want[f * STRIDE]) : most_x;
  assert_int_equal(most_x, X_MOST);
  memset(worst, 0, sizeof worst);
  for (int i = 0; i < 16; ++i) worst[i / 4 * 8 + i % 4] = (int8_t)(127 * dy_signs[i / 4] * dy_signs[i % 4]);
  uint32_t sums[16] = {0};
  sets[0]->transform_dy(want, STRIDE, pixel, 0, 1, sums);
  for (int f = 0; f < NITI_GRADIENT_FREQUENCIES; ++f) most_dy = abs(want[f * STRIDE]) > most_dy ? abs(want[f * STRIDE]) : most_dy;
  assert_int_equal(most_dy, DY_MOST);
  assert_int_equal(sums[0], 16 * 127);
}

static void test_multiply(void **unused) {
  (void)unused;
  enum { PAIRS = 37, PANEL = (PAIRS + 1) * NITI_GRADIENT_PAIR, ACC_STRIDE = 4 * 16 + 8, ACC = 16 * ACC_STRIDE };
  static int16_t rows[PANEL], columns[4 * PANEL];
  static int32_t got[ACC], want[ACC];
  for (size_t set = 1; set < set_count; ++set) {
    for (int round = 0; round < 64; ++round) {
      const int panels = 1 + round % 4;
      const size_t pairs = round < 8 ? (size_t)round : (size_t)random_in(1, PAIRS);
      const bool edge = random_in(0, 1);
      for (size_t i = 0; i < PANEL; ++i) rows[i] = (int16_t)any_or_edge(DY_MOST, edge);
      for (size_t i = 0; i < 4 * PANEL; ++i) columns[i] = (int16_t)any_or_edge(X_MOST, edge);
      for (size_t i = 0; i < ACC; ++i) got[i] = want[i] = (int32_t)(uint32_t)next_random();
      sets[set]->multiply(got, ACC_STRIDE, rows, columns, PANEL, pairs, panels, rows, columns);
      sets[0]->multiply(want, ACC_STRIDE, rows, columns, PANEL, pairs, panels, rows, columns);
      assert_memory_equal(got, want, sizeof got);
    }
  }
}

static void test_finish(void **unused) {
  (void)unused;
  enum { CHANNELS = 70, STRIDE = 80, TAP = CHANNELS + 3, COUNT = 9 * TAP };
  static int32_t acc[NITI_GRADIENT_FREQUENCIES * STRIDE];
  static int64_t got[COUNT], want[COUNT];
  for (size_t set = 1; set < set_count; ++set) {
    for (int channels = 1; channels <= CHANNELS; ++channels) {
      for (int mode = 0; mode < 4; ++mode) {
        for (size_t i = 0; i < sizeof acc / sizeof acc[0]; ++i) acc[i] = (int32_t)(uint32_t)next_random();
        for (size_t i = 0; i < COUNT; ++i) {
          got[i] = want[i] =
              mode & 1 ? (int64_t)(next_random() >> 20) - ((int64_t)1 << 43)
                       : (int64_t)((next_random() & 0x3fffffff3fffffff) - 0x1fffffff); /* two halves that cannot overflow */
        }
        sets[set]->finish(got, mode & 1 ? 64 : 32, mode & 2, TAP, acc, STRIDE, channels);
        sets[0]->finish(want, mode & 1 ? 64 : 32, mode & 2, TAP, acc, STRIDE, channels);
        assert_memory_equal(got, want, sizeof got);
      }
    }
  }
}

/* ---- the whole ---- */

static void oracle(int64_t *sum, const int8_t *dy, const int8_t *x, const NitiConv *s) {
  for (int i = 0; i < s->n * s->oh * s->ow; ++i) {
    const int n = i / (s->oh * s->ow), oy = i / s->ow % s->oh, ox = i % s->ow;
    for (int tap = 0; tap < 9; ++tap) {
      const int iy = oy + tap / 3 - s->pad_h, ix = ox + tap % 3 - s->pad_w;
      if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
      const int8_t *from = x + ((n * s->h + iy) * s->w + ix) * s->c;
      for (int k = 0; k < s->k; ++k) {
        const int64_t delta = dy[i * s->k + k];
        for (int c = 0; delta != 0 && c < s->c; ++c) sum[(k * 9 + tap) * s->c + c] += delta * from[c];
      }
    }
  }
}

/* pairs: of a piece; 0 leaves each set its own. */
static void check_operands(const NitiConv *s, const int8_t *dy, const int8_t *x, int threads, size_t pairs) {
  if (is_left_out()) return;
  const size_t count = (size_t)s->k * 9 * (size_t)s->c;
  int64_t *sum = calloc(count, sizeof *sum);
  assert_non_null(sum);
  oracle(sum, dy, x, s);
  assert_true(niti_winograd_gradient_fits(s));
  for (size_t set = 0; set < set_count; ++set) {
    const NitiBackendOptions options = {.name = "cpu", .isa = niti_isa_name(set_isas[set]), .threads = threads};
    NitiBackend *backend;
    assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
    NitiCpu *cpu = niti_cpu(backend);
    uint8_t *own = cpu->workspace;
    NitiWinogradGradientKernels kernels = *sets[set];
    if (pairs > 0) kernels.pairs = pairs;
    NitiWorkspace memory = niti_workspace_begin(NULL, 0);
    assert_null(niti_winograd_gradient_prepare(&memory, &kernels, s, (NitiConvCut){(size_t)threads, 0}));
    const size_t plan_bytes = memory.used;
    void *block = guarded(plan_bytes);
    memory = niti_workspace_begin(block, plan_bytes);
    const NitiConvPlan *plan = niti_winograd_gradient_prepare(&memory, &kernels, s, (NitiConvCut){(size_t)threads, 0});
    const size_t bytes = plan->workspace;
    cpu->workspace = guarded(bytes);
    cpu->workspace_bytes = bytes;
    for (int bits = 32; bits <= 64; bits += 32) {
      NitiGradient g = {guarded(count * (size_t)bits / 8), bits, count, {NULL, NULL}};
      plan->gradient(plan, cpu, &g, dy, x);
      for (size_t i = 0; i < count; ++i) {
        const int64_t got = bits == 32 ? ((const int32_t *)g.data)[i] : ((const int64_t *)g.data)[i];
        if (got != sum[i])
          fail_msg("%s, n %d, %dx%dx%d, k %d, pad %d,%d, %d bits: element %zu is %lld, not %lld", sets[set]->name, s->n, s->h,
                   s->w, s->c, s->k, s->pad_h, s->pad_w, bits, i, (long long)got, (long long)sum[i]);
      }
      check_guards(g.data, count * (size_t)bits / 8);
      release(g.data);
    }
    check_guards(cpu->workspace, bytes);
    check_guards(block, plan_bytes);
    release(cpu->workspace);
    release(block);
    cpu->workspace = own;
    niti_backend_close(backend);
  }
  free(sum);
}

static int8_t *operand(size_t count, bool edge) {
  int8_t *p = malloc(count);
  assert_non_null(p);
  for (size_t i = 0; i < count; ++i) p[i] = (int8_t)any_or_edge(127, edge);
  return p;
}

static size_t count_x(const NitiConv *s) { return (size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c; }
static size_t count_dy(const NitiConv *s) { return (size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->k; }

static void check_shape(const NitiConv *s, bool edge, int threads) {
  int8_t *x = operand(count_x(s), edge), *dy = operand(count_dy(s), edge);
  check_operands(s, dy, x, threads, 0);
  free(x);
  free(dy);
}

static void test_shapes(void **unused) {
  (void)unused;
  const NitiConv shapes[] = {
      conv3x3_shape(1, 3, 3, 1, 1, 0, 0),    conv3x3_shape(1, 1, 1, 1, 1, 1, 1),     conv3x3_shape(2, 1, 2, 4, 5, 2, 2),
      conv3x3_shape(3, 5, 7, 3, 1, 1, 1),    conv3x3_shape(2, 5, 7, 3, 17, 0, 1),    conv3x3_shape(1, 5, 7, 3, 65, 2, 2),
      conv3x3_shape(4, 8, 8, 16, 16, 1, 1),  conv3x3_shape(2, 8, 8, 70, 33, 1, 1),   conv3x3_shape(1, 9, 11, 17, 64, 1, 0),
      conv3x3_shape(2, 6, 67, 5, 3, 0, 2),   conv3x3_shape(2, 32, 32, 31, 32, 1, 1), conv3x3_shape(20, 16, 16, 48, 9, 1, 1),
      conv3x3_shape(7, 4, 4, 130, 70, 1, 1), conv3x3_shape(1, 3, 520, 2, 3, 1, 1), /* the widest rows of tiles */
  };
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i) {
    check_shape(&shapes[i], false, 1 + (int)i % 3);
    check_shape(&shapes[i], true, 1 + (int)i % 2);
  }
}

static void test_random_shapes(void **unused) {
  (void)unused;
  static const int channels[] = {1, 2, 3, 15, 16, 17, 33, 65};
  for (int i = 0; i < 120; ++i) {
    const int pad_h = random_in(0, 2), pad_w = random_in(0, 2);
    const int h = random_in(1, 14) + (pad_h ? 0 : 2), w = random_in(1, 21) + (pad_w ? 0 : 2);
    const NitiConv s = conv3x3_shape(random_in(1, 5), h, w, channels[random_in(0, 7)], channels[random_in(0, 7)], pad_h, pad_w);
    check_shape(&s, random_in(0, 1), random_in(1, 3));
  }
}

/* All |x| = 127, and |dy| of one channel sums to exactly the limit, or to one, two .. more, where the sum must be cut: the
 * gradient is 127 times that sum, and that of the first tap loses its highest bits first. Then deltas of 127 everywhere, which
 * make many cuts, in images, batches and rows. */
static void test_bound(void **unused) {
  (void)unused;
  assert_true((int64_t)NITI_GRADIENT_LIMIT * 127 < 1 << 25 && (int64_t)(NITI_GRADIENT_LIMIT + 1) * 127 >= 1 << 25);
  const NitiConv s = conv3x3_shape(3, 34, 34, 4, 18, 0, 0); /* no padding: every tap sums them all */
  for (int sign = -1; sign <= 1; sign += 2) {
    for (int beyond = -1; beyond <= 128; beyond += beyond < 2 ? 1 : 63) {
      int8_t *x = malloc(count_x(&s)), *dy = calloc(count_dy(&s), 1);
      assert_true(x && dy);
      memset(x, 127, count_x(&s));
      int left = NITI_GRADIENT_LIMIT + beyond;
      for (size_t i = 0; left > 0; i += 18) { /* the last channel of the first positions, and a little of the first channel */
        dy[i + 17] = (int8_t)(sign * (left < 127 ? left : 127));
        dy[i] = 1;
        left -= left < 127 ? left : 127;
      }
      check_operands(&s, dy, x, 1, 96); /* all in one piece */
      free(x);
      free(dy);
    }
    const NitiConv full[] = {conv3x3_shape(9, 32, 32, 3, 3, 1, 1), conv3x3_shape(140, 8, 8, 2, 17, 1, 1),
                             conv3x3_shape(1, 90, 100, 3, 2, 1, 1), conv3x3_shape(1, 10, 520, 1, 1, 1, 1)};
    for (size_t i = 0; i < sizeof full / sizeof full[0]; ++i) {
      int8_t *x = malloc(count_x(&full[i])), *dy = malloc(count_dy(&full[i]));
      assert_true(x && dy);
      memset(x, 127, count_x(&full[i]));
      memset(dy, sign * 127, count_dy(&full[i]));
      check_operands(&full[i], dy, x, 2, 0);
      check_operands(&full[i], dy, x, 2, 512);
      free(x);
      free(dy);
    }
  }
}

static void test_fits(void **unused) {
  (void)unused;
  NitiConv s = conv3x3_shape(1, 8, 520, 16, 16, 1, 1);
  assert_true(niti_winograd_gradient_fits(&s));
  s = conv3x3_shape(1, 8, 521, 16, 16, 1, 1); /* 4 * 521 * 127 is beyond the bound */
  assert_false(niti_winograd_gradient_fits(&s));
  s = conv3x3_shape(1, 8, 8, 16, 16, 1, 1);
  s.stride_h = 2;
  assert_false(niti_winograd_gradient_fits(&s));
  s.stride_h = 1;
  s.kw = 5;
  assert_false(niti_winograd_gradient_fits(&s));
}

/* The choice: never where padding outweighs the saved products, always for a large layer. A larger batch keeps it, since the
 * workspace is reserved for the largest. */
static void test_choice(void **unused) {
  (void)unused;
  for (size_t set = 1; set < set_count; ++set) {
    NitiConv s = conv3x3_shape(64, 2, 2, 512, 512, 1, 1);
    assert_null(niti_winograd_gradient_kernels(set_isas[set], &s));
    s = conv3x3_shape(64, 32, 32, 3, 128, 1, 1);
    assert_null(niti_winograd_gradient_kernels(set_isas[set], &s));
    s = conv3x3_shape(1, 8, 8, 512, 512, 1, 1);
    assert_null(niti_winograd_gradient_kernels(set_isas[set], &s));
    s = conv3x3_shape(64, 8, 8, 512, 512, 1, 1);
    assert_ptr_equal(niti_winograd_gradient_kernels(set_isas[set], &s), sets[set]);
    for (int size = 1; size < 40; ++size) {
      bool chosen = false;
      for (int n = 1; n < 300; ++n) {
        s = conv3x3_shape(n, size, size, 32, 48, 1, 1);
        const bool now = niti_winograd_gradient_kernels(set_isas[set], &s) != NULL;
        assert_true(now || !chosen);
        chosen = now;
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_transforms), cmocka_unit_test(test_multiply),      cmocka_unit_test(test_finish),
      cmocka_unit_test(test_shapes),     cmocka_unit_test(test_random_shapes), cmocka_unit_test(test_bound),
      cmocka_unit_test(test_fits),       cmocka_unit_test(test_choice),
  };
  return cmocka_run_group_tests(tests, find_sets, NULL);
}
