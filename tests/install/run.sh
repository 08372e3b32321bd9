#!/bin/sh
# Installs the build into a folder of its own (with a space in its name), checks the libraries' symbols, and builds and runs
# main.c against it by pkg-config and by CMake, shared and static: tests/install/run.sh BUILD [CFLAG]...
# The flags (a sanitizer) go to every compilation.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
shift
CC=${CC:-cc}
CFLAGS="-Wall -Wextra -Werror $*"
work="$build/install test"
rm -rf "$work"
mkdir -p "$work"
cd "$work"

fail() {
  echo "install test: $*" >&2
  exit 1
}

# 1. Install by DESTDIR, then move: nothing may remember where it was installed.
DESTDIR="$work/stage" cmake --install "$build" --prefix /opt/niti >install.log || { cat install.log; fail "cmake --install failed"; }
mv stage/opt/niti prefix
[ -z "$(find stage -type f)" ] || fail "files outside the prefix: $(find stage -type f)"
prefix=$work/prefix
lib=$(dirname "$(find "$prefix" -name libniti.a)")
[ ! -e "$build/libniti_mpi.so" ] || [ -e "$lib/niti/libniti_mpi.so" ] || fail "not installed: libniti_mpi.so"
for file in "$prefix/include/niti.h" "$lib/libniti.so" "$lib/pkgconfig/niti.pc" "$lib/cmake/niti/nitiConfig.cmake"; do
  [ -e "$file" ] || fail "not installed: $file"
done
[ "$(readelf -d "$lib/libniti.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')" = libniti.so.0 ] || fail "libniti.so's SONAME is not libniti.so.0"

# 2. Both libraries show exactly the functions that niti.h marks NITI_API.
sed -n 's/^NITI_API .*[ *]\(niti_[a-z0-9_]*\)(.*/\1/p' "$prefix/include/niti.h" | sort >promised
[ -s promised ] || fail "found no NITI_API function in niti.h"
[ "$(grep -c '^NITI_API' "$prefix/include/niti.h")" = "$(wc -l <promised)" ] || fail "could not read every NITI_API line of niti.h"
nm -D --defined-only "$lib/libniti.so" | awk '{print $3}' | sort >shared.symbols
nm -g --defined-only "$lib/libniti.a" | awk 'NF == 3 {print $3}' | sort >static.symbols
for kind in shared static; do
  diff promised $kind.symbols >$kind.diff || fail "the $kind library's symbols (>) are not niti.h's NITI_API functions (<):
$(cat $kind.diff)"
done

# 3. By pkg-config. Its output is quoted for a shell, hence eval.
export PKG_CONFIG_PATH="$lib/pkgconfig"
flags=$(pkg-config --cflags --libs niti)
eval "$CC $CFLAGS \"$here/main.c\" -o pc_shared $flags"
# libniti.so lies beside libniti.a, so the archive is asked for by its file name
flags=$(pkg-config --static --cflags --libs niti | sed 's/-lniti\b/-l:libniti.a/')
eval "$CC $CFLAGS \"$here/main.c\" -o pc_static $flags"

# 4. By CMake.
cmake -S "$here" -B cmake -G Ninja -DCMAKE_C_COMPILER="$CC" -DCMAKE_C_FLAGS="$CFLAGS" -DCMAKE_PREFIX_PATH="$prefix" >cmake.log 2>&1 &&
  cmake --build cmake >>cmake.log 2>&1 || { tail -n 40 cmake.log; fail "the CMake package does not build a program"; }

# 5. All four run, each with the library it was meant to have.
version=$(pkg-config --modversion niti)
for program in pc_shared pc_static cmake/shared cmake/static; do
  output=$(LD_LIBRARY_PATH="$lib" "./$program") || fail "$program exits $?"
  [ "$output" = "niti $version" ] || fail "$program prints '$output', not 'niti $version'"
  needs=$(readelf -d "$program" | grep -c 'NEEDED.*libniti' || true)
  case $program in
    *shared) [ "$needs" = 1 ] || fail "$program is not linked to libniti.so" ;;
    *) [ "$needs" = 0 ] || fail "$program needs libniti.so" ;;
  esac
done

# 6. The installed tool runs.
if [ -e "$build/niti" ]; then
  "$prefix/bin/niti" --help >/dev/null || fail "the installed tool does not run"
  # Each command has its page and is in the page of the whole; what the shells load is what the tool prints.
  share=$prefix/share
  for command in $("$prefix/bin/niti" complete -- "" | cut -f1); do
    "$prefix/bin/niti" man "$command" | cmp - "$share/man/man1/niti-$command.1" || fail "the manual page of $command is not installed"
    grep -q "^\.BR niti.*$command (1)" "$share/man/man1/niti.1" || fail "niti.1 does not name $command"
  done
  "$prefix/bin/niti" completion bash | cmp - "$share/bash-completion/completions/niti" || fail "no completion for bash"
  "$prefix/bin/niti" completion zsh | cmp - "$share/zsh/site-functions/_niti" || fail "no completion for zsh"
  "$prefix/bin/niti" completion fish | cmp - "$share/fish/vendor_completions.d/niti.fish" || fail "no completion for fish"
  for recipe in "$share"/niti/recipes/*.yaml; do
    name=$(basename "$recipe" .yaml)
    "$prefix/bin/niti" info | grep "^recipes.* $name" >/dev/null || fail "$recipe is not a built-in recipe"
  done
  for model in "$share"/niti/models/*.yaml; do
    "$prefix/bin/niti" summary "$model" >/dev/null || fail "$model cannot be read"
  done
  for file in README.md LICENSE docs/arithmetic.md docs/run-folder.md; do
    [ -s "$share/doc/niti/$file" ] || fail "not installed: $file"
  done
fi

# 7. The header, and the examples in it and in the README, suit C99, C11 and C++ (where a C++ front end is at hand).
sed -n 's/^ \*     //p' "$prefix/include/niti.h" >introduction.c
sed -n '/^```c$/,/^```$/p' "$here/../../README.md" | grep -v '^```' >readme.c
for example in introduction.c readme.c; do
  grep -q niti_train $example || fail "found no example for $example"
done
for standard in c99 c11; do
  for file in "$here/main.c" introduction.c readme.c; do
    "$CC" -std=$standard $CFLAGS -pedantic -fsyntax-only -I"$prefix/include" "$file" || fail "$file does not compile as $standard"
  done
done
if command -v clang >/dev/null; then
  echo '#include <niti.h>
NitiTrainOptions options = {};' >cpp.c
  for standard in c++11 c++20; do
    clang -x c++ -std=$standard -Wall -Wextra -pedantic -Werror -fsyntax-only -I"$prefix/include" cpp.c ||
      fail "niti.h does not compile as $standard"
  done
fi
cd /
rm -rf "$work"
echo "install test: shared and static, by pkg-config and by CMake: as promised"
