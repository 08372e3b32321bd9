/* The state of a run: what a checkpoint holds besides the weights, and how it is saved and restored. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loss.h"
#include "base/scalar.h"
#include "platform/path.h"
#include "train/data_choice.h"
#include "train/extend.h"
#include "train/locate.h"
#include "train/run_check.h"
#include "train/snapshot.h"

typedef enum StateKind {
  STATE_COUNT32, /* int32_t from 0 */
  STATE_COUNT64, /* int64_t from 0 */
  STATE_SUM,     /* int64_t */
  STATE_SEED,    /* uint64_t */
  STATE_FLAG,    /* bool: "0" or "1" */
  STATE_TEXT,    /* const char *; NULL is not saved */
  STATE_SHA256,  /* char[65]; "" is not saved */
} StateKind;

typedef struct StateKey {
  const char *key;
  StateKind kind;
  size_t offset; /* in NitiRun */
  int since;     /* version of the checkpoint from which every file has the key; 0: a file may lack it (the member stays zero) */
} StateKey;

#define AT(member) offsetof(NitiRun, member)
static const StateKey state[] = {
    {"model", STATE_TEXT, AT(inputs.model), 1},
    {"recipe", STATE_TEXT, AT(inputs.recipe), 1},
    {"seed", STATE_SEED, AT(inputs.seed), 1},
    {"data", STATE_TEXT, AT(inputs.data), 1},
    {"classes", STATE_TEXT, AT(inputs.classes), 0},
    {"class_labels", STATE_TEXT, AT(inputs.labels), 0},
    {"train_set_images", STATE_COUNT64, AT(inputs.images[NITI_TRAIN]), 1},
    {"train_set_sha256", STATE_SHA256, AT(inputs.sha256[NITI_TRAIN]), 1},
    {"train_set_names_sha256", STATE_SHA256, AT(inputs.names_sha256[NITI_TRAIN]), 0},
    {"test_set_images", STATE_COUNT64, AT(inputs.images[NITI_TEST]), 1},
    {"test_set_sha256", STATE_SHA256, AT(inputs.sha256[NITI_TEST]), 1},
    {"test_set_names_sha256", STATE_SHA256, AT(inputs.names_sha256[NITI_TEST]), 0},
    {"validation_set_images", STATE_COUNT64, AT(inputs.images[NITI_VALIDATION]), 0},
    {"validation_set_sha256", STATE_SHA256, AT(inputs.sha256[NITI_VALIDATION]), 0},
    {"validation_set_names_sha256", STATE_SHA256, AT(inputs.names_sha256[NITI_VALIDATION]), 0},
    {"extensions", STATE_TEXT, AT(extensions), 0},
    {"best_on_validation", STATE_FLAG, AT(on_validation), 0},
    {"test_every", STATE_COUNT32, AT(test_every), 0},
    {"test_limit", STATE_COUNT32, AT(test_limit), 0},
    {"save_every", STATE_COUNT32, AT(save_every), 1},
    {"step", STATE_COUNT64, AT(step), 1},
    {"epoch", STATE_COUNT32, AT(epoch), 1},
    {"complete", STATE_FLAG, AT(complete), 1},
    {"train_loss_sum", STATE_SUM, AT(train.loss), 1},
    {"train_correct", STATE_COUNT64, AT(train.correct), 1},
    {"train_images", STATE_COUNT64, AT(train.images), 1},
    {"test_loss_sum", STATE_SUM, AT(test.loss), 1},
    {"test_correct", STATE_COUNT64, AT(test.correct), 1},
    {"test_images", STATE_COUNT64, AT(test.images), 1},
    {"best_loss_sum", STATE_SUM, AT(best.loss), 1},
    {"best_correct", STATE_COUNT64, AT(best.correct), 1},
    {"best_images", STATE_COUNT64, AT(best.images), 1},
    {"best_epoch", STATE_COUNT32, AT(best_epoch), 1},
    {"validation_loss_sum", STATE_SUM, AT(validation.loss), 0},
    {"validation_correct", STATE_COUNT64, AT(validation.correct), 0},
    {"validation_images", STATE_COUNT64, AT(validation.images), 0},
    {"best_test_loss_sum", STATE_SUM, AT(best_test.loss), 0},
    {"best_test_correct", STATE_COUNT64, AT(best_test.correct), 0},
    {"best_test_images", STATE_COUNT64, AT(best_test.images), 0},
    {"average_samples", STATE_COUNT64, AT(average_samples), 0},
    {"averaged_loss_sum", STATE_SUM, AT(averaged.loss), 0},
    {"averaged_correct", STATE_COUNT64, AT(averaged.correct), 0},
    {"averaged_images", STATE_COUNT64, AT(averaged.images), 0},
    {"averaged_validation_loss_sum", STATE_SUM, AT(averaged_validation.loss), 0},
    {"averaged_validation_correct", STATE_COUNT64, AT(averaged_validation.correct), 0},
    {"averaged_validation_images", STATE_COUNT64, AT(averaged_validation.images), 0},
};
#undef AT
enum { STATE_KEYS = sizeof state / sizeof *state, NUMBER_MAX = 24 };

