/* Reports each epoch: a row in metrics.csv and metrics.jsonl, and TensorBoard events. */
#ifndef NITI_TRAIN_REPORT_H
#define NITI_TRAIN_REPORT_H

#include "model/network.h"

typedef struct NitiReport NitiReport;

/* One epoch's figures. */
typedef struct NitiReportRow {
  int32_t epoch; /* from 1 */
  int64_t step;  /* done */
  int mu;
  NitiScore train, validation, test, best, best_test; /* of NitiProgress; validation is recorded where it chooses the best */
  int64_t images, nanoseconds;                        /* of this epoch, in this process */
  const NitiTensorStats *inputs;                      /* of each weight's layer, in the last batch scored; NULL: none was */
} NitiReportRow;

/* Keeps rows up to keep_epoch; resumed_step: the step from which a resumed run continues, -1 for a new run; on_validation:
 * validation chooses the best epoch. */
NitiStatus niti_report_open(NitiReport **out, const char *folder, int32_t keep_epoch, int64_t resumed_step, bool on_validation);
/* Which log files could not be continued and were set aside (niti_log_note): human-readable lines; NULL beyond the last. */
const char *niti_report_note(const NitiReport *report, size_t index);
NitiStatus niti_report_epoch(NitiReport *report, const NitiReportRow *row, NitiNetwork *net);
NitiStatus niti_report_close(NitiReport *report);

#endif
