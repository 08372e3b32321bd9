/* The mma family's way with few channels (mma_box.cu). */
#ifndef NITI_BACKEND_CUDA_MMA_BOX_H
#define NITI_BACKEND_CUDA_MMA_BOX_H

#include "backend/cuda/mma.cuh"
#include "backend/cuda/pack.h"

/* A pass, its tiles, and what a block of threads keeps in shared memory: from 0 on the offsets of the sum's 16-byte chunks in the
 * box, then weights, then the box. By value to a kernel. */
struct NitiMmaBox {
  NitiMmaPass pass;              /* w: as the convolution has them */
  bool transposed;               /* backward: */
  NitiTaps tap_y, tap_x;         /* the weights' taps */
  int32_t kernel_columns, taps;  /* of the weights */
  int32_t filters;               /* that the weights have: deltas may have been copied with more channels, which are 0 */
  NitiDivisor quads, tap_count;  /* oc / 4, rounded up to whole rows of shared memory; the pass's taps */
  int32_t steps;                 /* of the sum, two chunks each */
  NitiDivisor chunks;            /* of a row of weights in shared memory: 2 * steps */
  int32_t w_rows, w_pitch;       /* in shared memory: rows, bytes between them */
  int32_t height, width;         /* output pixels of a tile; those at the end may have fewer */
  int32_t box_rows, box_columns; /* input pixels that its windows meet */
  int32_t image_pitch;           /* bytes between images of the box */
  NitiDivisor row_chunks, rows;  /* of the box: chunks in a row, box_rows */
  NitiDivisor whole, last;       /* widths of tiles, and of those at the end */
  NitiDivisor image_tiles, across, column_groups;
  uint32_t w_from, box_from; /* in shared memory */
};

/* Whether there is such a kernel for a pass, whose geometry is known; and how many picoseconds it is expected to take. */
bool niti_mma_box_serves(const NitiMmaPass *);
int64_t niti_mma_box_time(const NitiMmaPass *, int count, int multiprocessors);

/* Runs passes of one operation, with everything but their tiles; their weights' taps, or NULL: forward. */
struct NitiMmaBoxTaps {
  NitiTaps y, x;
};
/* filters: of the weights, which backward may be fewer than the convolution's, as deltas may have been copied. */
void niti_mma_box(NitiCuda *, const NitiMmaPass *, const NitiMmaBoxTaps *, int count, const NitiConv *, int32_t filters);

#endif
