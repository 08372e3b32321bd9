/* Data sets of arrays: {train,test,validation}_{x,y}.npy or .csv. Values of uint8 are images like any other; int8 and int16 stay
 * as they are until a loader makes mantissas of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/array.h"
#include "data/format.h"

enum { NAME_BYTES = 24, LABELS = 1 << 16 /* between two looks at the watch */ };

static void spell_name(char name[NAME_BYTES], int split, char part, const char *end) {
  static const char *const splits[NITI_SPLITS] = {"train", "test", "validation"};
  (void)snprintf(name, NAME_BYTES, "%s_%c%s", splits[split], part, end);
}

static NitiStatus has_split(bool *has, const char *path, int split, const char *end) {
  char x[NAME_BYTES], y[NAME_BYTES];
  spell_name(x, split, 'x', end);
  spell_name(y, split, 'y', end);
  NITI_TRY(niti_path_has_entry(has, path, x));
  return *has ? NITI_OK : niti_path_has_entry(has, path, y);
}

static NitiStatus probe(bool *found, const char *path, const char *end) {
  *found = false;
  for (int split = 0; split < NITI_SPLITS && !*found; ++split) NITI_TRY(has_split(found, path, split, end));
  return NITI_OK;
}

static NitiStatus read_array(NitiArray *array, NitiDataset *dataset, int which, char part, const char *end) {
  NitiDataSplit *split = &dataset->split[which];
  const int64_t columns = dataset->request.size.n ? (int64_t)niti_shape_image(dataset->request.size) : 0;
  char name[NAME_BYTES], *path = NULL;
  bool there;
  spell_name(name, which, part, end);
  *array = (NitiArray){0};
  NITI_TRY(niti_path_has_entry(&there, split->dir, name));
  if (!there) return niti_fail(NITI_ERROR_FILE, "%s/%s: not found", split->dir, name);
  NITI_TRY(niti_split_add_file(split, name));
  NITI_TRY(niti_path_join(&path, split->dir, name));
  const NitiStatus status =
      strcmp(end, ".csv") == 0 ? niti_csv_read(array, path, part == 'y', columns, dataset) : niti_npy_read(array, path);
  free(path);
  return status;
}

/* ---- values ---- */

/* One sample's shape, from the dimensions after the first: [H][W][C], [L][C] (1xLxC) or [F] (1x1xF). Where that is the wanted
 * shape in other words (as many values, as many channels; or grey images without their channel; or a row of all values), it is
 * that. */
static NitiShape sample_shape(const NitiArray *a, NitiShape wanted) {
  const int64_t *d = a->dims + 1;
  const int64_t h = a->ndim == 4 ? d[0] : 1, w = a->ndim == 4 ? d[1] : a->ndim == 3 ? d[0] : 1;
  const int64_t c = a->ndim > 1 ? d[a->ndim - 2] : 1;
  const bool same_channels = a->ndim == 3 && c == wanted.c && w == (int64_t)wanted.h * wanted.w;
  const bool grey = a->ndim == 3 && wanted.c == 1 && w == wanted.h && c == wanted.w;
  const bool row = a->ndim <= 2 && c == (int64_t)niti_shape_image(wanted);
  if (wanted.n && (same_channels || grey || row)) return wanted;
  return (NitiShape){1, (int32_t)h, (int32_t)w, (int32_t)c};
}

