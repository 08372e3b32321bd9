/* What niti train shows of a run: progress, epochs and the result, for people and as JSON. */
#ifndef NITI_CLI_TRAIN_VIEW_H
#define NITI_CLI_TRAIN_VIEW_H

#include "cli.h"

/* How a run is shown. */
typedef struct View {
  NitiRanks *ranks;   /* NULL: a process by itself */
  bool silent;        /* another rank reports */
  _Atomic bool begun; /* the ranks have come together; read by another thread */
  bool quiet;
  ProgressLine line;
  bool timed;       /* the expected time was printed */
  bool running;     /* the run began: but in a dry run, it has a checkpoint */
  json_t *run;      /* introduce_json; NULL: not begun, or silent */
  int folder;       /* a descriptor of the run's folder as it began; -1: not begun, or not to be had */
  json_t *warnings; /* texts */
  bool stream;
  NitiSplit scored;            /* after epochs */
  int64_t batches;             /* per epoch */
  int64_t images, nanoseconds; /* at the last epoch's end: the rate shown is the epoch's, as in metrics.csv */
} View;

/* For NitiTrainOptions.progress, with a View as its context: false once a signal asked to stop. */
bool view_progress(void *view, const NitiProgress *p);
/* What can be done after a failure with the message `why`: to be appended to it, and the caller's; NULL: nothing, or no memory.
 */
char *view_way_on(const View *view, const char *folder, const char *why);
/* The run's warnings so far: the caller's. */
json_t *view_warnings(const View *view);
/* The result as an object, the caller's; stopped: before its end. */
json_t *view_result_json(const View *view, const NitiTrainResult *r, const char *folder, bool stopped);
/* The same for people, of a run that came to its end: its scores, its hash, and where its checkpoints are. */
void view_result(const View *view, const NitiTrainResult *r, const char *folder);

#endif
