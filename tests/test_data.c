/* Data sets: every format with known content, statistics, hashes, and every kind of damaged input. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */

#include "data/format.h"
#include "data_open.h"
#include "platform/sha256.h"

/* ---- IDX ---- */

static uint8_t pixel_value(size_t i) { return (uint8_t)(i * 7 + 3); }
static uint8_t label_value(size_t i) { return (uint8_t)(i % 3); }
static uint8_t label_four(size_t i) { return i == 1 ? 4 : 0; }

static const uint32_t train_dims[3] = {5, 4, 3}, test_dims[3] = {2, 4, 3};

static void put_idx_set(const char *dir, bool gzip, char dot) {
  const char *end = gzip ? ".gz" : "";
  put_idx(path_of("%s/train-images%cidx3-ubyte%s", dir, dot, end), 3, train_dims, pixel_value, gzip);
  put_idx(path_of("%s/train-labels%cidx1-ubyte%s", dir, dot, end), 1, train_dims, label_value, gzip);
  put_idx(path_of("%s/t10k-images%cidx3-ubyte%s", dir, dot, end), 3, test_dims, pixel_value, gzip);
  put_idx(path_of("%s/t10k-labels%cidx1-ubyte%s", dir, dot, end), 1, test_dims, label_value, gzip);
}

static void check_idx_set(NitiDataset *dataset) {
  assert_string_equal(niti_dataset_kind(dataset), "idx");
  assert_int_equal(niti_dataset_classes(dataset), 3);
  assert_null(niti_dataset_class_name(dataset, 2)); /* numbers are no names */
  assert_null(niti_dataset_class_name(dataset, 3));
  assert_null(niti_dataset_class_name(dataset, -1));
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 5);
  assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 2);
  const NitiShape shape = niti_dataset_shape(dataset);
  assert_true(shape.n == 1 && shape.h == 4 && shape.w == 3 && shape.c == 1);
  const uint8_t *images = niti_dataset_images(dataset, NITI_TRAIN);
  for (size_t i = 0; i < 60; ++i) assert_int_equal(images[i], pixel_value(i));
  for (int64_t i = 0; i < 5; ++i) assert_int_equal(niti_dataset_label(dataset, NITI_TRAIN, i), i % 3);
  uint8_t one[12];
  assert_int_equal(niti_dataset_read(dataset, NITI_TRAIN, 4, true, 0, 0, one), NITI_OK);
  assert_memory_equal(one, images + 48, 12);
  check_error((int)niti_dataset_read(dataset, NITI_TEST, 2, true, 0, 0, one), NITI_ERROR_ARGUMENT, niti_error(), "image 2",
              "0..1");
  niti_dataset_close(dataset);
}

static void idx_is_read(void **state) {
  (void)state;
  for (int i = 0; i < 4; ++i) {
    char *dir = make_temp();
    put_idx_set(dir, i & 1, i & 2 ? '.' : '-');
    check_idx_set(open_good(dir, NITI_DATA_AUTO, NULL));
    check_idx_set(open_good(path_of("%s//", dir), NITI_DATA_IDX, &size8));
    NitiDataset *dataset = NULL;
    assert_int_equal(niti_dataset_open(&dataset, dir, NULL, NULL), NITI_OK);
    check_idx_set(dataset);
    remove_temp(dir);
  }
}

static void idx_in_parent_and_names(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *mnist = path_of("%s/mnist", dir);
  put_dir(mnist);
  put_idx_set(mnist, false, '-');
  check_idx_set(open_good(dir, NITI_DATA_AUTO, NULL));
  put_file(path_of("%s/mnist/classes.txt", dir),
           "\xef\xbb\xbf"
           "cat\r\nsmall dog\nbird\n\n",
           24);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_string_equal(niti_dataset_class_name(dataset, 0), "cat");
  assert_string_equal(niti_dataset_class_name(dataset, 1), "small dog");
  niti_dataset_close(dataset);
  put_file(path_of("%s/mnist/classes.txt", dir), "cat\ndog\n", 8);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "classes.txt: line 3", "expected 3 class names");
  put_file(path_of("%s/mnist/classes.txt", dir), "cat\n\ndog\n", 9);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "classes.txt: line 2", "expected a class name");
  put_file(path_of("%s/mnist/classes.txt", dir), "a\nb\nc\nd\n", 8);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "classes.txt: line 4", "expected the end");
  remove_temp(dir);
}

