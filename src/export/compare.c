/* Finds where two folders of vectors, or two runs, differ first. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/values.h"
#include "export/vectors.h"
#include "io/checkpoint.h"
#include "platform/file.h"
#include "platform/json.h"
#include "platform/path.h"
#include "platform/text.h"

enum { FILE_MAX = 1 << 30, INDEX_DEPTH = 16 /* an index has 6 levels */, EPOCHS_MAX = 1 << 20 };

/* ---- vectors ---- */

static NitiStatus check_operations(const json_t *operations, const char *path) {
  if (!json_is_array(operations)) return niti_fail(NITI_ERROR_FORMAT, "%s: no list of operations", path);
  for (size_t i = 0; i < json_array_size(operations); ++i) {
    if (!json_is_string(json_object_get(json_array_get(operations, i), "opcode")))
      return niti_fail(NITI_ERROR_FORMAT, "%s: operation %zu has no opcode (expected an object with one)", path, i);
  }
  return NITI_OK;
}

static NitiStatus load_index(json_t **out, const char *folder) {
  char *path, *text = NULL;
  size_t size = 0;
  json_error_t error;
  *out = NULL;
  NITI_TRY(niti_path_join(&path, folder, "index.json"));
  NitiStatus status = niti_file_read(&text, &size, path, FILE_MAX);
  if (status == NITI_OK) status = niti_json_check(text, size, INDEX_DEPTH, SIZE_MAX, 0, path);
  if (status == NITI_OK) {
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!*out && !error.text[0]) /* jansson has no word for it */
      status = niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
    else if (!*out)
      status = niti_fail(NITI_ERROR_FORMAT, "%s:%d: %s", path, error.line, error.text);
    else
      status = check_operations(json_object_get(*out, "operations"), path);
  }
  free(text);
  free(path);
  return status;
}

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text ? text : "";
}

/* Two folders, and which files of theirs have been found equal: an operation's results are the next one's operands, and a
 * stranger's index may name one file a thousand times. */
typedef struct Folders {
  const char *a, *b;
  json_t *equal; /* an object whose keys are key_of's */
} Folders;

static bool same(const json_t *a, const json_t *b) { return (!a && !b) || json_equal(a, b); }

static void place_of(char *out, size_t size, const json_t *operation) {
  if (json_object_get(operation, "step"))
    (void)snprintf(out, size, "step %" JSON_INTEGER_FORMAT ", operation %" JSON_INTEGER_FORMAT ", %s %s",
                   json_integer_value(json_object_get(operation, "step")),
                   json_integer_value(json_object_get(operation, "operation")), text_of(operation, "layer"),
                   text_of(operation, "opcode"));
  else
    (void)snprintf(out, size, "a case of %s", text_of(operation, "opcode"));
}

/* Values that were read first, with which all others are compared. */
typedef struct Values {
  void *data;
  const char *folder, *ending;
} Values;

/* Where two files of the same shape differ. */
typedef struct Mismatch {
  bool differs;
  size_t at; /* the element */
  const char *folder, *ending;
} Mismatch;

static size_t first_different(const char *a, const char *b, const NitiFileValues *v) {
  size_t i = 0;
  while (i < v->count && memcmp(a + i * v->width, b + i * v->width, v->width) == 0) ++i;
  return i;
}

/* Compares the values of one file, if it is there, with the first ones, which they may become. */
static NitiStatus compare_file(Mismatch *m, Values *first, const NitiFileValues *v, int format, bool *there) {
  void *data;
  NITI_TRY(niti_file_values_read(&data, v, format));
  if (!data) return NITI_OK;
  *there = true;
  if (!first->data) {
    *first = (Values){data, v->folder, niti_values_endings[format]};
    return NITI_OK;
  }
  const size_t at = first_different(first->data, data, v);
  if (at < v->count) *m = (Mismatch){true, at, v->folder, niti_values_endings[format]};
  free(data);
  return NITI_OK;
}

/* Every format that is there: none counts as another's copy, and no digest stands for values. */
static NitiStatus compare_files(Mismatch *m, Values *first, const char *folder, const json_t *entry) {
  NitiFileValues v;
  bool there = false;
  NITI_TRY(niti_file_values_open(&v, folder, entry));
  for (int format = 0; format < NITI_VALUES_FORMATS && !m->differs; ++format)
    NITI_TRY(compare_file(m, first, &v, format, &there));
  return there ? NITI_OK
               : niti_fail(NITI_ERROR_FILE, "%s: %s is not there in any format, but index.json lists it", folder, v.stem);
}

