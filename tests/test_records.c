/* Images that stay in their files: the same as those read into memory, in every format, and what happens where a file changes. */
/* clang-format off */
#include "data_files.h" /* first */
#include <fcntl.h>
/* clang-format on */
#include "data/format.h"
#include "data/loader.h"
#include "data_open.h"

enum { TRAIN = 23, TESTS = 6, SEED = 77, BATCH = 5 };
typedef enum Kind { IDX, EMNIST, CIFAR10, CIFAR100, NPY8, NPY16, KINDS } Kind;

static uint8_t noise(size_t i) { return (uint8_t)((i * 2654435761u) >> 13); }
static uint8_t label_value(size_t i) { return (uint8_t)(i % 3); }

/* ---- data sets of each kind ---- */

static void put_idx_pair(const char *dir, const char *before, uint32_t count) {
  const uint32_t dims[3] = {count, 8, 8};
  put_idx(path_of("%s/%s-images-idx3-ubyte", dir, before), 3, dims, noise, false);
  put_idx(path_of("%s/%s-labels-idx1-ubyte", dir, before), 1, dims, label_value, false);
}

static void put_cifar_file(const char *path, int count, int label_bytes) {
  const size_t record = (size_t)label_bytes + 3072, size = (size_t)count * record;
  uint8_t *bytes = malloc(size);
  assert_non_null(bytes);
  for (size_t i = 0; i < size; ++i) bytes[i] = i % record < (size_t)label_bytes ? (uint8_t)(i / record % 3) : noise(i + size);
  put_file(path, bytes, size);
  free(bytes);
}

/* shape: "(23, 1, 5, 3)"; `elements` of `bytes` each. */
static void put_npy(const char *path, const char *type, const char *shape, size_t elements, size_t bytes,
                    uint8_t (*value)(size_t)) {
  char header[129];
  uint8_t content[128 + 2 * TRAIN * 3 * 64];
  const size_t size = elements * bytes;
  assert_true(size <= sizeof content - 128);
  const int used = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", type, shape);
  memset(content, ' ', 128);
  memcpy(content, "\x93NUMPY\x01\x00\x76\x00", 10); /* 118 bytes of text follow */
  memcpy(content + 10, header, (size_t)used);
  content[127] = '\n';
  for (size_t i = 0; i < size; ++i) content[128 + i] = value(i);
  put_file(path, content, 128 + size);
}

static void put_npy_set(const char *dir, bool wide) {
  for (int test = 0; test < 2; ++test) {
    char shape[32];
    const int count = test ? TESTS : TRAIN;
    const char *name = test ? "test" : "train";
    (void)snprintf(shape, sizeof shape, "(%d, 8, 8, 3)", count);
    put_npy(path_of("%s/%s_x.npy", dir, name), wide ? "<i2" : "|u1", shape, (size_t)count * 192, wide ? 2 : 1, noise);
    (void)snprintf(shape, sizeof shape, "(%d,)", count);
    put_npy(path_of("%s/%s_y.npy", dir, name), "|u1", shape, (size_t)count, 1, label_value);
  }
}

static char *put_set(Kind kind) {
  char *dir = make_temp();
  if (kind == IDX || kind == EMNIST) {
    put_idx_pair(dir, kind == IDX ? "train" : "emnist-letters-train", TRAIN);
    put_idx_pair(dir, kind == IDX ? "t10k" : "emnist-letters-test", TESTS);
  } else if (kind == CIFAR10) {
    for (int i = 0; i < 5; ++i) put_cifar_file(path_of("%s/data_batch_%d.bin", dir, i + 1), i < 4 ? 5 : 3, 1);
    put_cifar_file(path_of("%s/test_batch.bin", dir), TESTS, 1);
  } else if (kind == CIFAR100) {
    put_cifar_file(path_of("%s/train.bin", dir), TRAIN, 2);
    put_cifar_file(path_of("%s/test.bin", dir), TESTS, 2);
  } else {
    put_npy_set(dir, kind == NPY16);
  }
  return dir;
}

