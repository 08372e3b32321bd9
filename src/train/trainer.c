/* A whole run: epochs of steps, a test after each, and a folder from which it can resume after any interruption. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "platform/clock.h"
#include "platform/path.h"
#include "platform/text.h"
#include "train/find_rate.h"
#include "train/introduce.h"
#include "train/locate.h"
#include "train/options.h"
#include "train/recipe_text.h"
#include "train/scoring.h"
#include "train/snapshot.h"
#include "train/together.h"

static const int64_t save_nanoseconds = INT64_C(60000000000);  /* maximum age of a checkpoint within an epoch */
static const int64_t pace_nanoseconds = INT64_C(10000000000);  /* between two comparisons of the ranks' paces within an epoch */
static const int64_t refresh_nanoseconds = INT64_C(500000000); /* of the training score passed to the callback */

static bool tell(const NitiRun *run, NitiProgress *progress) {
  if (!run->options.progress) return true;
  const int64_t into = run->step - run->epoch * run->steps_per_epoch;
  if (progress->kind != NITI_PROGRESS_TEST) {
    progress->batch = into;
    progress->batches = run->steps_per_epoch;
  }
  progress->epochs = run->recipe ? run->recipe->epochs : 0;
  progress->step = run->step;
  progress->steps = run->steps;
  progress->train = run->train;
  progress->images = run->images;
  progress->steps_here = run->step - run->first_step;
  progress->nanoseconds = run->nanoseconds;
  progress->epoch_left = progress->run_left = -1;
  if (run->scored_loader) niti_run_expect(run, &progress->epoch_left, &progress->run_left);
  return run->options.progress(run->options.context, progress);
}

__attribute__((format(printf, 3, 4))) static void tell_text(const NitiRun *run, NitiProgressKind kind, const char *format, ...) {
  char text[1280];
  va_list args;
  va_start(args, format);
  niti_text_format(text, sizeof text, format, args);
  va_end(args);
  NitiProgress progress = {.kind = kind, .text = text, .epoch = run->epoch + 1};
  (void)tell(run, &progress);
}

#define note(run, ...) tell_text(run, NITI_PROGRESS_NOTE, __VA_ARGS__)
#define warn(run, ...) tell_text(run, NITI_PROGRESS_WARNING, __VA_ARGS__)

/* ---- running ---- */

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

static NitiStatus save(NitiRun *run, int keep) {
  run->saved_at = niti_clock_now();
  return niti_run_save(run, keep);
}

static bool tell_test(const NitiRun *run, int64_t done, int64_t batches) {
  NitiProgress progress = {.kind = NITI_PROGRESS_TEST, .epoch = run->epoch + 1, .batch = done, .batches = batches};
  return tell(run, &progress);
}

/* Adds the time since *mark to the steps' time and moves the mark. The device keeps working while the host does other things, so
 * only saving, which waits for it, is excluded. */
static void count_time(NitiRun *run, int64_t *mark) {
  const int64_t time = niti_clock_now();
  run->nanoseconds += time - *mark;
  run->epoch_nanoseconds += time - *mark;
  *mark = time;
}

/* Saves within an epoch when due or requested. */
static NitiStatus save_if_due(NitiRun *run, int64_t *mark) {
  const bool asked = run->options.save_now && run->options.save_now(run->options.context);
  if (!asked && *mark - run->saved_at <= save_nanoseconds) return NITI_OK;
  NITI_TRY(read_metrics(&run->train, run));
  count_time(run, mark);
  NITI_TRY(save(run, NITI_KEEP_LAST));
  if (asked) note(run, "saving the state after step %" PRId64 ", as requested", run->step);
  *mark = niti_clock_now();
  return NITI_OK;
}

/* Saves the training so far when something else fails: an unreadable image, a log that cannot be written. */
static NitiStatus save_after(NitiRun *run, NitiStatus failure) {
  char why[1024];
  (void)snprintf(why, sizeof why, "%s", niti_error());
  if (save(run, NITI_KEEP_LAST) != NITI_OK || niti_run_saved(run) != NITI_OK) return niti_fail(failure, "%s", why);
  return niti_fail(failure, "%s; the state after step %" PRId64 " is saved", why, run->step);
}

