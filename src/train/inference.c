/* Inference: opens a network by name, predicts single images and scores a data set's test split. */
#include "train/inference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loss.h"
#include "train/data_choice.h"
#include "train/options.h"
#include "train/snapshot.h"
#include "train/step.h"

/* One text per class. */
typedef struct ClassTexts {
  char **text, *memory;
} ClassTexts;

struct NitiModel {
  NitiCheckpoint *checkpoint;
  NitiRecipe *recipe;
  NitiBackend *backend;
  NitiNetwork *one; /* for batches of one image */
  NitiFeed *feed;
  NitiMirror *mirror;            /* for batches of one image; made when first needed */
  NitiTestSet set;               /* scored last */
  NitiConfusion *confusion;      /* of it; NULL: nothing was scored, or there are too many classes */
  NitiProgressCallback progress; /* NULL: none */
  void *context;
  char *path;
  ClassTexts labels; /* the display name of each class */
  char tuning[NITI_TUNED_MAX];
};

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for a model"); }

/* Splits one of the checkpoint's lists of one text per class, one per line; leaves `out` alone if there is none. */
static NitiStatus split_texts(ClassTexts *out, const NitiModel *m, const char *key) {
  const int32_t classes = m->recipe->model->classes;
  const char *text = niti_checkpoint_get(m->checkpoint, key);
  NITI_TRY(niti_data_check_texts(text, classes, key, m->path));
  if (!text || out->text) return NITI_OK;
  out->memory = strdup(text);
  out->text = calloc((size_t)classes, sizeof *out->text);
  if (!out->memory || !out->text) return out_of_memory();
  char *at = out->memory;
  for (int32_t i = 0; i < classes; ++i) {
    char *end = at + strcspn(at, "\n");
    *end = 0;
    out->text[i] = at;
    at = end + 1;
  }
  return NITI_OK;
}

static NitiStatus number_classes(ClassTexts *out, int32_t classes) {
  out->memory = malloc((size_t)classes * 12);
  out->text = calloc((size_t)classes, sizeof *out->text);
  if (!out->memory || !out->text) return out_of_memory();
  char *at = out->memory;
  for (int32_t i = 0; i < classes; ++i) {
    out->text[i] = at;
    at += sprintf(at, "%d", i) + 1;
  }
  return NITI_OK;
}

/* Labels, if the data set had them in addition to names; else the names, or numbers. */
static NitiStatus read_labels(NitiModel *m) {
  NITI_TRY(split_texts(&m->labels, m, "class_labels"));
  NITI_TRY(split_texts(&m->labels, m, "classes"));
  return m->labels.text ? NITI_OK : number_classes(&m->labels, m->recipe->model->classes);
}

static NitiStatus open_network(NitiNetwork **out, NitiModel *m, int32_t batch) {
  const NitiLowerOptions options = niti_recipe_lowering(m->recipe, batch, false);
  NITI_TRY(niti_network_open(out, m->recipe->model, m->backend, &options));
  const NitiStatus status = niti_snapshot_restore(*out, m->checkpoint, m->path);
  if (status != NITI_OK) {
    niti_network_close(*out);
    *out = NULL;
  }
  return status;
}

/* Prepares the conversion of pixels to the network's input, as the recipe defines it. */
static NitiStatus open_input(NitiFeed **out, NitiNetwork *net, const NitiModel *m, int32_t batch) {
  const NitiDataOptions *data = &m->recipe->data;
  if (data->stat_count == 0) {
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: data.mean and data.std are 'auto', which only training resolves (expected numbers, or a checkpoint)",
                     m->path);
  }
  if (data->stat_count != m->recipe->model->input.c) {
    return niti_fail(NITI_ERROR_FORMAT, "%s: the recipe's data.mean has %d values (expected %d, one per channel)", m->path,
                     data->stat_count, m->recipe->model->input.c);
  }
  const bool pixels = data->type == NITI_UINT8; /* else the loader makes mantissas */
  NITI_TRY(niti_network_set_input(net, pixels ? data->mean : NULL, pixels ? data->std : NULL));
  return niti_feed_open(out, m->backend, batch);
}

static NitiStatus open_parts(NitiModel *m, const NitiLocation *location, const NitiDevice *device) {
  NITI_TRY(niti_location_weights(&m->checkpoint, location));
  NITI_TRY(niti_checkpoint_recipe(&m->recipe, m->checkpoint, m->path));
  NITI_TRY(read_labels(m));
  const NitiBackendOptions options = {
      .name = device->backend, .isa = device->isa, .threads = device->threads, .tuning = device->tuning};
  NITI_TRY(niti_backend_open(&m->backend, &options));
  return open_network(&m->one, m, 1);
}

