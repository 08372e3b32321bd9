/* The IDX format of MNIST and its kin: big-endian magic number 0x000008 and the number of dimensions, the dimensions as uint32,
 * then uint8 values. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format.h"
#include "data/packed.h"
#include "platform/sha256.h"
#include "platform/system.h"

enum { IMAGE_MAGIC = 0x803, LABEL_MAGIC = 0x801, NAME_BYTES = 96, SPELLINGS = 8, DEFLATE_RATIO_MAX = 1040, CHUNK = 1 << 22 };

/* Sets that may be in one folder, by what their files' names begin with; those of EMNIST hold every image transposed. */
static const char *const families[] = {
    "", "emnist-balanced-", "emnist-byclass-", "emnist-bymerge-", "emnist-digits-", "emnist-letters-", "emnist-mnist-"};
enum { FAMILIES = sizeof families / sizeof *families };

static const char *const splits[NITI_SPLITS][2] = {{"train", "train"}, {"t10k", "test"}, {"validation", "validation"}};
static const char *const kinds[2][2] = {{"images-idx3-ubyte", "images.idx3-ubyte"}, {"labels-idx1-ubyte", "labels.idx1-ubyte"}};

/* The spelling `which` (0 .. SPELLINGS - 1) of a split's images (part 0) or labels (part 1). */
static void spell_name(char name[NAME_BYTES], const char *family, int split, int part, int which) {
  char *end = stpcpy(stpcpy(stpcpy(name, family), splits[split][which >> 2]), "-"); /* not snprintf: 336 of them for a folder */
  (void)stpcpy(stpcpy(end, kinds[part][which >> 1 & 1]), which & 1 ? ".gz" : "");
}

/* The first spelling of a file that is there; *found false: none, and name is the usual one. */
static NitiStatus find_name(bool *found, char name[NAME_BYTES], const char *dir, const char *family, int split, int part) {
  for (int which = 0; which < SPELLINGS; ++which) {
    spell_name(name, family, split, part, which);
    NITI_TRY(niti_path_has_file(found, dir, name));
    if (*found) return NITI_OK;
  }
  spell_name(name, family, split, part, *family ? SPELLINGS / 2 : 0);
  return NITI_OK;
}

/* The same; where there is no file, of what is in its place, such as a link that leads nowhere. Files come first: archives that
 * were unpacked twice have folders beside them. */
static NitiStatus find_entry(bool *found, char name[NAME_BYTES], const char *dir, const char *family, int split, int part) {
  NITI_TRY(find_name(found, name, dir, family, split, part));
  for (int which = 0; which < SPELLINGS && !*found; ++which) {
    spell_name(name, family, split, part, which);
    NITI_TRY(niti_path_has_entry(found, dir, name));
  }
  if (!*found) spell_name(name, family, split, part, *family ? SPELLINGS / 2 : 0);
  return NITI_OK;
}

/* Whether any file of a split is there. */
static NitiStatus has_split(bool *has, const char *dir, const char *family, int split) {
  char name[NAME_BYTES];
  NITI_TRY(find_name(has, name, dir, family, split, 0));
  return *has ? NITI_OK : find_name(has, name, dir, family, split, 1);
}

static NitiStatus has_family(bool *has, const char *dir, const char *family) {
  *has = false;
  for (int split = 0; split < NITI_SPLITS && !*has; ++split) NITI_TRY(has_split(has, dir, family, split));
  return NITI_OK;
}

static NitiStatus probe(bool *found, const char *path) {
  *found = false;
  for (int i = 0; i < FAMILIES && !*found; ++i) NITI_TRY(has_family(found, path, families[i]));
  return NITI_OK;
}

typedef struct Reader {
  NitiDataset *dataset; /* for its watch */
  NitiPacked *file;
  const char *path;
  uint64_t position, size; /* of the unpacked bytes; of the file on disk */
  NitiSha256 *sha;         /* of what is read; NULL: not wanted */
} Reader;

