#!/bin/sh
# The main job: trains a small network with batch norm on Fashion-MNIST into a fresh run directory, then shows what was learned.
#   scripts/run.sh [BUILD] [option of `niti train`]...
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}
[ $# -eq 0 ] || shift
recipe=conv3-bn-fashion-mnist

# mkdir claims the name, so that two runs started together part ways.
mkdir -p runs
stamp=$(date +%Y%m%d-%H%M%S)
folder=runs/$stamp
i=2
until mkdir "$folder" 2>/dev/null; do
  [ -w runs ] || { echo "run: cannot write in $PWD/runs" >&2; exit 1; }
  folder=runs/$stamp-$i
  i=$((i + 1))
done
run=$folder/$recipe

"$build/niti" train "$recipe" --run "$run" "$@"

echo
echo "== $run/metrics.csv"
awk -F, '
  NR == 1 { for (i = 1; i <= NF; ++i) if ($i ~ /^(epoch|train_loss|train_accuracy|test_loss|test_accuracy|images_per_second)$/) column[++count] = i }
  { for (i = 1; i <= count; ++i) printf "%-18s", $column[i]; print "" }' "$run/metrics.csv"

# The tool reads image files and the data set is one file of pixels, so ten of its test images are written as PNG first.
images=/usr/share/datasets/fashion-mnist
if [ -d $images ] && command -v python3 >/dev/null; then
  echo
  echo "== niti predict $run/best.safetensors, the first ten test images (their true class is in the file's name)"
  python3 scripts/idx_to_png.py $images "$run/samples" 10
  "$build/niti" predict "$run/best.safetensors" "$run"/samples/*.png --top 3
fi
