#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/run.h"
#include "train/snapshot.h"

static NitiStatus set_number(NitiCheckpoint *checkpoint, const char *key, int64_t value) {
  char text[24];
  (void)snprintf(text, sizeof text, "%" PRId64, value);
  return niti_checkpoint_set(checkpoint, key, text);
}

static int64_t get_number(const NitiCheckpoint *checkpoint, const char *key) {
  const char *text = niti_checkpoint_get(checkpoint, key);
  return text ? strtoll(text, NULL, 10) : 0;
}

/* The class names as one text, a line each; for predictions far from the data set. */
static NitiStatus set_class_names(NitiCheckpoint *checkpoint, const NitiDataset *dataset) {
  const int32_t classes = niti_dataset_classes(dataset);
  size_t length = 1;
  for (int32_t i = 0; i < classes; ++i) {
    const char *name = niti_dataset_class_name(dataset, i);
    if (!name || strchr(name, '\n')) return NITI_OK;
    length += strlen(name) + 1;
  }
  char *text = calloc(1, length), *end = text;
  if (!text) return niti_fail(NITI_ERROR_MEMORY, "out of memory for class names");
  for (int32_t i = 0; i < classes; ++i) end += sprintf(end, "%s\n", niti_dataset_class_name(dataset, i));
  const NitiStatus status = niti_checkpoint_set(checkpoint, "classes", text);
  free(text);
  return status;
}

static const char *const image_keys[2] = {"train_set_images", "test_set_images"};
static const char *const hash_keys[2] = {"train_set_sha256", "test_set_sha256"};

/* A resumed run needs the data set that it began with, to the byte. Only of an image folder a file may have been mended since (a
 * damaged one ends a run): *changed tells. */
static NitiStatus check_images(bool *changed, const NitiRun *run, const NitiCheckpoint *checkpoint) {
  *changed = false;
  for (int split = 0; split < 2; ++split) {
    const int64_t count = niti_dataset_count(run->dataset, (NitiSplit)split),
                  expected = get_number(checkpoint, image_keys[split]);
    const char *name = split == NITI_TRAIN ? "training" : "test", *hash = niti_checkpoint_get(checkpoint, hash_keys[split]);
    if (count != expected) {
      return niti_fail(NITI_ERROR_FORMAT,
                       "%s: %" PRId64 " %s images, but the run began with %" PRId64 " (expected the same data set)",
                       run->data_path, count, name, expected);
    }
    if (hash && strcmp(hash, run->data_hash[split]) == 0) continue;
    *changed = true;
    if (niti_dataset_images(run->dataset, (NitiSplit)split)) {
      return niti_fail(NITI_ERROR_FORMAT, "%s: the files of its %s images have SHA-256 %s, but the run began with %s",
                       run->data_path, name, run->data_hash[split], hash ? hash : "none");
    }
  }
  return NITI_OK;
}

static NitiStatus fill_checkpoint(const NitiRun *run, NitiCheckpoint *checkpoint) {
  checkpoint->step = (uint64_t)run->step;
  checkpoint->epoch = (uint32_t)run->epoch;
  checkpoint->seed = run->recipe->seed;
  checkpoint->train.loss_sum = run->train.loss;
  checkpoint->train.correct = run->train.correct;
  checkpoint->train.images = run->train.images;
  checkpoint->best.correct = run->best.correct;
  checkpoint->best.images = run->best.images;
  checkpoint->best.epoch = run->best_epoch;
  NITI_TRY(niti_checkpoint_set_texts(checkpoint, run->recipe->model->text, run->recipe->text));
  NITI_TRY(niti_checkpoint_set(checkpoint, "data", run->data_path));
  for (int split = 0; split < 2; ++split) {
    NITI_TRY(set_number(checkpoint, image_keys[split], niti_dataset_count(run->dataset, (NitiSplit)split)));
    NITI_TRY(niti_checkpoint_set(checkpoint, hash_keys[split], run->data_hash[split]));
  }
  NITI_TRY(set_number(checkpoint, "save_every", run->save_every));
  NITI_TRY(set_number(checkpoint, "complete", run->complete));
  NITI_TRY(set_number(checkpoint, "test_loss_sum", run->test.loss));
  NITI_TRY(set_number(checkpoint, "test_correct", run->test.correct));
  NITI_TRY(set_number(checkpoint, "test_images", run->test.images));
  NITI_TRY(set_number(checkpoint, "best_loss_sum", run->best.loss));
  NITI_TRY(set_class_names(checkpoint, run->dataset));
  return niti_snapshot_take(checkpoint, run->net);
}

NitiStatus niti_run_save(NitiRun *run, int keep) {
  NitiCheckpoint *checkpoint = NULL;
  if (!run->saver) NITI_TRY(niti_saver_open(&run->saver, niti_run_folder_path(run->folder)));
  NITI_TRY(niti_checkpoint_open(&checkpoint));
  const NitiStatus status = fill_checkpoint(run, checkpoint);
  if (status == NITI_OK) return niti_saver_begin(run->saver, checkpoint, keep, run->epoch);
  niti_checkpoint_close(checkpoint);
  return status;
}

NitiStatus niti_run_saved(NitiRun *run) { return run->saver ? niti_saver_wait(run->saver) : NITI_OK; }

NitiStatus niti_run_restore(NitiRun *run, const NitiCheckpoint *checkpoint, const char *run_path, const char *data_path) {
  NITI_TRY(niti_recipe_parse(&run->recipe, checkpoint->recipe_text, run_path, NULL, 0, checkpoint->model_text));
  NITI_TRY(niti_run_open(run, data_path ? data_path : niti_checkpoint_get(checkpoint, "data")));
  NITI_TRY(check_images(&run->data_changed, run, checkpoint));
  NITI_TRY(niti_snapshot_restore(run->net, checkpoint, run_path));
  run->step = (int64_t)checkpoint->step;
  run->epoch = (int32_t)checkpoint->epoch;
  run->complete = get_number(checkpoint, "complete") == 1;
  run->save_every = (int32_t)get_number(checkpoint, "save_every");
  run->train = (NitiScore){checkpoint->train.loss_sum, checkpoint->train.correct, checkpoint->train.images};
  run->test = (NitiScore){get_number(checkpoint, "test_loss_sum"), get_number(checkpoint, "test_correct"),
                          get_number(checkpoint, "test_images")};
  run->best = (NitiScore){get_number(checkpoint, "best_loss_sum"), checkpoint->best.correct, checkpoint->best.images};
  run->best_epoch = (int32_t)checkpoint->best.epoch;
  const int64_t begun = (int64_t)run->epoch * run->steps_per_epoch;
  if (run->step < begun || run->step > begun + run->steps_per_epoch || run->step > run->steps) {
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: step %" PRId64 " does not lie in epoch %d of %" PRId64
                     " steps (is this the data set it was trained on?)",
                     run_path, run->step, run->epoch, run->steps_per_epoch);
  }
  return NITI_OK;
}
