/* The number of cores that this process's control groups allow it (Linux cgroups, versions 1 and 2). */
#ifndef NITI_PLATFORM_QUOTA_H
#define NITI_PLATFORM_QUOTA_H

/* The smallest CPU quota of the process's own group and all groups above it, as a number of cores rounded up (half a core: 1);
 * 0 where none is set or none can be read. root: put before every path, "" for this machine's own files; for tests. Thread-safe.
 * Reads ROOT/proc/self/cgroup, ROOT/proc/self/mountinfo, and cpu.max or cpu.cfs_quota_us and cpu.cfs_period_us of each group. */
int niti_quota_cores(const char *root);

#endif
