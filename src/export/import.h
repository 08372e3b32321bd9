/* What comes back from a device: its saved state as a checkpoint, and the order of its samples as the same training again. */
#ifndef NITI_EXPORT_IMPORT_H
#define NITI_EXPORT_IMPORT_H

#include "io/checkpoint.h"
#include "niti.h"
#include "train/recipe.h"

/* Keys of a checkpoint that niti_import_dump or niti_replay wrote: with what a replay, or the device, goes on. */
#define NITI_DEVICE_STEP "device_step"
#define NITI_DEVICE_MU "device_mu"
#define NITI_DEVICE_SEED "device_seed"

/* A state that was taken over, or trained. */
typedef struct NitiImportResult {
  char hash[65];
  int64_t steps; /* from the exported weights on: on the device, or of the checkpoint and the log together */
  int32_t mu;    /* at the end */
} NitiImportResult;

/* Writes the checkpoint `out` with the weights that a device saved. dump: a file with one slot or both, as NAME_save wrote them,
 * at any place: other bytes may lie before, between and after them; the newest whole state counts. It may hold stale headers of
 * the network too, but no more than twice as many as slots fit into its bytes, and two. network: the NAME.safetensors of the
 * export, for the frozen weights and the recipe. Statuses: ARGUMENT, FILE, FORMAT (no whole state of this network, its mu or a
 * weight is out of range, or too many headers), MODEL, UNSUPPORTED, MEMORY. */
NitiStatus niti_import_dump(NitiImportResult *result, const char *dump, const char *network, const char *out);

/* NITI_ERROR_ARGUMENT: out, if not NULL, is one of the files that are read. */
NitiStatus niti_import_check_out(const char *out, const char *network, const char *source);
/* With what a device begins. */
typedef struct NitiDeviceStart {
  uint32_t step;
  int mu;
  uint64_t seed;
  bool scheduled;   /* the recipe changes mu during a run, which devices leave to their firmware */
  bool own;         /* mu is the device's, not the recipe's */
  bool placed;      /* the recipe's schedule is that of the run which trained the checkpoint */
  int64_t position; /* in the schedule, from 0: of the run's last step, or 0 */
} NitiDeviceStart;

/* Of a checkpoint with the three keys: what they say. Else step 0, the recipe's seed, and the rate with which the run trained the
 * checkpoint's last step, or, of one that is of no run, of the recipe's first step. Places the recipe's schedule in that run.
 * NITI_ERROR_UNSUPPORTED, with `what` cannot be: a rate that is not whole. */
NitiStatus niti_device_start(NitiDeviceStart *out, NitiRecipe *recipe, const NitiCheckpoint *checkpoint, const char *what);
/* Sets the three keys. */
NitiStatus niti_import_state(NitiCheckpoint *checkpoint, uint32_t step, int32_t mu, uint64_t seed);

/* Trains as a device did, from the export's NAME.safetensors (network), or from a checkpoint of niti_import_dump or of this
 * function, at its step and learning rate: log has a line per step, of SAMPLE:LABEL for each image
 * (SAMPLE its number among the training images of `data`, from 0); lines `mu N` set the learning rate, and those that begin with
 * # count for nothing. out: the checkpoint to write; NULL: none. data NULL: the recipe's. Statuses: ARGUMENT, FILE, FORMAT (with
 * the log's line), MODEL, UNSUPPORTED, MEMORY, DEVICE. */
NitiStatus niti_replay(NitiImportResult *result, const char *log, const char *network, const char *data, const char *out,
                       const NitiDevice *device);

#endif
