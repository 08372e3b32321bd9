/* Paths: joining them, and testing what they name. */
#ifndef NITI_PLATFORM_PATH_H
#define NITI_PLATFORM_PATH_H

#include "platform/status.h"

/* "DIR/NAME" with a single slash between them, in new memory that the caller frees; NULL after a failure. dir "": NAME. */
NitiStatus niti_path_join(char **path, const char *dir, const char *name);
/* False: there is none, or none that can be reached. A failure, for want of memory or of a working disk, says why the system
 * does not know, and is false too. */
NitiStatus niti_path_is_file(bool *is, const char *path); /* a regular file, or a link to one */
NitiStatus niti_path_is_dir(bool *is, const char *path);
NitiStatus niti_path_is_there(bool *is, const char *path); /* of any kind */
/* The same for DIR/NAME. */
NitiStatus niti_path_has_file(bool *has, const char *dir, const char *name);
/* Whether there is an entry of that name, if only a link that leads nowhere, a folder or a pipe: for what stands in for a file
 * only where there is no such entry, while an attempt to open it says what is wrong. */
NitiStatus niti_path_is_entry(bool *is, const char *path);
NitiStatus niti_path_has_entry(bool *has, const char *dir, const char *name);
/* Whether an errno of a call on a path says that there is none, or none that can be reached. */
bool niti_path_is_missing(int error);
/* Whether both are there and are one file. */
NitiStatus niti_path_same(bool *same, const char *a, const char *b);

#endif
