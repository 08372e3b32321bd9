/* Opens and closes memory that the ranks' devices share, and mailboxes in it. */
#include "backend/cuda/peers.h"

#include <string.h>

enum { BUS_NAME = 20, BLOCK = 2 << 20 /* bytes: of smaller allocations a handle shares what lies beside them, too */ };

/* What a rank tells the others. */
typedef struct Card {
  bool good;
  char bus[BUS_NAME];
  size_t bytes;
  cudaIpcMemHandle_t handle;
} Card;

/* A failure here costs nothing but this way of exchanging. */
static bool works(cudaError_t error) {
  if (error != cudaSuccess) (void)niti_cuda_runtime.cudaGetLastError();
  return error == cudaSuccess;
}

static bool make_own(NitiShared *shared, NitiCuda *cuda, size_t bytes) {
  const size_t all = (bytes + BLOCK - 1) / BLOCK * BLOCK;
  void *own = NULL;
  if (!works(niti_cuda_runtime.cudaMalloc(&own, all))) return false;
  shared->of[shared->rank] = own;
  return works(niti_cuda_runtime.cudaMemsetAsync(own, 0, all, cuda->stream)) &&
         works(niti_cuda_runtime.cudaStreamSynchronize(cuda->stream)); /* before others write to it */
}

static Card make_card(NitiShared *shared, NitiCuda *cuda, size_t bytes, bool able) {
  Card card;
  memset(&card, 0, sizeof card);
  card.bytes = bytes;
  card.good = able && works(niti_cuda_runtime.cudaSetDevice(cuda->device)) && make_own(shared, cuda, bytes) &&
              works(niti_cuda_runtime.cudaDeviceGetPCIBusId(card.bus, sizeof card.bus, cuda->device)) &&
              works(niti_cuda_runtime.cudaIpcGetMemHandle(&card.handle, shared->of[shared->rank]));
  return card;
}

/* Whether the device can write another one's memory. Of a device that is hidden from this process (CUDA_VISIBLE_DEVICES) only the
 * attempt shows it. */
static bool can_write(const NitiCuda *cuda, const char *bus) {
  int other = 0, can = 0;
  if (!works(niti_cuda_runtime.cudaDeviceGetByPCIBusId(&other, bus)) || other == cuda->device) return true;
  return works(niti_cuda_runtime.cudaDeviceCanAccessPeer(&can, cuda->device, other)) && can;
}

static bool map_others(NitiShared *shared, const NitiCuda *cuda, const Card *cards) {
  for (int i = 0; i < shared->ranks; ++i) {
    if (!cards[i].good || cards[i].bytes != cards[0].bytes) return false;
  }
  for (int i = 0; i < shared->ranks; ++i) {
    void *there = NULL;
    if (i == shared->rank) continue;
    if (!can_write(cuda, cards[i].bus) ||
        !works(niti_cuda_runtime.cudaIpcOpenMemHandle(&there, cards[i].handle, cudaIpcMemLazyEnablePeerAccess)))
      return false;
    shared->of[i] = there;
  }
  return true;
}

static void unmap_others(NitiShared *shared) {
  for (int i = 0; i < shared->ranks; ++i) {
    if (i == shared->rank || !shared->of[i]) continue;
    (void)works(niti_cuda_runtime.cudaIpcCloseMemHandle(shared->of[i]));
    shared->of[i] = NULL;
  }
}

/* Whether it is so on all ranks. */
static NitiStatus all_are(bool *all, NitiRanks *ranks, bool own) {
  bool each[NITI_MAILBOX_RANKS] = {false};
  const NitiStatus status = niti_ranks_gather(ranks, each, &own, sizeof own);
  *all = status == NITI_OK;
  for (int i = 0; i < niti_ranks_size(ranks); ++i) *all = *all && each[i];
  return status;
}

NitiStatus niti_shared_open(NitiShared *shared, NitiCuda *cuda, NitiRanks *ranks, size_t bytes, bool able) {
  Card cards[NITI_MAILBOX_RANKS];
  memset(shared, 0, sizeof *shared);
  memset(cards, 0, sizeof cards);
  if (niti_ranks_hosts(ranks) > 1 || niti_ranks_size(ranks) > NITI_MAILBOX_RANKS) return NITI_OK;
  shared->rank = niti_ranks_rank(ranks);
  shared->ranks = niti_ranks_size(ranks);
  const Card own = make_card(shared, cuda, bytes, able);
  NitiStatus status = niti_ranks_gather(ranks, cards, &own, sizeof own);
  if (status == NITI_OK) status = all_are(&shared->open, ranks, map_others(shared, cuda, cards));
  if (status != NITI_OK)
    niti_shared_drop(shared);
  else if (!shared->open)
    niti_shared_leave(shared, cuda, ranks);
  return status;
}

void niti_shared_leave(NitiShared *shared, NitiCuda *cuda, NitiRanks *ranks) {
  bool all = false;
  void *own = shared->of[shared->rank];
  (void)works(niti_cuda_runtime.cudaSetDevice(cuda->device));
  (void)works(niti_cuda_runtime.cudaStreamSynchronize(cuda->stream)); /* and with it the last exchange */
  niti_shared_drop(shared);
  if (all_are(&all, ranks, true) == NITI_OK && own) (void)works(niti_cuda_runtime.cudaFree(own));
}

void niti_shared_drop(NitiShared *shared) {
  unmap_others(shared);
  memset(shared, 0, sizeof *shared);
}

/* A rank's memory is its mailbox, with its number behind it. */
NitiStatus niti_peers_open(NitiPeers *peers, NitiCuda *cuda, NitiRanks *ranks) {
  const size_t bytes = niti_mailbox_bytes(niti_ranks_size(ranks));
  memset(peers, 0, sizeof *peers);
  NITI_TRY(niti_shared_open(&peers->memory, cuda, ranks, bytes + sizeof *peers->boxes.number, true));
  if (!peers->memory.open) return NITI_OK;
  peers->boxes.rank = peers->memory.rank;
  peers->boxes.ranks = peers->memory.ranks;
  for (int i = 0; i < peers->boxes.ranks; ++i) peers->boxes.of[i] = peers->memory.of[i];
  peers->boxes.number = (uint32_t *)(void *)((char *)peers->memory.of[peers->memory.rank] + bytes);
  return NITI_OK;
}
