/* Weight gradients run beside the rest of backward where the device can do both: nothing but the updates reads them. What they
 * read and write lasts until the next operation that reads gradients, or, of networks for which that would take much memory,
 * until a few more gradients have come. */
#include <stdlib.h>

#include "backend/executable.h"

static bool reads_gradients(const NitiOperation *o) {
  return o->phase == NITI_PHASE_UPDATE || o->opcode == NITI_OP_ALL_SUM || o->opcode == NITI_OP_ALL_SUM_WAIT;
}

/* The first operation after i that reads gradients, whichever, or the end of the program: a run waits there for all. */
static int32_t first_reader(const NitiProgram *p, int32_t i) {
  int32_t reader = i + 1;
  while (reader < p->operation_count && !reads_gradients(&p->operations[reader])) ++reader;
  return reader;
}

static bool is_gradient(const NitiProgram *p, int32_t i) { return p->operations[i].opcode == NITI_OP_CONV_GRADIENT; }

/* The gradient that comes `window` gradients after i before operation `end`; end: none does. */
static int32_t later_gradient(const NitiProgram *p, int32_t i, int32_t end, int window) {
  for (int left = window; left > 0 && i < end; --left) {
    do ++i;
    while (i < end && !is_gradient(p, i));
  }
  return i;
}

NitiStatus niti_executable_find_ends(NitiExecutable *e, int window) {
  const NitiProgram *p = e->fused;
  free(e->ends);
  e->ends = calloc((size_t)p->operation_count + 1, sizeof *e->ends);
  if (!e->ends) return niti_fail(NITI_ERROR_MEMORY, "out of memory for compiling a program");
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const int32_t reader = is_gradient(p, i) ? first_reader(p, i) : i + 1;
    e->ends[i] = (is_gradient(p, i) && window > 0 ? later_gradient(p, i, reader, window) : reader) - 1;
  }
  return NITI_OK;
}

/* ---- a run ---- */

/* What is beside ends in the order in which it began, so that what must have ended before operation i is what came first. */
static void join(NitiBeside *b, const NitiExecutable *e, int32_t i) {
  int32_t ended = 0, rest = 0;
  while (ended < b->count && b->waiting[ended].end < i) ++ended;
  if (ended == 0) return;
  for (int32_t k = ended; k < b->count; ++k) {
    b->waiting[k - ended] = b->waiting[k];
    rest += b->waiting[k].stretches;
  }
  b->count -= ended;
  e->backend->kernels->rejoin(e->backend, rest);
}

static void add(NitiBeside *b, int32_t end) {
  if (b->count == 0 || b->waiting[b->count - 1].end != end) b->waiting[b->count++] = (NitiWaiting){end, 0};
  ++b->waiting[b->count - 1].stretches;
}

void niti_beside_before(NitiBeside *b, const NitiExecutable *e, int32_t i) {
  const NitiKernels *k = e->backend->kernels;
  if (!e->ends) return;
  join(b, e, i);
  if (!niti_executable_is_beside(e, i)) return;
  k->begin_aside(e->backend);
  b->aside = true;
  add(b, e->ends[i]);
}

void niti_beside_after(NitiBeside *b, const NitiExecutable *e) {
  if (b->aside) e->backend->kernels->end_aside(e->backend);
  b->aside = false;
}

void niti_beside_end(NitiBeside *b, const NitiExecutable *e) { join(b, e, INT32_MAX); }
