/* A run's epochs: steps, a test after each, and what is saved and reported of them. */
#ifndef NITI_TRAIN_EPOCHS_H
#define NITI_TRAIN_EPOCHS_H

#include "train/run.h"

/* Trains from run->step to the end. NITI_INTERRUPTED: the callback, or that of another rank, asked to stop; the state is saved.
 */
NitiStatus niti_run_epochs(NitiRun *run);
/* Saves the state as last.safetensors, and under other names (NitiKeep). */
NitiStatus niti_run_save_now(NitiRun *run, int keep);
/* Warns, once the run is complete, where its best weights are not in its folder or were not tested: its own work is done. */
NitiStatus niti_run_check_best(NitiRun *run);

#endif
