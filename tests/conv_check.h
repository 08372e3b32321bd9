/* A convolution in all three directions on every instruction set this machine has, against a brute-force int64 oracle: every
 * rounding mode, a wrong prediction, guards round every output and round a workspace of exactly the size that the plan announced.
 */
#ifndef NITI_TESTS_CONV_CHECK_H
#define NITI_TESTS_CONV_CHECK_H

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/conv_plan.h"
#include "base/bounds.h"
#include "base/round.h"
#include "base/shift_prediction.h"
#include "guarded.h"
#include "kernel_calls.h"

typedef enum Fill { FILL_RANDOM, FILL_WORST, FILL_TINY, FILL_GROWING } Fill; /* any; all +-127; -1..1; the later the greater */

static inline int8_t *operand(size_t count, Fill fill) {
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

static inline Sizes sizes(const NitiConv *s) {
  return (Sizes){(size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c,
                 (size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->k,
                 (size_t)s->k * (size_t)s->kh * (size_t)s->kw * (size_t)niti_conv_group_inputs(s)};
}

/* Calls for every product the three sums share: element iy of y, ix of x, iw of w. */
typedef enum Direction { FORWARD, BACKWARD, GRADIENT } Direction;

static inline void oracle(int64_t *sum, Direction direction, const int8_t *x, const int8_t *y, const int8_t *w,
                          const NitiConv *s) {
  for (int n = 0; n < s->n; ++n)
    for (int oy = 0; oy < s->oh; ++oy)
      for (int ox = 0; ox < s->ow; ++ox)
        for (int k = 0; k < s->k; ++k)
          for (int ky = 0; ky < s->kh; ++ky)
            for (int kx = 0; kx < s->kw; ++kx) {
              const int py = oy * s->stride_h + ky - s->pad_h, px = ox * s->stride_w + kx - s->pad_w;
              if (py < 0 || py >= s->h || px < 0 || px >= s->w) continue;
              const size_t iy = (size_t)(((n * s->oh + oy) * s->ow + ox) * s->k + k);
              const int group = k / niti_conv_group_outputs(s), inputs = niti_conv_group_inputs(s);
              const size_t ix0 = (size_t)(((n * s->h + py) * s->w + px) * s->c + group * inputs),
                           iw0 = (size_t)(((k * s->kh + ky) * s->kw + kx) * inputs);
              for (size_t c = 0; c < (size_t)inputs; ++c) {
                if (direction == FORWARD)
                  sum[iy] += x[ix0 + c] * w[iw0 + c];
                else if (direction == BACKWARD)
                  sum[ix0 + c] += y[iy] * w[iw0 + c];
                else
                  sum[iw0 + c] += y[iy] * x[ix0 + c];
              }
            }
}

static inline int true_shift(const int64_t *sum, size_t count) {
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

static inline NitiCpu *open_cpu(NitiIsa isa, int threads, bool direct) {
  const NitiBackendOptions options = {.name = "cpu", .isa = niti_isa_name(isa), .threads = threads, .direct = direct};
  NitiBackend *backend;
  assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
  begin_step(backend, 0xfeedface12345678u, 9);
  return niti_cpu(backend);
}

static inline void close_cpu(NitiCpu *cpu) { niti_backend_close(&cpu->base); }

/* A plan with a workspace of its own, in place of the backend's. */
typedef struct Bench {
  NitiCpu *cpu;
  NitiConvPlan *plan;
  uint8_t *own; /* the backend's */
  size_t own_bytes, bytes;
} Bench;

static inline Bench open_bench(NitiCpu *cpu, const NitiConv *s, NitiDirection direction, NitiConvTraits traits) {
  Bench b = {.cpu = cpu, .own = cpu->workspace, .own_bytes = cpu->workspace_bytes};
  assert_int_equal(niti_conv_prepare(&b.plan, cpu, s, direction, traits), NITI_OK);
  cpu->workspace_bytes = b.bytes = niti_conv_workspace(b.plan);
  cpu->workspace = guarded(b.bytes);
  return b;
}

static inline void close_bench(Bench *b) {
  check_guards(b->cpu->workspace, b->bytes);
  release(b->cpu->workspace);
  b->cpu->workspace = b->own;
  b->cpu->workspace_bytes = b->own_bytes;
  niti_conv_close(b->plan);
}

/* Kept weights: the first run packs them, and the next one uses the packed ones, whatever weights it gets, until they are
 * forgotten. A plan for another number of images shares them. want: y of all images. */
static inline void check_kept(NitiCpu *cpu, const NitiConv *s, NitiConvTraits traits, int8_t *y, const int8_t *x, const int8_t *w,
                              const int32_t *bias, const int8_t *want, size_t count, size_t weights, const NitiRequantise *rq) {
  NitiConv one = *s;
  one.n = 1;
  const size_t few = count / (size_t)s->n;
  Bench b = open_bench(cpu, &one, NITI_FORWARD, traits);
  size_t bytes = niti_conv_kept_bytes(b.plan);
  close_bench(&b);
  b = open_bench(cpu, s, NITI_FORWARD, traits);
  if (niti_conv_kept_bytes(b.plan) > bytes) bytes = niti_conv_kept_bytes(b.plan);
  if (bytes == 0) { /* nothing is packed */
    close_bench(&b);
    return;
  }
  int8_t *other = operand(weights, FILL_RANDOM), *alone = guarded(few);
  NitiKeptWeights kept = {.data = guarded(bytes), .bytes = bytes};
  niti_conv_forward(cpu, b.plan, y, x, other, NULL, &kept, rq);
  kept.layout = NULL;
  for (int run = 0; run < 2; ++run) {
    memset(y, GUARD_BYTE, count);
    *rq->prediction = niti_shift_prediction_of(random_in(0, 25));
    niti_conv_forward(cpu, b.plan, y, x, run == 0 ? w : other, bias, &kept, rq);
    assert_memory_equal(y, want, count);
  }
  close_bench(&b);
  b = open_bench(cpu, &one, NITI_FORWARD, traits);
  niti_conv_forward(cpu, b.plan, alone, x, w, bias, NULL, rq);
  niti_conv_forward(cpu, b.plan, y, x, w, bias, &kept, rq);
  assert_memory_equal(y, alone, few);
  close_bench(&b);
  check_guards(kept.data, bytes);
  release(kept.data);
  release(other);
  release(alone);
}

/* mask: NULL, or elements that must be 0 where it is not positive. */
/* Whether a delta passes a ReLU whose output the mask is: the mantissas up to the limit's, times 10^6 2^-exponent. */
static inline bool passes(const NitiTensor *mask, size_t i) {
  const int64_t unit = (int64_t)1000000, twice = (int64_t)2 * mask->limit << -*mask->exponent;
  if (mask->data[i] <= 0 || mask->limit == 0) return mask->data[i] > 0;
  return 2 * (mask->data[i] + 1) * unit - unit <= twice; /* the next mantissa is at most limit / 2^exponent + 1/2 */
}

static inline void check_rounded(const int8_t *got, const int64_t *sum, size_t count, const NitiRequantise *rq, int shift,
                                 bool relu, const NitiTensor *mask, const char *what) {
  const NitiDraw draw = {0xfeedface12345678u, rq->purpose, 9, rq->layer};
  for (size_t i = 0; i < count; ++i) {
    int8_t want = niti_round_int8(sum[i], shift, rq->mode, niti_draw(&draw, i));
    if ((relu && want < 0) || (mask && !passes(mask, i))) want = 0;
    if (got[i] != want)
      fail_msg("%s: element %zu is %d, not %d (sum %lld, shift %d)", what, i, got[i], want, (long long)sum[i], shift);
  }
}

static inline void check_gradient(const NitiGradient *g, const int64_t *sum, const char *what) {
  for (size_t i = 0; i < g->count; ++i) {
    const int64_t got = g->bits == 32 ? ((const int32_t *)g->data)[i] : ((const int64_t *)g->data)[i];
    if (got != sum[i]) fail_msg("%s: element %zu is %lld, not %lld", what, i, (long long)got, (long long)sum[i]);
  }
}

/* NULL, or a bias of small or the largest numbers, where the sums leave room for it. */
static inline int32_t *random_bias(const NitiConv *s) {
  const int64_t length = niti_bound_conv_forward(s->kh, s->kw, niti_conv_group_inputs(s)) + niti_bound_bias();
  if (random_in(0, 1) || length > NITI_ACCUMULATION_MAX) return NULL;
  int32_t *bias = guarded((size_t)s->k * sizeof *bias);
  const int most = random_in(0, 2) ? 100000 : 1 << 29;
  for (int k = 0; k < s->k; ++k) bias[k] = most == 1 << 29 ? (random_in(0, 1) ? most : -most) : random_in(-most, most);
  return bias;
}

/* Which of its ways a convolution takes, counted round; 0: the cost model's. */
static int turn;

static inline NitiConvTraits traits_for(NitiConvTraits traits, const NitiCpu *cpu, const NitiConv *s, NitiDirection direction) {
  NitiWay ways[NITI_WAYS_MAX];
  const int count = niti_conv_ways(ways, cpu, s, direction);
  if (turn > 0) traits.way = ways[turn % count].number;
  return traits;
}

static int largest_known; /* how often */

/* What is kept of a gradient for its update, which takes it once. */
static inline void check_largest(NitiCpu *cpu, const NitiGradient *g, const int64_t *sum, const char *what) {
  uint64_t kept = 0, most = 0;
  for (size_t i = 0; i < g->count; ++i) most = (uint64_t)llabs(sum[i]) > most ? (uint64_t)llabs(sum[i]) : most;
  if (!niti_cpu_take_largest(cpu, g, &kept)) return;
  if (kept != most) fail_msg("%s: the largest sum is %llu, not %llu", what, (unsigned long long)most, (unsigned long long)kept);
  assert_false(niti_cpu_take_largest(cpu, g, &kept));
  ++largest_known;
}

static inline void check_conv(const NitiConv *s, bool nonnegative, Fill fill, int threads) {
  if (is_left_out()) return;
  const Sizes z = sizes(s);
  int8_t *x = operand(z.x, fill), *w = operand(z.w, fill), *delta = operand(z.y, fill);
  int8_t *y = guarded(z.y), *dx = guarded(z.x), *again = guarded(z.y);
  if (nonnegative) {
    for (size_t i = 0; i < z.x; ++i) x[i] = (int8_t)abs(x[i]);
    if (fill == FILL_WORST) memset(w, -127, z.w);
  }
  int64_t *sums[3] = {calloc(z.y, sizeof(int64_t)), calloc(z.x, sizeof(int64_t)), calloc(z.w, sizeof(int64_t))};
  oracle(sums[FORWARD], FORWARD, x, delta, w, s);
  oracle(sums[BACKWARD], BACKWARD, x, delta, w, s);
  oracle(sums[GRADIENT], GRADIENT, x, delta, w, s);
  if (fill == FILL_TINY) { /* nothing was rounded: the three directions are one bilinear form */
    int64_t form[3] = {0, 0, 0};
    for (size_t i = 0; i < z.y; ++i) form[0] += sums[FORWARD][i] * delta[i];
    for (size_t i = 0; i < z.x; ++i) form[1] += sums[BACKWARD][i] * x[i];
    for (size_t i = 0; i < z.w; ++i) form[2] += sums[GRADIENT][i] * w[i];
    assert_int_equal(form[0], form[1]);
    assert_int_equal(form[0], form[2]);
  }
  int32_t *bias = random_bias(s);
  for (size_t i = 0; bias && i < z.y; ++i) sums[FORWARD][i] += bias[i % (size_t)s->k];
  const int shift_y = true_shift(sums[FORWARD], z.y), shift_x = true_shift(sums[BACKWARD], z.x);

  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa) || (turn > 0 && isa == NITI_ISA_REF)) continue; /* which has one way */
    NitiCpu *cpu = open_cpu(isa, threads, nonnegative && turn == 0);             /* `direct`: no driver but those that use it */
    char what[200];
    snprintf(what, sizeof what,
             "%s, %d threads, n %d, %dx%dx%d, k %d, kernel %dx%d, stride %d,%d, pad %d,%d, groups %d, fill %d%s",
             niti_isa_name(isa), threads, s->n, s->h, s->w, s->c, s->k, s->kh, s->kw, s->stride_h, s->stride_w, s->pad_h,
             s->pad_w, s->groups, (int)fill, nonnegative ? ", x nonnegative" : "");
    int32_t predicted = niti_shift_prediction_of(random_in(0, 25)); /* too small, too large or right */
    const NitiRequantise rq = {(NitiRounding)random_in(0, 3), NITI_DRAW_ROUND_ACT, 11, &predicted, 0, 0};
    const NitiConvTraits traits = {.nonnegative = nonnegative, .relu = random_in(0, 1)}, none = {0};

    Bench b = open_bench(cpu, s, NITI_FORWARD, traits_for(traits, cpu, s, NITI_FORWARD));
    assert_int_equal(niti_conv_forward(cpu, b.plan, y, x, w, bias, NULL, &rq), shift_y);
    check_rounded(y, sums[FORWARD], z.y, &rq, shift_y, traits.relu, NULL, what);
    assert_int_equal(niti_shift_prediction_last(predicted), shift_y);
    check_guards(y, z.y);
    close_bench(&b);
    check_kept(cpu, s, traits, again, x, w, bias, y, z.y, z.w, &rq);
    check_guards(again, z.y);

    predicted = niti_shift_prediction_of(random_in(0, 1) ? shift_x : random_in(0, 24));
    int32_t exponent = -random_in(0, 20); /* of a mask: the layer's own input, as after a ReLU, perhaps one with a maximum */
    const bool limited = random_in(0, 1);
    const NitiTensor own = {.data = x, .exponent = &exponent, .limit = limited ? 1 + (255000000 >> random_in(-exponent, 27)) : 0};
    const NitiTensor *mask = random_in(0, 1) ? &own : NULL;
    b = open_bench(cpu, s, NITI_BACKWARD, traits_for(none, cpu, s, NITI_BACKWARD));
    assert_int_equal(niti_conv_backward(cpu, b.plan, dx, delta, w, mask, &rq), shift_x);
    check_rounded(dx, sums[BACKWARD], z.x, &rq, shift_x, false, mask, what);
    assert_int_equal(niti_shift_prediction_last(predicted), shift_x);
    check_guards(dx, z.x);
    close_bench(&b);

    b = open_bench(cpu, s, NITI_GRADIENT, traits_for(traits, cpu, s, NITI_GRADIENT));
    for (int bits = 32; bits <= 64; bits += 32) {
      NitiGradient g = {guarded(z.w * (size_t)bits / 8), bits, z.w, {NULL, NULL}};
      niti_conv_gradient(cpu, b.plan, &g, delta, x);
      check_gradient(&g, sums[GRADIENT], what);
      check_largest(cpu, &g, sums[GRADIENT], what);
      check_guards(g.data, z.w * (size_t)bits / 8);
      release(g.data);
    }
    close_bench(&b);
    check_guards(x, z.x);
    check_guards(w, z.w);
    check_guards(delta, z.y);
    close_cpu(cpu);
  }
  for (int i = 0; i < 3; ++i) free(sums[i]);
  if (bias) release(bias);
  release(x);
  release(w);
  release(delta);
  release(y);
  release(dx);
  release(again);
}

#endif
