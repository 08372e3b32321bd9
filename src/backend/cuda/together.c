/* What ranks with CUDA devices exchange: through NCCL, in streams and so in recordings too, where each rank has a device of its
 * own and NCCL is there; else through host memory and the ranks' transport, so that ranks on GPUs and on CPUs can be mixed. Where
 * ranks can write the memory of each other's devices, what is small goes that way, and gradients are copied that way beside
 * backward. Else both go through NCCL: sums of gradients all together after backward, or in a stream of their own beside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/copies.h"
#include "backend/cuda/nccl.h"
#include "backend/cuda/peers.h"
#include "platform/environment.h"

/* ---- through the host ---- */

/* Sums that travel between hosts; their memory on the device, and the rest of the list. */
struct NitiTravelling {
  NitiTravelling *next;
  void *data;
  size_t bytes;
  int64_t host[];
};

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
  NitiTravelling *t = bring(cuda, data, niti_sum_bytes(count, reduction));
  if (!t) return;
  niti_ranks_reduce(cuda->base.together.ranks, t->host, count, reduction);
  take_back(cuda, t);
}

static void begin_by_host(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  NitiTravelling *t = bring(cuda, data, niti_sum_bytes(count, reduction));
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

/* ---- operations ---- */

static void reduce(NitiCuda *cuda, void *data, size_t count, NitiReduction reduction) {
  cuda->settled = false; /* NCCL's kernels are its own affair */
  if (cuda->peers && niti_mailbox_takes(count, reduction))
    niti_cuda_mailbox_exchange(cuda, &cuda->peers->boxes, data, count, reduction);
  else if (cuda->nccl)
    niti_nccl_reduce(cuda, data, count, reduction);
  else
    reduce_by_host(cuda, data, count, reduction);
}

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

/* Sums that are to run after backward. */
static void run_noted(NitiCuda *cuda) {
  if (cuda->sums->count > 0) niti_nccl_sum(cuda, cuda->sums);
  cuda->sums->count = 0;
}

static void note_sum(NitiCuda *cuda, NitiSum sum) {
  if (niti_sums_add(cuda->sums, sum)) return;
  run_noted(cuda); /* of a network with more sums than there is room for, on all ranks alike */
  (void)niti_sums_add(cuda->sums, sum);
}

bool niti_cuda_has_sums(const NitiCuda *cuda) {
  return (cuda->sums && cuda->sums->count > 0) || (cuda->copies && niti_copies_pending(cuda->copies));
}

void niti_cuda_drop_sums(NitiCuda *cuda) {
  if (cuda->sums) cuda->sums->count = 0;
  if (cuda->copies) niti_copies_forget(cuda->copies);
}

void niti_cuda_all_sum_begin(NitiBackend *backend, void *sums, size_t count, int bits) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiSum sum = {sums, count, sum_of(bits)};
  clear_if_idle(cuda, sums, count, bits);
  if (cuda->copies && niti_copies_begin(cuda->copies, cuda, &sum)) return;
  if (cuda->sums)
    note_sum(cuda, sum);
  else if (cuda->nccl)
    niti_nccl_begin_beside(cuda, sums, count, sum_of(bits));
  else
    begin_by_host(cuda, sums, count, sum_of(bits));
}

void niti_cuda_all_sum_wait(NitiBackend *backend) {
  NitiCuda *cuda = niti_cuda(backend);
  if (backend->together.whole == 0) return;
  if (cuda->copies) niti_copies_wait(cuda->copies, cuda);
  if (cuda->sums)
    run_noted(cuda);
  else if (cuda->nccl)
    niti_nccl_end_beside(cuda);
  else
    end_by_host(cuda);
  niti_cuda_add_metrics(cuda);
}

/* ---- joining ---- */

/* "HOST 0000:3B:00.0", where NCCL is there. NCCL refuses one device twice on a host, whose name its own variable may give. */
void niti_cuda_link_name(NitiBackend *backend, char name[NITI_LINK_NAME_MAX]) {
  char host[NITI_RANK_NAME_MAX], bus[20];
  const char *given = niti_environment_get("NCCL_HOSTID");
  NitiNccl *nccl = niti_nccl_load();
  name[0] = 0;
  if (nccl && niti_cuda_runtime.cudaDeviceGetPCIBusId(bus, sizeof bus, niti_cuda(backend)->device) == cudaSuccess) {
    niti_environment_host(host, sizeof host);
    (void)snprintf(name, NITI_LINK_NAME_MAX, "%.*s %s", NITI_RANK_NAME_MAX - 1, given ? given : host, bus);
  }
  niti_nccl_close(nccl);
}

