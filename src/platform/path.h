/* Paths: joining them, and testing what they name. */
#ifndef NITI_PLATFORM_PATH_H
#define NITI_PLATFORM_PATH_H

#include "platform/status.h"

/* "DIR/NAME" with a single slash between them, in new memory that the caller frees; NULL after a failure. dir "": NAME. */
NitiStatus niti_path_join(char **path, const char *dir, const char *name);
/* These are also true where the system fails to say, for want of memory or of a working disk: whatever uses the path reports
 * that. */
bool niti_path_is_file(const char *path); /* a regular file, or a link to one */
bool niti_path_is_dir(const char *path);
/* The same for DIR/NAME. */
bool niti_path_has_file(const char *dir, const char *name);
bool niti_path_has_dir(const char *dir, const char *name);
/* Whether both are there and are one file. */
bool niti_path_same(const char *a, const char *b);

#endif
