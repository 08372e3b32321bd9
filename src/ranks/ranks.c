/* Finds the plugin, starts it where this process was started as one of several, and what all ranks agree on. */
#define _GNU_SOURCE
#include "ranks/ranks.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/environment.h"
#include "platform/path.h"
#include "platform/sha256.h"
#include "platform/system.h"
#include "platform/threads.h"

static const char plugin_file[] = "libniti_mpi.so";

struct NitiRanks {                           /* the transport's thread reads it, too */
  const NitiTransport *_Atomic transport;    /* NULL until it has started */
  char (*_Atomic hosts)[NITI_RANK_NAME_MAX]; /* [size]; NULL until they are known */
  int host_count;
  NitiRankLost lost;
  void *context;
  int64_t waited;
  bool failed, agreed;
  char plugin[PATH_MAX]; /* its file */
};

/* ---- finding the plugin ---- */

static long number_of(const char *variable) {
  const char *text = niti_environment_get(variable);
  return text ? strtol(text, NULL, 10) : 0;
}

/* How many processes the launcher says that it has started, and the variable that says so; 0: it says nothing. The launcher
 * closest to this process counts: mpirun starts its own helpers through srun. Slurm's number of a step's tasks, and not of a
 * job's, since the script of a job is one process. */
static long announced(const char **variable) {
  static const struct {
    const char *size, *rank;
  } launchers[] = {{"OMPI_COMM_WORLD_SIZE", NULL},
                   {"PMI_SIZE", "PMI_RANK"},
                   {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
                   {"SLURM_STEP_NUM_TASKS", "PMIX_RANK"}};
  for (size_t i = 0; i < sizeof launchers / sizeof *launchers; ++i) {
    if (!niti_environment_get(launchers[i].size) || (launchers[i].rank && !niti_environment_get(launchers[i].rank))) continue;
    *variable = launchers[i].size;
    return number_of(launchers[i].size);
  }
  return 0;
}

/* NITI_RANKS=off: it is not, whatever started it. */
static NitiStatus is_one_of_several(bool *out) {
  const char *off = niti_environment_get("NITI_RANKS"), *variable;
  *out = !off && announced(&variable) > 1;
  if (!off || strcmp(off, "off") == 0) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT, "NITI_RANKS is '%s' (expected off, or unset)", off);
}

/* "FOLDER OF file" + "/" + below, if it holds the plugin. */
static bool look_beside(char out[PATH_MAX], const char *file, const char *below) {
  char whole[PATH_MAX];
  if (!file || !niti_system.realpath(file, whole)) return false;
  char *slash = strrchr(whole, '/');
  if (slash) *slash = 0;
  const int length = snprintf(out, PATH_MAX, "%s%s/%s", whole, below, plugin_file);
  bool there;
  return length < PATH_MAX && niti_path_is_file(&there, out) == NITI_OK && there;
}

/* The file that this code is in: the tool, or a program's libniti.so. */
static const char *own_file(void) {
  Dl_info info;
  return dladdr((const void *)&plugin_file, &info) ? info.dli_fname : NULL;
}

static bool find_plugin(char out[PATH_MAX]) {
  static const char *const below[] = {"", "/niti", "/../lib/niti", "/../" NITI_LIBRARY_FOLDER "/niti"};
  for (size_t i = 0; i < sizeof below / sizeof *below; ++i) {
    if (look_beside(out, "/proc/self/exe", below[i]) || look_beside(out, own_file(), below[i])) return true;
  }
  return false;
}

enum { WAIT = 7, WAIT_MOST = 3600 }; /* seconds in which the ranks have to come together, and to end together */

/* "the ranks have not come together in 8 seconds: on node7, rank 1 does not run (...)" */
static void describe_wait(char text[NITI_RANK_TEXT_MAX], const char *what, int seconds, const char *host, const char *why) {
  (void)snprintf(text, NITI_RANK_TEXT_MAX, "the ranks have not %s in %d seconds: %s%s%s%s (NITI_RANKS_WAIT=SECONDS waits longer)",
                 what, seconds, why[0] ? "on " : "", why[0] ? host : "", why[0] ? ", " : "",
                 why[0] ? why : "one ended, was stopped or ran out of memory, or its host is gone");
}

