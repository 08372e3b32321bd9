/* Chooses the data set to read and checks whether it is the run's. */
#include "train/data_choice.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/file.h"
#include "platform/path.h"
#include "platform/system.h"

NitiStatus niti_data_default(const char **path, const NitiRecipe *recipe) {
  *path = recipe->data_default == NITI_DEFAULT_NONE ? NULL : niti_dataset_default();
  if (*path) return NITI_OK;
  if (recipe->data_default == NITI_DEFAULT_NONE) {
    return niti_fail(NITI_ERROR_ARGUMENT,
                     "no data set: recipe '%s' names no default (expected --data DIR, or data.default in the recipe)",
                     recipe->name);
  }
  return niti_fail(NITI_ERROR_ARGUMENT,
                   "no data set: the default of recipe '%s' is not installed (expected --data DIR, Debian's package "
                   "dataset-fashion-mnist, or its folder in the environment variable NITI_DATA)",
                   recipe->name);
}

/* ---- class names ---- */

NitiStatus niti_data_class_texts(char **out, const NitiDataset *dataset, const char *(*text_of)(const NitiDataset *, int32_t)) {
  const int32_t classes = niti_dataset_classes(dataset);
  size_t length = 1;
  *out = NULL;
  for (int32_t i = 0; i < classes; ++i) {
    const char *text = text_of(dataset, i);
    if (!text || strchr(text, '\n')) return NITI_OK;
    length += strlen(text) + 1;
  }
  *out = calloc(1, length);
  if (!*out) return niti_fail(NITI_ERROR_MEMORY, "out of memory for class names");
  char *end = *out;
  for (int32_t i = 0; i < classes; ++i) end += sprintf(end, "%s\n", text_of(dataset, i));
  return NITI_OK;
}

NitiStatus niti_data_check_texts(const char *texts, int32_t classes, const char *key, const char *source) {
  int64_t lines = 0;
  for (const char *at = texts; at && *at; ++lines) {
    const size_t length = strcspn(at, "\n");
    if (length == 0 || !at[length])
      return niti_fail(NITI_ERROR_FORMAT,
                       "%s: __metadata__: '%s': the name of class %" PRId64 " %s (expected %d names, each with its newline)",
                       source, key, lines, length == 0 ? "is empty" : "does not end in a newline", classes);
    at += length + 1;
  }
  if (!texts || lines == classes) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: '%s' has %" PRId64 " names (expected %d, the network's classes)", source,
                   key, lines, classes);
}

enum { SHOWN_MAX = 320 };

/* "a, b, c", cut where it gets long. */
static const char *shown(char buffer[SHOWN_MAX], const char *names) {
  size_t used = 0;
  buffer[0] = 0;
  for (const char *at = names; *at; ++at) {
    const size_t length = strcspn(at, "\n");
    if (used + length + 8 > SHOWN_MAX) {
      (void)snprintf(buffer + used, SHOWN_MAX - used, "...");
      break;
    }
    used +=
        (size_t)snprintf(buffer + used, SHOWN_MAX - used, "%.*s%s", (int)length, at, at[length] && at[length + 1] ? ", " : "");
    at += length;
    if (!*at) break;
  }
  return buffer;
}

NitiStatus niti_data_same_names(const char *names, const char *expected, const char *path, const char *owner) {
  char left[SHOWN_MAX], right[SHOWN_MAX];
  if (strcmp(names, expected) == 0) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: its classes are %s, but those of %s are %s (expected the same)", path,
                   shown(left, names), owner, shown(right, expected));
}

/* The index of the line equal to `name`; -1: none. */
static int32_t line_of(const char *names, const char *name) {
  const size_t length = strlen(name);
  for (int32_t i = 0; *names; ++i) {
    const size_t line = strcspn(names, "\n");
    if (line == length && strncmp(names, name, length) == 0) return i;
    names += line + (names[line] ? 1 : 0);
  }
  return -1;
}

/* The number that a name is, in the form that niti writes; -1: it is none below `classes`. */
static int32_t number_of(const char *name, int32_t classes) {
  char text[16];
  const long number = strtol(name, NULL, 10);
  if (number < 0 || number >= classes) return -1;
  (void)snprintf(text, sizeof text, "%ld", number);
  return strcmp(text, name) == 0 ? (int32_t)number : -1;
}

