/* Inside src/data: what a data format must offer, and the open data set that the formats fill. */
#ifndef NITI_DATA_FORMAT_H
#define NITI_DATA_FORMAT_H

#include "data/dataset.h"
#include "platform/path.h"

enum {
  NITI_IMAGE_SIDE_MAX = 16384, /* of a resident image or of a network's input, in pixels; picks are int16 */
  NITI_CLASSES_MAX = 65536,
};

/* One split: images in memory, or files that are decoded one by one. */
typedef struct NitiDataSplit {
  char *dir;    /* where the files lie */
  char **files; /* paths below dir, in the order they are read; image folders: files[i] is image i */
  size_t file_count, file_capacity;
  uint8_t *images; /* [count][H][W][C]; NULL for image folders */
  int32_t *labels; /* [count] */
  int64_t count;
} NitiDataSplit;

typedef struct NitiDataFormat {
  NitiDataKind kind;
  const char *name;
  const char *looked_for;    /* what probe looks for, for people */
  const char *subfolders[3]; /* usual names of such a folder inside a parent; ends with NULL */
  bool (*probe)(const char *path);
  /* Fills shape, classes, names and both splits of a zeroed data set; what a failure leaves behind, niti_dataset_close releases.
   */
  NitiStatus (*open)(NitiDataset *dataset, const char *path, const NitiShape *size);
} NitiDataFormat;

struct NitiDataset {
  const NitiDataFormat *format;
  NitiDataOptions options;
  NitiShape shape;
  int32_t classes;
  char **names; /* [classes], or NULL */
  NitiDataSplit split[2];
};

extern const NitiDataFormat niti_data_idx, niti_data_cifar10, niti_data_cifar100, niti_data_folder;

/* Adds a file to the split's list (a copy of name). */
NitiStatus niti_split_add_file(NitiDataSplit *split, const char *name);
/* Reads DIR/NAME as exactly `count` class names, one a line; blank lines at the end are allowed. NITI_OK and *out NULL where the
 * file does not exist. The caller owns (*out)[count]. */
NitiStatus niti_names_read(char ***out, const char *dir, const char *name, int32_t count);
void niti_names_close(char **names, int32_t count);

/* The options' ranges. */
NitiStatus niti_data_options_check(const NitiDataOptions *options);

#endif
