/* Runs every operation on operands that bring it to its turning points. */
#include "export/directed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/norm.h"
#include "base/sgd.h"
#include "base/update.h"
#include "model/lower.h"
#include "program/fuse.h"

enum { BATCH = 2, MU = 4, SEED = 1 };

typedef enum Pattern { ZEROS, LARGEST, LEAST, TURNS, ALL, SINGLE, SMALL, QUIET, PATTERNS } Pattern;
static const char *const pattern_names[PATTERNS] = {"zeros", "largest", "least", "turns", "all", "single", "small", "quiet"};

/* Layers without parameters of 16 bits, and the others. */
static const char plain_layers[] =
    "name: directed\ninput: [6, 7, 2]\nclasses: 3\nlayers:\n"
    "  - conv: {out: 4, kernel: 3, padding: 1}\n"
    "  - relu\n"
    "  - residual: {body: [conv: {out: 4, kernel: [3, 1], padding: [1, 0], groups: 2}]}\n"
    "  - maxpool: {kernel: 3, stride: 2, padding: 1}\n"
    "  - relu: {max: 6}\n"
    "  - dropout: {per: element}\n"
    "  - conv: {out: 3, kernel: 2, stride: 2, padding: 1}\n"
    "  - dropout: {rate: 0.2}\n"
    "  - avgpool: {kernel: [2, 3]}\n"
    "  - flatten\n"
    "  - linear: {out: classes}\n";
static const char wide_layers[] =
    "name: directed\ninput: [4, 4, 2]\nclasses: 3\nlayers:\n"
    "  - conv: {out: 3, kernel: 3, padding: 1, bias: true}\n"
    "  - relu\n"
    "  - conv: {out: 4, kernel: 1}\n"
    "  - norm\n"
    "  - relu\n"
    "  - norm\n"
    "  - flatten\n"
    "  - linear: {out: classes, bias: true}\n";
static const char short_layers[] = "name: directed\ninput: [2, 2, 1]\nclasses: 3\nlayers: [flatten, linear: {out: classes}]\n";

typedef struct Network {
  const char *prefix, *text, *only; /* only: what is written of it (NitiRecord) */
  NitiLowerOptions options;
} Network;

/* A program under way. Arrays are of its tensors. */
typedef struct Directed {
  NitiRecord *r;
  Pattern pattern;
  bool *nonnegative;
  bool *filled; /* holds what `fill` writes, and its file too */
} Directed;

/* ---- operands ---- */

/* Element i of tensor t, from -127 to 127. */
static int32_t mantissa_of(Pattern pattern, int32_t t, size_t i) {
  switch (pattern) {
    case LARGEST: return 127;
    case LEAST: return -127;
    case TURNS: return (i + (size_t)t) % 2 ? 127 : -127;
    case ALL: return (int32_t)((i * 37 + (size_t)t * 101) % 255) - 127;
    case SINGLE: return i == 0;
    case SMALL: return (int32_t)((i + (size_t)t) % 5) - 2;
    case QUIET: return i % 2 ? mantissa_of(ALL, t, i) : 5; /* of an even number of channels every other does not vary */
    default: return 0;
  }
}

/* Scaled to what the tensor's role takes. */
static int64_t value_of(const NitiTensorDesc *d, Pattern pattern, int32_t t, size_t i) {
  const int64_t m = mantissa_of(pattern == QUIET && d->role == NITI_ROLE_DELTA ? ALL : pattern, t, i);
  const size_t half = niti_tensor_count(d, 0) / 2;
  if (d->initial == NITI_INITIAL_RUNNING) return i < half ? m * ((int64_t)1 << 27) : (m < 0 ? -m : m) * ((int64_t)1 << 25);
  if (d->role == NITI_ROLE_GRADIENT) return pattern == LARGEST ? INT32_MAX : pattern == LEAST ? -INT32_MAX : m * m * m;
  return d->dtype == NITI_DTYPE_S16 ? m * (NITI_SGD_WEIGHT_MAX / 127) : m;
}

