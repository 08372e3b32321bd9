/* How a run's state is saved and restored. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "platform/path.h"
#include "train/data_choice.h"
#include "train/extend.h"
#include "train/locate.h"
#include "train/run_check.h"
#include "train/run_state.h"
#include "train/snapshot.h"

static NitiStatus fill_checkpoint(const NitiRun *run, NitiCheckpoint *checkpoint) {
  NITI_TRY(niti_run_state_save(checkpoint, run));
  NITI_TRY(niti_snapshot_take(checkpoint, run->net));
  return run->average ? niti_average_save(run->average, run->average_samples, checkpoint) : NITI_OK;
}

static NitiStatus save_averaged(NitiCheckpoint *checkpoint, const NitiRun *run) {
  NitiRun shown = *run; /* the scores of these weights */
  char *path;
  shown.test = run->averaged;
  shown.validation = run->averaged_validation;
  NITI_TRY(niti_run_state_save(checkpoint, &shown));
  NITI_TRY(niti_snapshot_take_weights(checkpoint, run->net));
  NITI_TRY(niti_run_folder_hold(run->folder));
  NITI_TRY(niti_path_join(&path, niti_run_folder_path(run->folder), "averaged.safetensors"));
  const NitiStatus status = niti_checkpoint_save(checkpoint, path);
  free(path);
  return status;
}

NitiStatus niti_run_save_averaged(const NitiRun *run) {
  NitiCheckpoint *checkpoint = NULL;
  NITI_TRY(niti_dataset_check_maps(run->dataset));
  NITI_TRY(niti_checkpoint_open(&checkpoint));
  const NitiStatus status = save_averaged(checkpoint, run);
  niti_checkpoint_close(checkpoint);
  return status;
}

NitiStatus niti_run_save(NitiRun *run, int keep) {
  NitiCheckpoint *checkpoint = NULL;
  if (!niti_run_leads(run)) return NITI_OK;
  if (run->lost) return niti_fail(NITI_ERROR_MEMORY, "the run's own weights are lost (the last checkpoint has them)");
  if (!run->saver) NITI_TRY(niti_saver_open(&run->saver, run->folder));
  NITI_TRY(niti_checkpoint_open(&checkpoint));
  NitiStatus status = fill_checkpoint(run, checkpoint);
  if (status == NITI_OK) status = niti_dataset_check_maps(run->dataset); /* after its last step: it names the data as it was */
  if (status == NITI_OK) return niti_saver_begin(run->saver, checkpoint, keep, run->epoch);
  niti_checkpoint_close(checkpoint);
  return status;
}

NitiStatus niti_run_saved(NitiRun *run) { return run->saver ? niti_saver_wait(run->saver) : NITI_OK; }

/* ---- a run that goes on ---- */

/* Images of a split that the run began without do not matter to it. */
static bool has_split(const NitiRunInputs *began, int split) { return began->images[split] > 0; }

/* Test images of an image folder affect no weight: a run may continue without some of them, such as damaged ones. */
static bool may_differ(const NitiRun *run, const NitiRunInputs *began, int split) {
  return split == NITI_TEST && niti_dataset_is_folder(run->dataset) && run->inputs.images[split] < began->images[split];
}

/* The labels of the classes and the order of the files determine the bits: neither may have changed. */
static NitiStatus check_names(const NitiRun *run, const NitiRunInputs *began) {
  const char *now = run->inputs.classes;
  if (now && began->classes) NITI_TRY(niti_data_same_names(now, began->classes, run->data_path, "the run"));
  for (int split = 0; split < NITI_SPLITS; ++split) {
    if (!began->names_sha256[split][0] || strcmp(run->inputs.names_sha256[split], began->names_sha256[split]) == 0) continue;
    if (may_differ(run, began, split)) continue;
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: its %s images are not the files that the run began with (expected the same names in the same folders)",
                     run->data_path, niti_split_name((NitiSplit)split));
  }
  return NITI_OK;
}

/* A resumed run needs the data set that it began with, byte for byte. Only in image folders may a file's content have changed
 * since (resume warns) or test images be gone (resume notes it). */
