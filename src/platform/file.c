/* Whole-file writing through a temporary file, and whole-file reading. */
#include "platform/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "platform/system.h"

struct NitiFile {
  char *path, *temporary;
  int fd;
};

/* What to do about a failure of the system, in parentheses; "": the reason says it. */
static const char *advice(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT: return " (free space there, or choose another folder)";
    case EFBIG: return " (raise the limit on the size of files: ulimit -f)";
    case EROFS: return " (choose a folder that can be written)";
    case EACCES:
    case EPERM: return " (check the permissions)";
    case EMFILE: return " (raise the limit of open files: ulimit -n)";
    case ELOOP: return " (symbolic links are in its place: remove them)";
    case EIO: return " (check the disk or the connection to it)";
    default: return "";
  }
}

NitiStatus(niti_fail_errno)(const char *path, const char *what) {
  const int error = errno;
  const NitiStatus status = error == ENOMEM ? NITI_ERROR_MEMORY : NITI_ERROR_FILE;
  return niti_fail(status, "%s: cannot %s: %s%s", path, what, strerror(error), advice(error));
}

static NitiStatus fail_memory(const char *path) { return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path); }

static char *append(const char *a, const char *b) {
  const size_t size = strlen(a) + strlen(b) + 1;
  char *text = malloc(size);
  if (text) (void)snprintf(text, size, "%s%s", a, b);
  return text;
}

const char *niti_file_path(const NitiFile *file) { return file->path; }

NitiStatus niti_file_is_named(bool *is, const char *path, const struct stat *held) {
  struct stat named;
  const bool there = niti_system.lstat(path, &named) == 0;
  *is = there && named.st_dev == held->st_dev && named.st_ino == held->st_ino;
  return there || errno == ENOENT ? NITI_OK : niti_fail_errno(path, "inspect the file");
}

/* Opens and locks PATH.tmp. The previous holder may have renamed or removed it meanwhile: the lock is then on a file that is
 * no longer the temporary one, and truncating it would destroy the result. */
