/* The entries of a folder. */
#ifndef NITI_PLATFORM_FOLDER_H
#define NITI_PLATFORM_FOLDER_H

#include "platform/status.h"

/* Takes an entry; folder: whether it is one, or a link to one. Any status but NITI_OK ends the walk. */
typedef NitiStatus (*NitiEntryTaker)(void *context, const char *name, bool folder);
/* Hands every entry of a folder but "." and ".." to `take`, in no certain order; it may remove the entry. Returns what ended the
 * walk. NITI_ERROR_FILE where the folder cannot be opened or read. */
NitiStatus niti_folder_walk(const char *path, NitiEntryTaker take, void *context);

#endif
