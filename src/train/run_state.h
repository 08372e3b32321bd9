/* The state of a run: what a checkpoint holds besides the tensors (docs/run-folder.md, "Checkpoints"). */
#ifndef NITI_TRAIN_RUN_STATE_H
#define NITI_TRAIN_RUN_STATE_H

#include "train/run.h"

/* Sets the checkpoint's values. */
NitiStatus niti_run_state_save(NitiCheckpoint *checkpoint, const NitiRun *run);
/* The reverse, for a zeroed run; its texts stay the checkpoint's. A missing, unknown or malformed key, and a score or a split
 * that no run can have, is NITI_ERROR_FORMAT with the checkpoint's name. */
NitiStatus niti_run_state_load(NitiRun *run, const NitiCheckpoint *checkpoint);
/* Fails with the first of these keys that is not the run's in the other, whose file is `source`. */
NitiStatus niti_run_state_compare(const NitiRun *run, const NitiRun *other, const char *const *keys, int count,
                                  const char *source);

#endif
