/* Lifetimes of a program's tensors and of what a backend needs beside them, and their places in one arena. */
#include "program/places.h"

#include <stdlib.h>

#include "base/size.h"

typedef struct Life {
  size_t bytes, offset;
  int32_t first, last; /* operations */
  int32_t rank;        /* higher ones are placed first */
} Life;

enum { PARTS = NITI_LAYOUTS + 1, ELEMENTS = NITI_LAYOUTS /* a part */ };

typedef struct Placing {
  const NitiProgram *program;
  const NitiPlacing *how;
  Life *lives[PARTS];   /* [tensors]: of what a tensor owns */
  int32_t *uses[PARTS]; /* [tensors]: the last operation that reads or writes it */
  int32_t *owner;       /* [tensors]: whose layouts it has */
  Life *temporaries;    /* [temporary_count] */
  Life **order, **placed;
} Placing;

bool niti_role_in_arena(NitiRole role) {
  return role == NITI_ROLE_ACTIVATION || role == NITI_ROLE_DELTA || role == NITI_ROLE_SAVED;
}

static size_t bytes_of(const Placing *p, int32_t tensor) {
  const NitiTensorDesc *t = &p->program->tensors[tensor];
  if (p->how->bytes) return p->how->bytes(p->how->context, p->program, tensor);
  return niti_tensor_count(t, p->program->batch) * niti_dtype_bytes(t->dtype);
}

static bool in_arena(const Placing *p, int32_t tensor) {
  if (tensor == NITI_NONE) return false;
  const NitiRole role = p->program->tensors[tensor].role;
  return niti_role_in_arena(role) || (p->how->gradients && role == NITI_ROLE_GRADIENT);
}

/* Notes a use by operation i, which may run until later. */
static void use(const Placing *p, int32_t *last, int32_t i) {
  const int32_t end = p->how->ends ? p->how->ends[i] : i;
  if (end > *last) *last = end;
}

static void use_input(Placing *p, int32_t i, int k) {
  const int32_t t = p->program->operations[i].inputs[k];
  const int reads = p->how->reads ? p->how->reads(p->how->context, p->program, i, k) : NITI_READS_ELEMENTS;
  if (reads & NITI_READS_ELEMENTS) use(p, &p->uses[ELEMENTS][t], i);
  for (int part = 0; part < NITI_LAYOUTS; ++part) {
    if (reads >> part & 1) use(p, &p->uses[part][p->owner[t]], i);
  }
}

static void find_last_uses(Placing *p) {
  for (int32_t t = 0; t < p->program->tensor_count; ++t) p->owner[t] = t;
  for (int32_t i = 0; i < p->program->operation_count; ++i) {
    const NitiOperation *o = &p->program->operations[i];
    if (o->opcode == NITI_OP_RESHAPE) p->owner[o->outputs[0]] = p->owner[o->inputs[0]];
    for (int k = 0; k < NITI_OPERANDS_MAX && o->opcode != NITI_OP_NONE; ++k) {
      if (o->inputs[k] != NITI_NONE) use_input(p, i, k);
      if (o->outputs[k] != NITI_NONE) use(p, &p->uses[ELEMENTS][o->outputs[k]], i);
    }
  }
}

/* The last use of every tensor that shares this storage so far. */
static int32_t last_use(const Placing *p, const NitiPlaces *places, int32_t storage) {
  return p->lives[ELEMENTS][places->storage[storage]].last;
}

/* The sum of a residual block has memory of its own, so that a backend can round it in one pass; deltas are added in place,
 * one consumer after the other. */
static bool may_share(const NitiOperation *o) {
  return niti_opcodes[o->opcode].in_place && (o->opcode != NITI_OP_ADD || o->phase == NITI_PHASE_BACKWARD);
}

