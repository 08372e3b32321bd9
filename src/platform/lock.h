/* A lock on a folder, so that only one process at a time works in it. */
#ifndef NITI_PLATFORM_LOCK_H
#define NITI_PLATFORM_LOCK_H

#include "platform/status.h"

typedef struct NitiLock NitiLock;

/* Locks the folder by flock on FOLDER/.lock, which stays. On a file system without flock, the folder FOLDER/.lock.owner is the
 * lock: its one entry is named by the owner's process, start and host, and both are removed on closing; one that a process of
 * this host left behind when it died is taken over, by one process alone, also where that number is another process's by now.
 * Hosts, and containers with numbers of their own, that share the folder must have names of their own. *out: the caller's, for
 * niti_lock_close; NULL after a failure. Statuses: FILE (also a folder that another process has locked), MEMORY. */
NitiStatus niti_lock_open(NitiLock **out, const char *folder);
/* Fails as niti_lock_open would where a process, this one too, holds the folder's lock; makes nothing. What cannot be found out
 * is no failure. Statuses: FILE, MEMORY. */
NitiStatus niti_lock_probe(const char *folder);
/* Fails where the folder at the path is gone or another one, and where another process could have locked it meanwhile, since
 * .lock or the owner's entry is no longer the one that niti_lock_open made. May be called on any thread. Statuses: FILE, MEMORY.
 */
NitiStatus niti_lock_check(const NitiLock *lock);
/* The path of .lock.owner where that replaces flock, or NULL; owned by the lock. */
const char *niti_lock_owner_file(const NitiLock *lock);
/* NULL is accepted. */
void niti_lock_close(NitiLock *lock);

#endif
