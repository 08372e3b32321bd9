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
NITI_BUILD=$build PYTHONDONTWRITEBYTECODE=1 exec "$python" -m pytest -p no:cacheprovider -q -rs "$folder" "$@" </dev/null
