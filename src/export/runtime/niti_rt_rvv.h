/* The inner loops in instructions of the RISC-V vector extension (Zve32x and all that include it), as inline assembly. vsetvli
 * asks the processor how many elements it takes at a time, so the same code runs at every length of its registers (VLEN), from 32
 * bits on, and no result depends on that length. No instruction is of floating point; words are loaded where int32 lie, and all
 * else by bytes, at any address. The program switches the vector unit on (mstatus.VS) before it calls the network.
 *
 * In the assembly n elements are left, and a turn takes t. "vsetvli zero, zero" goes on with as many elements of another size. */
#ifndef NITI_RT_RVV_H
#define NITI_RT_RVV_H

#include <stdint.h>

/* What changes besides the operands; that assembly may change vl and vtype, compilers know. gcc knows no vector registers before
 * version 13, and uses none. */
#if defined(__clang__) || __GNUC__ > 12
#define RT_V_CHANGES                                                                                                            \
  "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", \
      "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27"
#else
#define RT_V_CHANGES "memory"
#endif

/* Clears n bytes, n >= 1. */
RT_UNUSED static inline void rt_v_zero(void *p, int32_t n) {
  int32_t t;
  __asm__ volatile(
      "vsetvli %[t], zero, e8, m8, ta, ma\n"
      "vmv.v.i v0, 0\n"
      "1: vsetvli %[t], %[n], e8, m8, ta, ma\n"
      "vse8.v v0, (%[p])\n"
      "add %[p], %[p], %[t]\n"
      "sub %[n], %[n], %[t]\n"
      "bnez %[n], 1b\n"
      : [t] "=&r"(t), [n] "+r"(n), [p] "+r"(p)
      :
      : RT_V_CHANGES);
}

/* Copies n bytes, n >= 1. */
RT_UNUSED static inline void rt_v_copy(int8_t *to, const int8_t *from, int32_t n) {
  int32_t t;
  __asm__ volatile(
      "1: vsetvli %[t], %[n], e8, m8, ta, ma\n"
      "vle8.v v0, (%[from])\n"
      "vse8.v v0, (%[to])\n"
      "add %[from], %[from], %[t]\n"
      "add %[to], %[to], %[t]\n"
      "sub %[n], %[n], %[t]\n"
      "bnez %[n], 1b\n"
      : [t] "=&r"(t), [n] "+r"(n), [to] "+r"(to), [from] "+r"(from)
      :
      : RT_V_CHANGES);
}

/* acc[r] = the sum of a[i] * b[r * stride + i] over i < n, for four rows of b; n >= 1. 24 instructions for as many products as 16
 * registers have bytes. */
RT_UNUSED static inline void rt_v_dot4(int32_t acc[4], const int8_t *a, const int8_t *b, int32_t stride, int32_t n) {
  const int8_t *b0 = b, *b1 = b0 + stride, *b2 = b1 + stride, *b3 = b2 + stride;
  int32_t s0, s1, s2, s3, t;
  __asm__ volatile(
      "vsetivli zero, 1, e32, m1, ta, ma\n"
      "vmv.v.i v24, 0\n"
      "vmv.v.i v25, 0\n"
      "vmv.v.i v26, 0\n"
      "vmv.v.i v27, 0\n"
      "1: vsetvli %[t], %[n], e8, m4, ta, ma\n"
      "vle8.v v0, (%[a])\n"
      "vle8.v v4, (%[b0])\n"
      "vwmul.vv v8, v0, v4\n"
      "vle8.v v4, (%[b1])\n"
      "vwmul.vv v16, v0, v4\n"
      "add %[a], %[a], %[t]\n"
      "add %[b0], %[b0], %[t]\n"
      "add %[b1], %[b1], %[t]\n"
      "vsetvli zero, zero, e16, m8, ta, ma\n"
      "vwredsum.vs v24, v8, v24\n"
      "vwredsum.vs v25, v16, v25\n"
      "vsetvli zero, zero, e8, m4, ta, ma\n"
      "vle8.v v4, (%[b2])\n"
      "vwmul.vv v8, v0, v4\n"
      "vle8.v v4, (%[b3])\n"
      "vwmul.vv v16, v0, v4\n"
      "add %[b2], %[b2], %[t]\n"
      "add %[b3], %[b3], %[t]\n"
      "sub %[n], %[n], %[t]\n"
      "vsetvli zero, zero, e16, m8, ta, ma\n"
      "vwredsum.vs v26, v8, v26\n"
      "vwredsum.vs v27, v16, v27\n"
      "bnez %[n], 1b\n"
      "vsetivli zero, 1, e32, m1, ta, ma\n"
      "vmv.x.s %[s0], v24\n"
      "vmv.x.s %[s1], v25\n"
      "vmv.x.s %[s2], v26\n"
      "vmv.x.s %[s3], v27\n"
      : [s0] "=&r"(s0), [s1] "=&r"(s1), [s2] "=&r"(s2), [s3] "=&r"(s3), [t] "=&r"(t), [n] "+r"(n), [a] "+r"(a), [b0] "+r"(b0),
        [b1] "+r"(b1), [b2] "+r"(b2), [b3] "+r"(b3)
      :
      : RT_V_CHANGES);
  acc[0] = s0;
  acc[1] = s1;
  acc[2] = s2;
  acc[3] = s3;
}

