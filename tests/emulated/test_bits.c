/* The bits that stand for a mask: those that a norm writes, and those that are made from mantissas, with a ReLU's maximum and
 * without, against its definition. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cuda/cuda.h"
#include "base/norm.h"
#include "splitmix.h"

static uint64_t dice = 31;

static int32_t draw(int32_t least, int32_t most) { return least + (int32_t)(splitmix64(&dice) % (uint64_t)(most - least + 1)); }

static void *memory(NitiBackend *b, size_t bytes) { /* which is the host's, too */
  void *p = NULL;
  if (b->ops->alloc(b, &p, bytes) != NITI_OK) fail_msg("%s", niti_error());
  return p;
}

static NitiTensor tensor(NitiBackend *b, NitiShape shape, size_t bytes, int32_t exponent) {
  const NitiTensor t = {.data = memory(b, bytes), .exponent = memory(b, sizeof(int32_t)), .shape = shape};
  *t.exponent = exponent;
  return t;
}

/* Whether a ReLU's backward lets a delta pass: the mantissa is positive and, where there is a maximum, below the nearest to it.
 */
static bool passes(int8_t m, int32_t millionths, int exponent) {
  const int64_t unit = 1000000, twice = (int64_t)2 * millionths << -exponent;
  return m > 0 && (millionths == 0 || 2 * (m + 1) * unit - unit <= twice);
}

/* Returns how many mantissas the maximum has reached. */
static int check_bits(NitiBackend *b, const NitiTensor *y, const char *how) {
  const size_t count = niti_shape_count(y->shape);
  int8_t *ones = memory(b, count);
  int reached = 0;
  niti_cuda_bits_make(niti_cuda(b), y);
  niti_cuda_bits_spread(niti_cuda(b), ones, y);
  for (size_t i = 0; i < count; ++i) {
    const bool want = passes(y->data[i], y->limit, *y->exponent);
    if (ones[i] != want) fail_msg("%s, element %zu: %d at 2^%d, at most %d", how, i, y->data[i], *y->exponent, y->limit);
    reached += y->data[i] > 0 && !want;
  }
  b->ops->release(b, ones);
  return reached;
}

/* The output of a norm whose multipliers are 1 / 2 or less, so that all mantissas occur. */
static int check_norm(NitiBackend *b, NitiShape shape, NitiRounding mode) {
  const size_t count = niti_shape_count(shape);
  const NitiTensor x = tensor(b, shape, count, -7);
  const NitiTensor affine = tensor(b, (NitiShape){shape.c, 1, 1, 2}, sizeof(NitiAffine) * (size_t)shape.c, -draw(0, 18));
  NitiTensor y = tensor(b, shape, b->kernels->tensor_bytes(b, shape, NITI_USE_GRADIENT | NITI_USE_MASK | NITI_USE_OTHER), 0);
  const NitiRequantise rq = {.mode = mode, .purpose = NITI_DRAW_ROUND_ACT, .layer = 3, .image = niti_shape_image(shape)};
  y.uses = NITI_USE_GRADIENT | NITI_USE_MASK | NITI_USE_OTHER;
  y.limit = draw(0, 3) ? (int32_t)((int64_t)1000000 * draw(0, 130) >> -*affine.exponent) : 0;
  for (size_t i = 0; i < count; ++i) x.data[i] = (int8_t)draw(-127, 127);
  for (int32_t c = 0; c < shape.c; ++c)
    ((NitiAffine *)(void *)affine.data)[c] = (NitiAffine){draw(1, 1 << (NITI_NORM_FRACTION - 1)), draw(-9, 9)};
  b->kernels->norm_forward(b, &y, &x, &affine, true, &rq);
  const int reached = check_bits(b, &y, "as the norm left them");
  niti_layouts_forget(niti_cuda(b)->layouts, y.data, count);
  assert_int_equal(check_bits(b, &y, "made from the mantissas"), reached);
  const NitiTensor *all[] = {&x, &affine, &y};
  for (size_t i = 0; i < 3; ++i) {
    b->ops->release(b, all[i]->data);
    b->ops->release(b, all[i]->exponent);
  }
  return reached;
}

static void test_bits(void **unused) {
  static const int channels[] = {16, 48, 64, 80, 128, 256};
  const NitiBackendOptions options = {.name = "cuda"};
  NitiBackend *b = NULL;
  int reached = 0;
  (void)unused;
  if (niti_backend_open(&b, &options) != NITI_OK) fail_msg("%s", niti_error());
  for (int i = 0; i < 60; ++i) {
    const NitiShape shape = {draw(1, 33), draw(1, 3), draw(1, 3), channels[i % 6]};
    reached += check_norm(b, shape, i / 6 % 2 ? NITI_STOCHASTIC_BYTE : NITI_NEAREST);
  }
  assert_true(reached > 1000);
  niti_backend_close(b);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_bits)};
  return cmocka_run_group_tests_name("bits", tests, NULL, NULL);
}
