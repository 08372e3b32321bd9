/* Looks for a stopped rank among the processes of this host, in /proc. */
#define _GNU_SOURCE
#include "ranks/mpi/stopped.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES = 65536 }; /* of an environment; a longer one is looked at so far */

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

static bool is_stopped(char bytes[BYTES], const char *process) {
  (void)read_file(bytes, process, "stat");
  const char *name_end = strrchr(bytes, ')'); /* PID (NAME) STATE */
  return name_end && strncmp(name_end, ") T", 3) == 0;
}

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

int niti_mpi_stopped(void) {
  char bytes[BYTES];
  int found = -1;
  const char *run = getenv("PMIX_NAMESPACE");
  DIR *processes = run ? opendir("/proc") : NULL;
  for (const struct dirent *entry; processes && (entry = readdir(processes)) != NULL;) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !is_stopped(bytes, entry->d_name)) continue;
    const int rank = rank_of(bytes, entry->d_name, run);
    if (rank >= 0 && (found < 0 || rank < found)) found = rank;
  }
  if (processes) (void)closedir(processes);
  return found;
}
