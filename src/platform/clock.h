/* The time of day and a monotonic clock, in nanoseconds. */
#ifndef NITI_PLATFORM_CLOCK_H
#define NITI_PLATFORM_CLOCK_H

#include <stdint.h>

/* Monotonic, from an arbitrary start: for durations. */
int64_t niti_clock_now(void);
/* Since 1970-01-01 00:00 UTC. */
int64_t niti_clock_wall(void);

#endif
