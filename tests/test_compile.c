/* Compiling: what a device lacks is refused by name; sizes are known beforehand. */
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
#include "programs.h"

/* Devices that each lack one of the opcodes that this model has. */
static void a_missing_opcode_is_refused_by_name(void **state) {
  static const char text[] =
      "name: t\ninput: [8, 8, 1]\nclasses: 2\nlayers:\n  - conv: {out: 2, kernel: 1, name: stem}\n  - relu: {name: bend}\n"
      "  - residual: {body: [{dropout: {name: drop}}], name: sum}\n  - maxpool: {kernel: 2, name: crest}\n"
      "  - avgpool: {kernel: 2, name: mean}\n  - flatten\n  - linear: {out: classes, name: head}\n";
#define LACKING(member, says) \
  { offsetof(NitiKernels, member), says }
  static const struct {
    size_t kernel;
    const char *says;
  } cases[] = {LACKING(input, "network: the cpu backend has no operation input"),
               LACKING(conv_forward, "stem: the cpu backend has no operation conv_forward"),
               LACKING(conv_backward, "head: the cpu backend has no operation conv_backward"),
               LACKING(conv_gradient, "head: the cpu backend has no operation conv_gradient"),
               LACKING(relu_forward, "bend: the cpu backend has no operation relu_forward"),
               LACKING(relu_backward, "bend: the cpu backend has no operation relu_backward"),
               LACKING(maxpool_forward, "crest: the cpu backend has no operation maxpool_forward"),
               LACKING(maxpool_backward, "crest: the cpu backend has no operation maxpool_backward"),
               LACKING(avgpool_forward, "mean: the cpu backend has no operation avgpool_forward"),
               LACKING(avgpool_backward, "mean: the cpu backend has no operation avgpool_backward"),
               LACKING(add, "sum: the cpu backend has no operation add"),
               LACKING(dropout, "drop: the cpu backend has no operation dropout"),
               LACKING(loss, "network: the cpu backend has no operation loss"),
               LACKING(update_niti, "stem: the cpu backend has no operation update_niti")};
#undef LACKING
  const NitiLowerOptions options = {.batch = 2, .training = true};
  NitiProgram *p = program_of(text, &options);
  NitiBackend *backend = open_isa("ref", 1);
  const NitiKernels *const whole = backend->kernels;
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    NitiKernels lacking = *whole;
    NitiExecutable *e = NULL;
    size_t bytes = 1;
    memset((char *)&lacking + cases[i].kernel, 0, sizeof lacking.input);
    backend->kernels = &lacking;
    assert_int_equal(niti_backend_compile(&e, backend, p, NULL), NITI_ERROR_UNSUPPORTED);
    assert_null(e);
    if (!strstr(niti_error(), cases[i].says)) fail_msg("'%s' is not in: %s", cases[i].says, niti_error());
    assert_int_equal(niti_backend_estimate(&bytes, backend, p, NULL), NITI_ERROR_UNSUPPORTED);
    backend->kernels = whole;
  }
  p->operations[1].opcode = NITI_OPCODES; /* a number from some later version */
  NitiExecutable *e = NULL;
  assert_int_equal(niti_backend_compile(&e, backend, p, NULL), NITI_ERROR_UNSUPPORTED);
  niti_backend_close(backend);
  niti_program_close(p);
}

