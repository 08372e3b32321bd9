/* What the fuzz targets share. A target is one function that gets bytes; libFuzzer calls it (scripts/fuzz.sh), and so does
 * replay.c for the corpus. A target aborts where the library breaks a promise; the sanitizers see the rest. */
#ifndef NITI_TESTS_FUZZ_H
#define NITI_TESTS_FUZZ_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/status.h"
#include "platform/system.h"

/* Where the files of memory.c lie. */
#define FUZZ_MEMORY "/fuzz"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room); /* libFuzzer's; replay.c has one that does nothing */

#define FUZZ_CHECK(promise)                                                                                     \
  do {                                                                                                          \
    if (!(promise)) {                                                                                           \
      (void)fprintf(stderr, "%s:%d: not so: %s; last error: %s\n", __FILE__, __LINE__, #promise, niti_error()); \
      abort();                                                                                                  \
    }                                                                                                           \
  } while (0)

/* Passes the status on, having checked that a failure left a message of one line. */
static inline NitiStatus fuzz_status(NitiStatus status) {
  if (status != NITI_OK) FUZZ_CHECK(niti_error()[0] && !strchr(niti_error(), '\n'));
  return status;
}

/* Whether a message or note is one line, with nothing that a terminal may interpret. */
static inline bool fuzz_is_line(const char *text) {
  const char *at = text;
  while ((unsigned char)*at >= ' ' && *at != 127) ++at;
  return at > text && *at == 0;
}

/* A new folder: FUZZ_MEMORY where libFuzzer drives the target; otherwise one in memory, where there is such a file system, which
 * stays until the caller removes it: $NITI_FUZZ_DIR or /dev/shm/niti-fuzz-PID. */
static inline const char *fuzz_dir(void) {
  static char path[256];
  if (path[0]) return path;
#ifdef NITI_FUZZ_MEMORY
  (void)snprintf(path, sizeof path, "%s", FUZZ_MEMORY);
#else
  const char *parent = getenv("NITI_FUZZ_DIR");
  (void)snprintf(path, sizeof path, "%s/niti-fuzz-%ld",
                 parent                     ? parent
                 : access("/dev/shm", W_OK) ? "/tmp"
                                            : "/dev/shm",
                 (long)getpid());
#endif
  (void)niti_system.mkdir(path, 0777); /* once per file that includes this */
  return path;
}

/* DIR/NAME, valid until it is called eight more times. */
static inline const char *fuzz_at(const char *name) {
  static char paths[8][512];
  static unsigned next;
  char *path = paths[next++ % 8];
  FUZZ_CHECK(strlen(name) < sizeof paths[0] - 256);
  (void)stpcpy(stpcpy(stpcpy(path, fuzz_dir()), "/"), name);
  return path;
}

static inline const char *fuzz_put(const char *name, const void *bytes, size_t size) {
  const char *path = fuzz_at(name);
  const int fd = niti_system.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  FUZZ_CHECK(fd >= 0 && niti_system.write(fd, bytes, size) == (ssize_t)size);
  (void)niti_system.close(fd);
  return path;
}

/* Removes a file, or a folder with all that is in it; true where neither is there any more. */
static inline bool fuzz_remove(const char *path) {
  for (;;) {
    char below[1024] = "";
    DIR *folder = niti_system.opendir(path);
    const struct dirent *entry = NULL;
    while (folder && (entry = niti_system.readdir(folder)) && (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")))
      ;
    if (entry) (void)snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
    if (folder) (void)niti_system.closedir(folder);
    if (!entry) break;
    FUZZ_CHECK(fuzz_remove(below));
  }
  return niti_system.unlink(path) == 0 || errno == ENOENT || niti_system.rmdir(path) == 0;
}

/* The bytes as a text; the caller frees it. */
static inline char *fuzz_text(const uint8_t *data, size_t size) {
  char *text = malloc(size + 1);
  FUZZ_CHECK(text);
  if (size) memcpy(text, data, size);
  text[size] = 0;
  return text;
}

/* Cuts a field off the front: two bytes with its length, and that many bytes, as far as they are there. */
static inline size_t fuzz_field(const uint8_t **field, const uint8_t **data, size_t *size) {
  size_t length = 0;
  if (*size >= 2) {
    length = (size_t)(*data)[0] | (size_t)(*data)[1] << 8;
    *data += 2;
    *size -= 2;
  }
  if (length > *size) length = *size;
  *field = *data;
  *data += length;
  *size -= length;
  return length;
}

/* True for one input in 64, the same ones every time: for what starts threads, which costs as much as a hundred parses. */
static inline bool fuzz_rarely(const uint8_t *data, size_t size) {
  uint32_t sum = (uint32_t)size;
  for (size_t i = 0; i < size; ++i) sum = sum * 31 + data[i];
  return (sum >> 7 & 63) == 0;
}

static inline uint32_t fuzz_word(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(*state >> 33);
}

#endif
