/* Programs: building, copying and querying. */
#include "program/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS, OPERATIONS, LAYERS, FIRST_CAPACITY = 64 };

const NitiOpcodeInfo niti_opcodes[NITI_OPCODES] = {
    [NITI_OP_NONE] = {"none", false, false},
    [NITI_OP_INPUT] = {"input", false, false},
    [NITI_OP_CONV_FORWARD] = {"conv_forward", true, false},
    [NITI_OP_CONV_BACKWARD] = {"conv_backward", true, false},
    [NITI_OP_CONV_GRADIENT] = {"conv_gradient", false, false},
    [NITI_OP_BIAS_GRADIENT] = {"bias_gradient", false, false},
    [NITI_OP_RELU_FORWARD] = {"relu_forward", false, true},
    [NITI_OP_RELU_BACKWARD] = {"relu_backward", false, true},
    [NITI_OP_MAXPOOL_FORWARD] = {"maxpool_forward", false, false},
    [NITI_OP_MAXPOOL_BACKWARD] = {"maxpool_backward", true, false},
    [NITI_OP_AVGPOOL_FORWARD] = {"avgpool_forward", true, false},
    [NITI_OP_AVGPOOL_BACKWARD] = {"avgpool_backward", true, false},
    [NITI_OP_ADD] = {"add", true, true},
    [NITI_OP_DROPOUT] = {"dropout", false, true},
    [NITI_OP_RESHAPE] = {"reshape", false, true},
    [NITI_OP_LOSS] = {"loss", true, false},
    [NITI_OP_NORM_FIT] = {"norm_fit", false, false},
    [NITI_OP_NORM_FORWARD] = {"norm_forward", true, false},
    [NITI_OP_NORM_DELTA_FIT] = {"norm_delta_fit", false, false},
    [NITI_OP_NORM_BACKWARD] = {"norm_backward", true, false},
    [NITI_OP_NORM_POOL_FORWARD] = {"norm_pool_forward", true, false},
    [NITI_OP_NORM_POOL_BACKWARD] = {"norm_pool_backward", true, false},
    [NITI_OP_ALL_SUM] = {"all_sum", false, true},
    [NITI_OP_ALL_SUM_WAIT] = {"all_sum_wait", false, false},
    [NITI_OP_UPDATE_NITI] = {"update_niti", false, true},
    [NITI_OP_GRADIENT_SQUARES] = {"gradient_squares", false, false},
    [NITI_OP_UPDATE_NITI16] = {"update_niti16", false, true},
    [NITI_OP_UPDATE_SGD] = {"update_sgd", false, true},
};

static const char *const dtype_names[NITI_DTYPES] = {"s8", "u8", "s16", "s32", "s64"};
static const uint8_t dtype_bytes[NITI_DTYPES] = {1, 1, 2, 4, 8};
static const char *const role_names[NITI_ROLES] = {"input",    "constant", "activation", "delta", "weight",
                                                   "gradient", "state",    "saved",      "metric"};
static const char *const phase_names[NITI_PHASES] = {"input", "forward", "loss", "backward", "reduce", "update"};

const char *niti_dtype_name(NitiDtype dtype) { return dtype_names[dtype]; }
size_t niti_dtype_bytes(NitiDtype dtype) { return dtype_bytes[dtype]; }
const char *niti_role_name(NitiRole role) { return role_names[role]; }
const char *niti_phase_name(NitiPhase phase) { return phase_names[phase]; }

const char *niti_rounding_name(NitiRounding mode) {
  static const char *const names[] = {"nearest", "pseudo-stochastic", "stochastic", "truncate", "stochastic-byte"};
  return names[mode];
}

/* ---- building ---- */

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for a network's program"); }

NitiStatus niti_program_open(NitiProgram **out, int32_t batch) {
  NitiProgram *p = calloc(1, sizeof *p);
  *out = p;
  if (!p) return out_of_memory();
  p->batch = p->whole = batch;
  p->layer_count = -1;
  (void)niti_program_add_layer(p, "");
  if (!p->out_of_memory) return NITI_OK;
  niti_program_close(p);
  *out = NULL;
  return out_of_memory();
}

