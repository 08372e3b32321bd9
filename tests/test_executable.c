/* Executables: fused ones compute what plain ones do, with every instruction set, with updates early, and on a device that keeps
 * tensors in layouts of its own; what a device lacks is refused by name; sizes are known beforehand; a preparation that failed
 * can be tried again. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/kernels.h"
#include "every_layer.h"
#include "kernel_calls.h"
#include "niti.h"
#include "program/early.h"
#include "programs.h"

enum { RANDOM_NETWORKS = 16, IMAGES = 6, BATCH_MAX = 16, CROP = 3 };

static bool early; /* updates come as early as they may in programs that are trained */

static const char *const isas[] = {"ref", "avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm"};

/* ---- a network trained by hand ---- */

typedef struct Trained {
  NitiExecutable *training, *evaluation;
  const NitiProgram *program;
  NitiShape source;
  uint8_t *pixels;
  NitiSample samples[BATCH_MAX];
  int32_t labels[BATCH_MAX];
} Trained;

/* Of batch norm: weights and biases. */
static void fill_parameters(Trained *t, int32_t tensor, size_t count) {
  const int32_t exponent = random_in(-16, -13);
  int16_t *values = malloc(count * sizeof *values);
  assert_non_null(values);
  for (size_t k = 0; k < count; ++k) values[k] = (int16_t)random_in(-INT16_MAX, INT16_MAX);
  must(niti_executable_write(t->training, tensor, 0, values, &exponent));
  free(values);
}

/* Of batch norm: means from -1 to 1, variances up to 2. */
static void fill_statistics(Trained *t, int32_t tensor, size_t count) {
  const int32_t exponent = -32;
  int64_t *values = malloc(count * sizeof *values);
  assert_non_null(values);
  for (size_t k = 0; k < count; ++k) values[k] = (int64_t)(next_random() >> 31) - (k < count / 2 ? INT64_C(1) << 32 : 0);
  must(niti_executable_write(t->training, tensor, 0, values, &exponent));
  free(values);
}

/* The master of an int8 weight, with other low bits than 0, if its optimiser keeps one. */
static void fill_master(Trained *t, int32_t weight, const int8_t *values, int32_t exponent) {
  const int32_t own = exponent - 8;
  for (int32_t i = 0; i < t->program->tensor_count; ++i) {
    const NitiTensorDesc *desc = &t->program->tensors[i];
    if (desc->role != NITI_ROLE_STATE || desc->initial != NITI_INITIAL_MASTER || desc->weight != weight) continue;
    const size_t count = niti_tensor_count(desc, 0);
    int16_t *master = malloc(count * sizeof *master);
    assert_non_null(master);
    for (size_t k = 0; k < count; ++k)
      master[k] = (int16_t)(256 * values[k] + (values[k] > -127 && values[k] < 127 ? random_in(-127, 127) : 0));
    must(niti_executable_write(t->training, i, 0, master, &own));
    free(master);
  }
}

/* Random weights and a random input table, from a seed. */
static void fill_weights(Trained *t) {
  for (int32_t i = 0; i < t->program->tensor_count; ++i) {
    const NitiTensorDesc *desc = &t->program->tensors[i];
    if (desc->role != NITI_ROLE_WEIGHT && desc->role != NITI_ROLE_CONSTANT) continue;
    const size_t count = niti_tensor_count(desc, 0);
    const int32_t exponent = random_in(-9, -5);
    if (desc->dtype == NITI_DTYPE_S16) fill_parameters(t, i, count);
    if (desc->dtype == NITI_DTYPE_S64) fill_statistics(t, i, count);
    if (desc->dtype != NITI_DTYPE_S8) continue;
    int8_t *values = malloc(count);
    assert_non_null(values);
    for (size_t k = 0; k < count; ++k) values[k] = (int8_t)random_in(-127, 127);
    must(niti_executable_write(t->training, i, 0, values, &exponent));
    fill_master(t, i, values, exponent);
    free(values);
  }
}

static Trained open_trained(NitiBackend *backend, const NitiDescription *description, const NitiLowerOptions *options,
                            bool plain) {
  NitiLowerOptions evaluating = *options;
  evaluating.training = false;
  NitiProgram *training = lowered(description, options), *evaluation = lowered(description, &evaluating);
  if (early) must(niti_update_early(training, 0));
  Trained t = {.source = description->input};
  const NitiCompileOptions first = {.plain = plain};
  must(niti_backend_compile(&t.training, backend, training, &first));
  const NitiCompileOptions second = {.plain = plain, .shared = t.training};
  must(niti_backend_compile(&t.evaluation, backend, evaluation, &second));
  niti_program_close(training);
  niti_program_close(evaluation);
  t.program = niti_executable_program(t.training);
  t.source.h += CROP;
  t.source.w += CROP;
  const size_t bytes = IMAGES * niti_shape_image(t.source);
  t.pixels = malloc(bytes);
  assert_non_null(t.pixels);
  for (size_t i = 0; i < bytes; ++i) t.pixels[i] = (uint8_t)next_random();
  fill_weights(&t);
  return t;
}

