/* A whole run, from options to result: a new one, or one that goes on from its folder after any interruption. */
#define _GNU_SOURCE /* asprintf */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "platform/path.h"
#include "train/epochs.h"
#include "train/initial.h"
#include "train/introduce.h"
#include "train/options.h"
#include "train/scoring.h"
#include "train/snapshot.h"
#include "train/tell.h"
#include "train/together.h"
#include "train/warn.h"

/* ---- both ---- */

static void introduce(const NitiRun *run, const char *run_path) {
  NitiRunFacts facts;
  niti_run_facts(&facts, run, run_path);
  NitiProgress progress = {.kind = NITI_PROGRESS_START, .run = &facts, .epoch = run->epoch + 1};
  (void)niti_run_tell(run, &progress); /* the callback is asked again after the first step whether to stop */
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

static NitiStatus start_dry(NitiRun *run, const char *run_path) {
  if (niti_run_leads(run)) NITI_TRY(niti_run_folder_check(run_path));
  introduce(run, run_path);
  niti_run_warn_settings(run);
  return NITI_OK;
}

static void note_lock(const NitiRun *run) {
  const char *file = niti_run_folder_owner_file(run->folder);
  if (file) niti_run_note(run, "this file system has no file locks: %s keeps other processes out of the run", file);
}

static NitiStatus start_folder(NitiRun *run, const char *run_path) {
  NITI_TRY(niti_run_folder_create(&run->folder, run_path)); /* last, so that earlier failures leave no folder */
  note_lock(run);
  NitiStatus status = niti_run_folder_describe(run->folder, run->recipe, run->backend, run->dataset, run->data_path,
                                               (const char(*)[65])run->inputs.sha256, niti_run_scored_split(run));
  if (status == NITI_OK) status = niti_run_save_now(run, NITI_KEEP_LAST);
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
    niti_run_note(run, "%d ranks on %d host%s, by %s", niti_ranks_size(ranks), hosts, hosts == 1 ? "" : "s",
                  niti_ranks_library(ranks));
}

static NitiStatus start(NitiRun *run, const NitiRecipe *recipe, const char *run_path) {
  NITI_TRY(niti_recipe_parse(&run->recipe, recipe->text, recipe->source, NULL, 0, recipe->model->text));
  NITI_TRY(niti_run_open(run, run->options.data));
  const NitiStatus distinct = niti_recipe_check_distinct(run->recipe);
  if (distinct != NITI_OK) return niti_fail_within(distinct, "%s", run->recipe->source);
  NITI_TRY(niti_run_agree(run, niti_run_start_weights(run)));
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
    niti_run_warn_settings(&run);
    status = niti_run_epochs(&run);
  }
  return finish(&run, out, status);
}

/* ---- an old run ---- */

/* Records an extension at once, and again where a process was killed between the two files. */
static NitiStatus save_extension(NitiRun *run) {
  if (!run->extensions) return NITI_OK;
  if (run->extended) {
    NITI_TRY(niti_run_save_now(run, NITI_KEEP_LAST));
    NITI_TRY(niti_run_saved(run));
    niti_run_note(run, "extended to %d epochs", run->recipe->epochs);
  }
  return niti_run_folder_put_recipe(run->folder, run->recipe);
}

static void warn_changed(const NitiRun *run) {
  const int64_t all = run->inputs.images[NITI_TEST], missing = all - run->present.images[NITI_TEST];
  char text[96] = "";
  if (missing > 0)
    (void)snprintf(text, sizeof text, " (%" PRId64 " test images, where it began with %" PRId64 ")",
                   run->present.images[NITI_TEST], all);
  if (run->data_changed)
    niti_run_warn(run, "%s: image files have changed since the run began%s; its result will differ", run->data_path, text);
}

static NitiStatus go_on(NitiRun *run, const char *run_path) {
  warn_changed(run);
  NITI_TRY(niti_run_agree(run, niti_run_leads(run) ? save_extension(run) : NITI_OK));
  if (run->extended) niti_run_warn_settings(run);
  niti_run_note(run, "resumed at step %" PRId64 " of %" PRId64, run->step, run->steps);
  if (!niti_run_leads(run)) return niti_run_epochs(run);
  NITI_TRY(niti_report_open(&run->report, run_path, run->recipe, run->epoch, run->step, run->on_validation));
  for (size_t i = 0; niti_report_note(run->report, i); ++i) niti_run_warn(run, "%s", niti_report_note(run->report, i));
  return niti_run_epochs(run);
}