NitiStatus niti_model_open_at(NitiModel **out, const NitiLocation *location, const NitiDevice *device) {
  const NitiDevice best = {0};
  *out = NULL;
  NitiModel *m = calloc(1, sizeof *m);
  if (!m) return out_of_memory();
  m->path = strdup(location->path);
  const NitiStatus status = m->path ? open_parts(m, location, device ? device : &best) : out_of_memory();
  if (status != NITI_OK) {
    niti_model_close(m);
    return status;
  }
  *out = m;
  return NITI_OK;
}

NitiStatus niti_model_open(NitiModel **out, const char *network, const NitiDevice *device) {
  NITI_WANT(out, "out");
  *out = NULL;
  NITI_WANT(network, "network");
  NitiLocation location;
  if (device) NITI_TRY(niti_device_check(__func__, "device", device));
  NitiStatus status = niti_locate(&location, network);
  if (status == NITI_OK) status = niti_model_open_at(out, &location, device);
  niti_location_close(&location);
  return status;
}

void niti_model_close(NitiModel *m) {
  if (!m) return;
  niti_test_set_clear(&m->set);
  niti_confusion_close(m->confusion);
  niti_mirror_close(m->mirror);
  niti_feed_close(m->feed);
  niti_network_close(m->one);
  niti_backend_close(m->backend);
  niti_recipe_close(m->recipe);
  niti_checkpoint_close(m->checkpoint);
  free(m->labels.text);
  free(m->labels.memory);
  free(m->path);
  free(m);
}

void niti_model_input(const NitiModel *m, int32_t hwc[3]) {
  if (!hwc) return;
  const NitiShape s = m ? m->recipe->model->input : (NitiShape){0};
  hwc[0] = s.h;
  hwc[1] = s.w;
  hwc[2] = s.c;
}

int32_t niti_model_classes(const NitiModel *m) { return m ? m->recipe->model->classes : 0; }

const char *niti_model_class_name(const NitiModel *m, int32_t label) {
  return label >= 0 && label < niti_model_classes(m) ? m->labels.text[label] : "";
}

static NitiStatus want_pixels(const NitiModel *m) {
  const NitiDataType type = m->recipe->data.type;
  if (type == NITI_UINT8) return NITI_OK;
  return niti_fail(NITI_ERROR_UNSUPPORTED, "%s: the network takes values of %s, not images (score them with niti_model_evaluate)",
                   m->path, niti_data_type_name(type));
}

/* Also of the image's mirror. */
static NitiStatus predict_both(NitiModel *m, int8_t *logits, int32_t *exponent, const NitiBindings *bindings) {
  if (!m->mirror) NITI_TRY(niti_mirror_open(&m->mirror, 1, m->recipe->model->classes));
  NITI_TRY(niti_mirror_predict(m->mirror, m->one, bindings));
  niti_mirror_logits(m->mirror, 1, logits, exponent);
  return NITI_OK;
}

NitiStatus niti_model_predict(NitiModel *m, int8_t *logits, int32_t *exponent, const uint8_t *pixels) {
  NITI_WANT(m, "model");
  NITI_WANT(logits, "logits");
  NITI_WANT(exponent, "exponent");
  NITI_WANT(pixels, "pixels");
  NITI_TRY(want_pixels(m));
  const NitiSample whole = {0};
  const int32_t label = 0;
  if (!m->feed) NITI_TRY(open_input(&m->feed, m->one, m, 1));
  const NitiBatch batch = {.count = 1, .images = pixels, .source = m->recipe->model->input, .samples = &whole, .labels = &label};
  NitiBindings bindings = {.batch = 1};
  NITI_TRY(niti_feed_batch(m->feed, &batch, &bindings));
  if (m->recipe->test_flip) return predict_both(m, logits, exponent, &bindings);
  NITI_TRY(niti_network_predict(m->one, &bindings));
  return niti_network_read_logits(m->one, 1, logits, exponent);
}

/* bytes NULL: reads the file `name`. */
static NitiStatus predict_image(NitiModel *m, int8_t *logits, int32_t *exponent, const uint8_t *bytes, size_t size,
                                const char *name) {
  const NitiShape input = m->recipe->model->input;
  NITI_TRY(want_pixels(m));
  uint8_t *pixels = malloc(niti_shape_image(input));
  if (!pixels) return out_of_memory();
  NitiStatus status = bytes ? niti_image_read_bytes(bytes, size, name, &m->recipe->data, input, pixels)
                            : niti_image_read(name, &m->recipe->data, input, pixels);
  if (status == NITI_OK) status = niti_model_predict(m, logits, exponent, pixels);
  free(pixels);
  return status;
}

