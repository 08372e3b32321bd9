/* Programs: building them record by record, copying and comparing them, and the bounds that lowering proves. */
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
#include "program/bounds.h"
#include "programs.h"

/* ---- building ---- */

static int32_t add_named(NitiProgram *p, const char *name, int32_t layer) {
  NitiTensorDesc t = niti_tensor_desc(NITI_ROLE_ACTIVATION, (NitiShape){2, 3, 4, 5});
  (void)snprintf(t.name, sizeof t.name, "%s", name);
  t.layer = layer;
  return niti_program_add_tensor(p, &t);
}

static void names_are_unique_and_found(void **state) {
  NitiProgram *p = NULL;
  (void)state;
  must(niti_program_open(&p, 2));
  assert_int_equal(niti_program_add_layer(p, "conv1"), 1);
  assert_int_equal(niti_program_add_layer(p, "input"), 2);
  assert_int_equal(p->layer_count, 2);
  assert_string_equal(p->layers[0], "");
  assert_string_equal(p->layers[2], "input");
  const int32_t a = add_named(p, "conv1.delta", 1), b = add_named(p, "conv1.delta", 1), c = add_named(p, "conv1.delta", 1);
  assert_string_equal(p->tensors[a].name, "conv1.delta");
  assert_string_equal(p->tensors[b].name, "conv1.delta.2");
  assert_string_equal(p->tensors[c].name, "conv1.delta.3");
  const int32_t network = add_named(p, "input.out", 0), layer = add_named(p, "input.out", 2);
  assert_string_equal(p->tensors[layer].name, "input.out.2"); /* a layer may be called like the network's input */
  assert_int_equal(niti_program_find(p, "input.out"), network);
  assert_int_equal(niti_program_find(p, "conv1.delta.2"), b);
  assert_int_equal(niti_program_find(p, "conv1"), NITI_NONE);
  must(niti_program_check(p));
  niti_program_close(p);
}

static void scalars_are_declared_once(void **state) {
  NitiProgram *p = NULL;
  char name[16];
  (void)state;
  must(niti_program_open(&p, 1));
  assert_int_equal(niti_program_find_scalar(p, "mu"), NITI_NONE);
  for (int i = 0; i < NITI_SCALARS_MAX; ++i) {
    (void)snprintf(name, sizeof name, "s%d", i);
    assert_int_equal(niti_program_scalar(p, name), i);
    assert_int_equal(niti_program_scalar(p, name), i);
    assert_int_equal(niti_program_find_scalar(p, name), i);
  }
  assert_int_equal(niti_program_check(p), NITI_OK);
  assert_int_equal(niti_program_scalar(p, "one more"), NITI_NONE);
  assert_int_equal(niti_program_check(p), NITI_ERROR_ARGUMENT);
  assert_int_equal(p->scalar_count, NITI_SCALARS_MAX);
  niti_program_close(p);
}

/* Many more records than there is room for at first. */
static void programs_grow_and_copy(void **state) {
  NitiProgram *p = NULL;
  (void)state;
  must(niti_program_open(&p, 2));
  for (int32_t i = 0; i < 1000; ++i) {
    char name[32];
    NitiOperation o = niti_operation(NITI_OP_RESHAPE, NITI_PHASE_FORWARD, i + 1);
    (void)snprintf(name, sizeof name, "layer%d", i);
    assert_int_equal(niti_program_add_layer(p, name), i + 1);
    o.outputs[0] = add_named(p, name, i + 1);
    assert_int_equal(o.outputs[0], i);
    niti_program_add_operation(p, &o);
  }
  NitiProgram *copy = niti_program_copy(p);
  assert_non_null(copy);
  assert_true(niti_program_equal(p, copy));
  assert_string_equal(copy->layers[1000], "layer999");
  assert_string_equal(copy->tensors[999].name, "layer999");
  const NitiOperation more = copy->operations[3];
  niti_program_add_operation(copy, &more); /* a copy grows like any other, and alone */
  assert_int_equal(copy->operation_count, 1001);
  assert_int_equal(p->operation_count, 1000);
  assert_false(niti_program_equal(p, copy));
  must(niti_program_check(copy));
  niti_program_close(copy);
  niti_program_close(p);
  niti_program_close(NULL);
}

