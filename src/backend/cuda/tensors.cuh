/* What operations on several tensors at once share: the tensors are the kernel's arguments, and every block has a part of one. */
#ifndef NITI_BACKEND_CUDA_TENSORS_CUH
#define NITI_BACKEND_CUDA_TENSORS_CUH

#include "backend/cuda/device.cuh"

enum {
  NITI_ARGUMENTS_SMALL = 4096, /* bytes of arguments that a kernel of any toolkit takes */
#if CUDART_VERSION >= 12010
  NITI_ARGUMENTS_LARGE = 32764,
#else
  NITI_ARGUMENTS_LARGE = NITI_ARGUMENTS_SMALL,
#endif
  NITI_PARTS_MAX = 8, /* parts of a tensor that a block takes, one after the other */
};

/* The tensor of block `number` among `count`; Tensor.end: the first block that is not its own. */
template <typename Tensor>
static __device__ inline int niti_find_tensor(const Tensor *tensors, int count, uint32_t number, uint32_t *block) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (tensors[middle].end <= number)
      low = middle + 1;
    else
      high = middle;
  }
  *block = number - (low > 0 ? tensors[low - 1].end : 0);
  return low;
}

/* How many parts of `weights` a block is to take, so that there are some blocks per multiprocessor, and no more: enough that
 * those which end last are a small share. */
static inline uint32_t niti_parts(const NitiCuda *cuda, size_t weights, size_t part) {
  const size_t parts = weights / (part * 16 * (size_t)cuda->multiprocessors);
  return parts < 1 ? 1 : (uint32_t)(parts < (size_t)NITI_PARTS_MAX ? parts : (size_t)NITI_PARTS_MAX);
}

static inline uint32_t niti_blocks(size_t weights, size_t per_block) { return (uint32_t)((weights + per_block - 1) / per_block); }

/* Gradients 4 i .. 4 i + 3. */
static __device__ inline void niti_load_four(int32_t out[4], const int32_t *g, size_t i) {
  const int4 four = ((const int4 *)g)[i];
  out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
}

static __device__ inline void niti_load_four(int64_t out[4], const int64_t *g, size_t i) {
  const longlong2 low = ((const longlong2 *)g)[2 * i], high = ((const longlong2 *)g)[2 * i + 1];
  out[0] = low.x, out[1] = low.y, out[2] = high.x, out[3] = high.y;
}

#endif
