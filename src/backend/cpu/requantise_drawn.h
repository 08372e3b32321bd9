/* Rounding that draws random words, by vectors: which words the elements of some rows draw, made for many short rows at once.
 * Each instruction set's file includes this and rounds the pieces. */
#ifndef NITI_BACKEND_CPU_REQUANTISE_DRAWN_H
#define NITI_BACKEND_CPU_REQUANTISE_DRAWN_H

#include "backend/cpu/random_vector.h"
#include "backend/cpu/requantise.h"

/* Bytes that rounding an element draws. */
NITI_RANDOM_INLINE size_t random_bytes(NitiRounding mode) {
  return mode == NITI_STOCHASTIC ? 4 : mode == NITI_STOCHASTIC_BYTE ? 1 : 0;
}

/* Part of a row whose random blocks are in one batch. */
typedef struct Piece {
  size_t row, first, count; /* its elements are columns first .. first + count - 1 of the row */
  size_t random;            /* where its first element's byte or word begins */
} Piece;

typedef struct Batch {
  Piece pieces[NITI_RANDOM_BLOCKS];
  int count;                                           /* of pieces */
  _Alignas(64) uint8_t random[NITI_RANDOM_BYTES + 64]; /* vectors may read beyond the last element's */
  size_t row, first;                                   /* where the next batch begins */
} Batch;

NITI_RANDOM_INLINE void start_batches(Batch *b) { b->row = b->first = 0; }

/* The next pieces of rows of `columns` elements, the first of each at index + offset[row] of this rank's part of the tensor;
 * false: no elements are left. */
NITI_RANDOM_INLINE bool next_batch(Batch *b, const NitiRounder *r, NitiRounding mode, uint64_t index, const size_t *offset,
                                   size_t rows, size_t columns) {
  const size_t bytes = random_bytes(mode), per_block = 16 / bytes;
  uint32_t block[NITI_RANDOM_BLOCKS] = {0};
  size_t used = 0;
  for (b->count = 0; columns > 0 && b->row < rows && used < NITI_RANDOM_BLOCKS; ++b->count) {
    const uint64_t at = r->first + index + offset[b->row] + b->first;
    const size_t skipped = at % per_block, most = (NITI_RANDOM_BLOCKS - used) * per_block - skipped;
    const size_t left = columns - b->first, count = left < most ? left : most, blocks = (skipped + count - 1) / per_block + 1;
    b->pieces[b->count] = (Piece){b->row, b->first, count, used * 16 + skipped * bytes};
    for (size_t i = 0; i < blocks; ++i) block[used++] = (uint32_t)(at / per_block + i);
    b->first = count == left ? 0 : b->first + count;
    b->row += count == left;
  }
  if (b->count > 0) random_blocks(b->random, block, used, &r->draw);
  return b->count > 0;
}

#endif
