/* The table's convolution operations: exponents, the range pass, and the choice between the reference and the tiled driver. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/conv_plan.h"
#include "backend/cpu/winograd.h"
#include "backend/cpu/winograd_gradient.h"

typedef struct Operation {
  NitiCpu *cpu;
  const NitiConvKernels *kernels;
  const NitiConv *conv;
  int8_t *out;
  const int8_t *in, *w;
  NitiKeptWeights *kept; /* forward: NULL, or where packed weights are kept */
} Operation;

/* A kernel of one tap sees pixels, not images: all of them, if they can be counted, become images of one pixel, so that tiles
 * and parts span them. */
static NitiConv tiled_shape(const NitiConv *s) {
  NitiConv conv = *s;
  if (s->kh == 1 && s->kw == 1 && s->stride_h == 1 && s->stride_w == 1 && s->pad_h == 0 && s->pad_w == 0 &&
      (int64_t)s->n * s->h * s->w <= INT32_MAX) {
    conv.n = s->n * s->h * s->w;
    conv.h = conv.w = conv.oh = conv.ow = 1;
  }
  return conv;
}

NitiGather niti_gather_forward(const NitiConv *s) {
  const size_t c = (size_t)s->c, k = (size_t)s->k, kh = (size_t)s->kh, kw = (size_t)s->kw;
  return (NitiGather){
      .n = s->n,
      .ih = s->h,
      .iw = s->w,
      .ic = s->c,
      .jh = s->oh,
      .jw = s->ow,
      .oc = s->k,
      .step_y = s->stride_h,
      .step_x = s->stride_w,
      .tap_y = -s->pad_h,
      .tap_x = -s->pad_w,
      .tap_rows = s->kh,
      .tap_columns = s->kw,
      .out_pixel = k,
      .out_row = (size_t)s->ow * k,
      .out_image = (size_t)s->oh * (size_t)s->ow * k,
      .weight_o = kh * kw * c,
      .weight_a = (ptrdiff_t)(kw * c),
      .weight_b = (ptrdiff_t)c,
      .weight_c = 1,
  };
}

/* The taps of one axis that reach the input pixels of a phase: every stride-th. */
typedef struct Taps {
  int32_t count;
  int32_t last;   /* the last of them */
  int32_t offset; /* where that reads the error, relative to the pixel's number in the phase */
} Taps;

static Taps phase_taps(int32_t phase, int32_t taps, int32_t stride, int32_t pad) {
  const int32_t first = (phase + pad) % stride;
  Taps t = {0, 0, 0};
  if (first >= taps) return t;
  t.count = (taps - first + stride - 1) / stride;
  t.last = first + (t.count - 1) * stride;
  t.offset = (phase + pad - first) / stride - (t.count - 1);
  return t;
}

NitiGather niti_gather_backward(const NitiConv *s, int32_t phase_y, int32_t phase_x) {
  const size_t c = (size_t)s->c, kh = (size_t)s->kh, kw = (size_t)s->kw;
  const Taps y = phase_taps(phase_y, s->kh, s->stride_h, s->pad_h), x = phase_taps(phase_x, s->kw, s->stride_w, s->pad_w);
  const bool any = y.count > 0 && x.count > 0;
  return (NitiGather){
      .n = s->n,
      .ih = s->oh,
      .iw = s->ow,
      .ic = s->k,
      .oc = s->c,
      .jh = s->h > phase_y ? (s->h - phase_y + s->stride_h - 1) / s->stride_h : 0,
      .jw = s->w > phase_x ? (s->w - phase_x + s->stride_w - 1) / s->stride_w : 0,
      .step_y = 1,
      .step_x = 1,
      .tap_y = y.offset,
      .tap_x = x.offset,
      .tap_rows = any ? y.count : 0,
      .tap_columns = any ? x.count : 0,
      .out_base = ((size_t)phase_y * (size_t)s->w + (size_t)phase_x) * c,
      .out_pixel = (size_t)s->stride_w * c,
      .out_row = (size_t)s->stride_h * (size_t)s->w * c,
      .out_image = (size_t)s->h * (size_t)s->w * c,
      .weight_base = ((size_t)y.last * kw + (size_t)x.last) * c,
      .weight_o = 1,
      .weight_c = kh * kw * c,
      .weight_a = -(ptrdiff_t)((size_t)s->stride_h * kw * c),
      .weight_b = -(ptrdiff_t)((size_t)s->stride_w * c),
  };
}

