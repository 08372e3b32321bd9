/* How elementwise operations distribute their work: tiles of a flat range. */
#ifndef NITI_BACKEND_CPU_CHUNK_H
#define NITI_BACKEND_CPU_CHUNK_H

#include "backend/cpu/requantise.h"
#include "base/size.h"

enum {
  NITI_CHUNK = 1 << 16,     /* elements per task of a streaming operation */
  NITI_ACC_CHUNK = 1 << 12, /* accumulators per task, on its stack: half of a first-level cache */
};

/* Elements of tile `item`, whose first is item * tile. */
static inline size_t niti_chunk_count(size_t count, size_t tile, size_t item) { return niti_least(tile, count - item * tile); }

/* The largest |acc|, at least `max`, count <= NITI_ACC_CHUNK. Uses the rounding kernels and discards what they write. */
static inline uint32_t niti_chunk_largest(NitiRequantiseKernel kernel, const int32_t *acc, size_t count, uint32_t max) {
  const NitiRounder rounder = {.mode = NITI_TRUNCATE};
  int8_t unused[NITI_ACC_CHUNK];
  return kernel(unused, acc, count, &rounder, 0, max);
}

#endif
