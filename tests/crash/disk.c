/* The disk in memory. It defines niti_system in place of src/platform/system.c. */
#include "disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/system.h"
#include "splitmix.h"

enum { INODES = 160, BYTES = 16384, ENTRIES = 64, PATH = 96, OPERATIONS = 8192, HANDLES = 16, FIRST = 100, ROOT_FOLDER = -1 };

typedef struct Disk {
  uint8_t data[INODES][BYTES];
  size_t size[INODES];
  struct {
    char path[PATH];
    int inode; /* or ROOT_FOLDER for a folder */
  } entries[ENTRIES];
  int count;
} Disk;

typedef enum Kind { WRITE, TRUNCATE, NAME, SYNC, SYNC_FOLDER } Kind;

/* NAME: the entry `to` becomes the inode, and `from` goes; either may be "". */
typedef struct Operation {
  Kind kind;
  int inode;
  size_t offset, size;
  uint8_t *bytes;
  char from[PATH], to[PATH];
  int durable; /* the operation that synced it; OPERATIONS: none */
} Operation;

static Disk recorded, lost, *disk = &recorded;
static Operation operations[OPERATIONS];
static int operation_count, inode_count, lost_inodes;
static bool recording, has_links;
static struct {
  bool used, append;
  int inode; /* ROOT_FOLDER: a folder */
  size_t at;
  char path[PATH];
} handles[HANDLES];

static void stop(const char *why) {
  fprintf(stderr, "the disk in memory: %s\n", why);
  abort();
}

/* ---- entries ---- */

static int find(const char *path) {
  for (int i = 0; i < disk->count; ++i) {
    if (strcmp(disk->entries[i].path, path) == 0) return i;
  }
  return -1;
}

static void forget(const char *path) {
  const int i = find(path);
  if (i >= 0) disk->entries[i] = disk->entries[--disk->count];
}

static void put_entry(const char *path, int inode) {
  int i = find(path);
  if (i < 0) i = disk->count++;
  if (i >= ENTRIES || strlen(path) >= PATH) stop("too many names, or one too long");
  strcpy(disk->entries[i].path, path);
  disk->entries[i].inode = inode;
}

static void folder_of(char folder[PATH], const char *path) {
  strcpy(folder, path);
  char *slash = strrchr(folder, '/');
  if (slash) *slash = 0;
}

/* ---- operations ---- */

static Operation *record(Kind kind) {
  static Operation unused;
  if (!recording) return &unused;
  if (operation_count == OPERATIONS) stop("too many operations");
  Operation *o = &operations[operation_count++];
  *o = (Operation){.kind = kind, .durable = OPERATIONS};
  return o;
}

static void apply_write(Disk *to, int inode, size_t offset, const uint8_t *bytes, size_t size) {
  if (offset + size > BYTES) stop("a file is too large");
  if (offset > to->size[inode]) memset(to->data[inode] + to->size[inode], 0, offset - to->size[inode]);
  memcpy(to->data[inode] + offset, bytes, size);
  if (offset + size > to->size[inode]) to->size[inode] = offset + size;
}

static void apply_name(const Operation *o) {
  if (*o->from) forget(o->from);
  if (*o->to) put_entry(o->to, o->inode);
}

static int name_entry(int inode, const char *from, const char *to) {
  Operation local = {.kind = NAME, .inode = inode, .durable = OPERATIONS};
  strcpy(local.from, from);
  strcpy(local.to, to);
  if (recording) *record(NAME) = local;
  apply_name(&local);
  return 0;
}

static void sync_inode(int inode) {
  for (int i = 0; recording && i < operation_count; ++i) {
    Operation *o = &operations[i];
    if ((o->kind == WRITE || o->kind == TRUNCATE) && o->inode == inode && o->durable == OPERATIONS) o->durable = operation_count;
  }
  record(SYNC)->inode = inode;
}

static void sync_folder(const char *path) {
  for (int i = 0; recording && i < operation_count; ++i) {
    Operation *o = &operations[i];
    char folder[PATH];
    folder_of(folder, *o->to ? o->to : o->from);
    if (o->kind == NAME && strcmp(folder, path) == 0 && o->durable == OPERATIONS) o->durable = operation_count;
  }
  (void)record(SYNC_FOLDER);
}

