/* Locks by flock, or by the name of an entry of a folder where flock is not available. */
#include "platform/lock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/environment.h"
#include "platform/file.h"
#include "platform/folder.h"
#include "platform/path.h"
#include "platform/system.h"

enum { HOST_MAX = 180, OWNER_NAME = 240 /* "PROCESS-START-HOST" */, OWNER_TEXT = 256 };

struct NitiLock {
  char *folder, *path;              /* the folder, and .lock in it */
  int fd;                           /* holds the flock; -1: none */
  int folder_fd;                    /* so that no other folder gets its number; -1: none */
  char *owner_folder, *owner_entry; /* the folder .lock.owner and the entry of this process in it; NULL: not needed */
  bool owned;                       /* that is there */
};

static NitiStatus fail_busy(const char *folder) {
  return niti_fail(NITI_ERROR_FILE, "%s: another process is training in this folder", folder);
}

/* The lock would be elsewhere, and so what is made for it. */
static NitiStatus fail_link(const char *path) {
  return niti_fail(NITI_ERROR_FILE,
                   "%s: a symbolic link, which may lead elsewhere (expected what niti made, or nothing: remove it)", path);
}

/* ---- by the name of an entry ---- */

/* The folder .lock.owner is there while the lock is held, and has one entry, whose name is its owner's. Of several processes one
 * gets it, by what the system does atomically:
 * - The folder comes into being with its entry, by a rename that succeeds only where there was none, or an empty one.
 * - From then on the entry only changes its name, from that of an owner that has ended to that of who takes its place. An owner's
 *   name, with the time when it started, is never another's, and what has ended stays so. So all who found it ended, however long
 *   ago, ask for a rename of the same name, which is there for the first of them alone; and nobody renames a live one's.
 * - The owner removes its entry, and the folder if that is still empty: another may have put its own in its place. */

/* What identifies a process. */
typedef struct Owner {
  long process;
  unsigned long long start; /* since the machine's start; 0: not known */
  char host[HOST_MAX];
} Owner;

static void spell(char name[OWNER_NAME], const Owner *owner) {
  (void)snprintf(name, OWNER_NAME, "%ld-%llu-%s", owner->process, owner->start, owner->host);
}

static bool parse(Owner *owner, const char *name) {
  return sscanf(name, "%ld-%llu-%179[^/]", &owner->process, &owner->start, owner->host) == 3 && owner->process > 0;
}

/* When the process of a /proc/PROCESS/stat started, its 22nd field; 0: not known. *process: its first. The second, in
 * parentheses, may hold anything. */
static unsigned long long read_start(long *process, const char *path) {
  enum { FIRST = 3, START = 22, BYTES_MAX = 4096 };
  char *text = NULL;
  *process = 0;
  if (niti_file_read_any(&text, NULL, path, BYTES_MAX) != NITI_OK) return 0;
  *process = strtol(text, NULL, 10);
  const char *at = strrchr(text, ')');
  for (int field = FIRST; at && field <= START; ++field) at = strchr(at + 1, ' ');
  const unsigned long long start = at ? strtoull(at, NULL, 10) : 0;
  free(text);
  return start;
}

/* *listed: whether /proc has this process under its number, and so others under theirs: in a new namespace it may be of another.
 */
static Owner describe_self(bool *listed) {
  Owner self = {.process = (long)getpid()};
  long process;
  self.start = read_start(&process, "/proc/self/stat");
  *listed = process == self.process;
  niti_environment_host(self.host, sizeof self.host);
  for (char *c = self.host; *c; ++c) *c = *c == '/' ? '_' : *c;
  return self;
}

/* Whether it was a process of this host that has ended; its number may be another's by now, even this one's. */
static bool has_ended(const Owner *owner) {
  char path[48];
  long process;
  bool listed;
  const Owner self = describe_self(&listed);
  if (strcmp(owner->host, self.host) != 0) return false;
  if (owner->process == self.process) return self.start != 0 && owner->start != self.start;
  if (kill((pid_t)owner->process, 0) != 0 && errno == ESRCH) return true;
  if (!listed || owner->start == 0) return false;
  (void)snprintf(path, sizeof path, "/proc/%ld/stat", owner->process);
  const unsigned long long start = read_start(&process, path);
  return start != 0 && start != owner->start;
}

static NitiStatus take_name(void *context, const char *name, bool folder) {
  (void)folder;
  (void)snprintf(context, OWNER_NAME, "%s", name);
  return NITI_OK;
}

static void remove_owned(const char *folder, const char *entry) {
  (void)niti_system.unlink(entry);
  (void)niti_system.rmdir(folder);
}

