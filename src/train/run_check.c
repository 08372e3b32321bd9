/* Refuses a saved state that no run can have: it could change no weight, but what a run reports. */
#include "train/run_check.h"

#include <inttypes.h>
#include <string.h>

#include "platform/sha256.h"
#include "train/data_choice.h"
#include "train/scoring.h"

/* The hash of a split without images is that of no files, or missing. */
NitiStatus niti_run_check_inputs(const NitiRun *run, const char *source) {
  static const char *const keys[NITI_SPLITS] = {"train_set_images", "test_set_images", "validation_set_images"};
  char nothing[65];
  niti_sha256_of(nothing, "", 0);
  for (int split = 0; split < NITI_SPLITS; ++split) {
    const bool wanted = split == NITI_TRAIN || split == (int)niti_run_scored_split(run);
    const char *hash = run->inputs.sha256[split];
    if (run->inputs.images[split] > 0 || (!wanted && (!hash[0] || strcmp(hash, nothing) == 0))) continue;
    return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: '%s' is 0 (expected at least 1: %s)", source, keys[split],
                     wanted ? "the run trains on or scores this split" : "the SHA-256 is that of files");
  }
  return NITI_OK;
}

NitiStatus niti_run_check_recipe(const NitiRun *run, const char *source) {
  if (run->inputs.seed != run->recipe->seed)
    return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: 'seed' is %" PRIu64 " (expected the recipe's %" PRIu64 ")", source,
                     run->inputs.seed, run->recipe->seed);
  if (run->epoch > run->recipe->epochs)
    return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: 'epoch' is %" PRId32 " (expected at most the recipe's %" PRId32 ")",
                     source, run->epoch, run->recipe->epochs);
  const int32_t classes = run->recipe->model->classes;
  NITI_TRY(niti_data_check_texts(run->inputs.classes, classes, "classes", source));
  return niti_data_check_texts(run->inputs.labels, classes, "class_labels", source);
}

/* ---- scores ---- */

/* Of how many images a score is, unless it is of none; and why. */
typedef struct Scored {
  int64_t images;
  bool at_most; /* so many, or fewer */
  const char *why;
} Scored;

/* Of a split, `limit` of whose images are scored (0: all). An image folder may have lost test images since. */
static Scored scored_of(const NitiRun *run, const NitiRunInputs *began, NitiSplit split, int32_t limit) {
  static const char *const whole[NITI_SPLITS] = {
      [NITI_TEST] = "the number of test images", [NITI_VALIDATION] = "the number of validation images"};
  const bool known = split != NITI_TEST || !niti_dataset_is_folder(run->dataset);
  Scored scored = {known ? began->images[split] : INT32_MAX, !known, known ? whole[split] : "the most that a score counts"};
  if (limit > 0 && limit < scored.images) scored = (Scored){limit, !known, "'test_limit'"};
  return scored;
}

static bool fits(int64_t images, Scored scored) {
  return images == 0 || images == scored.images || (scored.at_most && images < scored.images);
}

/* A file from before validation does not say what its best epoch was chosen on. */
static Scored scored_of_either(const NitiRun *run, Scored test) {
  const Scored validation = {run->inputs.images[NITI_VALIDATION], false, "the number of validation images"};
  return !fits(run->best.images, test) && fits(run->best.images, validation) ? validation : test;
}

NitiStatus niti_run_check_counts(const NitiRun *run, const NitiRunInputs *began, bool chosen, const char *source) {
  const NitiSplit split = niti_run_scored_split(run);
  const Scored scored = scored_of(run, began, split, run->test_limit), test = scored_of(run, began, NITI_TEST, 0);
  const Scored unchosen = {0, true, "since validation does not choose the run's best epoch"};
  const Scored unaveraged = {0, true, "since the recipe has no average"};
  const Scored final = run->on_validation ? test : scored;
  const struct {
    const char *key;
    int64_t images;
    Scored expected;
  } all[] = {
      {"test_images", run->test.images, final},
      {"best_images", run->best.images, chosen ? scored : scored_of_either(run, scored)},
      {"validation_images", run->validation.images, run->on_validation ? scored : unchosen},
      {"best_test_images", run->best_test.images, run->on_validation ? test : unchosen},
      {"average_samples", run->average_samples, run->average ? (Scored){INT64_MAX, true, ""} : unaveraged},
      {"averaged_images", run->averaged.images, run->average ? final : unaveraged},
      {"averaged_validation_images", run->averaged_validation.images,
       !run->average        ? unaveraged
       : run->on_validation ? scored
                            : unchosen},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    const Scored expected = all[i].expected;
    if (fits(all[i].images, expected)) continue;
    return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: '%s' is %" PRId64 " (expected %s %" PRId64 ", %s)", source, all[i].key,
                     all[i].images, expected.at_most ? "at most" : "0 or", expected.images, expected.why);
  }
  return NITI_OK;
}

/* ---- progress ---- */

/* In the epoch under way, or where the run is complete, in its last one; an epoch's last batch may be smaller. */
static int64_t trained_images(const NitiRun *run) {
  const int64_t into = run->step - run->steps_per_epoch * run->epoch, all = run->inputs.images[NITI_TRAIN];
  const int64_t steps = into == 0 && run->complete ? run->steps_per_epoch : into;
  return steps == run->steps_per_epoch ? all : steps * run->recipe->batch;
}

NitiStatus niti_run_check_progress(const NitiRun *run, int64_t steps, const char *source) {
  const bool complete = run->complete;
  const int64_t per_epoch = run->steps_per_epoch, begun = per_epoch * run->epoch;
  const int64_t reported = run->epoch + (complete && run->step > begun); /* the last epoch may be unfinished */
  if (run->step < begun || run->step > begun + per_epoch || run->step > steps)
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: step %" PRId64 " is not in epoch %d of %" PRId64 " steps (is this the data set it was trained on?)",
                     source, run->step, run->epoch, per_epoch);
  if (complete && run->step < steps)
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: __metadata__: 'complete' is 1 after step %" PRId64 " (expected 0 before step %" PRId64 ")", source,
                     run->step, steps);
  if (complete && run->epoch != run->step / per_epoch)
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: __metadata__: 'epoch' is %d (expected %" PRId64 " in a run that ended after step %" PRId64 ")", source,
                     run->epoch, run->step / per_epoch, run->step);
  if (run->best_epoch > reported || (run->best_epoch > 0) != (run->best.images > 0))
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: __metadata__: 'best_epoch' is %d, with 'best_images' %" PRId64 " (expected an epoch from 1 to %" PRId64
                     " and its images, or 0 of both)",
                     source, run->best_epoch, run->best.images, reported);
  const int64_t trained = trained_images(run);
  if (run->train.images == trained) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT,
                   "%s: __metadata__: 'train_images' is %" PRId64 " (expected %" PRId64 ", those of %s up to step %" PRId64 ")",
                   source, run->train.images, trained, complete ? "the last epoch" : "the epoch under way", run->step);
}
