/* The prefetching loader: epochs as batches, in the shuffled order and with the augmentation of docs/arithmetic.md, prepared by
 * background threads ahead of the training step. */
#ifndef NITI_DATA_LOADER_H
#define NITI_DATA_LOADER_H

#include "data/dataset.h"
#include "program/portion.h"
#include "program/program.h"

/* One batch in host memory, owned by the loader until the next niti_loader_next. */
typedef struct NitiBatch {
  int32_t count;         /* this rank's images, at most the batch size; 0: the epoch is over */
  int32_t whole, first;  /* the images of all ranks' batch, and the number in it of this rank's first one; 0: without ranks */
  bool idle;             /* program/portion.h */
  bool ahead;            /* samples and labels have one more: of the batch's image after this rank's, which mixup mixes in */
  const uint8_t *images; /* the source images that samples refer to: the whole data set's, or this batch's. Of int8 or int16 data
                            sets they are mantissas at NITI_VALUE_EXPONENT already, one int8 in each byte (niti_network_set_input
                            with NULL), windows of the input's size */
  bool resident;         /* images is the whole split, the same pointer every time: a device may keep a copy */
  int64_t total;         /* resident: the images stored there, of which the split may have only some */
  NitiShape source;      /* one source image, n = 1 */
  const NitiSample *samples; /* [count + ahead] */
  const int32_t *labels;     /* [count + ahead], as base/mix.h has them: the class alone, but for mixup */
} NitiBatch;

/* The images of the batch, of all ranks together. */
static inline int32_t niti_batch_whole(const NitiBatch *batch) { return batch->whole > 0 ? batch->whole : batch->count; }

typedef struct NitiLoader NitiLoader;

typedef struct NitiLoaderOptions {
  NitiSplit split; /* NITI_VALIDATION: where the data set has one, or after niti_dataset_hold_out */
  NitiShape input; /* the network's input */
  int32_t batch;
  uint64_t seed;
  int64_t limit;       /* 0, or at most so many images, evenly spread over the split: number i * images / limit */
  bool augment;        /* shuffle, and change images as the data options say; else in order, centred */
  int32_t workers;     /* threads that decode or normalise; 0: one per core */
  int32_t rank, ranks; /* only this rank's portion of every batch is made; ranks 0: the whole batch */
} NitiLoaderOptions;

/* Fails where the split has no images, where the values' type is not the data options', where the data set's images cannot give
 * the network's input: other channels, or smaller even when padded, and where values are no images that colour jitter or resized
 * crops change. The data set must outlive the loader, and `data` give the
 * same fitting as it was opened with. */
NitiStatus niti_loader_open(NitiLoader **out, const NitiDataset *dataset, const NitiDataOptions *data,
                            const NitiLoaderOptions *options);
void niti_loader_close(NitiLoader *loader);
int64_t niti_loader_steps(const NitiLoader *loader);  /* batches per epoch */
int64_t niti_loader_images(const NitiLoader *loader); /* and their images */
/* Starts an epoch at a batch (0: its beginning; at most niti_loader_steps: nothing is left), dropping what was prepared. At an
 * epoch's end the beginning of the next one is being prepared already and kept. Must be called before the first niti_loader_next.
 * */
NitiStatus niti_loader_start(NitiLoader *loader, uint32_t epoch, int64_t first_batch);
/* The next batch, waiting for it where needed. A file that cannot be read or decoded, or an image of it that is no longer the
 * one hashed (niti_dataset_checks), fails here, in the batch that wants it, however many workers there are; calling again fails
 * again. Where the data set's watch stops the wait: NITI_INTERRUPTED, and calling
 * again goes on. */
NitiStatus niti_loader_next(NitiLoader *loader, NitiBatch *out);

#endif