static NitiStatus make_entry(const char *folder, const char *entry) {
  if (niti_system.mkdir(folder, 0777) != 0) return niti_fail_errno(folder, "make the folder");
  const int fd = niti_system.open(entry, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd >= 0) {
    (void)niti_system.close(fd);
    return NITI_OK;
  }
  const NitiStatus status = niti_fail_errno(entry, "create the file");
  (void)niti_system.rmdir(folder);
  return status;
}

static bool find_entry(char name[OWNER_NAME], const char *path) {
  name[0] = 0;
  return niti_folder_walk(path, take_name, name) == NITI_OK && name[0];
}

/* Puts it in the place of no folder or of an empty one. *there: the entry of the folder that is there instead; "": none. */
static NitiStatus put_folder(bool *put, char there[OWNER_NAME], const char *own, const char *path) {
  for (int tries = 0; tries < 2; ++tries) {
    struct stat facts;
    *put = niti_system.rename(own, path) == 0;
    if (*put) return NITI_OK;
    if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR) return niti_fail_errno(path, "make the folder");
    if (niti_system.lstat(path, &facts) == 0 && S_ISLNK(facts.st_mode)) return fail_link(path);
    if (find_entry(there, path)) return NITI_OK;
    (void)niti_system.rmdir(path); /* some systems replace no empty folder either */
  }
  return NITI_OK;
}

static NitiStatus fail_owned(const char *folder, const char *owner_folder, const Owner *owner) {
  char text[OWNER_TEXT] = "of an unknown process";
  if (owner) (void)snprintf(text, sizeof text, "process %ld on %s", owner->process, owner->host);
  return niti_fail(NITI_ERROR_FILE, "%s: another process is training in this folder (%s; remove %s if it has ended)", folder,
                   text, owner_folder);
}

static NitiStatus take_over(const NitiLock *lock, const char *folder, const char *there) {
  char *from = NULL;
  Owner owner;
  const bool known = parse(&owner, there);
  if (known && has_ended(&owner)) {
    NITI_TRY(niti_path_join(&from, lock->owner_folder, there));
    const bool taken = niti_system.rename(from, lock->owner_entry) == 0;
    free(from);
    if (taken) return NITI_OK;
  }
  return fail_owned(folder, lock->owner_folder, known ? &owner : NULL);
}

/* own: the path of a new folder; entry: that of this process in it. */
static NitiStatus become_owner(const NitiLock *lock, const char *folder, const char *own, const char *entry) {
  char there[OWNER_NAME];
  bool put = false;
  NITI_TRY(make_entry(own, entry));
  const NitiStatus status = put_folder(&put, there, own, lock->owner_folder);
  if (put) return NITI_OK;
  remove_owned(own, entry);
  return status == NITI_OK ? take_over(lock, folder, there) : status;
}

/* The new folder is beside the lock's, with the process in its name too. */
static NitiStatus lock_by_name(NitiLock *lock, const char *folder) {
  char name[OWNER_NAME], own_name[OWNER_NAME + 16], *own = NULL, *entry = NULL;
  bool listed;
  const Owner self = describe_self(&listed);
  spell(name, &self);
  (void)snprintf(own_name, sizeof own_name, ".lock.owner-%s", name);
  NITI_TRY(niti_path_join(&lock->owner_folder, folder, ".lock.owner"));
  NITI_TRY(niti_path_join(&lock->owner_entry, lock->owner_folder, name));
  NITI_TRY(niti_path_join(&own, folder, own_name));
  NitiStatus status = niti_path_join(&entry, own, name);
  if (status == NITI_OK) status = become_owner(lock, folder, own, entry);
  lock->owned = status == NITI_OK;
  free(entry);
  free(own);
  return status;
}

/* ---- by flock ---- */

static bool has_no_flock(int error) { return error == ENOLCK || error == EOPNOTSUPP || error == ENOSYS || error == EINVAL; }

/* A holder that gives its folder up removes the file: a lock on that one keeps nobody out. */
static NitiStatus check_named(int fd, const char *path, const char *folder) {
  struct stat held;
  bool named;
  if (niti_system.fstat(fd, &held) != 0) return niti_fail_errno(path, "inspect the file");
  NITI_TRY(niti_file_is_named(&named, path, &held));
  return named ? NITI_OK : fail_busy(folder);
}

static NitiStatus lock_file(NitiLock *lock) {
  lock->fd = niti_system.open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (lock->fd < 0) return errno == ELOOP ? fail_link(lock->path) : niti_fail_errno(lock->path, "create the file");
  if (niti_system.flock(lock->fd, LOCK_EX | LOCK_NB) == 0) return check_named(lock->fd, lock->path, lock->folder);
  return errno == EWOULDBLOCK  ? fail_busy(lock->folder)
         : has_no_flock(errno) ? lock_by_name(lock, lock->folder)
                               : niti_fail_errno(lock->path, "lock the file");
}

