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

static void check_hashes(NitiDataset *kept, NitiDataset *left) {
  char a[65], b[65];
  int32_t mean[2][NITI_CHANNELS_MAX], std[2][NITI_CHANNELS_MAX];
  for (int split = NITI_TRAIN; split <= NITI_TEST; ++split) {
    assert_null(niti_dataset_checks(left, (NitiSplit)split));
    assert_int_equal(niti_dataset_hash(kept, (NitiSplit)split, a), NITI_OK);
    assert_int_equal(niti_dataset_hash(left, (NitiSplit)split, b), NITI_OK);
    assert_string_equal(a, b);
    assert_null(niti_dataset_checks(kept, (NitiSplit)split));
    assert_non_null(niti_dataset_checks(left, (NitiSplit)split));
  }
  assert_int_equal(niti_dataset_statistics(kept, mean[0], std[0]), NITI_OK);
  assert_int_equal(niti_dataset_statistics(left, mean[1], std[1]), NITI_OK);
  assert_memory_equal(mean[0], mean[1], sizeof mean[0]);
  assert_memory_equal(std[0], std[1], sizeof std[0]);
}

static void files_hold_what_memory_holds(void **state) {
  (void)state;
  for (Kind kind = IDX; kind < KINDS; ++kind) {
    char *dir = put_set(kind);
    NitiDataset *kept = open_good(dir, NITI_DATA_AUTO, NULL), *left = open_lazy(dir), *told = open_lazy(dir);
    assert_null(niti_dataset_images(left, NITI_TRAIN));
    assert_int_equal(niti_dataset_count(left, NITI_TRAIN), TRAIN);
    check_images(kept, left);
    check_hashes(kept, left);
    check_images(kept, left); /* which are checked by now */
    assert_int_equal(niti_dataset_set_checks(told, NITI_TRAIN, niti_dataset_checks(left, NITI_TRAIN)), NITI_OK);
    assert_int_equal(niti_dataset_set_checks(kept, NITI_TRAIN, niti_dataset_checks(left, NITI_TRAIN)), NITI_OK);
    check_images(kept, told);
    niti_dataset_close(told);
    niti_dataset_close(left);
    niti_dataset_close(kept);
    remove_temp(dir);
  }
}

static void held_out_images_are_loaded_too(void **state) {
  (void)state;
  for (Kind kind = IDX; kind < KINDS; ++kind) {
    char *dir = put_set(kind);
    NitiDataset *kept = open_good(dir, NITI_DATA_AUTO, NULL), *left = open_lazy(dir);
    assert_int_equal(niti_dataset_hold_out(kept, 5, 0, SEED), NITI_OK);
    assert_int_equal(niti_dataset_hold_out(left, 5, 0, SEED), NITI_OK);
    hash_all(left);
    check_images(kept, left);
    if (niti_dataset_load(left) != NITI_OK) fail_msg("%s", niti_error());
    check_images(kept, left);
    for (int split = 0; split < NITI_SPLITS && kind != NPY16; ++split) {
      const size_t bytes = (size_t)niti_dataset_stored(kept, (NitiSplit)split) * niti_shape_image(niti_dataset_shape(kept));
      assert_memory_equal(niti_dataset_images(left, (NitiSplit)split), niti_dataset_images(kept, (NitiSplit)split), bytes);
    }
    niti_dataset_close(left);
    niti_dataset_close(kept);
    remove_temp(dir);
  }
}

