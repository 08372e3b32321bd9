#!/bin/sh
# Formats every C, C++ and CUDA file by .clang-format: scripts/format.sh; with --check it changes nothing and fails where one would change.
# Versions of clang-format differ: it takes Debian 12's, 14, and --check skips (exit code 77) without it.
set -eu
cd "$(dirname "$0")/.."
for tool in clang-format-14 clang-format none; do
  if command -v $tool >/dev/null && $tool --version | grep -q 'version 14[.]'; then break; fi
done
if [ $tool = none ]; then
  echo "format: clang-format 14 is not installed (Debian 12: apt-get install clang-format)" >&2
  [ "${1-}" = --check ] && exit 77
  exit 1
fi
[ "${1-}" = --check ] && set -- --dry-run -Werror || set -- -i
find bench cli include src tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' | xargs $tool "$@"
