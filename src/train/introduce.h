/* What a run is, for its introduction. */
#ifndef NITI_TRAIN_INTRODUCE_H
#define NITI_TRAIN_INTRODUCE_H

#include "train/run.h"

/* Of an open run; the texts stay the run's. folder: where it is or will be written. */
void niti_run_facts(NitiRunFacts *out, const NitiRun *run, const char *folder);

/* Reads every image that is decoded only when it is wanted, so that a damaged one is found: both splits, once. `tell` is called
 * after every batch with the batches done and their number; false stops with NITI_INTERRUPTED. */
NitiStatus niti_run_read_images(NitiRun *run, bool (*tell)(const NitiRun *run, int64_t done, int64_t batches));

#endif
