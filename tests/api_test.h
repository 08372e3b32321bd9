/* What the tests of niti.h's contracts share: checks of a call's status and message. */
#ifndef NITI_TESTS_API_TEST_H
#define NITI_TESTS_API_TEST_H

/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */

#include <limits.h>

#include "niti.h"

/* The call was refused, in one line that begins with the function and names the argument. */
static inline void check_refused(NitiStatus status, const char *function, const char *argument) {
  const char *message = niti_error();
  if (status != NITI_ERROR_ARGUMENT) fail_msg("%s, %s: status %d: %s", function, argument, (int)status, message);
  const size_t length = strlen(function);
  if (strncmp(message, function, length) != 0 || strncmp(message + length, ": ", 2) != 0 || !strstr(message + length, argument))
    fail_msg("'%s: ' and '%s' expected: %s", function, argument, message);
}

static inline void check_status(NitiStatus status, NitiStatus expected, const char *word) {
  if (status != expected) fail_msg("status %d, %d expected: %s", (int)status, (int)expected, niti_error());
  if (!strstr(niti_error(), word) || strchr(niti_error(), '\n')) fail_msg("'%s' expected on one line: %s", word, niti_error());
}

static inline void check_ok(NitiStatus status) {
  if (status != NITI_OK) fail_msg("status %d: %s", (int)status, niti_error());
}

/* A name of 100,000 letters; every call returns the same buffer. */
static inline const char *long_name(void) {
  static char name[100001];
  memset(name, 'x', sizeof name - 1);
  return name;
}

#endif
