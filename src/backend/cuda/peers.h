/* Exchanges of a few bytes between ranks of one host, through mailboxes that each has in the memory of its device (mailbox.h). */
#ifndef NITI_BACKEND_CUDA_PEERS_H
#define NITI_BACKEND_CUDA_PEERS_H

#include "backend/cuda/cuda.h"
#include "backend/cuda/mailbox.h"

#ifdef __cplusplus
extern "C" {
#endif

struct NitiPeers {
  bool open;
  NitiMailboxes boxes; /* boxes.of[rank] is this rank's own memory, that of others is mapped */
};

/* Connects the ranks where all can: they are few and on one host, and each device can write the others' memory. Else, and where a
 * call fails on any rank, peers->open is false on all of them, and nothing is left behind. All ranks call it. Fails only where
 * the ranks' own exchanges do. */
NitiStatus niti_peers_open(NitiPeers *peers, NitiCuda *, NitiRanks *);
/* Closes what niti_peers_open has opened. All ranks call it, each after its last exchange: the mailboxes are freed once nobody
 * has them mapped. */
void niti_peers_leave(NitiPeers *peers, NitiCuda *, NitiRanks *);
/* The same where the other ranks are at work, and will be ended: what they may still write to stays until the process ends. */
void niti_peers_drop(NitiPeers *peers);

/* mailbox.cu: exchanges data[count], device memory, in the backend's stream: one small kernel. niti_mailbox_takes both. */
void niti_cuda_mailbox_exchange(NitiCuda *, const NitiMailboxes *, void *data, size_t count, NitiReduction);

#ifdef __cplusplus
}
#endif
#endif
