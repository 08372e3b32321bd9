/* Packed files, digests and tuning files where the disk or memory fails, and those that no other test has. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "backend/tuning.h"
#include "data/packed.h"
#include "fail_memory.h"
#include "platform/sha256.h"

/* Reads until the one that fails; negative: none will. */
static long reads = -1;

#if FAILS
EXPORTED ssize_t read(int fd, void *to, size_t count) {
  if (reads < 0 || reads-- > 0) return (ssize_t)syscall(SYS_read, fd, to, count);
  errno = EIO;
  return -1;
}
#endif

static char *dir, *path;

static int make_file(void **state) {
  (void)state;
  dir = make_temp();
  path = strdup(path_of("%s/file", dir));
  return 0;
}

static int remove_file(void **state) {
  (void)state;
  free(path);
  remove_temp(dir);
  return 0;
}

static void refused(NitiStatus status, NitiStatus expected, const char *a, const char *b) {
  check_error((int)status, (int)expected, niti_error(), a, b);
}

/* ---- packed files ---- */

static const char content[] = "what is in the file, which gzip may have packed, packed, packed";

/* The whole file, in pieces of five bytes. */
static NitiStatus unpack(const char *from) {
  NitiPacked *packed;
  char bytes[2 * sizeof content + 8] = "";
  size_t got = 5, at = 0;
  NITI_TRY(niti_packed_open(&packed, from));
  NitiStatus status = NITI_OK;
  while (status == NITI_OK && got == 5 && at < sizeof bytes - 5) {
    status = niti_packed_read(packed, bytes + at, 5, &got);
    at += got;
  }
  niti_packed_close(packed);
  if (status == NITI_OK && (at < sizeof content - 1 || memcmp(bytes, content, sizeof content - 1) != 0)) fail_msg("'%s'", bytes);
  return status;
}

/* The content, packed, and what follows it. */
static void put_packed(const char *more, size_t count) {
  size_t size;
  put_gzip(path, content, sizeof content - 1);
  uint8_t *bytes = get_file(path, &size);
  memcpy(bytes + size, more, count);
  put_file(path, bytes, size + count);
  free(bytes);
}

static void packed_files_that_cannot_be_read(void **state) {
  (void)state;
  static const struct {
    const char *more;
    size_t count;
  } cases[] = {{"", 0}, {"\0", 1}, {"\0\0", 2}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    put_packed(cases[i].more, cases[i].count);
    assert_int_equal(unpack(path), NITI_OK);
    for (long n = 0; FAILS && n < 2; ++n) { /* the whole file, and its end */
      reads = n;
      const NitiStatus status = unpack(path);
      reads = -1;
      refused(status, NITI_ERROR_FILE, path, strerror(EIO));
    }
  }
  fail_each("a packed file", unpack, path);
  refused(unpack(dir), NITI_ERROR_FILE, dir, "a regular file");
  niti_packed_close(NULL);
}

/* As tapes pad files with them; a file system keeps terabytes of them in no room. */
static void packed_files_with_padding(void **state) {
  (void)state;
  static const long long padding[] = {1 << 20, (1 << 20) + 1, 1LL << 40};
  put_packed("", 0);
  size_t size;
  free(get_file(path, &size));
  for (int i = 0; i < 3; ++i) {
    if (truncate(path, (off_t)size + padding[i]) != 0 && errno == EFBIG) break; /* not on this file system */
    if (i == 0)
      assert_int_equal(unpack(path), NITI_OK);
    else
      refused(unpack(path), NITI_ERROR_FORMAT, path, "expected the end of the file, after its gzip data");
  }
}

static void plain_files(void **state) {
  (void)state;
  NitiPacked *packed;
  char bytes[8];
  size_t got;
  put_file(path, content, sizeof content - 1);
  assert_int_equal(unpack(path), NITI_OK);
  put_file(path, "\x1fx", 2); /* half of gzip's magic number */
  assert_int_equal(niti_packed_open(&packed, path), NITI_OK);
  assert_false(niti_packed_is(packed));
  assert_int_equal(niti_packed_size(packed), 2);
  assert_int_equal(niti_packed_read(packed, bytes, sizeof bytes, &got), NITI_OK);
  assert_int_equal(got, 2);
  assert_memory_equal(bytes, "\x1fx", 2);
  niti_packed_close(packed);
}

/* ---- digests ---- */

static void digests_of_files_that_cannot_be_read(void **state) {
  (void)state;
  char digest[NITI_SHA256_TEXT];
  put_file(path, content, sizeof content - 1);
  for (long n = 0; FAILS && n < 2; ++n) { /* the whole file, and its end */
    reads = n;
    const NitiStatus status = niti_sha256_of_file(digest, path);
    reads = -1;
    refused(status, NITI_ERROR_FILE, path, strerror(EIO));
  }
}

