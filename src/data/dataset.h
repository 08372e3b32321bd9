/* Data sets: labelled uint8 images of one size, from several file formats, behind one interface. */
#ifndef NITI_DATA_DATASET_H
#define NITI_DATA_DATASET_H

#include "platform/status.h"
#include "program/shape.h"

enum { NITI_CHANNELS_MAX = 4 };

typedef enum NitiDataKind {
  NITI_DATA_AUTO = 0, /* probe the folder */
  NITI_DATA_IDX,      /* (train|t10k)-(images-idx3|labels-idx1)-ubyte[.gz] */
  NITI_DATA_CIFAR10,  /* data_batch_*.bin, test_batch.bin */
  NITI_DATA_CIFAR100, /* train.bin, test.bin (fine labels) */
  NITI_DATA_FOLDER,   /* SPLIT/CLASS/IMAGE.jpg|jpeg|png */
} NitiDataKind;

/* How image folders' images of any size become one size. */
typedef enum NitiFit {
  NITI_FIT_CROP = 0, /* scale the short side to `resize` (0: to cover the input), then a window: random or centred */
  NITI_FIT_STRETCH,  /* scale both sides to the input's size */
} NitiFit;

/* The recipe's part about data. */
typedef struct NitiDataOptions {
  NitiDataKind kind;
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX]; /* millionths of full scale */
  int32_t stat_count;                                      /* channels given; 0: the data set's own integer statistics */
  int32_t pad;                                             /* zero pixels on each side before a random crop */
  bool random_crop, flip;
  NitiFit fit;
  int32_t resize; /* short side in pixels; 0: the network input's */
} NitiDataOptions;

typedef enum NitiSplit { NITI_TRAIN = 0, NITI_TEST = 1 } NitiSplit;

typedef struct NitiDataset NitiDataset;

/* Opens the folder `path`, or its subfolder of a usual name (mnist/, fashion-mnist/, cifar-10-batches-bin/, cifar-100-binary/);
 * kind AUTO finds out which, and says what it looked for where nothing matches. For an image folder, `size` {1, H, W, C}, C 1 or
 * 3, is the size wanted (NULL: the first training image's, options' resize ignored); the others have their own and ignore it.
 * options may be NULL: all zero. IDX and CIFAR are read and checked at once (sizes, magic numbers, labels); of an image folder
 * only the names: an image that is damaged fails, naming its file, when it is read. */
NitiStatus niti_dataset_open(NitiDataset **out, const char *path, const NitiDataOptions *options, const NitiShape *size);
void niti_dataset_close(NitiDataset *dataset);
/* The folder of Debian's dataset-fashion-mnist or of NITI_DATA if set; NULL where there is none. */
const char *niti_dataset_default(void);

const char *niti_dataset_kind(const NitiDataset *dataset);
int32_t niti_dataset_classes(const NitiDataset *dataset);
const char *niti_dataset_class_name(const NitiDataset *dataset, int32_t label); /* NULL: not known */
int64_t niti_dataset_count(const NitiDataset *dataset, NitiSplit split);
/* One image's shape, n = 1. Image folders: the size asked for (their files' sizes differ). */
NitiShape niti_dataset_shape(const NitiDataset *dataset);
int32_t niti_dataset_label(const NitiDataset *dataset, NitiSplit split, int64_t index);
/* All images of a split, [count][H][W][C], owned by the data set; NULL where images are decoded one by one (read). */
const uint8_t *niti_dataset_images(const NitiDataset *dataset, NitiSplit split);
/* Decodes one image into out [H][W][C] (image.h says how files are scaled). Image folders: word_y, word_x choose the window
 * (word_below over its span, padding included); centre: the middle one. Safe to call from several threads at once. */
NitiStatus niti_dataset_read(const NitiDataset *dataset, NitiSplit split, int64_t index, bool centre, uint32_t word_y,
                             uint32_t word_x, uint8_t *out);
/* Reads and fits one image file (JPEG or PNG) as `niti predict` needs it: centre window, `size` channels. */
NitiStatus niti_image_read(const char *path, const NitiDataOptions *options, NitiShape size, uint8_t *out);
/* The same of a file's bytes; `name` stands for it in messages. */
NitiStatus niti_image_read_bytes(const uint8_t *bytes, size_t count, const char *name, const NitiDataOptions *options,
                                 NitiShape size, uint8_t *out);
/* Mean and standard deviation of all training pixels per channel, in millionths of full scale, from exact sums, rounded to
 * nearest (the deviation after its square was rounded down); 0 beyond the channels. A constant channel has deviation 0. Image
 * folders: of the centred windows, decoded by one thread a core. */
NitiStatus niti_dataset_statistics(const NitiDataset *dataset, int32_t mean[NITI_CHANNELS_MAX], int32_t std[NITI_CHANNELS_MAX]);
/* SHA-256 over the split's files (their content, uncompressed, in the order they are read: images, then labels), as 64 hex
 * digits. Image folders: before each file's bytes, CLASS/NAME and a zero byte. */
NitiStatus niti_dataset_hash(const NitiDataset *dataset, NitiSplit split, char text[65]);
/* The same over the files' names alone, CLASS/NAME and a zero byte each; of other data sets over the kind, since their files may
 * be compressed or not. */
void niti_dataset_names_hash(const NitiDataset *dataset, NitiSplit split, char text[65]);

#endif
