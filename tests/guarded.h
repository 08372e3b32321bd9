/* What tests of kernels share: random numbers that are the same in every run, and memory whose ends are watched. Include cmocka
 * before it. */
#ifndef NITI_TESTS_GUARDED_H
#define NITI_TESTS_GUARDED_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "share.h"
#include "splitmix.h"

enum { GUARD = 64, GUARD_BYTE = 0xa5 };

static uint64_t random_state = 1;

static inline uint64_t next_random(void) { return splitmix64(&random_state); }

static inline int random_in(int low, int high) { return low + (int)(next_random() % (uint64_t)(high - low + 1)); }

/* Memory on a cache line, with guards before and after it. */
static inline void *guarded(size_t bytes) {
  const size_t room = (bytes + 3 * GUARD) / GUARD * GUARD;
  uint8_t *p = aligned_alloc(GUARD, room);
  assert_non_null(p);
  memset(p, GUARD_BYTE, room);
  return p + GUARD;
}

static inline void check_guards(const void *memory, size_t bytes) {
  const uint8_t *p = memory;
  for (size_t i = 0; i < GUARD; ++i) {
    assert_int_equal(p[-1 - (ptrdiff_t)i], GUARD_BYTE);
    assert_int_equal(p[bytes + i], GUARD_BYTE);
  }
}

static inline void release(void *memory) { free((uint8_t *)memory - GUARD); }

#endif
