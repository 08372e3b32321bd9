/* Opens data sets: finds out which format a folder holds, and answers for the one that is open. */
#include "data/dataset.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/format.h"
#include "data/image.h"
#include "data/values.h"
#include "data/watch.h"
#include "platform/clock.h"
#include "platform/environment.h"
#include "platform/system.h"
#include "platform/text.h"

static const NitiDataFormat *const formats[] = {&niti_data_idx,    &niti_data_cifar10, &niti_data_cifar100,
                                                &niti_data_folder, &niti_data_npy,     &niti_data_csv};
enum { FORMATS = sizeof formats / sizeof *formats };

/* ---- for the formats ---- */

const char *niti_split_name(NitiSplit split) {
  static const char *const names[NITI_SPLITS] = {"training", "test", "validation"};
  return names[split];
}

const char *niti_data_type_name(NitiDataType type) {
  static const char *const names[] = {"uint8", "int8", "int16"};
  return names[type];
}

bool niti_takes_split(const NitiDataset *dataset, NitiSplit split) {
  const unsigned take = dataset->request.take | dataset->request.need;
  return take == 0 || (take & NITI_SPLIT_BIT(split));
}

bool niti_needs_split(const NitiDataset *dataset, NitiSplit split) { return dataset->request.need & NITI_SPLIT_BIT(split); }

NitiStatus niti_dataset_add_note(NitiDataset *dataset, const char *format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  niti_text_format(text, sizeof text, format, args);
  va_end(args);
  return niti_paths_add(&dataset->notes, text, "notes");
}

NitiStatus niti_dataset_watch(NitiDataset *dataset, const char *what, int64_t done, int64_t total) {
  return niti_watch(&dataset->request.watch, &dataset->watched, what, done, total);
}

static NitiStatus check_range(const char *what, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT, "%s %lld is not in %lld..%lld", what, (long long)value, (long long)least,
                   (long long)most);
}

static NitiStatus check_augmentation(const NitiDataOptions *o) {
  NITI_TRY(check_range("cutout", o->cutout, 0, NITI_IMAGE_SIDE_MAX));
  NITI_TRY(check_range("brightness", o->brightness, 0, NITI_STRENGTH_MAX));
  NITI_TRY(check_range("contrast", o->contrast, 0, NITI_STRENGTH_MAX));
  NITI_TRY(check_range("mixup", o->mixup, NITI_MIXUP_NONE, NITI_MIXUP_EVEN));
  NITI_TRY(check_range("saturation", o->saturation, 0, NITI_STRENGTH_MAX));
  if (!o->resized_crop) return NITI_OK;
  NITI_TRY(check_range("scale", o->scale[0], 1, NITI_SCALE_MAX));
  NITI_TRY(check_range("scale", o->scale[1], o->scale[0], NITI_SCALE_MAX));
  NITI_TRY(check_range("aspect", o->aspect[0], NITI_ASPECT_MIN, NITI_ASPECT_MAX));
  return check_range("aspect", o->aspect[1], o->aspect[0], NITI_ASPECT_MAX);
}

NitiStatus niti_data_options_check(const NitiDataOptions *options) {
  if (options->pad < 0 || options->pad > NITI_IMAGE_SIDE_MAX / 2)
    return niti_fail(NITI_ERROR_ARGUMENT, "padding %d is not in 0..%d pixels", options->pad, NITI_IMAGE_SIDE_MAX / 2);
  if (options->resize < 0 || options->resize > NITI_IMAGE_SIDE_MAX)
    return niti_fail(NITI_ERROR_ARGUMENT, "resize %d is not in 0..%d pixels", options->resize, NITI_IMAGE_SIDE_MAX);
  return check_augmentation(options);
}

/* ---- open and close ---- */

/* Where a format's files are: path itself (where = NULL) or one of its usual subfolders. */
typedef struct Match {
  const NitiDataFormat *format;
  const char *where;
} Match;

static NitiStatus probe_subfolder(bool *found, const NitiDataFormat *format, const char *path, const char *where) {
  char *folder = NULL;
  NITI_TRY(niti_path_join(&folder, path, where));
  const NitiStatus status = format->probe(found, folder);
  free(folder);
  return status;
}

