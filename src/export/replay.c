/* Trains on the host as a device did, sample by sample. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/update.h"
#include "data/augment.h"
#include "export/import.h"
#include "platform/file.h"
#include "train/data_choice.h"
#include "train/locate.h"
#include "train/snapshot.h"
#include "train/step.h"

enum { LOG_BYTES_MAX = 1 << 28 };

typedef struct Replay {
  const char *path; /* the log's */
  NitiRecipe *recipe;
  NitiCheckpoint *checkpoint;
  NitiBackend *backend;
  NitiNetwork *net;
  NitiFeed *feed;
  NitiDataset *dataset;
  NitiShape source; /* of what `pixels` has: stored images, or, of int8, windows as mantissas */
  uint8_t *pixels;  /* of a batch */
  int32_t *labels;
  NitiSample *samples;
  int mu;
  uint64_t seed;
  int64_t steps, line; /* steps: from the exported weights on */
} Replay;

static NitiStatus out_of_memory(const Replay *r) { return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", r->path); }

static NitiStatus fail_at(const Replay *r, const char *word, const char *why) {
  return niti_fail(NITI_ERROR_FORMAT, "%s:%" PRId64 ": '%.60s': %s", r->path, r->line, word, why);
}

/* A whole number from 0 to `most`, and nothing else. */
static bool take_number(uint64_t *out, const char *word, uint64_t most) {
  char *end;
  errno = 0;
  *out = strtoull(word, &end, 10);
  return word[0] >= '0' && word[0] <= '9' && *end == 0 && errno == 0 && *out <= most;
}

/* ---- opening ---- */

/* What goes on from a device's state, or from a replay, has its step and its learning rate. */
static NitiStatus go_on(Replay *r) {
  NitiDeviceStart start;
  NITI_TRY(niti_device_start(&start, r->recipe, r->checkpoint, "cannot be replayed"));
  r->steps = start.step;
  r->mu = start.mu;
  r->seed = start.seed;
  return NITI_OK;
}

static NitiStatus open_network(Replay *r, const char *network, const NitiDevice *device) {
  NitiLocation where;
  NitiStatus status = niti_locate(&where, network);
  if (status == NITI_OK) status = niti_location_weights(&r->checkpoint, &where);
  if (status == NITI_OK) status = niti_checkpoint_recipe(&r->recipe, r->checkpoint, where.path);
  if (status == NITI_OK && r->recipe->data.stat_count == 0)
    status = niti_fail(NITI_ERROR_UNSUPPORTED,
                       "%s: a replay needs data.mean and data.std as numbers (expected an export's checkpoint)", where.path);
  if (status == NITI_OK && r->recipe->data.type == NITI_INT16)
    status =
        niti_fail(NITI_ERROR_UNSUPPORTED,
                  "%s: data.type int16 cannot be replayed, as no device takes it (expected an export's checkpoint)", where.path);
  if (status == NITI_OK && r->recipe->optimizer->wide)
    status = niti_fail(NITI_ERROR_UNSUPPORTED, "%s: update %s cannot be replayed (expected update niti)", where.path,
                       r->recipe->optimizer->name);
  if (status == NITI_OK && niti_data_augments(&r->recipe->data))
    status = niti_fail(
        NITI_ERROR_UNSUPPORTED,
        "%s: a replay takes images as they are, but the recipe changes them: crop, flip, colours, cutout or mixup in data "
        "(expected an export's checkpoint)",
        where.path);
  niti_location_close(&where);
  NITI_TRY(status);
  const NitiBackendOptions options = {
      .name = device->backend, .isa = device->isa, .threads = device->threads, .tuning = device->tuning};
  const NitiLowerOptions lowering = niti_recipe_lowering(r->recipe, r->recipe->batch, true);
  NITI_TRY(niti_backend_open(&r->backend, &options));
  NITI_TRY(niti_network_open(&r->net, r->recipe->model, r->backend, &lowering));
  NITI_TRY(niti_snapshot_restore(r->net, r->checkpoint, network));
  const bool pixels = r->recipe->data.type == NITI_UINT8; /* else the data set gives mantissas */
  NITI_TRY(niti_network_set_input(r->net, pixels ? r->recipe->data.mean : NULL, pixels ? r->recipe->data.std : NULL));
  return niti_feed_open(&r->feed, r->backend, r->recipe->batch);
}

static NitiStatus check_data(const Replay *r, const char *data) {
  const NitiShape input = r->recipe->model->input, source = niti_dataset_shape(r->dataset);
  const NitiDataType type = niti_dataset_type(r->dataset), wanted = r->recipe->data.type;
  if (source.c != input.c || source.h + 2 * r->recipe->data.pad < input.h || source.w + 2 * r->recipe->data.pad < input.w)
    return niti_fail(NITI_ERROR_MODEL, "%s: images of %dx%dx%d do not give the network's input of %dx%dx%d", data, source.h,
                     source.w, source.c, input.h, input.w, input.c);
  if (type == wanted) return NITI_OK;
  return niti_fail(NITI_ERROR_MODEL, "%s: values of %s, but the network takes %s (data.type)", data, niti_data_type_name(type),
                   niti_data_type_name(wanted));
}

static NitiStatus open_data(Replay *r, const char *data) {
  const NitiShape input = r->recipe->model->input;
  const NitiDataRequest request = {.size = input, .need = NITI_SPLIT_BIT(NITI_TRAIN), .classes = r->recipe->model->classes};
  if (!data) NITI_TRY(niti_data_default(&data, r->recipe));
  NITI_TRY(niti_dataset_open(&r->dataset, data, &r->recipe->data, &request));
  NITI_TRY(check_data(r, data));
  r->source = r->recipe->data.type == NITI_UINT8 ? niti_dataset_shape(r->dataset) : input;
  const size_t batch = (size_t)r->recipe->batch;
  r->pixels = malloc(batch * niti_shape_image(r->source));
  r->labels = calloc(batch, sizeof *r->labels);
  r->samples = calloc(batch, sizeof *r->samples);
  return r->pixels && r->labels && r->samples ? NITI_OK : out_of_memory(r);
}

/* ---- steps ---- */

static NitiStatus read_sample(Replay *r, int32_t i, int64_t image) {
  const NitiShape input = r->recipe->model->input;
  const int32_t pad = r->recipe->data.pad;
  uint8_t *out = r->pixels + (size_t)i * niti_shape_image(r->source);
  r->samples[i] = (NitiSample){.image = (uint32_t)i};
  if (r->recipe->data.type != NITI_UINT8)
    return niti_dataset_read_values(r->dataset, NITI_TRAIN, image, &r->recipe->data, input, (int8_t *)out);
  r->samples[i].dy = (int16_t)niti_window_start(r->source.h, pad, input.h, true, 0);
  r->samples[i].dx = (int16_t)niti_window_start(r->source.w, pad, input.w, true, 0);
  return niti_dataset_read(r->dataset, NITI_TRAIN, image, true, 0, 0, out);
}

/* strtoll would also take white space and a plus. */
static bool begins_number(const char *word) {
  word += *word == '-'; /* which has a message of its own */
  return *word >= '0' && *word <= '9';
}

static NitiStatus take_sample(Replay *r, int32_t i, const char *word) {
  char *colon, *end;
  if (!begins_number(word)) return fail_at(r, word, "expected SAMPLE:LABEL");
  const long long image = strtoll(word, &colon, 10);
  if (*colon != ':' || !begins_number(colon + 1)) return fail_at(r, word, "expected SAMPLE:LABEL");
  const long long label = strtoll(colon + 1, &end, 10);
  if (*end) return fail_at(r, word, "expected SAMPLE:LABEL");
  if (*word == '-' || (r->dataset && image >= niti_dataset_count(r->dataset, NITI_TRAIN)))
    return fail_at(r, word, "no such sample among the training images");
  if (colon[1] == '-' || label >= r->recipe->model->classes) return fail_at(r, word, "no such class");
  if (!r->dataset) return NITI_OK;
  r->labels[i] = (int32_t)label;
  return read_sample(r, i, image);
}

static NitiStatus train(Replay *r, int32_t count) {
  const NitiBatch batch = {.count = count, .images = r->pixels, .source = r->source, .samples = r->samples, .labels = r->labels};
  NitiBindings b = {.seed = r->seed, .step = (uint32_t)(r->steps - 1)};
  NITI_TRY(niti_feed_batch(r->feed, &batch, &b));
  const int32_t mu = niti_program_find_scalar(r->net->program, "mu");
  if (mu != NITI_NONE) b.scalars[mu] = (int64_t)r->mu * NITI_MU_UNITS;
  NITI_TRY(niti_network_train(r->net, &b));
  return r->backend->ops->synchronise(r->backend); /* the next step overwrites the images */
}

static NitiStatus set_mu(Replay *r, const char *word, const char *more) {
  uint64_t mu;
  if (!word || !take_number(&mu, word, NITI_MU_MAX))
    return fail_at(r, word ? word : "mu", "expected a learning rate from 0 to 30");
  if (more) return fail_at(r, more, "expected nothing after the learning rate");
  r->mu = (int)mu;
  return NITI_OK;
}

static NitiStatus count_step(Replay *r) {
  if (r->steps == UINT32_MAX)
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s:%" PRId64
                     ": one step too many for the 32-bit step counter of the random numbers (expected at most %" PRIu32
                     " in all)",
                     r->path, r->line, UINT32_MAX);
  ++r->steps;
  return NITI_OK;
}

