#!/bin/sh
# Runs one folder of Python tests in the test environment: scripts/run_pytest.sh BUILD FOLDER [option of pytest]...
# A missing environment is a failure with a remedy, never a skip.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$1 folder=$2
shift 2
python=$root/build/venv/bin/python
if [ ! -x "$python" ] || [ ! -e "$root/build/venv/stamp" ]; then
  echo "$python is not there: run scripts/setup.sh test" >&2
  exit 1
fi
cd "$root"
export NITI_BUILD="$build" PYTHONDONTWRITEBYTECODE=1
set -- -p no:cacheprovider -q -rs "$folder" "$@"
# To load a library with the address sanitizer, Python has to begin with that, and leaks itself; what it starts is left as it was.
asan=$(ldd "$build/libniti.so" 2>/dev/null | sed -n 's/.*=> \(.*libasan[^ ]*\) .*/\1/p')
[ -n "$asan" ] || exec "$python" -m pytest "$@" </dev/null
LD_PRELOAD=$asan ASAN_OPTIONS=detect_leaks=0${ASAN_OPTIONS+:$ASAN_OPTIONS} exec "$python" -c 'import os, sys
del os.environ["LD_PRELOAD"]
_, *own = os.environ.pop("ASAN_OPTIONS").split(":", 1)
os.environ |= {"ASAN_OPTIONS": text for text in own}
import pytest
sys.exit(pytest.main(sys.argv[1:]))' "$@" </dev/null
