/* What other tools wrote for `compare`: files of values in each format, their index, and runs. Every value is known by hand. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include <errno.h>

#include "export/values.h"
#include "export/vectors.h"
#include "fail_memory.h"
#include "io/checkpoint.h"

enum { NPY, HEX, H, SAFETENSORS, HEADER = 118 };

static char *dir;

static int make_dir(void **state) {
  (void)state;
  dir = make_temp();
  return 0;
}

static int remove_dir(void **state) {
  (void)state;
  remove_temp(dir);
  return 0;
}

static void put_text(const char *path, const char *text) { put_file(path, text, strlen(text)); }

static void refused(NitiStatus status, NitiStatus expected, const char *a, const char *b) {
  check_error((int)status, (int)expected, niti_error(), a, b);
}

/* ---- files of values ---- */

/* DIR/v in the format, as the entry describes it. */
static NitiStatus read_values(void **data, const char *entry, int format) {
  json_t *json = json_loads(entry, 0, NULL);
  assert_non_null(json);
  NitiFileValues values;
  *data = NULL;
  NitiStatus status = niti_file_values_open(&values, dir, json);
  if (status == NITI_OK) status = niti_file_values_read(data, &values, format);
  json_decref(json);
  return status;
}

static const char *entry_of(const char *dtype, int count) {
  return path_of("{\"file\": \"v\", \"dtype\": \"%s\", \"dims\": [%d]}", dtype, count);
}

static int64_t value_at(const void *data, const char *dtype, int i) {
  const bool sign = dtype[0] != 'u';
  const int bits = atoi(dtype + (sign ? 3 : 4));
  uint64_t value = 0;
  for (int k = 0; k < bits / 8; ++k) value |= (uint64_t)((const uint8_t *)data)[i * bits / 8 + k] << 8 * k; /* little-endian */
  return sign && bits < 64 && value >> (bits - 1) ? (int64_t)value - ((int64_t)1 << bits) : (int64_t)value;
}

