/* Max-pool: what its kernels share. */
#ifndef NITI_BACKEND_CUDA_MAXPOOL_CUH
#define NITI_BACKEND_CUDA_MAXPOOL_CUH

#include "backend/cuda/tile.cuh"

/* By value to a kernel. */
struct NitiMaxpoolForward {
  int8_t *y, *blocked; /* blocked may be NULL */
  uint8_t *winner;
  const int8_t *x;
  int32_t *e_y;
  const int32_t *e_x;
  NitiPool p;
  NitiTiles tiles; /* of y */
};

struct NitiMaxpoolBackward {
  int8_t *dx, *blocked;    /* blocked may be NULL */
  const int8_t *dy, *mask; /* mask may be NULL */
  const uint8_t *winner;
  int32_t *e_dx;
  const int32_t *e_dy;
  NitiPool p;
  NitiTiles tiles; /* of dy in backward_2x2_kernel, else of dx */
};

/* maxpool_wide.cu: where channels are multiples of 16 and all memory is aligned to that; their tiles are of 16 images. Backward
 * is of windows that overlap. false: not of this window or in this mode, and nothing is done. */
void niti_maxpool_wide(NitiCuda *, const NitiMaxpoolForward &);
bool niti_maxpool_wide(NitiCuda *, const NitiMaxpoolBackward &, const NitiRequantiseArgs &);

#endif
