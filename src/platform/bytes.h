/* The byte order of files, which is little-endian, and that of this machine. */
#ifndef NITI_PLATFORM_BYTES_H
#define NITI_PLATFORM_BYTES_H

#include <stddef.h>
#include <stdint.h>

enum { NITI_BYTES_BIG = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__, NITI_BYTES_PIECE = 8192 };

/* Reverses the bytes of each of `count` elements of `size` bytes. */
void niti_bytes_reverse(void *data, size_t count, size_t size);
/* Turns elements in a file's order into this machine's, or back, in place. */
void niti_bytes_little(void *data, size_t count, size_t size);
/* The elements data[bytes], of `size` bytes each, in a file's order from byte `at` on (< bytes, whole elements): *count bytes, in
 * place where this machine has that order, else in `buffer`. */
const uint8_t *niti_bytes_piece(size_t *count, uint8_t buffer[NITI_BYTES_PIECE], const void *data, size_t at, size_t bytes,
                                size_t size);

#endif
