/* Opens and closes everything a run needs. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/file.h"
#include "platform/system.h"
#include "train/data_choice.h"
#include "train/run.h"
#include "train/together.h"

/* "KEY=[0.5, -0.25]" of millionths, to be freed by the caller; NULL when memory ran out. */
static char *list_setting(const char *key, const int32_t *values, int32_t count) {
  const size_t room = strlen(key) + 4 + 20 * (size_t)count;
  char *text = malloc(room);
  if (!text) return NULL;
  size_t used = (size_t)snprintf(text, room, "%s=[", key);
  for (int32_t i = 0; i < count; ++i) {
    const int32_t magnitude = values[i] < 0 ? -values[i] : values[i];
    used += (size_t)snprintf(text + used, room - used, "%s%s%" PRId32 ".%06" PRId32, i ? ", " : "", values[i] < 0 ? "-" : "",
                             magnitude / 1000000, magnitude % 1000000);
  }
  (void)snprintf(text + used, room - used, "]");
  return text;
}

/* Replaces the recipe by the same with more settings. */
static NitiStatus change_recipe(NitiRun *run, const char *const *sets, int count) {
  NitiRecipe *changed = NULL;
  NITI_TRY(niti_recipe_parse(&changed, run->recipe->text, run->recipe->source, sets, count, run->recipe->model->text));
  niti_recipe_close(run->recipe);
  run->recipe = changed;
  return NITI_OK;
}

/* The data set's own type and statistics become part of the recipe, so that a checkpoint knows how its inputs were made. */
static NitiStatus resolve_type(NitiRun *run) {
  const NitiDataType type = niti_dataset_type(run->dataset);
  char set[32];
  if (run->recipe->data.type_given || type == NITI_UINT8) return NITI_OK;
  (void)snprintf(set, sizeof set, "data.type=%s", niti_data_type_name(type));
  return change_recipe(run, (const char *const[]){set}, 1);
}

static NitiStatus resolve_statistics(NitiRun *run) {
  if (run->recipe->data.stat_count > 0) return NITI_OK;
  const NitiShape shape = niti_dataset_shape(run->dataset);
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  NITI_TRY(niti_together_statistics(run, mean, std));
  for (int32_t c = 0; c < shape.c; ++c) {
    if (std[c] > 0) continue;
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: channel %" PRId32
                     " is the same in every training image (expected a std above 0; set data.mean and data.std)",
                     run->data_path, c);
  }
  char *sets[2] = {list_setting("data.mean", mean, shape.c), list_setting("data.std", std, shape.c)};
  const NitiStatus status = sets[0] && sets[1] ? change_recipe(run, (const char *const *)sets, 2)
                                               : niti_fail(NITI_ERROR_MEMORY, "out of memory for the recipe");
  free(sets[0]);
  free(sets[1]);
  return status;
}

static bool holds_out(const NitiRecipe *recipe) { return recipe->data.validation_count > 0 || recipe->data.validation_share > 0; }

/* Images that cannot be read: those to skip are found before the first step, since they affect the bits, and those that would
 * end a run are reported before any training. All are decoded, save training images that only have to be sound: those the run
 * looks at, since decoding takes as long as much of an epoch; or leaves to the statistics, which decode them. A dry run has time.
 */
static NitiStatus check_images(NitiRun *run) {
  const NitiDataOptions *data = &run->recipe->data;
  for (int split = 0; split < NITI_SPLITS; ++split) {
    const bool sound = split == NITI_TRAIN && data->bad_files == NITI_BAD_ERROR && !run->options.dry_run;
    const bool later = sound && data->stat_count == 0 && !holds_out(run->recipe);
    const bool there = niti_dataset_count(run->dataset, (NitiSplit)split) > 0;
    if (!there || later || !niti_dataset_is_folder(run->dataset)) continue;
    NITI_TRY(sound ? niti_dataset_glance(run->dataset, (NitiSplit)split) : niti_dataset_check(run->dataset, (NitiSplit)split));
  }
  return NITI_OK;
}