/* Gives the output of operation i storage: its input's, or its own. */
static void store_output(Placing *p, NitiPlaces *places, int32_t i, int32_t output, int32_t input) {
  const NitiOperation *o = &p->program->operations[i];
  const size_t bytes = bytes_of(p, output);
  const bool free_after = input != NITI_NONE && in_arena(p, input) && last_use(p, places, input) <= i;
  Life *life = &p->lives[ELEMENTS][output];
  if (o->opcode == NITI_OP_RESHAPE || (free_after && may_share(o))) {
    places->storage[output] = places->storage[input];
    life = &p->lives[ELEMENTS][places->storage[output]];
  } else {
    *life = (Life){.first = i, .last = i};
  }
  if (bytes > life->bytes) life->bytes = bytes;
  if (p->uses[ELEMENTS][output] > life->last) life->last = p->uses[ELEMENTS][output];
}

/* A layout has no memory where nothing reads it. */
static void store_layouts(Placing *p, int32_t i, int32_t output) {
  for (int part = 0; part < NITI_LAYOUTS && p->how->layout; ++part) {
    if (p->owner[output] != output || p->uses[part][output] <= i) continue;
    const size_t bytes = p->how->layout(p->how->context, p->program, output, part);
    p->lives[part][output] = (Life){.bytes = bytes, .first = i, .last = p->uses[part][output]};
  }
}

static void find_lives(Placing *p, NitiPlaces *places) {
  for (int32_t t = 0; t < p->program->tensor_count; ++t) places->storage[t] = t;
  for (int32_t i = 0; i < p->program->operation_count; ++i) {
    const NitiOperation *o = &p->program->operations[i];
    if (o->opcode == NITI_OP_NONE) continue;
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
      if (!in_arena(p, o->outputs[k])) continue;
      store_output(p, places, i, o->outputs[k], k == 0 ? o->inputs[0] : NITI_NONE);
      store_layouts(p, i, o->outputs[k]);
    }
  }
}

static void find_temporary_lives(Placing *p) {
  for (size_t i = 0; i < p->how->temporary_count; ++i) {
    const NitiTemporary *t = &p->how->temporaries[i];
    p->temporaries[i] = (Life){.bytes = t->bytes, .first = t->first, .last = t->last};
  }
}

static int higher_then_larger(const void *a, const void *b) {
  const Life *x = *(Life *const *)a, *y = *(Life *const *)b;
  if (x->rank != y->rank) return x->rank < y->rank ? 1 : -1;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x < y ? -1 : 1; /* a fixed order: places are reproducible */
}

static size_t collect(Placing *p) {
  size_t count = 0;
  for (int part = PARTS - 1; part >= 0; --part) {
    for (int32_t t = 0; t < p->program->tensor_count; ++t) {
      if (p->lives[part][t].bytes > 0) p->order[count++] = &p->lives[part][t];
    }
  }
  for (size_t i = 0; i < p->how->temporary_count; ++i) {
    if (p->temporaries[i].bytes > 0) p->order[count++] = &p->temporaries[i];
  }
  return count;
}

/* By rank, then largest first, each at the lowest offset that is free during its life. */
static size_t place_in_order(Placing *p, size_t count) {
  size_t arena = 0;
  qsort(p->order, count, sizeof(Life *), higher_then_larger);
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

/* What is alive during an operation gets a rank, those that live longest the highest; NITI_NONE: nothing. */
static void rank_alive(const Placing *p, size_t count, int32_t operation) {
  for (size_t i = 0; i < count; ++i) {
    Life *life = p->order[i];
    const bool alive = operation != NITI_NONE && life->first <= operation && operation <= life->last;
    life->rank = alive ? life->last + 1 : 0;
  }
}

/* Largest first; where that leaves gaps, first what is alive during the operation with the most, if that leaves smaller ones. */
static size_t place_lives(Placing *p, const NitiPlaces *places, size_t count) {
  int32_t fullest = 0;
  const size_t arena = place_in_order(p, count);
  for (int32_t i = 1; i < p->program->operation_count; ++i) {
    if (places->alive[i] > places->alive[fullest]) fullest = i;
  }
  if (arena == places->alive[fullest]) return arena;
  rank_alive(p, count, fullest);
  const size_t ranked = place_in_order(p, count);
  if (ranked < arena) return ranked;
  rank_alive(p, count, NITI_NONE);
  return place_in_order(p, count);
}

/* count: of the lives in order. */
static void add_alive(const Placing *p, NitiPlaces *places, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const Life *life = p->order[i];
    for (int32_t k = life->first; k <= life->last; ++k) places->alive[k] += niti_round_up(life->bytes, NITI_ALIGN);
  }
}

