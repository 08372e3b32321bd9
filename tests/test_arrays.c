/* Arrays: .npy and .csv files of every kind that is read and that is refused, and signed values on their way to the network. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include "base/input.h"
#include "data/array.h"
#include "data/format.h"
#include "data/loader.h"
#include "data_open.h"
#include "guarded.h"
#include "platform/bytes.h"

/* ---- writing ---- */

/* An .npy file with this dictionary; version 1 has a length of two bytes, 2 and 3 of four. Returns where the elements begin. */
static size_t put_npy_text(const char *path, int version, const char *dictionary, const void *data, size_t size) {
  uint8_t bytes[8192] = "\x93NUMPY";
  const size_t prefix = version == 1 ? 10 : 12, length = (strlen(dictionary) + prefix + 64) / 64 * 64 - prefix;
  bytes[6] = (uint8_t)version;
  for (size_t i = 8; i < prefix; ++i) bytes[i] = (uint8_t)(length >> (8 * (i - 8)));
  memset(bytes + prefix, ' ', length);
  memcpy(bytes + prefix, dictionary, strlen(dictionary));
  bytes[prefix + length - 1] = '\n';
  assert_true(prefix + length + size <= sizeof bytes);
  if (size) memcpy(bytes + prefix + length, data, size);
  put_file(path, bytes, prefix + length + size);
  return prefix + length;
}

/* data is in host byte order, the file in the order of files. */
static size_t put_npy(const char *path, const char *type, const char *shape, const void *data, size_t size) {
  const char *header = path_of("{'descr': '%s', 'fortran_order': False, 'shape': %s, }", type, shape);
  const size_t bytes = type[2] >= '1' && type[2] <= '8' ? (size_t)(type[2] - '0') : 1;
  void *copy = malloc(size + 1);
  assert_non_null(copy);
  memcpy(copy, data, size);
  niti_bytes_little(copy, size / bytes, bytes);
  const size_t written = put_npy_text(path, 1, header, copy, size);
  free(copy);
  return written;
}

/* Both splits of a set; y are the labels 0, 1, 0, 1, ... */
static void put_set(const char *dir, const char *type, const char *shape, const void *x, size_t size, int samples) {
  static const uint8_t y[64] = {0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1};
  const char *labels = path_of("(%d,)", samples);
  for (int split = 0; split < 2; ++split) {
    put_npy(path_of("%s/%s_x.npy", dir, split ? "test" : "train"), type, shape, x, size);
    put_npy(path_of("%s/%s_y.npy", dir, split ? "test" : "train"), "|u1", labels, y, (size_t)samples);
  }
}

/* ---- reading ---- */

static void check_shape(NitiDataset *dataset, int h, int w, int c, NitiDataType type) {
  const NitiShape s = niti_dataset_shape(dataset);
  assert_true(s.n == 1 && s.h == h && s.w == w && s.c == c);
  assert_int_equal(niti_dataset_type(dataset), type);
  niti_dataset_close(dataset);
}

static void samples_have_the_shapes_of_their_kind(void **state) {
  (void)state;
  char *dir = make_temp();
  uint8_t x[96];
  for (int i = 0; i < 96; ++i) x[i] = (uint8_t)(i * 5);
  put_set(dir, "|u1", "(2, 3, 2, 8)", x, 96, 2);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_string_equal(niti_dataset_kind(dataset), "npy");
  assert_int_equal(niti_dataset_classes(dataset), 2);
  assert_null(niti_dataset_class_name(dataset, 1)); /* numbers are no names */
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 2);
  assert_int_equal(niti_dataset_label(dataset, NITI_TEST, 1), 1);
  assert_memory_equal(niti_dataset_images(dataset, NITI_TRAIN), x, 96);
  assert_null(niti_dataset_file(dataset, NITI_TRAIN, 0));
  check_shape(dataset, 3, 2, 8, NITI_UINT8);
  put_set(dir, "|u1", "(2, 16, 3)", x, 96, 2);
  check_shape(open_good(dir, NITI_DATA_NPY, NULL), 1, 16, 3, NITI_UINT8);
  check_shape(open_good(dir, NITI_DATA_NPY, &(NitiShape){1, 4, 4, 3}), 4, 4, 3, NITI_UINT8);   /* as many values and channels */
  check_shape(open_good(dir, NITI_DATA_NPY, &(NitiShape){1, 16, 3, 1}), 16, 3, 1, NITI_UINT8); /* grey images */
  check_shape(open_good(dir, NITI_DATA_NPY, &(NitiShape){1, 4, 12, 1}), 1, 16, 3, NITI_UINT8); /* neither */
  put_set(dir, "<i2", "(2, 24)", x, 96, 2);
  check_shape(open_good(dir, NITI_DATA_AUTO, NULL), 1, 1, 24, NITI_INT16);
  check_shape(open_good(dir, NITI_DATA_AUTO, &(NitiShape){1, 4, 2, 3}), 4, 2, 3, NITI_INT16);
  put_set(dir, "|i1", "(2, 48)", x, 96, 2);
  check_shape(open_good(dir, NITI_DATA_AUTO, NULL), 1, 1, 48, NITI_INT8);
  remove_temp(dir);
}

