/* Descriptions, programs, networks and the CPU for tests of what lies between a description and its results: helpers that fail
 * the test where anything goes wrong, and random networks, each from a seed alone. Include cmocka before it. */
#ifndef NITI_TESTS_PROGRAMS_H
#define NITI_TESTS_PROGRAMS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "guarded.h"
#include "model/lower.h"

static inline void must(NitiStatus status) {
  if (status != NITI_OK) fail_msg("%s", niti_error());
}

static inline NitiDescription *described(const char *text) {
  NitiDescription *description = NULL;
  if (niti_description_parse(&description, text, "a test's model", NULL) != NITI_OK) fail_msg("%s\n%s", niti_error(), text);
  return description;
}

static inline NitiProgram *lowered(const NitiDescription *description, const NitiLowerOptions *options) {
  NitiProgram *program = NULL;
  must(niti_lower(&program, description, options));
  return program;
}

/* The program of a description given as text. */
static inline NitiProgram *program_of(const char *text, const NitiLowerOptions *options) {
  NitiDescription *description = described(text);
  NitiProgram *program = lowered(description, options);
  niti_description_close(description);
  return program;
}

/* NULL where this CPU lacks the instruction set. */
static inline NitiBackend *open_isa(const char *isa, int threads) {
  NitiBackend *backend = NULL;
  const NitiBackendOptions options = {.name = "cpu", .isa = isa, .threads = threads};
  const NitiStatus status = niti_backend_open(&backend, &options);
  assert_true(status == NITI_OK || status == NITI_ERROR_UNSUPPORTED);
  return backend;
}

/* ---- random networks ---- */

typedef struct RandomNetwork {
  char text[8192];
  size_t used;
  int32_t h, w, c; /* of the tensor so far */
  int depth;       /* of residual blocks */
  bool norm;       /* some layers are norms, which only update sgd trains */
} RandomNetwork;

__attribute__((format(printf, 3, 4))) static inline void write_line(RandomNetwork *r, int indent, const char *format, ...) {
  va_list args;
  r->used += (size_t)snprintf(r->text + r->used, sizeof r->text - r->used, "%*s", indent, "");
  va_start(args, format);
  r->used += (size_t)vsnprintf(r->text + r->used, sizeof r->text - r->used, format, args);
  va_end(args);
  r->used += (size_t)snprintf(r->text + r->used, sizeof r->text - r->used, "\n");
  assert_true(r->used < sizeof r->text);
}

static inline void write_residual(RandomNetwork *r, int indent);

static inline void write_relu(RandomNetwork *r, int indent) {
  static const char *const maxima[] = {"6", "1", "0.5", "0.000001", "2000"};
  if (random_in(0, 2) > 0)
    write_line(r, indent, "- relu");
  else
    write_line(r, indent, "- relu: {max: %s}", maxima[random_in(0, 4)]);
}

/* A layer whose output has its input's shape. */
static inline void write_same(RandomNetwork *r, int indent) {
  const int kernel = 2 * random_in(0, 1) + 1;
  if (r->norm && random_in(0, 2) == 0) {
    write_line(r, indent, "- norm");
    return;
  }
  switch (random_in(0, r->depth < 2 ? 7 : 6)) {
    case 0:
    case 1: write_line(r, indent, "- conv: {out: %d, kernel: %d, padding: %d}", r->c, kernel, kernel / 2); break;
    case 2:
    case 3: write_relu(r, indent); break;
    case 4: write_line(r, indent, "- dropout: {per: %s}", random_in(0, 1) ? "feature" : "element"); break;
    case 5: write_line(r, indent, "- maxpool: {kernel: 3, stride: 1, padding: 1}"); break;
    case 6: write_line(r, indent, "- avgpool: {kernel: 1}"); break;
    default: write_residual(r, indent);
  }
}

