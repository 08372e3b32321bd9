#include "train/epochs.h"

#include <inttypes.h>
#include <stdio.h>

#include "platform/clock.h"
#include "platform/path.h"
#include "train/scoring.h"
#include "train/tell.h"
#include "train/together.h"
#include "train/warn.h"

static const int64_t save_nanoseconds = INT64_C(60000000000);  /* maximum age of a checkpoint within an epoch */
static const int64_t pace_nanoseconds = INT64_C(10000000000);  /* between two comparisons of the ranks' paces within an epoch */
static const int64_t refresh_nanoseconds = INT64_C(500000000); /* of the training score passed to the callback */

static NitiStepContext step_context(const NitiRun *run) {
  return (NitiStepContext){run->recipe, run->net, run->feed, NULL, NULL};
}

/* Waits for all steps so far. */
static NitiStatus read_metrics(NitiScore *out, const NitiRun *run) {
  NitiMetrics m;
  NITI_TRY(niti_network_read_metrics(run->net, &m));
  *out = (NitiScore){.loss = m.loss, .correct = m.correct, .images = m.images};
  return NITI_OK;
}

static void write_metrics(const NitiRun *run, NitiScore score) {
  const NitiMetrics m = {score.loss, score.correct, score.images};
  niti_network_write_metrics(run->net, &m);
}

NitiStatus niti_run_save_now(NitiRun *run, int keep) {
  run->saved_at = niti_clock_now();
  return niti_run_save(run, keep);
}

static bool tell_test(const NitiRun *run, int64_t done, int64_t batches) {
  NitiProgress progress = {.kind = NITI_PROGRESS_TEST, .epoch = run->epoch + 1, .batch = done, .batches = batches};
  return niti_run_tell(run, &progress);
}

/* Adds the time since *mark to the steps' time and moves the mark. The device keeps working while the host does other things, so
 * only saving, which waits for it, is excluded. */
static void count_time(NitiRun *run, int64_t *mark) {
  const int64_t time = niti_clock_now();
  run->nanoseconds += time - *mark;
  run->epoch_nanoseconds += time - *mark;
  *mark = time;
}

/* Saves the training so far when something else fails: an unreadable image, a log that cannot be written. */
static NitiStatus save_after(NitiRun *run, NitiStatus failure, int keep) {
  char why[1024];
  (void)snprintf(why, sizeof why, "%s", niti_error());
  if (niti_run_save_now(run, keep) != NITI_OK || niti_run_saved(run) != NITI_OK) return niti_fail(failure, "%s", why);
  return niti_fail(failure, "%s; the state after step %" PRId64 " is saved", why, run->step);
}

/* Saves within an epoch when due or requested. */
static NitiStatus save_if_due(NitiRun *run, int64_t *mark) {
  const bool asked = run->options.save_now && run->options.save_now(run->options.context);
  if (!asked && *mark - run->saved_at <= save_nanoseconds) return NITI_OK;
  NITI_TRY(read_metrics(&run->train, run));
  count_time(run, mark);
  const NitiStatus status = niti_run_save_now(run, NITI_KEEP_LAST);
  if (status != NITI_OK) return save_after(run, status, NITI_KEEP_LAST); /* the one before has failed: once more */
  if (asked) niti_run_note(run, "saving the state after step %" PRId64 ", as requested", run->step);
  *mark = niti_clock_now();
  return NITI_OK;
}

/* The epoch's first step in this process comes next. */
static NitiStatus watch_health(NitiRun *run, bool whole) {
  if (!niti_run_leads(run)) return NITI_OK;
  if (!run->health) NITI_TRY(niti_health_open(&run->health, run->net, run->dataset));
  run->whole_epoch = whole;
  return niti_health_begin(run->health);
}

static void warn_health(void *context, const char *text) { niti_run_warn((const NitiRun *)context, "%s", text); }

static NitiStatus check_health(NitiRun *run, int32_t epoch) {
  char rate[NITI_RATE_TEXT_MAX];
  const bool whole = run->whole_epoch && run->step == (int64_t)epoch * run->steps_per_epoch;
  niti_run_describe_rate(rate, run->recipe, run->step - 1);
  const bool scored = niti_run_scored(run)->images > 0;
  const NitiEpochFacts facts = {.epoch = epoch,
                                .rate = rate,
                                .whole = whole,
                                .faded = niti_run_rate_faded(run, epoch),
                                .train = run->train,
                                .scored = scored ? run->scored : 0};
  return run->health ? niti_health_end(run->health, &facts, warn_health, run) : NITI_OK;
}

/* Within an epoch, on rank 0. */
static bool pace_due(NitiRun *run, int64_t now) {
  if (run->paced_at == 0) run->paced_at = now;
  return run->options.ranks && niti_run_leads(run) && now - run->paced_at > pace_nanoseconds;
}

static NitiStatus note_pace(NitiRun *run) {
  char text[NITI_RANK_TEXT_MAX];
  NITI_TRY(niti_together_pace(run, text));
  run->paced_at = niti_clock_now();
  if (text[0]) niti_run_warn(run, "%s", text);
  return NITI_OK;
}