/* For the directions that read x. */
static const NitiConvKernels *kernels_for(const NitiCpu *cpu, bool nonnegative) {
  const NitiConvKernels *kernels = niti_conv_kernels(cpu->isa);
  return kernels && kernels->positive && nonnegative ? kernels->positive : kernels;
}

static const NitiWinogradKernels *winograd_of(const NitiCpu *cpu) { return cpu->direct ? NULL : niti_winograd_kernels(cpu->isa); }

static const NitiWinogradGradientKernels *winograd_gradient_of(const NitiCpu *cpu, const NitiConv *s) {
  return cpu->direct ? NULL : niti_winograd_gradient_kernels(cpu->isa, s);
}

/* Of either: a smaller batch may be served by the other. */
static size_t pass_workspace(const NitiCpu *cpu, const NitiGather *g, int threads) {
  const NitiWinogradKernels *winograd = winograd_of(cpu);
  const size_t bytes = niti_gather_workspace(niti_conv_kernels(cpu->isa), g, threads);
  const size_t more = niti_winograd_serves(winograd, g) ? niti_winograd_workspace(winograd, g, threads) : 0;
  return more > bytes ? more : bytes;
}

static uint32_t run_pass(const Operation *o, const NitiGather *g, const NitiRounder *rounder) {
  const NitiWinogradKernels *winograd = winograd_of(o->cpu);
  return niti_winograd_serves(winograd, g) ? niti_winograd_run(o->cpu, winograd, g, o->out, o->in, o->w, rounder)
                                           : niti_gather_run(o->cpu, o->kernels, g, o->out, o->in, o->w, rounder);
}

static size_t workspace_of(const NitiCpu *cpu, const NitiConv *shape, int threads) {
  const NitiConv conv = tiled_shape(shape), *s = &conv;
  const NitiGather forward = niti_gather_forward(s);
  size_t bytes = pass_workspace(cpu, &forward, threads);
  for (int32_t y = 0; y < s->stride_h; ++y) {
    for (int32_t x = 0; x < s->stride_w; ++x) {
      const NitiGather backward = niti_gather_backward(s, y, x);
      const size_t more = pass_workspace(cpu, &backward, threads);
      if (more > bytes) bytes = more;
    }
  }
  const size_t gradient = niti_conv_gradient_workspace(niti_conv_kernels(cpu->isa), s, threads);
  return gradient > bytes ? gradient : bytes;
}

size_t niti_cpu_conv_workspace(const NitiBackend *backend, const NitiConv *s) {
  const NitiCpu *cpu = (const NitiCpu *)backend;
  const NitiConvKernels *kernels = niti_conv_kernels(cpu->isa);
  const int threads = niti_threads_count(cpu->threads);
  if (!kernels) return niti_conv_workspace_ref(s, threads);
  size_t bytes = workspace_of(cpu, s, threads);
  const NitiWinogradGradientKernels *gradient = winograd_gradient_of(cpu, s);
  if (gradient) {
    const size_t more = niti_winograd_gradient_workspace(gradient, s, threads);
    if (more > bytes) bytes = more;
  }
  NitiConv fewer = *s; /* a smaller batch's pixels may be countable where this one's are not */
  fewer.n = INT32_MAX / (s->h * s->w);
  if (fewer.n >= s->n) return bytes;
  const size_t more = workspace_of(cpu, &fewer, threads);
  return more > bytes ? more : bytes;
}