static void idx_damage_is_told(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *images = strdup(path_of("%s/train-images-idx3-ubyte", dir));
  const char *labels = strdup(path_of("%s/t10k-labels-idx1-ubyte", dir));
  size_t size = 0;
  uint8_t *good = idx_bytes(&size, 3, train_dims, pixel_value);
  put_idx_set(dir, false, '-');

  put_file(images, good, size - 1);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "byte 16: the header promises 60 more bytes");
  put_file(images, good, 10);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "byte 10: the file ends here");
  put_file(images, good, 0);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "byte 0: the file ends here");
  uint8_t *longer = calloc(1, size + 1);
  memcpy(longer, good, size);
  put_file(images, longer, size + 1);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "byte 76: expected the end");
  free(longer);
  good[3] = 1;
  put_file(images, good, size);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "magic number 0x00000801, expected 0x00000803");
  good[3] = 3;
  put_u32(good + 4, 0);
  put_file(images, good, size);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "byte 4: 0 items");
  put_u32(good + 4, UINT32_MAX);
  put_file(images, good, size);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "byte 4: 4294967295 items");
  put_u32(good + 4, 5);
  put_u32(good + 12, 20000);
  put_file(images, good, size);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "byte 12: 20000 pixels a side");
  put_u32(good + 12, 3);
  put_u32(good + 4, INT32_MAX);
  put_file(images, good, size);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "promises 25769803764 more bytes");
  put_u32(good + 4, 5);
  put_file(images, good, size);
  niti_dataset_close(open_good(dir, NITI_DATA_AUTO, NULL));

  put_idx(labels, 1, train_dims, label_value, false); /* five labels for two images */
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, labels, "byte 4: 5 labels, expected 2");
  put_idx(labels, 1, test_dims, label_four, false);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, labels, "byte 9: label 4, expected 0 to 2");
  assert_int_equal(remove(labels), 0);
  expect_open(NITI_ERROR_FILE, dir, NITI_DATA_AUTO, NULL, labels, "not found");
  put_idx(labels, 1, test_dims, label_value, false);
  const uint32_t wide[3] = {2, 4, 5};
  put_idx(path_of("%s/t10k-images-idx3-ubyte", dir), 3, wide, pixel_value, false);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "t10k-images", "images of 4x5, expected 4x3");
  put_idx(path_of("%s/t10k-images-idx3-ubyte", dir), 3, test_dims, pixel_value, false);
  if (geteuid() != 0) {
    assert_int_equal(chmod(images, 0), 0);
    expect_open(NITI_ERROR_FILE, dir, NITI_DATA_AUTO, NULL, images, "cannot open");
  }
  free((void *)(uintptr_t)images);
  free((void *)(uintptr_t)labels);
  free(good);
  remove_temp(dir);
}

static void gzip_damage_is_told(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *images = strdup(path_of("%s/train-images-idx3-ubyte.gz", dir));
  size_t size = 0, raw = 0;
  put_idx_set(dir, true, '-');
  uint8_t *good = get_file(images, &size);
  for (size_t cut = 1; cut < 30; ++cut) { /* in the data, the checksum or the length */
    put_file(images, good, size - cut);
    expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "byte");
  }
  good[size - 8] ^= 1; /* checksum */
  put_file(images, good, size);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "damaged gzip data");
  uint8_t *plain = idx_bytes(&raw, 3, train_dims, pixel_value);
  put_u32(plain + 4, 1 << 20);
  put_gzip(images, plain, raw);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "the header promises 12582912 more bytes");
  put_u32(plain + 4, 6);
  put_gzip(images, plain, raw);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "byte 76: the file ends here");
  put_u32(plain + 4, 4);
  put_gzip(images, plain, raw);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "byte 64: expected the end");
  free(plain);
  free(good);
  free((void *)(uintptr_t)images);
  remove_temp(dir);
}

