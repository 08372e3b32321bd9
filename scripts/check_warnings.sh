#!/bin/sh
# Compiles everything with one compiler and no warning allowed: scripts/check_warnings.sh COMPILER FOLDER
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
compiler=$1 folder=$2
command -v "$compiler" >/dev/null || { echo "check_warnings: $compiler is not there: run scripts/setup.sh test" >&2; exit 1; }
cmake -S "$root" -B "$folder" -G Ninja --log-level=NOTICE -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Check \
  -DCMAKE_C_FLAGS_CHECK="${3:--O2}" -DNITI_WERROR=ON -DNITI_TESTS=ON -DNITI_TREE_TESTS=OFF -DNITI_CUDA=OFF
cmake --build "$folder" -j "$(nproc)" -- -k 0
