/* Statistics of a tensor for logs. */
#include <string.h>

#include "backend/cpu/chunk.h"
#include "base/round.h"

enum { BINS = 2 * NITI_MANTISSA_MAX + 1 };

typedef struct Stats {
  const int8_t *data;
  size_t count;
  int64_t *histogram;
} Stats;

static void stats_tile(void *context, size_t thread, size_t item) {
  const Stats *s = context;
  const uint8_t *m = (const uint8_t *)s->data + item * NITI_CHUNK;
  const size_t count = niti_chunk_count(s->count, NITI_CHUNK, item);
  uint32_t seen[256] = {0};
  (void)thread;
  for (size_t i = 0; i < count; ++i) ++seen[m[i]];
  for (int bin = 0; bin < BINS; ++bin) {
    const uint32_t here = seen[(uint8_t)(bin - NITI_MANTISSA_MAX)];
    if (here) __atomic_fetch_add(&s->histogram[bin], (int64_t)here, __ATOMIC_RELAXED);
  }
}

void niti_cpu_stats(NitiBackend *backend, NitiTensorStats *out, const NitiTensor *tensor) {
  Stats s = {.data = tensor->data, .count = niti_shape_count(tensor->shape), .histogram = out->histogram};
  memset(out, 0, sizeof *out);
  niti_threads_run(niti_cpu(backend)->threads, stats_tile, &s, niti_divide_up(s.count, NITI_CHUNK));
  out->count = (int64_t)s.count;
  out->exponent = *tensor->exponent;
  out->saturated = out->histogram[0] + out->histogram[BINS - 1];
}
