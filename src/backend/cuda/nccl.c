/* Exchanges between ranks through NCCL, which is loaded where it is wanted and there. */
#include "backend/cuda/nccl.h"

#ifdef NITI_NCCL
#include <dlfcn.h>
#include <nccl.h>
#include <stdlib.h>

enum { IN_ORDER, BESIDE, COMMUNICATORS }; /* in the backend's stream, and in `side`: each with an order of its own */
enum { LARGE = 4 << 20 };                 /* bytes of an exchange that NCCL makes as it makes larger ones */

struct NitiNccl {
  void *library;
  ncclComm_t communicators[COMMUNICATORS];
  cudaStream_t side;
  cudaEvent_t reached; /* what `side` waits for, and what waits for it */
  bool begun;          /* sums in `side` that the backend's stream has not waited for */
  ncclResult_t (*get_id)(ncclUniqueId *);
  ncclResult_t (*open)(ncclComm_t *, int, ncclUniqueId, int);
  ncclResult_t (*all_reduce)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t);
  ncclResult_t (*group_start)(void);
  ncclResult_t (*group_end)(void);
  ncclResult_t (*abort)(ncclComm_t);
  const char *(*describe)(ncclResult_t);
};

static bool find(void *library, const char *name, void *function) {
  *(void **)function = dlsym(library, name);
  return *(void **)function != NULL;
}

NitiNccl *niti_nccl_load(void) {
  NitiNccl *n = calloc(1, sizeof *n);
  if (!n) return NULL;
  n->library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (n->library && find(n->library, "ncclGetUniqueId", &n->get_id) && find(n->library, "ncclCommInitRank", &n->open) &&
      find(n->library, "ncclAllReduce", &n->all_reduce) && find(n->library, "ncclGroupStart", &n->group_start) &&
      find(n->library, "ncclGroupEnd", &n->group_end) && find(n->library, "ncclCommAbort", &n->abort) &&
      find(n->library, "ncclGetErrorString", &n->describe))
    return n;
  if (n->library) (void)dlclose(n->library);
  free(n);
  return NULL;
}

void niti_nccl_close(NitiNccl *n) {
  if (!n) return;
  for (int i = 0; i < COMMUNICATORS; ++i) {
    if (n->communicators[i]) (void)n->abort(n->communicators[i]); /* all work has ended, and nobody waits for the others */
  }
  if (n->side) (void)niti_cuda_runtime.cudaStreamDestroy(n->side);
  if (n->reached) (void)niti_cuda_runtime.cudaEventDestroy(n->reached);
  free(n); /* the library stays: it may have threads */
}

static void note(NitiCuda *cuda, ncclResult_t result) {
  if (result != ncclSuccess) niti_cuda_note(cuda, cudaErrorUnknown, cuda->nccl->describe(result));
}

static void all_reduce(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction, int way) {
  static const ncclDataType_t types[] = {ncclUint32, ncclInt64, ncclInt32, ncclInt64};
  const bool max = reduction == NITI_REDUCE_MAX_U32 || reduction == NITI_REDUCE_MAX_S64;
  note(cuda, cuda->nccl->all_reduce(data, data, count, types[reduction], max ? ncclMax : ncclSum, cuda->nccl->communicators[way],
                                    way == BESIDE ? cuda->nccl->side : cuda->stream));
}

/* One where all sums keep the order of everything else. */
static int communicators(const NitiCuda *cuda) { return cuda->sums ? BESIDE : COMMUNICATORS; }

/* Exchanges of every kind, of zeros. At the first ones of a communicator, by each of its algorithms, NCCL connects the ranks and
 * loads its kernels, which takes longer than many steps and would be counted as the first one's. */
static void exchange_first(NitiCuda *cuda, void *zeros) {
  static const struct {
    size_t count;
    NitiReduction reduction;
  } first[] = {
      {1, NITI_REDUCE_MAX_U32}, {3, NITI_REDUCE_SUM_S64}, {LARGE / 4, NITI_REDUCE_SUM_S32}, {LARGE / 8, NITI_REDUCE_SUM_S64}};
  for (int way = 0; way < communicators(cuda); ++way) {
    for (size_t i = 0; i < sizeof first / sizeof *first; ++i) all_reduce(cuda, zeros, first[i].count, first[i].reduction, way);
    niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamSynchronize(way == BESIDE ? cuda->nccl->side : cuda->stream), "NCCL");
  }
}

