/* Forward and backward of 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3) in integers: a quarter of the multiplications,
 * and the same bits, which docs/arithmetic.md proves. One driver (winograd.c) cuts the output into Winograd tiles of 4x4 pixels;
 * an instruction set gives it the innermost functions as one NitiWinogradKernels. The values of Winograd tiles are stored in 36
 * "planes", one per place of the 6x6 transformed tile, row by row; each plane is a separate matrix product, computed by
 * microkernels. */
#ifndef NITI_BACKEND_CPU_WINOGRAD_H
#define NITI_BACKEND_CPU_WINOGRAD_H

#include "backend/cpu/conv_plan.h"

enum {
  NITI_WINOGRAD_PLANES = 36, /* 6x6 products for a Winograd tile */
  NITI_WINOGRAD_PIXELS = 16, /* 4x4 outputs of one */
  NITI_WINOGRAD_TAPS = 9,
  NITI_WINOGRAD_BITS = 25, /* outputs of a magnitude below 2^25 are exact */
};

/* The thresholds above which a pass is faster than the direct convolution: minimum channels in and out; minimum number of
 * Winograd tiles that share the transformed weights; minimum percentage of the tiles' pixels that are outputs and not beyond an
 * edge. */
typedef struct NitiWinogradWorth {
  int32_t channels;
  int64_t tiles;
  int64_t percent;
} NitiWinogradWorth;

typedef struct NitiWinogradKernels {
  const char *name;
  NitiWinogradWorth worth;
  int channels;                               /* transformed input is padded with zeros to a multiple of this */
  int lanes, vectors;                         /* columns of a vector; vectors of a full panel: NR = lanes * vectors */
  int mr[NITI_NR_VECTORS + 1];                /* the maximum rows of a microkernel tile, by its number of vectors */
  void (*microkernel)(const NitiMicrotile *); /* int16 in pairs */
  void (*panel_across)(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded);
  void (*panel_along)(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded);
  uint32_t (*requantise)(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride, int rows,
                         int columns, const NitiRounder *, uint32_t max);
  /* v[plane * stride + c] = (B^T d B)[plane] for one Winograd tile, in[pixel] pointing to the `channels` mantissas of its 6x6
   * pixels; 0 up to the next multiple of kernels->channels. Returns the sum of the squares of all mantissas. */
  uint64_t (*input)(int16_t *v, size_t stride, const int8_t *const *in, size_t channels);
  /* u[plane * stride + i] = (G w G^T)[plane] for panels w[tap * tap_stride + i] of `groups` pairs of channels x `columns` (a
   * multiple of lanes); adds each column's sum of magnitudes and of squares over the taps and channels. */
  void (*weights)(int16_t *u, size_t stride, const int16_t *w, size_t tap_stride, size_t groups, int columns, int32_t *magnitudes,
                  int32_t *squares);
  /* acc[pixel * acc_stride + column] (+)= (A^T m A)[pixel] / 576 for `columns` (a multiple of lanes), the products being
   * m[plane * stride + column]; `add` or overwrite. */
  void (*output)(int32_t *acc, size_t acc_stride, const int32_t *m, size_t stride, int columns, bool add);
} NitiWinogradKernels;

/* NULL if the instruction set has none. */
const NitiWinogradKernels *niti_winograd_kernels(NitiIsa isa);
extern const NitiWinogradKernels niti_winograd_kernels_ref; /* portable, for tests */
extern const NitiWinogradKernels niti_winograd_kernels_avx2, niti_winograd_kernels_avx512vnni;
/* The same for processors with niti_cpu_halves_512: from other shapes on it is faster. */
extern const NitiWinogradKernels niti_winograd_kernels_avx512vnni_halves;

/* Whether the driver can compute the pass: all outputs, of 3x3 taps one pixel apart. */
bool niti_winograd_fits(const NitiImplicitGemm *);
/* Whether it is also faster than the direct convolution; false if kernels is NULL. */
bool niti_winograd_serves(const NitiWinogradKernels *kernels, const NitiImplicitGemm *);
/* As niti_implicit_gemm_prepare, for passes that fit. */
NitiConvPlan *niti_winograd_prepare(NitiWorkspace *, const NitiWinogradKernels *, const NitiImplicitGemm *, NitiConvCut);

#endif