static void headers_may_be_written_in_many_ways(void **state) {
  (void)state;
  static const char *const texts[] = {"{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }",
                                      "{\"shape\":(3,),\"descr\":\"|u1\",\"fortran_order\":False}",
                                      "{ 'fortran_order' : True , 'descr' : '|u1' , 'shape' : (3) }\n",
                                      "{'descr': '<u1', 'fortran_order': False, 'shape': ( 3 , ), }",
                                      "{'descr': '>u1', 'fortran_order': False, 'shape': (3,), }"}; /* one byte has no order */
  char *dir = make_temp();
  const char *path = path_of("%s/x.npy", dir);
  for (int version = 1; version <= 3; ++version) {
    for (size_t i = 0; i < sizeof texts / sizeof *texts; ++i) {
      NitiArray array;
      put_npy_text(path, version, texts[i], "abc", 3);
      if (niti_npy_read(&array, path) != NITI_OK) fail_msg("%s", niti_error());
      assert_true(array.ndim == 1 && array.dims[0] == 3 && array.bytes == 1 && !array.sign);
      assert_memory_equal(array.data, "abc", 3);
      niti_array_close(&array);
    }
  }
  remove_temp(dir);
}

static void labels_may_be_of_any_integer_type(void **state) {
  (void)state;
  char *dir = make_temp();
  const uint8_t x[3] = {1, 2, 3}, one[3] = {0, 1, 1};
  const int16_t two[3] = {0, 1, 1};
  const int32_t four[3] = {0, 1, 1};
  const int64_t eight[3] = {0, 1, 1};
  const struct {
    const char *type;
    const void *data;
    size_t size;
  } kinds[] = {{"|u1", one, 3},   {"|b1", one, 3},   {"|i1", one, 3},    {"<u2", two, 6},   {"<i2", two, 6},
               {"<u4", four, 12}, {"<i4", four, 12}, {"<u8", eight, 24}, {"<i8", eight, 24}};
  put_set(dir, "|u1", "(3, 1)", x, 3, 3);
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; ++i) {
    for (int column = 0; column < 2; ++column) {
      put_npy(path_of("%s/train_y.npy", dir), kinds[i].type, column ? "(3, 1)" : "(3,)", kinds[i].data, kinds[i].size);
      NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
      for (int s = 0; s < 3; ++s) assert_int_equal(niti_dataset_label(dataset, NITI_TRAIN, s), one[s]);
      niti_dataset_close(dataset);
    }
  }
  remove_temp(dir);
}

static void validation_arrays_and_names(void **state) {
  (void)state;
  char *dir = make_temp();
  put_set(dir, "|u1", "(2, 2)", "abcd", 4, 2);
  put_npy(path_of("%s/validation_x.npy", dir), "|u1", "(1, 2)", "xy", 2);
  put_npy(path_of("%s/validation_y.npy", dir), "|u1", "(1,)", "\1", 1);
  put_file(path_of("%s/classes.txt", dir), "calm\r\nloud\r\n", 12);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_int_equal(niti_dataset_count(dataset, NITI_VALIDATION), 1);
  assert_int_equal(niti_dataset_label(dataset, NITI_VALIDATION, 0), 1);
  assert_memory_equal(niti_dataset_images(dataset, NITI_VALIDATION), "xy", 2);
  assert_string_equal(niti_dataset_class_name(dataset, 1), "loud");
  niti_dataset_close(dataset);
  remove_temp(dir);
}

/* ---- refusals ---- */

static void expect_text(const char *path, const char *text, const char *a, const char *b) {
  NitiArray array;
  put_npy_text(path, 1, text, "abcdef", 6);
  check_error((int)niti_npy_read(&array, path), NITI_ERROR_FORMAT, niti_error(), a, b);
  niti_array_close(&array);
}

