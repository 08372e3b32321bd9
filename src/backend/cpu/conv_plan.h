/* What the drivers of convolutions share: the plan, the geometry of a pass, and the functions that prepare each driver's plans.
 * conv_plan.c chooses among them; at run time only a plan's own functions are called. */
#ifndef NITI_BACKEND_CPU_CONV_PLAN_H
#define NITI_BACKEND_CPU_CONV_PLAN_H

#include "backend/cpu/conv.h"
#include "backend/cpu/microkernel.h"
#include "backend/cpu/workspace.h"

/* Operands of a pass. */
typedef struct NitiConvOperands {
  int8_t *out;
  const int8_t *in, *w;
  const int32_t *bias; /* forward: NULL, or [output channels], added to the accumulators */
  void *packed;        /* NULL: weights are packed in the workspace; otherwise plan->kept bytes, which persist */
  bool ready;          /* `packed` holds packed weights already */
} NitiConvOperands;

/* The beginning of every driver's plan. A plan and its tables are one block of memory, which points into itself: it is not
 * copied. */
struct NitiConvPlan {
  const char *kernel; /* the kernels' human-readable name */
  const void *layout; /* of packed weights, by the address of the kernels; NULL: none are packed */
  void *memory;       /* to free; NULL: the caller's */
  size_t bytes;       /* of this block, all plans that follow included */
  size_t workspace;   /* bytes, of the largest of these plans */
  size_t kept;        /* bytes of packed weights */
  bool relu;
  bool alone; /* for the calling thread without the others */
  /* Forward, backward: writes the pass's outputs and returns the largest |acc|. */
  uint32_t (*pass)(const NitiConvPlan *, NitiCpu *, const NitiConvOperands *, const NitiRounder *);
  void (*gradient)(const NitiConvPlan *, NitiCpu *, NitiGradient *, const int8_t *dy, const int8_t *x);
  NitiConvPlan *next; /* the pass of the next phase of a strided backward convolution */
};

/* How a plan is cut: for so many threads, and with a driver's own sizes doubled `parts` times, or halved where that is negative.
 */
typedef struct NitiConvCut {
  size_t threads;
  int parts;
} NitiConvCut;

static inline size_t niti_conv_scaled(size_t size, NitiConvCut cut) {
  return cut.parts < 0 ? size >> -cut.parts : size << cut.parts;
}

/* Functions that prepare a plan take its memory from a workspace and return NULL in a dry run. */

/* One pass of forward or backward as an implicit GEMM: out(n, j, i) sums in(n, j * step + tap) over tap_rows x tap_columns taps
 * that begin at (tap_y, tap_x) relative to the input's first row and column; everything outside the input is 0. */
typedef struct NitiImplicitGemm {
  int32_t n, ih, iw, ic;
  int32_t jh, jw, oc;
  int32_t step_y, step_x, tap_y, tap_x, tap_rows, tap_columns;
  size_t out_base, out_image, out_row, out_pixel; /* element offsets in the output */
  /* Weights: column o, tap (a, b), channel c is at weight_base + o * weight_o + a * weight_a + b * weight_b + c * weight_c. */
  size_t weight_base, weight_o, weight_c;
  ptrdiff_t weight_a, weight_b;
} NitiImplicitGemm;

NitiImplicitGemm niti_implicit_gemm_forward(const NitiConv *);
/* The input's pixels (y, x) with y % stride = phase_y, x % stride = phase_x; jh or jw is 0 if there are none. */
NitiImplicitGemm niti_implicit_gemm_backward(const NitiConv *, int32_t phase_y, int32_t phase_x);

/* n, jh and jw are positive. */
NitiConvPlan *niti_implicit_gemm_prepare(NitiWorkspace *, const NitiConvKernels *, const NitiImplicitGemm *, NitiConvCut);

NitiConvPlan *niti_conv_gradient_prepare(NitiWorkspace *, const NitiConvKernels *, const NitiConv *, NitiConvCut);

/* The same with taps as shifts of one long row, for kernels with a step and shapes that fit. */
bool niti_conv_gradient_shifted_fits(const NitiConvKernels *, const NitiConv *);
NitiConvPlan *niti_conv_gradient_shifted_prepare(NitiWorkspace *, const NitiConvKernels *, const NitiConv *, NitiConvCut);

/* The reference: naive, independent of everything above. */
NitiConvPlan *niti_conv_ref_prepare(NitiWorkspace *, const NitiConv *, NitiDirection, size_t threads);

/* For runs: the whole workspace, and tasks distributed among the threads, unless `work` (multiply-adds, or bytes packed)
 * would be complete before the other threads begin. */
NitiWorkspace niti_conv_memory(const NitiCpu *);
void niti_conv_share(NitiCpu *, NitiTask, void *context, size_t items, size_t work);

/* Raises max by the magnitudes in rows of a gradient of 32 bits that have their final values and are still in a cache. */
void niti_conv_look(_Atomic uint32_t *max, NitiIsa, const int32_t *row, size_t rows, size_t columns, size_t stride);

#endif