static void put_value(void *data, NitiDtype dtype, size_t i, int64_t value) {
  switch (dtype) {
    case NITI_DTYPE_S64: ((int64_t *)data)[i] = value; break;
    case NITI_DTYPE_S32: ((int32_t *)data)[i] = (int32_t)value; break;
    case NITI_DTYPE_S16: ((int16_t *)data)[i] = (int16_t)value; break;
    default: ((int8_t *)data)[i] = (int8_t)value; break;
  }
}

static int32_t exponent_of(const NitiTensorDesc *d, Pattern pattern, int32_t t) {
  if (d->initial == NITI_INITIAL_RUNNING) return NITI_NORM_RUNNING_EXPONENT;
  if (d->role == NITI_ROLE_STATE || d->dtype == NITI_DTYPE_S16) return -15;
  return -9 + t % 4 * (1 + (int32_t)pattern); /* of two operands' exponents either may be the larger, and far so */
}

static NitiStatus fill(Directed *g, int32_t t) {
  NitiRecord *r = g->r;
  const NitiTensorDesc *d = &r->program->tensors[t];
  const size_t count = niti_tensor_count(d, BATCH);
  const bool master = d->initial == NITI_INITIAL_MASTER; /* the same weights, more finely */
  const int32_t from = master ? d->weight : t;
  const int32_t exponent = exponent_of(&r->program->tensors[from], g->pattern, from) - (master ? NITI_SGD_OPERAND_SHIFT : 0);
  void *data = malloc(count * sizeof(int64_t));
  if (!data) return niti_fail(NITI_ERROR_MEMORY, "out of memory for vectors");
  for (size_t i = 0; i < count; ++i) {
    const int64_t value = value_of(d, g->pattern, from, i);
    put_value(data, d->dtype, i, g->nonnegative[t] && value < 0 ? -value : value);
  }
  const NitiStatus status = niti_executable_write(r->executable, t, BATCH, data, &exponent);
  free(data);
  if (!g->filled[t]) r->files[t][0] = 0;
  g->filled[t] = true;
  return status;
}

/* What outlives a step. */
static NitiStatus fill_kept(Directed *g) {
  for (int32_t t = 0; t < g->r->program->tensor_count; ++t) {
    const NitiRole role = g->r->program->tensors[t].role;
    g->filled[t] = false;
    if (role == NITI_ROLE_WEIGHT || role == NITI_ROLE_STATE || role == NITI_ROLE_CONSTANT) NITI_TRY(fill(g, t));
  }
  return NITI_OK;
}

/* What an operation reads. What others saved for it, such as winners and a norm's sums, they made of the same operands. */
static NitiStatus fill_inputs(Directed *g, const NitiOperation *o) {
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->inputs[k] == NITI_NONE) continue;
    const NitiRole role = g->r->program->tensors[o->inputs[k]].role;
    if (role == NITI_ROLE_ACTIVATION || role == NITI_ROLE_DELTA || role == NITI_ROLE_GRADIENT) NITI_TRY(fill(g, o->inputs[k]));
  }
  return NITI_OK;
}

static NitiStatus write_operation(Directed *g, int32_t i) {
  const NitiOperation *o = &g->r->program->operations[i];
  NITI_TRY(fill_inputs(g, o));
  NITI_TRY(niti_record_operation(g->r, i));
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->outputs[k] != NITI_NONE) g->filled[o->outputs[k]] = false;
  }
  return NITI_OK;
}

static void fill_images(NitiRecord *r, Pattern pattern, int32_t classes) {
  const size_t count = niti_shape_image(r->bindings.source) * BATCH;
  for (size_t i = 0; i < count; ++i) r->pixels[i] = (uint8_t)(mantissa_of(pattern, 0, i) + 128);
  for (int32_t n = 0; n < BATCH; ++n) r->labels[n] = (n + (int32_t)pattern) % classes;
  for (int32_t t = 0; t < r->program->tensor_count; ++t) {
    if (r->program->tensors[t].role == NITI_ROLE_INPUT) r->files[t][0] = 0;
  }
}

