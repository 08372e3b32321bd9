/* Opens and closes the ranks' mailboxes. */
#include "backend/cuda/peers.h"

#include <string.h>

enum { BUS_NAME = 20, BLOCK = 2 << 20 /* bytes: of smaller allocations a handle shares what lies beside them, too */ };

/* What a rank tells the others. */
typedef struct Card {
  bool good;
  char bus[BUS_NAME];
  cudaIpcMemHandle_t handle;
} Card;

/* A failure here costs nothing but this way of exchanging. */
static bool works(cudaError_t error) {
  if (error != cudaSuccess) (void)niti_cuda_runtime.cudaGetLastError();
  return error == cudaSuccess;
}

/* This rank's mailbox, all zeros, with its number behind it. */
static bool make_own(NitiPeers *peers, NitiCuda *cuda) {
  const size_t bytes = niti_mailbox_bytes(peers->boxes.ranks);
  const size_t all = (bytes + sizeof *peers->boxes.number + BLOCK - 1) / BLOCK * BLOCK;
  void *own = NULL;
  if (!works(niti_cuda_runtime.cudaMalloc(&own, all))) return false;
  peers->boxes.of[peers->boxes.rank] = own;
  peers->boxes.number = (uint32_t *)(void *)((char *)own + bytes);
  return works(niti_cuda_runtime.cudaMemsetAsync(own, 0, all, cuda->stream)) &&
         works(niti_cuda_runtime.cudaStreamSynchronize(cuda->stream)); /* before others write to it */
}

static Card make_card(NitiPeers *peers, NitiCuda *cuda) {
  Card card;
  memset(&card, 0, sizeof card);
  card.good = works(niti_cuda_runtime.cudaSetDevice(cuda->device)) && make_own(peers, cuda) &&
              works(niti_cuda_runtime.cudaDeviceGetPCIBusId(card.bus, sizeof card.bus, cuda->device)) &&
              works(niti_cuda_runtime.cudaIpcGetMemHandle(&card.handle, peers->boxes.of[peers->boxes.rank]));
  return card;
}

/* Whether the device can write another one's memory. Of a device that is hidden from this process (CUDA_VISIBLE_DEVICES) only the
 * attempt shows it. */
static bool can_write(const NitiCuda *cuda, const char *bus) {
  int other = 0, can = 0;
  if (!works(niti_cuda_runtime.cudaDeviceGetByPCIBusId(&other, bus)) || other == cuda->device) return true;
  return works(niti_cuda_runtime.cudaDeviceCanAccessPeer(&can, cuda->device, other)) && can;
}

static bool map_others(NitiPeers *peers, const NitiCuda *cuda, const Card *cards) {
  NitiMailboxes *m = &peers->boxes;
  for (int i = 0; i < m->ranks; ++i) {
    if (!cards[i].good) return false;
  }
  for (int i = 0; i < m->ranks; ++i) {
    void *there = NULL;
    if (i == m->rank) continue;
    if (!can_write(cuda, cards[i].bus) ||
        !works(niti_cuda_runtime.cudaIpcOpenMemHandle(&there, cards[i].handle, cudaIpcMemLazyEnablePeerAccess)))
      return false;
    m->of[i] = there;
  }
  return true;
}

static void unmap_others(NitiPeers *peers) {
  NitiMailboxes *m = &peers->boxes;
  for (int i = 0; i < m->ranks; ++i) {
    if (i == m->rank || !m->of[i]) continue;
    (void)works(niti_cuda_runtime.cudaIpcCloseMemHandle(m->of[i]));
    m->of[i] = NULL;
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

NitiStatus niti_peers_open(NitiPeers *peers, NitiCuda *cuda, NitiRanks *ranks) {
  Card cards[NITI_MAILBOX_RANKS];
  memset(peers, 0, sizeof *peers);
  memset(cards, 0, sizeof cards);
  if (niti_ranks_hosts(ranks) > 1 || niti_ranks_size(ranks) > NITI_MAILBOX_RANKS) return NITI_OK;
  peers->boxes.rank = niti_ranks_rank(ranks);
  peers->boxes.ranks = niti_ranks_size(ranks);
  const Card own = make_card(peers, cuda);
  NitiStatus status = niti_ranks_gather(ranks, cards, &own, sizeof own);
  if (status == NITI_OK) status = all_are(&peers->open, ranks, map_others(peers, cuda, cards));
  if (status != NITI_OK)
    niti_peers_drop(peers);
  else if (!peers->open)
    niti_peers_leave(peers, cuda, ranks);
  return status;
}

void niti_peers_leave(NitiPeers *peers, NitiCuda *cuda, NitiRanks *ranks) {
  bool all = false;
  void *own = peers->boxes.of[peers->boxes.rank];
  (void)works(niti_cuda_runtime.cudaSetDevice(cuda->device));
  (void)works(niti_cuda_runtime.cudaStreamSynchronize(cuda->stream)); /* and with it the last exchange */
  niti_peers_drop(peers);
  if (all_are(&all, ranks, true) == NITI_OK && own) (void)works(niti_cuda_runtime.cudaFree(own));
}

void niti_peers_drop(NitiPeers *peers) {
  unmap_others(peers);
  memset(peers, 0, sizeof *peers);
}
