#include "data/dataset.h"

#include <errno.h>
#include <sha256.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "data/format.h"
#include "data/image.h"
#include "platform/environment.h"
#include "platform/file.h"

static const NitiDataFormat *const formats[] = {&niti_data_idx, &niti_data_cifar10, &niti_data_cifar100, &niti_data_folder};
enum { FORMATS = sizeof formats / sizeof *formats };

/* ---- paths and names, for the formats ---- */

NitiStatus niti_split_add_file(NitiDataSplit *split, const char *name) {
  if (split->file_count == split->file_capacity) {
    const size_t capacity = split->file_capacity ? 2 * split->file_capacity : 8;
    char **files = realloc(split->files, capacity * sizeof *files);
    if (!files) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for the list of files", split->dir);
    split->files = files;
    split->file_capacity = capacity;
  }
  char *copy = strdup(name);
  if (!copy) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for the list of files", split->dir);
  split->files[split->file_count++] = copy;
  return NITI_OK;
}

void niti_names_close(char **names, int32_t count) {
  if (!names) return;
  for (int32_t i = 0; i < count; ++i) free(names[i]);
  free(names);
}

static NitiStatus parse_names(char ***out, char *text, const char *path, int32_t count) {
  char *next = text;
  char **names = calloc((size_t)count, sizeof *names);
  if (!names) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for class names", path);
  for (int32_t line = 1; *next; ++line) {
    char *start = next;
    char *end = start + strcspn(start, "\n");
    next = *end ? end + 1 : end;
    while (end > start && (end[-1] == '\r' || end[-1] == ' ' || end[-1] == '\t')) --end;
    *end = 0;
    if (end == start && next[strspn(next, " \t\r\n")] == 0) break; /* nothing but blank lines left */
    if (end == start || line > count) {
      niti_names_close(names, count);
      return niti_fail(NITI_ERROR_FORMAT, "%s: line %d: expected %s", path, line, end == start ? "a class name" : "the end");
    }
    names[line - 1] = strdup(start);
    if (!names[line - 1]) {
      niti_names_close(names, count);
      return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for class names", path);
    }
  }
  for (int32_t i = 0; i < count; ++i) {
    if (names[i]) continue;
    niti_names_close(names, count);
    return niti_fail(NITI_ERROR_FORMAT, "%s: line %d: expected %d class names, one a line, found %d", path, i + 1, count, i);
  }
  *out = names;
  return NITI_OK;
}

NitiStatus niti_names_read(char ***out, const char *dir, const char *name, int32_t count) {
  enum { NAMES_BYTES_MAX = 1 << 30 };
  char *text = NULL;
  *out = NULL;
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, dir, name));
  NitiStatus status = NITI_OK;
  if (niti_path_is_file(path)) {
    status = niti_file_read(&text, NULL, path, NAMES_BYTES_MAX);
    if (status == NITI_OK) status = parse_names(out, text, path, count);
  }
  free(text);
  free(path);
  return status;
}

NitiStatus niti_data_options_check(const NitiDataOptions *options) {
  if (options->pad < 0 || options->pad > NITI_IMAGE_SIDE_MAX / 2)
    return niti_fail(NITI_ERROR_ARGUMENT, "padding %d is not in 0..%d pixels", options->pad, NITI_IMAGE_SIDE_MAX / 2);
  if (options->resize < 0 || options->resize > NITI_IMAGE_SIDE_MAX)
    return niti_fail(NITI_ERROR_ARGUMENT, "resize %d is not in 0..%d pixels", options->resize, NITI_IMAGE_SIDE_MAX);
  return NITI_OK;
}

/* ---- open and close ---- */

/* Where a format's files lie: path itself (where = NULL) or one of its usual subfolders. */
typedef struct Match {
  const NitiDataFormat *format;
  const char *where;
} Match;

