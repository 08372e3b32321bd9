/* What the kernels say in PTX, Hopper's own instructions aside (hopper.cuh). tests/emulated says the same in C++, so that the
 * kernels can be tested where there is no device. */
#ifndef NITI_BACKEND_CUDA_PTX_CUH
#define NITI_BACKEND_CUDA_PTX_CUH

#include <stdint.h>

#if defined(__CUDACC__) && !defined(NITI_EMULATED)

/* The shared memory that a launch asks for. */
#define NITI_DYNAMIC_SHARED(name) extern __shared__ __align__(128) uint8_t name[]

/* Lets the next kernel's blocks launch before this one completes. */
__device__ inline void niti_kernel_announce() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Waits until the kernels before this one have ended and their writes can be seen. Nothing that a kernel wrote or reads may be
 * touched before it. */
__device__ inline void niti_kernel_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* ---- shared memory ---- */
__device__ inline uint32_t niti_shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* 16 bytes to shared memory, or zeros. */
__device__ inline void niti_copy16(uint32_t to, const void *from, bool there) {
  const int bytes = there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void niti_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LATER>
__device__ inline void niti_copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
}

__device__ inline void niti_load_matrices(uint32_t (&to)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

/* acc [16][8] += a [16][32] * b [32][8], int8. A thread (g = lane / 4, q = lane % 4) has acc (g, 2 q), (g, 2 q + 1), (g + 8, 2
 * q), (g + 8, 2 q + 1), and of each row of a and column of b bytes 4 q .. 4 q + 3 and 16 + 4 q .. of the sum. */
__device__ inline void niti_mma(int (&acc)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ inline uint32_t niti_permute(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector)); /* unlike __byte_perm, can replicate signs */
  return d;
}

/* Saturated to int8: byte 0 is a. */
__device__ inline uint32_t niti_pack4(int a, int b, int c, int d) {
  uint32_t high, word;
  asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, 0;" : "=r"(high) : "r"(d), "r"(c));
  asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, %3;" : "=r"(word) : "r"(b), "r"(a), "r"(high));
  return word;
}

__device__ inline uint32_t niti_transpose8x8(uint32_t v) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(v));
  return out;
}

/* Predicated, so that no branch parts the warp. */
__device__ inline void niti_store_if(bool p, void *at, uint4 v) {
  asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %0, 0;\n\t@p st.global.v4.b32 [%1], {%2, %3, %4, %5};\n\t}" ::"r"((int)p),
               "l"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ inline void niti_store_if(bool p, void *at, uint2 v) {
  asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %0, 0;\n\t@p st.global.v2.b32 [%1], {%2, %3};\n\t}" ::"r"((int)p), "l"(at),
               "r"(v.x), "r"(v.y)
               : "memory");
}
__device__ inline uint4 niti_load_if(bool p, const void *at) {
  uint4 v = make_uint4(0, 0, 0, 0);
  asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %4, 0;\n\t@p ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%5];\n\t}"
               : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
               : "r"((int)p), "l"(at));
  return v;
}

/* By 32 or more: 0. */
__device__ inline uint32_t niti_shift_right(uint32_t v, uint32_t by) {
  uint32_t out;
  asm("shr.u32 %0, %1, %2;" : "=r"(out) : "r"(v), "r"(by));
  return out;
}

/* Adds 1, and returns what was there; all that the block's threads wrote before a barrier can be seen by those that see the sum,
 * and the other way round. */
__device__ inline uint32_t niti_count_up(uint32_t *counter) {
  uint32_t old;
  asm volatile("atom.acq_rel.gpu.add.u32 %0, [%1], 1;" : "=r"(old) : "l"(counter) : "memory");
  return old;
}

__device__ inline int64_t niti_device_nanoseconds() {
  int64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

#endif
#endif
