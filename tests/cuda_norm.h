/* Operands of the CUDA tests of batch norm and of updates: tensors of other types than int8, and norms with random parameters. */
#ifndef NITI_TESTS_CUDA_NORM_H
#define NITI_TESTS_CUDA_NORM_H

#include "base/norm.h"
#include "base/sgd.h"
#include "cuda_test.h"

enum { OPERAND_CHANNELS = 128 /* keep_operand multiplies all channels by all */ };

/* ---- operands of other types ---- */

/* count elements of so many bytes; host NULL: poison. */
static inline NitiTensor wide_tensor(Device *d, NitiShape shape, size_t element, const void *host, int32_t exponent) {
  const size_t bytes = niti_shape_count(shape) * element;
  void *data = host ? place_copy(d, host, bytes) : place(d, bytes);
  return (NitiTensor){
      .data = data, .exponent = place_copy(d, &exponent, sizeof exponent), .shape = shape, .uses = NITI_USE_OTHER};
}

static inline NitiShape table(int32_t rows, int32_t columns) { return (NitiShape){rows, 1, 1, columns}; }

static inline void keep_wide(Record *r, Device *d, const char *label, const NitiTensor *t, size_t element) {
  keep(r, d, label, t->data, niti_shape_count(t->shape) * element, element);
  keep(r, d, "its exponent", t->exponent, sizeof *t->exponent, 4);
}

static inline void *allocate(size_t count, size_t element) {
  void *memory = calloc(count + 1, element);
  assert_non_null(memory);
  return memory;
}

/* ---- operands of a norm ---- */

typedef enum Weights { WEIGHTS_ANY, WEIGHTS_ONE, WEIGHTS_ZERO, WEIGHTS_LARGE, WEIGHTS_FAR, WEIGHTS } Weights;

static inline int16_t random_weight(Weights kind) {
  switch (kind) {
    case WEIGHTS_ONE: return 1 << 14;
    case WEIGHTS_ZERO: return 0;
    case WEIGHTS_LARGE: return random_in(0, 1) ? NITI_SGD_WEIGHT_MAX : -NITI_SGD_WEIGHT_MAX;
    case WEIGHTS_FAR: return random_in(0, 3) ? (int16_t)random_in(-1, 1) : NITI_SGD_WEIGHT_MAX;
    default: return (int16_t)random_in(-NITI_SGD_WEIGHT_MAX, NITI_SGD_WEIGHT_MAX);
  }
}

static inline int16_t *random_weights(size_t count) {
  const Weights kind = (Weights)random_in(0, WEIGHTS - 1);
  int16_t *w = allocate(count, sizeof *w);
  for (size_t i = 0; i < count; ++i) w[i] = random_weight(kind);
  return w;
}

/* Both running statistics of each channel. */
static inline int64_t *random_running(size_t channels) {
  int64_t *running = allocate(2 * channels, sizeof *running);
  const int bits = random_in(1, 50);
  for (size_t c = 0; c < 2 * channels; ++c) {
    const int64_t any = (int64_t)(next_random() >> 1) % ((int64_t)1 << bits);
    running[c] = random_in(0, 9) == 0 ? 0 : c < channels && random_in(0, 1) ? -any : any;
  }
  return running;
}

typedef struct Norm {
  NitiShape shape;    /* of x, y and both deltas */
  int8_t *x, *dy, *w; /* w: of a convolution */
  int16_t *weight, *bias;
  int64_t *running;
  NitiAffine *affine; /* maps alone */
  NitiAffineDelta *affine_delta;
  int32_t e_x, e_d, e_weight, e_bias;
  NitiRounding mode;
  bool relu, operands, fits; /* fits: these alone, without maps */
  int32_t first;             /* images of other ranks before these: maps alone */
  int32_t limit;             /* of the ReLU: its maximum in millionths */
} Norm;

