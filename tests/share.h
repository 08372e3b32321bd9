/* A share of a test's cases, for tools under which everything is a hundred times slower; or all of them, shared out among
 * processes. */
#ifndef NITI_TESTS_SHARE_H
#define NITI_TESTS_SHARE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* NITI_TEST_SHARE=N: only every Nth piece of work is done, from the first on. K/N: the Kth piece of every N, so that
 * N processes, with K from 0 to N-1, do all of them. */
static inline bool is_left_out(void) {
  static int count;
  const char *text = getenv("NITI_TEST_SHARE");
  int part = 0, share = 1;
  if (text && sscanf(text, "%d/%d", &part, &share) == 1) {
    share = part;
    part = 0;
  }
  return share > 1 && count++ % share != part % share;
}

/* Whether other processes test on the device at the same time: K/N. */
static inline bool is_one_of_many(void) {
  int part, share;
  const char *text = getenv("NITI_TEST_SHARE");
  return text && sscanf(text, "%d/%d", &part, &share) == 2;
}

#endif
