/* What an operation exchanges with other ranks; in a process by itself nothing. */
#include <string.h>

#include "backend/cpu/cpu.h"

uint32_t niti_cpu_largest(NitiCpu *cpu, uint32_t max) {
  const NitiTogether *t = &cpu->base.together;
  if (t->whole > 0) niti_ranks_reduce(t->ranks, &max, 1, NITI_REDUCE_MAX_U32);
  return max;
}

void niti_cpu_all_sum(NitiBackend *backend, void *sums, size_t count, int bits) {
  const NitiTogether *t = &backend->together;
  if (t->whole == 0) return;
  if (t->idle) memset(sums, 0, count * (size_t)bits / 8);
  niti_ranks_reduce(t->ranks, sums, count, bits == 32 ? NITI_REDUCE_SUM_S32 : NITI_REDUCE_SUM_S64);
}
