#!/bin/sh
# Prints FILE with ENTRY added to its table TABLE, one line changed: tests/example/add_entry.sh FILE TABLE ENTRY
set -eu
[ "$(grep -c "^#define $2(" "$1")" = 1 ] || { echo "add_entry: $1 has no table $2" >&2; exit 1; }
sed "/^#define $2(/s/)/) $3/" "$1"
