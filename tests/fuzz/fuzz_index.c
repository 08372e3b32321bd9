/* Folders of vectors for `niti compare`: index.json, and the arrays that it names. Input: a byte of flags, a field (fuzz.h) with
 * the index of folder a, another with that of b unless flag 1 says that it is the same, and then files: a byte that says which,
 * and a field. What is equal is so the other way round and with itself, and values that were read are read again from each format
 * in which niti writes them. */
#include "export/values.h"
#include "export/vectors.h"
#include "fuzz.h"
#include "platform/file.h"
#include "platform/json.h"

enum { FILES_MAX = 16, ENTRIES_MAX = 16, BYTES_MAX = 1 << 12 };

static const char *const folders[] = {"a", "b"}, *const stems[] = {"w", "x", "y", "z"};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  for (int i = 0; i < 2; ++i) FUZZ_CHECK(niti_system.mkdir(fuzz_at(folders[i]), 0777) == 0);
  FUZZ_CHECK(niti_system.mkdir(fuzz_at("c"), 0777) == 0);
  return 0;
}

static const char *file_at(unsigned which, int folder) {
  static char name[64];
  (void)snprintf(name, sizeof name, "%s/%s.%s", folders[folder], stems[which & 3], niti_values_endings[which >> 2 & 3]);
  return name;
}

/* which: two bits of stem, two of format, and two of folder: 1 a, 2 b, else both. */
static void put_files(const uint8_t *data, size_t size) {
  for (int i = 0; i < FILES_MAX && size > 0; ++i) {
    const unsigned which = *data++, folder = which >> 4 & 3;
    const uint8_t *content;
    --size;
    const size_t bytes = fuzz_field(&content, &data, &size);
    if (folder != 2) (void)fuzz_put(file_at(which, 0), content, bytes);
    if (folder != 1) (void)fuzz_put(file_at(which, 1), content, bytes);
  }
}

static void remove_files(void) {
  for (int folder = 0; folder < 2; ++folder) {
    for (unsigned which = 0; which < 16; ++which) (void)niti_system.unlink(fuzz_at(file_at(which, folder)));
  }
}

static NitiStatus compare(NitiDifference *d, const char *a, const char *b) {
  const NitiStatus status = fuzz_status(niti_compare(d, a, b));
  if (status == NITI_OK) FUZZ_CHECK(d->differs ? fuzz_is_line(d->where) : !d->where[0]);
  return status;
}

static bool is_equal(const char *a, const char *b) {
  NitiDifference d;
  return compare(&d, a, b) == NITI_OK && !d.differs;
}

/* ---- values ---- */

static void read_again(const NitiFileValues *v, const char *dtype, const void *data) {
  json_t *entries = json_array();
  NitiValues values = {.name = "values", .dtype = dtype, .layout = "", .rank = v->rank, .data = data};
  NitiFileValues written = *v;
  memcpy(values.dims, v->dims, sizeof values.dims);
  written.folder = fuzz_at("c");
  written.stem = "v";
  FUZZ_CHECK(niti_values_write(written.folder, written.stem, 15, &values, entries) == NITI_OK);
  for (int format = 0; format < NITI_VALUES_FORMATS; ++format) {
    void *again;
    FUZZ_CHECK(niti_file_values_read(&again, &written, format) == NITI_OK && again);
    FUZZ_CHECK(memcmp(again, data, v->count * v->width) == 0);
    free(again);
  }
  json_decref(entries);
}

static void use_entry(const json_t *entry) {
  static const char *const writable[] = {"int8", "uint8", "int16", "int32", "uint32", "int64"};
  const char *dtype = json_string_value(json_object_get(entry, "dtype"));
  const char *folder = fuzz_at("a");
  NitiFileValues v;
  void *data;
  if (fuzz_status(niti_file_values_open(&v, folder, entry)) != NITI_OK || v.count * v.width > BYTES_MAX) return;
  for (int format = 0; format < NITI_VALUES_FORMATS; ++format) {
    if (fuzz_status(niti_file_values_read(&data, &v, format)) != NITI_OK || !data) continue;
    for (size_t k = 0; k < sizeof writable / sizeof *writable; ++k)
      if (strcmp(dtype, writable[k]) == 0) read_again(&v, writable[k], data);
    free(data);
  }
}

/* Everything in it that names a file. */
static void use_entries(const json_t *value, int *left) {
  const char *key;
  json_t *below;
  size_t i;
  if (json_object_get(value, "file") && (*left)-- > 0) use_entry(value);
  json_object_foreach((json_t *)(uintptr_t)value, key, below) use_entries(below, left);
  json_array_foreach(value, i, below) use_entries(below, left);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *index[2];
  size_t bytes[2];
  int left = ENTRIES_MAX;
  char a[64], b[64];
  if (size < 1) return 0;
  const unsigned flags = *data++;
  --size;
  for (int i = 0; i < 2; ++i) {
    index[i] = index[0];
    bytes[i] = bytes[0];
    if (i == 0 || !(flags & 1)) bytes[i] = fuzz_field(&index[i], &data, &size);
    (void)fuzz_put(i ? "b/index.json" : "a/index.json", index[i], bytes[i]);
  }
  put_files(data, size);
  (void)snprintf(a, sizeof a, "%s", fuzz_at("a"));
  (void)snprintf(b, sizeof b, "%s", fuzz_at("b"));
  const bool equal = is_equal(a, b);
  FUZZ_CHECK(equal == is_equal(b, a));
  if (equal) FUZZ_CHECK(is_equal(a, a) && is_equal(b, b));
  char *text = fuzz_text(index[0], bytes[0]);
  if (niti_json_check(text, bytes[0], 16, SIZE_MAX, 0, "index") == NITI_OK) {
    json_t *read = json_loadb(text, bytes[0], 0, NULL);
    use_entries(read, &left);
    json_decref(read);
  }
  free(text);
  remove_files();
  return 0;
}
