/* Validates the structs that callers fill in: NitiDevice and the reserved members of every struct. */
#ifndef NITI_TRAIN_OPTIONS_H
#define NITI_TRAIN_OPTIONS_H

#include "platform/status.h"

/* NITI_ERROR_ARGUMENT naming the public function and its argument unless all count members are zero. */
NitiStatus niti_reserved_check(const char *function, const char *argument, const uint64_t *reserved, size_t count);
/* The same, and for a device whose numbers are out of range; the backends check names. */
NitiStatus niti_device_check(const char *function, const char *argument, const NitiDevice *device);

#endif
