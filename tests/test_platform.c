/* Paths, whole-file reading, clocks and the environment. The files that are replaced whole are in test_io.c. */
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

#include "io_test.h"
#include "platform/clock.h"
#include "platform/environment.h"
#include "platform/folder.h"
#include "platform/path.h"
#include "platform/text.h"

static void check_join(const char *dir, const char *name, const char *expected) {
  char *path = NULL;
  check_ok(niti_path_join(&path, dir, name));
  assert_string_equal(path, expected);
  free(path);
}

static void test_join(void **state) {
  (void)state;
  check_join("runs", "a", "runs/a");
  check_join("runs/", "a", "runs/a");
  check_join("/", "a", "/a");
  check_join("", "a", "a");
  check_join("runs", "", "runs/");
}

static bool is_file(const char *path) {
  bool is;
  check_ok(niti_path_is_file(&is, path));
  return is;
}

static bool is_dir(const char *path) {
  bool is;
  check_ok(niti_path_is_dir(&is, path));
  return is;
}

static bool has_file(const char *name) {
  bool has;
  check_ok(niti_path_has_file(&has, folder, name));
  return has;
}

static void test_kinds(void **state) {
  (void)state;
  put_file(at("f"), "x", 1);
  assert_int_equal(symlink("f", at("link")), 0);
  assert_int_equal(mkfifo(at("fifo"), 0600), 0);
  assert_true(is_file(at("f")) && has_file("f") && has_file("link"));
  assert_true(is_dir(folder));
  assert_false(has_file("fifo") || has_file(".") || has_file("none"));
  assert_false(is_dir(at("f")) || is_dir(at("none")));
}

/* What a walk has seen: "name" or "name/" of each entry, and where it is to end. */
typedef struct Seen {
  char names[8][16];
  int count;
  const char *last;
} Seen;

static NitiStatus see(void *context, const char *name, bool is_folder) {
  Seen *seen = context;
  (void)snprintf(seen->names[seen->count++], sizeof seen->names[0], "%s%s", name, is_folder ? "/" : "");
  return seen->last && strcmp(name, seen->last) == 0 ? niti_fail(NITI_ERROR_FORMAT, "enough") : NITI_OK;
}

static NitiStatus remove_file(void *context, const char *name, bool is_folder) {
  ++*(int *)context;
  return is_folder || unlink(at(name)) == 0 ? NITI_OK : NITI_ERROR_FILE;
}

static int compare_names(const void *a, const void *b) { return strcmp(a, b); }

static void test_walk(void **state) {
  static const char *const expected[] = {".hidden", "dangling", "f", "inner/", "to-f", "to-inner/"};
  Seen seen = {.count = 0};
  int removed = 0;
  (void)state;
  put_file(at("f"), "x", 1);
  put_file(at(".hidden"), "x", 1);
  assert_int_equal(
      mkdir(at("inner"), 0700) | symlink("f", at("to-f")) | symlink("inner", at("to-inner")) | symlink("none", at("dangling")),
      0);
  check_ok(niti_folder_walk(folder, see, &seen));
  assert_int_equal(seen.count, 6);
  qsort(seen.names, 6, sizeof seen.names[0], compare_names);
  for (int i = 0; i < 6; ++i) assert_string_equal(seen.names[i], expected[i]);
  seen = (Seen){.last = "f"};
  check_fails(niti_folder_walk(folder, see, &seen), NITI_ERROR_FORMAT, "enough", "");
  assert_true(seen.count >= 1 && strcmp(seen.names[seen.count - 1], "f") == 0);
  check_fails(niti_folder_walk(at("none"), see, &seen), NITI_ERROR_FILE, at("none"), strerror(ENOENT));
  check_fails(niti_folder_walk(at("f"), see, &seen), NITI_ERROR_FILE, at("f"), strerror(ENOTDIR));
  assert_int_equal(unlink(at("to-inner")), 0);
  check_ok(niti_folder_walk(folder, remove_file, &removed));
  assert_int_equal(removed, 5);
  assert_int_equal(rmdir(at("inner")), 0);
  assert_int_equal(rmdir(folder) | mkdir(folder, 0700), 0); /* nothing was left */
}

static void test_making_folders(void **state) {
  size_t kept;
  (void)state;
  check_ok(niti_folder_make(&kept, at("one/two//three/")));
  assert_int_equal(kept, strlen(folder));
  assert_true(is_dir(at("one/two/three")));
  check_ok(niti_folder_make(&kept, at("one/two")));
  assert_int_equal(kept, strlen(at("one/two")));
  niti_folder_unmake(at("one/two"), kept);
  assert_true(is_dir(at("one/two/three"))); /* of which nothing was made */
  put_file(at("one/f"), "x", 1);
  niti_folder_unmake(at("one/two//three/"), strlen(folder));
  assert_false(is_dir(at("one/two")));
  assert_true(is_file(at("one/f")));
  check_fails(niti_folder_make(&kept, at("one/f/g")), NITI_ERROR_FILE, at("one/f/g"), strerror(ENOTDIR));
  assert_int_equal(unlink(at("one/f")) | rmdir(at("one")), 0);
  check_fails(niti_folder_make(&kept, ""), NITI_ERROR_ARGUMENT, "folder: the name is empty", "(expected a folder)");
}

