/* Finds where two folders of vectors, or two runs, differ first. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/vectors.h"
#include "io/checkpoint.h"
#include "platform/file.h"
#include "platform/path.h"

enum { FILE_MAX = 1 << 30, EPOCHS_MAX = 1 << 20 };

/* ---- vectors ---- */

static NitiStatus load_index(json_t **out, const char *folder) {
  char *path, *text = NULL;
  json_error_t error;
  *out = NULL;
  NITI_TRY(niti_path_join(&path, folder, "index.json"));
  NitiStatus status = niti_file_read(&text, NULL, path, FILE_MAX);
  if (status == NITI_OK) {
    *out = json_loads(text, 0, &error);
    if (!*out)
      status = niti_fail(NITI_ERROR_FORMAT, "%s:%d: %s", path, error.line, error.text);
    else if (!json_is_array(json_object_get(*out, "operations")))
      status = niti_fail(NITI_ERROR_FORMAT, "%s: no list of operations", path);
  }
  free(text);
  free(path);
  return status;
}

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text ? text : "";
}

/* The bytes of a file of values in whichever format is there; *first: where the values begin; *width: bytes of one. */
static NitiStatus load_values(char **data, size_t *size, size_t *first, size_t *width, const char *folder, const json_t *entry) {
  char name[256], *path;
  const bool npy = ((void)snprintf(name, sizeof name, "%s.npy", text_of(entry, "file")), niti_path_has_file(folder, name));
  if (!npy) (void)snprintf(name, sizeof name, "%s.hex", text_of(entry, "file"));
  NITI_TRY(niti_path_join(&path, folder, name));
  const NitiStatus status = niti_file_read(data, size, path, FILE_MAX);
  free(path);
  NITI_TRY(status);
  const char *dtype = text_of(entry, "dtype");
  const size_t bytes = strstr(dtype, "64") ? 8 : strstr(dtype, "32") ? 4 : strstr(dtype, "16") ? 2 : 1;
  *first = npy && *size > 10 ? 10 + (size_t)(unsigned char)(*data)[8] + 256 * (size_t)(unsigned char)(*data)[9] : 0;
  *width = npy ? bytes : 2 * bytes + 1;
  return NITI_OK;
}

/* The first element of two files of values that differs; *equal: none does. Of different formats nothing is known: 0, false. */
static NitiStatus first_element(int64_t *at, bool *equal, const char *a, const json_t *x, const char *b, const json_t *y) {
  char *data[2] = {NULL, NULL};
  size_t size[2], first[2], width[2];
  *at = 0;
  *equal = false;
  NitiStatus status = load_values(&data[0], &size[0], &first[0], &width[0], a, x);
  if (status == NITI_OK) status = load_values(&data[1], &size[1], &first[1], &width[1], b, y);
  if (status == NITI_OK && width[0] == width[1]) {
    while (first[0] + width[0] <= size[0] && first[1] + width[1] <= size[1] &&
           memcmp(data[0] + first[0], data[1] + first[1], width[0]) == 0) {
      first[0] += width[0];
      first[1] += width[1];
      ++*at;
    }
    *equal = first[0] == size[0] && first[1] == size[1];
  }
  free(data[0]);
  free(data[1]);
  return status;
}

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

static bool has_format(const char *folder, const json_t *entry, const char *format) {
  char name[256];
  (void)snprintf(name, sizeof name, "%s.%s", text_of(entry, "file"), format);
  return niti_path_has_file(folder, name);
}

/* In a format whose values are read here. */
static bool has_values(const char *folder, const json_t *entry) {
  return has_format(folder, entry, "npy") || has_format(folder, entry, "hex");
}

static NitiStatus want_file(const char *folder, const json_t *entry) {
  if (has_values(folder, entry) || has_format(folder, entry, "h") || has_format(folder, entry, "safetensors")) return NITI_OK;
  return niti_fail(NITI_ERROR_FILE, "%s: %s is not there in any format, but index.json lists it", folder, text_of(entry, "file"));
}

/* Whether two entries of one shape hold the same: their files where both can be read, else what the indexes say. */
static NitiStatus compare_values(bool *equal, int64_t *at, const char *a, const json_t *x, const char *b, const json_t *y) {
  const bool digests = strcmp(text_of(x, "sha256"), text_of(y, "sha256")) == 0;
  *at = 0;
  *equal = digests;
  NITI_TRY(want_file(a, x));
  NITI_TRY(want_file(b, y));
  const bool one_format = has_format(a, x, "npy") == has_format(b, y, "npy");
  return has_values(a, x) && has_values(b, y) && (one_format || !digests) ? first_element(at, equal, a, x, b, y) : NITI_OK;
}

static NitiStatus compare_entry(NitiDifference *d, const json_t *operation, const char *a, const json_t *x, const char *b,
                                const json_t *y) {
  char place[256];
  int64_t at;
  const bool exponent = !same(json_object_get(x, "exponent"), json_object_get(y, "exponent"));
  const bool shape = !same(json_object_get(x, "dims"), json_object_get(y, "dims"));
  bool equal = false;
  if (!shape) NITI_TRY(compare_values(&equal, &at, a, x, b, y));
  if (!exponent && equal) return NITI_OK;
  d->differs = true;
  place_of(place, sizeof place, operation);
  if (shape || equal) {
    (void)snprintf(d->where, sizeof d->where, "%s: %s of %s", place, shape ? "the shape" : "the exponent", text_of(x, "name"));
    return NITI_OK;
  }
  (void)snprintf(d->where, sizeof d->where, "%s: element %" PRId64 " of %s (%s)", place, at, text_of(x, "name"),
                 text_of(x, "file"));
  return NITI_OK;
}

