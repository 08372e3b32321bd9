/* Loops of batch norm and of updates that run over whole tensors: one NitiLoops per instruction set. ref/ has the
 * definition; the others are loops_vector.h, which agrees with it bit for bit. */
#ifndef NITI_BACKEND_CPU_LOOPS_H
#define NITI_BACKEND_CPU_LOOPS_H

#include "backend/cpu/cpu.h"
#include "base/norm.h"
#include "base/sgd.h"
#include "base/update.h"

/* Weights first .. first + count - 1 of a tensor; first is a multiple of NITI_SGD_FIRST, and so are the words' indices. */
typedef struct NitiSgdRange {
  int16_t *weight, *velocity; /* of weight `first`, as are gradient and operand; updated in place */
  const void *gradient;       /* int32 or int64, by bits */
  int8_t *operand;            /* NULL, or receives the weights as int8 */
  size_t first, count;
  int bits;
} NitiSgdRange;

enum {
  NITI_SGD_FIRST = 128,
  NITI_SUMS_COLUMNS = 64,
  NITI_SUMS_ROWS = 1024, /* int32 sums of so many products of 127^2 are exact */
};

typedef struct NitiSpread {
  uint32_t largest, above_low, above_high;
} NitiSpread;

typedef struct NitiLoops {
  /* The largest magnitude; 0 if count is 0. */
  uint32_t (*largest16)(const int16_t *x, size_t count);
  uint64_t (*largest32)(const int32_t *x, size_t count);
  uint64_t (*largest64)(const int64_t *x, size_t count);
  /* The same, with how many magnitudes are above each of two limits; count < 2^16. */
  NitiSpread (*spread16)(const int16_t *x, size_t count, int16_t low, int16_t high);
  /* The sum of niti_square, with a shift for which it is at most 2^62. */
  uint64_t (*squares32)(const int32_t *x, size_t count, int shift);
  uint64_t (*squares64)(const int64_t *x, size_t count, int shift);
  /* Per column of rows x columns values, rows `stride` apart; columns <= NITI_SUMS_COLUMNS, rows <= NITI_SUMS_ROWS.
   * Added to out[0]: x, out[1]: x x. */
  void (*sums)(int32_t out[2][NITI_SUMS_COLUMNS], const int8_t *x, size_t rows, size_t columns, size_t stride);
  /* Added to out[0]: d, out[1]: d x, out[2]: d d. */
  void (*delta_sums)(int32_t out[3][NITI_SUMS_COLUMNS], const int8_t *d, const int8_t *x, size_t rows, size_t columns,
                     size_t stride);
  /* acc[row][column] = factor x + offset; rows of acc are `columns` apart, of x and d `stride`. */
  void (*affine)(int32_t *acc, const NitiAffine *a, const int8_t *x, size_t rows, size_t columns, size_t stride);
  /* acc[row][column] = factor d + slope x + offset. */
  void (*affine_delta)(int32_t *acc, const NitiAffineDelta *a, const int8_t *d, const int8_t *x, size_t rows, size_t columns,
                       size_t stride);
  /* niti_update_weight of every weight, at a fractional mu and a shift from 1; before is 0. */
  void (*update)(int8_t *w, const int32_t *g, size_t count, const NitiMu *);
  /* niti_sgd_weight of every weight, and its operand; the step is not idle. */
  void (*sgd)(const NitiSgdRange *, const NitiSgd *, const NitiDraw *);
} NitiLoops;

const NitiLoops *niti_loops(NitiIsa isa);
extern const NitiLoops niti_loops_ref, niti_loops_avx2, niti_loops_avx512, niti_loops_neon;

#endif
