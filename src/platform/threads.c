/* The thread pool: a caller and workers that take items from one counter, and how they wait. */
#define _GNU_SOURCE /* sched_getaffinity, RUSAGE_THREAD */
#include "platform/threads.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/quota.h"
#include "platform/workers.h"

/* How a call works. The caller publishes it by storing the number of items in `left`. Caller and workers take items by
 * decrementing `left`, and decrement `unfinished` as they finish them. The call does not wait for a worker that has not taken an
 * item, so a worker without a core costs nothing. A waiting thread first spins, long enough for the gaps between the calls of a
 * training step, and then sleeps. If other processes want the cores it sleeps soon: the scheduler favours a thread that has slept
 * when it is woken, while spinning uses up its share. */
enum { THREADS_MAX = 1024, CORES_MAX = 1 << 16, LINE = 64, PAUSES = 32, FEW = 4 };
/* In nanoseconds: */
static const int64_t short_patience = 50000, /* about 15 times the cost of waking a sleeper */
    long_patience = 2000000,                 /* while no other process wants the cores */
    disturbance = 30000000,                  /* for this long after a preemption, other processes are assumed to want the cores */
    wake_after = 10000;                      /* how long the caller works alone before it wakes others */

struct NitiThreads {
  NitiWorkers workers;
  bool crowded;        /* more threads than cores: no thread spins */
  long switches;       /* the caller's, as run_worker's */
  atomic_int numbered; /* workers that have their number */
  atomic_bool closing;
  sem_t wake, finished;
  atomic_llong disturbed_at; /* when one of the threads noticed that it had been preempted */

  /* The call in progress; stable while one of its items is unfinished. */
  alignas(LINE) NitiTask task;
  void *context;
  int64_t items;
  atomic_llong left; /* items not yet taken; below 0 after attempts to take more */

  alignas(LINE) atomic_llong unfinished; /* twice the items, and 1 while the caller sleeps */
  alignas(LINE) atomic_int sleepers;     /* workers that wait, or are about to wait, for `wake`, less those it was posted for */
};

