/* Scalars: integers with 31 significant bits and an exponent of their own, for the few numbers per tensor or channel from which
 * an operation's multipliers are made. Inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Scalars". */
#ifndef NITI_BASE_SCALAR_H
#define NITI_BASE_SCALAR_H

#include "base/round.h"

/* Functions that a GPU calls instead of repeating their code: it runs once per step, and instructions from memory cost more than
 * the calls. */
#ifdef __CUDACC__
#define NITI_CALLED static inline __host__ __device__ __noinline__
#else
#define NITI_CALLED static inline
#endif

/* m * 2^e; 2^30 <= |m| < 2^31, or m = e = 0. Every operation truncates magnitudes. */
typedef struct NitiScalar {
  int64_t m;
  int32_t e;
} NitiScalar;

NITI_INLINE int niti_leading_zeros(uint64_t v) { /* v > 0 */
#if defined(__CUDA_ARCH__)
  return __clzll((long long)v);
#else
  return __builtin_clzll(v);
#endif
}

NITI_INLINE uint64_t niti_magnitude64(int64_t x) { return x < 0 ? 0 - (uint64_t)x : (uint64_t)x; }

/* x * 2^e, |x| < 2^63. */
NITI_INLINE NitiScalar niti_scalar(int64_t x, int32_t e) {
  const NitiScalar zero = {0, 0};
  if (x == 0) return zero;
  const uint64_t magnitude = niti_magnitude64(x);
  const int zeros = niti_leading_zeros(magnitude);
  const int64_t m = (int64_t)(magnitude << zeros >> 33);
  const NitiScalar s = {x < 0 ? -m : m, e + 33 - zeros};
  return s;
}

NITI_INLINE NitiScalar niti_scalar_mul(NitiScalar a, NitiScalar b) { return niti_scalar(a.m * b.m, a.e + b.e); }

/* A digit of 16 bits of rest * 2^16 / d, rest < d, 2^31 <= d: the estimate from d's upper half is at most 2 too large. */
NITI_INLINE uint32_t niti_quotient_digit(uint32_t rest, uint32_t d) {
  const uint32_t high = d >> 16, low = d & 0xffff;
  uint32_t digit = rest / high, left = rest - digit * high;
  for (int i = 0; i < 2 && left < 1u << 16; ++i) {
    if (digit < 1u << 16 && digit * low <= left << 16) break;
    --digit;
    left += high;
  }
  return digit;
}

/* floor(n * 2^32 / d), n < 2^31, 2^30 <= d < 2^31, without the division of 64 bits that GPUs and small processors lack:
 * D. E. Knuth, "The Art of Computer Programming", volume 2, algorithm D of 4.3.1. */
NITI_INLINE uint64_t niti_quotient(uint32_t n, uint32_t d) {
  const uint32_t unit = n >= d, rest = 2 * (n - (unit ? d : 0)), first = niti_quotient_digit(rest, 2 * d);
  const uint32_t second = niti_quotient_digit((rest << 16) - first * (2 * d), 2 * d);
  return (uint64_t)unit << 32 | first << 16 | second;
}

/* a / b, b != 0. */
NITI_CALLED NitiScalar niti_scalar_div(NitiScalar a, NitiScalar b) {
  const int64_t q = (int64_t)niti_quotient((uint32_t)niti_magnitude64(a.m), (uint32_t)niti_magnitude64(b.m));
  return niti_scalar((a.m < 0) == (b.m < 0) ? q : -q, a.e - b.e - 32);
}

NITI_CALLED NitiScalar niti_scalar_add(NitiScalar a, NitiScalar b) {
  if (a.m == 0) return b;
  if (b.m == 0) return a;
  const bool swap = a.e < b.e;
  const NitiScalar large = swap ? b : a, small = swap ? a : b;
  const int32_t d = large.e - small.e;
  const int64_t rest = d > 62 ? 0 : (int64_t)((niti_magnitude64(small.m) << 31) >> d);
  return niti_scalar(large.m * ((int64_t)1 << 31) + (small.m < 0 ? -rest : rest), large.e - 31);
}

NITI_INLINE NitiScalar niti_scalar_neg(NitiScalar a) {
  const NitiScalar s = {-a.m, a.e};
  return s;
}

/* floor(sqrt(x)), x < 2^62: a bit at a time, from two of x. rest <= 2 root, so that 32 bits hold all but the last comparison. */
NITI_INLINE uint32_t niti_sqrt_floor(uint64_t x) {
  uint32_t root = 0, rest = 0;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
  for (int i = 60; i > 0; i -= 2) {
    const uint32_t trial = 4 * root + 1, left = 4 * rest + ((uint32_t)(x >> i) & 3);
    rest = left >= trial ? left - trial : left;
    root = 2 * root + (left >= trial ? 1 : 0);
  }
  return 2 * root + (4 * (uint64_t)rest + (x & 3) > 4 * (uint64_t)root ? 1 : 0);
}

/* The square root of a >= 0. */
NITI_CALLED NitiScalar niti_scalar_sqrt(NitiScalar a) {
  const int odd = a.e & 1; /* of two's complement: right for negative exponents too */
  const NitiScalar s = {(int64_t)niti_sqrt_floor((uint64_t)a.m << (30 + odd)), (a.e - 30 - odd) / 2};
  return a.m == 0 ? a : s;
}

/* The integer nearest to a / 2^e, ties away from zero, clipped to [-limit, limit]; 0 < limit < 2^62. */
NITI_INLINE int64_t niti_scalar_fixed(NitiScalar a, int32_t e, int64_t limit) {
  const int32_t s = e - a.e; /* to the right */
  if (a.m == 0 || s > 32) return 0;
  if (s < -31) return a.m < 0 ? -limit : limit;
  const uint64_t magnitude = niti_magnitude64(a.m);
  const uint64_t v = s > 0 ? (magnitude + ((uint64_t)1 << (s - 1))) >> s : magnitude << -s;
  const int64_t clipped = v > (uint64_t)limit ? limit : (int64_t)v;
  return a.m < 0 ? -clipped : clipped;
}

/* x * a / 2^e rounded to the nearest integer, ties upwards; |x| < 2^31. Where the shift would be to the left the result is
 * +-2^62. */
NITI_INLINE int64_t niti_scalar_times(int64_t x, NitiScalar a, int32_t e) {
  const int64_t product = x * a.m, most = (int64_t)1 << 62;
  const int32_t s = e - a.e;
  if (product == 0 || s > 62) return 0;
  if (s < 0) return product < 0 ? -most : most;
  return s == 0 ? product : (product + ((int64_t)1 << (s - 1))) >> s;
}

#endif
