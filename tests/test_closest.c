/* "Did you mean": which word is suggested for which slip. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "config/closest.h"

static const char *const words[] = {"batch",  "epochs",      "seed",        "update", "max-steps",
                                    "lenet5", "lenet5-wide", "vgg-small-7", NULL};

static void assert_closest(const char *word, const char *expected) {
  const char *found = niti_closest(word, words);
  if (!expected && !found) return;
  if (!expected || !found) fail_msg("'%s': %s", word, found ? found : "nothing");
  assert_string_equal(found, expected);
}

static void slips_of_one_letter(void **state) {
  (void)state;
  assert_closest("batc", "batch");   /* dropped */
  assert_closest("battch", "batch"); /* added */
  assert_closest("botch", "batch");  /* replaced */
  assert_closest("bacth", "batch");  /* swapped: one edit, so that three letters are enough */
  assert_closest("esed", "seed");
  assert_closest("batch", "batch");
}

static void several_slips_in_long_words(void **state) {
  (void)state;
  assert_closest("max_stepz", "max-steps");
  assert_closest("vgg-smal-8", "vgg-small-7");
  assert_closest("lenet-5-wide", "lenet5-wide");
  assert_closest("lenet6", "lenet5"); /* nearer than lenet5-wide */
}

static void words_that_are_far_get_nothing(void **state) {
  static const char *const none[] = {NULL};
  char text[200];
  (void)state;
  assert_closest("", NULL);
  assert_closest("x", NULL);
  assert_closest("learning", NULL);
  assert_closest("btc", NULL); /* two of three letters more */
  memset(text, 'b', sizeof text - 1);
  text[sizeof text - 1] = 0;
  assert_closest(text, NULL);
  assert_null(niti_closest("batch", none));
}

static void a_part_of_a_word_is_enough(void **state) {
  (void)state;
  assert_closest("steps", "max-steps");
  assert_closest("small", "vgg-small-7");
  assert_closest("ep", NULL); /* two letters are in too many */
}

static void hints(void **state) {
  char hint[NITI_HINT_MAX];
  (void)state;
  assert_string_equal(niti_did_you_mean(hint, "sead", words), ", did you mean 'seed'?");
  assert_string_equal(niti_did_you_mean(hint, "nothing", words), "");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(slips_of_one_letter),
      cmocka_unit_test(several_slips_in_long_words),
      cmocka_unit_test(words_that_are_far_get_nothing),
      cmocka_unit_test(a_part_of_a_word_is_enough),
      cmocka_unit_test(hints),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
