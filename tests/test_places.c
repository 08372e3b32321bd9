/* Where a program's tensors lie, checked by playing the list through on a map of the arena, for the built-in models and random
 * ones, as lowered and as fused, with updates at the end and early, and with layouts beside the elements. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "config/builtin.h"
#include "every_layer.h"
#include "program/early.h"
#include "program/fuse.h"
#include "program/places.h"
#include "programs.h"

enum { RANDOM_NETWORKS = 200, NOTHING = -1 };

static size_t units(size_t bytes) { return (bytes + NITI_ALIGN - 1) / NITI_ALIGN; }

static size_t element_bytes(const void *context, const NitiProgram *p, int32_t t) {
  (void)context;
  return niti_tensor_count(&p->tensors[t], p->batch) * niti_dtype_bytes(p->tensors[t].dtype);
}

/* What a backend might need that stores some tensors in several layouts: up to three times the elements, and a few bytes. */
static size_t more_bytes(const void *context, const NitiProgram *p, int32_t t) {
  return element_bytes(context, p, t) * (size_t)(t % 3 + 1) + (size_t)(t % 7);
}

/* A device that keeps every tensor in layouts too: gradients' operands are read in one, masks in the other, or in both ways. */
static size_t some_layout(const void *context, const NitiProgram *p, int32_t t, int which) {
  return which == 0 ? element_bytes(context, p, t) + 77 : (size_t)(t % 5) * 300;
}

static int reads_layouts(const void *context, const NitiProgram *p, int32_t operation, int input) {
  const NitiOperation *o = &p->operations[operation];
  (void)context;
  return (int)niti_use_of(o, input) | (operation % 3 == 0 ? (int)NITI_USE_OTHER : 0);
}

/* ---- the map ---- */

enum { PARTS = NITI_LAYOUTS + 1, ELEMENTS = NITI_LAYOUTS };

typedef struct Map {
  const NitiProgram *program;
  const NitiPlaces *places;
  const NitiPlacing *how;
  int32_t *holds;  /* [units of the arena] what lies there: the value of a tensor's part, PARTS * tensor + part, or a temporary */
  int32_t *values; /* [tensors] the tensor whose value it is: itself, or what a reshape read */
} Map;

static bool has_place(const NitiProgram *p, bool gradients, int32_t t) {
  const NitiRole role = p->tensors[t].role;
  return niti_role_in_arena(role) || (gradients && role == NITI_ROLE_GRADIENT);
}

static bool in_arena(const Map *m, int32_t t) { return t != NITI_NONE && has_place(m->program, m->how->gradients, t); }

static size_t bytes_of(const Map *m, int32_t t, int part) {
  if (part != ELEMENTS) return m->how->layout(m->how->context, m->program, t, part);
  return m->how->bytes ? m->how->bytes(NULL, m->program, t) : element_bytes(NULL, m->program, t);
}

static int64_t offset_of(const Map *m, int32_t t, int part) {
  return part == ELEMENTS ? m->places->offsets[t] : m->places->layouts[part][t];
}

static size_t first_unit(const Map *m, int32_t t, int part) {
  const int64_t offset = offset_of(m, t, part);
  if (offset < 0) fail_msg("part %d of %s is used and has no place", part, m->program->tensors[t].name);
  assert_true(offset % NITI_ALIGN == 0);
  return (size_t)offset / NITI_ALIGN;
}

static size_t end_unit(const Map *m, int32_t t, int part) {
  const size_t end = first_unit(m, t, part) + units(bytes_of(m, m->values[t], part));
  assert_true(end <= m->places->arena_bytes / NITI_ALIGN);
  return end;
}

static bool overlap(const Map *m, int32_t a, int part, int32_t b, int other) {
  return first_unit(m, a, part) < end_unit(m, b, other) && first_unit(m, b, other) < end_unit(m, a, part);
}

/* A part of an input still holds what was written to it. */
static void check_part(const Map *m, int32_t operation, int32_t t, int part) {
  for (size_t u = first_unit(m, t, part); u < end_unit(m, t, part); ++u) {
    if (m->holds[u] != PARTS * m->values[t] + part)
      fail_msg("operation %d reads part %d of %s, whose memory %s has taken", operation, part, m->program->tensors[t].name,
               m->holds[u] == NOTHING                            ? "nothing"
               : m->holds[u] >= PARTS * m->program->tensor_count ? "a temporary"
                                                                 : m->program->tensors[m->holds[u] / PARTS].name);
  }
}

