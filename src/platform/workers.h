/* A few threads that read, decode or save in the background. They are separate from the pool of threads.h, which computes. */
#ifndef NITI_PLATFORM_WORKERS_H
#define NITI_PLATFORM_WORKERS_H

#include <pthread.h>

#include "platform/status.h"

typedef struct NitiWorkers {
  pthread_t *threads;
  int count;
} NitiWorkers;

/* Starts count threads (0: one per usable core) that run main(context) with all signals blocked. If some cannot be started, the
 * others do the work; fails if none can. */
NitiStatus niti_workers_start(NitiWorkers *workers, int count, void *(*main)(void *), void *context);
/* Waits for the threads to return; does nothing on a zeroed structure. */
void niti_workers_join(NitiWorkers *workers);

#endif
