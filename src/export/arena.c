/* Places spaces whose lives overlap side by side. */
#include "export/arena.h"

#include <stdlib.h>

enum { ATTEMPTS = 400, THOROUGH = 10, MANY = 1000 /* spaces, from which on attempts are fewer */, ALIGNMENT = 4 };

int32_t niti_export_space(NitiExportPlan *plan, int64_t bytes) {
  const int32_t i = plan->space_count++;
  plan->spaces[i] = (NitiExportSpace){.storage = i, .bytes = bytes, .offset = -1, .first = INT32_MAX, .last = -1};
  return i;
}

static bool in_arena(const NitiExportPlan *p, int32_t space) {
  return space >= p->program->tensor_count || niti_role_in_arena(p->program->tensors[space].role);
}

int32_t niti_export_storage(const NitiExportPlan *p, int32_t space) {
  while (p->spaces[space].storage != space) space = p->spaces[space].storage;
  return space;
}

static void use(NitiExportPlan *p, int32_t space, int32_t step) {
  if (space == NITI_NONE || !in_arena(p, space)) return;
  NitiExportSpace *s = &p->spaces[niti_export_storage(p, space)];
  if (step < s->first) s->first = step;
  if (step > s->last) s->last = step;
}

/* A reshape gives a tensor another name. */
static void join_reshapes(NitiExportPlan *p) {
  for (int32_t i = 0; i < p->program->operation_count; ++i) {
    const NitiOperation *o = &p->program->operations[i];
    if (o->opcode == NITI_OP_RESHAPE) p->spaces[o->outputs[0]].storage = o->inputs[0];
  }
}

static bool works_in_place(NitiExportKind kind) {
  return kind == NITI_EXPORT_RELU_FORWARD || kind == NITI_EXPORT_RELU_BACKWARD || kind == NITI_EXPORT_ADD ||
         kind == NITI_EXPORT_DROPOUT;
}

static void find_lives(NitiExportPlan *p) {
  for (int32_t i = 0; i < p->space_count; ++i) {
    p->spaces[i].first = INT32_MAX;
    p->spaces[i].last = -1;
  }
  for (int32_t i = 0; i < p->step_count; ++i) {
    for (int k = 0; k < NITI_EXPORT_USES; ++k) use(p, p->steps[i].use[k], i);
  }
  for (int32_t i = 0; i < p->program->operation_count; ++i) {
    const NitiOperation *o = &p->program->operations[i];
    if (o->opcode == NITI_OP_INPUT) use(p, o->outputs[0], 0);           /* read before the first step */
    if (o->opcode == NITI_OP_LOSS) use(p, o->inputs[0], p->step_count); /* predictions are read at the end */
  }
}

/* An output takes the memory of an input that is not used again. Lives of the tensors sharing it then follow one another. */
static void join_in_place(NitiExportPlan *p) {
  for (int32_t i = 0; i < p->step_count; ++i) {
    const NitiExportStep *s = &p->steps[i];
    const int32_t to = s->use[NITI_EXPORT_TO];
    if (!works_in_place(s->kind)) continue;
    for (int k = NITI_EXPORT_FROM; k <= NITI_EXPORT_OTHER; ++k) {
      const int32_t from = s->use[k];
      if (from == NITI_NONE || p->spaces[niti_export_storage(p, from)].last > i || niti_export_storage(p, to) != to) continue;
      p->spaces[to].storage = niti_export_storage(p, from);
      find_lives(p);
      break;
    }
  }
}

/* ---- places ---- */

static bool together(const NitiExportSpace *a, const NitiExportSpace *b) { return a->first <= b->last && b->first <= a->last; }

/* Memory for placing. */
typedef struct Scratch {
  int32_t *order, *placed; /* [spaces] the latter by offset */
  int64_t *alive;          /* [steps + 2] */
} Scratch;

