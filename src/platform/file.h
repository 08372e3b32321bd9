/* Files that are replaced whole or not at all, and files that are read whole. */
#ifndef NITI_PLATFORM_FILE_H
#define NITI_PLATFORM_FILE_H

#include "platform/status.h"

/* A file being written beside the one it will replace, as PATH.tmp. A file left by a killed process is taken over; a live
 * writer of the same path is an error. */
typedef struct NitiFile NitiFile;

NitiStatus niti_file_open(NitiFile **out, const char *path);
/* The same, but waits up to two seconds for a live writer. */
NitiStatus niti_file_open_patiently(NitiFile **out, const char *path);
/* Appends bytes. After a failure the file can only be discarded. */
NitiStatus niti_file_write(NitiFile *file, const void *data, size_t size);
/* fsync, rename onto PATH, fsync of the folder. Releases the file, whether it succeeds or not; on failure PATH is unchanged and
 * the temporary file is gone (but if only naming the former PATH or the fsync of the folder fails, PATH is new already). keep:
 * NULL, or a path in the same folder under which the former PATH, if any, is kept; at every moment PATH or keep is complete,
 * whatever of the work since the last fsync a power loss undoes, and in whatever order the disk did it. */
NitiStatus niti_file_commit(NitiFile *file, const char *keep);
/* Removes the temporary file and releases the handle. NULL is accepted. */
void niti_file_discard(NitiFile *file);
/* The path to be replaced, for messages. */
const char *niti_file_path(const NitiFile *file);

/* Makes the entry of path in its folder survive a power loss. */
NitiStatus niti_file_sync_entry(const char *path);
/* Writes all of it to an open file; path is for the message. */
NitiStatus niti_file_put(int fd, const void *data, size_t size, const char *path);

/* Replaces the file at path by these bytes. */
NitiStatus niti_file_replace(const char *path, const void *data, size_t size);

/* Opens a regular file for reading. */
NitiStatus niti_file_open_read(int *fd, uint64_t *size, const char *path);
/* Reads a regular file of at most `limit` bytes into new memory, a zero byte after the last; the caller frees *data, which is
 * NULL after a failure. size may be NULL. Fails with NITI_ERROR_FORMAT where the file is longer. */
NitiStatus niti_file_read(char **data, size_t *size, const char *path, size_t limit);
/* The same for any readable file, including pipes, which it reads until they end, or are longer than the limit: it takes no more
 * memory than that either way. */
NitiStatus niti_file_read_any(char **data, size_t *size, const char *path, size_t limit);
/* The same, where messages shall have another name than the path. */
NitiStatus niti_file_read_as(char **data, size_t *size, const char *path, const char *name, size_t limit);

/* Whether an open file, of which fstat said `held`, is the one that the path itself names (not one that it links to): the name
 * may have been removed, or given to another, since it was opened. */
struct stat;
NitiStatus niti_file_is_named(bool *is, const char *path, const struct stat *held);

/* Who is asked, several times per second, whether to go on reading; false: the read ends with NITI_INTERRUPTED. */
typedef struct NitiFileWatch {
  bool (*go_on)(void *context);
  void *context;
} NitiFileWatch;
/* From now on watches what the calling thread reads by niti_file_read_any and niti_file_read_as, waits for a pipe's other end
 * included, and checkpoints; NULL: nobody does. The watch must stay where it is until then. */
void niti_file_watch(const NitiFileWatch *watch);
/* For readers of their own: NITI_INTERRUPTED where the calling thread's watch asks to stop. */
NitiStatus niti_file_go_on(const char *path);

/* Fails with NITI_ERROR_FILE, or NITI_ERROR_MEMORY where that is the reason, and "PATH: cannot WHAT: reason", the reason being
 * errno's, with what to do where that helps. */
NitiStatus niti_fail_errno(const char *path, const char *what);
#ifdef __clang_analyzer__ /* as in platform/status.h */
#define niti_fail_errno(path, what) ((void)(niti_fail_errno)(path, what), NITI_ERROR_FILE)
#endif

#endif
