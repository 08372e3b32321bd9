/* What ranks with CUDA devices exchange: through NCCL, in streams and so in recordings too, where each rank has a device of its
 * own and NCCL is there; else through host memory and the ranks' transport, so that ranks on GPUs and on CPUs can be mixed. Sums
 * of gradients travel in a stream of their own, beside the backward operations of earlier layers. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "platform/environment.h"

#ifdef NITI_NCCL
#include <nccl.h>

enum { IN_ORDER, BESIDE, COMMUNICATORS }; /* in the backend's stream, and in `side`: each with an order of its own */

struct NitiNccl {
  void *library;
  ncclComm_t communicators[COMMUNICATORS];
  cudaStream_t side;
  cudaEvent_t reached; /* what `side` waits for, and what waits for it */
  bool begun;          /* sums in `side` that the backend's stream has not waited for */
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
  for (int i = 0; i < COMMUNICATORS; ++i) {
    if (n->communicators[i]) (void)n->abort(n->communicators[i]); /* all work has ended, and nobody waits for the others */
  }
  if (n->side) (void)niti_cuda_runtime.cudaStreamDestroy(n->side);
  if (n->reached) (void)niti_cuda_runtime.cudaEventDestroy(n->reached);
  free(n); /* the library stays: it may have threads */
}

static NitiStatus connect(NitiCuda *cuda, NitiRanks *ranks, NitiNccl *n) {
  ncclUniqueId ids[COMMUNICATORS];
  ncclResult_t result = ncclSuccess;
  memset(ids, 0, sizeof ids);
  for (int i = 0; i < COMMUNICATORS && niti_ranks_lead(ranks) && result == ncclSuccess; ++i) result = n->get_id(&ids[i]);
  NITI_TRY(niti_ranks_broadcast(ranks, ids, sizeof ids));
  niti_cuda_note(cuda, niti_cuda_runtime.cudaSetDevice(cuda->device), "choosing the device");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamCreateWithFlags(&n->side, cudaStreamNonBlocking), "making a stream");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventCreateWithFlags(&n->reached, cudaEventDisableTiming), "making an event");
  for (int i = 0; i < COMMUNICATORS && result == ncclSuccess; ++i)
    result = n->open(&n->communicators[i], niti_ranks_size(ranks), ids[i], niti_ranks_rank(ranks));
  const size_t used = strlen(cuda->description);
  (void)snprintf(cuda->description + used, sizeof cuda->description - used, ", NCCL");
  if (result == ncclSuccess) return niti_cuda_status(cuda);
  return niti_fail(NITI_ERROR_DEVICE, "cuda:%d: NCCL could not connect the ranks: %s", cuda->device, n->describe(result));
}

static void reduce_by_nccl(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction, int way) {
  static const ncclDataType_t types[] = {ncclUint32, ncclInt64, ncclInt32, ncclInt64};
  const bool max = reduction == NITI_REDUCE_MAX_U32 || reduction == NITI_REDUCE_MAX_S64;
  const ncclResult_t result =
      cuda->nccl->all_reduce(data, data, count, types[reduction], max ? ncclMax : ncclSum, cuda->nccl->communicators[way],
                             way == BESIDE ? cuda->nccl->side : cuda->stream);
  if (result != ncclSuccess) niti_cuda_note(cuda, cudaErrorUnknown, cuda->nccl->describe(result));
}

/* What is enqueued from now on in `later` follows what is in `before`. */
static void follow(NitiCuda *cuda, cudaStream_t later, cudaStream_t before) {
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventRecord(cuda->nccl->reached, before), "recording an event");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamWaitEvent(later, cuda->nccl->reached, 0), "waiting for an event");
}

static void reduce_in_order(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  reduce_by_nccl(cuda, data, count, reduction, IN_ORDER);
}

static void begin_beside(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  follow(cuda, cuda->nccl->side, cuda->stream);
  reduce_by_nccl(cuda, data, count, reduction, BESIDE);
  cuda->nccl->begun = true;
}

static void end_beside(NitiCuda *cuda) {
  if (cuda->nccl->begun) follow(cuda, cuda->stream, cuda->nccl->side);
  cuda->nccl->begun = false;
}
#else
static NitiNccl *load(void) { return NULL; }
static void unload(NitiNccl *n) { (void)n; }

static NitiStatus connect(NitiCuda *cuda, NitiRanks *ranks, NitiNccl *n) {
  (void)cuda, (void)ranks, (void)n;
  return NITI_OK;
}

static void reduce_in_order(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  (void)cuda, (void)data, (void)count, (void)reduction;
}

static void begin_beside(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  (void)cuda, (void)data, (void)count, (void)reduction;
}

static void end_beside(NitiCuda *cuda) { (void)cuda; }
#endif

/* ---- through the host ---- */

/* Sums that travel between hosts; their memory on the device, and the rest of the list. */
struct NitiTravelling {
  NitiTravelling *next;
  void *data;
  size_t bytes;
  int64_t host[];
};

static size_t bytes_of(size_t count, NitiReduction reduction) {
  return count * (reduction == NITI_REDUCE_MAX_U32 || reduction == NITI_REDUCE_SUM_S32 ? 4 : 8);
}

