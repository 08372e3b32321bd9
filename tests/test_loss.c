/* The loss on the CPU against the formulas of src/base, applied image by image. */
#include "base/loss.h"
#include "ops_test.h"

/* Moves a part of what is expected of each image to the next one's class. */
static void mix_labels(int32_t *labels, int64_t *acc, int N, int classes) {
  const int first = labels[0];
  for (int n = 0; n < N; ++n) {
    const int share = random_in(0, 128), own = labels[n], next = n + 1 < N ? labels[n + 1] : first;
    acc[(size_t)n * (size_t)classes + (size_t)own] += 65536 * share;
    acc[(size_t)n * (size_t)classes + (size_t)next] -= 65536 * share;
    labels[n] = own | share << 16;
  }
}

static void check_loss(NitiBackend *backend, int N, int classes, int32_t e, int range, NitiRounding mode) {
  const NitiShape shape = {N, 1, 1, classes};
  NitiTensor logits = tensor_random(shape, range, e), delta = tensor_new(shape), expected = tensor_new(shape);
  int32_t *labels = malloc((size_t)N * sizeof *labels), *acc32 = malloc((size_t)classes * sizeof *acc32);
  int64_t *acc = acc_new(shape);
  NitiMetrics metrics = {.loss = 1000, .correct = 2, .images = 3}, start = metrics;
  assert_true(labels && acc32);
  int64_t loss = 0, correct = 0;
  for (int n = 0; n < N; ++n) {
    const int8_t *row = logits.data + (size_t)n * (size_t)classes;
    int best = 0;
    for (int j = 1; j < classes; ++j) best = row[j] > row[best] ? j : best;
    labels[n] = n % 2 ? best : random_in(0, classes - 1);
    loss += niti_loss_value(row, e, classes, labels[n]);
    correct += best == labels[n];
  }

  for (int n = 0; n < N; ++n) {
    const size_t first = (size_t)n * (size_t)classes;
    niti_loss_niti(expected.data + first, logits.data + first, e, classes, labels[n], run_seed, STEP, first);
    niti_loss_softmax(acc32, logits.data + first, e, classes, labels[n]);
    for (int j = 0; j < classes; ++j) acc[first + (size_t)j] = acc32[j];
  }
  *expected.exponent = 0;
  int32_t predicted = 9;
  const NitiRequantise rq = {.mode = mode, .purpose = NITI_DRAW_ROUND_DELTA, .layer = 0, .prediction = &predicted};
  backend->kernels->loss(backend, &delta, &metrics, &logits, labels, (NitiLoss){NITI_LOSS_NITI, 0}, &rq);
  assert_same(&delta, &expected);

  requantise(&expected, acc, -24, &rq);
  backend->kernels->loss(backend, &delta, &metrics, &logits, labels, (NitiLoss){NITI_LOSS_SOFTMAX, 0}, &rq);
  assert_same(&delta, &expected);
  backend->kernels->loss(backend, NULL, &metrics, &logits, labels, (NitiLoss){NITI_LOSS_SOFTMAX, 0}, NULL);
  mix_labels(labels, acc, N, classes);
  requantise(&expected, acc, -24, &rq);
  backend->kernels->loss(backend, &delta, &metrics, &logits, labels, (NitiLoss){NITI_LOSS_SOFTMAX, 0}, &rq);
  assert_same(&delta, &expected);
  assert_int_equal(metrics.loss - start.loss, 4 * loss);
  assert_int_equal(metrics.correct - start.correct, 4 * correct);
  assert_int_equal(metrics.images - start.images, 4 * N);
  free(labels), free(acc32), free(acc);
  tensor_free(&logits), tensor_free(&delta), tensor_free(&expected);
}

static void test_loss(void **state) {
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (size_t m = 0; m < 4; ++m) {
      for (int e = -12; e <= 3; e += 5) {
        check_loss(backend, 1, 10, e, 127, modes[m]);
        check_loss(backend, 37, 10, e, 127, modes[m]);
        check_loss(backend, 16, 3, e, 1, modes[m]);
        check_loss(backend, 5, 1000, e, 127, modes[m]);
      }
    }
    check_loss(backend, 4, 1, 0, 127, NITI_NEAREST);
    check_loss(backend, 2, 65536, -4, 127, NITI_STOCHASTIC);
    check_loss(backend, 2, 4097, -4, 127, NITI_PSEUDO_STOCHASTIC);
    niti_backend_close(backend);
  }
}

/* The largest losses that there are come near the bound and stay below it. */
static void no_loss_is_as_large_as_the_bound(void **state) {
  (void)state;
  enum { CLASSES = 65536 };
  static int8_t logits[CLASSES];
  static int32_t sums[CLASSES];
  memset(logits, 127, sizeof logits);
  logits[3] = -127;
  int64_t largest = 0;
  for (int32_t e = 0; e <= 1024; e += 8) {
    const int64_t loss = niti_loss_value(logits, e, CLASSES, 3);
    largest = loss > largest ? loss : largest;
  }
  assert_true(largest > NITI_LOSS_IMAGE_MAX / 2 && largest < NITI_LOSS_IMAGE_MAX);
  for (int32_t e = -40; e <= 40; ++e) {
    for (int32_t other = -40; other <= 40; ++other) {
      int32_t exponent;
      niti_flip_sums(sums, &exponent, logits, e, logits, other, 16);
      const int64_t loss = niti_flip_loss(sums, exponent, 16, 3);
      assert_true(loss >= 0 && loss < NITI_LOSS_IMAGE_MAX);
      largest = loss > largest ? loss : largest;
    }
  }
  assert_true(largest < NITI_LOSS_IMAGE_MAX);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_loss), cmocka_unit_test(no_loss_is_as_large_as_the_bound)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