/* ---- networks ---- */

static void bind_scalars(NitiRecord *r) {
  static const char *const names[] = {"mu", "rate", "momentum", "decay", "images", "clip"};
  static const int64_t values[] = {MU * NITI_MU_UNITS, 50000000, 900000000, 100000, BATCH, 3000000000};
  for (size_t k = 0; k < sizeof names / sizeof *names; ++k) {
    const int32_t scalar = niti_program_find_scalar(r->program, names[k]);
    if (scalar != NITI_NONE) r->bindings.scalars[scalar] = values[k];
  }
}

static NitiStatus write_patterns(Directed *g, int32_t classes) {
  NitiRecord *r = g->r;
  bind_scalars(r);
  r->bindings.seed = SEED;
  for (int pattern = 0; pattern < PATTERNS; ++pattern) {
    g->pattern = (Pattern)pattern;
    r->bindings.step = (uint32_t)pattern;
    r->directed = pattern_names[pattern];
    fill_images(r, g->pattern, classes);
    NITI_TRY(fill_kept(g));
    for (int32_t i = 0; i < r->program->operation_count; ++i) NITI_TRY(write_operation(g, i));
  }
  return NITI_OK;
}

static NitiStatus write_program(NitiRecord *r, NitiBackend *backend, const NitiProgram *program, const NitiDescription *d) {
  const NitiCompileOptions plain = {.plain = true};
  const size_t tensors = (size_t)program->tensor_count + 1;
  NitiExecutable *executable = NULL;
  Directed g = {.r = r, .nonnegative = calloc(tensors, 1), .filled = calloc(tensors, 1)};
  NitiStatus status = g.nonnegative && g.filled ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for vectors");
  if (status == NITI_OK) niti_find_nonnegative(g.nonnegative, program);
  if (status == NITI_OK) status = niti_backend_compile(&executable, backend, program, &plain);
  if (status == NITI_OK) status = niti_record_begin(r, executable, d->input);
  if (status == NITI_OK) status = write_patterns(&g, d->classes);
  niti_executable_close(executable);
  free(g.nonnegative);
  free(g.filled);
  return status;
}

static NitiStatus write_network(NitiRecord *r, NitiBackend *backend, const Network *network) {
  NitiDescription *description;
  NitiProgram *program = NULL;
  NITI_TRY(niti_description_parse(&description, network->text, "a directed case", NULL));
  NitiStatus status = niti_lower(&program, description, &network->options);
  r->prefix = network->prefix;
  r->only = network->only;
  if (status == NITI_OK) status = write_program(r, backend, program, description);
  niti_program_close(program);
  niti_description_close(description);
  return status;
}

NitiStatus niti_directed_write(NitiRecord *r) {
  const NitiLowerOptions options = {.batch = BATCH, .training = true};
  Network networks[] = {{"plain", plain_layers, NULL, options},
                        {"wide", wide_layers, "norm,bias,conv_forward,loss,squares,sgd", options},
                        {"niti16-", short_layers, "niti16", options},
                        {"ranks", short_layers, "all_sum", options}};
  networks[0].options.clip_activation = 1;
  networks[0].options.round_delta = NITI_STOCHASTIC;
  networks[1].options.optimizer = &niti_optimizer_sgd;
  networks[1].options.loss = NITI_LOSS_SOFTMAX;
  networks[1].options.clips_norm = networks[1].options.nesterov = true;
  networks[2].options.optimizer = &niti_optimizer_niti16;
  networks[3].options.whole = BATCH;
  const NitiBackendOptions cpu = {.name = "cpu", .threads = 1};
  NitiBackend *backend;
  NITI_TRY(niti_backend_open(&backend, &cpu));
  NitiStatus status = NITI_OK;
  for (size_t i = 0; i < sizeof networks / sizeof *networks && status == NITI_OK; ++i)
    status = write_network(r, backend, &networks[i]);
  niti_backend_close(backend);
  return status;
}
