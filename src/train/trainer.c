/* A whole run: epochs of steps, a test after each, and a folder from which it can go on after any interruption. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/backend.h"
#include "io/file.h"
#include "train/recipe.h"
#include "train/report.h"
#include "train/run_folder.h"
#include "train/snapshot.h"
#include "train/step.h"

static const int64_t save_nanoseconds = INT64_C(60000000000);  /* within an epoch a checkpoint is this old at most */
static const int64_t refresh_nanoseconds = INT64_C(500000000); /* the training score told to the callback */

typedef struct Trainer {
  NitiTrainOptions options;
  NitiRecipe *recipe; /* its own, resolved for the data set */
  char *data_path;
  NitiDataset *dataset;
  NitiBackend *backend;
  NitiNetwork *net;
  NitiFeed *feed;
  NitiLoader *train_loader, *test_loader;
  NitiMetrics *metrics; /* backend memory */
  NitiRunFolder *folder;
  NitiReport *report;
  int64_t steps_per_epoch, steps;
  int64_t step;         /* done */
  int64_t first_step;   /* where this process began */
  int32_t epoch;        /* completed */
  int32_t save_every;
  bool complete;        /* every step is done, tested and recorded */
  NitiScore train, test, best;
  int32_t best_epoch;
  int64_t images, nanoseconds;             /* trained by this process */
  int64_t epoch_images, epoch_nanoseconds; /* of them, in the epoch under way */
  int64_t saved_at, refreshed_at;
} Trainer;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool tell(const Trainer *t, NitiProgress *progress) {
  if (!t->options.progress) return true;
  const int64_t into = t->step - t->epoch * t->steps_per_epoch;
  if (progress->kind != NITI_PROGRESS_TEST) {
    progress->batch = into;
    progress->batches = t->steps_per_epoch;
  }
  progress->epochs = t->recipe ? t->recipe->epochs : 0;
  progress->step = t->step;
  progress->steps = t->steps;
  progress->train = t->train;
  progress->images = t->images;
  progress->steps_here = t->step - t->first_step;
  progress->nanoseconds = t->nanoseconds;
  return t->options.progress(t->options.context, progress);
}

__attribute__((format(printf, 2, 3))) static void note(const Trainer *t, const char *format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(text, sizeof text, format, args);
  va_end(args);
  NitiProgress progress = {.kind = NITI_PROGRESS_NOTE, .text = text, .epoch = t->epoch + 1};
  (void)tell(t, &progress);
}

/* ---- setting up ---- */

/* The data set's own statistics become part of the recipe, so that a checkpoint knows how its inputs were made. */
static NitiStatus resolve_statistics(Trainer *t) {
  if (t->recipe->data.stat_count > 0) return NITI_OK;
  const NitiShape shape = niti_dataset_shape(t->dataset);
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  NITI_TRY(niti_dataset_statistics(t->dataset, mean, std));
  char sets[2][128];
  const char *const names[2] = {"data.mean=[", "data.std=["};
  const int32_t *const values[2] = {mean, std};
  for (int k = 0; k < 2; ++k) {
    size_t used = (size_t)snprintf(sets[k], sizeof sets[k], "%s", names[k]);
    for (int32_t c = 0; c < shape.c; ++c) {
      used += (size_t)snprintf(sets[k] + used, sizeof sets[k] - used, "%s%" PRId32 ".%06" PRId32, c ? ", " : "", values[k][c] / 1000000,
                               values[k][c] % 1000000);
    }
    (void)snprintf(sets[k] + used, sizeof sets[k] - used, "]");
  }
  const char *const list[2] = {sets[0], sets[1]};
  NitiRecipe *resolved = NULL;
  NITI_TRY(niti_recipe_parse(&resolved, t->recipe->text, t->recipe->source, list, 2, t->recipe->model->text));
  niti_recipe_close(t->recipe);
  t->recipe = resolved;
  return NITI_OK;
}

