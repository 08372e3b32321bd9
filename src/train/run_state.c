/* The state of a run: what a checkpoint holds besides the tensors. */
#include "train/run_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loss.h"
#include "train/run_check.h"

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

NitiStatus niti_run_state_save(NitiCheckpoint *checkpoint, const NitiRun *run) {
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
NitiStatus niti_run_state_load(NitiRun *run, const NitiCheckpoint *checkpoint) {
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

static bool is_among(const char *key, const char *const *keys, int count) {
  for (int i = 0; i < count; ++i) {
    if (strcmp(keys[i], key) == 0) return true;
  }
  return false;
}

NitiStatus niti_run_state_compare(const NitiRun *run, const NitiRun *other, const char *const *keys, int count,
                                  const char *source) {
  for (int i = 0; i < STATE_KEYS; ++i) {
    char left[NUMBER_MAX], right[NUMBER_MAX];
    if (!is_among(state[i].key, keys, count)) continue;
    const char *is = format_member(left, state[i].kind, (const char *)other + state[i].offset);
    const char *own = format_member(right, state[i].kind, (const char *)run + state[i].offset);
    if (strcmp(is, own) == 0) continue;
    return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: '%s' is %s (expected this run's %s)", source, state[i].key, is, own);
  }
  return NITI_OK;
}
