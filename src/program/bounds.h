/* Passes over a program: accumulation lengths, the proof that no accumulator overflows, and totals.
 *
 * Accumulation lengths are counted in products of two mantissas, 127^2: at most NITI_ACCUMULATION_MAX of them fit into int32
 * (docs/arithmetic.md, "No accumulator can overflow"). */
#ifndef NITI_PROGRAM_BOUNDS_H
#define NITI_PROGRAM_BOUNDS_H

#include "program/program.h"

/* Whether a product subtracts a norm's running means. */
bool niti_conv_is_centred(const NitiProgram *, const NitiOperation *);
/* The operation's accumulation length, in products of 127^2; 0: it has no accumulator that is requantised. Weight gradients are
 * counted too: beyond NITI_ACCUMULATION_MAX they are summed in int64. */
int64_t niti_accumulation_length(const NitiOperation *);
/* Head-room of that accumulation length in int32, in bits: floor(log2(NITI_ACCUMULATION_MAX / length)); 0 for length 0. */
int niti_headroom_bits(int64_t length);
/* The dtype that holds a weight gradient of this accumulation length: s32 or s64. */
NitiDtype niti_gradient_dtype(int64_t length);
/* The bits of the operation's accumulators: 64 for a weight gradient that is summed in s64, else 32. */
int niti_accumulator_bits(const NitiProgram *, const NitiOperation *);
/* The number of the first operation whose accumulators could overflow, NITI_NONE if all are proven exact. */
int32_t niti_program_overflow(const NitiProgram *);
/* The number of the first activation or delta of a layer that, in the batch of all ranks, exceeds the index space of random
 * words, 2^34, or of the first tensor that may not find room beside those before it in this machine's addresses; else NITI_NONE.
 */
int32_t niti_program_too_large(const NitiProgram *);
/* Multiply-adds of one image; 0 for operations that multiply nothing. */
int64_t niti_multiply_adds(const NitiOperation *);
/* The bytes of one rank's data that an operation exchanges where several ranks run the program together (docs/scaling.md): 4 for
 * a maximum before rounding; sums of gradients, of batch norm and of metrics. Those of gradients in a row are one exchange. */
int64_t niti_exchanged_bytes(const NitiProgram *, const NitiOperation *);
/* Trained values of the whole program. */
int64_t niti_program_parameters(const NitiProgram *);

#endif
