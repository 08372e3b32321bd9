/* Facts about a tensor for logs: a histogram made on the device, then waited for. */
#include <string.h>

#include "backend/cuda/device.cuh"

enum { THREADS = 256, VALUES = 256, BINS = 2 * NITI_MANTISSA_MAX + 1, BLOCK_BYTES = THREADS * 64 };

/* seen[value][lane]: a warp's lanes never meet. */
static __device__ inline void count_byte(uint32_t (*seen)[32], uint32_t value) {
  atomicAdd(&seen[value & 255][threadIdx.x & 31], 1u);
}

static __device__ inline void count_word(uint32_t (*seen)[32], uint32_t word) {
#pragma unroll
  for (int k = 0; k < 4; ++k) count_byte(seen, word >> (8 * k));
}

static __global__ void __launch_bounds__(THREADS) histogram_kernel(NitiRange *range, const int8_t *data, size_t count) {
  niti_kernel_begin();
  __shared__ uint32_t seen[VALUES][32];
  const size_t step = (size_t)gridDim.x * THREADS, first = (size_t)blockIdx.x * THREADS + threadIdx.x;
  const size_t before = (16 - (uintptr_t)data % 16) % 16,
               head = before < count ? before : count; /* up to the first whole vector */
  const size_t vectors = (count - head) / 16, tail = head + 16 * vectors;
  for (int i = 0; i < 32; ++i) seen[i * (VALUES / 32) + threadIdx.x / 32][threadIdx.x & 31] = 0;
  __syncthreads();
  for (size_t i = first; i < vectors; i += step) {
    const uint4 bytes = ((const uint4 *)(data + head))[i];
    count_word(seen, bytes.x);
    count_word(seen, bytes.y);
    count_word(seen, bytes.z);
    count_word(seen, bytes.w);
  }
  if (first < head) count_byte(seen, (uint8_t)data[first]);
  if (first < count - tail) count_byte(seen, (uint8_t)data[tail + first]);
  __syncthreads();
  uint32_t sum = 0;
  for (uint32_t i = 0; i < 32; ++i) sum += seen[threadIdx.x][(i + threadIdx.x) & 31];
  if (sum > 0) atomicAdd((unsigned long long *)&range->histogram[threadIdx.x], (unsigned long long)sum);
}

extern "C" void niti_cuda_stats(NitiBackend *backend, NitiTensorStats *out, const NitiTensor *tensor) {
  NitiCuda *cuda = niti_cuda(backend);
  const size_t count = niti_shape_count(tensor->shape), blocks = (count + BLOCK_BYTES - 1) / BLOCK_BYTES;
  const size_t most = (size_t)cuda->multiprocessors * 4;
  uint64_t seen[VALUES] = {0};
  int32_t exponent = 0;
  memset(out, 0, sizeof *out);
  niti_cuda_note(cuda, niti_cuda_runtime.cudaMemsetAsync(cuda->range->histogram, 0, sizeof seen, cuda->stream),
                 "clearing a histogram");
  NITI_LAUNCH(cuda, histogram_kernel, (unsigned)(blocks < most ? blocks : most), THREADS, 0, cuda->range, tensor->data, count);
  niti_cuda_note(
      cuda, niti_cuda_runtime.cudaMemcpyAsync(seen, cuda->range->histogram, sizeof seen, cudaMemcpyDeviceToHost, cuda->stream),
      "downloading a histogram");
  niti_cuda_note(
      cuda, niti_cuda_runtime.cudaMemcpyAsync(&exponent, tensor->exponent, sizeof exponent, cudaMemcpyDeviceToHost, cuda->stream),
      "downloading an exponent");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamSynchronize(cuda->stream), "waiting for a histogram");
  out->count = (int64_t)count;
  out->exponent = exponent;
  for (int bin = 0; bin < BINS; ++bin) out->histogram[bin] = (int64_t)seen[(uint8_t)(bin - NITI_MANTISSA_MAX)];
  out->saturated = out->histogram[0] + out->histogram[BINS - 1];
}
