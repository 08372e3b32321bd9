/* The exact sums of an operation, term by term as docs/arithmetic.md defines them: what vectors show beside the results. */
#ifndef NITI_EXPORT_SUMS_H
#define NITI_EXPORT_SUMS_H

#include "program/program.h"

/* An operation's operands in host memory: mantissas, and exponents, of each input. */
typedef struct NitiSumOperands {
  const void *input[NITI_OPERANDS_MAX];
  int32_t exponent[NITI_OPERANDS_MAX];
  const int32_t *labels; /* LOSS */
  bool centred;          /* CONV_FORWARD: input 2 is a norm's running statistics */
} NitiSumOperands;

/* Whether the operation has accumulators of its own: products, pools with sums, additions, a norm's maps, and the loss `softmax`.
 */
bool niti_has_sums(const NitiOperation *operation);
/* sums[count]: of its first output's elements, at batch n. False: out of memory. */
bool niti_sums(int64_t *sums, const NitiOperation *operation, const NitiSumOperands *operands, size_t count, int32_t n);

#endif