/* Reads count bytes; a file that ends before or is damaged fails. */
static NitiStatus read_bytes(Reader *reader, void *out, uint64_t count) {
  uint8_t *to = out;
  while (count > 0) {
    const size_t chunk = count > CHUNK ? CHUNK : (size_t)count;
    NITI_TRY(
        niti_dataset_watch(reader->dataset, "reading images", (int64_t)reader->position, (int64_t)(reader->position + count)));
    size_t got = 0;
    NITI_TRY(niti_packed_read(reader->file, to, chunk, &got));
    if (got == 0)
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: the file ends here, expected %llu more bytes", reader->path,
                       (unsigned long long)reader->position, (unsigned long long)count);
    if (reader->sha) niti_sha256_add(reader->sha, to, got);
    to += got;
    count -= got;
    reader->position += got;
  }
  return NITI_OK;
}

/* Nothing may follow; a gzip file's checksum is compared here. */
static NitiStatus read_end(Reader *reader) {
  uint8_t byte = 0;
  size_t got = 0;
  NITI_TRY(niti_packed_read(reader->file, &byte, 1, &got));
  if (got == 0) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: expected the end of the file", reader->path,
                   (unsigned long long)reader->position);
}

static uint32_t big_endian(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

/* Reads a whole file with this magic number into *out, to be freed by the caller: dims[magic & 255] and their product of bytes.
 * leave: where the file is not packed, it stops behind the header, and *out stays NULL. */
static NitiStatus read_array(Reader *reader, uint8_t **out, uint32_t *dims, uint32_t magic, bool leave) {
  uint8_t header[16];
  const uint32_t ndim = magic & 255;
  uint64_t bytes = 1;
  NITI_TRY(read_bytes(reader, header, 4));
  if (big_endian(header) != magic)
    return niti_fail(NITI_ERROR_FORMAT, "%s: byte 0: magic number 0x%08x, expected 0x%08x", reader->path, big_endian(header),
                     magic);
  NITI_TRY(read_bytes(reader, header + 4, 4 * (uint64_t)ndim));
  for (uint32_t i = 0; i < ndim; ++i) {
    const uint32_t max = i == 0 ? INT32_MAX : NITI_IMAGE_SIDE_MAX;
    dims[i] = big_endian(header + 4 + 4 * i);
    if (dims[i] < 1 || dims[i] > max)
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %u: %u %s, expected 1 to %u", reader->path, 4 + 4 * i, dims[i],
                       i == 0 ? "items" : "pixels a side", max);
    bytes *= dims[i];
  }
  /* No header may make us ask for more memory than the file can fill. */
  const bool plain = !niti_packed_is(reader->file);
  const uint64_t most = plain ? reader->size : reader->size * DEFLATE_RATIO_MAX;
  if (reader->position + bytes > most)
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: byte %llu: the header promises %llu more bytes, but the file of %llu %sbytes ends before", reader->path,
                     (unsigned long long)reader->position, (unsigned long long)bytes, (unsigned long long)reader->size,
                     plain ? "" : "packed ");
  if (leave && plain && reader->position + bytes < most)
    return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: expected the end of the file", reader->path,
                     (unsigned long long)(reader->position + bytes));
  if (leave && plain) return NITI_OK;
  *out = bytes > PTRDIFF_MAX ? NULL : malloc((size_t)bytes);
  if (!*out) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %llu bytes", reader->path, (unsigned long long)bytes);
  NITI_TRY(read_bytes(reader, *out, bytes));
  return read_end(reader);
}

static NitiStatus read_file(NitiDataset *dataset, uint8_t **out, uint32_t *dims, const char *path, uint32_t magic,
                            NitiSha256 *sha) {
  const bool leave = dataset->request.lazy && magic == IMAGE_MAGIC;
  Reader reader = {.dataset = dataset, .path = path, .sha = sha};
  *out = NULL;
  NITI_TRY(niti_packed_open(&reader.file, path));
  reader.size = niti_packed_size(reader.file);
  const NitiStatus status = read_array(&reader, out, dims, magic, leave);
  niti_packed_close(reader.file);
  if (status != NITI_OK) {
    free(*out);
    *out = NULL;
  }
  return status;
}

