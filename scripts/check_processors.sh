#!/bin/sh
# Trains small networks on emulated processors and compares them with this machine's:
#   scripts/check_processors.sh NITI FOLDER [ARCHITECTURE...]     (armhf s390x riscv64 gcc-O0 clang-O0 clang-O3 musl; also arm64)
# NITI is this machine's tool. Each architecture's tool must end with the same hashes, continue this machine's runs and have its own
# continued here, and pass the tests of files and arithmetic. COMPILER-On is this machine with that compiler and optimisation, musl its
# processor with that C library, for which Debian has none of the other libraries: the proofs of src/base alone. Exits with 77 (skipped) where no architecture can be had.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
niti=$(realpath "$1")
mkdir -p "$2"
folder=$(cd "$2" && pwd)
shift 2
[ $# -gt 0 ] || set -- armhf s390x riscv64 gcc-O0 clang-O0 clang-O3 musl
work=$folder/work
rm -rf "$work"
mkdir -p "$work/idx" "$work/npy"

python3 - "$work" <<'DATA'
import random, struct, sys
work = sys.argv[1]
random.seed(1)
def idx(path, dims, values):
    open(f"{work}/idx/{path}", "wb").write(struct.pack(">I", 0x800 | len(dims)) + b"".join(struct.pack(">I", d) for d in dims) + bytes(values))
def npy(path, descr, dims, values, code):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {dims}, }}".ljust(117) + "\n"
    open(f"{work}/npy/{path}", "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + struct.pack(f"<{len(values)}{code}", *values))
for name, word, count in (("train", "train", 48), ("t10k", "test", 16)):
    labels = [i * 7 % 3 for i in range(count)]
    idx(f"{name}-images-idx3-ubyte", (count, 12, 12), [(random.randrange(256) + 80 * labels[i // 144]) % 256 for i in range(144 * count)])
    idx(f"{name}-labels-idx1-ubyte", (count,), labels)
    npy(f"{word}_x.npy", "<i2", (count, 16, 2), [random.randrange(-32768, 32768) for i in range(32 * count)], "h")
    npy(f"{word}_y.npy", "<i8", (count,), labels, "q")
DATA
cat >"$work/niti.yaml" <<'RECIPE'
name: niti
model:
  name: net
  input: [12, 12, 1]
  classes: 3
  layers:
    - conv: {out: 8, kernel: 3, padding: 1}
    - relu
    - maxpool: {kernel: 2}
    - residual: {body: [{conv: {out: 8, kernel: 3, padding: 1}}, relu]}
    - avgpool: {kernel: 2}
    - flatten
    - dropout: {rate: 0.3}
    - linear: {out: classes}
data: {pad: 1, crop: random, flip: true, mean: auto, std: auto, validation: 25%}
batch: 6
epochs: 2
rounding: {activation: pseudo-stochastic, error: stochastic}
RECIPE
cat >"$work/sgd.yaml" <<'RECIPE'
name: sgd
model:
  name: net
  input: [12, 12, 1]
  classes: 3
  layers:
    - conv: {out: 8, kernel: 3, padding: 1}
    - norm
    - relu: {max: 6}
    - conv: {out: 8, kernel: 3, stride: 2, padding: 1, groups: channels, bias: true}
    - norm
    - relu
    - conv: {out: 16, kernel: 1}
    - global-avgpool
    - linear: {out: classes, bias: true}
batch: 8
epochs: 2
loss: softmax
label_smoothing: 0.1
update: {kind: sgd, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.0005}
RECIPE
cat >"$work/arrays.yaml" <<'RECIPE'
name: arrays
model: {name: net, input: [1, 16, 2], classes: 3, layers: [{conv: {out: 8, kernel: [1, 3]}}, relu, flatten, {linear: {out: classes}}]}
batch: 8
epochs: 2
RECIPE

# configure_here COMPILER On: as scripts/cross_configure.sh does for another processor.
configure_here() {
  cmake -S "$root" -B "$folder/$1-$2/build" -G Ninja --log-level=NOTICE -DCMAKE_C_COMPILER="$1" -DCMAKE_BUILD_TYPE=Check \
    -DCMAKE_C_FLAGS_CHECK="-$2" -DNITI_TESTS=ON -DNITI_TREE_TESTS=OFF -DNITI_CUDA=OFF
  printf '#!/bin/sh\nexec "$@"\n' >"$folder/$1-$2/emulate"
  chmod +x "$folder/$1-$2/emulate"
}

data_of() { [ "$1" = arrays ] && echo "$work/npy" || echo "$work/idx"; }
# train RECIPE RUN TOOL...
train() {
  recipe=$1 run=$2
  shift 2
  tool=$1
  shift
  # shellcheck disable=SC2086 # words
  $tool train "$work/$recipe.yaml" --data "$(data_of "$recipe")" --run "$run" --threads 1 --quiet "$@" >/dev/null
}
hash() { "$niti" hash "$1/last.safetensors" | cut -d' ' -f1; }

# extend RUN TOOL...: by a second epoch.
extend() {
  run=$1
  shift
  # shellcheck disable=SC2086 # words
  $1 train --resume "$run" --epochs 2 --threads 1 --quiet >/dev/null
}
# expect ARCHITECTURE RECIPE RUN WHAT: the hash must be that of this machine's run.
expect() {
  [ "$(hash "$3")" = "$(hash "$work/$2")" ] || {
    echo "check_processors: $1: $2: $4 has hash $(hash "$3"), expected $(hash "$work/$2")" >&2
    bad=1
  }
}

for recipe in niti sgd arrays; do
  train $recipe "$work/$recipe" "$niti"
  train $recipe "$work/$recipe-half" "$niti" --epochs 1
done
bad=0 done=0
for architecture in "$@"; do
  status=0
  if [ "$architecture" = musl ]; then
    command -v musl-gcc >/dev/null || continue
    musl-gcc -std=gnu11 -O2 -static -I"$root/include" -I"$root/src" "$root/tests/proof/enumerate.c" -o "$folder/enumerate-musl"
    "$folder/enumerate-musl" quick || bad=1
    done=$((done + 1))
    continue
  fi
  case $architecture in
    gcc-O* | clang-O*) configure_here "${architecture%-O*}" "O${architecture#*-O}" ;;
    *) "$root/scripts/cross_configure.sh" "$architecture" "$folder/$architecture" || status=$? ;;
  esac
  [ $status != 77 ] || continue
  [ $status = 0 ] || exit $status
  cmake --build "$folder/$architecture/build" -j "$(nproc)" --target niti test_sha256 test_io_checkpoint test_io test_arrays enumerate
  there="$folder/$architecture/emulate $folder/$architecture/build/niti"
  for recipe in niti sgd arrays; do
    base=$work/$recipe-$architecture
    train $recipe "$base" "$there"
    expect "$architecture" $recipe "$base" "its run"
    cmp "$work/$recipe/last.safetensors" "$base/last.safetensors" || bad=1
    train $recipe "$base-half" "$there" --epochs 1
    extend "$base-half" "$niti"
    expect "$architecture" $recipe "$base-half" "its run, continued here,"
    cp -a "$work/$recipe-half" "$base-other"
    extend "$base-other" "$there"
    expect "$architecture" $recipe "$base-other" "the run from here, continued there,"
  done
  for test in test_sha256 test_io_checkpoint test_io test_arrays "enumerate quick"; do
    # shellcheck disable=SC2086 # words
    "$folder/$architecture/emulate" "$folder/$architecture/build/tests/"$test || bad=1
  done
  done=$((done + 1))
done
[ $done -gt 0 ] || exit 77
exit $bad
