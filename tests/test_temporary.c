/* What an executable has in its arena for a while beside tensors: packed weights are up to date whatever writes weights, those of
 * backward wait where they are large, and what is packed is what the convolution would have read. */
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
#include "kernel_calls.h"
#include "trained.h"

static const char packing[] = /* with channels of every kind that packed_bytes tells apart */
    "name: t\ninput: [6, 6, 3]\nclasses: 5\nlayers: [{conv: {out: 9, kernel: 3, padding: 1}}, relu, {conv: {out: 8, kernel: 3}}, "
    "relu, {conv: {out: 7, kernel: 1}}, relu, {conv: {out: 9, kernel: 2}}, flatten, {linear: {out: classes}}]\n";

/* Other weights, from outside. */
static void write_weights(Trained *t, NitiExecutable *e) {
  const NitiProgram *p = niti_executable_program(e);
  for (int32_t i = 0; i < p->tensor_count; ++i) {
    int8_t values[1024];
    if (p->tensors[i].role != NITI_ROLE_WEIGHT || p->tensors[i].dtype != NITI_DTYPE_S8) continue;
    const size_t count = niti_tensor_count(&p->tensors[i], 0);
    assert_true(count <= sizeof values);
    for (size_t k = 0; k < count; ++k) values[k] = (int8_t)random_in(-127, 127);
    must(niti_executable_write(e, i, 0, values, NULL));
    fill_master(t, i, values, 0);
  }
}

/* A step as the same images all the time, some of its operations or all, in ranges of so many, each repeated. */
static void run_parts(Trained *t, int32_t batch, int32_t end, int32_t length, int32_t repeat) {
  const int32_t count = t->program->operation_count;
  NitiBindings b = {
      .batch = batch, .pixels = t->pixels, .source = t->source, .samples = t->samples, .labels = t->labels, .repeat = repeat};
  bind_scalars(&b, t->program);
  for (int32_t i = 0; i < (end < count ? end : count); i += length)
    must(niti_executable_run(t->training, i, i + length < count ? i + length : count, &b));
}

/* Whoever writes weights: updates, the caller through either executable; whatever runs in between: a smaller batch, an evaluation
 * in the same memory, a part of the step, a step again and again. */
static Trace trace_of_writers(NitiBackend *backend, const NitiDescription *d, const NitiLowerOptions *options) {
  Trace trace = {0};
  random_state = 377;
  Trained t = open_trained(backend, d, options, false);
  const NitiProgram *evaluation = niti_executable_program(t.evaluation);
  const int32_t all = t.program->operation_count, logits = niti_program_logits(evaluation);
  for (int32_t round = 0; round < 12; ++round) {
    const int32_t batch = options->batch - round % 3;
    must(try_run(&t, true, batch, (uint32_t)round));
    if (round % 4 == 1) write_weights(&t, round % 8 == 1 ? t.training : t.evaluation);
    must(try_run(&t, false, batch, (uint32_t)round));
    put_tensor(&trace, t.evaluation, logits, batch);
    if (round % 4 == 2) write_weights(&t, t.evaluation);
    run_parts(&t, batch, all, round % 2 ? 1 : 5, 1); /* operation by operation, or by parts */
    run_parts(&t, batch, all, all, 3);
    run_parts(&t, batch, all / 2, 7, 2);
  }
  for (int32_t i = 0; i < t.program->tensor_count; ++i) {
    if (t.program->tensors[i].role == NITI_ROLE_WEIGHT || t.program->tensors[i].role == NITI_ROLE_METRIC)
      put_tensor(&trace, t.training, i, 0);
  }
  close_trained(&t);
  return trace;
}

static void packed_weights_are_never_stale(void **state) {
  static const NitiOptimizer *const optimizers[] = {&niti_optimizer_niti, &niti_optimizer_niti16};
  NitiDescription *d = described(packing);
  NitiBackend *backend = open_isa("ref", 1);
  const NitiKernels *real = backend->kernels, kernels = with_layouts(backend);
  (void)state;
  for (int i = 0; i < 8; ++i) {
    const NitiLowerOptions options = {.batch = 6, .training = true, .optimizer = optimizers[i % 2]};
    updates_early = i & 2;
    packed_more = i < 4 ? 0 : 3 << 19;
    const Trace want = trace_of_writers(backend, d, &options);
    packed_calls = unpacked_calls = 0;
    backend->kernels = &kernels;
    check_same(&want, trace_of_writers(backend, d, &options), "a device with packed weights", packing);
    backend->kernels = real;
    if (packed_calls < 300 || unpacked_calls < 50)
      fail_msg("%d calls with packed weights, %d without", packed_calls, unpacked_calls);
    free(want.bytes);
  }
  updates_early = false;
  packed_more = 0;
  niti_backend_close(backend);
  niti_description_close(d);
}