/* What may follow a member of a gzip file: zeros, or another member, which is part of the content. */
static void what_follows_gzip_data(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *images = strdup(path_of("%s/train-images-idx3-ubyte.gz", dir));
  char expected[128], hashes[2][65];
  size_t size = 0, raw = 0;
  put_idx_set(dir, true, '-');
  uint8_t *good = get_file(images, &size), *longer = calloc(1, size + 300000);
  NitiDataset *set = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_int_equal(niti_dataset_hash(set, NITI_TRAIN, hashes[0]), NITI_OK);
  niti_dataset_close(set);
  memcpy(longer, good, size);
  for (size_t zeros = 1; zeros <= 300000; zeros += 299999) {
    put_file(images, longer, size + zeros);
    set = open_good(dir, NITI_DATA_AUTO, NULL);
    assert_int_equal(niti_dataset_hash(set, NITI_TRAIN, hashes[1]), NITI_OK);
    assert_string_equal(hashes[0], hashes[1]);
    niti_dataset_close(set);
  }
  static const struct {
    size_t at;
    const char *bytes;
  } garbage[] = {{0, "x"}, {0, "\x1f"}, {0, "text"}, {1, "\x1f\x8b"}, {299999, "x"}};
  for (size_t i = 0; i < sizeof garbage / sizeof *garbage; ++i) {
    const size_t at = size + garbage[i].at, count = strlen(garbage[i].bytes);
    memset(longer + size, 0, 300000);
    memcpy(longer + at, garbage[i].bytes, count);
    put_file(images, longer, at + count);
    (void)snprintf(expected, sizeof expected, "byte %zu of the packed file: expected the end", at);
    expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, expected);
  }
  uint8_t *plain = idx_bytes(&raw, 3, train_dims, pixel_value);
  put_gzip(images, plain, raw / 2);
  uint8_t *half = get_file(images, &size);
  put_gzip(images, plain + raw / 2, raw - raw / 2);
  uint8_t *rest = get_file(images, &raw);
  memcpy(longer, half, size);
  memcpy(longer + size, rest, raw);
  put_file(images, longer, size + raw);
  set = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_int_equal(niti_dataset_hash(set, NITI_TRAIN, hashes[1]), NITI_OK);
  assert_string_equal(hashes[0], hashes[1]);
  niti_dataset_close(set);
  put_file(images, longer, size + raw - 1);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "the file ends too early");
  free(rest);
  free(half);
  free(plain);
  free(longer);
  free(good);
  free((void *)(uintptr_t)images);
  remove_temp(dir);
}

/* ---- CIFAR ---- */

enum { PLANE = 1024, RECORD10 = 3073, RECORD100 = 3074 };

/* Pixel p of channel c of image n. */
static uint8_t cifar_pixel(int n, int c, int p) { return (uint8_t)(n * 31 + c * 80 + p * (c + 1)); }

static void put_cifar(const char *path, int first, int count, int label_bytes) {
  const size_t record = (size_t)label_bytes + 3 * PLANE;
  uint8_t *bytes = malloc(record * (size_t)count);
  for (int i = 0; i < count; ++i) {
    uint8_t *at = bytes + record * (size_t)i;
    const int n = first + i;
    if (label_bytes == 2) *at++ = (uint8_t)(n % 20);
    *at++ = (uint8_t)(label_bytes == 2 ? 99 - n : n % 10);
    for (int c = 0; c < 3; ++c) {
      for (int p = 0; p < PLANE; ++p) *at++ = cifar_pixel(n, c, p);
    }
  }
  put_file(path, bytes, record * (size_t)count);
  free(bytes);
}