/* Whether the names are the classes' numbers, which niti 0.1.0 recorded where a data set had no names. */
static bool are_numbers(const char *names) {
  int32_t count = 0;
  for (char text[16]; *names; ++count) {
    const int length = snprintf(text, sizeof text, "%d\n", count);
    if (strncmp(names, text, (size_t)length) != 0) return false;
    names += length;
  }
  return true;
}

/* Whether a folder's names are numbers. */
static bool name_numbers(const NitiDataset *dataset) {
  const int32_t count = niti_dataset_classes(dataset);
  for (int32_t i = 0; i < count; ++i) {
    if (number_of(niti_dataset_class_name(dataset, i), INT32_MAX) < 0) return false;
  }
  return true;
}

/* names NULL: the classes have numbers. */
static int32_t class_named(const char *names, const char *name, int32_t classes) {
  return names ? line_of(names, name) : number_of(name, classes);
}

static NitiStatus map_by_name(NitiTestSet *set, const char *own, const char *expected, int32_t network_classes) {
  char left[SHOWN_MAX], right[SHOWN_MAX];
  const int32_t classes = niti_dataset_classes(set->dataset);
  set->labels = malloc((size_t)classes * sizeof *set->labels);
  if (!set->labels) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %d labels", set->path, classes);
  for (int32_t i = 0; i < classes; ++i) {
    set->labels[i] = class_named(expected, niti_dataset_class_name(set->dataset, i), network_classes);
    if (set->labels[i] >= 0) continue;
    return niti_fail(NITI_ERROR_MODEL, "%s: the network has no class '%s': the data set's are %s, the network's %s", set->path,
                     niti_dataset_class_name(set->dataset, i), shown(left, own),
                     shown(right, expected ? expected : "their numbers"));
  }
  return NITI_OK;
}

/* Maps by name where both sides have names, or where a folder's names are numbers, which the network's classes have instead;
 * else by number. A folder may lack classes. */
static NitiStatus map_labels(NitiTestSet *set, const NitiRecipe *recipe, const NitiCheckpoint *checkpoint) {
  const char *recorded = niti_checkpoint_get(checkpoint, "classes");
  const char *expected = recorded && !are_numbers(recorded) ? recorded : NULL;
  const int32_t classes = niti_dataset_classes(set->dataset);
  char *own;
  NITI_TRY(niti_data_class_texts(&own, set->dataset, niti_dataset_class_name));
  NitiStatus status = NITI_OK;
  const bool folder = niti_dataset_is_folder(set->dataset);
  const bool numbered = own && !expected && folder && name_numbers(set->dataset);
  if (numbered || (own && expected && (folder || classes == recipe->model->classes))) {
    if (numbered || strcmp(own, expected) != 0) status = map_by_name(set, own, expected, recipe->model->classes);
  } else if (classes != recipe->model->classes) {
    status = niti_fail(NITI_ERROR_MODEL, "%s: the data set has %d classes but the model %d (expected equal)", set->path, classes,
                       recipe->model->classes);
  }
  free(own);
  return status;
}

/* ---- the set to score ---- */

static NitiStatus choose(const char **path, const NitiRecipe *recipe, const NitiCheckpoint *checkpoint) {
  const char *own = niti_checkpoint_get(checkpoint, "data");
  *path = own;
  bool there = false;
  if (own) NITI_TRY(niti_path_is_dir(&there, own));
  if (there) return NITI_OK;
  if (niti_data_default(path, recipe) == NITI_OK || !own) return *path ? NITI_OK : NITI_ERROR_ARGUMENT;
  return niti_fail(NITI_ERROR_FILE, "%s: the run's data set no longer exists (expected --data DIR)", own);
}

static bool holds_out(const NitiRecipe *recipe) { return recipe->data.validation_count > 0 || recipe->data.validation_share > 0; }

/* The split that the images of `split` are taken from: held-out ones come from the training files. Others that are there and
 * wanted are in *take. */
static unsigned needed(unsigned *take, const NitiRecipe *recipe, NitiSplit split) {
  const unsigned own = recipe->data.stat_count > 0 ? 0 : NITI_SPLIT_BIT(NITI_TRAIN); /* for the statistics */
  const bool held = split != NITI_TEST && holds_out(recipe);
  *take = held ? NITI_SPLIT_BIT(NITI_VALIDATION) : 0;
  return NITI_SPLIT_BIT(held ? NITI_TRAIN : split) | own;
}

