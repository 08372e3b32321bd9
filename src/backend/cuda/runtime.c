/* The table of the CUDA runtime's own functions. */
#include "backend/cuda/runtime.h"

#define ENTRY(result, name, parameters, arguments) .name = name,
const NitiCudaRuntime niti_cuda_runtime = {NITI_CUDA_CALLS(ENTRY)};