/* Without a data set the line is only checked. */
static NitiStatus replay_line(Replay *r, char *line) {
  char *rest = line, *word = strtok_r(line, " \t\r", &rest);
  int32_t count = 0;
  if (!word || word[0] == '#') return NITI_OK;
  if (strcmp(word, "mu") == 0) {
    const char *rate = strtok_r(NULL, " \t\r", &rest);
    return set_mu(r, rate, strtok_r(NULL, " \t\r", &rest));
  }
  for (; word; word = strtok_r(NULL, " \t\r", &rest)) {
    if (count == r->recipe->batch) return fail_at(r, word, "more images than the network's batch");
    NITI_TRY(take_sample(r, count++, word));
  }
  NITI_TRY(count_step(r));
  return r->dataset ? train(r, count) : NITI_OK;
}

/* Before a data set is opened, which may take long: what can be said of the log without one. Leaves the replay at the
 * log's first line. */
static NitiStatus check_all(Replay *r, const char *text) {
  const int64_t steps = r->steps;
  const int mu = r->mu;
  NitiStatus status = NITI_OK;
  for (const char *line = text; line && status == NITI_OK; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    char *copy = strndup(line, strcspn(line, "\n"));
    ++r->line;
    status = copy ? replay_line(r, copy) : out_of_memory(r);
    free(copy);
  }
  r->line = 0;
  r->steps = steps;
  r->mu = mu;
  return status;
}

