/* Walks through a folder. */
#include "platform/folder.h"

#include <errno.h>
#include <string.h>

#include "platform/file.h"
#include "platform/system.h"

/* Asks the file system only where the entry does not say. */
static bool is_folder(DIR *dir, const struct dirent *entry) {
  struct stat info;
  if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN) return entry->d_type == DT_DIR;
  return niti_system.fstatat(dirfd(dir), entry->d_name, &info, 0) == 0 && S_ISDIR(info.st_mode);
}

static NitiStatus walk(DIR *dir, const char *path, NitiEntryTaker take, void *context) {
  for (;;) {
    errno = 0;
    const struct dirent *entry = niti_system.readdir(dir);
    if (!entry) return errno == 0 ? NITI_OK : niti_fail_errno(path, "read the folder");
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    NITI_TRY(take(context, entry->d_name, is_folder(dir, entry)));
  }
}

NitiStatus niti_folder_walk(const char *path, NitiEntryTaker take, void *context) {
  DIR *dir = niti_system.opendir(path);
  if (!dir) return niti_fail_errno(path, "open the folder");
  const NitiStatus status = walk(dir, path, take, context);
  niti_system.closedir(dir);
  return status;
}