/* ---- power loss ---- */

/* Some of the blocks of a write, each whole; the others keep what was there, or what the disk held before. */
static void tear(Disk *to, const Operation *o, size_t block, uint64_t *seed) {
  const uint64_t how = splitmix64(seed);
  const size_t before = to->size[o->inode];
  size_t end = before;
  for (size_t at = o->offset; at < o->offset + o->size;) {
    size_t part = block - at % block;
    if (part > o->offset + o->size - at) part = o->offset + o->size - at;
    const bool kept = splitmix64(seed) & 1;
    if (at >= before || kept) {
      static uint8_t filler[4096];
      memset(filler, how & 1 ? 0xa5 : 0, sizeof filler);
      apply_write(to, o->inode, at, kept ? o->bytes + (at - o->offset) : filler, part);
    }
    if (kept) end = at + part;
    at += part;
  }
  if ((how & 2) && to->size[o->inode] > end) to->size[o->inode] = end > before ? end : before;
}

static bool keeps_data(DiskLoss loss, uint64_t *seed) {
  return loss == LOSS_NONE || loss == LOSS_ENTRIES || (loss > LOSS_ENTRIES && splitmix64(seed) % 3 == 0);
}

static bool keeps_name(DiskLoss loss, int pending, int cut, uint64_t *seed) {
  if (loss == LOSS_IN_ORDER) return pending < cut;
  return loss == LOSS_NONE || loss == LOSS_DATA || (loss == LOSS_ANY_ORDER && (splitmix64(seed) & 1));
}

static void replay(const Operation *o, int moment, DiskLoss loss, size_t block, int *pending, int cut, uint64_t *seed) {
  const bool durable = o->durable < moment;
  if (o->kind == NAME) {
    if (durable || keeps_name(loss, (*pending)++, cut, seed)) apply_name(o);
  } else if (o->kind == TRUNCATE) {
    if (durable || keeps_data(loss, seed)) lost.size[o->inode] = o->size;
  } else if (o->kind == WRITE) {
    if (durable || keeps_data(loss, seed))
      apply_write(&lost, o->inode, o->offset, o->bytes, o->size);
    else if (loss > LOSS_ENTRIES)
      tear(&lost, o, block, seed);
  }
}

/* A file is there only where its folder is. */
static void drop_orphans(void) {
  for (int i = 0; i < disk->count;) {
    char folder[PATH];
    folder_of(folder, disk->entries[i].path);
    if (strcmp(folder, "") != 0 && find(folder) < 0)
      disk->entries[i] = disk->entries[--disk->count];
    else
      ++i;
  }
}

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size) {
  const uint8_t *bytes = data;
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = 0;
    memcpy(&word, bytes + i, size - i < 8 ? size - i : 8);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  return hash;
}

/* In whatever order the entries lie. */
static uint64_t hash_disk(void) {
  uint64_t sum = 0;
  for (int i = 0; i < disk->count; ++i) {
    uint64_t hash = hash_bytes(0xcbf29ce484222325u, disk->entries[i].path, strlen(disk->entries[i].path));
    const int inode = disk->entries[i].inode;
    if (inode >= 0) hash = hash_bytes(hash, disk->data[inode], disk->size[inode]);
    sum += hash;
  }
  return sum;
}

uint64_t disk_lose(int moment, DiskLoss loss, size_t block, uint64_t seed) {
  int pending = 0, open = 0;
  recording = false;
  disk = &lost;
  lost.count = 0;
  memset(lost.size, 0, sizeof lost.size);
  put_entry("/sim", ROOT_FOLDER);
  for (int i = 0; i < moment; ++i) open += operations[i].kind == NAME && operations[i].durable >= moment;
  const int cut = (int)(splitmix64(&seed) % (uint64_t)(open + 1));
  for (int i = 0; i < moment; ++i) replay(&operations[i], moment, loss, block, &pending, cut, &seed);
  drop_orphans();
  lost_inodes = inode_count;
  return hash_disk();
}

void disk_restore(void) {
  disk = &recorded;
  recording = true;
}

int disk_moment(void) { return operation_count; }

