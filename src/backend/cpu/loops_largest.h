/* Magnitudes of rows: plain loops, which every file of loops includes and the compiler turns into vectors. */
#ifndef NITI_BACKEND_CPU_LOOPS_LARGEST_H
#define NITI_BACKEND_CPU_LOOPS_LARGEST_H

#include "backend/cpu/loops.h"

static uint32_t largest16(const int16_t *x, size_t count) {
  int16_t least = 0, most = 0;
  for (size_t i = 0; i < count; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  return (uint32_t)(-least > most ? -least : most);
}

static uint32_t count_above16(const int16_t *x, size_t count, int16_t limit) {
  uint32_t above = 0;
  for (size_t i = 0; i < count; ++i) above += x[i] > limit || x[i] < -limit;
  return above;
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

#endif
