/* Products of few rows, as linear layers of few images are: the weights are read in place and once, since packing them would cost
 * more than the product. */
#ifndef NITI_BACKEND_CPU_THIN_H
#define NITI_BACKEND_CPU_THIN_H

#include "backend/cpu/conv_plan.h"

enum { NITI_THIN_ROWS = 4, NITI_THIN_COLUMNS = 1024 }; /* the maximum of a call */

/* `in` holds 128 more than each value, as unsigned bytes; the sums are those of the values. */
typedef struct NitiThinKernels {
  const char *name;
  /* acc[r * acc_stride + o] = sum over i < length of in[r * in_stride + i] w[o * length + i], for outputs o < count. */
  void (*dots)(int32_t *acc, size_t acc_stride, const uint8_t *in, size_t in_stride, size_t rows, const int8_t *w, size_t count,
               size_t length);
  /* acc[r * acc_stride + c] = sum over i < length of in[r * in_stride + i] w[i * w_stride + c], for columns c < count. */
  void (*sums)(int32_t *acc, size_t acc_stride, const uint8_t *in, size_t in_stride, size_t rows, const int8_t *w,
               size_t w_stride, size_t count, size_t length);
  /* out[c] = sum over p < pairs of the two int16 products of d[p] and x[p * count + c], for c < count; pairs is 1 or 2. */
  void (*outer)(int32_t *out, const int32_t *d, const int32_t *x, size_t pairs, size_t count);
} NitiThinKernels;

const NitiThinKernels *niti_thin_kernels(NitiIsa isa); /* NULL: none */
extern const NitiThinKernels niti_thin_ref, niti_thin_avx512vnni;

/* s: one tap, images of one pixel, unless it does not fit. Whether the driver can compute it, and whether it is then worth it. */
bool niti_thin_fits(const NitiConv *s, NitiDirection direction);
bool niti_thin_serves(const NitiConv *s);
NitiConvPlan *niti_thin_prepare(NitiWorkspace *, const NitiThinKernels *, const NitiConvKernels *, const NitiConv *,
                                NitiDirection, NitiConvCut);

#endif