static NitiStatus mend_best(NitiRun *run, const NitiCheckpoint *checkpoint) {
  const char *from;
  NITI_TRY(niti_run_mend_best(&from, run, checkpoint));
  if (from)
    niti_run_note(run, "best.safetensors made of %s, which holds the weights of epoch %d, the best", from, run->best_epoch);
  return NITI_OK;
}

/* *instead: what takes the place of a damaged or missing `last`, and why; the caller frees it. NULL: nothing does. */
static NitiStatus open_folder(NitiRun *run, NitiCheckpoint **checkpoint, char **instead, const char *run_path) {
  bool previous, newer = false;
  char why[1024];
  NITI_TRY(niti_run_folder_open(&run->folder, run_path));
  note_lock(run);
  NITI_TRY(niti_checkpoint_load_last(checkpoint, &previous, run_path));
  if (!previous) return NITI_OK;
  (void)snprintf(why, sizeof why, "%s", niti_error());
  NITI_TRY(niti_run_take_newer(&newer, checkpoint, run));
  const char *which = newer ? "best.safetensors, which is newer than the checkpoint before it" : "the checkpoint before it";
  if (asprintf(instead, "%s; continuing from %s", why, which) >= 0) return NITI_OK;
  *instead = NULL;
  return niti_fail(NITI_ERROR_MEMORY, "out of memory for a warning");
}

/* Where another checkpoint has taken its place: that one, so that a damaged file does not become `previous`. */
static NitiStatus put_last(const NitiRun *run, const NitiCheckpoint *checkpoint) {
  char *path;
  NITI_TRY(niti_run_folder_hold(run->folder));
  NITI_TRY(niti_path_join(&path, niti_run_folder_path(run->folder), "last.safetensors"));
  const NitiStatus status = niti_checkpoint_save(checkpoint, path);
  free(path);
  NITI_TRY(status);
  return niti_run_folder_put_recipe(run->folder, run->recipe); /* it may be from before an extension */
}

NitiStatus niti_resume(NitiTrainResult *out, const char *run_path, const NitiTrainOptions *options) {
  NITI_WANT(out, "out");
  *out = (NitiTrainResult){0};
  NITI_WANT(run_path, "folder");
  const NitiTrainOptions none = {0};
  NitiRun run = {.options = options ? *options : none};
  NitiCheckpoint *checkpoint = NULL;
  char *instead = NULL;
  NitiStatus status = check_options(__func__, &run.options);
  if (status == NITI_OK) status = niti_together_begin(&run, __func__);
  if (status == NITI_OK)
    status = niti_run_agree(&run, niti_run_leads(&run) ? open_folder(&run, &checkpoint, &instead, run_path) : NITI_OK);
  if (status == NITI_OK) status = niti_together_checkpoint(&checkpoint, run.options.ranks);
  if (status == NITI_OK && instead) niti_run_warn(&run, "%s", instead);
  if (status == NITI_OK) status = niti_run_agree(&run, niti_run_restore(&run, checkpoint, run.options.data));
  if (status == NITI_OK) introduce(&run, run_path);
  if (status == NITI_OK) note_ranks(&run);
  if (status == NITI_OK) status = niti_run_agree(&run, niti_run_leads(&run) ? mend_best(&run, checkpoint) : NITI_OK);
  if (status == NITI_OK) status = niti_run_agree(&run, instead ? put_last(&run, checkpoint) : NITI_OK);
  niti_checkpoint_close(checkpoint);
  free(instead);
  if (status == NITI_OK && run.complete) {
    niti_run_note(&run, "the run is complete: nothing to do");
    status = niti_run_agree(&run, niti_run_leads(&run) ? niti_run_check_best(&run) : NITI_OK);
  }
  if (status == NITI_OK && !run.complete) status = go_on(&run, run_path);
  return finish(&run, out, status);
}
