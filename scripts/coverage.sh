#!/bin/sh
# Measures which lines and branches of the library the tests reach: scripts/coverage.sh FOLDER
# What reads files of strangers, and the checkpoint code, must have every line and 95 % of the branches, the rest 90 % of the lines.
# FOLDER/coverage.html shows them all. The kernels are optimised, all else is not. NITI_COVERAGE_ORACLE is
# pytest's expression for the tests of the oracle that run ("": all); random models reach no line that the other cases do not.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
export GCOV_ERROR_FILE="$folder/gcov.log" # not standard error: tests that limit the size of files limit gcov's too, and compare what is printed

# One suite, whose failures are not this script's.
if [ $# -gt 1 ]; then
  case $2 in oracle) set -- "$1" oracle -k "${NITI_COVERAGE_ORACLE-not random_models}" ;; esac
  suite=$2
  shift 2
  "$root/scripts/run_pytest.sh" "$folder" "$root/tests/$suite" "$@" >"$folder/$suite.log" 2>&1 ||
    echo "coverage: some tests of $suite failed here: $folder/$suite.log"
  exit 0
fi

command -v gcovr >/dev/null || { echo "coverage: gcovr is not there: run scripts/setup.sh slow" >&2; exit 1; }
cmake -S "$root" -B "$folder" -G Ninja --log-level=NOTICE -DCMAKE_BUILD_TYPE=Coverage \
  -DCMAKE_C_FLAGS_COVERAGE="-O0 -g --coverage -fprofile-abs-path -fprofile-update=atomic -DNDEBUG" -DNITI_TESTS=ON -DNITI_TREE_TESTS=OFF -DNITI_CUDA=OFF
cmake --build "$folder" -j "$(nproc)"
find "$folder" -name '*.gcda' -delete
# without optimisation the power losses of `make test` take longer than their 300 seconds
NITI_POWER_LOSSES=5000 ctest --test-dir "$folder" --no-tests=error -j "$(nproc)" --timeout 3000 -LE slow >"$folder/ctest.log" 2>&1 || { tail -n 30 "$folder/ctest.log"; exit 1; }
for suite in ${NITI_COVERAGE_SUITES-cli oracle export ranks formats}; do echo "$suite"; done | xargs -P "$(nproc)" -n 1 "$0" "$folder"

report() { gcovr --root "$root" --gcov-ignore-parse-errors --exclude-throw-branches --exclude-unreachable-branches "$@" "$folder"; }
STRICT='src/(io/(safetensors|checkpoint|hash|log(_rows)?)|config/yaml.*|model/description|train/(recipe(_text)?|extend|run_(state|check|best|save))|data/(idx|cifar|npy|csv|names|exif|packed|values|image|image_folder)|platform/(bytes|json|sha256)|backend/tuning|export/(read_values|compare|import|replay|start))\.c'
echo "parsers and checkpoints: lines"
bad=0
report --filter "$root/$STRICT" --fail-under-line 100 || bad=1
echo "parsers and checkpoints: branches"
report --filter "$root/$STRICT" --branches --fail-under-branch 95 || bad=1
echo "the rest: lines"
report --filter "$root/src/" --exclude "$root/$STRICT" --exclude "$root/src/backend/cpu/arm/.*" --exclude "$root/src/export/runtime/.*" \
  --fail-under-line 90 --html-details "$folder/coverage.html" --txt - || bad=1
exit $bad