static void close_trained(Trained *t) {
  niti_executable_close(t->evaluation);
  niti_executable_close(t->training);
  free(t->pixels);
}

/* Rates of either update. */
static void bind_scalars(NitiBindings *b, const NitiProgram *p) {
  for (int32_t i = 0; i < p->scalar_count; ++i) {
    if (strcmp(p->scalars[i], "mu") == 0) b->scalars[i] = 3500000 + 500000 * (p->tensor_count % 2); /* whole or not */
    if (strcmp(p->scalars[i], "rate") == 0) b->scalars[i] = 30000000;
    if (strcmp(p->scalars[i], "momentum") == 0) b->scalars[i] = 900000000;
    if (strcmp(p->scalars[i], "decay") == 0) b->scalars[i] = 500000;
    if (strcmp(p->scalars[i], "images") == 0) b->scalars[i] = b->batch;
    if (strcmp(p->scalars[i], "clip") == 0) b->scalars[i] = 1000000000;
  }
}

/* The next `batch` images, cropped and mirrored at random, in one of the two programs from end to end. */
static NitiStatus try_run(Trained *t, bool training, int32_t batch, uint32_t step) {
  NitiExecutable *e = training ? t->training : t->evaluation;
  const NitiProgram *p = niti_executable_program(e);
  const int32_t classes = (int32_t)p->tensors[niti_program_logits(p)].dims[3];
  for (int32_t n = 0; n < batch; ++n) {
    t->samples[n] = (NitiSample){.image = (uint32_t)random_in(0, IMAGES - 1),
                                 .dy = (int16_t)random_in(-1, CROP),
                                 .dx = (int16_t)random_in(-1, CROP),
                                 .flip = (uint32_t)random_in(0, 1)};
    t->labels[n] = random_in(0, classes - 1);
  }
  NitiBindings b = {.batch = batch,
                    .seed = 77,
                    .step = step,
                    .pixels = t->pixels,
                    .source = t->source,
                    .samples = t->samples,
                    .labels = t->labels};
  bind_scalars(&b, p);
  return niti_executable_run(e, 0, p->operation_count, &b);
}

/* What a run leaves: logits of an evaluation, then weights, exponents and metrics. */
typedef struct Trace {
  uint8_t *bytes;
  size_t used, room;
} Trace;

static void put(Trace *trace, const void *bytes, size_t count) {
  if (trace->used + count > trace->room) {
    trace->room = 2 * trace->room + count;
    trace->bytes = realloc(trace->bytes, trace->room);
    assert_non_null(trace->bytes);
  }
  memcpy(trace->bytes + trace->used, bytes, count);
  trace->used += count;
}

static void put_tensor(Trace *trace, NitiExecutable *e, int32_t tensor, int32_t n) {
  const NitiTensorDesc *desc = &niti_executable_program(e)->tensors[tensor];
  const size_t bytes = niti_tensor_count(desc, n) * niti_dtype_bytes(desc->dtype);
  void *values = malloc(bytes);
  int32_t exponent = 0;
  assert_non_null(values);
  must(niti_executable_read(e, tensor, n, values, &exponent));
  put(trace, values, bytes);
  put(trace, &exponent, sizeof exponent);
  free(values);
}

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

static void check_same(const Trace *want, Trace got, const char *what, const char *text) {
  if (want->used != got.used || memcmp(want->bytes, got.bytes, got.used) != 0) fail_msg("%s differs:\n%s", what, text);
  free(got.bytes);
}

static NitiBackend *open_isa(const char *isa, int threads) {
  NitiBackend *backend = NULL;
  const NitiBackendOptions options = {.name = "cpu", .isa = isa, .threads = threads};
  const NitiStatus status = niti_backend_open(&backend, &options);
  assert_true(status == NITI_OK || status == NITI_ERROR_UNSUPPORTED);
  return backend;
}

/* ---- a device with layouts, packed weights and workspaces in the arena: the CPU's reference kernels, which read gradients'
 * operands, masks and weights out of them ---- */

static const NitiKernels *layout_kernels; /* the real ones */

static size_t layout_bytes(const NitiBackend *backend, NitiShape shape, int layout) {
  (void)backend;
  return niti_shape_count(shape) + (layout ? 0 : 300);
}