static NitiStatus find_matches(Match *matches, int *count, const char *path, NitiDataKind kind) {
  bool found;
  *count = 0;
  for (int i = 0; i < FORMATS; ++i) {
    if (kind != NITI_DATA_AUTO && kind != formats[i]->kind) continue;
    NITI_TRY(formats[i]->probe(&found, path));
    if (found) matches[(*count)++] = (Match){.format = formats[i]};
  }
  for (int i = 0, all = *count == 0 ? FORMATS : 0; i < all; ++i) {
    if (kind != NITI_DATA_AUTO && kind != formats[i]->kind) continue;
    for (const char *const *where = formats[i]->subfolders; *where; ++where) {
      NITI_TRY(probe_subfolder(&found, formats[i], path, *where));
      if (found) matches[(*count)++] = (Match){.format = formats[i], .where = *where};
    }
  }
  return NITI_OK;
}

const char *niti_data_probe(const char *path) {
  for (int i = 0; i < FORMATS; ++i) {
    bool found;
    if (formats[i]->probe(&found, path) == NITI_OK && found) return formats[i]->name;
  }
  return NULL;
}

static NitiStatus fail_without_match(const char *path, NitiDataKind kind, const char *looked_for) {
  char hint[400];
  const char *other = kind == NITI_DATA_AUTO ? NULL : niti_data_probe(path);
  if (other)
    return niti_fail(NITI_ERROR_FORMAT, "%s: no data set of this kind found, but one of kind %s; looked for %s", path, other,
                     looked_for);
  niti_data_hint(hint, sizeof hint, path);
  if (*hint) return niti_fail(NITI_ERROR_FORMAT, "%s: no data set found: %s", path, hint);
  return niti_fail(NITI_ERROR_FORMAT, "%s: no data set found; looked for %s", path, looked_for);
}

/* Exactly one match is wanted; otherwise says what was there or what was looked for. */
static NitiStatus choose_match(Match *out, const char *path, NitiDataKind kind) {
  enum { SUBFOLDERS = sizeof formats[0]->subfolders / sizeof *formats[0]->subfolders };
  Match matches[FORMATS * (1 + SUBFOLDERS)];
  char text[600] = "";
  size_t used = 0;
  int count;
  NITI_TRY(find_matches(matches, &count, path, kind));
  if (count == 1) {
    *out = matches[0];
    return NITI_OK;
  }
  for (int i = 0; i < (count > 0 ? count : FORMATS) && used < sizeof text; ++i) {
    const char *separator = i > 0 ? "; " : "";
    int added = 0;
    if (count > 0) {
      added = snprintf(text + used, sizeof text - used, "%s%s in %s%s", separator, matches[i].format->name,
                       matches[i].where ? matches[i].where : "it", matches[i].where ? "/" : "");
    } else if (kind == NITI_DATA_AUTO || kind == formats[i]->kind) {
      added =
          snprintf(text + used, sizeof text - used, "%s%s: %s", used > 0 ? "; " : "", formats[i]->name, formats[i]->looked_for);
    }
    used += added > 0 ? (size_t)added : 0;
  }
  if (count > 0)
    return niti_fail(NITI_ERROR_FORMAT, "%s: holds more than one data set (%s): name one folder and its kind", path, text);
  return fail_without_match(path, kind, text);
}

/* Notes the classes that have no image in a split. */
static NitiStatus note_missing(NitiDataset *dataset, NitiSplit which) {
  const NitiDataSplit *split = &dataset->split[which];
  char text[300], number[16];
  size_t used = 0;
  int32_t count = 0;
  bool *has = calloc((size_t)dataset->classes, sizeof *has);
  if (!has) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for its classes", split->dir);
  for (int64_t i = 0; i < split->count; ++i) has[split->labels[i]] = true;
  for (int32_t i = 0; i < dataset->classes; ++i) {
    if (has[i]) continue;
    (void)snprintf(number, sizeof number, "%d", i);
    const char *name = dataset->names ? dataset->names[i] : number;
    if (used < sizeof text) used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", count ? ", " : "", name);
    ++count;
  }
  free(has);
  if (count == 0) return NITI_OK;
  return niti_dataset_add_note(dataset, "%s: no %s images of %d of %d classes: %s%s", split->dir, niti_split_name(which), count,
                               dataset->classes, text, used < sizeof text ? "" : "...");
}

