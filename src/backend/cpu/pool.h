/* What the pooling operations share: which windows cover a position, and rounding sums that are gathered pixel by pixel. */
#ifndef NITI_BACKEND_CPU_POOL_H
#define NITI_BACKEND_CPU_POOL_H

#include "backend/cpu/requantise.h"

/* Windows first .. last (none where last < first) of one direction that cover input position `at`. */
typedef struct NitiWindows {
  int32_t first, last;
} NitiWindows;

static inline NitiWindows niti_windows(int32_t at, int32_t pad, int32_t kernel, int32_t stride, int32_t windows) {
  const int32_t padded = at + pad, last = padded / stride;
  const NitiWindows w = {.first = padded < kernel ? 0 : (padded - kernel) / stride + 1,
                         .last = last < windows ? last : windows - 1};
  return w;
}

/* Writes acc[count]: the sums of channels c .. c + count - 1 of pixel (n, h, w) of the operation's output. */
typedef void (*NitiPoolGather)(int32_t *acc, const void *context, int32_t n, int32_t h, int32_t w, int32_t c, int32_t count);

/* out [n][h][w][c] = requantise(gathered sums), on all threads; returns the shift. out must not alias what gather reads. */
int niti_pool_requantise(NitiCpu *cpu, int8_t *out, NitiShape shape, const NitiRequantise *rq, NitiPoolGather gather,
                         const void *context);

#endif
