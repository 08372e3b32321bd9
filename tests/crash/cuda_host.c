/* The host's side of the CUDA backend, on a pretended device (cuda_pretended.h): what kernels are given lies in memory, failures
 * end in a status, a workspace outlives an allocation that failed, and how many kernels and bytes a step takes. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cuda/cuda.h"
#include "backend/executable.h"
#include "cuda_pretended.h"
#include "kernel_calls.h"
#include "model/network.h"
#include "programs.h"

/* ---- the table ---- */

static int attributes_left = -1; /* until one cannot be read; -1: all can */

static cudaError_t call_cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int device) {
  if (attributes_left >= 0 && attributes_left-- == 0) return cudaErrorUnknown;
  return pretended_cudaDeviceGetAttribute(value, which, device);
}
#define pretended_cudaDeviceGetAttribute call_cudaDeviceGetAttribute

#define ENTRY(result, name, parameters, arguments) .name = pretended_##name,
const NitiCudaRuntime niti_cuda_runtime = {NITI_CUDA_CALLS(ENTRY)};

static NitiBackend *open_cuda(const char *isa) {
  NitiBackend *backend = NULL;
  const NitiBackendOptions options = {.name = "cuda", .isa = isa};
  pretended_fault[0] = 0;
  must(niti_backend_open(&backend, &options));
  return backend;
}

static void close_sound(NitiBackend *backend) {
  must(backend->ops->synchronise(backend));
  niti_backend_close(backend);
  if (pretended_fault[0]) fail_msg("%s", pretended_fault);
}

/* ---- opening ---- */

static void an_attribute_that_cannot_be_read_is_an_error(void **state) {
  static const char *const what[] = {"compute capability", "compute capability", "number of multiprocessors"};
  const NitiBackendOptions options = {.name = "cuda"};
  (void)state;
  for (int i = 0; i < 3; ++i) {
    NitiBackend *backend = NULL;
    char says[128];
    attributes_left = i;
    assert_int_equal(niti_backend_open(&backend, &options), NITI_ERROR_DEVICE);
    snprintf(says, sizeof says, "cuda:0: reading its %s failed: unknown error (cudaErrorUnknown)", what[i]);
    assert_string_equal(niti_error(), says);
    assert_null(backend);
  }
  attributes_left = -1;
  niti_backend_close(open_cuda(NULL));
}

/* ---- memory ---- */

/* A gradient alone, of operands that the caller writes. */
static void operands_from_outside_lie_in_memory(void **state) {
  enum { N = 256, SIDE = 16, C = 128 }; /* large enough for wgmma */
  static int8_t values[N * SIDE * SIDE * C];
  NitiBackend *backend = open_cuda("wgmma");
  NitiTensorDesc sums = niti_tensor_desc(NITI_ROLE_GRADIENT, (NitiShape){C, 3, 3, C});
  const NitiShape shape = {N, SIDE, SIDE, C};
  NitiOperation product = niti_operation(NITI_OP_CONV_GRADIENT, NITI_PHASE_BACKWARD, 0);
  NitiProgram *p = NULL;
  NitiExecutable *e = NULL;
  (void)state;
  sums.dtype = NITI_DTYPE_S32;
  sums.exponents = NITI_EXPONENTS_NONE;
  sums.batched = false;
  must(niti_program_open(&p, N));
  for (int k = 0; k < 2; ++k) {
    const NitiTensorDesc t = niti_tensor_desc(k ? NITI_ROLE_ACTIVATION : NITI_ROLE_DELTA, shape);
    product.inputs[k] = niti_program_add_tensor(p, &t);
  }
  product.outputs[0] = niti_program_add_tensor(p, &sums);
  product.conv = conv3x3_shape(N, SIDE, SIDE, C, C, 1, 1);
  niti_program_add_operation(p, &product);
  must(niti_backend_compile(&e, backend, p, &(NitiCompileOptions){.plain = true}));
  const long maps = pretended_maps;
  for (int k = 0; k < 2; ++k) must(niti_executable_write(e, product.inputs[k], N, values, NULL));
  must(niti_executable_run(e, 0, 1, &(NitiBindings){.batch = N}));
  assert_int_equal(pretended_maps - maps, 2);
  niti_executable_close(e);
  niti_program_close(p);
  close_sound(backend);
}

