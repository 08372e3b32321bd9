/* The operating system's calls on files, as one table: a test that links another table can record, fail and replay them. */
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

/* Each member is the POSIX function of its name, with its errors in errno, save that none but close fails with EINTR: a call that
 * a signal interrupts is made again. The library touches files through this table alone, except that quota.c reads the kernel's
 * (scripts/check_system_calls.sh). */
typedef struct NitiSystem {
  int (*open)(const char *path, int flags, mode_t mode);
  int (*close)(int fd);
  ssize_t (*read)(int fd, void *to, size_t size);
  ssize_t (*pread)(int fd, void *to, size_t size, off_t offset);
  ssize_t (*write)(int fd, const void *from, size_t size);
  int (*fsync)(int fd);
  int (*fdatasync)(int fd);
  int (*ftruncate)(int fd, off_t size);
  int (*flock)(int fd, int operation);
  int (*fstat)(int fd, struct stat *out);
  int (*stat)(const char *path, struct stat *out);
  int (*lstat)(const char *path, struct stat *out);
  int (*fstatat)(int fd, const char *name, struct stat *out, int flags);
  int (*access)(const char *path, int mode);
  int (*link)(const char *from, const char *to);
  int (*rename)(const char *from, const char *to);
  int (*unlink)(const char *path);
  int (*mkdir)(const char *path, mode_t mode);
  int (*rmdir)(const char *path);
  char *(*realpath)(const char *path, char *out);
  DIR *(*opendir)(const char *path);
  struct dirent *(*readdir)(DIR *folder);
  int (*closedir)(DIR *folder);
  void *(*mmap)(void *at, size_t size, int protection, int flags, int fd, off_t offset);
  int (*munmap)(void *at, size_t size);
  int (*poll)(struct pollfd *files, nfds_t count, int milliseconds); /* 0, as at the time's end, where a signal interrupts it */
} NitiSystem;

extern const NitiSystem niti_system;

#endif
