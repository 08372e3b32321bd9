/* The peak of tdpbssd: four independent sums. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/microkernel.h"
#include "backend/cpu/peak.h"

enum { SUMS = 4, ROWS = 16, ROW_BYTES = 64 };

uint64_t niti_peak_amx(uint32_t rounds) {
  _Alignas(64) int8_t ones[ROWS * ROW_BYTES];
  _Alignas(64) uint32_t sums[SUMS][ROWS * ROW_BYTES / sizeof(uint32_t)];
  memset(ones, 1, sizeof ones);
  __asm__ volatile("" ::: "memory"); /* the compiler does not know that the tile instructions read memory */
  niti_conv_kernels_amx.begin();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, ones, ROW_BYTES);
  _tile_loadd(5, ones, ROW_BYTES);
  for (uint32_t round = 0; round < rounds; ++round) {
    _tile_dpbssd(0, 4, 5);
    _tile_dpbssd(1, 4, 5);
    _tile_dpbssd(2, 4, 5);
    _tile_dpbssd(3, 4, 5);
  }
  _tile_stored(0, sums[0], ROW_BYTES);
  _tile_stored(1, sums[1], ROW_BYTES);
  _tile_stored(2, sums[2], ROW_BYTES);
  _tile_stored(3, sums[3], ROW_BYTES);
  niti_conv_kernels_amx.end();
  __asm__ volatile("" ::: "memory");
  uint64_t total = 0;
  for (int i = 0; i < SUMS; ++i) {
    for (size_t j = 0; j < ROWS * ROW_BYTES / sizeof(uint32_t); ++j) total += sums[i][j];
  }
  return total;
}