static void put_cifar10(const char *dir) {
  for (int i = 0; i < 5; ++i) put_cifar(path_of("%s/data_batch_%d.bin", dir, i + 1), 2 * i, 2, 1);
  put_cifar(path_of("%s/test_batch.bin", dir), 10, 3, 1);
}

static void check_cifar_images(const NitiDataset *dataset, NitiSplit split, int first) {
  const uint8_t *images = niti_dataset_images(dataset, split);
  for (int n = 0; n < (int)niti_dataset_count(dataset, split); ++n) {
    for (int p = 0; p < PLANE; ++p) {
      for (int c = 0; c < 3; ++c) assert_int_equal(*images++, cifar_pixel(first + n, c, p));
    }
  }
}

static void cifar10_is_read(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *sub = strdup(path_of("%s/cifar-10-batches-bin", dir));
  put_dir(sub);
  put_cifar10(sub);
  for (int i = 0; i < 2; ++i) {
    NitiDataset *dataset = open_good(i ? sub : dir, i ? NITI_DATA_CIFAR10 : NITI_DATA_AUTO, NULL);
    assert_string_equal(niti_dataset_kind(dataset), "cifar10");
    assert_int_equal(niti_dataset_classes(dataset), 10);
    assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 10);
    assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 3);
    assert_int_equal(niti_dataset_shape(dataset).c, 3);
    for (int n = 0; n < 10; ++n) assert_int_equal(niti_dataset_label(dataset, NITI_TRAIN, n), n);
    check_cifar_images(dataset, NITI_TRAIN, 0);
    check_cifar_images(dataset, NITI_TEST, 10);
    if (i)
      assert_string_equal(niti_dataset_class_name(dataset, 9), "j");
    else
      assert_null(niti_dataset_class_name(dataset, 9));
    niti_dataset_close(dataset);
    put_file(path_of("%s/batches.meta.txt", sub), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n", 21);
  }
  const char *third = path_of("%s/data_batch_3.bin", sub);
  size_t size = 0;
  uint8_t *bytes = get_file(third, &size);
  assert_int_equal(remove(third), 0);
  expect_open(NITI_ERROR_FILE, dir, NITI_DATA_AUTO, NULL, "cifar-10-batches-bin/data_batch_3.bin", "not found");
  put_file(third, bytes, size - 1);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "data_batch_3.bin: byte 6145", "multiple of 3073");
  put_file(third, bytes, 0);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "data_batch_3.bin: byte 0", "multiple of 3073");
  bytes[RECORD10] = 10;
  put_file(third, bytes, size);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "data_batch_3.bin: byte 3073", "label 10, expected 0 to 9");
  free(bytes);
  free((void *)(uintptr_t)sub);
  remove_temp(dir);
}

static void cifar100_is_read(void **state) {
  (void)state;
  char *dir = make_temp();
  put_cifar(path_of("%s/train.bin", dir), 0, 4, 2);
  put_cifar(path_of("%s/test.bin", dir), 4, 1, 2);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_string_equal(niti_dataset_kind(dataset), "cifar100");
  assert_int_equal(niti_dataset_classes(dataset), 100);
  for (int n = 0; n < 4; ++n) assert_int_equal(niti_dataset_label(dataset, NITI_TRAIN, n), 99 - n);
  check_cifar_images(dataset, NITI_TRAIN, 0);
  check_cifar_images(dataset, NITI_TEST, 4);
  niti_dataset_close(dataset);
  const char *test = path_of("%s/test.bin", dir);
  size_t size = 0;
  uint8_t *bytes = get_file(test, &size);
  assert_int_equal(size, RECORD100);
  bytes[0] = 20;
  put_file(test, bytes, size);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "test.bin: byte 0", "label 20, expected 0 to 19");
  bytes[0] = 19;
  bytes[1] = 100;
  put_file(test, bytes, size);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "test.bin: byte 1", "label 100, expected 0 to 99");
  free(bytes);
  assert_int_equal(remove(test), 0);
  expect_open(NITI_ERROR_FILE, dir, NITI_DATA_AUTO, NULL, "test.bin", "not found");
  remove_temp(dir);
}