/* The sum of a[i] * b[i] over i < n; n >= 1. */
RT_UNUSED static inline int32_t rt_v_dot1(const int8_t *a, const int8_t *b, int32_t n) {
  int32_t s, t;
  __asm__ volatile(
      "vsetivli zero, 1, e32, m1, ta, ma\n"
      "vmv.v.i v24, 0\n"
      "1: vsetvli %[t], %[n], e8, m4, ta, ma\n"
      "vle8.v v0, (%[a])\n"
      "vle8.v v4, (%[b])\n"
      "vwmul.vv v8, v0, v4\n"
      "vsetvli zero, zero, e16, m8, ta, ma\n"
      "vwredsum.vs v24, v8, v24\n"
      "add %[a], %[a], %[t]\n"
      "add %[b], %[b], %[t]\n"
      "sub %[n], %[n], %[t]\n"
      "bnez %[n], 1b\n"
      "vsetivli zero, 1, e32, m1, ta, ma\n"
      "vmv.x.s %[s], v24\n"
      : [s] "=&r"(s), [t] "=&r"(t), [n] "+r"(n), [a] "+r"(a), [b] "+r"(b)
      :
      : RT_V_CHANGES);
  return s;
}

/* Rounds the magnitudes of n values, of which out has the low bytes and high the others: (|v| + half) >> down, at most 127. */
RT_UNUSED static inline void rt_v_finish(int8_t *out, const int8_t *high, int32_t n, int32_t half, int32_t down) {
  const int32_t most = 127;
  int32_t t;
  __asm__ volatile(
      "1: vsetvli %[t], %[n], e16, m4, ta, ma\n"
      "vle8.v v0, (%[out])\n"
      "vle8.v v2, (%[high])\n"
      "vzext.vf2 v4, v0\n"
      "vsext.vf2 v8, v2\n"
      "vsll.vi v8, v8, 8\n"
      "vor.vv v8, v8, v4\n"
      "vsra.vi v4, v8, 15\n"
      "vxor.vv v8, v8, v4\n"
      "vsub.vv v8, v8, v4\n"
      "vadd.vx v8, v8, %[half]\n"
      "vsrl.vx v8, v8, %[down]\n"
      "vminu.vx v8, v8, %[most]\n"
      "vxor.vv v8, v8, v4\n"
      "vsub.vv v8, v8, v4\n"
      "vsetvli zero, zero, e8, m2, ta, ma\n"
      "vnsrl.wi v0, v8, 0\n"
      "vse8.v v0, (%[out])\n"
      "add %[out], %[out], %[t]\n"
      "add %[high], %[high], %[t]\n"
      "sub %[n], %[n], %[t]\n"
      "bnez %[n], 1b\n"
      : [t] "=&r"(t), [n] "+r"(n), [out] "+r"(out), [high] "+r"(high)
      : [half] "r"(half), [down] "r"(down), [most] "r"(most)
      : RT_V_CHANGES);
}

/* Stores the values of 16 bits in v8 as bytes, the low ones at out and the others at high, and goes on to the next. */
#define RT_V_PUT_PLANES          \
  "vnsrl.wi v10, v8, 0\n"        \
  "vnsrl.wi v11, v8, 8\n"        \
  "vse8.v v10, (%[out])\n"       \
  "vse8.v v11, (%[high])\n"      \
  "add %[out], %[out], %[t]\n"   \
  "add %[high], %[high], %[t]\n" \
  "sub %[n], %[n], %[t]\n"

/* Clears n sums, and keeps the low 16 bits of what they were, magnitudes shifted to the right and at most 32767, in two planes of
 * bytes; negative ones as 0, if relu. Returns the largest magnitude, or max. n >= 1. */
