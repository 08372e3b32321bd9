/* Data sets: labelled images of one size, from several file formats, behind one interface. docs/data.md has the formats. */
#ifndef NITI_DATA_DATASET_H
#define NITI_DATA_DATASET_H

#include "platform/status.h"
#include "program/shape.h"

typedef enum NitiDataKind {
  NITI_DATA_AUTO = 0, /* probe the folder */
  NITI_DATA_IDX,      /* (train|t10k)-(images-idx3|labels-idx1)-ubyte[.gz] */
  NITI_DATA_CIFAR10,  /* data_batch_*.bin, test_batch.bin */
  NITI_DATA_CIFAR100, /* train.bin, test.bin (fine labels) */
  NITI_DATA_FOLDER,   /* SPLIT/CLASS/.../IMAGE.jpg|jpeg|png */
  NITI_DATA_NPY,      /* (train|test|validation)_(x|y).npy */
  NITI_DATA_CSV,      /* (train|test|validation)_(x|y).csv */
} NitiDataKind;

/* What a data set's values are. Images are uint8 and become mantissas by a table (niti_input_table); int8 and int16, of arrays,
 * are normalised by the loader. */
typedef enum NitiDataType { NITI_UINT8 = 0, NITI_INT8, NITI_INT16 } NitiDataType;
const char *niti_data_type_name(NitiDataType type);

/* How image folders' images of any size become one size. */
typedef enum NitiFit {
  NITI_FIT_CROP = 0, /* scale the short side to `resize` (0: to cover the input), then a window: random or centred */
  NITI_FIT_STRETCH,  /* scale both sides to the input's size */
} NitiFit;

/* What becomes of image files that cannot be read. */
typedef enum NitiBadFiles {
  NITI_BAD_ERROR = 0, /* they are errors */
  NITI_BAD_SKIP,      /* they are left out */
} NitiBadFiles;

/* How much of the next image of the batch is mixed in: distributions of the shares. */
typedef enum NitiMixup { NITI_MIXUP_NONE = 0, NITI_MIXUP_EDGES, NITI_MIXUP_EVEN } NitiMixup; /* 0, Beta(0.2, 0.2), Beta(1, 1) */

/* In millionths: of colour jitter; of resized crops. */
enum {
  NITI_STRENGTH_MAX = 1000000,
  NITI_SCALE_MAX = 1000000,
  NITI_ASPECT_MIN = 62500,
  NITI_ASPECT_MAX = 16000000,
};

/* The recipe's part about data. */
typedef struct NitiDataOptions {
  NitiDataKind kind;
  NitiDataType type;                                       /* what the network takes; loaders refuse data sets of another */
  bool type_given;                                         /* false: a new run takes the data set's */
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX]; /* millionths of full scale: 255, 128 (int8) or 32768 (int16) */
  int32_t stat_count;                                      /* channels given; 0: the data set's own integer statistics */
  int32_t pad;                                             /* zero pixels on each side before a random crop */
  bool random_crop, flip;
  bool resized_crop;           /* of the source image, instead of a window (docs/arithmetic.md) */
  int32_t scale[2], aspect[2]; /* of resized crops, least and most, in millionths: share of the area; width by height */
  int32_t cutout;              /* side of the square that becomes the mean; 0: none */
  int32_t brightness, contrast, saturation; /* strength of colour jitter, in millionths */
  NitiMixup mixup;
  NitiFit fit;
  int32_t resize; /* short side in pixels; 0: the network input's */
  NitiBadFiles bad_files;
  int32_t validation_count; /* training images to hold out for validation (niti_dataset_hold_out) ... */
  int32_t validation_share; /* ... or their share in millionths; both 0: none */
} NitiDataOptions;

/* Whether training changes colours. */
static inline bool niti_data_jitters(const NitiDataOptions *options) {
  return options->brightness > 0 || options->contrast > 0 || options->saturation > 0;
}
/* Whether it does more than cut and mirror windows. */
static inline bool niti_data_changes(const NitiDataOptions *options) {
  return options->resized_crop || options->mixup != NITI_MIXUP_NONE || niti_data_jitters(options);
}
/* Whether training takes other pixels than evaluation. */
static inline bool niti_data_augments(const NitiDataOptions *options) {
  return options->random_crop || options->resized_crop || options->flip || options->cutout > 0 ||
         options->mixup != NITI_MIXUP_NONE || niti_data_jitters(options);
}

enum { NITI_SPLITS = 3 };
#define NITI_SPLIT_BIT(split) (1u << (split))
#define NITI_EVERY_SPLIT (NITI_SPLIT_BIT(NITI_SPLITS) - 1)
/* "training", "test", "validation". */
const char *niti_split_name(NitiSplit split);

/* Long work reports its progress ten times per second on the calling thread; if `progress` returns false, the work ends with
 * NITI_INTERRUPTED, within the time that one file takes. progress NULL: no reports. */
typedef struct NitiDataWatch {
  bool (*progress)(void *context, const char *what, int64_t done, int64_t total);
  void *context;
} NitiDataWatch;