static NitiStatus open_data(Trainer *t) {
  const NitiDescription *model = t->recipe->model;
  NITI_TRY(niti_dataset_open(&t->dataset, t->data_path, &t->recipe->data, &model->input));
  const int32_t classes = niti_dataset_classes(t->dataset);
  if (classes != model->classes) {
    return niti_fail(NITI_ERROR_MODEL, "%s: the data set has %d classes but model '%s' has %d (expected equal; set model.classes=%d)",
                     t->data_path, classes, model->name, model->classes, classes);
  }
  if (niti_dataset_count(t->dataset, NITI_TRAIN) < 1) return niti_fail(NITI_ERROR_FORMAT, "%s: no training images", t->data_path);
  const NitiShape image = niti_dataset_shape(t->dataset);
  if (image.c != model->input.c) {
    return niti_fail(NITI_ERROR_MODEL, "%s: images of %dx%dx%d do not fit the network's input %dx%dx%d (expected as many channels)",
                     t->data_path, image.h, image.w, image.c, model->input.h, model->input.w, model->input.c);
  }
  NITI_TRY(resolve_statistics(t));
  model = t->recipe->model; /* of the resolved recipe */
  if (t->recipe->data.stat_count != model->input.c) {
    return niti_fail(NITI_ERROR_MODEL, "%s: data.mean has %d values but the model's input %d channels (expected one a channel)",
                     t->recipe->source, t->recipe->data.stat_count, t->recipe->model->input.c);
  }
  return NITI_OK;
}

static NitiStatus open_loaders(Trainer *t) {
  NitiLoaderOptions options = {.split = NITI_TRAIN, .input = t->recipe->model->input, .batch = t->recipe->batch,
                               .seed = t->recipe->seed, .augment = true, .workers = t->options.device.threads};
  NitiStatus status = niti_loader_open(&t->train_loader, t->dataset, &t->recipe->data, &options);
  options.split = NITI_TEST;
  options.augment = false;
  if (status == NITI_OK) status = niti_loader_open(&t->test_loader, t->dataset, &t->recipe->data, &options);
  if (status != NITI_OK) return niti_fail_within(status, "%s", t->data_path);
  t->steps_per_epoch = niti_loader_steps(t->train_loader);
  const int64_t all = t->steps_per_epoch * t->recipe->epochs;
  t->steps = t->recipe->max_steps > 0 && t->recipe->max_steps < all ? t->recipe->max_steps : all;
  if (t->steps > UINT32_MAX) {
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: %" PRId64 " steps are more than random numbers can tell apart (expected at most %" PRIu32 ")",
                     t->recipe->source, t->steps, UINT32_MAX);
  }
  return NITI_OK;
}

static NitiStatus open_network(Trainer *t) {
  const NitiDevice *device = &t->options.device;
  const NitiBackendOptions backend = {.name = device->backend, .isa = device->isa, .threads = device->threads};
  NITI_TRY(niti_backend_open(&t->backend, &backend));
  const NitiNetworkOptions options = {.batch = t->recipe->batch, .training = true, .round_activation = t->recipe->round_activation,
                                      .round_error = t->recipe->round_error};
  NITI_TRY(niti_network_open(&t->net, t->recipe->model, t->backend, &options));
  if (niti_network_weight_count(t->net) == 0) return niti_fail(NITI_ERROR_MODEL, "%s: no layer has weights to train", t->recipe->model->source);
  NITI_TRY(niti_feed_open(&t->feed, t->backend, t->recipe->model->input, t->recipe->batch, t->recipe->data.mean, t->recipe->data.std));
  void *metrics = NULL;
  NITI_TRY(t->backend->ops->alloc(t->backend, &metrics, sizeof *t->metrics));
  t->metrics = metrics;
  return NITI_OK;
}

static NitiStatus close_all(Trainer *t) {
  const NitiStatus status = niti_report_close(t->report);
  if (t->metrics) t->backend->ops->release(t->backend, t->metrics);
  niti_loader_close(t->train_loader);
  niti_loader_close(t->test_loader);
  niti_feed_close(t->feed);
  niti_network_close(t->net);
  niti_backend_close(t->backend);
  niti_dataset_close(t->dataset);
  niti_recipe_close(t->recipe);
  niti_run_folder_close(t->folder);
  free(t->data_path);
  return status;
}