static void texts_of_values(void **state) {
  (void)state;
  static const struct {
    const char *dtype, *text;
    int format, count;
    int64_t values[4];
  } cases[] = {
      {"int8", "ff 7F\t80", HEX, 3, {-1, 127, -128}},
      {"uint8", "fF 0\r\n/* 1\n2 */ 80/**/", HEX, 3, {255, 0, 128}},
      {"int16", "@0 8000 @1 7fff // 9", HEX, 2, {-32768, 32767}},
      {"uint16", "f_f_f_f 1_", HEX, 2, {65535, 1}},
      {"int32", "8000_0000 00000000000000001", HEX, 2, {INT32_MIN, 1}},
      {"uint32", "ffffffff", HEX, 1, {UINT32_MAX}},
      {"int64", "ffffffffffffffff 7fffffffffffffff", HEX, 2, {-1, INT64_MAX}},
      {"uint64", "8000000000000000\v1\f", HEX, 2, {INT64_MIN, 1}},
      {"int8", "int8_t v[3] = {-128, 127, -0};", H, 3, {-128, 127, 0}},
      {"uint8", "// {\n{255,0x0f/**/,017}", H, 3, {255, 15, 15}},
      {"int16", "{-32768,32767,}", H, 2, {-32768, 32767}},
      {"uint16", "{65535u/* 7 */,-0}", H, 2, {65535, 0}},
      {"int32", "{-2147483648, 2147483647L}", H, 2, {INT32_MIN, INT32_MAX}},
      {"uint32", "{4294967295UL\n}", H, 1, {UINT32_MAX}},
      {"int64", "{INT64_MIN, -9223372036854775807ll, INT64_MIN}", H, 3, {INT64_MIN, -INT64_MAX, INT64_MIN}},
      {"uint64", "{18446744073709551615ULL}", H, 1, {-1}},
      {"int32", "{1u, 2ul, 3lu, 4LLU}", H, 4, {1, 2, 3, 4}},
      {"int8", "#ifndef V\n#define V\nint8_t v[] = {1};\n#endif // {2}\n", H, 1, {1}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    void *data;
    put_text(path_of("%s/v.%s", dir, niti_values_endings[cases[i].format]), cases[i].text);
    if (read_values(&data, entry_of(cases[i].dtype, cases[i].count), cases[i].format) != NITI_OK)
      fail_msg("'%s': %s", cases[i].text, niti_error());
    for (int k = 0; k < cases[i].count; ++k) {
      if (value_at(data, cases[i].dtype, k) != cases[i].values[k]) fail_msg("value %d of '%s'", k, cases[i].text);
    }
    free(data);
  }
}

static void texts_of_no_values(void **state) {
  (void)state;
  static const char hex[] = "hexadecimal digits", address[] = "the address of the next", number[] = "a number of the index's",
                    comma[] = "a comma, or } at the array's end", behind[] = "the end of the file, ; and #endif at most";
  static const struct {
    const char *dtype, *text;
    int format;
    const char *says, *place;
  } cases[] = {
      {"int64", "11111111111111111 2", HEX, hex, "v.hex:1: '11111111111111111'"},
      {"int8", "1\n100", HEX, hex, ":2: '100'"},
      {"int8", "_1 2", HEX, hex, ":1: '_1'"},
      {"int8", "12g 2", HEX, hex, "'12g'"},
      {"int8", "1 /x", HEX, hex, "'/x'"},
      {"int8", "1/", HEX, hex, "'/'"},
      {"int8", "1,2", HEX, hex, "''"},
      {"int8", "1}", HEX, hex, "'}'"},
      {"int8", "1", HEX, "1 values (expected 2", "v.hex: "},
      {"int8", "", HEX, "0 values (expected 2", "v.hex: "},
      {"int8", "1 2 3", HEX, "more than 2 values", "v.hex: "},
      {"int8", "@ 1", HEX, address, "'@'"},
      {"int8", "1 @0 2", HEX, address, "'@0'"},
      {"int8", "1 /* 2", HEX, "the end of the comment", "'/*'"},
      {"int8", "/* {1,2}", H, "an array", "v.h:1: "},
      {"int8", "int8_t v", H, "an array", "''"},
      {"int8", "{1,2", H, "} at the array's end", "''"},
      {"int8", "{1,", H, "} at the array's end", "''"},
      {"int8", "{1 /* 2}", H, "} at the array's end", "'/*'"},
      {"int8", "{1, /* 2}", H, "} at the array's end", "'/*'"},
      {"int8", "{1 2}", H, comma, "'2}'"},
      {"int8", "{1;2}", H, number, "'1;2}'"},
      {"int8", "{1\n2,}", H, comma, "v.h:2: '2'"},
      {"int8", "{1/**/2}", H, comma, "'2}'"},
      {"int8", "{1,2}; {3}", H, behind, "'{3}'"},
      {"int8", "{1,2} 3", H, behind, "'3'"},
      {"int8", "{1,2};;", H, behind, "';'"},
      {"int8", "{1,2};\n#endif\nint8_t w;", H, behind, "v.h:3: 'int8_t'"},
      {"int8", "{1,2}; /* 3", H, behind, "'/*'"},
      {"int8", "{1,2} /* 3", H, behind, "'/*'"},
      {"int8", "{1uu,2}", H, number, "'1uu'"},
      {"int8", "{1lL,2}", H, number, "'1lL'"},
      {"int8", "{1lul,2}", H, number, "'1lul'"},
      {"int8", "{,1,2}", H, number, "''"},
      {"int8", "{1,,2}", H, number, "''"},
      {"int8", "{1,\n2,3}", H, "more than 2 values", "v.h: "},
      {"int8", "{1}", H, "1 values (expected 2", "v.h: "},
      {"int8", "{128}", H, number, "'128}"},
      {"int8", "{-129}", H, number, "'-129}"},
      {"uint8", "{-1}", H, number, "'-1}"},
      {"uint8", "{256}", H, number, "'256}"},
      {"int8", "{x}", H, number, "'x}"},
      {"int8", "{--1}", H, number, "'--1}"},
      {"int8", "{1.5}", H, number, "'1.5}"},
      {"int64", "{99999999999999999999}", H, number, "'99999999999999999999}"},
      {"int64", "{INT64_MINUS}", H, number, "'INT64_MINUS}"},
      {"int32", "{INT64_MIN}", H, number, "'INT64_MIN}"},
      {"uint64", "{INT64_MIN}", H, number, "'INT64_MIN}"},
      {"int8", "{aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}", H, number, "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' "},
  };
  void *data;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    put_text(path_of("%s/v.%s", dir, niti_values_endings[cases[i].format]), cases[i].text);
    refused(read_values(&data, entry_of(cases[i].dtype, 2), cases[i].format), NITI_ERROR_FORMAT, cases[i].place, cases[i].says);
    assert_null(data);
  }
  for (int format = HEX; format <= H; ++format) {
    const char *path = path_of("%s/v.%s", dir, niti_values_endings[format]);
    put_file(path, "{1,2}\0", 6);
    refused(read_values(&data, entry_of("int8", 2), format), NITI_ERROR_FORMAT, path, "a zero byte");
    assert_int_equal(truncate(path, ((off_t)1 << 30) + 1), 0);
    refused(read_values(&data, entry_of("int8", 2), format), NITI_ERROR_FORMAT, path, "1073741824");
    assert_int_equal(unlink(path), 0);
    put_dir(path); /* which is no file of values */
    assert_int_equal(read_values(&data, entry_of("int8", 2), format), NITI_OK);
    assert_null(data);
    assert_int_equal(rmdir(path), 0);
  }
}

