/* What the files of the wgmma family share: packed weights, and the encoding of tensor maps. */
#ifndef NITI_BACKEND_CUDA_WGMMA_H
#define NITI_BACKEND_CUDA_WGMMA_H

#include <cuda.h>

#include "backend/cuda/cuda.h"

enum {
  NITI_WGMMA_CHANNELS = 128, /* output channels of a tile */
  NITI_WGMMA_CHUNK = 64,     /* input channels of a tile */
};

/* Weights as tiles that a plain copy brings into shared memory ready for wgmma: [out / 128][in / 64][tap][128][64], each
 * tile swizzled as its rows of 64 bytes demand. Row r of a tile holds output channel niti_finish_channel(r). What is past the
 * last channel of either kind is 0. */
static inline int niti_wgmma_chunks(int in) { return (in + NITI_WGMMA_CHUNK - 1) / NITI_WGMMA_CHUNK; }
static inline size_t niti_wgmma_packed_bytes(int out, int in, int taps) {
  const size_t tiles = (size_t)((out + NITI_WGMMA_CHANNELS - 1) / NITI_WGMMA_CHANNELS) * (size_t)niti_wgmma_chunks(in);
  return tiles * (size_t)taps * NITI_WGMMA_CHANNELS * NITI_WGMMA_CHUNK;
}

#ifdef __cplusplus
extern "C" {
#endif
/* A map of a 4-dimensional tensor: dims[0] innermost; strides[i] in bytes of dims[i + 1]; element 1 or 8 bytes. Failure shows in
 * synchronise(). */
void niti_wgmma_map(NitiCuda *, CUtensorMap *map, const void *data, int element, const uint64_t dims[4],
                    const uint64_t strides[3], const uint32_t box[4], CUtensorMapSwizzle swizzle);
bool niti_wgmma_serves_gradient(const NitiConv *);
int niti_wgmma_gradient_ways(NitiWay ways[NITI_WAYS_MAX], int count);
size_t niti_wgmma_gradient_workspace(const NitiConv *, int multiprocessors);
/* The channels of a tile, 128 or 64 of either kind: what tests count the workspace from. */
void niti_wgmma_gradient_tile(const NitiConv *, int multiprocessors, int way, int *output, int *input);
int64_t niti_wgmma_gradient_time(const NitiConv *, int multiprocessors); /* picoseconds of its own choice, as expected */
void niti_wgmma_gradient(NitiCuda *, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x, const NitiConv *,
                         int way);
#ifdef __cplusplus
}
#endif
#endif
