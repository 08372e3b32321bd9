/* Status and error text. The function that detects a failure sets the message; callers pass the status on. */
#ifndef NITI_PLATFORM_STATUS_H
#define NITI_PLATFORM_STATUS_H

#include "niti.h"

/* Sets the thread's error message (printf form, without newline) and returns `status`. */
NitiStatus niti_fail(NitiStatus status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " before the current message: for a caller that knows the file where the callee did not. Returns `status`. */
NitiStatus niti_fail_within(NitiStatus status, const char *format, ...) __attribute__((format(printf, 2, 3)));
#ifdef __clang_analyzer__ /* sees one file at a time, so not that the status comes back */
#define niti_fail(status, ...) ((void)(niti_fail)(status, __VA_ARGS__), (status))
#define niti_fail_within(status, ...) ((void)(niti_fail_within)(status, __VA_ARGS__), (status))
#endif

/* In a public function: rejects NULL for the argument that niti.h calls `name`. */
#define NITI_WANT(pointer, name)                                                             \
  do {                                                                                       \
    if (!(pointer)) return niti_fail(NITI_ERROR_ARGUMENT, "%s: %s is NULL", __func__, name); \
  } while (0)

#define NITI_TRY(call)                                      \
  do {                                                      \
    NitiStatus niti_try_status = (call);                    \
    if (niti_try_status != NITI_OK) return niti_try_status; \
  } while (0)

#endif
