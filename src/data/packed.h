/* Files that gzip may have packed, read in order as what they hold. zlib's own reader ignores whatever follows a member. */
#ifndef NITI_DATA_PACKED_H
#define NITI_DATA_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "platform/status.h"

enum { NITI_PADDING_MAX = 1 << 20 /* zeros behind gzip data */ };

/* An open file; for one thread at a time. */
typedef struct NitiPacked NitiPacked;

/* Opens a regular file, which is packed where it begins with gzip's magic number. `path` must outlive it. */
NitiStatus niti_packed_open(NitiPacked **out, const char *path);
/* Reads the next bytes; *got is less than `size` at the end only. Fails with NITI_ERROR_FORMAT on damaged gzip data, and at the
 * end where anything but zeros, as tapes pad files with, or more than NITI_PADDING_MAX of them follow the last member, with its
 * place in the file. */
NitiStatus niti_packed_read(NitiPacked *packed, void *to, size_t size, size_t *got);
/* Whether gzip packed it. */
bool niti_packed_is(const NitiPacked *packed);
/* The bytes of the file as it is. */
uint64_t niti_packed_size(const NitiPacked *packed);
/* NULL is accepted. */
void niti_packed_close(NitiPacked *packed);

#endif