static void copy(NitiCuda *cuda, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  niti_cuda_note(cuda, niti_cuda_runtime.cudaMemcpyAsync(to, from, bytes, kind, cuda->stream), "what ranks exchange");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamSynchronize(cuda->stream), "work on the device");
}

/* A copy in host memory; NULL, and noted: out of memory. */
static NitiTravelling *bring(NitiCuda *cuda, void *data, size_t bytes) {
  NitiTravelling *t = malloc(sizeof *t + bytes);
  if (!t) {
    niti_cuda_note(cuda, cudaErrorMemoryAllocation, "what ranks exchange");
    return NULL;
  }
  t->next = NULL;
  t->data = data;
  t->bytes = bytes;
  copy(cuda, t->host, data, bytes, cudaMemcpyDeviceToHost);
  return t;
}

static void take_back(NitiCuda *cuda, NitiTravelling *t) {
  copy(cuda, t->data, t->host, t->bytes, cudaMemcpyHostToDevice);
  free(t);
  if (niti_ranks_check(cuda->base.together.ranks) != NITI_OK)
    niti_cuda_note(cuda, cudaErrorUnknown, "exchanging with other ranks");
}

static void reduce_by_host(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  NitiTravelling *t = bring(cuda, data, bytes_of(count, reduction));
  if (!t) return;
  niti_ranks_reduce(cuda->base.together.ranks, t->host, count, reduction);
  take_back(cuda, t);
}

static void begin_by_host(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  NitiTravelling *t = bring(cuda, data, bytes_of(count, reduction));
  if (!t) return;
  niti_ranks_begin(cuda->base.together.ranks, t->host, count, reduction);
  t->next = cuda->travelling;
  cuda->travelling = t;
}

static void end_by_host(NitiCuda *cuda) {
  niti_ranks_end(cuda->base.together.ranks);
  while (cuda->travelling) {
    NitiTravelling *t = cuda->travelling;
    cuda->travelling = t->next;
    take_back(cuda, t);
  }
}

static void reduce(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  cuda->settled = false; /* NCCL's kernels are its own affair */
  if (cuda->nccl)
    reduce_in_order(cuda, data, count, reduction);
  else
    reduce_by_host(cuda, data, count, reduction);
}

/* ---- operations ---- */

void niti_cuda_share_range(NitiCuda *cuda) {
  if (cuda->base.together.whole > 0) reduce(cuda, &cuda->range->max, 1, NITI_REDUCE_MAX_U32);
}

static NitiReduction sum_of(int bits) { return bits == 32 ? NITI_REDUCE_SUM_S32 : NITI_REDUCE_SUM_S64; }

/* An idle rank adds nothing. */
static void clear_if_idle(NitiCuda *cuda, void *sums, size_t count, int bits) {
  if (cuda->base.together.idle)
    niti_cuda_note(cuda, niti_cuda_runtime.cudaMemsetAsync(sums, 0, count * (size_t)bits / 8, cuda->stream), "cudaMemsetAsync");
}

void niti_cuda_all_sum(NitiBackend *backend, void *sums, size_t count, int bits) {
  NitiCuda *cuda = niti_cuda(backend);
  if (backend->together.whole == 0) return;
  clear_if_idle(cuda, sums, count, bits);
  reduce(cuda, sums, count, sum_of(bits));
}

void niti_cuda_all_sum_begin(NitiBackend *backend, void *sums, size_t count, int bits) {
  NitiCuda *cuda = niti_cuda(backend);
  clear_if_idle(cuda, sums, count, bits);
  if (cuda->nccl)
    begin_beside(cuda, sums, count, sum_of(bits));
  else
    begin_by_host(cuda, sums, count, sum_of(bits));
}

void niti_cuda_all_sum_wait(NitiBackend *backend) {
  NitiCuda *cuda = niti_cuda(backend);
  if (backend->together.whole == 0) return;
  if (cuda->nccl)
    end_beside(cuda);
  else
    end_by_host(cuda);
  niti_cuda_add_metrics(cuda);
}

/* ---- joining ---- */

/* "HOST 0000:3B:00.0", where NCCL is there. NCCL refuses one device twice on a host, whose name its own variable may give. */
void niti_cuda_link_name(NitiBackend *backend, char name[NITI_LINK_NAME_MAX]) {
  char host[NITI_RANK_NAME_MAX], bus[20];
  const char *given = niti_environment_get("NCCL_HOSTID");
  NitiNccl *nccl = load();
  name[0] = 0;
  if (nccl && niti_cuda_runtime.cudaDeviceGetPCIBusId(bus, sizeof bus, niti_cuda(backend)->device) == cudaSuccess) {
    niti_environment_host(host, sizeof host);
    (void)snprintf(name, NITI_LINK_NAME_MAX, "%.*s %s", NITI_RANK_NAME_MAX - 1, given ? given : host, bus);
  }
  unload(nccl);
}

NitiStatus niti_cuda_connect(NitiBackend *backend, NitiRanks *ranks) {
  NitiCuda *cuda = niti_cuda(backend);
  cuda->nccl = load();
  return cuda->nccl ? connect(cuda, ranks, cuda->nccl) : niti_fail(NITI_ERROR_MEMORY, "out of memory for NCCL");
}

void niti_cuda_leave(NitiCuda *cuda) {
  if (cuda->travelling) end_by_host(cuda);
  unload(cuda->nccl);
  cuda->nccl = NULL;
}