/* What was compiled before more memory was asked for than there is has its workspace still. */
static void a_workspace_outlives_a_failure(void **state) {
  enum { BYTES = 1 << 20 };
  NitiBackend *backend = open_cuda(NULL);
  (void)state;
  must(backend->kernels->reserve(backend, BYTES));
  pretended_most = BYTES;
  assert_int_equal(backend->kernels->reserve(backend, BYTES + 1), NITI_ERROR_MEMORY);
  pretended_most = SIZE_MAX;
  const NitiCuda *cuda = niti_cuda_const(backend);
  assert_true(cuda->workspace_bytes == BYTES && pretended_holds(cuda->workspace, BYTES));
  must(backend->ops->synchronise(backend));
  close_sound(backend);
}

/* A smaller batch may run in another way than the one that the tuning file has for the whole one: all must find the mask. */
static void every_way_reads_a_mask_alike(void **state) {
  const NitiOperation operation = niti_operation(NITI_OP_CONV_BACKWARD, NITI_PHASE_BACKWARD, 1);
  const NitiConv shape = conv3x3_shape(48, 8, 8, 64, 128, 1, 1);
  const NitiShape mask = {shape.n, shape.h, shape.w, shape.c};
  (void)state;
  for (int family = 0; family < 2; ++family) {
    NitiBackend *backend = open_cuda(family ? "wgmma" : "mma");
    NitiConvCall call = {.shape = shape, .direction = NITI_BACKWARD};
    NitiWay ways[NITI_WAYS_MAX];
    const int count = backend->kernels->conv_ways(backend, &call, ways);
    assert_true(count > 3);
    for (int i = 0; i < count; ++i) {
      call.way = ways[i].number;
      assert_int_equal(backend->kernels->mask_uses(backend, &operation, mask, &call), family ? NITI_USE_MASK : NITI_USE_OTHER);
    }
    close_sound(backend);
  }
}

/* ---- networks ---- */

static const char network[] =
    "name: t\ninput: [16, 16, 3]\nclasses: 10\nlayers: [{conv: {out: 64, kernel: 3, padding: 1, bias: false}}, norm, relu, "
    "{residual: {body: [{conv: {out: 64, kernel: 3, padding: 1}}, relu, {conv: {out: 64, kernel: 3, padding: 1}}]}}, relu, "
    "{maxpool: {kernel: 2}}, {conv: {out: 128, kernel: 3, padding: 1, stride: 2}}, relu, {avgpool: {kernel: 4}}, flatten, "
    "{linear: {out: 128}}, relu, {dropout: {}}, {linear: {out: classes}}]\n";

static void run_step(NitiExecutable *e, NitiBindings *b, bool apart) {
  const int32_t count = niti_executable_program(e)->operation_count;
  for (int32_t i = 0; i < count; i += apart ? 1 : count) must(niti_executable_run(e, i, apart ? i + 1 : count, b));
}

/* Whole steps, and operation by operation, often enough to be recorded; batches of all sizes. */
static void operands_of_networks_lie_in_memory(void **state) {
  enum { BATCH = 48 };
  static NitiSample samples[BATCH];
  static int32_t labels[BATCH];
  const NitiLowerOptions options = {.batch = BATCH, .training = true, .optimizer = &niti_optimizer_sgd};
  (void)state;
  for (int plain = 0; plain < 2; ++plain) {
    NitiBackend *backend = open_cuda("wgmma");
    NitiProgram *p = program_of(network, &options);
    NitiExecutable *e = NULL;
    void *pixels = NULL;
    must(niti_backend_compile(&e, backend, p, &(NitiCompileOptions){.plain = plain}));
    must(backend->ops->alloc(backend, &pixels, (size_t)BATCH * 16 * 16 * 3));
    NitiBindings b = {.pixels = pixels, .source = {1, 16, 16, 3}, .samples = samples, .labels = labels};
    for (int i = 0; i < NITI_SCALARS_MAX; ++i) b.scalars[i] = 1;
    for (int run = 0; run < 12; ++run) {
      b.batch = run % 4 == 3 ? 17 : BATCH;
      b.repeat = run % 3;
      run_step(e, &b, run % 2 != 0);
    }
    assert_true(pretended_maps > 0);
    backend->ops->release(backend, pixels);
    niti_executable_close(e);
    niti_program_close(p);
    close_sound(backend);
  }
}