static void entries_of_an_index(void **state) {
  (void)state;
  static const struct {
    const char *entry, *says;
  } cases[] = {
      {"{}", "'' names no file"},
      {"{\"file\": 7}", "'' names no file"},
      {"{\"file\": \"../v\"}", "'../v' names no file"},
      {"{\"file\": \"v\"}", "v: dtype '' (expected int8"},
      {"{\"file\": \"v\", \"dtype\": \"int7\"}", "v: dtype 'int7'"},
      {"{\"file\": \"v\", \"dtype\": \"int8\"}", "v: expected 1 to "},
      {"{\"file\": \"v\", \"dtype\": \"int8\", \"dims\": []}", "v: expected 1 to "},
      {"{\"file\": \"v\", \"dtype\": \"int8\", \"dims\": [1,1,1,1,1,1,1,1,1,1]}", "v: expected 1 to "},
      {"{\"file\": \"v\", \"dtype\": \"int8\", \"dims\": [0]}", "v: expected 1 to "},
      {"{\"file\": \"v\", \"dtype\": \"int8\", \"dims\": [2, -1]}", "v: expected 1 to "},
      {"{\"file\": \"v\", \"dtype\": \"int8\", \"dims\": [\"2\"]}", "v: expected 1 to "},
      {"{\"file\": \"v\", \"dtype\": \"int8\", \"dims\": [1073741825]}", "at most 1 GB"},
      {"{\"file\": \"v\", \"dtype\": \"int64\", \"dims\": [65536, 2049]}", "at most 1 GB"},
      {"{\"file\": \"v\", \"dtype\": \"int8\", \"dims\": [4611686018427387904, 4]}", "at most 1 GB"},
  };
  char entry[300], stem[NITI_FILE_STEM_MAX + 1] = "";
  void *data;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
    refused(read_values(&data, cases[i].entry, HEX), NITI_ERROR_FORMAT, cases[i].says, "/index.json: ");
  memset(stem, 'v', NITI_FILE_STEM_MAX);
  (void)snprintf(entry, sizeof entry, "{\"file\": \"%s\", \"dtype\": \"int8\", \"dims\": [1]}", stem);
  refused(read_values(&data, entry, HEX), NITI_ERROR_FORMAT, "vvvv' names no file", "/index.json: ");
}

