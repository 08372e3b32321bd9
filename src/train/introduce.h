/* The facts that introduce a run, and the image check of a dry run. */
#ifndef NITI_TRAIN_INTRODUCE_H
#define NITI_TRAIN_INTRODUCE_H

#include "train/run.h"

/* The facts of an open run, which keeps ownership of the texts. folder: where it is or will be written. */
void niti_run_facts(NitiRunFacts *out, const NitiRun *run, const char *folder);

/* Reads every training image that is decoded on demand, so that damaged ones are found; those of the other splits were read when
 * the run was opened. Calls `tell` after every batch with the batches done and their total; if it returns false, stops with
 * NITI_INTERRUPTED. */
NitiStatus niti_run_read_images(NitiRun *run, bool (*tell)(const NitiRun *run, int64_t done, int64_t batches));

#endif