/* The epoch's first step in this process comes next. */
static NitiStatus watch_health(NitiRun *run, bool whole) {
  if (!niti_run_leads(run)) return NITI_OK;
  if (!run->health) NITI_TRY(niti_health_open(&run->health, run->net, run->dataset));
  run->whole_epoch = whole;
  return niti_health_begin(run->health);
}

static void warn_health(void *context, const char *text) { warn((const NitiRun *)context, "%s", text); }

enum { RATE_TEXT_MAX = 160 };

/* "update.lr, which is 0.5 and came to 0.02 in the last step": the number in the recipe, and what its curve made of it. */
static void describe_rate(char text[RATE_TEXT_MAX], const NitiRecipe *recipe, int64_t step) {
  const NitiLearningRate now = niti_recipe_rate(recipe, step);
  const int64_t given = recipe->optimizer->wide ? niti_schedule_value(&recipe->rate.points, step) : now.value;
  char own[32], last[32];
  niti_yaml_decimal_text(own, sizeof own, given, now.places);
  niti_yaml_decimal_text(last, sizeof last, now.value, now.places);
  const int used = snprintf(text, RATE_TEXT_MAX, "update.%s, which is %s", now.key, own);
  if (given != now.value) (void)snprintf(text + used, RATE_TEXT_MAX - (size_t)used, " and came to %s in the last step", last);
}

/* In the epoch's first step, after the warm-up. */
static bool rate_faded(const NitiRun *run, int32_t epoch) {
  const NitiRecipe *recipe = run->recipe;
  const int64_t first = (epoch - 1) * run->steps_per_epoch;
  return recipe->optimizer->wide && first >= recipe->rate.warm &&
         10 * niti_recipe_rate(recipe, first).value < niti_schedule_value(&recipe->rate.points, first);
}

static NitiStatus check_health(NitiRun *run, int32_t epoch) {
  char rate[RATE_TEXT_MAX];
  const bool whole = run->whole_epoch && run->step == (int64_t)epoch * run->steps_per_epoch;
  describe_rate(rate, run->recipe, run->step - 1);
  const bool scored = niti_run_scored(run)->images > 0;
  const NitiEpochFacts facts = {.epoch = epoch,
                                .rate = rate,
                                .whole = whole,
                                .faded = rate_faded(run, epoch),
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
  if (text[0]) warn(run, "%s", text);
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
      return save_after(run, status);
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
    if (measured != NITI_OK) return save_after(run, measured);
    count_time(run, &mark);
    NitiProgress progress = {.kind = NITI_PROGRESS_BATCH, .epoch = run->epoch + 1};
    *go_on = tell(run, &progress);
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
  *go_on = tell(run, &progress);
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
    return status == NITI_OK ? NITI_OK : save_after(run, status); /* the caller saves the step */
  }
  const NitiScore train = run->train;
  if (run->step == (int64_t)epoch * run->steps_per_epoch) {
    run->epoch = epoch;
    if (run->save_every > 0 && epoch % run->save_every == 0) keep |= NITI_KEEP_EPOCH;
    if (run->step < run->steps) run->train = (NitiScore){0};
  }
  run->complete = run->step == run->steps;
  run->epoch_images = run->epoch_nanoseconds = run->epoch_scored = 0;
  NITI_TRY(save(run, keep));
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
  warn(run,
       "%s: it should hold the weights of epoch %d, the best%s: put a copy of them there%s `eval`, `predict` and `export` take "
       "last.safetensors",
       why, run->best_epoch, untested ? ", which are not tested" : "", there ? ", or remove what is there, and" : "; until then");
  return NITI_OK;
}

/* Warns, once the run is complete, where its best weights are not in its folder or were not tested: its own work is done. */
static NitiStatus check_best(NitiRun *run) {
  NitiCheckpoint *best;
  const bool untested = run->test_loader && run->test.images > 0 && run->best_test.images == 0;
  if (run->best_epoch == 0) return NITI_OK;
  NITI_TRY(niti_run_load_best(&best, run));
  niti_checkpoint_close(best);
  run->best_lost = best == NULL;
  if (run->best_lost)
    NITI_TRY(warn_lost(run, untested));
  else if (untested)
    warn(run,
         "the weights of epoch %d, the best, are not tested: best.safetensors did not hold them when the run ended (`niti eval` "
         "tests them)",
         run->best_epoch);
  return NITI_OK;
}

