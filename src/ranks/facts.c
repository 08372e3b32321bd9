/* Facts that have to be the same on all ranks: one hash is exchanged, and the facts themselves only where it differs. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "platform/sha256.h"
#include "ranks/ranks.h"

void niti_facts_add(NitiFacts *facts, const char *name, const char *value) {
  const size_t first = strlen(name) + 1, second = strlen(value) + 1;
  char *larger = facts->failed ? NULL : realloc(facts->text, facts->size + first + second);
  facts->failed = !larger;
  if (!larger) return;
  memcpy(larger + facts->size, name, first);
  memcpy(larger + facts->size + first, value, second);
  facts->text = larger;
  facts->size += first + second;
}

typedef struct Digest {
  uint64_t size;
  char sha256[65], pad[7];
} Digest;

/* The first rank whose facts are not those of rank 0, or `size`; *longest receives the size of the longest facts of all. */
static int first_other(const Digest *all, int size, size_t *longest) {
  int found = size;
  for (int i = size; i-- > 0;) {
    if (all[i].size != all[0].size || strcmp(all[i].sha256, all[0].sha256) != 0) found = i;
    *longest = all[i].size > *longest ? (size_t)all[i].size : *longest;
  }
  return found;
}

/* Names and values in turn; "nothing" where there are no more. */
static const char *next_text(const char *text, size_t size, size_t *at) {
  if (*at >= size) return "nothing";
  const char *found = text + *at;
  *at += strlen(found) + 1;
  return found;
}

enum { SHOWN = 200 }; /* bytes of a value */

static NitiStatus name_first(const NitiRanks *r, const char *other, size_t other_size, int rank, const char *first,
                             size_t first_size) {
  for (size_t i = 0, j = 0; i < first_size || j < other_size;) {
    const char *name = next_text(first, first_size, &i), *own = next_text(first, first_size, &i);
    const char *other_name = next_text(other, other_size, &j), *theirs = next_text(other, other_size, &j);
    if (strcmp(name, other_name) == 0 && strcmp(own, theirs) == 0) continue;
    if (strcmp(name, other_name) != 0) own = name, theirs = other_name, name = "what is compared";
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: rank %d (%s) has %.*s, but rank 0 (%s) has %.*s (expected the same on all ranks)",
                     name, rank, niti_ranks_host(r, rank), SHOWN, theirs, niti_ranks_host(r, 0), SHOWN, own);
  }
  return niti_fail(NITI_ERROR_ARGUMENT, "rank %d and rank 0 differ, but not in what they compare", rank);
}

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for what the ranks compare"); }

/* Every rank has found the same two. */
static NitiStatus refuse(NitiRanks *r, const NitiFacts *facts, const Digest *digests, int rank, size_t longest) {
  const size_t size = (size_t)niti_ranks_size(r);
  char *own = calloc(1, longest + 1), *all = calloc(size, longest + 1);
  NitiStatus status = own && all ? NITI_OK : out_of_memory();
  if (status == NITI_OK) {
    if (facts->size > 0) memcpy(own, facts->text, facts->size);
    status = niti_ranks_gather(r, all, own, longest + 1);
  }
  if (status == NITI_OK) {
    status = name_first(r, all + (size_t)rank * (longest + 1), (size_t)digests[rank].size, rank, all, (size_t)digests[0].size);
    niti_ranks_set_agreed(r);
  }
  free(own);
  free(all);
  return status;
}

static NitiStatus compare(NitiRanks *r, const NitiFacts *facts) {
  const int size = niti_ranks_size(r);
  Digest own = {.size = facts->size}, *all = calloc((size_t)size, sizeof *all);
  if (!all || facts->failed) {
    free(all);
    return out_of_memory();
  }
  niti_sha256_of(own.sha256, facts->text, facts->size);
  size_t longest = 0;
  NitiStatus status = niti_ranks_gather(r, all, &own, sizeof own);
  const int rank = status == NITI_OK ? first_other(all, size, &longest) : size;
  if (rank < size) status = refuse(r, facts, all, rank, longest);
  free(all);
  return status;
}

NitiStatus niti_ranks_compare(NitiRanks *r, NitiFacts *facts) {
  const NitiStatus status = r ? compare(r, facts) : NITI_OK;
  free(facts->text);
  *facts = (NitiFacts){0};
  return status;
}

NitiStatus niti_ranks_same(NitiRanks *r, const char *what, const char *text) {
  NitiFacts facts = {0};
  if (r) niti_facts_add(&facts, what, text);
  return niti_ranks_compare(r, &facts);
}
