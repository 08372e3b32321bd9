/* The system's clocks as nanoseconds. */
#include "platform/clock.h"

#include <time.h>

static int64_t read_clock(clockid_t id) {
  struct timespec time = {0};
  (void)clock_gettime(id, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int64_t niti_clock_now(void) { return read_clock(CLOCK_MONOTONIC); }
int64_t niti_clock_wall(void) { return read_clock(CLOCK_REALTIME); }
