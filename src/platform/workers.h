/* A few threads that read, decode or save in the background. They are apart from the pool of threads.h, which computes. */
#ifndef NITI_PLATFORM_WORKERS_H
#define NITI_PLATFORM_WORKERS_H

#include <pthread.h>

#include "platform/status.h"

typedef struct NitiWorkers {
  pthread_t *threads;
  int count;
} NitiWorkers;

/* Starts count threads (0: one a usable core) that run main(context); signals stay with the other threads. Where one cannot be
 * started the rest do the work; fails when there is none. */
NitiStatus niti_workers_start(NitiWorkers *workers, int count, void *(*main)(void *), void *context);
/* Waits for the threads to return; harmless on a zeroed structure. */
void niti_workers_join(NitiWorkers *workers);

#endif
