/* Preparing convolutions: geometry, the choice of kernels and driver, and the memory of a plan. Nothing here runs in a step. */
#include "backend/cpu/conv_plan.h"

#include <stdlib.h>

#include "backend/cpu/grouped.h"
#include "backend/cpu/winograd.h"
#include "backend/cpu/winograd_gradient.h"
#include "base/window.h"

/* ---- geometry ---- */

/* A kernel of one tap does not depend on image boundaries: every pixel, unless there are too many to count, becomes an image of
 * one pixel, so that tiles and parts span images. */
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

NitiImplicitGemm niti_implicit_gemm_backward(const NitiConv *s, int32_t phase_y, int32_t phase_x) {
  const size_t c = (size_t)s->c, kh = (size_t)s->kh, kw = (size_t)s->kw;
  const NitiStridePhase y = niti_stride_phase(phase_y, s->h, s->kh, s->stride_h, s->pad_h);
  const NitiStridePhase x = niti_stride_phase(phase_x, s->w, s->kw, s->stride_w, s->pad_w);
  const bool any = y.taps > 0 && x.taps > 0;
  return (NitiImplicitGemm){
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

/* ---- the choice ---- */

static NitiConvPlan *prepare_pass(NitiWorkspace *w, const NitiCpu *cpu, const NitiConvKernels *kernels,
                                  const NitiImplicitGemm *g) {
  const size_t threads = (size_t)niti_threads_count(cpu->threads);
  const NitiWinogradKernels *winograd = cpu->direct ? NULL : niti_winograd_kernels(cpu->isa);
  if (niti_winograd_serves(winograd, g)) return niti_winograd_prepare(w, winograd, g, threads);
  return niti_implicit_gemm_prepare(w, kernels, g, threads);
}

/* One pass per nonempty phase of the input's pixels. */
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
static NitiConvPlan *prepare(NitiWorkspace *w, const NitiCpu *cpu, const NitiConv *s, NitiDirection direction,
                             NitiConvTraits traits) {
  const NitiConvKernels *kernels = niti_conv_kernels(cpu->isa);
  const NitiConv pixels = pixels_as_images(s);
  NitiConvPlan *plan;
  if (niti_conv_grouped(s) && niti_grouped_kernels(cpu->isa)) {
    plan = niti_grouped_prepare(w, niti_grouped_kernels(cpu->isa), s, direction, (size_t)niti_threads_count(cpu->threads));
  } else if (!kernels) {
    plan = niti_conv_ref_prepare(w, s, direction, (size_t)niti_threads_count(cpu->threads));
  } else if (direction == NITI_BACKWARD) {
    plan = prepare_backward(w, cpu, kernels, &pixels);
  } else {
    const NitiImplicitGemm g = niti_implicit_gemm_forward(&pixels);
    if (traits.nonnegative && kernels->nonnegative) kernels = kernels->nonnegative;
    plan = direction == NITI_FORWARD ? prepare_pass(w, cpu, kernels, &g) : prepare_gradient(w, cpu, kernels, s);
  }
  if (plan) plan->relu = traits.relu;
  if (plan) plan->bytes = w->used;
  return plan;
}

NitiStatus niti_conv_prepare(NitiConvPlan **out, const NitiCpu *cpu, const NitiConv *s, NitiDirection direction,
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
