/* Executables: fused ones compute what plain ones do, with every instruction set, with updates early, and on a device that keeps
 * tensors in layouts of its own; equal lists compute the same; a preparation that failed can be tried again. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "arena_device.h"
#include "every_layer.h"
#include "kernel_calls.h"
#include "trained.h"

enum { RANDOM_NETWORKS = 16 };

static const char *const isas[] = {"ref", "avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm"};

/* Whole and smaller batches, training and evaluation in turns. */
static Trace trace_of(NitiBackend *backend, const NitiDescription *description, const NitiLowerOptions *options, bool plain) {
  static const struct {
    bool training;
    int less;
  } runs[] = {{true, 0}, {false, 0}, {true, 2}, {true, 0}, {false, 1}, {true, 1}, {true, 2}};
  const uint64_t state = random_state;
  Trace trace = {0};
  Trained t = open_trained(backend, description, options, plain);
  for (size_t i = 0; i < sizeof runs / sizeof *runs; ++i) {
    const int32_t batch = options->batch > runs[i].less ? options->batch - runs[i].less : 1;
    must(try_run(&t, runs[i].training, batch, (uint32_t)i));
    if (!runs[i].training) put_tensor(&trace, t.evaluation, niti_program_logits(niti_executable_program(t.evaluation)), batch);
  }
  for (int32_t i = 0; i < t.program->tensor_count; ++i) {
    const NitiRole role = t.program->tensors[i].role;
    if (role == NITI_ROLE_WEIGHT || role == NITI_ROLE_STATE || role == NITI_ROLE_METRIC) put_tensor(&trace, t.training, i, 0);
  }
  close_trained(&t);
  random_state = state; /* the next trace gets the same */
  return trace;
}

static void check_layouts(const Trace *want, const NitiDescription *description, const NitiLowerOptions *options,
                          const char *text) {
  NitiBackend *backend = open_isa("ref", 1);
  const NitiKernels *real = backend->kernels, kernels = with_layouts(backend);
  backend->kernels = &kernels;
  for (int plain = 0; plain < 2; ++plain)
    check_same(want, trace_of(backend, description, options, plain), "a device with layouts", text);
  updates_early = true;
  check_same(want, trace_of(backend, description, options, false), "a device with layouts, updates early,", text);
  updates_early = false;
  backend->kernels = real;
  niti_backend_close(backend);
}

static void check_network(const char *text, const NitiLowerOptions *options) {
  NitiDescription *description = described(text);
  NitiBackend *reference = open_isa("ref", 1);
  const Trace want = trace_of(reference, description, options, true);
  niti_backend_close(reference);
  check_layouts(&want, description, options, text);
  for (size_t i = 0; i < sizeof isas / sizeof *isas; ++i) {
    NitiBackend *backend = open_isa(isas[i], 2);
    if (!backend) continue;
    check_same(&want, trace_of(backend, description, options, false), isas[i], text);
    check_same(&want, trace_of(backend, description, options, true), isas[i], text);
    updates_early = true;
    check_same(&want, trace_of(backend, description, options, false), isas[i], text);
    updates_early = false;
    niti_backend_close(backend);
  }
  free(want.bytes);
  niti_description_close(description);
}

static void fused_is_plain_in_random_networks(void **state) {
  static RandomNetwork r;
  (void)state;
  random_state = 34;
  for (int i = 0; i < RANDOM_NETWORKS; ++i) {
    const char *text = random_network(&r);
    const NitiLowerOptions options = random_lowering(&r);
    check_network(text, &options);
  }
}

static void fused_is_plain_with_every_layer(void **state) {
  (void)state;
  random_state = 55;
  check_network(every_layer, &(NitiLowerOptions){.batch = 7, .training = true, .round_activation = NITI_STOCHASTIC});
  check_network(every_layer_normed, &(NitiLowerOptions){.batch = 7,
                                                        .training = true,
                                                        .round_delta = NITI_STOCHASTIC_BYTE,
                                                        .loss = NITI_LOSS_SOFTMAX,
                                                        .nesterov = true,
                                                        .optimizer = &niti_optimizer_sgd});
}

/* Reads before each gradient what it sums, operation by operation as niti_measure_train does. */
static Trace operands_of(NitiBackend *backend, const NitiDescription *description, const NitiLowerOptions *options) {
  Trace trace = {0};
  random_state = 233;
  Trained t = open_trained(backend, description, options, false);
  for (int32_t n = 0; n < options->batch; ++n) t.labels[n] = n % 5;
  NitiBindings b = {.batch = options->batch, .pixels = t.pixels, .source = t.source, .samples = t.samples, .labels = t.labels};
  bind_scalars(&b, t.program);
  for (int32_t i = 0; i < t.program->operation_count; ++i) {
    const NitiOperation *o = &t.program->operations[i];
    for (int k = 0; k < 2 && o->opcode == NITI_OP_CONV_GRADIENT; ++k)
      put_tensor(&trace, t.training, o->inputs[k], options->batch - k);
    must(niti_executable_run(t.training, i, i + 1, &b));
  }
  close_trained(&t);
  return trace;
}

