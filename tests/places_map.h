/* A map of the arena, on which a program's list is played through: every operation finds what it reads as it was written. Include
 * cmocka before it. */
#ifndef NITI_TESTS_PLACES_MAP_H
#define NITI_TESTS_PLACES_MAP_H

#include <stdlib.h>
#include <string.h>

#include "program/places.h"
#include "programs.h"

enum { PARTS = NITI_LAYOUTS + 1, ELEMENTS = NITI_LAYOUTS, NOTHING = -1 };

static inline size_t units(size_t bytes) { return (bytes + NITI_ALIGN - 1) / NITI_ALIGN; }

static inline size_t element_bytes(const void *context, const NitiProgram *p, int32_t t) {
  (void)context;
  return niti_tensor_count(&p->tensors[t], p->batch) * niti_dtype_bytes(p->tensors[t].dtype);
}

typedef struct Map {
  const NitiProgram *program;
  const NitiPlaces *places;
  const NitiPlacing *how;
  int32_t *holds;  /* [units of the arena] what lies there: the value of a tensor's part, PARTS * tensor + part, or a temporary */
  int32_t *values; /* [tensors] the tensor whose value it is: itself, or what a reshape read */
} Map;

static inline bool has_place(const NitiProgram *p, bool gradients, int32_t t) {
  const NitiRole role = p->tensors[t].role;
  return niti_role_in_arena(role) || (gradients && role == NITI_ROLE_GRADIENT);
}

static inline bool in_arena(const Map *m, int32_t t) { return t != NITI_NONE && has_place(m->program, m->how->gradients, t); }

static inline size_t bytes_of(const Map *m, int32_t t, int part) {
  if (part != ELEMENTS) return m->how->layout(m->how->context, m->program, t, part);
  return m->how->bytes ? m->how->bytes(NULL, m->program, t) : element_bytes(NULL, m->program, t);
}

static inline int64_t offset_of(const Map *m, int32_t t, int part) {
  return part == ELEMENTS ? m->places->offsets[t] : m->places->layouts[part][t];
}

static inline size_t first_unit(const Map *m, int32_t t, int part) {
  const int64_t offset = offset_of(m, t, part);
  if (offset < 0) fail_msg("part %d of %s is used and has no place", part, m->program->tensors[t].name);
  assert_true(offset % NITI_ALIGN == 0);
  return (size_t)offset / NITI_ALIGN;
}

static inline size_t end_unit(const Map *m, int32_t t, int part) {
  const size_t end = first_unit(m, t, part) + units(bytes_of(m, m->values[t], part));
  assert_true(end <= m->places->arena_bytes / NITI_ALIGN);
  return end;
}

static inline bool overlap(const Map *m, int32_t a, int part, int32_t b, int other) {
  return first_unit(m, a, part) < end_unit(m, b, other) && first_unit(m, b, other) < end_unit(m, a, part);
}

/* A part of an input still holds what was written to it. */
static inline void check_part(const Map *m, int32_t operation, int32_t t, int part) {
  for (size_t u = first_unit(m, t, part); u < end_unit(m, t, part); ++u) {
    if (m->holds[u] != PARTS * m->values[t] + part)
      fail_msg("operation %d reads part %d of %s, whose memory %s has taken", operation, part, m->program->tensors[t].name,
               m->holds[u] == NOTHING                            ? "nothing"
               : m->holds[u] >= PARTS * m->program->tensor_count ? "a temporary"
                                                                 : m->program->tensors[m->holds[u] / PARTS].name);
  }
}

/* ---- temporaries ---- */

static inline int32_t temporary_number(const Map *m, size_t i) { return PARTS * m->program->tensor_count + (int32_t)i; }

/* Those that begin with the operation are written before it. */
static inline void write_temporaries(const Map *m, int32_t operation) {
  for (size_t i = 0; i < m->how->temporary_count; ++i) {
    const NitiTemporary *t = &m->how->temporaries[i];
    const int64_t offset = m->places->temporaries[i];
    assert_true(t->bytes > 0 ? offset >= 0 && offset % NITI_ALIGN == 0 : offset == -1);
    if (t->first != operation || t->bytes == 0) continue;
    const size_t first = (size_t)offset / NITI_ALIGN, end = first + units(t->bytes);
    assert_true(end <= m->places->arena_bytes / NITI_ALIGN);
    for (size_t u = first; u < end; ++u) m->holds[u] = temporary_number(m, i);
  }
}

/* Those alive while the operation runs are still there afterwards. */
static inline void check_temporaries(const Map *m, int32_t operation) {
  for (size_t i = 0; i < m->how->temporary_count; ++i) {
    const NitiTemporary *t = &m->how->temporaries[i];
    if (t->first > operation || t->last < operation) continue;
    const size_t first = t->bytes > 0 ? (size_t)m->places->temporaries[i] / NITI_ALIGN : 0;
    for (size_t u = first; u < first + units(t->bytes); ++u) {
      if (m->holds[u] != temporary_number(m, i)) fail_msg("operation %d: temporary %zu has lost its memory", operation, i);
    }
  }
}

/* ---- operations ---- */

