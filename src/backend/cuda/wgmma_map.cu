/* Tensor maps. */
#include "backend/cuda/wgmma.h"

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
