/* Scoring: passes over a split without training, when they are due, and how long they will take. */
#include "train/scoring.h"

#include <stdlib.h>

#include "platform/clock.h"
#include "train/snapshot.h"
#include "train/together.h"

NitiSplit niti_run_scored_split(const NitiRun *run) { return run->on_validation ? NITI_VALIDATION : NITI_TEST; }

NitiScore *niti_run_scored(NitiRun *run) { return run->on_validation ? &run->validation : &run->test; }

/* The run's last epoch, from 1; max_steps may end it within one. */
static int64_t last_epoch(const NitiRun *run) { return (run->steps + run->steps_per_epoch - 1) / run->steps_per_epoch; }

static int32_t interval(const NitiRun *run) { return run->test_every > 0 ? run->test_every : 1; }

bool niti_run_scores(const NitiRun *run, int32_t epoch) { return epoch % interval(run) == 0 || epoch == last_epoch(run); }

/* ---- a pass ---- */

static NitiStatus score_batches(NitiRun *run, NitiLoader *loader, bool confusion, NitiScoreTell tell, bool *go_on) {
  const NitiStepContext context = {run->recipe, run->net, run->feed, NULL, run->mirror};
  const int64_t batches = niti_loader_steps(loader);
  NITI_TRY(niti_loader_start(loader, 0, 0));
  for (int64_t done = 1; *go_on; ++done) {
    NitiBatch batch;
    const int64_t begin = niti_clock_now();
    const NitiStatus status = niti_loader_next(loader, &batch);
    *go_on = status != NITI_INTERRUPTED;
    NITI_TRY(niti_run_vote(run, *go_on ? status : NITI_OK, go_on, NULL));
    if (!*go_on) return NITI_OK;
    if (batch.count == 0) return NITI_OK;
    NITI_TRY(niti_step_test(&context, &batch));
    if (confusion) NITI_TRY(niti_run_confusion_add(run, &batch));
    run->scored = batch.count;
    run->score_nanoseconds += niti_clock_now() - begin;
    ++run->score_batches;
    ++run->epoch_scored;
    *go_on = tell(run, done, batches);
    NITI_TRY(niti_run_vote(run, NITI_OK, go_on, NULL));
  }
  return NITI_OK;
}

/* Scores the network's weights; *out is left alone where it is stopped. */
static NitiStatus score_with(NitiScore *out, NitiRun *run, NitiLoader *loader, bool confusion, NitiScoreTell tell, bool *go_on) {
  NitiMetrics sums = {0};
  niti_network_write_metrics(run->net, &sums);
  NITI_TRY(score_batches(run, loader, confusion, tell, go_on));
  if (!*go_on) return NITI_OK;
  NITI_TRY(niti_network_read_metrics(run->net, &sums));
  *out = (NitiScore){.loss = sums.loss, .correct = sums.correct, .images = sums.images};
  return NITI_OK;
}

static NitiStatus score(NitiScore *out, NitiRun *run, NitiLoader *loader, NitiScoreTell tell, bool *go_on) {
  return score_with(out, run, loader, false, tell, go_on);
}

NitiStatus niti_run_score(NitiRun *run, NitiScoreTell tell, bool *go_on) {
  NITI_TRY(niti_run_confusion_begin(run));
  NITI_TRY(score_with(niti_run_scored(run), run, run->scored_loader, true, tell, go_on));
  if (*go_on) niti_together_confusion(run);
  return NITI_OK;
}

/* ---- the end of a run with validation images ---- */

static NitiStatus score_weights(NitiScore *out, NitiRun *run, const NitiCheckpoint *weights, NitiScoreTell tell, bool *go_on) {
  if (weights) NITI_TRY(niti_snapshot_restore(run->net, weights, niti_checkpoint_source(weights)));
  NITI_TRY(niti_together_weights(run));
  return score(out, run, run->test_loader, tell, go_on);
}

/* A failure leaves some of both in the network: that must not be saved as the run's state. */
static NitiStatus put_back(NitiRun *run, const NitiCheckpoint *final, NitiStatus status) {
  const NitiStatus back = niti_snapshot_restore(run->net, final, "the final weights");
  run->lost = back != NITI_OK;
  return status == NITI_OK ? back : status;
}

/* Scores the best epoch's weights and puts the final ones back, whatever happens. */
static NitiStatus score_best(NitiRun *run, const NitiCheckpoint *best, NitiScoreTell tell, bool *go_on) {
  NitiCheckpoint *final;
  NITI_TRY(niti_checkpoint_open(&final));
  NitiStatus status = niti_snapshot_take(final, run->net);
  if (status == NITI_OK) {
    status = score_weights(&run->best_test, run, best, tell, go_on);
    status = put_back(run, final, status);
  }
  niti_checkpoint_close(final);
  return status;
}

