/* The weights that a run begins with. */
#ifndef NITI_TRAIN_INITIAL_H
#define NITI_TRAIN_INITIAL_H

#include "train/run.h"

/* Those of the seed, and on the rank that leads, where options.init names others, these in their place. */
NitiStatus niti_run_start_weights(NitiRun *run);

#endif
