/* Locks by flock, or by exclusive creation of a file where flock is not available. */
#include "platform/lock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/environment.h"
#include "platform/file.h"
#include "platform/path.h"
#include "platform/system.h"

enum { OWNER_MAX = 512 };

struct NitiLock {
  int fd;           /* holds the flock; -1: none */
  char *owner_file; /* exists while the lock is held; NULL: not needed */
};

static NitiStatus fail_busy(const char *folder) {
  return niti_fail(NITI_ERROR_FILE, "%s: another process is training in this folder", folder);
}

/* ---- by the creation of a file ---- */

/* "HOST PROCESS\n" */
static void describe_owner(char text[OWNER_MAX]) {
  char host[256];
  niti_environment_host(host, sizeof host);
  (void)snprintf(text, OWNER_MAX, "%s %ld\n", host, (long)getpid());
}

/* Whether the file was made by a process of this host that has ended. *owner: its human-readable description. */
static bool is_left_behind(char owner[OWNER_MAX], const char *path) {
  char *text = NULL, host[256], found[256];
  long process = 0;
  (void)snprintf(owner, OWNER_MAX, "of an unknown process");
  if (niti_file_read(&text, NULL, path, OWNER_MAX) != NITI_OK) return false;
  const bool named = sscanf(text, "%255s %ld", found, &process) == 2 && process > 0;
  free(text);
  if (!named) return false;
  (void)snprintf(owner, OWNER_MAX, "process %ld on %s", process, found);
  niti_environment_host(host, sizeof host);
  return strcmp(host, found) == 0 && kill((pid_t)process, 0) != 0 && errno == ESRCH;
}

static int create_file(const char *path) { return niti_system.open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); }

static NitiStatus create_owner(const char *path, const char *folder) {
  char text[OWNER_MAX], owner[OWNER_MAX];
  int fd = create_file(path);
  if (fd < 0 && errno == EEXIST) {
    if (is_left_behind(owner, path) && niti_system.unlink(path) == 0) fd = create_file(path);
    if (fd < 0)
      return niti_fail(NITI_ERROR_FILE, "%s: another process is training in this folder (%s; remove %s if it has ended)", folder,
                       owner, path);
  }
  if (fd < 0) return niti_fail_errno(path, "create the file");
  describe_owner(text);
  const NitiStatus status = niti_file_put(fd, text, strlen(text), path);
  (void)niti_system.close(fd);
  if (status != NITI_OK) (void)niti_system.unlink(path);
  return status;
}

static NitiStatus lock_by_name(NitiLock *lock, const char *folder) {
  NITI_TRY(niti_path_join(&lock->owner_file, folder, ".lock.owner"));
  const NitiStatus status = create_owner(lock->owner_file, folder);
  if (status == NITI_OK) return NITI_OK;
  free(lock->owner_file); /* not ours to remove */
  lock->owner_file = NULL;
  return status;
}

/* ---- by flock ---- */

static bool has_no_flock(int error) { return error == ENOLCK || error == EOPNOTSUPP || error == ENOSYS || error == EINVAL; }

static NitiStatus lock_folder(NitiLock *lock, const char *folder) {
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, folder, ".lock"));
  NitiStatus status = NITI_OK;
  lock->fd = niti_system.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock->fd < 0) {
    status = niti_fail_errno(path, "create the file");
  } else if (niti_system.flock(lock->fd, LOCK_EX | LOCK_NB) != 0) {
    status = errno == EWOULDBLOCK  ? fail_busy(folder)
             : has_no_flock(errno) ? lock_by_name(lock, folder)
                                   : niti_fail_errno(path, "lock the file");
  }
  free(path);
  return status;
}

NitiStatus niti_lock_open(NitiLock **out, const char *folder) {
  *out = NULL;
  NitiLock *lock = calloc(1, sizeof *lock);
  if (!lock) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", folder);
  lock->fd = -1;
  const NitiStatus status = lock_folder(lock, folder);
  if (status != NITI_OK) {
    niti_lock_close(lock);
    return status;
  }
  *out = lock;
  return NITI_OK;
}

const char *niti_lock_owner_file(const NitiLock *lock) { return lock->owner_file; }

void niti_lock_close(NitiLock *lock) {
  if (!lock) return;
  if (lock->owner_file) (void)niti_system.unlink(lock->owner_file);
  if (lock->fd >= 0) (void)niti_system.close(lock->fd);
  free(lock->owner_file);
  free(lock);
}
