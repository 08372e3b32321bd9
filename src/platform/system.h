/* The operating system's calls on files, listed once, as a table: a test that links another table can record, fail and replay
 * them. */
#ifndef NITI_PLATFORM_SYSTEM_H
#define NITI_PLATFORM_SYSTEM_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A list of calls gives each as X(result, name, parameters, arguments, failure): the POSIX function of that name, which returns
 * `failure` with its reason in errno. None but close fails with EINTR: a call that a signal interrupts is made again, save that
 * poll returns 0 then, as at the time's end. The library touches files through these calls alone, except that quota.c reads the
 * kernel's (scripts/check_system_calls.sh, which reads the names from here). */

/* Of at most `size` bytes; may do less. */
#define NITI_SYSTEM_TRANSFERS(X)                                                               \
  X(ssize_t, read, (int fd, void *to, size_t size), (fd, to, size), -1)                        \
  X(ssize_t, pread, (int fd, void *to, size_t size, off_t offset), (fd, to, size, offset), -1) \
  X(ssize_t, write, (int fd, const void *from, size_t size), (fd, from, size), -1)

/* Whatever stands before the system treats these alike. */
#define NITI_SYSTEM_PLAIN_CALLS(X)                                                                     \
  X(int, ftruncate, (int fd, off_t size), (fd, size), -1)                                              \
  X(int, flock, (int fd, int operation), (fd, operation), -1)                                          \
  X(int, fstat, (int fd, struct stat *out), (fd, out), -1)                                             \
  X(int, stat, (const char *path, struct stat *out), (path, out), -1)                                  \
  X(int, lstat, (const char *path, struct stat *out), (path, out), -1)                                 \
  X(int, fstatat, (int fd, const char *name, struct stat *out, int flags), (fd, name, out, flags), -1) \
  X(int, access, (const char *path, int mode), (path, mode), -1)                                       \
  X(int, link, (const char *from, const char *to), (from, to), -1)                                     \
  X(int, rename, (const char *from, const char *to), (from, to), -1)                                   \
  X(int, unlink, (const char *path), (path), -1)                                                       \
  X(int, mkdir, (const char *path, mode_t mode), (path, mode), -1)                                     \
  X(int, rmdir, (const char *path), (path), -1)                                                        \
  X(char *, realpath, (const char *path, char *out), (path, out), NULL)                                \
  X(void *, mmap, (void *at, size_t size, int protection, int flags, int fd, off_t offset),            \
    (at, size, protection, flags, fd, offset), MAP_FAILED)

/* All calls. */
#define NITI_SYSTEM_CALLS(X)                                                        \
  NITI_SYSTEM_TRANSFERS(X)                                                          \
  NITI_SYSTEM_PLAIN_CALLS(X)                                                        \
  X(int, open, (const char *path, int flags, mode_t mode), (path, flags, mode), -1) \
  X(int, close, (int fd), (fd), -1)                                                 \
  X(int, fsync, (int fd), (fd), -1)                                                 \
  X(int, fdatasync, (int fd), (fd), -1)                                             \
  X(DIR *, opendir, (const char *path), (path), NULL)                               \
  X(struct dirent *, readdir, (DIR * folder), (folder), NULL)                       \
  X(int, closedir, (DIR * folder), (folder), -1)                                    \
  X(int, munmap, (void *at, size_t size), (at, size), -1)                           \
  X(int, poll, (struct pollfd * files, nfds_t count, int milliseconds), (files, count, milliseconds), -1)

#define NITI_SYSTEM_MEMBER(result, name, parameters, arguments, failure) result(*name) parameters;
typedef struct NitiSystem {
  NITI_SYSTEM_CALLS(NITI_SYSTEM_MEMBER)
} NitiSystem;

/* Whoever defines it fills it by NITI_SYSTEM_CALLS, so that no member is forgotten. */
extern const NitiSystem niti_system;

#endif
