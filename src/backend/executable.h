/* A compiled program, as compile.c makes it, run.c runs it and executable.c reads and writes its tensors. */
#ifndef NITI_BACKEND_EXECUTABLE_H
#define NITI_BACKEND_EXECUTABLE_H

#include "backend/kernels.h"
#include "program/places.h"

enum { NITI_VARIANTS = 2, NITI_WHOLE = 0 }; /* of a convolution: for the whole batch, and for the latest smaller one */

/* In an executable's packed weights. */
typedef struct NitiPackedPlace {
  size_t offset, bytes; /* bytes 0: the operation packs none, or by itself */
} NitiPackedPlace;

/* One operation with its operands in memory. Operands of other types than s8 are read through `data`. */
typedef struct NitiStep {
  NitiTensor inputs[NITI_OPERANDS_MAX], outputs[NITI_OPERANDS_MAX];
  NitiGradient gradient;
  NitiRequantise rq;
  NitiPool pool;
  NitiConvCall conv[NITI_VARIANTS];
  NitiPackedPlace packed;
} NitiStep;

struct NitiExecutable {
  NitiBackend *backend;
  NitiProgram *program; /* as passed by the caller */
  NitiProgram *fused;   /* what runs: the same operations, some of them fused */
  NitiPlaces places;
  bool places_gradients;
  NitiTensor *tensors; /* [tensors], at the whole batch */
  NitiStep *steps;     /* [operations] */
  bool *nonnegative;   /* [tensors] */
  int32_t *limits;     /* [tensors] niti_find_limits' */
  int *uses;           /* [tensors] */
  const NitiExecutable *shared;
  uint8_t *arena, *kept, *words, *inputs; /* backend memory: by lifetime, permanent, exponents and shifts, samples and labels */
  uint8_t *packed;                        /* and weights as convolutions read them, from the beginning of a run to its end */
  uint8_t *staged;                        /* host memory: samples and labels to be uploaded */
  size_t bytes, workspace;                /* allocated without what it shares; scratch requested */
  size_t packed_bytes;                    /* that it needs */
  int32_t batch;                          /* for which the steps are prepared */
  void *recordings;
};

static inline bool niti_is_conv(NitiOpcode opcode) {
  return opcode == NITI_OP_CONV_FORWARD || opcode == NITI_OP_CONV_BACKWARD || opcode == NITI_OP_CONV_GRADIENT;
}

/* Of tensor t's elements, at a batch of n images. */
size_t niti_executable_bytes_at(const NitiExecutable *e, int32_t t, int32_t n);

/* How operation i of a program reads its input k: NitiUses, or'ed. A mask's layout depends on its shape. context: the executable.
 */
int niti_executable_uses(const void *context, const NitiProgram *p, int32_t i, int k);

/* The end of the row of sums over all ranks that operation i belongs to; i: it is none. */
int32_t niti_executable_sums_end(const NitiExecutable *e, int32_t i);

/* Prepares a variant of convolution i for n images, or a call that is set already. */
NitiStatus niti_executable_prepare(NitiExecutable *e, int32_t i, int variant, int32_t n);
NitiStatus niti_executable_prepare_call(NitiExecutable *e, NitiConvCall *call);

/* Convolution i as the whole batch runs it, not yet prepared, with no packed weights. */
NitiConvCall niti_executable_call(const NitiExecutable *e, int32_t i);

/* The step's convolution, at the batch of the run. */
static inline const NitiConvCall *niti_executable_conv(const NitiExecutable *e, const NitiStep *s) {
  return &s->conv[e->batch == e->fused->batch ? NITI_WHOLE : NITI_WHOLE + 1];
}

/* ---- packed.c ---- */

/* Finds a place for the packed weights of each convolution; returns the bytes of all. */
size_t niti_executable_place_packed(NitiExecutable *e);
/* Where convolution i, a variant of it, has them; NULL: it packs by itself. */
int8_t *niti_executable_packed(const NitiExecutable *e, int32_t i, const NitiConvCall *call);
/* Packs those of the range's convolutions. */
void niti_executable_pack(NitiExecutable *e, int32_t first, int32_t end);
/* Whether a repetition of the range finds other weights than the one before. */
bool niti_executable_changes_weights(const NitiExecutable *e, int32_t first, int32_t end);

/* Has the device make the layouts of a tensor whose elements have been written. */
void niti_executable_complete(const NitiExecutable *e, const NitiTensor *t);

#endif
