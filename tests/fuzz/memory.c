/* Files in memory, behind the library's table of the system's calls: a case then makes no call of the system. It
 * takes the place of src/platform/system.c where libFuzzer drives a target; the corpus, as a test, runs on real files. A mapped
 * file is a block of its size on the heap, so that the address sanitizer sees a read beyond its end. All that is there lies below
 * FUZZ_MEMORY; it is not instrumented, and it keeps the room of a file that was removed for the next one. */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "platform/system.h"

enum { INODES = 256, ENTRIES = 256, HANDLES = 128, PATH = 512, NAME = 255, FIRST = 1 << 20, NOBODY = -1 };

/* names: entries that name it; open: handles. Free where both are 0. */
typedef struct Inode {
  uint8_t *data;
  size_t size, room;
  int names, open, locked_by;
  bool folder;
} Inode;

typedef struct Path {
  char text[PATH];
  size_t length;
  uint32_t hash;
} Path;

static Inode inodes[INODES];
static struct {
  Path path; /* length 0: unused */
  int inode;
} entries[ENTRIES];
static int entry_count; /* those behind it are unused */
static struct {
  bool used, append;
  int inode;
  size_t at;
} handles[HANDLES];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void stop(const char *why) {
  (void)fprintf(stderr, "the files in memory: %s\n", why);
  abort();
}

static int fail(int error) {
  errno = error;
  return -1;
}

/* ---- paths and entries ---- */

static void hash_path(Path *path) {
  uint64_t hash = path->length, word = 0;
  size_t i = 0;
  for (; i + sizeof word <= path->length; i += sizeof word) {
    memcpy(&word, path->text + i, sizeof word);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
  }
  word = 0;
  memcpy(&word, path->text + i, path->length - i);
  path->hash = (uint32_t)((hash ^ word) * 0x9e3779b97f4a7c15u >> 32);
}

/* Without empty parts and ".". False: with errno. */
static bool take_path(Path *path, const char *from) {
  size_t length = 0;
  while (*from) {
    const size_t part = strcspn(from, "/");
    if (part > NAME || length + part + 2 > PATH) return fail(ENAMETOOLONG) == 0;
    if (part > 1 || (part == 1 && *from != '.')) {
      path->text[length] = '/';
      memcpy(path->text + length + 1, from, part);
      length += part + 1;
    }
    from += part + (from[part] == '/');
  }
  path->text[length] = 0;
  path->length = length;
  hash_path(path);
  return length > 0 || fail(ENOENT) == 0;
}

static int find(const Path *path) {
  for (int i = 0; i < entry_count; ++i) {
    const Path *p = &entries[i].path;
    if (p->hash == path->hash && p->length == path->length && memcmp(p->text, path->text, path->length) == 0) return i;
  }
  return -1;
}

static size_t folder_length(const Path *path) { return (size_t)(strrchr(path->text, '/') - path->text); }

/* Whether the folder that is to hold the path is there. */
static bool has_folder(const Path *path) {
  Path above = *path;
  above.length = folder_length(path);
  hash_path(&above);
  const int entry = above.length ? find(&above) : -1;
  return !above.length || (entry >= 0 && inodes[entries[entry].inode].folder);
}

static int new_inode(bool folder) {
  for (int i = 0; i < INODES; ++i) {
    Inode *inode = &inodes[i];
    if (inode->names || inode->open) continue;
    inode->size = 0;
    inode->folder = folder;
    inode->locked_by = NOBODY;
    return i;
  }
  stop("too many files");
  return -1;
}

static int add_entry(const Path *path, int inode) {
  int i = 0;
  while (i < entry_count && entries[i].path.length) ++i;
  if (i == ENTRIES) stop("too many names");
  if (i == entry_count) ++entry_count;
  entries[i].path = *path;
  entries[i].inode = inode;
  ++inodes[inode].names;
  return i;
}

/* The others keep their places: a folder may be walked meanwhile. */
static void remove_entry(int entry) {
  --inodes[entries[entry].inode].names;
  entries[entry].path.length = 0;
  entries[entry].path.hash = 0;
  while (entry_count && !entries[entry_count - 1].path.length) --entry_count;
}

/* Whether entry i lies right in the folder. */
static bool is_in(int i, const char *folder, size_t length) {
  const Path *path = &entries[i].path;
  return path->length > length && folder_length(path) == length && memcmp(path->text, folder, length) == 0;
}

/* ---- calls, while the mutex is held ---- */

static int open_path(const Path *path, int flags) {
  int entry = find(path), handle = 0;
  if (entry >= 0 && (flags & O_CREAT) && (flags & O_EXCL)) return fail(EEXIST);
  if (entry < 0 && (!(flags & O_CREAT) || !has_folder(path))) return fail(ENOENT);
  if (entry < 0) entry = add_entry(path, new_inode(false));
  const int number = entries[entry].inode;
  Inode *inode = &inodes[number];
  if (inode->folder && (flags & O_ACCMODE) != O_RDONLY) return fail(EISDIR);
  if (!inode->folder && (flags & O_DIRECTORY)) return fail(ENOTDIR);
  while (handle < HANDLES && handles[handle].used) ++handle;
  if (handle == HANDLES) return fail(EMFILE);
  if (flags & O_TRUNC) inode->size = 0;
  handles[handle].used = true;
  handles[handle].append = (flags & O_APPEND) != 0;
  handles[handle].inode = number;
  handles[handle].at = 0;
  ++inode->open;
  return FIRST + handle;
}

