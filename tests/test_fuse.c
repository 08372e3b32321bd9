/* What is known of a program's tensors without running it: which of them cannot be negative. */
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
#include "model/lower.h"
#include "program/fuse.h"

static NitiDescription *parsed(const char *text) {
  NitiDescription *description = NULL;
  if (niti_description_parse(&description, text, "a test's model", NULL) != NITI_OK) fail_msg("%s", niti_error());
  return description;
}

/* want: for each layer with weights, in order, '+' where its input cannot be negative, else '-'. */
static void check_positive(NitiDescription *description, const char *want) {
  for (int training = 0; training < 2; ++training) {
    char got[64] = {0};
    size_t count = 0;
    NitiProgram *program = NULL;
    const NitiLowerOptions options = {.batch = 3, .training = training};
    if (niti_lower(&program, description, &options) != NITI_OK) fail_msg("%s", niti_error());
    if (niti_fuse(program) != NITI_OK) fail_msg("%s", niti_error());
    bool *nonnegative = calloc((size_t)program->tensor_count, sizeof *nonnegative);
    assert_non_null(nonnegative);
    niti_find_nonnegative(nonnegative, program);
    for (int32_t i = 0; i < program->operation_count; ++i) {
      if (program->operations[i].opcode != NITI_OP_CONV_FORWARD) continue;
      assert_true(count + 1 < sizeof got);
      got[count++] = nonnegative[program->operations[i].inputs[0]] ? '+' : '-';
    }
    assert_string_equal(got, want);
    free(nonnegative);
    niti_program_close(program);
  }
  niti_description_close(description);
}

static void test_builtin(void **unused) {
  (void)unused;
  NitiDescription *description = NULL;
  if (niti_description_load(&description, "vgg-small-7", NULL) != NITI_OK) fail_msg("%s", niti_error());
  check_positive(description, "-++++++");
}

/* Several kinds of layers after a convolution, with and without a ReLU between them. */
static void test_layers(void **unused) {
  (void)unused;
  static const char *const layers[] = {"relu",
                                       "maxpool: {kernel: 3, stride: 1, padding: 1}",
                                       "avgpool: {kernel: 2}",
                                       "dropout",
                                       "residual: {body: [dropout]}",
                                       "residual: {body: [{conv: {out: 4, kernel: 1}}, relu]}",
                                       "residual: {body: [relu], shortcut: [dropout]}",
                                       "residual: {body: [dropout], shortcut: [{conv: {out: 4, kernel: 1}}]}"};
  static const char *const after_relu[] = {"-++", "-++", "-++", "-++", "-++", "-+++", "-++", "-+-+"};
  static const char *const after_conv[] = {"-++", "--+", "--+", "--+", "--+", "---+", "--+", "---+"};
  for (size_t i = 0; i < sizeof layers / sizeof layers[0]; ++i) {
    for (int relu = 0; relu < 2; ++relu) {
      char text[512];
      (void)snprintf(text, sizeof text,
                     "name: t\ninput: [8, 8, 3]\nclasses: 10\nlayers:\n  - conv: {out: 4, kernel: 1}\n%s  - %s\n"
                     "  - conv: {out: 4, kernel: 3}\n  - relu\n  - global-avgpool\n  - flatten\n  - linear: {out: classes}\n",
                     relu ? "  - relu\n" : "", layers[i]);
      check_positive(parsed(text), relu ? after_relu[i] : after_conv[i]);
    }
  }
}

/* conv1, the first block's two, the second's body and shortcut (no ReLU after it), after their sum, 1x1, and two linear. */
static void test_every_layer(void **unused) {
  (void)unused;
  check_positive(parsed(every_layer), "-++++-+++++");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_builtin), cmocka_unit_test(test_layers),
                                     cmocka_unit_test(test_every_layer)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