static size_t kept_bytes(const NitiCpu *cpu, const NitiConv *s) {
  const NitiConvKernels *kernels = niti_conv_kernels(cpu->isa);
  const NitiWinogradKernels *winograd = winograd_of(cpu);
  if (!kernels) return 0;
  const NitiConv conv = tiled_shape(s);
  const NitiGather g = niti_gather_forward(&conv);
  const size_t bytes = niti_gather_packed_bytes(kernels, &g);
  const size_t more = niti_winograd_serves(winograd, &g) ? niti_winograd_packed_bytes(winograd, &g) : 0;
  return more > bytes ? more : bytes;
}

const char *niti_cpu_conv_kernel(const NitiBackend *backend, const NitiConv *s, const char *direction) {
  const NitiCpu *cpu = (const NitiCpu *)backend;
  const NitiConvKernels *kernels = niti_conv_kernels(cpu->isa);
  const NitiWinogradGradientKernels *gradient = winograd_gradient_of(cpu, s);
  if (gradient && strcmp(direction, "gradient") == 0) return gradient->name;
  if (!kernels) return "ref";
  const NitiWinogradKernels *winograd = winograd_of(cpu);
  const NitiConv conv = tiled_shape(s);
  const NitiGather g = strcmp(direction, "backward") == 0 ? niti_gather_backward(&conv, 0, 0) : niti_gather_forward(&conv);
  return strcmp(direction, "gradient") != 0 && niti_winograd_serves(winograd, &g) ? winograd->name : kernels->name;
}

/* ---- plans ---- */

struct NitiConvPlan {
  NitiConv conv;
  NitiConvDirection direction;
  bool relu;
  const NitiConvKernels *kernels;
  const char *name;
  size_t workspace, kept;
};

NitiStatus niti_conv_prepare(NitiConvPlan **out, const NitiCpu *cpu, const NitiConv *conv, NitiConvDirection direction,
                             NitiConvTraits traits) {
  static const char *const names[] = {"forward", "backward", "gradient"};
  NitiConvPlan *plan = *out = calloc(1, sizeof *plan);
  if (!plan) return niti_fail(NITI_ERROR_MEMORY, "out of memory: %zu bytes asked for as the plan of a convolution", sizeof *plan);
  plan->conv = *conv;
  plan->direction = direction;
  plan->relu = traits.relu;
  plan->kernels = kernels_for(cpu, traits.nonnegative && direction != NITI_CONV_BACKWARD);
  plan->name = niti_cpu_conv_kernel(&cpu->base, conv, names[direction]);
  plan->workspace = niti_cpu_conv_workspace(&cpu->base, conv);
  plan->kept = direction == NITI_CONV_FORWARD ? kept_bytes(cpu, conv) : 0;
  return NITI_OK;
}

void niti_conv_close(NitiConvPlan *plan) { free(plan); }
size_t niti_conv_workspace(const NitiConvPlan *plan) { return plan->workspace; }
const char *niti_conv_kernel_name(const NitiConvPlan *plan) { return plan->name; }
size_t niti_conv_kept_bytes(const NitiConvPlan *plan) { return plan->kept; }

static uint32_t forward_task(void *context, const NitiRounder *rounder) {
  const Operation *o = context;
  if (!o->kernels) return niti_conv_forward_ref(o->cpu, o->out, o->in, o->w, o->conv, rounder);
  const NitiConv s = tiled_shape(o->conv);
  NitiGather g = niti_gather_forward(&s);
  if (!o->kept) return run_pass(o, &g, rounder);
  const NitiWinogradKernels *winograd = winograd_of(o->cpu); /* which serves may depend on the batch */
  const void *layout = niti_winograd_serves(winograd, &g) ? (const void *)winograd : o->kernels;
  g.packed = o->kept->data;
  g.ready = o->kept->layout == layout;
  const uint32_t max = run_pass(o, &g, rounder);
  o->kept->layout = layout;
  return max;
}