static int64_t offset_of(const Life *life) { return life->bytes > 0 ? (int64_t)life->offset : -1; }

static void set_offsets(const Placing *p, NitiPlaces *places) {
  for (int32_t t = 0; t < p->program->tensor_count; ++t) {
    const int32_t owner = p->owner[t];
    places->offsets[t] = offset_of(&p->lives[ELEMENTS][places->storage[t]]);
    for (int part = 0; part < NITI_LAYOUTS; ++part) places->layouts[part][t] = offset_of(&p->lives[part][owner]);
    places->outlasted[t] = p->lives[0][owner].bytes > 0 && p->lives[0][owner].last > p->uses[ELEMENTS][t];
  }
  for (size_t i = 0; i < p->how->temporary_count; ++i) places->temporaries[i] = offset_of(&p->temporaries[i]);
}

/* All of Placing's arrays in one block, so that lives are in a fixed order; NULL: there is no room. */
static void *share_out(Placing *p) {
  const size_t n = (size_t)p->program->tensor_count + 1, lives = PARTS * n + p->how->temporary_count;
  Life *life = calloc(lives, sizeof *life + 2 * sizeof *p->order + sizeof(int32_t) * (PARTS + 1));
  if (!life) return NULL;
  p->order = (Life **)(life + lives);
  p->placed = p->order + lives;
  p->temporaries = life + PARTS * n;
  p->owner = (int32_t *)(p->placed + lives);
  for (int part = 0; part < PARTS; ++part) {
    p->lives[part] = life + (size_t)(ELEMENTS - part) * n;
    p->uses[part] = p->owner + (size_t)(part + 1) * n;
  }
  return life;
}

static bool make_room(NitiPlaces *out, const NitiProgram *program, size_t temporaries) {
  const size_t tensors = (size_t)program->tensor_count + 1, operations = (size_t)program->operation_count + 1;
  *out = (NitiPlaces){.offsets = calloc(tensors, sizeof *out->offsets),
                      .storage = calloc(tensors, sizeof *out->storage),
                      .outlasted = calloc(tensors, sizeof *out->outlasted),
                      .temporaries = calloc(temporaries + 1, sizeof *out->temporaries),
                      .alive = calloc(operations, sizeof *out->alive)};
  bool room = out->offsets && out->storage && out->outlasted && out->temporaries && out->alive;
  for (int part = 0; part < NITI_LAYOUTS; ++part) {
    out->layouts[part] = calloc(tensors, sizeof *out->layouts[part]);
    room = room && out->layouts[part];
  }
  return room;
}

NitiStatus niti_places_open(NitiPlaces *out, const NitiProgram *program, const NitiPlacing *how) {
  Placing p = {.program = program, .how = how};
  void *own = share_out(&p);
  const bool room = make_room(out, program, how->temporary_count) && own;
  if (room) {
    find_last_uses(&p);
    find_lives(&p, out);
    find_temporary_lives(&p);
    const size_t count = collect(&p);
    add_alive(&p, out, count);
    out->arena_bytes = place_lives(&p, out, count);
    set_offsets(&p, out);
  }
  free(own);
  return room ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for a network's places");
}

void niti_places_close(NitiPlaces *places) {
  free(places->offsets);
  for (int part = 0; part < NITI_LAYOUTS; ++part) free(places->layouts[part]);
  free(places->storage);
  free(places->outlasted);
  free(places->temporaries);
  free(places->alive);
  *places = (NitiPlaces){0};
}
