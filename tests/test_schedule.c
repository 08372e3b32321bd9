/* Schedules: positions in epochs, steps and shares, read, written and placed in runs. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "train/recipe.h"
#include "train/schedule.h"

static NitiRecipe *recipe_with(const char *mu) {
  char text[512];
  NitiRecipe *r = NULL;
  (void)snprintf(text, sizeof text, "name: t\nmodel: lenet5\nupdate: {mu: %s}\n", mu);
  if (niti_recipe_parse(&r, text, "r.yaml", NULL, 0, NULL) != NITI_OK) fail_msg("%s", niti_error());
  return r;
}

/* 10 epochs of 7 steps: epoch 2 begins with step 14, 50 % with step 35, 33.3333 % with floor(23.33331) = 23. */
static void every_unit_becomes_a_step(void **state) {
  NitiRecipe *r = recipe_with("[{at: 0, mu: 9}, {epoch: 2, mu: 8}, {at: 33.3333%, mu: 7}, {step: 34, mu: 6}, {at: 0.5, mu: 5}]");
  static const struct {
    int64_t step;
    int mu;
  } expected[] = {{0, 9}, {13, 9}, {14, 8}, {22, 8}, {23, 7}, {33, 7}, {34, 6}, {35, 5}, {69, 5}, {1000, 5}};
  NitiPosition first;
  (void)state;
  assert_int_equal(niti_recipe_place(r, 7, 70), NITI_OK);
  for (size_t i = 0; i < sizeof expected / sizeof *expected; ++i)
    assert_int_equal(niti_recipe_mu(r, expected[i].step), expected[i].mu);
  assert_int_equal(niti_schedule_unreached(&r->mu, 70, &first), 0);
  assert_true(niti_schedule_has_share(&r->mu));
  niti_recipe_close(r);
}

static void the_resolved_text_keeps_units(void **state) {
  NitiRecipe *r = recipe_with("[{step: 0, mu: 9}, {epoch: 2, mu: 8}, {at: 12.5%, mu: 7}, {at: 0.500001, mu: 6}]"), *again = NULL;
  (void)state;
  for (int i = 0; i < 2; ++i) {
    const char *parts[] = {"{step: 0, mu: 9}", "{epoch: 2, mu: 8}", "{at: 12.5000%, mu: 7}", "{at: 50.0001%, mu: 6}"};
    for (size_t k = 0; k < 4; ++k) assert_non_null(strstr(r->text, parts[k]));
    assert_int_equal(niti_recipe_parse(&again, r->text, "again", NULL, 0, NULL), NITI_OK);
    niti_recipe_close(r);
    r = again;
  }
  niti_recipe_close(r);
}

static void positions_ascend_in_the_run_they_are_placed_in(void **state) {
  NitiRecipe *r = recipe_with("[{epoch: 0, mu: 5}, {epoch: 4, mu: 4}, {at: 50%, mu: 3}]");
  NitiPosition first;
  (void)state;
  assert_int_equal(niti_recipe_place(r, 10, 100), NITI_OK); /* 40 and 50 */
  assert_int_equal(niti_recipe_check_distinct(r), NITI_OK);
  assert_int_equal(niti_recipe_place(r, 10, 80), NITI_OK); /* both 40: in a run of earlier versions the later holds */
  assert_int_equal(niti_recipe_mu(r, 40), 3);
  assert_int_equal(niti_schedule_unreached(&r->mu, 80, &first), 0); /* the run ends before none of them */
  assert_int_equal(niti_recipe_check_distinct(r), NITI_OK);         /* a share may */
  assert_ptr_equal(niti_schedule_same(&r->mu, true), &r->mu.points[2]);
  assert_null(niti_schedule_same(&r->mu, false));
  assert_int_equal(niti_recipe_place(r, 10, 79), NITI_ERROR_ARGUMENT);
  assert_string_equal(niti_error(),
                      "update: mu: at 50% is step 39 of this run, before epoch 4 at step 40 (expected ascending "
                      "positions)");
  niti_recipe_close(r);
  r = recipe_with("[{epoch: 0, mu: 5}, {epoch: 4, mu: 4}, {step: 40, mu: 3}]");
  assert_int_equal(niti_recipe_place(r, 10, 100), NITI_OK);
  assert_int_equal(niti_recipe_check_distinct(r), NITI_ERROR_ARGUMENT);
  assert_string_equal(niti_error(),
                      "update: mu: epoch 4 and step 40 are both step 40 of this run, so that the first of them would never take "
                      "effect (expected ascending positions)");
  niti_recipe_close(r);
}

static void what_is_never_reached_is_counted(void **state) {
  NitiRecipe *r = recipe_with("[{epoch: 0, mu: 5}, {epoch: 2, mu: 4}, {step: 31, mu: 3}, {at: 100%, mu: 2}]");
  NitiPosition first;
  (void)state;
  assert_int_equal(niti_recipe_place(r, 10, 40), NITI_OK);
  assert_int_equal(niti_schedule_unreached(&r->mu, 40, &first), 1);
  assert_int_equal(first.unit, NITI_POSITION_SHARE);
  assert_int_equal(niti_recipe_place(r, 10, 31), NITI_OK);
  assert_int_equal(niti_schedule_unreached(&r->mu, 31, &first), 2);
  assert_int_equal(first.unit, NITI_POSITION_STEP);
  niti_recipe_close(r);
}

static void large_runs_do_not_overflow(void **state) {
  const NitiPosition share = {NITI_POSITION_SHARE, 999999};
  (void)state;
  assert_int_equal(niti_position_step(share, 1, UINT32_MAX), (int64_t)(999999.0L * UINT32_MAX / 1000000.0L));
  assert_int_equal(niti_position_step((NitiPosition){NITI_POSITION_EPOCH, 1000000}, UINT32_MAX, UINT32_MAX),
                   INT64_C(1000000) * UINT32_MAX);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_unit_becomes_a_step),
      cmocka_unit_test(the_resolved_text_keeps_units),
      cmocka_unit_test(positions_ascend_in_the_run_they_are_placed_in),
      cmocka_unit_test(what_is_never_reached_is_counted),
      cmocka_unit_test(large_runs_do_not_overflow),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
