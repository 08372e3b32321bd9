#!/bin/sh
# Every kernel may start while the one before it still runs (programmatic dependent launch), so every kernel must wait for it before
# it touches memory: in the PTX for capability 9.0, finds kernels that never wait, or that load or store global memory before they do.
#   scripts/check_kernel_waits.sh FOLDER     FOLDER: where the build keeps the PTX (build/ptx)
#   scripts/check_kernel_waits.sh --self-test
set -eu

check() { # check FILES
  awk '
    /^[ \t]*(\.visible |\.weak )?\.entry/ { name = $0; sub(/.*\.entry +/, "", name); sub(/\(.*/, "", name); inside = 1; waits = 0; early = 0; ++kernels }
    inside && /griddepcontrol\.wait/ { waits = 1 }
    inside && !waits && /[ \t](ld|st|red|atom|cp|prefetch)[.a-z0-9_:]*\.global/ { early = 1 }
    inside && /^}/ {
      inside = 0
      if (!waits) { print FILENAME ": " name " never waits"; bad = 1 }
      else if (early) { print FILENAME ": " name " touches memory before it waits"; bad = 1 }
    }
    END {
      if (kernels == 0) { print "no kernels found"; bad = 1 }
      print "check_kernel_waits: " kernels + 0 " kernels checked"
      exit bad
    }' "$@"
}

if [ "${1:-}" = --self-test ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  failed=0
  try() { # try EXPECTED BODY
    printf '.visible .entry k(\n\t.param .u64 p\n)\n{\n%b\n\tret;\n}\n' "$2" >"$scratch/k.ptx"
    if check "$scratch/k.ptx" >"$scratch/report"; then got=right; else got=wrong; fi
    [ $got = "$1" ] || { echo "self-test: '$2' is $got, expected $1"; failed=1; }
  }
  try right '\tld.param.u64 %rd1, [p];\n\tgriddepcontrol.wait;\n\tld.global.u32 %r1, [%rd1];'
  try wrong '\tld.global.u32 %r1, [%rd1];'
  try wrong '\tld.global.nc.u32 %r1, [%rd1];\n\tgriddepcontrol.wait;'
  try wrong '\tatom.global.add.u32 %r1, [%rd1], 1;\n\tgriddepcontrol.wait;'
  printf '// nothing\n' >"$scratch/k.ptx"
  if check "$scratch/k.ptx" >/dev/null; then echo "self-test: no kernels pass"; failed=1; fi
  [ $failed = 0 ] && echo "check_kernel_waits: self-test passed"
  exit $failed
fi
[ $# = 1 ] || { echo "usage: check_kernel_waits.sh FOLDER | --self-test" >&2; exit 2; }
set -- "$1"/*.compute_90a.ptx
[ -e "$1" ] || { echo "check_kernel_waits: there is no PTX: $1" >&2; exit 1; }
check "$@"
