/* What comes back from a device: its saved state as a checkpoint, and the order of its samples as the same training again. */
#ifndef NITI_EXPORT_IMPORT_H
#define NITI_EXPORT_IMPORT_H

#include "niti.h"

/* A state that was taken over, or trained. */
typedef struct NitiImportResult {
  char hash[65];
  int64_t steps; /* on the device, or in the log */
  int32_t mu;    /* at the end */
} NitiImportResult;

/* Writes the checkpoint `out` with the weights that a device saved. dump: a file with one slot or both, as NAME_save wrote them;
 * the newest whole state counts. network: the NAME.safetensors of the export, for the frozen weights and the recipe. Statuses:
 * ARGUMENT, FILE, FORMAT (no whole state of this network), MODEL, UNSUPPORTED, MEMORY. */
NitiStatus niti_import_dump(NitiImportResult *result, const char *dump, const char *network, const char *out);

/* Trains as a device did, from the export's NAME.safetensors (network): log has a line per step, of SAMPLE:LABEL for each image
 * (SAMPLE its number among the training images of `data`, from 0); lines `mu N` set the learning rate, and those that begin with
 * # count for nothing. out: the checkpoint to write; NULL: none. data NULL: the recipe's. Statuses: ARGUMENT, FILE, FORMAT (with
 * the log's line), MODEL, UNSUPPORTED, MEMORY, DEVICE. */
NitiStatus niti_replay(NitiImportResult *result, const char *log, const char *network, const char *data, const char *out,
                       const NitiDevice *device);

#endif
