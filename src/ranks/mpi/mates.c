/* Looks for the other ranks among the processes of this host, in /proc. */
#define _GNU_SOURCE
#include "ranks/mpi/mates.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  BYTES = 65536, /* of an environment; a longer one is looked at so far */
  NAMED = 8
};
static const unsigned long long little = 1ULL << 32; /* bytes; a larger limit of memory is not worth mentioning */

/* /proc/PROCESS/FILE, with a zero byte behind it. */
static size_t read_file(char out[BYTES], const char *process, const char *file) {
  char path[64];
  (void)snprintf(path, sizeof path, "/proc/%.20s/%s", process, file);
  FILE *stream = fopen(path, "re");
  const size_t size = stream ? fread(out, 1, BYTES - 1, stream) : 0;
  if (stream) (void)fclose(stream);
  out[size] = 0;
  return size;
}

/* Its letter in /proc/PROCESS/stat, PID (NAME) STATE; 0: there is none. */
static char state_of(char bytes[BYTES], const char *process) {
  (void)read_file(bytes, process, "stat");
  const char *name_end = strrchr(bytes, ')');
  return name_end && name_end[1] == ' ' ? name_end[2] : 0;
}

static bool runs(char state) { return state && !strchr("ZXx", state); }

static const char *value_of(const char *environment, size_t size, const char *name) {
  const size_t length = strlen(name);
  for (size_t at = 0; at < size; at += strlen(environment + at) + 1) {
    if (strncmp(environment + at, name, length) == 0 && environment[at + length] == '=') return environment + at + length + 1;
  }
  return NULL;
}

/* The rank of a process of this run; -1: it is none. */
static int rank_of(char bytes[BYTES], const char *process, const char *run) {
  const size_t size = read_file(bytes, process, "environ");
  const char *other = value_of(bytes, size, "PMIX_NAMESPACE"), *rank = value_of(bytes, size, "PMIX_RANK");
  return other && rank && strcmp(other, run) == 0 ? atoi(rank) : -1;
}

int niti_mpi_given(const char *mpirun, const char *slurm) {
  const char *text = getenv(mpirun);
  if (!text) text = getenv(slurm);
  return text && *text >= '0' && *text <= '9' ? atoi(text) : -1;
}

static bool is_process(const struct dirent *entry) { return entry->d_name[0] >= '1' && entry->d_name[0] <= '9'; }

int niti_mpi_stopped(void) {
  char bytes[BYTES];
  int found = -1;
  const char *run = getenv("PMIX_NAMESPACE");
  DIR *processes = run ? opendir("/proc") : NULL;
  for (const struct dirent *entry; processes && (entry = readdir(processes)) != NULL;) {
    if (!is_process(entry) || state_of(bytes, entry->d_name) != 'T') continue;
    const int rank = rank_of(bytes, entry->d_name, run);
    if (rank >= 0 && (found < 0 || rank < found)) found = rank;
  }
  if (processes) (void)closedir(processes);
  return found;
}

/* ---- who keeps MPI from starting ---- */

typedef struct Mate {
  bool there, has_mpi;
  unsigned long long memory; /* the bytes that it may use; 0: no limit */
} Mate;

static bool has_mpi(char bytes[BYTES], const char *process) {
  char path[64];
  (void)snprintf(path, sizeof path, "/proc/%.20s/maps", process);
  FILE *stream = fopen(path, "re");
  bool found = false;
  while (stream && !found && fgets(bytes, BYTES, stream)) found = strstr(bytes, "/libmpi.so") != NULL;
  if (stream) (void)fclose(stream);
  return found;
}

/* The limit of its address space. */
static unsigned long long memory_limit(char bytes[BYTES], const char *process) {
  static const char name[] = "Max address space";
  (void)read_file(bytes, process, "limits");
  const char *line = strstr(bytes, name);
  return line ? strtoull(line + sizeof name - 1, NULL, 10) : 0; /* "unlimited" is 0 */
}

/* A wrapper has the environment of its rank, too. */
static void look_at(Mate *mates, int size, const char *process, const char *run) {
  char bytes[BYTES];
  if (!runs(state_of(bytes, process))) return;
  const int rank = rank_of(bytes, process, run);
  if (rank < 0 || rank >= size) return;
  Mate *mate = &mates[rank];
  mate->there = true;
  if (!has_mpi(bytes, process)) return;
  mate->has_mpi = true;
  mate->memory = memory_limit(bytes, process);
}

static void look_at_all(Mate *mates, int size, const char *run) {
  DIR *processes = opendir("/proc");
  for (const struct dirent *entry; processes && (entry = readdir(processes)) != NULL;) {
    if (is_process(entry)) look_at(mates, size, entry->d_name, run);
  }
  if (processes) (void)closedir(processes);
}

/* Appends to a list. */
static void append(char *text, size_t size, const char *what) {
  const size_t used = strlen(text);
  (void)snprintf(text + used, size - used, "%s%s", used ? "; " : "", what);
}

/* alone: all ranks are on this host, so that those which are not seen are not there. */
static bool describe(char *text, size_t size, const Mate *mate, int rank, bool alone) {
  char what[120] = "";
  if (!mate->there && alone)
    (void)snprintf(what, sizeof what, "rank %d does not run", rank);
  else if (mate->there && !mate->has_mpi)
    (void)snprintf(what, sizeof what, "rank %d has not started MPI", rank);
  else if (mate->there && mate->memory > 0 && mate->memory < little)
    (void)snprintf(what, sizeof what, "rank %d, which may use %llu KiB of memory (ulimit -v), has perhaps run out of it", rank,
                   mate->memory / 1024);
  if (what[0]) append(text, size, what);
  return what[0];
}

bool niti_mpi_describe(char *text, size_t size) {
  const int ranks = niti_mpi_given("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS");
  const int hosts = niti_mpi_given("", "SLURM_STEP_NUM_NODES"); /* one host of Slurm's has all ranks */
  const int here = niti_mpi_given("OMPI_COMM_WORLD_LOCAL_SIZE", hosts == 1 ? "SLURM_STEP_NUM_TASKS" : "");
  const char *run = getenv("PMIX_NAMESPACE");
  Mate *mates = run && ranks > 0 ? calloc((size_t)ranks, sizeof *mates) : NULL;
  int seen = 0, named = 0;
  text[0] = 0;
  if (!mates) return false;
  look_at_all(mates, ranks, run);
  for (int rank = 0; rank < ranks; ++rank) seen += mates[rank].there;
  for (int rank = 0; rank < ranks && named < NAMED; ++rank) named += describe(text, size, &mates[rank], rank, here == ranks);
  if (here != ranks && seen > 0 && seen < here) {
    char what[80];
    (void)snprintf(what, sizeof what, "%d of %d ranks do not run", here - seen, here);
    append(text, size, what);
  }
  free(mates);
  return text[0];
}

bool niti_mpi_is_running(pid_t process, int rank, bool *stopped) {
  char bytes[BYTES], name[24];
  const char *run = getenv("PMIX_NAMESPACE");
  (void)snprintf(name, sizeof name, "%d", (int)process);
  const char state = state_of(bytes, name);
  *stopped = state == 'T';
  return run && runs(state) && rank_of(bytes, name, run) == rank;
}
