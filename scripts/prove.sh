#!/bin/sh
# Proves with Frama-C's abstract interpreter that tests/proof/scalars.c has no undefined operation, whatever the scalars, and that its
# assertions hold: scripts/prove.sh. Exits with 77 (skipped) where Frama-C is not there.
set -eu
cd "$(dirname "$0")/.."
command -v frama-c >/dev/null || { echo "prove: skipped: frama-c is not there: run scripts/setup.sh slow"; exit 77; }
log=$(frama-c -eva -eva-precision 7 -machdep gcc_x86_64 -cpp-extra-args="-Iinclude -Isrc" -warn-signed-overflow -eva-no-print tests/proof/scalars.c)
printf '%s\n' "$log" | sed -n '/ANALYSIS SUMMARY/,$p'
if printf '%s\n' "$log" | grep -A4 'eva:alarm\|got status unknown\|got status invalid'; then exit 1; fi
printf '%s\n' "$log" | grep -q '100% of the logical properties\|No logical properties' || exit 1
