/* Weight gradients run beside the rest of backward where the device can do both: nothing but the updates reads them. What they
 * read and write lasts until the next operation that reads gradients, so networks for which that would take much memory, whose
 * gradients fill a device anyway, run in order. */
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

NitiStatus niti_executable_find_ends(NitiExecutable *e) {
  const NitiProgram *p = e->fused;
  e->ends = calloc((size_t)p->operation_count + 1, sizeof *e->ends);
  if (!e->ends) return niti_fail(NITI_ERROR_MEMORY, "out of memory for compiling a program");
  for (int32_t i = 0; i < p->operation_count; ++i)
    e->ends[i] = p->operations[i].opcode == NITI_OP_CONV_GRADIENT ? first_reader(p, i) - 1 : i;
  return NITI_OK;
}

/* ---- a run ---- */

void niti_beside_before(NitiBeside *b, const NitiExecutable *e, int32_t i) {
  const NitiKernels *k = e->backend->kernels;
  if (!e->ends) return;
  if (b->until < i) niti_beside_end(b, e);
  if (!niti_executable_is_beside(e, i)) return;
  k->begin_aside(e->backend);
  b->aside = true;
  if (e->ends[i] < b->until) b->until = e->ends[i];
}

void niti_beside_after(NitiBeside *b, const NitiExecutable *e) {
  if (b->aside) e->backend->kernels->end_aside(e->backend);
  b->aside = false;
}

void niti_beside_end(NitiBeside *b, const NitiExecutable *e) {
  if (b->until < INT32_MAX) e->backend->kernels->rejoin(e->backend);
  b->until = INT32_MAX;
}