long disk_open(int moment) {
  long open = 0;
  for (int i = 0; i < moment; ++i) {
    const Operation *o = &operations[i];
    if (o->kind <= NAME && o->durable >= moment) open += 1 + (long)(o->size / 512);
  }
  return open;
}

void disk_format(bool links) {
  for (int i = 0; i < operation_count; ++i) free(operations[i].bytes);
  memset(&recorded, 0, sizeof recorded);
  memset(handles, 0, sizeof handles);
  operation_count = inode_count = 0;
  has_links = links;
  disk_restore();
  put_entry("/sim", ROOT_FOLDER);
}

bool disk_has(const char *path) { return find(path) >= 0; }

/* ---- the calls ---- */

static int fail(int error) {
  errno = error;
  return -1;
}

static int new_inode(void) {
  int *count = recording ? &inode_count : &lost_inodes;
  if (*count == INODES) stop("too many files");
  disk->size[*count] = 0;
  return (*count)++;
}

static int sim_open(const char *path, int flags, mode_t mode) {
  (void)mode;
  int entry = find(path), handle = 0;
  if (entry < 0 && !(flags & O_CREAT)) return fail(ENOENT);
  if (entry >= 0 && (flags & O_CREAT) && (flags & O_EXCL)) return fail(EEXIST);
  if (entry < 0) {
    (void)name_entry(new_inode(), "", path);
    entry = find(path);
  }
  while (handle < HANDLES && handles[handle].used) ++handle;
  if (handle == HANDLES) return fail(EMFILE);
  handles[handle].used = true;
  handles[handle].append = (flags & O_APPEND) != 0;
  handles[handle].inode = disk->entries[entry].inode;
  handles[handle].at = 0;
  strcpy(handles[handle].path, path);
  return FIRST + handle;
}

static int sim_close(int fd) {
  handles[fd - FIRST].used = false;
  return 0;
}

static ssize_t sim_pread(int fd, void *to, size_t size, off_t offset) {
  const int inode = handles[fd - FIRST].inode;
  const size_t at = (size_t)offset, left = at < disk->size[inode] ? disk->size[inode] - at : 0;
  if (size > left) size = left;
  memcpy(to, disk->data[inode] + at, size);
  return (ssize_t)size;
}

static ssize_t sim_read(int fd, void *to, size_t size) {
  const ssize_t got = sim_pread(fd, to, size, (off_t)handles[fd - FIRST].at);
  handles[fd - FIRST].at += (size_t)got;
  return got;
}

static ssize_t sim_write(int fd, const void *from, size_t size) {
  const int inode = handles[fd - FIRST].inode;
  size_t *at = &handles[fd - FIRST].at;
  if (handles[fd - FIRST].append) *at = disk->size[inode];
  if (recording) {
    Operation *o = record(WRITE);
    o->inode = inode;
    o->offset = *at;
    o->size = size;
    o->bytes = malloc(size + 1);
    if (!o->bytes) stop("out of memory");
    memcpy(o->bytes, from, size);
  }
  apply_write(disk, inode, *at, from, size);
  *at += size;
  return (ssize_t)size;
}

static int sim_fsync(int fd) {
  if (handles[fd - FIRST].inode == ROOT_FOLDER)
    sync_folder(handles[fd - FIRST].path);
  else
    sync_inode(handles[fd - FIRST].inode);
  return 0;
}

static int sim_fdatasync(int fd) { return sim_fsync(fd); }

static int sim_ftruncate(int fd, off_t size) {
  const int inode = handles[fd - FIRST].inode;
  Operation *o = record(TRUNCATE);
  o->inode = inode;
  o->size = (size_t)size;
  disk->size[inode] = (size_t)size;
  return 0;
}

static int sim_flock(int fd, int operation) {
  (void)fd, (void)operation;
  return 0;
}

static int inspect(int inode, struct stat *out) {
  memset(out, 0, sizeof *out);
  out->st_mode = inode == ROOT_FOLDER ? S_IFDIR | 0777 : S_IFREG | 0666;
  out->st_ino = (ino_t)(inode + 2);
  out->st_size = inode == ROOT_FOLDER ? 0 : (off_t)disk->size[inode];
  return 0;
}

