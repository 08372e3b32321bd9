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
  int32_t m, e;
} NitiScalar;

NITI_INLINE int niti_leading_zeros(uint64_t v) { /* v > 0 */
#if defined(__CUDA_ARCH__)
  return __clzll((long long)v);
#else
  return __builtin_clzll(v);
#endif
}

NITI_INLINE int niti_leading_zeros32(uint32_t v) { /* v > 0 */
#if defined(__CUDA_ARCH__)
  return __clz((int)v);
#else
  return niti_leading_zeros(v) - 32;
#endif
}

NITI_INLINE uint64_t niti_magnitude64(int64_t x) { return x < 0 ? 0 - (uint64_t)x : (uint64_t)x; }

NITI_INLINE uint32_t niti_magnitude32(int32_t x) { return x < 0 ? 0 - (uint32_t)x : (uint32_t)x; }

/* The upper half of a product. */
NITI_INLINE uint32_t niti_high(uint32_t a, uint32_t b) { return (uint32_t)((uint64_t)a * b >> 32); }

/* 0 where the magnitude is 0. */
NITI_INLINE NitiScalar niti_scalar_signed(uint32_t magnitude, bool negative, int32_t e) {
  const NitiScalar s = {negative ? -(int32_t)magnitude : (int32_t)magnitude, magnitude == 0 ? 0 : e};
  return s;
}

/* x * 2^e, |x| < 2^63. */
NITI_INLINE NitiScalar niti_scalar(int64_t x, int32_t e) {
  const uint64_t magnitude = niti_magnitude64(x);
  const int zeros = niti_leading_zeros(magnitude | 1);
  return niti_scalar_signed((uint32_t)(magnitude << zeros >> 33), x < 0, e + 33 - zeros);
}

/* The same with |x| < 2^31. */
NITI_INLINE NitiScalar niti_scalar32(int32_t x, int32_t e) {
  const uint32_t magnitude = niti_magnitude32(x);
  const int zeros = niti_leading_zeros32(magnitude | 1);
  return niti_scalar_signed(magnitude << zeros >> 1, x < 0, e + 1 - zeros);
}

/* The product of the magnitudes has 61 or 62 bits. */
NITI_INLINE NitiScalar niti_scalar_mul(NitiScalar a, NitiScalar b) {
  const uint32_t product = niti_high(2 * niti_magnitude32(a.m), 2 * niti_magnitude32(b.m));
  const int32_t more = (int32_t)(product >> 31);
  return niti_scalar_signed(product >> more, (a.m ^ b.m) < 0, a.e + b.e + 30 + more);
}

/* A divisor that is not 0, with what makes dividing by it cheap. */
typedef struct NitiScalarDivisor {
  NitiScalar of;
  uint32_t inverse; /* floor((2^64 - 1) / d) - 2^32, d = 2 |of.m| */
} NitiScalarDivisor;

/* N. Moeller, T. Granlund, "Improved division by invariant integers", IEEE Transactions on Computers 60 (2011): algorithm 3 for
 * words of 32 bits; d is even. */
NITI_INLINE NitiScalarDivisor niti_scalar_divisor(NitiScalar b) {
  const uint32_t d = 2 * niti_magnitude32(b.m);
  const uint32_t v0 = ((1u << 24) - (1u << 14) + (1u << 9)) / (d >> 22);
  const uint32_t v1 = (v0 << 4) - niti_high(v0 * v0, (d >> 11) + 1) - 1;
  const uint32_t v2 = (v1 << 15) + (niti_high(v1, 0u - v1 * (d >> 1)) >> 1);
  const NitiScalarDivisor r = {b, v2 - (uint32_t)(((uint64_t)v2 * d + d) >> 32) - d};
  return r;
}

/* a / b. With n = |a.m| * 2^31, or twice that where |a.m| < |b.m|, the quotient floor(n / d) has 31 bits already. Algorithm 4 of
 * the same article. */
