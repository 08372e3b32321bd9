/* Inside src/data: arrays of integers from files. */
#ifndef NITI_DATA_ARRAY_H
#define NITI_DATA_ARRAY_H

#include "data/dataset.h"

enum { NITI_ARRAY_DIMS_MAX = 4 };

/* Row-major (C order), in host byte order. Release with niti_array_close, also after a failure. */
typedef struct NitiArray {
  bool sign;
  int bytes;                         /* of an element: 1, 2, 4 or 8 */
  int ndim;                          /* 1 to NITI_ARRAY_DIMS_MAX */
  int64_t dims[NITI_ARRAY_DIMS_MAX]; /* at least 1 each */
  const void *data;
  void *memory;  /* where data is */
  size_t mapped; /* bytes of memory that are a map of the file; 0: memory is from malloc */
} NitiArray;

/* Maps an .npy file (numpy.save, format versions 1 to 3) of integers or booleans into memory; the file must not be changed while
 * it is. Anything else (object arrays, floating point, big-endian, Fortran order, more dimensions, other sizes than the header
 * says) is NITI_ERROR_FORMAT with what to do about it. */
NitiStatus niti_npy_read(NitiArray *out, const char *path);
/* Reads a text of whole numbers, separated by commas, semicolons or tabs, one row per line, as int16 [rows][columns], or, with
 * `labels`, one column of int32 from 0 as [rows]. A first line that does not begin with a number is a header. CRLF, a byte-order
 * mark and blank lines are allowed. Reads piece by piece, and no further than to the first thing that is wrong. columns_max: how
 * many values a row may have, where that is more than NITI_CHANNELS_MAX. watched: whose watch is called; NULL: none. */
NitiStatus niti_csv_read(NitiArray *out, const char *path, bool labels, int64_t columns_max, NitiDataset *watched);
void niti_array_close(NitiArray *array);

#endif
