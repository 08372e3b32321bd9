#!/bin/sh
# Builds niti for 64-bit ARM and runs the tests of its kernels in an emulated processor: scripts/check_arm.sh FOLDER
# The libraries are Debian's for that architecture, unpacked in FOLDER/root: nothing is installed, the machine's package lists stay
# as they are. Exits with 77 (skipped) where the emulator or those packages cannot be had.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
libraries=$folder/root/usr/lib/aarch64-linux-gnu
PACKAGES="libyaml-dev libyaml-0-2 libjansson-dev libjansson4 libjpeg62-turbo-dev libjpeg62-turbo libpng-dev libpng16-16 zlib1g-dev zlib1g
  libprotobuf-c-dev libprotobuf-c1 libmd-dev libmd0 libcmocka-dev libcmocka0"

skip() {
  echo "check_arm: skipped: $*"
  exit 77
}

# Downloads and unpacks PACKAGES, with lists and a cache of their own; the stamp is written last.
fetch() {
  stamp="$PACKAGES $(sha256sum <"$0")"
  [ "$(cat "$folder/root.stamp" 2>/dev/null)" != "$stamp" ] || return 0
  rm -rf "$folder/root" "$folder/apt"
  mkdir -p "$libraries" "$folder/apt/state/lists/partial" "$folder/apt/cache/archives/partial"
  : >"$folder/apt/status"
  cd "$folder/apt"
  apt="apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State=$folder/apt/state -o Dir::State::status=$folder/apt/status
    -o Dir::Cache=$folder/apt/cache -o APT::Sandbox::User=$(id -un) -o Acquire::http::Timeout=20 -o Acquire::Languages=none"
  # shellcheck disable=SC2086 # words
  $apt update >log 2>&1 || true # some list may be out of reach that is not needed
  # shellcheck disable=SC2086 # words
  $apt download $PACKAGES >>log 2>&1 || skip "cannot get Debian's packages for arm64: $(tail -n 1 log)"
  for package in *.deb; do dpkg-deb -x "$package" "$folder/root"; done
  # Some are in /lib, to which links in /usr/lib point.
  [ ! -d "$folder/root/lib/aarch64-linux-gnu" ] || cp -a "$folder/root/lib/aarch64-linux-gnu/." "$libraries"
  find "$libraries" -maxdepth 1 -lname '/*' | while IFS= read -r link; do
    ln -sf "$(basename "$(readlink "$link")")" "$link"
  done
  cd "$root"
  rm -rf "$folder/apt"
  printf '%s\n' "$stamp" >"$folder/root.stamp"
}

[ "$(uname -m)" != aarch64 ] || skip "this machine runs these tests itself"
for tool in aarch64-linux-gnu-gcc qemu-aarch64 apt-get dpkg-deb; do
  command -v $tool >/dev/null || skip "$tool is not there: run scripts/setup.sh test"
done
fetch

emulator="qemu-aarch64;-L;/usr/aarch64-linux-gnu;-E;LD_LIBRARY_PATH=$libraries"
PKG_CONFIG_LIBDIR="$libraries/pkgconfig:$folder/root/usr/share/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$folder/root" cmake -S "$root" \
  -B "$folder/build" -G Ninja --log-level=NOTICE -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_FIND_ROOT_PATH="$folder/root" -DCMAKE_FIND_ROOT_PATH_MODE_PROGRAM=NEVER \
  -DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY -DCMAKE_LIBRARY_ARCHITECTURE=aarch64-linux-gnu \
  -DCMAKE_C_FLAGS="-isystem $folder/root/usr/include/aarch64-linux-gnu" -DCMAKE_CROSSCOMPILING_EMULATOR="$emulator;-cpu;max" -DCMAKE_BUILD_TYPE=Check -DCMAKE_C_FLAGS_CHECK=-O2 -DNITI_WERROR=ON \
  -DNITI_TESTS=ON -DNITI_TREE_TESTS=OFF -DNITI_CUDA=OFF
cmake --build "$folder/build" -j "$(nproc)" --target niti test_kernels test_loops test_norm test_conv test_ops

# The tool, emulated: $1 is the processor.
emulate() {
  processor=$1
  shift
  qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$libraries" -cpu "$processor" "$folder/build/niti" "$@"
}

# The best kernels of three processors: one without sdot, one with it, one with smmla too.
bad=0
for expected in cortex-a57:ref neoverse-n1:neon-dotprod max:neon-i8mm; do
  told=$(emulate "${expected%:*}" info --backend cpu --threads 1 | sed -n 's/^device  *//p')
  case $told in
    "cpu, ${expected#*:} kernels, "*) ;;
    *) echo "check_arm: ${expected%:*}: '$told', expected ${expected#*:} kernels" >&2; bad=1 ;;
  esac
done

# Whole runs against the oracle, beside the unit tests, the longest of which fills one core.
mkdir -p "$folder/tool"
cat >"$folder/tool/niti" <<TOOL
#!/bin/sh
exec qemu-aarch64 -L /usr/aarch64-linux-gnu -E "LD_LIBRARY_PATH=$libraries" -cpu max "$folder/build/niti" "\$@"
TOOL
chmod +x "$folder/tool/niti"
"$root/scripts/run_pytest.sh" "$folder/tool" "$root/tests/oracle/test_against_niti.py" -k "dotprod-3 or i8mm-3" >"$folder/runs.log" 2>&1 &
runs=$!
ctest --test-dir "$folder/build" --output-on-failure --no-tests=error -j "$(nproc)" --timeout 600 -R '^test_(kernels|loops|norm|conv|ops)$' || bad=1
wait $runs || bad=1
cat "$folder/runs.log"
! grep -q skipped "$folder/runs.log" || { echo "check_arm: the emulated tool lacks kernels" >&2; bad=1; }
exit $bad