static void say_element(NitiDifference *d, const char *place, const json_t *entry, const Mismatch *m, const Values *first) {
  (void)snprintf(d->where, sizeof d->where, "%s: element %zu of %s (%s", place, m->at, text_of(entry, "name"),
                 text_of(entry, "file"));
  const size_t used = strlen(d->where), left = sizeof d->where - used;
  if (m->folder == first->folder)
    (void)snprintf(d->where + used, left, ".%s and .%s of %s)", first->ending, m->ending, m->folder);
  else if (m->ending != first->ending)
    (void)snprintf(d->where + used, left, ": .%s here, .%s there)", first->ending, m->ending);
  else
    (void)snprintf(d->where + used, left, ")");
}

/* The first of an entry's own words that differ; NULL: none does. */
static const char *other_word(const json_t *x, const json_t *y) {
  static const char *const keys[] = {"dims", "dtype", "layout"}, *const names[] = {"the shape", "the dtype", "the layout"};
  for (int k = 0; k < 3; ++k) {
    if (!same(json_object_get(x, keys[k]), json_object_get(y, keys[k]))) return names[k];
  }
  return NULL;
}

/* Of files whose shape and type are the same; NULL: out of memory. */
static char *key_of(const json_t *x, const json_t *y) {
  NitiTextMemory memory;
  const json_t *shape = json_object_get(x, "dims");
  char *dims = shape ? niti_json_text(shape, JSON_COMPACT | JSON_ENCODE_ANY) : strdup("");
  if (dims && niti_text_open(&memory)) {
    fprintf(memory.to, "%s/%s/%s/%s", text_of(x, "file"), text_of(y, "file"), text_of(x, "dtype"), dims);
    free(dims);
    return niti_text_close(&memory, NULL);
  }
  free(dims);
  return NULL;
}

static NitiStatus compare_values(Mismatch *m, Values *first, const Folders *folders, const json_t *x, const json_t *y) {
  char *key = key_of(x, y);
  if (!key) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", folders->a);
  NitiStatus status = NITI_OK;
  if (!json_object_get(folders->equal, key)) {
    status = compare_files(m, first, folders->a, x);
    if (status == NITI_OK && !m->differs) status = compare_files(m, first, folders->b, y);
    if (status == NITI_OK && !m->differs && json_object_set_new(folders->equal, key, json_true()) != 0)
      status = niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", folders->a);
  }
  free(key);
  return status;
}

static NitiStatus compare_entry(NitiDifference *d, const Folders *folders, const json_t *operation, const json_t *x,
                                const json_t *y) {
  char place[256];
  Values first = {NULL, NULL, NULL};
  Mismatch m = {.differs = false};
  const char *word = other_word(x, y);
  NitiStatus status = word ? NITI_OK : compare_values(&m, &first, folders, x, y);
  if (status == NITI_OK && !word && !m.differs && !same(json_object_get(x, "exponent"), json_object_get(y, "exponent")))
    word = "the exponent";
  d->differs = word || m.differs;
  place_of(place, sizeof place, operation);
  if (word) (void)snprintf(d->where, sizeof d->where, "%s: %s of %s", place, word, text_of(x, "name"));
  if (m.differs) say_element(d, place, x, &m, &first);
  free(first.data);
  return status;
}

/* Of whatever an operation's entry has under a key: an entry of values, a list of them, or a word. */
static NitiStatus compare_key(NitiDifference *d, const Folders *folders, const json_t *x, const json_t *y, const char *key) {
  const json_t *p = json_object_get(x, key), *q = json_object_get(y, key);
  const bool values = json_object_get(p, "file") && json_object_get(q, "file");
  const bool lists = json_is_object(json_array_get(p, 0)) && json_array_size(p) == json_array_size(q);
  if (values) return compare_entry(d, folders, x, p, q);
  for (size_t i = 0; i < json_array_size(p) && lists && !d->differs; ++i)
    NITI_TRY(compare_entry(d, folders, x, json_array_get(p, i), json_array_get(q, i)));
  if (d->differs || lists || same(p, q)) return NITI_OK;
  d->differs = true;
  place_of(d->where, sizeof d->where - 64, x);
  (void)snprintf(d->where + strlen(d->where), 64, ": %s", key);
  return NITI_OK;
}

