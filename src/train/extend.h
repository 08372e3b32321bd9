/* Extends a run to more epochs, where what it has trained already is what a run of that length would have trained. */
#ifndef NITI_TRAIN_EXTEND_H
#define NITI_TRAIN_EXTEND_H

#include "train/run.h"

/* Gives the restored run's recipe options.epochs epochs, where that is more, and adds the change to run->extensions. Before the
 * run is opened. NITI_ERROR_ARGUMENT: fewer epochs, or a schedule that depends on the run's length. */
NitiStatus niti_run_extend(NitiRun *run);
/* After it is opened: fails where max_steps ends the run before; otherwise the run is no longer complete. */
NitiStatus niti_run_extend_opened(NitiRun *run);

#endif
