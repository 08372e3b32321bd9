/* Inside src/data: what a data format must offer, and the open data set that the formats fill. */
#ifndef NITI_DATA_FORMAT_H
#define NITI_DATA_FORMAT_H

#include <sys/types.h>
#include <time.h>

#include "data/dataset.h"
#include "data/records.h"
#include "platform/path.h"

enum {
  NITI_IMAGE_SIDE_MAX = 16384, /* of a resident image or of a network's input, in pixels; samples are int16 */
  NITI_CLASSES_MAX = 65536,
};

/* Sums over the values of one channel. */
typedef struct NitiSums {
  int64_t sum;
  uint64_t squares;
} NitiSums;

/* What a file was like when it was opened. All zero: there was none, or it could not be asked about. */
typedef struct NitiFileFacts {
  dev_t device;
  ino_t inode;
  off_t size;
  struct timespec changed, status_changed;
} NitiFileFacts;

/* One split: images in memory, records of files that are read one by one, or files that are decoded one by one. */
typedef struct NitiDataSplit {
  char *dir;             /* where the files are; NULL: the split was not opened */
  NitiPaths files;       /* below dir, in the order they are read; image folders: files.path[i] is stored image i */
  NitiFileFacts *facts;  /* [files.count]; NULL for image folders */
  const uint8_t *images; /* [stored][H][W][C]; NULL where they are made one by one */
  const void *values;    /* the same of any type; NULL for image folders, and while they stay in: */
  NitiRecords *records;  /* NULL: images are in memory, or decoded */
  void *memory;          /* where they are */
  size_t mapped;         /* bytes of memory that are a map of a file; 0: memory is from malloc */
  int32_t *labels;       /* [stored] */
  int64_t stored, count; /* images in the files, and of them in this split */
  uint32_t *index;       /* [count], ascending: which of those stored; NULL: all */
  bool shared;           /* files, images, records and labels belong to the training split */
  char sha256[65];       /* niti_dataset_hash, where the files were hashed while they were read; "": not yet */
  NitiPaths bad;         /* messages of the last survey */
  int64_t *bad_index;    /* [bad.count], ascending */
  NitiSums *sums;        /* [C], of `surveyed` good images; NULL: no survey yet */
  int64_t surveyed;
} NitiDataSplit;

typedef struct NitiDataFormat {
  NitiDataKind kind;
  const char *name;
  const char *looked_for;    /* what probe looks for, human-readable */
  const char *subfolders[8]; /* usual names of such a folder inside a parent; ends with NULL */
  NitiStatus (*probe)(bool *found, const char *path);
  /* Fills shape, classes, names and the request's splits, as far as they are there, of a data set that has its options and
   * request; niti_dataset_close releases what a failure leaves. */
  NitiStatus (*open)(NitiDataset *dataset, const char *path);
} NitiDataFormat;

struct NitiDataset {
  const NitiDataFormat *format;
  NitiDataOptions options;
  NitiDataRequest request;
  NitiShape shape;
  NitiDataType type;
  int32_t classes;
  char **names;  /* [classes], or NULL */
  char **labels; /* [classes], or NULL: the names */
  NitiDataSplit split[NITI_SPLITS];
  NitiPaths notes;
  int64_t watched; /* when the watch was called last */
  time_t opened;   /* when the first file may have been read */
};

extern const NitiDataFormat niti_data_idx, niti_data_cifar10, niti_data_cifar100, niti_data_folder, niti_data_npy, niti_data_csv;

/* Adds a copy of `text`. `dir` is for messages. */
NitiStatus niti_paths_add(NitiPaths *paths, const char *text, const char *dir);
/* Adds the name of a file that is about to be read to the split's files, and its facts. */
NitiStatus niti_split_add_file(NitiDataSplit *split, const char *name);
/* One stored sample of niti_sample_bytes, where it is in memory, or read into room. Not of image folders. Safe to call from
 * several threads at once. */
NitiStatus niti_split_sample(const void **out, void *room, const NitiDataset *dataset, const NitiDataSplit *split, int64_t place);
size_t niti_sample_bytes(const NitiDataset *dataset);
/* Adds a note. */
NitiStatus niti_dataset_add_note(NitiDataset *dataset, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Whether this split is to be opened where it is there; and whether it must be there. */
bool niti_takes_split(const NitiDataset *dataset, NitiSplit split);
bool niti_needs_split(const NitiDataset *dataset, NitiSplit split);
/* Calls the watch where it is time. */
NitiStatus niti_dataset_watch(NitiDataset *dataset, const char *what, int64_t done, int64_t total);

/* Reads DIR/NAME as exactly `count` class names, one per line; blank lines at the end, CRLF and a byte-order mark are allowed.
 * NITI_OK and *out NULL where the file does not exist. The caller owns (*out)[count]. */
NitiStatus niti_names_read(char ***out, const char *dir, const char *name, int32_t count);
/* Reads DIR/classes.txt, lines of a class name, white space and what to show in its place, into dataset->labels. Classes without
 * a line keep their names, lines of other classes are ignored. Nothing happens where the file does not exist. */
NitiStatus niti_labels_read(NitiDataset *dataset, const char *dir);
void niti_names_close(char **names, int32_t count);

/* The options' ranges. */
NitiStatus niti_data_options_check(const NitiDataOptions *options);
/* The kind of the data set in a folder; NULL: there is none. */
const char *niti_data_probe(const char *path);
/* What a folder that is no data set seems to be, and what to do with it, into text[size]; "" where nothing comes to mind. */
void niti_data_hint(char *text, size_t size, const char *path);

#endif
