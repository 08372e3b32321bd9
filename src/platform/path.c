/* Joins paths and asks the file system about them. */
#include "platform/path.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "platform/file.h"
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

bool niti_path_is_missing(int error) {
  return error == ENOENT || error == ENOTDIR || error == EACCES || error == ENAMETOOLONG || error == ELOOP;
}

/* *there false: info is not set. */
static NitiStatus look(bool *there, struct stat *info, const char *path) {
  *there = niti_system.stat(path, info) == 0;
  return *there || niti_path_is_missing(errno) ? NITI_OK : niti_fail_errno(path, "find out what it is");
}

NitiStatus niti_path_is_file(bool *is, const char *path) {
  struct stat info;
  NITI_TRY(look(is, &info, path));
  *is = *is && S_ISREG(info.st_mode);
  return NITI_OK;
}

NitiStatus niti_path_is_dir(bool *is, const char *path) {
  struct stat info;
  NITI_TRY(look(is, &info, path));
  *is = *is && S_ISDIR(info.st_mode);
  return NITI_OK;
}

NitiStatus niti_path_is_there(bool *is, const char *path) {
  struct stat info;
  return look(is, &info, path);
}

NitiStatus niti_path_has_file(bool *has, const char *dir, const char *name) {
  char path[PATH_MAX]; /* a longer one cannot be opened */
  *has = joined_bytes(dir, name) <= sizeof path;
  if (!*has) return NITI_OK;
  join(path, dir, name);
  return niti_path_is_file(has, path);
}

NitiStatus niti_path_is_entry(bool *is, const char *path) {
  struct stat info;
  *is = niti_system.lstat(path, &info) == 0;
  return *is || errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG ? NITI_OK
                                                                             : niti_fail_errno(path, "find out what it is");
}

NitiStatus niti_path_has_entry(bool *has, const char *dir, const char *name) {
  char path[PATH_MAX]; /* a longer one cannot be opened */
  *has = joined_bytes(dir, name) <= sizeof path;
  if (!*has) return NITI_OK;
  join(path, dir, name);
  return niti_path_is_entry(has, path);
}

NitiStatus niti_path_same(bool *same, const char *a, const char *b) {
  struct stat first, second;
  NITI_TRY(look(same, &first, a));
  if (*same) NITI_TRY(look(same, &second, b));
  *same = *same && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
  return NITI_OK;
}
