#!/bin/sh
# Proves that the core of niti computes with integers only: disassembles every object of the library and fails on any
# floating-point instruction, soft-float helper or call into libm.
#   scripts/check_no_float.sh FOLDER...  of the library's objects: build/CMakeFiles/niti_objects.dir and, of the CUDA kernels' host
#                                        side, niti_cuda_objects.dir
#   scripts/check_no_float.sh --self-test
# Moves and bitwise operations named after floats (movaps, xorps, shuffles, ...) carry integers as well and are allowed.
set -eu

# Objects that are excepted, one per line: the path's end, then the reason.
exceptions() {
  cat <<'LIST'
/src/io/events.c.o          TensorBoard's format stores floats
/src/io/log.c.o             prints percentages and rates, writes them as text
/proto/tensorboard.pb-c.c.o generated reader and writer of TensorBoard's format
LIST
}

# Reads `objdump -d --no-show-raw-insn`, prints "function: instruction" for each floating-point instruction.
# Allowed of the names that end like SSE's float types: those that move, permute or combine bits. Any other is arithmetic,
# comparison or conversion. Integer instructions with such an ending begin with p or vp (vpabsd, vpdpwssd), are push, or multiply
# tiles of integers (tdpbssd).
floats() {
  awk '
    /^[0-9a-f]+ <.*>:$/ { where = $2; next }
    !/^ *[0-9a-f]+:\t/ { next }
    {
      sub(/^ *[0-9a-f]+:[ \t]*/, "")
      n = 1
      while ($n ~ /^(lock|rep|repz|repnz|repe|repne|bnd|notrack|data16|addr32|cs|ds|es|fs|gs|ss|xacquire|xrelease|rex(\.[WRXB]+)?)$/) ++n
      op = $n
      bad = 0
      if (op ~ /^f/) bad = 1                                   # x87
      else if (op ~ /^(pf|pi2f)/) bad = 1                      # 3DNow!
      else if (op ~ /^v?(cvt|fn?m(add|sub)|fc?m|rcp|rsqrt|sqrt|round|rndscale|getexp|getmant|fixup|scalef|reduce|range|fpclass|exp2|4f)/) bad = 1
      else if (op ~ /^v?p|^push|^tdpb[su][su]d$/) bad = 0
      else if (op ~ /(ss|sd|ps|pd|sh|ph|bf16)[xyz]?$/)
        bad = op !~ /^v?(mov[a-z]*|and|andn|or|xor|shuf|unpck[lh]|blend|blendv|blendm|insert|extract|perm|permil|broadcast|compress|expand|gather[dq]|scatter[dq]|maskmov)(ss|sd|ps|pd|sh|ph)$/ && op !~ /^(bsh|clflush)$/
      if (bad) print where " " $0
    }'
}

# The libc functions that take or return floats; those of libm are read from libm itself.
LIBC_FLOATS='strtod|strtof|strtold|atof|difftime|drand48|erand48|ecvt|fcvt|gcvt|strfrom[dfl]|frexp|ldexp|modf|scalbn|copysign|json_real|json_real_value|json_real_set|json_number_value|__[a-z]*[sdtx]f[23]|__fix[a-z]*|__float[a-z]*|__[a-z]*_finite'

# Undefined symbols of object $1 that compute with floats; $2 is a file with libm's names.
calls() {
  nm -u "$1" | awk '{print $2}' | { grep -Fx -f "$2" - || true; nm -u "$1" | awk '{print $2}' | grep -Ex "$LIBC_FLOATS" || true; } | sort -u
}

libm_names() {
  libm=$(${CC:-cc} -print-file-name=libm.so.6)
  nm -D --defined-only "$libm" | awk '{sub(/@.*/, "", $3); if ($2 != "A") print $3}' | sort -u
  [ -e "$libm" ] || { echo "check_no_float: cannot find libm.so.6" >&2; exit 1; }
}