static inline void write_residual(RandomNetwork *r, int indent) {
  const int shortcut = random_in(0, 2) == 0 ? random_in(1, 2) : 0;
  ++r->depth;
  write_line(r, indent, "- residual:");
  write_line(r, indent + 4, "body:");
  for (int n = random_in(1, 3); n > 0; --n) write_same(r, indent + 6);
  if (shortcut) write_line(r, indent + 4, "shortcut:");
  for (int n = shortcut; n > 0; --n) write_same(r, indent + 6);
  --r->depth;
}

/* A convolution or pool that changes the shape. */
static inline void write_window(RandomNetwork *r) {
  const int kh = random_in(1, r->h < 3 ? r->h : 3), kw = random_in(1, r->w < 3 ? r->w : 3), kind = random_in(0, 3);
  const int stride = random_in(1, 3), pad_h = kind == 3 ? 0 : random_in(0, kh - 1), pad_w = kind == 3 ? 0 : random_in(0, kw - 1);
  const int out = random_in(1, 20);
  r->h = (r->h + 2 * pad_h - kh) / stride + 1;
  r->w = (r->w + 2 * pad_w - kw) / stride + 1;
  if (kind < 2) {
    r->c = out;
    write_line(r, 2, "- conv: {out: %d, kernel: [%d, %d], stride: %d, padding: [%d, %d]}", out, kh, kw, stride, pad_h, pad_w);
  } else if (kind == 2) {
    write_line(r, 2, "- maxpool: {kernel: [%d, %d], stride: %d, padding: [%d, %d]}", kh, kw, stride, pad_h, pad_w);
  } else {
    write_line(r, 2, "- avgpool: {kernel: [%d, %d], stride: %d}", kh, kw, stride);
  }
}

/* The text of a random network: input up to 9x9x3, 2 to 9 classes. Continues random_state. */
static inline const char *random_network(RandomNetwork *r) {
  *r = (RandomNetwork){.h = random_in(2, 9), .w = random_in(2, 9), .c = random_in(0, 1) ? 3 : 1, .norm = random_in(0, 1)};
  write_line(r, 0, "name: random");
  write_line(r, 0, "input: [%d, %d, %d]", r->h, r->w, r->c);
  write_line(r, 0, "classes: %d", random_in(2, 9));
  write_line(r, 0, "layers:");
  for (int n = random_in(1, 6); n > 0; --n) {
    if (random_in(0, 1)) {
      write_window(r);
    } else {
      write_same(r, 2);
    }
    if (random_in(0, 2) == 0) write_relu(r, 2);
  }
  write_line(r, 2, random_in(0, 1) ? "- flatten" : "- global-avgpool");
  if (random_in(0, 1)) write_line(r, 2, "- linear: {out: %d}", random_in(1, 40));
  if (random_in(0, 1)) write_relu(r, 2);
  write_line(r, 2, "- linear: {out: classes}");
  if (random_in(0, 3) == 0) write_line(r, 2, "- residual: {body: [dropout]}");
  return r->text;
}

/* How to lower it. */
static inline NitiLowerOptions random_lowering(const RandomNetwork *r) {
  const bool wide = r->norm || random_in(0, 3) == 0, sgd = wide && random_in(0, 2) > 0;
  return (NitiLowerOptions){.batch = random_in(1, 9),
                            .training = true,
                            .round_activation = (NitiRounding)random_in(NITI_NEAREST, NITI_STOCHASTIC_BYTE),
                            .round_delta = (NitiRounding)random_in(NITI_NEAREST, NITI_STOCHASTIC_BYTE),
                            .loss = sgd || random_in(0, 1) ? NITI_LOSS_SOFTMAX : NITI_LOSS_NITI,
                            .nesterov = random_in(0, 1),
                            .clips_norm = sgd && random_in(0, 1),
                            .optimizer = sgd    ? &niti_optimizer_sgd
                                         : wide ? &niti_optimizer_niti16
                                                : &niti_optimizer_niti};
}

#endif