static uint32_t backward_task(void *context, const NitiRounder *rounder) {
  const Operation *o = context;
  uint32_t max = 0;
  if (!o->kernels) return niti_conv_backward_ref(o->cpu, o->out, o->in, o->w, o->conv, rounder);
  const NitiConv s = tiled_shape(o->conv);
  NitiRounder mine = *rounder;
  mine.again = mine.again && s.stride_h == 1 && s.stride_w == 1; /* each phase of a stride takes the workspace of the last */
  for (int32_t y = 0; y < s.stride_h; ++y) {
    for (int32_t x = 0; x < s.stride_w; ++x) {
      const NitiGather g = niti_gather_backward(&s, y, x);
      const uint32_t phase = run_pass(o, &g, &mine);
      if (phase > max) max = phase;
    }
  }
  return max;
}

int niti_conv_forward(NitiCpu *cpu, const NitiConvPlan *plan, int8_t *y, const int8_t *x, const int8_t *w, NitiKeptWeights *kept,
                      const NitiRequantise *request) {
  Operation o = {cpu, plan->kernels, &plan->conv, y, x, w, kept};
  return niti_cpu_requantise(cpu, request, plan->relu, NULL, forward_task, &o);
}

int niti_conv_backward(NitiCpu *cpu, const NitiConvPlan *plan, int8_t *dx, const int8_t *dy, const int8_t *w, const int8_t *mask,
                       const NitiRequantise *request) {
  Operation o = {cpu, plan->kernels, &plan->conv, dx, dy, w, NULL};
  return niti_cpu_requantise(cpu, request, false, mask, backward_task, &o);
}

void niti_conv_gradient(NitiCpu *cpu, const NitiConvPlan *plan, NitiGradient *gradient, const int8_t *dy, const int8_t *x) {
  if (!plan->kernels) {
    niti_conv_gradient_ref(cpu, gradient, dy, x, &plan->conv);
    return;
  }
  const NitiWinogradGradientKernels *winograd = winograd_gradient_of(cpu, &plan->conv);
  if (winograd) {
    niti_winograd_gradient_run(cpu, winograd, gradient, dy, x, &plan->conv);
    return;
  }
  const NitiConv conv = tiled_shape(&plan->conv);
  niti_conv_gradient_tiles(cpu, plan->kernels, gradient, dy, x, &conv);
}

/* ---- the operations of the backend's table ---- */

/* What lies at the beginning of packed weights that are kept. */
typedef union Kept {
  uint64_t by; /* whose they are: the address of the table of kernels; 0: nobody's */
  uint8_t line[64];
} Kept;

size_t niti_cpu_conv_packed_bytes(const NitiBackend *backend, const NitiConv *s) {
  const size_t bytes = kept_bytes((const NitiCpu *)backend, s);
  return bytes > 0 ? sizeof(Kept) + bytes : 0;
}

void niti_cpu_conv_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiConv *s,
                           bool relu, const NitiRequantise *requantise) {
  NitiCpu *cpu = niti_cpu(backend);
  const NitiConvPlan plan = {.conv = *s, .relu = relu, .kernels = kernels_for(cpu, s->x_positive)};
  Kept *packed = s->packed;
  NitiKeptWeights kept = {.data = packed ? packed + 1 : NULL};
  if (packed) kept.layout = (const void *)(uintptr_t)packed->by;
  *y->exponent =
      *x->exponent + *w->exponent + niti_conv_forward(cpu, &plan, y->data, x->data, w->data, packed ? &kept : NULL, requantise);
  if (packed) packed->by = (uintptr_t)kept.layout;
}

void niti_cpu_conv_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                            const NitiTensor *mask, const NitiConv *s, const NitiRequantise *requantise) {
  NitiCpu *cpu = niti_cpu(backend);
  const NitiConvPlan plan = {.conv = *s, .kernels = kernels_for(cpu, false)};
  *dx->exponent = *dy->exponent + *w->exponent +
                  niti_conv_backward(cpu, &plan, dx->data, dy->data, w->data, mask ? mask->data : NULL, requantise);
}

void niti_cpu_conv_gradient(NitiBackend *backend, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                            const NitiConv *s) {
  NitiCpu *cpu = niti_cpu(backend);
  const NitiConvPlan plan = {.conv = *s, .kernels = kernels_for(cpu, s->x_positive)};
  niti_conv_gradient(cpu, &plan, gradient, dy->data, x->data);
}
