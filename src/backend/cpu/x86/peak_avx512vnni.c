/* The peak of vpdpbusd. */
#include <immintrin.h>

#include "backend/cpu/peak.h"

#define UNROLL _Pragma("GCC unroll 16") /* every loop over the sums: else gcc keeps them in memory */
enum { SUMS = 16 };                     /* enough to hide the latency of all units */

/* As assembly because gcc 12 copies the accumulators of the intrinsic from register to register, which halves the rate. */
uint64_t niti_peak_avx512vnni(uint32_t rounds) {
  __m512i sum[SUMS];
  const __m512i one = _mm512_set1_epi8(1);
  UNROLL for (int i = 0; i < SUMS; ++i) sum[i] = _mm512_setzero_si512();
  for (uint32_t round = 0; round < rounds; ++round) {
    UNROLL for (int i = 0; i < SUMS; ++i) { __asm__("vpdpbusd %1, %1, %0" : "+v"(sum[i]) : "v"(one)); }
  }
  uint64_t total = 0;
  UNROLL for (int i = 0; i < SUMS; ++i) {
    uint32_t lane[16];
    _mm512_storeu_si512(lane, sum[i]);
    for (int j = 0; j < 16; ++j) total += lane[j];
  }
  return total;
}
