/* Rows of bytes, copied to rows of a multiple of 16. */
#include "backend/cuda/mma.cuh"

enum { THREADS = 256 };

/* By value to a kernel. */
struct Pads {
  NitiPad pad[2];
  NitiDivisor vectors[2]; /* of 16 bytes, of a row */
  uint32_t count[2];
};

/* A vector of 16 bytes per thread; V: bytes that are loaded at once. */
template <int V>
static __global__ void __launch_bounds__(THREADS) pad_kernel(const __grid_constant__ Pads p) {
  niti_kernel_begin();
  const NitiPad &pad = p.pad[blockIdx.y];
  const NitiDivisor &vectors = p.vectors[blockIdx.y];
  const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= p.count[blockIdx.y]) return;
  const uint32_t row = niti_divide(vectors, i), at = 16 * (i - row * vectors.divisor);
  const int8_t *from = pad.from + row * pad.bytes + at;
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (uint32_t k = 0; k < 16; k += V) {
    if (at + k >= pad.bytes) continue;
    words[k / 4] |= (V == 4 ? *(const uint32_t *)(from + k) : *(const uint8_t *)(from + k)) << (8 * (k % 4));
  }
  ((uint4 *)pad.to)[i] = make_uint4(words[0], words[1], words[2], words[3]);
}

extern "C" void niti_cuda_pad(NitiCuda *cuda, const NitiPad pads[2]) {
  Pads p = {};
  uintptr_t all = 0;
  for (int i = 0; i < 2; ++i) {
    p.pad[i] = pads[i];
    p.vectors[i] = niti_divisor((uint32_t)(pads[i].pitch / 16));
    p.count[i] = (uint32_t)(pads[i].rows * (pads[i].pitch / 16));
    all |= (uintptr_t)pads[i].from | pads[i].bytes;
  }
  const dim3 grid(((p.count[0] > p.count[1] ? p.count[0] : p.count[1]) + THREADS - 1) / THREADS, 2);
  if (all % 4 == 0)
    NITI_LAUNCH(cuda, pad_kernel<4>, grid, THREADS, 0, p);
  else
    NITI_LAUNCH(cuda, pad_kernel<1>, grid, THREADS, 0, p);
}
