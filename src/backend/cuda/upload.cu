/* What reaches the device before every step: a few bytes and the step's number. A kernel copies both, in the stream's order;
 * another reads the time. */
#include "backend/cuda/device.cuh"

enum { THREADS = 256 };

/* clock: NULL, or where `value` belongs. */
__global__ void niti_upload_kernel(uint8_t *to, const uint8_t *from, size_t bytes, bool aligned, NitiClock *clock,
                                   const __grid_constant__ NitiClock value) {
  niti_kernel_begin();
  const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x, whole = aligned ? bytes / 16 : 0;
  if (i < whole) ((uint4 *)to)[i] = ((const uint4 *)from)[i];
  for (size_t k = whole * 16 + i; k < bytes; k += (size_t)gridDim.x * THREADS) to[k] = from[k];
  if (clock && i == 0) *clock = value;
}

/* Of a step that has begun without it. */
static NitiClock *take_clock(NitiCuda *cuda) {
  NitiClock *clock = cuda->late ? cuda->clock : NULL;
  cuda->late = false;
  return clock;
}

void niti_cuda_upload_small(NitiCuda *cuda, void *to, const void *pinned, size_t bytes) {
  const bool aligned = ((uintptr_t)to | (uintptr_t)pinned) % 16 == 0;
  const unsigned blocks = (unsigned)((bytes / 16 + THREADS) / THREADS);
  if (bytes == 0) return;
  NitiClock *clock = take_clock(cuda);
  NITI_LAUNCH(cuda, niti_upload_kernel, blocks, THREADS, 0, (uint8_t *)to, (const uint8_t *)pinned, bytes, aligned, clock,
              cuda->now);
}

void niti_cuda_set_clock(NitiCuda *cuda) {
  NitiClock *clock = take_clock(cuda);
  if (!clock) return;
  NITI_LAUNCH(cuda, niti_upload_kernel, 1, 1, 0, (uint8_t *)NULL, (const uint8_t *)NULL, (size_t)0, false, clock, cuda->now);
}

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
