#!/bin/sh
# Installs what niti needs and this machine lacks: scripts/setup.sh [build|run|test|slow]...   (no group: build)
#   build  compiler and libraries      run  build + the Fashion-MNIST data      test  run + test tools and build/venv
#   slow   for make test-slow, coverage and memcheck: cross compilers, gcovr, Frama-C, cppcheck, clang-tidy and valgrind
#   pytorch, onednn, onnxruntime       what bench/compare_cpu.sh compares with; the last one in build/venv-onnxruntime
# Debian 12 packages through apt, as root or with sudo. Nothing is touched when nothing is missing.
set -eu
cd "$(dirname "$0")/.."

BUILD="gcc libc6-dev cmake make ninja-build pkg-config libyaml-dev libjansson-dev libjpeg62-turbo-dev libpng-dev zlib1g-dev
  libprotobuf-c-dev protobuf-c-compiler nettle-dev libopenmpi-dev openmpi-bin"
RUN="dataset-fashion-mnist python3"
# The two cross compilers are those of scripts/check_freestanding.sh and tests/export, which also emulates whole boards.
TEST="libcmocka-dev librandom123-dev python3-venv clang clang-format binutils gcc-arm-none-eabi gcc-riscv64-unknown-elf qemu-user
  qemu-system-arm qemu-system-misc iverilog strace g++ git"
# clang's runtime of sanitizers, which comes by recommendation alone, under the name of a version.
! grep -qs '^VERSION_ID="12"' /etc/os-release || TEST="$TEST libclang-rt-14-dev"
# Building and emulating for 64-bit ARM (scripts/check_arm.sh), from elsewhere.
[ "$(uname -m)" = aarch64 ] || TEST="$TEST gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
SLOW="gcc-arm-linux-gnueabihf libc6-dev-armhf-cross gcc-s390x-linux-gnu libc6-dev-s390x-cross gcc-riscv64-linux-gnu
  libc6-dev-riscv64-cross musl-tools gcovr frama-c-base cppcheck clang-tidy valgrind"
# PyTorch's products are its BLAS library's; the one that comes with it by default is not made for speed.
PYTORCH="python3 python3-yaml python3-torch libopenblas0-openmp"
ONEDNN="python3 python3-yaml g++ libdnnl-dev"
ONNXRUNTIME="python3 python3-yaml python3-venv"

fail() {
  echo "setup: $*" >&2
  exit 1
}

# The words of $* that are not installed packages.
missing() {
  for package in "$@"; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || state=
    [ "$state" = installed ] || printf '%s ' "$package"
  done
}

# Runs $* as root, or fails.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif ! command -v sudo >/dev/null; then
    return 1
  elif [ -z "${CI:-}" ] && [ -t 2 ]; then
    sudo "$@" # may ask for the password, on the terminal
  else
    sudo -n "$@"
  fi
}

install_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this is not a Debian system; install the equivalents of these packages yourself:" $* >&2
    return
  fi
  lacking=$(missing "$@")
  lacking=${lacking% }
  [ -n "$lacking" ] || return 0
  echo "setup: installing $lacking"
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    fail "cannot install packages: not root, and sudo is not there. As root: apt-get install $lacking"
  fi
  as_root apt-get update -qq </dev/null || echo "setup: apt-get update failed; trying with the package lists that are here" >&2
  # shellcheck disable=SC2086 # one word a package
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 \
    $lacking </dev/null || fail "apt-get could not install the missing packages. As root: apt-get install $lacking"
  lacking=$(missing "$@")
  [ -z "$lacking" ] || fail "still missing after apt-get install: $lacking"
}

# make_venv VENV REQUIREMENTS: VENV holds exactly that file's packages for this Python; its stamp is written last.
make_venv() {
  python=/usr/bin/python3
  [ -x "$python" ] || python=$(command -v python3) || fail "python3 is needed for $1"
  venv=$1
  mkdir -p build
  stamp=$("$python" --version && cat "$2")
  [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ] || [ ! -x "$venv/bin/python" ] || return 0
  echo "setup: making the Python environment $venv"
  rm -rf "$venv"
  "$python" -m venv "$venv" || fail "python3 -m venv failed: is the package python3-venv installed?"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -r "$2" </dev/null ||
    fail "pip could not install $2 into $venv"
  printf '%s\n' "$stamp" >"$venv/stamp"
}

# nvcc, where it is there, needs a C++ compiler.
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
  BUILD="$BUILD g++"
fi

[ $# -gt 0 ] || set -- build
packages= venv= onnxruntime=
for group in "$@"; do
  case $group in
    build) packages="$packages $BUILD" ;;
    run) packages="$packages $BUILD $RUN" ;;
    test) packages="$packages $BUILD $RUN $TEST" venv=1 ;;
    slow) packages="$packages $SLOW" ;;
    pytorch) packages="$packages $PYTORCH" ;;
    onednn) packages="$packages $ONEDNN" ;;
    onnxruntime) packages="$packages $ONNXRUNTIME" onnxruntime=1 ;;
    *) fail "unknown group '$group': build, run, test, slow, pytorch, onednn or onnxruntime" ;;
  esac
done

# Two set-ups at once in this checkout wait for each other.
mkdir -p build
if command -v flock >/dev/null; then
  exec 9>build/.setup.lock
  flock 9
fi
# shellcheck disable=SC2086 # one word a package
install_packages $packages
[ -z "$venv" ] || make_venv build/venv tests/requirements.txt
[ -z "$onnxruntime" ] || make_venv build/venv-onnxruntime bench/peers/requirements.txt
