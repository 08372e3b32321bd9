/* A network trained by hand, step by step, with random weights and images, and what its runs leave behind: for tests of
 * executables that must compute the same. Include cmocka before it. */
#ifndef NITI_TESTS_TRAINED_H
#define NITI_TESTS_TRAINED_H

#include "niti.h"
#include "program/early.h"
#include "programs.h"

enum { IMAGES = 6, BATCH_MAX = 16, CROP = 3 };

static bool updates_early; /* updates come as early as they may in programs that are trained */

typedef struct Trained {
  NitiExecutable *training, *evaluation;
  const NitiProgram *program;
  NitiShape source;
  uint8_t *pixels;
  NitiSample samples[BATCH_MAX];
  int32_t labels[BATCH_MAX];
} Trained;

/* Of batch norm: weights and biases. */
static inline void fill_parameters(Trained *t, int32_t tensor, size_t count) {
  const int32_t exponent = random_in(-16, -13);
  int16_t *values = malloc(count * sizeof *values);
  assert_non_null(values);
  for (size_t k = 0; k < count; ++k) values[k] = (int16_t)random_in(-INT16_MAX, INT16_MAX);
  must(niti_executable_write(t->training, tensor, 0, values, &exponent));
  free(values);
}

/* Of batch norm: means from -1 to 1, variances up to 2. */
static inline void fill_statistics(Trained *t, int32_t tensor, size_t count) {
  const int32_t exponent = -32;
  int64_t *values = malloc(count * sizeof *values);
  assert_non_null(values);
  for (size_t k = 0; k < count; ++k) values[k] = (int64_t)(next_random() >> 31) - (k < count / 2 ? INT64_C(1) << 32 : 0);
  must(niti_executable_write(t->training, tensor, 0, values, &exponent));
  free(values);
}

/* The master of an int8 weight, with other low bits than 0, if its optimiser keeps one. */
static inline void fill_master(Trained *t, int32_t weight, const int8_t *values, int32_t exponent) {
  const int32_t own = exponent - 8;
  for (int32_t i = 0; i < t->program->tensor_count; ++i) {
    const NitiTensorDesc *desc = &t->program->tensors[i];
    if (desc->role != NITI_ROLE_STATE || desc->initial != NITI_INITIAL_MASTER || desc->weight != weight) continue;
    const size_t count = niti_tensor_count(desc, 0);
    int16_t *master = malloc(count * sizeof *master);
    assert_non_null(master);
    for (size_t k = 0; k < count; ++k)
      master[k] = (int16_t)(256 * values[k] + (values[k] > -127 && values[k] < 127 ? random_in(-127, 127) : 0));
    must(niti_executable_write(t->training, i, 0, master, &own));
    free(master);
  }
}

/* Random weights and a random input table, from a seed. */
static inline void fill_weights(Trained *t) {
  for (int32_t i = 0; i < t->program->tensor_count; ++i) {
    const NitiTensorDesc *desc = &t->program->tensors[i];
    if (desc->role != NITI_ROLE_WEIGHT && desc->role != NITI_ROLE_CONSTANT) continue;
    const size_t count = niti_tensor_count(desc, 0);
    const int32_t exponent = random_in(-9, -5);
    if (desc->dtype == NITI_DTYPE_S16) fill_parameters(t, i, count);
    if (desc->dtype == NITI_DTYPE_S64) fill_statistics(t, i, count);
    if (desc->dtype != NITI_DTYPE_S8) continue;
    int8_t *values = malloc(count);
    assert_non_null(values);
    for (size_t k = 0; k < count; ++k) values[k] = (int8_t)random_in(-127, 127);
    must(niti_executable_write(t->training, i, 0, values, &exponent));
    fill_master(t, i, values, exponent);
    free(values);
  }
}

