/* Passes that a backend may apply to its own copy of a program: fusing operations, and collecting facts about tensors.
 * None of them changes any result. */
#ifndef NITI_PROGRAM_FUSE_H
#define NITI_PROGRAM_FUSE_H

#include "program/program.h"

/* How later operations read a tensor, so that a device may also store it in the layout they need. */
typedef enum NitiUses {
  NITI_USE_GRADIENT = 1, /* as an operand of a weight's gradient */
  NITI_USE_MASK = 2,     /* as the mask of a convolution's backward or of an addition */
  NITI_USE_OTHER = 4,
} NitiUses;

/* Rewrites the list in place; every operation keeps its number, and one that is fused into another becomes NITI_OP_NONE.
 * Fails with NITI_ERROR_MEMORY only. */
NitiStatus niti_fuse(NitiProgram *);
/* The same, but an addition stays as it is, without ReLU or mask, and so does a ReLU with a maximum. */
NitiStatus niti_fuse_products(NitiProgram *);
/* Whether a backend has operations NORM_POOL_* for a norm's map, forward or backward, of this pool. */
typedef bool (*NitiPoolsNorm)(const void *context, const NitiOperation *norm, const NitiPool *pool);
/* After niti_fuse: makes norms and max-pools of 2x2 behind them one operation each way where the backend has them. Adds tensors.
 * Fails with NITI_ERROR_MEMORY only. */
NitiStatus niti_fuse_pools(NitiProgram *, NitiPoolsNorm serves, const void *context);
/* nonnegative[tensors]: no mantissa is ever below 0, because the tensor is the output of a ReLU. */
void niti_find_nonnegative(bool *nonnegative, const NitiProgram *);
/* limits[tensors]: the largest value in millionths of a tensor that is the output of a ReLU with a maximum, which the operation
 * that reads it as a mask goes by, too; else 0. */
void niti_find_limits(int32_t *limits, const NitiProgram *);
/* How an operation reads input k, which it has. */
NitiUses niti_use_of(const NitiOperation *, int k);

#endif
