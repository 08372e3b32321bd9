/* What the drivers of convolutions share: the plan, the geometry of a pass as an implicit matrix product, and who prepares what.
 */
#ifndef NITI_BACKEND_CPU_CONV_PLAN_H
#define NITI_BACKEND_CPU_CONV_PLAN_H

#include "backend/cpu/conv.h"
#include "backend/cpu/microkernel.h"

/* One pass of forward or backward: out(n, j, i) sums in(n, j * step + tap) over tap_rows x tap_columns taps that begin at
 * (tap_y, tap_x) relative to the input's first row and column; whatever lies outside the input is 0. */
typedef struct NitiGather {
  int32_t n, ih, iw, ic;
  int32_t jh, jw, oc;
  int32_t step_y, step_x, tap_y, tap_x, tap_rows, tap_columns;
  size_t out_base, out_image, out_row, out_pixel; /* element offsets in the output */
  /* Weights: column o, tap (a, b), channel c lies at weight_base + o * weight_o + a * weight_a + b * weight_b + c * weight_c. */
  size_t weight_base, weight_o, weight_c;
  ptrdiff_t weight_a, weight_b;
  uint8_t *packed; /* NULL, or where to keep the packed weights; `ready`: they are there */
  bool ready;
} NitiGather;

NitiGather niti_gather_forward(const NitiConv *);
/* The input's pixels (y, x) with y % stride = phase_y, x % stride = phase_x; jh or jw is 0 where there are none. */
NitiGather niti_gather_backward(const NitiConv *, int32_t phase_y, int32_t phase_x);

size_t niti_gather_workspace(const NitiConvKernels *, const NitiGather *, int threads);
size_t niti_gather_packed_bytes(const NitiConvKernels *, const NitiGather *); /* of g->packed */
/* Writes the pass's outputs, returns the largest |acc|. */
uint32_t niti_gather_run(NitiCpu *, const NitiConvKernels *, const NitiGather *, int8_t *out, const int8_t *in, const int8_t *w,
                         const NitiRounder *);

size_t niti_conv_gradient_workspace(const NitiConvKernels *, const NitiConv *, int threads);
void niti_conv_gradient_tiles(NitiCpu *, const NitiConvKernels *, NitiGradient *, const int8_t *dy, const int8_t *x,
                              const NitiConv *);

/* The same, another way, for kernels with a step; for shapes that it serves. */
bool niti_gradient_linear_serves(const NitiConvKernels *, const NitiConv *);
size_t niti_gradient_linear_workspace(const NitiConvKernels *, const NitiConv *, int threads);
void niti_gradient_linear(NitiCpu *, const NitiConvKernels *, NitiGradient *, const int8_t *dy, const int8_t *x,
                          const NitiConv *);

/* The reference: naive, independent of everything above. */
size_t niti_conv_workspace_ref(const NitiConv *, int threads);
uint32_t niti_conv_forward_ref(NitiCpu *, int8_t *y, const int8_t *x, const int8_t *w, const NitiConv *, const NitiRounder *);
uint32_t niti_conv_backward_ref(NitiCpu *, int8_t *dx, const int8_t *dy, const int8_t *w, const NitiConv *, const NitiRounder *);
void niti_conv_gradient_ref(NitiCpu *, NitiGradient *, const int8_t *dy, const int8_t *x, const NitiConv *);

#endif
