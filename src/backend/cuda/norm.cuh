/* Batch norm's maps: what their kernels share. */
#ifndef NITI_BACKEND_CUDA_NORM_CUH
#define NITI_BACKEND_CUDA_NORM_CUH

#include "backend/cuda/rows.cuh"
#include "base/norm.h"

/* By value to a kernel. */
template <typename Affine>
struct NitiNormMap {
  enum { BACKWARD = sizeof(Affine) == sizeof(NitiAffineDelta) };
  int8_t *y, *blocked; /* y: NULL where it is not wanted, beside blocked alone; blocked: of y, or NULL */
  uint2 *bits;         /* of y, or NULL; beside blocked alone */
  const int8_t *x, *d; /* d: deltas, backward alone */
  const Affine *affine;
  const int32_t *e_affine;
  NitiRows rows;
  NitiTiles tiles;
  bool early; /* x and d may be read before the kernel before this one, which makes the multipliers, has ended */
};

/* norm_wide.cu: the maps of so many channels where these are multiples of 16 and all memory is aligned to that; or, with
 * .blocked, where images are multiples of 16 and channels of 4; or where .rows are joined, without .blocked, y, x and d are
 * aligned, and so is the first element's index in the whole batch. false: not in this mode, and nothing is done. */
bool niti_norm_wide(NitiCuda *, const NitiNormMap<NitiAffine> &, const NitiRequantiseArgs &, uint32_t channels);
bool niti_norm_wide(NitiCuda *, const NitiNormMap<NitiAffineDelta> &, const NitiRequantiseArgs &, uint32_t channels);

#ifdef __CUDACC__

static __device__ inline int niti_norm_apply(const NitiAffine &a, int x, int) { return a.factor * x + a.offset; }

static __device__ inline int niti_norm_apply(const NitiAffineDelta &a, int x, int d) {
  return a.factor * d + (a.slope * x + a.offset); /* two instructions: the sum does not depend on the order */
}

#endif
#endif
