/* SHA-256 over named tensors: docs/arithmetic.md, "Identity". */
#ifndef NITI_IO_HASH_H
#define NITI_IO_HASH_H

#include "platform/status.h"

/* Feed tensors in byte order of their names. */
typedef struct NitiHash NitiHash;
NitiStatus niti_hash_open(NitiHash **out);
/* data in host memory: the product of dims elements of `size` bytes (1, 2 or 8), in host byte order. */
void niti_hash_tensor(NitiHash *hash, const char *name, int ndim, const uint32_t *dims, int32_t exponent, const void *data,
                      size_t size);
/* Writes 64 lower-case hexadecimal digits and a zero byte, and releases the hash. */
void niti_hash_close(NitiHash *hash, char text[65]);

#endif