static NitiStatus compare_operation(NitiDifference *d, const json_t *x, const char *a, const json_t *y, const char *b) {
  static const char *const keys[] = {"inputs", "weights", "gradient", "a",     "b",       "accumulators",
                                     "max",    "shift",   "words",    "steps", "outputs", "results"};
  for (size_t k = 0; k < sizeof keys / sizeof *keys && !d->differs; ++k) {
    const json_t *p = json_object_get(x, keys[k]), *q = json_object_get(y, keys[k]);
    if (json_is_object(p) && json_is_object(q)) NITI_TRY(compare_entry(d, x, a, p, b, q));
    for (size_t i = 0; i < json_array_size(p) && i < json_array_size(q) && !d->differs; ++i)
      NITI_TRY(compare_entry(d, x, a, json_array_get(p, i), b, json_array_get(q, i)));
    if (d->differs || json_is_array(p) || json_is_object(p) || same(p, q)) continue;
    d->differs = true;
    place_of(d->where, sizeof d->where - 64, x);
    (void)snprintf(d->where + strlen(d->where), 64, ": %s", keys[k]);
  }
  return NITI_OK;
}

static NitiStatus compare_vectors(NitiDifference *d, const char *a, const char *b) {
  json_t *index[2] = {NULL, NULL};
  NitiStatus status = load_index(&index[0], a);
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
        status = compare_operation(d, p, a, q, b);
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
  return status;
}

/* ---- runs ---- */

static void epoch_name(char name[40], int32_t epoch) { (void)snprintf(name, 40, "epoch-%04" PRId32 ".safetensors", epoch); }

/* The epochs whose checkpoints both runs kept, ascending; epochs NULL: only counts. */
static int32_t kept_epochs(int32_t *epochs, const char *a, const char *b) {
  int32_t count = 0, missing = 0;
  for (int32_t epoch = 1; epoch < EPOCHS_MAX && missing < 1000; ++epoch) {
    char name[40];
    epoch_name(name, epoch);
    const bool both = niti_path_has_file(a, name) && niti_path_has_file(b, name);
    missing = both ? 0 : missing + 1;
    if (both && epochs) epochs[count] = epoch;
    count += both;
  }
  return count;
}

static NitiStatus load_from(NitiCheckpoint **out, const char *folder, const char *name) {
  char *path;
  NITI_TRY(niti_path_join(&path, folder, name));
  const NitiStatus status = niti_checkpoint_load(out, path);
  free(path);
  return status;
}

static void first_weight(NitiDifference *d, const NitiCheckpoint *x, const NitiCheckpoint *y, const char *name) {
  for (size_t i = 0; i < x->tensor_count && !d->differs; ++i) {
    const NitiCheckpointTensor *p = &x->tensors[i], *q = niti_checkpoint_find(y, p->name);
    size_t count = niti_dtype_size(p->dtype), at = 0;
    for (int k = 0; k < p->ndim; ++k) count *= p->dims[k];
    const bool same =
        q && q->dtype == p->dtype && q->ndim == p->ndim && memcmp(p->dims, q->dims, (size_t)p->ndim * sizeof *p->dims) == 0;
    d->differs = !same || p->exponent != q->exponent || memcmp(p->data, q->data, count) != 0;
    if (!d->differs) continue;
    while (same && at < count && ((const char *)p->data)[at] == ((const char *)q->data)[at]) ++at;
    (void)snprintf(d->where, sizeof d->where, same ? "%s: element %zu of %.300s" : "%s: the shape of %.0zu%.300s", name,
                   at / niti_dtype_size(p->dtype), p->name);
  }
}

static NitiStatus compare_checkpoints(NitiDifference *d, const char *a, const char *b, const char *name) {
  NitiCheckpoint *x = NULL, *y = NULL;
  NitiStatus status = load_from(&x, a, name);
  if (status == NITI_OK) status = load_from(&y, b, name);
  if (status == NITI_OK) first_weight(d, x, y, name);
  niti_checkpoint_close(x);
  niti_checkpoint_close(y);
  return status;
}

/* Once two runs differ they go on differing: the first such epoch is found in log2 of their number. */
static NitiStatus compare_runs(NitiDifference *d, const char *a, const char *b) {
  char name[40];
  const int32_t count = kept_epochs(NULL, a, b);
  int32_t *epochs = malloc(((size_t)count + 1) * sizeof *epochs), low = 0, high = count;
  NitiStatus status = epochs ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for %d epochs", count);
  if (epochs) (void)kept_epochs(epochs, a, b);
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

NitiStatus niti_compare(NitiDifference *out, const char *a, const char *b) {
  *out = (NitiDifference){.differs = false};
  const bool vectors = niti_path_has_file(a, "index.json"), other = niti_path_has_file(b, "index.json");
  if (vectors && other) return compare_vectors(out, a, b);
  if (niti_path_has_file(a, "last.safetensors") && niti_path_has_file(b, "last.safetensors")) return compare_runs(out, a, b);
  return niti_fail(NITI_ERROR_FILE, "%s, %s: expected two folders of vectors (index.json) or two runs (last.safetensors)", a, b);
}
