/* Walks through a folder, and makes folders. */
#include "platform/folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/file.h"
#include "platform/path.h"
#include "platform/system.h"

/* Asks the file system only where the entry does not say. */
static NitiStatus is_folder(bool *is, DIR *dir, const char *path, const struct dirent *entry) {
  struct stat info;
  *is = entry->d_type == DT_DIR;
  if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN) return NITI_OK;
  const bool there = niti_system.fstatat(dirfd(dir), entry->d_name, &info, 0) == 0;
  *is = there && S_ISDIR(info.st_mode);
  if (there || niti_path_is_missing(errno)) return NITI_OK;
  (void)niti_fail_errno(entry->d_name, "find out what it is");
  return niti_fail_within(NITI_ERROR_FILE, "%s", path);
}

static NitiStatus walk(DIR *dir, const char *path, NitiEntryTaker take, void *context) {
  for (;;) {
    bool folder;
    errno = 0;
    const struct dirent *entry = niti_system.readdir(dir);
    if (!entry) return errno == 0 ? NITI_OK : niti_fail_errno(path, "read the folder");
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    NITI_TRY(is_folder(&folder, dir, path, entry));
    NITI_TRY(take(context, entry->d_name, folder));
  }
}

NitiStatus niti_folder_walk(const char *path, NitiEntryTaker take, void *context) {
  DIR *dir = niti_system.opendir(path);
  if (!dir) return niti_fail_errno(path, "open the folder");
  const NitiStatus status = walk(dir, path, take, context);
  niti_system.closedir(dir);
  return status;
}

/* copy: the path, in memory that may change. */
static NitiStatus make(size_t *kept, char *copy) {
  size_t above = 0;
  for (size_t n = 1;; ++n) {
    const char end = copy[n];
    if (end != '/' && end != 0) continue;
    copy[n] = 0;
    if (niti_system.mkdir(copy, 0777) == 0) {
      if (above < *kept) *kept = above;
      (void)niti_file_sync_entry(copy);
    } else if (errno != EEXIST) {
      return niti_fail_errno(copy, "make the folder");
    }
    copy[n] = end;
    above = n;
    if (end == 0) return NITI_OK;
  }
}

NitiStatus niti_folder_make(size_t *kept, const char *path) {
  *kept = strlen(path);
  if (!*path) return niti_fail(NITI_ERROR_ARGUMENT, "folder: the name is empty (expected a folder)");
  char *copy = strdup(path);
  if (!copy) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  const NitiStatus status = make(kept, copy);
  if (status != NITI_OK) niti_folder_unmake(path, *kept);
  free(copy);
  return status;
}

void niti_folder_unmake(const char *path, size_t kept) {
  char *copy = strdup(path);
  if (!copy) return;
  for (size_t n = strlen(path); n > kept; --n) {
    if (path[n] != '/' && path[n] != 0) continue;
    copy[n] = 0;
    (void)niti_system.rmdir(copy);
  }
  free(copy);
}