static void tell_notes(const NitiRun *run) {
  NitiProgress progress = {.kind = NITI_PROGRESS_NOTE, .epoch = run->epoch + 1};
  if (!run->options.progress) return;
  for (int i = 0; (progress.text = niti_dataset_note(run->dataset, i)) != NULL; ++i)
    (void)run->options.progress(run->options.context, &progress);
}

static void tell_tuning(const NitiRun *run) {
  const NitiTuningFacts *facts = niti_backend_tuning(run->backend);
  const NitiProgressKind kind = facts && facts->damaged ? NITI_PROGRESS_WARNING : NITI_PROGRESS_NOTE;
  const NitiProgress progress = {.kind = kind, .text = facts ? facts->note : NULL, .epoch = run->epoch + 1};
  if (progress.text && run->options.progress) (void)run->options.progress(run->options.context, &progress);
}

static bool tell_data(void *context, const char *what, int64_t done, int64_t total) {
  const NitiRun *run = context;
  const NitiProgress progress = {
      .kind = NITI_PROGRESS_DATA, .text = what, .epoch = run->epoch + 1, .batch = done, .batches = total};
  return run->options.progress(run->options.context, &progress);
}

static NitiStatus open_data(NitiRun *run) {
  const NitiDescription *model = run->recipe->model;
  const NitiDataRequest request = {.size = model->input,
                                   .need = NITI_SPLIT_BIT(NITI_TRAIN) | (holds_out(run->recipe) ? 0 : NITI_SPLIT_BIT(NITI_TEST)),
                                   .take = NITI_SPLIT_BIT(NITI_TEST) | NITI_SPLIT_BIT(NITI_VALIDATION),
                                   .lazy = run->options.ranks != NULL,
                                   .watch = {run->options.progress ? tell_data : NULL, run}};
  NITI_TRY(niti_dataset_open(&run->dataset, run->data_path, &run->recipe->data, &request));
  const int32_t classes = niti_dataset_classes(run->dataset);
  if (classes != model->classes) {
    return niti_fail(NITI_ERROR_MODEL,
                     "%s: the data set has %d classes but model '%s' has %d (expected equal; set model.classes=%d)",
                     run->data_path, classes, model->name, model->classes, classes);
  }
  if (niti_dataset_count(run->dataset, NITI_TRAIN) < 1)
    return niti_fail(NITI_ERROR_FORMAT, "%s: no training images", run->data_path);
  const NitiShape image = niti_dataset_shape(run->dataset);
  if (image.c != model->input.c) {
    return niti_fail(NITI_ERROR_MODEL,
                     "%s: images of %dx%dx%d do not fit the network's input %dx%dx%d (expected as many channels)", run->data_path,
                     image.h, image.w, image.c, model->input.h, model->input.w, model->input.c);
  }
  NITI_TRY(check_images(run));
  tell_notes(run);
  const NitiDataOptions *data = &run->recipe->data;
  if (holds_out(run->recipe))
    NITI_TRY(niti_dataset_hold_out(run->dataset, data->validation_count, data->validation_share, run->recipe->seed));
  return NITI_OK;
}

static NitiStatus check_channels(const NitiRun *run) {
  const NitiDescription *model = run->recipe->model; /* of the resolved recipe */
  if (run->recipe->data.stat_count != model->input.c) {
    return niti_fail(NITI_ERROR_MODEL, "%s: data.mean has %d values but the model's input %d channels (expected one per channel)",
                     run->recipe->source, run->recipe->data.stat_count, run->recipe->model->input.c);
  }
  return NITI_OK;
}

static int threads_of(const NitiRun *run) {
  return run->options.device.threads > 0 ? run->options.device.threads : niti_ranks_threads(run->options.ranks);
}

