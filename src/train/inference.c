/* A trained network from a checkpoint: predictions for single images, and the score of a data set's test split. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loss.h"
#include "train/options.h"
#include "train/snapshot.h"
#include "train/step.h"

struct NitiModel {
  NitiCheckpoint *checkpoint;
  NitiRecipe *recipe;
  NitiBackend *backend;
  NitiNetwork *one; /* for batches of one image */
  NitiFeed *feed;
  char *path;
  char **names; /* [classes], or NULL: classes are numbers */
  char *names_text;
};

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for a model"); }

/* Splits the checkpoint's list of class names, a line each; without a whole list, numbers serve. */
static NitiStatus read_names(NitiModel *m) {
  const int32_t classes = m->recipe->model->classes;
  const char *text = niti_checkpoint_get(m->checkpoint, "classes");
  const size_t room = text ? strlen(text) + 1 : (size_t)classes * 12;
  m->names_text = malloc(room);
  m->names = calloc((size_t)classes, sizeof *m->names);
  if (!m->names_text || !m->names) return out_of_memory();
  char *at = m->names_text;
  if (text) memcpy(at, text, room);
  for (int32_t i = 0; i < classes; ++i) {
    if (text) {
      char *end = strchr(at, '\n');
      if (!end) return niti_fail(NITI_ERROR_FORMAT, "%s: metadata 'classes' has %d names (expected %d)", m->path, i, classes);
      *end = 0;
      m->names[i] = at;
      at = end + 1;
    } else {
      m->names[i] = at;
      at += sprintf(at, "%d", i) + 1;
    }
  }
  return NITI_OK;
}

static NitiStatus open_network(NitiNetwork **out, NitiModel *m, int32_t batch) {
  const NitiLowerOptions options = niti_recipe_lowering(m->recipe, batch, false);
  const NitiDataOptions *data = &m->recipe->data;
  if (data->stat_count != m->recipe->model->input.c) {
    return niti_fail(NITI_ERROR_FORMAT, "%s: the recipe's data.mean has %d values (expected %d, one a channel)", m->path,
                     data->stat_count, m->recipe->model->input.c);
  }
  NITI_TRY(niti_network_open(out, m->recipe->model, m->backend, &options));
  NitiStatus status = niti_snapshot_restore(*out, m->checkpoint, m->path);
  if (status == NITI_OK) status = niti_network_set_input(*out, data->mean, data->std);
  if (status != NITI_OK) {
    niti_network_close(*out);
    *out = NULL;
  }
  return status;
}

static NitiStatus open_parts(NitiModel *m, const NitiDevice *device) {
  if (!m->path) return out_of_memory();
  const char *recipe, *model;
  NITI_TRY(niti_checkpoint_load(&m->checkpoint, m->path));
  NITI_TRY(niti_checkpoint_want(&recipe, m->checkpoint, "recipe"));
  NITI_TRY(niti_checkpoint_want(&model, m->checkpoint, "model"));
  if (niti_recipe_parse(&m->recipe, recipe, m->path, NULL, 0, model) != NITI_OK) {
    return niti_fail_within(NITI_ERROR_FORMAT, "%s: the recipe in the checkpoint", m->path);
  }
  NITI_TRY(read_names(m));
  const NitiBackendOptions options = {.name = device->backend, .isa = device->isa, .threads = device->threads};
  NITI_TRY(niti_backend_open(&m->backend, &options));
  NITI_TRY(open_network(&m->one, m, 1));
  return niti_feed_open(&m->feed, m->backend, 1);
}

NitiStatus niti_model_open(NitiModel **out, const char *checkpoint, const NitiDevice *device) {
  NITI_WANT(out, "out");
  *out = NULL;
  NITI_WANT(checkpoint, "checkpoint");
  const NitiDevice best = {0};
  if (device) NITI_TRY(niti_device_check(__func__, "device", device));
  NitiModel *m = calloc(1, sizeof *m);
  if (!m) return out_of_memory();
  m->path = strdup(checkpoint);
  const NitiStatus status = open_parts(m, device ? device : &best);
  if (status != NITI_OK) {
    niti_model_close(m);
    return status;
  }
  *out = m;
  return NITI_OK;
}

void niti_model_close(NitiModel *m) {
  if (!m) return;
  niti_feed_close(m->feed);
  niti_network_close(m->one);
  niti_backend_close(m->backend);
  niti_recipe_close(m->recipe);
  niti_checkpoint_close(m->checkpoint);
  free(m->names);
  free(m->names_text);
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
  return label >= 0 && label < niti_model_classes(m) ? m->names[label] : "";
}

