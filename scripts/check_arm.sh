#!/bin/sh
# Builds niti for 64-bit ARM and runs the tests of its kernels in an emulated processor: scripts/check_arm.sh FOLDER
# Exits with 77 (skipped) where the emulator or the libraries for that processor cannot be had (scripts/cross_configure.sh).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)

[ "$(uname -m)" != aarch64 ] || {
  echo "check_arm: skipped: this machine runs these tests itself"
  exit 77
}
"$root/scripts/cross_configure.sh" arm64 "$folder"
export QEMU_CPU=max # the processor that qemu-aarch64 emulates
units="kernels loops norm conv ops pool input loss update backend"
# shellcheck disable=SC2046,SC2086 # words
cmake --build "$folder/build" -j "$(nproc)" --target niti $(printf 'test_%s ' $units)

# The best kernels of three processors: one without sdot, one with it, one with smmla too.
bad=0
for expected in cortex-a57:ref neoverse-n1:neon-dotprod max:neon-i8mm; do
  told=$(QEMU_CPU=${expected%:*} "$folder/emulate" "$folder/build/niti" info --backend cpu --threads 1 | sed -n 's/^device  *//p')
  case $told in
    "cpu, ${expected#*:} kernels, "*) ;;
    *) echo "check_arm: ${expected%:*}: '$told', expected ${expected#*:} kernels" >&2; bad=1 ;;
  esac
done

# Whole runs against the oracle, beside the unit tests, the longest of which fills one core.
mkdir -p "$folder/tool"
cat >"$folder/tool/niti" <<TOOL
#!/bin/sh
exec "$folder/emulate" "$folder/build/niti" "\$@"
TOOL
chmod +x "$folder/tool/niti"
"$root/scripts/run_pytest.sh" "$folder/tool" "$root/tests/oracle/test_against_niti.py" -k "dotprod-3 or i8mm-3" >"$folder/runs.log" 2>&1 &
runs=$!
ctest --test-dir "$folder/build" --output-on-failure --no-tests=error -j "$(nproc)" --timeout 600 -R "^test_($(echo "$units" | tr ' ' '|'))\$" || bad=1
wait $runs || bad=1
cat "$folder/runs.log"
! grep -q skipped "$folder/runs.log" || { echo "check_arm: the emulated tool lacks kernels" >&2; bad=1; }
exit $bad