#define NPY(type, order, shape) "{'descr': " type ", 'fortran_order': " order ", 'shape': " shape ", }"

/* Only of files whose values are used where they are mapped. */
static void replaced_maps_are_noticed(void **state) {
  (void)state;
  char *dir = make_temp();
  put_set(dir, "|u1", "(2, 2)", "abcd", 4, 2);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL), *lazy = NULL;
  NitiDataRequest request = request_of(NULL);
  request.lazy = true;
  assert_int_equal(niti_dataset_open(&lazy, dir, NULL, &request), NITI_OK);
  assert_int_equal(niti_dataset_check_maps(dataset), NITI_OK);
  put_npy(path_of("%s/new", dir), "|u1", "(2, 2)", "abcd", 4);
  assert_int_equal(rename(path_of("%s/new", dir), path_of("%s/test_x.npy", dir)), 0);
  const NitiStatus status = niti_dataset_check_maps(dataset);
  check_error((int)status, (int)NITI_ERROR_FILE, niti_error(), path_of("%s/test_x.npy", dir), "changed while in use");
  assert_int_equal(niti_dataset_check_maps(lazy), NITI_OK);
  niti_dataset_close(lazy);
  niti_dataset_close(dataset);
  remove_temp(dir);
}

static void other_arrays_are_refused(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *path = path_of("%s/x.npy", dir);
  expect_text(path, NPY("'<f4'", "False", "(6,)"), path, "floating point, dtype '<f4' (expected integers: scale");
  expect_text(path, NPY("'<f8'", "False", "(6,)"), path, "floating point");
  expect_text(path, NPY("'>i2'", "False", "(3,)"), path,
              "big-endian, dtype '>i2' (expected little-endian: save it with astype('<i2'))");
  expect_text(path, NPY("'|O'", "False", "(6,)"), path, "Python objects");
  expect_text(path, NPY("'O'", "False", "(6,)"), path, "Python objects");
  expect_text(path, NPY("'<c8'", "False", "(6,)"), path, "floating point");
  expect_text(path, NPY("'|b2'", "False", "(3,)"), path, "dtype '|b2' (expected integers)");
  expect_text(path, NPY("'!i2'", "False", "(3,)"), path, "dtype '!i2' (expected integers)");
  expect_text(path, NPY("'<i22'", "False", "(3,)"), path, "dtype '<i22' (expected integers)");
  expect_text(path, NPY("'<i'", "False", "(3,)"), path, "dtype '<i' (expected integers)");
  expect_text(path, NPY("'<U3'", "False", "(6,)"), path, "dtype '<U3' (expected integers)");
  expect_text(path, NPY("'<i3'", "False", "(2,)"), path, "dtype '<i3'");
  expect_text(path, NPY("'i2'", "False", "(3,)"), path, "dtype 'i2'");
  expect_text(path, NPY("''", "False", "(3,)"), path, "dtype ''");
  expect_text(path, NPY("[('a', '<i2')]", "False", "(3,)"), path, "a structured array");
  expect_text(path, NPY("'|u1'", "True", "(2, 3)"), path, "Fortran order (expected C order: save numpy.ascontiguousarray");
  expect_text(path, NPY("'|u1'", "False", "(7,)"), path, "byte 134: the file ends here, since the header promises 7 bytes");
  expect_text(path, NPY("'|u1'", "False", "(5,)"), path, "byte 133: expected the end");
  expect_text(path, NPY("'|u1'", "False", "(0, 6)"), path, "dimension 0 is 0");
  expect_text(path, NPY("'|u1'", "False", "()"), path, "a single number");
  expect_text(path, NPY("'|u1'", "False", "(1, 1, 1, 1, 6)"), path, "at most 4 dimensions");
  expect_text(path, NPY("'|u1'", "False", "(-1,)"), path, "malformed header, expected a dimension");
  expect_text(path, NPY("'|u1'", "False", "(4294967296, 4294967296)"), path, "more than 2^63");
  expect_text(path, NPY("'|u1'", "False", "(99999999999999999999,)"), path, "expected a dimension");
  expect_text(path, NPY("'|u1'", "0", "(6,)"), path, "expected True or False");
  expect_text(path, "{'descr': '|u1', 'shape': (6,)}", path, "expected descr, fortran_order and shape");
  expect_text(path, "{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (6,)}", path, "each of descr");
  expect_text(path, NPY("'|u1'", "False", "(6,)") "x", path, "nothing after the dictionary");
  expect_text(path, "", path, "malformed header, expected a dictionary");
  remove_temp(dir);
}

