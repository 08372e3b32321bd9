#!/bin/sh
# Starts ranks on this host without MPI (bench/local_transport.c): bench/local_ranks.sh N COMMAND ARGUMENT...
set -eu
count=${1:-}
case $count in
  [1-9] | [1-5][0-9] | 6[0-4]) ;;
  *) count= ;;
esac
if [ -z "$count" ] || [ $# -lt 2 ]; then
  echo "usage: bench/local_ranks.sh N COMMAND ARGUMENT... (N from 1 to 64)" >&2
  exit 2
fi
shift
export OMPI_COMM_WORLD_SIZE="$count" NITI_LOCAL_NAME="$$"
rank=1
while [ "$rank" -lt "$count" ]; do
  OMPI_COMM_WORLD_RANK=$rank "$@" &
  rank=$((rank + 1))
done
code=0
OMPI_COMM_WORLD_RANK=0 "$@" || code=$?
wait
exit "$code"
