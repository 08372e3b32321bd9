/* The functions of the CUDA runtime that the backend calls, as one table: a test that links another table lets them fail. */
#ifndef NITI_BACKEND_CUDA_RUNTIME_H
#define NITI_BACKEND_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* NITI_CUDA_CALLS(CALL): CALL(result, name, parameters, arguments) of each. */
#define NITI_CUDA_CALLS(CALL)                                                                                                    \
  CALL(cudaError_t, cudaGetDeviceCount, (int *count), (count))                                                                   \
  CALL(cudaError_t, cudaDriverGetVersion, (int *version), (version))                                                             \
  CALL(cudaError_t, cudaRuntimeGetVersion, (int *version), (version))                                                            \
  CALL(cudaError_t, cudaDeviceGetAttribute, (int *value, enum cudaDeviceAttr which, int device), (value, which, device))         \
  CALL(cudaError_t, cudaGetDeviceProperties, (struct cudaDeviceProp * out, int device), (out, device))                           \
  CALL(cudaError_t, cudaDeviceGetPCIBusId, (char *name, int size, int device), (name, size, device))                             \
  CALL(cudaError_t, cudaDeviceGetByPCIBusId, (int *device, const char *name), (device, name))                                    \
  CALL(cudaError_t, cudaDeviceCanAccessPeer, (int *can, int device, int peer), (can, device, peer))                              \
  CALL(cudaError_t, cudaIpcGetMemHandle, (cudaIpcMemHandle_t * out, void *p), (out, p))                                          \
  CALL(cudaError_t, cudaIpcOpenMemHandle, (void **out, cudaIpcMemHandle_t handle, unsigned flags), (out, handle, flags))         \
  CALL(cudaError_t, cudaIpcCloseMemHandle, (void *p), (p))                                                                       \
  CALL(cudaError_t, cudaSetDevice, (int device), (device))                                                                       \
  CALL(cudaError_t, cudaGetLastError, (void), ())                                                                                \
  CALL(cudaError_t, cudaMemGetInfo, (size_t * available, size_t * total), (available, total))                                    \
  CALL(cudaError_t, cudaMalloc, (void **out, size_t size), (out, size))                                                          \
  CALL(cudaError_t, cudaFree, (void *p), (p))                                                                                    \
  CALL(cudaError_t, cudaMallocHost, (void **out, size_t size), (out, size))                                                      \
  CALL(cudaError_t, cudaFreeHost, (void *p), (p))                                                                                \
  CALL(cudaError_t, cudaMemcpyAsync, (void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream),   \
       (to, from, size, kind, stream))                                                                                           \
  CALL(cudaError_t, cudaMemsetAsync, (void *to, int value, size_t size, cudaStream_t stream), (to, value, size, stream))         \
  CALL(cudaError_t, cudaStreamCreateWithFlags, (cudaStream_t * out, unsigned flags), (out, flags))                               \
  CALL(cudaError_t, cudaStreamDestroy, (cudaStream_t stream), (stream))                                                          \
  CALL(cudaError_t, cudaStreamWaitEvent, (cudaStream_t stream, cudaEvent_t event, unsigned flags), (stream, event, flags))       \
  CALL(cudaError_t, cudaStreamSynchronize, (cudaStream_t stream), (stream))                                                      \
  CALL(cudaError_t, cudaStreamBeginCapture, (cudaStream_t stream, enum cudaStreamCaptureMode mode), (stream, mode))              \
  CALL(cudaError_t, cudaStreamEndCapture, (cudaStream_t stream, cudaGraph_t * out), (stream, out))                               \
  CALL(cudaError_t, cudaEventCreateWithFlags, (cudaEvent_t * out, unsigned flags), (out, flags))                                 \
  CALL(cudaError_t, cudaEventDestroy, (cudaEvent_t event), (event))                                                              \
  CALL(cudaError_t, cudaEventRecord, (cudaEvent_t event, cudaStream_t stream), (event, stream))                                  \
  CALL(cudaError_t, cudaEventSynchronize, (cudaEvent_t event), (event))                                                          \
  CALL(cudaError_t, cudaGraphInstantiate, (cudaGraphExec_t * out, cudaGraph_t graph, unsigned long long flags),                  \
       (out, graph, flags))                                                                                                      \
  CALL(cudaError_t, cudaGraphLaunch, (cudaGraphExec_t graph, cudaStream_t stream), (graph, stream))                              \
  CALL(cudaError_t, cudaGraphDestroy, (cudaGraph_t graph), (graph))                                                              \
  CALL(cudaError_t, cudaGraphExecDestroy, (cudaGraphExec_t graph), (graph))                                                      \
  CALL(cudaError_t, cudaFuncGetAttributes, (struct cudaFuncAttributes * out, const void *function), (out, function))             \
  CALL(cudaError_t, cudaFuncSetAttribute, (const void *function, enum cudaFuncAttribute which, int value),                       \
       (function, which, value))                                                                                                 \
  CALL(cudaError_t, cudaOccupancyMaxActiveBlocksPerMultiprocessor,                                                               \
       (int *blocks, const void *function, int threads, size_t shared), (blocks, function, threads, shared))                     \
  CALL(cudaError_t, cudaOccupancyMaxActiveClusters, (int *clusters, const void *function, const cudaLaunchConfig_t *config),     \
       (clusters, function, config))                                                                                             \
  CALL(cudaError_t, cudaLaunchKernelExC, (const cudaLaunchConfig_t *config, const void *kernel, void **arguments),               \
       (config, kernel, arguments))                                                                                              \
  CALL(                                                                                                                          \
      cudaError_t, cudaGetDriverEntryPointByVersion,                                                                             \
      (const char *symbol, void **out, unsigned version, unsigned long long flags, enum cudaDriverEntryPointQueryResult *found), \
      (symbol, out, version, flags, found))

#define NITI_CUDA_MEMBER(result, name, parameters, arguments) result(*name) parameters;
typedef struct NitiCudaRuntime {
  NITI_CUDA_CALLS(NITI_CUDA_MEMBER)
} NitiCudaRuntime;

extern const NitiCudaRuntime niti_cuda_runtime;

#ifdef __cplusplus
}
#endif
#endif