static int find_matches(Match *matches, const char *path, NitiDataKind kind) {
  int count = 0;
  for (int i = 0; i < FORMATS; ++i) {
    if ((kind == NITI_DATA_AUTO || kind == formats[i]->kind) && formats[i]->probe(path))
      matches[count++] = (Match){.format = formats[i]};
  }
  if (count > 0) return count;
  for (int i = 0; i < FORMATS; ++i) {
    if (kind != NITI_DATA_AUTO && kind != formats[i]->kind) continue;
    for (const char *const *where = formats[i]->subfolders; *where; ++where) {
      char *folder = NULL;
      if (niti_path_join(&folder, path, *where) == NITI_OK && formats[i]->probe(folder))
        matches[count++] = (Match){.format = formats[i], .where = *where};
      free(folder);
    }
  }
  return count;
}

/* Exactly one match is wanted; otherwise says what was there or what was looked for. */
static NitiStatus choose_match(Match *out, const char *path, NitiDataKind kind) {
  enum { SUBFOLDERS = sizeof formats[0]->subfolders / sizeof *formats[0]->subfolders };
  Match matches[FORMATS * (1 + SUBFOLDERS)];
  char text[600] = "";
  size_t used = 0;
  const int count = find_matches(matches, path, kind);
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
  return niti_fail(NITI_ERROR_FORMAT, "%s: no data set found; looked for %s", path, text);
}

static NitiStatus check_opened(const NitiDataset *dataset) {
  for (int i = 0; i < 2; ++i) {
    if (dataset->split[i].count < 1)
      return niti_fail(NITI_ERROR_FORMAT, "%s: holds no %s images", dataset->split[i].dir, i == NITI_TRAIN ? "training" : "test");
  }
  return NITI_OK;
}

NitiStatus niti_dataset_open(NitiDataset **out, const char *path, const NitiDataOptions *options, const NitiShape *size) {
  struct stat facts;
  Match match = {0};
  *out = NULL;
  if (options) NITI_TRY(niti_data_options_check(options));
  if (options && (options->kind < NITI_DATA_AUTO || options->kind > NITI_DATA_FOLDER))
    return niti_fail(NITI_ERROR_ARGUMENT, "data kind %d is not known", (int)options->kind);
  if (stat(path, &facts) != 0) return niti_fail(NITI_ERROR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
  if (!S_ISDIR(facts.st_mode)) return niti_fail(NITI_ERROR_FILE, "%s: expected a folder", path);
  NITI_TRY(choose_match(&match, path, options ? options->kind : NITI_DATA_AUTO));

  NitiDataset *dataset = calloc(1, sizeof *dataset);
  char *folder = NULL;
  NitiStatus status = niti_path_join(&folder, path, match.where ? match.where : "");
  if (dataset && folder) {
    for (size_t end = strlen(folder); end > 1 && folder[end - 1] == '/'; --end) folder[end - 1] = 0; /* for messages */
    dataset->format = match.format;
    if (options) dataset->options = *options;
    status = match.format->open(dataset, folder, size);
    if (status == NITI_OK) status = check_opened(dataset);
  } else {
    status = niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a data set", path);
  }
  free(folder);
  if (status != NITI_OK) {
    niti_dataset_close(dataset);
    return status;
  }
  *out = dataset;
  return NITI_OK;
}

void niti_dataset_close(NitiDataset *dataset) {
  if (!dataset) return;
  for (int i = 0; i < 2; ++i) {
    NitiDataSplit *split = &dataset->split[i];
    for (size_t f = 0; f < split->file_count; ++f) free(split->files[f]);
    free(split->files);
    free(split->dir);
    free(split->images);
    free(split->labels);
  }
  niti_names_close(dataset->names, dataset->classes);
  free(dataset);
}

const char *niti_dataset_default(void) {
  static const char *const debian = "/usr/share/datasets/fashion-mnist";
  const char *named = niti_environment_get("NITI_DATA");
  if (named) return named;
  return niti_path_is_dir(debian) ? debian : NULL;
}

/* ---- what it holds ---- */

const char *niti_dataset_kind(const NitiDataset *dataset) { return dataset->format->name; }
int32_t niti_dataset_classes(const NitiDataset *dataset) { return dataset->classes; }

const char *niti_dataset_class_name(const NitiDataset *dataset, int32_t label) {
  return dataset->names && label >= 0 && label < dataset->classes ? dataset->names[label] : NULL;
}

int64_t niti_dataset_count(const NitiDataset *dataset, NitiSplit split) { return dataset->split[split].count; }
NitiShape niti_dataset_shape(const NitiDataset *dataset) { return dataset->shape; }

int32_t niti_dataset_label(const NitiDataset *dataset, NitiSplit split, int64_t index) {
  return dataset->split[split].labels[index];
}

const uint8_t *niti_dataset_images(const NitiDataset *dataset, NitiSplit split) { return dataset->split[split].images; }

NitiStatus niti_dataset_read(const NitiDataset *dataset, NitiSplit split, int64_t index, bool centre, uint32_t word_y,
                             uint32_t word_x, uint8_t *out) {
  const NitiDataSplit *s = &dataset->split[split];
  const NitiWindow window = {.centre = centre, .word_y = word_y, .word_x = word_x};
  const size_t bytes = niti_shape_image(dataset->shape);
  NitiImage image;
  if (index < 0 || index >= s->count)
    return niti_fail(NITI_ERROR_ARGUMENT, "image %lld is not in 0..%lld", (long long)index, (long long)s->count - 1);
  if (s->images) {
    memcpy(out, s->images + (size_t)index * bytes, bytes);
    return NITI_OK;
  }
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, s->dir, s->files[index]));
  NitiStatus status = niti_image_load(&image, path, dataset->shape.c);
  if (status == NITI_OK) status = niti_image_fit(out, &image, &dataset->options, dataset->shape, window, path);
  free(image.pixels);
  free(path);
  return status;
}