static NitiStatus set_data_path(Trainer *t, const char *path) {
  if (!path) path = niti_dataset_default();
  if (!path) {
    return niti_fail(NITI_ERROR_ARGUMENT, "no data set: none was given and the default, Debian's package dataset-fashion-mnist, is not installed");
  }
  t->data_path = realpath(path, NULL); /* a resumed run may start elsewhere */
  return t->data_path ? NITI_OK : niti_fail(NITI_ERROR_FILE, "%s: cannot open the data set: %s", path, strerror(errno));
}

/* ---- checkpoints ---- */

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

/* A resumed run needs the data set that it began with; this notices one that has grown, shrunk or been mistaken. */
static NitiStatus check_images(const Trainer *t, const NitiCheckpoint *checkpoint) {
  for (int split = 0; split < 2; ++split) {
    const int64_t count = niti_dataset_count(t->dataset, (NitiSplit)split), expected = get_number(checkpoint, image_keys[split]);
    if (count == expected) continue;
    return niti_fail(NITI_ERROR_FORMAT, "%s: %" PRId64 " %s images, but the run began with %" PRId64 " (expected the same data set)",
                     t->data_path, count, split == NITI_TRAIN ? "training" : "test", expected);
  }
  return NITI_OK;
}

static NitiStatus fill_checkpoint(const Trainer *t, NitiCheckpoint *checkpoint) {
  checkpoint->step = (uint64_t)t->step;
  checkpoint->epoch = (uint32_t)t->epoch;
  checkpoint->seed = t->recipe->seed;
  checkpoint->train.loss_sum = t->train.loss;
  checkpoint->train.correct = t->train.correct;
  checkpoint->train.images = t->train.images;
  checkpoint->best.correct = t->best.correct;
  checkpoint->best.images = t->best.images;
  checkpoint->best.epoch = t->best_epoch;
  NITI_TRY(niti_checkpoint_set_texts(checkpoint, t->recipe->model->text, t->recipe->text));
  NITI_TRY(niti_checkpoint_set(checkpoint, "data", t->data_path));
  for (int split = 0; split < 2; ++split) {
    NITI_TRY(set_number(checkpoint, image_keys[split], niti_dataset_count(t->dataset, (NitiSplit)split)));
  }
  NITI_TRY(set_number(checkpoint, "save_every", t->save_every));
  NITI_TRY(set_number(checkpoint, "complete", t->complete));
  NITI_TRY(set_number(checkpoint, "test_loss_sum", t->test.loss));
  NITI_TRY(set_number(checkpoint, "test_correct", t->test.correct));
  NITI_TRY(set_number(checkpoint, "test_images", t->test.images));
  NITI_TRY(set_number(checkpoint, "best_loss_sum", t->best.loss));
  NITI_TRY(set_class_names(checkpoint, t->dataset));
  return niti_snapshot_take(checkpoint, t->net);
}

typedef enum Keep { KEEP_LAST = 0, KEEP_BEST = 1, KEEP_EPOCH = 2 } Keep;

static NitiStatus save(Trainer *t, int keep) {
  NitiCheckpoint *checkpoint = NULL;
  NITI_TRY(niti_checkpoint_open(&checkpoint));
  const char *folder = niti_run_folder_path(t->folder);
  NitiStatus status = fill_checkpoint(t, checkpoint);
  char name[64];
  for (int which = KEEP_BEST; which <= KEEP_EPOCH && status == NITI_OK; which *= 2) {
    if (!(keep & which)) continue;
    char *path = NULL;
    if (which == KEEP_BEST) (void)snprintf(name, sizeof name, "best.safetensors");
    if (which == KEEP_EPOCH) (void)snprintf(name, sizeof name, "epoch-%04" PRId32 ".safetensors", t->epoch);
    status = niti_io_join(&path, folder, name);
    if (status == NITI_OK) status = niti_checkpoint_save(checkpoint, path);
    free(path);
  }
  if (status == NITI_OK) status = niti_checkpoint_save_last(checkpoint, folder);
  niti_checkpoint_close(checkpoint);
  t->saved_at = now();
  return status;
}

