#!/bin/sh
# The unit tests that share a program define nothing global but their `main`, so none can take the place of another's function or
# of the C library's: scripts/check_unit_tests.sh OBJECT...
set -eu
count=0 bad=0
for object in "$@"; do
  case $object in */test_*) ;; *) continue ;; esac
  count=$((count + 1))
  found=$(nm -g --defined-only "$object" | awk '$3 !~ /^run_test_[a-z0-9_]*$/ { print $3 }')
  [ -z "$found" ] || { bad=1 && echo "check_unit_tests: $object defines" $found >&2; }
done
[ $count -gt 0 ] || { echo "check_unit_tests: no test's object was given" >&2; exit 1; }
[ $bad = 0 ] || echo "check_unit_tests: list these tests under 'alone' in tests/CMakeLists.txt, or make the functions static" >&2
exit $bad