/* The file of training image 13 and the byte in it where that begins. */
static const char *file_of_13(const char *dir, Kind kind, long *at) {
  static const char *const names[] = {"train-images-idx3-ubyte",
                                      "emnist-letters-train-images-idx3-ubyte",
                                      "data_batch_3.bin",
                                      "train.bin",
                                      "train_x.npy",
                                      "train_x.npy"};
  const long begins[] = {16 + 13 * 64, 16 + 13 * 64, 3 * 3073, 13 * 3074, 128 + 13 * 192, 128 + 13 * 384};
  *at = begins[kind];
  return path_of("%s/%s", dir, names[kind]);
}

static NitiStatus try_lazy(NitiDataset **out, const char *dir) {
  NitiDataRequest request = request_of(NULL);
  request.lazy = true;
  return niti_dataset_open(out, dir, NULL, &request);
}

static NitiDataset *open_lazy(const char *dir) {
  NitiDataset *dataset = NULL;
  if (try_lazy(&dataset, dir) != NITI_OK) fail_msg("%s", niti_error());
  return dataset;
}

static void hash_all(NitiDataset *dataset) {
  char text[65];
  for (int split = NITI_TRAIN; split <= NITI_TEST; ++split) {
    if (niti_dataset_hash(dataset, (NitiSplit)split, text) != NITI_OK) fail_msg("%s", niti_error());
  }
}

/* A data set of one kind, opened twice: with its images in memory, and left in the files. */
typedef struct Set {
  Kind kind;
  char *dir, *path; /* path: the file of training image 13 */
  long at;          /* the byte in it where that begins */
  NitiDataset *kept, *left;
} Set;

static int open_set(void **state) {
  Set *s = malloc(sizeof *s);
  assert_non_null(s);
  s->kind = *(const Kind *)*state;
  s->dir = put_set(s->kind);
  s->path = strdup(file_of_13(s->dir, s->kind, &s->at));
  s->kept = open_good(s->dir, NITI_DATA_AUTO, NULL);
  s->left = open_lazy(s->dir);
  *state = s;
  return 0;
}

static int close_set(void **state) {
  Set *s = *state;
  niti_dataset_close(s->left);
  niti_dataset_close(s->kept);
  remove_temp(s->dir);
  free(s->path);
  free(s);
  return 0;
}

/* ---- the same ---- */

/* Reads a sample of any type as a loader would; *bytes: its length. */
static NitiStatus read_sample(uint8_t out[3072], size_t *bytes, const NitiDataset *dataset, NitiSplit split, int64_t index) {
  static const NitiDataOptions signs = {.type = NITI_INT16, .mean = {1000, 2000, 3000}, .std = {90000, 80000, 70000}};
  const NitiShape shape = niti_dataset_shape(dataset);
  *bytes = niti_shape_image(shape);
  if (niti_dataset_type(dataset) == NITI_UINT8) return niti_dataset_read(dataset, split, index, true, 0, 0, out);
  return niti_dataset_read_values(dataset, split, index, &signs, shape, (int8_t *)out);
}

static void check_images(const NitiDataset *kept, const NitiDataset *left) {
  uint8_t a[3072], b[3072];
  size_t bytes, same;
  for (int split = 0; split < NITI_SPLITS; ++split) {
    const int64_t count = niti_dataset_count(kept, (NitiSplit)split);
    assert_int_equal(count, niti_dataset_count(left, (NitiSplit)split));
    for (int64_t i = 0; i < count; ++i) {
      assert_int_equal(niti_dataset_label(kept, (NitiSplit)split, i), niti_dataset_label(left, (NitiSplit)split, i));
      assert_int_equal(read_sample(a, &bytes, kept, (NitiSplit)split, i), NITI_OK);
      assert_int_equal(read_sample(b, &same, left, (NitiSplit)split, i), NITI_OK);
      assert_int_equal(bytes, same);
      assert_memory_equal(a, b, bytes);
    }
  }
}

static void check_statistics(NitiDataset *kept, NitiDataset *left) {
  int32_t mean[2][NITI_CHANNELS_MAX], std[2][NITI_CHANNELS_MAX];
  assert_int_equal(niti_dataset_statistics(kept, mean[0], std[0]), NITI_OK);
  assert_int_equal(niti_dataset_statistics(left, mean[1], std[1]), NITI_OK);
  assert_memory_equal(mean[0], mean[1], sizeof mean[0]);
  assert_memory_equal(std[0], std[1], sizeof std[0]);
}