void niti_program_close(NitiProgram *p) {
  if (!p) return;
  free(p->tensors);
  free(p->operations);
  free(p->layers);
  free(p);
}

/* Makes room for one more element of `size` bytes after `count`; false: out of memory. */
static bool grow(NitiProgram *p, int which, void **array, int32_t count, size_t size) {
  if (p->out_of_memory) return false;
  if (count < p->capacity[which]) return true;
  const int32_t capacity = count ? 2 * count : FIRST_CAPACITY;
  void *larger = realloc(*array, (size_t)capacity * size);
  p->out_of_memory = !larger;
  if (!larger) return false;
  *array = larger;
  p->capacity[which] = capacity;
  return true;
}

int32_t niti_program_add_layer(NitiProgram *p, const char *name) {
  void *layers = p->layers;
  const bool room = grow(p, LAYERS, &layers, p->layer_count + 1, sizeof *p->layers);
  p->layers = layers;
  if (!room) return 0;
  memset(p->layers[++p->layer_count], 0, sizeof *p->layers);
  (void)snprintf(p->layers[p->layer_count], sizeof *p->layers, "%s", name);
  return p->layer_count;
}

/* A name begins with its layer's name, so tensors of one layer can clash, and those of a layer called `input` with the network's
 * own. Those of layers `a` and `a.out` are not compared: that would take the square of the number of tensors. */
static bool is_taken(const NitiProgram *p, const char *name, int32_t layer) {
  for (int32_t i = 0; i < p->tensor_count; ++i) {
    if ((p->tensors[i].layer == layer || p->tensors[i].layer == 0 || layer == 0) && strcmp(p->tensors[i].name, name) == 0)
      return true;
  }
  return false;
}

int32_t niti_program_add_tensor(NitiProgram *p, const NitiTensorDesc *desc) {
  void *tensors = p->tensors;
  const bool room = grow(p, TENSORS, &tensors, p->tensor_count, sizeof *p->tensors);
  p->tensors = tensors;
  if (!room) return 0; /* any valid number: the program is never used */
  NitiTensorDesc *t = &p->tensors[p->tensor_count];
  *t = *desc;
  for (int i = 2; is_taken(p, t->name, t->layer); ++i)
    (void)snprintf(t->name, sizeof t->name, "%.*s.%d", NITI_TENSOR_NAME_MAX - 12, desc->name, i);
  return p->tensor_count++;
}

void niti_program_add_operation(NitiProgram *p, const NitiOperation *operation) {
  void *operations = p->operations;
  const bool room = grow(p, OPERATIONS, &operations, p->operation_count, sizeof *p->operations);
  p->operations = operations;
  if (room) p->operations[p->operation_count++] = *operation;
}

int32_t niti_program_scalar(NitiProgram *p, const char *name) {
  const int32_t found = niti_program_find_scalar(p, name);
  if (found != NITI_NONE) return found;
  if (p->scalar_count == NITI_SCALARS_MAX) {
    p->too_many_scalars = true;
    return NITI_NONE;
  }
  (void)snprintf(p->scalars[p->scalar_count], sizeof p->scalars[0], "%s", name);
  return p->scalar_count++;
}

NitiStatus niti_program_check(const NitiProgram *p) {
  if (p->too_many_scalars) return niti_fail(NITI_ERROR_ARGUMENT, "the program declares more than %d scalars", NITI_SCALARS_MAX);
  return p->out_of_memory ? out_of_memory() : NITI_OK;
}

static void *copy_of(const void *from, int32_t count, size_t size) {
  void *copy = malloc((size_t)(count > 0 ? count : 1) * size);
  if (copy && count > 0) memcpy(copy, from, (size_t)count * size);
  return copy;
}

