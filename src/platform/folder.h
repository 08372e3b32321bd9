/* Folders: their entries, and making them with those above. */
#ifndef NITI_PLATFORM_FOLDER_H
#define NITI_PLATFORM_FOLDER_H

#include "platform/status.h"

/* Takes an entry; folder: whether it is one, or a link to one. Any status but NITI_OK ends the walk. */
typedef NitiStatus (*NitiEntryTaker)(void *context, const char *name, bool folder);
/* Hands every entry of a folder but "." and ".." to `take`, in no certain order; it may remove the entry. Returns what ended the
 * walk. NITI_ERROR_FILE where the folder cannot be opened or read. */
NitiStatus niti_folder_walk(const char *path, NitiEntryTaker take, void *context);
/* Makes a folder, and those above it that are missing. New ones survive a power loss, as far as the file system allows. *kept:
 * how much of the path's length was there before; all of it where nothing is made. NITI_ERROR_ARGUMENT: the path is empty; FILE,
 * MEMORY: nothing that was made remains. */
NitiStatus niti_folder_make(size_t *kept, const char *path);
/* Removes them again, as far as they are empty. */
void niti_folder_unmake(const char *path, size_t kept);

#endif
