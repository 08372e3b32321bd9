/* A library to preload: the rank ST_RANK stops itself at ST_AT, which is "begin" or "end" of MPI's end, or "exit". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void stop_at(const char *place) {
  const char *at = getenv("ST_AT"), *own = getenv("OMPI_COMM_WORLD_RANK"), *rank = getenv("ST_RANK");
  if (at && own && rank && strcmp(at, place) == 0 && strcmp(own, rank) == 0) (void)raise(SIGSTOP);
}

int MPI_Finalize(void);
int MPI_Finalize(void) {
  int (*end)(void);
  stop_at("begin");
  *(void **)&end = dlsym(dlopen("libmpi.so.40", RTLD_NOW | RTLD_NOLOAD), "MPI_Finalize");
  const int code = end();
  stop_at("end");
  return code;
}