/* Whatever a file contains, opening it gives an error or an array that lies within the file. */
static void damaged_headers_never_crash(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *path = path_of("%s/x.npy", dir);
  size_t size = 0;
  NitiArray array;
  put_npy(path, "<i2", "(2, 3)", "abcdefghijkl", 12);
  uint8_t *good = get_file(path, &size);
  for (size_t keep = 0; keep < size; ++keep) {
    put_file(path, good, keep);
    check_error((int)niti_npy_read(&array, path), NITI_ERROR_FORMAT, niti_error(), path, "byte ");
    niti_array_close(&array);
  }
  put_file(path, good, size);
  good[6] = 4;
  put_file(path, good, size);
  check_error((int)niti_npy_read(&array, path), NITI_ERROR_FORMAT, niti_error(), path, "version 4.0, expected 1.0 to 3.0");
  good[6] = 1;
  good[9] = 0xff; /* a header of 65 KB */
  put_file(path, good, size);
  check_error((int)niti_npy_read(&array, path), NITI_ERROR_FORMAT, niti_error(), path, "ends within its header");
  good[9] = 0;
  uint8_t *copy = malloc(size);
  for (int round = 0; round < 3000; ++round) {
    memcpy(copy, good, size);
    for (int i = random_in(1, 3); i > 0; --i) copy[random_in(6, 100)] = (uint8_t)random_in(0, 127);
    put_file(path, copy, size);
    if (niti_npy_read(&array, path) == NITI_OK) {
      uint64_t bytes = (uint64_t)array.bytes;
      for (int i = 0; i < array.ndim; ++i) bytes *= (uint64_t)array.dims[i];
      assert_true((const uint8_t *)array.data + bytes == (const uint8_t *)array.memory + size);
    }
    niti_array_close(&array);
  }
  free(copy);
  free(good);
  remove_temp(dir);
}

static void sets_that_do_not_fit_are_refused(void **state) {
  (void)state;
  char *dir = make_temp();
  static uint8_t many[4097];
  put_set(dir, "|u1", "(2, 3)", "abcdef", 6, 2);
  niti_dataset_close(open_good(dir, NITI_DATA_AUTO, NULL));
  char *x = strdup(path_of("%s/train_x.npy", dir)), *y = strdup(path_of("%s/train_y.npy", dir));
  put_npy(y, "|u1", "(3,)", "\0\1\0", 3);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, y, "3 labels, expected 2 as there are samples in train_x.npy");
  put_npy(y, "|u1", "(1, 2)", "\0\1", 2);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, y, "one label per sample");
  put_npy(y, "|i1", "(2,)", "\0\xff", 2);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, y, "label -1 of sample 1, expected 0 to 65535");
  put_npy(y, "|u1", "(2,)", "\0\0", 2);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "test_y.npy",
              "label 1 of sample 1, expected 0 to 0 as in the training set");
  put_npy(y, "<u8", "(2,)", "\0\0\0\0\0\0\0\0\377\377\377\377\377\377\377\377", 16);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, y, "label -1 of sample 1");
  put_npy(y, "|u1", "(2,)", "\0\1", 2);
  put_npy(x, "<u2", "(2, 3)", "abcdefghijkl", 12);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, x, "uint16, expected uint8, int8 or int16");
  put_npy(x, "|u1", "(2,)", "ab", 2);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, x, "1 dimension, expected [N][H][W][C]");
  put_npy(x, "|u1", "(2, 2)", "abcd", 4);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "test_x.npy", "samples of 1x1x3, expected 1x1x2");
  put_npy(x, "|i1", "(2, 3)", "abcdef", 6);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "test_x.npy", "uint8, expected int8 as in the split before");
  put_npy(x, "|u1", "(1, 4097)", many, 4097);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, x, "4097 values per row, expected at most 4096");
  put_npy(x, "|u1", "(1, 1, 4097)", many, 4097);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, x, "dimension 2 is 4097, expected at most 4096");
  assert_int_equal(remove(y), 0);
  put_npy(x, "|u1", "(2, 3)", "abcdef", 6);
  expect_open(NITI_ERROR_FILE, dir, NITI_DATA_AUTO, NULL, y, "not found");
  assert_int_equal(remove(x), 0);
  expect_open(NITI_ERROR_FILE, dir, NITI_DATA_AUTO, NULL, x, "not found");
  free(x);
  free(y);
  remove_temp(dir);
}

