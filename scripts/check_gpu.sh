#!/bin/sh
# Runs the device tests under compute-sanitizer: scripts/check_gpu.sh BUILD TOOL   (memcheck, racecheck, initcheck or synccheck)
# Calls that fail are not reported: a test asks for more memory than there is.
# NITI_TEST_SHARE: run one case in this many (default 16). Left out: test_cuda_failure, which goes wrong on purpose.
set -eu
build=$1 tool=$2
share=${NITI_TEST_SHARE:-16}
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
[ -x "$sanitizer" ] || { echo "check_gpu: compute-sanitizer is not there (part of the CUDA toolkit)" >&2; exit 1; }
options=
[ "$tool" != memcheck ] || options="--report-api-errors no"
for test in test_cuda test_cuda_conv test_cuda_norm test_cuda_network; do
  echo "== $tool: $test"
  # shellcheck disable=SC2086 # a word an option
  NITI_TEST_GPU=1 NITI_TEST_SHARE=$share "$sanitizer" --tool "$tool" $options --error-exitcode 9 "$build/tests/$test"
done
echo "check_gpu: $tool found nothing"
