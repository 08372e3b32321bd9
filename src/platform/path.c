/* Joins paths and asks the file system about them. */
#include "platform/path.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "platform/system.h"

/* Bytes of both, with a single slash between them, and of the zero. */
static size_t joined_bytes(const char *dir, const char *name) {
  const size_t length = strlen(dir);
  return length + (length > 0 && dir[length - 1] != '/') + strlen(name) + 1;
}

static void join(char *out, const char *dir, const char *name) {
  char *end = stpcpy(out, dir);
  if (end > out && end[-1] != '/') *end++ = '/';
  (void)stpcpy(end, name);
}

NitiStatus niti_path_join(char **path, const char *dir, const char *name) {
  *path = malloc(joined_bytes(dir, name));
  if (!*path) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a path", dir);
  join(*path, dir, name);
  return NITI_OK;
}

/* What cannot be inspected may be there: opening it will say why. */
static bool is_missing(int error) {
  return error == ENOENT || error == ENOTDIR || error == EACCES || error == ENAMETOOLONG || error == ELOOP;
}

bool niti_path_is_file(const char *path) {
  struct stat info;
  return niti_system.stat(path, &info) == 0 ? S_ISREG(info.st_mode) : !is_missing(errno);
}

bool niti_path_is_dir(const char *path) {
  struct stat info;
  return niti_system.stat(path, &info) == 0 ? S_ISDIR(info.st_mode) : !is_missing(errno);
}

static bool has(const char *dir, const char *name, bool (*is)(const char *path)) {
  char path[PATH_MAX]; /* a longer one cannot be opened */
  if (joined_bytes(dir, name) > sizeof path) return false;
  join(path, dir, name);
  return is(path);
}

bool niti_path_has_file(const char *dir, const char *name) { return has(dir, name, niti_path_is_file); }
bool niti_path_has_dir(const char *dir, const char *name) { return has(dir, name, niti_path_is_dir); }

bool niti_path_same(const char *a, const char *b) {
  struct stat first, second;
  return niti_system.stat(a, &first) == 0 && niti_system.stat(b, &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}
