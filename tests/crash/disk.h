/* A disk in memory, behind the library's table of the system's calls. It records what is done to it, so that the state after a
 * power loss at any moment can be built: of the work that no fsync covers, any part may be missing. */
#ifndef NITI_TESTS_CRASH_DISK_H
#define NITI_TESTS_CRASH_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What becomes of the work that was not synced. */
typedef enum DiskLoss {
  LOSS_NONE,      /* it all arrived */
  LOSS_ALL,       /* none of it */
  LOSS_DATA,      /* the folders' entries arrived, no content */
  LOSS_ENTRIES,   /* content arrived, no entries */
  LOSS_IN_ORDER,  /* entries up to some moment; of the content any blocks */
  LOSS_ANY_ORDER, /* any of the entries; of the content any blocks */
  LOSS_KINDS
} DiskLoss;

/* An empty disk with the folder "/sim", from which recording begins. links: whether the file system has hard links. */
void disk_format(bool links);
/* The number of operations recorded so far: a moment to lose power at. */
int disk_moment(void);
/* How much is not synced at this moment, in blocks of 512 bytes and entries. */
long disk_open(int moment);
/* Makes the disk what a power loss at the moment leaves. block: the bytes that a disk writes whole, 512 or 4096. The same seed
 * makes the same state. Recording stops; disk_restore goes back to the recorded disk. Returns a hash of the state. */
uint64_t disk_lose(int moment, DiskLoss loss, size_t block, uint64_t seed);
void disk_restore(void);
/* Spoils a file of the disk as it is, durably. */
void disk_damage(const char *path);
bool disk_has(const char *path);

#endif