/* Reads one of a split's two files, adding it to the split's list. The caller frees *out. */
static NitiStatus read_part(NitiDataset *dataset, uint8_t **out, uint32_t *dims, const char *family, int which, int part,
                            NitiSha256 *sha) {
  NitiDataSplit *split = &dataset->split[which];
  char name[NAME_BYTES];
  bool there;
  *out = NULL;
  NITI_TRY(find_entry(&there, name, split->dir, family, which, part));
  if (!there) return niti_fail(NITI_ERROR_FILE, "%s/%s: not found (nor with .gz)", split->dir, name);
  NITI_TRY(niti_split_add_file(split, name));
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, split->dir, name));
  const NitiStatus status = read_file(dataset, out, dims, path, part == 0 ? IMAGE_MAGIC : LABEL_MAGIC, sha);
  free(path);
  return status;
}

/* Stores labels as int32. The first split's decide the number of classes; where those are training images, the others' labels
 * must keep to it. */
static NitiStatus take_labels(NitiDataset *dataset, int which, const uint8_t *labels) {
  NitiDataSplit *split = &dataset->split[which];
  const bool bound = which != NITI_TRAIN && dataset->split[NITI_TRAIN].count > 0;
  split->labels = malloc((size_t)split->stored * sizeof *split->labels);
  if (!split->labels) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for labels", split->dir);
  for (int64_t i = 0; i < split->stored; ++i) {
    split->labels[i] = labels[i];
    if (!bound && labels[i] >= dataset->classes) dataset->classes = labels[i] + 1;
    if (labels[i] >= dataset->classes)
      return niti_fail(NITI_ERROR_FORMAT, "%s/%s: byte %lld: label %u, expected 0 to %d as in the training set", split->dir,
                       split->files.path[1], (long long)i + 8, labels[i], dataset->classes - 1);
  }
  return NITI_OK;
}

/* Images that stay in their file, behind its header. */
static NitiStatus leave_images(NitiDataSplit *split, size_t image, bool transposed) {
  enum { HEADER = 16 };
  char *path = NULL;
  NITI_TRY(niti_records_open(&split->records, transposed ? NITI_RECORD_TRANSPOSED : NITI_RECORD_PLAIN, 0, image, 1));
  NITI_TRY(niti_path_join(&path, split->dir, split->files.path[0]));
  const NitiStatus status = niti_records_add(split->records, path, HEADER, split->stored);
  free(path);
  return status;
}

static NitiStatus read_images(NitiDataset *dataset, int which, const char *family, NitiSha256 *sha) {
  NitiDataSplit *split = &dataset->split[which];
  uint32_t dims[3] = {0};
  uint8_t *images = NULL;
  NITI_TRY(read_part(dataset, &images, dims, family, which, 0, sha));
  split->images = split->values = split->memory = images;
  const NitiShape shape = {.n = 1, .h = (int32_t)dims[1], .w = (int32_t)dims[2], .c = 1};
  if (!dataset->shape.n) dataset->shape = shape;
  if (shape.h != dataset->shape.h || shape.w != dataset->shape.w)
    return niti_fail(NITI_ERROR_FORMAT, "%s/%s: byte 8: images of %dx%d, expected %dx%d as in the training set", split->dir,
                     split->files.path[0], shape.h, shape.w, dataset->shape.h, dataset->shape.w);
  split->stored = dims[0];
  if (*family && shape.h != shape.w)
    return niti_fail(NITI_ERROR_FORMAT, "%s/%s: byte 8: images of %dx%d, expected square ones of EMNIST", split->dir,
                     split->files.path[0], shape.h, shape.w);
  if (!images) return leave_images(split, niti_shape_image(shape), *family);
  for (int64_t i = 0; *family && i < split->stored; ++i)
    niti_pixels_transpose(images + (size_t)i * niti_shape_image(shape), dims[1]);
  return NITI_OK;
}

