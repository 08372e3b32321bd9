/* The weight gradient of a 3x3 convolution with stride 1 as an exact integer Winograd product F(3x3, 4x4): 3x3 gradients from 4x4
 * tiles of dy and 6x6 windows of x, 36 products where the direct sum has 144. At the points 0, 1, -1, 2, -2 and infinity,
 * with V = B d B' of a window, E = G e G' of a tile (G without its denominators) and sums dU over all tiles of the products V E,
 * one frequency after another, A dU A' is dW times powers of 2 and 9:
 *
 *   B = 4  0 -5  0  1  0    G = 1  0  0  0    A = 6 -4 -4  1  1  0    |V| <= 100 * 127 = 12,700
 *       0 -4 -4  1  1  0        1  1  1  1        0 -2  2  1 -1  0    |E| <= 225 * 127 = 28,575
 *       0  4 -4 -1  1  0        1 -1  1 -1        0 -1 -1  1  1  6
 *       0 -2 -1  2  1  0        1  2  4  8
 *       0  2 -1 -2  1  0        1 -2  4 -8
 *       0  4  0 -5  0  1        0  0  0  1
 *
 * and (A dU A')[i][j] = 9 * 2^(6 - i - j) dW[i][j]. Everything after V and E is computed modulo 2^32: the inverse of 9 and an
 * arithmetic shift yield the true dW wherever |dW| < 2^25. That is proven at run time: |dW| <= 127 sum |dy| over the
 * positions summed, for every output channel, and a sum is split before that reaches the bound. Parts are added
 * in the gradient's own width. */
#ifndef NITI_BACKEND_CPU_WINOGRAD_GRADIENT_H
#define NITI_BACKEND_CPU_WINOGRAD_GRADIENT_H

#include "backend/cpu/conv_plan.h"

enum {
  NITI_GRADIENT_FREQUENCIES = 36,
  NITI_GRADIENT_PANEL = 16,                     /* channels */
  NITI_GRADIENT_PAIR = 2 * NITI_GRADIENT_PANEL, /* elements of a pair of tiles in a panel */
  NITI_GRADIENT_X_PIXELS = 6 * 10,              /* of a pair: its windows are 4 columns apart */
  NITI_GRADIENT_DY_PIXELS = 4 * 8,
  NITI_GRADIENT_COLUMN_PANELS = 4,             /* of a product at most */
  NITI_GRADIENT_LIMIT = ((1 << 25) - 1) / 127, /* maximum sum |dy| of a channel in one sum */
};

/* Operands are int16 [frequency][panel of 16 channels][pair of tiles][channel][tile]; strides in elements. */
typedef struct NitiWinogradGradientKernels {
  const char *name;
  size_t pairs; /* of a piece: the maximum for one transformation and one product */
  /* The time of a pair and of a finish, in positions of the direct sum of the same instruction set. */
  int pair_cost, finish_cost;
  /* One pair, one panel: out[frequency * stride + channel * 2 + tile], for all 16 channels; those from `channels` on count as 0.
   * pixel[row * columns + column] + first points to the first channel. */
  void (*transform_x)(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels);
  /* The same for dy. sums[channel] += the sum of its |dy|, for all 16. */
  void (*transform_dy)(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels, uint32_t *sums);
  /* acc[row * acc_stride + panel * 16 + column] = the sum over pairs of rows[pair][row] . columns[panel][pair][column], for 16
   * rows and 1..4 panels, modulo 2^32. next_rows and next_columns are operands to prefetch for the next call. */
  void (*multiply)(int32_t *acc, size_t acc_stride, const int16_t *rows, const int16_t *columns, size_t panel_stride,
                   size_t pairs, int panels, const int16_t *next_rows, const int16_t *next_columns);
  /* gradient[tap * tap_stride + channel] (+)= the gradient of the sums acc[frequency * stride + channel]; int32 or int64. acc is
   * readable up to a multiple of 16 channels. */
  void (*finish)(void *gradient, int bits, bool add, size_t tap_stride, const int32_t *acc, size_t stride, int channels);
} NitiWinogradGradientKernels;

extern const NitiWinogradGradientKernels niti_winograd_gradient_ref; /* portable, for tests */
extern const NitiWinogradGradientKernels niti_winograd_gradient_avx2, niti_winograd_gradient_avx512vnni;

/* The kernels for this shape on this instruction set; NULL: use the direct sum. */
const NitiWinogradGradientKernels *niti_winograd_gradient_kernels(NitiIsa isa, const NitiConv *);

/* Those of the instruction set, whatever the shape; NULL: none. */
const NitiWinogradGradientKernels *niti_winograd_gradient_of(NitiIsa isa);

/* Whether it can be computed this way: 3x3, stride 1, and no row of tiles can exceed the bound. */
bool niti_winograd_gradient_fits(const NitiConv *);

/* For shapes that fit. */
NitiConvPlan *niti_winograd_gradient_prepare(NitiWorkspace *, const NitiWinogradGradientKernels *, const NitiConv *, NitiConvCut);

#endif
