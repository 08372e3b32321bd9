/* The table of the operating system's own functions. */
#include "platform/system.h"

#include <stdio.h>  /* rename */
#include <stdlib.h> /* realpath */

/* call_NAME: the function, called again where a signal interrupted it before it did anything. Not for close, which closes the
 * descriptor all the same. */
#define CALL(result, name, parameters, arguments, failure)  \
  static result call_##name parameters {                    \
    for (;;) {                                              \
      result const done = name arguments;                   \
      if (done != (failure) || errno != EINTR) return done; \
    }                                                       \
  }

NITI_SYSTEM_TRANSFERS(CALL)
NITI_SYSTEM_PLAIN_CALLS(CALL)
CALL(int, open, (const char *path, int flags, mode_t mode), (path, flags, mode), -1)
CALL(int, fsync, (int fd), (fd), -1)
CALL(int, fdatasync, (int fd), (fd), -1)
CALL(DIR *, opendir, (const char *path), (path), NULL)

static int call_close(int fd) { return close(fd); }
static int call_closedir(DIR *folder) { return closedir(folder); }
static int call_munmap(void *at, size_t size) { return munmap(at, size); }

static struct dirent *call_readdir(DIR *folder) {
  for (;;) {
    errno = 0; /* so that the caller can tell an error from the end */
    struct dirent *entry = readdir(folder);
    if (entry || errno != EINTR) return entry;
  }
}

static int call_poll(struct pollfd *files, nfds_t count, int milliseconds) {
  const int ready = poll(files, count, milliseconds);
  return ready < 0 && errno == EINTR ? 0 : ready;
}

#define ENTRY(result, name, parameters, arguments, failure) .name = call_##name,
const NitiSystem niti_system = {NITI_SYSTEM_CALLS(ENTRY)};
