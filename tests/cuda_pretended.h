/* A CUDA device that is pretended: its memory is the host's, and its kernels do not run. So the host's side of the backend can be
 * tested without a device: what it allocates, launches and copies, and where that lies. NITI_CUDA_CALLS' functions, as
 * pretended_cudaMalloc for cudaMalloc. Include cmocka before it. */
#ifndef NITI_TESTS_CUDA_PRETENDED_H
#define NITI_TESTS_CUDA_PRETENDED_H

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/runtime.h"

enum { PRETENDED_MULTIPROCESSORS = 132, PRETENDED_ALLOCATIONS = 4096, PRETENDED_ALIGN = 256, PRETENDED_SHARED = 227 * 1024 };

typedef struct PretendedMemory {
  uint8_t *data;
  size_t bytes;
} PretendedMemory;

static PretendedMemory pretended_memory[PRETENDED_ALLOCATIONS];
static size_t pretended_most = SIZE_MAX; /* bytes: a larger allocation fails */
static long pretended_launches, pretended_maps;
static char pretended_fault[160]; /* the first thing that a device would have met; "": none */

#define PRETENDED_FAULT(...)                                                                 \
  do {                                                                                       \
    if (!pretended_fault[0]) snprintf(pretended_fault, sizeof pretended_fault, __VA_ARGS__); \
  } while (0)

/* ---- memory ---- */

static bool pretended_holds(const void *p, size_t bytes) {
  const uintptr_t at = (uintptr_t)p;
  for (int i = 0; i < PRETENDED_ALLOCATIONS; ++i) {
    const uintptr_t first = (uintptr_t)pretended_memory[i].data;
    if (first && at >= first && at - first <= pretended_memory[i].bytes && bytes <= pretended_memory[i].bytes - (at - first))
      return true;
  }
  return false;
}

static cudaError_t pretended_cudaMalloc(void **out, size_t size) {
  *out = NULL;
  for (int i = 0; i < PRETENDED_ALLOCATIONS && size <= pretended_most; ++i) {
    PretendedMemory *m = &pretended_memory[i];
    if (m->data) continue;
    m->data = aligned_alloc(PRETENDED_ALIGN, (size + PRETENDED_ALIGN - 1) / PRETENDED_ALIGN * PRETENDED_ALIGN);
    m->bytes = m->data ? size : 0;
    *out = m->data;
    break;
  }
  return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}

static cudaError_t pretended_cudaFree(void *p) {
  for (int i = 0; p && i < PRETENDED_ALLOCATIONS; ++i) {
    if (pretended_memory[i].data != p) continue;
    free(p);
    pretended_memory[i] = (PretendedMemory){0};
    return cudaSuccess;
  }
  return p ? cudaErrorInvalidValue : cudaSuccess;
}

static cudaError_t pretended_cudaMallocHost(void **out, size_t size) {
  *out = malloc(size);
  return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}

static cudaError_t pretended_cudaFreeHost(void *p) {
  free(p);
  return cudaSuccess;
}

static cudaError_t pretended_cudaMemGetInfo(size_t *available, size_t *total) {
  *available = *total = (size_t)1 << 37;
  return cudaSuccess;
}

static cudaError_t pretended_cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
  (void)stream;
  if (!pretended_holds(to, size)) {
    PRETENDED_FAULT("cudaMemsetAsync of %zu bytes at %p", size, to);
    return cudaErrorIllegalAddress;
  }
  memset(to, value, size);
  return cudaSuccess;
}

static cudaError_t pretended_cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind,
                                             cudaStream_t stream) {
  (void)stream;
  if (!pretended_holds(kind == cudaMemcpyHostToDevice ? to : from, size)) {
    PRETENDED_FAULT("cudaMemcpyAsync of %zu bytes from %p to %p", size, from, to);
    return cudaErrorIllegalAddress;
  }
  memcpy(to, from, size);
  return cudaSuccess;
}

/* ---- the device ---- */

static cudaError_t pretended_cudaGetDeviceCount(int *count) {
  *count = 1;
  return cudaSuccess;
}

static cudaError_t pretended_cudaDriverGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

static cudaError_t pretended_cudaRuntimeGetVersion(int *version) { return pretended_cudaDriverGetVersion(version); }

static cudaError_t pretended_cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int device) {
  (void)device;
  *value = which == cudaDevAttrComputeCapabilityMajor ? 9
           : which == cudaDevAttrMultiProcessorCount  ? PRETENDED_MULTIPROCESSORS
                                                      : 0;
  return cudaSuccess;
}

static cudaError_t pretended_cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
  (void)device;
  memset(out, 0, sizeof *out);
  snprintf(out->name, sizeof out->name, "a pretended device");
  return cudaSuccess;
}

static cudaError_t pretended_cudaDeviceGetPCIBusId(char *name, int size, int device) {
  snprintf(name, (size_t)size, "0000:%02x:00.0", device);
  return cudaSuccess;
}

/* Nobody else has a device. */
static cudaError_t pretended_cudaDeviceGetByPCIBusId(int *device, const char *name) {
  (void)name;
  *device = 0;
  return cudaErrorInvalidDevice;
}
static cudaError_t pretended_cudaDeviceCanAccessPeer(int *can, int device, int peer) {
  (void)device, (void)peer;
  *can = 0;
  return cudaSuccess;
}
static cudaError_t pretended_cudaIpcGetMemHandle(cudaIpcMemHandle_t *out, void *p) {
  (void)out, (void)p;
  return cudaErrorNotSupported;
}
static cudaError_t pretended_cudaIpcOpenMemHandle(void **out, cudaIpcMemHandle_t handle, unsigned flags) {
  (void)out, (void)handle, (void)flags;
  return cudaErrorNotSupported;
}
static cudaError_t pretended_cudaIpcCloseMemHandle(void *p) {
  (void)p;
  return cudaErrorNotSupported;
}

