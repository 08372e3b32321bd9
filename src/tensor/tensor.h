/* Shapes, and the hash of named tensors. */
#ifndef NITI_TENSOR_TENSOR_H
#define NITI_TENSOR_TENSOR_H

#include "platform/status.h"

/* NHWC. A matrix [N][features] is {N, 1, 1, features}. */
typedef struct NitiShape {
  int32_t n, h, w, c;
} NitiShape;

/* Elements of one image, and of the whole. */
static inline size_t niti_shape_image(NitiShape s) { return (size_t)s.h * (size_t)s.w * (size_t)s.c; }
static inline size_t niti_shape_count(NitiShape s) { return (size_t)s.n * niti_shape_image(s); }

/* SHA-256 over named tensors: docs/arithmetic.md, "Identity". Feed tensors in byte order of their names. */
typedef struct NitiHash NitiHash;
NitiStatus niti_hash_open(NitiHash **out);
/* data in host memory: the product of dims elements of `size` bytes (1 or 2, little-endian). */
void niti_hash_tensor(NitiHash *hash, const char *name, int ndim, const uint32_t *dims, int32_t exponent, const void *data,
                      size_t size);
/* Writes 64 lower-case hexadecimal digits and a zero byte, and releases the hash. */
void niti_hash_close(NitiHash *hash, char text[65]);

#endif