/* ---- running ---- */

static NitiStepContext step_context(const Trainer *t) { return (NitiStepContext){t->recipe, t->net, t->feed, t->metrics}; }

static NitiScore read_metrics(const Trainer *t) {
  NitiMetrics m;
  t->backend->ops->download(t->backend, &m, t->metrics, sizeof m);
  return (NitiScore){m.loss, m.correct, m.images};
}

static void write_metrics(const Trainer *t, NitiScore score) {
  const NitiMetrics m = {score.loss, score.correct, score.images};
  t->backend->ops->upload(t->backend, t->metrics, &m, sizeof m);
}

static NitiStatus test(Trainer *t, bool *go_on) {
  const NitiStepContext context = step_context(t);
  const int64_t batches = niti_loader_steps(t->test_loader);
  write_metrics(t, (NitiScore){0});
  NITI_TRY(niti_loader_start(t->test_loader, 0, 0));
  for (int64_t done = 0;;) {
    NitiBatch batch;
    NITI_TRY(niti_loader_next(t->test_loader, &batch));
    if (batch.count == 0) break;
    NITI_TRY(niti_step_test(&context, &batch));
    NitiProgress progress = {.kind = NITI_PROGRESS_TEST, .epoch = t->epoch + 1, .batch = ++done, .batches = batches};
    if (!tell(t, &progress)) {
      *go_on = false;
      return NITI_OK;
    }
  }
  t->test = read_metrics(t);
  return NITI_OK;
}

/* Trains the rest of the epoch. *go_on false: asked to stop. */
static NitiStatus train_epoch(Trainer *t, bool *go_on) {
  const NitiStepContext context = step_context(t);
  const int64_t first = t->step - t->epoch * t->steps_per_epoch;
  if (first == t->steps_per_epoch) return NITI_OK; /* interrupted between the last step and the test's end */
  write_metrics(t, t->train);
  NITI_TRY(niti_loader_start(t->train_loader, (uint32_t)t->epoch, first));
  while (*go_on && t->step < t->steps && t->step < (t->epoch + 1) * t->steps_per_epoch) {
    const int64_t begin = now();
    NitiBatch batch;
    NITI_TRY(niti_loader_next(t->train_loader, &batch));
    NITI_TRY(niti_step_train(&context, &batch, (uint32_t)t->step, t->epoch));
    const int64_t end = now();
    ++t->step;
    t->images += batch.count;
    t->epoch_images += batch.count;
    t->nanoseconds += end - begin;
    t->epoch_nanoseconds += end - begin;
    if (end - t->refreshed_at > refresh_nanoseconds) {
      t->train = read_metrics(t);
      t->refreshed_at = end;
    }
    NitiProgress progress = {.kind = NITI_PROGRESS_BATCH, .epoch = t->epoch + 1};
    *go_on = tell(t, &progress);
    if (*go_on && end - t->saved_at > save_nanoseconds) {
      t->train = read_metrics(t);
      NITI_TRY(save(t, KEEP_LAST));
    }
  }
  t->train = read_metrics(t);
  return NITI_OK;
}

static bool better(NitiScore a, NitiScore b) { return b.images == 0 || a.correct > b.correct; }

