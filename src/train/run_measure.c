/* Which steps of a run are measured, and where their figures go. */
#include "train/run.h"

enum { EVERY = 100 };

/* Counted in the epoch, so that a run that was interrupted measures the same steps. */
static bool is_due(const NitiRun *run) {
  const int64_t next = run->step + 1 - run->epoch * run->steps_per_epoch;
  int64_t every = run->options.measure_every == 0 ? EVERY : run->options.measure_every;
  if (every > run->steps_per_epoch) every = run->steps_per_epoch;
  return every > 0 && next % every == 0;
}

NitiStatus niti_run_measure_begin(NitiRun *run, NitiMeasure **out) {
  if (run->measured_epoch != run->epoch + 1) { /* the first step here of this epoch */
    run->measured_epoch = run->epoch + 1;
    run->measured = run->train;
  }
  *out = NULL;
  if (!is_due(run)) return NITI_OK;
  if (!run->measure) NITI_TRY(niti_measure_open(&run->measure, run->net));
  *out = run->measure;
  return NITI_OK;
}

NitiStatus niti_run_measure_end(NitiRun *run, const NitiMeasure *measure) {
  NitiMetrics now;
  NITI_TRY(niti_network_read_metrics(run->net, &now));
  const NitiScore since = {
      now.loss - run->measured.loss, now.correct - run->measured.correct, now.images - run->measured.images, {0}};
  run->train = run->measured = (NitiScore){now.loss, now.correct, now.images, {0}};
  return niti_report_step(run->report, run->step, since, measure, niti_executable_program(run->net->training));
}

NitiStatus niti_run_confusion_begin(NitiRun *run) {
  const NitiDescription *model = run->recipe->model;
  if (run->confusion) niti_confusion_clear(run->confusion);
  if (run->confusion || run->options.measure_every < 0 || model->classes > NITI_CONFUSION_CLASSES_MAX) return NITI_OK;
  const bool images = run->recipe->data.type == NITI_UINT8;
  NITI_TRY(niti_confusion_open(&run->confusion, model->classes, run->recipe->batch, model->input, images));
  const int32_t named = niti_dataset_classes(run->dataset);
  for (int32_t i = 0; i < named && i < model->classes; ++i)
    niti_confusion_name(run->confusion, i, niti_dataset_class_label(run->dataset, i));
  return NITI_OK;
}

NitiStatus niti_run_confusion_add(NitiRun *run, const NitiBatch *batch) {
  return run->confusion ? niti_confusion_add(run->confusion, run->net, batch) : NITI_OK;
}
