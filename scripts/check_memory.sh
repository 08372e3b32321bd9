#!/bin/sh
# Runs unit tests and commands of the tool under valgrind's memcheck: scripts/check_memory.sh BUILD
# Every error counts, and every block that is lost. No suppressions. BUILD/memcheck/logs holds what valgrind found. The tests that
# only compute for long are left out; the address sanitizer has them.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
command -v valgrind >/dev/null || { echo "memcheck: valgrind is not there: run scripts/setup.sh slow" >&2; exit 1; }
folder=$build/memcheck
rm -rf "$folder"
mkdir -p "$folder/logs"
options="-q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,indirect,possible --num-callers=30
  --fair-sched=yes --log-file=$folder/logs/%p"
bad=0
count=0
for test in "$build"/tests/test_* "$build"/tests/fuzz/fuzz_*; do
  name=$(basename "$test")
  case $name in
    *.* | test_arrays | test_conv | test_cuda* | test_image | test_norm | test_parsers | test_stress | test_winograd*) continue ;;
    fuzz_*) corpus=$root/tests/fuzz/corpus/${name#fuzz_} ;;
    *) corpus= ;;
  esac
  { [ -f "$test" ] && [ -x "$test" ]; } || continue
  count=$((count + 1))
  # shellcheck disable=SC2086 # words
  (cd "$build" && valgrind $options "$test" $corpus) >"$folder/$name.log" 2>&1 ||
    { bad=1 && echo "memcheck: $name failed: $folder/$name.log"; }
done
echo "memcheck: $count unit tests and fuzz targets"

# The suite of the tool, on a tool that is valgrind running the tool.
# shellcheck disable=SC2086 # words
printf '#!/bin/sh\nexec valgrind %s %s "$@"\n' "$(echo $options)" "$build/niti" >"$folder/niti"
chmod +x "$folder/niti"
for suite in ${NITI_MEMCHECK_SUITES-test_commands test_resume test_eval test_fold test_data_files}; do
  "$root/scripts/run_pytest.sh" "$folder" "$root/tests/cli/$suite.py" || bad=1
done
"$root/scripts/run_pytest.sh" "$folder" "$root/tests/export/test_command.py" || bad=1
for log in "$folder"/logs/*; do
  [ -s "$log" ] && { bad=1 && echo "memcheck: $log" && head -n 20 "$log"; }
done
exit $bad
