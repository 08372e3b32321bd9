/* CUDA's kernels as C++ for the CPU, so that tests of the backend run where there is no device. The compiler includes this file
 * before each source of src/backend/cuda, and then takes it for CUDA.
 *
 * A block's threads are contexts of their own that take turns, by which barriers and the instructions of a whole warp work as on
 * a device; blocks run one after the other, and launches when they are enqueued. So the results of kernels that follow CUDA's
 * rules are a device's, bit for bit. What this finds: wrong results, reads and writes beyond allocations, warps that part before
 * a collective instruction, barriers that a thread misses. What it cannot find: races between threads or blocks, too little
 * shared memory or too many registers, wrong alignment. Hopper's own kernels (wgmma) are not emulated. */
#ifndef NITI_TESTS_EMULATED_H
#define NITI_TESTS_EMULATED_H

#include <cuda_runtime.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>

/* From here on it is CUDA. */
#define NITI_EMULATED
#define __CUDACC__
#undef __shared__
#define __shared__ static /* blocks run one after the other */
#ifndef __grid_constant__
#define __grid_constant__
#endif
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __noinline__
#define __noinline__ __attribute__((noinline))

extern "C++" {

/* ---- threads ---- */

enum { NITI_EMULATED_SHARED = 227 * 1024 };
struct NitiEmulatedPlace {
  uint3 thread, block;
  dim3 threads, blocks;
};
extern NitiEmulatedPlace niti_emulated; /* of the thread that runs */
extern uint8_t niti_emulated_shared[NITI_EMULATED_SHARED];

static const uint3 &threadIdx = niti_emulated.thread, &blockIdx = niti_emulated.block;
static const dim3 &blockDim = niti_emulated.threads, &gridDim = niti_emulated.blocks;
#define NITI_DYNAMIC_SHARED(name) static uint8_t *const name = niti_emulated_shared

/* Runs a kernel's body for every thread of every block. */
void niti_emulated_run(dim3 grid, dim3 block, const std::function<void()> &body);
void niti_emulated_barrier();
/* The lanes of the mask meet; `all` is given what each of them offers (NULL: not one of them), once. */
typedef void (*NitiEmulatedAll)(void *const lanes[32], uint32_t mask);
void niti_emulated_meet(uint32_t mask, void *mine, NitiEmulatedAll all);
[[noreturn]] void niti_emulated_fail(const char *why);

static inline void __syncthreads() { niti_emulated_barrier(); }
static inline void __syncwarp(uint32_t mask = 0xffffffffu) {
  niti_emulated_meet(mask, NULL, [](void *const *, uint32_t) {});
}
static inline void __threadfence() {}
static inline void niti_kernel_announce() {}
static inline void niti_kernel_wait() {}

/* ---- a whole warp's instructions ---- */

template <typename T>
struct NitiShuffle {
  T value, got;
  int from;
};

template <typename T>
static inline T niti_emulated_shuffle(uint32_t mask, T value, int from) {
  NitiShuffle<T> mine = {value, value, from & 31};
  niti_emulated_meet(mask, &mine, [](void *const lanes[32], uint32_t present) {
    for (int i = 0; i < 32; ++i) {
      if (!(present >> i & 1)) continue;
      NitiShuffle<T> *lane = (NitiShuffle<T> *)lanes[i];
      if (!(present >> lane->from & 1)) niti_emulated_fail("a shuffle from a lane that is not there");
      lane->got = ((NitiShuffle<T> *)lanes[lane->from])->value;
    }
  });
  return mine.got;
}
static inline int niti_emulated_lane() { return (int)(threadIdx.x & 31); } /* blocks have one dimension */
template <typename T>
static inline T __shfl_sync(uint32_t mask, T value, int from) {
  return niti_emulated_shuffle(mask, value, from);
}
template <typename T>
static inline T __shfl_xor_sync(uint32_t mask, T value, int lanes) {
  return niti_emulated_shuffle(mask, value, niti_emulated_lane() ^ lanes);
}

template <typename T, T (*COMBINE)(T, T)>
static inline T niti_emulated_reduce(uint32_t mask, T value) {
  niti_emulated_meet(mask, &value, [](void *const lanes[32], uint32_t present) {
    T all = T();
    bool some = false;
    for (int i = 0; i < 32; ++i) {
      if (!(present >> i & 1)) continue;
      all = some ? COMBINE(all, *(T *)lanes[i]) : *(T *)lanes[i];
      some = true;
    }
    for (int i = 0; i < 32; ++i)
      if (present >> i & 1) *(T *)lanes[i] = all;
  });
  return value;
}
template <typename T>
static T niti_emulated_larger(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
static T niti_emulated_smaller(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
static T niti_emulated_plus(T a, T b) {
  return (T)((uint32_t)a + (uint32_t)b);
}
static inline int __reduce_max_sync(uint32_t m, int v) { return niti_emulated_reduce<int, niti_emulated_larger<int>>(m, v); }
static inline uint32_t __reduce_max_sync(uint32_t m, uint32_t v) {
  return niti_emulated_reduce<uint32_t, niti_emulated_larger<uint32_t>>(m, v);
}
static inline int __reduce_min_sync(uint32_t m, int v) { return niti_emulated_reduce<int, niti_emulated_smaller<int>>(m, v); }
static inline int __reduce_add_sync(uint32_t m, int v) { return niti_emulated_reduce<int, niti_emulated_plus<int>>(m, v); }
static inline uint32_t __reduce_add_sync(uint32_t m, uint32_t v) {
  return niti_emulated_reduce<uint32_t, niti_emulated_plus<uint32_t>>(m, v);
}
static inline int __any_sync(uint32_t mask, int v) { return __reduce_max_sync(mask, (uint32_t)(v != 0)) != 0; }

struct NitiEmulatedProduct {
  int *acc;
  uint32_t a[4], b[2];
};

/* As ptx.cuh says. */
static inline void niti_mma(int (&acc)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  NitiEmulatedProduct mine = {acc, {a0, a1, a2, a3}, {b0, b1}};
  niti_emulated_meet(0xffffffffu, &mine, [](void *const lanes[32], uint32_t) {
    int8_t a[16][32], b[8][32];
    for (int lane = 0; lane < 32; ++lane) {
      const NitiEmulatedProduct *p = (const NitiEmulatedProduct *)lanes[lane];
      const int g = lane / 4, q = lane % 4;
      for (int i = 0; i < 4; ++i) memcpy(&a[g + i % 2 * 8][4 * q + i / 2 * 16], &p->a[i], 4);
      for (int i = 0; i < 2; ++i) memcpy(&b[g][4 * q + i * 16], &p->b[i], 4);
    }
    for (int lane = 0; lane < 32; ++lane) {
      int *to = ((const NitiEmulatedProduct *)lanes[lane])->acc;
      for (int i = 0; i < 4; ++i) {
        const int8_t *row = a[lane / 4 + i / 2 * 8], *column = b[lane % 4 * 2 + i % 2];
        int sum = 0;
        for (int k = 0; k < 32; ++k) sum += row[k] * column[k];
        to[i] = (int)((uint32_t)to[i] + (uint32_t)sum);
      }
    }
  });
}

/* Addresses in shared memory are offsets. */
static inline uint32_t niti_shared_address(const void *p) {
  const ptrdiff_t at = (const uint8_t *)p - niti_emulated_shared;
  if (at < 0 || at >= NITI_EMULATED_SHARED) niti_emulated_fail("an address that is not of the launch's shared memory");
  return (uint32_t)at;
}
static inline void niti_copy16(uint32_t to, const void *from, bool there) {
  if (to % 16 != 0 || (there && (uintptr_t)from % 16 != 0)) niti_emulated_fail("a copy of 16 bytes that is not aligned");
  if (there)
    memcpy(niti_emulated_shared + to, from, 16);
  else
    memset(niti_emulated_shared + to, 0, 16);
}
static inline void niti_copy_commit() {}
template <int LATER>
static inline void niti_copy_wait() {}

struct NitiEmulatedMatrices {
  uint32_t *to, from;
};
static inline void niti_load_matrices(uint32_t (&to)[4], uint32_t from) {
  NitiEmulatedMatrices mine = {to, from};
  niti_emulated_meet(0xffffffffu, &mine, [](void *const lanes[32], uint32_t) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int matrix = 0; matrix < 4; ++matrix) {
        const uint32_t row = ((const NitiEmulatedMatrices *)lanes[8 * matrix + lane / 4])->from;
        if (row % 16 != 0) niti_emulated_fail("a row of a matrix that is not aligned");
        memcpy(&((const NitiEmulatedMatrices *)lanes[lane])->to[matrix], niti_emulated_shared + row + lane % 4 * 4, 4);
      }
    }
  });
}