static NitiStatus train_all(NitiRun *run) {
  run->saved_at = run->refreshed_at = niti_clock_now();
  run->first_step = run->step;
  while (!run->complete) {
    bool go_on = true;
    NITI_TRY(train_epoch(run, &go_on));
    if (go_on) NITI_TRY(finish_epoch(run, &go_on));
    if (!go_on && !run->complete) {
      NITI_TRY(save(run, NITI_KEEP_LAST));
      NITI_TRY(niti_run_saved(run));
      return niti_fail(NITI_INTERRUPTED, "interrupted after step %" PRId64 " of %" PRId64 "; the state is saved", run->step,
                       run->steps);
    }
  }
  NITI_TRY(niti_run_saved(run));
  return niti_run_agree(run, niti_run_leads(run) ? check_best(run) : NITI_OK);
}

static NitiStatus fill_result(const NitiRun *run, NitiTrainResult *out) {
  *out = (NitiTrainResult){.epochs = run->epoch,
                           .steps = run->step,
                           .train = run->train,
                           .validation = run->validation,
                           .test = run->test,
                           .best = run->best,
                           .best_test = run->on_validation ? run->best_test : run->best,
                           .best_epoch = run->best_epoch,
                           .chosen_on = niti_run_scored_split(run),
                           .averaged_correct = run->averaged.correct,
                           .averaged_images = run->averaged.images,
                           .averaged_validation_correct = run->averaged_validation.correct,
                           .best_lost = run->best_lost,
                           .images = run->images,
                           .nanoseconds = run->nanoseconds};
  const NitiShiftCounts shifts = run->backend->ops->shift_counts(run->backend);
  out->shift_predictions = shifts.predictions;
  out->shift_retries = shifts.retries;
  return niti_snapshot_hash(run->net, out->hash);
}

static NitiStatus finish(NitiRun *run, NitiTrainResult *out, NitiStatus status) {
  if ((status == NITI_OK || status == NITI_INTERRUPTED) && run->net) {
    const NitiStatus filled = fill_result(run, out);
    if (filled != NITI_OK) status = filled;
  }
  char why[1024];
  (void)snprintf(why, sizeof why, "%s", niti_error());
  /* no backend: the options, and their ranks, may have been refused */
  if (run->backend && (status == NITI_OK || status == NITI_INTERRUPTED || niti_ranks_agreed(run->options.ranks)))
    niti_backend_leave(run->backend);
  const NitiStatus closed = niti_run_close(run); /* its own failure matters less */
  return status != NITI_OK ? niti_fail(status, "%s", why) : closed;
}

/* ---- a new run ---- */

static bool wants_weights(void *context) {
  const NitiRun *run = context;
  const NitiProgress progress = {.kind = NITI_PROGRESS_DATA, .text = "reading weights", .epoch = run->epoch + 1};
  return !run->options.progress || run->options.progress(run->options.context, &progress);
}

/* Loads what --init names. Reads only the weights of a checkpoint, so one edited by other tools is accepted. */
static NitiStatus load_init(NitiCheckpoint **out, NitiRun *run) {
  NitiLocation location;
  bool intact = true;
  NitiStatus status = niti_locate(&location, run->options.init);
  if (status == NITI_OK && location.kind == NITI_LOCATED_CHECKPOINT)
    status = niti_checkpoint_load_weights(out, &intact, location.path);
  else if (status == NITI_OK)
    status = niti_location_weights(out, &location);
  if (status == NITI_OK && !intact)
    warn(run, "%s: modified since niti wrote it, or damaged; using its weights unchanged", location.path);
  if (status == NITI_OK && location.kind != NITI_LOCATED_CHECKPOINT)
    warn(run, "%s: not trained: its weights are initialised from its seed", location.path);
  niti_location_close(&location);
  return status;
}

static NitiStatus take_init(NitiRun *run, const NitiCheckpoint *checkpoint) {
  const int32_t count = run->net->weight_count;
  int32_t taken = 0;
  for (int32_t i = 0; i < count; ++i) {
    bool found = false;
    NITI_TRY(niti_snapshot_restore_one(&found, run->net, i, checkpoint, run->options.init));
    if (found) {
      ++taken;
    } else {
      note(run, "initialised afresh: %s (no tensor of its name and shape in %s)", niti_network_weight(run->net, i).layer,
           run->options.init);
    }
  }
  if (taken == 0) {
    return niti_fail(NITI_ERROR_FORMAT, "%s: no tensor matches a layer of model '%s' by name and shape", run->options.init,
                     run->recipe->model->name);
  }
  note(run, "weights of %d of %d layers taken from %s", taken, count, run->options.init);
  return NITI_OK;
}