/* ---- temporaries ---- */

static int32_t temporary_number(const Map *m, size_t i) { return PARTS * m->program->tensor_count + (int32_t)i; }

/* Those that begin with the operation are written before it. */
static void write_temporaries(const Map *m, int32_t operation) {
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
static void check_temporaries(const Map *m, int32_t operation) {
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

static int parts_read(const Map *m, int32_t operation, int k) {
  return m->how->reads ? m->how->reads(m->how->context, m->program, operation, k) : NITI_READS_ELEMENTS;
}

static void check_input(const Map *m, int32_t operation, int k) {
  const int32_t t = m->program->operations[operation].inputs[k];
  const int parts = parts_read(m, operation, k);
  for (int part = 0; part < PARTS; ++part) {
    if (!(parts >> part & 1)) continue;
    if (part == ELEMENTS || bytes_of(m, m->values[t], part) > 0) check_part(m, operation, t, part);
  }
}

/* While an operation runs, its outputs overlap neither each other nor what it reads, except that the elements of the first output
 * of an opcode that may work in place may be exactly where those of its first input are. */
static void check_apart(const Map *m, int32_t operation, int output, int part) {
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

static void write_output(const Map *m, int32_t t) {
  for (int part = 0; part < PARTS; ++part) {
    if (offset_of(m, t, part) < 0) continue;
    for (size_t u = first_unit(m, t, part); u < end_unit(m, t, part); ++u) m->holds[u] = PARTS * m->values[t] + part;
  }
}

static void run_operation(const Map *m, int32_t i) {
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

static void play(const Map *m) {
  for (int32_t i = 0; i < m->program->operation_count; ++i) {
    write_temporaries(m, i);
    if (m->program->operations[i].opcode != NITI_OP_NONE) run_operation(m, i);
    check_temporaries(m, i);
  }
}

static void check_sum(const Map *m) {
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

static void check_places(const NitiProgram *p, const NitiPlacing *how) {
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

/* A backend that also wants memory of its own: scratch of single operations, and what is kept from one operation to another. */
static void check_temporary_places(const NitiProgram *p, NitiPlacing how) {
  const int32_t count = p->operation_count;
  NitiTemporary *t = calloc((size_t)count + 1, sizeof *t);
  assert_non_null(t);
  for (int32_t i = 0; i < count; ++i) {
    const int32_t first = i % 3 ? i : i / 2;
    t[i] = (NitiTemporary){(size_t)(i % 5) * 700 * (size_t)(i % 7), first, i % 4 ? i : (i + count) / 2};
  }
  how.temporaries = t;
  how.temporary_count = (size_t)count;
  check_places(p, &how);
  free(t);
}

enum { FUSED = 2, EARLY = 4, WAYS = 8 };

static void check_description(const NitiDescription *description, NitiLowerOptions options) {
  for (int which = 0; which < WAYS; ++which) {
    options.training = which % 2 == 0;
    NitiProgram *p = lowered(description, &options);
    if (which & EARLY) must(niti_update_early(p, 0));
    if (which & FUSED) must(niti_fuse(p));
    for (int gradients = 0; gradients < 2; ++gradients) {
      check_places(p, &(NitiPlacing){.gradients = gradients});
      check_places(p, &(NitiPlacing){.gradients = gradients, .bytes = more_bytes});
      check_places(p, &(NitiPlacing){.gradients = gradients, .layout = some_layout, .reads = reads_layouts});
      check_temporary_places(p, (NitiPlacing){.gradients = gradients});
      check_temporary_places(p, (NitiPlacing){.gradients = gradients, .layout = some_layout, .reads = reads_layouts});
    }
    niti_program_close(p);
  }
}

static void builtin_models_have_room(void **state) {
  (void)state;
  for (const char *const *name = niti_builtin_models(); *name; ++name) {
    NitiDescription *d = NULL;
    must(niti_description_load(&d, *name, NULL));
    check_description(d, (NitiLowerOptions){.batch = 2, .loss = NITI_LOSS_SOFTMAX, .optimizer = &niti_optimizer_sgd});
    niti_description_close(d);
  }
}

static void every_layer_has_room(void **state) {
  NitiDescription *d = described(every_layer);
  (void)state;
  check_description(d, (NitiLowerOptions){.batch = 5});
  niti_description_close(d);
  d = described(every_layer_normed);
  check_description(d, (NitiLowerOptions){.batch = 5, .loss = NITI_LOSS_SOFTMAX, .optimizer = &niti_optimizer_sgd});
  niti_description_close(d);
}

static void random_networks_have_room(void **state) {
  static RandomNetwork r;
  (void)state;
  random_state = 21;
  for (int i = 0; i < RANDOM_NETWORKS; ++i) {
    NitiDescription *d = described(random_network(&r));
    check_description(d, random_lowering(&r));
    niti_description_close(d);
  }
}

/* ---- known sizes ---- */

static size_t arena_with(const char *layers, bool training, bool gradients) {
  char text[512];
  NitiPlaces places;
  const NitiLowerOptions options = {.batch = 1, .training = training};
  (void)snprintf(text, sizeof text,
                 "name: t\ninput: [16, 16, 1]\nclasses: 2\nlayers:\n%s  - flatten\n  - linear: {out: classes}\n", layers);
  NitiProgram *p = program_of(text, &options);
  must(niti_places_open(&places, p, &(NitiPlacing){.gradients = gradients}));
  const size_t bytes = places.arena_bytes;
  niti_places_close(&places);
  niti_program_close(p);
  return bytes;
}

static size_t arena_of(const char *layers, bool training) { return arena_with(layers, training, false); }

/* 256 bytes of input, 1024, 512 and 2048 of the convolutions' outputs, and the logits' unit of 256. */
static void a_chain_takes_its_widest_pair(void **state) {
  static const char three[] = "  - conv: {out: 4, kernel: 1}\n  - conv: {out: 2, kernel: 1}\n  - conv: {out: 8, kernel: 1}\n";
  (void)state;
  assert_int_equal(arena_of("  - conv: {out: 4, kernel: 1}\n", false), 1024 + 256);
  assert_int_equal(arena_of("  - conv: {out: 4, kernel: 1}\n  - conv: {out: 2, kernel: 1}\n", false), 1024 + 512);
  assert_int_equal(arena_of(three, false), 512 + 2048);
  assert_int_equal(arena_of("  - conv: {out: 4, kernel: 1}\n  - relu\n  - relu\n", false), 1024 + 256); /* in place */
}

/* At the loss everything is alive: the input (256 bytes), both outputs (1024 and 512), the logits and their delta (256 each). On
 * the way back deltas take the places of outputs that were read for the last time: 256 + 1024 + 256 + 512 before the first
 * convolution's output goes, then 256 + 512 + 1024. */
static void training_takes_what_the_loss_needs(void **state) {
  (void)state;
  assert_int_equal(arena_of("  - conv: {out: 4, kernel: 1}\n  - conv: {out: 2, kernel: 1}\n", true),
                   256 + 1024 + 512 + 256 + 256);
}

/* The linear layer's gradient (2048 sums of 4 bytes) begins when only the input (256 bytes), the convolution's output (1024) and
 * the logits' delta (256) are left of what the loss needed; the convolution's gradient (256) when there are the input and its
 * delta. */
static void gradients_take_what_backward_leaves(void **state) {
  (void)state;
  assert_int_equal(arena_with("  - conv: {out: 4, kernel: 1}\n", true, true), 8192 + 256 + 1024 + 256);
}

/* The chain of a_chain_takes_its_widest_pair, most of whose memory is in use when its last convolution runs, with 512 and 2048
 * bytes; scratch of 1024 bytes counts where it is wanted: not at the first convolution (256 and 1024 bytes), but at the last. */
static void temporaries_count_while_they_live(void **state) {
  const NitiLowerOptions options = {.batch = 1};
  NitiProgram *p = program_of(
      "name: t\ninput: [16, 16, 1]\nclasses: 2\nlayers: [{conv: {out: 4, kernel: 1}}, {conv: {out: 2, "
      "kernel: 1}}, {conv: {out: 8, kernel: 1}}, flatten, {linear: {out: classes}}]\n",
      &options);
  static const size_t without[3] = {256 + 1024, 1024 + 512, 512 + 2048};
  int32_t convolutions[3] = {0};
  int found = 0;
  (void)state;
  for (int32_t i = 0; i < p->operation_count && found < 3; ++i) {
    if (p->operations[i].opcode == NITI_OP_CONV_FORWARD) convolutions[found++] = i;
  }
  for (int i = 0; i < 4; ++i) { /* at one of the convolutions, or from the first to the last */
    const NitiTemporary t = {1024, convolutions[i % 3], i < 3 ? convolutions[i] : convolutions[2]};
    NitiPlaces places;
    must(niti_places_open(&places, p, &(NitiPlacing){.temporaries = &t, .temporary_count = 1}));
    assert_int_equal(places.arena_bytes, i < 2 ? 512 + 2048 : 512 + 2048 + 1024);
    for (int k = 0; k < 3; ++k) assert_int_equal(places.alive[convolutions[k]], without[k] + (i == 3 || i == k ? 1024 : 0));
    niti_places_close(&places);
  }
  niti_program_close(p);
}

/* Largest first alone would leave gaps in these; nothing can take less than what is alive at the same time. */
static void no_gap_is_left_while_memory_is_fullest(void **state) {
  static const struct {
    const char *model;
    int32_t batch;
  } cases[] = {{"lenet5", 128}, {"resnet18", 256}};
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    NitiDescription *d = NULL;
    NitiPlaces places;
    size_t most = 0;
    must(niti_description_load(&d, cases[i].model, NULL));
    NitiProgram *p =
        lowered(d, &(NitiLowerOptions){
                       .batch = cases[i].batch, .training = true, .loss = NITI_LOSS_SOFTMAX, .optimizer = &niti_optimizer_sgd});
    must(niti_update_early(p, 0));
    must(niti_fuse(p));
    must(niti_places_open(&places, p, &(NitiPlacing){.gradients = true}));
    for (int32_t k = 0; k < p->operation_count; ++k) most = places.alive[k] > most ? places.alive[k] : most;
    assert_int_equal(places.arena_bytes, most);
    niti_places_close(&places);
    niti_program_close(p);
    niti_description_close(d);
  }
}

/* ---- early updates ---- */

static bool writes_what(const NitiOperation *a, const NitiOperation *b) {
  for (int i = 0; i < NITI_OPERANDS_MAX; ++i) {
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
      const int32_t t = a->outputs[i];
      if (t != NITI_NONE && (t == b->inputs[k] || t == b->outputs[k])) return true;
    }
  }
  return false;
}

/* Where each operation of `late` is in `early`, which has the same. */
static void find_moved(int32_t *moved, const NitiProgram *late, const NitiProgram *early) {
  for (int32_t i = 0; i < late->operation_count; ++i) {
    int32_t k = 0;
    while (k < early->operation_count && memcmp(&late->operations[i], &early->operations[k], sizeof *late->operations) != 0) ++k;
    assert_true(k < early->operation_count);
    moved[i] = k;
  }
}

/* Nothing overtakes what it depends on; all but updates keep their order. Returns whether anything moved. */
static bool check_order(const NitiProgram *late, const NitiProgram *early) {
  int32_t *moved = calloc((size_t)late->operation_count, sizeof *moved);
  bool any = false;
  assert_non_null(moved);
  assert_int_equal(late->operation_count, early->operation_count);
  find_moved(moved, late, early);
  for (int32_t k = 0; k < late->operation_count; ++k) {
    const NitiOperation *after = &late->operations[k];
    any = any || moved[k] != k;
    for (int32_t i = 0; i < k; ++i) {
      const NitiOperation *before = &late->operations[i];
      const bool fixed = before->phase != NITI_PHASE_UPDATE && after->phase != NITI_PHASE_UPDATE;
      if (fixed || writes_what(before, after) || writes_what(after, before)) assert_true(moved[i] < moved[k]);
    }
  }
  free(moved);
  return any;
}

static bool early_moves(const NitiDescription *d, const NitiLowerOptions *options, size_t least) {
  NitiProgram *late = lowered(d, options), *early = lowered(d, options);
  must(niti_update_early(early, least));
  const bool any = check_order(late, early);
  niti_program_close(late);
  niti_program_close(early);
  return any;
}

static void updates_overtake_nothing_they_depend_on(void **state) {
  static RandomNetwork r;
  NitiLowerOptions options = {.batch = 2, .training = true, .loss = NITI_LOSS_SOFTMAX, .optimizer = &niti_optimizer_sgd};
  NitiDescription *d = described(every_layer_normed);
  (void)state;
  assert_true(early_moves(d, &options, 0));
  assert_true(early_moves(d, &options, 64)); /* bytes, which there are before the end */
  assert_false(early_moves(d, &options, SIZE_MAX));
  options.clips_norm = true; /* by the norm of all gradients */
  assert_false(early_moves(d, &options, 0));
  options.clips_norm = false;
  options.whole = 4; /* with ranks */
  assert_false(early_moves(d, &options, 0));
  niti_description_close(d);
  random_state = 377;
  for (int i = 0; i < 50; ++i) {
    d = described(random_network(&r));
    const NitiLowerOptions random = random_lowering(&r);
    (void)early_moves(d, &random, random_in(0, 1) ? 0 : (size_t)random_in(1, 4096));
    niti_description_close(d);
  }
}

/* ---- a network of a known size ---- */

/* As the CUDA backend has them: [N/16][H][W][C][16], and a bit per element, for 16 images by 64 channels, or by multiples of 128.
 */
static size_t cuda_layout(const void *context, const NitiProgram *p, int32_t t, int which) {
  const NitiShape s = niti_tensor_shape(&p->tensors[t], p->batch);
  const size_t blocks = (size_t)(s.n + 15) / 16, positions = (size_t)s.h * (size_t)s.w;
  (void)context;
  return which == 0 ? blocks * 16 * positions * (size_t)s.c
                    : blocks * positions * (s.c <= 64 ? 128 : ((size_t)s.c + 127) / 128 * 256);
}

static int cuda_reads(const void *context, const NitiProgram *p, int32_t operation, int input) {
  (void)context;
  return (int)niti_use_of(&p->operations[operation], input);
}

/* ResNet-18 at batch 128, at the first gradient of a 3x3 convolution, or at the delta behind it. Alive, by stage of 64, 128, 256
 * and 512 channels, and 128 images: what norms read on their way back, 19 of 20 convolutions' outputs; what gradients sum, the
 * network's input and 16 ReLUs' outputs, or of these the blocked layout, with the bits that mask deltas; the delta of the block's
 * output, the convolution's delta, and either that in the blocked layout, or the next delta; the gradients of the convolution,
 * the linear layer and the norm before it; 20 norms' sums but one. Nothing else: no elements that only forward reads, no gradient
 * of earlier convolutions. No plan can have less, except that other operations' order might. */
static void resnet18_takes_what_backward_reads(void **state) {
  enum { S64 = 32 * 32 * 64, S128 = 16 * 16 * 128, S256 = 8 * 8 * 256, S512 = 4 * 4 * 512, N = 128, PLACES_MAX = 100 };
  const size_t convolutions = (size_t)N * (5 * S64 + 5 * S128 + 5 * S256 + 4 * S512);
  const size_t operands = (size_t)N * (32 * 32 * 3 + 5 * S64 + 4 * S128 + 4 * S256 + 3 * S512), deltas = (size_t)N * 3 * S512;
  const size_t bits = (size_t)N * (5 * S64 + 4 * S128 + 4 * S256 + 3 * S512) / 8;
  const size_t gradients = (size_t)4 * 512 * 9 * 512 + 4 * 512 * 10 + 2 * 8 * 512;
  const size_t sums = (size_t)16 * (5 * 64 + 5 * 128 + 5 * 256 + 4 * 512);
  const size_t all = convolutions + operands + deltas + gradients + sums + (size_t)PLACES_MAX * NITI_ALIGN;
  const NitiPlacing placings[] = {{.gradients = true}, {.gradients = true, .layout = cuda_layout, .reads = cuda_reads}};
  NitiDescription *d = NULL;
  (void)state;
  must(niti_description_load(&d, "resnet18", NULL));
  NitiProgram *p = lowered(d, &(NitiLowerOptions){.batch = N,
                                                  .training = true,
                                                  .round_delta = NITI_STOCHASTIC_BYTE,
                                                  .loss = NITI_LOSS_SOFTMAX,
                                                  .optimizer = &niti_optimizer_sgd});
  must(niti_update_early(p, 0));
  must(niti_fuse(p));
  for (int i = 0; i < 2; ++i) {
    NitiPlaces places;
    check_places(p, &placings[i]);
    must(niti_places_open(&places, p, &placings[i]));
    assert_in_range(places.arena_bytes, convolutions + operands, all + (i ? bits : 0));
    niti_places_close(&places);
  }
  niti_program_close(p);
  niti_description_close(d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(builtin_models_have_room),           cmocka_unit_test(every_layer_has_room),
      cmocka_unit_test(random_networks_have_room),          cmocka_unit_test(a_chain_takes_its_widest_pair),
      cmocka_unit_test(training_takes_what_the_loss_needs), cmocka_unit_test(gradients_take_what_backward_leaves),
      cmocka_unit_test(temporaries_count_while_they_live),  cmocka_unit_test(no_gap_is_left_while_memory_is_fullest),
      cmocka_unit_test(resnet18_takes_what_backward_reads), cmocka_unit_test(updates_overtake_nothing_they_depend_on),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
