/* Writes checkpoints on a background thread, one at a time. */
#include "train/saver.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "platform/workers.h"

struct NitiSaver {
  const NitiRunFolder *folder;
  NitiWorkers thread; /* of the save under way; count 0: none */
  NitiCheckpoint *checkpoint;
  int keep; /* of the last save */
  int32_t epoch;
  NitiStatus status; /* of it, with its message, since errors are per thread */
  char message[1024];
};

NitiStatus niti_saver_open(NitiSaver **out, const NitiRunFolder *folder) {
  *out = calloc(1, sizeof **out);
  if (!*out) return niti_fail(NITI_ERROR_MEMORY, "out of memory for saving");
  (*out)->folder = folder;
  return NITI_OK;
}

static NitiStatus hold(const void *folder) { return niti_run_folder_hold(folder); }

static NitiStatus save_all(const NitiSaver *saver) {
  char name[64];
  (void)snprintf(name, sizeof name, "epoch-%04" PRId32 ".safetensors", saver->epoch);
  const char *before = saver->keep & NITI_KEEP_EPOCH ? name : NULL;
  const char *after = saver->keep & NITI_KEEP_BEST ? "best.safetensors" : NULL;
  const NitiSaveGuard guard = {hold, saver->folder};
  const NitiStatus status =
      niti_checkpoint_save_last(saver->checkpoint, niti_run_folder_path(saver->folder), before, after, &guard);
  if (status == NITI_OK) return hold(saver->folder);
  char why[1024];
  (void)snprintf(why, sizeof why, "%s", niti_error());
  NITI_TRY(hold(saver->folder)); /* the reason of the failure, if it was moved meanwhile */
  return niti_fail(status, "%s", why);
}

static void *run_save(void *context) {
  NitiSaver *saver = context;
  saver->status = save_all(saver);
  if (saver->status != NITI_OK) (void)snprintf(saver->message, sizeof saver->message, "%s", niti_error());
  return NULL;
}

NitiStatus niti_saver_wait(NitiSaver *saver) {
  niti_workers_join(&saver->thread);
  niti_checkpoint_close(saver->checkpoint);
  saver->checkpoint = NULL;
  const NitiStatus status = saver->status;
  if (saver->keep == NITI_KEEP_LAST) saver->status = NITI_OK;
  return status == NITI_OK ? NITI_OK : niti_fail(status, "%s", saver->message);
}

NitiStatus niti_saver_begin(NitiSaver *saver, NitiCheckpoint *checkpoint, int keep, int32_t epoch) {
  const NitiStatus status = niti_saver_wait(saver);
  saver->checkpoint = checkpoint;
  if (status != NITI_OK) return status;
  saver->keep = keep;
  saver->epoch = epoch;
  if (niti_workers_start(&saver->thread, 1, run_save, saver) == NITI_OK) return NITI_OK;
  (void)run_save(saver); /* no thread available: save synchronously */
  return NITI_OK;
}

void niti_saver_close(NitiSaver *saver) {
  if (!saver) return;
  (void)niti_saver_wait(saver);
  free(saver);
}