/* Tests, records and saves what train_epoch finished. */
static NitiStatus finish_epoch(Trainer *t, bool *go_on) {
  NITI_TRY(test(t, go_on));
  if (!*go_on) return NITI_OK; /* the step is saved by the caller; the test is done again after resuming */
  const int32_t epoch = t->epoch + 1; /* a run that ends within an epoch reports it too */
  int keep = KEEP_LAST;
  if (t->test.images > 0 && better(t->test, t->best)) {
    t->best = t->test;
    t->best_epoch = epoch;
    keep |= KEEP_BEST;
  }
  const NitiReportRow row = {.epoch = epoch, .step = t->step, .mu = niti_recipe_mu(t->recipe, t->epoch), .train = t->train,
                             .test = t->test, .best = t->best, .images = t->epoch_images, .nanoseconds = t->epoch_nanoseconds};
  NITI_TRY(niti_report_epoch(t->report, &row, t->net));
  const NitiScore train = t->train;
  if (t->step == (int64_t)epoch * t->steps_per_epoch) {
    t->epoch = epoch;
    if (t->save_every > 0 && epoch % t->save_every == 0) keep |= KEEP_EPOCH;
    if (t->step < t->steps) t->train = (NitiScore){0};
  }
  t->complete = t->step == t->steps;
  t->epoch_images = t->epoch_nanoseconds = 0;
  NITI_TRY(save(t, keep));
  NitiProgress progress = {.kind = NITI_PROGRESS_EPOCH, .epoch = epoch, .test = t->test, .best = t->best};
  const NitiScore next = t->train;
  t->train = train; /* what the epoch's callback is told */
  *go_on = tell(t, &progress);
  t->train = next;
  return NITI_OK;
}

static NitiStatus run(Trainer *t) {
  t->saved_at = t->refreshed_at = now();
  t->first_step = t->step;
  while (!t->complete) {
    bool go_on = true;
    NITI_TRY(train_epoch(t, &go_on));
    if (go_on) NITI_TRY(finish_epoch(t, &go_on));
    if (!go_on && !t->complete) {
      NITI_TRY(save(t, KEEP_LAST));
      return niti_fail(NITI_INTERRUPTED, "interrupted after step %" PRId64 " of %" PRId64 "; the state is saved", t->step, t->steps);
    }
  }
  return NITI_OK;
}

static NitiStatus fill_result(const Trainer *t, NitiTrainResult *out) {
  *out = (NitiTrainResult){.epochs = t->epoch, .steps = t->step, .train = t->train, .test = t->test, .best = t->best,
                           .best_epoch = t->best_epoch, .images = t->images, .nanoseconds = t->nanoseconds};
  return niti_snapshot_hash(t->net, out->hash);
}

static NitiStatus finish(Trainer *t, NitiTrainResult *out, NitiStatus status) {
  if ((status == NITI_OK || status == NITI_INTERRUPTED) && t->net) {
    const NitiStatus filled = fill_result(t, out);
    if (filled != NITI_OK) status = filled;
  }
  const NitiStatus closed = close_all(t);
  return status != NITI_OK ? status : closed;
}

/* ---- a new run ---- */

static NitiStatus start_weights(Trainer *t) {
  NITI_TRY(niti_network_init(t->net, t->recipe->seed));
  if (!t->options.init) return NITI_OK;
  NitiCheckpoint *checkpoint = NULL;
  NITI_TRY(niti_checkpoint_load(&checkpoint, t->options.init));
  const int32_t count = niti_network_weight_count(t->net);
  int32_t taken = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (niti_snapshot_restore_one(t->net, i, checkpoint)) {
      ++taken;
    } else {
      note(t, "initialised afresh: %s (no tensor of its name and shape in %s)", niti_network_weight(t->net, i).layer, t->options.init);
    }
  }
  niti_checkpoint_close(checkpoint);
  if (taken == 0) {
    return niti_fail(NITI_ERROR_FORMAT, "%s: no tensor matches a layer of model '%s' by name and shape", t->options.init, t->recipe->model->name);
  }
  note(t, "weights of %d of %d layers taken from %s", taken, count, t->options.init);
  return NITI_OK;
}

static NitiStatus start(Trainer *t, const NitiRecipe *recipe, const char *run_path) {
  NITI_TRY(niti_recipe_parse(&t->recipe, recipe->text, recipe->source, NULL, 0, recipe->model->text));
  NITI_TRY(set_data_path(t, t->options.data));
  NITI_TRY(open_data(t));
  NITI_TRY(open_loaders(t));
  NITI_TRY(open_network(t));
  NITI_TRY(start_weights(t));
  NITI_TRY(niti_run_folder_create(&t->folder, run_path)); /* only now: a mistake above leaves no folder behind */
  NitiStatus status = niti_run_folder_describe(t->folder, t->recipe, t->backend, t->dataset, t->data_path);
  if (status == NITI_OK) status = save(t, KEEP_LAST);
  if (status == NITI_OK) return niti_report_open(&t->report, run_path, -1, -1);
  niti_run_folder_clear(t->folder); /* nothing that could go on */
  return status;
}

