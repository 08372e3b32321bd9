/* Scaling along one axis with exact weights, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Augmentation". */
#ifndef NITI_BASE_SCALE_H
#define NITI_BASE_SCALE_H

#include "base/round.h"

/* The source pixels of one output pixel along one axis: first with weight head, last with weight tail, body for each between. */
typedef struct NitiTaps {
  int32_t first, last;
  uint32_t head, body, tail;
} NitiTaps;

/* Of output i of D from S pixels, 0 <= i < D <= 2^22, 1 <= S <= 2^26: the mean over the area where D <= S, else linear. */
NITI_INLINE NitiTaps niti_taps(int64_t i, int64_t S, int64_t D) {
  NitiTaps taps = {0, 0, 0, (uint32_t)D, 0};
  if (D <= S) {
    const int64_t low = i * S, high = low + S;
    taps.first = (int32_t)(low / D);
    taps.last = (int32_t)((high - 1) / D);
    taps.head = (uint32_t)(taps.first == taps.last ? S : (taps.first + 1) * D - low);
    taps.tail = (uint32_t)(high - taps.last * D);
  } else {
    const int64_t end = 2 * D * (S - 1), position = (2 * i + 1) * S - D;
    const int64_t p = position < 0 ? 0 : position > end ? end : position;
    taps.first = (int32_t)(p / (2 * D));
    taps.tail = (uint32_t)(p % (2 * D));
    taps.last = taps.tail > 0 ? taps.first + 1 : taps.first;
    taps.head = (uint32_t)(2 * D) - taps.tail;
  }
  return taps;
}

/* The sum of an output pixel's weights. */
NITI_INLINE uint64_t niti_taps_total(int64_t S, int64_t D) { return (uint64_t)(D <= S ? S : 2 * D); }

NITI_INLINE uint32_t niti_taps_weight(const NitiTaps *taps, int32_t j) {
  return j == taps->first ? taps->head : j == taps->last ? taps->tail : taps->body;
}

/* The weighted sum of bytes `step` apart, from the axis's first on. */
NITI_INLINE uint32_t niti_taps_sum(const NitiTaps *taps, const uint8_t *pixels, int64_t step) {
  const uint8_t *p = pixels + taps->first * step;
  uint32_t middle = 0, sum = taps->head * *p;
  for (int32_t j = taps->first + 1; j < taps->last; ++j) middle += *(p += step);
  if (taps->last > taps->first) sum += middle * taps->body + taps->tail * p[step];
  return sum;
}

#endif