static void check_hashes(NitiDataset *kept, NitiDataset *left) {
  char a[65], b[65];
  for (int split = NITI_TRAIN; split <= NITI_TEST; ++split) {
    assert_null(niti_dataset_checks(left, (NitiSplit)split));
    assert_int_equal(niti_dataset_hash(kept, (NitiSplit)split, a), NITI_OK);
    assert_int_equal(niti_dataset_hash(left, (NitiSplit)split, b), NITI_OK);
    assert_string_equal(a, b);
    assert_null(niti_dataset_checks(kept, (NitiSplit)split));
    assert_non_null(niti_dataset_checks(left, (NitiSplit)split));
  }
  check_statistics(kept, left);
}

static void files_hold_what_memory_holds(void **state) {
  const Set *s = *state;
  NitiDataset *told = open_lazy(s->dir);
  assert_null(niti_dataset_images(s->left, NITI_TRAIN));
  assert_int_equal(niti_dataset_count(s->left, NITI_TRAIN), TRAIN);
  check_images(s->kept, s->left);
  check_hashes(s->kept, s->left);
  check_images(s->kept, s->left); /* which are checked by now */
  assert_int_equal(niti_dataset_set_checks(told, NITI_TRAIN, niti_dataset_checks(s->left, NITI_TRAIN)), NITI_OK);
  assert_int_equal(niti_dataset_set_checks(s->kept, NITI_TRAIN, niti_dataset_checks(s->left, NITI_TRAIN)), NITI_OK);
  check_images(s->kept, told);
  niti_dataset_close(told);
}

static void held_out_images_are_loaded_too(void **state) {
  const Set *s = *state;
  assert_int_equal(niti_dataset_hold_out(s->kept, 5, 0, SEED), NITI_OK);
  assert_int_equal(niti_dataset_hold_out(s->left, 5, 0, SEED), NITI_OK);
  hash_all(s->left);
  check_images(s->kept, s->left);
  if (niti_dataset_load(s->left) != NITI_OK) fail_msg("%s", niti_error());
  check_images(s->kept, s->left);
  for (int split = 0; split < NITI_SPLITS && s->kind != NPY16; ++split) {
    const size_t bytes = (size_t)niti_dataset_stored(s->kept, (NitiSplit)split) * niti_shape_image(niti_dataset_shape(s->kept));
    assert_memory_equal(niti_dataset_images(s->left, (NitiSplit)split), niti_dataset_images(s->kept, (NitiSplit)split), bytes);
  }
}

static void parts_add_up(void **state) {
  const Set *s = *state;
  enum { PARTS = 4 };
  const int channels = niti_dataset_shape(s->kept).c;
  int64_t sums[2 * NITI_CHANNELS_MAX] = {0};
  assert_int_equal(niti_dataset_hold_out(s->kept, 4, 0, SEED), NITI_OK);
  assert_int_equal(niti_dataset_hold_out(s->left, 4, 0, SEED), NITI_OK);
  for (int part = 0; part < PARTS; ++part) {
    if (niti_dataset_sum(s->left, part, PARTS) != NITI_OK) fail_msg("%s", niti_error());
    for (int i = 0; i < 2 * channels; ++i) sums[i] += niti_dataset_sums(s->left)[i];
  }
  memcpy(niti_dataset_sums(s->left), sums, 2 * (size_t)channels * sizeof *sums);
  check_statistics(s->kept, s->left);
}

/* ---- loaders ---- */

typedef struct Pair {
  NitiLoader *kept, *left;
} Pair;