static void idx_of_others_is_found(void **state) {
  (void)state;
  char *dir = make_temp();
  put_dir(path_of("%s/MNIST", dir));
  put_dir(path_of("%s/MNIST/raw", dir)); /* as torchvision has it */
  put_idx_set(path_of("%s/MNIST/raw", dir), true, '-');
  check_idx_set(open_good(dir, NITI_DATA_AUTO, NULL));
  remove_temp(dir);
}

static uint8_t row_of(size_t i) { return (uint8_t)(10 * (i / 4 % 4)); } /* of 4x4 images: their rows are alike */

static void emnist_is_set_upright(void **state) {
  (void)state;
  static const uint32_t train[3] = {2, 4, 4}, test[3] = {1, 4, 4};
  char *dir = make_temp();
  const char *images = path_of("%s/emnist-letters-train-images-idx3-ubyte", dir);
  put_idx(images, 3, train, row_of, false);
  put_idx(path_of("%s/emnist-letters-train-labels-idx1-ubyte", dir), 1, train, label_value, false);
  put_idx(path_of("%s/emnist-letters-test-images-idx3-ubyte.gz", dir), 3, test, row_of, true);
  put_idx(path_of("%s/emnist-letters-test-labels-idx1-ubyte.gz", dir), 1, test, label_value, true);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 2);
  assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 1);
  for (int i = 0; i < 32; ++i) assert_int_equal(niti_dataset_images(dataset, NITI_TRAIN)[i], 10 * (i % 4)); /* columns are */
  niti_dataset_close(dataset);
  put_idx(images, 3, train_dims, pixel_value, false);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, images, "images of 4x3, expected square");
  put_idx(path_of("%s/emnist-digits-test-images-idx3-ubyte", dir), 3, test, row_of, false);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "emnist-digits-train", "emnist-letters-train");
  remove_temp(dir);
}

static NitiDataset *open_for_test(const char *dir, int32_t classes) {
  NitiDataset *dataset = NULL;
  const NitiDataRequest request = {.need = NITI_SPLIT_BIT(NITI_TEST), .classes = classes};
  if (niti_dataset_open(&dataset, dir, NULL, &request) != NITI_OK) fail_msg("%s", niti_error());
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 0);
  return dataset;
}

/* Without training images the labels alone do not say how many classes there are. */
static void test_images_are_read_alone(void **state) {
  (void)state;
  char *dir = make_temp();
  put_idx_set(dir, false, '-');
  put_file(path_of("%s/train-images-idx3-ubyte", dir), "damaged", 7); /* a split that is not requested is not read */
  NitiDataset *dataset = open_for_test(dir, 0);
  assert_int_equal(niti_dataset_classes(dataset), 2); /* 0 and 1 */
  niti_dataset_close(dataset);
  dataset = open_for_test(dir, 3);
  assert_int_equal(niti_dataset_classes(dataset), 3);
  assert_null(niti_dataset_class_name(dataset, 2)); /* numbers are no names */
  assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 2);
  niti_dataset_close(dataset);
  remove_temp(dir);
  dir = make_temp();
  put_cifar(path_of("%s/test_batch.bin", dir), 10, 3, 1);
  dataset = open_for_test(dir, 10);
  check_cifar_images(dataset, NITI_TEST, 10);
  niti_dataset_close(dataset);
  expect_open(NITI_ERROR_FILE, dir, NITI_DATA_AUTO, NULL, "data_batch_1.bin", "not found");
  remove_temp(dir);
}

/* ---- probing ---- */