/* A header of numpy's and values, at an address that is aligned for all of them. */
static void put_npy(const char *path, const char *descr, const char *shape, const void *data, size_t bytes) {
  uint8_t file[10 + HEADER + 64] = "\x93NUMPY\1";
  memset(file + 10, ' ', HEADER);
  file[8] = HEADER;
  const int length = snprintf((char *)file + 10, HEADER, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
  file[10 + length] = ' ';
  file[10 + HEADER - 1] = '\n';
  memcpy(file + 10 + HEADER, data, bytes);
  put_file(path, file, 10 + HEADER + bytes);
}

static void put_safetensors(const char *path, const char *header, const void *data, size_t bytes) {
  uint8_t file[512] = {(uint8_t)strlen(header)};
  assert_true(strlen(header) < 256 && bytes < 128);
  memcpy(file + 8, header, strlen(header));
  memcpy(file + 8 + strlen(header), data, bytes);
  put_file(path, file, 8 + strlen(header) + bytes);
}

#define TENSOR(dtype, shape, end) "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[0," end "]}}"

static void containers_of_values(void **state) {
  (void)state;
  static const uint8_t bytes[12] = {1, 0x80, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  static const char entry[] = "{\"file\": \"v\", \"dtype\": \"int16\", \"dims\": [2, 3]}", other[] = "another dtype or shape";
  static const char *const npy[][2] = {{"<i4", "(3,)"}, {"<u2", "(2, 3)"}, {"<i2", "(6,)"}, {"<i2", "(3, 2)"}, {"|i1", "(2, 3)"}};
  static const char *const tensors[] = {TENSOR("I16", "[6]", "12"), TENSOR("I16", "[3,2]", "12"), TENSOR("I32", "[3,1]", "12"),
                                        ("{\"s\":{\"dtype\":\"I8\",\"shape\":[6],\"data_offsets\":[0,6]},"
                                         "\"t\":{\"dtype\":\"I8\",\"shape\":[6],\"data_offsets\":[6,12]}}")};
  const char *a = path_of("%s/v.npy", dir), *b = path_of("%s/v.safetensors", dir);
  void *data;
  put_npy(a, "<i2", "(2, 3)", bytes, 12);
  put_safetensors(b, TENSOR("I16", "[2,3]", "12"), bytes, 12);
  for (int format = NPY; format <= SAFETENSORS; format += SAFETENSORS) {
    if (read_values(&data, entry, format) != NITI_OK) fail_msg("%s", niti_error());
    for (int i = 0; i < 6; ++i) assert_int_equal(value_at(data, "int16", i), i == 0 ? 0x8001 - 0x10000 : 0x403 + 0x202 * (i - 1));
    free(data);
  }
  for (size_t i = 0; i < sizeof npy / sizeof *npy; ++i) {
    put_npy(a, npy[i][0], npy[i][1], bytes, i == 4 ? 6 : 12);
    refused(read_values(&data, entry, NPY), NITI_ERROR_FORMAT, a, other);
  }
  for (size_t i = 0; i < sizeof tensors / sizeof *tensors; ++i) {
    put_safetensors(b, tensors[i], bytes, 12);
    refused(read_values(&data, entry, SAFETENSORS), NITI_ERROR_FORMAT, b, other);
  }
  put_text(a, "no array");
  refused(read_values(&data, entry, NPY), NITI_ERROR_FORMAT, a, "byte 0");
  put_text(b, "none");
  refused(read_values(&data, entry, SAFETENSORS), NITI_ERROR_FORMAT, b, "");
}

static int one_format;
static const char small[] = "{\"file\": \"v\", \"dtype\": \"int8\", \"dims\": [2]}";

static NitiStatus read_small(const char *path) {
  void *data;
  (void)path;
  const NitiStatus status = read_values(&data, small, one_format);
  if (status == NITI_OK && memcmp(data, "\1\2", 2) != 0) fail_msg("wrong values");
  free(data);
  return status;
}

static void values_without_memory(void **state) {
  (void)state;
  put_npy(path_of("%s/v.npy", dir), "|i1", "(2,)", "\1\2", 2);
  put_text(path_of("%s/v.hex", dir), "1 2");
  put_text(path_of("%s/v.h", dir), "{1,2}");
  put_safetensors(path_of("%s/v.safetensors", dir), TENSOR("I8", "[2]", "2"), "\1\2", 2);
  for (one_format = NPY; one_format <= SAFETENSORS; ++one_format) fail_each(niti_values_endings[one_format], read_small, NULL);
}

/* ---- folders of vectors ---- */

/* "" : equal. */
static void compared(const char *a, const char *b, const char *where) {
  NitiDifference d;
  const NitiStatus status = niti_compare(&d, a, b);
  if (status != NITI_OK) fail_msg("%s", niti_error());
  if (d.differs != (where[0] != 0) || strcmp(d.where, where) != 0) fail_msg("'%s' instead of '%s'", d.where, where);
}

static void cannot_compare(const char *a, const char *b, NitiStatus expected, const char *x, const char *y) {
  NitiDifference d;
  refused(niti_compare(&d, a, b), expected, x, y);
}

#define VALUES(name, rest) "{\"name\":\"" name "\",\"file\":\"" name "\",\"dtype\":\"int8\",\"dims\":[2]" rest "}"
#define STEP "\"step\":1,\"operation\":4,\"layer\":\"l\","

static void put_index(const char *folder, const char *operations) {
  put_text(path_of("%s/index.json", folder), path_of("{\"arithmetic\":\"1.2\",\"operations\":[%s]}", operations));
}

static void folders_of_vectors(void **state) {
  (void)state;
  static const char one[] = "{\"opcode\":\"add\"," STEP "\"a\":" VALUES("x", "") ",\"inputs\":[" VALUES("y", "") "],\"shift\":3}";
  static const struct {
    const char *operations, *where;
  } cases[] = {
      {one, ""},
      {"{\"opcode\":\"sub\"}", "entry 0: add here, sub there"},
      {"", "1 operations here, 0 there"},
      {"{\"opcode\":\"add\",\"a\":" VALUES("x", "") ",\"inputs\":[" VALUES("y", "") "],\"shift\":4}",
       "step 1, operation 4, l add: shift"},
      {"{\"opcode\":\"add\",\"a\":" VALUES("x", ",\"layout\":\"C\"") ",\"inputs\":[" VALUES("y", "") "]}",
       "step 1, operation 4, l add: the layout of x"},
      {"{\"opcode\":\"add\",\"a\":" VALUES("x", "") ",\"inputs\":[" VALUES("y", ",\"exponent\":1") "],\"shift\":3}",
       "step 1, operation 4, l add: the exponent of y"},
      {"{\"opcode\":\"add\",\"a\":" VALUES("x", "") ",\"inputs\":[],\"shift\":3}", "step 1, operation 4, l add: inputs"},
      {"{\"opcode\":\"add\",\"a\":" VALUES("x", "") ",\"inputs\":[7],\"shift\":3}", "step 1, operation 4, l add: the shape of y"},
      {"{\"opcode\":\"add\",\"a\":5,\"inputs\":[" VALUES("y", "") "],\"shift\":3}", "step 1, operation 4, l add: a"},
  };
  char *a = strdup(path_of("%s/a", dir)), *b = strdup(path_of("%s/b", dir));
  put_dir(a);
  put_dir(b);
  for (int i = 0; i < 4; ++i) put_text(path_of("%s/%s.hex", i & 1 ? a : b, i & 2 ? "x" : "y"), "1 2");
  put_index(a, one);
  cannot_compare(a, b, NITI_ERROR_FILE, "expected two folders of vectors", a);
  cannot_compare(b, a, NITI_ERROR_FILE, "expected two folders of vectors", a);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    put_index(b, cases[i].operations);
    compared(a, b, cases[i].where);
  }
  put_index(b, one);
  put_text(path_of("%s/y.hex", b), "1 3");
  compared(a, b, "step 1, operation 4, l add: element 1 of y (y)");
  put_text(path_of("%s/y.h", a), "{0,2}");
  compared(a, b, path_of("step 1, operation 4, l add: element 0 of y (y.hex and .h of %s)", a));
  assert_int_equal(unlink(path_of("%s/y.hex", a)), 0);
  compared(a, b, "step 1, operation 4, l add: element 0 of y (y: .h here, .hex there)");
  put_text(path_of("%s/y.hex", b), "1");
  cannot_compare(a, b, NITI_ERROR_FORMAT, "y.hex: ", "1 values");
  assert_int_equal(unlink(path_of("%s/y.hex", b)), 0);
  cannot_compare(a, b, NITI_ERROR_FILE, b, "y is not there in any format");
  put_index(a, "{\"opcode\":\"add\",\"inputs\":[{\"file\":\"\"}]}");
  put_index(b, "{\"opcode\":\"add\",\"inputs\":[{\"file\":\"\"}]},{\"opcode\":\"add\"}");
  cannot_compare(a, b, NITI_ERROR_FORMAT, a, "'' names no file");
  put_index(a, "{\"opcode\":\"c\",\"words\":" VALUES("x", "") "}");
  put_index(b, "{\"opcode\":\"c\",\"words\":" VALUES("x", "") "},{\"opcode\":\"d\"}");
  compared(a, b, "1 operations here, 2 there");
  put_text(path_of("%s/x.hex", b), "2 2");
  compared(a, b, "a case of c: element 0 of x (x)");
  put_text(path_of("%s/index.json", b), "{\"arithmetic\":\"2.0\",\"operations\":[]}");
  compared(a, b, "arithmetic 1.2 here, 2.0 there");
  put_text(path_of("%s/index.json", b), "{\n}");
  cannot_compare(a, b, NITI_ERROR_FORMAT, b, "no list of operations");
  put_text(path_of("%s/index.json", b), "[\n7");
  cannot_compare(a, b, NITI_ERROR_FORMAT, "index.json:2: ", "near end of file");
  cannot_compare(b, a, NITI_ERROR_FORMAT, "index.json:2: ", "near end of file");
  put_text(path_of("%s/index.json", b), "[[[[[[[[[[[[[[[[[");
  cannot_compare(a, b, NITI_ERROR_FORMAT, "index.json: byte 16", "nested");
  assert_int_equal(truncate(path_of("%s/index.json", b), ((off_t)1 << 30) + 1), 0);
  cannot_compare(a, b, NITI_ERROR_FORMAT, "index.json", "1073741824");
  free(a);
  free(b);
}

/* ---- runs ---- */

typedef struct Tensor {
  const char *name, *step;
  NitiFileDtype dtype;
  int ndim;
  uint32_t dims[2];
  int32_t exponent;
  int8_t data[8];
} Tensor;

static const Tensor usual = {"l.weight", "7", NITI_I8, 2, {2, 3}, -5, {1, 2, 3, 4, 5, 6}};

static void put_checkpoint(const char *path, Tensor t) {
  static int8_t first[1] = {9};
  NitiCheckpoint *c;
  assert_int_equal(niti_checkpoint_open(&c), NITI_OK);
  assert_int_equal(niti_checkpoint_add(c, "a.weight", NITI_I8, 1, (const uint32_t[]){1}, 0, first), NITI_OK);
  assert_int_equal(niti_checkpoint_add(c, t.name, t.dtype, t.ndim, t.dims, t.exponent, t.data), NITI_OK);
  if (t.step) assert_int_equal(niti_checkpoint_set(c, "step", t.step), NITI_OK);
  if (niti_checkpoint_save(c, path) != NITI_OK) fail_msg("%s", niti_error());
  niti_checkpoint_close(c);
}

static char *runs[2];

static void make_runs(void) {
  for (int i = 0; i < 2; ++i) {
    runs[i] = strdup(path_of("%s/run%d", dir, i));
    put_dir(runs[i]);
    put_checkpoint(path_of("%s/last.safetensors", runs[i]), usual);
  }
}

static void free_runs(void) {
  for (int i = 0; i < 2; ++i) free(runs[i]);
}

static void last_checkpoints(void **state) {
  (void)state;
  static const struct {
    Tensor tensor;
    const char *where;
  } cases[] = {
      {{"l.weight", "7", NITI_I8, 2, {2, 3}, -5, {1, 2, 3, 4, 5, 7}}, "element 5 of l.weight"},
      {{"l.weight", "7", NITI_I8, 2, {2, 3}, -4, {1, 2, 3, 4, 5, 6}}, "the exponent of l.weight"},
      {{"l.weight", "7", NITI_I8, 2, {3, 2}, -5, {1, 2, 3, 4, 5, 6}}, "the shape of l.weight"},
      {{"l.weight", "7", NITI_I8, 1, {6}, -5, {1, 2, 3, 4, 5, 6}}, "the shape of l.weight"},
      {{"l.weight", "7", NITI_I16, 2, {1, 3}, -5, {1, 2, 3, 4, 5, 6}}, "the shape of l.weight"},
      {{"m.weight", "7", NITI_I8, 2, {2, 3}, -5, {1, 2, 3, 4, 5, 6}}, "the shape of l.weight"},
      {{"l.weight", "8", NITI_I8, 2, {2, 3}, -5, {2}}, "after step 7 here, after step 8 there"},
      {{"l.weight", NULL, NITI_I8, 2, {2, 3}, -5, {1, 3, 3, 4, 5, 6}}, "element 1 of l.weight"},
  };
  make_runs();
  compared(runs[0], runs[1], "");
  const char *last = path_of("%s/last.safetensors", runs[1]);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    put_checkpoint(last, cases[i].tensor);
    compared(runs[0], runs[1], path_of("last.safetensors: %s", cases[i].where));
  }
  put_checkpoint(path_of("%s/last.safetensors", runs[0]), cases[7].tensor);
  put_checkpoint(last, usual); /* the first has no step */
  compared(runs[0], runs[1], "last.safetensors: element 1 of l.weight");
  put_text(last, "damaged");
  cannot_compare(runs[0], runs[1], NITI_ERROR_FORMAT, last, "");
  cannot_compare(runs[1], runs[0], NITI_ERROR_FORMAT, last, "");
  assert_int_equal(unlink(last), 0);
  cannot_compare(runs[0], runs[1], NITI_ERROR_FILE, "expected two folders of vectors", runs[1]);
  cannot_compare(runs[1], runs[0], NITI_ERROR_FILE, "expected two folders of vectors", runs[1]);
  free_runs();
}

