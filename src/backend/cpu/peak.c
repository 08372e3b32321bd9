/* Measuring the peak: the loops of peak.h on all threads. */
#include "backend/cpu/peak.h"

enum { ROUNDS = 4096, ITEMS = 64 }; /* per task: some microseconds; tasks per thread */

typedef struct Peak {
  NitiPeakKernel kernel;
  uint64_t done;
} Peak;

static void run_item(void *context, size_t thread, size_t item) {
  Peak *p = context;
  (void)thread;
  (void)item;
  __atomic_fetch_add(&p->done, p->kernel(ROUNDS), __ATOMIC_RELAXED);
}

uint64_t niti_cpu_multiply_add(NitiBackend *backend) {
  NitiCpu *cpu = niti_cpu(backend);
  Peak p = {.kernel = niti_peak_kernel(cpu->isa)};
  if (p.kernel) niti_threads_run(cpu->threads, run_item, &p, ITEMS * (size_t)niti_threads_count(cpu->threads));
  return p.done;
}
