/* Inside src/data: telling how far long work is, and stopping it. */
#ifndef NITI_DATA_WATCH_H
#define NITI_DATA_WATCH_H

#include <pthread.h>

#include "data/dataset.h"

/* Calls the watch where *last, when it was called last, is a tenth of a second ago or more. NITI_INTERRUPTED where it says so. */
NitiStatus niti_watch(const NitiDataWatch *watch, int64_t *last, const char *what, int64_t done, int64_t total);
/* Waits for the condition, but not longer than the watch may. The lock is held. */
void niti_watch_wait(pthread_cond_t *condition, pthread_mutex_t *lock);

#endif
