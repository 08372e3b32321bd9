#!/bin/sh
# Times niti on this CPU beside PyTorch, oneDNN and onnxruntime, in turns, and prints one table in Markdown.
#   bench/compare_cpu.sh [NITI]      NITI: the tool (default build/niti)
# Installs what the peers need (scripts/setup.sh); one that cannot be installed is said and left out.
# From the environment:
#   MODELS ("lenet5 vgg-small-7 vgg-small-9 resnet-18"), BATCHES ("1 64"), THREADS ("2", or one per core where there is one only),
#   ROUNDS (3), SECONDS_EACH (2): of training steps. The whole matrix: BATCHES="1 16 64 256" THREADS="1 2", which takes hours.
#   INFER_MODELS ("vgg-small-7"), INFER_BATCHES ("1 64"): of inference. ONEDNN_MODELS ("vgg-small-7"), AVX2_MODELS ("vgg-small-7")
#   PEERS ("pytorch onednn onnxruntime"), PYTHON (/usr/bin/python3; the one that has PyTorch)
#   BUSY=1: every training step once more while another process keeps one core busy
#   ALL=1: the training steps of all built-in networks, beside PyTorch alone: an hour
#   QUICK=1: one short round of lenet5 and vgg-small-7, to see that all works
#   OUT (build/compare_cpu.json): the measurements themselves; bench/table.py makes the table of them again
# The machine must be quiet: the peers share their work out in equal parts, so that one busy core holds all of them up.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cores=$(nproc)
niti=${1:-${NITI:-build/niti}}
python=${PYTHON:-/usr/bin/python3}
out=${OUT:-build/compare_cpu.json}
if [ -n "${QUICK:-}" ]; then
  models=${MODELS:-lenet5 vgg-small-7} batches=${BATCHES:-16} rounds=${ROUNDS:-1} seconds=${SECONDS_EACH:-0.5}
  infer_batches=${INFER_BATCHES:-1}
else
  models=${MODELS:-lenet5 vgg-small-7 vgg-small-9 resnet-18} batches=${BATCHES:-1 64} rounds=${ROUNDS:-3} seconds=${SECONDS_EACH:-2}
  infer_batches=${INFER_BATCHES:-1 64}
fi
if [ -n "${ALL:-}" ]; then
  models=${MODELS:-$(cd "$here/../models" && printf '%s ' *.yaml | sed 's/[.]yaml//g')} rounds=${ROUNDS:-1}
  PEERS=${PEERS-pytorch} INFER_MODELS=${INFER_MODELS-} AVX2_MODELS=${AVX2_MODELS-}
fi
threads=${THREADS:-$((cores < 2 ? cores : 2))}

fail() {
  echo "compare_cpu: $*" >&2
  exit 1
}

# PEER COMMAND...: adds the peer to those that are there if the command succeeds.
offer() {
  peer=$1
  shift
  case " ${PEERS-pytorch onednn onnxruntime} " in *" $peer "*) ;; *) return 0 ;; esac
  if "$@"; then
    present="$present $peer"
  else
    echo "compare_cpu: $peer cannot be had here: left out" >&2
  fi
}

has_pytorch() {
  "$python" -c 'import torch, yaml' 2>/dev/null || { "$here/../scripts/setup.sh" pytorch && "$python" -c 'import torch, yaml'; }
}

has_onednn() {
  "$here/../scripts/setup.sh" onednn &&
    g++ -O2 -std=c++17 -o "$here/../build/onednn_convs" "$here/peers/onednn_convs.cpp" -ldnnl
}

[ -x "$niti" ] || fail "$niti is not there: build niti first (make), or name the tool: bench/compare_cpu.sh NITI"
command -v "$python" >/dev/null || fail "$python is not there: PYTHON names a Python 3"
present=
mkdir -p "$here/../build"
offer pytorch has_pytorch
offer onednn has_onednn
offer onnxruntime "$here/../scripts/setup.sh" onnxruntime
"$python" -c 'import yaml' 2>/dev/null || fail "$python has no PyYAML (Debian: python3-yaml)"

# shellcheck disable=SC2086 # one word a model, a batch, ...
exec "$python" "$here/compare_cpu.py" --niti "$niti" --out "$out" --rounds "$rounds" --seconds "$seconds" --models $models \
  --batches $batches --threads $threads --infer-models ${INFER_MODELS-vgg-small-7} --infer-batches $infer_batches \
  --onednn-models ${ONEDNN_MODELS-vgg-small-7} --avx2-models ${AVX2_MODELS-vgg-small-7} --peers $present \
  ${BUSY:+--busy} --onednn "$here/../build/onednn_convs" --venv "$here/../build/venv-onnxruntime"
