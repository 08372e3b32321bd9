/* Small exchanges between ranks that can write each other's memory: the protocol, which device code and a test on the host share.
 *
 * Each rank owns a mailbox. There every other rank has two slots, of which an exchange uses the one of its number's parity.
 * Numbers count a rank's exchanges; all ranks make the same ones in the same order. In exchange k a rank stores each word of its
 * values into all other ranks' mailboxes, together with k, in one aligned store of 64 bits. Then it takes from its own mailbox
 * the words of the others as they come, stores zeros in their place, and what it has reduced in the place of its own values. An
 * exchange ends, and with it a kernel, before the rank begins the next one.
 *
 * Why two slots suffice. Let A be about to store a word of exchange k + 2 into B's mailbox. A's exchange k + 1 has ended, so A
 * has taken a word of B's of k + 1. B stored that after its exchange k had ended, when it had taken and cleared all words of k.
 * So the slot holds nothing but zeros. One slot would not do: A may end k and begin k + 1 while B, which has stored its own words
 * of k, has not taken A's yet.
 *
 * Why a word is never mistaken. A slot was all zeros when its exchange began, and no number is 0. So a word with any number at
 * all is one of the exchange under way, and whole, since it was one store. Comparing the numbers guards against ranks out of
 * step.
 *
 * Why no fence is needed. A word is complete in itself, and promises nothing of other memory. The proof above needs that what a
 * rank did in one exchange (taking, clearing) comes before what it stores in the next: between the two a kernel ends and the next
 * begins, which orders memory for the whole system. No rank waits before all its words are stored, so all ranks go on.
 * tests/proof/mailbox.py goes through all orders of events.
 *
 * An exchange that `promises` tells of other memory, too: what a rank's work before it has written anywhere, the other ranks'
 * work after it can read: there is a fence before its words are sent, and one after they are found. */
#ifndef NITI_BACKEND_CUDA_MAILBOX_H
#define NITI_BACKEND_CUDA_MAILBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/round.h"
#include "ranks/transport.h"

enum {
  NITI_MAILBOX_RANKS = 16,
  NITI_MAILBOX_WORDS = 2 * 3 * 2048, /* of 32 bits: three sums of 64 bits for each of 2,048 channels */
  NITI_MAILBOX_SLOTS = 2,
};

/* The mailboxes as one rank sees them. */
typedef struct NitiMailboxes {
  uint64_t *of[NITI_MAILBOX_RANKS]; /* every rank's: words [ranks][NITI_MAILBOX_SLOTS][NITI_MAILBOX_WORDS], zeros at first */
  uint32_t *number;                 /* of this rank's last exchange; 0 at first */
  int32_t rank, ranks;
} NitiMailboxes;

NITI_INLINE size_t niti_mailbox_bytes(int ranks) {
  return (size_t)ranks * NITI_MAILBOX_SLOTS * NITI_MAILBOX_WORDS * sizeof(uint64_t);
}

NITI_INLINE size_t niti_mailbox_words(size_t count, NitiReduction reduction) {
  return reduction == NITI_REDUCE_SUM_S64 ? 2 * count : count;
}

/* Whether an exchange can go this way. */
NITI_INLINE bool niti_mailbox_takes(size_t count, NitiReduction reduction) {
  return count > 0 && count <= NITI_MAILBOX_WORDS && (reduction == NITI_REDUCE_MAX_U32 || reduction == NITI_REDUCE_SUM_S64) &&
         niti_mailbox_words(count, reduction) <= NITI_MAILBOX_WORDS;
}

/* The number after this one: never 0, and of the other parity. */
NITI_INLINE uint32_t niti_mailbox_next(uint32_t number) { return number == UINT32_MAX ? 2 : number + 1; }

/* On a device what a word promises is ordered by one fence for all words of a thread, on the host by each word (a store that
 * releases, a load that acquires): ThreadSanitizer knows no fences. */
NITI_INLINE void niti_mailbox_fence(bool promises) {
#ifdef __CUDA_ARCH__
  if (promises) asm volatile("fence.acq_rel.sys;" ::: "memory");
#else
  (void)promises;
#endif
}

