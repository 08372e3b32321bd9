/* A share of a test's cases, for tools under which everything is a hundred times slower. */
#ifndef NITI_TESTS_SHARE_H
#define NITI_TESTS_SHARE_H

#include <stdbool.h>
#include <stdlib.h>

/* With NITI_TEST_SHARE=N only every Nth piece of work is done, from the first on. */
static inline bool is_left_out(void) {
  static int count;
  const char *text = getenv("NITI_TEST_SHARE");
  const int share = text ? atoi(text) : 1;
  return share > 1 && count++ % share != 0;
}

#endif