/* Changes one thing of a copy: the two differ. */
static void equality_sees_every_part(void **state) {
  const NitiLowerOptions options = {.batch = 2, .training = true};
  NitiProgram *p = program_of(every_layer, &options), *same = program_of(every_layer, &options);
  (void)state;
  assert_true(niti_program_equal(p, same));
  for (int part = 0; part < 7; ++part) {
    NitiProgram *q = niti_program_copy(p);
    assert_non_null(q);
    if (part == 0) q->batch = 3;
    if (part == 1) q->tensors[5].dims[2] += 1;
    if (part == 2) q->operations[q->operation_count - 1].scalar = 1;
    if (part == 3) q->operations[3].rounding.stream += 1;
    if (part == 4) q->layers[2][0] = 'x';
    if (part == 5) q->scalars[0][0] = 'x';
    if (part == 6) --q->operation_count;
    assert_false(niti_program_equal(p, q));
    niti_program_close(q);
  }
  niti_program_close(p);
  niti_program_close(same);
}

static void phases_are_ranges(void **state) {
  static const NitiPhase phases[] = {NITI_PHASE_INPUT,    NITI_PHASE_FORWARD,  NITI_PHASE_FORWARD, NITI_PHASE_LOSS,
                                     NITI_PHASE_BACKWARD, NITI_PHASE_BACKWARD, NITI_PHASE_UPDATE};
  static const int32_t ends[NITI_PHASES + 1] = {0, 1, 3, 4, 6, 6, 7}; /* where each phase begins; there is no reduce */
  NitiProgram *p = NULL;
  (void)state;
  must(niti_program_open(&p, 1));
  for (size_t i = 0; i < sizeof phases / sizeof *phases; ++i) {
    const NitiOperation o = niti_operation(NITI_OP_NONE, phases[i], 0);
    niti_program_add_operation(p, &o);
  }
  for (int from = 0; from < NITI_PHASES; ++from) {
    for (int to = from; to < NITI_PHASES; ++to) {
      int32_t first = -1, end = -1;
      niti_program_phases(p, (NitiPhase)from, (NitiPhase)to, &first, &end);
      assert_int_equal(first, ends[from]);
      assert_int_equal(end, ends[to + 1]);
    }
  }
  niti_program_close(p);
}

static void sizes_and_words(void **state) {
  NitiTensorDesc t = niti_tensor_desc(NITI_ROLE_ACTIVATION, (NitiShape){7, 3, 4, 5});
  static const size_t bytes[NITI_DTYPES] = {1, 1, 2, 4, 8};
  (void)state;
  assert_int_equal(niti_tensor_count(&t, 2), 2 * 3 * 4 * 5);
  t.batched = false;
  assert_int_equal(niti_tensor_count(&t, 2), 7 * 3 * 4 * 5);
  t.rank = 2;
  t.dims[1] = 60;
  t.dims[2] = t.dims[3] = 1;
  const NitiShape matrix = niti_tensor_shape(&t, 2);
  assert_true(matrix.n == 7 && matrix.h == 1 && matrix.w == 1 && matrix.c == 60);
  for (int i = 0; i < NITI_DTYPES; ++i) assert_int_equal(niti_dtype_bytes((NitiDtype)i), bytes[i]);
  assert_string_equal(niti_dtype_name(NITI_DTYPE_S64), "s64");
  assert_string_equal(niti_role_name(NITI_ROLE_METRIC), "metric");
  assert_string_equal(niti_phase_name(NITI_PHASE_UPDATE), "update");
  assert_string_equal(niti_rounding_name(NITI_TRUNCATE), "truncate");
  for (int i = 0; i < NITI_OPCODES; ++i) assert_true(niti_opcodes[i].name && niti_opcodes[i].name[0]);
}

