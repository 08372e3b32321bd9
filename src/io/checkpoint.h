/* Checkpoints: tensors and named values as one safetensors file. train/run_state.c lists what a run stores in one.
 *
 * The file stores each tensor NAME together with its block exponent, an I32 scalar `NAME.exponent`. `__metadata__` holds the
 * values, which are strings (one that is not UTF-8, such as a path, as KEY.escaped and not as KEY: platform/text.h), and four
 * keys of the format's own: format ("niti"), version (a number from 1), hash (docs/arithmetic.md, "Identity"), and checksum
 * (SHA-256 over all tensors and all other metadata, so that damage anywhere is detected). */
#ifndef NITI_IO_CHECKPOINT_H
#define NITI_IO_CHECKPOINT_H

#include "io/safetensors.h"
#include "platform/status.h"

typedef struct NitiCheckpointTensor {
  char *name;          /* owned; not ending in ".exponent" */
  NitiFileDtype dtype; /* I8, I16, I64: weights, part of the hash. I32: state, not part of it */
  int32_t ndim;        /* 0..NITI_DIMS_MAX */
  uint32_t dims[NITI_DIMS_MAX];
  int32_t exponent; /* value = element * 2^exponent */
  void *data;       /* the product of dims elements, row-major, host memory, host byte order; I8 in [-127, 127] */
  bool owned;       /* whether niti_checkpoint_close frees data */
} NitiCheckpointTensor;

/* The version written; all versions from 1 on are read. It grows with every key that becomes mandatory. */
enum { NITI_CHECKPOINT_VERSION = 1 };

/* The largest magnitude of an exponent in a file, far beyond any network's that learns; sums of exponents over all layers fit in
 * int32. */
enum { NITI_CHECKPOINT_EXPONENT_MAX = 1024 };

typedef struct NitiCheckpoint {
  NitiCheckpointTensor *tensors; /* names unique, in any order; after a load in byte order of the names */
  size_t tensor_count;
  NitiPair *values; /* owned; keys unique, none of them the format's own; set by niti_checkpoint_set */
  size_t value_count;
  char *source; /* owned: the file it was loaded from; NULL: none */
  int version;  /* of that file */
} NitiCheckpoint;

/* An empty checkpoint. */
NitiStatus niti_checkpoint_open(NitiCheckpoint **out);
/* Frees the checkpoint, its strings, and the data of tensors that it owns. NULL is accepted. */
void niti_checkpoint_close(NitiCheckpoint *checkpoint);

/* Appends a tensor. The name is copied; data is borrowed and must outlive the checkpoint. */
NitiStatus niti_checkpoint_add(NitiCheckpoint *checkpoint, const char *name, NitiFileDtype dtype, int ndim, const uint32_t *dims,
                               int32_t exponent, void *data);
/* The tensor of that name, or NULL. */
const NitiCheckpointTensor *niti_checkpoint_find(const NitiCheckpoint *checkpoint, const char *name);

/* Sets a value (both texts are copied). The format's own keys, listed above, are refused, and so is KEY.escaped. */
NitiStatus niti_checkpoint_set(NitiCheckpoint *checkpoint, const char *key, const char *value);
/* The value of a key, or NULL. Owned by the checkpoint. */
const char *niti_checkpoint_get(const NitiCheckpoint *checkpoint, const char *key);
/* The same; fails with the key's and the file's name if the key is missing. */
NitiStatus niti_checkpoint_want(const char **value, const NitiCheckpoint *checkpoint, const char *key);
/* The file it was loaded from, for messages; never NULL. */
const char *niti_checkpoint_source(const NitiCheckpoint *checkpoint);

/* The hash of docs/arithmetic.md, "Identity": 64 hexadecimal digits and a zero byte. */
NitiStatus niti_checkpoint_hash(const NitiCheckpoint *checkpoint, char text[65]);

/* Writes the file whole or not at all: temporary file in the same folder, fsync, rename, fsync of the folder. On failure
 * (NITI_ERROR_FILE with the system's reason, or NITI_ERROR_ARGUMENT for content that cannot be saved) the old file remains. */
NitiStatus niti_checkpoint_save(const NitiCheckpoint *checkpoint, const char *path);
/* Saves DIR/last.safetensors and keeps the one before as DIR/previous.safetensors. At any time, even after a crash, at least
 * one of the two is complete. before, after: names in DIR that get the same content before and after that, so that it is hashed
 * once; NULL: none. guard: asked before each file is begun and before it is put in place, and its failure is the save's; NULL:
 * none. */
typedef struct NitiSaveGuard {
  NitiStatus (*check)(const void *context);
  const void *context;
} NitiSaveGuard;
NitiStatus niti_checkpoint_save_last(const NitiCheckpoint *checkpoint, const char *dir, const char *before, const char *after,
                                     const NitiSaveGuard *guard);

/* Reads and verifies: the container (safetensors.h), the format's own keys, mantissas in range, hash and checksum. The caller
 * closes *out. Any damage is NITI_ERROR_FORMAT with the file's name and the place, a later version NITI_ERROR_UNSUPPORTED. */
NitiStatus niti_checkpoint_load(NitiCheckpoint **out, const char *path);
/* Reads the weights of any safetensors file, edited ones too: every tensor NAME that comes with an integer NAME.exponent of
 * one element; it must be I8 with mantissas in range or of another integer dtype. Other tensors and the metadata are ignored, and
 * neither hash nor checksum is required. *intact (may be NULL): the file is a checkpoint as niti wrote it. A file
 * without such a tensor is NITI_ERROR_FORMAT. */
NitiStatus niti_checkpoint_load_weights(NitiCheckpoint **out, bool *intact, const char *path);
/* Loads DIR/last.safetensors; if that is missing or damaged, DIR/previous.safetensors. *used_previous (may be NULL): which one;
 * if true, niti_error() describes the failure of `last`. If neither loads, returns the failure of `last`. A `last` of a later
 * version also fails, since continuing from the previous checkpoint would overwrite it, and so do one that the system does not
 * open or read, which may be intact, and a lack of memory. */
NitiStatus niti_checkpoint_load_last(NitiCheckpoint **out, bool *used_previous, const char *dir);

#endif
