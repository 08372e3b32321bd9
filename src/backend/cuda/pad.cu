/* Copies for convolutions whose channels no kernel takes well: rows of bytes to rows of a multiple of 16, and images whose
 * strides become channels. */
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

extern "C" void niti_cuda_pad(NitiCuda *cuda, const NitiPad *pads, int count) {
  Pads p = {};
  uintptr_t all = 0;
  for (int i = 0; i < count; ++i) {
    p.pad[i] = pads[i];
    p.vectors[i] = niti_divisor((uint32_t)(pads[i].pitch / 16));
    p.count[i] = (uint32_t)(pads[i].rows * (pads[i].pitch / 16));
    all |= (uintptr_t)pads[i].from | pads[i].bytes;
  }
  const dim3 grid(((p.count[0] > p.count[1] ? p.count[0] : p.count[1]) + THREADS - 1) / THREADS, (unsigned)count);
  if (all % 4 == 0)
    NITI_LAUNCH(cuda, pad_kernel<4>, grid, THREADS, 0, p);
  else
    NITI_LAUNCH(cuda, pad_kernel<1>, grid, THREADS, 0, p);
}

/* By value to a kernel. */
struct Stacks {
  NitiStack stack[2];
  NitiDivisor vectors[2], columns[2], rows[2]; /* of 16 bytes, of a pixel; of a row; of an image */
  NitiDivisor run[2];                          /* bytes of a block's row */
  uint32_t count[2];
};

/* A vector of 16 bytes per thread; V: bytes that are loaded at once. */
template <int V>
static __global__ void __launch_bounds__(THREADS) stack_kernel(const __grid_constant__ Stacks all) {
  niti_kernel_begin();
  const NitiStack &s = all.stack[blockIdx.y];
  const NitiDivisor &run = all.run[blockIdx.y];
  const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= all.count[blockIdx.y]) return;
  const uint32_t pixel = niti_divide(all.vectors[blockIdx.y], i), row = niti_divide(all.columns[blockIdx.y], pixel);
  const uint32_t n = niti_divide(all.rows[blockIdx.y], row), first = 16 * (i - pixel * all.vectors[blockIdx.y].divisor);
  const int32_t y = (int32_t)(row - n * (uint32_t)s.rows) * s.stride_h - s.pad_h, bytes = s.w * s.c;
  const int32_t x = ((int32_t)(pixel - row * (uint32_t)s.columns) * s.stride_w - s.pad_w) * s.c; /* in bytes */
  const int8_t *from = s.from + (int64_t)n * s.h * bytes;
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (uint32_t k = 0; k < 16; k += V) {
    const uint32_t a = niti_divide(run, first + k), b = first + k - a * run.divisor;
    const int32_t in_y = y + (int32_t)a, in_x = x + (int32_t)b;
    if (a >= (uint32_t)s.kh || (uint32_t)in_y >= (uint32_t)s.h || (uint32_t)in_x >= (uint32_t)bytes) continue;
    const int8_t *at = from + (int64_t)in_y * bytes + in_x;
    words[k / 4] |= (V == 4 ? *(const uint32_t *)at : *(const uint8_t *)at) << (8 * (k % 4));
  }
  ((uint4 *)s.to)[i] = make_uint4(words[0], words[1], words[2], words[3]);
}

extern "C" void niti_cuda_stack(NitiCuda *cuda, const NitiStack *stacks, int count) {
  Stacks all = {};
  uintptr_t places = 0;
  for (int i = 0; i < count; ++i) {
    const NitiStack &s = stacks[i];
    all.stack[i] = s;
    all.vectors[i] = niti_divisor((uint32_t)s.pitch / 16);
    all.columns[i] = niti_divisor((uint32_t)s.columns);
    all.rows[i] = niti_divisor((uint32_t)s.rows);
    all.run[i] = niti_divisor((uint32_t)(s.kw * s.c));
    places |= (uintptr_t)s.from | (uintptr_t)s.c;
    all.count[i] = (uint32_t)s.n * (uint32_t)s.rows * (uint32_t)s.columns * ((uint32_t)s.pitch / 16);
  }
  const dim3 grid(((all.count[0] > all.count[1] ? all.count[0] : all.count[1]) + THREADS - 1) / THREADS, (unsigned)count);
  if (places % 4 == 0)
    NITI_LAUNCH(cuda, stack_kernel<4>, grid, THREADS, 0, all);
  else
    NITI_LAUNCH(cuda, stack_kernel<1>, grid, THREADS, 0, all);
}
