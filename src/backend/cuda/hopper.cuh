/* Hopper's asynchronous instructions, one thin function each: barriers in shared memory, bulk copies, wgmma. Bodies exist for
 * sm_90a alone; elsewhere they are empty so that one source builds for every device. */
#ifndef NITI_BACKEND_CUDA_HOPPER_CUH
#define NITI_BACKEND_CUDA_HOPPER_CUH

#include <cuda.h> /* CUtensorMap */

#include "backend/cuda/device.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define NITI_SM90(...) __VA_ARGS__
#else
#define NITI_SM90(...)
#endif

/* ---- barriers ---- */
__device__ inline void niti_barrier_init(uint32_t barrier, uint32_t arrivals) {
  NITI_SM90(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");)
}
/* Makes initialised barriers visible to the copy engine and to the cluster. */
__device__ inline void niti_barrier_publish() { NITI_SM90(asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");) }
__device__ inline void niti_barrier_expect(uint32_t barrier, uint32_t bytes) {
  NITI_SM90(asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");)
}
__device__ inline void niti_barrier_arrive(uint32_t barrier) {
  NITI_SM90(asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");)
}
__device__ inline void niti_barrier_arrive(uint32_t barrier, uint32_t times) {
  NITI_SM90(asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(times) : "memory");)
}
/* The same barrier of the cluster's block `rank`. */
__device__ inline void niti_barrier_arrive_at(uint32_t barrier, uint32_t rank) {
  NITI_SM90(asm volatile("{\n\t.reg .b32 remote;\n\t"
                         "mapa.shared::cluster.u32 remote, %0, %1;\n\t"
                         "mbarrier.arrive.shared::cluster.b64 _, [remote];\n\t}" ::"r"(barrier),
                         "r"(rank)
                         : "memory");)
}
/* Waits until the phase of this parity has ended. */
__device__ inline void niti_barrier_wait(uint32_t barrier, uint32_t parity) {
  NITI_SM90(asm volatile("{\n\t.reg .pred done;\n\t"
                         "again:\n\t"
                         "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
                         "@done bra ended;\n\t"
                         "bra again;\n\t"
                         "ended:\n\t}" ::"r"(barrier),
                         "r"(parity)
                         : "memory");)
}
/* The first lane's value, which the compiler then knows to be the same in all of the warp. */
__device__ inline int niti_uniform(int value) { return __shfl_sync(0xffffffffu, value, 0); }
/* Waits for `threads` threads of the block, whole warps that all come here; number: 1 .. 15, their own. */
__device__ inline void niti_barrier_some(uint32_t number, uint32_t threads) {
  NITI_SM90(asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");)
}
/* ---- clusters ---- */
__device__ inline uint32_t niti_cluster_rank() {
  uint32_t rank = 0;
  NITI_SM90(asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));)
  return rank;
}
__device__ inline void niti_cluster_sync() {
  NITI_SM90(asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");)
}

/* ---- copies into shared memory that complete on a barrier ---- */
__device__ inline void niti_copy_box(uint32_t to, const CUtensorMap *map, uint32_t barrier, int c0, int c1, int c2, int c3) {
  NITI_SM90(asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
                         "%6}], [%2];" ::"r"(to),
                         "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                         : "memory");)
}
/* To the same place of every block in `mask`, completing on each one's barrier. */
__device__ inline void niti_copy_run_to(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier, uint16_t mask) {
  NITI_SM90(asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, "
                         "[%3], %4;" ::"r"(to),
                         "l"(from), "r"(bytes), "r"(barrier), "h"(mask)
                         : "memory");)
}
__device__ inline void niti_prefetch_map(const CUtensorMap *map) {
  NITI_SM90(asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");)
}

/* ---- wgmma ---- */
__device__ inline void niti_wgmma_fence() { NITI_SM90(asm volatile("wgmma.fence.sync.aligned;" ::: "memory");) }
__device__ inline void niti_wgmma_commit() { NITI_SM90(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");) }
template <int PENDING>
__device__ inline void niti_wgmma_wait() {
  NITI_SM90(asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");)
}
template <int REGISTERS>
__device__ inline void niti_registers_raise() {
  NITI_SM90(asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));)
}
template <int REGISTERS>
__device__ inline void niti_registers_lower() {
  NITI_SM90(asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));)
}

/* Shared-memory matrix descriptors, K-major. Strides in bytes: across 8-row groups, and (unswizzled only) across 16-byte columns.
 */
enum NitiSwizzle { NITI_SWIZZLE_NONE = 0, NITI_SWIZZLE_64 = 2 };
/* Only the lower word tells where a matrix is; a step of 16 bytes adds 1. The upper word is a constant, so that the instructions'
 * uniform registers are filled from one word and not from a sum of 64 bits. */
__device__ inline uint32_t niti_descriptor(uint32_t address, uint32_t column_stride) {
  return (address & 0x3ffff) >> 4 | (column_stride >> 4) << 16;
}
__host__ __device__ constexpr uint32_t niti_descriptor_layout(NitiSwizzle swizzle, uint32_t group_stride) {
  return group_stride >> 4 | (uint32_t)swizzle << 30;
}

#define NITI_R4(a, i) "+r"(a[i]), "+r"(a[i + 1]), "+r"(a[i + 2]), "+r"(a[i + 3])
#define NITI_R16(a, i) NITI_R4(a, i), NITI_R4(a, i + 4), NITI_R4(a, i + 8), NITI_R4(a, i + 12)

/* acc [64][2 N] (+)= A [64][32] B [2 N][32]^T, both in shared memory, of the same LAYOUT; N: 64 or 32. add false: overwrites.
 * Thread t of the warpgroup holds in acc[4 j + 2 i + b] the element at row 16 (t / 32) + t % 32 / 4 + 8 i, column 8 j + 2 (t % 4)
 * + b. */
template <uint32_t LAYOUT>
__device__ inline void niti_wgmma(int (&acc)[64], uint32_t a, uint32_t b, bool add) {
  NITI_SM90(
      asm volatile("{\n\t.reg .pred p;\n\t.reg .b64 x, y;\n\tsetp.ne.b32 p, %66, 0;\n\t"
                   "mov.b64 x, {%64, %67};\n\tmov.b64 y, {%65, %67};\n\t"
                   "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 "
                   "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
                   "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
                   "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                   "x, y, p;\n\t}"
                   : NITI_R16(acc, 0), NITI_R16(acc, 16), NITI_R16(acc, 32), NITI_R16(acc, 48)
                   : "r"(a), "r"(b), "r"((int)add), "r"(LAYOUT));)
}
template <uint32_t LAYOUT>
__device__ inline void niti_wgmma(int (&acc)[32], uint32_t a, uint32_t b, bool add) {
  NITI_SM90(
      asm volatile("{\n\t.reg .pred p;\n\t.reg .b64 x, y;\n\tsetp.ne.b32 p, %34, 0;\n\t"
                   "mov.b64 x, {%32, %35};\n\tmov.b64 y, {%33, %35};\n\t"
                   "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 "
                   "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
                   "%23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                   "x, y, p;\n\t}"
                   : NITI_R16(acc, 0), NITI_R16(acc, 16)
                   : "r"(a), "r"(b), "r"((int)add), "r"(LAYOUT));)
}

#endif
