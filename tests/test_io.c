/* Files that are replaced whole, and the safetensors container: round trips, bytes, and every kind of bad input. */
#include "io/safetensors.h"
#include "io_test.h"

/* ---- file.h ------------------------------------------------------------------------------------------------------- */

static NitiStatus replace_text(const char *path, const char *text) { return niti_file_replace(path, text, strlen(text)); }

static void test_text_is_replaced(void **state) {
  (void)state;
  check_ok(replace_text(at("a"), "one"));
  assert_file(at("a"), "one");
  check_ok(replace_text(at("a"), ""));
  assert_file(at("a"), "");
  put_file(at("a.tmp"), "left by a killed process, longer than the text", 46);
  check_ok(replace_text(at("a"), "two"));
  assert_file(at("a"), "two");
  assert_int_equal(count_files(), 1);
}

static void test_discard_leaves_the_old(void **state) {
  (void)state;
  NitiFile *file, *second;
  check_ok(replace_text(at("a"), "old"));
  check_ok(niti_file_open(&file, at("a")));
  check_ok(niti_file_write(file, "new", 3));
  check_fails(niti_file_open(&second, at("a")), NITI_ERROR_FILE, at("a"), "another process");
  niti_file_discard(file);
  assert_file(at("a"), "old");
  assert_int_equal(count_files(), 1);
}

static void test_file_errors(void **state) {
  (void)state;
  char *text;
  check_fails(replace_text(at("none/a"), "x"), NITI_ERROR_FILE, at("none/a"), strerror(ENOENT));
  check_fails(niti_file_read(&text, NULL, at("none"), 10), NITI_ERROR_FILE, at("none"), strerror(ENOENT));
  check_fails(niti_file_read(&text, NULL, folder, 10), NITI_ERROR_FILE, folder, "regular");
  put_file(at("a"), "12345678901", 11);
  check_fails(niti_file_read(&text, NULL, at("a"), 10), NITI_ERROR_FORMAT, at("a"), "at most 10");
  assert_int_equal(mkfifo(at("fifo"), 0600), 0);
  check_fails(niti_file_read(&text, NULL, at("fifo"), 10), NITI_ERROR_FILE, at("fifo"), "regular");
  assert_int_equal(symlink("a", at("b.tmp")), 0);
  check_fails(replace_text(at("b"), "x"), NITI_ERROR_FILE, at("b.tmp"), strerror(ELOOP));
  assert_file(at("a"), "12345678901");
}

/* ---- safetensors.h ------------------------------------------------------------------------------------------------ */

/* Writes a container by hand: this header (not padded) and `bytes` zeros of data. */
static NitiStatus read_raw(const char *header, size_t bytes) {
  NitiSafetensors content;
  const size_t length = strlen(header);
  char *raw = calloc(1, 8 + length + bytes);
  assert_non_null(raw);
  for (int i = 0; i < 8; ++i) raw[i] = (char)(uint8_t)((uint64_t)length >> (8 * i));
  memcpy(raw + 8, header, length);
  put_file(at("raw"), raw, 8 + length + bytes);
  free(raw);
  const NitiStatus status = niti_safetensors_read(&content, at("raw"));
  if (status == NITI_OK)
    niti_safetensors_clear(&content);
  else
    assert_null(content.tensors);
  return status;
}

static void test_container_accepts(void **state) {
  (void)state;
  check_ok(read_raw("{}", 0));
  check_ok(read_raw("{}   ", 0));
  check_ok(read_raw("{\"__metadata__\":{\"a\":\"b\"}}", 0));
  check_ok(read_raw("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}", 12));
  check_ok(read_raw("{\"a\":{\"dtype\":\"I16\",\"shape\":[2,3],\"data_offsets\":[0,12]}}", 12));
  /* any order of names; empty tensors; scalars */
  check_ok(
      read_raw("{\"b\":{\"dtype\":\"I8\",\"shape\":[],\"data_offsets\":[4,5]},"
               "\"e\":{\"dtype\":\"I64\",\"shape\":[0,4294967295,4294967295,4294967295],\"data_offsets\":[4,4]},"
               "\"a\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
               5));
}