static NitiStatus check_options(const NitiTrainOptions *options) {
  if (options->save_every < 0) return niti_fail(NITI_ERROR_ARGUMENT, "save_every: %d is negative", options->save_every);
  return NITI_OK;
}

NitiStatus niti_train(NitiTrainResult *out, const NitiRecipe *recipe, const char *run_path, const NitiTrainOptions *options) {
  *out = (NitiTrainResult){0};
  const NitiTrainOptions none = {0};
  Trainer t = {.options = options ? *options : none};
  NitiStatus status = check_options(&t.options);
  t.save_every = t.options.save_every;
  if (status == NITI_OK) status = start(&t, recipe, run_path);
  if (status == NITI_OK) status = run(&t);
  return finish(&t, out, status);
}

/* ---- an old run ---- */

static NitiStatus restore(Trainer *t, const NitiCheckpoint *checkpoint, const char *run_path) {
  NITI_TRY(niti_recipe_parse(&t->recipe, checkpoint->recipe_text, run_path, NULL, 0, checkpoint->model_text));
  NITI_TRY(set_data_path(t, t->options.data ? t->options.data : niti_checkpoint_get(checkpoint, "data")));
  NITI_TRY(open_data(t));
  NITI_TRY(check_images(t, checkpoint));
  NITI_TRY(open_loaders(t));
  NITI_TRY(open_network(t));
  NITI_TRY(niti_snapshot_restore(t->net, checkpoint, run_path));
  t->step = (int64_t)checkpoint->step;
  t->epoch = (int32_t)checkpoint->epoch;
  t->complete = get_number(checkpoint, "complete") == 1;
  t->save_every = (int32_t)get_number(checkpoint, "save_every");
  t->train = (NitiScore){checkpoint->train.loss_sum, checkpoint->train.correct, checkpoint->train.images};
  t->test = (NitiScore){get_number(checkpoint, "test_loss_sum"), get_number(checkpoint, "test_correct"), get_number(checkpoint, "test_images")};
  t->best = (NitiScore){get_number(checkpoint, "best_loss_sum"), checkpoint->best.correct, checkpoint->best.images};
  t->best_epoch = (int32_t)checkpoint->best.epoch;
  const int64_t begun = (int64_t)t->epoch * t->steps_per_epoch;
  if (t->step < begun || t->step > begun + t->steps_per_epoch || t->step > t->steps) {
    return niti_fail(NITI_ERROR_FORMAT, "%s: step %" PRId64 " does not lie in epoch %d of %" PRId64 " steps (is this the data set it was trained on?)",
                     run_path, t->step, t->epoch, t->steps_per_epoch);
  }
  return NITI_OK;
}

NitiStatus niti_resume(NitiTrainResult *out, const char *run_path, const NitiTrainOptions *options) {
  *out = (NitiTrainResult){0};
  const NitiTrainOptions none = {0};
  Trainer t = {.options = options ? *options : none};
  NitiCheckpoint *checkpoint = NULL;
  bool previous = false;
  NitiStatus status = niti_run_folder_open(&t.folder, run_path);
  if (status == NITI_OK) status = niti_checkpoint_load_last(&checkpoint, &previous, run_path);
  if (status == NITI_OK && previous) note(&t, "%s; going on from the checkpoint before it", niti_error());
  if (status == NITI_OK) status = restore(&t, checkpoint, run_path);
  niti_checkpoint_close(checkpoint);
  if (status == NITI_OK && t.complete) note(&t, "the run is complete: nothing to do");
  if (status == NITI_OK && !t.complete) {
    note(&t, "resumed at step %" PRId64 " of %" PRId64, t.step, t.steps);
    status = niti_report_open(&t.report, run_path, t.epoch, t.step);
    if (status == NITI_OK) status = run(&t);
  }
  return finish(&t, out, status);
}