struct NitiEmulatedHalves {
  uint16_t in[2], out[2];
};
static inline uint32_t niti_transpose8x8(uint32_t v) {
  NitiEmulatedHalves mine;
  memcpy(mine.in, &v, 4);
  niti_emulated_meet(0xffffffffu, &mine, [](void *const lanes[32], uint32_t) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int e = 0; e < 2; ++e) {
        const int row = lane / 4, column = lane % 4 * 2 + e; /* of the result, which is (column, row) of what came in */
        ((NitiEmulatedHalves *)lanes[lane])->out[e] = ((const NitiEmulatedHalves *)lanes[4 * column + row / 2])->in[row % 2];
      }
    }
  });
  memcpy(&v, mine.out, 4);
  return v;
}

/* ---- one thread's instructions ---- */

static inline uint32_t niti_permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t both = (uint64_t)b << 32 | a;
  uint32_t d = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t which = selector >> (4 * i) & 15, byte = (uint32_t)(both >> (8 * (which & 7))) & 255;
    d |= (which & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * i);
  }
  return d;
}
static inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) { return niti_permute(a, b, selector & 0x7777u); }
static inline uint32_t niti_pack4(int a, int b, int c, int d) {
  const int all[4] = {a, b, c, d};
  uint32_t word = 0;
  for (int i = 0; i < 4; ++i) word |= (uint32_t)(uint8_t)(all[i] > 127 ? 127 : all[i] < -128 ? -128 : all[i]) << (8 * i);
  return word;
}
static inline uint32_t niti_shift_right(uint32_t v, uint32_t by) { return by > 31 ? 0 : v >> by; }

