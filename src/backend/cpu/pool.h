/* What the pooling operations share: rounding sums that are gathered pixel by pixel. */
#ifndef NITI_BACKEND_CPU_POOL_H
#define NITI_BACKEND_CPU_POOL_H

#include "backend/cpu/requantise.h"
#include "base/window.h"

/* Writes acc[count]: the sums of channels c .. c + count - 1 of pixel (n, h, w) of the operation's output. */
typedef void (*NitiPoolGather)(int32_t *acc, const void *context, int32_t n, int32_t h, int32_t w, int32_t c, int32_t count);

/* out [n][h][w][c] = requantise(gathered sums), on all threads; returns the shift. out must not alias what gather reads. */
int niti_pool_requantise(NitiCpu *cpu, int8_t *out, NitiShape shape, const NitiRequantise *rq, NitiPoolGather gather,
                         const void *context);

#endif
