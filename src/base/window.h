/* Windows that slide along one axis of an image, inline, shared by every backend (C and CUDA): which of them cover a position,
 * and the phases of a strided backward pass. Window o covers the positions o * stride - pad .. o * stride - pad + kernel - 1. */
#ifndef NITI_BASE_WINDOW_H
#define NITI_BASE_WINDOW_H

#include "base/round.h"

/* The most windows that cover one position. */
NITI_INLINE int32_t niti_windows_most(int32_t kernel, int32_t stride) { return (kernel + stride - 1) / stride; }

/* Windows first .. last; none where last < first. */
typedef struct NitiWindows {
  int32_t first, last;
} NitiWindows;

/* Those of `windows` that cover a position, counted from the padding's start (at + pad). */
NITI_INLINE NitiWindows niti_windows(int32_t padded, int32_t kernel, int32_t stride, int32_t windows) {
  const int32_t reached = padded / stride, last = windows - 1;
  const NitiWindows w = {padded < kernel ? 0 : (padded - kernel) / stride + 1, reached < last ? reached : last};
  return w;
}

/* Backward through a stride: the positions phase, phase + stride, ... of the input are reached by the same taps, every stride-th
 * of the kernel. Position number j of the phase sums tap `last - i * stride` of window j + offset + i, 0 <= i < taps, over the
 * windows that exist. */
typedef struct NitiStridePhase {
  int32_t positions; /* of the input in this phase */
  int32_t taps, last, offset;
} NitiStridePhase;

/* 0 <= phase < stride; size: positions of the input. */
NITI_INLINE NitiStridePhase niti_stride_phase(int32_t phase, int32_t size, int32_t kernel, int32_t stride, int32_t pad) {
  const int32_t first = (phase + pad) % stride;
  NitiStridePhase p = {size > phase ? (size - phase + stride - 1) / stride : 0, 0, 0, 0};
  if (first >= kernel) return p;
  p.taps = (kernel - first + stride - 1) / stride;
  p.last = first + (p.taps - 1) * stride;
  p.offset = (phase + pad - first) / stride - (p.taps - 1);
  return p;
}

#endif
