/* Files of values for hardware designers: arrays of integers in several formats, and the index that describes them. */
#ifndef NITI_EXPORT_VALUES_H
#define NITI_EXPORT_VALUES_H

#include <jansson.h>

#include "program/program.h"

/* The formats, as bits. */
enum { NITI_VALUES_NPY = 1, NITI_VALUES_HEX = 2, NITI_VALUES_H = 4, NITI_VALUES_SAFETENSORS = 8, NITI_VALUES_FORMATS = 4 };
/* "npy", "hex", "h", "safetensors": of format k, whose bit is 1 << k. */
extern const char *const niti_values_endings[NITI_VALUES_FORMATS];

typedef struct NitiValues {
  const char *name;   /* what the index calls it */
  const char *dtype;  /* "int8", "uint8", "int16", "int32", "uint32", "int64" */
  const char *layout; /* a letter per dimension, the slowest first: "NHWC" */
  int32_t rank;
  int64_t dims[NITI_RANK_MAX];
  bool scaled; /* whether it has an exponent */
  int32_t exponent;
  const void *data;
} NitiValues;

/* The bits of "npy,hex"; 0: one of them is unknown. */
unsigned niti_values_formats(const char *list);
/* Writes FOLDER/STEM.npy, .hex (one value per line, two's complement, as Verilog's $readmemh reads them), .h (an array
 * called STEM, with _ for what C does not allow) and .safetensors as `formats` says, and appends to `entries`: {name, file: STEM,
 * dtype, layout, dims, exponent, sha256}, the last over the little-endian bytes. */
NitiStatus niti_values_write(const char *folder, const char *stem, unsigned formats, const NitiValues *values, json_t *entries);
enum { NITI_FILE_STEM_MAX = 200 };

/* What an index's entry says of its files; the strings are the entry's and the caller's. */
typedef struct NitiFileValues {
  const char *folder, *stem;
  size_t width, count; /* bytes of a value; values */
  bool sign;
  int32_t rank;
  int64_t dims[NITI_RANK_MAX];
} NitiFileValues;

/* NITI_ERROR_FORMAT, naming the file: an entry without a file's name, a dtype or dims. */
NitiStatus niti_file_values_open(NitiFileValues *out, const char *folder, const json_t *entry);
/* The values of the file in format `format` (0 to NITI_VALUES_FORMATS - 1), in this machine's byte order, in new memory; NULL:
 * there is no such file. Texts may be written otherwise than niti does: any case, white space, line ends and comments; hex also _
 * and the next value's @address; h also hexadecimal numbers. NITI_ERROR_FORMAT, with file and line: what is no value of the
 * dtype, or another number of values, dtype or shape than the entry has. */
NitiStatus niti_file_values_read(void **data, const NitiFileValues *values, int format);
/* Writes FOLDER/index.json. */
NitiStatus niti_values_write_index(const char *folder, const json_t *index);

#endif
