/* Reference convolutions: the sums as docs/arithmetic.md states them, one output pixel after another. */
#include "backend/cpu/conv_plan.h"

typedef struct Plan {
  NitiConvPlan base;
  NitiConv conv;
  size_t threads, row; /* row: accumulators of a thread, those of the channels of one output pixel, forward or backward */
} Plan;

typedef struct Pass {
  const NitiConv *conv;
  const NitiConvOperands *operands;
  const NitiRounder *rounder;
  int32_t *acc; /* [threads][row] */
  size_t row;
  _Atomic uint32_t max;
} Pass;

typedef struct GradientPass {
  const NitiConv *conv;
  NitiGradient *gradient;
  const int8_t *dy, *x;
} GradientPass;

static size_t pixel(int32_t n, int32_t y, int32_t x, int32_t h, int32_t w, int32_t c) {
  return (((size_t)n * (size_t)h + (size_t)y) * (size_t)w + (size_t)x) * (size_t)c;
}

/* The weights of output channel k at one tap; there are as many as a group has input channels. */
static size_t tap(const NitiConv *s, int32_t k, int32_t ky, int32_t kx) {
  return pixel(k, ky, kx, s->kh, s->kw, niti_conv_group_inputs(s));
}

/* The first input channel of output channel k's group. */
static size_t channel(const NitiConv *s, int32_t k) {
  return (size_t)(k / niti_conv_group_outputs(s)) * (size_t)niti_conv_group_inputs(s);
}

