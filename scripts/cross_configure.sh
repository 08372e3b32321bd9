#!/bin/sh
# Configures a build of niti for another processor, with Debian's cross compiler and Debian's libraries for it:
#   scripts/cross_configure.sh ARCHITECTURE FOLDER [CMAKE OPTION...]      (arm64, armhf, s390x or riscv64)
# The build is FOLDER/build, the program that runs its programs FOLDER/emulate. The libraries are unpacked in FOLDER/root: nothing
# is installed, the machine's package lists stay as they are. Exits with 77 (skipped) where a tool or those packages cannot be had.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
architecture=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
shift 2
PACKAGES="libyaml-dev libyaml-0-2 libjansson-dev libjansson4 libjpeg62-turbo-dev libjpeg62-turbo zlib1g-dev zlib1g
  libprotobuf-c-dev libprotobuf-c1 nettle-dev libcmocka-dev libcmocka0 libpng-dev"
BOOKWORM="libpng16-16 libnettle8" # other names in Debian 13
suite= sysroot= flags= group=slow
case $architecture in
  arm64) triplet=aarch64-linux-gnu processor=aarch64 group=test PACKAGES="$PACKAGES $BOOKWORM" ;;
  armhf) triplet=arm-linux-gnueabihf processor=arm PACKAGES="$PACKAGES $BOOKWORM" flags="-D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64" ;;
  s390x) triplet=s390x-linux-gnu processor=s390x PACKAGES="$PACKAGES $BOOKWORM" ;;
  riscv64) # Debian 13 is the first that has it; its libraries need its own C library
    triplet=riscv64-linux-gnu processor=riscv64 PACKAGES="$PACKAGES libpng16-16t64 libnettle8t64 libc6 libc6-dev linux-libc-dev libgcc-s1" suite=trixie ;;
  *) echo "cross_configure: '$architecture': arm64, armhf, s390x or riscv64 expected" >&2; exit 1 ;;
esac
libraries=$folder/root/usr/lib/$triplet

skip() {
  echo "cross_configure: skipped: $*"
  exit 77
}

# Downloads and unpacks PACKAGES, with lists and a cache of their own; the stamp is written last.
fetch() {
  stamp="$PACKAGES $suite $(sha256sum <"$0")"
  [ "$(cat "$folder/root.stamp" 2>/dev/null)" != "$stamp" ] || return 0
  rm -rf "$folder/root" "$folder/apt"
  mkdir -p "$libraries" "$folder/apt/state/lists/partial" "$folder/apt/cache/archives/partial"
  : >"$folder/apt/status"
  cd "$folder/apt"
  apt="apt-get -qq -o APT::Architecture=$architecture -o APT::Architectures=$architecture -o Dir::State=$folder/apt/state
    -o Dir::State::status=$folder/apt/status -o Dir::Cache=$folder/apt/cache -o APT::Sandbox::User=$(id -un) -o Acquire::http::Timeout=20
    -o Acquire::Languages=none"
  if [ -n "$suite" ]; then
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >sources.list
    apt="$apt -o Dir::Etc::SourceList=$folder/apt/sources.list -o Dir::Etc::SourceParts=/dev/null"
  fi
  # apt waits for ever where the disk is full.
  # shellcheck disable=SC2086 # words
  timeout 120 $apt update >log 2>&1 || true # some list may be out of reach that is not needed
  # shellcheck disable=SC2086 # words
  timeout 120 $apt download $PACKAGES >>log 2>&1 || skip "cannot get Debian's packages for $architecture: $(tail -n 1 log)"
  for package in *.deb; do dpkg-deb -x "$package" "$folder/root"; done
  # Some are in /lib, to which links in /usr/lib point.
  if [ -d "$folder/root/lib" ]; then
    cp -a "$folder/root/lib/." "$folder/root/usr/lib"
    rm -rf "$folder/root/lib"
  fi
  find "$libraries" -maxdepth 1 -lname '/*' | while IFS= read -r link; do
    ln -sf "$(basename "$(readlink "$link")")" "$link"
  done
  ln -sfn usr/lib "$folder/root/lib"
  [ ! -d /usr/include/Random123 ] || ln -sfn /usr/include/Random123 "$folder/root/usr/include/Random123" # headers alone
  cd "$root"
  rm -rf "$folder/apt"
  printf '%s\n' "$stamp" >"$folder/root.stamp"
}

for tool in $triplet-gcc qemu-$processor apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || skip "$tool is not there: run scripts/setup.sh $group"
done
fetch

prefix=/usr/$triplet
if [ -n "$suite" ]; then
  sysroot="--sysroot=$folder/root -isystem $folder/root/usr/include -L$libraries" # before the compiler's own C library
  prefix=$folder/root
fi
cat >"$folder/emulate" <<EMULATE
#!/bin/sh
exec qemu-$processor -L $prefix -E LD_LIBRARY_PATH=$libraries "\$@"
EMULATE
chmod +x "$folder/emulate"
PKG_CONFIG_LIBDIR="$libraries/pkgconfig:$folder/root/usr/share/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$folder/root" cmake -S "$root" \
  -B "$folder/build" -G Ninja --log-level=NOTICE -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR="$processor" \
  -DCMAKE_C_COMPILER="$triplet-gcc" -DCMAKE_FIND_ROOT_PATH="$folder/root" -DCMAKE_FIND_ROOT_PATH_MODE_PROGRAM=NEVER \
  -DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY -DCMAKE_LIBRARY_ARCHITECTURE="$triplet" \
  -DCMAKE_C_FLAGS="$flags -isystem $folder/root/usr/include/$triplet $sysroot" -DCMAKE_CROSSCOMPILING_EMULATOR="$folder/emulate" \
  -DCMAKE_BUILD_TYPE=Check -DCMAKE_C_FLAGS_CHECK=-O2 -DNITI_WERROR=ON -DNITI_TESTS=ON -DNITI_TREE_TESTS=OFF -DNITI_CUDA=OFF "$@"
