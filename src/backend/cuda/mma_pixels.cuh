/* The end of a warp's products where their 16 rows are the images of a pixel: what mma_box.cu and mma_few.cu share. */
#ifndef NITI_BACKEND_CUDA_MMA_PIXELS_CUH
#define NITI_BACKEND_CUDA_MMA_PIXELS_CUH

#include "backend/cuda/mma_finish.cuh"

/* A thread's images of a block of 16, eight apart. */
struct Images {
  bool inside[2];
  int64_t first, apart, block; /* offsets in the output: the first; from there to the second; the block's first */
};

static __device__ inline Images images_of(const NitiMmaPass &p, int block) {
  const int image = block + (int)(threadIdx.x % 32) / 4;
  Images i = {{image < p.n, image + 8 < p.n},
              p.out_base + image * p.out_image,
              8 * p.out_image,
              p.out_base + block / NITI_BLOCK_IMAGES * p.out_image};
  asm("" : "+l"(i.first), "+l"(i.block)); /* lest the compiler multiply for every pixel */
  return i;
}

/* Its rows in MI pixels, for what mma_finish.cuh calls spots; at: offsets in an image. */
template <int MI>
struct Spots {
  Images images;
  uint32_t at[MI];
  __device__ inline NitiMmaSpot operator()(int r) const {
    uint32_t mine = at[0]; /* never an array that must lie in memory */
#pragma unroll
    for (int mi = 1; mi < MI; ++mi) mine = r / 2 == mi ? at[mi] : mine;
    return NitiMmaSpot{r % 2 ? images.inside[1] : images.inside[0], images.first + (r % 2 ? images.apart : 0), mine, true,
                       images.block};
  }
};

/* Not inlined: rare, and long. */
template <int MI, int NI>
static __device__ __noinline__ void settle(const NitiMmaPass &p, int (&acc)[MI][NI][4], Spots<MI> spots, int column, int shift) {
  int scratch[MI * NI * 4];
  niti_mma_settle<MI, NI>(p, acc, spots, column, shift, scratch, 1);
}

/* Returns the shift with which niti_mma_store rounds. A copy is settled, so that accumulators need not lie in memory else. */
template <int MI, int NI>
static __device__ __forceinline__ int settle_where_needed(const NitiMmaPass &p, int (&acc)[MI][NI][4], const Spots<MI> &spots,
                                                          int column, int shift) {
  if (!niti_mma_unsettled<NI>(p, shift)) return shift;
  int settled[MI][NI][4];
#pragma unroll
  for (int i = 0; i < MI * NI * 4; ++i) settled[i / (NI * 4)][i / 4 % NI][i % 4] = acc[i / (NI * 4)][i / 4 % NI][i % 4];
  settle<MI, NI>(p, settled, spots, column, shift);
#pragma unroll
  for (int i = 0; i < MI * NI * 4; ++i) acc[i / (NI * 4)][i / 4 % NI][i % 4] = settled[i / (NI * 4)][i / 4 % NI][i % 4];
  return 1;
}

#endif