/* The settings, which are to be the same on all ranks: what they exchange depends on them. */
static NitiStatus read_settings(NitiExchangeSettings *out, NitiRanks *ranks) {
  const char *sums = niti_environment_get(NITI_SUMS_VARIABLE), *small = niti_environment_get(NITI_SMALL_VARIABLE);
  NitiFacts facts = {0};
  niti_facts_add(&facts, NITI_SUMS_VARIABLE, sums ? sums : niti_sums_ways[0]);
  niti_facts_add(&facts, NITI_SMALL_VARIABLE, small ? small : niti_small_ways[0]);
  NITI_TRY(niti_ranks_compare(ranks, &facts));
  return niti_exchange_settings(out, sums, small);
}

static void add_description(NitiCuda *cuda, const char *text) {
  const size_t used = strlen(cuda->description);
  (void)snprintf(cuda->description + used, sizeof cuda->description - used, "%s", text);
}

/* What each rank does by itself; its failure is not yet the others'. */
static NitiStatus allocate(NitiCuda *cuda, const NitiRanks *ranks, const NitiExchangeSettings *settings) {
  const bool after = settings->sums != NITI_SUMS_BESIDE; /* what cannot be copied, too */
  const bool copies = settings->sums == NITI_SUMS_COPIES && niti_ranks_size(ranks) <= NITI_COPIES_RANKS;
  cuda->nccl = niti_nccl_load();
  if (after) cuda->sums = calloc(1, sizeof *cuda->sums);
  if (settings->peers) cuda->peers = calloc(1, sizeof *cuda->peers);
  if (copies) cuda->copies = calloc(1, sizeof *cuda->copies);
  if (cuda->nccl && (cuda->sums || !after) && (cuda->peers || !settings->peers) && (cuda->copies || !copies)) return NITI_OK;
  return niti_fail(NITI_ERROR_MEMORY, "out of memory for NCCL");
}

static void forget_copies(NitiCuda *cuda) {
  free(cuda->copies);
  cuda->copies = NULL;
}

static NitiStatus open_peers(NitiCuda *cuda, NitiRanks *ranks) {
  NITI_TRY(niti_peers_open(cuda->peers, cuda, ranks));
  const bool open = cuda->peers->memory.open;
  add_description(cuda, open ? ", small exchanges through peers' memory" : " (peers' memory is out of reach)");
  if (open) return NITI_OK;
  free(cuda->peers);
  cuda->peers = NULL;
  forget_copies(cuda);
  return NITI_OK;
}

NitiStatus niti_cuda_connect(NitiBackend *backend, NitiRanks *ranks) {
  NitiCuda *cuda = niti_cuda(backend);
  NitiExchangeSettings settings = {0};
  NITI_TRY(read_settings(&settings, ranks));
  NITI_TRY(niti_ranks_agree(ranks, allocate(cuda, ranks, &settings))); /* connecting wants all */
  add_description(cuda, ", NCCL");
  if (settings.peers) NITI_TRY(open_peers(cuda, ranks));
  if (cuda->sums && !cuda->copies) add_description(cuda, ", sums after backward"); /* else niti_cuda_reserve_sums says it */
  return niti_nccl_connect(cuda, ranks, cuda->nccl);
}

NitiStatus niti_cuda_reserve_sums(NitiBackend *backend, size_t bytes) {
  NitiCuda *cuda = niti_cuda(backend);
  if (!cuda->copies) return NITI_OK;
  if (bytes > 0) NITI_TRY(niti_copies_open(cuda->copies, cuda, backend->together.ranks, bytes));
  if (cuda->copies->inboxes.open) {
    add_description(cuda, ", sums by copies beside backward");
    return NITI_OK;
  }
  forget_copies(cuda);
  add_description(cuda, bytes > 0 ? ", sums after backward (no room for copies)" : ", sums after backward");
  return NITI_OK;
}

void niti_cuda_disconnect(NitiBackend *backend) {
  NitiCuda *cuda = niti_cuda(backend);
  NitiRanks *ranks = backend->together.ranks;
  if (cuda->copies && cuda->copies->inboxes.open) niti_copies_leave(cuda->copies, cuda, ranks);
  forget_copies(cuda);
  if (cuda->peers && cuda->peers->memory.open) niti_shared_leave(&cuda->peers->memory, cuda, ranks);
  free(cuda->peers);
  cuda->peers = NULL;
}

void niti_cuda_leave(NitiCuda *cuda) {
  if (cuda->travelling) end_by_host(cuda);
  if (cuda->copies) niti_copies_drop(cuda->copies, cuda);
  forget_copies(cuda);
  if (cuda->peers) niti_shared_drop(&cuda->peers->memory);
  free(cuda->peers);
  free(cuda->sums);
  niti_nccl_close(cuda->nccl);
  cuda->nccl = NULL;
  cuda->peers = NULL;
  cuda->sums = NULL;
}
