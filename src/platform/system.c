/* The table of the operating system's own functions. */
#include "platform/system.h"

#include <stdio.h>  /* rename */
#include <stdlib.h> /* realpath */

/* call_NAME: the function, called again where a signal interrupted it before it did anything. Not for close, which closes the
 * descriptor all the same. */
#define CALL(result, name, parameters, arguments, failure)  \
  static result call_##name parameters {                    \
    for (;;) {                                              \
      result const done = name arguments;                   \
      if (done != (failure) || errno != EINTR) return done; \
    }                                                       \
  }

CALL(int, open, (const char *path, int flags, mode_t mode), (path, flags, mode), -1)
CALL(ssize_t, read, (int fd, void *to, size_t size), (fd, to, size), -1)
CALL(ssize_t, pread, (int fd, void *to, size_t size, off_t offset), (fd, to, size, offset), -1)
CALL(ssize_t, write, (int fd, const void *from, size_t size), (fd, from, size), -1)
CALL(int, fsync, (int fd), (fd), -1)
CALL(int, fdatasync, (int fd), (fd), -1)
CALL(int, ftruncate, (int fd, off_t size), (fd, size), -1)
CALL(int, flock, (int fd, int operation), (fd, operation), -1)
CALL(int, fstat, (int fd, struct stat *out), (fd, out), -1)
CALL(int, stat, (const char *path, struct stat *out), (path, out), -1)
CALL(int, lstat, (const char *path, struct stat *out), (path, out), -1)
CALL(int, fstatat, (int fd, const char *name, struct stat *out, int flags), (fd, name, out, flags), -1)
CALL(int, access, (const char *path, int mode), (path, mode), -1)
CALL(int, link, (const char *from, const char *to), (from, to), -1)
CALL(int, rename, (const char *from, const char *to), (from, to), -1)
CALL(int, unlink, (const char *path), (path), -1)
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), -1)
CALL(int, rmdir, (const char *path), (path), -1)
CALL(char *, realpath, (const char *path, char *out), (path, out), NULL)
CALL(DIR *, opendir, (const char *path), (path), NULL)

static struct dirent *call_readdir(DIR *folder) {
  for (;;) {
    errno = 0; /* so that the caller can tell an error from the end */
    struct dirent *entry = readdir(folder);
    if (entry || errno != EINTR) return entry;
  }
}

static int call_poll(struct pollfd *files, nfds_t count, int milliseconds) {
  const int ready = poll(files, count, milliseconds);
  return ready < 0 && errno == EINTR ? 0 : ready;
}

const NitiSystem niti_system = {.open = call_open,
                                .close = close,
                                .read = call_read,
                                .pread = call_pread,
                                .write = call_write,
                                .fsync = call_fsync,
                                .fdatasync = call_fdatasync,
                                .ftruncate = call_ftruncate,
                                .flock = call_flock,
                                .fstat = call_fstat,
                                .stat = call_stat,
                                .lstat = call_lstat,
                                .fstatat = call_fstatat,
                                .access = call_access,
                                .link = call_link,
                                .rename = call_rename,
                                .unlink = call_unlink,
                                .mkdir = call_mkdir,
                                .rmdir = call_rmdir,
                                .realpath = call_realpath,
                                .opendir = call_opendir,
                                .readdir = call_readdir,
                                .closedir = closedir,
                                .mmap = mmap,
                                .munmap = munmap,
                                .poll = call_poll};
