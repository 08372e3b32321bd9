#!/bin/sh
# Builds the fuzz targets of tests/fuzz with clang, libFuzzer and the address and undefined-behaviour sanitizers, and runs them:
#   scripts/fuzz.sh FOLDER [SECONDS [TARGET...]]   (60 seconds; every target)
# New cases go to FOLDER/corpus/TARGET, what fails to FOLDER/found. The last lines say what ran, and FOLDER/runs gathers them.
# NITI_FUZZ_PREFIX: where the libraries are that scripts/fuzz_decoders.sh builds.
# NITI_FUZZ_SANITIZE=none: without sanitizers, which is several times as fast; the next run with them tries all that it kept.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
seconds=${2:-60}
[ $# -lt 2 ] || shift
shift
command -v clang >/dev/null || { echo "fuzz: clang is not there: run scripts/setup.sh test" >&2; exit 1; }
# A case may take one second, sanitizers included 5, and 64 MB at once; the whole process 512 MB beside the sanitizer's own.
kind=${NITI_FUZZ_SANITIZE-address,undefined}
build=$folder/build seconds_a_case=5 memory_mb=1024
[ "$kind" != none ] || { kind='' && build=$folder/build-none seconds_a_case=1 memory_mb=512; }
[ -n "${NITI_FUZZ_BUILT-}" ] || cmake -S "$root" -B "$build" -G Ninja --log-level=NOTICE -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Check \
  -DCMAKE_C_FLAGS_CHECK="-O2 -g1" -DCMAKE_C_FLAGS=-fsanitize=fuzzer-no-link -DNITI_SANITIZE="$kind" -DNITI_FUZZ=ON \
  -DNITI_TESTS=ON -DNITI_TREE_TESTS=OFF -DNITI_CUDA=OFF ${NITI_FUZZ_PREFIX:+"-DCMAKE_PREFIX_PATH=$NITI_FUZZ_PREFIX" "-DCMAKE_C_STANDARD_LIBRARIES=$NITI_FUZZ_PREFIX/lib/libz.a"}
# shellcheck disable=SC2046 # words
[ $# -gt 0 ] || set -- $(cd "$root/tests/fuzz" && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//')
# shellcheck disable=SC2046 # words
[ -n "${NITI_FUZZ_BUILT-}" ] || cmake --build "$build" -j "$(nproc)" --target $(printf 'fuzz_%s ' "$@")

memory=$(mktemp -d /dev/shm/niti-fuzz.XXXXXX 2>/dev/null || mktemp -d)
trap 'rm -rf "$memory"' EXIT
export NITI_FUZZ_DIR="$memory"
# A small quarantine and short stacks: a case then costs a third of the time, most of which went into fresh pages.
export ASAN_OPTIONS="quarantine_size_mb=4:thread_local_quarantine_size_kb=32:malloc_context_size=6:${ASAN_OPTIONS-}"
mkdir -p "$folder/found" "$folder/logs"
bad=0
for target in "$@"; do
  mkdir -p "$folder/corpus/$target"
  log=$folder/logs/$target.log
  case $target in
    yaml | model | recipe | set) dictionary=-dict=$root/tests/fuzz/yaml.dict ;;
    index | tuning) dictionary=-dict=$root/tests/fuzz/json.dict ;;
    *) dictionary=-verbosity=1 ;;
  esac
  # Fast cases are tried more often; where choosing them costs as much as the cases, all alike.
  case $target in
    dump) choice=-entropic=0 ;;
    *) choice=-entropic_scale_per_exec_time=1 ;;
  esac
  status=0
  (cd "$memory" && "$build/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout="${NITI_FUZZ_TIMEOUT:-$seconds_a_case}" -malloc_limit_mb=64 -rss_limit_mb=$memory_mb \
    -max_len=8192 -print_final_stats=1 -print_funcs=0 "$dictionary" $choice -artifact_prefix="$folder/found/$target-" \
    "$folder/corpus/$target" "$root/tests/fuzz/corpus/$target") >"$log" 2>&1 || status=$?
  rm -rf "$memory"/*
  printf '%-12s %-17s %10s runs %6s edges %5s s, peak %5s MB%s\n' "$target" "${kind:-none}" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
    "$(sed -n 's/.*cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)" "$(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "$log")" \
    "$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")" "$([ $status = 0 ] || echo ": FAILED, see $log")" | tee -a "$folder/runs"
  [ $status = 0 ] || bad=1
done
exit $bad
