/* Image folders: SPLIT/CLASS/IMAGE, or deeper. Opening lists names; images are decoded when they are read. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/format.h"
#include "data/image.h"
#include "data/scan.h"
#include "platform/file.h"
#include "platform/folder.h"
#include "platform/system.h"

/* What a split's folder may be called, in letters of either case; the first is the usual one. */
static const char *const split_names[NITI_SPLITS][4] = {
    [NITI_TRAIN] = {"train", "training"},
    [NITI_TEST] = {"test", "testing"},
    [NITI_VALIDATION] = {"validation", "val", "valid"},
};

static bool is_split_name(const char *name, NitiSplit split) {
  for (const char *const *known = split_names[split]; *known; ++known) {
    if (strcasecmp(name, *known) == 0) return true;
  }
  return false;
}

static NitiStatus take_split(void *context, const char *name, bool folder) {
  NitiPaths *found = context;
  for (int split = 0; folder && split < NITI_SPLITS; ++split) {
    if (is_split_name(name, (NitiSplit)split)) NITI_TRY(niti_paths_add(&found[split], name, name));
  }
  return NITI_OK;
}

/* The names of each split's folder in `path`; what is no folder, or none that may be read, has none. */
static NitiStatus find_splits(NitiPaths found[NITI_SPLITS], const char *path) {
  bool folder;
  NITI_TRY(niti_path_is_dir(&folder, path));
  if (!folder) return NITI_OK;
  if (niti_system.access(path, R_OK) == 0) return niti_folder_walk(path, take_split, found);
  return errno == EACCES ? NITI_OK : niti_fail_errno(path, "look into the folder");
}

static void close_splits(NitiPaths found[NITI_SPLITS]) {
  for (int split = 0; split < NITI_SPLITS; ++split) niti_paths_close(&found[split]);
}

static NitiStatus probe(bool *any, const char *path) {
  NitiPaths found[NITI_SPLITS] = {{0}};
  const NitiStatus status = find_splits(found, path);
  *any = found[NITI_TRAIN].count + found[NITI_TEST].count + found[NITI_VALIDATION].count > 0;
  close_splits(found);
  return status;
}

/* ---- classes ---- */

/* The position of a name among the data set's classes, -1: none; *next is where to look first, then one past the match:
 * both lists are usually in one order. */
static int32_t find_class(const NitiDataset *dataset, const char *name, int32_t *next) {
  for (int32_t i = 0; i < dataset->classes; ++i) {
    const int32_t at = (*next + i) % dataset->classes;
    if (strcmp(dataset->names[at], name) != 0) continue;
    *next = (at + 1) % dataset->classes;
    return at;
  }
  return -1;
}

static NitiStatus copy_names(NitiDataset *dataset, const NitiPaths *found, const char *dir) {
  dataset->names = calloc(found->count, sizeof *dataset->names);
  if (!dataset->names) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for class names", dir);
  dataset->classes = (int32_t)found->count;
  for (size_t i = 0; i < found->count; ++i) {
    dataset->names[i] = strdup(found->path[i]);
    if (!dataset->names[i]) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for class names", dir);
  }
  return NITI_OK;
}

/* A class that the split that named the classes does not have. */
static NitiStatus fail_unknown_class(const NitiDataset *dataset, const char *dir, const char *name) {
  const int first = dataset->split[NITI_TRAIN].dir ? NITI_TRAIN : NITI_TEST;
  return niti_fail(NITI_ERROR_FORMAT, "%s: class folder '%s' is missing, but %s has it", dataset->split[first].dir, name, dir);
}

/* ---- one split ---- */

/* A class of the training split without images; says what its folder has instead. */
static NitiStatus fail_no_images(NitiDataSplit *split, const char *class_name) {
  NitiUnread unread = {0};
  NitiStatus status = niti_scan_images(&split->files, &unread, split->dir, class_name);
  char *others = niti_unread_text(&unread);
  if (status == NITI_OK) {
    status = niti_fail(NITI_ERROR_FORMAT, "%s/%s: expected at least one .jpg, .jpeg or .png file%s%s", split->dir, class_name,
                       others ? "; not read: " : "", others ? others : "");
  }
  free(others);
  niti_unread_close(&unread);
  return status;
}

/* Adds the images of one class. */
static NitiStatus add_class(NitiDataset *dataset, NitiDataSplit *split, NitiUnread *unread, const char *class_name,
                            int32_t label) {
  const size_t before = split->files.count;
  NITI_TRY(niti_scan_images(&split->files, unread, split->dir, class_name));
  const size_t count = split->files.count;
  if (count == before && split == &dataset->split[NITI_TRAIN]) return fail_no_images(split, class_name);
  if (count > INT32_MAX) return niti_fail(NITI_ERROR_FORMAT, "%s/%s: too many images", split->dir, class_name);
  if (count == before) return NITI_OK;
  int32_t *labels = realloc(split->labels, count * sizeof *labels);
  if (!labels) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for labels", split->dir);
  split->labels = labels;
  for (size_t i = before; i < count; ++i) labels[i] = label;
  split->stored = split->count = (int64_t)count;
  return niti_dataset_watch(dataset, "listing images", split->count, 0);
}

