/* Preparing convolutions: geometry, the choice of kernels and driver, and the memory of a plan. Nothing here runs in a step. */
#include "backend/cpu/conv_plan.h"

#include <stdlib.h>

#include "backend/cpu/winograd.h"
#include "backend/cpu/winograd_gradient.h"

/* ---- geometry ---- */

/* A kernel of one tap sees pixels, not images: all of them, if they can be counted, become images of one pixel, so that tiles
 * and parts span them. */
static NitiConv pixels_as_images(const NitiConv *s) {
  NitiConv conv = *s;
  if (s->kh == 1 && s->kw == 1 && s->stride_h == 1 && s->stride_w == 1 && s->pad_h == 0 && s->pad_w == 0 &&
      (int64_t)s->n * s->h * s->w <= INT32_MAX) {
    conv.n = s->n * s->h * s->w;
    conv.h = conv.w = conv.oh = conv.ow = 1;
  }
  return conv;
}

NitiImplicitGemm niti_implicit_gemm_forward(const NitiConv *s) {
  const size_t c = (size_t)s->c, k = (size_t)s->k, kh = (size_t)s->kh, kw = (size_t)s->kw;
  return (NitiImplicitGemm){
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
  int32_t offset; /* where that reads dy, relative to the pixel's number in the phase */
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

NitiImplicitGemm niti_implicit_gemm_backward(const NitiConv *s, int32_t phase_y, int32_t phase_x) {
  const size_t c = (size_t)s->c, kh = (size_t)s->kh, kw = (size_t)s->kw;
  const Taps y = phase_taps(phase_y, s->kh, s->stride_h, s->pad_h), x = phase_taps(phase_x, s->kw, s->stride_w, s->pad_w);
  const bool any = y.count > 0 && x.count > 0;
  return (NitiImplicitGemm){
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

/* ---- the choice ---- */

static NitiConvPlan *prepare_pass(NitiWorkspace *w, const NitiCpu *cpu, const NitiConvKernels *kernels,
                                  const NitiImplicitGemm *g) {
  const size_t threads = (size_t)niti_threads_count(cpu->threads);
  const NitiWinogradKernels *winograd = cpu->direct ? NULL : niti_winograd_kernels(cpu->isa);
  if (niti_winograd_serves(winograd, g)) return niti_winograd_prepare(w, winograd, g, threads);
  return niti_implicit_gemm_prepare(w, kernels, g, threads);
}

/* A pass for each phase of the input's pixels that there is. */
static NitiConvPlan *prepare_backward(NitiWorkspace *w, const NitiCpu *cpu, const NitiConvKernels *kernels, const NitiConv *s) {
  NitiConvPlan *first = NULL, **end = &first;
  size_t workspace = 0;
  for (int32_t y = 0; y < s->stride_h; ++y) {
    for (int32_t x = 0; x < s->stride_w; ++x) {
      const NitiImplicitGemm g = niti_implicit_gemm_backward(s, y, x);
      NitiConvPlan *plan = g.jh > 0 && g.jw > 0 ? prepare_pass(w, cpu, kernels, &g) : NULL;
      if (!plan) continue;
      workspace = niti_most(workspace, plan->workspace);
      *end = plan;
      end = &plan->next;
    }
  }
  if (first) first->workspace = workspace;
  return first;
}

static NitiConvPlan *prepare_gradient(NitiWorkspace *w, const NitiCpu *cpu, const NitiConvKernels *kernels, const NitiConv *s) {
  const size_t threads = (size_t)niti_threads_count(cpu->threads);
  const NitiWinogradGradientKernels *winograd = cpu->direct ? NULL : niti_winograd_gradient_kernels(cpu->isa, s);
  const NitiConv pixels = pixels_as_images(s);
  if (winograd) return niti_winograd_gradient_prepare(w, winograd, s, threads);
  if (niti_conv_gradient_shifted_fits(kernels, &pixels)) return niti_conv_gradient_shifted_prepare(w, kernels, &pixels, threads);
  return niti_conv_gradient_prepare(w, kernels, &pixels, threads);
}

/* NULL in a dry run. */
static NitiConvPlan *prepare(NitiWorkspace *w, const NitiCpu *cpu, const NitiConv *s, NitiConvDirection direction,
                             NitiConvTraits traits) {
  const NitiConvKernels *kernels = niti_conv_kernels(cpu->isa);
  const NitiConv pixels = pixels_as_images(s);
  NitiConvPlan *plan;
  if (!kernels) {
    plan = niti_conv_ref_prepare(w, s, direction, (size_t)niti_threads_count(cpu->threads));
  } else if (direction == NITI_CONV_BACKWARD) {
    plan = prepare_backward(w, cpu, kernels, &pixels);
  } else {
    const NitiImplicitGemm g = niti_implicit_gemm_forward(&pixels);
    if (traits.nonnegative && kernels->nonnegative) kernels = kernels->nonnegative;
    plan = direction == NITI_CONV_FORWARD ? prepare_pass(w, cpu, kernels, &g) : prepare_gradient(w, cpu, kernels, s);
  }
  if (plan) plan->relu = traits.relu;
  if (plan) plan->bytes = w->used;
  return plan;
}

NitiStatus niti_conv_prepare(NitiConvPlan **out, const NitiCpu *cpu, const NitiConv *s, NitiConvDirection direction,
                             NitiConvTraits traits) {
  NitiWorkspace count = niti_workspace_begin(NULL, 0);
  *out = prepare(&count, cpu, s, direction, traits);
  void *memory = aligned_alloc(NITI_WORKSPACE_ALIGNMENT, count.used);
  if (!memory) return niti_fail(NITI_ERROR_MEMORY, "out of memory: %zu bytes asked for as the plan of a convolution", count.used);
  NitiWorkspace w = niti_workspace_begin(memory, count.used);
  *out = prepare(&w, cpu, s, direction, traits);
  assert(niti_workspace_intact(&w) && w.used == count.used);
  (*out)->memory = memory;
  return NITI_OK;
}

void niti_conv_close(NitiConvPlan *plan) {
  if (plan) free(plan->memory);
}

size_t niti_conv_workspace(const NitiConvPlan *plan) { return plan->workspace; }
const char *niti_conv_kernel_name(const NitiConvPlan *plan) { return plan->kernel; }
size_t niti_conv_kept_bytes(const NitiConvPlan *plan) { return plan->kept; }

/* ---- the operations of the backend's table ---- */

/* The beginning of packed weights that are kept. */
typedef union Kept {
  uint64_t by; /* whose they are: NitiKeptWeights.layout */
  uint8_t line[NITI_WORKSPACE_ALIGNMENT];
} Kept;

/* With plans of any driver, since a smaller batch may be served by another, and room for the plan itself. */
static size_t operation_bytes(const NitiCpu *cpu, const NitiConv *s, bool kept) {
  size_t bytes = 0;
  for (int i = 0; i < 12; ++i) {
    NitiCpu other = *cpu;
    NitiConvPlan *plan;
    other.direct = cpu->direct || i % 2;
    const NitiConvTraits traits = {.nonnegative = i / 2 % 2};
    if (niti_conv_prepare(&plan, &other, s, (NitiConvDirection)(i / 4), traits) != NITI_OK) return SIZE_MAX / 2;
    bytes = niti_most(bytes, kept ? plan->kept : plan->bytes + plan->workspace);
    niti_conv_close(plan);
  }
  return bytes;
}

size_t niti_cpu_conv_workspace(const NitiBackend *backend, const NitiConv *s) {
  const NitiCpu *cpu = (const NitiCpu *)backend;
  const size_t bytes = operation_bytes(cpu, s, false);
  NitiConv fewer = *s; /* a smaller batch's pixels may be countable where this one's are not */
  fewer.n = INT32_MAX / (s->h * s->w);
  return fewer.n >= s->n ? bytes : niti_most(bytes, operation_bytes(cpu, &fewer, false));
}

size_t niti_cpu_conv_packed_bytes(const NitiBackend *backend, const NitiConv *s) {
  const size_t bytes = operation_bytes((const NitiCpu *)backend, s, true);
  return bytes > 0 ? sizeof(Kept) + bytes : 0;
}

const char *niti_cpu_conv_kernel(const NitiBackend *backend, const NitiConv *s, const char *direction) {
  NitiConvPlan *plan;
  const NitiConvDirection which = strcmp(direction, "backward") == 0   ? NITI_CONV_BACKWARD
                                  : strcmp(direction, "gradient") == 0 ? NITI_CONV_GRADIENT
                                                                       : NITI_CONV_FORWARD;
  if (niti_conv_prepare(&plan, (const NitiCpu *)backend, s, which, (NitiConvTraits){0}) != NITI_OK) return "none";
  const char *name = plan->kernel;
  niti_conv_close(plan);
  return name;
}

/* A plan in the first bytes of the workspace, which are the run's no longer until `leave`. */
static NitiConvPlan *enter(NitiCpu *cpu, const NitiConv *s, NitiConvDirection direction, bool relu) {
  const NitiConvTraits traits = {.nonnegative = s->x_positive, .relu = relu};
  NitiWorkspace w = niti_workspace_begin(cpu->workspace, cpu->workspace_bytes);
  NitiConvPlan *plan = prepare(&w, cpu, s, direction, traits);
  cpu->workspace += plan->bytes;
  cpu->workspace_bytes -= plan->bytes;
  return plan;
}

static void leave(NitiCpu *cpu, const NitiConvPlan *plan) {
  cpu->workspace_bytes += plan->bytes;
  cpu->workspace -= plan->bytes;
}

void niti_cpu_conv_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiConv *s,
                           bool relu, const NitiRequantise *requantise) {
  NitiCpu *cpu = niti_cpu(backend);
  NitiConvPlan *plan = enter(cpu, s, NITI_CONV_FORWARD, relu);
  Kept *packed = s->packed;
  NitiKeptWeights kept = {.data = packed ? packed + 1 : NULL, .bytes = plan->kept};
  if (packed) kept.layout = (const void *)(uintptr_t)packed->by;
  *y->exponent =
      *x->exponent + *w->exponent + niti_conv_forward(cpu, plan, y->data, x->data, w->data, packed ? &kept : NULL, requantise);
  if (packed) packed->by = (uintptr_t)kept.layout;
  leave(cpu, plan);
}

void niti_cpu_conv_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                            const NitiTensor *mask, const NitiConv *s, const NitiRequantise *requantise) {
  NitiCpu *cpu = niti_cpu(backend);
  NitiConvPlan *plan = enter(cpu, s, NITI_CONV_BACKWARD, false);
  *dx->exponent = *dy->exponent + *w->exponent +
                  niti_conv_backward(cpu, plan, dx->data, dy->data, w->data, mask ? mask->data : NULL, requantise);
  leave(cpu, plan);
}

void niti_cpu_conv_gradient(NitiBackend *backend, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                            const NitiConv *s) {
  NitiCpu *cpu = niti_cpu(backend);
  NitiConvPlan *plan = enter(cpu, s, NITI_CONV_GRADIENT, false);
  niti_conv_gradient(cpu, plan, gradient, dy->data, x->data);
  leave(cpu, plan);
}