NitiProgram *niti_program_copy(const NitiProgram *from) {
  NitiProgram *p = copy_of(from, 1, sizeof *p);
  if (!p) return NULL;
  p->tensors = copy_of(from->tensors, from->tensor_count, sizeof *p->tensors);
  p->operations = copy_of(from->operations, from->operation_count, sizeof *p->operations);
  p->layers = copy_of(from->layers, from->layer_count + 1, sizeof *p->layers);
  p->capacity[TENSORS] = from->tensor_count;
  p->capacity[OPERATIONS] = from->operation_count;
  p->capacity[LAYERS] = from->layer_count + 1;
  if (p->tensors && p->operations && p->layers) return p;
  niti_program_close(p);
  return NULL;
}

/* ---- queries ---- */

NitiOperation niti_operation(NitiOpcode opcode, NitiPhase phase, int32_t layer) {
  NitiOperation o;
  memset(&o, 0, sizeof o); /* padding too: records are compared as bytes */
  o.opcode = opcode;
  o.phase = phase;
  o.layer = layer;
  for (int i = 0; i < NITI_OPERANDS_MAX; ++i) o.inputs[i] = o.outputs[i] = NITI_NONE;
  return o;
}

NitiTensorDesc niti_tensor_desc(NitiRole role, NitiShape s) {
  NitiTensorDesc t;
  memset(&t, 0, sizeof t);
  t.dtype = NITI_DTYPE_S8;
  t.exponents = NITI_EXPONENTS_ONE;
  t.role = role;
  t.batched = true;
  t.weight = NITI_NONE;
  t.rank = 4;
  t.dims[0] = s.n, t.dims[1] = s.h, t.dims[2] = s.w, t.dims[3] = s.c;
  return t;
}

size_t niti_tensor_count(const NitiTensorDesc *t, int32_t n) {
  size_t count = t->batched ? (size_t)n : (size_t)t->dims[0];
  for (int i = 1; i < NITI_RANK_MAX; ++i) count *= (size_t)t->dims[i];
  return count;
}

NitiShape niti_tensor_shape(const NitiTensorDesc *t, int32_t n) {
  const int32_t first = t->batched ? n : (int32_t)t->dims[0];
  if (t->rank == 4) return (NitiShape){first, (int32_t)t->dims[1], (int32_t)t->dims[2], (int32_t)t->dims[3]};
  return (NitiShape){first, 1, 1, (int32_t)(t->dims[1] * t->dims[2])};
}

int32_t niti_program_find(const NitiProgram *p, const char *tensor) {
  for (int32_t i = 0; i < p->tensor_count; ++i) {
    if (strcmp(p->tensors[i].name, tensor) == 0) return i;
  }
  return NITI_NONE;
}

int32_t niti_program_find_scalar(const NitiProgram *p, const char *scalar) {
  for (int32_t i = 0; i < p->scalar_count; ++i) {
    if (strcmp(p->scalars[i], scalar) == 0) return i;
  }
  return NITI_NONE;
}

void niti_program_phases(const NitiProgram *p, NitiPhase from, NitiPhase to, int32_t *first, int32_t *end) {
  int32_t i = 0;
  while (i < p->operation_count && p->operations[i].phase < from) ++i;
  *first = i;
  while (i < p->operation_count && p->operations[i].phase <= to) ++i;
  *end = i;
}

bool niti_program_equal(const NitiProgram *a, const NitiProgram *b) {
  return a->batch == b->batch && a->whole == b->whole && a->tensor_count == b->tensor_count &&
         a->operation_count == b->operation_count && a->layer_count == b->layer_count && a->scalar_count == b->scalar_count &&
         memcmp(a->tensors, b->tensors, (size_t)a->tensor_count * sizeof *a->tensors) == 0 &&
         memcmp(a->operations, b->operations, (size_t)a->operation_count * sizeof *a->operations) == 0 &&
         memcmp(a->layers, b->layers, (size_t)(a->layer_count + 1) * sizeof *a->layers) == 0 &&
         memcmp(a->scalars, b->scalars, sizeof a->scalars) == 0;
}
