/* The kinds of backend there are. To add one: declare its NitiBackendKind here and list it in backend.c. */
#ifndef NITI_BACKEND_REGISTRY_H
#define NITI_BACKEND_REGISTRY_H

#include "backend/backend.h"

typedef struct NitiBackendKind {
  const char *name;
  /* Opens the backend. device: what followed "NAME:", or NULL. Fails with NITI_ERROR_UNSUPPORTED where this machine lacks it. */
  NitiStatus (*open)(NitiBackend **out, const NitiBackendOptions *options, const char *device);
} NitiBackendKind;

extern const NitiBackendKind niti_backend_cpu;

#endif
