#!/bin/sh
# Measures which lines and branches of the library the tests reach: scripts/coverage.sh FOLDER
# The parsers and the checkpoint code must have every line and 95 % of the branches, the rest 90 % of the lines. Branches that only a
# failed allocation takes count as reached where tests/test_allocation.c reaches them. FOLDER/coverage.html shows them all.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
command -v gcovr >/dev/null || { echo "coverage: gcovr is not there: run scripts/setup.sh slow" >&2; exit 1; }
cmake -S "$root" -B "$folder" -G Ninja --log-level=NOTICE -DCMAKE_BUILD_TYPE=Coverage \
  -DCMAKE_C_FLAGS_COVERAGE="-O0 -g --coverage -fprofile-abs-path -fprofile-update=atomic -DNDEBUG" -DNITI_TESTS=ON -DNITI_TREE_TESTS=OFF -DNITI_CUDA=OFF
cmake --build "$folder" -j "$(nproc)"
find "$folder" -name '*.gcda' -delete
export GCOV_ERROR_FILE="$folder/gcov.log" # not standard error: tests that limit the size of files limit gcov's too, and compare what is printed
# without optimisation the power losses of `make test` take longer than their 300 seconds
NITI_POWER_LOSSES=5000 ctest --test-dir "$folder" --no-tests=error -j "$(nproc)" --timeout 3000 -LE slow >"$folder/ctest.log" 2>&1 || { tail -n 30 "$folder/ctest.log"; exit 1; }
for suite in ${NITI_COVERAGE_SUITES-cli export oracle formats ranks}; do # whose failures are not this script's
  "$root/scripts/run_pytest.sh" "$folder" "$root/tests/$suite" >"$folder/$suite.log" 2>&1 || echo "coverage: some tests of $suite failed here: $folder/$suite.log"
done

report() { gcovr --root "$root" --gcov-ignore-parse-errors --exclude-throw-branches --exclude-unreachable-branches "$@" "$folder"; }
STRICT='src/(io/(safetensors|checkpoint|hash)|config/yaml.*|data/(idx|cifar|npy|csv|names|exif)|platform/bytes)\.c'
echo "parsers and checkpoints: lines"
bad=0
report --filter "$root/$STRICT" --fail-under-line 100 || bad=1
echo "parsers and checkpoints: branches"
report --filter "$root/$STRICT" --branches --fail-under-branch 95 || bad=1
echo "the rest: lines"
report --filter "$root/src/" --exclude "$root/$STRICT" --exclude "$root/src/backend/cpu/arm/.*" --exclude "$root/src/export/runtime/.*" \
  --fail-under-line 90 --html-details "$folder/coverage.html" --txt - || bad=1
exit $bad