static const char *const expectations[] = {
    [STATE_COUNT32] = "a whole number from 0 to 2147483647",
    [STATE_COUNT64] = "a whole number from 0 to 2^63-1",
    [STATE_SUM] = "a whole number of 64 bits",
    [STATE_SEED] = "a whole number from 0 to 2^64-1",
    [STATE_FLAG] = "0 or 1",
    [STATE_SHA256] = "64 hexadecimal digits",
};

/* A member as text; `number` is a buffer for it. */
static const char *format_member(char number[NUMBER_MAX], StateKind kind, const void *member) {
  if (kind == STATE_TEXT) return *(const char *const *)member;
  if (kind == STATE_SHA256) return *(const char *)member ? member : NULL;
  if (kind == STATE_FLAG) return *(const bool *)member ? "1" : "0";
  if (kind == STATE_COUNT32)
    (void)snprintf(number, NUMBER_MAX, "%" PRId32, *(const int32_t *)member);
  else if (kind == STATE_SEED)
    (void)snprintf(number, NUMBER_MAX, "%" PRIu64, *(const uint64_t *)member);
  else
    (void)snprintf(number, NUMBER_MAX, "%" PRId64, *(const int64_t *)member);
  return number;
}

static bool is_sha256(const char *text) { return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64; }

/* Texts stay owned by the checkpoint. Numbers have format_member's form: no spaces, no plus sign, no leading zeros. */
static bool parse_member(void *member, StateKind kind, const char *text) {
  char number[NUMBER_MAX];
  if ((kind == STATE_COUNT32 || kind == STATE_COUNT64) && text[0] == '-') return false;
  if (kind == STATE_SHA256 && !is_sha256(text)) return false;
  if (kind == STATE_TEXT)
    *(const char **)member = text;
  else if (kind == STATE_SHA256)
    memcpy(member, text, 65);
  else if (kind == STATE_FLAG)
    *(bool *)member = strcmp(text, "1") == 0;
  else if (kind == STATE_COUNT32)
    *(int32_t *)member = (int32_t)strtoll(text, NULL, 10);
  else if (kind == STATE_SEED)
    *(uint64_t *)member = strtoull(text, NULL, 10);
  else
    *(int64_t *)member = strtoll(text, NULL, 10);
  const char *form = format_member(number, kind, member);
  return form && strcmp(form, text) == 0;
}

/* average_samples, averaged_correct and so on: other runs' files stay as they were. */
static bool is_of_average(const char *key) { return strncmp(key, "average", 7) == 0; }

static NitiStatus save_state(NitiCheckpoint *checkpoint, const NitiRun *run) {
  for (int i = 0; i < STATE_KEYS; ++i) {
    char number[NUMBER_MAX];
    if (!run->average && is_of_average(state[i].key)) continue;
    const char *text = format_member(number, state[i].kind, (const char *)run + state[i].offset);
    if (text) NITI_TRY(niti_checkpoint_set(checkpoint, state[i].key, text));
  }
  return NITI_OK;
}