/* Trains the rest of the epoch. *go_on false: asked to stop. */
static NitiStatus train_epoch(NitiRun *run, bool *go_on) {
  NitiStepContext context = step_context(run);
  const int64_t first = run->step - run->epoch * run->steps_per_epoch;
  if (first == run->steps_per_epoch) return NITI_OK; /* interrupted between the last step and the test's end */
  NITI_TRY(watch_health(run, first == 0));
  write_metrics(run, run->train);
  int64_t mark = niti_clock_now();
  NITI_TRY(niti_loader_start(run->train_loader, (uint32_t)run->epoch, first));
  while (*go_on && run->step < run->steps && run->step < (run->epoch + 1) * run->steps_per_epoch) {
    NitiBatch batch;
    const int64_t begin = niti_clock_now(), waited = niti_ranks_waited(run->options.ranks);
    NitiStatus status = niti_loader_next(run->train_loader, &batch);
    *go_on = status != NITI_INTERRUPTED;
    status = niti_run_vote(run, *go_on ? status : NITI_OK, go_on, NULL);
    if (status != NITI_OK) {
      NITI_TRY(read_metrics(&run->train, run));
      return save_after(run, status, NITI_KEEP_LAST);
    }
    if (!*go_on) break;
    NITI_TRY(niti_run_measure_begin(run, &context.measure));
    NITI_TRY(niti_step_train(&context, &batch, (uint32_t)run->step));
    ++run->step;
    if (niti_averaging_due(&run->recipe->average, run->step))
      NITI_TRY(niti_average_sample(run->average, &run->average_samples, run->net));
    run->epoch_scored = 0;
    run->images += niti_batch_whole(&batch);
    run->epoch_images += niti_batch_whole(&batch);
    run->pace.busy += niti_clock_now() - begin - (niti_ranks_waited(run->options.ranks) - waited);
    run->pace.images += batch.idle ? 0 : batch.count;
    const bool last = run->step == run->steps || run->step == (run->epoch + 1) * run->steps_per_epoch;
    if (last || mark - run->refreshed_at > refresh_nanoseconds) {
      NITI_TRY(read_metrics(&run->train, run));
      run->refreshed_at = mark;
    }
    const NitiStatus measured = niti_run_measure_end(run, context.measure);
    if (measured != NITI_OK) return save_after(run, measured, NITI_KEEP_LAST);
    count_time(run, &mark);
    NitiProgress progress = {.kind = NITI_PROGRESS_BATCH, .epoch = run->epoch + 1};
    *go_on = niti_run_tell(run, &progress);
    bool paces = pace_due(run, mark);
    NITI_TRY(niti_run_vote(run, NITI_OK, go_on, &paces));
    if (paces) NITI_TRY(note_pace(run));
    if (*go_on) NITI_TRY(save_if_due(run, &mark));
  }
  return read_metrics(&run->train, run);
}

/* Compares accuracies, since a resumed run may have other test images. */
static bool better(NitiScore a, NitiScore b) { return b.images == 0 || a.correct * b.images > b.correct * a.images; }

/* Scores the epoch where that is due; *keep receives NITI_KEEP_BEST where it is the best so far. At the end of a run with
 * validation images the test split follows. */
static NitiStatus score_weights(NitiRun *run, int32_t epoch, int *keep, bool *go_on) {
  if (run->on_validation) run->test = run->best_test = (NitiScore){0}; /* of the end before the run was extended */
  if (!niti_run_scores(run, epoch)) {
    *niti_run_scored(run) = (NitiScore){0};
    return NITI_OK;
  }
  NITI_TRY(niti_run_score(run, tell_test, go_on));
  if (!*go_on) return NITI_OK;
  const NitiScore *scored = niti_run_scored(run);
  if (scored->images > 0 && better(*scored, run->best)) {
    run->best = *scored;
    run->best_epoch = epoch;
    *keep |= NITI_KEEP_BEST;
  }
  if (run->step < run->steps || !run->test_loader) return NITI_OK;
  return niti_run_score_end(run, tell_test, go_on);
}

/* At the end of a run with `average` that of the averaged weights too. */
static NitiStatus score_epoch(NitiRun *run, int32_t epoch, int *keep, bool *go_on) {
  run->averaged = run->averaged_validation = (NitiScore){0};
  NITI_TRY(score_weights(run, epoch, keep, go_on));
  if (!*go_on || !run->average || run->step < run->steps) return NITI_OK;
  NITI_TRY(niti_run_score_averaged(run, tell_test, go_on));
  if (!*go_on) run->averaged = run->averaged_validation = (NitiScore){0};
  return NITI_OK;
}

