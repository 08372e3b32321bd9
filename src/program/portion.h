/* A rank's portion of a batch that several ranks train on together, inline (docs/scaling.md). */
#ifndef NITI_PROGRAM_PORTION_H
#define NITI_PROGRAM_PORTION_H

#include <stdbool.h>
#include <stdint.h>

/* Images first .. first + count - 1 of the batch. idle: the batch has none left for this rank, which runs the first one again, so
 * that no range changes, and adds nothing to sums; count is then 1. */
typedef struct NitiPortion {
  int32_t first, count;
  bool idle;
} NitiPortion;

/* Of a batch of `whole` images, whole >= 1, 0 <= rank < ranks. */
static inline NitiPortion niti_portion(int32_t whole, int rank, int ranks) {
  const int32_t first = (int32_t)((int64_t)whole * rank / ranks), end = (int32_t)((int64_t)whole * (rank + 1) / ranks);
  return first < end ? (NitiPortion){first, end - first, false} : (NitiPortion){0, 1, true};
}

/* The largest count of any rank in any batch of at most `whole` images. */
static inline int32_t niti_portion_most(int32_t whole, int ranks) { return (whole + ranks - 1) / ranks; }

#endif