/* Kernels of a training step, and convolutions by wgmma among its operations, forward and backward. */
static long launches_of(NitiBackend *backend, const NitiProgram *p, long *by_wgmma) {
  enum { BATCH = 256 };
  static NitiSample samples[BATCH];
  static int32_t labels[BATCH];
  NitiExecutable *e = NULL;
  void *pixels = NULL;
  const NitiShape source = niti_tensor_shape(&p->tensors[p->operations[0].outputs[0]], 1);
  must(niti_backend_compile(&e, backend, p, NULL));
  must(backend->ops->alloc(backend, &pixels, BATCH * niti_shape_count(source)));
  NitiBindings b = {.batch = p->batch, .pixels = pixels, .source = source, .samples = samples, .labels = labels};
  for (int i = 0; i < NITI_SCALARS_MAX; ++i) b.scalars[i] = 1;
  const long before = pretended_launches;
  must(niti_executable_run(e, 0, p->operation_count, &b));
  const long launches = pretended_launches - before;
  *by_wgmma = 0;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const bool product = p->operations[i].opcode == NITI_OP_CONV_FORWARD || p->operations[i].opcode == NITI_OP_CONV_BACKWARD;
    *by_wgmma += product && strcmp(niti_executable_kernel(e, i), "wgmma") == 0;
  }
  backend->ops->release(backend, pixels);
  niti_executable_close(e);
  return launches;
}

static long step_launches(NitiBackend *backend) {
  NitiDescription *d = NULL;
  long by_wgmma = 0;
  must(niti_description_load(&d, "resnet18", NULL));
  NitiProgram *p = lowered(d, &(NitiLowerOptions){.batch = 256, .training = true, .optimizer = &niti_optimizer_sgd});
  const long launches = launches_of(backend, p, &by_wgmma);
  niti_program_close(p);
  niti_description_close(d);
  return launches;
}

/* An operation whose blocks may wait for each other is one launch instead of two: of the first backend alone, until that is
 * closed, and not where the environment says so. */
static void only_who_may_wait_meets(void **state) {
  (void)state;
  NitiBackend *first = open_cuda("wgmma"), *second = open_cuda("wgmma"), *other;
  const long waits = step_launches(first), apart = step_launches(second);
  assert_in_range(apart - waits, 20, apart);
  close_sound(second);
  second = open_cuda("wgmma");
  assert_int_equal(step_launches(second), apart); /* the second's end has not freed the first's place */
  close_sound(first);
  other = open_cuda("wgmma");
  assert_int_equal(step_launches(other), waits);
  close_sound(other);
  close_sound(second);
  assert_int_equal(setenv("NITI_CUDA_MEETINGS", "off", 1), 0);
  other = open_cuda("wgmma");
  assert_int_equal(step_launches(other), apart);
  close_sound(other);
  assert_int_equal(setenv("NITI_CUDA_MEETINGS", "of", 1), 0);
  assert_int_equal(niti_backend_open(&other, &(NitiBackendOptions){.name = "cuda"}), NITI_ERROR_ARGUMENT);
  assert_string_equal(niti_error(), "NITI_CUDA_MEETINGS is 'of' (expected on or off)");
  assert_int_equal(unsetenv("NITI_CUDA_MEETINGS"), 0);
}

/* No more than an H200 of 132 multiprocessors allocated (docs/benchmarks.md, "Memory of training"): less than half of what
 * PyTorch takes. */
