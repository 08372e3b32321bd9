/* What the tests of src/io share: a folder for each test, and checks that say why they failed. */
#ifndef NITI_TESTS_IO_TEST_H
#define NITI_TESTS_IO_TEST_H

/* cmocka.h needs the four before it */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/file.h"

static char folder[256];

static inline int make_folder(void **state) {
  (void)state;
  (void)snprintf(folder, sizeof folder, "%s/niti-io-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
  return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state) {
  (void)state;
  DIR *dir = opendir(folder);
  if (!dir) return -1;
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
    if (entry->d_name[0] != '.' || strlen(entry->d_name) > 2) (void)unlinkat(dirfd(dir), entry->d_name, 0);
  (void)closedir(dir);
  return rmdir(folder);
}

/* FOLDER/name; four of them live at a time. */
static inline const char *at(const char *name) {
  static char path_buffer[4][600];
  static int turn;
  char *path = path_buffer[turn++ & 3];
  (void)snprintf(path, sizeof *path_buffer, "%s/%s", folder, name);
  return path;
}

static inline int count_files(void) {
  int count = 0;
  DIR *dir = opendir(folder);
  assert_non_null(dir);
  while (readdir(dir)) ++count;
  (void)closedir(dir);
  return count - 2;
}

static inline void put_file(const char *path, const void *data, size_t size) {
  (void)unlink(path); /* some file systems wait for the disk where a file is rewritten */
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

static inline char *get_file(const char *path, size_t *size) {
  char *text;
  if (niti_file_read(&text, size, path, 1 << 20) != NITI_OK) fail_msg("%s", niti_error());
  return text;
}

/* Where `part` lies in data, or NULL. */
static inline char *find_bytes(char *data, size_t size, const char *part) {
  const size_t length = strlen(part);
  for (size_t i = 0; i + length <= size; ++i)
    if (!memcmp(data + i, part, length)) return data + i;
  return NULL;
}

static inline void assert_file(const char *path, const char *expected) {
  char *text = get_file(path, NULL);
  assert_string_equal(text, expected);
  free(text);
}

static inline void check_ok(NitiStatus status) {
  if (status != NITI_OK) fail_msg("status %d: %s", (int)status, niti_error());
}

/* The call failed with this status and said so in one line that holds both words. */
static inline void check_fails(NitiStatus status, NitiStatus expected, const char *word, const char *other) {
  if (status != expected) fail_msg("status %d, %d expected: %s", (int)status, (int)expected, niti_error());
  if (!strstr(niti_error(), word) || !strstr(niti_error(), other) || strchr(niti_error(), '\n'))
    fail_msg("'%s' and '%s' expected on one line: %s", word, other, niti_error());
}

static inline void limit_file_size(rlim_t bytes) {
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
  limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
  (void)signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

#endif
