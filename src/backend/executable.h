/* A compiled program, as compile.c makes it, run.c runs it and executable.c reads and writes its tensors. */
#ifndef NITI_BACKEND_EXECUTABLE_H
#define NITI_BACKEND_EXECUTABLE_H

#include "backend/kernels.h"
#include "program/places.h"

enum { NITI_VARIANTS = 2, NITI_WHOLE = 0 }; /* of a convolution: for the whole batch, and for the latest smaller one */

/* One operation with its operands in memory. Operands of other types than s8 are read through `data`. */
typedef struct NitiStep {
  NitiTensor inputs[NITI_OPERANDS_MAX], outputs[NITI_OPERANDS_MAX];
  NitiGradient gradient;
  NitiRequantise rq;
  NitiPool pool;
  NitiConvCall conv[NITI_VARIANTS];
} NitiStep;

struct NitiExecutable {
  NitiBackend *backend;
  NitiProgram *program; /* as passed by the caller */
  NitiProgram *fused;   /* what runs: the same operations, some of them fused */
  NitiPlaces places;
  bool places_gradients;
  NitiTensor *tensors;        /* [tensors], at the whole batch */
  NitiStep *steps;            /* [operations] */
  bool *nonnegative;          /* [tensors] */
  int32_t *limits;            /* [tensors] niti_find_limits' */
  int *uses;                  /* [tensors] */
  NitiTemporary *temporaries; /* [2 * operations]: of a convolution its packed weights, then its workspace (temporary.c) */
  int32_t *ends;              /* [operations] the last one that each may run beside; NULL: all run in order (beside.c) */
  const NitiExecutable *shared;
  uint8_t *arena, *kept, *words, *inputs; /* backend memory: by lifetime, permanent, exponents and shifts, samples and labels */
  uint8_t *staged;                        /* host memory: samples and labels to be uploaded */
  size_t bytes, workspace;                /* allocated without what it shares; scratch requested */
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

/* Convolution i as the whole batch runs it, not yet prepared, with no memory in the arena. */
NitiConvCall niti_executable_call(const NitiExecutable *e, int32_t i);

/* The step's convolution, at the batch of the run. */
static inline const NitiConvCall *niti_executable_conv(const NitiExecutable *e, const NitiStep *s) {
  return &s->conv[e->batch == e->fused->batch ? NITI_WHOLE : NITI_WHOLE + 1];
}

/* The executable's memory by lifetime, its own or what it shares; NULL: not yet allocated, or none is needed. */
static inline uint8_t *niti_executable_arena(const NitiExecutable *e) {
  while (!e->arena && e->shared) e = e->shared;
  return e->arena;
}

/* ---- beside.c ---- */

/* Sets e->ends; window: at the latest so many gradients later, if not 0. NITI_ERROR_MEMORY: out of memory. */
NitiStatus niti_executable_find_ends(NitiExecutable *e, int window);
static inline bool niti_executable_is_beside(const NitiExecutable *e, int32_t i) { return e->ends && e->ends[i] > i; }

/* Stretches that may run beside operations up to `end`. */
typedef struct NitiWaiting {
  int32_t end, stretches;
} NitiWaiting;

/* A run's work that is beside what is being enqueued, in the order in which it began. */
typedef struct NitiBeside {
  NitiWaiting waiting[NITI_BESIDE_WINDOW + 1];
  int32_t count;
  bool aside;
} NitiBeside;

/* Around the kernels of operation i, and at the end of a run. */
void niti_beside_before(NitiBeside *, const NitiExecutable *e, int32_t i);
void niti_beside_after(NitiBeside *, const NitiExecutable *e);
void niti_beside_end(NitiBeside *, const NitiExecutable *e);

/* ---- temporary.c ---- */

/* Finds what each convolution needs in the arena beside tensors, which are placed so, and completes `placing` with it.
 * NITI_ERROR_MEMORY: out of memory. */
NitiStatus niti_executable_find_temporaries(NitiExecutable *e, NitiPlacing *placing);
/* Gives a variant of convolution i, which is set otherwise, its memory. */
void niti_executable_locate_temporaries(const NitiExecutable *e, int32_t i, NitiConvCall *call);
/* Packs what is due before operation i of a run's range, for the convolutions in it. */
void niti_executable_pack(NitiExecutable *e, int32_t i, int32_t first, int32_t end);

/* Has the device make the layouts of a tensor whose elements have been written. */
void niti_executable_complete(const NitiExecutable *e, const NitiTensor *t);

#endif