static void probing_says_what_it_looked_for(void **state) {
  (void)state;
  char *dir = make_temp();
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "idx: (train|t10k)-(images-idx3|labels-idx1)-ubyte",
              "test_batch.bin");
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "cifar100: train.bin", "folder: train/CLASS/");
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_CIFAR100, NULL, "looked for cifar100: train.bin", dir);
  expect_open(NITI_ERROR_FILE, path_of("%s/none", dir), NITI_DATA_AUTO, NULL, "none", "No such file");
  put_file(path_of("%s/file", dir), "x", 1);
  expect_open(NITI_ERROR_FILE, path_of("%s/file", dir), NITI_DATA_AUTO, NULL, "file", "expected a folder");
  expect_open(NITI_ERROR_ARGUMENT, dir, (NitiDataKind)9, NULL, "data kind 9", "not known");
  const char *mnist = path_of("%s/mnist", dir), *cifar = path_of("%s/cifar-10-batches-bin", dir);
  put_dir(mnist);
  put_dir(cifar);
  put_idx_set(mnist, true, '-');
  put_cifar10(cifar);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "idx in mnist/", "cifar10 in cifar-10-batches-bin/");
  check_idx_set(open_good(dir, NITI_DATA_IDX, NULL));
  NitiDataset *dataset = NULL;
  check_error((int)niti_dataset_open(&dataset, dir, &(NitiDataOptions){.pad = -1}, NULL), NITI_ERROR_ARGUMENT, niti_error(),
              "padding -1", "not in 0..");
  check_error((int)niti_dataset_open(&dataset, dir, &(NitiDataOptions){.resize = 1 << 20}, NULL), NITI_ERROR_ARGUMENT,
              niti_error(), "resize 1048576", "not in 0..");
  remove_temp(dir);
}

/* ---- statistics, hashes, the default ---- */

static uint8_t black_or_white(size_t i) { return i < 15 ? 255 : 0; }
static uint8_t flat(size_t i) { return i < 60 ? 51 : 0; }

static void statistics_are_exact(void **state) {
  (void)state;
  char *dir = make_temp();
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  put_idx_set(dir, false, '-');
  const char *images = path_of("%s/train-images-idx3-ubyte", dir);
  /* A quarter of the pixels white: mean 1/4, deviation sqrt(3) / 4 = 0.4330127. */
  put_idx(images, 3, train_dims, black_or_white, false);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  assert_int_equal(mean[0], 250000);
  assert_int_equal(std[0], 433013);
  assert_int_equal(mean[1], 0);
  assert_int_equal(std[NITI_CHANNELS_MAX - 1], 0);
  niti_dataset_close(dataset);
  put_idx(images, 3, train_dims, flat, false);
  dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  assert_int_equal(mean[0], 200000);
  assert_int_equal(std[0], 0);
  niti_dataset_close(dataset);
  remove_temp(dir);
  /* Flat images of 5, 15, 25: mean 15 / 255 = 0.0588235, deviation sqrt(200 / 3) / 255 = 0.0320194. */
  dir = put_folder("test");
  dataset = open_good(dir, NITI_DATA_AUTO, &(NitiShape){1, 8, 8, 3});
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  for (int c = 0; c < 3; ++c) {
    assert_int_equal(mean[c], 58824);
    assert_int_equal(std[c], 32019);
  }
  niti_dataset_close(dataset);
  remove_temp(dir);
}

static void hash_names(char expected[65], const char *dir, const char *const *names, bool with_names) {
  uint8_t *all = malloc(1 << 20);
  size_t used = 0;
  for (; *names; ++names) {
    size_t size = 0;
    uint8_t *bytes = get_file(path_of("%s/%s", dir, *names), &size);
    if (with_names) {
      memcpy(all + used, *names, strlen(*names) + 1);
      used += strlen(*names) + 1;
    }
    memcpy(all + used, bytes, size);
    used += size;
    free(bytes);
  }
  niti_sha256_of(expected, all, used);
  free(all);
}

