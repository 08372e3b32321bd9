/* The registered kinds of backend. To add one: declare its NitiBackendKind here and list it in backend.c. */
#ifndef NITI_BACKEND_REGISTRY_H
#define NITI_BACKEND_REGISTRY_H

#include "backend/backend.h"

typedef struct NitiBackendKind {
  const char *name;
  /* Opens the backend. device: what followed "NAME:", or NULL. Fails with NITI_ERROR_UNSUPPORTED if this machine lacks it. */
  NitiStatus (*open)(NitiBackend **out, const NitiBackendOptions *options, const char *device);
  /* Reports each device of this kind, usable or not: "cuda:0, NVIDIA H100 80GB HBM3, capability 9.0, 81559 MiB". */
  void (*devices)(NitiDeviceTold tell, void *context);
} NitiBackendKind;

extern const NitiBackendKind niti_backend_cpu;
extern const NitiBackendKind niti_backend_cuda; /* in builds with CUDA */

#endif
