/* What a plan knows of its tensors from the layers alone: whose input cannot be negative. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "every_layer.h"
#include "layer/product.h"
#include "model/plan.h"

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
    NitiPlan *plan = NULL;
    if (niti_plan_open(&plan, description, NULL, 3, training) != NITI_OK) fail_msg("%s", niti_error());
    for (int32_t i = 1; i <= plan->count; ++i) {
      if (!plan->nodes[i].spec.type->weight_shape) continue;
      assert_true(count + 1 < sizeof got);
      got[count++] = niti_product_conv(&plan->nodes[i], 2).x_positive ? '+' : '-';
    }
    assert_string_equal(got, want);
    niti_plan_close(plan);
  }
  niti_description_close(description);
}

static void test_builtin(void **unused) {
  (void)unused;
  NitiDescription *description = NULL;
  if (niti_description_load(&description, "vgg-small-7", NULL) != NITI_OK) fail_msg("%s", niti_error());
  check_positive(description, "-++++++");
}

/* Each layer that hands a ReLU's output on, behind one and behind a convolution. */
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
  static const char *const behind_relu[] = {"-++", "-++", "-++", "-++", "-++", "-+++", "-++", "-+-+"};
  static const char *const behind_conv[] = {"-++", "--+", "--+", "--+", "--+", "---+", "--+", "---+"};
  for (size_t i = 0; i < sizeof layers / sizeof layers[0]; ++i) {
    for (int relu = 0; relu < 2; ++relu) {
      char text[512];
      (void)snprintf(text, sizeof text,
                     "name: t\ninput: [8, 8, 3]\nclasses: 10\nlayers:\n  - conv: {out: 4, kernel: 1}\n%s  - %s\n"
                     "  - conv: {out: 4, kernel: 3}\n  - relu\n  - global-avgpool\n  - flatten\n  - linear: {out: classes}\n",
                     relu ? "  - relu\n" : "", layers[i]);
      check_positive(parsed(text), relu ? behind_relu[i] : behind_conv[i]);
    }
  }
}

/* conv1, the first block's two, the second's body and shortcut (no ReLU behind it), behind their sum, 1x1, and two linear. */
static void test_every_layer(void **unused) {
  (void)unused;
  check_positive(parsed(every_layer), "-++++-+++");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_builtin), cmocka_unit_test(test_layers),
                                     cmocka_unit_test(test_every_layer)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
