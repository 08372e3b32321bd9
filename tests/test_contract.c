/* Calls outside the contract of an executable: an assertion stops them in a debug build, a status answers them in a release
 * build, which never aborts. Each runs in a process of its own. */
/* clang-format off */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/contract.h"
#include "kernel_calls.h"
#include "programs.h"

enum { BATCH = 4, SIDE = 6, CLASSES = 3, DIED = 99 };

static const char model[] =
    "name: t\ninput: [6, 6, 1]\nclasses: 3\nlayers:\n  - conv: {out: 2, kernel: 3}\n  - relu\n  - flatten\n"
    "  - linear: {out: classes}\n";

typedef struct Fixture {
  NitiBackend *backend;
  NitiExecutable *executable;
  int32_t count, input, loss, update; /* operations; the first of each kind */
  uint8_t pixels[2 * SIDE * SIDE];
  NitiSample samples[BATCH];
  int32_t labels[BATCH];
} Fixture;

static int32_t first_of(const NitiProgram *p, NitiOpcode opcode) {
  int32_t i = 0;
  while (i < p->operation_count && p->operations[i].opcode != opcode) ++i;
  assert_true(i < p->operation_count);
  return i;
}

static void open_with(Fixture *f, NitiProgram *program, bool plain) {
  const NitiCompileOptions compile_options = {.plain = plain};
  const NitiBackendOptions options = {.name = "cpu", .threads = 1};
  must(niti_backend_open(&f->backend, &options));
  must(niti_backend_compile(&f->executable, f->backend, program, &compile_options));
  f->count = program->operation_count;
  f->input = first_of(program, NITI_OP_INPUT);
  f->loss = first_of(program, NITI_OP_LOSS);
  f->update = first_of(program, NITI_OP_UPDATE_NITI);
  niti_program_close(program);
}

static void open_fixture(Fixture *f) {
  const NitiLowerOptions options = {.batch = BATCH, .training = true};
  *f = (Fixture){.labels = {0, 1, 2, 0}, .samples = {{.image = 0}, {.image = 1}, {.image = 1}, {.image = 0}}};
  open_with(f, program_of(model, &options), false);
}

static void close_fixture(Fixture *f) {
  niti_executable_close(f->executable);
  niti_backend_close(f->backend);
}

static NitiBindings bound(const Fixture *f) {
  return (NitiBindings){.batch = BATCH,
                        .scalars = {4},
                        .pixels = f->pixels,
                        .source = {1, SIDE, SIDE, 1},
                        .samples = f->samples,
                        .labels = f->labels};
}

/* How the run ends in a child process: its status, or DIED where an assertion stops it. */
static int outcome(const Fixture *f, int32_t first, int32_t end, const NitiBindings *bindings) {
  int state = 0;
  (void)fflush(NULL);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    if (!freopen("/dev/null", "w", stderr)) _exit(120);
    _exit((int)niti_executable_run(f->executable, first, end, bindings));
  }
  assert_int_equal(waitpid(child, &state, 0), child);
  if (WIFEXITED(state)) return WEXITSTATUS(state);
  assert_int_equal(WTERMSIG(state), SIGABRT);
  return DIED;
}

static void check_refused(const Fixture *f, int32_t first, int32_t end, const NitiBindings *bindings, const char *says) {
#ifdef NDEBUG
  assert_int_equal(outcome(f, first, end, bindings), NITI_ERROR_ARGUMENT);
  assert_int_equal(niti_executable_run(f->executable, first, end, bindings), NITI_ERROR_ARGUMENT);
  if (!strstr(niti_error(), says)) fail_msg("'%s' is not in: %s", says, niti_error());
#else
  (void)says;
  assert_int_equal(outcome(f, first, end, bindings), DIED);
#endif
}

static void ranges_and_batches(void **state) {
  Fixture f;
  (void)state;
  open_fixture(&f);
  NitiBindings b = bound(&f);
  assert_int_equal(outcome(&f, 0, f.count, &b), NITI_OK);
  check_refused(&f, -1, f.count, &b, "operations -1 .. ");
  check_refused(&f, 0, f.count + 1, &b, "the program has ");
  check_refused(&f, 3, 2, &b, "operations 3 .. 2");
  b.batch = 0;
  check_refused(&f, 0, f.count, &b, "a batch of 0 images (expected 1 to 4)");
  b.batch = BATCH + 1;
  check_refused(&f, 0, f.count, &b, "a batch of 5 images (expected 1 to 4)");
  b.batch = 1;
  assert_int_equal(outcome(&f, 0, f.count, &b), NITI_OK);
  close_fixture(&f);
}

static void bindings(void **state) {
  Fixture f;
  (void)state;
  open_fixture(&f);
  NitiBindings b = bound(&f);
  b.pixels = NULL;
  check_refused(&f, 0, f.count, &b, "pixels is NULL");
  b = bound(&f);
  b.samples = NULL;
  check_refused(&f, 0, f.count, &b, "samples is NULL");
  b = bound(&f);
  b.labels = NULL;
  check_refused(&f, 0, f.count, &b, "labels is NULL");
  b = bound(&f);
  b.source.c = 3;
  check_refused(&f, 0, f.count, &b, "source images of 6x6x3 (expected 1 channels)");
  b = bound(&f);
  b.scalars[0] = 30000001;
  check_refused(&f, 0, f.count, &b, "mu is 30000001 millionths (expected 0 to 30000000)");
  b.scalars[0] = -1;
  check_refused(&f, 0, f.count, &b, "mu is -1 millionths (expected 0 to 30000000)");
  close_fixture(&f);
}