static NitiStatus start_weights(NitiRun *run) {
  NitiCheckpoint *checkpoint = NULL;
  NITI_TRY(niti_network_init(run->net, run->recipe->seed));
  if (!run->options.init || !niti_run_leads(run)) return NITI_OK;
  const NitiFileWatch watch = {wants_weights, run};
  niti_file_watch(&watch);
  const NitiStatus loaded = load_init(&checkpoint, run);
  niti_file_watch(NULL);
  NITI_TRY(loaded);
  const NitiStatus status = take_init(run, checkpoint);
  niti_checkpoint_close(checkpoint);
  return status;
}

static void introduce(const NitiRun *run, const char *run_path) {
  NitiRunFacts facts;
  niti_run_facts(&facts, run, run_path);
  NitiProgress progress = {.kind = NITI_PROGRESS_START, .run = &facts, .epoch = run->epoch + 1};
  (void)tell(run, &progress); /* the callback is asked again after the first step whether to stop */
}

/* What the run will never do, since it ends before. */
static void warn_unreached(const NitiRun *run) {
  const NitiRecipe *recipe = run->recipe;
  char position[NITI_POSITION_MAX], share[NITI_POSITION_MAX], end[96];
  NitiPosition first = {0};
  const NitiSchedule *rates = recipe->optimizer->wide ? &recipe->rate.points : &recipe->mu;
  const int32_t unreached = niti_schedule_unreached(rates, run->steps, &first);
  (void)snprintf(end, sizeof end, "the run ends after %d epoch%s (step %" PRId64 ")", recipe->epochs,
                 recipe->epochs == 1 ? "" : "s", run->steps);
  if (run->steps < run->steps_per_epoch * recipe->epochs)
    (void)snprintf(end, sizeof end, "max_steps ends the run after step %" PRId64, run->steps);
  if (unreached > 0)
    warn(run, "%s: %d of %d values never take effect, the first %s%s: %s", niti_rate_setting(recipe), unreached, rates->count,
         first.unit == NITI_POSITION_SHARE ? "" : "at ", niti_position_text(position, first), end);
  const NitiSchedulePoint *same = niti_schedule_same(rates, true);
  if (same)
    warn(run, "%s: the value of %s never takes effect: %s is step %" PRId64 " of this run, too", niti_rate_setting(recipe),
         niti_position_text(position, same[-1].at), niti_position_text(share, same->at), same->step);
  if (run->save_every > 0 && run->save_every * run->steps_per_epoch > run->steps)
    warn(run, "save_every: no checkpoint of epoch %d will be kept: %s", run->save_every, end);
}

/* Deltas that are rounded with a bias: small ones vanish, all in the same direction. */
static void warn_rounding(const NitiRun *run) {
  const NitiRounding error = run->recipe->round_error;
  if (!run->recipe->optimizer->wide || error == NITI_STOCHASTIC || error == NITI_STOCHASTIC_BYTE) return;
  warn(run, "rounding.error is %s, which biases the small deltas of update %s: set rounding.error=stochastic-byte",
       niti_recipe_roundings[error], run->recipe->optimizer->name);
}

/* Of one value a norm leaves nothing but its bias. */
static void warn_norms(const NitiRun *run) {
  const NitiProgram *program = run->net->program;
  for (int32_t i = 0; i < program->operation_count; ++i) {
    const NitiOperation *o = &program->operations[i];
    if (o->opcode != NITI_OP_NORM_FIT || o->norm.running || o->norm.positions * run->recipe->batch > 1) continue;
    warn(run,
         "layer %s: a norm over one value per channel gives the same for every image, so nothing before it learns: raise batch",
         program->layers[o->layer]);
  }
}

static void warn_settings(const NitiRun *run) {
  warn_unreached(run);
  warn_rounding(run);
  warn_norms(run);
}

