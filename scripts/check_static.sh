#!/bin/sh
# Static analysis of the library and the tool by cppcheck, gcc -fanalyzer and clang-tidy: scripts/check_static.sh BUILD
# BUILD has compile_commands.json and generated headers. Fails on every warning that is not on the list of exceptions, which
# docs/reliability.md explains.
set -u
cd "$(dirname "$0")/.." || exit
build=$1
for tool in cppcheck gcc clang-tidy; do
  command -v "$tool" >/dev/null || { echo "static analysis: $tool is not there: run scripts/setup.sh slow" >&2; exit 1; }
done
sources=$(ls src/*/*.c src/backend/cpu/*.c src/backend/cpu/ref/*.c cli/*.c)
mpi=$(pkg-config --cflags ompi-c 2>/dev/null) && sources="$sources $(ls src/ranks/mpi/*.c)"
bad=0
echo "cppcheck"
macros=$(mktemp) # jansson's: cppcheck takes no semicolon in an option
trap 'rm -f "$macros"' EXIT
cat >"$macros" <<'END'
#define json_array_foreach(array, index, value) for (index = 0; index < json_array_size(array); ++index)
#define json_object_foreach(object, key, value) for (key = next_key(object); key && (value = value_of(object, key)); key = next_key(key))
END
# shellcheck disable=SC2086 # words
cppcheck --quiet --max-configs=40 --enable=warning,performance,portability --std=c11 -j "$(nproc)" -Iinclude -Isrc --suppress=missingIncludeSystem \
  --suppress=shiftTooManyBitsSigned:src/backend/cpu/loops_largest.h --suppress=shiftTooManyBitsSigned:src/base/sgd.h \
  --suppress=uninitvar:src/export/runtime/niti_rt.h --suppress=autoVariables:src/io/events.c --suppress=uninitdata:src/train/snapshot.c --include="$macros" --error-exitcode=1 \
  $sources || bad=1
echo "gcc -fanalyzer"
# __clang_analyzer__: that niti_fail returns its status. Each exception is a file and a kind of warning.
for file in $sources; do
  # shellcheck disable=SC2086 # words
  gcc $mpi -std=gnu11 -O2 -fanalyzer -D__clang_analyzer__ -Iinclude -Isrc -I"$build/proto" -I/usr/include/libpng16 -c "$file" -o /dev/null 2>&1
done | grep 'Wanalyzer' |
  grep -v -E -e '^src/(data/(image|image_folder|names|scan|survey)|export/record|io/(checkpoint|safetensors))\.c.*-malloc-leak' \
    -e '^src/(train/(average|confusion|health|snapshot)\.c|platform/status\.h).*-malloc-leak' \
    -e '^src/io/safetensors\.c.*-use-of-uninitialized-value' -e '^src/train/together\.c.*-null-argument' -e '^cli/man\.c.*-possible-null-argument' \
    -e '^(cli/tune|src/export/source|src/backend/cpu/(conv|thin))\.c.*-null-dereference' && bad=1
echo "clang-tidy"
# One file at a time: with several it takes every list of arguments after the first file for uninitialised.
# shellcheck disable=SC2086 # words
echo $sources | xargs -P "$(nproc)" -n 1 clang-tidy -p "$build" --quiet 2>/dev/null | grep -E '(warning|error):' |
  grep -v -E -e 'src/(data/(csv|records)|export/sums)\.c.*UnixAPI' -e 'cli/predict\.c.*uninitialized.Assign' -e 'cli/train\.c.*UndefinedBinaryOperatorResult' \
    -e '(cli/tune|src/backend/compile|src/model/expand)\.c.*NullDereference' \
    -e 'src/backend/cpu/(conv|grouped)\.c.*(NullDereference|NonNullParamChecker)' \
    -e 'src/backend/cpu/winograd_gradient\.c.*UndefinedBinaryOperatorResult' -e 'src/base/(scalar|size|softmax)\.h.*DivideZero' \
    -e 'src/base/scalar\.h.*UndefinedBinaryOperatorResult' -e 'src/export/compare\.c.*DivideZero' \
    -e 'src/export/plan\.c.*suspicious-memory-comparison' -e 'src/(model/lower|train/(data_choice|report_events))\.c.*unix.Malloc' \
    -e 'src/ranks/mpi/watch\.c.*mpi.MPI-Checker' -e 'src/train/together\.c.*NonNullParamChecker' && bad=1
exit $bad
