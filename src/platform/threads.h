/* The thread pool: items of work are distributed dynamically, so that a slow or shared core does not delay the others. */
#ifndef NITI_PLATFORM_THREADS_H
#define NITI_PLATFORM_THREADS_H

#include "platform/status.h"

typedef struct NitiThreads NitiThreads;

/* A task: item in [0, count), thread in [0, niti_threads_count) for per-thread scratch. Results must not depend on `thread`. */
typedef void (*NitiTask)(void *context, size_t thread, size_t item);

/* The cores that this process may use, at least 1: those of its affinity mask, or its control groups' CPU quota, rounded up,
 * where that is less. */
int niti_usable_cores(void);

/* Starts count - 1 workers (count 0..1024; 0: one thread per usable core); the thread that calls niti_threads_run works too.
 * If the system provides fewer threads, the pool has fewer. Workers block all signals. Errors: NITI_ERROR_ARGUMENT,
 * NITI_ERROR_MEMORY. */
NitiStatus niti_threads_open(NitiThreads **out, int count);
/* Ends the workers; no call may be in progress. NULL is accepted. */
void niti_threads_close(NitiThreads *threads);
int niti_threads_count(const NitiThreads *threads);
/* Runs task for every item in [0, count), in no particular order, and returns when all are done. One call at a time, and none
 * from within a task. Tasks see what was written before the call; the caller sees what they wrote after it returns. */
void niti_threads_run(NitiThreads *threads, NitiTask task, void *context, size_t count);

#endif
