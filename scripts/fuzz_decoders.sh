#!/bin/sh
# Fuzzes what decodes images and packed files together with the decoders themselves: Debian's zlib, libpng and libjpeg-turbo, built from
# their sources with clang's address sanitizer and libFuzzer's counters of edges, so that its mutations follow their branches too.
#   scripts/fuzz_decoders.sh FOLDER [SECONDS [TARGET...]]   (60 seconds; image, folder and idx)
# The sources come by apt into FOLDER/sources; the system's own lists and packages stay as they are. Results are those of scripts/fuzz.sh.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
seconds=${2:-60}
[ $# -lt 2 ] || shift
shift
[ $# -gt 0 ] || set -- image folder idx
for tool in clang cmake apt-get dpkg-source; do
  command -v $tool >/dev/null || { echo "fuzz_decoders: $tool is not there" >&2; exit 77; }
done
sources=$folder/sources prefix=$folder/decoders
if [ ! -d "$sources" ]; then
  apt=$folder/apt
  rm -rf "$sources.new"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$sources.new"
  # shellcheck disable=SC1091 # the system's
  . /etc/os-release
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $VERSION_CODENAME main" >"$apt/sources.list"
  own="-o Dir::Etc::sourcelist=$apt/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$apt/lists -o Dir::Cache=$apt/cache"
  # shellcheck disable=SC2086 # words
  apt-get -qq $own update
  # shellcheck disable=SC2086 # words
  (cd "$sources.new" && apt-get -qq $own source zlib libpng1.6 libjpeg-turbo)
  mv "$sources.new" "$sources"
fi
flags="-O2 -g1 -fsanitize=fuzzer-no-link,address"
if [ ! -e "$prefix/lib/libz.a" ]; then
  (cd "$sources"/zlib-*/ && CC=clang CFLAGS="$flags" ./configure --static --prefix="$prefix" && make -j "$(nproc)" libz.a && make install) >"$folder/zlib.log" 2>&1 ||
    { tail "$folder/zlib.log"; exit 1; }
fi
for name in libpng1.6 libjpeg-turbo; do
  case $name in libpng*) archive=$prefix/lib/libpng16.a ;; *) archive=$prefix/lib/libjpeg.a ;; esac
  [ ! -e "$archive" ] || continue
  cmake -S "$(echo "$sources/$name"-*/)" -B "$folder/build-$name" -G Ninja --log-level=NOTICE -Wno-dev -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Check \
    -DCMAKE_C_FLAGS_CHECK="$flags" -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_INSTALL_LIBDIR="$prefix/lib" \
    -DPNG_SHARED=OFF -DPNG_TESTS=OFF -DENABLE_SHARED=OFF -DWITH_SIMD=OFF -DWITH_TURBOJPEG=OFF
  cmake --build "$folder/build-$name" -j "$(nproc)"
  cmake --install "$folder/build-$name" >/dev/null
  [ -e "$archive" ] # without it the system's library would be taken
done
NITI_FUZZ_PREFIX=$prefix exec "$root/scripts/fuzz.sh" "$folder" "$seconds" "$@"