NitiStatus niti_model_predict(NitiModel *m, int8_t *logits, int32_t *exponent, const uint8_t *pixels) {
  NITI_WANT(m, "model");
  NITI_WANT(logits, "logits");
  NITI_WANT(exponent, "exponent");
  NITI_WANT(pixels, "pixels");
  const NitiPick whole = {0};
  const int32_t label = 0;
  const NitiBatch batch = {.count = 1, .images = pixels, .source = m->recipe->model->input, .picks = &whole, .labels = &label};
  NitiBindings bindings = {.batch = 1};
  NITI_TRY(niti_feed_batch(m->feed, &batch, &bindings));
  NITI_TRY(niti_network_predict(m->one, &bindings));
  return niti_network_read_logits(m->one, 1, logits, exponent);
}

NitiStatus niti_model_predict_file(NitiModel *m, int8_t *logits, int32_t *exponent, const char *path) {
  NITI_WANT(m, "model");
  NITI_WANT(logits, "logits");
  NITI_WANT(exponent, "exponent");
  NITI_WANT(path, "path");
  const NitiShape input = m->recipe->model->input;
  uint8_t *pixels = malloc(niti_shape_image(input));
  if (!pixels) return out_of_memory();
  NitiStatus status = niti_image_read(path, &m->recipe->data, input, pixels);
  if (status == NITI_OK) status = niti_model_predict(m, logits, exponent, pixels);
  free(pixels);
  return status;
}

void niti_probabilities(int32_t *millionths, const int8_t *logits, int32_t exponent, int32_t classes) {
  if (!millionths || !logits || classes < 1 || classes > 65536) return;
  const NitiSoftmax softmax = niti_softmax_sum(logits, exponent, classes);
  niti_softmax_acc(millionths, &softmax, logits, 0, classes, -1); /* no target: the shares themselves, at exponent -24 */
  for (int32_t j = 0; j < classes; ++j) millionths[j] = (int32_t)(((int64_t)millionths[j] * 1000000) >> 24);
}

static NitiStatus score(NitiModel *m, NitiNetwork *net, NitiFeed *feed, NitiLoader *loader) {
  const NitiStepContext context = {m->recipe, net, feed};
  NITI_TRY(niti_loader_start(loader, 0, 0));
  for (;;) {
    NitiBatch batch;
    NITI_TRY(niti_loader_next(loader, &batch));
    if (batch.count == 0) return NITI_OK;
    NITI_TRY(niti_step_test(&context, &batch, NULL));
  }
}

NitiStatus niti_model_evaluate(NitiModel *m, NitiScore *out, const char *data) {
  NITI_WANT(out, "out");
  *out = (NitiScore){0};
  NITI_WANT(m, "model");
  const NitiDescription *model = m->recipe->model;
  if (!data) data = niti_dataset_default();
  if (!data)
    return niti_fail(NITI_ERROR_ARGUMENT,
                     "no data set: none was given and the default, Debian's package dataset-fashion-mnist, is not installed");
  NitiDataset *dataset = NULL;
  NitiLoader *loader = NULL;
  NitiNetwork *net = NULL;
  NitiFeed *feed = NULL;
  const NitiLoaderOptions options = {
      .split = NITI_TEST, .input = model->input, .batch = m->recipe->batch, .seed = m->recipe->seed};
  NitiStatus status = niti_dataset_open(&dataset, data, &m->recipe->data, &model->input);
  if (status == NITI_OK && niti_dataset_classes(dataset) != model->classes) {
    status = niti_fail(NITI_ERROR_MODEL, "%s: the data set has %d classes but the model %d (expected equal)", data,
                       niti_dataset_classes(dataset), model->classes);
  }
  if (status == NITI_OK) {
    status = niti_loader_open(&loader, dataset, &m->recipe->data, &options);
    if (status != NITI_OK) status = niti_fail_within(status, "%s", data);
  }
  if (status == NITI_OK) status = open_network(&net, m, m->recipe->batch);
  if (status == NITI_OK) status = niti_feed_open(&feed, m->backend, m->recipe->batch);
  if (status == NITI_OK) status = score(m, net, feed, loader);
  if (status == NITI_OK) {
    NitiMetrics sums;
    status = niti_network_read_metrics(net, &sums);
    if (status == NITI_OK) *out = (NitiScore){.loss = sums.loss, .correct = sums.correct, .images = sums.images};
  }
  niti_feed_close(feed);
  niti_network_close(net);
  niti_loader_close(loader);
  niti_dataset_close(dataset);
  return status;
}

NitiStatus niti_checkpoint_file_hash(const char *path, char text[65]) {
  NitiCheckpoint *checkpoint = NULL;
  NITI_WANT(text, "text");
  text[0] = 0;
  NITI_WANT(path, "checkpoint");
  NITI_TRY(niti_checkpoint_load(&checkpoint, path));
  const NitiStatus status = niti_checkpoint_hash(checkpoint, text);
  niti_checkpoint_close(checkpoint);
  return status;
}