static void parts_add_up(void **state) {
  (void)state;
  enum { PARTS = 4 };
  for (Kind kind = IDX; kind < KINDS; ++kind) {
    char *dir = put_set(kind);
    NitiDataset *all = open_good(dir, NITI_DATA_AUTO, NULL), *parts = open_lazy(dir);
    const int channels = niti_dataset_shape(all).c;
    int64_t sums[2 * NITI_CHANNELS_MAX] = {0};
    int32_t mean[2][NITI_CHANNELS_MAX], std[2][NITI_CHANNELS_MAX];
    assert_int_equal(niti_dataset_hold_out(all, 4, 0, SEED), NITI_OK);
    assert_int_equal(niti_dataset_hold_out(parts, 4, 0, SEED), NITI_OK);
    for (int part = 0; part < PARTS; ++part) {
      if (niti_dataset_sum(parts, part, PARTS) != NITI_OK) fail_msg("%s", niti_error());
      for (int i = 0; i < 2 * channels; ++i) sums[i] += niti_dataset_sums(parts)[i];
    }
    memcpy(niti_dataset_sums(parts), sums, 2 * (size_t)channels * sizeof *sums);
    assert_int_equal(niti_dataset_statistics(all, mean[0], std[0]), NITI_OK);
    assert_int_equal(niti_dataset_statistics(parts, mean[1], std[1]), NITI_OK);
    assert_memory_equal(mean[0], mean[1], sizeof mean[0]);
    assert_memory_equal(std[0], std[1], sizeof std[0]);
    niti_dataset_close(parts);
    niti_dataset_close(all);
    remove_temp(dir);
  }
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
  (void)state;
  for (Kind kind = IDX; kind < KINDS; ++kind) {
    char *dir = put_set(kind);
    NitiDataset *kept = open_good(dir, NITI_DATA_AUTO, NULL), *left = open_lazy(dir);
    hash_all(left);
    check_loaders(kept, left, 0, 0);
    for (int rank = 0; rank < 3; ++rank) check_loaders(kept, left, 3, rank);
    niti_dataset_close(left);
    niti_dataset_close(kept);
    remove_temp(dir);
  }
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
  (void)state;
  enum { EPOCHS = 40, RECORD = 3074, SHARE_MOST = 3, AHEAD = 3 * SHARE_MOST, SMALL = 1000 };
  char *dir = put_set(CIFAR100);
  NitiDataset *dataset = open_lazy(dir);
  const NitiDataOptions data = {.random_crop = true};
  hash_all(dataset);
  for (int ranks = 1; ranks <= 4; ranks *= 2) {
    NitiLoaderOptions options = {
        .input = niti_dataset_shape(dataset), .batch = BATCH, .seed = SEED, .augment = true, .workers = 1, .ranks = ranks};
    long long all = 0;
    for (options.rank = 0; options.rank < ranks; ++options.rank) {
      NitiLoader *loader;
      NitiBatch batch;
      int images = 0;
      assert_int_equal(niti_loader_open(&loader, dataset, &data, &options), NITI_OK);
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
  niti_dataset_close(dataset);
  remove_temp(dir);
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
  (void)state;
  for (Kind kind = IDX; kind < KINDS; ++kind) {
    long at;
    char where[64], *dir = put_set(kind);
    const char *path = file_of_13(dir, kind, &at);
    const bool labelled = kind == CIFAR10 || kind == CIFAR100;
    NitiDataset *dataset = open_lazy(dir);
    hash_all(dataset);
    (void)snprintf(where, sizeof where, "byte %ld: image %d", at, kind == CIFAR10 ? 3 : 13);
    for (int which = 0; which < 3; ++which) { /* its first byte (of CIFAR a label), its second, its last */
      const long byte = at + (which < 2 ? which : labelled ? 3072 : kind == NPY16 ? 383 : 63);
      flip_bit(path, byte);
      check_read(dataset, 13, NITI_ERROR_FORMAT, path, where);
      check_read(dataset, 12, NITI_OK, "", "");
      check_read(dataset, 14, NITI_OK, "", "");
      flip_bit(path, byte); /* touched, yet the same */
      check_read(dataset, 13, NITI_OK, "", "");
    }
    assert_int_equal(truncate(path, at + 20), 0);
    (void)snprintf(where, sizeof where, "byte %ld: the file ends here", at + 20);
    check_read(dataset, 13, NITI_ERROR_FORMAT, path, where);
    check_read(dataset, 12, NITI_OK, "", "");
    niti_dataset_close(dataset);
    remove_temp(dir);
  }
}

/* A folder in place of the file, which cannot be read, stands for a disk that fails. */
static void failures_are_told(void **state) {
  (void)state;
  for (Kind kind = IDX; kind < KINDS; ++kind) {
    long at;
    char *dir = put_set(kind);
    const char *path = file_of_13(dir, kind, &at);
    NitiDataset *dataset = open_lazy(dir);
    const int parent = open(dir, O_RDONLY);
    const NitiRecords *records = dataset->split[NITI_TRAIN].records;
    assert_true(parent >= 0);
    assert_int_equal(dup2(parent, records->files[kind == CIFAR10 ? 2 : 0].fd), records->files[kind == CIFAR10 ? 2 : 0].fd);
    assert_int_equal(close(parent), 0);
    check_read(dataset, 13, NITI_ERROR_FILE, path, "cannot read");
    niti_dataset_close(dataset);
    remove_temp(dir);
  }
}

/* In the batch that wants the image, and again. */
static void loaders_end_at_changed_files(void **state) {
  (void)state;
  for (Kind kind = IDX; kind < KINDS; ++kind) {
    long at;
    char *dir = put_set(kind);
    const char *path = file_of_13(dir, kind, &at);
    NitiDataset *dataset = open_lazy(dir);
    const NitiDataOptions data = {.type = niti_dataset_type(dataset), .std = {90000, 80000, 70000}};
    const NitiLoaderOptions options = {.split = NITI_TRAIN, .input = niti_dataset_shape(dataset), .batch = BATCH, .workers = 2};
    NitiLoader *loader;
    NitiBatch batch;
    hash_all(dataset);
    flip_bit(path, at + 5);
    if (niti_loader_open(&loader, dataset, &data, &options) != NITI_OK) fail_msg("%s", niti_error());
    assert_int_equal(niti_loader_start(loader, 0, 0), NITI_OK);
    for (int i = 0; i < 2; ++i) assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
    for (int i = 0; i < 2; ++i)
      check_error((int)niti_loader_next(loader, &batch), NITI_ERROR_FORMAT, niti_error(), path, "changed while in use");
    niti_loader_close(loader);
    niti_dataset_close(dataset);
    remove_temp(dir);
  }
}

/* Between opening and hashing, when labels and some images have been read already. */
static void files_stay_the_same_until_they_are_hashed(void **state) {
  (void)state;
  for (Kind kind = IDX; kind < KINDS; ++kind) {
    long at;
    char text[65], *dir = put_set(kind);
    const char *path = file_of_13(dir, kind, &at);
    NitiDataset *dataset = open_lazy(dir);
    FILE *file = fopen(path, "ab");
    assert_non_null(file);
    assert_int_equal(fputc(0, file), 0);
    assert_int_equal(fclose(file), 0);
    check_error((int)niti_dataset_hash(dataset, NITI_TRAIN, text), NITI_ERROR_FILE, niti_error(), path,
                "changed after it was opened");
    assert_int_equal(niti_dataset_hash(dataset, NITI_TEST, text), NITI_OK);
    niti_dataset_close(dataset);
    remove_temp(dir);
  }
}

/* Another file of that name is not the one that was opened and hashed, whose images remain. */
static void replaced_files_remain(void **state) {
  (void)state;
  for (Kind kind = IDX; kind < KINDS; ++kind) {
    long at;
    char *dir = put_set(kind);
    const char *path = file_of_13(dir, kind, &at);
    NitiDataset *kept = open_good(dir, NITI_DATA_AUTO, NULL), *dataset = open_lazy(dir);
    hash_all(dataset);
    put_file(path_of("%s/new", dir), "something else", 14);
    assert_int_equal(rename(path_of("%s/new", dir), path), 0);
    check_images(kept, dataset);
    niti_dataset_close(dataset);
    niti_dataset_close(kept);
    remove_temp(dir);
  }
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(files_hold_what_memory_holds),
      cmocka_unit_test(held_out_images_are_loaded_too),
      cmocka_unit_test(parts_add_up),
      cmocka_unit_test(loaders_make_the_same_batches),
      cmocka_unit_test(a_rank_reads_its_share),
      cmocka_unit_test(changes_are_noticed),
      cmocka_unit_test(failures_are_told),
      cmocka_unit_test(loaders_end_at_changed_files),
      cmocka_unit_test(files_stay_the_same_until_they_are_hashed),
      cmocka_unit_test(replaced_files_remain),
      cmocka_unit_test(damage_is_told_as_before),
      cmocka_unit_test(labels_are_checked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
