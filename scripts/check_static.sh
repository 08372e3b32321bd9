#!/bin/sh
# Static analysis of the library and the tool by cppcheck, gcc -fanalyzer and clang-tidy: scripts/check_static.sh BUILD [FILE]...
# FILE is a source below src/ or cli/, by default all that BUILD compiles: CUDA's host side where it has the CUDA backend, the plugin for
# ranks where it has MPI, the kernels for x86 (not those for ARM). BUILD has compile_commands.json and generated headers. Fails on every
# warning that is not on the list of exceptions, which docs/reliability.md explains, and on every file that does not compile.
# BUILD/static keeps what each tool said about each file; it is asked again when the file, a header, an option or the tool has changed,
# so a run that was cut off goes on where it was.
set -u
cd "$(dirname "$0")/.." || exit
build=$1
shift
folder=$build/static

# One file, by gcc or clang-tidy: --one TOOL FILE
if [ "${1-}" = --one ]; then
  tool=$2 file=$3
  said=$folder/$tool/$(echo "$file" | tr / .)
  eval "set -- $(cat "$folder/options/$(echo "$file" | tr / .)")"
  # __clang_analyzer__: that niti_fail returns its status
  set -- gcc "$@" -std=gnu11 -O2 -D__clang_analyzer__
  key=$({ "$tool" --version; cat .clang-tidy "$file"; echo "$*"; "$@" -E "$file"; } 2>&1 | sha256sum)
  if [ "$(head -n 1 "$said" 2>/dev/null)" != "$key" ]; then
    case $tool in
      gcc) "$@" -fanalyzer -c "$file" -o /dev/null >"$said.new" 2>&1 ;;
      *) clang-tidy -p "$build" --quiet "$file" >"$said.new" 2>/dev/null ;;
    esac
    # a tool that was killed has not finished
    if [ $? -gt 128 ]; then rm -f "$said"; else { echo "$key"; grep -E 'Wanalyzer|(warning|error):' "$said.new"; } >"$said"; fi
    rm "$said.new"
  fi
  echo "$file"
  exit 0
fi

for tool in cppcheck gcc clang-tidy; do
  command -v "$tool" >/dev/null || { echo "static analysis: $tool is not there: run scripts/setup.sh slow" >&2; exit 1; }
done
mkdir -p "$folder/options" "$folder/cppcheck" "$folder/gcc" "$folder/clang-tidy"
# Writes what a file is compiled with, as words of the shell, and prints the files.
list='import json, os, re, shlex, sys
folder, chosen, found = sys.argv[1], [os.path.relpath(name) for name in sys.argv[2:]], {}
for entry in json.load(open(os.path.dirname(folder) + "/compile_commands.json")):
    name = os.path.relpath(entry["file"])
    if re.match(r"(src|cli)/.*\.c$", name) and "/cpu/arm/" not in name:
        words = iter(shlex.split(entry["command"]))
        found[name] = [text for word in words for text in ([word, next(words)] if word == "-isystem" else [word])
                       if (word.startswith(("-D", "-I", "-m")) and word != "-DNDEBUG") or word == "-isystem"]
for name in chosen:
    if name not in found:
        sys.exit(f"static analysis: {name} is not among the files that are analysed: {os.path.dirname(folder)}/compile_commands.json")
for name in chosen or sorted(found):
    with open(folder + "/options/" + name.replace("/", "."), "w") as file:
        file.write(shlex.join(found[name]))
    print(name)'
sources=$(/usr/bin/python3 -c "$list" "$folder" "$@") || exit 1
count=$(echo "$sources" | wc -l)
bad=0

