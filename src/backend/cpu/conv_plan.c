/* Preparing convolutions: geometry, the choice of kernels and driver, and the memory of a plan. Nothing here runs in a step. */
#include "backend/cpu/conv_plan.h"

#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/grouped.h"
#include "backend/cpu/thin.h"
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

typedef enum Driver { GEMM, SHIFTED, WINOGRAD, GROUPED, REFERENCE, THIN, DRIVERS } Driver;

/* How a convolution is run; a traits' `way` is such a choice as a number. */
typedef struct Choice {
  NitiIsa isa;
  Driver driver;
  NitiConvCut cut;
} Choice;

enum { GIVEN = 1, ISA_SHIFT = 1, DRIVER_SHIFT = 5, PARTS_SHIFT = 9, PARTS_BIAS = 2, ALONE = 1 << 12 };
enum { ALONE_MOST = 1 << 26 }; /* multiply-adds: a millisecond or less, where waking other threads may cost more than they save */

static int way_of(const Choice *c, bool alone) {
  return GIVEN | (int)c->isa << ISA_SHIFT | (int)c->driver << DRIVER_SHIFT | (c->cut.parts + PARTS_BIAS) << PARTS_SHIFT |
         (alone ? ALONE : 0);
}

static size_t threads_of(const NitiCpu *cpu, int way) {
  return (way & ALONE) != 0 ? 1 : (size_t)niti_threads_count(cpu->threads);
}

static Choice choice_of(const NitiCpu *cpu, int way) {
  return (Choice){(NitiIsa)(way >> ISA_SHIFT & 15),
                  (Driver)(way >> DRIVER_SHIFT & 15),
                  {threads_of(cpu, way), (way >> PARTS_SHIFT & 7) - PARTS_BIAS}};
}

/* The pass of a whole image; that of a strided backward is of its first phase. */
static NitiImplicitGemm gemm_of(const NitiConv *s, NitiDirection direction) {
  const NitiConv pixels = pixels_as_images(s);
  return direction == NITI_FORWARD ? niti_implicit_gemm_forward(&pixels) : niti_implicit_gemm_backward(&pixels, 0, 0);
}

/* Whether the kernels of an instruction set can compute it so. */
static bool can(const NitiCpu *cpu, NitiIsa isa, Driver driver, const NitiConv *s, NitiDirection direction) {
  const bool grouped = niti_conv_grouped(s) && niti_grouped_kernels(isa);
  const NitiImplicitGemm g = gemm_of(s, direction);
  const NitiConv pixels = pixels_as_images(s);
  if (driver == REFERENCE) return !grouped && !niti_conv_kernels(isa);
  if (driver == GROUPED || grouped || !niti_conv_kernels(isa)) return driver == GROUPED && grouped;
  if (driver == SHIFTED) return direction == NITI_GRADIENT && niti_conv_gradient_shifted_fits(niti_conv_kernels(isa), &pixels);
  if (driver == GEMM) return true;
  if (driver == THIN) return niti_thin_kernels(isa) && niti_thin_fits(&pixels, direction);
  if (cpu->direct) return false;
  return direction == NITI_GRADIENT ? niti_winograd_gradient_of(isa) && niti_winograd_gradient_fits(s)
                                    : niti_winograd_kernels(isa) && niti_winograd_fits(&g);
}

/* Of those that can, which one the cost model takes. */
static bool pays(NitiIsa isa, Driver driver, const NitiConv *s, NitiDirection direction) {
  const NitiImplicitGemm g = gemm_of(s, direction);
  const NitiConv pixels = pixels_as_images(s);
  if (driver == THIN) return niti_thin_serves(&pixels);
  if (driver != WINOGRAD) return true;
  return direction == NITI_GRADIENT ? niti_winograd_gradient_kernels(isa, s) != NULL
                                    : niti_winograd_serves(niti_winograd_kernels(isa), &g);
}

static Choice modelled(const NitiCpu *cpu, const NitiConv *s, NitiDirection direction) {
  static const Driver preferred[] = {GROUPED, REFERENCE, THIN, WINOGRAD, SHIFTED};
  Choice c = {cpu->isa, GEMM, {(size_t)niti_threads_count(cpu->threads), 0}};
  for (size_t i = 0; i < sizeof preferred / sizeof *preferred && c.driver == GEMM; ++i) {
    if (can(cpu, cpu->isa, preferred[i], s, direction) && pays(cpu->isa, preferred[i], s, direction)) c.driver = preferred[i];
  }
  return c;
}

static void add_way(NitiWay *ways, int *count, const Choice *c, bool alone) {
  static const char *const drivers[DRIVERS] = {"direct", "shifted", "winograd", "grouped", "reference", "in place"};
  const int number = way_of(c, alone);
  const char *parts = c->cut.parts < 0 ? ", small parts" : c->cut.parts > 0 ? ", large parts" : "";
  for (int i = 0; i < *count; ++i) {
    if (ways[i].number == number) return;
  }
  if (*count == NITI_WAYS_MAX) return;
  ways[*count].number = number;
  (void)snprintf(ways[*count].name, sizeof ways->name, "%s %s%s%s", niti_isa_name(c->isa), drivers[c->driver], parts,
                 alone ? ", one thread" : "");
  ++*count;
}