static Inode *inode_of(int fd) {
  if (fd < FIRST || fd >= FIRST + HANDLES || !handles[fd - FIRST].used) stop("a descriptor that is not open");
  return &inodes[handles[fd - FIRST].inode];
}

static int close_handle(int fd) {
  Inode *inode = inode_of(fd);
  if (inode->locked_by == fd) inode->locked_by = NOBODY;
  --inode->open;
  handles[fd - FIRST].used = false;
  return 0;
}

static ssize_t read_at(int fd, void *to, size_t size, size_t at) {
  const Inode *inode = inode_of(fd);
  if (inode->folder) return fail(EISDIR);
  const size_t left = at < inode->size ? inode->size - at : 0;
  if (size > left) size = left;
  if (size) memcpy(to, inode->data + at, size);
  return (ssize_t)size;
}

static void resize(Inode *inode, size_t size) {
  if (size > inode->room) {
    inode->room = size < 4096 ? 4096 : 2 * size;
    inode->data = realloc(inode->data, inode->room);
    if (!inode->data) stop("out of memory");
  }
  if (size > inode->size) memset(inode->data + inode->size, 0, size - inode->size);
  inode->size = size;
}

static ssize_t write_on(int fd, const void *from, size_t size) {
  Inode *inode = inode_of(fd);
  size_t *at = &handles[fd - FIRST].at;
  if (handles[fd - FIRST].append) *at = inode->size;
  if (*at + size > inode->size) resize(inode, *at + size);
  if (size) memcpy(inode->data + *at, from, size);
  *at += size;
  return (ssize_t)size;
}

static int inspect(int number, struct stat *out) {
  const Inode *inode = &inodes[number];
  memset(out, 0, sizeof *out);
  out->st_mode = inode->folder ? S_IFDIR | 0777 : S_IFREG | 0666;
  out->st_dev = 1;
  out->st_ino = (ino_t)number + 2;
  out->st_nlink = (nlink_t)inode->names;
  out->st_size = (off_t)inode->size;
  return 0;
}

static int stat_path(const Path *path, struct stat *out) {
  const int entry = find(path);
  return entry < 0 ? fail(ENOENT) : inspect(entries[entry].inode, out);
}

static int lock(int fd, int operation) {
  Inode *inode = inode_of(fd);
  if (inode->locked_by != NOBODY && inode->locked_by != fd) return fail(EWOULDBLOCK);
  inode->locked_by = operation & LOCK_UN ? NOBODY : fd;
  return 0;
}

static int unlink_path(const Path *path, bool folder) {
  const int entry = find(path);
  if (entry < 0) return fail(ENOENT);
  if (inodes[entries[entry].inode].folder != folder) return fail(folder ? ENOTDIR : EISDIR);
  for (int i = 0; folder && i < entry_count; ++i)
    if (is_in(i, path->text, path->length)) return fail(ENOTEMPTY);
  remove_entry(entry);
  return 0;
}

static int make_folder(const Path *path) {
  if (find(path) >= 0) return fail(EEXIST);
  if (!has_folder(path)) return fail(ENOENT);
  (void)add_entry(path, new_inode(true));
  return 0;
}

static int name_file(const Path *from, const Path *to, bool move) {
  const int entry = find(from), target = find(to);
  if (entry < 0 || !has_folder(to)) return fail(ENOENT);
  const int inode = entries[entry].inode;
  if (inodes[inode].folder) return fail(EPERM);
  if (target >= 0 && !move) return fail(EEXIST);
  if (target >= 0 && entries[target].inode == inode) return 0; /* as POSIX has it */
  if (target >= 0 && inodes[entries[target].inode].folder) return fail(EISDIR);
  if (target >= 0) remove_entry(target);
  (void)add_entry(to, inode);
  if (move) remove_entry(entry);
  return 0;
}

/* A file is always ready. */
static int poll_files(struct pollfd *files, nfds_t count) {
  int ready = 0;
  for (nfds_t i = 0; i < count; ++i) {
    (void)inode_of(files[i].fd);
    files[i].revents = (short)(files[i].events & (POLLIN | POLLOUT));
    ready += files[i].revents != 0;
  }
  return ready;
}

/* ---- the table ---- */

/* Its value, with the mutex held; errno stays. */
#define LOCKED(type, value)             \
  do {                                  \
    (void)pthread_mutex_lock(&mutex);   \
    type const result_ = (value);       \
    const int error_ = errno;           \
    (void)pthread_mutex_unlock(&mutex); \
    errno = error_;                     \
    return result_;                     \
  } while (0)

static int memory_open(const char *path, int flags, mode_t mode) {
  Path p;
  (void)mode;
  LOCKED(int, take_path(&p, path) ? open_path(&p, flags) : -1);
}

