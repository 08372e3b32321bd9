/* Memory by lifetime: assigns every activation, delta and saved tensor of a program, gradients if asked for, and what a backend
 * needs beside them a place in one arena, so that what is alive at the same time does not overlap. Weights, state, metrics,
 * constants and inputs live outside. */
#ifndef NITI_PROGRAM_PLACES_H
#define NITI_PROGRAM_PLACES_H

#include "program/program.h"

enum { NITI_ALIGN = 256 /* bytes: alignment of every place */, NITI_LAYOUTS = 2, NITI_READS_ELEMENTS = 1 << NITI_LAYOUTS };

typedef struct NitiPlaces {
  int64_t *offsets;               /* [tensor_count] in the arena; -1: not in the arena, or never used */
  int64_t *layouts[NITI_LAYOUTS]; /* [tensor_count] the same of its further layouts; a reshape's are its input's */
  int32_t *storage;               /* [tensor_count] the tensor whose memory it shares: itself, or the first written there */
  bool *outlasted;                /* [tensor_count] layout 0 is there after the elements may have been overwritten */
  int64_t *temporaries;           /* [temporary_count] the same as offsets; -1: of no bytes */
  size_t *alive;                  /* [operation_count] bytes that are alive while the operation runs, whole places */
  size_t arena_bytes;
} NitiPlaces;

/* The bytes to reserve for a tensor; context is the caller's. */
typedef size_t (*NitiTensorBytes)(const void *context, const NitiProgram *, int32_t tensor);

/* Memory of a backend's own, from before operation `first` to after operation `last`. */
typedef struct NitiTemporary {
  size_t bytes;
  int32_t first, last;
} NitiTemporary;

/* What a backend needs. Whatever is NULL counts as: elements without padding; elements alone are read; no layouts. */
typedef struct NitiPlacing {
  bool gradients; /* whether they have places, too */
  const void *context;
  NitiTensorBytes bytes;                                                                 /* of the elements */
  size_t (*layout)(const void *context, const NitiProgram *, int32_t tensor, int which); /* 0: there is none */
  int (*reads)(const void *context, const NitiProgram *, int32_t operation, int input);  /* NITI_READS_ELEMENTS, 1 << layout */
  const int32_t *ends; /* [operation_count] the last operation during which each may still run; NULL: itself */
  const NitiTemporary *temporaries;
  size_t temporary_count;
} NitiPlacing;

/* The memory of elements and of each layout begins with the operation that writes them and ends with the last that reads them.
 * Outputs reuse the elements of inputs that are not read again where their opcode permits it (a reshape always shares its
 * input's). Fails with NITI_ERROR_MEMORY only. */
NitiStatus niti_places_open(NitiPlaces *out, const NitiProgram *, const NitiPlacing *);
void niti_places_close(NitiPlaces *);
/* Whether a tensor of this role lives in every arena. */
bool niti_role_in_arena(NitiRole);

#endif