static NitiStatus report_epoch(NitiRun *run, int32_t epoch, bool best) {
  if (!niti_run_leads(run)) return NITI_OK;
  const NitiReportRow row = {.epoch = epoch,
                             .step = run->step,
                             .train = run->train,
                             .validation = run->validation,
                             .test = run->test,
                             .best = run->best,
                             .best_test = run->best_test,
                             .averaged = run->averaged,
                             .averaged_validation = run->averaged_validation,
                             .images = run->epoch_images,
                             .nanoseconds = run->epoch_nanoseconds,
                             .confusion = best ? run->confusion : NULL};
  NITI_TRY(niti_run_folder_hold(run->folder)); /* a row in another run's folder would spoil its metrics */
  return niti_report_epoch(run->report, &row, run->net);
}

static void tell_epoch(NitiRun *run, int32_t epoch, bool *go_on) {
  NitiProgress progress = {.kind = NITI_PROGRESS_EPOCH,
                           .epoch = epoch,
                           .validation = run->validation,
                           .test = run->test,
                           .best = run->best,
                           .best_test = run->best_test};
  *go_on = niti_run_tell(run, &progress);
}

/* Scores, records and saves what train_epoch finished. */
static NitiStatus finish_epoch(NitiRun *run, bool *go_on) {
  const int32_t epoch = run->epoch + 1; /* a run that ends within an epoch reports it too */
  const NitiScore best = run->best;
  const int32_t best_epoch = run->best_epoch;
  int keep = NITI_KEEP_LAST;
  NitiStatus status = note_pace(run);
  if (status == NITI_OK) status = score_epoch(run, epoch, &keep, go_on);
  if (status == NITI_OK) status = niti_run_agree(run, niti_dataset_check_maps(run->dataset)); /* before its row is written */
  if (status == NITI_OK && *go_on) status = check_health(run, epoch);
  if (status == NITI_OK && *go_on) status = report_epoch(run, epoch, keep & NITI_KEEP_BEST);
  if (status != NITI_OK || !*go_on) { /* scored and recorded again after resuming */
    run->best = best;
    run->best_epoch = best_epoch;
    return status == NITI_OK ? NITI_OK : save_after(run, status, NITI_KEEP_LAST); /* the caller saves the step */
  }
  const NitiScore train = run->train;
  if (run->step == (int64_t)epoch * run->steps_per_epoch) {
    run->epoch = epoch;
    if (run->save_every > 0 && epoch % run->save_every == 0) keep |= NITI_KEEP_EPOCH;
    if (run->step < run->steps) run->train = (NitiScore){0};
  }
  run->complete = run->step == run->steps;
  run->epoch_images = run->epoch_nanoseconds = run->epoch_scored = 0;
  const NitiStatus saved = niti_run_save_now(run, keep);
  if (saved != NITI_OK) return save_after(run, saved, keep); /* the one before has failed: once more */
  const NitiScore next = run->train;
  run->train = train; /* for the epoch's callback */
  tell_epoch(run, epoch, go_on);
  run->train = next;
  return niti_run_vote(run, NITI_OK, go_on, NULL);
}

/* niti_error() says what is wrong with best.safetensors. */
static NitiStatus warn_lost(const NitiRun *run, bool untested) {
  char why[1024];
  bool there;
  (void)snprintf(why, sizeof why, "%s", niti_error());
  NITI_TRY(niti_path_has_entry(&there, niti_run_folder_path(run->folder), "best.safetensors"));
  niti_run_warn(
      run,
      "%s: it should hold the weights of epoch %d, the best%s: put a copy of them there%s `eval`, `predict` and `export` take "
      "last.safetensors",
      why, run->best_epoch, untested ? ", which are not tested" : "", there ? ", or remove what is there, and" : "; until then");
  return NITI_OK;
}

NitiStatus niti_run_check_best(NitiRun *run) {
  NitiCheckpoint *best;
  const bool untested = run->test_loader && run->test.images > 0 && run->best_test.images == 0;
  if (run->best_epoch == 0) return NITI_OK;
  NITI_TRY(niti_run_load_best(&best, run));
  niti_checkpoint_close(best);
  run->best_lost = best == NULL;
  if (run->best_lost)
    NITI_TRY(warn_lost(run, untested));
  else if (untested)
    niti_run_warn(
        run,
        "the weights of epoch %d, the best, are not tested: best.safetensors did not hold them when the run ended (`niti eval` "
        "tests them)",
        run->best_epoch);
  return NITI_OK;
}

NitiStatus niti_run_epochs(NitiRun *run) {
  run->saved_at = run->refreshed_at = niti_clock_now();
  run->first_step = run->step;
  while (!run->complete) {
    bool go_on = true;
    NITI_TRY(train_epoch(run, &go_on));
    if (go_on) NITI_TRY(finish_epoch(run, &go_on));
    if (!go_on && !run->complete) {
      NITI_TRY(niti_run_save_now(run, NITI_KEEP_LAST));
      NITI_TRY(niti_run_saved(run));
      return niti_fail(NITI_INTERRUPTED, "interrupted after step %" PRId64 " of %" PRId64 "; the state is saved", run->step,
                       run->steps);
    }
  }
  NITI_TRY(niti_run_saved(run));
  return niti_run_agree(run, niti_run_leads(run) ? niti_run_check_best(run) : NITI_OK);
}
