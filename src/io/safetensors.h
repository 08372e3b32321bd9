/* The safetensors container: named tensors of integers and a map of strings in one file.
 *
 * Layout: the header's length N as little-endian uint64; N bytes of JSON, padded with spaces to a multiple of 8; the data.
 * The reader is strict: what it accepts has no hole, no overlap, no duplicate and no unknown key. */
#ifndef NITI_IO_SAFETENSORS_H
#define NITI_IO_SAFETENSORS_H

#include "platform/file.h"
#include "platform/status.h"

enum {
  NITI_DIMS_MAX = 8,
  NITI_SAFETENSORS_HEADER_MAX = 16 << 20, /* bytes of JSON that the reader accepts */
};

/* The types that niti writes, then those of other tools' files (floats, unsigned integers), of which only the size is known here.
 */
typedef enum NitiFileDtype {
  NITI_I8 = 0,
  NITI_I16,
  NITI_I32,
  NITI_I64,
  NITI_FOREIGN8,
  NITI_FOREIGN16,
  NITI_FOREIGN32,
  NITI_FOREIGN64,
} NitiFileDtype;

/* Bytes of one element. */
static inline size_t niti_dtype_size(NitiFileDtype dtype) { return (size_t)1 << ((unsigned)dtype & 3u); }
static inline bool niti_dtype_foreign(NitiFileDtype dtype) { return dtype > NITI_I64; }
/* "I8", "I16", "I32", "I64"; of a foreign dtype its size. */
const char *niti_file_dtype_name(NitiFileDtype dtype);

typedef struct NitiPair {
  char *key, *value;
} NitiPair;

typedef struct NitiSafetensor {
  char *name;
  NitiFileDtype dtype;
  int32_t ndim; /* 0: a scalar */
  uint32_t dims[NITI_DIMS_MAX];
  void *data; /* product of dims elements, row-major, in host byte order (the file: little-endian); NULL only if there are none */
} NitiSafetensor;

typedef struct NitiSafetensors {
  NitiSafetensor *tensors;
  size_t count;
  NitiPair *metadata;
  size_t metadata_count;
  uint64_t bytes;   /* of the file that was read */
  uint64_t control; /* where its header has the first control character, such as a line's end; 0: nowhere */
} NitiSafetensors;

/* The bytes of a tensor's data; NITI_ERROR_FORMAT if they do not fit size_t or ndim is out of range. */
NitiStatus niti_safetensor_bytes(size_t *bytes, const NitiSafetensor *tensor);

/* Writes a container into an open file (file.h). Tensors are laid out with the widest elements first, then in byte order of
 * their names, so that each lies aligned. Names and keys must be unique, all strings UTF-8 (else NITI_ERROR_ARGUMENT). */
NitiStatus niti_safetensors_write(NitiFile *file, const NitiSafetensors *content);

/* Reads a file; on success everything in *out is owned by it, in the order of the data, until niti_safetensors_clear. Memory is
 * bounded by a small multiple of the header's length plus the file's size. Errors name the file, and the tensor or byte. */
NitiStatus niti_safetensors_read(NitiSafetensors *out, const char *path);
/* Frees what niti_safetensors_read allocated. */
void niti_safetensors_clear(NitiSafetensors *content);

#endif