static NitiStatus open_all(NitiCuda *cuda, NitiRanks *ranks, NitiNccl *n) {
  ncclUniqueId ids[COMMUNICATORS];
  ncclResult_t result = ncclSuccess;
  const int count = communicators(cuda);
  memset(ids, 0, sizeof ids);
  for (int i = 0; i < count && niti_ranks_lead(ranks) && result == ncclSuccess; ++i) result = n->get_id(&ids[i]);
  NITI_TRY(niti_ranks_broadcast(ranks, ids, sizeof ids));
  for (int i = 0; i < count && result == ncclSuccess; ++i)
    result = n->open(&n->communicators[i], niti_ranks_size(ranks), ids[i], niti_ranks_rank(ranks));
  if (result == ncclSuccess) return NITI_OK;
  return niti_fail(NITI_ERROR_DEVICE, "cuda:%d: NCCL could not connect the ranks: %s", cuda->device, n->describe(result));
}

static void prepare(NitiCuda *cuda, NitiNccl *n, void **zeros) {
  niti_cuda_note(cuda, niti_cuda_runtime.cudaSetDevice(cuda->device), "choosing the device");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamCreateWithFlags(&n->side, cudaStreamNonBlocking), "making a stream");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventCreateWithFlags(&n->reached, cudaEventDisableTiming), "making an event");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaMalloc(zeros, LARGE), "memory to connect the ranks");
  if (*zeros) niti_cuda_note(cuda, niti_cuda_runtime.cudaMemsetAsync(*zeros, 0, LARGE, cuda->stream), "cudaMemsetAsync");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamSynchronize(cuda->stream), "work on the device"); /* `side` reads them too */
}

NitiStatus niti_nccl_connect(NitiCuda *cuda, NitiRanks *ranks, NitiNccl *n) {
  void *zeros = NULL;
  prepare(cuda, n, &zeros);
  NitiStatus status = niti_ranks_agree(ranks, niti_cuda_status(cuda)); /* connecting wants all */
  if (status == NITI_OK) status = open_all(cuda, ranks, n);
  if (status == NITI_OK) exchange_first(cuda, zeros);
  if (zeros) niti_cuda_note(cuda, niti_cuda_runtime.cudaFree(zeros), "cudaFree");
  return status == NITI_OK ? niti_cuda_status(cuda) : status;
}

void niti_nccl_reduce(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  all_reduce(cuda, data, count, reduction, IN_ORDER);
}

void niti_nccl_sum(NitiCuda *cuda, const NitiSums *sums) {
  note(cuda, cuda->nccl->group_start());
  for (int i = 0; i < sums->count; ++i) niti_nccl_reduce(cuda, sums->of[i].data, sums->of[i].count, sums->of[i].reduction);
  note(cuda, cuda->nccl->group_end());
}

/* What is enqueued from now on in `later` follows what is in `before`. */
static void follow(NitiCuda *cuda, cudaStream_t later, cudaStream_t before) {
  niti_cuda_note(cuda, niti_cuda_runtime.cudaEventRecord(cuda->nccl->reached, before), "recording an event");
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamWaitEvent(later, cuda->nccl->reached, 0), "waiting for an event");
}

void niti_nccl_begin_beside(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  follow(cuda, cuda->nccl->side, cuda->stream);
  all_reduce(cuda, data, count, reduction, BESIDE);
  cuda->nccl->begun = true;
}

void niti_nccl_end_beside(NitiCuda *cuda) {
  if (cuda->nccl->begun) follow(cuda, cuda->stream, cuda->nccl->side);
  cuda->nccl->begun = false;
}
#else
NitiNccl *niti_nccl_load(void) { return NULL; }
void niti_nccl_close(NitiNccl *n) { (void)n; }

NitiStatus niti_nccl_connect(NitiCuda *cuda, NitiRanks *ranks, NitiNccl *n) {
  (void)cuda, (void)ranks, (void)n;
  return NITI_OK;
}

void niti_nccl_reduce(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  (void)cuda, (void)data, (void)count, (void)reduction;
}

void niti_nccl_sum(NitiCuda *cuda, const NitiSums *sums) { (void)cuda, (void)sums; }

void niti_nccl_begin_beside(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  (void)cuda, (void)data, (void)count, (void)reduction;
}

void niti_nccl_end_beside(NitiCuda *cuda) { (void)cuda; }
#endif