static void open_pair(Pair *pair, NitiDataset *kept, NitiDataset *left, const NitiLoaderOptions *options) {
  const bool wide = niti_dataset_type(kept) == NITI_INT16;
  const NitiDataOptions data = {.type = niti_dataset_type(kept),
                                .mean = {1000, 2000, 3000},
                                .std = {90000, 80000, 70000},
                                .pad = 1,
                                .random_crop = true,
                                .flip = true,
                                .cutout = 3,
                                .mixup = NITI_MIXUP_EVEN,
                                .contrast = wide ? 0 : 400000};
  if (niti_loader_open(&pair->kept, kept, &data, options) != NITI_OK) fail_msg("%s", niti_error());
  if (niti_loader_open(&pair->left, left, &data, options) != NITI_OK) fail_msg("%s", niti_error());
  assert_int_equal(niti_loader_start(pair->kept, 3, 0), NITI_OK);
  assert_int_equal(niti_loader_start(pair->left, 3, 0), NITI_OK);
}

static void check_batch(const NitiBatch *kept, const NitiBatch *left) {
  const size_t image = niti_shape_image(left->source);
  assert_false(left->resident);
  assert_true(kept->count == left->count && kept->first == left->first && kept->whole == left->whole &&
              kept->ahead == left->ahead);
  assert_memory_equal(&kept->source, &left->source, sizeof left->source);
  for (int32_t i = 0; i < left->count + left->ahead; ++i) {
    NitiSample a = kept->samples[i], b = left->samples[i];
    assert_int_equal(kept->labels[i], left->labels[i]);
    assert_int_equal(b.image, i);
    assert_memory_equal(kept->images + a.image * image, left->images + b.image * image, image);
    a.image = b.image = 0;
    assert_memory_equal(&a, &b, sizeof a);
  }
}

static void check_loaders(NitiDataset *kept, NitiDataset *left, int ranks, int rank) {
  const NitiShape source = niti_dataset_shape(kept);
  NitiLoaderOptions options = {.input = {1, source.h - 1, source.w, source.c},
                               .batch = BATCH,
                               .seed = SEED,
                               .augment = true,
                               .workers = 2,
                               .ranks = ranks,
                               .rank = rank};
  for (int split = NITI_TRAIN; split <= NITI_TEST; ++split) {
    Pair pair;
    NitiBatch a, b;
    options.split = (NitiSplit)split;
    open_pair(&pair, kept, left, &options);
    do {
      assert_int_equal(niti_loader_next(pair.kept, &a), NITI_OK);
      if (niti_loader_next(pair.left, &b) != NITI_OK) fail_msg("%s", niti_error());
      if (a.count > 0) check_batch(&a, &b);
    } while (a.count > 0);
    assert_int_equal(b.count, 0);
    niti_loader_close(pair.kept);
    niti_loader_close(pair.left);
  }
}

static void loaders_make_the_same_batches(void **state) {
  const Set *s = *state;
  hash_all(s->left);
  check_loaders(s->kept, s->left, 0, 0);
  for (int rank = 0; rank < 3; ++rank) check_loaders(s->kept, s->left, 3, rank);
}

/* What this process has read so far, in bytes. */
static long long read_so_far(void) {
  long long bytes = 0;
  FILE *file = fopen("/proc/self/io", "r");
  assert_non_null(file);
  assert_int_equal(fscanf(file, "rchar: %lld", &bytes), 1);
  assert_int_equal(fclose(file), 0);
  return bytes;
}

/* Of every epoch its share, and what the next one begins with. */
static void a_rank_reads_its_share(void **state) {
  const Set *s = *state;
  enum { EPOCHS = 40, RECORD = 3074, SHARE_MOST = 3, AHEAD = 3 * SHARE_MOST, SMALL = 1000 };
  const NitiDataOptions data = {.random_crop = true};
  hash_all(s->left);
  for (int ranks = 1; ranks <= 4; ranks *= 2) {
    NitiLoaderOptions options = {
        .input = niti_dataset_shape(s->left), .batch = BATCH, .seed = SEED, .augment = true, .workers = 1, .ranks = ranks};
    long long all = 0;
    for (options.rank = 0; options.rank < ranks; ++options.rank) {
      NitiLoader *loader;
      NitiBatch batch;
      int images = 0;
      assert_int_equal(niti_loader_open(&loader, s->left, &data, &options), NITI_OK);
      const long long before = read_so_far();
      for (uint32_t epoch = 0; epoch < EPOCHS; ++epoch) {
        assert_int_equal(niti_loader_start(loader, epoch, 0), NITI_OK);
        while (niti_loader_next(loader, &batch) == NITI_OK && batch.count > 0) images += batch.count;
      }
      niti_loader_close(loader);
      const long long bytes = read_so_far() - before, most = ranks == 1 ? 3 * BATCH : AHEAD;
      assert_in_range(bytes, (long long)images * RECORD, (images + most) * RECORD + SMALL);
      all += images;
    }
    assert_in_range(all, TRAIN * EPOCHS, (TRAIN + ranks - 1) * EPOCHS); /* a rank without images repeats one */
  }
}

