/* Warnings of settings that do less than they seem to. */
#ifndef NITI_TRAIN_WARN_H
#define NITI_TRAIN_WARN_H

#include "train/run.h"

/* As a run begins or is extended: values that never take effect, deltas rounded with a bias, norms over a single value. */
void niti_run_warn_settings(const NitiRun *run);

enum { NITI_RATE_TEXT_MAX = 160 };
/* "update.lr, which is 0.5 and came to 0.02 in the last step": the number in the recipe, and what its curve made of it. */
void niti_run_describe_rate(char text[NITI_RATE_TEXT_MAX], const NitiRecipe *recipe, int64_t step);
/* Whether the rate was less than a tenth of the recipe's number in the epoch's first step, and the warm-up was over. */
bool niti_run_rate_faded(const NitiRun *run, int32_t epoch);

#endif