static int layout_mask_uses(const NitiBackend *backend, const NitiOperation *o, NitiShape mask, const NitiConvCall *call) {
  static const int uses[] = {NITI_USE_MASK, NITI_USE_MASK, NITI_USE_OTHER, NITI_USE_MASK | NITI_USE_OTHER};
  (void)backend, (void)mask;
  assert_true(o->opcode == NITI_OP_ADD || call->direction == NITI_BACKWARD);
  return uses[o->layer % 4];
}

/* A layout has the bits of its elements flipped; whatever a tensor's other images hold stays behind. */
static void layout_complete(NitiBackend *backend, const NitiTensor *t) {
  const size_t count = niti_shape_count(t->shape);
  (void)backend;
  for (int i = 0; i < NITI_LAYOUTS; ++i) {
    for (size_t k = 0; t->layouts[i] && k < count; ++k) t->layouts[i][k] = (int8_t)~t->data[k];
  }
}

/* The tensor with its elements out of a layout. The caller frees its data. */
static NitiTensor out_of_layout(const NitiTensor *t, int layout) {
  const size_t count = niti_shape_count(t->shape);
  NitiTensor own = *t;
  assert_true(t->placed);
  own.data = malloc(count);
  assert_non_null(own.data);
  for (size_t k = 0; k < count; ++k) own.data[k] = (int8_t)~t->layouts[layout][k];
  return own;
}

static void layout_download(NitiBackend *backend, int8_t *host, const NitiTensor *t, int32_t n) {
  NitiTensor own = out_of_layout(t, 0);
  (void)backend;
  memcpy(host, own.data, (size_t)n * niti_shape_image(t->shape));
  free(own.data);
}

/* Not what the reference kernels need, which have reserved memory for that. */
static size_t scratch_bytes(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiConv *s = &call->shape;
  (void)backend;
  return s->k % 3 == 0 ? 0 : (size_t)s->n * (size_t)s->k * 40 + (call->direction == NITI_GRADIENT ? 5000 : 0);
}

/* Overwrites the call's workspace, before the operation and so after its operands have been written. */
static void use_scratch(NitiBackend *backend, const NitiConvCall *call) {
  const size_t bytes = scratch_bytes(backend, call);
  must(layout_kernels->reserve(backend, layout_kernels->conv_workspace(backend, call)));
  if ((bytes > 0) != (call->workspace != NULL)) fail_msg("a workspace of %zu bytes is at %p", bytes, (void *)call->workspace);
  if (bytes > 0) memset(call->workspace, 0x5a, bytes);
}

static void layout_gradient(NitiBackend *backend, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                            const NitiConvCall *call) {
  use_scratch(backend, call);
  if (niti_conv_grouped(&call->shape)) {
    layout_kernels->conv_gradient(backend, gradient, dy, x, call);
    return;
  }
  const NitiTensor own_dy = out_of_layout(dy, 0), own_x = out_of_layout(x, 0);
  layout_kernels->conv_gradient(backend, gradient, &own_dy, &own_x, call);
  free(own_dy.data);
  free(own_x.data);
}

static NitiTensor mask_of(const NitiTensor *mask) { return mask && mask->layouts[1] ? out_of_layout(mask, 1) : (NitiTensor){0}; }

static size_t count_of_weights(const NitiConv *s) {
  return (size_t)s->k * (size_t)s->kh * (size_t)s->kw * (size_t)niti_conv_group_inputs(s);
}

static size_t packed_more; /* bytes behind those of backward */

/* Some convolutions pack none, and some want more for a smaller batch than for the whole one. */
static size_t packed_bytes(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiConv *s = &call->shape;
  (void)backend;
  assert_true(call->direction != NITI_GRADIENT);
  if (s->k % 4 == 3) return 0;
  return count_of_weights(s) + (s->k % 4 == 1 && s->n % 2 ? 300 : 0) + (call->direction == NITI_BACKWARD ? packed_more : 0);
}

static int packed_calls, unpacked_calls, packs;

static void pack(NitiBackend *backend, const NitiPacking *packings, int count) {
  (void)backend;
  assert_true(count > 0);
  ++packs;
  for (int i = count - 1; i >= 0; --i) { /* what is too long ends in what was there before */
    const NitiConvCall *call = packings[i].call;
    const size_t weights = count_of_weights(&call->shape);
    assert_true(call->direction != NITI_GRADIENT && niti_shape_count(packings[i].w->shape) == weights);
    for (size_t k = 0; k < weights; ++k) call->packed[k] = (int8_t)~packings[i].w->data[k];
    memset(call->packed + weights, 1, packed_bytes(backend, call) - weights);
  }
}

/* The weights as they were packed, or as they are. The caller frees the data where it is not w's. */
static NitiTensor packed_weights(const NitiTensor *w, const NitiConvCall *call) {
  const size_t count = niti_shape_count(w->shape);
  NitiTensor own = *w;
  packed_calls += call->packed != NULL;
  unpacked_calls += call->packed == NULL;
  if (!call->packed) return own;
  own.data = malloc(count);
  assert_non_null(own.data);
  for (size_t k = 0; k < count; ++k) own.data[k] = (int8_t)~call->packed[k];
  return own;
}

