/* The thread pool over pthreadpool. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "platform/threads.h"

#include <pthreadpool.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* The call in progress lies here and not on the caller's stack: the caller releases it to the workers through `next`, and they
 * release their results through `done`. The pool orders them as well, but no thread sanitizer can see into the pool. */
struct NitiThreads {
  pthreadpool_t pool; /* NULL: one thread */
  int count;
  uint32_t flags;
  NitiTask task;
  void *context;
  size_t items;
  atomic_size_t next, done;
};

/* One worker a thread takes tiles until none is left: a slow worker simply takes fewer. */
static void run_worker(void *context, size_t worker) {
  NitiThreads *threads = context;
  for (;;) {
    const size_t item = atomic_fetch_add_explicit(&threads->next, 1, memory_order_acquire);
    if (item >= threads->items) break;
    threads->task(threads->context, worker, item);
  }
  atomic_fetch_add_explicit(&threads->done, 1, memory_order_release);
}

int niti_usable_cores(void) {
  cpu_set_t set;
  const long cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
  return cores > 0 ? (int)cores : 1;
}

NitiStatus niti_threads_open(NitiThreads **out, int count) {
  *out = NULL;
  if (count < 0 || count > 1024) return niti_fail(NITI_ERROR_ARGUMENT, "threads: %d is not in 0..1024 (0: one a core)", count);
  NitiThreads *threads = calloc(1, sizeof *threads);
  if (!threads) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the thread pool");
  threads->count = 1;
  if (count == 0) count = niti_usable_cores(); /* the pool's own default counts cores that are not ours */
  if (count != 1) {
    threads->pool = pthreadpool_create((size_t)count);
    if (!threads->pool) {
      free(threads);
      return niti_fail(NITI_ERROR_MEMORY, "cannot start %d threads", count);
    }
    threads->count = (int)pthreadpool_get_threads_count(threads->pool);
    /* Waiting workers spin for a while, which only helps where each has a core. */
    if (threads->count > niti_usable_cores()) threads->flags = PTHREADPOOL_FLAG_YIELD_WORKERS;
  }
  *out = threads;
  return NITI_OK;
}

void niti_threads_close(NitiThreads *threads) {
  if (!threads) return;
  if (threads->pool) pthreadpool_destroy(threads->pool);
  free(threads);
}

int niti_threads_count(const NitiThreads *threads) { return threads->count; }

void niti_threads_run(NitiThreads *threads, NitiTask task, void *context, size_t count) {
  if (!threads->pool || count <= 1) {
    for (size_t item = 0; item < count; ++item) task(context, 0, item);
    return;
  }
  threads->task = task;
  threads->context = context;
  threads->items = count;
  atomic_store_explicit(&threads->next, 0, memory_order_release);
  pthreadpool_parallelize_1d(threads->pool, run_worker, threads, (size_t)threads->count, threads->flags);
  (void)atomic_load_explicit(&threads->done, memory_order_acquire);
}
