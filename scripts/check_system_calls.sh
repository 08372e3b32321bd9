#!/bin/sh
# Checks that the library touches files through src/platform/system.h alone, so that tests can record, fail and replay what it does:
#   scripts/check_system_calls.sh FOLDER    of object files; only system.c's may ask for these functions, and quota.c's for fopen
set -eu
header=$(dirname "$0")/../src/platform/system.h
calls=$(sed -n 's/^  X([^,]*, \([a-z]*\), .*/\1/p' "$header" | paste -s -d '|')
for call in open read write close mmap poll; do # so that a list in another form is noticed
  echo "|$calls|" | grep -q "|$call|" || { echo "check_system_calls: no $call among the calls that $header lists" >&2; exit 1; }
done
# what does the same as one of them
calls="$calls|open64|openat|openat64|creat|creat64|fopen|fopen64|freopen|fdopen|pread64|pwrite|pwrite64|ftruncate64|truncate|lockf|fcntl"
calls="$calls|fstat64|stat64|lstat64|fstatat64|linkat|symlink|renameat|unlinkat|remove|readdir64|mmap64|tmpfile|mkstemp|ppoll|select"
objects=$(find "$1" -name '*.o' ! -name 'system.c.o')
count=$(echo "$objects" | wc -l)
[ "$count" -gt 100 ] || { echo "check_system_calls: only $count objects in $1" >&2; exit 1; }
# shellcheck disable=SC2086 # one word an object
found=$(nm -A -u $objects | grep -E " U ($calls)(@.*)?\$" | grep -v 'platform/quota\.c\.o: *U fopen' || :)
[ -z "$found" ] || { echo "check_system_calls: expected a call through niti_system:"; echo "$found"; exit 1; }
echo "check_system_calls: $count objects checked"
