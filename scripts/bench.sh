#!/bin/sh
# Times niti on the CPU alone, and prints each kernel's speed and tables of training steps and inference: scripts/bench.sh [BUILD]
# From the environment: KERNELS ("vgg-small-7"), MODELS ("lenet5 vgg-small-7 vgg-small-9 resnet-18"), BATCHES ("1 16 64 256"),
# INFER_BATCHES ("1 64"), THREADS ("1 2"; "1" where there is one core), SECONDS_EACH (1).
set -eu
cd "$(dirname "$0")/.."
niti=${1:-build}/niti
cores=$(nproc)
threads=${THREADS:-$([ "$cores" -gt 1 ] && echo 1 2 || echo 1)}
models=${MODELS:-lenet5 vgg-small-7 vgg-small-9 resnet-18}
seconds=${SECONDS_EACH:-1}

# A network of bench/models by its name.
model() {
  if [ -f "bench/models/$1.yaml" ]; then echo "bench/models/$1.yaml"; else echo "$1"; fi
}

# table step|infer BATCHES MODEL...
table() {
  what=$1 sizes=$2
  shift 2
  printf '\n| %s | batch | threads | images/s | ms (minimum, maximum) |\n|---|---|---|---|---|\n' "$what"
  for name in "$@"; do
    for batch in $sizes; do
      for count in $threads; do
        line=$("$niti" bench "$what" --backend cpu --model "$(model "$name")" --batch "$batch" --threads "$count" --seconds "$seconds")
        echo "$line" | sed -n "s/.*: \([0-9.]*\) images.s; \([0-9.]*\) ms (min \([0-9.]*\), max \([0-9.]*\), .*/| $name | $batch | $count | \1 | \2 (\3, \4) |/p"
      done
    done
  done
}

for name in ${KERNELS:-vgg-small-7}; do
  "$niti" bench kernels --backend cpu --model "$(model "$name")" --batch 64 --threads "$(echo "$threads" | tr ' ' '\n' | tail -n 1)"
done
# shellcheck disable=SC2086 # one word a model
table step "${BATCHES:-1 16 64 256}" $models
table infer "${INFER_BATCHES:-1 64}" vgg-small-7