static NitiStatus load_key(NitiRun *run, const StateKey *key, const NitiCheckpoint *checkpoint) {
  const char *text = niti_checkpoint_get(checkpoint, key->key);
  if (!text && (key->since == 0 || checkpoint->version < key->since)) return NITI_OK;
  NITI_TRY(niti_checkpoint_want(&text, checkpoint, key->key));
  if (parse_member((char *)run + key->offset, key->kind, text)) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: '%s' is '%.64s' (expected %s)", niti_checkpoint_source(checkpoint),
                   key->key, text, expectations[key->kind]);
}

static bool is_state_key(const char *key) {
  for (int i = 0; i < STATE_KEYS; ++i) {
    if (strcmp(state[i].key, key) == 0) return true;
  }
  return false;
}

/* Later sums are added to these and compared with them. A score's first member is its sum of losses, none of which is negative.
 */
static NitiStatus check_scores(const NitiRun *run, const char *source) {
  for (int i = 0; i < STATE_KEYS; ++i) {
    const NitiScore *s = (const NitiScore *)((const char *)run + state[i].offset);
    if (state[i].kind != STATE_SUM) continue;
    const int64_t whole = (int64_t)1 << 62;
    const int64_t most = s->images < whole / NITI_LOSS_IMAGE_MAX ? s->images * NITI_LOSS_IMAGE_MAX : whole;
    if (s->correct <= s->images && s->images <= INT32_MAX && s->loss >= 0 && s->loss <= most) continue;
    return niti_fail(
        NITI_ERROR_FORMAT,
        "%s: __metadata__: '%s' is %" PRId64 ", with %" PRId64 " correct of %" PRId64
        " images (expected at most 2^41 of each image and 2^62 of all, at least 0, no more correct than there are, and "
        "at most 2^31-1 images)",
        source, state[i].key, s->loss, s->correct, s->images);
  }
  return NITI_OK;
}

/* An unknown key affects the run that wrote it, so a run that ignored it would continue with different bits. */
static NitiStatus load_state(NitiRun *run, const NitiCheckpoint *checkpoint) {
  for (size_t i = 0; i < checkpoint->value_count; ++i) {
    const NitiPair *value = &checkpoint->values[i];
    if (is_state_key(value->key) || strcmp(value->key, "arithmetic") == 0) continue;
    return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: unknown key '%.200s' (expected a run of niti %s or earlier)",
                     niti_checkpoint_source(checkpoint), checkpoint->values[i].key, niti_version());
  }
  for (int i = 0; i < STATE_KEYS; ++i) NITI_TRY(load_key(run, &state[i], checkpoint));
  NITI_TRY(niti_run_check_inputs(run, niti_checkpoint_source(checkpoint)));
  return check_scores(run, niti_checkpoint_source(checkpoint));
}

static NitiStatus fill_checkpoint(const NitiRun *run, NitiCheckpoint *checkpoint) {
  NITI_TRY(save_state(checkpoint, run));
  NITI_TRY(niti_snapshot_take(checkpoint, run->net));
  return run->average ? niti_average_save(run->average, run->average_samples, checkpoint) : NITI_OK;
}

