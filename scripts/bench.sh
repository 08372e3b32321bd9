#!/bin/sh
# Times the published training step, the kernels and inference on every core: scripts/bench.sh [BUILD]
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}
threads=$(nproc)
for what in step kernels infer; do
  echo "== niti bench $what --backend cpu --model vgg-small-7 --batch 64 --threads $threads"
  "$build/niti" bench "$what" --backend cpu --model vgg-small-7 --batch 64 --threads "$threads"
done