/* ---- tuning files ---- */

static NitiBackend *backend;

#define HEAD "{\"format\":\"niti tuning\",\"version\":1"
static const char none[] = HEAD ",\"devices\":[]}";

static void put_text(const char *text) { put_file(path, text, strlen(text)); }

/* A file with an entry of this device, but for its kernels where they are given. */
static void put_entry(const char *kernels, const char *rest) {
  char text[1024];
  (void)snprintf(text, sizeof text, HEAD ",\"devices\":[{\"hardware\":\"%s\",\"kernels\":\"%s\",\"threads\":%d%s}]}",
                 backend->ops->hardware(backend), kernels ? kernels : backend->ops->kernels(backend),
                 (int)backend->ops->threads(backend), rest);
  put_text(text);
}

static void noted(const char *says) {
  NitiTuning *tuning;
  assert_int_equal(niti_tuning_open(&tuning, path, backend), NITI_OK);
  backend->tuning = tuning;
  const NitiTuningFacts *facts = niti_backend_tuning(backend);
  if (!facts->note || !strstr(facts->note, says)) fail_msg("'%s' does not say '%s'", facts->note ? facts->note : "", says);
  assert_int_equal(facts->entries, 0);
  backend->tuning = NULL;
  niti_tuning_close(tuning);
}

static NitiStatus read_none(const char *from) {
  NitiTuning *tuning;
  NITI_TRY(niti_tuning_open(&tuning, from, backend));
  backend->tuning = tuning;
  const char *note = niti_backend_tuning(backend)->note;
  const bool blamed = strstr(note, "not JSON") != NULL; /* jansson may call the lack of memory an error of the text */
  if (!blamed && !strstr(note, "nothing for this device")) fail_msg("%s", note);
  backend->tuning = NULL;
  niti_tuning_close(tuning);
  return NITI_OK;
}

static const char *const convolutions[] = {"forward of a", "forward of b"}, *const ways[] = {"one", "two"};

static void has_both(void) {
  size_t size;
  uint8_t *bytes = get_file(path, &size);
  json_t *file = json_loadb((const char *)bytes, size, 0, NULL);
  const json_t *devices = json_object_get(file, "devices"), *chosen = json_object_get(json_array_get(devices, 0), "ways");
  if (json_array_size(devices) != 1) fail_msg("%s", (const char *)bytes);
  assert_int_equal(json_object_size(chosen), 2);
  for (int i = 0; i < 2; ++i) assert_string_equal(json_string_value(json_object_get(chosen, convolutions[i])), ways[i]);
  json_decref(file);
  free(bytes);
}

static NitiStatus write_both(const char *to) {
  long before = left;
  left = -1;
  put_text(none);
  left = before;
  NITI_TRY(niti_tuning_write(to, backend, convolutions, ways, 2));
  before = left;
  left = -1;
  has_both();
  left = before;
  return NITI_OK;
}

static void tuning_files(void **state) {
  (void)state;
  char rest[200];
  const NitiBackendOptions options = {.name = "cpu", .isa = "ref", .threads = 2};
  assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
  put_text(HEAD "}");
  noted("devices is not a list");
  put_entry("others", "");
  noted("nothing for this device");
  (void)snprintf(rest, sizeof rest, ",\"build\":\"%s\"", niti_kernels_digest);
  put_entry(NULL, rest);
  noted("ways is not an object");
  assert_int_equal(niti_tuning_write(path, backend, convolutions, ways, 2), NITI_OK); /* it becomes one */
  has_both();
  put_entry(NULL, ",\"build\":\"0\",\"ways\":{\"forward of c\":\"three\"}");
  noted("another build");
  assert_int_equal(niti_tuning_write(path, backend, convolutions, ways, 2), NITI_OK); /* which took no part in it */
  has_both();
  put_text(none);
  fail_each("reading a tuning file", read_none, path);
  fail_each("writing a tuning file", write_both, path);
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = 0;
  (void)signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  refused(niti_tuning_write(path, backend, convolutions, ways, 2), NITI_ERROR_FILE, path, strerror(EFBIG));
  limit.rlim_cur = before;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  niti_backend_close(backend);
  has_both();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(packed_files_that_cannot_be_read, make_file, remove_file),
      cmocka_unit_test_setup_teardown(packed_files_with_padding, make_file, remove_file),
      cmocka_unit_test_setup_teardown(plain_files, make_file, remove_file),
      cmocka_unit_test_setup_teardown(digests_of_files_that_cannot_be_read, make_file, remove_file),
      cmocka_unit_test_setup_teardown(tuning_files, make_file, remove_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
