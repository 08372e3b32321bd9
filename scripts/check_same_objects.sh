#!/bin/sh
# `make test` after `make run` compiles the tests alone: the commands that compile the library and the tool must not depend on
# whether there are tests.    scripts/check_same_objects.sh FOLDER ON|OFF      the latter: with CUDA or without
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
for tests in ON OFF; do
  rm -rf "$folder"
  cmake -S "$root" -B "$folder" -G Ninja --log-level=NOTICE -DNITI_TESTS=$tests -DNITI_CUDA="$2" >/dev/null
  grep '"command"' "$folder/compile_commands.json" | grep -v "/tests/" | sort >"$folder.$tests"
done
[ -s "$folder.ON" ] || { echo "check_same_objects: no compile commands in $folder" >&2; exit 1; }
if ! diff "$folder.OFF" "$folder.ON" >"$folder.diff"; then
  echo "check_same_objects: tests change how these are compiled ($(grep -c '^>' "$folder.diff") commands):" >&2
  head -n 4 "$folder.diff" >&2
  exit 1
fi
echo "check_same_objects: $(wc -l <"$folder.ON") commands are the same with tests and without"