static void what_gradients_sum_can_be_read_from_layouts(void **state) {
  const NitiLowerOptions options = {.batch = 5, .training = true};
  NitiDescription *d = described(every_layer);
  NitiBackend *backend = open_isa("ref", 1);
  const NitiKernels *real = backend->kernels, kernels = with_layouts(backend);
  (void)state;
  const Trace want = operands_of(backend, d, &options);
  backend->kernels = &kernels;
  check_same(&want, operands_of(backend, d, &options), "what gradients sum", every_layer);
  backend->kernels = real;
  free(want.bytes);
  niti_backend_close(backend);
  niti_description_close(d);
}

/* The fused executable really leaves operations out, or the tests above compare nothing. */
static void fusing_leaves_operations_out(void **state) {
  const NitiLowerOptions options = {.batch = 2, .training = true};
  NitiProgram *p = program_of(every_layer, &options);
  NitiBackend *backend = open_isa("ref", 1);
  (void)state;
  for (int plain = 0; plain < 2; ++plain) {
    NitiExecutable *e = NULL;
    int fused = 0;
    must(niti_backend_compile(&e, backend, p, &(NitiCompileOptions){.plain = plain}));
    for (int32_t i = 0; i < p->operation_count; ++i) fused += strcmp(niti_executable_kernel(e, i), "fused") == 0;
    assert_true(plain ? fused == 0 : fused > 5);
    niti_executable_close(e);
  }
  niti_backend_close(backend);
  niti_program_close(p);
}

/* Two executables of equal lists on one backend, a step each in turns: neither disturbs the other. */
static void equal_lists_compile_to_equal_results(void **state) {
  NitiDescription *d = described(every_layer);
  NitiBackend *backend = open_isa("auto", 2);
  const NitiLowerOptions options = {.batch = 5, .training = true, .round_delta = NITI_STOCHASTIC};
  Trained both[2];
  Trace traces[2] = {{0}, {0}};
  (void)state;
  for (int i = 0; i < 2; ++i) {
    random_state = 144;
    both[i] = open_trained(backend, d, &options, false);
  }
  for (uint32_t step = 0; step < 3; ++step) {
    for (int i = 0; i < 2; ++i) {
      random_state = step;
      must(try_run(&both[i], true, step == 1 ? 2 : 5, step));
    }
  }
  for (int32_t t = 0; t < both[0].program->tensor_count; ++t) {
    for (int i = 0; i < 2 && both[0].program->tensors[t].role == NITI_ROLE_WEIGHT; ++i)
      put_tensor(&traces[i], both[i].training, t, 0);
  }
  check_same(&traces[0], traces[1], "the second executable", every_layer);
  free(traces[0].bytes);
  for (int i = 0; i < 2; ++i) close_trained(&both[i]);
  niti_backend_close(backend);
  niti_description_close(d);
}

/* ---- what no operation writes ---- */

enum { WRITTEN_IMAGES = 3, WRITTEN_SIDE = 4, WRITTEN_CHANNELS = 2, WRITTEN = 3 /* a delta, an activation and a mask */ };

/* A gradient of the first two, and the sum of both where the third lets it through. */
static NitiProgram *program_of_two(void) {
  const NitiShape shape = {WRITTEN_IMAGES, WRITTEN_SIDE, WRITTEN_SIDE, WRITTEN_CHANNELS};
  NitiTensorDesc sums = niti_tensor_desc(NITI_ROLE_GRADIENT, (NitiShape){WRITTEN_CHANNELS, 1, 1, WRITTEN_CHANNELS});
  NitiProgram *p = NULL;
  sums.dtype = NITI_DTYPE_S32;
  sums.exponents = NITI_EXPONENTS_NONE;
  sums.batched = false;
  must(niti_program_open(&p, shape.n));
  NitiOperation product = niti_operation(NITI_OP_CONV_GRADIENT, NITI_PHASE_BACKWARD, 0);
  NitiOperation sum = niti_operation(NITI_OP_ADD, NITI_PHASE_BACKWARD, 0);
  for (int i = 0; i < WRITTEN; ++i) {
    const NitiTensorDesc t = niti_tensor_desc(i == 0 ? NITI_ROLE_DELTA : NITI_ROLE_ACTIVATION, shape);
    const int32_t tensor = niti_program_add_tensor(p, &t);
    if (i < 2) product.inputs[i] = tensor;
    sum.inputs[i] = tensor;
  }
  const NitiTensorDesc y = niti_tensor_desc(NITI_ROLE_DELTA, shape);
  product.outputs[0] = niti_program_add_tensor(p, &sums);
  sum.outputs[0] = niti_program_add_tensor(p, &y);
  product.conv = conv_shape(shape.n, shape.h, shape.w, shape.c, shape.c, 1, 1, 1, 1, 0, 0);
  niti_program_add_operation(p, &product);
  niti_program_add_operation(p, &sum);
  must(niti_program_check(p));
  return p;
}