/* What is wanted of a data set beside the recipe's options. All zero: whatever is there. */
typedef struct NitiDataRequest {
  NitiShape size;  /* {1, H, W, C} of the network's input; n = 0: not known. Image folders: what images are fitted to, C 1 or 3;
                      not known: the first image's, options' resize ignored. Arrays: the shape of rows of as many values. The
                      other formats have their own size */
  unsigned need;   /* NITI_SPLIT_BIT of the splits that must be there and hold images */
  unsigned take;   /* of more splits, opened where they are there. No other split is looked at; need and take 0: every split */
  int32_t classes; /* without training images: how many classes there are at least; 0: not known */
  bool lazy; /* for one of several processes with the same files: opening hashes nothing, since niti_dataset_hash, which reads
                the files again, may be called elsewhere; and images stay in files that can be read by position, which
                are IDX without gzip, CIFAR and .npy */
  NitiDataWatch watch; /* for opening and for everything later; its context must outlive the data set */
} NitiDataRequest;

typedef struct NitiDataset NitiDataset;

/* Opens the folder `path`, or its subfolder of a usual name (mnist/, MNIST/raw/, cifar-10-batches-bin/ and others); kind AUTO
 * finds out which, and says what it looked for, or what to do with what is there, where nothing matches. Where an image folder
 * has no test images but validation images, those are the test split. IDX and CIFAR are read and checked at once (sizes, magic
 * numbers, labels); of an image folder only the names: niti_dataset_check reads it. options, request may be NULL: all zero. */
NitiStatus niti_dataset_open(NitiDataset **out, const char *path, const NitiDataOptions *options, const NitiDataRequest *request);
void niti_dataset_close(NitiDataset *dataset);
/* The folder of Debian's dataset-fashion-mnist or of NITI_DATA if set; NULL where there is none. */
const char *niti_dataset_default(void);

const char *niti_dataset_kind(const NitiDataset *dataset);
NitiDataType niti_dataset_type(const NitiDataset *dataset);
/* Whether every image is a separate file. */
bool niti_dataset_is_folder(const NitiDataset *dataset);
int32_t niti_dataset_classes(const NitiDataset *dataset);
/* The name that identifies a class: an image folder's name. NULL: not known, or no such label. */
const char *niti_dataset_class_name(const NitiDataset *dataset, int32_t label);
/* Its display name: from classes.txt if listed there, else the name. */
const char *niti_dataset_class_label(const NitiDataset *dataset, int32_t label);
int64_t niti_dataset_count(const NitiDataset *dataset, NitiSplit split); /* 0: not there, or not opened */
/* One image's shape, n = 1. Image folders: the size asked for (their files' sizes differ). */
NitiShape niti_dataset_shape(const NitiDataset *dataset);
int32_t niti_dataset_label(const NitiDataset *dataset, NitiSplit split, int64_t index);
/* The file of an image, below the split's folder; NULL where many images share one. */
const char *niti_dataset_file(const NitiDataset *dataset, NitiSplit split, int64_t index);
/* The index'th human-readable note; NULL beyond the last: files that are not read, classes without
 * images, images left out. They begin with a path and are UTF-8. Owned by the data set; valid until the next call that may add
 * one. */
const char *niti_dataset_note(const NitiDataset *dataset, int index);

/* All images stored for a split, [stored][H][W][C] of uint8, owned by the data set; NULL where a loader makes or reads them one
 * by one.
 * Image `index` of the split is the niti_dataset_place(index)'th of them. Two splits may share one store. */
const uint8_t *niti_dataset_images(const NitiDataset *dataset, NitiSplit split);
int64_t niti_dataset_stored(const NitiDataset *dataset, NitiSplit split);
int64_t niti_dataset_place(const NitiDataset *dataset, NitiSplit split, int64_t index);
/* Brings images of uint8 that a lazy data set has left in files into memory, for a device that keeps a copy of them all. Before
 * any loader is opened. */
NitiStatus niti_dataset_load(NitiDataset *dataset);
/* Reads or decodes one image into out [H][W][C]; uint8 only (image.h says how files are scaled). Image folders: word_y, word_x
 * choose the window (word_below over its span, padding included); centre: the middle one. Safe to call from several threads at
 * once. */
NitiStatus niti_dataset_read(const NitiDataset *dataset, NitiSplit split, int64_t index, bool centre, uint32_t word_y,
                             uint32_t word_x, uint8_t *out);
/* The centre window, size {1, H, W, C}, of a sample of int8 or int16 as mantissas at NITI_VALUE_EXPONENT, by the options' mean,
 * std and pad. */
NitiStatus niti_dataset_read_values(const NitiDataset *dataset, NitiSplit split, int64_t index, const NitiDataOptions *options,
                                    NitiShape size, int8_t *out);
/* Reads and fits one image file (JPEG or PNG) as `niti predict` needs it: centre window, `size` channels. */
NitiStatus niti_image_read(const char *path, const NitiDataOptions *options, NitiShape size, uint8_t *out);
/* The same for a file's bytes; messages call it `name`. */
NitiStatus niti_image_read_bytes(const uint8_t *bytes, size_t count, const char *name, const NitiDataOptions *options,
                                 NitiShape size, uint8_t *out);