/* ---- CSV ---- */

static void put_text(const char *path, const char *text) { put_file(path, text, strlen(text)); }

static void put_csv_set(const char *dir, const char *x, const char *y) {
  for (int split = 0; split < 2; ++split) {
    put_text(path_of("%s/%s_x.csv", dir, split ? "test" : "train"), x);
    put_text(path_of("%s/%s_y.csv", dir, split ? "test" : "train"), y);
  }
}

static void tables_are_read(void **state) {
  (void)state;
  static const char *const texts[] = {"1,-2,3\n-32768,32767,0\n", "\357\273\277a,b,c\r\n1,-2,3\r\n-32768,32767,0\r\n\r\n",
                                      "1;-2;+3\n -32768 ; 32767;0", "\"x\" y\t\t\n1\t-2\t3\n-32768\t32767\t0\n \n"};
  static const int16_t expected[6] = {1, -2, 3, -32768, 32767, 0};
  char *dir = make_temp();
  for (size_t i = 0; i < sizeof texts / sizeof *texts; ++i) {
    NitiArray array;
    put_csv_set(dir, texts[i], "label\n1\n0\n");
    const char *path = path_of("%s/train_x.csv", dir);
    if (niti_csv_read(&array, path, false, 0, NULL) != NITI_OK) fail_msg("%s", niti_error());
    assert_true(array.ndim == 2 && array.dims[0] == 2 && array.dims[1] == 3 && array.bytes == 2 && array.sign);
    assert_memory_equal(array.data, expected, sizeof expected);
    niti_array_close(&array);
    NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
    assert_string_equal(niti_dataset_kind(dataset), "csv");
    assert_int_equal(niti_dataset_label(dataset, NITI_TRAIN, 0), 1);
    check_shape(dataset, 1, 1, 3, NITI_INT16);
  }
  remove_temp(dir);
}

static void expect_table(const char *dir, const char *x, const char *y, const char *a, const char *b) {
  put_csv_set(dir, x, y);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, a, b);
}

static void other_tables_are_refused(void **state) {
  (void)state;
  char *dir = make_temp();
  char *x = strdup(path_of("%s/train_x.csv", dir)), *y = strdup(path_of("%s/train_y.csv", dir));
  expect_table(dir, "1,2\n3,1.5\n", "0\n1\n", x, "line 2, column 2: '1.5' (expected a whole number from -32768 to 32767)");
  expect_table(dir, "a,b\n1,2\n3,\n", "0\n1\n", x, "line 3, column 2: ''");
  expect_table(dir, "1,2\n3,32768\n", "0\n1\n", x, "line 2, column 2: '32768'");
  expect_table(dir, "1,2\n3,99999999999999999999\n", "0\n1\n", x, "line 2, column 2: '99999999999999999999'");
  expect_table(dir, "1,2\n3\n", "0\n1\n", x, "line 2: 1 values, expected 2");
  expect_table(dir, "1,2\n3,4,5\n", "0\n1\n", x, "line 2: 3 values, expected 2");
  expect_table(dir, "\n1,2\n \r\n3,x\n", "0\n1\n", x, "line 4, column 2: 'x'"); /* blank lines are counted, not read */
  expect_table(dir, "1,2\n\n3,4\n", "0\n\n", y, "1 labels, expected 2");
  expect_table(dir, "1,2\nnan,4\n", "0\n1\n", x, "line 2, column 1: 'nan'");
  expect_table(dir, "", "0\n1\n", x, "holds no values");
  expect_table(dir, "a,b\n", "0\n1\n", x, "holds no values");
  expect_table(dir, "1,2\n3,4\n", "0\n-1\n", y, "line 2, column 1: '-1' (expected a whole number from 0 to 65535)");
  expect_table(dir, "1,2\n3,4\n", "0,1\n0,1\n", y, "2 columns, expected one label on each line");
  expect_table(dir, "1,2\n3,4\n", "0\n", y, "1 labels, expected 2");
  expect_table(dir, "1,2\r3,4\r", "0\n1\n", x, "line 1: text after a carriage return");
  expect_table(dir, "a,b\r1,2\n3,4\n", "0\n", x, "line 1: text after a carriage return");
  expect_table(dir, "1,2\n\t\n3,4\n", "0\n1\n", x, "line 2, column 1: ''");
  put_csv_set(dir, "1,2\n3,4\n", "0\n1\n");
  put_file(x, "1,2\0,3\n", 7);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, x, "byte 3: a zero byte");
  free(x);
  free(y);
  remove_temp(dir);
}