static NitiStatus start_dry(NitiRun *run, const char *run_path) {
  if (niti_run_leads(run)) NITI_TRY(niti_run_folder_check(run_path));
  introduce(run, run_path);
  warn_settings(run);
  return NITI_OK;
}

static void note_lock(const NitiRun *run) {
  const char *file = niti_run_folder_owner_file(run->folder);
  if (file) note(run, "this file system has no file locks: %s keeps other processes out of the run", file);
}

static NitiStatus start_folder(NitiRun *run, const char *run_path) {
  NITI_TRY(niti_run_folder_create(&run->folder, run_path)); /* last, so that earlier failures leave no folder */
  note_lock(run);
  NitiStatus status = niti_run_folder_describe(run->folder, run->recipe, run->backend, run->dataset, run->data_path,
                                               (const char(*)[65])run->inputs.sha256, niti_run_scored_split(run));
  if (status == NITI_OK) status = save(run, NITI_KEEP_LAST);
  if (status == NITI_OK) status = niti_run_saved(run);
  if (status == NITI_OK) status = niti_report_open(&run->report, run_path, run->recipe, -1, -1, run->on_validation);
  if (status == NITI_OK) return niti_report_recipe(run->report);
  niti_run_folder_clear(run->folder); /* nothing to resume */
  return status;
}

static void note_ranks(const NitiRun *run) {
  const NitiRanks *ranks = run->options.ranks;
  const int hosts = niti_ranks_hosts(ranks);
  if (ranks)
    note(run, "%d ranks on %d host%s, by %s", niti_ranks_size(ranks), hosts, hosts == 1 ? "" : "s", niti_ranks_library(ranks));
}

static NitiStatus start(NitiRun *run, const NitiRecipe *recipe, const char *run_path) {
  NITI_TRY(niti_recipe_parse(&run->recipe, recipe->text, recipe->source, NULL, 0, recipe->model->text));
  NITI_TRY(niti_run_open(run, run->options.data));
  const NitiStatus distinct = niti_recipe_check_distinct(run->recipe);
  if (distinct != NITI_OK) return niti_fail_within(distinct, "%s", run->recipe->source);
  NITI_TRY(niti_run_agree(run, start_weights(run)));
  if (run->options.init) NITI_TRY(niti_together_weights(run)); /* which rank 0 has read; else all have drawn the same */
  if (run->options.dry_run) return niti_run_agree(run, start_dry(run, run_path));
  return niti_run_agree(run, niti_run_leads(run) ? start_folder(run, run_path) : NITI_OK);
}

static NitiStatus check_options(const char *function, const NitiTrainOptions *options) {
  NITI_TRY(niti_reserved_check(function, "options", options->reserved, sizeof options->reserved / sizeof *options->reserved));
  NITI_TRY(niti_device_check(function, "options->device", &options->device));
  if (options->measure_every < -1)
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: options->measure_every is %d (expected -1 or more)", function,
                     options->measure_every);
  const char *const names[] = {"save_every", "test_every", "test_limit", "epochs"};
  const int32_t values[] = {options->save_every, options->test_every, options->test_limit, options->epochs};
  for (int i = 0; i < 4; ++i) {
    if (values[i] < 0)
      return niti_fail(NITI_ERROR_ARGUMENT, "%s: options->%s is %d (expected 0 or more)", function, names[i], values[i]);
  }
  return NITI_OK;
}

NitiStatus niti_train(NitiTrainResult *out, const NitiRecipe *recipe, const char *run_path, const NitiTrainOptions *options) {
  NITI_WANT(out, "out");
  *out = (NitiTrainResult){0};
  NITI_WANT(recipe, "recipe");
  NITI_WANT(run_path, "folder");
  const NitiTrainOptions none = {0};
  NitiRun run = {.options = options ? *options : none};
  NitiStatus status = check_options(__func__, &run.options);
  run.save_every = run.options.save_every;
  run.test_every = run.options.test_every;
  run.test_limit = run.options.test_limit;
  if (status == NITI_OK && run.options.epochs > 0)
    status = niti_fail(NITI_ERROR_ARGUMENT, "niti_train: options->epochs is %d (expected 0: it extends a run that is resumed)",
                       run.options.epochs);
  if (status == NITI_OK) status = niti_together_begin(&run, __func__);
  if (status == NITI_OK) status = start(&run, recipe, run_path);
  if (status == NITI_OK && !run.options.dry_run) {
    introduce(&run, run_path);
    note_ranks(&run);
    warn_settings(&run);
    status = train_all(&run);
  }
  return finish(&run, out, status);
}