# With a cache of its own, by which it also follows pointers from file to file; but what it finds so leaves the exit status 0.
echo "static analysis: cppcheck, $count files"
cat >"$folder/macros.h" <<'END'
#define json_array_foreach(array, index, value) for (index = 0; index < json_array_size(array); ++index)
#define json_object_foreach(object, key, value) for (key = next_key(object); key && (value = value_of(object, key)); key = next_key(key))
END
# the macros are jansson's: cppcheck takes no semicolon in an option
# shellcheck disable=SC2086 # words
cppcheck --quiet --max-configs=40 --enable=warning,performance,portability --std=c11 -j "$(nproc)" --cppcheck-build-dir="$folder/cppcheck" -Iinclude -Isrc \
  --suppress=missingIncludeSystem --suppress=shiftTooManyBitsSigned:src/backend/cpu/loops_largest.h --suppress=shiftTooManyBitsSigned:src/base/sgd.h \
  --suppress=shiftTooManyBitsSigned:src/backend/cpu/loops_sgd.h \
  --suppress=uninitvar:src/export/runtime/niti_rt.h --suppress=autoVariables:src/io/events.c --suppress=uninitdata:src/train/snapshot.c \
  --include="$folder/macros.h" --error-exitcode=1 $sources >"$folder/cppcheck.log" 2>&1 || bad=1
[ ! -s "$folder/cppcheck.log" ] || { cat "$folder/cppcheck.log"; bad=1; }

# What TOOL says about each file, one file at a time: with several, clang-tidy takes every list of arguments after the first file for
# uninitialised. Several processes; progress on standard error.
ask() {
  echo "static analysis: $1" >&2
  echo "$sources" | xargs -P "$(nproc)" -n 1 scripts/check_static.sh "$build" --one "$1" |
    awk -v count="$count" '{ if (NR % 20 == 0 || NR == count) { print NR " of " count; fflush() } }' >&2
  for file in $sources; do
    said=$folder/$1/$(echo "$file" | tr / .)
    if [ -s "$said" ]; then tail -n +2 "$said"; else echo "$file: error: $1 has not finished"; fi
  done | sed "s|^$PWD/||" | sort -u
}
# Each exception is a file and a kind of warning.
ask gcc | grep -E 'Wanalyzer|error:' |
  grep -v -E -e '^src/(data/(image|image_folder|names|scan|survey)|export/record|io/(checkpoint|safetensors))\.c.*-malloc-leak' \
    -e '^src/(train/(average|confusion|health|snapshot)\.c|platform/status\.h).*-malloc-leak' \
    -e '^src/io/safetensors\.c.*-use-of-uninitialized-value' -e '^src/train/together\.c.*-null-argument' -e '^cli/man\.c.*-possible-null-argument' \
    -e '^src/backend/cpu/(x86/(conv_pack_avx2|requantise_avx512|thin_avx512vnni)\.c|winograd(_gradient)?_vector\.h).*-use-of-uninitialized-value' \
    -e '^src/backend/cpu/winograd(_gradient)?_vector\.h.*-shift-count-overflow' \
    -e '^(cli/tune|src/export/source|src/backend/cpu/(conv|thin))\.c.*-null-dereference' && bad=1
ask clang-tidy |
  grep -v -E -e 'src/(data/(csv|records)|export/sums)\.c.*UnixAPI' -e 'cli/predict\.c.*uninitialized.Assign' -e 'cli/train\.c.*UndefinedBinaryOperatorResult' \
    -e '(cli/tune|src/backend/compile|src/model/expand)\.c.*NullDereference' \
    -e 'src/backend/cpu/(conv|grouped)\.c.*(NullDereference|NonNullParamChecker)' \
    -e 'src/backend/cpu/winograd_gradient\.c.*UndefinedBinaryOperatorResult' -e 'src/base/(scalar|size|softmax)\.h.*DivideZero' \
    -e 'src/base/scalar\.h.*UndefinedBinaryOperatorResult' -e 'src/export/compare\.c.*DivideZero' \
    -e 'src/export/plan\.c.*suspicious-memory-comparison' -e 'src/(model/lower|train/(data_choice|report_events))\.c.*unix.Malloc' \
    -e 'src/ranks/mpi/watch\.c.*mpi.MPI-Checker' -e 'src/train/together\.c.*NonNullParamChecker' && bad=1
exit $bad
