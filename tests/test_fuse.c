/* Fusing: what becomes part of another operation; and what is known of a program's tensors without running it: which of them
 * cannot be negative, and which a ReLU has limited. */
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

/* ---- which ReLUs become part of another operation ---- */

/* The program of these layers on 8x8x4, fused. */
static NitiProgram *fused(const char *layers, bool training, NitiStatus (*fuse)(NitiProgram *)) {
  char text[1024];
  NitiProgram *p = NULL;
  (void)snprintf(text, sizeof text, "name: t\ninput: [8, 8, 4]\nclasses: 4\nlayers:\n%s", layers);
  NitiDescription *description = parsed(text);
  const NitiLowerOptions options = {
      .batch = 2, .training = training, .optimizer = &niti_optimizer_sgd, .loss = NITI_LOSS_SOFTMAX};
  if (niti_lower(&p, description, &options) != NITI_OK) fail_msg("%s", niti_error());
  if (fuse(p) != NITI_OK) fail_msg("%s", niti_error());
  niti_description_close(description);
  return p;
}

static int count_of(const NitiProgram *p, NitiOpcode opcode) {
  int count = 0;
  for (int32_t i = 0; i < p->operation_count; ++i) count += p->operations[i].opcode == opcode;
  return count;
}

/* Checks how many ReLUs are left, forward and backward, and that each tensor's limit is that of the ReLU whose output it is:
 * `limited` tensors have one of 6. */
static void check_left(const char *layers, bool training, NitiStatus (*fuse)(NitiProgram *), int forward, int backward,
                       int limited) {
  NitiProgram *p = fused(layers, training, fuse);
  int32_t *limits = calloc((size_t)p->tensor_count, sizeof *limits);
  assert_non_null(limits);
  niti_find_limits(limits, p);
  int found = 0;
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    assert_true(limits[t] == 0 || limits[t] == 6000000);
    found += limits[t] > 0;
  }
  assert_int_equal(count_of(p, NITI_OP_RELU_FORWARD), forward);
  assert_int_equal(count_of(p, NITI_OP_RELU_BACKWARD), backward);
  assert_int_equal(found, limited);
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    if (o->opcode == NITI_OP_NORM_FORWARD) assert_int_equal(limits[o->outputs[0]], o->relu ? o->relu_max : 0);
    if ((o->opcode == NITI_OP_ADD || o->opcode == NITI_OP_MAXPOOL_BACKWARD) && o->inputs[2] != NITI_NONE)
      assert_int_equal(limits[o->inputs[2]], 0);
  }
  free(limits);
  niti_program_close(p);
}

static void test_limits(void **unused) {
  (void)unused;
  static const char head[] = "  - conv: {out: 4, kernel: 3}\n  - global-avgpool\n  - flatten\n  - linear: {out: classes}\n";
  static const struct {
    const char *layers; /* after a convolution and before one, which the head is */
    int forward, backward, limited;
  } cases[] = {
      {"  - norm\n  - relu: {max: 6}\n", 0, 0, 1},
      {"  - relu: {max: 6}\n", 1, 0, 1}, /* its exponent depends on the values */
      {"  - norm\n  - relu\n", 0, 0, 0},
      {"  - norm\n  - relu\n  - relu: {max: 6}\n", 1, 1, 1}, /* the first one's output is read backward */
      {"  - norm\n  - relu: {max: 6}\n  - relu\n", 1, 1, 1},
      {"  - norm\n  - relu: {max: 6}\n  - maxpool: {kernel: 2}\n", 0, 1, 1},
      {"  - norm\n  - relu: {max: 6}\n  - residual: {body: [{conv: {out: 4, kernel: 1}}]}\n", 0, 1, 1}, /* a fork's sum */
      {"  - norm\n  - relu\n  - residual: {body: [{conv: {out: 4, kernel: 1}}]}\n", 0, 0, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    char layers[512];
    (void)snprintf(layers, sizeof layers, "  - conv: {out: 4, kernel: 1}\n%s%s", cases[i].layers, head);
    check_left(layers, true, niti_fuse, cases[i].forward, cases[i].backward, cases[i].limited);
  }
  const char *first =
      "  - conv: {out: 4, kernel: 1}\n  - norm\n  - relu: {max: 6}\n  - conv: {out: 4, kernel: 3}\n  - global-avgpool\n"
      "  - flatten\n  - linear: {out: classes}\n";
  check_left(first, true, niti_fuse_products, 1, 1, 1);
  check_left(first, false, niti_fuse, 0, 0, 1);
  /* Without backward a norm that has one ReLU could take over the next; one with a maximum stays, as its output is all there is.
   */
  check_left("  - conv: {out: 4, kernel: 1}\n  - norm\n  - relu\n  - relu: {max: 6}\n  - flatten\n  - linear: {out: classes}\n",
             false, niti_fuse, 1, 0, 1);
  check_left("  - conv: {out: 4, kernel: 1}\n  - norm\n  - relu: {max: 6}\n  - relu\n  - flatten\n  - linear: {out: classes}\n",
             false, niti_fuse, 0, 0, 1);
}

/* ---- norms that do the work of a max-pool ---- */

static bool serves_all(const void *context, const NitiOperation *norm, const NitiPool *pool) {
  (void)context;
  return pool->c % 4 == 0 && norm->rounding.mode == NITI_NEAREST;
}

static bool serves_none(const void *context, const NitiOperation *norm, const NitiPool *pool) {
  (void)context;
  (void)norm;
  (void)pool;
  return false;
}

static const NitiOperation *only(const NitiProgram *p, NitiOpcode opcode) {
  const NitiOperation *found = NULL;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    if (p->operations[i].opcode != opcode) continue;
    assert_null(found);
    found = &p->operations[i];
  }
  assert_non_null(found);
  return found;
}

