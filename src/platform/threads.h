/* The thread pool: tiles of work handed out dynamically, so that a slow or shared core does not hold the others up. */
#ifndef NITI_PLATFORM_THREADS_H
#define NITI_PLATFORM_THREADS_H

#include "platform/status.h"

typedef struct NitiThreads NitiThreads;

/* A task: item in [0, count), thread in [0, niti_threads_count) for per-thread scratch. Results must not depend on `thread`. */
typedef void (*NitiTask)(void *context, size_t thread, size_t item);

/* The cores that this process may run on, at least 1. */
int niti_usable_cores(void);

/* count 0: one thread a usable core. The calling thread works too. */
NitiStatus niti_threads_open(NitiThreads **out, int count);
void niti_threads_close(NitiThreads *threads);
int niti_threads_count(const NitiThreads *threads);
/* Runs task for every item and returns when all are done. */
void niti_threads_run(NitiThreads *threads, NitiTask task, void *context, size_t count);

#endif