static void hashes_are_of_the_files(void **state) {
  (void)state;
  char text[65], expected[65];
  char *dir = make_temp();
  put_idx_set(dir, true, '-');
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_int_equal(niti_dataset_hash(dataset, NITI_TEST, text), NITI_OK);
  char *plain = make_temp(); /* the same set without gzip has the same hash: it is of the content */
  put_idx_set(plain, false, '-');
  hash_names(expected, plain, (const char *const[]){"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", NULL}, false);
  remove_temp(plain);
  assert_string_equal(text, expected);
  assert_int_equal(remove(path_of("%s/train-labels-idx1-ubyte.gz", dir)), 0);
  assert_int_equal(niti_dataset_hash(dataset, NITI_TRAIN, text), NITI_OK); /* of what was read, which is not read again */
  niti_dataset_close(dataset);
  remove_temp(dir);
  dir = put_folder("test");
  dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  assert_int_equal(niti_dataset_hash(dataset, NITI_TRAIN, text), NITI_OK);
  hash_names(expected, path_of("%s/train", dir), (const char *const[]){"a/z.png", "b/10.PNG", "b/9.png", NULL}, true);
  assert_string_equal(text, expected);
  assert_int_equal(remove(path_of("%s/train/b/9.png", dir)), 0);
  check_error((int)niti_dataset_hash(dataset, NITI_TRAIN, text), NITI_ERROR_FILE, niti_error(), "9.png", "No such file");
  niti_dataset_close(dataset);
  remove_temp(dir);
}

/* Opened without hashing, seconds after its files were made. */
static NitiDataset *open_settled(const char *path) {
  NitiDataset *dataset = NULL;
  NitiDataRequest request = request_of(&size8);
  request.lazy = true;
  if (niti_dataset_open(&dataset, path, NULL, &request) != NITI_OK) fail_msg("%s", niti_error());
  dataset->opened += 10;
  return dataset;
}

/* Hashed while it is read, or later. */
static void check_hash_of(const char *dir) {
  char text[65], later[65];
  for (int split = NITI_TRAIN; split <= NITI_TEST; ++split) {
    NitiDataset *read = open_good(dir, NITI_DATA_AUTO, &size8), *unhashed = open_settled(dir);
    assert_int_equal(niti_dataset_hash(read, (NitiSplit)split, text), NITI_OK);
    assert_int_equal(niti_dataset_hash(unhashed, (NitiSplit)split, later), NITI_OK);
    assert_string_equal(text, later);
    niti_dataset_close(read);
    niti_dataset_close(unhashed);
  }
}

static void hashes_can_be_had_later(void **state) {
  (void)state;
  for (int kind = 0; kind < 3; ++kind) {
    char *dir = make_temp();
    if (kind == 2)
      put_cifar10(dir);
    else
      put_idx_set(dir, kind == 1, '-');
    check_hash_of(dir);
    remove_temp(dir);
  }
}

static void files_of(char text[65], const char *dir, NitiSplit split) {
  NitiDataset *dataset = open_settled(dir);
  niti_dataset_files(dataset, split, text);
  niti_dataset_close(dataset);
}

static void files_are_known_by_what_they_are(void **state) {
  (void)state;
  uint8_t changed[4];
  char text[65], other[65], *dir = make_temp(), *copy = make_temp();
  put_idx_set(dir, false, '-');
  put_idx_set(copy, false, '-');
  files_of(text, dir, NITI_TRAIN);
  files_of(other, dir, NITI_TRAIN);
  assert_int_equal(strlen(text), 64);
  assert_string_equal(text, other);
  files_of(other, dir, NITI_TEST);
  assert_string_not_equal(text, other);
  files_of(other, copy, NITI_TRAIN); /* the same content, in other files */
  assert_string_not_equal(text, other);
  NitiDataset *dataset = open_settled(dir);
  dataset->opened -= 10;
  niti_dataset_files(dataset, NITI_TRAIN, other); /* they may have changed while they were read */
  assert_string_equal(other, "");
  dataset->opened += 10;
  put_u32(changed, 0x801);
  put_file(path_of("%s/train-labels-idx1-ubyte", dir), changed, sizeof changed);
  niti_dataset_files(dataset, NITI_TRAIN, other); /* those that were opened */
  assert_string_equal(other, text);
  check_error((int)niti_dataset_hash(dataset, NITI_TRAIN, other), NITI_ERROR_FILE, niti_error(), "train-labels", "changed after");
  niti_dataset_close(dataset);
  remove_temp(dir);
  remove_temp(copy);
  dir = put_folder("test");
  copy = put_folder("test");
  files_of(text, dir, NITI_TRAIN);
  files_of(other, copy, NITI_TRAIN);
  assert_string_not_equal(text, other);
  files_of(other, dir, NITI_TRAIN);
  assert_string_equal(text, other);
  remove_temp(dir);
  remove_temp(copy);
}

