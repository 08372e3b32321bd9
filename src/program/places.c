/* Lifetimes of a program's tensors, and their places in one arena. */
#include "program/places.h"

#include <stdlib.h>

#include "base/size.h"

typedef struct Life {
  size_t bytes, offset;
  int32_t first, last; /* operations */
} Life;

typedef struct Placing {
  const NitiProgram *program;
  bool gradients;
  NitiTensorBytes bytes;
  const void *context;
  Life *lives;   /* [tensors]: of the storage that a tensor owns */
  int32_t *uses; /* [tensors]: the last operation that reads or writes the tensor */
  Life **order, **placed;
} Placing;

bool niti_role_in_arena(NitiRole role) {
  return role == NITI_ROLE_ACTIVATION || role == NITI_ROLE_DELTA || role == NITI_ROLE_SAVED;
}

static size_t plain_bytes(const void *context, const NitiProgram *p, int32_t tensor) {
  (void)context;
  const NitiTensorDesc *t = &p->tensors[tensor];
  return niti_tensor_count(t, p->batch) * niti_dtype_bytes(t->dtype);
}

static bool in_arena(const Placing *p, int32_t tensor) {
  if (tensor == NITI_NONE) return false;
  const NitiRole role = p->program->tensors[tensor].role;
  return niti_role_in_arena(role) || (p->gradients && role == NITI_ROLE_GRADIENT);
}

static void find_last_uses(Placing *p) {
  for (int32_t i = 0; i < p->program->operation_count; ++i) {
    const NitiOperation *o = &p->program->operations[i];
    for (int k = 0; k < NITI_OPERANDS_MAX && o->opcode != NITI_OP_NONE; ++k) {
      if (o->inputs[k] != NITI_NONE) p->uses[o->inputs[k]] = i;
      if (o->outputs[k] != NITI_NONE) p->uses[o->outputs[k]] = i;
    }
  }
}

/* The last use of every tensor that shares this storage so far. */
static int32_t last_use(const Placing *p, const NitiPlaces *places, int32_t storage) {
  return p->lives[places->storage[storage]].last;
}

/* The sum of a residual block has memory of its own, so that a backend can round it in one pass; deltas are added in place,
 * one consumer after the other. */
static bool may_share(const NitiOperation *o) {
  return niti_opcodes[o->opcode].in_place && (o->opcode != NITI_OP_ADD || o->phase == NITI_PHASE_BACKWARD);
}

/* Gives the output of operation i storage: its input's, or its own. */
static void store_output(Placing *p, NitiPlaces *places, int32_t i, int32_t output, int32_t input) {
  const NitiOperation *o = &p->program->operations[i];
  const size_t bytes = p->bytes(p->context, p->program, output);
  const bool free_after = input != NITI_NONE && in_arena(p, input) && last_use(p, places, input) <= i;
  Life *life = &p->lives[output];
  if (o->opcode == NITI_OP_RESHAPE || (free_after && may_share(o))) {
    places->storage[output] = places->storage[input];
    life = &p->lives[places->storage[output]];
  } else {
    *life = (Life){.first = i, .last = i};
  }
  if (bytes > life->bytes) life->bytes = bytes;
  if (p->uses[output] > life->last) life->last = p->uses[output];
}

static void find_lives(Placing *p, NitiPlaces *places) {
  for (int32_t t = 0; t < p->program->tensor_count; ++t) places->storage[t] = t;
  for (int32_t i = 0; i < p->program->operation_count; ++i) {
    const NitiOperation *o = &p->program->operations[i];
    for (int k = 0; k < NITI_OPERANDS_MAX && o->opcode != NITI_OP_NONE; ++k) {
      if (in_arena(p, o->outputs[k])) store_output(p, places, i, o->outputs[k], k == 0 ? o->inputs[0] : NITI_NONE);
    }
  }
}

static int larger_first(const void *a, const void *b) {
  const Life *x = *(Life *const *)a, *y = *(Life *const *)b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x < y ? -1 : 1; /* a fixed order: places are reproducible */
}

/* Largest first, each at the lowest offset that is free during its life. */
static size_t place_lives(Placing *p) {
  size_t arena = 0, count = 0;
  for (int32_t t = 0; t < p->program->tensor_count; ++t) {
    if (p->lives[t].bytes > 0) p->order[count++] = &p->lives[t];
  }
  qsort(p->order, count, sizeof(Life *), larger_first);
  for (size_t i = 0; i < count; ++i) {
    Life *life = p->order[i];
    size_t offset = 0;
    for (size_t k = 0; k < i; ++k) { /* by ascending offset: step past each that overlaps */
      const Life *other = p->placed[k];
      const bool together = life->first <= other->last && other->first <= life->last;
      if (together && offset < other->offset + other->bytes && other->offset < offset + life->bytes)
        offset = niti_round_up(other->offset + other->bytes, NITI_ALIGN);
    }
    life->offset = offset;
    size_t at = i;
    for (; at > 0 && p->placed[at - 1]->offset > offset; --at) p->placed[at] = p->placed[at - 1];
    p->placed[at] = life;
    if (offset + life->bytes > arena) arena = offset + life->bytes;
  }
  return niti_round_up(arena, NITI_ALIGN);
}

static void set_offsets(const Placing *p, NitiPlaces *places) {
  for (int32_t t = 0; t < p->program->tensor_count; ++t) {
    const Life *life = &p->lives[places->storage[t]];
    places->offsets[t] = life->bytes > 0 ? (int64_t)life->offset : -1;
  }
}

NitiStatus niti_places_open(NitiPlaces *out, const NitiProgram *program, bool gradients, NitiTensorBytes bytes,
                            const void *context) {
  const size_t n = (size_t)program->tensor_count + 1;
  Placing p = {.program = program,
               .gradients = gradients,
               .bytes = bytes ? bytes : plain_bytes,
               .context = context,
               .lives = calloc(n, sizeof *p.lives),
               .uses = calloc(n, sizeof *p.uses),
               .order = calloc(n, sizeof *p.order),
               .placed = calloc(n, sizeof *p.placed)};
  *out = (NitiPlaces){.offsets = calloc(n, sizeof *out->offsets), .storage = calloc(n, sizeof *out->storage)};
  const bool room = p.lives && p.uses && p.order && p.placed && out->offsets && out->storage;
  if (room) {
    find_last_uses(&p);
    find_lives(&p, out);
    out->arena_bytes = place_lives(&p);
    set_offsets(&p, out);
  }
  free(p.lives);
  free(p.uses);
  free(p.order);
  free(p.placed);
  return room ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for a network's places");
}

void niti_places_close(NitiPlaces *places) {
  free(places->offsets);
  free(places->storage);
  *places = (NitiPlaces){0};
}