RT_UNUSED static inline uint32_t rt_v_keep(int8_t *out, int8_t *high, int32_t *sum, int32_t n, int32_t shift, int32_t relu,
                                           uint32_t max) {
  const int32_t most = 32767, least = relu ? 0 : -most;
  int32_t t;
  __asm__ volatile(
      "vsetvli %[t], zero, e32, m4, ta, ma\n"
      "vmv.v.i v20, 0\n"
      "vmv.s.x v24, %[max]\n"
      "1: vsetvli %[t], %[n], e32, m4, ta, ma\n"
      "vle32.v v0, (%[sum])\n"
      "vse32.v v20, (%[sum])\n"
      "vsra.vi v4, v0, 31\n"
      "vxor.vv v0, v0, v4\n"
      "vsub.vv v0, v0, v4\n"
      "vredmaxu.vs v24, v0, v24\n"
      "vsrl.vx v0, v0, %[shift]\n"
      "vminu.vx v0, v0, %[most]\n"
      "vxor.vv v0, v0, v4\n"
      "vsub.vv v0, v0, v4\n"
      "vmax.vx v0, v0, %[least]\n"
      "vsetvli zero, zero, e16, m2, ta, ma\n"
      "vnsrl.wi v8, v0, 0\n"
      "vsetvli zero, zero, e8, m1, ta, ma\n" RT_V_PUT_PLANES
      "slli %[t], %[t], 2\n"
      "add %[sum], %[sum], %[t]\n"
      "bnez %[n], 1b\n"
      "vsetivli zero, 1, e32, m1, ta, ma\n"
      "vmv.x.s %[max], v24\n"
      : [t] "=&r"(t), [n] "+r"(n), [out] "+r"(out), [high] "+r"(high), [sum] "+r"(sum), [max] "+r"(max)
      : [shift] "r"(shift), [most] "r"(most), [least] "r"(least)
      : RT_V_CHANGES);
  return max;
}

/* Sums of up to RT_V_BLOCK output channels for four windows, each window's together. */
enum { RT_V_BLOCK = 8 };

/* Goes on to the next sums of four windows, if any are left. */
#define RT_V_NEXT_WINDOWS  \
  "slli %[t], %[t], 2\n"   \
  "add %[a], %[a], %[t]\n" \
  "add %[b], %[b], %[t]\n" \
  "add %[c], %[c], %[t]\n" \
  "add %[d], %[d], %[t]\n" \
  "bnez %[n], 1b\n"

/* The largest of four windows' sums, or 0: keeps its low 16 bits, shifted to the right and at most 32767, in two planes of bytes.
 * Returns the largest magnitude of all, or max. n: 1 to RT_V_BLOCK. */
RT_UNUSED static inline uint32_t rt_v_fold(int8_t *out, int8_t *high, const int32_t *acc, int32_t n, int32_t shift,
                                           uint32_t max) {
  const int32_t *a = acc, *b = a + RT_V_BLOCK, *c = b + RT_V_BLOCK, *d = c + RT_V_BLOCK, most = 32767;
  int32_t t;
  __asm__ volatile(
      "vsetivli zero, 1, e32, m1, ta, ma\n"
      "vmv.s.x v24, %[max]\n"
      "1: vsetvli %[t], %[n], e32, m2, ta, ma\n"
      "vle32.v v0, (%[a])\n"
      "vle32.v v2, (%[b])\n"
      "vle32.v v4, (%[c])\n"
      "vle32.v v6, (%[d])\n"
      "vmin.vv v8, v0, v2\n"
      "vmin.vv v10, v4, v6\n"
      "vmax.vv v12, v0, v2\n"
      "vmax.vv v14, v4, v6\n"
      "vmin.vv v8, v8, v10\n"
      "vmax.vv v12, v12, v14\n"
      "vrsub.vi v8, v8, 0\n"
      "vmax.vx v12, v12, zero\n"
      "vmax.vv v8, v8, v12\n"
      "vredmaxu.vs v24, v8, v24\n"
      "vsrl.vx v12, v12, %[shift]\n"
      "vminu.vx v12, v12, %[most]\n"
      "vsetvli zero, zero, e16, m1, ta, ma\n"
      "vnsrl.wi v8, v12, 0\n"
      "vsetvli zero, zero, e8, mf2, ta, ma\n" RT_V_PUT_PLANES RT_V_NEXT_WINDOWS
      "vsetivli zero, 1, e32, m1, ta, ma\n"
      "vmv.x.s %[max], v24\n"
      : [t] "=&r"(t), [n] "+r"(n), [out] "+r"(out), [high] "+r"(high), [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d),
        [max] "+r"(max)
      : [shift] "r"(shift), [most] "r"(most)
      : RT_V_CHANGES);
  return max;
}