static void default_comes_from_the_environment(void **state) {
  (void)state;
  assert_int_equal(setenv("NITI_DATA", "/some/where", 1), 0);
  assert_string_equal(niti_dataset_default(), "/some/where");
  assert_int_equal(unsetenv("NITI_DATA"), 0);
  const char *found = niti_dataset_default();
  struct stat facts;
  if (stat("/usr/share/datasets/fashion-mnist", &facts) != 0) {
    assert_null(found);
    skip();
  }
  NitiDataset *dataset = open_good(found, NITI_DATA_AUTO, NULL);
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 60000);
  assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 10000);
  assert_string_equal(niti_dataset_class_name(dataset, 0), "T-shirt/top");
  assert_string_equal(niti_dataset_class_name(dataset, 9), "Ankle boot");
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  assert_in_range(mean[0], 285950, 286050); /* widely published: 0.2860, 0.3530 */
  assert_in_range(std[0], 352950, 353050);
  niti_dataset_close(dataset);
}

static void real_sets_are_read(void **state) {
  (void)state;
  const char *folder = getenv("NITI_TEST_DATA");
  if (!folder || !*folder) {
    print_message("NITI_TEST_DATA is not set: CIFAR-10 and MNIST are not read\n");
    skip();
  }
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  NitiDataset *dataset = open_good(folder, NITI_DATA_CIFAR10, NULL);
  const int published_mean[3] = {491400, 482200, 446500}, published_std[3] = {247000, 243500, 261600};
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 50000);
  assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 10000);
  assert_int_equal(niti_dataset_classes(dataset), 10);
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  for (int c = 0; c < 3; ++c) {
    assert_in_range(mean[c], published_mean[c] - 1000, published_mean[c] + 1000);
    assert_in_range(std[c], published_std[c] - 1000, published_std[c] + 1000);
  }
  int64_t each[10] = {0};
  for (int64_t i = 0; i < 50000; ++i) ++each[niti_dataset_label(dataset, NITI_TRAIN, i)];
  for (int i = 0; i < 10; ++i) assert_int_equal(each[i], 5000);
  niti_dataset_close(dataset);
  dataset = open_good(folder, NITI_DATA_IDX, NULL);
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 60000);
  assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 10000);
  assert_null(niti_dataset_class_name(dataset, 7)); /* numbers are no names */
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  assert_in_range(mean[0], 130600, 130700); /* published: 0.1307, 0.3081 */
  assert_in_range(std[0], 308050, 308150);
  niti_dataset_close(dataset);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(idx_is_read),
      cmocka_unit_test(idx_in_parent_and_names),
      cmocka_unit_test(idx_damage_is_told),
      cmocka_unit_test(gzip_damage_is_told),
      cmocka_unit_test(what_follows_gzip_data),
      cmocka_unit_test(cifar10_is_read),
      cmocka_unit_test(cifar100_is_read),
      cmocka_unit_test(idx_of_others_is_found),
      cmocka_unit_test(emnist_is_set_upright),
      cmocka_unit_test(test_images_are_read_alone),
      cmocka_unit_test(probing_says_what_it_looked_for),
      cmocka_unit_test(statistics_are_exact),
      cmocka_unit_test(hashes_are_of_the_files),
      cmocka_unit_test(hashes_can_be_had_later),
      cmocka_unit_test(files_are_known_by_what_they_are),
      cmocka_unit_test(default_comes_from_the_environment),
      cmocka_unit_test(real_sets_are_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