static void pause_thread(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void wait_for(sem_t *semaphore) {
  while (sem_wait(semaphore) != 0 && errno == EINTR) continue;
}

/* ---- waiting ---- */

typedef struct Wait {
  unsigned turns;
  int64_t begin, patience; /* 0: not known yet */
} Wait;

/* How long spinning is worthwhile. *switches: how often this thread had been preempted at the previous call. */
static int64_t find_patience(NitiThreads *threads, long *switches, int64_t time) {
  struct rusage usage;
  if (getrusage(RUSAGE_THREAD, &usage) == 0 && usage.ru_nivcsw != *switches) {
    *switches = usage.ru_nivcsw;
    atomic_store_explicit(&threads->disturbed_at, time, memory_order_relaxed);
  }
  const int64_t quiet = time - atomic_load_explicit(&threads->disturbed_at, memory_order_relaxed);
  return quiet > disturbance ? long_patience : short_patience;
}

/* Spins for a moment. Returns false when it is time to sleep. */
static bool spin(NitiThreads *threads, Wait *wait, long *switches) {
  pause_thread();
  if (++wait->turns % PAUSES != 0) return true;
  if (threads->crowded) return false;
  const int64_t time = niti_clock_now();
  if (wait->begin == 0) wait->begin = time;
  if (time - wait->begin < short_patience) return true;
  if (wait->patience == 0) wait->patience = find_patience(threads, switches, time);
  return time - wait->begin < wait->patience;
}

/* ---- taking and finishing items ---- */

static bool take_item(NitiThreads *threads, int64_t *item) {
  if (atomic_load_explicit(&threads->left, memory_order_relaxed) <= 0) return false;
  const int64_t left = atomic_fetch_sub_explicit(&threads->left, 1, memory_order_acquire);
  if (left <= 0) return false;
  *item = threads->items - left;
  return true;
}

/* Returns whether these were the last unfinished items. */
static bool finish_items(NitiThreads *threads, int64_t count) {
  const int64_t before = atomic_fetch_sub_explicit(&threads->unfinished, 2 * count, memory_order_acq_rel);
  if (before == 2 * count + 1) sem_post(&threads->finished);
  return before == 2 * count;
}

static void wake_sleepers(NitiThreads *threads) {
  for (int n = atomic_exchange(&threads->sleepers, 0); n > 0; --n) sem_post(&threads->wake);
}

/* ---- a worker ---- */

/* Sleeps until woken, unless there is work already. A sleeper registers before it checks for work; a caller checks for sleepers
 * after it has published work. */
static void sleep_worker(NitiThreads *threads) {
  atomic_fetch_add(&threads->sleepers, 1);
  if (atomic_load(&threads->left) > 0 || atomic_load(&threads->closing)) {
    int sleepers = atomic_load(&threads->sleepers);
    while (sleepers > 0) {
      if (atomic_compare_exchange_weak(&threads->sleepers, &sleepers, sleepers - 1)) return;
    }
  }
  wait_for(&threads->wake);
}

/* Returns when there may be items to take; false: when the pool is closing. */
static bool wait_for_items(NitiThreads *threads, long *switches) {
  Wait wait = {0};
  for (;;) {
    if (atomic_load_explicit(&threads->left, memory_order_relaxed) > 0) return true;
    if (atomic_load_explicit(&threads->closing, memory_order_relaxed)) return false;
    if (spin(threads, &wait, switches)) continue;
    sleep_worker(threads);
    wait = (Wait){0};
  }
}

static void *run_worker(void *context) {
  NitiThreads *threads = context;
  const size_t number = 1 + (size_t)atomic_fetch_add(&threads->numbered, 1);
  long switches = 0;
  while (wait_for_items(threads, &switches)) {
    int64_t item, done = 0;
    for (; take_item(threads, &item); ++done) threads->task(threads->context, number, (size_t)item);
    if (done > 0) (void)finish_items(threads, done);
  }
  return NULL;
}

/* ---- the caller ---- */

/* Takes items as the workers do, and wakes sleepers once the call proves long enough: even a call of many items may be short. */
static int64_t run_items(NitiThreads *threads) {
  bool sleepers = atomic_load(&threads->sleepers) > 0;
  if (sleepers && threads->items < FEW * niti_threads_count(threads)) {
    wake_sleepers(threads);
    sleepers = false;
  }
  const int64_t begin = sleepers ? niti_clock_now() : 0;
  int64_t item, done = 0;
  for (; take_item(threads, &item); ++done) {
    threads->task(threads->context, 0, (size_t)item);
    if (sleepers && niti_clock_now() - begin > wake_after) {
      wake_sleepers(threads);
      sleepers = false;
    }
  }
  return done;
}

/* Waits for the items that workers have taken. */
static void wait_for_workers(NitiThreads *threads) {
  Wait wait = {0};
  while (atomic_load_explicit(&threads->unfinished, memory_order_acquire) > 0) {
    if (spin(threads, &wait, &threads->switches)) continue;
    if (atomic_fetch_or_explicit(&threads->unfinished, 1, memory_order_acq_rel) > 0) wait_for(&threads->finished);
    return;
  }
}

void niti_threads_run(NitiThreads *threads, NitiTask task, void *context, size_t count) {
  if (threads->workers.count == 0 || count <= 1) {
    for (size_t item = 0; item < count; ++item) task(context, 0, item);
    return;
  }
  threads->task = task;
  threads->context = context;
  threads->items = (int64_t)count;
  atomic_store_explicit(&threads->unfinished, 2 * (long long)count, memory_order_relaxed);
  atomic_store(&threads->left, (long long)count);
  if (!finish_items(threads, run_items(threads))) wait_for_workers(threads);
}

/* ---- open and close ---- */

static int affinity_cores(void) {
  static const size_t bytes = CPU_ALLOC_SIZE(CORES_MAX);
  cpu_set_t *set = CPU_ALLOC(CORES_MAX);
  const long cores = set && sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : sysconf(_SC_NPROCESSORS_ONLN);
  CPU_FREE(set);
  return cores > 0 ? (int)cores : 1;
}

int niti_usable_cores(void) {
  const int cores = affinity_cores(), quota = niti_quota_cores("");
  return quota > 0 && quota < cores ? quota : cores;
}

NitiStatus niti_threads_open(NitiThreads **out, int count) {
  *out = NULL;
  if (count < 0 || count > THREADS_MAX)
    return niti_fail(NITI_ERROR_ARGUMENT, "threads: %d is not in 0..%d (0: one per usable core)", count, THREADS_MAX);
  const int cores = count == 1 ? 1 : niti_usable_cores(); /* which reads files of the kernel */
  if (count == 0) count = cores < THREADS_MAX ? cores : THREADS_MAX;
  NitiThreads *threads = aligned_alloc(LINE, sizeof *threads);
  if (!threads) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the thread pool");
  memset(threads, 0, sizeof *threads);
  threads->crowded = count > cores;
  (void)sem_init(&threads->wake, 0, 0);
  (void)sem_init(&threads->finished, 0, 0);
  if (count > 1) (void)niti_workers_start(&threads->workers, count - 1, run_worker, threads); /* without any, the caller works */
  *out = threads;
  return NITI_OK;
}

void niti_threads_close(NitiThreads *threads) {
  if (!threads) return;
  atomic_store(&threads->closing, true);
  wake_sleepers(threads);
  niti_workers_join(&threads->workers);
  (void)sem_destroy(&threads->wake);
  (void)sem_destroy(&threads->finished);
  free(threads);
}

int niti_threads_count(const NitiThreads *threads) { return 1 + threads->workers.count; }