static NitiStatus check_opened(NitiDataset *dataset, const char *path) {
  for (int i = 0; i < NITI_SPLITS; ++i) {
    const NitiDataSplit *split = &dataset->split[i];
    if (split->count < 1 && (split->dir || niti_needs_split(dataset, (NitiSplit)i)))
      return niti_fail(NITI_ERROR_FORMAT, "%s: holds no %s images", split->dir ? split->dir : path,
                       niti_split_name((NitiSplit)i));
    if (split->count > 0) NITI_TRY(note_missing(dataset, (NitiSplit)i));
  }
  return NITI_OK;
}

static NitiStatus open_match(NitiDataset *dataset, const char *path, const Match *match) {
  char *folder = NULL;
  NITI_TRY(niti_path_join(&folder, path, match->where ? match->where : ""));
  for (size_t end = strlen(folder); end > 1 && folder[end - 1] == '/'; --end) folder[end - 1] = 0; /* for messages */
  dataset->format = match->format;
  NitiStatus status = match->format->open(dataset, folder);
  if (status == NITI_OK) status = check_opened(dataset, folder);
  free(folder);
  return status;
}

NitiStatus niti_dataset_open(NitiDataset **out, const char *path, const NitiDataOptions *options,
                             const NitiDataRequest *request) {
  struct stat facts;
  Match match = {0};
  *out = NULL;
  if (options) NITI_TRY(niti_data_options_check(options));
  if (options && (options->kind < NITI_DATA_AUTO || options->kind > NITI_DATA_CSV))
    return niti_fail(NITI_ERROR_ARGUMENT, "data kind %d is not known", (int)options->kind);
  if (niti_system.stat(path, &facts) != 0) return niti_fail(NITI_ERROR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
  if (!S_ISDIR(facts.st_mode)) return niti_fail(NITI_ERROR_FILE, "%s: expected a folder", path);
  NITI_TRY(choose_match(&match, path, options ? options->kind : NITI_DATA_AUTO));

  NitiDataset *dataset = calloc(1, sizeof *dataset);
  if (!dataset) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a data set", path);
  if (options) dataset->options = *options;
  if (request) dataset->request = *request;
  dataset->watched = niti_clock_now();
  dataset->opened = time(NULL);
  const NitiStatus status = open_match(dataset, path, &match);
  if (status != NITI_OK) {
    niti_dataset_close(dataset);
    return status;
  }
  *out = dataset;
  return NITI_OK;
}

static void close_split(NitiDataSplit *split) {
  niti_paths_close(&split->bad);
  free(split->bad_index);
  free(split->sums);
  free(split->index);
  if (split->shared) return;
  niti_paths_close(&split->files);
  free(split->facts);
  free(split->dir);
  niti_records_close(split->records);
  if (split->mapped > 0)
    (void)niti_system.munmap(split->memory, split->mapped);
  else
    free(split->memory);
  free(split->labels);
}

void niti_dataset_close(NitiDataset *dataset) {
  if (!dataset) return;
  for (int i = 0; i < NITI_SPLITS; ++i) close_split(&dataset->split[i]);
  niti_names_close(dataset->names, dataset->classes);
  niti_names_close(dataset->labels, dataset->classes);
  niti_paths_close(&dataset->notes);
  free(dataset);
}

const char *niti_dataset_default(void) {
  static const char *const debian = "/usr/share/datasets/fashion-mnist";
  const char *named = niti_environment_get("NITI_DATA");
  if (named) return named;
  bool there;
  const NitiStatus status = niti_path_is_dir(&there, debian);
  return there || status != NITI_OK ? debian : NULL; /* opening it says why */
}

/* ---- what it holds ---- */

const char *niti_dataset_kind(const NitiDataset *dataset) { return dataset->format->name; }
NitiDataType niti_dataset_type(const NitiDataset *dataset) { return dataset->type; }
bool niti_dataset_is_folder(const NitiDataset *dataset) { return dataset->format->kind == NITI_DATA_FOLDER; }
int32_t niti_dataset_classes(const NitiDataset *dataset) { return dataset->classes; }

const char *niti_dataset_class_name(const NitiDataset *dataset, int32_t label) {
  return dataset->names && label >= 0 && label < dataset->classes ? dataset->names[label] : NULL;
}

const char *niti_dataset_class_label(const NitiDataset *dataset, int32_t label) {
  const char *name = niti_dataset_class_name(dataset, label);
  return name && dataset->labels && dataset->labels[label] ? dataset->labels[label] : name;
}

int64_t niti_dataset_count(const NitiDataset *dataset, NitiSplit split) { return dataset->split[split].count; }
NitiShape niti_dataset_shape(const NitiDataset *dataset) { return dataset->shape; }
int64_t niti_dataset_stored(const NitiDataset *dataset, NitiSplit split) { return dataset->split[split].stored; }

int64_t niti_dataset_place(const NitiDataset *dataset, NitiSplit split, int64_t index) {
  const uint32_t *places = dataset->split[split].index;
  return places ? places[index] : index;
}

int32_t niti_dataset_label(const NitiDataset *dataset, NitiSplit split, int64_t index) {
  return dataset->split[split].labels[niti_dataset_place(dataset, split, index)];
}

const char *niti_dataset_file(const NitiDataset *dataset, NitiSplit split, int64_t index) {
  const NitiDataSplit *s = &dataset->split[split];
  return niti_dataset_is_folder(dataset) ? s->files.path[niti_dataset_place(dataset, split, index)] : NULL;
}

const char *niti_dataset_note(const NitiDataset *dataset, int index) {
  return index >= 0 && (size_t)index < dataset->notes.count ? dataset->notes.path[index] : NULL;
}

const uint8_t *niti_dataset_images(const NitiDataset *dataset, NitiSplit split) { return dataset->split[split].images; }

static NitiStatus copy_stored(uint8_t *out, uint16_t *grey, const NitiDataset *dataset, const NitiDataSplit *split,
                              int64_t place) {
  const NitiShape s = dataset->shape;
  const void *image;
  NITI_TRY(niti_split_sample(&image, out, dataset, split, place));
  if (grey) *grey = niti_image_grey(image, (int64_t)s.h * s.w, s.c);
  if (image != out) memcpy(out, image, niti_shape_image(s));
  return NITI_OK;
}

NitiStatus niti_dataset_read_window(const NitiDataset *dataset, NitiSplit split, int64_t index, const NitiWindow *window,
                                    uint16_t *grey, uint8_t *out) {
  const NitiDataSplit *s = &dataset->split[split];
  NitiImage image;
  if (index < 0 || index >= s->count)
    return niti_fail(NITI_ERROR_ARGUMENT, "image %lld is not in 0..%lld", (long long)index, (long long)s->count - 1);
  const int64_t place = niti_dataset_place(dataset, split, index);
  if (dataset->type != NITI_UINT8)
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: values of %s are no pixels", s->dir, niti_data_type_name(dataset->type));
  if (!niti_dataset_is_folder(dataset)) return copy_stored(out, grey, dataset, s, place);
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, s->dir, s->files.path[place]));
  NitiStatus status = niti_image_load(&image, path, dataset->shape.c);
  if (status == NITI_OK && grey) *grey = niti_image_grey(image.pixels, (int64_t)image.h * image.w, image.c);
  if (status == NITI_OK) status = niti_image_fit(out, &image, &dataset->options, dataset->shape, *window, path);
  free(image.pixels);
  free(path);
  return status;
}

NitiStatus niti_dataset_read(const NitiDataset *dataset, NitiSplit split, int64_t index, bool centre, uint32_t word_y,
                             uint32_t word_x, uint8_t *out) {
  const NitiWindow window = {.centre = centre, .word_y = word_y, .word_x = word_x};
  return niti_dataset_read_window(dataset, split, index, &window, NULL, out);
}

NitiStatus niti_dataset_read_values(const NitiDataset *dataset, NitiSplit split, int64_t index, const NitiDataOptions *options,
                                    NitiShape size, int8_t *out) {
  const NitiDataSplit *s = &dataset->split[split];
  const NitiWindow window = {.centre = true};
  if (index < 0 || index >= s->count)
    return niti_fail(NITI_ERROR_ARGUMENT, "sample %lld is not in 0..%lld", (long long)index, (long long)s->count - 1);
  if (dataset->type == NITI_UINT8) return niti_fail(NITI_ERROR_ARGUMENT, "%s: pixels are no signed values", s->dir);
  return niti_values_window(out, dataset, s, niti_dataset_place(dataset, split, index), options, size, window);
}
