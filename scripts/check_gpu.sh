#!/bin/sh
# Runs the device tests under compute-sanitizer: scripts/check_gpu.sh BUILD TOOL   (memcheck, racecheck, initcheck or synccheck)
# Calls that fail are not reported: a test asks for more memory than there is. Left out: test_cuda_failure, which goes wrong on purpose.
# NITI_TEST_SHARE: run one case in this many (default 16).
# NITI_TEST_PARTS=N: instead run all cases, those of each test in N processes, NITI_TEST_JOBS at a time (default: one per core);
# BUILD/check_gpu holds what each of them printed.
set -eu
build=$1 tool=$2
share=${NITI_TEST_SHARE:-16} parts=${NITI_TEST_PARTS:-0} jobs=${NITI_TEST_JOBS:-$(nproc)}
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
[ -x "$sanitizer" ] || { echo "check_gpu: compute-sanitizer is not there (part of the CUDA toolkit)" >&2; exit 1; }
options=
[ "$tool" != memcheck ] || options="--report-api-errors no"
export NITI_TEST_GPU=1
# Blocks may wait for each other only where the runtime knows how many run at once; the tools' additions to kernels it does not know.
export NITI_CUDA_MEETINGS="${NITI_CUDA_MEETINGS:-off}"
tests="test_cuda test_cuda_conv test_cuda_norm test_cuda_norm_pool test_cuda_sgd test_cuda_network"

checked() { # SHARE TEST
  # shellcheck disable=SC2086 # a word an option
  NITI_TEST_SHARE=$1 "$sanitizer" --tool "$tool" $options --error-exitcode 9 "$build/tests/$2"
}

if [ "${3-}" = --part ]; then # one of the processes below: PART/PARTS TEST
  log=$build/check_gpu/$tool-$5-${4%/*}
  checked "$4" "$5" >"$log" 2>&1 && echo good >"$log.good"
  exit
fi

if [ "$parts" -lt 2 ]; then
  for test in $tests; do
    echo "== $tool: $test"
    checked "$share" "$test"
  done
  echo "check_gpu: $tool found nothing"
  exit
fi

logs=$build/check_gpu
mkdir -p "$logs"
rm -f "$logs/$tool-"*
echo "== $tool: $tests, $parts parts each, $jobs at a time"
bad=0
for test in $tests; do
  part=0
  while [ "$part" -lt "$parts" ]; do
    echo "$part/$parts $test"
    part=$((part + 1))
  done
done | xargs -P "$jobs" -L 1 "$0" "$build" "$tool" --part || bad=1
for test in $tests; do
  part=0
  while [ "$part" -lt "$parts" ]; do
    [ -e "$logs/$tool-$test-$part.good" ] || { echo "check_gpu: $logs/$tool-$test-$part failed" >&2; bad=1; }
    part=$((part + 1))
  done
done
echo "== $tool: test_cuda_network, what takes the device's memory"
checked 1000000 test_cuda_network || bad=1
[ "$bad" = 0 ] && echo "check_gpu: $tool found nothing"
exit "$bad"