static void check_escaped(const char *name, const char *expected) {
  char *text = niti_text_escaped(name);
  assert_non_null(text);
  assert_string_equal(text, expected);
  assert_true(niti_text_is_utf8(text));
  niti_text_unescape(text);
  assert_string_equal(text, name);
  free(text);
}

static void test_escape(void **state) {
  (void)state;
  check_escaped("", "");
  check_escaped("plain/name.png", "plain/name.png");
  check_escaped("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"); /* e acute, euro, a face */
  check_escaped("caf\xe9", "caf\\xE9");                                                              /* Latin-1 */
  check_escaped("a\nb\t\x1b[1m\x7f", "a\\x0Ab\\x09\\x1B[1m\\x7F");
  check_escaped("\xc2\x9b", "\\xC2\\x9B");                              /* a control character of two bytes */
  check_escaped("\xc0\xaf \xe0\x80\x80", "\\xC0\\xAF \\xE0\\x80\\x80"); /* too long for what they say */
  check_escaped("\xed\xa0\x80", "\\xED\\xA0\\x80");                     /* half of a UTF-16 pair */
  check_escaped("\xf4\x90\x80\x80", "\\xF4\\x90\\x80\\x80");            /* beyond U+10FFFF */
  check_escaped("\xe2\x82", "\\xE2\\x82");                              /* cut off */
  check_escaped("C:\\dir\\name", "C:\\dir\\name");
  check_escaped("\\x41 \\\\x41 \\x", "\\x5Cx41 \\\\x5Cx41 \\x5Cx"); /* looks escaped, and is not */
}

/* Text that is shown, but not a name that is kept, has no characters that put a line in another order. */
static void test_escape_of_directions(void **state) {
  static const char name[] = "a\xe2\x80\xaegnp.b\xd8\x9c\xe2\x81\xa9";
  char text[64];
  (void)state;
  check_escaped(name, name);
  (void)niti_text_escape(text, sizeof text, name, false);
  assert_string_equal(text, "a\\xE2\\x80\\xAEgnp.b\\xD8\\x9C\\xE2\\x81\\xA9");
  (void)niti_text_escape(text, sizeof text, "\xe2\x80\xa6 \xd8\xa7 \xe2\x81\xa5",
                         false); /* an ellipsis, a letter, their neighbour */
  assert_string_equal(text, "\xe2\x80\xa6 \xd8\xa7 \xe2\x81\xa5");
  for (unsigned code = 0x80; code < 0x10000; ++code) { /* U+D800 to U+DFFF are no characters, so they are escaped always */
    const char shorter[] = {(char)(0xc0 | code >> 6), (char)(0x80 | (code & 0x3f)), 0};
    const char longer[] = {(char)(0xe0 | code >> 12), (char)(0x80 | (code >> 6 & 0x3f)), (char)(0x80 | (code & 0x3f)), 0};
    const char *one = code < 0x800 ? shorter : longer;
    const bool direction = code == 0x61c || code == 0x200e || code == 0x200f || (code >= 0x2028 && code <= 0x202e) ||
                           (code >= 0x2066 && code <= 0x2069);
    (void)niti_text_escape(text, sizeof text, one, false);
    if ((strcmp(text, one) != 0) != (direction || code < 0xa0 || (code >= 0xd800 && code < 0xe000)))
      fail_msg("U+%04X: %s", code, text);
  }
}

static void test_escape_in_little_room(void **state) {
  char text[8];
  (void)state;
  for (size_t size = 1; size <= sizeof text; ++size) {
    memset(text, '#', sizeof text);
    assert_int_equal(niti_text_escape(text, size, "a\xff\xe2\x82\xac", false), 8);
    assert_string_equal(text, size < 2 ? "" : size < 6 ? "a" : "a\\xFF");
  }
  assert_int_equal(niti_text_escape(text, sizeof text, "\\x41", false), 4);
  assert_string_equal(text, "\\x41");
}

static void check_read(const char *path, size_t limit, const char *expected, size_t length) {
  char *data = NULL;
  size_t size = 0;
  check_ok(niti_file_read(&data, &size, path, limit));
  assert_int_equal(size, length);
  assert_memory_equal(data, expected, length + 1);
  free(data);
}

/* The most bytes that one read asked for, for which there is memory. */
static size_t most_asked;

ssize_t read(int fd, void *to, size_t size) {
  if (size > most_asked) most_asked = size;
  return syscall(SYS_read, fd, to, size);
}