int niti_conv_ways(NitiWay ways[NITI_WAYS_MAX], const NitiCpu *cpu, const NitiConv *s, NitiDirection direction) {
  const Choice first = modelled(cpu, s, direction);
  const int64_t work = (int64_t)s->n * s->oh * s->ow * s->k * s->kh * s->kw * niti_conv_group_inputs(s);
  const bool small = work <= ALONE_MOST && niti_threads_count(cpu->threads) > 1;
  int count = 0;
  add_way(ways, &count, &first, false);
  for (int isa = (int)cpu->isa; isa > NITI_ISA_REF && isa >= (int)cpu->isa - 1; --isa) { /* the set below may suit some shapes */
    for (int driver = GEMM; driver < DRIVERS && niti_isa_supported((NitiIsa)isa); ++driver) {
      Choice c = {(NitiIsa)isa, (Driver)driver, first.cut};
      if (!can(cpu, c.isa, c.driver, s, direction)) continue;
      if (small) add_way(ways, &count, &c, true);
      for (c.cut.parts = -1; c.cut.parts <= 1; ++c.cut.parts) add_way(ways, &count, &c, false);
    }
  }
  return count;
}

static NitiConvPlan *prepare_pass(NitiWorkspace *w, const Choice *c, const NitiConvKernels *kernels, const NitiImplicitGemm *g) {
  if (c->driver == WINOGRAD) return niti_winograd_prepare(w, niti_winograd_kernels(c->isa), g, c->cut);
  return niti_implicit_gemm_prepare(w, kernels, g, c->cut);
}

/* One pass per nonempty phase of the input's pixels. */
static NitiConvPlan *prepare_backward(NitiWorkspace *w, const Choice *c, const NitiConvKernels *kernels, const NitiConv *s) {
  NitiConvPlan *first = NULL, **end = &first;
  size_t workspace = 0;
  for (int32_t y = 0; y < s->stride_h; ++y) {
    for (int32_t x = 0; x < s->stride_w; ++x) {
      const NitiImplicitGemm g = niti_implicit_gemm_backward(s, y, x);
      NitiConvPlan *plan = g.jh > 0 && g.jw > 0 ? prepare_pass(w, c, kernels, &g) : NULL;
      if (!plan) continue;
      workspace = niti_most(workspace, plan->workspace);
      *end = plan;
      end = &plan->next;
    }
  }
  if (first) first->workspace = workspace;
  return first;
}

static NitiConvPlan *prepare_gradient(NitiWorkspace *w, const Choice *c, const NitiConvKernels *kernels, const NitiConv *s) {
  const NitiConv pixels = pixels_as_images(s);
  if (c->driver == WINOGRAD) return niti_winograd_gradient_prepare(w, niti_winograd_gradient_of(c->isa), s, c->cut);
  if (c->driver == SHIFTED) return niti_conv_gradient_shifted_prepare(w, kernels, &pixels, c->cut);
  return niti_conv_gradient_prepare(w, kernels, &pixels, c->cut);
}

/* NULL in a dry run. */
static NitiConvPlan *prepare(NitiWorkspace *w, const NitiCpu *cpu, const NitiConv *s, NitiDirection direction,
                             NitiConvTraits traits) {
  const Choice c = traits.way ? choice_of(cpu, traits.way) : modelled(cpu, s, direction);
  const NitiConvKernels *kernels = niti_conv_kernels(c.isa);
  const NitiConv pixels = pixels_as_images(s);
  NitiConvPlan *plan;
  if (c.driver == GROUPED) {
    plan = niti_grouped_prepare(w, niti_grouped_kernels(c.isa), s, direction, c.cut);
  } else if (c.driver == REFERENCE) {
    plan = niti_conv_ref_prepare(w, s, direction, c.cut.threads);
  } else if (c.driver == THIN) {
    plan = niti_thin_prepare(w, niti_thin_kernels(c.isa), kernels, &pixels, direction, c.cut);
  } else if (direction == NITI_BACKWARD) {
    plan = prepare_backward(w, &c, kernels, &pixels);
  } else {
    const NitiImplicitGemm g = niti_implicit_gemm_forward(&pixels);
    if (traits.nonnegative && kernels->nonnegative) kernels = kernels->nonnegative;
    plan = direction == NITI_FORWARD ? prepare_pass(w, &c, kernels, &g) : prepare_gradient(w, &c, kernels, s);
  }
  if (plan) plan->relu = traits.relu;
  if (plan) plan->alone = (traits.way & ALONE) != 0;
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