/* A program can have tensors that no kernel reads or writes yet. */
static void a_foreign_operand_is_refused_by_name(void **state) {
  static const char text[] =
      "name: t\ninput: [8, 8, 1]\nclasses: 2\nlayers:\n  - conv: {out: 2, kernel: 1, name: stem}\n  - relu: {name: bend}\n"
      "  - maxpool: {kernel: 2, name: crest}\n  - flatten\n  - linear: {out: classes, name: head}\n";
  static const struct {
    const char *tensor;
    NitiDtype dtype;
    NitiExponents exponents;
    const char *says;
  } cases[] = {
      {"stem.weight", NITI_DTYPE_S8, NITI_EXPONENTS_PER_CHANNEL,
       "stem: the cpu backend has no operation conv_forward on stem.weight, s8 with one exponent per channel"},
      {"head.weight", NITI_DTYPE_S16, NITI_EXPONENTS_ONE,
       "head: the cpu backend has no operation conv_forward on head.weight, s16"},
      {"bend.out", NITI_DTYPE_U8, NITI_EXPONENTS_ONE, "bend: the cpu backend has no operation relu_forward on bend.out, u8"},
      {"stem.delta", NITI_DTYPE_S32, NITI_EXPONENTS_ONE,
       "bend: the cpu backend has no operation relu_backward on stem.delta, s32"},
      {"crest.winner", NITI_DTYPE_S8, NITI_EXPONENTS_NONE,
       "crest: the cpu backend has no operation maxpool_forward on crest.winner, s8"},
      {"head.gradient", NITI_DTYPE_S16, NITI_EXPONENTS_NONE,
       "head: the cpu backend has no operation conv_gradient on head.gradient, s16"},
      {"metrics", NITI_DTYPE_S32, NITI_EXPONENTS_NONE, "network: the cpu backend has no operation loss on metrics, s32"},
      {"pixels", NITI_DTYPE_S16, NITI_EXPONENTS_NONE, "network: the cpu backend has no operation input on pixels, s16"},
  };
  const NitiLowerOptions options = {.batch = 2, .training = true};
  NitiBackend *backend = open_isa("ref", 1);
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    NitiProgram *p = program_of(text, &options);
    NitiExecutable *e = NULL;
    const int32_t t = niti_program_find(p, cases[i].tensor);
    assert_int_not_equal(t, NITI_NONE);
    p->tensors[t].dtype = cases[i].dtype;
    p->tensors[t].exponents = cases[i].exponents;
    if (niti_backend_compile(&e, backend, p, NULL) != NITI_ERROR_UNSUPPORTED) fail_msg("not refused: %s", cases[i].says);
    assert_null(e);
    if (strcmp(niti_error(), cases[i].says) != 0) fail_msg("expected '%s', got: %s", cases[i].says, niti_error());
    niti_program_close(p);
  }
  niti_backend_close(backend);
}

/* A CPU that counts what is asked of it. */
static size_t allocated, reserved;
static const NitiBackendOps *real_ops;
static const NitiKernels *real_kernels;

static NitiStatus counting_alloc(NitiBackend *backend, void **out, size_t bytes) {
  allocated += bytes;
  return real_ops->alloc(backend, out, bytes);
}

static NitiStatus counting_reserve(NitiBackend *backend, size_t bytes) {
  reserved = bytes;
  return real_kernels->reserve(backend, bytes);
}

static void check_bytes(NitiBackend *backend, const NitiProgram *p, const NitiCompileOptions *options, NitiExecutable **e) {
  size_t bytes = 0;
  allocated = reserved = 0;
  must(niti_backend_estimate(&bytes, backend, p, options));
  assert_int_equal(allocated + reserved, 0); /* nothing was allocated for it */
  must(niti_backend_compile(e, backend, p, options));
  assert_int_equal(niti_executable_bytes(*e), bytes);
  assert_int_equal(allocated + reserved, bytes);
}

static void an_estimate_is_what_compiling_allocates(void **state) {
  static RandomNetwork r;
  NitiBackend *backend = open_isa("auto", 1);
  real_ops = backend->ops;
  real_kernels = backend->kernels;
  NitiBackendOps ops = *real_ops;
  NitiKernels kernels = *real_kernels;
  ops.alloc = counting_alloc;
  kernels.reserve = counting_reserve;
  kernels.conv_packed_bytes = packed_bytes;
  kernels.conv_pack = pack_weights;
  backend->ops = &ops;
  backend->kernels = &kernels;
  (void)state;
  random_state = 89;
  for (int i = 0; i < 20; ++i) {
    const char *text = random_network(&r);
    NitiDescription *d = described(i == 0 ? every_layer : text);
    NitiLowerOptions options = random_lowering(&r);
    NitiExecutable *training = NULL, *evaluation = NULL, *alone = NULL;
    NitiProgram *p = lowered(d, &options);
    options.training = false;
    NitiProgram *q = lowered(d, &options);
    check_bytes(backend, p, NULL, &training);
    check_bytes(backend, q, &(NitiCompileOptions){.shared = training}, &evaluation);
    check_bytes(backend, p, &(NitiCompileOptions){.plain = true}, &alone);
    assert_true(niti_executable_bytes(alone) >= niti_executable_bytes(training));
    niti_executable_close(alone);
    niti_executable_close(evaluation);
    niti_executable_close(training);
    niti_program_close(p);
    niti_program_close(q);
    niti_description_close(d);
  }
  backend->ops = real_ops;
  backend->kernels = real_kernels;
  niti_backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_missing_opcode_is_refused_by_name),
                                     cmocka_unit_test(a_foreign_operand_is_refused_by_name),
                                     cmocka_unit_test(an_estimate_is_what_compiling_allocates)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
