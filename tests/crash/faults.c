/* A library to preload under the tool: it lets chosen calls of the system fail, or kills the process at one. NITI_FAULT is
 *   allocation:N       the Nth allocation fails          allocations:N      and all that follow it
 *   call:N:ERROR       the Nth call on files fails with that errno; ERROR 0: it reads or writes one byte alone
 *   calls:N:ERROR      and all of that function's that follow it
 *   flock:ERROR        every flock fails with that errno
 *   kill:N             SIGKILL instead of the Nth call on files      killed:N   after it
 * NITI_FAULT_REPORT names a file that receives, at the end, the number of allocations, of blocks not freed, and of calls on
 * files, and which function the fault hit. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/system.h"

static atomic_long allocations, live, calls;
static long fail_allocation, fail_call, kill_before, kill_after;
static bool fail_all;
static int fail_error, flock_error;
static char hit[64] = "-";
static bool ready;

__attribute__((constructor)) static void begin(void) {
  const char *fault = getenv("NITI_FAULT");
  if (fault && sscanf(fault, "allocation:%ld", &fail_allocation) == 1) fail_all = false;
  if (fault && sscanf(fault, "allocations:%ld", &fail_allocation) == 1) fail_all = true;
  if (fault && sscanf(fault, "call:%ld:%d", &fail_call, &fail_error) == 2) fail_all = false;
  if (fault && sscanf(fault, "calls:%ld:%d", &fail_call, &fail_error) == 2) fail_all = true;
  if (fault)
    (void)(sscanf(fault, "flock:%d", &flock_error) + sscanf(fault, "kill:%ld", &kill_before) +
           sscanf(fault, "killed:%ld", &kill_after));
  unsetenv("LD_PRELOAD"); /* for this process alone */
}

/* What libraries do before main is their own affair: CUDA's runtime crashes where it gets no memory then. */
typedef int (*Main)(int, char **, char **);
static Main tool;

static int begin_main(int count, char **arguments, char **environment) {
  atomic_store(&live, 0);
  ready = true;
  return tool(count, arguments, environment);
}

int __libc_start_main(Main main, int count, char **arguments, void (*init)(void), void (*fini)(void), void (*exit)(void),
                      void *stack) {
  int (*start)(Main, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);
  *(void **)&start = dlsym(RTLD_NEXT, "__libc_start_main");
  tool = main;
  return start(begin_main, count, arguments, init, fini, exit, stack);
}

__attribute__((destructor)) static void end(void) {
  const char *path = getenv("NITI_FAULT_REPORT");
  if (!path || !ready) return;
  ready = false;
  FILE *file = fopen(path, "w");
  if (!file) return;
  fprintf(file, "%ld %ld %ld %s\n", atomic_load(&allocations), atomic_load(&live), atomic_load(&calls), hit);
  fclose(file);
}

/* ---- allocations ---- */

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static bool refuse(void) {
  if (!ready) return false;
  const long number = atomic_fetch_add(&allocations, 1) + 1;
  const bool refused = fail_allocation && (number == fail_allocation || (fail_all && number > fail_allocation));
  if (refused) errno = ENOMEM;
  return refused;
}

static void *keep(void *p) {
  if (p) atomic_fetch_add(&live, 1);
  return p;
}

void *malloc(size_t size) { return refuse() ? NULL : keep(__libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return refuse() ? NULL : keep(__libc_calloc(count, size)); }
void *memalign(size_t alignment, size_t size) { return refuse() ? NULL : keep(__libc_memalign(alignment, size)); }
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **out, size_t alignment, size_t size) {
  void *p = memalign(alignment, size);
  if (!p) return ENOMEM;
  *out = p;
  return 0;
}

void *realloc(void *old, size_t size) {
  if (!old) return malloc(size);
  return refuse() ? NULL : __libc_realloc(old, size);
}

void free(void *p) {
  if (p) atomic_fetch_sub(&live, 1);
  __libc_free(p);
}

/* ---- files ---- */

/* Counts a call; -1: it fails, 1: it is cut short, 0: it goes on. *number: the call's. */
static int meet(const char *name, long *number) {
  static char failing[64];
  *number = 0;
  if (!ready) return 0;
  *number = atomic_fetch_add(&calls, 1) + 1;
  if (*number == kill_before) raise(SIGKILL);
  if (*number == fail_call) {
    (void)snprintf(hit, sizeof hit, "%s", name);
    (void)snprintf(failing, sizeof failing, "%s", name);
  }
  if (flock_error && strcmp(name, "flock") == 0) {
    errno = flock_error;
    return -1;
  }
  if (!fail_call || (*number != fail_call && !(fail_all && *number > fail_call && strcmp(failing, name) == 0))) return 0;
  if (fail_error == 0) return 1;
  errno = fail_error;
  return -1;
}

static void leave(long number) {
  if (number && number == kill_after) raise(SIGKILL);
}

#define REAL(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))
/* A function of this name, whose failure is `failure`. */
#define CALL(result, name, parameters, arguments, failure) \
  result name parameters {                                 \
    long number;                                           \
    if (meet(#name, &number) < 0) return failure;          \
    result const done = REAL(name) arguments;              \
    leave(number);                                         \
    return done;                                           \
  }
/* The same, of one byte where it is cut short. */
#define TRANSFER(result, name, parameters, arguments, failure) \
  result name parameters {                                     \
    long number;                                               \
    const int met = meet(#name, &number);                      \
    if (met < 0) return failure;                               \
    if (met > 0 && size > 1) size = 1;                         \
    result const done = REAL(name) arguments;                  \
    leave(number);                                             \
    return done;                                               \
  }
#define OPEN(name)                                                    \
  int name(const char *path, int flags, ...) {                        \
    long number;                                                      \
    va_list rest;                                                     \
    va_start(rest, flags);                                            \
    const mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                     \
    if (meet(#name, &number) < 0) return -1;                          \
    const int fd = REAL(name)(path, flags, mode);                     \
    leave(number);                                                    \
    return fd;                                                        \
  }

OPEN(open)
OPEN(open64)
NITI_SYSTEM_TRANSFERS(TRANSFER)
NITI_SYSTEM_PLAIN_CALLS(CALL)
CALL(int, fsync, (int fd), (fd), -1)
CALL(int, fdatasync, (int fd), (fd), -1)
CALL(DIR *, opendir, (const char *path), (path), NULL)
CALL(struct dirent *, readdir, (DIR * folder), (folder), NULL)
CALL(FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL)

int close(int fd) { /* a descriptor is closed whatever close returns */
  long number;
  const int met = meet("close", &number), error = errno, done = REAL(close)(fd);
  leave(number);
  if (met >= 0) return done;
  errno = error;
  return -1;
}
