/* Allocations that fail, those of the libraries below niti too. Include cmocka before it, once in a program. */
#ifndef NITI_TESTS_FAIL_MEMORY_H
#define NITI_TESTS_FAIL_MEMORY_H

#include <errno.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "platform/status.h"

/* A sanitizer puts its own allocator under everything, and other C libraries keep no second name for theirs. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define FAILS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FAILS 0
#endif
#endif
#ifndef FAILS
#define FAILS 1
#endif

static atomic_long left = -1; /* allocations until the one that fails; negative: none will */
__attribute__((unused)) static void (*before_realloc)(size_t bytes); /* NULL: nothing is done */

#if FAILS
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);

#define EXPORTED __attribute__((visibility("default"))) /* libraries must find them */

static bool refuse(void) {
  const bool refused = left >= 0 && left-- == 0;
  if (refused) errno = ENOMEM;
  return refused;
}

EXPORTED void *malloc(size_t bytes) { return refuse() ? NULL : __libc_malloc(bytes); }
EXPORTED void *calloc(size_t count, size_t bytes) { return refuse() ? NULL : __libc_calloc(count, bytes); }
EXPORTED void *realloc(void *p, size_t bytes) {
  if (before_realloc) before_realloc(bytes);
  return refuse() ? NULL : __libc_realloc(p, bytes);
}
#endif

/* Whether allocations are failed here: valgrind takes the place of the functions above, but not where they are inlined. */
static inline bool can_fail(void) {
  void *(*volatile get)(size_t) = malloc;
  left = 0;
  void *p = get(1);
  left = -1;
  if (!p) return true;
  free(p);
  return false;
}

static inline void *spared(size_t bytes) {
  const long before = left;
  left = -1;
  void *p = malloc(bytes);
  left = before;
  return p;
}

/* jansson's allocations are not failed from here on: it may lose bytes of a text where one does (docs/reliability.md). */
static inline void spare_json(void) { json_set_alloc_funcs(spared, free); }

typedef NitiStatus (*Action)(const char *path);

/* Fails the action's allocations one after the other, until it needs no more. A library may do without one. */
static void fail_each(const char *what, Action action, const char *path) {
  long failed = 0;
  for (long n = 0; n < 20000; ++n) {
    left = n;
    const NitiStatus status = action(path);
    const bool ended = left >= 0; /* fewer allocations than n */
    left = -1;
    if (status == NITI_OK && ended) {
      if (can_fail() && failed == 0) fail_msg("%s: no allocation failed", what);
      return;
    }
    if (status != NITI_OK) {
      ++failed;
      /* jansson may call it an error of the file, or lose a byte, which the hash shows */
      const bool json =
          status == NITI_ERROR_FORMAT && (strstr(niti_error(), ": header: ") || strstr(niti_error(), "does not have the"));
      if (!(status == NITI_ERROR_MEMORY || json) || !niti_error()[0] || strchr(niti_error(), '\n'))
        fail_msg("%s: allocation %ld: status %d: %s", what, n, (int)status, niti_error());
    }
  }
  fail_msg("%s: no end", what);
}

#endif
