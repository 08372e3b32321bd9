/* Files that are replaced whole or not at all, and small reads. */
#ifndef NITI_IO_FILE_H
#define NITI_IO_FILE_H

#include "base/status.h"

/* A file being written beside the one it will replace, as PATH.tmp. A leftover of a killed process is taken over; a live
 * writer of the same path is an error. */
typedef struct NitiFile NitiFile;

NitiStatus niti_file_open(NitiFile **out, const char *path);
/* Appends bytes. After a failure the file can only be discarded. */
NitiStatus niti_file_write(NitiFile *file, const void *data, size_t size);
/* fsync, rename onto PATH, fsync of the folder. Releases the file, whether it succeeds or not; on failure PATH is as it was and
 * the temporary file is gone (but if only naming the former PATH or the fsync of the folder fails, PATH is new already). keep:
 * NULL, or a path in the same folder under which the former PATH, if any, lives on; at every moment PATH or keep is complete. */
NitiStatus niti_file_commit(NitiFile *file, const char *keep);
/* Removes the temporary file and releases the handle. NULL is accepted. */
void niti_file_discard(NitiFile *file);
/* The path to be replaced: for messages. */
const char *niti_file_path(const NitiFile *file);

/* Replaces path by this text: for environment, recipe and other small files. */
NitiStatus niti_io_write_text(const char *path, const char *text);
/* Reads a regular file of at most `limit` bytes into a new zero-terminated buffer; the caller frees *text. size may be NULL. */
NitiStatus niti_io_read_text(char **text, size_t *size, const char *path, size_t limit);
/* DIR/NAME in new memory, freed by the caller. */
NitiStatus niti_io_join(char **path, const char *dir, const char *name);

#endif
