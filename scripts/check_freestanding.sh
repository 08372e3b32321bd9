#!/bin/sh
# Builds src/base as a microcontroller would, without a C library or its headers, for this machine, Cortex-M0 and RV32; links and
# runs tests/freestanding with it (emulated where it must be), and compares what the processors compute.
#   scripts/check_freestanding.sh FOLDER
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
WARNINGS="-Wall -Wextra -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror"

# build NAME COMPILER FLAG...: the program FOLDER/NAME. libgcc is part of the compiler: divisions that a processor lacks. Only the
# compiler's own headers are found.
build() {
  name=$1 compiler=$2
  shift 2
  command -v "$compiler" >/dev/null || { echo "check_freestanding: $compiler is not there: run scripts/setup.sh test" >&2; exit 1; }
  # shellcheck disable=SC2086 # words
  "$compiler" -std=c11 -O2 -ffreestanding -nostdlib -static -nostdinc -isystem "$("$compiler" -print-file-name=include)" $WARNINGS \
    "$@" -I "$root/include" -I "$root/src" "$root"/src/base/*.c "$root/tests/freestanding/main.c" -lgcc -o "$folder/$name"
}

# run NAME [EMULATOR]: prints its digest.
run() {
  if [ $# = 2 ]; then
    command -v "$2" >/dev/null || { echo "check_freestanding: $2 is not there: run scripts/setup.sh test" >&2; exit 1; }
  fi
  ${2:-} "$folder/$1"
}

build native "${CC:-cc}" -fno-stack-protector
build cortex-m0 arm-none-eabi-gcc -mcpu=cortex-m0 -mthumb
build rv32 riscv64-unknown-elf-gcc -march=rv32imac -mabi=ilp32 -Wl,--no-relax # nothing sets gp, which relaxation reads
digest=$(run native)
bad=0
for other in cortex-m0:qemu-arm rv32:qemu-riscv32; do
  got=$(run "${other%:*}" "${other#*:}")
  [ "${#got}" = 16 ] && [ "$got" = "$digest" ] || { echo "check_freestanding: ${other%:*} computes '$got', this machine '$digest'" >&2; bad=1; }
done
[ $bad != 0 ] || echo "check_freestanding: three processors compute $digest"
exit $bad