static Trace results_of_written(NitiBackend *backend) {
  int8_t values[WRITTEN_IMAGES * WRITTEN_SIDE * WRITTEN_SIDE * WRITTEN_CHANNELS];
  const int32_t exponent = -7;
  NitiProgram *p = program_of_two();
  NitiExecutable *e = NULL;
  Trace trace = {0};
  random_state = 377;
  must(niti_backend_compile(&e, backend, p, &(NitiCompileOptions){.plain = true}));
  for (int32_t t = 0; t < WRITTEN; ++t) {
    for (size_t i = 0; i < sizeof values; ++i) values[i] = (int8_t)random_in(-127, 127);
    must(niti_executable_write(e, t, WRITTEN_IMAGES, values, &exponent));
  }
  must(niti_executable_run(e, 0, p->operation_count, &(NitiBindings){.batch = WRITTEN_IMAGES}));
  for (int32_t t = WRITTEN; t < p->tensor_count; ++t) put_tensor(&trace, e, t, WRITTEN_IMAGES);
  niti_executable_close(e);
  niti_program_close(p);
  return trace;
}

/* In a plain program the caller may write any tensor, and a device has the layouts that operations read of it. */
static void what_no_operation_writes_has_layouts_too(void **state) {
  NitiBackend *backend = open_isa("ref", 1);
  const NitiKernels *real = backend->kernels, kernels = with_layouts(backend);
  (void)state;
  const Trace want = results_of_written(backend);
  backend->kernels = &kernels;
  check_same(&want, results_of_written(backend), "what no operation writes", "a gradient and a sum");
  backend->kernels = real;
  free(want.bytes);
  niti_backend_close(backend);
}

/* ---- a preparation that fails ---- */

static const NitiKernels *real_kernels;
static int failures_from = -1, prepared_so_far;

static NitiStatus failing_prepare(NitiBackend *backend, NitiConvCall *call) {
  if (failures_from >= 0 && prepared_so_far++ >= failures_from) return niti_fail(NITI_ERROR_MEMORY, "no room for a test's plan");
  return real_kernels->conv_prepare(backend, call);
}

/* A smaller batch is prepared when it first comes; if that fails, whole batches still work, and so does the smaller one once
 * there is memory. */
static void a_failed_preparation_can_be_tried_again(void **state) {
  NitiDescription *d = described(every_layer);
  NitiBackend *backend = open_isa("ref", 1);
  const NitiLowerOptions options = {.batch = 4, .training = true};
  (void)state;
  real_kernels = backend->kernels;
  NitiKernels kernels = *real_kernels;
  kernels.conv_prepare = failing_prepare;
  backend->kernels = &kernels;
  Trace traces[2] = {{0}, {0}};
  for (int i = 0; i < 2; ++i) {
    random_state = 233;
    Trained t = open_trained(backend, d, &options, false);
    must(try_run(&t, true, 4, 0));
    const uint64_t between = random_state;
    for (failures_from = 0; i == 1 && failures_from < 12; failures_from += 3) {
      prepared_so_far = 0;
      assert_int_equal(try_run(&t, true, 3, 1), NITI_ERROR_MEMORY);
    }
    failures_from = -1;
    random_state = between;
    must(try_run(&t, true, 4, 1));
    must(try_run(&t, true, 3, 2));
    for (int32_t w = 0; w < t.program->tensor_count; ++w) {
      if (t.program->tensors[w].role == NITI_ROLE_WEIGHT) put_tensor(&traces[i], t.training, w, 0);
    }
    close_trained(&t);
  }
  check_same(&traces[0], traces[1], "training after a failure", every_layer);
  free(traces[0].bytes);
  backend->kernels = real_kernels;
  niti_backend_close(backend);
  niti_description_close(d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(fused_is_plain_in_random_networks),           cmocka_unit_test(fused_is_plain_with_every_layer),
      cmocka_unit_test(what_gradients_sum_can_be_read_from_layouts), cmocka_unit_test(fusing_leaves_operations_out),
      cmocka_unit_test(equal_lists_compile_to_equal_results),        cmocka_unit_test(a_failed_preparation_can_be_tried_again),
      cmocka_unit_test(what_no_operation_writes_has_layouts_too),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
