/* The table of the operating system's own functions. */
#include "platform/system.h"

#include <stdio.h> /* rename */

static int open_file(const char *path, int flags, mode_t mode) { return open(path, flags, mode); }

const NitiSystem niti_system = {
    .open = open_file,
    .close = close,
    .read = read,
    .pread = pread,
    .write = write,
    .fsync = fsync,
    .fdatasync = fdatasync,
    .ftruncate = ftruncate,
    .flock = flock,
    .fstat = fstat,
    .stat = stat,
    .lstat = lstat,
    .fstatat = fstatat,
    .access = access,
    .link = link,
    .rename = rename,
    .unlink = unlink,
    .mkdir = mkdir,
    .rmdir = rmdir,
    .opendir = opendir,
    .readdir = readdir,
    .closedir = closedir,
    .mmap = mmap,
    .munmap = munmap,
};