/* Perhaps before the transport has started, or hosts are known. */
static void on_lost(void *context, int rank, int seconds, const char *why) {
  const NitiRanks *r = context;
  char text[NITI_RANK_TEXT_MAX], host[NITI_RANK_NAME_MAX];
  niti_environment_host(host, sizeof host);
  if (rank < 0) {
    describe_wait(text, rank == NITI_LOST_STARTING ? "come together" : "ended together", seconds, host, why);
  } else {
    (void)snprintf(text, sizeof text, "rank %d (%s) has not answered for %d seconds: it was stopped, or its host is gone", rank,
                   r->hosts       ? r->hosts[rank]
                   : r->transport ? "not known where"
                                  : host,
                   seconds);
  }
  if (r->lost) r->lost(r->context, text);
}

static NitiStatus read_wait(int *out) {
  const char *text = niti_environment_get("NITI_RANKS_WAIT");
  char *end = NULL;
  *out = WAIT;
  if (!text) return NITI_OK;
  const long value = strtol(text, &end, 10);
  if (*end || value < 1 || value > WAIT_MOST)
    return niti_fail(NITI_ERROR_ARGUMENT, "NITI_RANKS_WAIT is '%s' (expected seconds, 1 to %d)", text, WAIT_MOST);
  *out = (int)value;
  return NITI_OK;
}

static NitiStatus start_plugin(NitiRanks *r) {
  char why[NITI_TRANSPORT_TEXT] = "";
  int wait;
  NITI_TRY(read_wait(&wait));
  if (!find_plugin(r->plugin))
    return niti_fail(NITI_ERROR_UNSUPPORTED,
                     "started as one of several processes, but %s is not beside niti (expected a build with NITI_MPI)",
                     plugin_file);
  void *library = dlopen(r->plugin, RTLD_NOW | RTLD_GLOBAL); /* MPI's own plugins need its symbols */
  if (!library)
    return niti_fail(NITI_ERROR_UNSUPPORTED, "started as one of several processes, but MPI cannot be loaded: %s", dlerror());
  NitiTransportOpen open;
  *(void **)&open = dlsym(library, NITI_TRANSPORT_SYMBOL);
  r->transport = open ? open(NITI_TRANSPORT_VERSION, wait, on_lost, r, why) : NULL;
  if (r->transport) return NITI_OK;
  return niti_fail(NITI_ERROR_UNSUPPORTED, "%s: %s", r->plugin, open ? why : "it is no plugin of niti");
}

/* ---- open and close ---- */

static bool seen_before(const NitiRanks *r, int rank) {
  for (int i = 0; i < rank; ++i) {
    if (strcmp(r->hosts[i], r->hosts[rank]) == 0) return true;
  }
  return false;
}

/* A launcher whose processes MPI does not find would start as many trainings. */
static NitiStatus check_size(const NitiRanks *r) {
  const char *variable = "";
  const long size = announced(&variable);
  if (size == r->transport->size) return NITI_OK;
  return niti_fail(NITI_ERROR_UNSUPPORTED,
                   "started as one of %ld processes (%s), but %s found %d (expected Open MPI's own mpirun, or srun --mpi=pmix; "
                   "NITI_RANKS=off trains in each process by itself)",
                   size, variable, r->transport->name, r->transport->size);
}

static NitiStatus exchange_hosts(NitiRanks *r) {
  char own[NITI_RANK_NAME_MAX] = "", (*hosts)[NITI_RANK_NAME_MAX] = calloc((size_t)r->transport->size, sizeof *hosts);
  if (!hosts) {
    r->transport->abort(1);
    return niti_fail(NITI_ERROR_MEMORY, "out of memory for %d ranks", r->transport->size);
  }
  niti_environment_host(own, sizeof own);
  const NitiStatus status = niti_ranks_gather(r, hosts, own, sizeof own);
  r->hosts = hosts;
  for (int i = 0; i < r->transport->size; ++i) r->host_count += !seen_before(r, i);
  return status;
}

