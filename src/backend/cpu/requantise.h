/* Requantising without a separate range pass: an operation writes int8 with a predicted shift while it keeps the maximum, and
 * runs again where the true shift turns out to differ. The result is the definition's, bit for bit.
 *
 * Convolutions repeat only part of the work. Their parts are distributed one after another, and once the maximum shows that the
 * prediction was too low, the remaining parts use the larger shift, so that only the earlier ones are repeated. Predictions are
 * therefore biased low. */
#ifndef NITI_BACKEND_CPU_REQUANTISE_H
#define NITI_BACKEND_CPU_REQUANTISE_H

#include <string.h>

#include "backend/cpu/cpu.h"

NitiRequantiseKernel niti_requantise_kernel(NitiIsa isa);
uint32_t niti_requantise_ref(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *, uint64_t index, uint32_t max);
uint32_t niti_requantise_avx2(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *, uint64_t index, uint32_t max);
uint32_t niti_requantise_avx512(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *, uint64_t index, uint32_t max);
uint32_t niti_requantise_neon(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *, uint64_t index, uint32_t max);

/* One whole operation with a given rounder: writes every output element and returns the largest |acc|. */
typedef uint32_t (*NitiRangeTask)(void *context, const NitiRounder *);

/* Runs `task` with the predicted shift, repeats it if that was wrong, and updates the prediction; returns the true shift. relu
 * and mask are for the rounder; mask: NULL, or with its limit. */
int niti_cpu_requantise(NitiCpu *, const NitiRequantise *, bool relu, const NitiTensor *mask, NitiRangeTask task, void *context);

/* out[i] = 0 wherever mask[i] is not in 1 .. last, which is at least -1. */
static inline void niti_mask_apply(int8_t *restrict out, const int8_t *restrict mask, size_t count, int8_t last) {
  for (size_t i = 0; i < count; ++i) out[i] = (int8_t)(out[i] & -(mask[i] > 0) & -(mask[i] <= last));
}

/* The accumulators of a tile: row r, column c at acc[r * stride + c], of the tensor at offset[r] + c. */
typedef struct NitiTileRows {
  const int32_t *acc;
  size_t stride, columns;
  int rows;
} NitiTileRows;

enum { NITI_JOINED_MAX = 512 };

/* Short rows cost more per element. Those that follow each other in the tensor without a gap become one row; where they are apart
 * in acc, in `joined`, which is worth it only where rounding draws. */
static inline NitiTileRows niti_join_rows(int32_t joined[NITI_JOINED_MAX], const size_t *offset, NitiTileRows t, bool draws) {
  const size_t all = (size_t)t.rows * t.columns;
  bool next = t.rows > 1 && (t.stride == t.columns || (draws && all <= NITI_JOINED_MAX));
  for (int row = 1; next && row < t.rows; ++row) next = offset[row] == offset[row - 1] + t.columns;
  if (!next) return t;
  if (t.stride == t.columns) return (NitiTileRows){t.acc, all, all, 1};
  for (size_t row = 0; row < (size_t)t.rows; ++row) {
    const int32_t *from = t.acc + row * t.stride;
    int32_t *to = joined + row * t.columns;
    size_t c = 0;
    for (; c + 4 <= t.columns; c += 4) memcpy(to + c, from + c, 4 * sizeof *to); /* a vector: the number is constant */
    for (; c < t.columns; ++c) to[c] = from[c];
  }
  return (NitiTileRows){joined, all, all, 1};
}

/* The shift for the next part of an operation whose parts so far had this maximum. */
int niti_part_shift(const NitiRounder *, const _Atomic uint32_t *max);

/* A maximum that several threads update. */
void niti_max_raise(_Atomic uint32_t *max, uint32_t value);

#endif
