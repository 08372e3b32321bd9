/* What an instruction set provides for convolutions: one NitiConvKernels, the innermost functions of the drivers. Names are those
 * of BLIS. All three directions are matrix products, and a microkernel multiplies one tile of MR rows x NR columns at a time:
 *
 *             panel: NR columns, packed
 *           +---------+---------+-----
 *           | panel 0 | panel 1 |          rows are read in place, through offsets: pixels of a
 *           +---------+---------+-----     padded copy of the input, or of the tensor itself
 *     +---+ +---------+---------+-----     (implicit GEMM: the matrix of all windows is never made)
 *  MR |   | | MR x NR |         |
 *     +---+ +---------+---------+-----     NR = vectors * lanes; MR depends on how many of the vectors
 *     |   | |         |         |          the panel's columns fill
 *
 *   acc[row][column] = init + sum over sets s, runs r, groups g, j < group:
 *                             in[row_offset[row] + s * set_stride + r * run_stride][g * group + j] * panel[s][r][g][column][j]
 *
 * forward:  rows = output pixels, runs = kernel rows (KW * C contiguous elements), columns = output channels
 * backward: the same with dy as input and the weights transposed; for strides, once per phase of the input's pixels
 * gradient: rows = (tap, input channel), sets = images, runs = their rows (OW contiguous pixels of a plane), columns = output
 *           channels */
#ifndef NITI_BACKEND_CPU_MICROKERNEL_H
#define NITI_BACKEND_CPU_MICROKERNEL_H

#include "backend/cpu/requantise.h"
#include "base/size.h"

enum { NITI_NR_VECTORS = 4, NITI_MR_MAX = 32, NITI_NR_MAX = 64 }; /* the maximum over all instruction sets */

/* One tile. Offsets in bytes. acc and init are [rows][vectors * lanes]; init_stride 0 uses one row of init for all rows. */
typedef struct NitiMicrotile {
  int32_t *acc;
  const int32_t *init;
  size_t init_stride;
  const uint8_t *in;
  const size_t *row_offset;
  const void *panel;
  size_t sets, runs, groups; /* each may be 0 */
  size_t set_stride, run_stride;
  int rows, vectors;
  const void *ahead; /* NULL, or what an int16 microkernel may prefetch: 64 bytes per group */
} NitiMicrotile;

typedef struct NitiConvKernels NitiConvKernels;
struct NitiConvKernels {
  const char *name;
  int element, group;          /* bytes of a packed element; elements that one multiply-add consumes */
  int lanes, vectors;          /* columns of a vector; vectors of a full panel */
  int mr[NITI_NR_VECTORS + 1]; /* the maximum rows of a tile, by its number of vectors */
  int step;                    /* 0, or elements of a row that are best summed at once (many groups); `offset` is then false */
  bool offset;                 /* the value 0 is not the element 0: sums begin with a correction */
  bool in_place;               /* elements are the unconverted activations, and no byte beyond a row's groups is read */
  const NitiConvKernels *nonnegative; /* NULL, or the kernels for nonnegative activations; panels and sizes are the same */
  void (*begin)(void), (*end)(void);  /* NULL, or called by a thread before and after its tiles */
  void (*microkernel)(const NitiMicrotile *);
  /* Converts activations to operand elements; `zero` writes `count` elements of the value 0. */
  void (*convert)(void *out, const int8_t *in, size_t count);
  void (*zero)(void *out, size_t count);
  /* out[plane_stride * c][p] = the operand element of in[offset[p]][c] for channels c and positions p, a multiple of 16;
   * offset SIZE_MAX means 0. Reads no more than `channels` (at most 32) bytes of a position. */
  void (*transpose)(void *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions, int channels);
  /* Panels from a matrix whose columns are contiguous: out[g][padded][group] of in[offset[g * group + j]][column], zero beyond
   * `rows` and `columns` and where the offset is SIZE_MAX. */
  void (*panel_across)(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded);
  /* Panels from a matrix whose rows are contiguous: out[g][padded][group] of in[column * stride + g * group + j]. */
  void (*panel_along)(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded);
  /* tensor[offset[row] + first + column] = rounded acc[row][column] (rows of `stride`), 0 where the rounder's mask says so; that
   * index is also the random word's. Returns the largest |acc|, at least `max`. */
  uint32_t (*requantise)(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride, int rows,
                         int columns, const NitiRounder *, uint32_t max);
  /* gradient[column * stride + row] (+)= acc[row][column] (rows of `acc_stride`), int32 or int64; `add` or overwrite. */
  void (*store)(void *gradient, int bits, bool add, size_t stride, const int32_t *acc, size_t acc_stride, int rows, int columns);
};

/* NULL for the reference, which has its own, separate convolutions. */
const NitiConvKernels *niti_conv_kernels(NitiIsa isa);
extern const NitiConvKernels niti_conv_kernels_avx2, niti_conv_kernels_avx512vnni, niti_conv_kernels_amx;
extern const NitiConvKernels niti_conv_kernels_neon_dotprod, niti_conv_kernels_neon_i8mm;

#endif