NitiStatus niti_run_score_end(NitiRun *run, NitiScoreTell tell, bool *go_on) {
  const bool same = run->best_epoch == last_epoch(run);
  NitiCheckpoint *best = NULL;
  run->best_test = (NitiScore){0};
  if (!same) NITI_TRY(niti_run_agree(run, niti_run_leads(run) ? niti_run_load_best(&best, run) : NITI_OK));
  bool there = best != NULL;
  NITI_TRY(niti_together_told(run, &there));
  NitiStatus status = there ? score_best(run, best, tell, go_on) : NITI_OK;
  niti_checkpoint_close(best);
  if (status == NITI_OK && *go_on) status = score(&run->test, run, run->test_loader, tell, go_on);
  if (same) run->best_test = run->test;
  return status;
}

/* ---- averaged weights ---- */

enum { STATISTICS_STEPS = 100 };

/* Images of the first epoch that is not begun. */
static NitiStatus estimate_statistics(NitiRun *run, bool *go_on) {
  const NitiStepContext context = {run->recipe, run->net, run->feed, NULL, NULL};
  const int64_t steps = run->steps_per_epoch < STATISTICS_STEPS ? run->steps_per_epoch : STATISTICS_STEPS;
  NITI_TRY(niti_loader_start(run->train_loader, (uint32_t)last_epoch(run), 0));
  for (int64_t i = 0; i < steps && *go_on; ++i) {
    NitiBatch batch;
    const NitiStatus status = niti_loader_next(run->train_loader, &batch);
    *go_on = status != NITI_INTERRUPTED;
    NITI_TRY(niti_run_vote(run, *go_on ? status : NITI_OK, go_on, NULL));
    if (*go_on) NITI_TRY(niti_step_statistics(&context, &batch, (uint32_t)(run->steps + i)));
  }
  return NITI_OK;
}

static bool has_statistics(const NitiProgram *p) {
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    if (p->tensors[t].initial == NITI_INITIAL_RUNNING) return true;
  }
  return false;
}

static NitiStatus score_averaged(NitiRun *run, NitiScoreTell tell, bool *go_on) {
  NITI_TRY(niti_average_apply(run->average, run->average_samples, run->net));
  if (has_statistics(run->net->program)) NITI_TRY(estimate_statistics(run, go_on));
  if (*go_on && run->on_validation) NITI_TRY(score(&run->averaged_validation, run, run->scored_loader, tell, go_on));
  NitiLoader *test = run->on_validation ? run->test_loader : run->scored_loader;
  if (*go_on && test) NITI_TRY(score(&run->averaged, run, test, tell, go_on));
  return *go_on ? niti_run_agree(run, niti_run_leads(run) ? niti_run_save_averaged(run) : NITI_OK) : NITI_OK;
}

NitiStatus niti_run_score_averaged(NitiRun *run, NitiScoreTell tell, bool *go_on) {
  NitiCheckpoint *final;
  NITI_TRY(niti_checkpoint_open(&final));
  NitiStatus status = niti_snapshot_take(final, run->net);
  if (status == NITI_OK) {
    status = score_averaged(run, tell, go_on);
    status = put_back(run, final, status);
  }
  niti_checkpoint_close(final);
  return status;
}

/* ---- time ---- */

/* Batches to be scored after the current epoch, of those that are done already too. */
static int64_t batches_of(const NitiRun *run, bool scored, bool ends) {
  const int64_t test = run->test_loader ? niti_loader_steps(run->test_loader) : 0, once = niti_loader_steps(run->scored_loader);
  const int64_t averaged = run->average ? once + test : 0;
  return (scored ? once : 0) + (ends ? 2 * test + averaged : 0);
}

/* How many epochs from `first` to the last are scored. */
static int64_t passes_from(const NitiRun *run, int64_t first) {
  const int64_t every = interval(run), last = last_epoch(run);
  return first > last ? 0 : last / every - (first - 1) / every + (last % every != 0);
}

/* Of one batch; before any was scored, a third of a step: forward alone. */
static int64_t batch_time(const NitiRun *run, int64_t step_time) {
  return run->score_batches > 0 ? run->score_nanoseconds / run->score_batches : step_time / 3;
}

void niti_run_expect(const NitiRun *run, int64_t *epoch_left, int64_t *run_left) {
  const int64_t here = run->step - run->first_step, left = run->steps - run->step,
                into = run->step - run->epoch * run->steps_per_epoch;
  *epoch_left = *run_left = run->complete ? 0 : -1;
  if (here < 1 || run->complete) return;
  const int64_t step = run->nanoseconds / here, batch = batch_time(run, step), steps = run->steps_per_epoch - into;
  const bool ends = left <= steps;
  const int64_t now = batches_of(run, niti_run_scores(run, run->epoch + 1), ends) - run->epoch_scored;
  const int64_t later = passes_from(run, (int64_t)run->epoch + 2) * niti_loader_steps(run->scored_loader) +
                        (ends ? 0 : batches_of(run, false, true));
  *epoch_left = step * (ends ? left : steps) + batch * (now > 0 ? now : 0);
  *run_left = *epoch_left + step * (ends ? 0 : left - steps) + batch * later;
}
