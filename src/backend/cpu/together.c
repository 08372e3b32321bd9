/* What an operation exchanges with other ranks; in a process by itself nothing. */
#include <string.h>

#include "backend/cpu/cpu.h"

uint32_t niti_cpu_largest(NitiCpu *cpu, uint32_t max) {
  const NitiTogether *t = &cpu->base.together;
  if (t->whole > 0) niti_ranks_reduce(t->ranks, &max, 1, NITI_REDUCE_MAX_U32);
  return max;
}

static NitiReduction sum_of(int bits) { return bits == 32 ? NITI_REDUCE_SUM_S32 : NITI_REDUCE_SUM_S64; }

/* An idle rank adds nothing. */
static void clear_if_idle(const NitiTogether *t, void *sums, size_t count, int bits) {
  if (t->idle) memset(sums, 0, count * (size_t)bits / 8);
}

void niti_cpu_all_sum(NitiBackend *backend, void *sums, size_t count, int bits) {
  const NitiTogether *t = &backend->together;
  if (t->whole == 0) return;
  clear_if_idle(t, sums, count, bits);
  niti_ranks_reduce(t->ranks, sums, count, sum_of(bits));
}

void niti_cpu_all_sum_begin(NitiBackend *backend, void *sums, size_t count, int bits) {
  const NitiTogether *t = &backend->together;
  clear_if_idle(t, sums, count, bits);
  niti_ranks_begin(t->ranks, sums, count, sum_of(bits));
}

void niti_cpu_all_sum_wait(NitiBackend *backend) {
  NitiCpu *cpu = niti_cpu(backend);
  if (backend->together.whole == 0) return;
  niti_ranks_end(backend->together.ranks);
  if (cpu->metrics) niti_cpu_add_metrics(cpu->metrics, &cpu->batch);
  cpu->metrics = NULL;
}