static void labels(void **state) {
  static const int32_t wrong[] = {CLASSES, -1, INT32_MAX, INT32_MIN, CLASSES | 5 << 16, 129 << 16}; /* also of mixed images */
  Fixture f;
  (void)state;
  open_fixture(&f);
  const NitiBindings b = bound(&f);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
    f.labels[2] = wrong[i];
    check_refused(&f, 0, f.count, &b, "labels[2] is ");
  }
  close_fixture(&f);
}

/* Members that no operation of the range reads may have any value. */
static void what_the_range_does_not_read(void **state) {
  Fixture f;
  (void)state;
  open_fixture(&f);
  NitiBindings b = {.batch = 2, .scalars = {31}};
  assert_int_equal(outcome(&f, f.input + 1, f.loss, &b), NITI_OK);
  b.labels = f.labels;
  assert_int_equal(outcome(&f, f.loss, f.update, &b), NITI_OK);
  b = (NitiBindings){.batch = 2, .scalars = {0}};
  assert_int_equal(outcome(&f, f.update, f.count, &b), NITI_OK);
  assert_int_equal(outcome(&f, f.count, f.count, &b), NITI_OK);
  close_fixture(&f);
}

/* Operands that do not fit their operation can only come from a program that was made by hand. */
static void operands_are_checked_in_debug_builds(void **state) {
  (void)state;
#ifdef NDEBUG
  skip();
#else
  static const NitiOpcode opcodes[] = {NITI_OP_CONV_FORWARD, NITI_OP_CONV_BACKWARD, NITI_OP_CONV_GRADIENT, NITI_OP_RELU_FORWARD};
  for (size_t i = 0; i < sizeof opcodes / sizeof *opcodes; ++i) {
    const NitiLowerOptions options = {.batch = BATCH, .training = true};
    NitiProgram *program = program_of(model, &options);
    NitiOperation *o = &program->operations[first_of(program, opcodes[i])];
    program->tensors[o->outputs[0]].dims[1] *= 2;
    Fixture f = {.labels = {0}};
    open_with(&f, program, true);
    const NitiBindings b = bound(&f);
    if (outcome(&f, 0, f.count, &b) != DIED) fail_msg("no assertion stops %s", niti_opcodes[opcodes[i]].name);
    close_fixture(&f);
  }
#endif
}

/* A plain bias is K values; the statistics of a norm, which a centred product takes in its place, 2K. */
static void a_bias_has_one_value_per_channel(void **state) {
  enum { K = 5 };
  const NitiPool pool = {0};
  int8_t data[1] = {0};
  NitiTensor y = {.data = data, .shape = {1, 4, 4, K}}, x[NITI_OPERANDS_MAX] = {{0}};
  (void)state;
  x[0] = (NitiTensor){.data = data, .shape = {1, 6, 6, 2}};
  x[1] = (NitiTensor){.data = data, .shape = {K, 3, 3, 2}};
  for (int centred = 0; centred < 2; ++centred) {
    const NitiConvCall call = {.shape = conv_shape(1, 6, 6, 2, K, 3, 3, 1, 1, 0, 0), .centred = centred};
    x[2] = (NitiTensor){0};
    assert_true(niti_operands_fit(NITI_OP_CONV_FORWARD, &y, x, &call, &pool));
    for (int32_t values = K - 1; values <= 2 * K + 1; ++values) {
      x[2] = (NitiTensor){.data = data, .shape = {1, 1, 1, values}};
      assert_int_equal(niti_operands_fit(NITI_OP_CONV_FORWARD, &y, x, &call, &pool), values == (centred ? 2 * K : K));
    }
  }
}

/* Of all that reads a mask only a convolution's backward knows limits. */
static void a_limited_mask_is_a_product_s(void **state) {
  const NitiPool pool = {.n = 1, .h = 4, .w = 4, .c = 3, .oh = 2, .ow = 2, .kh = 2, .kw = 2, .stride_h = 2, .stride_w = 2};
  const NitiConvCall call = {.shape = conv_shape(1, 4, 4, 3, 3, 1, 1, 1, 1, 0, 0)};
  int8_t data[1] = {0};
  NitiTensor whole = {.data = data, .shape = {1, 4, 4, 3}}, part = {.data = data, .shape = {1, 2, 2, 3}};
  (void)state;
  for (int limit = 0; limit < 2; ++limit) {
    NitiTensor mask = whole, pooled = part;
    mask.limit = pooled.limit = limit;
    const NitiTensor sum[NITI_OPERANDS_MAX] = {whole, whole, mask}, max[NITI_OPERANDS_MAX] = {part, part, pooled};
    const NitiTensor product[NITI_OPERANDS_MAX] = {whole, {.data = data, .shape = {3, 1, 1, 3}}, mask};
    assert_int_equal(niti_operands_fit(NITI_OP_ADD, &whole, sum, &call, &pool), limit == 0);
    assert_int_equal(niti_operands_fit(NITI_OP_MAXPOOL_BACKWARD, &whole, max, &call, &pool), limit == 0);
    assert_true(niti_operands_fit(NITI_OP_CONV_BACKWARD, &whole, product, &call, &pool));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(ranges_and_batches),
                                     cmocka_unit_test(bindings),
                                     cmocka_unit_test(labels),
                                     cmocka_unit_test(what_the_range_does_not_read),
                                     cmocka_unit_test(operands_are_checked_in_debug_builds),
                                     cmocka_unit_test(a_bias_has_one_value_per_channel),
                                     cmocka_unit_test(a_limited_mask_is_a_product_s)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
