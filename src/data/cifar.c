/* The CIFAR binary formats: records of one (CIFAR-10) or two (CIFAR-100: coarse, fine) label bytes and 3 planes of 32x32 pixels.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format.h"
#include "platform/file.h"
#include "platform/sha256.h"
#include "platform/system.h"

enum { SIDE = 32, PLANE = SIDE * SIDE, PIXELS = 3 * PLANE };

typedef struct Layout {
  int label_bytes, label_max[2]; /* the last label byte is the class */
  const char *names_file;
  const char *files[2][6]; /* by split; ends with NULL */
} Layout;

static const Layout cifar10 = {
    .label_bytes = 1,
    .label_max = {9},
    .names_file = "batches.meta.txt",
    .files = {{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin", NULL},
              {"test_batch.bin", NULL}},
};
static const Layout cifar100 = {
    .label_bytes = 2,
    .label_max = {19, 99},
    .names_file = "fine_label_names.txt",
    .files = {{"train.bin", NULL}, {"test.bin", NULL}},
};

/* Whether any file of a split is there. */
static NitiStatus probe_split(bool *found, const char *path, const Layout *layout, int split) {
  *found = false;
  for (const char *const *name = layout->files[split]; *name && !*found; ++name) NITI_TRY(niti_path_has_file(found, path, *name));
  return NITI_OK;
}

static NitiStatus probe_layout(bool *found, const char *path, const Layout *layout) {
  NITI_TRY(probe_split(found, path, layout, NITI_TRAIN));
  return *found ? NITI_OK : probe_split(found, path, layout, NITI_TEST);
}

/* Finds the number of records of a split's files and lists them. */
static NitiStatus count_records(NitiDataSplit *split, const Layout *layout, const char *const *names) {
  const long long record = layout->label_bytes + PIXELS;
  for (; *names; ++names) {
    struct stat facts;
    char *path = NULL;
    NITI_TRY(niti_path_join(&path, split->dir, *names));
    NitiStatus status = niti_split_add_file(split, *names);
    if (status != NITI_OK) {
      free(path);
      return status;
    }
    if (niti_system.stat(path, &facts) != 0)
      status = niti_fail(NITI_ERROR_FILE, "%s: %s", path, errno == ENOENT ? "not found" : strerror(errno));
    else if (!S_ISREG(facts.st_mode))
      status = niti_fail(NITI_ERROR_FILE, "%s: expected a regular file", path);
    else if (facts.st_size == 0 || facts.st_size % record != 0)
      status = niti_fail(NITI_ERROR_FORMAT, "%s: byte %lld: the file ends here, expected a multiple of %lld bytes, at least one",
                         path, (long long)facts.st_size, record);
    else if (facts.st_size / record > INT32_MAX - split->stored)
      status = niti_fail(NITI_ERROR_FORMAT, "%s: too many images", path);
    else
      split->stored += facts.st_size / record;
    free(path);
    NITI_TRY(status);
  }
  return NITI_OK;
}

static NitiStatus check_labels(const uint8_t *record, const char *path, size_t offset, const Layout *layout) {
  for (int i = 0; i < layout->label_bytes; ++i) {
    if (record[i] > layout->label_max[i])
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: label %u, expected 0 to %d", path, offset + (size_t)i, record[i],
                       layout->label_max[i]);
  }
  return NITI_OK;
}

/* Takes a file's records, from image *index on: planes become interleaved pixels. */
static NitiStatus take_records(NitiDataSplit *split, int64_t *index, const uint8_t *bytes, size_t size, const char *path,
                               const Layout *layout) {
  const size_t record = (size_t)layout->label_bytes + PIXELS;
  for (size_t offset = 0; offset < size; offset += record, ++*index) {
    const uint8_t *labels = bytes + offset, *planes = labels + layout->label_bytes;
    if (size - offset < record)
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: the file ends here, expected a whole record", path, size);
    if (*index == split->stored)
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: the file grew while it was read", path, offset);
    NITI_TRY(check_labels(labels, path, offset, layout));
    split->labels[*index] = planes[-1];
    niti_pixels_of_planes((uint8_t *)split->memory + (size_t)*index * PIXELS, planes, PLANE);
  }
  return NITI_OK;
}

static NitiStatus read_file(NitiDataSplit *split, int64_t *index, const char *path, const Layout *layout, NitiSha256 *sha) {
  char *bytes;
  size_t size;
  NITI_TRY(niti_file_read(&bytes, &size, path, SIZE_MAX - 1));
  niti_sha256_add(sha, bytes, size);
  const NitiStatus status = take_records(split, index, (const uint8_t *)bytes, size, path, layout);
  free(bytes);
  return status;
}