static void resnet18_takes_no_more_memory(void **state) {
  NitiBackend *backend = open_cuda("wgmma");
  NitiDescription *d = NULL;
  NitiNetwork *net = NULL;
  (void)state;
  must(niti_description_load(&d, "resnet18", NULL));
  must(niti_network_open(&net, d, backend,
                         &(NitiLowerOptions){.batch = 128,
                                             .training = true,
                                             .round_delta = NITI_STOCHASTIC_BYTE,
                                             .loss = NITI_LOSS_SOFTMAX,
                                             .optimizer = &niti_optimizer_sgd}));
  print_message("%zu bytes\n", net->memory_bytes);
  assert_in_range(net->memory_bytes, 1, 249920000);
  niti_network_close(net);
  niti_description_close(d);
  close_sound(backend);
}

/* One launch, or one for each so many that a launch takes, and two more where backward's come later, pack what each convolution
 * would pack by itself. */
static void a_step_packs_its_weights_at_once(void **state) {
  static const char *const models[] = {"lenet5", "vgg-small-7", "vgg16", "resnet18", "resnet34"};
  (void)state;
  for (size_t i = 0; i < sizeof models / sizeof *models; ++i) {
    NitiBackend *backend = open_cuda("wgmma");
    const NitiKernels *real = backend->kernels;
    NitiKernels alone = *real;
    NitiDescription *d = NULL;
    long by_wgmma = 0;
    must(niti_description_load(&d, models[i], NULL));
    NitiProgram *p = lowered(d, &(NitiLowerOptions){.batch = 256, .training = true, .optimizer = &niti_optimizer_sgd});
    const long together = launches_of(backend, p, &by_wgmma);
    alone.conv_packed_bytes = NULL;
    backend->kernels = &alone;
    const long apart = launches_of(backend, p, &by_wgmma);
    backend->kernels = real;
    print_message("%s: %ld launches, %ld if each convolution packs, %ld by wgmma\n", models[i], together, apart, by_wgmma);
    assert_in_range(apart - together, by_wgmma > 3 ? by_wgmma - 3 : 1, apart);
    niti_program_close(p);
    niti_description_close(d);
    close_sound(backend);
  }
}

/* ---- beside ---- */

enum { PLACES_MOST = 5 * NITI_OPERANDS_MAX };

typedef struct Places {
  const int8_t *at[PLACES_MOST];
  size_t bytes[PLACES_MOST];
  int count;
} Places;

static void add_place(Places *p, const void *at, size_t bytes) {
  if (!at || bytes == 0) return;
  p->at[p->count] = at;
  p->bytes[p->count++] = bytes;
}

/* Of tensor t what `uses` names, elements (NITI_USE_OTHER) or layouts. */
static void add_tensor(Places *p, const NitiExecutable *e, const NitiTensor *t, int32_t number, int uses) {
  if (!t->placed || (uses & NITI_USE_OTHER)) add_place(p, t->data, niti_executable_bytes_at(e, number, e->batch));
  for (int i = 0; t->placed && i < NITI_LAYOUTS; ++i) {
    if (uses >> i & 1) add_place(p, t->layouts[i], e->backend->kernels->layout_bytes(e->backend, t->shape, i));
  }
}

static Places writes_of(const NitiExecutable *e, int32_t i) {
  const NitiConvCall *call = niti_executable_conv(e, &e->steps[i]);
  const NitiOperation *o = &e->fused->operations[i];
  Places p = {.count = 0};
  if (o->opcode == NITI_OP_NONE) return p;
  for (int k = 0; k < NITI_OPERANDS_MAX && o->opcode != NITI_OP_RESHAPE; ++k) {
    if (o->outputs[k] != NITI_NONE) add_tensor(&p, e, &e->steps[i].outputs[k], o->outputs[k], ~0);
  }
  if (niti_is_conv(o->opcode)) add_place(&p, call->workspace, e->backend->kernels->conv_workspace(e->backend, call));
  if (niti_is_conv(o->opcode)) add_place(&p, call->packed, e->backend->kernels->conv_packed_bytes(e->backend, call));
  return p;
}

