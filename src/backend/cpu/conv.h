/* Convolutions as the rest of the CPU backend sees them: described once, run many times. niti_conv_prepare makes a plan for one
 * shape and one direction, which knows the kernels, the geometry and the workspace; a run receives operands and decides nothing
 * again. Fully connected layers are 1x1 convolutions of 1x1 images.
 *
 * Weights change with every step, so every run packs them, unless the caller keeps them (NitiKeptWeights).
 *
 * Drivers and kernels are private: conv_plan.h (drivers), microkernel.h (what an instruction set provides). */
#ifndef NITI_BACKEND_CPU_CONV_H
#define NITI_BACKEND_CPU_CONV_H

#include "backend/cpu/cpu.h"

/* Other facts known in advance. */
typedef struct NitiConvTraits {
  bool nonnegative; /* forward, gradient: no mantissa of x is negative, because x follows a ReLU:
                       kernels may rely on it, results are the same */
  bool relu;        /* forward: y = max(m, 0) after rounding */
  int way;          /* 0: the cost model's; else one of niti_conv_ways */
} NitiConvTraits;

/* A prepared convolution: immutable, so any number of threads may run it with a NitiCpu each of the same instruction set and
 * number of threads. */
typedef struct NitiConvPlan NitiConvPlan;

/* Makes the plan of a convolution (N, H, W, C, OH, OW, K, KH, KW, strides and paddings of `conv`; a valid shape) for this
 * backend's instruction set, threads and `direct`, in the way that the traits name. The caller owns *out and closes it with
 * niti_conv_close. Fails with NITI_ERROR_MEMORY; *out is then NULL. */
NitiStatus niti_conv_prepare(NitiConvPlan **out, const NitiCpu *, const NitiConv *conv, NitiDirection, NitiConvTraits);
void niti_conv_close(NitiConvPlan *); /* NULL is allowed */

/* The ways in which this backend can run the convolution; returns their number, at least 1. The first is the cost model's. */
int niti_conv_ways(NitiWay ways[NITI_WAYS_MAX], const NitiCpu *, const NitiConv *conv, NitiDirection);

/* Bytes of NitiCpu.workspace that a run uses: the caller reserves them beforehand. */
size_t niti_conv_workspace(const NitiConvPlan *);
/* The kernels that run it, such as "avx2 6x16 direct"; a constant. */
const char *niti_conv_kernel_name(const NitiConvPlan *);

/* Packed weights that a layer keeps from run to run. Zero-initialised they hold nothing. Forward plans of one layer for several
 * batch sizes may share them: the first run packs, as does the first after a plan with other kernels. */
typedef struct NitiKeptWeights {
  void *data;         /* 64-byte aligned */
  size_t bytes;       /* of data */
  const void *layout; /* the kernels that packed what data holds; NULL: nothing. Set it to NULL when the weights change. */
} NitiKeptWeights;

/* Bytes that this forward plan's packed weights take; 0: it does not pack. */
size_t niti_conv_kept_bytes(const NitiConvPlan *);

/* The runs. Operands are mantissas in the layouts of NitiConv: x [N][H][W][C], w [K][KH][KW][C], y and dy [N][OH][OW][K]; an
 * output aliases no input. They return the shift: the output's exponent is the sum of the inputs' and this. The workspace holds
 * nothing from one run to the next. They use all threads of the NitiCpu and return when all work is complete.
 *
 * bias: NULL, or [K], added to the accumulators; at most 2^NITI_BIAS_BITS in magnitude.
 * kept: NULL, or at least niti_conv_kept_bytes(plan).
 * mask: NULL, or of dx's layout: dx is 0 as in kernels.h; the range is that of all accumulators. */
int niti_conv_forward(NitiCpu *, const NitiConvPlan *, int8_t *y, const int8_t *x, const int8_t *w, const int32_t *bias,
                      NitiKeptWeights *kept, const NitiRequantise *);
int niti_conv_backward(NitiCpu *, const NitiConvPlan *, int8_t *dx, const int8_t *dy, const int8_t *w, const NitiTensor *mask,
                       const NitiRequantise *);
/* The exact sum over batch and positions, in the width of the gradient; overwrites. */
void niti_conv_gradient(NitiCpu *, const NitiConvPlan *, NitiGradient *, const int8_t *dy, const int8_t *x);

#endif