static NitiStatus divide(NitiTestSet *set, const NitiRecipe *recipe, NitiSplit split) {
  const NitiSplit from = split == NITI_VALIDATION && niti_dataset_count(set->dataset, split) == 0 ? NITI_TRAIN : split;
  if (recipe->data.bad_files == NITI_BAD_SKIP && niti_dataset_is_folder(set->dataset))
    NITI_TRY(niti_dataset_check(set->dataset, from));
  if (split == NITI_TEST || !holds_out(recipe) || niti_dataset_count(set->dataset, NITI_VALIDATION) > 0) return NITI_OK;
  return niti_dataset_hold_out(set->dataset, recipe->data.validation_count, recipe->data.validation_share, recipe->seed);
}

/* How many images were scored, and their files' hash. */
static NitiStatus fill_split(NitiDataFacts *facts, NitiDataset *dataset, NitiSplit split) {
  int64_t *const images[] = {&facts->train_images, &facts->test_images, &facts->validation_images};
  char *const sha256[] = {facts->train_sha256, facts->test_sha256, facts->validation_sha256};
  facts->scored = split;
  *images[split] = niti_dataset_count(dataset, split);
  return niti_dataset_hash(dataset, split, sha256[split]);
}

/* Whether the run had the same images in this split. */
static bool of_run(const NitiDataFacts *facts, const NitiCheckpoint *checkpoint, NitiSplit split) {
  static const char *const keys[][2] = {{"train_set_sha256", "train_set_images"},
                                        {"test_set_sha256", "test_set_images"},
                                        {"validation_set_sha256", "validation_set_images"}};
  const int64_t images[] = {facts->train_images, facts->test_images, facts->validation_images};
  const char *const sha256[] = {facts->train_sha256, facts->test_sha256, facts->validation_sha256};
  const char *hash = niti_checkpoint_get(checkpoint, keys[split][0]), *count = niti_checkpoint_get(checkpoint, keys[split][1]);
  return hash && strcmp(hash, sha256[split]) == 0 && count && strtoll(count, NULL, 10) == images[split];
}

static NitiStatus open_set(NitiTestSet *set, const NitiRecipe *recipe, const NitiCheckpoint *checkpoint, const char *path,
                           NitiSplit split, const NitiDataWatch *watch) {
  NitiDataFacts *facts = &set->facts;
  unsigned take;
  set->path = niti_system.realpath(path, NULL);
  if (!set->path) return niti_fail_errno(path, "open the data set");
  const NitiDataRequest request = {.size = recipe->model->input,
                                   .need = needed(&take, recipe, split),
                                   .take = take,
                                   .classes = recipe->model->classes,
                                   .watch = *watch};
  NITI_TRY(niti_dataset_open(&set->dataset, set->path, &recipe->data, &request));
  NITI_TRY(divide(set, recipe, split));
  NITI_TRY(map_labels(set, recipe, checkpoint));
  facts->kind = niti_dataset_kind(set->dataset);
  facts->path = set->path;
  facts->classes = niti_dataset_classes(set->dataset);
  NITI_TRY(fill_split(facts, set->dataset, split));
  facts->of_run = of_run(facts, checkpoint, split);
  facts->run_path = niti_checkpoint_get(checkpoint, "data");
  return NITI_OK;
}

NitiStatus niti_test_set_open(NitiTestSet *out, const NitiRecipe *recipe, const NitiCheckpoint *checkpoint, const char *data,
                              NitiSplit split, const NitiDataWatch *watch) {
  niti_test_set_clear(out);
  if (!data) NITI_TRY(choose(&data, recipe, checkpoint));
  const NitiStatus status = open_set(out, recipe, checkpoint, data, split, watch);
  if (status != NITI_OK) niti_test_set_clear(out);
  return status;
}

void niti_test_set_close(NitiTestSet *set) {
  niti_dataset_close(set->dataset);
  free(set->labels);
  set->dataset = NULL;
  set->labels = NULL;
}

void niti_test_set_clear(NitiTestSet *set) {
  niti_test_set_close(set);
  free(set->path);
  *set = (NitiTestSet){0};
}
