/* Reports a run: a row per epoch in metrics.csv and metrics.jsonl, and TensorBoard events. */
#ifndef NITI_TRAIN_REPORT_H
#define NITI_TRAIN_REPORT_H

#include "train/confusion.h"
#include "train/measure.h"
#include "train/recipe.h"

typedef struct NitiReport NitiReport;

/* One epoch's figures. */
typedef struct NitiReportRow {
  int32_t epoch;                                      /* from 1 */
  int64_t step;                                       /* done */
  NitiScore train, validation, test, best, best_test; /* of NitiProgress; validation is recorded where it chooses the best */
  NitiScore averaged, averaged_validation;            /* of averaged weights, on the test and the validation split */
  int64_t images, nanoseconds;                        /* of this epoch, in this process */
  const NitiConfusion *confusion;                     /* NULL, or of the split that was scored, to be drawn */
} NitiReportRow;

/* One measured step's figures. */
typedef struct NitiStepRow {
  int64_t step;                  /* done */
  NitiScore since;               /* of the steps since the last measured one, or since the epoch began */
  const NitiLayerCounts *layers; /* NULL, or by the program's layer numbers */
} NitiStepRow;

/* Borrows the recipe, which is placed. Keeps rows up to keep_epoch; resumed_step: the step from which a resumed run continues, -1
 * for a new run; on_validation: validation chooses the best epoch. */
NitiStatus niti_report_open(NitiReport **out, const char *folder, const NitiRecipe *recipe, int32_t keep_epoch,
                            int64_t resumed_step, bool on_validation);
/* What niti_log_note says of log files that could not be continued: human-readable lines; NULL beyond the last. */
const char *niti_report_note(const NitiReport *report, size_t index);
/* The recipe as text and as the run's settings, once per run. */
NitiStatus niti_report_recipe(NitiReport *report);
NitiStatus niti_report_step(NitiReport *report, const NitiStepRow *row, const NitiProgram *program);
NitiStatus niti_report_epoch(NitiReport *report, const NitiReportRow *row, NitiNetwork *net);
/* complete: the run has ended well, which is recorded. */
NitiStatus niti_report_close(NitiReport *report, bool complete);

#endif