/* ---- files that change ---- */

static void flip_bit(const char *path, long at) {
  FILE *file = fopen(path, "r+b");
  assert_non_null(file);
  assert_int_equal(fseek(file, at, SEEK_SET), 0);
  const int byte = fgetc(file);
  assert_int_equal(fseek(file, at, SEEK_SET), 0);
  assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
  assert_int_equal(fclose(file), 0);
}

static void check_read(const NitiDataset *dataset, int64_t index, NitiStatus expected, const char *a, const char *b) {
  uint8_t sample[3072];
  size_t bytes;
  const NitiStatus status = read_sample(sample, &bytes, dataset, NITI_TRAIN, index);
  if (expected == NITI_OK && status != NITI_OK) fail_msg("%s", niti_error());
  if (expected != NITI_OK) check_error((int)status, (int)expected, niti_error(), a, b);
}

static void changes_are_noticed(void **state) {
  const Set *s = *state;
  char where[64];
  const bool labelled = s->kind == CIFAR10 || s->kind == CIFAR100;
  hash_all(s->left);
  (void)snprintf(where, sizeof where, "byte %ld: image %d", s->at, s->kind == CIFAR10 ? 3 : 13);
  for (int which = 0; which < 3; ++which) { /* its first byte (of CIFAR a label), its second, its last */
    const long byte = s->at + (which < 2 ? which : labelled ? 3072 : s->kind == NPY16 ? 383 : 63);
    flip_bit(s->path, byte);
    check_read(s->left, 13, NITI_ERROR_FORMAT, s->path, where);
    check_read(s->left, 12, NITI_OK, "", "");
    check_read(s->left, 14, NITI_OK, "", "");
    flip_bit(s->path, byte); /* touched, yet the same */
    check_read(s->left, 13, NITI_OK, "", "");
  }
  assert_int_equal(truncate(s->path, s->at + 20), 0);
  (void)snprintf(where, sizeof where, "byte %ld: the file ends here", s->at + 20);
  check_read(s->left, 13, NITI_ERROR_FORMAT, s->path, where);
  check_read(s->left, 12, NITI_OK, "", "");
}

/* A folder in place of the file, which cannot be read, stands for a disk that fails. */
static void failures_are_told(void **state) {
  const Set *s = *state;
  const int parent = open(s->dir, O_RDONLY);
  const NitiRecords *records = s->left->split[NITI_TRAIN].records;
  assert_true(parent >= 0);
  assert_int_equal(dup2(parent, records->files[s->kind == CIFAR10 ? 2 : 0].fd), records->files[s->kind == CIFAR10 ? 2 : 0].fd);
  assert_int_equal(close(parent), 0);
  check_read(s->left, 13, NITI_ERROR_FILE, s->path, "cannot read");
}

/* In the batch that wants the image, and again. */
static void loaders_end_at_changed_files(void **state) {
  const Set *s = *state;
  const NitiDataOptions data = {.type = niti_dataset_type(s->left), .std = {90000, 80000, 70000}};
  const NitiLoaderOptions options = {.split = NITI_TRAIN, .input = niti_dataset_shape(s->left), .batch = BATCH, .workers = 2};
  NitiLoader *loader;
  NitiBatch batch;
  hash_all(s->left);
  flip_bit(s->path, s->at + 5);
  if (niti_loader_open(&loader, s->left, &data, &options) != NITI_OK) fail_msg("%s", niti_error());
  assert_int_equal(niti_loader_start(loader, 0, 0), NITI_OK);
  for (int i = 0; i < 2; ++i) assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
  for (int i = 0; i < 2; ++i)
    check_error((int)niti_loader_next(loader, &batch), NITI_ERROR_FORMAT, niti_error(), s->path, "changed while in use");
  niti_loader_close(loader);
}

