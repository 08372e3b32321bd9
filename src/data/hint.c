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

static NitiStatus take_known(void *context, const char *name, bool folder) {
  int *best = context;
  (void)folder;
  for (int i = 0; i < *best; ++i) {
    if (matches(name, known[i].name)) *best = i;
  }
  return NITI_OK;
}

static const char *find_known(const char *path) {
  int best = KNOWN;
  (void)niti_folder_walk(path, take_known, &best);
  return best < KNOWN ? known[best].hint : NULL;
}

static bool has_images(const char *path) {
  NitiPaths images = {0};
  char *unread = NULL;
  const bool found = niti_images_find(&images, &unread, path) == NITI_OK && images.count > 0;
  niti_paths_close(&images);
  free(unread);
  return found;
}

/* Looks into the folders of a folder: one that is a data set, or class folders. */
static void hint_of_folders(char *text, size_t size, const char *path, const NitiPaths *folders) {
  enum { FOLDERS_MAX = 100 };
  const char *first = NULL;
  int with_images = 0;
  for (size_t i = 0; i < folders->count && i < FOLDERS_MAX; ++i) {
    char *inner = NULL;
    if (niti_path_join(&inner, path, folders->path[i]) != NITI_OK) return;
    const char *kind = niti_data_probe(inner);
    if (kind)
      (void)snprintf(text, size, "its folder %s looks like one (%s): name that", folders->path[i], kind);
    else if (has_images(inner) && with_images++ == 0)
      first = folders->path[i];
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
  NitiPaths folders = {0};
  NitiUnread rest = {{0}, {0}};
  const char *hint = find_known(path);
  *text = 0;
  if (hint) {
    (void)snprintf(text, size, "%s", hint);
    return;
  }
  if (niti_scan_folders(&folders, &rest, path) == NITI_OK) {
    hint_of_folders(text, size, path, &folders);
    if (folders.count == 0 && has_images(path))
      (void)snprintf(text, size, "it has images but no class folders: move them to train/CLASS/ and test/CLASS/");
  }
  niti_paths_close(&folders);
  niti_unread_close(&rest);
}
