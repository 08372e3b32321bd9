/* Convolutions in groups, depthwise ones above all: what an instruction set provides for them, and their plans.
 *
 * All three directions are sums over terms, each of them elementwise over lanes. Forward, the lanes are the output channels and a
 * term is a tap and one of the input channels that a group has; backward, the lanes are the input channels and a term is a tap
 * and one of a group's output channels. The input is copied into scratch with its border, so that every term of a lane is at a
 * fixed offset: where groups have more than one channel, each channel is repeated for all lanes that read it. */
#ifndef NITI_BACKEND_CPU_GROUPED_H
#define NITI_BACKEND_CPU_GROUPED_H

#include "backend/cpu/conv_plan.h"

enum { NITI_GROUPED_LANES = 16 }; /* of a vector: `in` is readable up to a multiple of them */

/* Neighbouring pixels: the operand of a lane, pixel and term is in[pixel * step + offset[term] + lane]. */
typedef struct NitiGroupedRow {
  const int8_t *in;
  size_t step;
  const size_t *offset; /* [terms] */
  size_t terms, pixels, lanes;
} NitiGroupedRow;

typedef struct NitiGroupedKernels {
  const char *name;
  /* acc[pixel * acc_step + lane] = sum over terms of the operand * w[term / 2 * 2 * w_step + lane * 2 + term % 2]: the weights of
   * two terms side by side. terms is even. w is readable up to a multiple of the vector's lanes, and no lane of acc beyond
   * `lanes` is written. */
  void (*sums)(int32_t *acc, size_t acc_step, const int16_t *w, size_t w_step, const NitiGroupedRow *);
  /* sum[term * sum_step + lane] += sum over pixels of the operand * dy[pixel * dy_step + lane]; dy is readable, and sum may be
   * changed, up to a multiple of the vector's lanes. */
  void (*products)(int32_t *sum, size_t sum_step, const int8_t *dy, size_t dy_step, const NitiGroupedRow *);
} NitiGroupedKernels;

/* NULL: none, the reference is used. */
const NitiGroupedKernels *niti_grouped_kernels(NitiIsa isa);
extern const NitiGroupedKernels niti_grouped_kernels_avx2, niti_grouped_kernels_avx512, niti_grouped_kernels_neon;

/* The plan of a convolution with groups > 1, as the drivers of conv_plan.h make theirs. */
NitiConvPlan *niti_grouped_prepare(NitiWorkspace *, const NitiGroupedKernels *, const NitiConv *, NitiDirection, NitiConvCut);

#endif