static NitiStatus compare_operation(NitiDifference *d, const Folders *folders, const json_t *x, const json_t *y) {
  static const char *const keys[] = {"inputs", "weights", "gradient", "a",     "b",       "accumulators",
                                     "max",    "shift",   "words",    "steps", "outputs", "results"};
  for (size_t k = 0; k < sizeof keys / sizeof *keys && !d->differs; ++k) NITI_TRY(compare_key(d, folders, x, y, keys[k]));
  return NITI_OK;
}

static NitiStatus compare_vectors(NitiDifference *d, const char *a, const char *b) {
  json_t *index[2] = {NULL, NULL};
  const Folders folders = {a, b, json_object()};
  NitiStatus status = folders.equal ? load_index(&index[0], a) : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", a);
  if (status == NITI_OK) status = load_index(&index[1], b);
  if (status == NITI_OK && strcmp(text_of(index[0], "arithmetic"), text_of(index[1], "arithmetic")) != 0) {
    d->differs = true;
    (void)snprintf(d->where, sizeof d->where, "arithmetic %.20s here, %.20s there", text_of(index[0], "arithmetic"),
                   text_of(index[1], "arithmetic"));
  }
  if (status == NITI_OK && !d->differs) {
    const json_t *x = json_object_get(index[0], "operations"), *y = json_object_get(index[1], "operations");
    for (size_t i = 0; i < json_array_size(x) && i < json_array_size(y) && status == NITI_OK && !d->differs; ++i) {
      const json_t *p = json_array_get(x, i), *q = json_array_get(y, i);
      if (strcmp(text_of(p, "opcode"), text_of(q, "opcode")) == 0) {
        status = compare_operation(d, &folders, p, q);
        continue;
      }
      d->differs = true;
      (void)snprintf(d->where, sizeof d->where, "entry %zu: %s here, %s there", i, text_of(p, "opcode"), text_of(q, "opcode"));
    }
    if (!d->differs && json_array_size(x) != json_array_size(y)) {
      d->differs = true;
      (void)snprintf(d->where, sizeof d->where, "%zu operations here, %zu there", json_array_size(x), json_array_size(y));
    }
  }
  json_decref(index[0]);
  json_decref(index[1]);
  json_decref(folders.equal);
  return status;
}

/* ---- runs ---- */

static void epoch_name(char name[40], int32_t epoch) { (void)snprintf(name, 40, "epoch-%04" PRId32 ".safetensors", epoch); }

static NitiStatus both_have(bool *both, const char *a, const char *b, const char *name) {
  NITI_TRY(niti_path_has_file(both, a, name));
  return *both ? niti_path_has_file(both, b, name) : NITI_OK;
}

/* The first `room` epochs whose checkpoints both runs kept, ascending; epochs NULL: only counts. */
static NitiStatus kept_epochs(int32_t *count, int32_t *epochs, int32_t room, const char *a, const char *b) {
  int32_t missing = 0;
  *count = 0;
  for (int32_t epoch = 1; epoch < EPOCHS_MAX && missing < 1000 && *count < room; ++epoch) {
    char name[40];
    epoch_name(name, epoch);
    bool both;
    NITI_TRY(both_have(&both, a, b, name));
    missing = both ? 0 : missing + 1;
    if (both && epochs) epochs[*count] = epoch;
    *count += both;
  }
  return NITI_OK;
}

static NitiStatus load_from(NitiCheckpoint **out, const char *folder, const char *name) {
  char *path;
  NITI_TRY(niti_path_join(&path, folder, name));
  const NitiStatus status = niti_checkpoint_load(out, path);
  free(path);
  return status;
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(const NitiCheckpointTensor *const *)a)->name, (*(const NitiCheckpointTensor *const *)b)->name);
}

/* The tensors by their names, owned; NULL: out of memory. */
static const NitiCheckpointTensor **sorted(const NitiCheckpoint *checkpoint) {
  const NitiCheckpointTensor **list = malloc((checkpoint->tensor_count + 1) * sizeof *list);
  for (size_t i = 0; list && i < checkpoint->tensor_count; ++i) list[i] = &checkpoint->tensors[i];
  if (list) qsort(list, checkpoint->tensor_count, sizeof *list, by_name);
  return list;
}

