#!/bin/sh
# The library and the tool, vector kernels apart, also compile where pointers have 32 bits and there is no __int128: scripts/check_32_bits.sh
# BUILD, which has generated headers. clang parses them for i386 with this machine's headers; `processors` in make test-slow runs such builds.
set -eu
cd "$(dirname "$0")/.."
build=$1
command -v clang >/dev/null || { echo "check_32_bits: clang is not there: run scripts/setup.sh test" >&2; exit 1; }
headers=$(mktemp -d)
trap 'rm -rf "$headers"' EXIT
mkdir "$headers/gnu"
: >"$headers/gnu/stubs-32.h" # glibc's list of missing functions, which belongs to another package
bad=0
for file in src/*/*.c src/backend/cpu/*.c src/backend/cpu/ref/*.c cli/*.c; do
  clang --target=i386-linux-gnu -std=gnu11 -fsyntax-only -Wall -Wextra -Werror -DNITI_LIBRARY_FOLDER='"lib"' -isystem "$headers" \
    -isystem "/usr/include/$(uname -m)-linux-gnu" -isystem /usr/include/libpng16 -Iinclude -Isrc -I"$build" -I"$build/proto" "$file" || bad=1
done
exit $bad
