/* What a saved state can be, beyond the form of its values (run_state.c). */
#ifndef NITI_TRAIN_RUN_CHECK_H
#define NITI_TRAIN_RUN_CHECK_H

#include "train/run.h"

/* Each is NITI_OK, or NITI_ERROR_FORMAT with `source`, the key, and what was expected. They run in this order. */

/* The state alone: training takes images, and so does scoring. */
NitiStatus niti_run_check_inputs(const NitiRun *run, const char *source);
/* With its recipe, before the data is opened, whose notes tell the epoch: seed, epoch, and the names of classes. */
NitiStatus niti_run_check_recipe(const NitiRun *run, const char *source);
/* With its data: no score is of other images than its split has or the run's limit takes, or of a split that the run does not
 * score. began: the inputs that the state names; chosen: whether the file says which split chooses the best epoch, as all do
 * since there is validation. */
NitiStatus niti_run_check_counts(const NitiRun *run, const NitiRunInputs *began, bool chosen, const char *source);
/* What a run of `steps` steps has done, as its last save wrote it. */
NitiStatus niti_run_check_progress(const NitiRun *run, int64_t steps, const char *source);

#endif