static NitiStatus check_values(const NitiArray *a, const char *dir, const char *name) {
  if (a->ndim < 2)
    return niti_fail(NITI_ERROR_FORMAT, "%s/%s: 1 dimension, expected [N][H][W][C], [N][L][C] or [N][F]", dir, name);
  if (!(a->bytes == 1 || (a->bytes == 2 && a->sign)))
    return niti_fail(NITI_ERROR_FORMAT, "%s/%s: %sint%d, expected uint8, int8 or int16", dir, name, a->sign ? "" : "u",
                     8 * a->bytes);
  for (int i = 1; i < a->ndim; ++i) {
    const int64_t most = i == a->ndim - 1 ? NITI_CHANNELS_MAX : NITI_IMAGE_SIDE_MAX;
    if (a->dims[i] > most && !(i == 1 && a->ndim == 2))
      return niti_fail(NITI_ERROR_FORMAT, "%s/%s: dimension %d is %lld, expected at most %lld", dir, name, i,
                       (long long)a->dims[i], (long long)most);
  }
  if (a->dims[0] > INT32_MAX) return niti_fail(NITI_ERROR_FORMAT, "%s/%s: too many samples", dir, name);
  return NITI_OK;
}

/* A mapped file's samples, read by position instead: the map of a file that is cut shorter would end the process. */
static NitiStatus leave_values(NitiDataSplit *split, const NitiArray *a, size_t count) {
  char *path = NULL;
  const uint64_t offset = (uint64_t)((const uint8_t *)a->data - (const uint8_t *)split->memory);
  NITI_TRY(niti_records_open(&split->records, NITI_RECORD_PLAIN, 0, count, (size_t)a->bytes));
  NITI_TRY(niti_path_join(&path, split->dir, split->files.path[0]));
  const NitiStatus status = niti_records_add(split->records, path, offset, split->stored);
  free(path);
  return status;
}

/* The split's values, which stay where they are. The first split's type and shape are those of the data set. */
static NitiStatus take_values(NitiDataset *dataset, NitiDataSplit *split, NitiArray *a) {
  const char *name = split->files.path[0];
  const NitiShape s = sample_shape(a, dataset->request.size);
  const NitiDataType type = a->bytes == 2 ? NITI_INT16 : a->sign ? NITI_INT8 : NITI_UINT8;
  split->memory = a->memory;
  split->mapped = a->mapped;
  a->memory = NULL;
  a->mapped = 0;
  NITI_TRY(check_values(a, split->dir, name));
  if (s.c > NITI_CHANNELS_MAX)
    return niti_fail(NITI_ERROR_FORMAT, "%s/%s: %d values per row, expected at most %d, or as many as the network's input has",
                     split->dir, name, s.c, NITI_CHANNELS_MAX);
  if (!dataset->shape.n) {
    dataset->shape = s;
    dataset->type = type;
  }
  const NitiShape is = dataset->shape;
  if (s.h != is.h || s.w != is.w || s.c != is.c)
    return niti_fail(NITI_ERROR_FORMAT, "%s/%s: samples of %dx%dx%d, expected %dx%dx%d as in the split before", split->dir, name,
                     s.h, s.w, s.c, is.h, is.w, is.c);
  if (type != dataset->type)
    return niti_fail(NITI_ERROR_FORMAT, "%s/%s: %s, expected %s as in the split before", split->dir, name,
                     niti_data_type_name(type), niti_data_type_name(dataset->type));
  split->stored = a->dims[0];
  if (dataset->request.lazy && split->mapped > 0) return leave_values(split, a, niti_shape_image(s));
  split->values = a->data;
  if (type == NITI_UINT8) split->images = a->data;
  return NITI_OK;
}

/* ---- labels ---- */

static int64_t label_at(const NitiArray *a, int64_t i) {
  const void *data = a->data;
  switch (a->bytes) {
    case 1: return a->sign ? ((const int8_t *)data)[i] : ((const uint8_t *)data)[i];
    case 2: return a->sign ? ((const int16_t *)data)[i] : ((const uint16_t *)data)[i];
    case 4: return a->sign ? ((const int32_t *)data)[i] : (int64_t)((const uint32_t *)data)[i];
    default: return ((const int64_t *)data)[i]; /* an unsigned one too large for any label becomes negative */
  }
}