static NitiStatus read_split(NitiDataset *dataset, int which, const char *path, const char *family, bool *fashion) {
  static const char known[] =
      "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7"; /* Fashion-MNIST's training labels */
  static const char known_test[] = "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9"; /* and its test labels */
  NitiDataSplit *split = &dataset->split[which];
  uint32_t label_count = 0;
  uint8_t *labels = NULL;
  char digest[NITI_SHA256_TEXT];
  split->dir = strdup(path);
  if (!split->dir) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a path", path);
  NitiSha256 hash;
  niti_sha256_begin(&hash);
  NitiSha256 *sha = dataset->request.lazy ? NULL : &hash;
  NITI_TRY(read_images(dataset, which, family, sha));
  NITI_TRY(read_part(dataset, &labels, &label_count, family, which, 1, sha));
  if (sha) niti_sha256_end(sha, split->sha256);
  NitiStatus status = NITI_OK;
  if (label_count != split->stored)
    status = niti_fail(NITI_ERROR_FORMAT, "%s/%s: byte 4: %u labels, expected %lld as there are images in %s", split->dir,
                       split->files.path[1], label_count, (long long)split->stored, split->files.path[0]);
  if (status == NITI_OK) status = take_labels(dataset, which, labels);
  if (status == NITI_OK) {
    split->count = split->stored;
    niti_sha256_of(digest, labels, label_count);
    *fashion = *fashion || strcmp(digest, known) == 0 || strcmp(digest, known_test) == 0;
  }
  free(labels);
  return status;
}

/* The format has no names; Fashion-MNIST's are known, where nothing else is said. */
static NitiStatus name_classes(NitiDataset *dataset, const char *path, bool fashion) {
  static const char *const garments[] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                         "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
  NITI_TRY(niti_names_read(&dataset->names, path, "classes.txt", dataset->classes));
  if (dataset->names || !fashion || dataset->classes != sizeof garments / sizeof *garments) return NITI_OK;
  dataset->names = calloc((size_t)dataset->classes, sizeof *dataset->names);
  if (!dataset->names) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for class names", path);
  for (int32_t i = 0; i < dataset->classes; ++i) {
    dataset->names[i] = strdup(garments[i]);
    if (!dataset->names[i]) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for class names", path);
  }
  return NITI_OK;
}

/* The one family whose files are in the folder. */
static NitiStatus find_family(const char **family, const char *path) {
  *family = NULL;
  for (int i = 0; i < FAMILIES; ++i) {
    bool has;
    NITI_TRY(has_family(&has, path, families[i]));
    if (!has) continue;
    if (*family)
      return niti_fail(NITI_ERROR_FORMAT,
                       "%s: holds both %strain-images-idx3-ubyte and %strain-images-idx3-ubyte, or parts of "
                       "them: expected one set, so move one of them to a folder of its own",
                       path, *family, families[i]);
    *family = families[i];
  }
  return *family ? NITI_OK : niti_fail(NITI_ERROR_FORMAT, "%s: its IDX files are gone", path);
}

static NitiStatus open_idx(NitiDataset *dataset, const char *path) {
  bool fashion = false;
  const char *family;
  NITI_TRY(find_family(&family, path));
  for (int split = 0; split < NITI_SPLITS; ++split) {
    bool wanted = niti_takes_split(dataset, (NitiSplit)split);
    if (wanted) NITI_TRY(has_split(&wanted, path, family, split));
    if (wanted || niti_needs_split(dataset, (NitiSplit)split)) NITI_TRY(read_split(dataset, split, path, family, &fashion));
  }
  if (dataset->classes < dataset->request.classes && !dataset->split[NITI_TRAIN].count)
    dataset->classes = dataset->request.classes;
  return name_classes(dataset, path, fashion);
}

const NitiDataFormat niti_data_idx = {
    .kind = NITI_DATA_IDX,
    .name = "idx",
    .looked_for = "(train|t10k)-(images-idx3|labels-idx1)-ubyte[.gz]",
    .subfolders = {"mnist", "fashion-mnist", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw", "EMNIST/raw", NULL},
    .probe = probe,
    .open = open_idx,
};