#if RT_TRAINING
/* Adds to each of n bytes, from bit `place` on, the first of four windows whose sum rounds to what the largest one rounds to; 0
 * where that is 0. half: 2^(shift - 1) to nearest, 0 to truncate. */
RT_UNUSED static inline void rt_v_winners(uint8_t *winner, const int32_t *acc, int32_t n, int32_t shift, int32_t half,
                                          int32_t place) {
  const int32_t *a = acc, *b = a + RT_V_BLOCK, *c = b + RT_V_BLOCK, *d = c + RT_V_BLOCK, most = 127;
  int32_t t;
  __asm__ volatile(
      "1: vsetvli %[t], %[n], e32, m2, ta, ma\n"
      "vle32.v v2, (%[a])\n"
      "vle32.v v4, (%[b])\n"
      "vle32.v v6, (%[c])\n"
      "vle32.v v8, (%[d])\n"
      "vle8.v v18, (%[winner])\n"
      "vmax.vv v10, v2, v4\n"
      "vmax.vv v12, v6, v8\n"
      "vmax.vv v10, v10, v12\n"
      "vmax.vx v10, v10, zero\n"
      "vadd.vx v10, v10, %[half]\n"
      "vsra.vx v10, v10, %[shift]\n"
      "vmin.vx v12, v10, %[most]\n"
      "vsll.vx v12, v12, %[shift]\n"
      "vsub.vx v12, v12, %[half]\n"
      "vmv.v.i v14, 3\n"
      "vmsle.vv v0, v12, v6\n"
      "vmerge.vim v14, v14, 2, v0\n"
      "vmsle.vv v0, v12, v4\n"
      "vmerge.vim v14, v14, 1, v0\n"
      "vmsle.vv v0, v12, v2\n"
      "vmerge.vim v14, v14, 0, v0\n"
      "vmseq.vi v0, v10, 0\n"
      "vmerge.vim v14, v14, 0, v0\n"
      "vsll.vx v14, v14, %[place]\n"
      "vsetvli zero, zero, e16, m1, ta, ma\n"
      "vnsrl.wi v16, v14, 0\n"
      "vsetvli zero, zero, e8, mf2, ta, ma\n"
      "vnsrl.wi v17, v16, 0\n"
      "vor.vv v17, v17, v18\n"
      "vse8.v v17, (%[winner])\n"
      "add %[winner], %[winner], %[t]\n"
      "sub %[n], %[n], %[t]\n" RT_V_NEXT_WINDOWS
      : [t] "=&r"(t), [n] "+r"(n), [winner] "+r"(winner), [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d)
      : [shift] "r"(shift), [half] "r"(half), [most] "r"(most), [place] "r"(place)
      : RT_V_CHANGES);
}

/* sum[i] += f[0] * row[0][i] + ... of four rows from `offset` on; n >= 1. Factors are from -127 to 127, so the sum of two
 * products fits int16. */
RT_UNUSED static inline void rt_v_add4(int32_t *sum, const int8_t *const row[4], const int8_t f[4], int32_t offset, int32_t n) {
  const int8_t *a = row[0] + offset, *b = row[1] + offset, *c = row[2] + offset, *d = row[3] + offset;
  const int32_t fa = f[0], fb = f[1], fc = f[2], fd = f[3];
  int32_t t;
  __asm__ volatile(
      "1: vsetvli %[t], %[n], e8, m2, ta, ma\n"
      "vle8.v v0, (%[a])\n"
      "vle8.v v2, (%[b])\n"
      "vle8.v v4, (%[c])\n"
      "vle8.v v6, (%[d])\n"
      "vle32.v v16, (%[sum])\n"
      "vwmul.vx v8, v0, %[fa]\n"
      "vwmul.vx v12, v4, %[fc]\n"
      "vwmacc.vx v8, %[fb], v2\n"
      "vwmacc.vx v12, %[fd], v6\n"
      "vsetvli zero, zero, e16, m4, ta, ma\n"
      "vwadd.wv v16, v16, v8\n"
      "vwadd.wv v16, v16, v12\n"
      "vse32.v v16, (%[sum])\n"
      "add %[a], %[a], %[t]\n"
      "add %[b], %[b], %[t]\n"
      "add %[c], %[c], %[t]\n"
      "add %[d], %[d], %[t]\n"
      "sub %[n], %[n], %[t]\n"
      "slli %[t], %[t], 2\n"
      "add %[sum], %[sum], %[t]\n"
      "bnez %[n], 1b\n"
      : [t] "=&r"(t), [n] "+r"(n), [sum] "+r"(sum), [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d)
      : [fa] "r"(fa), [fb] "r"(fb), [fc] "r"(fc), [fd] "r"(fd)
      : RT_V_CHANGES);
}