static inline void random_parameters(Norm *n) {
  const size_t channels = (size_t)n->shape.c;
  n->weight = random_weights(channels);
  n->bias = random_weights(channels);
  n->running = random_running(channels);
  n->e_x = random_in(-40, 20);
  n->e_d = random_in(-40, 20);
  n->e_weight = random_in(0, 1) ? -14 : random_in(-30, 10);
  n->e_bias = random_in(0, 1) ? -15 : random_in(-30, 10);
  n->mode = random_in(0, 1) ? NITI_NEAREST : (NitiRounding)random_in(0, NITI_STOCHASTIC_BYTE);
  n->relu = random_in(0, 1);
  n->operands = random_in(0, 1);
  n->limit = random_limit(n->e_weight < -10 ? n->e_weight + 8 : n->e_weight); /* about the output's */
}

/* Whole channels of one value, or of two; every third of one value beside others; now and then anything. */
static inline int8_t *channel_values(size_t count, size_t channels, Fill fill) {
  int8_t *m = mantissas(count, fill);
  const int kind = random_in(0, 4);
  for (size_t i = 0; i < count && kind < 3; ++i) {
    if (kind == 2 && i % channels % 3 > 0) continue;
    const int value = (int)((i % channels * 37 + 127) % 255) - 127;
    m[i] = (int8_t)(kind == 1 && next_random() % 2 ? -value : value);
  }
  return m;
}

static inline Norm random_norm(NitiShape shape) {
  Norm n = {.shape = shape};
  const size_t count = niti_shape_count(shape);
  n.x = channel_values(count, (size_t)shape.c, (Fill)random_in(0, FILLS - 1));
  n.dy = channel_values(count, (size_t)shape.c, (Fill)random_in(0, FILLS - 1));
  random_parameters(&n);
  return n;
}

static inline void free_norm(Norm *n) {
  free(n->x);
  free(n->dy);
  free(n->w);
  free(n->weight);
  free(n->bias);
  free(n->running);
  free(n->affine);
  free(n->affine_delta);
}

static inline void describe(char text[200], const char *name, const Norm *n) {
  snprintf(text, 200, "%s, %dx%dx%dx%d after %d, exponents %d %d %d %d, mode %d, relu %d at most %d, layouts %d", name,
           n->shape.n, n->shape.h, n->shape.w, n->shape.c, n->first, n->e_x, n->e_d, n->e_weight, n->e_bias, (int)n->mode,
           n->relu, n->limit, n->operands);
}

static inline void check_norm(Work work, const char *name, Norm n) {
  char what[200];
  describe(what, name, &n);
  check_work(work, &n, what);
  free_norm(&n);
}

static inline int uses_of(const Norm *n) { return n->operands ? NITI_USE_GRADIENT | NITI_USE_OTHER : NITI_USE_OTHER; }

static inline void keep_output(Record *r, Device *d, const char *label, const NitiTensor *t) {
  if (t->shape.c <= OPERAND_CHANNELS)
    keep_operand(r, d, label, t);
  else
    keep_tensor(r, d, label, t);
}

static int32_t random_multiplier(int bits) { return random_in(-(1 << bits), 1 << bits); }

static inline void random_affine(Norm *n) {
  n->limit = random_limit(n->e_weight); /* the output's, too */
  n->affine = allocate((size_t)n->shape.c, sizeof *n->affine);
  n->affine_delta = allocate((size_t)n->shape.c, sizeof *n->affine_delta);
  for (int32_t c = 0; c < n->shape.c; ++c) {
    const int bits = random_in(0, 3) ? random_in(0, 22) : 22;
    const int32_t most = NITI_NORM_FACTOR_MAX, half = random_in(0, 1) ? 1 << (NITI_NORM_FRACTION - 1) : 0;
    n->affine[c] = (NitiAffine){random_multiplier(bits), random_multiplier(29) * 2};
    n->affine_delta[c] = (NitiAffineDelta){random_multiplier(bits), random_multiplier(22), random_multiplier(29)};
    if (random_in(0, 3) == 0) n->affine[c] = (NitiAffine){random_in(-9, 9) * (1 << NITI_NORM_FRACTION), half}; /* ties */
    if (random_in(0, 3) == 0) n->affine_delta[c] = (NitiAffineDelta){half, 3 * half, half};
    if (random_in(0, 9) == 0) n->affine_delta[c] = (NitiAffineDelta){most, -most, NITI_NORM_OFFSET_MAX};
  }
}

#endif