/* Of the content, whether gzip holds it or not. */
static NitiStatus hash_file(SHA256_CTX *sha, const char *path) {
  uint8_t bytes[16384];
  int got = 0;
  gzFile file = gzopen(path, "rbe");
  if (!file) return niti_fail(NITI_ERROR_FILE, "%s: cannot be opened: %s", path, errno ? strerror(errno) : "out of memory");
  while ((got = gzread(file, bytes, sizeof bytes)) > 0) SHA256_Update(sha, bytes, (size_t)got);
  NitiStatus status = NITI_OK;
  if (got < 0) {
    int code = 0;
    const char *text = gzerror(file, &code);
    status = niti_fail(NITI_ERROR_FILE, "%s: cannot be read: %s", path, code == Z_ERRNO ? strerror(errno) : text);
  }
  gzclose_r(file);
  return status;
}

NitiStatus niti_dataset_hash(const NitiDataset *dataset, NitiSplit split, char text[65]) {
  const NitiDataSplit *s = &dataset->split[split];
  SHA256_CTX sha;
  SHA256_Init(&sha);
  for (size_t i = 0; i < s->file_count; ++i) {
    char *path = NULL;
    NITI_TRY(niti_path_join(&path, s->dir, s->files[i]));
    /* Where the folder is the label, the name belongs to the data. */
    if (!s->images) SHA256_Update(&sha, (const uint8_t *)s->files[i], strlen(s->files[i]) + 1);
    const NitiStatus status = hash_file(&sha, path);
    free(path);
    NITI_TRY(status);
  }
  (void)SHA256_End(&sha, text);
  return NITI_OK;
}

void niti_dataset_names_hash(const NitiDataset *dataset, NitiSplit split, char text[65]) {
  const NitiDataSplit *s = &dataset->split[split];
  SHA256_CTX sha;
  SHA256_Init(&sha);
  if (s->images) SHA256_Update(&sha, (const uint8_t *)dataset->format->name, strlen(dataset->format->name));
  for (size_t i = 0; !s->images && i < s->file_count; ++i)
    SHA256_Update(&sha, (const uint8_t *)s->files[i], strlen(s->files[i]) + 1);
  (void)SHA256_End(&sha, text);
}
