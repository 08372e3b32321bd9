/* Moves updates forward. */
#include "program/early.h"

#include <stdlib.h>
#include <string.h>

enum { PARTS = 8 /* of all gradients: so much waits for its update before all that waits is updated */ };

typedef struct Early {
  const NitiProgram *program;
  int32_t first, end;        /* updates */
  int32_t *after;            /* [end - first] the operation behind which each may run */
  NitiOperation *operations; /* the new order */
  int32_t count;
  bool *done; /* [end - first] */
} Early;

static bool shares_operand(const int32_t a[NITI_OPERANDS_MAX], const int32_t b[NITI_OPERANDS_MAX]) {
  for (int i = 0; i < NITI_OPERANDS_MAX; ++i) {
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
      if (a[i] != NITI_NONE && a[i] == b[k]) return true;
    }
  }
  return false;
}

/* Whether the order of the two matters. */
static bool depends(const NitiOperation *a, const NitiOperation *b) {
  return shares_operand(a->outputs, b->inputs) || shares_operand(a->inputs, b->outputs) || shares_operand(a->outputs, b->outputs);
}

static size_t gradient_bytes(const NitiProgram *p, const NitiOperation *update) {
  const NitiTensorDesc *t = &p->tensors[update->inputs[1]];
  return niti_tensor_count(t, 1) * niti_dtype_bytes(t->dtype);
}

/* Whether all operations of phase update are updates, which depend on backward alone, and nothing comes between. */
static bool may_move(const NitiProgram *p, int32_t first, int32_t end) {
  for (int32_t i = first; i < end; ++i) {
    const NitiOpcode opcode = p->operations[i].opcode;
    if (opcode != NITI_OP_UPDATE_NITI && opcode != NITI_OP_UPDATE_NITI16 && opcode != NITI_OP_UPDATE_SGD) return false;
    for (int32_t k = first; k < i; ++k) {
      if (depends(&p->operations[i], &p->operations[k])) return false;
    }
  }
  return first > 0 && p->operations[first - 1].phase == NITI_PHASE_BACKWARD && end == p->operation_count;
}

static void append_waiting(Early *e, int32_t behind) {
  for (int32_t u = e->first; u < e->end; ++u) {
    if (e->done[u - e->first] || e->after[u - e->first] > behind) continue;
    e->operations[e->count++] = e->program->operations[u];
    e->done[u - e->first] = true;
  }
}

static void order(Early *e, size_t least) {
  const NitiOperation *all = e->program->operations;
  size_t whole = 0, waiting = 0;
  for (int32_t u = e->first; u < e->end; ++u) {
    int32_t i = e->first - 1;
    while (i > 0 && !depends(&all[u], &all[i])) --i;
    e->after[u - e->first] = i;
    whole += gradient_bytes(e->program, &all[u]);
  }
  for (int32_t i = 0; i < e->first; ++i) {
    e->operations[e->count++] = all[i];
    for (int32_t u = e->first; u < e->end; ++u) waiting += e->after[u - e->first] == i ? gradient_bytes(e->program, &all[u]) : 0;
    if (waiting * PARTS < whole || waiting < least || i == e->first - 1) continue;
    append_waiting(e, i);
    waiting = 0;
  }
  append_waiting(e, e->first);
}

NitiStatus niti_update_early(NitiProgram *p, size_t least) {
  Early e = {.program = p};
  niti_program_phases(p, NITI_PHASE_UPDATE, NITI_PHASE_UPDATE, &e.first, &e.end);
  if (e.first == e.end || !may_move(p, e.first, e.end)) return NITI_OK;
  const size_t updates = (size_t)(e.end - e.first), all = (size_t)p->operation_count;
  e.after = calloc(updates, sizeof *e.after);
  e.done = calloc(updates, sizeof *e.done);
  e.operations = calloc(all, sizeof *e.operations);
  const bool room = e.after && e.done && e.operations;
  if (room) {
    order(&e, least);
    memcpy(p->operations, e.operations, all * sizeof *p->operations);
  }
  free(e.after);
  free(e.done);
  free(e.operations);
  return room ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for the order of a program's updates");
}