NitiStatus niti_ranks_open(NitiRanks **out, NitiRankLost lost, void *context) {
  NITI_WANT(out, "out");
  *out = NULL;
  bool several;
  NITI_TRY(is_one_of_several(&several));
  if (!several) return NITI_OK;
  NitiRanks *r = calloc(1, sizeof *r);
  if (!r) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the ranks");
  r->lost = lost;
  r->context = context;
  *out = r; /* for `lost`, which may be called from now on */
  NitiStatus status = start_plugin(r);
  if (status == NITI_OK) status = check_size(r);
  if (status == NITI_OK) status = exchange_hosts(r);
  if (status == NITI_OK) return NITI_OK;
  niti_ranks_close(r);
  *out = NULL;
  return status;
}

void niti_ranks_close(NitiRanks *r) {
  if (!r) return;
  if (r->transport) r->transport->close();
  free(r->hosts);
  free(r);
}

void niti_ranks_abort(NitiRanks *r, int code) {
  if (r && r->transport) r->transport->abort(code);
}

/* ---- facts ---- */

int niti_ranks_rank(const NitiRanks *r) { return r ? r->transport->rank : 0; }
int niti_ranks_size(const NitiRanks *r) { return r ? r->transport->size : 1; }
int niti_ranks_local(const NitiRanks *r) { return r ? r->transport->local_rank : 0; }
bool niti_ranks_lead(const NitiRanks *r) { return niti_ranks_rank(r) == 0; }
const char *niti_ranks_host(const NitiRanks *r, int rank) { return r ? r->hosts[rank] : "localhost"; }
int niti_ranks_hosts(const NitiRanks *r) { return r ? r->host_count : 1; }
const char *niti_ranks_library(const NitiRanks *r) { return r ? r->transport->name : ""; }
bool niti_ranks_agreed(const NitiRanks *r) { return !r || r->agreed; }
void niti_ranks_set_agreed(NitiRanks *r) { r->agreed = true; }
int64_t niti_ranks_waited(const NitiRanks *r) { return r ? r->waited : 0; }

int niti_ranks_threads(const NitiRanks *r) {
  const int cores = niti_usable_cores(), mates = r ? r->transport->local_size : 1;
  if (mates == 1 || cores < (int)sysconf(_SC_NPROCESSORS_ONLN)) return 0; /* bound to cores of its own, as far as one can see */
  return cores > mates ? cores / mates : 1;
}

/* ---- collectives ---- */

static NitiStatus fail_mpi(const NitiRanks *r) {
  return niti_fail(NITI_ERROR_DEVICE, "%s failed to exchange data: %s", r->transport->name, r->transport->failure());
}

void niti_ranks_reduce(NitiRanks *r, void *data, size_t count, NitiReduction reduction) {
  if (!r || r->failed) return;
  const int64_t begin = niti_clock_now();
  r->failed = !r->transport->reduce(data, count, reduction);
  r->waited += niti_clock_now() - begin;
}

void niti_ranks_begin(NitiRanks *r, void *data, size_t count, NitiReduction reduction) {
  if (!r || r->failed) return;
  const int64_t begin = niti_clock_now();
  r->failed = !r->transport->begin(data, count, reduction);
  r->waited += niti_clock_now() - begin;
}

void niti_ranks_end(NitiRanks *r) {
  if (!r) return;
  const int64_t begin = niti_clock_now();
  r->failed = !r->transport->end() || r->failed;
  r->waited += niti_clock_now() - begin;
}

NitiStatus niti_ranks_check(const NitiRanks *r) { return r && r->failed ? fail_mpi(r) : NITI_OK; }