/* Time that grows with the square of this many blank lines would be hours, far beyond the limit of a test program. */
static void blank_lines_take_linear_time(void **state) {
  (void)state;
  enum { BLANK = 20000000 };
  char *dir = make_temp(), *text = malloc(BLANK);
  const char *path = path_of("%s/x.csv", dir);
  NitiArray array;
  assert_non_null(text);
  memset(text, '\n', BLANK);
  memcpy(text + 8, "1,2,3", 5);
  memcpy(text + BLANK - 16, "4,5,6", 5);
  put_file(path, text, BLANK);
  if (niti_csv_read(&array, path, false, 0, NULL) != NITI_OK) fail_msg("%s", niti_error());
  assert_true(array.dims[0] == 2 && array.dims[1] == 3);
  niti_array_close(&array);
  text[BLANK - 1] = 'x'; /* 11 bytes are no ends of lines */
  put_file(path, text, BLANK);
  check_error((int)niti_csv_read(&array, path, false, 0, NULL), NITI_ERROR_FORMAT, niti_error(), path,
              "line 19999990, column 1: 'x'");
  free(text);
  remove_temp(dir);
}

/* What is wrong is found in the first piece: the rest, far more than there is memory for, is not read. */
static void wrong_tables_are_not_read_whole(void **state) {
  (void)state;
  enum { COLUMNS = NITI_CHANNELS_MAX + 1 };
  static const off_t terabyte = (off_t)1 << 40;
  char *dir = make_temp(), text[2 * COLUMNS];
  const char *path = path_of("%s/x.csv", dir);
  NitiArray array;
  put_text(path, "1,2,3\n1,2,3\n");
  assert_int_equal(truncate(path, terabyte), 0);
  check_error((int)niti_csv_read(&array, path, false, 0, NULL), NITI_ERROR_FORMAT, niti_error(), path, "byte 12: a zero byte");
  for (int i = 0; i < COLUMNS; ++i) memcpy(text + (size_t)i * 2, "1,", 2);
  text[sizeof text - 1] = ' ';
  put_file(path, text, sizeof text);
  assert_int_equal(truncate(path, terabyte), 0);
  check_error((int)niti_csv_read(&array, path, false, 0, NULL), NITI_ERROR_FORMAT, niti_error(), path,
              "line 1: more than 4096 values");
  check_error((int)niti_csv_read(&array, path, false, COLUMNS, NULL), NITI_ERROR_FORMAT, niti_error(), path, "a zero byte");
  text[sizeof text - 1] = '\n';
  put_file(path, text, sizeof text);
  if (niti_csv_read(&array, path, false, COLUMNS, NULL) != NITI_OK) fail_msg("%s", niti_error());
  assert_true(array.dims[0] == 1 && array.dims[1] == COLUMNS);
  niti_array_close(&array);
  remove_temp(dir);
}

/* Rows whose every byte is the first of a piece once: none is lost, and a message shows the whole field. */
static void pieces_of_tables_meet(void **state) {
  (void)state;
  enum { PIECE = 1 << 17, ROOM = PIECE + 64 };
  static const char row[] = " 12345 ;-678\r\n";
  char *dir = make_temp(), *text = malloc(ROOM);
  const char *path = path_of("%s/x.csv", dir);
  NitiArray array;
  assert_non_null(text);
  for (size_t before = 1; before < sizeof row; ++before) {
    memset(text, '\n', ROOM);
    memcpy(text + PIECE - before, row, sizeof row - 1);
    put_file(path, text, ROOM);
    if (niti_csv_read(&array, path, false, 0, NULL) != NITI_OK) fail_msg("%s", niti_error());
    assert_true(array.dims[0] == 1 && array.dims[1] == 2);
    assert_int_equal(((const int16_t *)array.data)[0], 12345);
    assert_int_equal(((const int16_t *)array.data)[1], -678);
    niti_array_close(&array);
    text[PIECE - before + 4] = 'x';
    put_file(path, text, ROOM);
    check_error((int)niti_csv_read(&array, path, false, 0, NULL), NITI_ERROR_FORMAT, niti_error(), path, "'123x5 '");
  }
  free(text);
  remove_temp(dir);
}