static NitiStatus open_loaders(NitiRun *run) {
  NitiLoaderOptions options = {.split = NITI_TRAIN,
                               .input = run->recipe->model->input,
                               .batch = run->recipe->batch,
                               .seed = run->recipe->seed,
                               .augment = true,
                               .workers = threads_of(run),
                               .rank = niti_ranks_rank(run->options.ranks),
                               .ranks = run->options.ranks ? niti_ranks_size(run->options.ranks) : 0};
  NitiStatus status = niti_loader_open(&run->train_loader, run->dataset, &run->recipe->data, &options);
  options.augment = false;
  options.split = NITI_TEST;
  if (status == NITI_OK && run->on_validation && niti_dataset_count(run->dataset, NITI_TEST) > 0)
    status = niti_loader_open(&run->test_loader, run->dataset, &run->recipe->data, &options);
  if (run->on_validation) options.split = NITI_VALIDATION;
  options.limit = run->test_limit;
  if (status == NITI_OK) status = niti_loader_open(&run->scored_loader, run->dataset, &run->recipe->data, &options);
  if (status != NITI_OK) return niti_fail_within(status, "%s", run->data_path);
  run->steps_per_epoch = niti_loader_steps(run->train_loader);
  const int64_t all = run->steps_per_epoch * run->recipe->epochs;
  run->steps = run->recipe->max_steps > 0 && run->recipe->max_steps < all ? run->recipe->max_steps : all;
  if (run->steps > UINT32_MAX) {
    return niti_fail(NITI_ERROR_ARGUMENT,
                     "%s: %" PRId64 " steps exceed the 32-bit step counter of the random numbers (expected at most %" PRIu32 ")",
                     run->recipe->source, run->steps, UINT32_MAX);
  }
  status = niti_recipe_place(run->recipe, run->steps_per_epoch, run->steps);
  if (status == NITI_OK) status = niti_averaging_place(&run->recipe->average, run->steps_per_epoch, run->steps);
  return status == NITI_OK ? NITI_OK : niti_fail_within(status, "%s", run->recipe->source);
}

static NitiStatus open_backend(NitiRun *run) {
  const NitiDevice *device = &run->options.device;
  const NitiBackendOptions backend = {.name = device->backend,
                                      .isa = device->isa,
                                      .threads = threads_of(run),
                                      .local = niti_ranks_local(run->options.ranks),
                                      .tuning = device->tuning};
  NITI_TRY(niti_run_agree(run, niti_backend_open(&run->backend, &backend))); /* joining wants all */
  NITI_TRY(niti_backend_join(run->backend, run->options.ranks));
  return run->backend->ops->host_memory ? NITI_OK : niti_dataset_load(run->dataset); /* a device keeps them all */
}

static NitiStatus open_network(NitiRun *run) {
  const int32_t batch = niti_portion_most(run->recipe->batch, niti_ranks_size(run->options.ranks));
  NitiLowerOptions options = niti_recipe_lowering(run->recipe, batch, true);
  if (run->options.ranks) options.whole = run->recipe->batch;
  NITI_TRY(niti_network_open(&run->net, run->recipe->model, run->backend, &options));
  (void)niti_executable_tuned(run->net->main, run->tuning);
  tell_tuning(run);
  if (run->net->weight_count == 0)
    return niti_fail(NITI_ERROR_MODEL, "%s: no layer has weights to train", run->recipe->model->source);
  const bool pixels = run->recipe->data.type == NITI_UINT8; /* else the loaders make mantissas */
  NITI_TRY(niti_network_set_input(run->net, pixels ? run->recipe->data.mean : NULL, pixels ? run->recipe->data.std : NULL));
  if (niti_averaging_on(&run->recipe->average)) NITI_TRY(niti_average_open(&run->average, run->net));
  if (run->recipe->test_flip) NITI_TRY(niti_mirror_open(&run->mirror, batch, run->recipe->model->classes));
  return niti_feed_open(&run->feed, run->backend, batch);
}

NitiStatus niti_run_close(NitiRun *run) {
  niti_saver_close(run->saver); /* finishes a write in progress, whatever else failed */
  const NitiStatus status = niti_report_close(run->report, run->complete);
  niti_health_close(run->health);
  niti_measure_close(run->measure);
  niti_confusion_close(run->confusion);
  niti_loader_close(run->train_loader);
  niti_loader_close(run->scored_loader);
  niti_loader_close(run->test_loader);
  niti_average_close(run->average);
  niti_mirror_close(run->mirror);
  niti_feed_close(run->feed);
  niti_network_close(run->net);
  niti_backend_close(run->backend);
  niti_dataset_close(run->dataset);
  niti_recipe_close(run->recipe);
  niti_run_folder_close(run->folder);
  free(run->data_path);
  free(run->class_names);
  free(run->class_labels);
  free(run->extensions_owned);
  return status;
}

