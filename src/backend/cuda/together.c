/* What ranks with CUDA devices exchange: through NCCL, in the stream and so in recordings too, where each rank has a device of
 * its own and NCCL is there; else through host memory and the ranks' transport, so that ranks on GPUs and on CPUs can be mixed.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "platform/environment.h"

#ifdef NITI_NCCL
#include <nccl.h>

struct NitiNccl {
  void *library;
  ncclComm_t communicator;
  ncclResult_t (*get_id)(ncclUniqueId *);
  ncclResult_t (*open)(ncclComm_t *, int, ncclUniqueId, int);
  ncclResult_t (*all_reduce)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t);
  ncclResult_t (*abort)(ncclComm_t);
  const char *(*describe)(ncclResult_t);
};

static bool find(void *library, const char *name, void *function) {
  *(void **)function = dlsym(library, name);
  return *(void **)function != NULL;
}

/* NULL: NCCL is not there. */
static NitiNccl *load(void) {
  NitiNccl *n = calloc(1, sizeof *n);
  if (!n) return NULL;
  n->library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (n->library && find(n->library, "ncclGetUniqueId", &n->get_id) && find(n->library, "ncclCommInitRank", &n->open) &&
      find(n->library, "ncclAllReduce", &n->all_reduce) && find(n->library, "ncclCommAbort", &n->abort) &&
      find(n->library, "ncclGetErrorString", &n->describe))
    return n;
  if (n->library) (void)dlclose(n->library);
  free(n);
  return NULL;
}

static void unload(NitiNccl *n) {
  if (!n) return;
  if (n->communicator) (void)n->abort(n->communicator); /* all work has ended, and nobody waits for the others */
  free(n);                                              /* the library stays: it may have threads */
}

static NitiStatus connect(NitiCuda *cuda, NitiRanks *ranks, NitiNccl *n) {
  ncclUniqueId id;
  memset(&id, 0, sizeof id);
  ncclResult_t result = niti_ranks_lead(ranks) ? n->get_id(&id) : ncclSuccess;
  NITI_TRY(niti_ranks_broadcast(ranks, &id, sizeof id));
  niti_cuda_note(cuda, niti_cuda_runtime.cudaSetDevice(cuda->device), "choosing the device");
  if (result == ncclSuccess) result = n->open(&n->communicator, niti_ranks_size(ranks), id, niti_ranks_rank(ranks));
  const size_t used = strlen(cuda->description);
  (void)snprintf(cuda->description + used, sizeof cuda->description - used, ", NCCL");
  if (result == ncclSuccess) return NITI_OK;
  return niti_fail(NITI_ERROR_DEVICE, "cuda:%d: NCCL could not connect the ranks: %s", cuda->device, n->describe(result));
}

static void reduce_by_nccl(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  static const ncclDataType_t types[] = {ncclUint32, ncclInt64, ncclInt32, ncclInt64};
  const bool max = reduction == NITI_REDUCE_MAX_U32 || reduction == NITI_REDUCE_MAX_S64;
  const ncclResult_t result = cuda->nccl->all_reduce(data, data, count, types[reduction], max ? ncclMax : ncclSum,
                                                     cuda->nccl->communicator, cuda->stream);
  if (result != ncclSuccess) niti_cuda_note(cuda, cudaErrorUnknown, cuda->nccl->describe(result));
}
#else
static NitiNccl *load(void) { return NULL; }
static void unload(NitiNccl *n) { (void)n; }

static NitiStatus connect(NitiCuda *cuda, NitiRanks *ranks, NitiNccl *n) {
  (void)cuda, (void)ranks, (void)n;
  return NITI_OK;
}

static void reduce_by_nccl(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  (void)cuda, (void)data, (void)count, (void)reduction;
}
#endif

/* ---- through the host ---- */

static void reduce_by_host(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  const size_t bytes = count * (reduction == NITI_REDUCE_MAX_U32 || reduction == NITI_REDUCE_SUM_S32 ? 4 : 8);
  void *host = malloc(bytes);
  if (!host) {
    niti_cuda_note(cuda, cudaErrorMemoryAllocation, "what ranks exchange");
    return;
  }
  niti_cuda_note(cuda, niti_cuda_runtime.cudaMemcpyAsync(host, data, bytes, cudaMemcpyDeviceToHost, cuda->stream),
                 "what ranks exchange");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamSynchronize(cuda->stream), "work on the device");
  niti_ranks_reduce(cuda->base.together.ranks, host, count, reduction);
  niti_cuda_note(cuda, niti_cuda_runtime.cudaMemcpyAsync(data, host, bytes, cudaMemcpyHostToDevice, cuda->stream),
                 "what ranks exchange");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamSynchronize(cuda->stream), "work on the device");
  free(host);
  if (niti_ranks_check(cuda->base.together.ranks) != NITI_OK)
    niti_cuda_note(cuda, cudaErrorUnknown, "exchanging with other ranks");
}

static void reduce(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  cuda->settled = false; /* NCCL's kernels are its own affair */
  if (cuda->nccl)
    reduce_by_nccl(cuda, data, count, reduction);
  else
    reduce_by_host(cuda, data, count, reduction);
}

/* ---- operations ---- */

void niti_cuda_share_range(NitiCuda *cuda) {
  if (cuda->base.together.whole > 0) reduce(cuda, &cuda->range->max, 1, NITI_REDUCE_MAX_U32);
}

void niti_cuda_all_sum(NitiBackend *backend, void *sums, size_t count, int bits) {
  NitiCuda *cuda = niti_cuda(backend);
  if (backend->together.whole == 0) return;
  if (backend->together.idle)
    niti_cuda_note(cuda, niti_cuda_runtime.cudaMemsetAsync(sums, 0, count * (size_t)bits / 8, cuda->stream), "cudaMemsetAsync");
  reduce(cuda, sums, count, bits == 32 ? NITI_REDUCE_SUM_S32 : NITI_REDUCE_SUM_S64);
}

/* ---- joining ---- */

/* "HOST 0000:3B:00.0", where NCCL is there. */
void niti_cuda_link_name(NitiBackend *backend, char name[NITI_LINK_NAME_MAX]) {
  char host[NITI_RANK_NAME_MAX], bus[20];
  NitiNccl *nccl = load();
  name[0] = 0;
  if (nccl && niti_cuda_runtime.cudaDeviceGetPCIBusId(bus, sizeof bus, niti_cuda(backend)->device) == cudaSuccess) {
    niti_environment_host(host, sizeof host);
    (void)snprintf(name, NITI_LINK_NAME_MAX, "%s %s", host, bus);
  }
  unload(nccl);
}

NitiStatus niti_cuda_connect(NitiBackend *backend, NitiRanks *ranks) {
  NitiCuda *cuda = niti_cuda(backend);
  cuda->nccl = load();
  return cuda->nccl ? connect(cuda, ranks, cuda->nccl) : niti_fail(NITI_ERROR_MEMORY, "out of memory for NCCL");
}

void niti_cuda_leave(NitiCuda *cuda) {
  unload(cuda->nccl);
  cuda->nccl = NULL;
}
