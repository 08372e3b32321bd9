#!/bin/sh
# Checks that a release build of the library cannot stop its process or print: no object calls an assertion, abort, exit or standard
# output. scripts/check_never_aborts.sh FOLDER of objects, or --self-test
set -eu

check() {
  objects=$(find "$1" -name '*.o')
  [ -n "$objects" ] || { echo "check_never_aborts: no objects in $1" >&2; return 1; }
  # shellcheck disable=SC2086 # one word per object
  found=$(nm -A --undefined-only $objects |
    grep -E ' U (__assert_fail|abort|_?exit|_Exit|quick_exit|raise|__?printf(_chk)?|puts|putchar|perror|stdout|stderr)(@|$)') || return 0
  printf '%s\n' "$found"
  return 1
}

if [ "$1" = --self-test ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  printf '#include <assert.h>\nvoid f(int a) { assert(a); }\n' >"$folder/f.c"
  ${CC:-cc} -DNDEBUG -c "$folder/f.c" -o "$folder/f.o"
  check "$folder" || { echo "check_never_aborts: self-test: an object without assertions is refused" >&2; exit 1; }
  ${CC:-cc} -c "$folder/f.c" -o "$folder/f.o"
  if check "$folder" >/dev/null; then echo "check_never_aborts: self-test: an assertion is not found" >&2; exit 1; fi
  exit 0
fi
check "$1"
