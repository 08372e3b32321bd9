/* The largest magnitudes of rows, sums of their squares and update `niti` at a fractional mu: plain loops, which every file of
 * loops includes and the compiler turns into vectors. */
#ifndef NITI_BACKEND_CPU_LOOPS_LARGEST_H
#define NITI_BACKEND_CPU_LOOPS_LARGEST_H

#include "backend/cpu/loops.h"
#include "base/clip.h"

static uint32_t largest16(const int16_t *x, size_t count) {
  int16_t least = 0, most = 0;
  for (size_t i = 0; i < count; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  return (uint32_t)(-least > most ? -least : most);
}

static NitiSpread spread16(const int16_t *x, size_t count, int16_t low, int16_t high) {
  int16_t least = 0, most = 0;
  uint16_t above_low = 0, above_high = 0;
  for (size_t i = 0; i < count; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
    above_low = (uint16_t)(above_low + (x[i] > low || x[i] < -low));
    above_high = (uint16_t)(above_high + (x[i] > high || x[i] < -high));
  }
  return (NitiSpread){(uint32_t)(-least > most ? -least : most), above_low, above_high};
}

static uint64_t largest32(const int32_t *x, size_t count) {
  int32_t least = 0, most = 0;
  for (size_t i = 0; i < count; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  const int64_t low = -(int64_t)least;
  return (uint64_t)(low > most ? low : most);
}

static uint64_t largest64(const int64_t *x, size_t count) {
  int64_t least = 0, most = 0;
  for (size_t i = 0; i < count; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  return niti_magnitude64(least) > (uint64_t)most ? niti_magnitude64(least) : (uint64_t)most;
}

static uint64_t squares32(const int32_t *x, size_t count, int shift) {
  const uint32_t half = shift > 0 ? 1u << (shift - 1) : 0; /* |x| + half < 2^32 */
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t negative = (uint32_t)(x[i] >> 31), m = (((uint32_t)x[i] ^ negative) - negative + half) >> shift;
    sum += (uint64_t)m * m;
  }
  return sum;
}

static uint64_t squares64(const int64_t *x, size_t count, int shift) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum += niti_square(x[i], shift);
  return sum;
}

/* |g| * factor < 2^48, and the halves of what is rounded off are compared in 32 bits. */
static void update_fraction(int8_t *restrict w, const int32_t *restrict g, size_t count, const NitiMu *mu) {
  const int shift = mu->shift + NITI_MU_FACTOR_BITS, half = shift / 2, odd = shift & 1;
  const uint64_t factor = mu->factor, mask = ((uint64_t)1 << shift) - 1, low = ((uint64_t)1 << half) - 1;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t negative = (uint32_t)(g[i] >> 31), m = ((uint32_t)g[i] ^ negative) - negative;
    const uint64_t product = m * factor, rest = product & mask;
    const int32_t up = (int32_t)(rest >> half) > (int32_t)((rest & low) << odd) ? 1 : 0;
    const uint64_t q = product >> shift;
    const int32_t step = (int32_t)(q > NITI_MANTISSA_MAX ? NITI_MANTISSA_MAX : q) + up;
    const int32_t clipped = step > NITI_MANTISSA_MAX ? NITI_MANTISSA_MAX : step;
    w[i] = niti_update_step(w[i], (int8_t)(((uint32_t)clipped ^ negative) - negative));
  }
}

#endif