/* sum[i] += f * a[i]; n >= 1. */
RT_UNUSED static inline void rt_v_add1(int32_t *sum, const int8_t *a, int32_t f, int32_t n) {
  int32_t t;
  __asm__ volatile(
      "1: vsetvli %[t], %[n], e8, m2, ta, ma\n"
      "vle8.v v0, (%[a])\n"
      "vle32.v v16, (%[sum])\n"
      "vwmul.vx v8, v0, %[f]\n"
      "vsetvli zero, zero, e16, m4, ta, ma\n"
      "vwadd.wv v16, v16, v8\n"
      "vse32.v v16, (%[sum])\n"
      "add %[a], %[a], %[t]\n"
      "sub %[n], %[n], %[t]\n"
      "slli %[t], %[t], 2\n"
      "add %[sum], %[sum], %[t]\n"
      "bnez %[n], 1b\n"
      : [t] "=&r"(t), [n] "+r"(n), [sum] "+r"(sum), [a] "+r"(a)
      : [f] "r"(f)
      : RT_V_CHANGES);
}

/* The largest magnitude of n values, or max; n >= 1. */
RT_UNUSED static inline uint32_t rt_v_largest(const int32_t *p, int32_t n, uint32_t max) {
  int32_t t;
  __asm__ volatile(
      "vsetivli zero, 1, e32, m1, ta, ma\n"
      "vmv.s.x v24, %[max]\n"
      "1: vsetvli %[t], %[n], e32, m8, ta, ma\n"
      "vle32.v v0, (%[p])\n"
      "vrsub.vi v8, v0, 0\n"
      "vmax.vv v0, v0, v8\n"
      "vredmaxu.vs v24, v0, v24\n"
      "sub %[n], %[n], %[t]\n"
      "slli %[t], %[t], 2\n"
      "add %[p], %[p], %[t]\n"
      "bnez %[n], 1b\n"
      "vmv.x.s %[max], v24\n"
      : [t] "=&r"(t), [n] "+r"(n), [p] "+r"(p), [max] "+r"(max)
      :
      : RT_V_CHANGES);
  return max;
}

/* w less g / 2^shift, pseudo-stochastic: the upper half of the bits shifted out decides against the lower. shift and n >= 1. */
RT_UNUSED static inline void rt_v_update(int8_t *w, const int32_t *g, int32_t n, int32_t shift) {
  const int32_t half = shift / 2, odd = shift & 1, most = 127, least = -127;
  const uint32_t all = (1u << shift) - 1u, below = (1u << half) - 1u;
  int32_t t;
  __asm__ volatile(
      "1: vsetvli %[t], %[n], e32, m4, ta, mu\n"
      "vle32.v v4, (%[g])\n"
      "vle8.v v24, (%[w])\n"
      "vsra.vi v8, v4, 31\n"
      "vxor.vv v4, v4, v8\n"
      "vsub.vv v4, v4, v8\n"
      "vand.vx v12, v4, %[all]\n"
      "vand.vx v16, v4, %[below]\n"
      "vsrl.vx v12, v12, %[half]\n"
      "vsll.vx v16, v16, %[odd]\n"
      "vmsltu.vv v0, v16, v12\n"
      "vsrl.vx v4, v4, %[shift]\n"
      "vadd.vi v4, v4, 1, v0.t\n"
      "vminu.vx v4, v4, %[most]\n"
      "vxor.vv v4, v4, v8\n"
      "vsub.vv v4, v4, v8\n"
      "vsext.vf4 v12, v24\n"
      "vsub.vv v4, v12, v4\n"
      "vmax.vx v4, v4, %[least]\n"
      "vmin.vx v4, v4, %[most]\n"
      "vsetvli zero, zero, e16, m2, ta, ma\n"
      "vnsrl.wi v8, v4, 0\n"
      "vsetvli zero, zero, e8, m1, ta, ma\n"
      "vnsrl.wi v24, v8, 0\n"
      "vse8.v v24, (%[w])\n"
      "add %[w], %[w], %[t]\n"
      "sub %[n], %[n], %[t]\n"
      "slli %[t], %[t], 2\n"
      "add %[g], %[g], %[t]\n"
      "bnez %[n], 1b\n"
      : [t] "=&r"(t), [n] "+r"(n), [w] "+r"(w), [g] "+r"(g)
      : [shift] "r"(shift), [half] "r"(half), [odd] "r"(odd), [most] "r"(most), [least] "r"(least), [all] "r"(all),
        [below] "r"(below)
      : RT_V_CHANGES);
}
#endif
#endif
