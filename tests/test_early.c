/* Early updates: they overtake nothing that they depend on, and only where they may. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "every_layer.h"
#include "program/early.h"
#include "programs.h"

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

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(updates_overtake_nothing_they_depend_on)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
