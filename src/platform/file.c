/* Whole-file writing through a temporary file, and whole-file reading. */
#include "platform/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct NitiFile {
  char *path, *temporary;
  int fd;
};

NitiStatus(niti_fail_errno)(const char *path, const char *what) {
  return niti_fail(NITI_ERROR_FILE, "%s: cannot %s: %s", path, what, strerror(errno));
}

static NitiStatus fail_memory(const char *path) { return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path); }

static char *append(const char *a, const char *b) {
  const size_t size = strlen(a) + strlen(b) + 1;
  char *text = malloc(size);
  if (text) (void)snprintf(text, size, "%s%s", a, b);
  return text;
}

const char *niti_file_path(const NitiFile *file) { return file->path; }

/* Opens and locks PATH.tmp. The previous holder may have renamed or removed it meanwhile: the lock is then on a file that is
 * no longer the temporary one, and truncating it would destroy the result. */
static NitiStatus open_temporary(NitiFile *file) {
  for (int attempt = 0; attempt < 16; ++attempt) {
    struct stat held, named;
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (file->fd < 0) return niti_fail_errno(file->temporary, "create the file");
    if (flock(file->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) break;
    if (fstat(file->fd, &held)) return niti_fail_errno(file->temporary, "inspect the file");
    if (!S_ISREG(held.st_mode)) return niti_fail(NITI_ERROR_FILE, "%s: is not a regular file", file->temporary);
    if (!lstat(file->temporary, &named) && named.st_dev == held.st_dev && named.st_ino == held.st_ino) {
      if (held.st_size && ftruncate(file->fd, 0)) return niti_fail_errno(file->temporary, "empty the file");
      return NITI_OK;
    }
    (void)close(file->fd);
    file->fd = -1;
  }
  return niti_fail(NITI_ERROR_FILE, "%s: another process is writing this file", file->path);
}

static void release(NitiFile *file) {
  if (file->fd >= 0) (void)close(file->fd);
  free(file->path);
  free(file->temporary);
  free(file);
}

NitiStatus niti_file_open(NitiFile **out, const char *path) {
  *out = NULL;
  NitiFile *file = calloc(1, sizeof *file);
  if (!file) return fail_memory(path);
  file->fd = -1;
  file->path = strdup(path);
  file->temporary = append(path, ".tmp");
  const NitiStatus status = file->path && file->temporary ? open_temporary(file) : fail_memory(path);
  if (status != NITI_OK) {
    release(file);
    return status;
  }
  *out = file;
  return NITI_OK;
}

NitiStatus niti_file_write(NitiFile *file, const void *data, size_t size) {
  const char *bytes = data;
  while (size) {
    const size_t part = size < (size_t)1 << 30 ? size : (size_t)1 << 30;
    const ssize_t done = write(file->fd, bytes, part);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return niti_fail_errno(file->path, "write");
    bytes += done;
    size -= (size_t)done;
  }
  return NITI_OK;
}

void niti_file_discard(NitiFile *file) {
  if (!file) return;
  (void)unlink(file->temporary);
  release(file);
}

/* Makes the folder's entries survive a power loss. File systems that do not support it return EINVAL. */
static NitiStatus sync_folder(const char *path) {
  char *folder = strdup(path);
  if (!folder) return fail_memory(path);
  char *slash = strrchr(folder, '/');
  if (slash == folder) ++slash; /* "/name": the root keeps its slash */
  if (slash) *slash = 0;
  const int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  NitiStatus status = NITI_OK;
  if (fd < 0 || (fsync(fd) && errno != EINVAL)) status = niti_fail_errno(slash ? folder : ".", "sync the folder");
  if (fd >= 0) (void)close(fd);
  free(folder);
  return status;
}

static NitiStatus move_in(const NitiFile *file) {
  return rename(file->temporary, file->path) ? niti_fail_errno(file->path, "replace the file") : NITI_OK;
}

/* Moves the temporary file into place and renames the former one, if any, to `keep`. That renaming comes last: if the former file
 * is damaged, the previous `keep` stays until the new file is in place. */
static NitiStatus move_in_keeping(const NitiFile *file, const char *keep) {
  char *former = append(keep, ".tmp");
  if (!former) return fail_memory(keep);
  NitiStatus status = NITI_OK;
  (void)unlink(former);
  const bool linked = !link(file->path, former);
  /* no hard links here: for a moment only `keep` is complete */
  if (!linked && errno != ENOENT && rename(file->path, keep)) status = niti_fail_errno(keep, "keep the former file");
  if (status == NITI_OK) status = move_in(file);
  if (status == NITI_OK && linked && rename(former, keep)) status = niti_fail_errno(keep, "keep the former file");
  if (linked) (void)unlink(former); /* after a failure, and where rename does nothing: both names are one file already */
  free(former);
  return status;
}

NitiStatus niti_file_commit(NitiFile *file, const char *keep) {
  NitiStatus status = NITI_OK;
  if (fsync(file->fd)) status = niti_fail_errno(file->path, "write to disk");
  if (status == NITI_OK) status = keep ? move_in_keeping(file, keep) : move_in(file);
  if (status != NITI_OK) {
    niti_file_discard(file);
    return status;
  }
  status = sync_folder(file->path);
  release(file);
  return status;
}

NitiStatus niti_file_replace(const char *path, const void *data, size_t size) {
  NitiFile *file;
  NITI_TRY(niti_file_open(&file, path));
  const NitiStatus status = niti_file_write(file, data, size);
  if (status == NITI_OK) return niti_file_commit(file, NULL);
  niti_file_discard(file);
  return status;
}

static NitiStatus check_regular(uint64_t *size, int fd, const char *path) {
  struct stat info;
  if (fstat(fd, &info)) return niti_fail_errno(path, "inspect the file");
  if (!S_ISREG(info.st_mode)) return niti_fail(NITI_ERROR_FILE, "%s: expected a regular file", path);
  *size = (uint64_t)info.st_size;
  return NITI_OK;
}

NitiStatus niti_file_open_read(int *fd, uint64_t *size, const char *path) {
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
  if (*fd < 0) return niti_fail_errno(path, "open");
  const NitiStatus status = check_regular(size, *fd, path);
  if (status != NITI_OK) (void)close(*fd);
  return status;
}

static NitiStatus fail_long(const char *path, size_t limit) {
  return niti_fail(NITI_ERROR_FORMAT, "%s: too long, expected at most %zu bytes", path, limit);
}

/* Reads to the end into *data of room bytes, which grows, and ends it with a zero byte. */
static NitiStatus read_to_end(char **data, size_t *size, size_t room, int fd, const char *path, size_t limit) {
  for (*size = 0; *size <= limit;) {
    if (!*data || *size + 1 == room) {
      room *= *data ? 2 : 1;
      char *grown = realloc(*data, room);
      if (!grown) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %zu bytes", path, room);
      *data = grown;
    }
    const ssize_t done = read(fd, *data + *size, room - 1 - *size);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return niti_fail_errno(path, "read");
    (*data)[*size + (size_t)done] = 0;
    if (done == 0) return NITI_OK;
    *size += (size_t)done;
  }
  return fail_long(path, limit);
}

/* Closes fd. room: bytes to begin with, at least 2. */
static NitiStatus read_whole(char **data, size_t *size, size_t room, int fd, const char *path, size_t limit) {
  size_t length = 0;
  const NitiStatus status = read_to_end(data, &length, room, fd, path, limit);
  (void)close(fd);
  if (status != NITI_OK) {
    free(*data);
    *data = NULL;
  }
  if (size) *size = length;
  return status;
}

NitiStatus niti_file_read(char **data, size_t *size, const char *path, size_t limit) {
  int fd;
  uint64_t bytes = 0;
  *data = NULL;
  NITI_TRY(niti_file_open_read(&fd, &bytes, path));
  /* room for one more byte, which shows the end, and for the zero */
  if (bytes <= limit) return read_whole(data, size, (size_t)bytes + 2, fd, path, limit);
  (void)close(fd);
  return fail_long(path, limit);
}

NitiStatus niti_file_read_any(char **data, size_t *size, const char *path, size_t limit) {
  *data = NULL;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  return fd < 0 ? niti_fail_errno(path, "open") : read_whole(data, size, 4096, fd, path, limit);
}