/* Epochs 1 to 9 are kept, but for the fourth, which one run lacks. From `other` on they differ. */
static void epochs_of_runs(void **state) {
  (void)state;
  make_runs();
  for (int other = 1; other <= 10; ++other) {
    for (int epoch = 1; epoch <= 9; ++epoch) {
      for (int i = 0; i < 2; ++i) {
        Tensor t = usual;
        t.data[3] = (int8_t)(epoch * 10 + (epoch >= other ? i : 0));
        if (epoch != 4 || i == 0) put_checkpoint(path_of("%s/epoch-%04d.safetensors", runs[i], epoch), t);
      }
    }
    const int first = other == 4 ? 5 : other;
    compared(runs[0], runs[1], first == 10 ? "" : path_of("epoch-%04d.safetensors: element 3 of l.weight", first));
  }
  put_text(path_of("%s/epoch-0006.safetensors", runs[0]), "damaged"); /* the middle of the eight */
  cannot_compare(runs[0], runs[1], NITI_ERROR_FORMAT, "epoch-0006.safetensors", "");
  free_runs();
}

static NitiStatus compare_both(const char *path) {
  NitiDifference d;
  const NitiStatus status = niti_compare(&d, path, path);
  if (status == NITI_OK && d.differs) fail_msg("%s", d.where);
  return status;
}

