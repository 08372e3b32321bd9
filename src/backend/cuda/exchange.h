/* How ranks with devices of their own exchange, as the environment chooses, and the sums of gradients that wait to be exchanged.
 * Nothing here needs CUDA. */
#ifndef NITI_BACKEND_CUDA_EXCHANGE_H
#define NITI_BACKEND_CUDA_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "platform/status.h"
#include "ranks/transport.h"

#define NITI_SUMS_VARIABLE "NITI_CUDA_SUMS"
#define NITI_SMALL_VARIABLE "NITI_CUDA_SMALL"

/* How sums of gradients travel: copied to the other ranks' devices beside backward; by NCCL after backward, in its stream; or by
 * NCCL beside it. */
typedef enum NitiSumsWay { NITI_SUMS_COPIES, NITI_SUMS_AFTER, NITI_SUMS_BESIDE } NitiSumsWay;

typedef struct NitiExchangeSettings {
  NitiSumsWay sums; /* COPIES only with `peers`, and where that can be; else AFTER */
  bool peers;       /* small exchanges go through the memory of the other ranks' devices where that can be; else through NCCL */
} NitiExchangeSettings;

/* The number of a variable's value among two or three words; NULL stands for the first. */
static inline NitiStatus niti_exchange_choice(int *number, const char *variable, const char *value, const char *const *words,
                                              int count) {
  for (*number = 0; value && *number < count; ++*number) {
    if (strcmp(value, words[*number]) == 0) return NITI_OK;
  }
  if (!value) return NITI_OK;
  *number = 0;
  return niti_fail(NITI_ERROR_ARGUMENT, "%s is '%.40s' (expected %s%s%s or %s)", variable, value, words[0], count > 2 ? ", " : "",
                   count > 2 ? words[1] : "", words[count - 1]);
}

/* Their values, the defaults first. */
static const char *const niti_sums_ways[] = {"copies", "after", "beside"};
static const char *const niti_small_ways[] = {"peers", "nccl"};

/* sums, small: values of the two variables; NULL where they are unset. */
static inline NitiStatus niti_exchange_settings(NitiExchangeSettings *out, const char *sums, const char *small) {
  int way, second;
  NITI_TRY(niti_exchange_choice(&way, NITI_SUMS_VARIABLE, sums, niti_sums_ways, 3));
  NITI_TRY(niti_exchange_choice(&second, NITI_SMALL_VARIABLE, small, niti_small_ways, 2));
  out->peers = second == 0;
  out->sums = way == NITI_SUMS_COPIES && !out->peers ? NITI_SUMS_AFTER : (NitiSumsWay)way;
  return NITI_OK;
}

/* data[count], which becomes its sum over all ranks. */
typedef struct NitiSum {
  void *data;
  size_t count;
  NitiReduction reduction; /* one of the sums */
} NitiSum;

enum { NITI_SUMS_MAX = 64 };

typedef struct NitiSums {
  int count;
  NitiSum of[NITI_SUMS_MAX];
} NitiSums;

static inline size_t niti_sum_bytes(size_t count, NitiReduction reduction) {
  return count * (reduction == NITI_REDUCE_MAX_U32 || reduction == NITI_REDUCE_SUM_S32 ? 4 : 8);
}

static inline bool niti_sum_ends_at(const NitiSum *a, const NitiSum *b) {
  return (const char *)a->data + niti_sum_bytes(a->count, a->reduction) == (const char *)b->data;
}

/* Adds a sum, to the last one where the two are of one type and adjoin in memory; false: there is no room. What joins depends on
 * the order and the places, which are the program's, so all ranks join the same. */
static inline bool niti_sums_add(NitiSums *sums, NitiSum sum) {
  NitiSum *last = sums->count > 0 ? &sums->of[sums->count - 1] : NULL;
  const bool same = last && last->reduction == sum.reduction;
  if (same && (niti_sum_ends_at(last, &sum) || niti_sum_ends_at(&sum, last))) {
    if (niti_sum_ends_at(&sum, last)) last->data = sum.data;
    last->count += sum.count;
    return true;
  }
  if (sums->count == NITI_SUMS_MAX) return false;
  sums->of[sums->count++] = sum;
  return true;
}

#endif
