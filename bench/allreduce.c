/* The latency and bandwidth of MPI's all-reduce, for bench/scaling.py: mpicc -O2 bench/allreduce.c -o build/allreduce && mpirun
 * -n 2 build/allreduce. Prints one JSON object: microseconds of a maximum of 4 bytes, and bytes per second of a sum of 16 MiB. */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SMALL_TURNS = 2000, LARGE_TURNS = 20, LARGE = 4 << 20 };

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* The middle one of the times of `turns` reductions. */
static double measure(void *data, int count, MPI_Datatype type, MPI_Op op, int turns) {
  double times[SMALL_TURNS];
  for (int i = 0; i < turns; ++i) {
    const double begin = MPI_Wtime();
    MPI_Allreduce(MPI_IN_PLACE, data, count, type, op, MPI_COMM_WORLD);
    times[i] = MPI_Wtime() - begin;
  }
  qsort(times, (size_t)turns, sizeof *times, ascending);
  return times[turns / 2];
}

int main(int argc, char **argv) {
  int rank, size;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  int32_t *data = calloc(LARGE, sizeof *data);
  if (!data) MPI_Abort(MPI_COMM_WORLD, 1);
  const double small = measure(data, 1, MPI_UINT32_T, MPI_MAX, SMALL_TURNS);
  const double large = measure(data, LARGE, MPI_INT32_T, MPI_SUM, LARGE_TURNS);
  if (rank == 0)
    printf("{\"ranks\": %d, \"latency_us\": %.2f, \"bytes_per_second\": %.0f}\n", size, small * 1e6,
           LARGE * sizeof *data / large);
  free(data);
  MPI_Finalize();
  return 0;
}
