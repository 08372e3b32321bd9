/* Starts and joins threads that leave signals to the others. */
#include "platform/workers.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "platform/threads.h"

NitiStatus niti_workers_start(NitiWorkers *workers, int count, void *(*main)(void *), void *context) {
  sigset_t all, before;
  int error = 0;
  if (count == 0) count = niti_usable_cores();
  workers->count = 0;
  workers->threads = calloc((size_t)count, sizeof *workers->threads);
  if (!workers->threads) return niti_fail(NITI_ERROR_MEMORY, "out of memory for %d threads", count);
  sigfillset(&all);
  sigdelset(&all, SIGBUS); /* where a mapped file has become shorter: blocked, it ends the process at once */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (workers->count < count && (error = pthread_create(&workers->threads[workers->count], NULL, main, context)) == 0)
    ++workers->count;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (workers->count > 0) return NITI_OK;
  free(workers->threads);
  workers->threads = NULL;
  return niti_fail(NITI_ERROR_MEMORY, "cannot start threads: %s", strerror(error));
}

void niti_workers_join(NitiWorkers *workers) {
  for (int i = 0; i < workers->count; ++i) pthread_join(workers->threads[i], NULL);
  free(workers->threads);
  workers->threads = NULL;
  workers->count = 0;
}