/* Between opening and hashing, when labels and some images have been read already. */
static void files_stay_the_same_until_they_are_hashed(void **state) {
  const Set *s = *state;
  char text[65];
  FILE *file = fopen(s->path, "ab");
  assert_non_null(file);
  assert_int_equal(fputc(0, file), 0);
  assert_int_equal(fclose(file), 0);
  check_error((int)niti_dataset_hash(s->left, NITI_TRAIN, text), NITI_ERROR_FILE, niti_error(), s->path,
              "changed after it was opened");
  assert_int_equal(niti_dataset_hash(s->left, NITI_TEST, text), NITI_OK);
}

/* Another file of that name is not the one that was opened and hashed, whose images remain. */
static void replaced_files_remain(void **state) {
  const Set *s = *state;
  hash_all(s->left);
  put_file(path_of("%s/new", s->dir), "something else", 14);
  assert_int_equal(rename(path_of("%s/new", s->dir), s->path), 0);
  check_images(s->kept, s->left);
}

/* What is wrong with a file is found as early, and said in the same words, as where it is read whole. */
static void damage_is_told_as_before(void **state) {
  (void)state;
  for (Kind kind = IDX; kind < KINDS; ++kind) {
    for (int way = 0; way < 3; ++way) { /* cut, longer, a bad label or header */
      long at;
      char said[512], *dir = put_set(kind);
      const char *path = file_of_13(dir, kind, &at);
      NitiDataset *kept = NULL, *left = NULL;
      const NitiDataRequest request = request_of(NULL);
      if (way == 0) assert_int_equal(truncate(path, at + 20), 0);
      if (way == 1) assert_int_equal(truncate(path, 100000), 0);
      if (way == 2) put_file(path, "\xff\xff\xff\xff", 4);
      const NitiStatus expected = niti_dataset_open(&kept, dir, NULL, &request);
      assert_int_not_equal(expected, NITI_OK);
      (void)snprintf(said, sizeof said, "%s", niti_error());
      assert_int_equal(try_lazy(&left, dir), expected);
      assert_string_equal(niti_error(), said);
      assert_null(left);
      remove_temp(dir);
    }
  }
}

static void labels_are_checked(void **state) {
  (void)state;
  char *dir = put_set(CIFAR100);
  NitiDataset *dataset = NULL;
  FILE *file = fopen(path_of("%s/train.bin", dir), "r+b");
  assert_non_null(file);
  assert_int_equal(fseek(file, 13 * 3074 + 1, SEEK_SET), 0);
  assert_int_equal(fputc(100, file), 100);
  assert_int_equal(fclose(file), 0);
  check_error((int)try_lazy(&dataset, dir), NITI_ERROR_FORMAT, niti_error(), "train.bin: byte 39963: label 100", "0 to 99");
  remove_temp(dir);
}

static const Kind kinds[KINDS] = {IDX, EMNIST, CIFAR10, CIFAR100, NPY8, NPY16};

#define WITH(test, kind) \
  { #test " (" #kind ")", test, open_set, close_set, (void *)(uintptr_t)&kinds[kind] }
#define WITH_EACH_KIND(test) \
  WITH(test, IDX), WITH(test, EMNIST), WITH(test, CIFAR10), WITH(test, CIFAR100), WITH(test, NPY8), WITH(test, NPY16)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_EACH_KIND(files_hold_what_memory_holds),
      WITH_EACH_KIND(held_out_images_are_loaded_too),
      WITH_EACH_KIND(parts_add_up),
      WITH_EACH_KIND(loaders_make_the_same_batches),
      WITH(a_rank_reads_its_share, CIFAR100),
      WITH_EACH_KIND(changes_are_noticed),
      WITH_EACH_KIND(failures_are_told),
      WITH_EACH_KIND(loaders_end_at_changed_files),
      WITH_EACH_KIND(files_stay_the_same_until_they_are_hashed),
      WITH_EACH_KIND(replaced_files_remain),
      cmocka_unit_test(damage_is_told_as_before),
      cmocka_unit_test(labels_are_checked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
