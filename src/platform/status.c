/* The thread's error message, and the version. */
#include "platform/status.h"

#include <stdarg.h>
#include <stdio.h>

#include "platform/text.h"

static _Thread_local char message[1024];

const char *niti_error(void) { return message; }
const char *niti_version(void) { return NITI_VERSION; }
int niti_version_number(void) { return NITI_VERSION_NUMBER; }

NitiStatus(niti_fail)(NitiStatus status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  niti_text_format(message, sizeof message, format, args); /* an argument may be the current message */
  va_end(args);
  return status;
}

NitiStatus(niti_fail_within)(NitiStatus status, const char *format, ...) {
  char prefix[512];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(prefix, sizeof prefix, format, args);
  va_end(args);
  return niti_fail(status, "%s: %s", prefix, message);
}