static void test_read_endless(void **state) {
  enum { LIMIT = (1 << 20) + 100 };
  (void)state;
  char *data = NULL;
  most_asked = 0;
  check_fails(niti_file_read_any(&data, NULL, "/dev/zero", LIMIT), NITI_ERROR_FORMAT, "/dev/zero", "at most 1048676 bytes");
  assert_null(data);
  assert_in_range(most_asked, 1,
                  1 << 19); /* the last time for little more than the limit's rest: memory never doubles beyond it */
  check_fails(niti_file_read_as(&data, NULL, "/dev/zero", "a name", LIMIT), NITI_ERROR_FORMAT, "a name: ", "at most");
  check_fails(niti_file_read_as(&data, NULL, at("none"), "a name", LIMIT), NITI_ERROR_FILE, "a name: ", "cannot open");
}

static void test_read(void **state) {
  (void)state;
  char *data = (char *)folder;
  put_file(at("empty"), "", 0);
  put_file(at("zero"), "a\0b", 3);
  check_read(at("empty"), 0, "", 0);
  check_read(at("zero"), 3, "a\0b", 3);
  check_fails(niti_file_read(&data, NULL, at("zero"), 2), NITI_ERROR_FORMAT, at("zero"), "at most 2 bytes");
  assert_null(data);
  check_fails(niti_file_read_any(&data, NULL, at("zero"), 2), NITI_ERROR_FORMAT, at("zero"), "at most 2 bytes");
  assert_int_equal(truncate(at("zero"), (off_t)1 << 40), 0); /* the limit is compared before anything is read */
  most_asked = 0;
  check_fails(niti_file_read_any(&data, NULL, at("zero"), 1 << 20), NITI_ERROR_FORMAT, at("zero"), "at most 1048576 bytes");
  assert_int_equal(most_asked, 0);
  assert_int_equal(symlink("nowhere", at("dangling")), 0);
  check_fails(niti_file_read(&data, NULL, at("dangling"), 2), NITI_ERROR_FILE, at("dangling"),
              "a symbolic link to a file that is not");
  check_fails(niti_file_read_any(&data, NULL, at("dangling"), 2), NITI_ERROR_FILE, at("dangling"), "a symbolic link to a file");
  check_fails(niti_file_read_any(&data, NULL, folder, 2), NITI_ERROR_FILE, folder, strerror(EISDIR));
}

enum { PIPED = 100000 }; /* more than a pipe holds */

static void *write_pipe(void *context) {
  FILE *file = fopen(context, "w");
  for (int i = 0; file && i < PIPED; ++i) fputc('a' + i % 26, file);
  if (file) fclose(file);
  return NULL;
}

static void test_read_pipe(void **state) {
  (void)state;
  char path[300], *data = NULL;
  size_t size = 0;
  pthread_t writer;
  (void)snprintf(path, sizeof path, "%s", at("fifo"));
  assert_int_equal(mkfifo(path, 0600), 0);
  check_fails(niti_file_read(&data, NULL, path, PIPED), NITI_ERROR_FILE, path, "regular");
  assert_int_equal(pthread_create(&writer, NULL, write_pipe, path), 0);
  check_ok(niti_file_read_any(&data, &size, path, PIPED));
  pthread_join(writer, NULL);
  assert_int_equal(size, PIPED);
  for (int i = 0; i < PIPED; ++i) assert_int_equal(data[i], 'a' + i % 26);
  assert_int_equal(data[PIPED], 0);
  free(data);
}

static void test_clocks(void **state) {
  (void)state;
  const int64_t start = niti_clock_now();
  assert_true(niti_clock_now() >= start);
  assert_true(llabs(niti_clock_wall() / 1000000000 - (int64_t)time(NULL)) <= 2);
}

__attribute__((format(printf, 2, 3))) static void format_into(char text[16], const char *format, ...) {
  va_list args;
  va_start(args, format);
  niti_text_format(text, 16, format, args);
  va_end(args);
}

/* Also cut short, within an escape and within a character. */
static void test_format(void **state) {
  char text[16];
  (void)state;
  format_into(text, "%d %s", 7, "a\xe9\n");
  assert_string_equal(text, "7 a\\xE9\\x0A");
  format_into(text, "%s\xe9", "0123456789abc");
  assert_string_equal(text, "0123456789abc");
  format_into(text, "%s", "0123456789abcd\xc3\xa9");
  assert_string_equal(text, "0123456789abcd");
}

static void test_environment(void **state) {
  (void)state;
  char host[4] = "xxx";
  setenv("NITI_TEST", "value", 1);
  assert_string_equal(niti_environment_get("NITI_TEST"), "value");
  setenv("NITI_TEST", "", 1);
  assert_null(niti_environment_get("NITI_TEST"));
  unsetenv("NITI_TEST");
  assert_null(niti_environment_get("NITI_TEST"));
  niti_environment_host(host, sizeof host);
  assert_true(strlen(host) > 0 && strlen(host) < sizeof host);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_join),
                                     TEST(test_escape),
                                     TEST(test_escape_of_directions),
                                     TEST(test_escape_in_little_room),
                                     TEST(test_kinds),
                                     TEST(test_read),
                                     TEST(test_read_endless),
                                     TEST(test_read_pipe),
                                     TEST(test_clocks),
                                     TEST(test_environment),
                                     TEST(test_walk),
                                     TEST(test_making_folders),
                                     TEST(test_format)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
