/* Sums of gradients by copies: each rank copies its gradients into the other ranks' inboxes, by copy engines, in a stream beside
 * the rest of backward, and adds what lies in its own inbox once all copies have come. No multiprocessor takes part until then.
 *
 * An inbox is memory on a rank's device with a part for each of the other ranks. Where a sum lies in a part follows from the
 * order and the sizes of the sums that a step begins, which are the program's, and so the same on all ranks.
 *
 * What is added has come. Each rank's stream joins the stream of its copies and then makes an exchange that promises (mailbox.h).
 * A rank adds after that exchange, which has taken a word of every other rank, sent after that rank's copies had ended.
 *
 * What is overwritten has been added. After a rank has added, and before it copies again, it makes at least one more exchange, of
 * a maximum of the next step forward: of programs without any nothing is reserved (niti_backend_reserve_sums). Let A copy into
 * B's inbox. That exchange of A's has ended, so B has sent its words of it, after its addition had ended. It does not matter how
 * a rank cuts a step into runs, nor which of them are recorded. tests/proof/mailbox.py goes through all orders of events. */
#ifndef NITI_BACKEND_CUDA_COPIES_H
#define NITI_BACKEND_CUDA_COPIES_H

#include "backend/cuda/exchange.h"
#include "backend/cuda/peers.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  NITI_COPIES_RANKS = 4,        /* each copies to all others, so that more ranks send more than a ring of NCCL's would */
  NITI_COPIES_MOST = 512,       /* sums of a step; more than that go through NCCL */
  NITI_COPIES_LEAST = 64 << 10, /* bytes that are worth a copy; fewer wait for those that follow */
  NITI_COPIES_ALIGN = 16,       /* bytes, of a sum's place */
  NITI_COPIES_WORDS = 64,       /* values of 64 bits: so few, once a step, travel with the exchange instead */
};

/* A sum that has begun. */
typedef struct NitiCopy {
  void *data;
  size_t offset, bytes; /* offset: in each part of an inbox, a multiple of NITI_ALIGN as the places of gradients are */
  bool wide;            /* of 64 bits, else of 32 */
} NitiCopy;

struct NitiCopies {
  NitiShared inboxes; /* of each rank: [the other ranks in order][bytes], and behind them a value that is always 0 */
  size_t bytes, used; /* of a part */
  cudaStream_t side;
  cudaEvent_t reached; /* what `side` waits for, and what waits for it */
  int count, copied;   /* sums; and of these, those whose copies have been enqueued */
  bool begun;          /* `side` has copies that the backend's stream has not waited for */
  NitiSum words;       /* what travels with the exchange; count 0: nothing */
  NitiCopy of[NITI_COPIES_MOST];
};

/* Opens inboxes for sums of `bytes` where niti_shared_open can, and says so in inboxes.open. All ranks call it. */
NitiStatus niti_copies_open(NitiCopies *, NitiCuda *, NitiRanks *, size_t bytes);
/* As niti_shared_leave and niti_shared_drop, once this rank's copies have ended. */
void niti_copies_leave(NitiCopies *, NitiCuda *, NitiRanks *);
void niti_copies_drop(NitiCopies *, NitiCuda *);

/* Begins a sum in what the backend's stream will have written by then; false, on all ranks alike: it is to go another way. */
bool niti_copies_begin(NitiCopies *, NitiCuda *, const NitiSum *);
/* All sums that have begun are those of all ranks from here on, in the backend's stream. */
void niti_copies_wait(NitiCopies *, NitiCuda *);

static inline bool niti_copies_pending(const NitiCopies *c) { return c->count > 0 || c->words.count > 0; }
/* Forgets the sums that have begun: what was enqueued for them will not run. */
static inline void niti_copies_forget(NitiCopies *c) {
  c->count = c->copied = 0;
  c->used = c->words.count = 0;
  c->begun = false;
}

/* The part of an inbox that is `from`'s, in the inbox of rank `to`. */
static inline char *niti_copies_part(const NitiCopies *c, int to, int from) {
  return (char *)c->inboxes.of[to] + (size_t)(from < to ? from : from - 1) * c->bytes;
}

/* copies.cu: adds to each of sums[count] what lies at its offset in each of `parts` parts of `bytes` from `inbox` on. */
void niti_cuda_add_copies(NitiCuda *, const NitiCopy *sums, int count, const void *inbox, int parts, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
