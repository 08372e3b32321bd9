/* Validates the structs that callers of the public functions fill in. */
#include "train/options.h"

enum { THREADS_MAX = 1024 };

NitiStatus niti_reserved_check(const char *function, const char *argument, const uint64_t *reserved, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (reserved[i] == 0) continue;
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: %s has reserved members that are not zero (initialise the struct with {0})",
                     function, argument);
  }
  return NITI_OK;
}

NitiStatus niti_device_check(const char *function, const char *argument, const NitiDevice *device) {
  NITI_TRY(niti_reserved_check(function, argument, device->reserved, sizeof device->reserved / sizeof *device->reserved));
  if (device->threads >= 0 && device->threads <= THREADS_MAX) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT, "%s: %s: threads is %d (expected 0 to %d)", function, argument, device->threads,
                   (int)THREADS_MAX);
}
