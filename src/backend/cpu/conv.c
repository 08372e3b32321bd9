/* The table's convolution operations: exponents, the range pass, and the choice between the reference and the tiled driver. */
#include "backend/cpu/conv.h"

#include <string.h>

#include "backend/cpu/winograd.h"
#include "backend/cpu/winograd_gradient.h"
#include "base/window.h"

typedef struct Operation {
  NitiCpu *cpu;
  const NitiConvKernels *kernels;
  const NitiConv *conv;
  int8_t *out;
  const int8_t *in, *w;
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

NitiGather niti_gather_backward(const NitiConv *s, int32_t phase_y, int32_t phase_x) {
  const size_t c = (size_t)s->c, kh = (size_t)s->kh, kw = (size_t)s->kw;
  const NitiPhase y = niti_phase(phase_y, s->h, s->kh, s->stride_h, s->pad_h);
  const NitiPhase x = niti_phase(phase_x, s->w, s->kw, s->stride_w, s->pad_w);
  const bool any = y.taps > 0 && x.taps > 0;
  return (NitiGather){
      .n = s->n,
      .ih = s->oh,
      .iw = s->ow,
      .ic = s->k,
      .oc = s->c,
      .jh = y.positions,
      .jw = x.positions,
      .step_y = 1,
      .step_x = 1,
      .tap_y = y.offset,
      .tap_x = x.offset,
      .tap_rows = any ? y.taps : 0,
      .tap_columns = any ? x.taps : 0,
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
static const NitiConvKernels *kernels_of(const NitiCpu *cpu, const NitiConv *s) {
  const NitiConvKernels *kernels = niti_conv_kernels(cpu->isa);
  return kernels && kernels->positive && s->x_positive ? kernels->positive : kernels;
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

/* What lies at the beginning of packed weights that are kept. */
typedef union Kept {
  uint64_t by; /* whose they are: the address of the table of kernels; 0: nobody's */
  uint8_t line[64];
} Kept;

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

size_t niti_cpu_conv_packed_bytes(const NitiBackend *backend, const NitiConv *s) {
  const NitiCpu *cpu = (const NitiCpu *)backend;
  const NitiConvKernels *kernels = niti_conv_kernels(cpu->isa);
  const NitiWinogradKernels *winograd = winograd_of(cpu);
  if (!kernels) return 0;
  const NitiConv conv = tiled_shape(s);
  const NitiGather g = niti_gather_forward(&conv);
  const size_t bytes = niti_gather_packed_bytes(kernels, &g);
  const size_t more = niti_winograd_serves(winograd, &g) ? niti_winograd_packed_bytes(winograd, &g) : 0;
  return sizeof(Kept) + (more > bytes ? more : bytes);
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

static uint32_t forward_task(void *context, const NitiRounder *rounder) {
  const Operation *o = context;
  if (!o->kernels) return niti_conv_forward_ref(o->cpu, o->out, o->in, o->w, o->conv, rounder);
  const NitiConv s = tiled_shape(o->conv);
  NitiGather g = niti_gather_forward(&s);
  Kept *kept = s.packed;
  if (!kept) return run_pass(o, &g, rounder);
  const NitiWinogradKernels *winograd = winograd_of(o->cpu); /* which serves may depend on the batch */
  const uint64_t by = niti_winograd_serves(winograd, &g) ? (uintptr_t)winograd : (uintptr_t)o->kernels;
  g.packed = (uint8_t *)(kept + 1);
  g.ready = kept->by == by;
  const uint32_t max = run_pass(o, &g, rounder);
  kept->by = by;
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

void niti_cpu_conv_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiConv *s,
                           bool relu, const NitiRequantise *requantise) {
  NitiCpu *cpu = niti_cpu(backend);
  Operation o = {cpu, kernels_of(cpu, s), s, y->data, x->data, w->data};
  *y->exponent = *x->exponent + *w->exponent + niti_cpu_requantise(cpu, requantise, relu, NULL, forward_task, &o);
}

void niti_cpu_conv_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                            const NitiTensor *mask, const NitiConv *s, const NitiRequantise *requantise) {
  NitiCpu *cpu = niti_cpu(backend);
  Operation o = {cpu, niti_conv_kernels(cpu->isa), s, dx->data, dy->data, w->data};
  const int8_t *gate = mask ? mask->data : NULL;
  *dx->exponent = *dy->exponent + *w->exponent + niti_cpu_requantise(cpu, requantise, false, gate, backward_task, &o);
}

void niti_cpu_conv_gradient(NitiBackend *backend, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                            const NitiConv *s) {
  NitiCpu *cpu = niti_cpu(backend);
  const NitiConvKernels *kernels = kernels_of(cpu, s);
  if (!kernels) {
    niti_conv_gradient_ref(cpu, gradient, dy->data, x->data, s);
    return;
  }
  const NitiWinogradGradientKernels *winograd = winograd_gradient_of(cpu, s);
  if (winograd) {
    niti_winograd_gradient_run(cpu, winograd, gradient, dy->data, x->data, s);
    return;
  }
  const NitiConv conv = tiled_shape(s);
  niti_conv_gradient_tiles(cpu, kernels, gradient, dy->data, x->data, &conv);
}
