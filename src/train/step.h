/* One training step, and the evaluation of one batch. */
#ifndef NITI_TRAIN_STEP_H
#define NITI_TRAIN_STEP_H

#include "train/feed.h"
#include "train/measure.h"
#include "train/mirror.h"
#include "train/recipe.h"

/* The inputs of a step; all borrowed. */
typedef struct NitiStepContext {
  const NitiRecipe *recipe;
  NitiNetwork *net;
  NitiFeed *feed;
  NitiMeasure *measure; /* NULL, or what niti_step_train fills */
  NitiMirror *mirror;   /* NULL, or niti_step_test adds the logits of each image's mirror */
} NitiStepContext;

/* Both functions add to the network's metrics and may leave their work queued: results, and device failures, are available after
 * the backend's synchronise(). Trains on one batch; steps count from 0. The recipe is placed (niti_recipe_place). */
NitiStatus niti_step_train(const NitiStepContext *context, const NitiBatch *batch, uint32_t step);
/* Forward in training mode: moves running statistics and nothing else. */
NitiStatus niti_step_statistics(const NitiStepContext *context, const NitiBatch *batch, uint32_t step);
/* Forward and loss of one batch. With a mirror it waits. */
NitiStatus niti_step_test(const NitiStepContext *context, const NitiBatch *batch);

#endif