static long json_left; /* allocations of jansson's until they fail */

static void *few(size_t bytes) { return json_left-- > 0 ? spared(bytes) : NULL; }

static void compare_without_memory(void **state) {
  (void)state;
  make_runs();
  put_checkpoint(path_of("%s/epoch-0001.safetensors", runs[0]), usual);
  fail_each("two runs", compare_both, runs[0]);
  put_text(path_of("%s/x.hex", runs[1]), "1 2");
  put_index(runs[1], "{\"opcode\":\"c\",\"words\":" VALUES("x", "") ",\"inputs\":[" VALUES("x", "") "]}");
  fail_each("two folders of vectors", compare_both, runs[1]);
  json_set_alloc_funcs(few, free);
  NitiStatus status = NITI_ERROR_MEMORY;
  for (long n = 0; status != NITI_OK; ++n) {
    json_left = n;
    status = compare_both(runs[1]);
    if (status == NITI_ERROR_FORMAT) /* jansson takes a word that it has no memory for, for a wrong one */
      refused(status, NITI_ERROR_FORMAT, runs[1], " near ");
    else if (status != NITI_OK)
      refused(status, NITI_ERROR_MEMORY, runs[1], "out of memory");
  }
  spare_json();
  free_runs();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(texts_of_values, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(texts_of_no_values, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(entries_of_an_index, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(containers_of_values, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(values_without_memory, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(folders_of_vectors, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(last_checkpoints, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(epochs_of_runs, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(compare_without_memory, make_dir, remove_dir),
  };
  spare_json();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