static NitiStatus save_averaged(NitiCheckpoint *checkpoint, const NitiRun *run) {
  NitiRun shown = *run; /* the scores of these weights */
  char *path;
  shown.test = run->averaged;
  shown.validation = run->averaged_validation;
  NITI_TRY(save_state(checkpoint, &shown));
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

/* ---- the best checkpoint ---- */

/* What it and the run must have in common, besides the step; the run may have been extended since, and image files changed. */
static const char *const common[] = {"seed", "train_set_images", "best_epoch", "best_correct", "best_images", "best_loss_sum"};

static bool is_common(const char *key) {
  for (size_t i = 0; i < sizeof common / sizeof *common; ++i) {
    if (strcmp(common[i], key) == 0) return true;
  }
  return false;
}

static NitiStatus check_best(const NitiRun *run, const NitiCheckpoint *best) {
  const char *source = niti_checkpoint_source(best);
  NitiRun other = {0};
  NITI_TRY(load_state(&other, best));
  for (int i = 0; i < STATE_KEYS; ++i) {
    char left[NUMBER_MAX], right[NUMBER_MAX];
    if (!is_common(state[i].key)) continue;
    const char *is = format_member(left, state[i].kind, (const char *)&other + state[i].offset);
    const char *own = format_member(right, state[i].kind, (const char *)run + state[i].offset);
    if (strcmp(is, own) == 0) continue;
    return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: '%s' is %s (expected this run's %s)", source, state[i].key, is, own);
  }
  const int64_t all = run->steps_per_epoch * run->best_epoch, step = all < run->steps ? all : run->steps;
  if (other.step == step) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT,
                   "%s: __metadata__: 'step' is %" PRId64 " (expected %" PRId64 ", the end of epoch %" PRId32 ")", source,
                   other.step, step, run->best_epoch);
}

NitiStatus niti_run_load_best(NitiCheckpoint **out, NitiRun *run) {
  char *path;
  *out = NULL;
  NITI_TRY(niti_run_saved(run)); /* it may still be being written */
  NITI_TRY(niti_path_join(&path, niti_run_folder_path(run->folder), "best.safetensors"));
  NitiStatus status = niti_checkpoint_load(out, path);
  free(path);
  if (status == NITI_OK) status = check_best(run, *out);
  if (status == NITI_OK) return NITI_OK;
  niti_checkpoint_close(*out);
  *out = NULL;
  bool there = false;
  if (status == NITI_ERROR_FILE) NITI_TRY(niti_path_has_file(&there, niti_run_folder_path(run->folder), "best.safetensors"));
  return there || status == NITI_ERROR_MEMORY ? status : NITI_OK;
}

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

/* 1.0 differs from 1.1 where batch norm trains. */
static NitiStatus check_arithmetic(const NitiCheckpoint *checkpoint, const NitiDescription *model) {
  const char *arithmetic = niti_checkpoint_arithmetic(checkpoint);
  bool same = strcmp(arithmetic, NITI_ARITHMETIC) == 0 || strcmp(arithmetic, "1.0") == 0;
  for (int32_t i = 0; i < model->node_count && strcmp(arithmetic, "1.0") == 0; ++i)
    same = same && strcmp(model->nodes[i].spec.type->name, "norm") != 0;
  if (same) return NITI_OK;
  return niti_fail(
      NITI_ERROR_UNSUPPORTED,
      "%s: the run is of arithmetic %.16s, which trains this network to other bits (expected %s; --init begins a new run "
      "with its weights)",
      niti_checkpoint_source(checkpoint), arithmetic, NITI_ARITHMETIC);
}

NitiStatus niti_run_restore(NitiRun *run, const NitiCheckpoint *checkpoint, const char *data_path) {
  const char *source = niti_checkpoint_source(checkpoint);
  run->resumed = true;
  NITI_TRY(load_state(run, checkpoint));
  const NitiRunInputs began = run->inputs;
  NITI_TRY(niti_recipe_parse(&run->recipe, began.recipe, source, NULL, 0, began.model));
  NITI_TRY(niti_run_check_recipe(run, source));
  NITI_TRY(check_arithmetic(checkpoint, run->recipe->model));
  const int64_t epochs = run->recipe->epochs;
  NITI_TRY(niti_run_extend(run));
  NITI_TRY(niti_run_open(run, data_path ? data_path : began.data));
  NITI_TRY(niti_run_agree(run, check_data(run, &began)));
  NITI_TRY(niti_run_check_counts(run, &began, niti_checkpoint_get(checkpoint, "best_on_validation") != NULL, source));
  NITI_TRY(niti_snapshot_restore(run->net, checkpoint, source));
  const int64_t samples = run->average ? niti_averaging_samples(&run->recipe->average, run->step) : 0;
  if (run->average) NITI_TRY(niti_average_restore(run->average, run->average_samples, samples, checkpoint));
  NITI_TRY(niti_snapshot_check(run->net, run->average, checkpoint));
  const int64_t all = run->steps_per_epoch * epochs; /* before it was extended */
  NITI_TRY(niti_run_check_progress(run, all < run->steps ? all : run->steps, source));
  return niti_run_extend_opened(run);
}
