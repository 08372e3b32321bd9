/* Unsigned integers of 128 bits, for the few places that 64 do not suffice, also where the compiler has none. */
#ifndef NITI_BASE_WIDE_H
#define NITI_BASE_WIDE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct NitiWide {
  uint64_t high, low;
} NitiWide;

/* a * b, from products of 32 bits. */
static inline NitiWide niti_wide_product(uint64_t a, uint64_t b) {
  const uint64_t half = UINT32_MAX, a0 = a & half, a1 = a >> 32, b0 = b & half, b1 = b >> 32;
  const uint64_t middle = a1 * b0 + (a0 * b0 >> 32); /* at most (2^32 - 1)^2 + 2^32 - 2 < 2^64 */
  const uint64_t other = a0 * b1 + (middle & half);  /* likewise */
  return (NitiWide){a1 * b1 + (middle >> 32) + (other >> 32), a * b};
}

/* The high 64 bits of a * b, fast. */
static inline uint64_t niti_wide_high(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
  return (uint64_t)((unsigned __int128)a * b >> 64);
#else
  return niti_wide_product(a, b).high;
#endif
}

/* Sums, differences and products are modulo 2^128. */
static inline NitiWide niti_wide_sum(NitiWide a, NitiWide b) {
  const uint64_t low = a.low + b.low;
  return (NitiWide){a.high + b.high + (low < a.low), low};
}

static inline NitiWide niti_wide_difference(NitiWide a, NitiWide b) {
  return (NitiWide){a.high - b.high - (a.low < b.low), a.low - b.low};
}

static inline NitiWide niti_wide_times(NitiWide a, uint64_t b) {
  NitiWide p = niti_wide_product(a.low, b);
  p.high += a.high * b;
  return p;
}

static inline bool niti_wide_less(NitiWide a, NitiWide b) { return a.high != b.high ? a.high < b.high : a.low < b.low; }

/* a / b, rounded down, and the rest in *a; b in 1 .. 2^127. UINT64_MAX if it is that or more. Bit by bit. */
static inline uint64_t niti_wide_divide(NitiWide *a, NitiWide b) {
  NitiWide rest = {0, 0};
  uint64_t quotient = 0, over = 0;
  for (int bit = 127; bit >= 0; --bit) {
    rest.high = rest.high << 1 | rest.low >> 63;
    rest.low = rest.low << 1 | ((bit >= 64 ? a->high >> (bit - 64) : a->low >> bit) & 1);
    over |= quotient >> 63;
    quotient <<= 1;
    if (niti_wide_less(rest, b)) continue;
    rest = niti_wide_difference(rest, b);
    quotient |= 1;
  }
  *a = rest;
  return over ? UINT64_MAX : quotient;
}

#endif
