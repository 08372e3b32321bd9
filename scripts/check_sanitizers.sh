#!/bin/sh
# Builds the unit tests with the address and undefined-behaviour sanitizers and with assertions (NDEBUG undefined), and runs them:
# scripts/check_sanitizers.sh FOLDER
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
cmake -S "$root" -B "$folder" -G Ninja --log-level=NOTICE -DCMAKE_BUILD_TYPE=Check -DCMAKE_C_FLAGS_CHECK="-O2 -g1" \
  -DNITI_SANITIZE=address,undefined -DNITI_TESTS=ON -DNITI_TREE_TESTS=OFF -DNITI_CUDA=OFF
cmake --build "$folder" -j "$(nproc)"
ctest --test-dir "$folder" --output-on-failure --no-tests=error -j "$(nproc)" -LE slow --timeout 600