static NitiStatus take_classes(NitiDataset *dataset, NitiDataSplit *split, const NitiPaths *found, NitiUnread *unread) {
  const size_t count = found->count;
  int32_t next = 0;
  if (count == 0) return niti_fail(NITI_ERROR_FORMAT, "%s: expected one folder per class, found none", split->dir);
  if (count > NITI_CLASSES_MAX)
    return niti_fail(NITI_ERROR_FORMAT, "%s: %zu class folders, expected at most %d", split->dir, count, NITI_CLASSES_MAX);
  if (!dataset->names) NITI_TRY(copy_names(dataset, found, split->dir));
  for (size_t i = 0; i < found->count; ++i) {
    const int32_t label = find_class(dataset, found->path[i], &next);
    if (label < 0) return fail_unknown_class(dataset, split->dir, found->path[i]);
    NITI_TRY(add_class(dataset, split, unread, found->path[i], label));
  }
  return NITI_OK;
}

static NitiStatus read_split(NitiDataset *dataset, NitiSplit which, const char *path, const char *name) {
  NitiDataSplit *split = &dataset->split[which];
  NitiPaths classes = {0};
  NitiUnread unread = {{0}, {0}};
  NITI_TRY(niti_path_join(&split->dir, path, name));
  NitiStatus status = niti_scan_folders(&classes, &unread, split->dir);
  if (status == NITI_OK) status = take_classes(dataset, split, &classes, &unread);
  char *text = niti_unread_text(&unread);
  if (status == NITI_OK && text) status = niti_dataset_add_note(dataset, "%s: not read: %s", split->dir, text);
  free(text);
  niti_unread_close(&unread);
  niti_paths_close(&classes);
  return status;
}

/* ---- the whole ---- */

static NitiStatus try_shape(NitiDataset *dataset, const char *path) {
  NitiImage image;
  NITI_TRY(niti_image_load(&image, path, 3));
  free(image.pixels);
  const NitiShape shape = {.n = 1, .h = image.h, .w = image.w, .c = image.c};
  if (niti_fit_check(&dataset->options, shape) != NITI_OK)
    return niti_fail(NITI_ERROR_ARGUMENT,
                     "%s: %dx%d pixels (height x width) are no size for a network's input, so another "
                     "image's size is taken (expected sides of at most %d)",
                     path, image.h, image.w, NITI_IMAGE_SIDE_MAX);
  dataset->shape = shape;
  return NITI_OK;
}

/* Where no size is given: that of the first image that can be read and is not too large to be one. */
static NitiStatus first_shape(NitiDataset *dataset, const NitiDataSplit *split) {
  NitiStatus status = NITI_OK;
  dataset->options.resize = 0;
  for (int64_t i = 0; i < split->count; ++i) {
    char *path = NULL;
    NITI_TRY(niti_path_join(&path, split->dir, split->files.path[i]));
    status = try_shape(dataset, path);
    free(path);
    if (status == NITI_OK || status == NITI_ERROR_MEMORY) return status;
    if (status == NITI_ERROR_ARGUMENT) NITI_TRY(niti_dataset_add_note(dataset, "%s", niti_error()));
  }
  return status;
}

static NitiStatus find_split(const char **name, const NitiPaths *found, const char *path) {
  *name = found->count > 0 ? found->path[0] : NULL;
  if (found->count < 2) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: holds both %s/ and %s/: expected one of them", path, found->path[0], found->path[1]);
}

static NitiStatus open_splits(NitiDataset *dataset, const char *path, NitiPaths found[NITI_SPLITS]) {
  const char *name[NITI_SPLITS];
  for (int split = 0; split < NITI_SPLITS; ++split) NITI_TRY(find_split(&name[split], &found[split], path));
  if (!name[NITI_TEST] && !niti_needs_split(dataset, NITI_VALIDATION)) {
    name[NITI_TEST] = name[NITI_VALIDATION];
    name[NITI_VALIDATION] = NULL;
  }
  for (int split = 0; split < NITI_SPLITS; ++split) {
    if (!niti_takes_split(dataset, (NitiSplit)split)) continue;
    if (name[split])
      NITI_TRY(read_split(dataset, (NitiSplit)split, path, name[split]));
    else if (niti_needs_split(dataset, (NitiSplit)split))
      return niti_fail(
          NITI_ERROR_FILE, "%s/%s: not found%s", path, split_names[split][0],
          split == NITI_TEST
              ? " (nor val, valid or validation); `data.validation: 10%` in the recipe holds training images out instead"
              : "");
  }
  return NITI_OK;
}

static NitiStatus open_folder(NitiDataset *dataset, const char *path) {
  const NitiShape size = dataset->request.size;
  NitiPaths found[NITI_SPLITS] = {{0}};
  if (size.n) NITI_TRY(niti_fit_check(&dataset->options, size));
  NitiStatus status = find_splits(found, path);
  if (status == NITI_OK) status = open_splits(dataset, path, found);
  close_splits(found);
  NITI_TRY(status);
  if (dataset->names) NITI_TRY(niti_labels_read(dataset, path));
  dataset->shape = size;
  for (int split = 0; split < NITI_SPLITS && !dataset->shape.n; ++split) {
    if (dataset->split[split].count > 0) NITI_TRY(first_shape(dataset, &dataset->split[split]));
  }
  return NITI_OK;
}

const NitiDataFormat niti_data_folder = {
    .kind = NITI_DATA_FOLDER,
    .name = "folder",
    .looked_for = "train/CLASS/*.(jpg|jpeg|png) and test/, val/, valid/ or validation/ like it",
    .subfolders = {NULL},
    .probe = probe,
    .open = open_folder,
};
