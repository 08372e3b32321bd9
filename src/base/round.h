/* Integer rounding, clipping and bit counts: the definitions, inline, shared by every backend (C and CUDA).
 * docs/arithmetic.md, "Rounding" and "Requantise". */
#ifndef NITI_BASE_ROUND_H
#define NITI_BASE_ROUND_H

#include "niti.h"

#ifdef __CUDACC__
#define NITI_INLINE static inline __host__ __device__
#else
#define NITI_INLINE static inline
#endif

enum {
  NITI_MANTISSA_MAX = 127,
  NITI_MANTISSA_BITS = 7,
};

NITI_INLINE int niti_bits_inline(uint64_t v) {
  int b = 0;
  if (v <= 1) return 0;
#if defined(__CUDA_ARCH__)
  b = 64 - __clzll((long long)(v - 1));
#else
  b = 64 - __builtin_clzll(v - 1);
#endif
  return b;
}

NITI_INLINE int niti_shift_inline(uint32_t max) {
  const int b = niti_bits_inline(max);
  return b > NITI_MANTISSA_BITS ? b - NITI_MANTISSA_BITS : 0;
}

/* The same where values beyond the largest / 2^clip are clipped. */
NITI_INLINE int niti_clipped_shift(uint32_t max, int clip) {
  const int shift = niti_bits_inline(max) - NITI_MANTISSA_BITS - clip;
  return shift > 0 ? shift : 0;
}

NITI_INLINE int8_t niti_clip8(int64_t v) {
  const int64_t most = NITI_MANTISSA_MAX;
  return (int8_t)(v > most ? most : v < -most ? -most : v);
}

/* The magnitude x / 2^s, s >= 0, |x| < 2^62. */
NITI_INLINE uint64_t niti_round_magnitude(uint64_t x, int s, NitiRounding mode, uint32_t word) {
  const uint64_t q = x >> s, r = x & (((uint64_t)1 << s) - 1);
  if (s == 0) return x;
  if (mode == NITI_NEAREST) return (x + ((uint64_t)1 << (s - 1))) >> s;
  if (mode == NITI_PSEUDO_STOCHASTIC) {
    const int h = s / 2;
    const uint64_t hi = r >> h, lo = (r & (((uint64_t)1 << h) - 1)) << (s & 1);
    return q + (hi > lo ? 1u : 0u);
  }
  if (mode == NITI_STOCHASTIC_BYTE) return q + ((s > 9 ? r >> (s - 9) : r << (9 - s)) > 2 * (uint64_t)(word & 255) ? 1u : 0u);
  if (mode == NITI_STOCHASTIC) return q + ((uint64_t)(word >> (32 - s)) < r ? 1u : 0u);
  return q;
}

NITI_INLINE int64_t niti_round_inline(int64_t x, int s, NitiRounding mode, uint32_t word) {
  const int64_t m = (int64_t)niti_round_magnitude(x < 0 ? (uint64_t)-x : (uint64_t)x, s, mode, word);
  return x < 0 ? -m : m;
}

#endif
