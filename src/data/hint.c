/* Folders that are no data set yet: what they look like, and what to do with them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/format.h"
#include "data/scan.h"
#include "platform/folder.h"

/* Names by which the folders of other tools are recognised. The first name that is there decides; a name that begins with '*' is
 * an ending. */
static const struct {
  const char *name, *hint;
} known[] = {
    {"data_batch_1",
     "this is CIFAR-10 for Python (pickles): take the binary version, cifar-10-binary.tar.gz, from "
     "https://www.cs.toronto.edu/~kriz/cifar.html"},
    {"cifar-10-batches-py",
     "this is CIFAR-10 for Python (pickles): take the binary version, cifar-10-binary.tar.gz, from "
     "https://www.cs.toronto.edu/~kriz/cifar.html"},
    {"cifar-100-python",
     "this is CIFAR-100 for Python (pickles): take the binary version, cifar-100-binary.tar.gz, from "
     "https://www.cs.toronto.edu/~kriz/cifar.html"},
    {"meta",
     "this may be CIFAR-100 for Python (pickles): take the binary version, cifar-100-binary.tar.gz, from "
     "https://www.cs.toronto.edu/~kriz/cifar.html"},
    {"*.mat", "its files are MATLAB's: take the binary version of CIFAR, or save images or arrays"},
    {"*.parquet", "its files are Parquet: export the images to train/CLASS/ and test/CLASS/"},
    {"*.tfrecord", "its files are TensorFlow's records: export the images to train/CLASS/ and test/CLASS/"},
    {"*.npz",
     "its files are .npz: save each array by itself with numpy.save, as train_x.npy, train_y.npy, test_x.npy and test_y.npy"},
    {"X_train.npy", "call its arrays train_x.npy, train_y.npy, test_x.npy and test_y.npy"},
    {"x_train.npy", "call its arrays train_x.npy, train_y.npy, test_x.npy and test_y.npy"},
    {"train.csv", "split its tables into train_x.csv and train_y.csv, test_x.csv and test_y.csv"},
    {"*.tar", "its files are packed: unpack them"},
    {"*.tar.gz", "its files are packed: unpack them"},
    {"*.tgz", "its files are packed: unpack them"},
    {"*.tar.xz", "its files are packed: unpack them"},
    {"*.zip", "its files are packed: unpack them"},
};
enum { KNOWN = sizeof known / sizeof *known };

static bool matches(const char *name, const char *pattern) {
  if (*pattern != '*') return strcmp(name, pattern) == 0;
  const size_t length = strlen(name), end = strlen(pattern + 1);
  return length > end && strcasecmp(name + length - end, pattern + 1) == 0;
}

/* A hint looks at no more than these many entries: of the folder, and of each of its first folders. The path may be a stranger's,
 * and have any tree below it. */
enum { ENTRIES_MAX = 10000, FOLDERS_MAX = 100, INNER_MAX = 200 };

/* What the folder has. */
typedef struct Survey {
  const char *path;
  int32_t left; /* entries still to be looked at */
  int known;    /* the first of the names that is there */
  NitiPaths folders;
} Survey;

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static NitiStatus take_entry(void *context, const char *name, bool folder) {
  Survey *s = context;
  if (s->left-- == 0) return niti_fail(NITI_ERROR_FORMAT, "%s: enough entries were looked at", s->path);
  for (int i = 0; i < s->known; ++i) {
    if (matches(name, known[i].name)) s->known = i;
  }
  return folder && name[0] != '.' ? niti_paths_add(&s->folders, name, s->path) : NITI_OK;
}

/* The kind of the data set in a folder with few entries; NULL: there is none. */
static const char *probe_small(const char *path) {
  Survey s = {.path = path, .left = INNER_MAX};
  const bool small = niti_folder_walk(path, take_entry, &s) == NITI_OK;
  niti_paths_close(&s.folders);
  return small ? niti_data_probe(path) : NULL;
}

/* Looks into the folders of a folder: one that is a data set, or class folders. */
static void hint_of_folders(char *text, size_t size, const Survey *s) {
  const char *first = NULL;
  int with_images = 0;
  for (size_t i = 0; i < s->folders.count && i < FOLDERS_MAX; ++i) {
    char *inner = NULL;
    if (niti_path_join(&inner, s->path, s->folders.path[i]) != NITI_OK) return;
    const char *kind = probe_small(inner);
    if (kind)
      (void)snprintf(text, size, "its folder %s looks like one (%s): name that", s->folders.path[i], kind);
    else if (with_images < 2 && niti_scan_has_image(inner, INNER_MAX) && with_images++ == 0)
      first = s->folders.path[i];
    free(inner);
    if (kind) return;
  }
  if (with_images > 0)
    (void)snprintf(text, size,
                   "it has folders of images (%s%s) but no train/ above them: move each class's folder into train/, "
                   "and a part of its images into test/CLASS/",
                   first, with_images > 1 ? ", ..." : "");
}

void niti_data_hint(char *text, size_t size, const char *path) {
  Survey s = {.path = path, .left = ENTRIES_MAX, .known = KNOWN};
  *text = 0;
  (void)niti_folder_walk(path, take_entry, &s);
  if (s.folders.count > 0) qsort(s.folders.path, s.folders.count, sizeof *s.folders.path, compare_names);
  if (s.known < KNOWN)
    (void)snprintf(text, size, "%s", known[s.known].hint);
  else if (s.folders.count > 0)
    hint_of_folders(text, size, &s);
  else if (niti_scan_has_image(path, ENTRIES_MAX))
    (void)snprintf(text, size, "it has images but no class folders: move them to train/CLASS/ and test/CLASS/");
  niti_paths_close(&s.folders);
}
