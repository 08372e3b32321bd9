#!/bin/sh
# Times niti's training step on a CUDA device beside PyTorch's, in turns, and prints one table.
#   bench/compare_cuda.sh [NITI]      NITI: the tool (default build/niti)
# From the environment: MODEL (vgg-small-7), BATCHES ("1024 256"), ROUNDS (3), SECONDS_EACH (5), DEVICE (cuda:0), PYTHON (python3;
# the one that has PyTorch), MODES (of peers/pytorch_step.py: "tf32-graph bf16-graph compiled-graph"), OUT (a folder for the
# measurements themselves as JSON; default: not kept).
# Each round measures niti at every batch, then PyTorch at every batch. A figure is the median of the rounds' medians.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
niti=${1:-${NITI:-build/niti}}
model=${MODEL:-vgg-small-7} batches=${BATCHES:-1024 256} rounds=${ROUNDS:-3} seconds=${SECONDS_EACH:-5}
device=${DEVICE:-cuda:0} python=${PYTHON:-python3} modes=${MODES:-tf32-graph bf16-graph compiled-graph}

fail() {
  echo "compare_cuda: $*" >&2
  exit 1
}

case $device in cuda | cuda:[0-9]*) ;; *) fail "DEVICE is cuda or cuda:N, not '$device'" ;; esac
case $rounds in '' | *[!0-9]* | 0) fail "ROUNDS is a number from 1, not '$rounds'" ;; esac
[ -x "$niti" ] || fail "$niti is not there: build niti first (make CUDA=ON), or name the tool: bench/compare_cuda.sh NITI"
refusal=$("$niti" info --backend "$device" 2>&1 >/dev/null) || fail "needs a CUDA device: ${refusal#niti: }"
command -v "$python" >/dev/null || fail "$python is not there: PYTHON names a Python with PyTorch"
"$python" -c 'import torch, yaml' 2>/dev/null || fail "$python has no PyTorch or no PyYAML: PYTHON names one that has both"
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || fail "the PyTorch of $python sees no CUDA device"

out=${OUT:-}
if [ -z "$out" ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
fi
mkdir -p "$out"
rm -f "$out"/niti-*.json "$out"/pytorch-*.json

round=1
while [ "$round" -le "$rounds" ]; do
  echo "round $round of $rounds" >&2
  for batch in $batches; do
    "$niti" bench step --backend "$device" --model "$model" --batch "$batch" --seconds "$seconds" --json \
      >"$out/niti-$batch-$round.json" || fail "niti bench failed"
  done
  # a mode that PyTorch cannot measure is said on standard error and missing from the table
  # shellcheck disable=SC2086 # one word a batch, a mode
  "$python" "$here/peers/pytorch_step.py" --device "$device" --model "$model" --batch $batches --modes $modes \
    --seconds "$seconds" --json >"$out/pytorch-$round.json" || [ -s "$out/pytorch-$round.json" ] || fail "pytorch_step.py failed"
  round=$((round + 1))
done

"$python" - "$out" <<'PYTHON'
import json
import pathlib
import statistics
import subprocess
import sys


def line_of(*command, word=""):
    """The first line with the word among those that the command prints."""
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        lines = []
    return next((line.strip() for line in lines if word in line), "not known")


def load(pattern):
    return [json.loads(path.read_text()) for path in sorted(pathlib.Path(sys.argv[1]).glob(pattern))]


def figures(results):
    """Images/s and milliseconds of the rounds: median (min to max), median."""
    rates = [r["images_per_second"] for r in results]
    times = [r["milliseconds"]["median"] for r in results]
    rate = statistics.median(rates)
    return rate, f"{rate:,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) | {statistics.median(times):.3f}"


ours, peers = load("niti-*.json"), load("pytorch-*.json")
peer = peers[0]
print(f"{ours[0]['model']}, training step; medians of {len(peers)} rounds in turns (min to max)")
print(f"niti: {ours[0]['device']}; nvcc: {line_of('nvcc', '--version', word='release')}")
print(f"PyTorch {peer['torch']} (CUDA {peer['cuda']}, cuDNN {peer['cudnn']}), weights {peer['weights']}: {peer['device']}")
smi = line_of("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader")
print(f"nvidia-smi (name, driver, memory, highest clock): {smi}\n")
print("| batch | | images/s | ms | niti is faster by |\n|---|---|---|---|---|")
for batch in dict.fromkeys(r["batch"] for r in ours):
    rate, text = figures([r for r in ours if r["batch"] == batch])
    print(f"| {batch} | niti | {text} | |")
    results = [r for p in peers for r in p["results"] if r["batch"] == batch]
    for mode in dict.fromkeys(r["mode"] for r in results):
        peer_rate, text = figures([r for r in results if r["mode"] == mode])
        print(f"| {batch} | PyTorch {mode} | {text} | {rate / peer_rate:.2f} |")
PYTHON
