/* The peak of sdot. */
#include <arm_neon.h>

#include "backend/cpu/peak.h"

enum { SUMS = 16 };

uint64_t niti_peak_dotprod(uint32_t rounds) {
  int32x4_t sum[SUMS];
  const int8x16_t one = vdupq_n_s8(1);
  for (int i = 0; i < SUMS; ++i) sum[i] = vdupq_n_s32(0);
  for (uint32_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; ++i) sum[i] = vdotq_s32(sum[i], one, one);
  }
  uint64_t total = 0;
  for (int i = 0; i < SUMS; ++i) total += (uint64_t)vaddlvq_s32(sum[i]);
  return total;
}