static NitiStatus check_data(NitiRun *run, const NitiRunInputs *began) {
  for (int split = 0; split < NITI_SPLITS; ++split) {
    if (!has_split(began, split) || run->inputs.images[split] == began->images[split] || may_differ(run, began, split)) continue;
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: %" PRId64 " %s images, but the run began with %" PRId64 " (expected the same data set)", run->data_path,
                     run->inputs.images[split], niti_split_name((NitiSplit)split), began->images[split]);
  }
  NITI_TRY(check_names(run, began));
  for (int split = 0; split < NITI_SPLITS; ++split) {
    if (!has_split(began, split) || strcmp(run->inputs.sha256[split], began->sha256[split]) == 0) continue;
    run->data_changed = true;
    if (!niti_dataset_is_folder(run->dataset)) {
      return niti_fail(NITI_ERROR_FORMAT, "%s: the files of its %s images have SHA-256 %s, but the run began with %s",
                       run->data_path, niti_split_name((NitiSplit)split), run->inputs.sha256[split], began->sha256[split]);
    }
  }
  return NITI_OK;
}

/* Where test images are missing, the state goes on to name those that the run began with: they may come back. */
static void keep_missing(NitiRun *run, const NitiRunInputs *began) {
  if (!may_differ(run, began, NITI_TEST)) return;
  run->inputs.images[NITI_TEST] = began->images[NITI_TEST];
  memcpy(run->inputs.sha256[NITI_TEST], began->sha256[NITI_TEST], sizeof began->sha256[NITI_TEST]);
  memcpy(run->inputs.names_sha256[NITI_TEST], began->names_sha256[NITI_TEST], sizeof began->names_sha256[NITI_TEST]);
}

/* Versions that infer the same bits differ where batch norm trains. */
static NitiStatus check_arithmetic(const NitiCheckpoint *checkpoint, const NitiDescription *model) {
  const char *arithmetic = niti_checkpoint_arithmetic(checkpoint);
  const bool same = strcmp(arithmetic, NITI_ARITHMETIC) == 0;
  bool trains_alike = niti_arithmetic_infers_alike(arithmetic);
  for (int32_t i = 0; i < model->node_count; ++i)
    trains_alike = trains_alike && strcmp(model->nodes[i].spec.type->name, "norm") != 0;
  if (same || trains_alike) return NITI_OK;
  return niti_fail(
      NITI_ERROR_UNSUPPORTED,
      "%s: the run is of arithmetic %.16s, which trains this network to other bits (expected %s; --init begins a new run "
      "with its weights)",
      niti_checkpoint_source(checkpoint), arithmetic, NITI_ARITHMETIC);
}

NitiStatus niti_run_restore(NitiRun *run, const NitiCheckpoint *checkpoint, const char *data_path) {
  const char *source = niti_checkpoint_source(checkpoint);
  run->resumed = true;
  NITI_TRY(niti_run_state_load(run, checkpoint));
  const NitiRunInputs began = run->inputs;
  NITI_TRY(niti_recipe_parse(&run->recipe, began.recipe, source, NULL, 0, began.model));
  NITI_TRY(niti_run_check_recipe(run, source));
  NITI_TRY(check_arithmetic(checkpoint, run->recipe->model));
  const int64_t epochs = run->recipe->epochs;
  NITI_TRY(niti_run_extend(run));
  NITI_TRY(niti_run_open(run, data_path ? data_path : began.data));
  NITI_TRY(niti_run_agree(run, check_data(run, &began)));
  keep_missing(run, &began);
  NITI_TRY(niti_run_check_counts(run, &began, niti_checkpoint_get(checkpoint, "best_on_validation") != NULL, source));
  NITI_TRY(niti_snapshot_restore(run->net, checkpoint, source));
  const int64_t samples = run->average ? niti_averaging_samples(&run->recipe->average, run->step) : 0;
  if (run->average) NITI_TRY(niti_average_restore(run->average, run->average_samples, samples, checkpoint));
  NITI_TRY(niti_snapshot_check(run->net, run->average, checkpoint));
  const int64_t all = run->steps_per_epoch * epochs; /* before it was extended */
  NITI_TRY(niti_run_check_progress(run, all < run->steps ? all : run->steps, source));
  return niti_run_extend_opened(run);
}