/* Reads every image of a split, by one thread per core, and remembers those that cannot be read: bad_count of them, each
 * niti_dataset_bad "PATH: reason", in the data set's order. Fails for want of memory or where the watch stops it, not for bad
 * images. */
NitiStatus niti_dataset_survey(NitiDataset *dataset, NitiSplit split);
int64_t niti_dataset_bad_count(const NitiDataset *dataset, NitiSplit split);
const char *niti_dataset_bad(const NitiDataset *dataset, NitiSplit split, int64_t index);
/* Surveys the split, and where images are bad does what the options' bad_files says: fails, naming the first of them and the
 * number of others; or leaves them out and notes that, unless none is left. Before any loader is opened. */
NitiStatus niti_dataset_check(NitiDataset *dataset, NitiSplit split);
/* Looks at the files of an image folder without decoding those that seem whole (image.h, niti_image_glance); fails as
 * niti_dataset_check where one is found to be bad, whatever bad_files says. */
NitiStatus niti_dataset_glance(NitiDataset *dataset, NitiSplit split);
/* Moves training images to the validation split: `count` of them, or, where share > 0, this share in millionths, of every class
 * its part; which ones depends on the labels and the seed alone (docs/arithmetic.md, "Validation split"). Both splits keep the
 * data set's order and number their images from 0; they share one store, so niti_dataset_images, stored and hash of both are
 * those of all the training files. After any niti_dataset_check of the training images; before statistics, which are then those
 * of the images left, and before any loader. Fails where there are validation images already, or where none or all would go. */
NitiStatus niti_dataset_hold_out(NitiDataset *dataset, int64_t count, int32_t share, uint64_t seed);
/* Mean and standard deviation of all training values per channel, in millionths of full scale, from exact sums, rounded to
 * nearest, ties away from zero (the deviation after its square was rounded down); 0 beyond the channels. A constant channel has
 * deviation 0. Image folders: of the centred windows of the images that a survey found good; without one, niti_dataset_check
 * comes first. */
NitiStatus niti_dataset_statistics(NitiDataset *dataset, int32_t mean[NITI_CHANNELS_MAX], int32_t std[NITI_CHANNELS_MAX]);
/* Where several processes share the work of niti_dataset_statistics, not of an image folder: sums the training values of part
 * number `part` of `parts`. niti_dataset_sums are then these sums, [C][2] of values and of their squares modulo 2^64, and have to
 * become those of all parts before statistics are asked for. */
NitiStatus niti_dataset_sum(NitiDataset *dataset, int part, int parts);
int64_t *niti_dataset_sums(NitiDataset *dataset);
/* SHA-256 over the split's files (their content, uncompressed, in the order they are read: images, then labels), as 64 hex
 * digits. Image folders: before each file's bytes, CLASS/NAME and a zero byte. Fails where files that it has to read again are no
 * longer as they were when the data set was opened. Where images have stayed in files, it makes their checks. */
NitiStatus niti_dataset_hash(NitiDataset *dataset, NitiSplit split, char text[65]);
/* Whether the files whose values are used where they are mapped, those of .npy, are still the ones that were opened, by inode,
 * size and times: what was computed before a call that succeeds used their values as they were when they were opened. FILE, with
 * the name, where one was changed or replaced since. Costs a stat per split; safe beside loaders. */
NitiStatus niti_dataset_check_maps(const NitiDataset *dataset);
/* The checks by which changes to files are noticed: of each of the niti_dataset_stored images of a lazy data set that have stayed
 * in files. NULL: there are none, or neither this data set nor another, whose checks it was given, has hashed them. */
const uint32_t *niti_dataset_checks(const NitiDataset *dataset, NitiSplit split);
/* Takes over a copy of checks that a data set with the same hash has made; nothing happens where images are in memory. */
NitiStatus niti_dataset_set_checks(NitiDataset *dataset, NitiSplit split, const uint32_t *checks);
/* Which files a split consists of: 64 hex digits that two data sets opened on one host share only where the files were the same
 * ones when they were opened, and had not changed lately. Image folders: the same folder. "" where a file had changed lately, or
 * could not be asked about. */
void niti_dataset_files(const NitiDataset *dataset, NitiSplit split, char text[65]);
/* SHA-256 over the files' names alone, CLASS/NAME and a zero byte each; of other data sets over the kind, since their files may
 * be compressed or not. */
void niti_dataset_names_hash(const NitiDataset *dataset, NitiSplit split, char text[65]);

/* A list of paths, owned: release with niti_paths_close, also after a failure. */
typedef struct NitiPaths {
  char **path;
  size_t count, capacity;
} NitiPaths;
/* Adds every .jpg, .jpeg and .png file below the folder `dir`, as paths that begin with it, in byte order; *unread says in one
 * line what else is there (to be freed by the caller; NULL: nothing). */
NitiStatus niti_images_find(NitiPaths *paths, char **unread, const char *dir);
void niti_paths_close(NitiPaths *paths);

#endif
