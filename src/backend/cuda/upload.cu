/* What reaches the device before every step: a few bytes and the step's number. Kernels copy them, in the stream's order; another
 * kernel reads the clock. */
#include "backend/cuda/device.cuh"

enum { THREADS = 256 };

__global__ void niti_upload_kernel(uint8_t *to, const uint8_t *from, size_t bytes, bool aligned) {
  niti_kernel_begin();
  const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x, whole = aligned ? bytes / 16 : 0;
  if (i < whole) ((uint4 *)to)[i] = ((const uint4 *)from)[i];
  for (size_t k = whole * 16 + i; k < bytes; k += (size_t)gridDim.x * THREADS) to[k] = from[k];
}

__global__ void niti_clock_kernel(NitiClock *to, NitiClock clock) {
  niti_kernel_begin();
  *to = clock;
}

void niti_cuda_upload_small(NitiCuda *cuda, void *to, const void *pinned, size_t bytes) {
  const bool aligned = ((uintptr_t)to | (uintptr_t)pinned) % 16 == 0;
  const unsigned blocks = (unsigned)((bytes / 16 + THREADS) / THREADS);
  if (bytes == 0) return;
  NITI_LAUNCH(cuda, niti_upload_kernel, blocks, THREADS, 0, (uint8_t *)to, (const uint8_t *)pinned, bytes, aligned);
}

void niti_cuda_set_clock(NitiCuda *cuda, NitiClock clock) { NITI_LAUNCH(cuda, niti_clock_kernel, 1, 1, 0, cuda->clock, clock); }

__global__ void niti_mark_kernel(int64_t *at) {
  niti_kernel_begin();
  *at = niti_device_nanoseconds();
}

void niti_cuda_mark(NitiBackend *backend, int64_t *at) { NITI_LAUNCH(niti_cuda(backend), niti_mark_kernel, 1, 1, 0, at); }

bool niti_cuda_overlaps(void) {
  cudaFuncAttributes attributes;
  if (niti_cuda_runtime.cudaFuncGetAttributes(&attributes, (const void *)niti_mark_kernel) != cudaSuccess) {
    (void)niti_cuda_runtime.cudaGetLastError();
    return false;
  }
  return attributes.ptxVersion >= 90;
}
