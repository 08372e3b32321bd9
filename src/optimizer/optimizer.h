/* An optimiser: the state that it keeps for each weight tensor and the operations that update it, in one file of this folder.
 * To add one: write the file, list it in NITI_OPTIMIZERS below (docs/add-a-layer.md). */
#ifndef NITI_OPTIMIZER_OPTIMIZER_H
#define NITI_OPTIMIZER_OPTIMIZER_H

#include "layer/lowering.h"

typedef struct NitiOptimizer {
  const char *name; /* `update.kind` of a recipe */
  bool wide;        /* 16-bit masters and velocities, and a rate instead of mu; it trains s16 tensors too */
  bool true_scale;  /* its gradients are not normalised: it needs a loss whose deltas are true derivatives */
  /* NULL, or appends what must be known of all gradients before the first weight changes; called in the order of the weights. */
  void (*look)(NitiLowering *, int32_t weight, int32_t gradient);
  /* Declares the state of one weight tensor (role NITI_ROLE_STATE), and the scalars that are bound at every step, and appends
   * the operations of phase NITI_PHASE_UPDATE that change the weight by its gradient. */
  void (*update)(NitiLowering *, int32_t weight, int32_t gradient);
} NitiOptimizer;

/* The record of a wide optimiser's update, with the weight's master and velocity, and the scalars rate, momentum and decay. */
NitiOperation niti_lower_wide_update(NitiLowering *, int32_t weight, int32_t gradient, NitiOpcode);

const NitiOptimizer *niti_optimizer_find(const char *name); /* NULL: none */
/* The registered optimisers' names, NULL-terminated. */
const char *const *niti_optimizer_names(void);

/* The table of optimisers, one line per optimiser: niti_optimizer_NAME, called NAME in recipes. */
#define NITI_OPTIMIZERS(OPTIMIZER) OPTIMIZER(niti) OPTIMIZER(niti16) OPTIMIZER(sgd)

#define NITI_DECLARE_OPTIMIZER(name) extern const NitiOptimizer niti_optimizer_##name;
NITI_OPTIMIZERS(NITI_DECLARE_OPTIMIZER)

#endif
