/* Inside src/data: reports the progress of long work, and stops it. */
#ifndef NITI_DATA_WATCH_H
#define NITI_DATA_WATCH_H

#include <pthread.h>

#include "data/dataset.h"

/* Calls the watch if *last, its last call, is at least a tenth of a second ago. NITI_INTERRUPTED if it asks to stop. */
NitiStatus niti_watch(const NitiDataWatch *watch, int64_t *last, const char *what, int64_t done, int64_t total);
/* Waits for the condition, but not longer than the watch may. The lock is held. */
void niti_watch_wait(pthread_cond_t *condition, pthread_mutex_t *lock);

#endif
