/* Memory by lifetime: assigns every activation, delta and saved tensor of a program, and gradients if asked for, a place in one
 * arena, so that tensors alive at the same time do not overlap. Weights, state, metrics, constants and inputs live outside. */
#ifndef NITI_PROGRAM_PLACES_H
#define NITI_PROGRAM_PLACES_H

#include "program/program.h"

enum { NITI_ALIGN = 256 }; /* bytes: alignment of every place */

typedef struct NitiPlaces {
  int64_t *offsets; /* [tensor_count] in the arena; -1: not in the arena, or never used */
  int32_t *storage; /* [tensor_count] the tensor whose memory it shares: itself, or the first written there */
  size_t arena_bytes;
} NitiPlaces;

/* The bytes to reserve for a tensor; context is the caller's. */
typedef size_t (*NitiTensorBytes)(const void *context, const NitiProgram *, int32_t tensor);

/* gradients: whether they have places, too. bytes NULL: the elements only, without padding.
 * Outputs reuse the memory of inputs that are not read again where their opcode permits it (a reshape always shares its input's).
 * Fails with NITI_ERROR_MEMORY only. */
NitiStatus niti_places_open(NitiPlaces *out, const NitiProgram *, bool gradients, NitiTensorBytes bytes, const void *context);
void niti_places_close(NitiPlaces *);
/* Whether a tensor of this role lives in every arena. */
bool niti_role_in_arena(NitiRole);

#endif
