/* What ranks of one host reach in the memory of each other's devices: memory that all of them map, and in it the mailboxes
 * through which a few bytes are exchanged (mailbox.h). */
#ifndef NITI_BACKEND_CUDA_PEERS_H
#define NITI_BACKEND_CUDA_PEERS_H

#include "backend/cuda/cuda.h"
#include "backend/cuda/mailbox.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Memory of one size on each rank's device, all zeros at first, that every rank can write. */
typedef struct NitiShared {
  bool open;
  int rank, ranks;
  void *of[NITI_MAILBOX_RANKS]; /* of[rank] is this rank's own, that of others is mapped */
} NitiShared;

/* Opens it where all ranks can: they are few and on one host, each is `able`, and each device can write the others' memory. Else,
 * and where a call fails on any rank, `open` is false on all of them, and nothing is left behind. All ranks call it, with the
 * same bytes, or it is not opened. Fails only where the ranks' own exchanges do. */
NitiStatus niti_shared_open(NitiShared *, NitiCuda *, NitiRanks *, size_t bytes, bool able);
/* Closes what niti_shared_open has opened. All ranks call it, each after its last use: the memory is freed once nobody has it
 * mapped. */
void niti_shared_leave(NitiShared *, NitiCuda *, NitiRanks *);
/* The same where the other ranks are at work, and will be ended: what they may still write to stays until the process ends. */
void niti_shared_drop(NitiShared *);

struct NitiPeers {
  NitiShared memory;
  NitiMailboxes boxes;
};

/* Connects the ranks by mailboxes, as niti_shared_open does. */
NitiStatus niti_peers_open(NitiPeers *peers, NitiCuda *, NitiRanks *);

/* mailbox.cu: exchanges data[count], device memory, in the backend's stream: one small kernel. niti_mailbox_takes both. */
void niti_cuda_mailbox_exchange(NitiCuda *, const NitiMailboxes *, void *data, size_t count, NitiReduction);
/* The same of sums, and it promises (mailbox.h): work that the stream, or another that it has joined, had before it, on any rank,
 * has ended for all that comes after it, on every rank. */
void niti_cuda_mailbox_promise(NitiCuda *, const NitiMailboxes *, int64_t *sums, size_t count);

#ifdef __cplusplus
}
#endif
#endif