static void test_container_refuses(void **state) {
  (void)state;
  static const struct {
    const char *header;
    size_t bytes;
    const char *word, *other;
  } bad[] = {
      {"", 0, "byte 8", "{"},
      {" {}", 0, "byte 8", "{"},
      {"[]", 0, "byte 8", "{"},
      {"{", 0, "header", "byte"},
      {"{} x", 0, "header", "byte"},
      {"{\"a\":1}", 0, "'a'", "object"},
      {"{\"\":{}}", 0, "empty name", "raw"},
      {"{\"a\\nb\":{}}", 0, "control characters", "raw"},
      {"{\"a\nb\":{}}", 0, "header", "byte"},
      {"{\n\n x", 0, "header", "byte"},
      {"{\"__metadata__\":{\"k\\n\":1}}", 0, "control characters", "__metadata__"},
      {"{}", 1, "1 bytes", "no tensor"},
      {"{\"__metadata__\":[]}", 0, "__metadata__", "object"},
      {"{\"__metadata__\":{\"k\":1}}", 0, "'k'", "string"},
      {"{\"__metadata__\":{\"k\":\"\\u0000\"}}", 0, "header", "byte"},
      {"{\"__metadata__\":{\"k\":\"\xff\"}}", 0, "header", "byte"},
      {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "header", "duplicate"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[1,"
       "2]}}",
       2, "header", "duplicate"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1]}}", 1, "'a'", "keys"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":0}}", 1, "'a'", "keys"},
      {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "'a'", "dtype"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "'a'", "data_offsets"},
      {"{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "'a'", "dtype"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1, "'a'", "shape"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1, "'a'", "shape"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, "'a'", "shape"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[4294967296],\"data_offsets\":[0,1]}}", 1, "'a'", "shape"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "'a'", "shape"},
      /* 2^16 * 2^16 * 2^16 * 2^16 elements: 0 if the product wrapped */
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[65536,65536,65536,65536],\"data_offsets\":[0,0]}}", 0, "'a'", "shape"},
      /* 2^63 elements of 2 bytes */
      {"{\"a\":{\"dtype\":\"I16\",\"shape\":[2147483648,2147483648,2],\"data_offsets\":[0,0]}}", 0, "'a'", "shape"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1, "'a'", "data_offsets"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, "'a'", "data_offsets"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, "'a'", "data_offsets"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":{}}}", 1, "'a'", "data_offsets"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[-1,0]}}", 1, "'a'", "data_offsets"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 1, "'a'", "has 1"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[9223372036854775806,9223372036854775807]}}", 1, "'a'", "has 1"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,99999999999999999999]}}", 1, "header", "byte"},
      /* a hole before, between and after; an overlap; two tensors on the same bytes */
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "'a'", "0 expected"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[2,"
       "3]}}",
       3, "'b'", "1 expected"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2, "1 bytes", "no tensor"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[1,"
       "3]}}",
       3, "'b'", "2 expected"},
      {"{\"a\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,"
       "2]}}",
       2, "'b'", "2 expected"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    const NitiStatus status = read_raw(bad[i].header, bad[i].bytes);
    if (status != NITI_ERROR_FORMAT) fail_msg("status %d for %s", (int)status, bad[i].header);
    check_fails(status, NITI_ERROR_FORMAT, bad[i].word, bad[i].other);
    assert_non_null(strstr(niti_error(), at("raw")));
  }
}

