/* Checkpoints: everything that a run needs to go on, as one safetensors file.
 *
 * In the file each tensor NAME stands beside its block exponent, an I32 scalar `NAME.exponent`. `__metadata__` holds the
 * rest as strings: format ("niti"), version ("1"), step, epoch, seed, model, recipe, train_loss_sum, train_correct,
 * train_images, best_correct, best_images, best_epoch, hash (docs/arithmetic.md, "Identity"), checksum (SHA-256 over all
 * tensors and all other metadata, so that damage anywhere is noticed), and every extra pair under its own key. */
#ifndef NITI_IO_CHECKPOINT_H
#define NITI_IO_CHECKPOINT_H

#include "io/safetensors.h"
#include "platform/status.h"

typedef struct NitiCheckpointTensor {
  char *name;      /* owned; not ending in ".exponent" */
  NitiFileDtype dtype; /* I8, I16: weights, part of the hash. I32, I64: state, not part of it */
  int32_t ndim;    /* 0..NITI_DIMS_MAX */
  uint32_t dims[NITI_DIMS_MAX];
  int32_t exponent; /* value = element * 2^exponent */
  void *data;       /* the product of dims elements, row-major, host memory, host byte order; I8 in [-127, 127] */
  bool owned;       /* whether niti_checkpoint_close frees data */
} NitiCheckpointTensor;

typedef struct NitiCheckpoint {
  NitiCheckpointTensor *tensors; /* names unique, in any order; after a load in byte order of the names */
  size_t tensor_count;
  uint64_t step;  /* training steps done */
  uint32_t epoch; /* epochs completed: also the number, from 0, of the epoch under way */
  uint64_t seed;
  char *model_text, *recipe_text; /* owned, UTF-8; NULL is saved and loaded as "" */
  struct {
    int64_t loss_sum; /* bits, 16 fraction bits, over `images` */
    int64_t correct, images;
  } train; /* of the epoch under way, up to `step` */
  struct {
    int64_t correct, images; /* images 0: no evaluation yet */
    int64_t epoch;
  } best;           /* the best test accuracy so far */
  NitiPair *extras; /* more metadata; owned; set by niti_checkpoint_set */
  size_t extra_count;
} NitiCheckpoint;

/* An empty checkpoint: all numbers 0, no tensors. */
NitiStatus niti_checkpoint_open(NitiCheckpoint **out);
/* Frees the checkpoint, its strings, and the data of tensors that it owns. NULL is accepted. */
void niti_checkpoint_close(NitiCheckpoint *checkpoint);

/* Appends a tensor. The name is copied; data is borrowed and must outlive the checkpoint. */
NitiStatus niti_checkpoint_add(NitiCheckpoint *checkpoint, const char *name, NitiFileDtype dtype, int ndim, const uint32_t *dims,
                               int32_t exponent, void *data);
/* The tensor of that name, or NULL. */
const NitiCheckpointTensor *niti_checkpoint_find(const NitiCheckpoint *checkpoint, const char *name);
/* The number of elements of a tensor, and of bytes. */
size_t niti_checkpoint_tensor_count(const NitiCheckpointTensor *tensor);
size_t niti_checkpoint_tensor_bytes(const NitiCheckpointTensor *tensor);

/* Copies the texts into the checkpoint, in place of any it has. */
NitiStatus niti_checkpoint_set_texts(NitiCheckpoint *checkpoint, const char *model_text, const char *recipe_text);
/* Sets an extra pair (copied). The format's own keys, listed above, are refused. */
NitiStatus niti_checkpoint_set(NitiCheckpoint *checkpoint, const char *key, const char *value);
/* The value of an extra pair, or NULL. Owned by the checkpoint. */
const char *niti_checkpoint_get(const NitiCheckpoint *checkpoint, const char *key);

/* The hash of docs/arithmetic.md, "Identity": 64 hexadecimal digits and a zero byte. */
NitiStatus niti_checkpoint_hash(const NitiCheckpoint *checkpoint, char text[65]);

/* Writes the file whole or not at all: temporary file in the same folder, fsync, rename, fsync of the folder. On failure
 * (NITI_ERROR_FILE with the system's reason, or NITI_ERROR_ARGUMENT for content that cannot be saved) the old file stands. */
NitiStatus niti_checkpoint_save(const NitiCheckpoint *checkpoint, const char *path);
/* Saves DIR/last.safetensors and keeps the one before as DIR/previous.safetensors. At every moment, even of a crash, at least one
 * of the two is complete. */
NitiStatus niti_checkpoint_save_last(const NitiCheckpoint *checkpoint, const char *dir);

/* Reads and verifies: the container (safetensors.h), every required key, mantissas in range, hash and checksum. The caller closes
 * *out. Any damage is NITI_ERROR_FORMAT with the file's name and the place. */
NitiStatus niti_checkpoint_load(NitiCheckpoint **out, const char *path);
/* Loads DIR/last.safetensors; if that is missing or damaged, DIR/previous.safetensors. *used_previous (may be NULL) tells which;
 * when true, niti_error() still says what is wrong with `last`. If neither loads, the error of `last` is returned. */
NitiStatus niti_checkpoint_load_last(NitiCheckpoint **out, bool *used_previous, const char *dir);

#endif
