/* Portions of a batch, and programs for several ranks. What ranks do together is tested by tests/ranks, the loader's
 * part of it by test_loader.c. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "model/lower.h"
#include "program/bounds.h"
#include "program/portion.h"
#include "train/together.h"

/* ---- portions ---- */

static void test_portions_cover_a_batch_once(void **state) {
  (void)state;
  for (int ranks = 1; ranks <= 9; ++ranks) {
    for (int32_t whole = 1; whole <= 40; ++whole) {
      int32_t next = 0, least = whole, most = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const NitiPortion p = niti_portion(whole, rank, ranks);
        assert_true(p.count >= 1 && p.count <= niti_portion_most(whole, ranks) && p.first + p.count <= whole);
        if (p.idle) {
          assert_true(whole < ranks && p.first == 0 && p.count == 1);
          continue;
        }
        assert_int_equal(p.first, next);
        next += p.count;
        least = p.count < least ? p.count : least;
        most = p.count > most ? p.count : most;
      }
      assert_int_equal(next, whole);
      assert_true(most - least <= 1);
    }
  }
  const NitiPortion last = niti_portion(INT32_MAX, 1023, 1024);
  assert_int_equal(last.first + last.count, INT32_MAX);
}

/* ---- slow ranks ---- */

static const char *slow(int64_t seconds0, int64_t seconds1, int64_t seconds2, int64_t images0) {
  static char text[256];
  const int64_t second = 1000000000;
  const NitiPace paces[] = {{seconds0 * second, images0}, {seconds1 * second, 100}, {seconds2 * second, 100}};
  niti_together_name_slow(text, sizeof text, NULL, paces, 3);
  return text;
}

static void test_slow_ranks_are_named(void **state) {
  (void)state;
  assert_string_equal(slow(10, 4, 4, 100),
                      "rank 0 (localhost) takes up to 2.5 times as long for its share of a batch as rank 1 (localhost)");
  assert_string_equal(
      slow(12, 4, 10, 100),
      "rank 0 (localhost), rank 2 (localhost) take up to 3.0 times as long for their shares of a batch as rank 1 (localhost)");
  assert_string_equal(slow(10, 9, 8, 100), "");
  assert_string_equal(slow(2, 1, 1, 100), "");  /* a second is little */
  assert_string_equal(slow(10, 5, 5, 200), ""); /* a share of two images where others have one */
  assert_string_equal(slow(10, 9, 9, 10), "");  /* a share of one image costs more than half of one of two */
  assert_true(strlen(slow(1000, 1, 1, 1)) > 0);
  char text[256];
  NitiPace many[65];
  for (int i = 0; i < 65; ++i) many[i] = (NitiPace){(i ? 10 : 3) * INT64_C(1000000000), 7};
  niti_together_name_slow(text, sizeof text, NULL, many, 65);
  assert_non_null(strstr(text, "rank 4 (localhost) and 60 more take up to 3.3 times as long"));
  for (size_t size = 1; size < sizeof text; ++size) { /* never beyond its room */
    char *small = calloc(1, size);
    niti_together_name_slow(small, size, NULL, many, 65);
    assert_true(strlen(small) < size);
    free(small);
  }
}

/* ---- programs ---- */

static const char model[] =
    "name: small\ninput: [64, 64, 1]\nclasses: 4\nlayers:\n"
    "  - conv: {out: 4, kernel: 3, bias: true}\n  - norm\n  - relu\n  - flatten\n  - linear: {out: classes}\n";

static NitiProgram *lower(int32_t batch, int32_t whole) {
  NitiDescription *description = NULL;
  NitiProgram *program = NULL;
  assert_int_equal(niti_description_parse(&description, model, "small.yaml", NULL), NITI_OK);
  const NitiLowerOptions options = {
      .batch = batch, .whole = whole, .training = true, .loss = NITI_LOSS_SOFTMAX, .optimizer = &niti_optimizer_sgd};
  assert_int_equal(niti_lower(&program, description, &options), NITI_OK);
  niti_description_close(description);
  return program;
}

static const NitiTensorDesc *tensor(const NitiProgram *p, const char *name) {
  const int32_t t = niti_program_find(p, name);
  assert_true(t != NITI_NONE);
  return &p->tensors[t];
}

