/* Which steps of a run are measured, and where their figures go. */
#include "train/run.h"

enum { EVERY = 100, SELDOM = 10 };

static int64_t interval(const NitiRun *run) {
  const int64_t every = run->options.measure_every == 0 ? EVERY : run->options.measure_every;
  return every < run->steps_per_epoch ? every : run->steps_per_epoch;
}

/* Whether the step of this number within the epoch, from 1, is one. So that a run that was interrupted measures the same steps.
 */
static bool is_due(const NitiRun *run, int64_t within) {
  const int64_t every = interval(run);
  return every > 0 && within % every == 0;
}

/* Whether its layers are looked into: copying them from a device takes longer than many of its steps. */
static bool has_layers(const NitiRun *run, int64_t within) {
  if (run->options.measure_every > 0 || run->backend->ops->host_memory) return true;
  const int64_t every = interval(run), before = run->epoch * (run->steps_per_epoch / every) + within / every - 1;
  return before % SELDOM == 0;
}

NitiStatus niti_run_measure_begin(NitiRun *run, NitiMeasure **out) {
  const int64_t within = run->step + 1 - run->epoch * run->steps_per_epoch;
  if (run->measured_epoch != run->epoch + 1) { /* the first step here of this epoch */
    run->measured_epoch = run->epoch + 1;
    run->measured = run->train;
  }
  *out = NULL;
  if (!niti_run_leads(run) || !is_due(run, within) || !has_layers(run, within)) return NITI_OK;
  if (!run->measure) NITI_TRY(niti_measure_open(&run->measure, run->net));
  *out = run->measure;
  return NITI_OK;
}

NitiStatus niti_run_measure_end(NitiRun *run, const NitiMeasure *measure) {
  NitiMetrics now;
  if (!niti_run_leads(run) || !is_due(run, run->step - run->epoch * run->steps_per_epoch)) return NITI_OK;
  NITI_TRY(niti_network_read_metrics(run->net, &now));
  const NitiScore then = run->measured;
  const NitiProgram *program = niti_executable_program(run->net->training);
  run->train = run->measured = (NitiScore){.loss = now.loss, .correct = now.correct, .images = now.images};
  const NitiStepRow row = {
      .step = run->step,
      .since = {.loss = now.loss - then.loss, .correct = now.correct - then.correct, .images = now.images - then.images},
      .layers = measure ? measure->layers : NULL};
  return niti_report_step(run->report, &row, program);
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
  return run->confusion && !batch->idle ? niti_confusion_add(run->confusion, run->net, run->mirror, batch) : NITI_OK;
}
