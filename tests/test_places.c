/* Where a program's tensors lie, checked by playing the list through on a map of the arena, for the built-in models and random
 * ones, as lowered and as fused. */
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

/* ---- the map ---- */

typedef struct Map {
  const NitiProgram *program;
  const NitiPlaces *places;
  bool gradients;
  NitiTensorBytes bytes;
  int32_t *holds;  /* [units of the arena] the tensor whose value lies there */
  int32_t *values; /* [tensors] the tensor whose value it is: itself, or what a reshape read */
} Map;

static bool has_place(const NitiProgram *p, bool gradients, int32_t t) {
  const NitiRole role = p->tensors[t].role;
  return niti_role_in_arena(role) || (gradients && role == NITI_ROLE_GRADIENT);
}

static bool in_arena(const Map *m, int32_t t) { return t != NITI_NONE && has_place(m->program, m->gradients, t); }

static size_t first_unit(const Map *m, int32_t t) {
  const int64_t offset = m->places->offsets[t];
  if (offset < 0) fail_msg("%s is used and has no place", m->program->tensors[t].name);
  assert_true(offset % NITI_ALIGN == 0);
  return (size_t)offset / NITI_ALIGN;
}

static size_t end_unit(const Map *m, int32_t t) {
  const size_t end = first_unit(m, t) + units(m->bytes(NULL, m->program, t));
  assert_true(end <= m->places->arena_bytes / NITI_ALIGN);
  return end;
}

static bool overlap(const Map *m, int32_t a, int32_t b) {
  return first_unit(m, a) < end_unit(m, b) && first_unit(m, b) < end_unit(m, a);
}

/* An input still holds what was written to it. */
static void check_input(const Map *m, int32_t operation, int32_t t) {
  for (size_t u = first_unit(m, t); u < end_unit(m, t); ++u) {
    if (m->holds[u] != m->values[t])
      fail_msg("operation %d reads %s, whose memory %s has taken", operation, m->program->tensors[t].name,
               m->holds[u] == NOTHING ? "nothing" : m->program->tensors[m->holds[u]].name);
  }
}

/* While an operation runs, its outputs overlap neither each other nor its inputs, except that the first output of an opcode that
 * may work in place may be exactly where its first input is. */
static void check_apart(const Map *m, const NitiOperation *o, int output) {
  const int32_t y = o->outputs[output];
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    const bool in_place = output == 0 && k == 0 && niti_opcodes[o->opcode].in_place;
    if (k < output && in_arena(m, o->outputs[k])) assert_false(overlap(m, y, o->outputs[k]));
    if (!in_arena(m, o->inputs[k]) || !overlap(m, y, o->inputs[k])) continue;
    if (!in_place || first_unit(m, y) != first_unit(m, o->inputs[k]))
      fail_msg("%s writes %s over %s", niti_opcodes[o->opcode].name, m->program->tensors[y].name,
               m->program->tensors[o->inputs[k]].name);
  }
}

static void write_output(const Map *m, int32_t t, int32_t value) {
  m->values[t] = value;
  for (size_t u = first_unit(m, t); u < end_unit(m, t); ++u) m->holds[u] = value;
}

static void play(const Map *m) {
  for (int32_t i = 0; i < m->program->operation_count; ++i) {
    const NitiOperation *o = &m->program->operations[i];
    if (o->opcode == NITI_OP_NONE) continue;
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
      if (in_arena(m, o->inputs[k])) check_input(m, i, o->inputs[k]);
    }
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
      if (in_arena(m, o->outputs[k])) check_apart(m, o, k);
    }
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
      if (!in_arena(m, o->outputs[k])) continue;
      const bool same = o->opcode == NITI_OP_RESHAPE;
      if (same) assert_int_equal(m->places->offsets[o->outputs[k]], m->places->offsets[o->inputs[k]]);
      write_output(m, o->outputs[k], same ? m->values[o->inputs[k]] : o->outputs[k]);
    }
  }
}

static void check_sum(const NitiProgram *p, const NitiPlaces *places, bool gradients, NitiTensorBytes bytes) {
  size_t sum = 0;
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    assert_true(has_place(p, gradients, t) || places->offsets[t] == -1);
    if (places->offsets[t] >= 0) sum += units(bytes(NULL, p, t)) * NITI_ALIGN;
  }
  assert_true(places->arena_bytes <= sum);
}

static void check_places(const NitiProgram *p, bool gradients, NitiTensorBytes bytes) {
  NitiPlaces places, again;
  must(niti_places_open(&places, p, gradients, bytes, NULL));
  must(niti_places_open(&again, p, gradients, bytes, NULL));
  assert_int_equal(places.arena_bytes, again.arena_bytes);
  assert_memory_equal(places.offsets, again.offsets, (size_t)p->tensor_count * sizeof *places.offsets);
  if (!bytes) bytes = element_bytes;
  const size_t arena = places.arena_bytes / NITI_ALIGN;
  const Map m = {
      p, &places, gradients, bytes, malloc((arena + 1) * sizeof *m.holds), calloc((size_t)p->tensor_count, sizeof *m.values)};
  assert_true(m.holds && m.values);
  for (size_t u = 0; u < arena; ++u) m.holds[u] = NOTHING;
  play(&m);
  check_sum(p, &places, gradients, bytes);
  free(m.holds);
  free(m.values);
  niti_places_close(&places);
  niti_places_close(&again);
}

static void check_description(const NitiDescription *description, NitiLowerOptions options) {
  for (int which = 0; which < 4; ++which) {
    options.training = which % 2 == 0;
    NitiProgram *p = lowered(description, &options);
    if (which >= 2) must(niti_fuse(p));
    for (int gradients = 0; gradients < 2; ++gradients) {
      check_places(p, gradients, NULL);
      check_places(p, gradients, more_bytes);
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
  must(niti_places_open(&places, p, gradients, NULL, NULL));
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(builtin_models_have_room),           cmocka_unit_test(every_layer_has_room),
      cmocka_unit_test(random_networks_have_room),          cmocka_unit_test(a_chain_takes_its_widest_pair),
      cmocka_unit_test(training_takes_what_the_loss_needs), cmocka_unit_test(gradients_take_what_backward_leaves),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