static NitiStatus take_labels(NitiDataset *dataset, int which, const NitiArray *a) {
  NitiDataSplit *split = &dataset->split[which];
  const char *name = split->files.path[1];
  const bool bound = which != NITI_TRAIN && dataset->split[NITI_TRAIN].count > 0;
  const int32_t most = bound ? dataset->classes - 1 : NITI_CLASSES_MAX - 1;
  if (a->ndim > 2 || (a->ndim == 2 && a->dims[1] != 1))
    return niti_fail(NITI_ERROR_FORMAT, "%s/%s: expected one label per sample, [N]", split->dir, name);
  if (a->dims[0] != split->stored)
    return niti_fail(NITI_ERROR_FORMAT, "%s/%s: %lld labels, expected %lld as there are samples in %s", split->dir, name,
                     (long long)a->dims[0], (long long)split->stored, split->files.path[0]);
  split->labels = malloc((size_t)split->stored * sizeof *split->labels);
  if (!split->labels) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for labels", split->dir);
  for (int64_t i = 0; i < split->stored; ++i) {
    if (i % LABELS == 0) NITI_TRY(niti_dataset_watch(dataset, "reading labels", i, split->stored));
    const int64_t label = label_at(a, i);
    if (label < 0 || label > most)
      return niti_fail(NITI_ERROR_FORMAT, "%s/%s: label %lld of sample %lld, expected 0 to %d%s", split->dir, name,
                       (long long)label, (long long)i, most, bound ? " as in the training set" : "");
    split->labels[i] = (int32_t)label;
    if (label >= dataset->classes) dataset->classes = (int32_t)label + 1;
  }
  split->count = split->stored;
  return NITI_OK;
}

static NitiStatus read_split(NitiDataset *dataset, int which, const char *path, const char *end) {
  NitiDataSplit *split = &dataset->split[which];
  NitiArray x, y;
  split->dir = strdup(path);
  if (!split->dir) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a path", path);
  NitiStatus status = read_array(&x, dataset, which, 'x', end);
  if (status == NITI_OK) status = take_values(dataset, split, &x);
  niti_array_close(&x);
  NITI_TRY(status);
  status = read_array(&y, dataset, which, 'y', end);
  if (status == NITI_OK) status = take_labels(dataset, which, &y);
  niti_array_close(&y);
  return status;
}

static NitiStatus open_arrays(NitiDataset *dataset, const char *path, const char *end) {
  for (int split = 0; split < NITI_SPLITS; ++split) {
    bool wanted = niti_takes_split(dataset, (NitiSplit)split);
    if (wanted) NITI_TRY(has_split(&wanted, path, split, end));
    if (wanted || niti_needs_split(dataset, (NitiSplit)split)) NITI_TRY(read_split(dataset, split, path, end));
    NITI_TRY(niti_dataset_watch(dataset, "reading arrays", split, NITI_SPLITS));
  }
  if (dataset->classes < dataset->request.classes && !dataset->split[NITI_TRAIN].count)
    dataset->classes = dataset->request.classes;
  return niti_names_read(&dataset->names, path, "classes.txt", dataset->classes);
}

static NitiStatus probe_npy(bool *found, const char *path) { return probe(found, path, ".npy"); }
static NitiStatus probe_csv(bool *found, const char *path) { return probe(found, path, ".csv"); }
static NitiStatus open_npy(NitiDataset *dataset, const char *path) { return open_arrays(dataset, path, ".npy"); }
static NitiStatus open_csv(NitiDataset *dataset, const char *path) { return open_arrays(dataset, path, ".csv"); }

const NitiDataFormat niti_data_npy = {
    .kind = NITI_DATA_NPY,
    .name = "npy",
    .looked_for = "(train|test|validation)_(x|y).npy",
    .subfolders = {NULL},
    .probe = probe_npy,
    .open = open_npy,
};

const NitiDataFormat niti_data_csv = {
    .kind = NITI_DATA_CSV,
    .name = "csv",
    .looked_for = "(train|test|validation)_(x|y).csv",
    .subfolders = {NULL},
    .probe = probe_csv,
    .open = open_csv,
};