static NitiStatus open_temporary(NitiFile *file, bool *busy) {
  for (int attempt = 0; attempt < 16; ++attempt) {
    struct stat held;
    bool named;
    file->fd = niti_system.open(file->temporary, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (file->fd < 0) return niti_fail_errno(file->temporary, "create the file");
    if (niti_system.flock(file->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) break; /* with the lock of another process */
    if (niti_system.fstat(file->fd, &held)) return niti_fail_errno(file->temporary, "inspect the file");
    if (!S_ISREG(held.st_mode)) return niti_fail(NITI_ERROR_FILE, "%s: is not a regular file", file->temporary);
    NITI_TRY(niti_file_is_named(&named, file->temporary, &held));
    if (named) {
      if (held.st_size && niti_system.ftruncate(file->fd, 0)) return niti_fail_errno(file->temporary, "empty the file");
      return NITI_OK;
    }
    (void)niti_system.close(file->fd);
    file->fd = -1;
  }
  *busy = true;
  return niti_fail(NITI_ERROR_FILE, "%s: another process is writing this file", file->path);
}

static void release(NitiFile *file) {
  if (file->fd >= 0) (void)niti_system.close(file->fd);
  free(file->path);
  free(file->temporary);
  free(file);
}

static NitiStatus open_once(NitiFile **out, const char *path, bool *busy) {
  *out = NULL;
  *busy = false;
  NitiFile *file = calloc(1, sizeof *file);
  if (!file) return fail_memory(path);
  file->fd = -1;
  file->path = strdup(path);
  file->temporary = append(path, ".tmp");
  const NitiStatus status = file->path && file->temporary ? open_temporary(file, busy) : fail_memory(path);
  if (status != NITI_OK) {
    release(file);
    return status;
  }
  *out = file;
  return NITI_OK;
}

NitiStatus niti_file_open(NitiFile **out, const char *path) {
  bool busy;
  return open_once(out, path, &busy);
}

NitiStatus niti_file_open_patiently(NitiFile **out, const char *path) {
  enum { ATTEMPTS = 200 };
  static const struct timespec pause = {.tv_nsec = 10000000};
  bool busy;
  NitiStatus status = open_once(out, path, &busy);
  for (int i = 0; busy && i < ATTEMPTS; ++i) {
    (void)nanosleep(&pause, NULL);
    status = open_once(out, path, &busy);
  }
  return status;
}

NitiStatus niti_file_put(int fd, const void *data, size_t size, const char *path) {
  const char *bytes = data;
  while (size) {
    const size_t part = size < (size_t)1 << 30 ? size : (size_t)1 << 30;
    const ssize_t done = niti_system.write(fd, bytes, part);
    if (done < 0) return niti_fail_errno(path, "write");
    bytes += done;
    size -= (size_t)done;
  }
  return NITI_OK;
}

NitiStatus niti_file_write(NitiFile *file, const void *data, size_t size) {
  return niti_file_put(file->fd, data, size, file->path);
}

void niti_file_discard(NitiFile *file) {
  if (!file) return;
  (void)niti_system.unlink(file->temporary);
  release(file);
}

/* File systems that cannot sync a folder return EINVAL or EOPNOTSUPP. */
NitiStatus niti_file_sync_entry(const char *path) {
  char *folder = strdup(path);
  if (!folder) return fail_memory(path);
  char *slash = strrchr(folder, '/');
  if (slash == folder) ++slash; /* "/name": the root keeps its slash */
  if (slash) *slash = 0;
  const char *name = slash ? folder : ".";
  const int fd = niti_system.open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  NitiStatus status = NITI_OK;
  if (fd < 0 || (niti_system.fsync(fd) && errno != EINVAL && errno != EOPNOTSUPP))
    status = niti_fail_errno(name, "sync the folder");
  if (fd >= 0) (void)niti_system.close(fd);
  free(folder);
  return status;
}

/* Onto the disk before the folder names it. */
static NitiStatus sync_content(int fd, const char *path) {
  return niti_system.fsync(fd) ? niti_fail_errno(path, "write to disk") : NITI_OK;
}

static NitiStatus move_in(const NitiFile *file) {
  return niti_system.rename(file->temporary, file->path) ? niti_fail_errno(file->path, "replace the file") : NITI_OK;
}

static NitiStatus copy_content(int to, int from, const char *path) {
  enum { PART = 1 << 16 };
  char *bytes = malloc(PART);
  ssize_t got = 0;
  NitiStatus status = bytes ? NITI_OK : fail_memory(path);
  while (status == NITI_OK && (got = niti_system.read(from, bytes, PART)) > 0)
    status = niti_file_put(to, bytes, (size_t)got, path);
  if (got < 0) status = niti_fail_errno(path, "read");
  free(bytes);
  return status;
}

/* Where there are no hard links: the same by a copy. */
static NitiStatus copy_file(const char *former, const char *path) {
  int from;
  uint64_t size;
  NITI_TRY(niti_file_open_read(&from, &size, path));
  const int to = niti_system.open(former, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
  NitiStatus status = to < 0 ? niti_fail_errno(former, "create the file") : copy_content(to, from, former);
  if (status == NITI_OK) status = sync_content(to, former);
  if (to >= 0) (void)niti_system.close(to);
  (void)niti_system.close(from);
  return status;
}

/* Gives the file at path, if any, a second name. */
static NitiStatus name_former(bool *named, const char *former, const char *path) {
  (void)niti_system.unlink(former);
  *named = niti_system.link(path, former) == 0;
  if (*named || errno == ENOENT) return NITI_OK;
  if (niti_system.access(path, F_OK) != 0) return errno == ENOENT ? NITI_OK : niti_fail_errno(path, "look for the former file");
  *named = true;
  return copy_file(former, path);
}

/* Moves the temporary file into place and renames the former one, if any, to `keep`. That renaming comes last, when the new file
 * is in place for good, since the former file may be damaged and only the previous `keep` complete. */
static NitiStatus move_in_keeping(const NitiFile *file, const char *keep) {
  char *former = append(keep, ".tmp");
  bool named;
  if (!former) return fail_memory(keep);
  NitiStatus status = name_former(&named, former, file->path);
  if (status == NITI_OK) status = move_in(file);
  if (status == NITI_OK && named) {
    status = niti_file_sync_entry(file->path);
    if (status == NITI_OK && niti_system.rename(former, keep)) status = niti_fail_errno(keep, "keep the former file");
  }
  if (named)
    (void)niti_system.unlink(former); /* after a failure, and where rename does nothing: both names are one file already */
  free(former);
  return status;
}

NitiStatus niti_file_commit(NitiFile *file, const char *keep) {
  NitiStatus status = sync_content(file->fd, file->path);
  if (status == NITI_OK) status = keep ? move_in_keeping(file, keep) : move_in(file);
  if (status != NITI_OK) {
    niti_file_discard(file);
    return status;
  }
  status = niti_file_sync_entry(file->path);
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

/* The system's reason for a link that leads nowhere would be that there is no such file. */
static NitiStatus fail_open(const char *path, const char *name) {
  const int error = errno;
  struct stat link;
  if (error == ENOENT && niti_system.lstat(path, &link) == 0 && S_ISLNK(link.st_mode))
    return niti_fail(NITI_ERROR_FILE,
                     "%s: cannot open: a symbolic link to a file that is not there (restore that, or remove the link)", name);
  errno = error;
  return niti_fail_errno(name, "open");
}

static NitiStatus check_regular(uint64_t *size, int fd, const char *path) {
  struct stat info;
  if (niti_system.fstat(fd, &info)) return niti_fail_errno(path, "inspect the file");
  if (!S_ISREG(info.st_mode)) return niti_fail(NITI_ERROR_FILE, "%s: expected a regular file", path);
  *size = (uint64_t)info.st_size;
  return NITI_OK;
}

NitiStatus niti_file_open_read(int *fd, uint64_t *size, const char *path) {
  *fd = niti_system.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0); /* O_NONBLOCK: a FIFO must not hang us */
  if (*fd < 0) return fail_open(path, path);
  const NitiStatus status = check_regular(size, *fd, path);
  if (status != NITI_OK) (void)niti_system.close(*fd);
  return status;
}

static _Thread_local const NitiFileWatch *watched;

void niti_file_watch(const NitiFileWatch *watch) { watched = watch; }

NitiStatus niti_file_go_on(const char *path) {
  if (!watched || watched->go_on(watched->context)) return NITI_OK;
  return niti_fail(NITI_INTERRUPTED, "%s: interrupted while it was read", path);
}

/* Until there is something to read, or the end, of a file opened with O_NONBLOCK. */
static NitiStatus await(int fd, const char *path) {
  enum { MILLISECONDS = 50 };
  struct pollfd file = {.fd = fd, .events = POLLIN};
  for (int ready = 0; ready == 0;) {
    NITI_TRY(niti_file_go_on(path));
    ready = niti_system.poll(&file, 1, MILLISECONDS);
    if (ready < 0) return niti_fail_errno(path, "wait for");
  }
  return NITI_OK;
}

static NitiStatus fail_long(const char *path, size_t limit) {
  return niti_fail(NITI_ERROR_FORMAT, "%s: too long, expected at most %zu bytes", path, limit);
}

/* Reads to the end into *data of room bytes, which grows to limit + 2 at most, and ends it with a zero byte. */
static NitiStatus read_to_end(char **data, size_t *size, size_t room, int fd, const char *path, size_t limit) {
  for (*size = 0; *size <= limit;) {
    if (!*data || *size + 1 == room) {
      room *= *data ? 2 : 1;
      if (room > limit + 1) room = limit + 2;
      char *grown = realloc(*data, room);
      if (!grown) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %zu bytes", path, room);
      *data = grown;
    }
    if (watched) NITI_TRY(await(fd, path));
    const ssize_t done = niti_system.read(fd, *data + *size, room - 1 - *size);
    if (done < 0 && errno == EAGAIN && watched) continue; /* another reader was first */
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
  (void)niti_system.close(fd);
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
  (void)niti_system.close(fd);
  return fail_long(path, limit);
}

NitiStatus niti_file_read_as(char **data, size_t *size, const char *path, const char *name, size_t limit) {
  *data = NULL;
  const int fd = niti_system.open(path, O_RDONLY | O_CLOEXEC | (watched ? O_NONBLOCK : 0), 0);
  if (fd < 0) return fail_open(path, name);
  struct stat info;
  NitiStatus status = niti_system.fstat(fd, &info) ? niti_fail_errno(name, "inspect the file") : NITI_OK;
  if (status == NITI_OK && S_ISREG(info.st_mode) && (uint64_t)info.st_size > limit) status = fail_long(name, limit);
  if (status == NITI_OK) return read_whole(data, size, 4096, fd, name, limit);
  (void)niti_system.close(fd);
  return status;
}

NitiStatus niti_file_read_any(char **data, size_t *size, const char *path, size_t limit) {
  return niti_file_read_as(data, size, path, path, limit);
}
