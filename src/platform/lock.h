/* A lock on a folder, so that only one process at a time works in it. */
#ifndef NITI_PLATFORM_LOCK_H
#define NITI_PLATFORM_LOCK_H

#include "platform/status.h"

typedef struct NitiLock NitiLock;

/* Locks the folder by flock on FOLDER/.lock, which stays. On a file system without flock, FOLDER/.lock.owner is the lock: created
 * for this process, it names host and process, and is removed on closing; one that a process of this host left behind when it
 * died is taken over. *out: the caller's, for niti_lock_close; NULL after a failure. Statuses: FILE (also a folder that another
 * process has locked), MEMORY. */
NitiStatus niti_lock_open(NitiLock **out, const char *folder);
/* The lock file that replaces flock, or NULL; owned by the lock. */
const char *niti_lock_owner_file(const NitiLock *lock);
/* NULL is accepted. */
void niti_lock_close(NitiLock *lock);

#endif
