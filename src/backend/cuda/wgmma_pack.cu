/* Weights packed for wgmma, and tensor maps. */
#include "backend/cuda/finish.cuh"
#include "backend/cuda/wgmma.h"

enum { CHUNK = NITI_WGMMA_CHUNK, RUN = 16, THREADS = 256 }; /* a thread writes one 16-byte run of input channels */

template <bool TRANSPOSE>
__global__ void pack(int8_t *__restrict__ packed, const int8_t *__restrict__ w, int k, int taps, int c) {
  niti_kernel_begin();
  const int out = TRANSPOSE ? c : k, in = TRANSPOSE ? k : c;
  const int runs = in / RUN;
  const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
  const int rows = (out + NITI_WGMMA_CHANNELS - 1) / NITI_WGMMA_CHANNELS * NITI_WGMMA_CHANNELS;
  if (i >= (size_t)rows * taps * runs) return;
  int o, run, tap; /* neighbouring threads read neighbouring bytes */
  if (TRANSPOSE) {
    o = (int)(i % rows);
    tap = (int)(i / rows % taps);
    run = (int)(i / rows / taps);
  } else {
    run = (int)(i % runs);
    tap = (int)(i / runs % taps);
    o = (int)(i / runs / taps);
  }
  uint32_t word[4] = {0, 0, 0, 0};
  if (o < out) {
    if (TRANSPOSE) {
      const int8_t *from = w + ((size_t)run * RUN * taps + (taps - 1 - tap)) * c + o;
#pragma unroll
      for (int b = 0; b < RUN; ++b) word[b / 4] |= (uint32_t)(uint8_t)from[(size_t)b * taps * c] << 8 * (b % 4);
    } else {
      const uint4 v = *(const uint4 *)(w + ((size_t)o * taps + tap) * c + run * RUN);
      word[0] = v.x;
      word[1] = v.y;
      word[2] = v.z;
      word[3] = v.w;
    }
  }
  const int row = niti_finish_column(o % NITI_WGMMA_CHANNELS);
  const int at = run * RUN % CHUNK, block = run * RUN / CHUNK;
  uint32_t offset = (uint32_t)(row * CHUNK + at);
  offset ^= (offset >> 7 & (uint32_t)(CHUNK / 16 - 1)) << 4;
  const size_t tile = ((size_t)(o / NITI_WGMMA_CHANNELS) * (in / CHUNK) + block) * taps + tap;
  *(uint4 *)(packed + tile * (size_t)(NITI_WGMMA_CHANNELS * CHUNK) + offset) = make_uint4(word[0], word[1], word[2], word[3]);
}

void niti_wgmma_pack(NitiCuda *cuda, int8_t *packed, const int8_t *w, int k, int taps, int c, bool transpose) {
  const size_t runs = niti_wgmma_packed_bytes(transpose ? c : k, transpose ? k : c, taps) / RUN;
  const unsigned blocks = (unsigned)((runs + THREADS - 1) / THREADS);
  if (transpose) {
    NITI_LAUNCH(cuda, pack<true>, blocks, THREADS, 0, packed, w, k, taps, c);
  } else {
    NITI_LAUNCH(cuda, pack<false>, blocks, THREADS, 0, packed, w, k, taps, c);
  }
}

void niti_wgmma_map(NitiCuda *cuda, CUtensorMap *map, const void *data, int element, const uint64_t dims[4],
                    const uint64_t strides[3], const uint32_t box[4], CUtensorMapSwizzle swizzle) {
  typedef CUresult (*Encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                             const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                             CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  void *encode = NULL;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error =
      niti_cuda_runtime.cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) {
    niti_cuda_note(cuda, error != cudaSuccess ? error : cudaErrorNotSupported, "cuTensorMapEncodeTiled");
    return;
  }
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  const CUresult result =
      ((Encode)encode)(map, element == 8 ? CU_TENSOR_MAP_DATA_TYPE_INT64 : CU_TENSOR_MAP_DATA_TYPE_UINT8, 4, (void *)data,
                       (const cuuint64_t *)dims, (const cuuint64_t *)strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                       CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) niti_cuda_note(cuda, cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
}