/* ---- an old run ---- */

/* Records an extension at once, and again where a process was killed between the two files. */
static NitiStatus save_extension(NitiRun *run) {
  if (!run->extensions) return NITI_OK;
  if (run->extended) {
    NITI_TRY(save(run, NITI_KEEP_LAST));
    NITI_TRY(niti_run_saved(run));
    note(run, "extended to %d epochs", run->recipe->epochs);
  }
  return niti_run_folder_put_recipe(run->folder, run->recipe);
}

static void warn_changed(const NitiRun *run) {
  const int64_t all = run->inputs.images[NITI_TEST], missing = all - run->present.images[NITI_TEST];
  char text[96] = "";
  if (missing > 0)
    (void)snprintf(text, sizeof text, " (%" PRId64 " of its %" PRId64 " test images %s missing)", missing, all,
                   missing == 1 ? "is" : "are");
  if (run->data_changed)
    warn(run, "%s: image files have changed since the run began%s; its result will differ", run->data_path, text);
}

static NitiStatus go_on(NitiRun *run, const char *run_path) {
  warn_changed(run);
  NITI_TRY(niti_run_agree(run, niti_run_leads(run) ? save_extension(run) : NITI_OK));
  if (run->extended) warn_settings(run);
  note(run, "resumed at step %" PRId64 " of %" PRId64, run->step, run->steps);
  if (!niti_run_leads(run)) return train_all(run);
  NITI_TRY(niti_report_open(&run->report, run_path, run->recipe, run->epoch, run->step, run->on_validation));
  for (size_t i = 0; niti_report_note(run->report, i); ++i) warn(run, "%s", niti_report_note(run->report, i));
  return train_all(run);
}

static NitiStatus mend_best(NitiRun *run, const NitiCheckpoint *checkpoint) {
  bool mended;
  NITI_TRY(niti_run_mend_best(&mended, run, checkpoint));
  if (mended)
    note(run,
         "best.safetensors made of %s, which holds the weights of epoch %d, the best: the run had ended before it was written",
         niti_checkpoint_source(checkpoint), run->best_epoch);
  return NITI_OK;
}

static NitiStatus open_folder(NitiRun *run, NitiCheckpoint **checkpoint, bool *previous, const char *run_path) {
  NITI_TRY(niti_run_folder_open(&run->folder, run_path));
  note_lock(run);
  return niti_checkpoint_load_last(checkpoint, previous, run_path);
}

NitiStatus niti_resume(NitiTrainResult *out, const char *run_path, const NitiTrainOptions *options) {
  NITI_WANT(out, "out");
  *out = (NitiTrainResult){0};
  NITI_WANT(run_path, "folder");
  const NitiTrainOptions none = {0};
  NitiRun run = {.options = options ? *options : none};
  NitiCheckpoint *checkpoint = NULL;
  bool previous = false;
  NitiStatus status = check_options(__func__, &run.options);
  if (status == NITI_OK) status = niti_together_begin(&run, __func__);
  if (status == NITI_OK)
    status = niti_run_agree(&run, niti_run_leads(&run) ? open_folder(&run, &checkpoint, &previous, run_path) : NITI_OK);
  if (status == NITI_OK) status = niti_together_checkpoint(&checkpoint, run.options.ranks);
  if (status == NITI_OK && previous) warn(&run, "%s; continuing from the checkpoint before it", niti_error());
  if (status == NITI_OK) status = niti_run_agree(&run, niti_run_restore(&run, checkpoint, run.options.data));
  if (status == NITI_OK) introduce(&run, run_path);
  if (status == NITI_OK) note_ranks(&run);
  if (status == NITI_OK) status = niti_run_agree(&run, niti_run_leads(&run) ? mend_best(&run, checkpoint) : NITI_OK);
  niti_checkpoint_close(checkpoint);
  if (status == NITI_OK && run.complete) {
    note(&run, "the run is complete: nothing to do");
    status = niti_run_agree(&run, niti_run_leads(&run) ? check_best(&run) : NITI_OK);
  }
  if (status == NITI_OK && !run.complete) status = go_on(&run, run_path);
  return finish(&run, out, status);
}
