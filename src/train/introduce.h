/* The facts that introduce a run. */
#ifndef NITI_TRAIN_INTRODUCE_H
#define NITI_TRAIN_INTRODUCE_H

#include "train/run.h"

/* The facts of an open run, which keeps ownership of the texts. folder: where it is or will be written. */
void niti_run_facts(NitiRunFacts *out, const NitiRun *run, const char *folder);

#endif