/* The operations of one opcode, in order; returns their number. */
static int find_all(const NitiProgram *p, NitiOpcode opcode, int32_t *found) {
  int count = 0;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    if (p->operations[i].opcode == opcode) found[count++] = i;
  }
  return count;
}

/* All three are less than an exchange of their own, so that they travel together when backward is over. */
static void test_gradients_of_products_and_biases_are_summed(void **state) {
  (void)state;
  NitiProgram *p = lower(4, 16);
  static const char *const expected[] = {"linear1.gradient", "conv1.gradient", "conv1.bias.gradient"};
  int32_t first, end, sums[8];
  assert_int_equal(find_all(p, NITI_OP_ALL_SUM, sums), 3);
  for (int i = 0; i < 3; ++i) {
    const NitiOperation *o = &p->operations[sums[i]];
    assert_int_equal(sums[i], sums[0] + i);
    assert_int_equal(o->phase, NITI_PHASE_BACKWARD);
    assert_int_equal(o->inputs[0], o->outputs[0]);
    assert_string_equal(p->tensors[o->inputs[0]].name, expected[i]);
  }
  niti_program_phases(p, NITI_PHASE_REDUCE, NITI_PHASE_REDUCE, &first, &end);
  assert_true(first == sums[2] + 1 && end == first + 1 && p->operations[first].opcode == NITI_OP_ALL_SUM_WAIT);
  niti_program_close(p);
  p = lower(16, 0);
  assert_int_equal(find_all(p, NITI_OP_ALL_SUM, sums) + find_all(p, NITI_OP_ALL_SUM_WAIT, sums), 0);
  niti_program_close(p);
}

/* Gradients of a megabyte, 2^18 words of 32 bits, begin to travel before the delta that comes next is computed. */
static void test_large_gradients_do_not_wait_for_others(void **state) {
  (void)state;
  static const char text[] =
      "name: large\ninput: [1, 1, 8]\nclasses: 4\nlayers:\n"
      "  - flatten\n  - linear: {out: 512}\n  - relu\n  - linear: {out: %d}\n  - relu\n  - linear: {out: classes}\n";
  char model_text[sizeof text + 8];
  for (int out = 508; out <= 509; ++out) {
    NitiDescription *description = NULL;
    NitiProgram *p = NULL;
    int32_t sums[8], gradients[8], deltas[8];
    (void)snprintf(model_text, sizeof model_text, text, out);
    assert_int_equal(niti_description_parse(&description, model_text, "large.yaml", NULL), NITI_OK);
    const NitiLowerOptions options = {.batch = 4, .whole = 16, .training = true, .loss = NITI_LOSS_SOFTMAX};
    assert_int_equal(niti_lower(&p, description, &options), NITI_OK);
    niti_description_close(description);
    assert_int_equal(find_all(p, NITI_OP_ALL_SUM, sums), 3);
    assert_int_equal(find_all(p, NITI_OP_CONV_GRADIENT, gradients), 3); /* of linear3, linear2, linear1 */
    assert_int_equal(find_all(p, NITI_OP_CONV_BACKWARD, deltas), 2);    /* of linear3, linear2 */
    for (int i = 0; i < 3; ++i) assert_int_equal(p->operations[sums[i]].inputs[0], p->operations[gradients[i]].outputs[0]);
    /* linear3's 4 * out and linear2's 512 * out words: 516 * 508 < 2^18 < 516 * 509 */
    assert_int_equal(sums[0], out == 509 ? gradients[1] + 1 : gradients[2] + 1);
    assert_int_equal(sums[1], sums[0] + 1);
    assert_true(out == 508 || sums[1] + 1 == deltas[1]);
    assert_int_equal(sums[2], out == 509 ? gradients[2] + 1 : sums[1] + 1);
    niti_program_close(p);
  }
}

/* The norm is that of the whole batch's gradients. */
static void test_clipping_comes_after_the_sums(void **state) {
  (void)state;
  NitiDescription *description = NULL;
  NitiProgram *p = NULL;
  int32_t last_sum = NITI_NONE, first_square = NITI_NONE;
  assert_int_equal(niti_description_parse(&description, model, "small.yaml", NULL), NITI_OK);
  const NitiLowerOptions options = {
      .batch = 4, .whole = 16, .training = true, .loss = NITI_LOSS_SOFTMAX, .clips_norm = true, .optimizer = &niti_optimizer_sgd};
  assert_int_equal(niti_lower(&p, description, &options), NITI_OK);
  for (int32_t i = 0; i < p->operation_count; ++i) {
    if (p->operations[i].opcode == NITI_OP_ALL_SUM) last_sum = i;
    if (p->operations[i].opcode == NITI_OP_GRADIENT_SQUARES && first_square == NITI_NONE) first_square = i;
  }
  assert_true(last_sum != NITI_NONE && first_square > last_sum);
  niti_program_close(p);
  niti_description_close(description);
}