NitiStatus niti_model_predict_file(NitiModel *m, int8_t *logits, int32_t *exponent, const char *path) {
  NITI_WANT(m, "model");
  NITI_WANT(logits, "logits");
  NITI_WANT(exponent, "exponent");
  NITI_WANT(path, "path");
  return predict_image(m, logits, exponent, NULL, 0, path);
}

NitiStatus niti_model_predict_bytes(NitiModel *m, int8_t *logits, int32_t *exponent, const uint8_t *bytes, size_t size,
                                    const char *name) {
  NITI_WANT(m, "model");
  NITI_WANT(logits, "logits");
  NITI_WANT(exponent, "exponent");
  NITI_WANT(bytes, "bytes");
  NITI_WANT(name, "name");
  return predict_image(m, logits, exponent, bytes, size, name);
}

void niti_probabilities(int32_t *millionths, const int8_t *logits, int32_t exponent, int32_t classes) {
  if (!millionths || !logits || classes < 1 || classes > 65536) return;
  const NitiSoftmax softmax = niti_softmax_sum(logits, exponent, classes);
  niti_softmax_acc(millionths, &softmax, logits, 0, classes, -1); /* no target: the shares themselves, at exponent -24 */
  for (int32_t j = 0; j < classes; ++j) millionths[j] = (int32_t)(((int64_t)millionths[j] * 1000000) >> 24);
}

/* Maps the data set's labels to the network's, into `room`, which holds one batch. */
static void map_batch(NitiBatch *batch, int32_t *room, const int32_t *labels) {
  for (int32_t i = 0; i < batch->count; ++i) room[i] = labels[batch->labels[i]];
  batch->labels = room;
}

static bool tell(const NitiModel *m, NitiProgressKind kind, const char *text, int64_t batch, int64_t batches) {
  const NitiProgress progress = {.kind = kind, .text = text, .batch = batch, .batches = batches};
  return !m->progress || m->progress(m->context, &progress);
}

static bool tell_data(void *context, const char *what, int64_t done, int64_t total) {
  return tell(context, NITI_PROGRESS_DATA, what, done, total);
}

static NitiStatus score_batches(NitiModel *m, const NitiStepContext *context, NitiLoader *loader, int32_t *room) {
  for (int64_t done = 1;; ++done) {
    NitiBatch batch;
    NITI_TRY(niti_loader_next(loader, &batch));
    if (batch.count == 0) return NITI_OK;
    if (m->set.labels) map_batch(&batch, room, m->set.labels);
    NITI_TRY(niti_step_test(context, &batch));
    if (m->confusion) NITI_TRY(niti_confusion_add(m->confusion, context->net, context->mirror, &batch));
    if (!tell(m, NITI_PROGRESS_TEST, NULL, done, niti_loader_steps(loader)))
      return niti_fail(NITI_INTERRUPTED, "interrupted while testing");
  }
}

static NitiStatus score(NitiModel *m, NitiNetwork *net, NitiFeed *feed, NitiLoader *loader) {
  NitiStepContext context = {m->recipe, net, feed, NULL, NULL};
  NITI_TRY(niti_loader_start(loader, 0, 0));
  if (m->recipe->test_flip) NITI_TRY(niti_mirror_open(&context.mirror, m->recipe->batch, m->recipe->model->classes));
  int32_t *room = malloc((size_t)m->recipe->batch * sizeof *room);
  const NitiStatus status = room ? score_batches(m, &context, loader, room) : out_of_memory();
  niti_mirror_close(context.mirror);
  free(room);
  return status;
}

static void forget_confusion(NitiModel *m) {
  niti_confusion_close(m->confusion);
  m->confusion = NULL;
}

static NitiStatus open_confusion(NitiModel *m) {
  const NitiDescription *model = m->recipe->model;
  if (model->classes > NITI_CONFUSION_CLASSES_MAX) return NITI_OK;
  NITI_TRY(niti_confusion_open(&m->confusion, model->classes, m->recipe->batch, model->input, false));
  for (int32_t i = 0; i < model->classes; ++i) niti_confusion_name(m->confusion, i, m->labels.text[i]);
  return NITI_OK;
}

/* For a recipe that leaves mean and std to the data set and has not been resolved by a run. */
static NitiStatus resolve_data(NitiModel *m, NitiDataset *dataset) {
  NitiDataOptions *data = &m->recipe->data;
  if (data->stat_count > 0) return NITI_OK;
  if (!data->type_given) data->type = niti_dataset_type(dataset);
  NITI_TRY(niti_dataset_statistics(dataset, data->mean, data->std));
  data->stat_count = niti_dataset_shape(dataset).c;
  return NITI_OK;
}

static void tell_tuning(NitiModel *m, const NitiNetwork *net) {
  const NitiTuningFacts *facts = niti_backend_tuning(m->backend);
  (void)niti_executable_tuned(net->main, m->tuning);
  if (facts && facts->note) (void)tell(m, facts->damaged ? NITI_PROGRESS_WARNING : NITI_PROGRESS_NOTE, facts->note, 0, 0);
}