static void test_container_refuses_sizes(void **state) {
  (void)state;
  NitiSafetensors content;
  static const uint8_t huge[] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
  static const uint8_t one_more[] = {3, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
  put_file(at("huge"), huge, sizeof huge);
  check_fails(niti_safetensors_read(&content, at("huge")), NITI_ERROR_FORMAT, at("huge"), "18446744073709551615");
  put_file(at("more"), one_more, sizeof one_more);
  check_fails(niti_safetensors_read(&content, at("more")), NITI_ERROR_FORMAT, at("more"), "header of 3 bytes");
  /* a file that is large enough for its header, which is larger than any that is read */
  static const uint8_t large[] = {1, 0, 0, 1, 0, 0, 0, 0, '{'};
  put_file(at("large"), large, sizeof large);
  assert_int_equal(truncate(at("large"), 1 << 25), 0);
  check_fails(niti_safetensors_read(&content, at("large")), NITI_ERROR_FORMAT, at("large"), "16777217");
  check_fails(niti_safetensors_read(&content, folder), NITI_ERROR_FILE, folder, "regular");
  check_fails(niti_safetensors_read(&content, at("none")), NITI_ERROR_FILE, at("none"), strerror(ENOENT));
  assert_int_equal(mkfifo(at("fifo"), 0600), 0);
  check_fails(niti_safetensors_read(&content, at("fifo")), NITI_ERROR_FILE, at("fifo"), "regular");
  /* nesting without end must not exhaust the stack */
  char *deep = malloc(1000001);
  assert_non_null(deep);
  for (int i = 0; i < 1000000; i += 5) memcpy(deep + i, "{\"a\":", 5);
  deep[1000000] = 0;
  check_fails(read_raw(deep, 0), NITI_ERROR_FORMAT, at("raw"), "byte 23: JSON nested more than 3 levels deep");
  free(deep);
}

/* A header of `first`, then `count` items "NAME`item`" with different names of two characters, then "}}". */
static char *make_header(const char *first, int count, const char *item, const char *last) {
  char *header = malloc(strlen(first) + (size_t)count * (strlen(item) + 5) + strlen(last) + 1), *to = header;
  assert_non_null(header);
  to += sprintf(to, "%s", first);
  for (int i = 0; i < count; ++i)
    to += sprintf(to, "%s\"%c%c\"%s", i ? "," : "", '0' + i / 64, '0' + i % 64 + (i % 64 > 43), item);
  (void)strcpy(to, last);
  return header;
}

/* Small values take up to a hundred times their text's memory once parsed: the text is refused before. */
static void test_container_refuses_dense_headers(void **state) {
  (void)state;
  static const struct {
    const char *first, *item, *last;
    NitiStatus status;
  } headers[] = {
      {"{", ":{}", "}", NITI_ERROR_FORMAT},
      {"{\"a\":{", ":[]", "}}", NITI_ERROR_FORMAT},
      /* tensors and metadata as short as they can be */
      {"{", ":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}", "}", NITI_OK},
      {"{", ":{\"dtype\":\"I8\",\"shape\":[0,0,0,0,0,0,0,0],\"data_offsets\":[0,0]}", "}", NITI_OK},
      {"{\"__metadata__\":{", ":\"\"", "}}", NITI_OK},
  };
  for (size_t i = 0; i < sizeof headers / sizeof *headers; ++i) {
    char *header = make_header(headers[i].first, 2000, headers[i].item, headers[i].last);
    const NitiStatus status = read_raw(header, 0);
    if (headers[i].status == NITI_OK)
      check_ok(status);
    else
      check_fails(status, NITI_ERROR_FORMAT, at("raw"), "values in");
    free(header);
  }
  static const char *const values[] = {"{}", "[]", "0", "\"\""};
  for (size_t i = 0; i < sizeof values / sizeof *values; ++i) {
    char header[20000] = "{\"a\":[";
    for (int n = 0; n < 4000; ++n) strcat(strcat(header, n ? "," : ""), values[i]);
    check_fails(read_raw(strcat(header, "]}"), 0), NITI_ERROR_FORMAT, at("raw"), "values in");
  }
  /* so many that they would take more memory than any network's, although none is short */
  enum { MANY = 45000, EACH = 64 };
  char *many = malloc(MANY * EACH), *to = many;
  assert_non_null(many);
  for (int i = 0; i < MANY; ++i)
    to += sprintf(to, "%s\"%05d\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "{", i);
  (void)strcpy(to, "}");
  check_fails(read_raw(many, 0), NITI_ERROR_FORMAT, at("raw"), "more than 262144 values in");
  free(many);
  /* brackets and commas within strings are no values */
  char text[10100] = "{\"__metadata__\":{\"k\":\"\\\"";
  memset(text + strlen(text), '[', 5000);
  memset(text + strlen(text), ',', 5000);
  check_ok(read_raw(strcat(text, "\"}}"), 0));
}

/* The bytes that the format prescribes for this content, worked out by hand. */
static void test_container_layout(void **state) {
  (void)state;
  int8_t a[3] = {1, -2, 3};
  int32_t z = -5;
  NitiSafetensor tensors[] = {{.name = (char[]){"a"}, .dtype = NITI_I8, .ndim = 1, .dims = {3}, .data = a},
                              {.name = (char[]){"z"}, .dtype = NITI_I32, .data = &z}};
  NitiPair pair = {(char[]){"k"}, (char[]){"\"v\n"}};
  const NitiSafetensors content = {.tensors = tensors, .count = 2, .metadata = &pair, .metadata_count = 1};
  static const char header[] =
      "{\"__metadata__\":{\"k\":\"\\\"v\\n\"},\"z\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[0,4]},"
      "\"a\":{\"dtype\":\"I8\",\"shape\":[3],\"data_offsets\":[4,7]}}";
  const size_t length = sizeof header - 1, padded = (length + 7) & ~(size_t)7;
  NitiFile *file;
  check_ok(niti_file_open(&file, at("a")));
  check_ok(niti_safetensors_write(file, &content));
  check_ok(niti_file_commit(file, NULL));
  size_t size;
  char *bytes = get_file(at("a"), &size);
  assert_int_equal(size, 8 + padded + 7);
  assert_int_equal((uint8_t)bytes[0], padded);
  for (int i = 1; i < 8; ++i) assert_int_equal(bytes[i], 0);
  assert_memory_equal(bytes + 8, header, length);
  for (size_t i = length; i < padded; ++i) assert_int_equal(bytes[8 + i], ' ');
  assert_memory_equal(bytes + 8 + padded, "\xfb\xff\xff\xff\x01\xfe\x03", 7);
  free(bytes);
}

static void test_container_writer_refuses(void **state) {
  (void)state;
  int8_t a[1] = {0};
  NitiSafetensor tensors[] = {{.name = (char[]){"a"}, .dtype = NITI_I8, .ndim = 1, .dims = {1}, .data = a},
                              {.name = (char[]){"a"}, .dtype = NITI_I8, .ndim = 1, .dims = {1}, .data = a}};
  const NitiSafetensors content = {.tensors = tensors, .count = 2};
  NitiFile *file;
  check_ok(niti_file_open(&file, at("a")));
  check_fails(niti_safetensors_write(file, &content), NITI_ERROR_ARGUMENT, "'a'", at("a"));
  tensors[1].name = (char[]){"\xff"};
  check_fails(niti_safetensors_write(file, &content), NITI_ERROR_ARGUMENT, "UTF-8", at("a"));
  tensors[1].name = (char[]){"__metadata__"};
  check_fails(niti_safetensors_write(file, &content), NITI_ERROR_ARGUMENT, "__metadata__", at("a"));
  niti_file_discard(file);
  assert_int_equal(count_files(), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_text_is_replaced, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_discard_leaves_the_old, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_file_errors, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_container_accepts, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_container_refuses, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_container_refuses_sizes, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_container_refuses_dense_headers, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_container_layout, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_container_writer_refuses, make_folder, remove_folder),
  };
  return cmocka_run_group_tests_name("io", tests, NULL, NULL);
}
