/* Short trials of learning rates: the same first steps with each, from the same weights, without a run's folder. */
#ifndef NITI_TRAIN_FIND_RATE_H
#define NITI_TRAIN_FIND_RATE_H

#include "train/recipe.h"

enum { NITI_RATES_MAX = 32 };

/* One value and what became of it. */
typedef struct NitiRateTrial {
  const char *value;      /* borrowed: as in a recipe */
  NitiScore first, last;  /* training, over the first half of the steps and over the second */
  int64_t saturated, all; /* weights at 127 or -127 at the end, and all of them */
} NitiRateTrial;

typedef struct NitiRateSearch {
  NitiDevice device;
  const char *data; /* as in NitiTrainOptions */
  int64_t steps;    /* of each trial, at least 2 */
  NitiProgressCallback
      progress; /* NULL: none. NOTE, WARNING and DATA; START; BATCH after every step, where epoch counts the trials */
  void *context;
} NitiRateSearch;

/* The recipe's setting that is tried: "update.mu" or, of update sgd, "update.lr". */
const char *niti_rate_setting(const NitiRecipe *recipe);
/* Trains search->steps steps with each of trials[count].value as the constant learning rate, in a run that has the recipe's other
 * settings. Statuses: those of niti_train; NITI_INTERRUPTED where progress returned false. */
NitiStatus niti_find_rates(NitiRateTrial *trials, int32_t count, const NitiRecipe *recipe, const NitiRateSearch *search);
/* The trial with the lowest mean loss over its second half, of equals the first, leaving out those that saturate a fifth of the
 * weights; -1: none of them had a lower loss there than log2(classes), what guessing costs. */
int32_t niti_rate_suggest(const NitiRateTrial *trials, int32_t count, int32_t classes);

#endif
