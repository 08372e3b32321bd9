/* Checkpoints by a hand that knows the format: their hash and checksum, written from docs/arithmetic.md ("Identity") and
 * io/checkpoint.h, and changes that keep both right. */
#ifndef NITI_TESTS_FORGE_H
#define NITI_TESTS_FORGE_H

#include "fuzz.h"

/* Changes a checkpoint's metadata or tensors, or any byte, and mostly makes hash and checksum right again. Returns the new size,
 * at most room. */
size_t forge_mutate(uint8_t *data, size_t size, size_t room, unsigned seed);

#endif
