/* The functions of the CUDA runtime that the backend calls, of a device that is this processor (emulated.h). Whatever is enqueued
 * has happened when the call returns. Graphs are not supported, so that steps are enqueued. Behind every allocation lies a page
 * that cannot be read, and within it bytes that must stay as they are. NITI_EMULATED_BYTES: how much memory the device has
 * (default: 2 GiB). */
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DEVICES = 1, MULTIPROCESSORS = 5, ALIGN = 256, FILL = 0xa5, SHARED_MOST = 227 * 1024 };

typedef struct Block {
  struct Block *next;
  uint8_t *data; /* aligned */
  size_t size, mapped;
  void *map;
} Block;

static Block *blocks;
static size_t used;

static size_t device_bytes(void) {
  const char *text = getenv("NITI_EMULATED_BYTES");
  return text ? strtoull(text, NULL, 10) : (size_t)2 << 30;
}

static void stop(const char *why, const Block *block) {
  (void)fprintf(stderr, "emulated device: an allocation of %zu bytes: %s\n", block->size, why);
  abort();
}

/* What lies between the last byte and the page that cannot be read. */
static uint8_t *end_of(const Block *block, size_t *rest) {
  *rest = (size_t)((uint8_t *)block->map + block->mapped - (block->data + block->size));
  return block->data + block->size;
}

static cudaError_t take(void **out, size_t size, int counts) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  if (counts && (size > device_bytes() || used > device_bytes() - size)) return cudaErrorMemoryAllocation;
  Block *block = calloc(1, sizeof *block);
  const size_t room = (size + ALIGN - 1) / ALIGN * ALIGN, mapped = (room + page - 1) / page * page;
  uint8_t *map = mmap(NULL, mapped + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (!block || map == MAP_FAILED || mprotect(map + mapped, page, PROT_NONE) != 0) return cudaErrorMemoryAllocation;
  *block = (Block){blocks, map + mapped - room, size, mapped, map};
  size_t rest;
  memset(end_of(block, &rest), FILL, room - size);
  if (counts) used += size;
  blocks = block;
  *out = block->data;
  return cudaSuccess;
}

static cudaError_t give(void *p, int counts) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  if (!p) return cudaSuccess;
  for (Block **at = &blocks; *at; at = &(*at)->next) {
    Block *block = *at;
    size_t rest;
    if (block->data != p) continue;
    const uint8_t *end = end_of(block, &rest);
    for (size_t i = 0; i < rest; ++i)
      if (end[i] != FILL) stop("something wrote beyond its end", block);
    *at = block->next;
    if (counts) used -= block->size;
    (void)munmap(block->map, block->mapped + page);
    free(block);
    return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

cudaError_t cudaMalloc(void **out, size_t size) { return take(out, size, 1); }
cudaError_t cudaFree(void *p) { return give(p, 1); }
cudaError_t cudaMallocHost(void **out, size_t size) { return take(out, size, 0); }
cudaError_t cudaFreeHost(void *p) { return give(p, 0); }

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  *total = device_bytes();
  *available = *total - used;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
  (void)kind, (void)stream;
  memmove(to, from, size);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
  (void)stream;
  memset(to, value, size);
  return cudaSuccess;
}

/* ---- the device ---- */

cudaError_t cudaGetDeviceCount(int *count) {
  *count = DEVICES;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) { return cudaDriverGetVersion(version); }

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int device) {
  if (device < 0 || device >= DEVICES) return cudaErrorInvalidDevice;
  switch (which) {
    case cudaDevAttrComputeCapabilityMajor: *value = 8; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
    case cudaDevAttrMultiProcessorCount: *value = MULTIPROCESSORS; return cudaSuccess;
    default: return cudaErrorInvalidValue;
  }
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
  if (device < 0 || device >= DEVICES) return cudaErrorInvalidDevice;
  memset(out, 0, sizeof *out);
  (void)snprintf(out->name, sizeof out->name, "emulated");
  out->multiProcessorCount = MULTIPROCESSORS;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *name, int size, int device) {
  (void)snprintf(name, (size_t)size, "0000:00:%02x.0", (unsigned)device);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetByPCIBusId(int *device, const char *name) {
  char own[16];
  (void)cudaDeviceGetPCIBusId(own, sizeof own, 0);
  *device = 0;
  return strcmp(name, own) == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaSetDevice(int device) { return device >= 0 && device < DEVICES ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "out of memory" : "an error"; }
const char *cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaError";
}

/* Nobody else has a device. */
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
  (void)device, (void)peer;
  *can = 0;
  return cudaSuccess;
}
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *out, void *p) {
  (void)out, (void)p;
  return cudaErrorNotSupported;
}
cudaError_t cudaIpcOpenMemHandle(void **out, cudaIpcMemHandle_t handle, unsigned flags) {
  (void)out, (void)handle, (void)flags;
  return cudaErrorNotSupported;
}
cudaError_t cudaIpcCloseMemHandle(void *p) {
  (void)p;
  return cudaErrorNotSupported;
}

/* ---- streams, events, graphs: nothing is ever under way ---- */

static char thing; /* what handles point to */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
  (void)flags;
  *out = (cudaStream_t)(void *)&thing;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
  (void)flags;
  *out = (cudaEvent_t)(void *)&thing;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return stream ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return event ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return stream ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return event ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return event && stream ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  (void)flags;
  return event && stream ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  (void)stream, (void)mode;
  return cudaErrorNotSupported;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
  (void)stream, (void)out;
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags) {
  (void)out, (void)graph, (void)flags;
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  (void)graph, (void)stream;
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return graph ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return graph ? cudaSuccess : cudaErrorInvalidValue; }

/* ---- kernels ---- */

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *out, const void *function) {
  (void)function;
  memset(out, 0, sizeof *out);
  out->ptxVersion = 80;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute which, int value) {
  (void)function;
  if (which == cudaFuncAttributeMaxDynamicSharedMemorySize && (value < 0 || value > SHARED_MOST)) return cudaErrorInvalidValue;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads, size_t shared) {
  (void)function, (void)threads, (void)shared;
  *blocks = 1;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveClusters(int *clusters, const void *function, const cudaLaunchConfig_t *config) {
  (void)function, (void)config;
  *clusters = 0; /* capability 8.0 has none */
  return cudaSuccess;
}

/* Whether a device would take the launch; emulated.h runs it. */
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  (void)kernel, (void)arguments;
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidConfiguration;
  if (block.x < 1 || block.x > 1024 || block.y != 1 || block.z != 1) return cudaErrorInvalidConfiguration;
  return config->dynamicSmemBytes > SHARED_MOST ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **out, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *found) {
  (void)symbol, (void)version, (void)flags;
  *out = NULL;
  *found = cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