static NitiStatus set_data_path(NitiRun *run, const char *path) {
  if (!path) NITI_TRY(niti_data_default(&path, run->recipe));
  run->data_path = niti_system.realpath(path, NULL); /* a resumed run may start elsewhere */
  return run->data_path ? NITI_OK : niti_fail_errno(path, "open the data set");
}

static NitiStatus set_inputs(NitiRun *run) {
  unsigned wanted = 0;
  NITI_TRY(niti_data_class_texts(&run->class_names, run->dataset, niti_dataset_class_name));
  NITI_TRY(niti_data_class_texts(&run->class_labels, run->dataset, niti_dataset_class_label));
  const bool same = !run->class_names || !run->class_labels || strcmp(run->class_names, run->class_labels) == 0;
  run->inputs = (NitiRunInputs){.model = run->recipe->model->text,
                                .recipe = run->recipe->text,
                                .data = run->data_path,
                                .classes = run->class_names,
                                .labels = same ? NULL : run->class_labels,
                                .seed = run->recipe->seed};
  for (int split = 0; split < NITI_SPLITS; ++split) {
    run->inputs.images[split] = niti_dataset_count(run->dataset, (NitiSplit)split);
    if (split == NITI_VALIDATION && run->inputs.images[split] == 0) continue;
    niti_dataset_names_hash(run->dataset, (NitiSplit)split, run->inputs.names_sha256[split]);
    if (split != NITI_VALIDATION || !holds_out(run->recipe)) wanted |= NITI_SPLIT_BIT(split);
  }
  NITI_TRY(niti_together_hash(run, wanted));
  if (run->inputs.images[NITI_VALIDATION] > 0 && holds_out(run->recipe)) /* the training files */
    memcpy(run->inputs.sha256[NITI_VALIDATION], run->inputs.sha256[NITI_TRAIN], sizeof run->inputs.sha256[NITI_TRAIN]);
  run->present = run->inputs;
  return NITI_OK;
}

NitiStatus niti_run_open(NitiRun *run, const char *data_path) {
  NITI_TRY(niti_together_check(run));
  NitiStatus status = set_data_path(run, data_path);
  if (status == NITI_OK) status = open_data(run);
  NITI_TRY(niti_run_agree(run, status));
  NITI_TRY(resolve_type(run));
  NITI_TRY(resolve_statistics(run));
  NITI_TRY(niti_run_agree(run, check_channels(run)));
  NITI_TRY(set_inputs(run));
  NITI_TRY(niti_together_check_data(run));
  NITI_TRY(niti_together_share_checks(run));
  if (!run->resumed) run->on_validation = run->inputs.images[NITI_VALIDATION] > 0;
  status = open_backend(run);
  if (status == NITI_OK) status = open_loaders(run);
  if (status == NITI_OK) status = open_network(run);
  NITI_TRY(niti_run_agree(run, status));
  return niti_backend_reserve_sums(run->backend, run->net->program);
}

/* In this order: the largest is what all do. */
enum { GO_ON, GO_ON_ALSO, STOP, FAIL };

NitiStatus niti_run_vote(const NitiRun *run, NitiStatus status, bool *go_on, bool *also) {
  uint32_t vote = status != NITI_OK ? FAIL : !*go_on ? STOP : also && *also ? GO_ON_ALSO : GO_ON;
  if (!run->options.ranks) return status;
  niti_ranks_reduce(run->options.ranks, &vote, 1, NITI_REDUCE_MAX_U32);
  *go_on = vote < STOP;
  if (also) *also = vote == GO_ON_ALSO;
  return vote == FAIL ? niti_run_agree(run, status) : niti_ranks_check(run->options.ranks);
}