static NitiStatus lock_folder(NitiLock *lock, const char *folder) {
  lock->folder = strdup(folder);
  if (!lock->folder) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", folder);
  NITI_TRY(niti_path_join(&lock->path, folder, ".lock"));
  lock->folder_fd = niti_system.open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  return lock->folder_fd < 0 ? niti_fail_errno(folder, "open the folder") : lock_file(lock);
}

/* ---- from without ---- */

static NitiStatus probe_owner(const char *folder) {
  char *path = NULL, there[OWNER_NAME];
  Owner owner;
  NITI_TRY(niti_path_join(&path, folder, ".lock.owner"));
  const bool found = find_entry(there, path), known = found && parse(&owner, there);
  const bool held = found && !(known && has_ended(&owner));
  const NitiStatus status = held ? fail_owned(folder, path, known ? &owner : NULL) : NITI_OK;
  free(path);
  return status;
}

/* A shared lock fails while another process has the exclusive one. */
NitiStatus niti_lock_probe(const char *folder) {
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, folder, ".lock"));
  const int fd = niti_system.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
  free(path);
  if (fd < 0) return NITI_OK;
  const int error = niti_system.flock(fd, LOCK_SH | LOCK_NB) == 0 ? 0 : errno;
  (void)niti_system.close(fd);
  return error == EWOULDBLOCK ? fail_busy(folder) : has_no_flock(error) ? probe_owner(folder) : NITI_OK;
}

/* ---- while it is held ---- */

static bool is_one(const struct stat *a, const struct stat *b) { return a->st_dev == b->st_dev && a->st_ino == b->st_ino; }

/* held: the folder that was locked; there: whether any is at its path now. */
static NitiStatus fail_folder(const char *folder, const struct stat *held, bool there) {
  const char *other = there ? " (another one is in its place, which is left alone)" : "";
  if (held->st_nlink == 0)
    return niti_fail(NITI_ERROR_FILE, "%s: the run's folder was removed while it was in use%s", folder, other);
  return niti_fail(NITI_ERROR_FILE,
                   "%s: the run's folder was moved while it was in use%s; the checkpoints saved before are where it is now",
                   folder, other);
}

NitiStatus niti_lock_check(const NitiLock *lock) {
  struct stat held, named;
  if (niti_system.fstat(lock->folder_fd, &held) != 0) return niti_fail_errno(lock->folder, "inspect the folder");
  bool there = niti_system.stat(lock->folder, &named) == 0;
  if (!there && errno != ENOENT && errno != ENOTDIR) return niti_fail_errno(lock->folder, "inspect the folder");
  if (!there || !is_one(&named, &held)) return fail_folder(lock->folder, &held, there);
  if (niti_system.fstat(lock->fd, &held) != 0) return niti_fail_errno(lock->path, "inspect the file");
  there = niti_system.lstat(lock->path, &named) == 0;
  if (!there && errno != ENOENT) return niti_fail_errno(lock->path, "inspect the file");
  const char *lost = there && is_one(&named, &held) ? NULL : lock->path;
  if (!lost && lock->owned && niti_system.lstat(lock->owner_entry, &named) != 0) {
    if (errno != ENOENT && errno != ENOTDIR) return niti_fail_errno(lock->owner_entry, "inspect the file");
    lost = lock->owner_entry;
  }
  if (!lost) return NITI_OK;
  return niti_fail(NITI_ERROR_FILE, "%s: was removed or replaced while the run went on, so another process may be training there",
                   lost);
}

NitiStatus niti_lock_open(NitiLock **out, const char *folder) {
  *out = NULL;
  NitiLock *lock = calloc(1, sizeof *lock);
  if (!lock) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", folder);
  lock->fd = lock->folder_fd = -1;
  const NitiStatus status = lock_folder(lock, folder);
  if (status != NITI_OK) {
    niti_lock_close(lock);
    return status;
  }
  *out = lock;
  return NITI_OK;
}

const char *niti_lock_owner_file(const NitiLock *lock) { return lock->owner_folder; }

void niti_lock_close(NitiLock *lock) {
  if (!lock) return;
  if (lock->owned) remove_owned(lock->owner_folder, lock->owner_entry);
  if (lock->fd >= 0) (void)niti_system.close(lock->fd);
  if (lock->folder_fd >= 0) (void)niti_system.close(lock->folder_fd);
  free(lock->owner_entry);
  free(lock->owner_folder);
  free(lock->path);
  free(lock->folder);
  free(lock);
}