NitiStatus niti_ranks_broadcast(NitiRanks *r, void *data, size_t bytes) {
  return !r || r->transport->broadcast(data, bytes) ? NITI_OK : fail_mpi(r);
}

NitiStatus niti_ranks_gather(NitiRanks *r, void *out, const void *in, size_t bytes) {
  if (!r) memcpy(out, in, bytes);
  return !r || r->transport->gather(out, in, bytes) ? NITI_OK : fail_mpi(r);
}

typedef struct Word {
  int32_t status;
  char text[1020];
} Word;

/* The lowest rank that has failed, of those that were not merely interrupted if there are any. */
static int first_failed(const Word *words, int size) {
  int found = -1;
  for (int i = 0; i < size; ++i) {
    if (words[i].status == NITI_OK) continue;
    if (found < 0 || (words[found].status == NITI_INTERRUPTED && words[i].status != NITI_INTERRUPTED)) found = i;
  }
  return found;
}

static NitiStatus fail_together(NitiRanks *r, const Word *words) {
  const int size = r->transport->size, found = first_failed(words, size);
  bool same = true;
  for (int i = 0; i < size; ++i) same = same && strcmp(words[i].text, words[found].text) == 0;
  r->agreed = true;
  const NitiStatus status = (NitiStatus)words[found].status;
  if (same) return niti_fail(status, "%s", words[found].text);
  return niti_fail(status, "rank %d (%s): %s", found, r->hosts[found], words[found].text);
}

static NitiStatus any_failed(bool *out, NitiRanks *r, bool failed) {
  bool *all = calloc((size_t)r->transport->size, sizeof *all);
  if (!all) return niti_fail(NITI_ERROR_MEMORY, "out of memory for %d ranks", r->transport->size);
  const NitiStatus status = niti_ranks_gather(r, all, &failed, sizeof failed);
  *out = false;
  for (int i = 0; i < r->transport->size; ++i) *out = *out || all[i];
  free(all);
  return status;
}

NitiStatus niti_ranks_agree(NitiRanks *r, NitiStatus status) {
  bool failed = false;
  if (!r || r->agreed) return status; /* once only: ranks that failed apart come here different numbers of times */
  NITI_TRY(any_failed(&failed, r, status != NITI_OK));
  if (!failed) return NITI_OK;
  Word own = {.status = (int32_t)status}, *words = calloc((size_t)r->transport->size, sizeof own);
  if (!words) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the messages of %d ranks", r->transport->size);
  if (status != NITI_OK) (void)snprintf(own.text, sizeof own.text, "%s", niti_error());
  status = niti_ranks_gather(r, words, &own, sizeof own);
  if (status == NITI_OK) status = fail_together(r, words);
  free(words);
  return status;
}

/* A program's name may be as it was typed, that of a library is a path. */
static const char *code_file(const NitiRanks *r, NitiRankFile which, char whole[PATH_MAX]) {
  const char *file = which == NITI_RANK_PLUGIN ? r->plugin : own_file();
  return file && strchr(file, '/') && niti_system.realpath(file, whole) ? whole : "/proc/self/exe";
}

void niti_ranks_file(const NitiRanks *r, NitiRankFile which, char text[NITI_RANK_TEXT_MAX]) {
  char whole[PATH_MAX];
  struct stat facts = {0};
  (void)niti_system.stat(code_file(r, which, whole), &facts);
  (void)snprintf(text, NITI_RANK_TEXT_MAX, "%ju %ju %jd %jd.%09ld", (uintmax_t)facts.st_dev, (uintmax_t)facts.st_ino,
                 (intmax_t)facts.st_size, (intmax_t)facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec);
}

NitiStatus niti_ranks_file_hash(const NitiRanks *r, NitiRankFile which, char text[65]) {
  char whole[PATH_MAX];
  const char *file = code_file(r, which, whole);
  if (niti_sha256_of_file(text, file) == NITI_OK) return NITI_OK;
  return niti_fail(NITI_ERROR_FILE, "%s: cannot read it to compare it with the other ranks'", file);
}
