/* What a run tells its callback. */
#ifndef NITI_TRAIN_TELL_H
#define NITI_TRAIN_TELL_H

#include "train/run.h"

/* Fills in where the run is and how long it will take, and calls the callback, if there is one. False: it asks to stop. */
bool niti_run_tell(const NitiRun *run, NitiProgress *progress);
/* A text of that kind, of at most 1,279 bytes; what is longer is cut. */
__attribute__((format(printf, 3, 4))) void niti_run_tell_text(const NitiRun *run, NitiProgressKind kind, const char *format, ...);

#define niti_run_note(run, ...) niti_run_tell_text(run, NITI_PROGRESS_NOTE, __VA_ARGS__)
#define niti_run_warn(run, ...) niti_run_tell_text(run, NITI_PROGRESS_WARNING, __VA_ARGS__)

#endif