/* 62 * 62 positions: 34 images are exact in int32, 35 are not. */
static void test_the_whole_batch_decides_the_width_of_a_gradient(void **state) {
  (void)state;
  static const struct {
    int32_t batch, whole;
    NitiDtype dtype;
  } cases[] = {{34, 0, NITI_DTYPE_S32},
               {35, 0, NITI_DTYPE_S64},
               {17, 34, NITI_DTYPE_S32},
               {1, 35, NITI_DTYPE_S64},
               {9, 35, NITI_DTYPE_S64}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    NitiProgram *p = lower(cases[i].batch, cases[i].whole);
    assert_int_equal(tensor(p, "conv1.gradient")->dtype, cases[i].dtype);
    assert_int_equal(tensor(p, "conv1.out")->dims[0], cases[i].batch);
    niti_program_close(p);
  }
}

/* 2^24 values per channel at most: 62 * 62 * 4364 are, 62 * 62 * 4365 are not. */
static void test_the_whole_batch_counts_for_a_norm(void **state) {
  (void)state;
  NitiDescription *description = NULL;
  NitiProgram *program = NULL;
  assert_int_equal(niti_description_parse(&description, model, "small.yaml", NULL), NITI_OK);
  NitiLowerOptions options = {
      .batch = 8, .whole = 4364, .training = true, .loss = NITI_LOSS_SOFTMAX, .optimizer = &niti_optimizer_sgd};
  assert_int_equal(niti_lower(&program, description, &options), NITI_OK);
  niti_program_close(program);
  options.whole = 4365;
  assert_int_equal(niti_lower(&program, description, &options), NITI_ERROR_MODEL);
  assert_non_null(strstr(niti_error(), "a batch of 4365 images"));
  niti_description_close(description);
}

static int64_t exchanged(const NitiProgram *p, NitiOpcode opcode) {
  int64_t bytes = 0;
  for (int32_t i = 0; i < p->operation_count; ++i)
    bytes += p->operations[i].opcode == opcode ? niti_exchanged_bytes(p, &p->operations[i]) : 0;
  return bytes;
}

/* docs/scaling.md's table: two products forward, one backward, four channels. */
static void test_what_is_exchanged(void **state) {
  (void)state;
  NitiProgram *p = lower(4, 16);
  assert_int_equal(exchanged(p, NITI_OP_CONV_FORWARD), 2 * 4);
  assert_int_equal(exchanged(p, NITI_OP_CONV_BACKWARD), 4);
  assert_int_equal(exchanged(p, NITI_OP_NORM_FIT), 4 * 2 * 8);
  assert_int_equal(exchanged(p, NITI_OP_NORM_DELTA_FIT), 4 * 3 * 8);
  assert_int_equal(exchanged(p, NITI_OP_LOSS), 3 * 8 + 4);
  assert_int_equal(exchanged(p, NITI_OP_ALL_SUM), 4 * 4 * 9 + 8 * 4 + 4 * 4 * 4 * 62 * 62);
  const NitiOpcode silent[] = {NITI_OP_INPUT, NITI_OP_NORM_FORWARD, NITI_OP_RELU_FORWARD, NITI_OP_CONV_GRADIENT,
                               NITI_OP_UPDATE_SGD};
  for (size_t i = 0; i < sizeof silent / sizeof *silent; ++i) assert_int_equal(exchanged(p, silent[i]), 0);
  niti_program_close(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_portions_cover_a_batch_once),
      cmocka_unit_test(test_slow_ranks_are_named),
      cmocka_unit_test(test_gradients_of_products_and_biases_are_summed),
      cmocka_unit_test(test_large_gradients_do_not_wait_for_others),
      cmocka_unit_test(test_clipping_comes_after_the_sums),
      cmocka_unit_test(test_the_whole_batch_decides_the_width_of_a_gradient),
      cmocka_unit_test(test_the_whole_batch_counts_for_a_norm),
      cmocka_unit_test(test_what_is_exchanged),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