static cudaError_t pretended_cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

static cudaError_t pretended_cudaGetLastError(void) { return cudaSuccess; }

/* ---- order: everything is done at once ---- */

#define PRETENDED_OBJECT(out) (*(void **)(void *)(out) = &pretended_launches, cudaSuccess)

static cudaError_t pretended_cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
  (void)flags;
  return PRETENDED_OBJECT(out);
}
static cudaError_t pretended_cudaStreamDestroy(cudaStream_t stream) { return stream ? cudaSuccess : cudaErrorInvalidValue; }
static cudaError_t pretended_cudaStreamSynchronize(cudaStream_t stream) { return stream ? cudaSuccess : cudaErrorInvalidValue; }
static cudaError_t pretended_cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  (void)flags;
  return stream && event ? cudaSuccess : cudaErrorInvalidValue;
}
static cudaError_t pretended_cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  (void)mode;
  return stream ? cudaSuccess : cudaErrorInvalidValue;
}
static cudaError_t pretended_cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
  (void)stream;
  return PRETENDED_OBJECT(out);
}
static cudaError_t pretended_cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
  (void)flags;
  return PRETENDED_OBJECT(out);
}
static cudaError_t pretended_cudaEventDestroy(cudaEvent_t event) { return event ? cudaSuccess : cudaErrorInvalidValue; }
static cudaError_t pretended_cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return event && stream ? cudaSuccess : cudaErrorInvalidValue;
}
static cudaError_t pretended_cudaEventSynchronize(cudaEvent_t event) { return event ? cudaSuccess : cudaErrorInvalidValue; }
static cudaError_t pretended_cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags) {
  (void)graph, (void)flags;
  return PRETENDED_OBJECT(out);
}
static cudaError_t pretended_cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  return graph && stream ? cudaSuccess : cudaErrorInvalidValue;
}
static cudaError_t pretended_cudaGraphDestroy(cudaGraph_t graph) { return graph ? cudaSuccess : cudaErrorInvalidValue; }
static cudaError_t pretended_cudaGraphExecDestroy(cudaGraphExec_t graph) { return graph ? cudaSuccess : cudaErrorInvalidValue; }

/* ---- kernels ---- */

static cudaError_t pretended_cudaFuncGetAttributes(struct cudaFuncAttributes *out, const void *function) {
  (void)function;
  memset(out, 0, sizeof *out);
  out->ptxVersion = out->binaryVersion = 90;
  return cudaSuccess;
}

static cudaError_t pretended_cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute which, int value) {
  (void)function;
  if (which != cudaFuncAttributeMaxDynamicSharedMemorySize || value <= PRETENDED_SHARED) return cudaSuccess;
  PRETENDED_FAULT("a kernel with %d bytes of shared memory", value);
  return cudaErrorInvalidValue;
}

static cudaError_t pretended_cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads,
                                                                           size_t shared) {
  *blocks = function && threads <= 1024 && shared <= PRETENDED_SHARED ? 2 : 0;
  return cudaSuccess;
}

static cudaError_t pretended_cudaOccupancyMaxActiveClusters(int *clusters, const void *function,
                                                            const cudaLaunchConfig_t *config) {
  *clusters = function && config->numAttrs == 1 ? 66 : 0;
  return cudaSuccess;
}

static cudaError_t pretended_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const bool fits = grid.x > 0 && grid.x <= INT32_MAX && grid.y > 0 && grid.y <= UINT16_MAX && grid.z > 0 &&
                    grid.z <= UINT16_MAX && block.x > 0 && (size_t)block.x * block.y * block.z <= 1024 &&
                    config->dynamicSmemBytes <= PRETENDED_SHARED;
  ++pretended_launches;
  if (kernel && arguments && fits) return cudaSuccess;
  PRETENDED_FAULT("a launch of %ux%ux%u blocks of %u threads with %zu bytes", grid.x, grid.y, grid.z, block.x,
                  config->dynamicSmemBytes);
  return cudaErrorInvalidConfiguration;
}

/* What a bulk copy may touch is to be memory. */
static CUresult CUDAAPI pretended_encode(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *data,
                                         const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box,
                                         const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                         CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  (void)map, (void)box, (void)steps, (void)interleave, (void)swizzle, (void)promotion, (void)fill;
  size_t bytes = dims[0] * (type == CU_TENSOR_MAP_DATA_TYPE_INT64 ? 8 : 1);
  for (cuuint32_t i = 1; i < rank; ++i) bytes += (dims[i] - 1) * strides[i - 1];
  ++pretended_maps;
  if (!pretended_holds(data, bytes)) PRETENDED_FAULT("a tensor map of %zu bytes at %p", bytes, data);
  return CUDA_SUCCESS;
}

static cudaError_t pretended_cudaGetDriverEntryPointByVersion(const char *symbol, void **out, unsigned version,
                                                              unsigned long long flags,
                                                              enum cudaDriverEntryPointQueryResult *found) {
  CUresult (*encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                     const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                     CUtensorMapFloatOOBfill) = pretended_encode;
  (void)version, (void)flags;
  if (strcmp(symbol, "cuTensorMapEncodeTiled") != 0) return cudaErrorInvalidValue;
  memcpy(out, &encode, sizeof encode);
  *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

#endif