static int sim_fstat(int fd, struct stat *out) { return inspect(handles[fd - FIRST].inode, out); }

static int sim_stat(const char *path, struct stat *out) {
  const int entry = find(path);
  return entry < 0 ? fail(ENOENT) : inspect(disk->entries[entry].inode, out);
}

static int sim_lstat(const char *path, struct stat *out) { return sim_stat(path, out); } /* there are no links */

static int sim_access(const char *path, int mode) {
  (void)mode;
  return find(path) < 0 ? fail(ENOENT) : 0;
}

static int sim_link(const char *from, const char *to) {
  const int entry = find(from);
  if (entry < 0) return fail(ENOENT);
  if (!has_links) return fail(EPERM);
  return find(to) >= 0 ? fail(EEXIST) : name_entry(disk->entries[entry].inode, "", to);
}

static int sim_rename(const char *from, const char *to) {
  const int entry = find(from), target = find(to);
  if (entry < 0) return fail(ENOENT);
  if (target >= 0 && disk->entries[target].inode == disk->entries[entry].inode) return 0; /* as POSIX has it */
  return name_entry(disk->entries[entry].inode, from, to);
}

static int sim_unlink(const char *path) { return find(path) < 0 ? fail(ENOENT) : name_entry(0, path, ""); }

static int sim_rmdir(const char *path) { return sim_unlink(path); }

static int sim_mkdir(const char *path, mode_t mode) {
  (void)mode;
  return find(path) >= 0 ? fail(EEXIST) : name_entry(ROOT_FOLDER, "", path);
}

/* A folder being walked. */
typedef struct Walk {
  char folder[PATH];
  int at;
  struct dirent entry;
} Walk;

static DIR *sim_opendir(const char *path) {
  Walk *walk = calloc(1, sizeof *walk);
  if (!walk) stop("out of memory");
  strcpy(walk->folder, path);
  return (DIR *)walk;
}

static struct dirent *sim_readdir(DIR *dir) {
  Walk *walk = (Walk *)dir;
  while (walk->at < disk->count) {
    char folder[PATH];
    const int i = walk->at++;
    folder_of(folder, disk->entries[i].path);
    if (strcmp(folder, walk->folder) != 0) continue;
    strcpy(walk->entry.d_name, strrchr(disk->entries[i].path, '/') + 1);
    walk->entry.d_type = disk->entries[i].inode == ROOT_FOLDER ? DT_DIR : DT_REG;
    return &walk->entry;
  }
  return NULL;
}

static int sim_closedir(DIR *dir) {
  free(dir);
  return 0;
}

/* A file is always ready. */
static int sim_poll(struct pollfd *files, nfds_t count, int milliseconds) {
  (void)milliseconds;
  int ready = 0;
  for (nfds_t i = 0; i < count; ++i) {
    files[i].revents = (short)(files[i].events & (POLLIN | POLLOUT));
    ready += files[i].revents != 0;
  }
  return ready;
}

/* What nobody asks of this disk. */
static int sim_fstatat(int fd, const char *name, struct stat *out, int flags) {
  (void)fd, (void)name, (void)out, (void)flags;
  stop("fstatat");
  return -1;
}

static char *sim_realpath(const char *path, char *out) {
  (void)path, (void)out;
  stop("realpath");
  return NULL;
}

static void *sim_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  (void)at, (void)size, (void)protection, (void)flags, (void)fd, (void)offset;
  stop("mmap");
  return MAP_FAILED;
}

static int sim_munmap(void *at, size_t size) {
  (void)at, (void)size;
  stop("munmap");
  return -1;
}

void disk_damage(const char *path) {
  const int entry = find(path), inode = disk->entries[entry].inode;
  const int fd = sim_open(path, O_WRONLY, 0);
  handles[fd - FIRST].at = disk->size[inode] / 2;
  const uint8_t byte = (uint8_t)~disk->data[inode][disk->size[inode] / 2];
  (void)sim_write(fd, &byte, 1);
  (void)sim_fsync(fd);
  (void)sim_close(fd);
}

#define ENTRY(result, name, parameters, arguments, failure) .name = sim_##name,
const NitiSystem niti_system = {NITI_SYSTEM_CALLS(ENTRY)};