static int32_t dot(const int8_t *a, const int8_t *b, int32_t count) {
  int32_t sum = 0;
  for (int32_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

static void add_scaled(int32_t *sum, const int8_t *a, int32_t scale, int32_t count) {
  for (int32_t i = 0; i < count; ++i) sum[i] += scale * a[i];
}

static void forward_row(void *context, size_t thread, size_t item) {
  Pass *p = context;
  const NitiConv *s = p->conv;
  const int32_t n = (int32_t)(item / (size_t)s->oh), oy = (int32_t)(item % (size_t)s->oh);
  const NitiConvOperands *o = p->operands;
  const int32_t inputs = niti_conv_group_inputs(s);
  int32_t *acc = p->acc + thread * p->row;
  uint32_t max = 0;
  for (int32_t ox = 0; ox < s->ow; ++ox) {
    for (int32_t k = 0; k < s->k; ++k) {
      acc[k] = o->bias ? o->bias[k] : 0;
      for (int32_t ky = 0; ky < s->kh; ++ky) {
        const int32_t iy = oy * s->stride_h + ky - s->pad_h;
        if (iy < 0 || iy >= s->h) continue;
        for (int32_t kx = 0; kx < s->kw; ++kx) {
          const int32_t ix = ox * s->stride_w + kx - s->pad_w;
          if (ix < 0 || ix >= s->w) continue;
          acc[k] += dot(o->in + pixel(n, iy, ix, s->h, s->w, s->c) + channel(s, k), o->w + tap(s, k, ky, kx), inputs);
        }
      }
    }
    const size_t at = pixel(n, oy, ox, s->oh, s->ow, s->k);
    max = niti_requantise_ref(o->out + at, acc, (size_t)s->k, p->rounder, at, max);
  }
  niti_max_raise(&p->max, max);
}

static void backward_row(void *context, size_t thread, size_t item) {
  Pass *p = context;
  const NitiConv *s = p->conv;
  const int32_t n = (int32_t)(item / (size_t)s->h), iy = (int32_t)(item % (size_t)s->h);
  const NitiConvOperands *o = p->operands;
  const int32_t inputs = niti_conv_group_inputs(s);
  int32_t *acc = p->acc + thread * p->row;
  uint32_t max = 0;
  for (int32_t ix = 0; ix < s->w; ++ix) {
    memset(acc, 0, sizeof(int32_t) * (size_t)s->c);
    for (int32_t ky = 0; ky < s->kh; ++ky) {
      const int32_t y = iy + s->pad_h - ky;
      if (y < 0 || y % s->stride_h != 0 || y / s->stride_h >= s->oh) continue;
      for (int32_t kx = 0; kx < s->kw; ++kx) {
        const int32_t x = ix + s->pad_w - kx;
        if (x < 0 || x % s->stride_w != 0 || x / s->stride_w >= s->ow) continue;
        const int8_t *delta = o->in + pixel(n, y / s->stride_h, x / s->stride_w, s->oh, s->ow, s->k);
        for (int32_t k = 0; k < s->k; ++k) {
          if (delta[k] != 0) add_scaled(acc + channel(s, k), o->w + tap(s, k, ky, kx), delta[k], inputs);
        }
      }
    }
    const size_t at = pixel(n, iy, ix, s->h, s->w, s->c);
    max = niti_requantise_ref(o->out + at, acc, (size_t)s->c, p->rounder, at, max);
    if (p->rounder->mask) niti_mask_apply(o->out + at, p->rounder->mask + at, (size_t)s->c, niti_rounder_last(p->rounder));
  }
  niti_max_raise(&p->max, max);
}

/* The gradient of one tap (k, ky, kx): a sum for each input channel of k's group. */
static void gradient_tap(void *context, size_t thread, size_t item) {
  const GradientPass *p = context;
  const NitiConv *s = p->conv;
  const int32_t kx = (int32_t)(item % (size_t)s->kw), ky = (int32_t)(item / (size_t)s->kw % (size_t)s->kh);
  const int32_t k = (int32_t)(item / (size_t)s->kw / (size_t)s->kh), inputs = niti_conv_group_inputs(s);
  int32_t *narrow = (int32_t *)p->gradient->data + (p->gradient->bits == 32 ? tap(s, k, ky, kx) : 0);
  int64_t *wide = (int64_t *)p->gradient->data + (p->gradient->bits == 64 ? tap(s, k, ky, kx) : 0);
  (void)thread;
  if (p->gradient->bits == 32)
    memset(narrow, 0, sizeof *narrow * (size_t)inputs);
  else
    memset(wide, 0, sizeof *wide * (size_t)inputs);
  for (int32_t n = 0; n < s->n; ++n) {
    for (int32_t oy = 0; oy < s->oh; ++oy) {
      const int32_t iy = oy * s->stride_h + ky - s->pad_h;
      if (iy < 0 || iy >= s->h) continue;
      for (int32_t ox = 0; ox < s->ow; ++ox) {
        const int32_t ix = ox * s->stride_w + kx - s->pad_w;
        const int32_t delta = p->dy[pixel(n, oy, ox, s->oh, s->ow, s->k) + (size_t)k];
        if (ix < 0 || ix >= s->w || delta == 0) continue;
        const int8_t *x = p->x + pixel(n, iy, ix, s->h, s->w, s->c) + channel(s, k);
        if (p->gradient->bits == 32) {
          add_scaled(narrow, x, delta, inputs);
        } else {
          for (int32_t c = 0; c < inputs; ++c) wide[c] += delta * x[c];
        }
      }
    }
  }
}

static int32_t *take_rows(const Plan *p, NitiWorkspace *w) {
  return niti_workspace_take(w, p->threads * p->row * sizeof(int32_t));
}

static uint32_t run_rows(const Plan *plan, NitiCpu *cpu, const NitiConvOperands *o, const NitiRounder *rounder, NitiTask task,
                         int32_t rows) {
  NitiWorkspace memory = niti_conv_memory(cpu);
  Pass pass = {.conv = &plan->conv, .operands = o, .rounder = rounder, .acc = take_rows(plan, &memory), .row = plan->row};
  niti_threads_run(cpu->threads, task, &pass, (size_t)plan->conv.n * (size_t)rows);
  assert(niti_workspace_intact(&memory));
  return pass.max;
}

static uint32_t run_forward(const NitiConvPlan *base, NitiCpu *cpu, const NitiConvOperands *o, const NitiRounder *rounder) {
  const Plan *plan = (const Plan *)base;
  return run_rows(plan, cpu, o, rounder, forward_row, plan->conv.oh);
}

static uint32_t run_backward(const NitiConvPlan *base, NitiCpu *cpu, const NitiConvOperands *o, const NitiRounder *rounder) {
  const Plan *plan = (const Plan *)base;
  return run_rows(plan, cpu, o, rounder, backward_row, plan->conv.h);
}

static void run_gradient(const NitiConvPlan *base, NitiCpu *cpu, NitiGradient *gradient, const int8_t *dy, const int8_t *x) {
  const NitiConv *s = &((const Plan *)base)->conv;
  GradientPass pass = {.conv = s, .gradient = gradient, .dy = dy, .x = x};
  niti_threads_run(cpu->threads, gradient_tap, &pass, (size_t)s->k * (size_t)s->kh * (size_t)s->kw);
}

NitiConvPlan *niti_conv_ref_prepare(NitiWorkspace *w, const NitiConv *s, NitiDirection direction, size_t threads) {
  Plan p = {.base = {.kernel = "ref", .pass = direction == NITI_FORWARD ? run_forward : run_backward}, .conv = *s};
  p.base.gradient = run_gradient;
  p.threads = threads;
  p.row = niti_round_up((size_t)(s->k > s->c ? s->k : s->c), 16); /* each thread's on separate cache lines */
  NitiWorkspace run = niti_workspace_begin(NULL, 0);
  take_rows(&p, &run);
  p.base.workspace = run.used;
  Plan *plan = niti_workspace_take(w, sizeof *plan);
  if (plan) *plan = p;
  return plan ? &plan->base : NULL;
}
