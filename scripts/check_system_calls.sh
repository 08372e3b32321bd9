#!/bin/sh
# Checks that the library touches files through src/platform/system.h alone, so that tests can record, fail and replay what it does:
#   scripts/check_system_calls.sh FOLDER    of object files; only system.c's may ask for these functions, and quota.c's for fopen
set -eu
calls='open|open64|openat|openat64|creat|creat64|fopen|fopen64|freopen|fdopen|read|pread|pread64|write|pwrite|pwrite64|fsync|fdatasync'
calls="$calls|ftruncate|ftruncate64|truncate|flock|lockf|fcntl|fstat|fstat64|stat|stat64|lstat|lstat64|fstatat|fstatat64|access|link"
calls="$calls|linkat|symlink|rename|renameat|unlink|unlinkat|remove|mkdir|rmdir|opendir|readdir|readdir64|closedir|mmap|mmap64|munmap"
calls="$calls|tmpfile|mkstemp|realpath"
objects=$(find "$1" -name '*.o' ! -name 'system.c.o')
count=$(echo "$objects" | wc -l)
[ "$count" -gt 100 ] || { echo "check_system_calls: only $count objects in $1" >&2; exit 1; }
# shellcheck disable=SC2086 # one word an object
found=$(nm -A -u $objects | grep -E " U ($calls)(@.*)?\$" | grep -v 'platform/quota\.c\.o: *U fopen' || :)
[ -z "$found" ] || { echo "check_system_calls: expected a call through niti_system:"; echo "$found"; exit 1; }
echo "check_system_calls: $count objects checked"