/* Little is packed at once; much of backward's when it is wanted, or some later still, in less memory than all of it takes. */
static void weights_of_backward_wait_where_they_are_large(void **state) {
  const NitiLowerOptions options = {.batch = 6, .training = true};
  NitiDescription *d = described(packing);
  NitiBackend *backend = open_isa("ref", 1);
  const NitiKernels *real = backend->kernels, kernels = with_layouts(backend);
  size_t bytes[2];
  (void)state;
  backend->kernels = &kernels;
  for (int large = 0; large < 2; ++large) {
    packed_more = large ? 3 << 19 : 0;
    Trained t = open_trained(backend, d, &options, false);
    pack_calls = 0;
    must(try_run(&t, true, options.batch, 0));
    assert_int_equal(pack_calls, large ? 3 : 1);
    bytes[large] = niti_executable_bytes(t.training);
    pack_calls = 0;
    must(try_run(&t, false, options.batch, 0));
    assert_int_equal(pack_calls, 1);
    close_trained(&t);
  }
  assert_in_range(bytes[1] - bytes[0], 1 << 20, 2 * packed_more); /* of three */
  packed_more = 0;
  backend->kernels = real;
  niti_backend_close(backend);
  niti_description_close(d);
}

/* Where an operation writes what a convolution reads as its weights, they are read as they are by then. */
static void weights_that_the_range_writes_are_not_packed(void **state) {
  enum { C = 4 };
  const NitiShape shape = {2, 3, 3, C}, weights = {C, 1, 1, C};
  NitiBackend *backend = open_isa("ref", 1);
  const NitiKernels *real = backend->kernels, kernels = with_layouts(backend);
  int8_t x[2 * 9 * C], w[C * C], y[2][2 * 9 * C];
  const int32_t exponent = -4;
  NitiOperation relu = niti_operation(NITI_OP_RELU_FORWARD, NITI_PHASE_FORWARD, 0);
  NitiOperation product = niti_operation(NITI_OP_CONV_FORWARD, NITI_PHASE_FORWARD, 0);
  NitiProgram *p = NULL;
  (void)state;
  must(niti_program_open(&p, shape.n));
  NitiTensorDesc t = niti_tensor_desc(NITI_ROLE_ACTIVATION, weights);
  t.batched = false;
  relu.inputs[0] = niti_program_add_tensor(p, &t);
  relu.outputs[0] = product.inputs[1] = niti_program_add_tensor(p, &t);
  t = niti_tensor_desc(NITI_ROLE_ACTIVATION, shape);
  product.inputs[0] = niti_program_add_tensor(p, &t);
  product.outputs[0] = niti_program_add_tensor(p, &t);
  product.conv = conv_shape(shape.n, 3, 3, C, C, 1, 1, 1, 1, 0, 0);
  niti_program_add_operation(p, &relu);
  niti_program_add_operation(p, &product);
  for (size_t i = 0; i < sizeof x; ++i) x[i] = (int8_t)random_in(-127, 127);
  for (size_t i = 0; i < sizeof w; ++i) w[i] = (int8_t)random_in(-127, 127);
  for (int device = 0; device < 2; ++device) {
    NitiExecutable *e = NULL;
    backend->kernels = device ? &kernels : real;
    must(niti_backend_compile(&e, backend, p, &(NitiCompileOptions){.plain = true}));
    must(niti_executable_write(e, relu.inputs[0], 0, w, &exponent));
    must(niti_executable_write(e, product.inputs[0], shape.n, x, &exponent));
    must(niti_executable_run(e, 0, 2, &(NitiBindings){.batch = shape.n}));
    must(niti_executable_read(e, product.outputs[0], shape.n, y[device], NULL));
    niti_executable_close(e);
  }
  assert_memory_equal(y[0], y[1], sizeof y[0]);
  backend->kernels = real;
  niti_program_close(p);
  niti_backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(packed_weights_are_never_stale),
                                     cmocka_unit_test(weights_of_backward_wait_where_they_are_large),
                                     cmocka_unit_test(weights_that_the_range_writes_are_not_packed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
