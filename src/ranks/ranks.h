/* The ranks: the processes that train one network together. Every function accepts NULL, which stands for a process by itself:
 * its collectives change nothing and succeed. Collectives are called by all ranks in the same order. */
#ifndef NITI_RANKS_RANKS_H
#define NITI_RANKS_RANKS_H

#include <stdint.h>

#include "platform/status.h"
#include "ranks/transport.h"

enum { NITI_RANK_NAME_MAX = 64, NITI_RANK_TEXT_MAX = 256 };

int niti_ranks_size(const NitiRanks *);
/* Whether this is rank 0, which reads and writes the run's files and reports. */
bool niti_ranks_lead(const NitiRanks *);
const char *niti_ranks_host(const NitiRanks *, int rank); /* its name; owned by the ranks */
int niti_ranks_hosts(const NitiRanks *);                  /* how many there are */
int niti_ranks_local(const NitiRanks *);                  /* this rank's number among those of its host */
const char *niti_ranks_library(const NitiRanks *);        /* "Open MPI v4.1.4"; owned by the ranks */
/* How many threads a rank computes with by default: 0 (one per usable core) where the launcher gave it cores of its own, else the
 * host's cores divided among its ranks. */
int niti_ranks_threads(const NitiRanks *);

/* ---- collectives of a step: a failure persists, and niti_ranks_check reports it ---- */

/* data[count] of every rank becomes the maximum or sum over all. */
void niti_ranks_reduce(NitiRanks *, void *data, size_t count, NitiReduction);
/* The same, but data may be used again only after niti_ranks_end, which completes all that were begun. Other collectives may come
 * between. */
void niti_ranks_begin(NitiRanks *, void *data, size_t count, NitiReduction);
void niti_ranks_end(NitiRanks *);
NitiStatus niti_ranks_check(const NitiRanks *);
/* Nanoseconds spent in these so far. */
int64_t niti_ranks_waited(const NitiRanks *);

/* ---- collectives between steps ---- */

/* The most severe of all ranks' statuses on every rank: NITI_OK if all are, else the lowest rank's that failed, its message with
 * the rank and host in front where not all have the same one. */
NitiStatus niti_ranks_agree(NitiRanks *, NitiStatus);
/* Facts that have to be the same on all ranks, each with a name and a value. Begin with {0}. */
typedef struct NitiFacts {
  char *text; /* NAME, a zero byte, VALUE, a zero byte, ... */
  size_t size;
  bool failed; /* memory ran out */
} NitiFacts;
void niti_facts_add(NitiFacts *, const char *name, const char *value);
/* Fails on every rank, naming two ranks and the first fact that differs, where not all have the same facts in the same order.
 * Frees the facts. */
NitiStatus niti_ranks_compare(NitiRanks *, NitiFacts *);
/* The same of one fact. */
NitiStatus niti_ranks_same(NitiRanks *, const char *what, const char *text);
/* The failure at hand is the same on all ranks: niti_ranks_agreed. */
void niti_ranks_set_agreed(NitiRanks *);
NitiStatus niti_ranks_broadcast(NitiRanks *, void *data, size_t bytes); /* from rank 0 */
/* out[size][bytes]: every rank's `in`. */
NitiStatus niti_ranks_gather(NitiRanks *, void *out, const void *in, size_t bytes);
/* The files that hold code of niti: this library's, and the plugin's. */
typedef enum NitiRankFile { NITI_RANK_PROGRAM, NITI_RANK_PLUGIN } NitiRankFile;
/* Which file it is, the same on two ranks of a host only where it is one file; its SHA-256. */
void niti_ranks_file(const NitiRanks *, NitiRankFile, char text[NITI_RANK_TEXT_MAX]);
NitiStatus niti_ranks_file_hash(const NitiRanks *, NitiRankFile, char text[65]);

#endif
