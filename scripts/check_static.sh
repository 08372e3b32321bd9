#!/bin/sh
# Static analysis of the library and the tool by cppcheck, gcc -fanalyzer and clang-tidy: scripts/check_static.sh BUILD
# BUILD has compile_commands.json and generated headers. Fails on every warning that is not on the list of exceptions, which
# docs/reliability.md explains.
set -u
cd "$(dirname "$0")/.."
build=$1
sources=$(ls src/*/*.c src/backend/cpu/*.c src/backend/cpu/ref/*.c cli/*.c)
bad=0
echo "cppcheck"
macros=$(mktemp) # jansson's: cppcheck takes no semicolon in an option
trap 'rm -f "$macros"' EXIT
cat >"$macros" <<'END'
#define json_array_foreach(array, index, value) for (index = 0; index < json_array_size(array); ++index)
#define json_object_foreach(object, key, value) for (key = next_key(object); key && (value = value_of(object, key)); key = next_key(key))
END
# shellcheck disable=SC2086 # words
cppcheck --quiet --enable=warning,performance,portability --std=c11 -j "$(nproc)" -Iinclude -Isrc --suppress=missingIncludeSystem \
  --suppress=shiftTooManyBitsSigned:src/backend/cpu/loops_largest.h --suppress=uninitvar:src/export/runtime/niti_rt.h \
  --suppress=autoVariables:src/io/events.c --suppress=uninitdata:src/train/snapshot.c --include="$macros" --error-exitcode=1 \
  $sources || bad=1
echo "gcc -fanalyzer"
# __clang_analyzer__: that niti_fail returns its status. Memory that a caller's structure takes over counts as lost with gcc 12, and
# what a function in a table fills as not initialised: valgrind and the sanitizers look for both.
for file in $sources; do
  gcc -std=gnu11 -O2 -fanalyzer -D__clang_analyzer__ -Wno-analyzer-malloc-leak -Wno-analyzer-use-of-uninitialized-value -Iinclude -Isrc -I"$build/proto" -I/usr/include/libpng16 -c "$file" -o /dev/null 2>&1
done | grep 'Wanalyzer' | grep -v -e 'cli/man.c.*Wanalyzer-possible-null-argument' \
  -e 'src/export/source.c.*Wanalyzer-null-dereference' -e 'src/backend/cpu/conv.c.*Wanalyzer-null-dereference' && bad=1
echo "clang-tidy"
# shellcheck disable=SC2086 # words
echo $sources | xargs -P "$(nproc)" -n 8 clang-tidy -p "$build" --quiet 2>/dev/null | grep -E '(warning|error):' |
  grep -v -e 'src/data/csv.c.*UnixAPI' -e 'cli/predict.c.*uninitialized.Assign' -e 'cli/train.c.*UndefinedBinaryOperatorResult' && bad=1
exit $bad