# Checks every object under the folders $2...; $1 is a scratch folder. Prints what it found; fails on a finding.
check() {
  scratch=$1
  shift
  libm_names >"$scratch/libm"
  [ -s "$scratch/libm" ] || { echo "check_no_float: cannot read libm's names" >&2; return 1; }
  find "$@" -name '*.o' | sort >"$scratch/objects"
  exceptions | awk '{print $1}' >"$scratch/exceptions"
  bad=0 checked=0
  while read -r ending; do
    grep -qF -- "$ending" "$scratch/objects" || { echo "check_no_float: excepted, but there is no such object: $ending" >&2; bad=1; }
  done <"$scratch/exceptions"
  while IFS= read -r object; do
    excepted=
    while read -r ending; do
      case $object in *"$ending") excepted=1 ;; esac
    done <"$scratch/exceptions"
    [ -z "$excepted" ] || continue
    checked=$((checked + 1))
    objdump -d --no-show-raw-insn "$object" >"$scratch/text" || { bad=1; continue; }
    { floats <"$scratch/text"; calls "$object" "$scratch/libm" | sed 's/^/calls /'; } >"$scratch/found"
    if [ -s "$scratch/found" ]; then
      bad=1
      echo "${object#*.dir/}: floating point:"
      sed 's/^/  /;20q' "$scratch/found"
    fi
  done <"$scratch/objects"
  [ "$checked" -gt 0 ] || { echo "check_no_float: no object under $*" >&2; return 1; }
  echo "check_no_float: $checked objects checked, $(wc -l <"$scratch/exceptions") excepted"
  return $bad
}

# Each line must be found in an object of its own; the integer function must not.
self_test() {
  exceptions() { :; }
  failed=0
  try() { # try EXPECTED NAME FLAGS SOURCE
    mkdir -p "$work/t/$2"
    # shellcheck disable=SC2086 # flags are words
    echo "$4" | ${CC:-cc} $3 -x c -c -o "$work/t/$2/$2.o" - || { failed=1; return; }
    if check "$work" "$work/t/$2" >"$work/report" 2>&1; then got=clean; else got=found; fi
    [ $got = "$1" ] || { echo "self-test: $2 ($3) is $got, expected $1"; cat "$work/report"; failed=1; }
  }
  try found multiply -O2 'float f(float a, float b) { return a * b; }'
  try found compare -O2 'int f(double a, double b) { return a < b; }'
  try found convert -O2 'int f(int a) { return (int)(a * 0.5f); }'
  try found to_float -O2 'double f(int a) { return a; }'
  try found vector '-O3 -mavx2' 'void f(float *a, const float *b) { for (int i = 0; i < 64; ++i) a[i] += b[i]; }'
  try found fused '-O3 -mavx512f -ffast-math' 'float f(const float *a, const float *b) { float s = 0; for (int i = 0; i < 64; ++i) s += a[i] * b[i]; return s; }'
  try found maximum '-O3 -ffast-math' 'float f(float a, float b) { return a > b ? a : b; }'
  try found x87 -O2 'long double f(long double a) { return a + 1; }'
  try found libm -O2 'double log2(double); double f(double *a) { return log2(*a); }'
  try found text -O2 '#include <stdlib.h>
    int f(const char *s, double *d) { *d = strtod(s, 0); return 0; }'
  try clean copy '-O3 -mavx512f' 'struct s { double d[8]; }; void f(struct s *a, const struct s *b) { *a = *b; }'
  try clean tiles '-O2 -mamx-tile -mamx-int8' '#include <immintrin.h>
    void f(void) { _tile_dpbssd(0, 1, 2); }'
  try found tiles_bf16 '-O2 -mamx-tile -mamx-bf16' '#include <immintrin.h>
    void f(void) { _tile_dpbf16ps(0, 1, 2); }'
  try clean integer '-O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni' '#include <immintrin.h>
    #include <stdlib.h>
    int f(const signed char *a, const signed char *b, int *c) { int s = 0; for (int i = 0; i < 640; ++i) { s += a[i] * b[i]; c[i] = abs(c[i]) > s ? c[i] : -s; } return s; }
    __m512i g(__m512i a, __m512i b, __m512i c) { return _mm512_dpwssds_epi32(_mm512_dpbusd_epi32(a, b, c), _mm512_abs_epi32(b), _mm512_max_epi32(b, c)); }'
  [ $failed = 0 ] && echo "check_no_float: self-test passed"
  return $failed
}

case $(objdump --version >/dev/null && uname -m) in
  x86_64) ;;
  *) echo "check_no_float: skipped: reads x86-64 code only"; exit 77 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case ${1:-} in
  --self-test) self_test ;;
  "") echo "usage: check_no_float.sh FOLDER | --self-test" >&2; exit 2 ;;
  *) check "$work" "$@" ;;
esac
