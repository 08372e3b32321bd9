#!/bin/sh
# Proves that the kernels compute with integers only: reads the PTX of every file of src/backend/cuda, for every architecture it was
# compiled for, and fails on any floating-point type.
#   scripts/check_no_float_ptx.sh FOLDER SOURCES     FOLDER: where the build keeps the PTX (build/ptx)
#   scripts/check_no_float_ptx.sh --self-test
# PTX is what the compiler's front end makes of a kernel: all that the source asks for, typed. The assembler divides integers
# by a variable through a rounded reciprocal and a correction, which is exact and no concern of the source; so it is PTX that is read.
set -eu

# Prints each line of PTX that has a floating-point type, register or literal. Comments and strings do not count.
floats() {
  sed -e 's|//.*||' -e 's|"[^"]*"||g' "$1" |
    grep -nE '\.(f16|f16x2|bf16|bf16x2|tf32|f32|f32x2|f64|e4m3|e5m2|e4m3x2|e5m2x2|e2m1|e2m3|e3m2|ue8m0)([^a-z0-9_]|$)|[^A-Za-z0-9_]0[fFdD][0-9a-fA-F]{8}' || true
}

# Checks the PTX of $sources in $folder.
check() {
  files=0 bad=0
  for source in "$sources"/*.cu; do
    found=0
    for ptx in "$folder/$(basename "$source" .cu)".*ptx; do
      grep -qs '^\.target' "$ptx" || continue
      found=$((found + 1))
      floats "$ptx" >"$scratch/found"
      if [ -s "$scratch/found" ]; then
        bad=1
        echo "${ptx##*/}: floating point:"
        sed 's/^/  /;10q' "$scratch/found"
      fi
    done
    [ $found -gt 0 ] || { echo "check_no_float_ptx: $source: there is no PTX of it in $folder" >&2; bad=1; }
    files=$((files + found))
  done
  echo "check_no_float_ptx: $files files checked"
  return $bad
}

self_test() {
  failed=0
  folder=$scratch/ptx sources=$scratch/cu
  mkdir -p "$folder" "$sources"
  : >"$sources/k.cu"
  try() { # try EXPECTED LINE
    printf '.version 9.0\n.target sm_80\n%s\n' "$2" >"$folder/k.compute_80.ptx"
    if check >"$scratch/report" 2>&1; then got=clean; else got=found; fi
    [ $got = "$1" ] || { echo "self-test: '$2' is $got, expected $1"; cat "$scratch/report"; failed=1; }
  }
  try found '	add.f32 	%f3, %f1, %f2;'
  try found '	cvt.rn.f64.s32 	%fd1, %r1;'
  try found '	.reg .f32 	%f<4>;'
  try found '	fma.rn.f16x2 %r1, %r2, %r3, %r4;'
  try found '	mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r1}, {%r2}, {%r3}, {%r1};'
  try found '	mov.b32 	%r1, 0f3F800000;'
  try found '	@%p1 setp.lt.f32 	%p2, %r1, %r2;'
  try clean '	wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {%r1}, %rd1, %rd2, 1;'
  try clean '	shf.l.wrap.b32 	%r1, %r2, %r3, 5;  // as .f32 would'
  try clean '	.file	1 "a.f32.cu"'
  rm "$folder/k.compute_80.ptx"
  if check >/dev/null 2>&1; then echo "self-test: missing PTX passes"; failed=1; fi
  [ $failed = 0 ] && echo "check_no_float_ptx: self-test passed"
  return $failed
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
case ${1:-} in
  --self-test) self_test ;;
  "") echo "usage: check_no_float_ptx.sh FOLDER SOURCES | --self-test" >&2; exit 2 ;;
  *)
    folder=$1 sources=$2
    check
    ;;
esac