/* ---- bounds ---- */

/* 2^31 - 1 = 133,144 * 127^2 + 3,871. */
static void gradients_widen_at_the_bound(void **state) {
  static const char text[] = "name: t\ninput: [1, 1, 1]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {out: classes}\n";
  (void)state;
  for (int32_t batch = 133144; batch <= 133145; ++batch) {
    const NitiLowerOptions options = {.batch = batch, .training = true};
    NitiProgram *p = program_of(text, &options);
    const int32_t gradient = niti_program_find(p, "linear1.gradient");
    assert_int_equal(p->tensors[gradient].dtype, batch == 133144 ? NITI_DTYPE_S32 : NITI_DTYPE_S64);
    assert_int_equal(niti_program_overflow(p), NITI_NONE); /* in either width it is exact */
    niti_program_close(p);
  }
}

static NitiStatus try_lower(const char *text, int32_t batch) {
  NitiDescription *description = NULL;
  NitiProgram *p = NULL;
  const NitiLowerOptions options = {.batch = batch, .training = true};
  must(niti_description_parse(&description, text, "wide.yaml", NULL));
  const NitiStatus status = niti_lower(&p, description, &options);
  assert_true((p != NULL) == (status == NITI_OK));
  niti_program_close(p);
  niti_description_close(description);
  return status;
}

static void wide_sums_are_refused_with_their_place(void **state) {
  static const char format[] =
      "name: t\ninput: [4, %d, 1]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {out: classes, name: head}\n";
  char text[256];
  (void)state;
  (void)snprintf(text, sizeof text, format, 133144 / 4);
  must(try_lower(text, 1));
  (void)snprintf(text, sizeof text, format, 133144 / 4 + 1);
  assert_int_equal(try_lower(text, 1), NITI_ERROR_MODEL);
  assert_string_equal(niti_error(),
                      "wide.yaml:6:5: head: an accumulation length of 133148 could overflow int32 (expected at most 133144)");
}

static void batches_out_of_range_are_refused(void **state) {
  static const char text[] = "name: t\ninput: [1, 1, 1]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {out: classes}\n";
  (void)state;
  assert_int_equal(try_lower(text, 0), NITI_ERROR_ARGUMENT);
  assert_non_null(strstr(niti_error(), "batch: 0"));
  assert_int_equal(try_lower(text, (1 << 20) + 1), NITI_ERROR_ARGUMENT);
  must(try_lower(text, 1 << 20));
}

/* 2^34 random words index a tensor: 2^20 images of 2^14 values have one each; with 2^14 + 1 values there are too few. */
static void tensors_beyond_random_words_are_refused(void **state) {
  static const char format[] =
      "name: t\ninput: [1, 1, 1]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {out: %d, name: broad}\n"
      "  - linear: {out: classes}\n";
  char text[256];
  (void)state;
  (void)snprintf(text, sizeof text, format, 1 << 14);
  must(try_lower(text, 1 << 20));
  (void)snprintf(text, sizeof text, format, (1 << 14) + 1);
  assert_int_equal(try_lower(text, 1 << 20), NITI_ERROR_MODEL);
  assert_string_equal(niti_error(),
                      "wide.yaml:6:5: broad: 17180917760 values in a batch of 1048576 images (expected at most 2^34)");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_are_unique_and_found),
      cmocka_unit_test(scalars_are_declared_once),
      cmocka_unit_test(programs_grow_and_copy),
      cmocka_unit_test(equality_sees_every_part),
      cmocka_unit_test(phases_are_ranges),
      cmocka_unit_test(sizes_and_words),
      cmocka_unit_test(gradients_widen_at_the_bound),
      cmocka_unit_test(wide_sums_are_refused_with_their_place),
      cmocka_unit_test(batches_out_of_range_are_refused),
      cmocka_unit_test(tensors_beyond_random_words_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