static inline void niti_emulated_check(const void *at, size_t size) {
  if ((uintptr_t)at % size != 0) niti_emulated_fail("a load or store that is not aligned");
}
static inline void niti_store_if(bool p, void *at, uint4 v) {
  if (p) niti_emulated_check(at, sizeof v), *(uint4 *)at = v;
}
static inline void niti_store_if(bool p, void *at, uint2 v) {
  if (p) niti_emulated_check(at, sizeof v), *(uint2 *)at = v;
}
static inline uint4 niti_load_if(bool p, const void *at) {
  if (p) niti_emulated_check(at, sizeof(uint4));
  return p ? *(const uint4 *)at : make_uint4(0, 0, 0, 0);
}
template <typename T>
static inline T niti_emulated_load(const T *at) {
  niti_emulated_check(at, sizeof(T));
  return *at;
}
template <typename T>
static inline T __ldg(const T *at) {
  return niti_emulated_load(at);
}
template <typename T>
static inline T __ldcg(const T *at) {
  return niti_emulated_load(at);
}
template <typename T>
static inline T __ldcs(const T *at) {
  return niti_emulated_load(at);
}
template <typename T>
static inline void __stcs(T *at, T value) {
  niti_emulated_check(at, sizeof(T));
  *at = value;
}

template <typename T>
static inline T niti_emulated_exchange(T *at, T now) {
  const T old = *at;
  *at = now;
  return old;
}
template <typename T>
static inline T atomicAdd(T *at, T by) {
  return niti_emulated_exchange(at, (T)((unsigned long long)*at + (unsigned long long)by));
}
template <typename T>
static inline T atomicMax(T *at, T with) {
  return niti_emulated_exchange(at, *at > with ? *at : with);
}
static inline uint32_t niti_count_up(uint32_t *counter) { return atomicAdd(counter, 1u); }

int64_t niti_device_nanoseconds();

static inline uint32_t __umulhi(uint32_t a, uint32_t b) { return (uint32_t)((uint64_t)a * b >> 32); }
static inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) c = (int)((uint32_t)c + (uint32_t)((int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i)));
  return c;
}
static inline uint32_t __dp2a_lo(uint32_t a, uint32_t b, uint32_t c) {
  return c + (a & 0xffff) * (b & 255) + (a >> 16) * (b >> 8 & 255);
}

/* Lane by lane of two int16 or four int8. */
template <typename T, typename F>
static inline uint32_t niti_emulated_lanes(uint32_t a, uint32_t b, F f) {
  T as[4 / sizeof(T)], bs[4 / sizeof(T)];
  memcpy(as, &a, 4);
  memcpy(bs, &b, 4);
  for (size_t i = 0; i < 4 / sizeof(T); ++i) as[i] = (T)f(as[i], bs[i]);
  memcpy(&a, as, 4);
  return a;
}
static inline uint32_t __vmins2(uint32_t a, uint32_t b) {
  return niti_emulated_lanes<int16_t>(a, b, [](int x, int y) { return x < y ? x : y; });
}
static inline uint32_t __vmaxs2(uint32_t a, uint32_t b) {
  return niti_emulated_lanes<int16_t>(a, b, [](int x, int y) { return x > y ? x : y; });
}
static inline uint32_t __vmins4(uint32_t a, uint32_t b) {
  return niti_emulated_lanes<int8_t>(a, b, [](int x, int y) { return x < y ? x : y; });
}
static inline uint32_t __vcmpgts4(uint32_t a, uint32_t b) {
  return niti_emulated_lanes<int8_t>(a, b, [](int x, int y) { return x > y ? -1 : 0; });
}
static inline uint32_t __vcmpeq4(uint32_t a, uint32_t b) {
  return niti_emulated_lanes<int8_t>(a, b, [](int x, int y) { return x == y ? -1 : 0; });
}

template <typename A, typename B>
static inline auto min(A a, B b) -> decltype(a + b) {
  return a < b ? a : b;
}
template <typename A, typename B>
static inline auto max(A a, B b) -> decltype(a + b) {
  return a > b ? a : b;
}
static inline uint32_t umax(uint32_t a, uint32_t b) { return max(a, b); }
static inline int __vimax3_s32(int a, int b, int c) { return max(max(a, b), c); }
static inline int __vimin3_s32(int a, int b, int c) { return min(min(a, b), c); }
}
#endif