static bool stop_at_once(void *context, const char *what, int64_t done, int64_t total) {
  (void)what;
  ++*(int *)context;
  return done > total;
}

static void tables_are_watched(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *path = path_of("%s/x.csv", dir);
  int calls = 0;
  NitiDataset dataset = {.request.watch = {stop_at_once, &calls}};
  NitiArray array;
  put_text(path, "1,2\n1,x\n");
  check_error((int)niti_csv_read(&array, path, false, 0, &dataset), NITI_INTERRUPTED, niti_error(),
              "interrupted while reading a table", "0 of 8 done");
  assert_int_equal(calls, 1);
  remove_temp(dir);
}

/* ---- signed values ---- */

enum { L = 6, C = 3, N = 7, WIDE = 8 };

static int16_t value_of(int sample, int place, int c) { return (int16_t)(sample * 900 - place * place * 211 + c * 4000 - 5000); }

static char *put_windows(void) {
  char *dir = make_temp();
  int16_t x[N * L * C];
  for (int i = 0; i < N * L * C; ++i) x[i] = value_of(i / (L * C), i / C % L, i % C);
  put_set(dir, "<i2", path_of("(%d, %d, %d)", N, L, C), x, sizeof x, N);
  return dir;
}

/* The contract without a division: the m nearest to 32 (v * 10^6 - F * mean) / (F * std), ties away from zero, clipped. */
static int mantissa_of(int v, int full, int32_t mean, int32_t std) {
  const int64_t x = (int64_t)v * 1000000 - (int64_t)full * mean, twice = 64 * llabs(x), unit = (int64_t)full * std;
  int m = 0;
  while (m < 127 && (2 * m + 1) * unit <= twice) ++m;
  return x < 0 ? -m : m;
}

static void mantissas_are_of_the_contract(void **state) {
  (void)state;
  for (int i = 0; i < 20000; ++i) {
    const int full = i & 1 ? 128 : 32768, v = random_in(-full, full - 1);
    const int32_t mean = random_in(-1000000, 1000000), std = random_in(1, i % 3 ? 8000000 : 50000);
    assert_int_equal(niti_value_mantissa(v, full, mean, std), mantissa_of(v, full, mean, std));
  }
  /* Ties go away from zero: 32 v / 128 = v / 4. */
  const int ties[][2] = {{2, 1}, {-2, -1}, {6, 2}, {-6, -2}, {1, 0}, {-1, 0}, {0, 0}, {127, 32}, {-128, -32}};
  for (int i = 0; i < 9; ++i) assert_int_equal(niti_value_mantissa(ties[i][0], 128, 0, 1000000), ties[i][1]);
  assert_int_equal(niti_value_mantissa(-128, 128, 1000000, 1), -127);
  assert_int_equal(niti_value_mantissa(127, 128, -1000000, 1), 127);
}

static void statistics_of_signed_values(void **state) {
  (void)state;
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  char *dir = make_temp();
  const int8_t x[8] = {-128, 10, 0, 10, -64, 10, -64, 20};
  put_set(dir, "|i1", "(4, 2)", x, 8, 4);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  assert_int_equal(mean[0], -500000);                                 /* -64 / 128 */
  assert_int_equal(std[0], 353553);                                   /* sqrt(1/8) */
  assert_int_equal(mean[1], 97656);                                   /* 12.5 / 128 = 0.09765625 */
  assert_int_equal(std[1], 33829);                                    /* sqrt(18.75) / 128 = 0.0338291 */
  assert_int_equal(niti_dataset_hold_out(dataset, 2, 0, 1), NITI_OK); /* one of each class */
  const int8_t *first = x + 2 * niti_dataset_place(dataset, NITI_TRAIN, 0),
               *second = x + 2 * niti_dataset_place(dataset, NITI_TRAIN, 1);
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  assert_int_equal(mean[0], (*first + *second) * 1000000 / 256);
  niti_dataset_close(dataset);
  remove_temp(dir);
}