static NitiStatus evaluate(NitiModel *m, NitiScore *out) {
  NitiLoader *loader = NULL;
  NitiNetwork *net = NULL;
  NitiFeed *feed = NULL;
  const NitiLoaderOptions options = {
      .split = m->set.facts.scored, .input = m->recipe->model->input, .batch = m->recipe->batch, .seed = m->recipe->seed};
  NitiStatus status = resolve_data(m, m->set.dataset);
  if (status == NITI_OK) {
    status = niti_loader_open(&loader, m->set.dataset, &m->recipe->data, &options);
    if (status != NITI_OK) status = niti_fail_within(status, "%s", m->set.path);
  }
  if (status == NITI_OK) status = open_network(&net, m, m->recipe->batch);
  if (status == NITI_OK) tell_tuning(m, net);
  if (status == NITI_OK) status = open_input(&feed, net, m, m->recipe->batch);
  if (status == NITI_OK) status = open_confusion(m);
  if (status == NITI_OK) status = score(m, net, feed, loader);
  if (status == NITI_OK) {
    NitiMetrics sums;
    status = niti_network_read_metrics(net, &sums);
    if (status == NITI_OK) status = niti_dataset_check_maps(m->set.dataset);
    if (status == NITI_OK) *out = (NitiScore){.loss = sums.loss, .correct = sums.correct, .images = sums.images};
  }
  niti_feed_close(feed);
  niti_network_close(net);
  niti_loader_close(loader);
  return status;
}

NitiStatus niti_model_evaluate(NitiModel *m, NitiScore *out, const char *data) {
  NITI_WANT(out, "out");
  *out = (NitiScore){0};
  NITI_WANT(m, "model");
  return niti_model_evaluate_split(m, out, data, NITI_TEST);
}

NitiStatus niti_model_evaluate_split(NitiModel *m, NitiScore *out, const char *data, NitiSplit split) {
  NITI_WANT(out, "out");
  *out = (NitiScore){0};
  NITI_WANT(m, "model");
  if (split < NITI_TRAIN || split > NITI_VALIDATION)
    return niti_fail(NITI_ERROR_ARGUMENT, "niti_model_evaluate_split: split is %d (expected 0 to 2)", (int)split);
  const NitiDataWatch watch = {m->progress ? tell_data : NULL, m};
  const char *note;
  forget_confusion(m);
  NITI_TRY(niti_test_set_open(&m->set, m->recipe, m->checkpoint, data, split, &watch));
  for (int i = 0; (note = niti_dataset_note(m->set.dataset, i)) != NULL; ++i) (void)tell(m, NITI_PROGRESS_NOTE, note, 0, 0);
  const NitiStatus status = evaluate(m, out);
  niti_test_set_close(&m->set);
  if (status != NITI_OK) forget_confusion(m);
  return status;
}

void niti_model_flip(NitiModel *m, bool flip) {
  if (m) m->recipe->test_flip = flip;
}

const char *niti_model_tuning(const NitiModel *m) { return m->tuning[0] ? m->tuning : NULL; }

bool niti_model_flips(const NitiModel *m) { return m->recipe->test_flip; }

void niti_model_watch(NitiModel *m, NitiProgressCallback progress, void *context) {
  if (!m) return;
  m->progress = progress;
  m->context = context;
}

const NitiConfusion *niti_model_confusion_named(const NitiModel *m) { return m->confusion; }
const int64_t *niti_model_confusion(const NitiModel *m) { return m && m->confusion ? m->confusion->counts : NULL; }

const NitiDataFacts *niti_model_data(const NitiModel *m) { return m && m->set.path ? &m->set.facts : NULL; }

NitiStatus niti_model_hash(const NitiModel *m, char text[65]) {
  NITI_WANT(text, "text");
  text[0] = 0;
  NITI_WANT(m, "model");
  return niti_checkpoint_hash(m->checkpoint, text);
}

NitiStatus niti_location_hash(const NitiLocation *location, char text[65]) {
  NitiCheckpoint *checkpoint;
  NITI_TRY(niti_location_weights(&checkpoint, location));
  const NitiStatus status = niti_checkpoint_hash(checkpoint, text);
  niti_checkpoint_close(checkpoint);
  return status;
}

NitiStatus niti_checkpoint_file_hash(const char *network, char text[65]) {
  NITI_WANT(text, "text");
  text[0] = 0;
  NITI_WANT(network, "network");
  NitiLocation location;
  NitiStatus status = niti_locate(&location, network);
  if (status == NITI_OK) status = niti_location_hash(&location, text);
  niti_location_close(&location);
  return status;
}
