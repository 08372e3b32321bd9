/* The peak without VNNI, where a multiply-add is two instructions: vpmaddwd for pairs, and vpaddd. */
#include <immintrin.h>

#include "backend/cpu/peak.h"

#define UNROLL _Pragma("GCC unroll 12") /* every loop over the sums: else gcc keeps them in memory */
enum { SUMS = 12 };

uint64_t niti_peak_avx2(uint32_t rounds) {
  __m256i sum[SUMS], one = _mm256_set1_epi16(1);
  UNROLL for (int i = 0; i < SUMS; ++i) sum[i] = _mm256_setzero_si256();
  for (uint32_t round = 0; round < rounds; ++round) {
    UNROLL for (int i = 0; i < SUMS; ++i) {
      __m256i product; /* as assembly: the compiler would use one product for all, or keep sums in memory */
      __asm__("vpmaddwd %2, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum[i]), "=&x"(product) : "x"(one));
    }
  }
  uint64_t total = 0;
  UNROLL for (int i = 0; i < SUMS; ++i) {
    uint32_t lane[8];
    _mm256_storeu_si256((__m256i *)(void *)lane, sum[i]);
    for (int j = 0; j < 8; ++j) total += lane[j];
  }
  return total;
}
