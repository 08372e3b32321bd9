/* What the tests of the CPU's small operations share: tensors whose ends are watched, and the definition of requantise as
 * docs/arithmetic.md has it. */
#ifndef NITI_TESTS_OPS_TEST_H
#define NITI_TESTS_OPS_TEST_H

/* cmocka.h needs the four before it */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/cpu/cpu.h"
#include "guarded.h"
#include "kernel_calls.h"

enum { SEED_LOW = 12345, STEP = 7 };
static const uint64_t run_seed = ((uint64_t)0xdeadbeef << 32) | SEED_LOW;
static const int thread_counts[] = {1, 3};
static const NitiRounding modes[] = {NITI_NEAREST, NITI_PSEUDO_STOCHASTIC, NITI_STOCHASTIC, NITI_TRUNCATE, NITI_STOCHASTIC_BYTE};

/* ---- guarded memory and tensors ---- */

static inline void guarded_free(void *p, size_t bytes) {
  check_guards(p, bytes);
  release(p);
}

static inline NitiTensor tensor_new(NitiShape shape) {
  NitiTensor t = {.data = guarded(niti_shape_count(shape)), .exponent = malloc(sizeof(int32_t)), .shape = shape};
  assert_non_null(t.exponent);
  *t.exponent = INT_MIN;
  return t;
}

/* Mantissas within the range, many of them equal where it is small. */
static inline NitiTensor tensor_random(NitiShape shape, int range, int exponent) {
  NitiTensor t = tensor_new(shape);
  for (size_t i = 0; i < niti_shape_count(shape); ++i) t.data[i] = (int8_t)random_in(-range, range);
  *t.exponent = exponent;
  return t;
}

static inline NitiTensor tensor_copy(const NitiTensor *t) {
  NitiTensor c = tensor_new(t->shape);
  memcpy(c.data, t->data, niti_shape_count(t->shape));
  *c.exponent = *t->exponent;
  return c;
}

static inline void tensor_free(NitiTensor *t) {
  guarded_free(t->data, niti_shape_count(t->shape));
  free(t->exponent);
}

static inline void assert_same(const NitiTensor *got, const NitiTensor *expected) {
  const size_t count = niti_shape_count(expected->shape);
  assert_int_equal(*got->exponent, *expected->exponent);
  for (size_t i = 0; i < count; ++i) {
    if (got->data[i] != expected->data[i]) {
      fail_msg("element %zu of %zu: got %d, expected %d", i, count, got->data[i], expected->data[i]);
    }
  }
}

static inline NitiBackend *open_backend(int threads) {
  NitiBackend *backend = NULL;
  const NitiBackendOptions options = {.name = "cpu", .isa = NULL, .threads = threads};
  assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
  begin_step(backend, run_seed, STEP);
  return backend;
}

/* ---- the definition of requantise ---- */

static inline int bits(int64_t v) {
  int b = 0;
  while (v > (int64_t)1 << b) ++b;
  return b;
}

static inline void requantise(NitiTensor *out, const int64_t *acc, int32_t exponent, const NitiRequantise *rq) {
  const size_t count = niti_shape_count(out->shape);
  int64_t max = 0;
  for (size_t i = 0; i < count; ++i) max = llabs(acc[i]) > max ? llabs(acc[i]) : max;
  const int shift = bits(max) > 7 ? bits(max) - 7 : 0;
  for (size_t i = 0; i < count; ++i) {
    const bool bytes = rq->mode == NITI_STOCHASTIC_BYTE;
    const uint32_t drawn = niti_random(run_seed, (NitiPurpose)rq->purpose, STEP, rq->layer, bytes ? i / 4 : i);
    const uint32_t word = bytes ? drawn >> (i % 4 * 8) & 255 : drawn;
    out->data[i] = niti_round_int8(acc[i], shift, rq->mode, word);
  }
  *out->exponent = exponent + shift;
}

static inline int64_t *acc_new(NitiShape shape) {
  int64_t *acc = calloc(niti_shape_count(shape) + 1, sizeof *acc);
  assert_non_null(acc);
  return acc;
}

static inline size_t at(NitiShape s, int n, int h, int w, int c) {
  return (((size_t)n * (size_t)s.h + (size_t)h) * (size_t)s.w + (size_t)w) * (size_t)s.c + (size_t)c;
}

static const NitiShape flat_shapes[] = {{1, 1, 1, 1}, {3, 5, 7, 3}, {2, 1, 1, 333}, {5, 33, 31, 17}, {2, 64, 64, 33}};
enum { FLAT_SHAPES = sizeof flat_shapes / sizeof flat_shapes[0] };

#endif
