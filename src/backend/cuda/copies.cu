/* Adds to this rank's gradients what the other ranks have copied into its inbox (copies.h): one launch for all. Sums of integers,
 * so their order makes no difference. */
#include "backend/cuda/copies.h"
#include "backend/cuda/tensors.cuh"

namespace {

enum { THREADS = 256, UNITS = 4 /* of 16 bytes that a thread has under way */, UNIT = 16, PART = THREADS * UNITS * UNIT };

struct Sum {
  uint4 *data;
  size_t offset, bytes; /* offset: in each part of the inbox */
  uint32_t end;         /* the first block that is not its own */
  bool wide;            /* int64_t, else int32_t */
};

struct Common {
  const char *inbox;
  size_t bytes;   /* of a part of it */
  int32_t others; /* that have parts */
  uint32_t parts; /* of PART bytes, that a block takes */
  int32_t count;  /* sums */
};

enum { MOST = (NITI_ARGUMENTS_SMALL - sizeof(Common)) / sizeof(Sum) };

struct Additions {
  Common common;
  Sum sums[MOST];
};

}  // namespace

static_assert(sizeof(Additions) <= NITI_ARGUMENTS_SMALL, "a kernel takes as many bytes");

/* As unsigned numbers, whose sums may wrap on the way. */
static __device__ inline uint4 plus(uint4 a, uint4 b, bool wide) {
  if (!wide) return make_uint4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
  const uint64_t low = ((uint64_t)a.y << 32 | a.x) + ((uint64_t)b.y << 32 | b.x);
  const uint64_t high = ((uint64_t)a.w << 32 | a.z) + ((uint64_t)b.w << 32 | b.z);
  return make_uint4((uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32));
}

/* The inbox is read past the first-level cache, which knows nothing of what others write. */
static __device__ inline void add_units(const Sum &s, const Common &c, size_t first) {
  const size_t units = s.bytes / UNIT;
  uint4 sum[UNITS] = {};
#pragma unroll
  for (int u = 0; u < UNITS; ++u) {
    if (first + (size_t)u * THREADS < units) sum[u] = s.data[first + (size_t)u * THREADS];
  }
  for (int k = 0; k < c.others; ++k) {
    const uint4 *from = (const uint4 *)(c.inbox + (size_t)k * c.bytes + s.offset);
    uint4 more[UNITS] = {};
#pragma unroll
    for (int u = 0; u < UNITS; ++u) {
      if (first + (size_t)u * THREADS < units) more[u] = __ldcg(from + first + (size_t)u * THREADS);
    }
#pragma unroll
    for (int u = 0; u < UNITS; ++u) sum[u] = plus(sum[u], more[u], s.wide);
  }
#pragma unroll
  for (int u = 0; u < UNITS; ++u) {
    if (first + (size_t)u * THREADS < units) s.data[first + (size_t)u * THREADS] = sum[u];
  }
}

/* A value behind the last whole unit. */
template <typename T>
static __device__ inline void add_last(const Sum &s, const Common &c, size_t at) {
  T *value = (T *)((char *)s.data + at);
  T sum = *value;
  for (int k = 0; k < c.others; ++k) sum += __ldcg((const T *)(c.inbox + (size_t)k * c.bytes + s.offset + at));
  *value = sum;
}

static __global__ void __launch_bounds__(THREADS) add_kernel(const __grid_constant__ Additions a) {
  niti_kernel_begin();
  uint32_t block;
  const Sum &s = a.sums[niti_find_tensor(a.sums, a.common.count, blockIdx.x, &block)];
  for (uint32_t part = block * a.common.parts; part < (block + 1) * a.common.parts; ++part)
    add_units(s, a.common, (size_t)part * (PART / UNIT) + threadIdx.x);
  const size_t last = s.bytes / UNIT * UNIT + threadIdx.x * (s.wide ? sizeof(uint64_t) : sizeof(uint32_t));
  if (block > 0 || last >= s.bytes) return;
  if (s.wide)
    add_last<unsigned long long>(s, a.common, last);
  else
    add_last<unsigned>(s, a.common, last);
}

extern "C" void niti_cuda_add_copies(NitiCuda *cuda, const NitiCopy *sums, int count, const void *inbox, int parts,
                                     size_t bytes) {
  size_t all = 0;
  for (int i = 0; i < count; ++i) all += sums[i].bytes;
  const uint32_t each = niti_parts(cuda, all, PART);
  for (int first = 0; first < count; first += MOST) {
    Additions a = {};
    uint32_t blocks = 0;
    a.common = Common{(const char *)inbox, bytes, parts, each, count - first < MOST ? count - first : MOST};
    for (int i = 0; i < a.common.count; ++i) {
      const NitiCopy &s = sums[first + i];
      blocks += niti_blocks(s.bytes, (size_t)PART * each);
      a.sums[i] = Sum{(uint4 *)s.data, s.offset, s.bytes, blocks, s.wide};
    }
    NITI_LAUNCH(cuda, add_kernel, blocks, THREADS, 0, a);
  }
}