static void compare_weight(NitiDifference *d, const NitiCheckpointTensor *p, const NitiCheckpointTensor *q, const char *name) {
  size_t count = niti_dtype_size(p->dtype), at = 0;
  for (int k = 0; k < p->ndim; ++k) count *= p->dims[k];
  const bool same =
      q && q->dtype == p->dtype && q->ndim == p->ndim && memcmp(p->dims, q->dims, (size_t)p->ndim * sizeof *p->dims) == 0;
  d->differs = !same || p->exponent != q->exponent || memcmp(p->data, q->data, count) != 0;
  if (!d->differs) return;
  while (same && at < count && ((const char *)p->data)[at] == ((const char *)q->data)[at]) ++at;
  if (same && at < count)
    (void)snprintf(d->where, sizeof d->where, "%s: element %zu of %.300s", name, at / niti_dtype_size(p->dtype), p->name);
  else
    (void)snprintf(d->where, sizeof d->where, "%s: the %s of %.300s", name, same ? "exponent" : "shape", p->name);
}

static NitiStatus first_weight(NitiDifference *d, const NitiCheckpoint *x, const NitiCheckpoint *y, const char *name) {
  const NitiCheckpointTensor **others = sorted(y);
  if (!others) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", name);
  for (size_t i = 0; i < x->tensor_count && !d->differs; ++i) {
    const NitiCheckpointTensor *own = &x->tensors[i];
    const NitiCheckpointTensor *const *other = bsearch(&own, others, y->tensor_count, sizeof *others, by_name);
    compare_weight(d, own, other ? *other : NULL, name);
  }
  free(others);
  return NITI_OK;
}

/* Weights of different steps are not expected to be equal. */
static void other_step(NitiDifference *d, const NitiCheckpoint *x, const NitiCheckpoint *y, const char *name) {
  const char *p = niti_checkpoint_get(x, "step"), *q = niti_checkpoint_get(y, "step");
  if (!p || !q || strcmp(p, q) == 0) return;
  d->differs = true;
  (void)snprintf(d->where, sizeof d->where, "%s: after step %.20s here, after step %.20s there", name, p, q);
}

static NitiStatus compare_checkpoints(NitiDifference *d, const char *a, const char *b, const char *name) {
  NitiCheckpoint *x = NULL, *y = NULL;
  NitiStatus status = load_from(&x, a, name);
  if (status == NITI_OK) status = load_from(&y, b, name);
  if (status == NITI_OK) other_step(d, x, y, name);
  if (status == NITI_OK && !d->differs) status = first_weight(d, x, y, name);
  niti_checkpoint_close(x);
  niti_checkpoint_close(y);
  return status;
}

/* Once two runs differ they go on differing: the first such epoch is found in log2 of their number. */
static NitiStatus compare_runs(NitiDifference *d, const char *a, const char *b) {
  char name[40];
  int32_t count = 0;
  NITI_TRY(kept_epochs(&count, NULL, EPOCHS_MAX, a, b));
  int32_t *epochs = malloc(((size_t)count + 1) * sizeof *epochs);
  NitiStatus status = epochs ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for %d epochs", count);
  if (status == NITI_OK) status = kept_epochs(&count, epochs, count, a, b);
  int32_t low = 0, high = count;
  while (status == NITI_OK && low < high) {
    NitiDifference there = {.differs = false};
    const int32_t middle = low + (high - low) / 2;
    epoch_name(name, epochs[middle]);
    status = compare_checkpoints(&there, a, b, name);
    if (there.differs) {
      *d = there;
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  free(epochs);
  return status == NITI_OK && !d->differs ? compare_checkpoints(d, a, b, "last.safetensors") : status;
}

static NitiStatus compare(NitiDifference *out, const char *a, const char *b) {
  bool vectors, runs;
  NITI_TRY(both_have(&vectors, a, b, "index.json"));
  if (vectors) return compare_vectors(out, a, b);
  NITI_TRY(both_have(&runs, a, b, "last.safetensors"));
  if (runs) return compare_runs(out, a, b);
  return niti_fail(NITI_ERROR_FILE, "%s, %s: expected two folders of vectors (index.json) or two runs (last.safetensors)", a, b);
}

NitiStatus niti_compare(NitiDifference *out, const char *a, const char *b) {
  NitiDifference found = {.differs = false};
  const NitiStatus status = compare(&found, a, b);
  *out = (NitiDifference){.differs = found.differs};
  (void)niti_text_escape(out->where, sizeof out->where, found.where, true); /* names are a stranger's */
  return status;
}
