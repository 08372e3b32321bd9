/* Calls a watch ten times per second, for any kind of work. */
#include "data/watch.h"

#include <inttypes.h>
#include <time.h>

#include "platform/clock.h"

enum { INTERVAL = 100000000, WAIT = 50000000 }; /* nanoseconds */

NitiStatus niti_watch(const NitiDataWatch *watch, int64_t *last, const char *what, int64_t done, int64_t total) {
  const int64_t now = watch->progress ? niti_clock_now() : 0;
  if (!watch->progress || now - *last < INTERVAL) return NITI_OK;
  *last = now;
  if (watch->progress(watch->context, what, done, total)) return NITI_OK;
  if (total <= 0) return niti_fail(NITI_INTERRUPTED, "interrupted while %s", what);
  return niti_fail(NITI_INTERRUPTED, "interrupted while %s: %" PRId64 " of %" PRId64 " done", what, done, total);
}

void niti_watch_wait(pthread_cond_t *condition, pthread_mutex_t *lock) {
  const int64_t end = niti_clock_wall() + WAIT;
  const struct timespec until = {.tv_sec = (time_t)(end / 1000000000), .tv_nsec = (long)(end % 1000000000)};
  (void)pthread_cond_timedwait(condition, lock, &until);
}