static int memory_close(int fd) { LOCKED(int, close_handle(fd)); }

static ssize_t memory_pread(int fd, void *to, size_t size, off_t offset) {
  LOCKED(ssize_t, read_at(fd, to, size, (size_t)offset));
}

static ssize_t read_on(int fd, void *to, size_t size) {
  const ssize_t got = read_at(fd, to, size, handles[fd - FIRST].at);
  if (got > 0) handles[fd - FIRST].at += (size_t)got;
  return got;
}

static ssize_t memory_read(int fd, void *to, size_t size) { LOCKED(ssize_t, read_on(fd, to, size)); }
static ssize_t memory_write(int fd, const void *from, size_t size) { LOCKED(ssize_t, write_on(fd, from, size)); }
static int memory_fsync(int fd) { LOCKED(int, (inode_of(fd), 0)); }
static int memory_fdatasync(int fd) { return memory_fsync(fd); }

static int truncate_file(int fd, off_t size) {
  resize(inode_of(fd), (size_t)size);
  return 0;
}

static int memory_ftruncate(int fd, off_t size) { LOCKED(int, truncate_file(fd, size)); }
static int memory_flock(int fd, int operation) { LOCKED(int, lock(fd, operation)); }
static int memory_fstat(int fd, struct stat *out) { LOCKED(int, inspect((int)(inode_of(fd) - inodes), out)); }

static int memory_stat(const char *path, struct stat *out) {
  Path p;
  LOCKED(int, take_path(&p, path) ? stat_path(&p, out) : -1);
}

/* There are no symbolic links. */
static int memory_lstat(const char *path, struct stat *out) { return memory_stat(path, out); }

static int memory_fstatat(int fd, const char *name, struct stat *out, int flags) {
  (void)fd, (void)name, (void)out, (void)flags;
  stop("fstatat: every entry says what it is");
  return -1;
}

static int memory_access(const char *path, int mode) {
  struct stat facts;
  (void)mode;
  return memory_stat(path, &facts);
}

static int memory_link(const char *from, const char *to) {
  Path a, b;
  LOCKED(int, take_path(&a, from) && take_path(&b, to) ? name_file(&a, &b, false) : -1);
}

static int memory_rename(const char *from, const char *to) {
  Path a, b;
  LOCKED(int, take_path(&a, from) && take_path(&b, to) ? name_file(&a, &b, true) : -1);
}

static int memory_unlink(const char *path) {
  Path p;
  LOCKED(int, take_path(&p, path) ? unlink_path(&p, false) : -1);
}

static int memory_rmdir(const char *path) {
  Path p;
  LOCKED(int, take_path(&p, path) ? unlink_path(&p, true) : -1);
}

static int memory_mkdir(const char *path, mode_t mode) {
  Path p;
  (void)mode;
  LOCKED(int, take_path(&p, path) ? make_folder(&p) : -1);
}

static char *memory_realpath(const char *path, char *out) {
  struct stat facts;
  Path p;
  if (memory_stat(path, &facts) != 0 || !take_path(&p, path)) return NULL;
  return out ? strcpy(out, p.text) : strdup(p.text);
}

typedef struct Walk {
  Path folder;
  int at;
  struct dirent entry;
} Walk;

static DIR *memory_opendir(const char *path) {
  struct stat facts;
  if (memory_stat(path, &facts) != 0) return NULL;
  if (!S_ISDIR(facts.st_mode)) {
    errno = ENOTDIR;
    return NULL;
  }
  Walk *walk = calloc(1, sizeof *walk);
  if (walk) (void)take_path(&walk->folder, path);
  return (DIR *)walk;
}

static struct dirent *next_entry(Walk *walk) {
  while (walk->at < entry_count) {
    const int i = walk->at++;
    if (!is_in(i, walk->folder.text, walk->folder.length)) continue;
    strcpy(walk->entry.d_name, entries[i].path.text + walk->folder.length + 1);
    walk->entry.d_type = inodes[entries[i].inode].folder ? DT_DIR : DT_REG;
    return &walk->entry;
  }
  return NULL;
}

static struct dirent *memory_readdir(DIR *folder) {
  errno = 0;
  LOCKED(struct dirent *, next_entry((Walk *)folder));
}

static int memory_closedir(DIR *folder) {
  free(folder);
  return 0;
}

static void *memory_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  (void)at, (void)protection, (void)flags;
  void *copy = malloc(size);
  if (copy && memory_pread(fd, copy, size, offset) == (ssize_t)size) return copy;
  free(copy);
  errno = ENOMEM;
  return MAP_FAILED;
}

static int memory_munmap(void *at, size_t size) {
  (void)size;
  free(at);
  return 0;
}

static int memory_poll(struct pollfd *files, nfds_t count, int milliseconds) {
  (void)milliseconds;
  LOCKED(int, poll_files(files, count));
}

#define ENTRY(result, name, parameters, arguments, failure) .name = memory_##name,
const NitiSystem niti_system = {NITI_SYSTEM_CALLS(ENTRY)};
