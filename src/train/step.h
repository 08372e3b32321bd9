/* One training step, and the evaluation of a whole split: the data path. */
#ifndef NITI_TRAIN_STEP_H
#define NITI_TRAIN_STEP_H

#include "train/feed.h"
#include "train/recipe.h"

/* Everything a step works on; all borrowed. */
typedef struct NitiStepContext {
  const NitiRecipe *recipe;
  NitiNetwork *net;
  NitiFeed *feed;
  NitiMetrics *metrics; /* backend memory: sums of the epoch so far */
} NitiStepContext;

/* Both may leave their work queued: what they did, and a failure of the device, shows in the backend's synchronise().
 * Trains on one batch: step and epoch count from 0. */
NitiStatus niti_step_train(const NitiStepContext *context, const NitiBatch *batch, uint32_t step, int32_t epoch);
/* Forward and loss of one batch, added to metrics. */
NitiStatus niti_step_test(const NitiStepContext *context, const NitiBatch *batch);

#endif