/* Opens a file whose pixels stay in it, from image *index on, and takes its labels. */
static NitiStatus open_file(NitiDataSplit *split, int64_t *index, const char *path, const Layout *layout, int64_t size) {
  const int64_t record = layout->label_bytes + PIXELS, first = *index;
  uint8_t labels[NITI_RECORD_LABELS_MAX];
  if (size / record > split->stored - first) return niti_fail(NITI_ERROR_FORMAT, "%s: the file grew while it was opened", path);
  NITI_TRY(niti_records_add(split->records, path, 0, size / record));
  for (; *index < first + size / record; ++*index) {
    NITI_TRY(niti_records_read_labels(labels, split->records, *index));
    NITI_TRY(check_labels(labels, path, (size_t)((*index - first) * record), layout));
    split->labels[*index] = labels[layout->label_bytes - 1];
  }
  return NITI_OK;
}

/* Room for the images that count_records has found, unless they stay in files. */
static NitiStatus make_room(NitiDataSplit *split, const Layout *layout, bool lazy) {
  if (lazy) NITI_TRY(niti_records_open(&split->records, NITI_RECORD_PLANES, (size_t)layout->label_bytes, PIXELS, 1));
  if (!lazy) split->images = split->values = split->memory = malloc((size_t)split->stored * PIXELS);
  split->labels = malloc((size_t)split->stored * sizeof *split->labels);
  if ((lazy || split->images) && split->labels) return NITI_OK;
  return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %lld images", split->dir, (long long)split->stored);
}

static NitiStatus read_split(NitiDataset *dataset, NitiSplit which, const char *path, const Layout *layout) {
  NitiDataSplit *split = &dataset->split[which];
  const bool lazy = dataset->request.lazy;
  int64_t index = 0;
  NitiSha256 sha;
  niti_sha256_begin(&sha);
  split->dir = strdup(path);
  if (!split->dir) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a path", path);
  NITI_TRY(count_records(split, layout, layout->files[which]));
  NITI_TRY(make_room(split, layout, lazy));
  for (size_t i = 0; i < split->files.count; ++i) {
    char *name = NULL;
    NITI_TRY(niti_path_join(&name, path, split->files.path[i]));
    NitiStatus status =
        lazy ? open_file(split, &index, name, layout, split->facts[i].size) : read_file(split, &index, name, layout, &sha);
    free(name);
    if (status == NITI_OK) status = niti_dataset_watch(dataset, "reading images", (int64_t)i + 1, (int64_t)split->files.count);
    NITI_TRY(status);
  }
  if (index != split->stored) return niti_fail(NITI_ERROR_FORMAT, "%s: a file shrank while it was read", path);
  split->count = split->stored;
  if (!lazy) niti_sha256_end(&sha, split->sha256);
  return NITI_OK;
}

static NitiStatus open_layout(NitiDataset *dataset, const char *path, const Layout *layout) {
  dataset->shape = (NitiShape){.n = 1, .h = SIDE, .w = SIDE, .c = 3};
  dataset->classes = layout->label_max[layout->label_bytes - 1] + 1;
  for (int split = NITI_TRAIN; split <= NITI_TEST; ++split) {
    bool wanted = niti_takes_split(dataset, (NitiSplit)split);
    if (wanted) NITI_TRY(probe_split(&wanted, path, layout, split));
    if (wanted || niti_needs_split(dataset, (NitiSplit)split)) NITI_TRY(read_split(dataset, (NitiSplit)split, path, layout));
  }
  NITI_TRY(niti_names_read(&dataset->names, path, layout->names_file, dataset->classes));
  return dataset->names ? NITI_OK : niti_names_read(&dataset->names, path, "classes.txt", dataset->classes);
}

static NitiStatus probe_cifar10(bool *found, const char *path) { return probe_layout(found, path, &cifar10); }
static NitiStatus probe_cifar100(bool *found, const char *path) { return probe_layout(found, path, &cifar100); }

static NitiStatus open_cifar10(NitiDataset *dataset, const char *path) { return open_layout(dataset, path, &cifar10); }

static NitiStatus open_cifar100(NitiDataset *dataset, const char *path) { return open_layout(dataset, path, &cifar100); }

const NitiDataFormat niti_data_cifar10 = {
    .kind = NITI_DATA_CIFAR10,
    .name = "cifar10",
    .looked_for = "data_batch_1.bin to data_batch_5.bin, test_batch.bin",
    .subfolders = {"cifar-10-batches-bin", NULL},
    .probe = probe_cifar10,
    .open = open_cifar10,
};

const NitiDataFormat niti_data_cifar100 = {
    .kind = NITI_DATA_CIFAR100,
    .name = "cifar100",
    .looked_for = "train.bin, test.bin",
    .subfolders = {"cifar-100-binary", NULL},
    .probe = probe_cifar100,
    .open = open_cifar100,
};