static void packed_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiTensor *bias,
                           const NitiConvCall *call, const NitiRequantise *rq) {
  use_scratch(backend, call);
  const NitiTensor weights = packed_weights(w, call);
  layout_kernels->conv_forward(backend, y, x, &weights, bias, call, rq);
  if (weights.data != w->data) free(weights.data);
}

static void layout_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                            const NitiTensor *mask, const NitiConvCall *call, const NitiRequantise *rq) {
  use_scratch(backend, call);
  const NitiTensor own = mask_of(mask), weights = packed_weights(w, call);
  layout_kernels->conv_backward(backend, dx, dy, &weights, own.data ? &own : mask, call, rq);
  free(own.data);
  if (weights.data != w->data) free(weights.data);
}

static void layout_add(NitiBackend *backend, NitiTensor *y, const NitiTensor *a, const NitiTensor *b, const NitiTensor *mask,
                       bool relu, const NitiRequantise *rq) {
  const NitiTensor own = mask_of(mask);
  layout_kernels->add(backend, y, a, b, own.data ? &own : mask, relu, rq);
  free(own.data);
}

static NitiKernels with_layouts(NitiBackend *backend) {
  layout_kernels = backend->kernels;
  NitiKernels kernels = *layout_kernels;
  kernels.layout_bytes = layout_bytes;
  kernels.mask_uses = layout_mask_uses;
  kernels.complete = layout_complete;
  kernels.download_elements = layout_download;
  kernels.conv_gradient = layout_gradient;
  kernels.takes_workspace = true;
  kernels.conv_workspace = scratch_bytes;
  kernels.conv_packed_bytes = packed_bytes;
  kernels.conv_pack = pack;
  kernels.conv_forward = packed_forward;
  kernels.conv_backward = layout_backward;
  kernels.add = layout_add;
  return kernels;
}

static void check_layouts(const Trace *want, const NitiDescription *description, const NitiLowerOptions *options,
                          const char *text) {
  NitiBackend *backend = open_isa("ref", 1);
  const NitiKernels *real = backend->kernels, kernels = with_layouts(backend);
  backend->kernels = &kernels;
  for (int plain = 0; plain < 2; ++plain)
    check_same(want, trace_of(backend, description, options, plain), "a device with layouts", text);
  early = true;
  check_same(want, trace_of(backend, description, options, false), "a device with layouts, updates early,", text);
  early = false;
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
    early = true;
    check_same(&want, trace_of(backend, description, options, false), isas[i], text);
    early = false;
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

/* ---- packed weights ---- */

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
    early = i & 2;
    packed_more = i < 4 ? 0 : 3 << 19;
    const Trace want = trace_of_writers(backend, d, &options);
    packed_calls = unpacked_calls = 0;
    backend->kernels = &kernels;
    check_same(&want, trace_of_writers(backend, d, &options), "a device with packed weights", packing);
    backend->kernels = real;
    if (packed_calls < 400 || unpacked_calls < 50)
      fail_msg("%d calls with packed weights, %d without", packed_calls, unpacked_calls);
    free(want.bytes);
  }
  early = false;
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
    packs = 0;
    must(try_run(&t, true, options.batch, 0));
    assert_int_equal(packs, large ? 3 : 1);
    bytes[large] = niti_executable_bytes(t.training);
    packs = 0;
    must(try_run(&t, false, options.batch, 0));
    assert_int_equal(packs, 1);
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

/* ---- compiling ---- */

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
  kernels.conv_pack = pack;
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

/* ---- a preparation that fails ---- */

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
      cmocka_unit_test(fused_is_plain_in_random_networks),
      cmocka_unit_test(fused_is_plain_with_every_layer),
      cmocka_unit_test(what_gradients_sum_can_be_read_from_layouts),
      cmocka_unit_test(fusing_leaves_operations_out),
      cmocka_unit_test(a_missing_opcode_is_refused_by_name),
      cmocka_unit_test(a_foreign_operand_is_refused_by_name),
      cmocka_unit_test(an_estimate_is_what_compiling_allocates),
      cmocka_unit_test(equal_lists_compile_to_equal_results),
      cmocka_unit_test(a_failed_preparation_can_be_tried_again),
      cmocka_unit_test(what_no_operation_writes_has_layouts_too),
      cmocka_unit_test(packed_weights_are_never_stale),
      cmocka_unit_test(weights_of_backward_wait_where_they_are_large),
      cmocka_unit_test(weights_that_the_range_writes_are_not_packed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