static inline Trained open_trained(NitiBackend *backend, const NitiDescription *description, const NitiLowerOptions *options,
                                   bool plain) {
  NitiLowerOptions evaluating = *options;
  evaluating.training = false;
  NitiProgram *training = lowered(description, options), *evaluation = lowered(description, &evaluating);
  if (updates_early) must(niti_update_early(training, 0));
  Trained t = {.source = description->input};
  const NitiCompileOptions first = {.plain = plain};
  must(niti_backend_compile(&t.training, backend, training, &first));
  const NitiCompileOptions second = {.plain = plain, .shared = t.training};
  must(niti_backend_compile(&t.evaluation, backend, evaluation, &second));
  niti_program_close(training);
  niti_program_close(evaluation);
  t.program = niti_executable_program(t.training);
  t.source.h += CROP;
  t.source.w += CROP;
  const size_t bytes = IMAGES * niti_shape_image(t.source);
  t.pixels = malloc(bytes);
  assert_non_null(t.pixels);
  for (size_t i = 0; i < bytes; ++i) t.pixels[i] = (uint8_t)next_random();
  fill_weights(&t);
  return t;
}

static inline void close_trained(Trained *t) {
  niti_executable_close(t->evaluation);
  niti_executable_close(t->training);
  free(t->pixels);
}

/* Rates of either update. */
static inline void bind_scalars(NitiBindings *b, const NitiProgram *p) {
  for (int32_t i = 0; i < p->scalar_count; ++i) {
    if (strcmp(p->scalars[i], "mu") == 0) b->scalars[i] = 3500000 + 500000 * (p->tensor_count % 2); /* whole or not */
    if (strcmp(p->scalars[i], "rate") == 0) b->scalars[i] = 30000000;
    if (strcmp(p->scalars[i], "momentum") == 0) b->scalars[i] = 900000000;
    if (strcmp(p->scalars[i], "decay") == 0) b->scalars[i] = 500000;
    if (strcmp(p->scalars[i], "images") == 0) b->scalars[i] = b->batch;
    if (strcmp(p->scalars[i], "clip") == 0) b->scalars[i] = 1000000000;
  }
}

/* The next `batch` images, cropped and mirrored at random, in one of the two programs from end to end. */
static inline NitiStatus try_run(Trained *t, bool training, int32_t batch, uint32_t step) {
  NitiExecutable *e = training ? t->training : t->evaluation;
  const NitiProgram *p = niti_executable_program(e);
  const int32_t classes = (int32_t)p->tensors[niti_program_logits(p)].dims[3];
  for (int32_t n = 0; n < batch; ++n) {
    t->samples[n] = (NitiSample){.image = (uint32_t)random_in(0, IMAGES - 1),
                                 .dy = (int16_t)random_in(-1, CROP),
                                 .dx = (int16_t)random_in(-1, CROP),
                                 .flip = (uint32_t)random_in(0, 1)};
    t->labels[n] = random_in(0, classes - 1);
  }
  NitiBindings b = {.batch = batch,
                    .seed = 77,
                    .step = step,
                    .pixels = t->pixels,
                    .source = t->source,
                    .samples = t->samples,
                    .labels = t->labels};
  bind_scalars(&b, p);
  return niti_executable_run(e, 0, p->operation_count, &b);
}

/* What a run leaves: logits of an evaluation, then weights, exponents and metrics. */
typedef struct Trace {
  uint8_t *bytes;
  size_t used, room;
} Trace;

static inline void put_bytes(Trace *trace, const void *bytes, size_t count) {
  if (trace->used + count > trace->room) {
    trace->room = 2 * trace->room + count;
    trace->bytes = realloc(trace->bytes, trace->room);
    assert_non_null(trace->bytes);
  }
  memcpy(trace->bytes + trace->used, bytes, count);
  trace->used += count;
}

static inline void put_tensor(Trace *trace, NitiExecutable *e, int32_t tensor, int32_t n) {
  const NitiTensorDesc *desc = &niti_executable_program(e)->tensors[tensor];
  const size_t bytes = niti_tensor_count(desc, n) * niti_dtype_bytes(desc->dtype);
  void *values = malloc(bytes);
  int32_t exponent = 0;
  assert_non_null(values);
  must(niti_executable_read(e, tensor, n, values, &exponent));
  put_bytes(trace, values, bytes);
  put_bytes(trace, &exponent, sizeof exponent);
  free(values);
}

static inline void check_same(const Trace *want, Trace got, const char *what, const char *text) {
  if (want->used != got.used || memcmp(want->bytes, got.bytes, got.used) != 0) fail_msg("%s differs:\n%s", what, text);
  free(got.bytes);
}

#endif