/* Every window of an epoch, whatever the workers: padded with zeros, cut, normalised. */
static void loaders_make_mantissas(void **state) {
  (void)state;
  const uint64_t seed = 99;
  char *dir = put_windows();
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  for (int way = 0; way < 8; ++way) {
    const bool augment = way & 1, narrow = way & 2;
    const int width = narrow ? L - 2 : WIDE, pad = 2;
    const NitiDataOptions data = {.type = NITI_INT16,
                                  .type_given = true,
                                  .mean = {20000, -30000, 0},
                                  .std = {100000, 50000, 300000},
                                  .pad = pad,
                                  .random_crop = true,
                                  .flip = true};
    const NitiLoaderOptions options = {
        .split = NITI_TRAIN, .input = {1, 1, width, C}, .batch = 3, .seed = seed, .augment = augment, .workers = way & 4 ? 3 : 1};
    NitiLoader *loader = NULL;
    if (niti_loader_open(&loader, dataset, &data, &options) != NITI_OK) fail_msg("%s", niti_error());
    assert_int_equal(niti_loader_start(loader, 5, 0), NITI_OK);
    bool seen[N] = {false};
    for (;;) {
      NitiBatch batch;
      assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
      if (batch.count == 0) break;
      assert_false(batch.resident);
      for (int i = 0; i < batch.count; ++i) {
        const int8_t *got = (const int8_t *)batch.images + batch.samples[i].image * (uint32_t)(width * C);
        int match = -1;
        for (int n = 0; n < N; ++n) { /* which sample it is, by the definition of its window */
          const int span_y = 2 * pad, span_x = L + 2 * pad - width;
          const uint32_t wy = niti_random(seed, NITI_DRAW_CROP, 5, 0, 2 * (uint64_t)n),
                         wx = niti_random(seed, NITI_DRAW_CROP, 5, 0, 2 * (uint64_t)n + 1);
          const int dy = (augment ? (int)(((uint64_t)wy * (uint64_t)(span_y + 1)) >> 32) : span_y / 2) - pad;
          const int dx = (augment ? (int)(((uint64_t)wx * (uint64_t)(span_x + 1)) >> 32) : span_x / 2) - pad;
          bool same = true;
          for (int k = 0; k < width * C && same; ++k) {
            const int x = dx + k / C, c = k % C;
            const bool inside = dy == 0 && x >= 0 && x < L;
            same = got[k] == niti_value_mantissa(inside ? value_of(n, x, c) : 0, 32768, data.mean[c], data.std[c]);
          }
          if (same && !seen[n] && batch.labels[i] == n % 2 && match < 0) match = n;
        }
        assert_true(match >= 0);
        seen[match] = true;
        const bool flip = augment && niti_random(seed, NITI_DRAW_FLIP, 5, 0, (uint64_t)match) >> 31;
        if (got[0] != got[C]) assert_int_equal(batch.samples[i].flip, flip); /* windows of padding alone are all alike */
      }
    }
    for (int n = 0; n < N; ++n) assert_true(seen[n]);
    niti_loader_close(loader);
  }
  NitiLoader *loader = NULL;
  const NitiLoaderOptions options = {.split = NITI_TRAIN, .input = {1, 1, L, C}, .batch = 3};
  check_error((int)niti_loader_open(&loader, dataset, &(NitiDataOptions){0}, &options), NITI_ERROR_ARGUMENT, niti_error(),
              "values of int16, but the network takes uint8", "data.type");
  uint8_t pixels[L * C];
  check_error((int)niti_dataset_read(dataset, NITI_TRAIN, 0, true, 0, 0, pixels), NITI_ERROR_ARGUMENT, niti_error(), "int16",
              "no pixels");
  niti_dataset_close(dataset);
  remove_temp(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(samples_have_the_shapes_of_their_kind),
      cmocka_unit_test(headers_may_be_written_in_many_ways),
      cmocka_unit_test(labels_may_be_of_any_integer_type),
      cmocka_unit_test(validation_arrays_and_names),
      cmocka_unit_test(replaced_maps_are_noticed),
      cmocka_unit_test(other_arrays_are_refused),
      cmocka_unit_test(damaged_headers_never_crash),
      cmocka_unit_test(sets_that_do_not_fit_are_refused),
      cmocka_unit_test(tables_are_read),
      cmocka_unit_test(other_tables_are_refused),
      cmocka_unit_test(blank_lines_take_linear_time),
      cmocka_unit_test(wrong_tables_are_not_read_whole),
      cmocka_unit_test(pieces_of_tables_meet),
      cmocka_unit_test(tables_are_watched),
      cmocka_unit_test(mantissas_are_of_the_contract),
      cmocka_unit_test(statistics_of_signed_values),
      cmocka_unit_test(loaders_make_mantissas),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
