#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/format.h"
#include "data/image.h"

/* Image folders: SPLIT/CLASS/IMAGE. Opening lists names; images are decoded when they are read. */

/* Names under train, and the names the other split may have, the first that is there. */
static const char *const train_name = "train";
static const char *const test_names[] = {"test", "val", "validation"};
enum { TEST_NAMES = sizeof test_names / sizeof *test_names };

static const char *find_test(const char *path) {
  for (int i = 0; i < TEST_NAMES; ++i) {
    if (niti_path_has_dir(path, test_names[i])) return test_names[i];
  }
  return NULL;
}

static bool probe(const char *path) { return niti_path_has_dir(path, train_name) || find_test(path); }

typedef struct Names {
  char **name;
  size_t count, capacity;
} Names;

static void names_close(Names *names) {
  for (size_t i = 0; i < names->count; ++i) free(names->name[i]);
  free(names->name);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool is_image_name(const char *dir, const char *name) {
  const char *end = strrchr(name, '.');
  (void)dir;
  return end && (strcasecmp(end, ".jpg") == 0 || strcasecmp(end, ".jpeg") == 0 || strcasecmp(end, ".png") == 0);
}

/* The entries of a folder for which keep() holds, in byte order; hidden ones never count. Release with names_close, also on
 * failure. */
static NitiStatus list_names(Names *out, const char *path, bool (*keep)(const char *dir, const char *name)) {
  NitiStatus status = NITI_OK;
  DIR *dir = opendir(path);
  memset(out, 0, sizeof *out);
  if (!dir) return niti_fail(NITI_ERROR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
  for (;;) {
    errno = 0;
    const struct dirent *entry = readdir(dir);
    if (!entry) {
      if (errno != 0) status = niti_fail(NITI_ERROR_FILE, "%s: cannot be read: %s", path, strerror(errno));
      break;
    }
    if (entry->d_name[0] == '.' || !keep(path, entry->d_name)) continue;
    if (out->count == out->capacity) {
      const size_t capacity = out->capacity ? 2 * out->capacity : 64;
      char **grown = realloc(out->name, capacity * sizeof *grown);
      if (grown) {
        out->name = grown;
        out->capacity = capacity;
      }
    }
    char *copy = out->count < out->capacity ? strdup(entry->d_name) : NULL;
    if (!copy) {
      status = niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for its list of names", path);
      break;
    }
    out->name[out->count++] = copy;
  }
  closedir(dir);
  if (status == NITI_OK && out->count > 1) qsort(out->name, out->count, sizeof *out->name, compare_names);
  return status;
}

/* Adds the images of one class. */
static NitiStatus add_class(NitiDataSplit *split, const char *class_name, int32_t label) {
  Names images = {0};
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, split->dir, class_name));
  NitiStatus status = list_names(&images, path, is_image_name);
  if (status == NITI_OK && images.count == 0)
    status = niti_fail(NITI_ERROR_FORMAT, "%s: expected at least one .jpg, .jpeg or .png file", path);
  if (status == NITI_OK && images.count > INT32_MAX - (size_t)split->count)
    status = niti_fail(NITI_ERROR_FORMAT, "%s: too many images", path);
  if (status == NITI_OK) {
    const size_t total = (size_t)split->count + images.count;
    int32_t *labels = realloc(split->labels, total * sizeof *labels);
    if (labels) {
      split->labels = labels;
    } else {
      status = niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for labels", path);
    }
  }
  for (size_t i = 0; status == NITI_OK && i < images.count; ++i) {
    char *name = NULL;
    status = niti_path_join(&name, class_name, images.name[i]);
    if (status == NITI_OK) status = niti_split_add_file(split, name);
    free(name);
    if (status == NITI_OK) split->labels[split->count++] = label;
  }
  names_close(&images);
  free(path);
  return status;
}

/* Both splits must have the same classes: names the first that only one of them has. */
static NitiStatus compare_classes(const NitiDataset *dataset, const Names *found) {
  const NitiDataSplit *train = &dataset->split[NITI_TRAIN], *test = &dataset->split[NITI_TEST];
  const size_t classes = (size_t)dataset->classes;
  for (size_t i = 0; i < classes || i < found->count; ++i) {
    const int order = i >= classes ? 1 : i >= found->count ? -1 : strcmp(dataset->names[i], found->name[i]);
    if (order < 0)
      return niti_fail(NITI_ERROR_FORMAT, "%s: class folder '%s' is missing, but %s has it", test->dir, dataset->names[i],
                       train->dir);
    if (order > 0)
      return niti_fail(NITI_ERROR_FORMAT, "%s: class folder '%s' is missing, but %s has it", train->dir, found->name[i],
                       test->dir);
  }
  return NITI_OK;
}

static NitiStatus read_split(NitiDataset *dataset, int which, const char *path, const char *name) {
  NitiDataSplit *split = &dataset->split[which];
  Names classes = {0};
  NITI_TRY(niti_path_join(&split->dir, path, name));
  NitiStatus status = list_names(&classes, split->dir, niti_path_has_dir);
  if (status == NITI_OK && classes.count == 0)
    status = niti_fail(NITI_ERROR_FORMAT, "%s: expected one folder a class, found none", split->dir);
  if (status == NITI_OK && classes.count > NITI_CLASSES_MAX)
    status =
        niti_fail(NITI_ERROR_FORMAT, "%s: %zu class folders, expected at most %d", split->dir, classes.count, NITI_CLASSES_MAX);
  if (status == NITI_OK && which == NITI_TRAIN) {
    dataset->names = classes.name;
    dataset->classes = (int32_t)classes.count;
    memset(&classes, 0, sizeof classes);
  } else if (status == NITI_OK) {
    status = compare_classes(dataset, &classes);
  }
  names_close(&classes);
  for (int32_t label = 0; status == NITI_OK && label < dataset->classes; ++label)
    status = add_class(split, dataset->names[label], label);
  return status;
}

/* Where nobody says which size is wanted: that of the first training image. */
static NitiStatus first_shape(NitiShape *out, const NitiDataSplit *train) {
  NitiImage image;
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, train->dir, train->files[0]));
  const NitiStatus status = niti_image_load(&image, path, 3);
  if (status == NITI_OK) *out = (NitiShape){.n = 1, .h = image.h, .w = image.w, .c = image.c};
  free(image.pixels);
  free(path);
  return status;
}

static NitiStatus open_folder(NitiDataset *dataset, const char *path, const NitiShape *size) {
  const char *test = find_test(path);
  if (size) NITI_TRY(niti_fit_check(&dataset->options, *size));
  if (!niti_path_has_dir(path, train_name)) return niti_fail(NITI_ERROR_FILE, "%s/%s: not found", path, train_name);
  if (!test) return niti_fail(NITI_ERROR_FILE, "%s/test: not found (nor val or validation)", path);
  NITI_TRY(read_split(dataset, NITI_TRAIN, path, train_name));
  NITI_TRY(read_split(dataset, NITI_TEST, path, test));
  if (size) {
    dataset->shape = *size;
    return NITI_OK;
  }
  NITI_TRY(first_shape(&dataset->shape, &dataset->split[NITI_TRAIN]));
  dataset->options.resize = 0;
  return niti_fit_check(&dataset->options, dataset->shape);
}

const NitiDataFormat niti_data_folder = {
    .kind = NITI_DATA_FOLDER,
    .name = "folder",
    .looked_for = "train/CLASS/*.(jpg|jpeg|png) and test/, val/ or validation/ like it",
    .subfolders = {NULL},
    .probe = probe,
    .open = open_folder,
};