static Places reads_of(const NitiExecutable *e, int32_t i) {
  const NitiOperation *o = &e->fused->operations[i];
  Places p = {.count = 0};
  for (int k = 0; k < NITI_OPERANDS_MAX && o->opcode != NITI_OP_NONE; ++k) {
    if (o->inputs[k] == NITI_NONE) continue;
    add_tensor(&p, e, &e->steps[i].inputs[k], o->inputs[k], niti_executable_uses(e, e->fused, i, k));
  }
  return p;
}

static bool are_apart(const Places *a, const Places *b) {
  for (int i = 0; i < a->count; ++i) {
    for (int k = 0; k < b->count; ++k) {
      if (a->at[i] < b->at[k] + b->bytes[k] && b->at[k] < a->at[i] + a->bytes[i]) return false;
    }
  }
  return true;
}

/* Operation k does not touch what `beside` writes, nor overwrites what it reads. */
static void check_beside(const NitiExecutable *e, int32_t beside, int32_t k) {
  const Places writes = writes_of(e, beside), reads = reads_of(e, beside), others = writes_of(e, k), read = reads_of(e, k);
  if (are_apart(&writes, &others) && are_apart(&reads, &others) && are_apart(&writes, &read)) return;
  fail_msg("operation %d overwrites what %d works on beside it", k, beside);
}

/* Returns how many run beside others. */
static int check_all_beside(const NitiExecutable *e) {
  int count = 0;
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    if (!niti_executable_is_beside(e, i)) continue;
    ++count;
    assert_int_equal(e->fused->operations[i].opcode, NITI_OP_CONV_GRADIENT);
    for (int32_t k = i + 1; k <= e->ends[i]; ++k) {
      if (!niti_executable_is_beside(e, k)) check_beside(e, i, k); /* else it runs after */
    }
  }
  return count;
}

/* Of every built-in network and of random ones: what runs beside is left alone, and takes little memory. */
static void what_runs_beside_is_left_alone(void **state) {
  static const struct {
    const char *model;
    int32_t batch;
    bool beside;
  } cases[] = {{"lenet5", 64, true},    {"conv3-bn", 64, true},      {"ds-cnn", 64, true}, {"resnet20", 64, true},
               {"resnet18", 128, true}, {"vgg-small-7", 256, false}, {"vgg16", 256, true}, {"mobilenet-v2", 8, true}};
  NitiBackend *backend = open_cuda("wgmma");
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases + 60; ++i) {
    const bool random = i >= sizeof cases / sizeof *cases;
    NitiDescription *d = NULL;
    NitiExecutable *e = NULL;
    RandomNetwork r;
    if (random)
      d = described(random_network(&r));
    else
      must(niti_description_load(&d, cases[i].model, NULL));
    NitiProgram *p = lowered(d, &(NitiLowerOptions){.batch = random ? 32 : cases[i].batch,
                                                    .training = true,
                                                    .round_delta = NITI_STOCHASTIC_BYTE,
                                                    .loss = NITI_LOSS_SOFTMAX,
                                                    .optimizer = &niti_optimizer_sgd});
    must(niti_backend_compile(&e, backend, p, NULL));
    const int count = check_all_beside(e);
    if (!random) {
      print_message("%s, batch %d: %d beside, %zu bytes\n", cases[i].model, cases[i].batch, count, niti_executable_bytes(e));
      assert_true((count > 0) == cases[i].beside);
    }
    niti_executable_close(e);
    niti_program_close(p);
    niti_description_close(d);
  }
  close_sound(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_attribute_that_cannot_be_read_is_an_error),
      cmocka_unit_test(operands_from_outside_lie_in_memory),
      cmocka_unit_test(a_workspace_outlives_a_failure),
      cmocka_unit_test(every_way_reads_a_mask_alike),
      cmocka_unit_test(operands_of_networks_lie_in_memory),
      cmocka_unit_test(a_step_packs_its_weights_at_once),
      cmocka_unit_test(resnet18_takes_no_more_memory),
      cmocka_unit_test(only_who_may_wait_meets),
      cmocka_unit_test(what_runs_beside_is_left_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