static inline int parts_read(const Map *m, int32_t operation, int k) {
  return m->how->reads ? m->how->reads(m->how->context, m->program, operation, k) : NITI_READS_ELEMENTS;
}

static inline void check_input(const Map *m, int32_t operation, int k) {
  const int32_t t = m->program->operations[operation].inputs[k];
  const int parts = parts_read(m, operation, k);
  for (int part = 0; part < PARTS; ++part) {
    if (!(parts >> part & 1)) continue;
    if (part == ELEMENTS || bytes_of(m, m->values[t], part) > 0) check_part(m, operation, t, part);
  }
}

/* While an operation runs, its outputs overlap neither each other nor what it reads, except that the elements of the first output
 * of an opcode that may work in place may be exactly where those of its first input are. */
static inline void check_apart(const Map *m, int32_t operation, int output, int part) {
  const NitiOperation *o = &m->program->operations[operation];
  const int32_t y = o->outputs[output];
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    const int parts = in_arena(m, o->inputs[k]) ? parts_read(m, operation, k) : 0;
    for (int other = 0; other < PARTS; ++other) {
      const bool later = k < output || (k == output && other < part);
      if (later && in_arena(m, o->outputs[k]) && offset_of(m, o->outputs[k], other) >= 0 && o->opcode != NITI_OP_RESHAPE)
        assert_false(overlap(m, y, part, o->outputs[k], other));
      if (!(parts >> other & 1) || offset_of(m, o->inputs[k], other) < 0 || !overlap(m, y, part, o->inputs[k], other)) continue;
      const bool in_place = output == 0 && k == 0 && part == other && (niti_opcodes[o->opcode].in_place || part != ELEMENTS);
      if (!in_place || first_unit(m, y, part) != first_unit(m, o->inputs[k], other))
        fail_msg("%s writes %s over %s", niti_opcodes[o->opcode].name, m->program->tensors[y].name,
                 m->program->tensors[o->inputs[k]].name);
    }
  }
}

static inline void write_output(const Map *m, int32_t t) {
  for (int part = 0; part < PARTS; ++part) {
    if (offset_of(m, t, part) < 0) continue;
    for (size_t u = first_unit(m, t, part); u < end_unit(m, t, part); ++u) m->holds[u] = PARTS * m->values[t] + part;
  }
}

static inline void run_operation(const Map *m, int32_t i) {
  const NitiOperation *o = &m->program->operations[i];
  const bool same = o->opcode == NITI_OP_RESHAPE;
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (in_arena(m, o->inputs[k])) check_input(m, i, k);
    if (in_arena(m, o->outputs[k])) m->values[o->outputs[k]] = same ? m->values[o->inputs[k]] : o->outputs[k];
  }
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (!in_arena(m, o->outputs[k])) continue;
    for (int part = 0; part < PARTS; ++part) {
      if (same) assert_int_equal(offset_of(m, o->outputs[k], part), offset_of(m, o->inputs[k], part));
      if (offset_of(m, o->outputs[k], part) >= 0) check_apart(m, i, k, part);
    }
  }
  for (int k = 0; k < NITI_OPERANDS_MAX && !same; ++k) {
    if (in_arena(m, o->outputs[k])) write_output(m, o->outputs[k]);
  }
}

static inline void play(const Map *m) {
  for (int32_t i = 0; i < m->program->operation_count; ++i) {
    write_temporaries(m, i);
    if (m->program->operations[i].opcode != NITI_OP_NONE) run_operation(m, i);
    check_temporaries(m, i);
  }
}

static inline void check_sum(const Map *m) {
  size_t sum = 0;
  for (int32_t t = 0; t < m->program->tensor_count; ++t) {
    assert_true(has_place(m->program, m->how->gradients, t) || m->places->offsets[t] == -1);
    for (int part = 0; part < PARTS; ++part) {
      if (offset_of(m, t, part) >= 0) sum += units(bytes_of(m, m->values[t], part)) * NITI_ALIGN;
    }
  }
  for (size_t i = 0; i < m->how->temporary_count; ++i) sum += units(m->how->temporaries[i].bytes) * NITI_ALIGN;
  assert_true(m->places->arena_bytes <= sum);
}

static inline void check_places(const NitiProgram *p, const NitiPlacing *how) {
  NitiPlaces places, again;
  must(niti_places_open(&places, p, how));
  must(niti_places_open(&again, p, how));
  assert_int_equal(places.arena_bytes, again.arena_bytes);
  for (int32_t i = 0; i < p->operation_count; ++i) assert_true(places.alive[i] <= places.arena_bytes);
  assert_memory_equal(places.offsets, again.offsets, (size_t)p->tensor_count * sizeof *places.offsets);
  const size_t arena = places.arena_bytes / NITI_ALIGN;
  const Map m = {p, &places, how, malloc((arena + 1) * sizeof *m.holds), calloc((size_t)p->tensor_count, sizeof *m.values)};
  assert_true(m.holds && m.values);
  for (size_t u = 0; u < arena; ++u) m.holds[u] = NOTHING;
  play(&m);
  check_sum(&m);
  free(m.holds);
  free(m.values);
  niti_places_close(&places);
  niti_places_close(&again);
}

#endif