static NitiStatus fuse_served(NitiProgram *p) {
  const NitiStatus status = niti_fuse(p);
  return status == NITI_OK ? niti_fuse_pools(p, serves_all, NULL) : status;
}

static NitiStatus fuse_unserved(NitiProgram *p) {
  const NitiStatus status = niti_fuse(p);
  return status == NITI_OK ? niti_fuse_pools(p, serves_none, NULL) : status;
}

static void check_pools(const char *layers, bool training, NitiStatus (*fuse)(NitiProgram *), int forward, int backward) {
  NitiProgram *p = fused(layers, training, fuse);
  assert_int_equal(count_of(p, NITI_OP_NORM_POOL_FORWARD), forward);
  assert_int_equal(count_of(p, NITI_OP_NORM_POOL_BACKWARD), backward);
  assert_int_equal(count_of(p, NITI_OP_MAXPOOL_FORWARD), 1 - forward);
  assert_int_equal(count_of(p, NITI_OP_MAXPOOL_BACKWARD), training ? 1 - backward : 0);
  niti_program_close(p);
}

#define BEGIN "  - conv: {out: 8, kernel: 3, padding: 1}\n  - norm\n"
#define POOL "  - maxpool: {kernel: 2}\n"
#define END "  - conv: {out: 4, kernel: 1}\n  - flatten\n  - linear: {out: classes}\n"

static void test_pools(void **unused) {
  static const char *const served[] = {BEGIN "  - relu\n" POOL END, BEGIN POOL END, BEGIN POOL "  - relu\n" END,
                                       BEGIN "  - relu\n" POOL "  - flatten\n  - linear: {out: classes}\n"};
  static const char *const others[] = {
      BEGIN "  - relu: {max: 6}\n" POOL END,                                   /* a mask with a limit */
      BEGIN "  - relu\n  - maxpool: {kernel: 3, stride: 2, padding: 1}\n" END, /* windows overlap */
      BEGIN "  - relu\n  - maxpool: {kernel: 2, stride: 4}\n" END,             /* and leave values out */
      BEGIN "  - relu\n" POOL "  - dropout\n" END,                             /* no product to take over the mask */
      BEGIN "  - relu\n" POOL "  - residual: {body: [{conv: {out: 8, kernel: 1}}]}\n" END,
      BEGIN "  - relu\n  - dropout\n" POOL END,
      "  - conv: {out: 8, kernel: 2}\n  - norm\n  - relu\n" POOL END,             /* 7x7 */
      "  - conv: {out: 6, kernel: 3, padding: 1}\n  - norm\n  - relu\n" POOL END, /* not served */
      "  - conv: {out: 8, kernel: 3, padding: 1}\n  - relu\n" POOL END};
  (void)unused;
  for (size_t i = 0; i < sizeof served / sizeof *served; ++i) {
    check_pools(served[i], true, fuse_served, 1, 1);
    check_pools(served[i], false, fuse_served, 1, 0);
    check_pools(served[i], true, fuse_unserved, 0, 0);
    check_pools(served[i], true, niti_fuse, 0, 0);
  }
  for (size_t i = 0; i < sizeof others / sizeof *others; ++i) check_pools(others[i], true, fuse_served, 0, 0);
}

/* Who reads and writes what: the product behind the pool masks its deltas by the pool's output as it read it. */
static void check_operands(const char *layers, bool flattened) {
  NitiProgram *p = fused(layers, true, fuse_served);
  const NitiOperation *forward = only(p, NITI_OP_NORM_POOL_FORWARD), *backward = only(p, NITI_OP_NORM_POOL_BACKWARD);
  const NitiOperation *fit = only(p, NITI_OP_NORM_DELTA_FIT), *source = NULL, *reader = NULL;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    if (o->opcode == NITI_OP_CONV_BACKWARD && o->outputs[0] == backward->inputs[0]) source = o;
    if (o->opcode == NITI_OP_RESHAPE && o->inputs[0] == forward->outputs[0]) reader = o;
  }
  assert_non_null(source);
  assert_true((reader != NULL) == flattened);
  assert_int_equal(source->inputs[2], flattened ? reader->outputs[0] : forward->outputs[0]);
  assert_true(forward->relu);
  assert_int_equal(forward->pool.oh * 2, forward->pool.h);
  assert_int_equal(backward->pool.w, forward->pool.w);
  assert_int_equal(backward->inputs[1], forward->inputs[0]);
  assert_int_equal(backward->inputs[3], forward->outputs[1]);
  assert_int_equal(fit->inputs[0], backward->inputs[0]);
  assert_int_equal(fit->inputs[1], forward->outputs[2]);
  assert_int_equal(fit->norm.positions, 64);
  const NitiTensorDesc *won = &p->tensors[forward->outputs[2]], *y = &p->tensors[forward->outputs[0]];
  assert_memory_equal(won->dims, y->dims, sizeof won->dims);
  assert_int_equal(won->role, NITI_ROLE_SAVED);
  assert_memory_equal(p->tensors[backward->inputs[0]].dims, y->dims, sizeof y->dims);
  niti_program_close(p);
}

static void test_operands_of_pools(void **unused) {
  (void)unused;
  check_operands(BEGIN "  - relu\n" POOL END, false);
  check_operands(BEGIN "  - relu\n" POOL "  - flatten\n  - linear: {out: classes}\n", true);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_builtin),     cmocka_unit_test(test_layers),
                                     cmocka_unit_test(test_every_layer), cmocka_unit_test(test_limits),
                                     cmocka_unit_test(test_pools),       cmocka_unit_test(test_operands_of_pools)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
