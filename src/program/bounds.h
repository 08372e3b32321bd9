/* Passes over a program: how many products each accumulator adds up, the proof that none overflows, and totals.
 *
 * Accumulation lengths are counted in products of two mantissas, 127^2: at most NITI_MAX_TERMS of them fit into int32
 * (docs/arithmetic.md, "No accumulator can overflow"). */
#ifndef NITI_PROGRAM_BOUNDS_H
#define NITI_PROGRAM_BOUNDS_H

#include "program/program.h"

/* The longest sum in one accumulator of the operation, in products of 127^2; 0: it has none that is brought to int8. Weight
 * gradients are counted too: beyond NITI_MAX_TERMS they are summed in int64. */
int64_t niti_accumulation_length(const NitiOperation *);
/* Bits left above a sum of that length in int32: floor(log2(NITI_MAX_TERMS / length)); 0 for length 0. */
int niti_headroom_bits(int64_t length);
/* The dtype that holds a weight gradient of so many products: s32 or s64. */
NitiDtype niti_gradient_dtype(int64_t length);
/* The number of the first operation whose accumulators could overflow, NITI_NONE where every one is proven exact. */
int32_t niti_program_overflow(const NitiProgram *);
/* The number of the first activation or delta of a layer with more elements than random words have indices, 2^34; NITI_NONE. */
int32_t niti_program_too_large(const NitiProgram *);
/* Multiply-adds of one image; 0 for operations that multiply nothing. */
int64_t niti_multiply_adds(const NitiOperation *);
/* Trained values of the whole program. */
int64_t niti_program_parameters(const NitiProgram *);

#endif