/* The lowest offset that is free during the life of a space, among the first `count` placed ones. */
static int64_t lowest(const NitiExportPlan *p, const NitiExportSpace *s, const int32_t *placed, int32_t count) {
  int64_t offset = 0;
  for (int32_t k = 0; k < count; ++k) {
    const NitiExportSpace *other = &p->spaces[placed[k]];
    if (other->offset >= offset + s->bytes) break;
    if (together(s, other) && offset < other->offset + other->bytes)
      offset = (other->offset + other->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  }
  return offset;
}

/* The bytes that the order takes; or, as soon as they are more than `most`, a number above it. */
static int64_t place(NitiExportPlan *p, const Scratch *w, int32_t count, int64_t most) {
  int64_t bytes = 0;
  for (int32_t i = 0; i < count && bytes <= most; ++i) {
    NitiExportSpace *s = &p->spaces[w->order[i]];
    int32_t at = i;
    s->offset = lowest(p, s, w->placed, i);
    for (; at > 0 && p->spaces[w->placed[at - 1]].offset > s->offset; --at) w->placed[at] = w->placed[at - 1];
    w->placed[at] = w->order[i];
    if (s->offset + s->bytes > bytes) bytes = s->offset + s->bytes;
  }
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int32_t order_by_size(const NitiExportPlan *p, int32_t *order) {
  int32_t count = 0;
  for (int32_t i = 0; i < p->space_count; ++i) {
    if (p->spaces[i].storage != i || p->spaces[i].last < 0) continue;
    int32_t at = count++;
    for (; at > 0 && p->spaces[order[at - 1]].bytes < p->spaces[i].bytes; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  return count;
}

/* No placing takes fewer bytes than are alive at the fullest step. */
static int64_t least_of(const NitiExportPlan *p, int64_t *alive) {
  int64_t now = 0, least = 0;
  for (int32_t i = 0; i <= p->step_count + 1; ++i) alive[i] = 0;
  for (int32_t i = 0; i < p->space_count; ++i) {
    const NitiExportSpace *s = &p->spaces[i];
    const int64_t bytes = (s->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (s->storage != i || s->last < 0) continue;
    alive[s->first] += bytes;
    alive[s->last + 1] -= bytes;
  }
  for (int32_t i = 0; i <= p->step_count; ++i) {
    now += alive[i];
    if (now > least) least = now;
  }
  return least;
}

static int64_t attempts_for(int64_t attempts, int64_t count) {
  return count > MANY ? attempts * MANY * MANY / (count * count) : attempts;
}

/* Largest first, then with two neighbours changed now and then: keeps what is better. The numbers are the same every time. */
static void search(NitiExportPlan *p, const Scratch *w, int32_t attempts, int64_t most) {
  const int64_t least = least_of(p, w->alive);
  uint32_t random = 1;
  p->arena_bytes = least;
  if (least > most) return;
  const int32_t count = order_by_size(p, w->order);
  p->arena_bytes = place(p, w, count, INT64_MAX);
  for (int64_t n = attempts_for(attempts, count); n > 0 && count > 1 && p->arena_bytes > least; --n) {
    random = random * 1664525u + 1013904223u;
    const int32_t a = (int32_t)((random >> 8) % (uint32_t)count);
    random = random * 1664525u + 1013904223u;
    const int32_t b = (int32_t)((random >> 8) % (uint32_t)count), moved = w->order[a];
    w->order[a] = w->order[b];
    w->order[b] = moved;
    const int64_t bytes = place(p, w, count, p->arena_bytes);
    if (bytes <= p->arena_bytes) {
      p->arena_bytes = bytes;
      continue;
    }
    w->order[b] = w->order[a];
    w->order[a] = moved;
  }
  (void)place(p, w, count, INT64_MAX);
}

static NitiStatus place_all(NitiExportPlan *p, int32_t attempts, int64_t most) {
  const size_t spaces = (size_t)p->space_count + 1, steps = (size_t)p->step_count + 2;
  int32_t *orders = calloc(2 * spaces, sizeof *orders);
  const Scratch w = {.order = orders, .placed = orders ? orders + spaces : NULL, .alive = calloc(steps, sizeof *w.alive)};
  const bool enough = orders && w.alive;
  if (enough) {
    join_reshapes(p);
    find_lives(p);
    join_in_place(p);
    search(p, &w, attempts, most);
  }
  free(orders);
  free(w.alive);
  return enough ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for planning an export");
}

NitiStatus niti_export_place(NitiExportPlan *p) { return place_all(p, ATTEMPTS, INT64_MAX); }
NitiStatus niti_export_place_within(NitiExportPlan *p, int64_t bytes) { return place_all(p, ATTEMPTS, bytes); }
NitiStatus niti_export_place_well(NitiExportPlan *p) { return place_all(p, THOROUGH * ATTEMPTS, INT64_MAX); }

void niti_export_replace(NitiExportPlan *p, int32_t space) {
  NitiExportSpace *s = &p->spaces[space];
  s->offset = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (int32_t k = 0; k < p->space_count; ++k) {
      const NitiExportSpace *other = &p->spaces[k];
      if (k == space || other->storage != k || other->last < 0 || !together(s, other)) continue;
      if (s->offset >= other->offset + other->bytes || other->offset >= s->offset + s->bytes) continue;
      s->offset = (other->offset + other->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
      moved = true;
    }
  }
  p->arena_bytes = (s->offset + s->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

int64_t niti_export_offset(const NitiExportPlan *p, int32_t space) {
  return space == NITI_NONE || !in_arena(p, space) ? -1 : p->spaces[niti_export_storage(p, space)].offset;
}

int64_t niti_export_alive(const NitiExportPlan *p, int32_t step) {
  int64_t alive = 0;
  for (int32_t s = 0; s < p->space_count; ++s) {
    const NitiExportSpace *space = &p->spaces[s];
    if (space->storage == s && space->first <= step && step <= space->last)
      alive += (space->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  }
  return alive;
}

int32_t niti_export_fullest(const NitiExportPlan *p, int64_t *bytes) {
  int32_t fullest = 0;
  *bytes = 0;
  for (int32_t i = 0; i <= p->step_count; ++i) {
    const int64_t alive = niti_export_alive(p, i);
    if (alive <= *bytes) continue;
    *bytes = alive;
    fullest = i;
  }
  return fullest;
}