static NitiStatus replay_all(Replay *r, char *text) {
  char *rest = text;
  for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
    ++r->line;
    NITI_TRY(replay_line(r, line));
  }
  return NITI_OK;
}

static NitiStatus save(Replay *r, NitiImportResult *result, const char *out) {
  NitiCheckpoint *checkpoint;
  NITI_TRY(niti_checkpoint_open(&checkpoint));
  NitiStatus status = niti_snapshot_take(checkpoint, r->net);
  if (status == NITI_OK) status = niti_checkpoint_set(checkpoint, "arithmetic", NITI_ARITHMETIC);
  if (status == NITI_OK) status = niti_import_state(checkpoint, (uint32_t)r->steps, r->mu, r->seed);
  if (status == NITI_OK) status = niti_checkpoint_set(checkpoint, "recipe", r->recipe->text);
  if (status == NITI_OK) status = niti_checkpoint_set(checkpoint, "model", r->recipe->model->text);
  if (status == NITI_OK) status = niti_checkpoint_hash(checkpoint, result->hash);
  if (status == NITI_OK && out) status = niti_checkpoint_save(checkpoint, out);
  niti_checkpoint_close(checkpoint);
  result->steps = r->steps;
  result->mu = r->mu;
  return status;
}

static NitiStatus replay(Replay *r, NitiImportResult *result, const char *network, const char *data, const char *out,
                         const NitiDevice *device) {
  char *text;
  size_t size;
  NITI_TRY(niti_file_read_any(&text, &size, r->path, LOG_BYTES_MAX));
  NitiStatus status = strlen(text) == size
                          ? open_network(r, network, device)
                          : niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: a zero byte in a text", r->path, strlen(text));
  if (status == NITI_OK) status = go_on(r);
  if (status == NITI_OK) status = check_all(r, text);
  if (status == NITI_OK) status = open_data(r, data);
  if (status == NITI_OK) status = replay_all(r, text);
  if (status == NITI_OK) status = niti_dataset_check_maps(r->dataset);
  free(text);
  return status == NITI_OK ? save(r, result, out) : status;
}

NitiStatus niti_replay(NitiImportResult *result, const char *log, const char *network, const char *data, const char *out,
                       const NitiDevice *device) {
  Replay r = {.path = log};
  *result = (NitiImportResult){.steps = 0};
  NITI_TRY(niti_import_check_out(out, network, log));
  const NitiStatus status = replay(&r, result, network, data, out, device);
  niti_dataset_close(r.dataset);
  niti_feed_close(r.feed);
  niti_network_close(r.net);
  niti_backend_close(r.backend);
  niti_recipe_close(r.recipe);
  niti_checkpoint_close(r.checkpoint);
  free(r.pixels);
  free(r.labels);
  free(r.samples);
  return status;
}