NITI_INLINE uint64_t niti_mailbox_load(const uint64_t *word, bool promises) {
#ifdef __CUDA_ARCH__
  uint64_t value;
  asm volatile("ld.relaxed.sys.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
  return value;
#else
  return promises ? __atomic_load_n(word, __ATOMIC_ACQUIRE) : __atomic_load_n(word, __ATOMIC_RELAXED);
#endif
}

NITI_INLINE void niti_mailbox_store(uint64_t *word, uint64_t value, bool promises) {
#ifdef __CUDA_ARCH__
  asm volatile("st.relaxed.sys.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
#else
  if (promises)
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
  else
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
#endif
}

/* The place in the mailbox of rank `to` for a word that rank `from` sends. */
NITI_INLINE uint64_t *niti_mailbox_place(const NitiMailboxes *m, int to, int from, uint32_t number, size_t word) {
  const size_t slot = (size_t)from * NITI_MAILBOX_SLOTS + number % NITI_MAILBOX_SLOTS;
  return m->of[to] + slot * NITI_MAILBOX_WORDS + word;
}

NITI_INLINE void niti_mailbox_send(const NitiMailboxes *m, uint32_t number, size_t word, uint32_t value, bool promises) {
  for (int to = 0; to < m->ranks; ++to) {
    if (to == m->rank) continue;
    niti_mailbox_store(niti_mailbox_place(m, to, m->rank, number, word), (uint64_t)number << 32 | value, promises);
  }
}

/* False: it has not come yet. */
NITI_INLINE bool niti_mailbox_find(uint32_t *value, const NitiMailboxes *m, int from, uint32_t number, size_t word,
                                   bool promises) {
  const uint64_t found = niti_mailbox_load(niti_mailbox_place(m, m->rank, from, number, word), promises);
  *value = (uint32_t)found;
  return found >> 32 == number;
}

NITI_INLINE void niti_mailbox_clear(const NitiMailboxes *m, uint32_t number, size_t word) {
  for (int from = 0; from < m->ranks; ++from) {
    if (from != m->rank) niti_mailbox_store(niti_mailbox_place(m, m->rank, from, number, word), 0, false);
  }
}

/* Exchange `number`, of data[count]: sends this rank's element i. Each element is sent once. promises: the same on all ranks. */
NITI_INLINE void niti_mailbox_put(const NitiMailboxes *m, uint32_t number, const void *data, size_t count, size_t i,
                                  NitiReduction reduction, bool promises) {
  niti_mailbox_fence(promises);
  if (reduction == NITI_REDUCE_MAX_U32) {
    niti_mailbox_send(m, number, i, ((const uint32_t *)data)[i], promises);
  } else {
    const uint64_t value = (uint64_t)((const int64_t *)data)[i];
    niti_mailbox_send(m, number, i, (uint32_t)value, promises);
    niti_mailbox_send(m, number, count + i, (uint32_t)(value >> 32), promises);
  }
}

NITI_INLINE bool niti_mailbox_take_max(const NitiMailboxes *m, uint32_t number, uint32_t *data, size_t i, bool promises) {
  bool all = true;
  uint32_t most = data[i], value;
  for (int from = 0; from < m->ranks; ++from) {
    if (from == m->rank) continue;
    all = niti_mailbox_find(&value, m, from, number, i, promises) && all;
    most = value > most ? value : most;
  }
  if (!all) return false;
  niti_mailbox_fence(promises);
  niti_mailbox_clear(m, number, i);
  data[i] = most;
  return true;
}

NITI_INLINE bool niti_mailbox_take_sum(const NitiMailboxes *m, uint32_t number, int64_t *data, size_t count, size_t i,
                                       bool promises) {
  bool all = true;
  uint64_t sum = (uint64_t)data[i];
  uint32_t low, high;
  for (int from = 0; from < m->ranks; ++from) {
    if (from == m->rank) continue;
    all = niti_mailbox_find(&low, m, from, number, i, promises) && all;
    all = niti_mailbox_find(&high, m, from, number, count + i, promises) && all;
    sum += (uint64_t)high << 32 | low;
  }
  if (!all) return false;
  niti_mailbox_fence(promises);
  niti_mailbox_clear(m, number, i);
  niti_mailbox_clear(m, number, count + i);
  data[i] = (int64_t)sum;
  return true;
}

/* Whether element i of all other ranks has come: then it is data[i], reduced. Called after this rank's part of putting, until it
 * succeeds. */
NITI_INLINE bool niti_mailbox_take(const NitiMailboxes *m, uint32_t number, void *data, size_t count, size_t i,
                                   NitiReduction reduction, bool promises) {
  return reduction == NITI_REDUCE_MAX_U32 ? niti_mailbox_take_max(m, number, (uint32_t *)data, i, promises)
                                          : niti_mailbox_take_sum(m, number, (int64_t *)data, count, i, promises);
}

#endif