NITI_INLINE NitiScalar niti_scalar_over(NitiScalar a, NitiScalarDivisor b) {
  const uint32_t n = niti_magnitude32(a.m), d = 2 * niti_magnitude32(b.of.m);
  const int32_t less = 2 * n < d;
  const uint64_t dividend = (uint64_t)n << (31 + less), estimate = (dividend >> 32) * b.inverse + dividend;
  uint32_t quotient = (uint32_t)(estimate >> 32) + 1, rest = (uint32_t)dividend - quotient * d;
  if (rest > (uint32_t)estimate) {
    --quotient;
    rest += d;
  }
  if (rest >= d) ++quotient;
  return niti_scalar_signed(n == 0 ? 0 : quotient, (a.m ^ b.of.m) < 0, a.e - b.of.e - 30 - less);
}

/* a / b, b != 0. */
NITI_CALLED NitiScalar niti_scalar_div(NitiScalar a, NitiScalar b) { return niti_scalar_over(a, niti_scalar_divisor(b)); }

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

/* floor(sqrt(x)), 2^60 <= x < 2^62. With h = floor(x / 2^30), y is 2^47 / sqrt(h), never too large: a straight line, at most 2.7
 * % off, and two of Newton's steps y (3 - h y^2 / 2^94) / 2, after which it is at most 2 * 10^-6 too small. So `first` is at most
 * 2^13 too small, its rest is below 2^45, and after another step the root is at most 1 too small or too large. */
NITI_INLINE uint32_t niti_root(uint64_t x) {
  const uint32_t h = (uint32_t)(x >> 30), three = (3u << 30) - 2; /* 2: what the products cut off below */
  const bool top = h >> 31;
  uint32_t y = (top ? 3869121304u : 1176821039u) - niti_high(top ? h : 2 * h, top ? 1779033703u : 2515933592u);
  y = 2 * niti_high(y, three - niti_high(niti_high(y, y), h));
  y = 2 * niti_high(y, three - niti_high(niti_high(y, y), h));
  const uint32_t first = niti_high(h, y);
  const uint32_t root = first + (niti_high((uint32_t)((x - (uint64_t)first * first) >> 13), y) >> 18);
  const int64_t rest = (int64_t)(x - (uint64_t)root * root);
  return rest < 0 ? root - 1 : rest > 2 * (int64_t)root ? root + 1 : root;
}

/* floor(sqrt(x)), x < 2^62. */
NITI_INLINE uint32_t niti_sqrt_floor(uint64_t x) {
  const int pairs = (niti_leading_zeros(x | 1) - 2) / 2;
  return x == 0 ? 0 : niti_root(x << 2 * pairs) >> pairs;
}

/* The square root of a >= 0. */
NITI_CALLED NitiScalar niti_scalar_sqrt(NitiScalar a) {
  const int odd = a.e & 1; /* of two's complement: right for negative exponents too */
  const uint32_t root = niti_root((uint64_t)niti_magnitude32(a.m) << (30 + odd));
  return niti_scalar_signed(a.m == 0 ? 0 : root, false, (a.e - 30 - odd) / 2);
}

/* The integer nearest to a / 2^e, ties away from zero, clipped to [-limit, limit]; 0 < limit < 2^62. */
NITI_INLINE int64_t niti_scalar_fixed(NitiScalar a, int32_t e, int64_t limit) {
  const int32_t s = e - a.e;       /* to the right */
  if (limit <= (int64_t)1 << 30) { /* which no shift to the left leaves below it: 32 bits are enough */
    const uint32_t m = niti_magnitude32(a.m), near = s > 31 ? 0 : s < 1 ? UINT32_MAX : (m + (1u << (s - 1))) >> s;
    const int64_t least = m == 0 ? 0 : near > (uint64_t)limit ? limit : (int64_t)near;
    return a.m < 0 ? -least : least;
  }
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
