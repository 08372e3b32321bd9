/* The executor that all devices share: compiles a program into steps, each with its operands in memory, and runs them. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/contract.h"
#include "backend/kernels.h"
#include "backend/tuning.h"
#include "base/clip.h"
#include "base/sgd.h"
#include "base/shift_prediction.h"
#include "base/size.h"
#include "base/update.h"
#include "program/bounds.h"
#include "program/places.h"

enum { VARIANTS = 2, WHOLE = 0 }; /* of a convolution: for the whole batch, and for the latest smaller one */

/* One operation with its operands in memory. Operands of other types than s8 are read through `data`. */
typedef struct NitiStep {
  NitiTensor inputs[NITI_OPERANDS_MAX], outputs[NITI_OPERANDS_MAX];
  NitiGradient gradient;
  NitiRequantise rq;
  NitiPool pool;
  NitiConvCall conv[VARIANTS];
} NitiStep;

struct NitiExecutable {
  NitiBackend *backend;
  NitiProgram *program; /* as passed by the caller */
  NitiProgram *fused;   /* what runs: the same operations, some of them fused */
  NitiPlaces places;
  bool places_gradients;
  NitiTensor *tensors; /* [tensors], at the whole batch */
  NitiStep *steps;     /* [operations] */
  bool *nonnegative;   /* [tensors] */
  int *uses;           /* [tensors] */
  const NitiExecutable *shared;
  uint8_t *arena, *kept, *words, *inputs; /* backend memory: by lifetime, permanent, exponents and shifts, samples and labels */
  uint8_t *staged;                        /* host memory: samples and labels to be uploaded */
  size_t bytes, workspace;                /* allocated without what it shares; scratch requested */
  int32_t batch;                          /* for which the steps are prepared */
  void *recordings;
};

typedef struct Needs {
  size_t arena, kept, words, inputs, workspace;
} Needs;

static size_t align_up(size_t bytes) { return niti_round_up(bytes, NITI_ALIGN); }

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for compiling a program"); }

static bool is_conv(NitiOpcode opcode) {
  return opcode == NITI_OP_CONV_FORWARD || opcode == NITI_OP_CONV_BACKWARD || opcode == NITI_OP_CONV_GRADIENT;
}

static bool is_wide_update(NitiOpcode opcode) { return opcode == NITI_OP_UPDATE_SGD || opcode == NITI_OP_UPDATE_NITI16; }

static bool is_kept(NitiRole role) {
  return role == NITI_ROLE_WEIGHT || role == NITI_ROLE_STATE || role == NITI_ROLE_CONSTANT || role == NITI_ROLE_METRIC;
}

/* ---- what a program needs ---- */

/* The same tensor in the executable whose memory this one shares, or NITI_NONE. */
static int32_t shared_tensor(const NitiExecutable *e, int32_t t) {
  const NitiTensorDesc *desc = &e->program->tensors[t];
  if (!e->shared || !is_kept(desc->role)) return NITI_NONE;
  const int32_t found = niti_program_find(e->shared->program, desc->name);
  if (found == NITI_NONE) return NITI_NONE;
  const NitiTensorDesc *other = &e->shared->program->tensors[found];
  const bool same = other->dtype == desc->dtype && memcmp(other->dims, desc->dims, sizeof desc->dims) == 0;
  return same ? found : NITI_NONE;
}

static size_t bytes_at(const NitiExecutable *e, int32_t t, int32_t n) {
  const NitiTensorDesc *desc = &e->fused->tensors[t];
  return niti_tensor_count(desc, n) * niti_dtype_bytes(desc->dtype);
}

static size_t plain_bytes(const NitiExecutable *e, int32_t t) { return bytes_at(e, t, e->fused->batch); }

/* Gradients take the memory of activations that backward is done with; those that ranks add up lie beside each other instead. */
static bool gradients_in_arena(const NitiProgram *p) {
  for (int32_t i = 0; i < p->operation_count; ++i) {
    if (p->operations[i].opcode == NITI_OP_ALL_SUM) return false;
  }
  return true;
}

static bool lives_in_arena(const NitiExecutable *e, int32_t t) {
  const NitiRole role = e->program->tensors[t].role;
  return niti_role_in_arena(role) || (role == NITI_ROLE_GRADIENT && e->places_gradients);
}

static bool lives_outside(const NitiExecutable *e, int32_t t) {
  const NitiRole role = e->program->tensors[t].role;
  if (role == NITI_ROLE_GRADIENT) return !e->places_gradients;
  return is_kept(role) && shared_tensor(e, t) == NITI_NONE;
}

static NitiDirection direction_of(NitiOpcode opcode) {
  if (opcode == NITI_OP_CONV_FORWARD) return NITI_FORWARD;
  return opcode == NITI_OP_CONV_BACKWARD ? NITI_BACKWARD : NITI_GRADIENT;
}

const char *niti_backend_conv_kernel(NitiBackend *backend, NitiOpcode opcode, const NitiConv *conv) {
  const NitiKernels *k = backend->kernels;
  NitiConvCall call = {.shape = *conv, .direction = direction_of(opcode)};
  const NitiStatus status = k->conv_prepare ? k->conv_prepare(backend, &call) : NITI_OK;
  const char *name = status == NITI_OK ? k->conv_kernel(backend, &call) : "";
  if (k->conv_release) k->conv_release(backend, &call);
  return name;
}

/* Sets the batch, and the way that the backend's tuning has for it. */
static void set_images(const NitiExecutable *e, NitiConvCall *call, int32_t n) {
  call->shape.n = n;
  call->tuned = niti_tuning_find(e->backend->tuning, e->backend, call, &call->way);
}

static NitiConvCall call_of(const NitiExecutable *e, int32_t operation) {
  const NitiOperation *o = &e->fused->operations[operation];
  const int32_t x = o->opcode == NITI_OP_CONV_GRADIENT ? o->inputs[1] : o->inputs[0];
  bool constant = !e->shared;
  for (int32_t i = 0; i < e->fused->operation_count && constant; ++i)
    constant = e->fused->operations[i].phase != NITI_PHASE_UPDATE;
  NitiConvCall call = {.shape = o->conv,
                       .direction = direction_of(o->opcode),
                       .relu = o->relu,
                       .centred = o->opcode == NITI_OP_CONV_FORWARD && niti_conv_is_centred(e->fused, o),
                       .nonnegative = o->opcode != NITI_OP_CONV_BACKWARD && e->nonnegative[x],
                       .constant = constant && o->opcode == NITI_OP_CONV_FORWARD};
  set_images(e, &call, e->fused->batch);
  return call;
}

static bool has_layouts(const NitiExecutable *e, int32_t t) {
  const NitiTensorDesc *desc = &e->fused->tensors[t];
  return e->backend->kernels->layout_bytes && desc->dtype == NITI_DTYPE_S8 && niti_role_in_arena(desc->role);
}

static size_t layout_bytes(const void *context, const NitiProgram *p, int32_t t, int layout) {
  const NitiExecutable *e = context;
  if (!has_layouts(e, t) || !(e->uses[t] >> layout & 1)) return 0;
  return e->backend->kernels->layout_bytes(e->backend, niti_tensor_shape(&p->tensors[t], p->batch), layout);
}

static bool is_reshaped(const NitiProgram *p, int32_t t) {
  for (int32_t i = 0; i < p->operation_count; ++i) {
    if (p->operations[i].opcode == NITI_OP_RESHAPE && p->operations[i].outputs[0] == t) return true;
  }
  return false;
}

_Static_assert((int)NITI_READS_ELEMENTS == (int)NITI_USE_OTHER && NITI_USE_GRADIENT == 1 << 0 && NITI_USE_MASK == 1 << 1,
               "uses are parts of a tensor");

/* How operation i reads its input k: NitiUses, or'ed. A mask's layout depends on its shape. */
static int uses_at(const void *context, const NitiProgram *p, int32_t i, int k) {
  const NitiExecutable *e = context;
  const NitiOperation *o = &p->operations[i];
  const int32_t t = o->inputs[k];
  const NitiUses use = niti_use_of(o, k);
  if (use == NITI_USE_OTHER || !has_layouts(e, t)) return NITI_USE_OTHER;
  if (use == NITI_USE_GRADIENT) return NITI_USE_GRADIENT;
  if (is_reshaped(p, t)) return NITI_USE_OTHER;
  const NitiConvCall call = is_conv(o->opcode) ? call_of(e, i) : (NitiConvCall){0};
  return e->backend->kernels->mask_uses(e->backend, o, niti_tensor_shape(&p->tensors[t], p->batch), &call);
}

/* Of all operations; a reshape's reader reads its input. */
static void find_uses(const NitiExecutable *e) {
  for (int32_t i = e->fused->operation_count - 1; i >= 0; --i) {
    const NitiOperation *o = &e->fused->operations[i];
    for (int k = 0; k < NITI_OPERANDS_MAX && o->opcode != NITI_OP_NONE; ++k) {
      if (o->inputs[k] == NITI_NONE) continue;
      e->uses[o->inputs[k]] |= o->opcode == NITI_OP_RESHAPE ? e->uses[o->outputs[0]] : uses_at(e, e->fused, i, k);
    }
  }
}

static size_t workspace_of(const NitiExecutable *e, int32_t i) {
  const NitiOperation *o = &e->fused->operations[i];
  if (o->opcode == NITI_OP_INPUT && o->changes) return niti_tensor_count(&e->fused->tensors[o->outputs[0]], 1);
  if (!is_conv(o->opcode)) return 0;
  const NitiConvCall call = call_of(e, i);
  return e->backend->kernels->conv_workspace(e->backend, &call);
}

static Needs needs_of(const NitiExecutable *e) {
  Needs needs = {.arena = e->places.arena_bytes,
                 .words = align_up(((size_t)e->fused->tensor_count + (size_t)e->fused->operation_count) * sizeof(int32_t)),
                 .inputs = align_up(((size_t)e->fused->batch + 1) * (sizeof(NitiSample) + sizeof(int32_t)))};
  for (int32_t t = 0; t < e->fused->tensor_count; ++t) {
    if (lives_outside(e, t)) needs.kept += align_up(plain_bytes(e, t));
  }
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    const size_t wanted = workspace_of(e, i);
    if (wanted > needs.workspace) needs.workspace = wanted;
  }
  if (e->backend->ops->host_memory) needs.inputs = 0;
  if (e->shared && e->shared->workspace >= needs.workspace) needs.workspace = 0; /* the backend has it already */
  if (e->shared && e->shared->places.arena_bytes >= needs.arena) needs.arena = 0;
  return needs;
}

static size_t sum_of(const Needs *n) { return n->arena + n->kept + n->words + n->inputs + n->workspace; }

/* ---- compiling ---- */

static bool supports(const NitiKernels *k, NitiOpcode opcode) {
  switch (opcode) {
    case NITI_OP_NONE:
    case NITI_OP_RESHAPE: return true;
    case NITI_OP_INPUT: return k->input;
    case NITI_OP_CONV_FORWARD: return k->conv_forward;
    case NITI_OP_CONV_BACKWARD: return k->conv_backward;
    case NITI_OP_CONV_GRADIENT: return k->conv_gradient;
    case NITI_OP_BIAS_GRADIENT: return k->bias_gradient;
    case NITI_OP_RELU_FORWARD: return k->relu_forward;
    case NITI_OP_RELU_BACKWARD: return k->relu_backward;
    case NITI_OP_MAXPOOL_FORWARD: return k->maxpool_forward;
    case NITI_OP_MAXPOOL_BACKWARD: return k->maxpool_backward;
    case NITI_OP_AVGPOOL_FORWARD: return k->avgpool_forward;
    case NITI_OP_AVGPOOL_BACKWARD: return k->avgpool_backward;
    case NITI_OP_ADD: return k->add;
    case NITI_OP_DROPOUT: return k->dropout;
    case NITI_OP_LOSS: return k->loss;
    case NITI_OP_NORM_FIT: return k->norm_fit;
    case NITI_OP_NORM_FORWARD: return k->norm_forward;
    case NITI_OP_NORM_DELTA_FIT: return k->norm_delta_fit;
    case NITI_OP_NORM_BACKWARD: return k->norm_backward;
    case NITI_OP_ALL_SUM:
    case NITI_OP_ALL_SUM_WAIT: return k->all_sum_begin && k->all_sum_wait;
    case NITI_OP_UPDATE_NITI: return k->update_niti;
    case NITI_OP_GRADIENT_SQUARES: return k->gradient_squares;
    case NITI_OP_UPDATE_NITI16:
    case NITI_OP_UPDATE_SGD: return k->update_sgd;
    default: return false;
  }
}

static NitiStatus check_support(const NitiExecutable *e) {
  for (int32_t i = 0; i < e->program->operation_count; ++i) {
    const NitiOperation *o = &e->program->operations[i];
    const char *layer = o->layer > 0 ? e->program->layers[o->layer] : "network";
    const bool known = o->opcode >= 0 && o->opcode < NITI_OPCODES;
    if (!supports(e->backend->kernels, o->opcode))
      return niti_fail(NITI_ERROR_UNSUPPORTED, "%s: the %s backend has no operation %s", layer, e->backend->ops->name,
                       known ? niti_opcodes[o->opcode].name : "of that number");
    const int32_t foreign = niti_foreign_operand(e->program, o);
    if (foreign == NITI_NONE) continue;
    const NitiTensorDesc *t = &e->program->tensors[foreign];
    return niti_fail(NITI_ERROR_UNSUPPORTED, "%s: the %s backend has no operation %s on %s, %s%s", layer, e->backend->ops->name,
                     niti_opcodes[o->opcode].name, t->name, niti_dtype_name(t->dtype),
                     t->exponents == NITI_EXPONENTS_PER_CHANNEL ? " with one exponent per channel" : "");
  }
  return NITI_OK;
}

/* Gives every tensor its own memory, as if each were read until the end. */
static void place_apart(NitiExecutable *e) {
  size_t offset = 0;
  for (int32_t t = 0; t < e->fused->tensor_count; ++t) {
    if (!lives_in_arena(e, t)) continue;
    e->places.offsets[t] = (int64_t)offset;
    offset += align_up(plain_bytes(e, t));
    e->places.outlasted[t] = false;
    for (int i = 0; i < NITI_LAYOUTS; ++i) {
      if (e->places.layouts[i][t] < 0) continue;
      e->places.layouts[i][t] = (int64_t)offset;
      offset += align_up(layout_bytes(e, e->fused, t, i));
    }
  }
  e->places.arena_bytes = offset;
}

/* A reshape shares its input's memory; nothing else is shared in a plain executable. */
static void share_reshapes_alone(NitiExecutable *e) {
  place_apart(e);
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    const NitiOperation *o = &e->fused->operations[i];
    if (o->opcode != NITI_OP_RESHAPE) continue;
    const int32_t y = o->outputs[0], x = o->inputs[0];
    e->places.offsets[y] = e->places.offsets[x];
    for (int k = 0; k < NITI_LAYOUTS; ++k) e->places.layouts[k][y] = e->places.layouts[k][x];
  }
}

/* Does everything that needs no backend memory. */
static NitiStatus plan(NitiExecutable *e, const NitiProgram *program, bool plain) {
  const size_t tensors = (size_t)program->tensor_count + 1, operations = (size_t)program->operation_count + 1;
  e->program = niti_program_copy(program);
  e->fused = niti_program_copy(program);
  e->places_gradients = gradients_in_arena(program);
  e->tensors = calloc(tensors, sizeof *e->tensors);
  e->steps = calloc(operations, sizeof *e->steps);
  e->nonnegative = calloc(tensors, sizeof *e->nonnegative);
  e->uses = calloc(tensors, sizeof *e->uses);
  if (!e->program || !e->fused || !e->tensors || !e->steps || !e->nonnegative || !e->uses) return out_of_memory();
  NITI_TRY(check_support(e));
  if (!plain) NITI_TRY(niti_fuse(e->fused));
  niti_find_nonnegative(e->nonnegative, e->fused);
  find_uses(e);
  for (int32_t t = 0; plain && t < program->tensor_count; ++t) e->uses[t] |= NITI_USE_OTHER;
  const NitiPlacing placing = {.gradients = e->places_gradients, .context = e, .layout = layout_bytes, .reads = uses_at};
  NITI_TRY(niti_places_open(&e->places, e->fused, &placing));
  if (plain) share_reshapes_alone(e);
  return NITI_OK;
}

static NitiStatus allocate(NitiExecutable *e, uint8_t **out, size_t bytes) {
  void *memory = NULL;
  if (bytes == 0) return NITI_OK;
  NITI_TRY(e->backend->ops->alloc(e->backend, &memory, bytes));
  *out = memory;
  return NITI_OK;
}

static NitiStatus allocate_all(NitiExecutable *e) {
  const Needs needs = needs_of(e);
  NITI_TRY(allocate(e, &e->arena, needs.arena));
  NITI_TRY(allocate(e, &e->words, needs.words));
  NITI_TRY(allocate(e, &e->kept, needs.kept));
  NITI_TRY(allocate(e, &e->inputs, needs.inputs));
  NITI_TRY(e->backend->kernels->reserve(e->backend, needs.workspace));
  e->bytes = sum_of(&needs);
  e->workspace = needs.workspace;
  if (needs.inputs > 0 && !(e->staged = calloc(1, needs.inputs))) return out_of_memory();
  return NITI_OK;
}

static int32_t *word(const NitiExecutable *e, int32_t i) { return (int32_t *)(void *)e->words + i; }

static void locate(NitiExecutable *e, int32_t t, size_t *kept) {
  const NitiTensorDesc *desc = &e->fused->tensors[t];
  const int32_t other = shared_tensor(e, t);
  uint8_t *arena = e->arena ? e->arena : e->shared ? e->shared->arena : NULL;
  NitiTensor *tensor = &e->tensors[t];
  if (other != NITI_NONE) {
    *tensor = e->shared->tensors[other];
    return;
  }
  *tensor = (NitiTensor){.shape = niti_tensor_shape(desc, e->fused->batch), .uses = e->uses[t]};
  if (desc->exponents != NITI_EXPONENTS_NONE) tensor->exponent = word(e, t);
  if (lives_outside(e, t)) {
    tensor->data = (int8_t *)e->kept + *kept;
    *kept += align_up(plain_bytes(e, t));
  } else if (e->places.offsets[t] >= 0) {
    tensor->data = (int8_t *)arena + e->places.offsets[t];
    tensor->placed = has_layouts(e, t);
    for (int i = 0; i < NITI_LAYOUTS; ++i) {
      if (e->places.layouts[i][t] >= 0) tensor->layouts[i] = (int8_t *)arena + e->places.layouts[i][t];
    }
  }
}

/* Samples and labels, of a batch and of the image ahead, are adjacent, so that one copy uploads both. */
static void locate_inputs(NitiExecutable *e, int32_t operation) {
  const NitiOperation *o = &e->fused->operations[operation];
  if (!e->inputs) return;
  if (o->opcode == NITI_OP_INPUT) e->tensors[o->inputs[1]].data = (int8_t *)e->inputs;
  if (o->opcode == NITI_OP_LOSS)
    e->tensors[o->inputs[1]].data = (int8_t *)e->inputs + ((size_t)e->fused->batch + 1) * sizeof(NitiSample);
}

/* A reshape's output has its input's exponent; a tensor that only a fused operation would have written, its successor's. */
static void share_exponents(NitiExecutable *e, int32_t i) {
  const NitiOperation *o = &e->fused->operations[i];
  const int32_t before = e->program->operations[i].outputs[0], now = o->outputs[0];
  if (o->opcode == NITI_OP_RESHAPE) e->tensors[now].exponent = e->tensors[o->inputs[0]].exponent;
  if (before != now) e->tensors[before].exponent = e->tensors[now].exponent;
}

/* A product's gradient has the exponents of the product's operands; another has its own. */
static void locate_exponents(const NitiExecutable *e, int32_t gradient, const int32_t *out[2]) {
  out[0] = e->tensors[gradient].exponent;
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    const NitiOperation *o = &e->fused->operations[i];
    if (o->opcode != NITI_OP_CONV_GRADIENT || o->outputs[0] != gradient) continue;
    for (int k = 0; k < 2; ++k) out[k] = e->tensors[o->inputs[k]].exponent;
  }
}

/* Elements per image of what an operation rounds: of the loss, its delta. */
static size_t image_of(const NitiExecutable *e, const NitiOperation *o) {
  const int32_t t = o->outputs[o->opcode == NITI_OP_LOSS];
  return t == NITI_NONE ? 0 : niti_tensor_count(&e->fused->tensors[t], 1);
}

static void connect(NitiExecutable *e, int32_t i) {
  const NitiOperation *o = &e->fused->operations[i];
  NitiStep *step = &e->steps[i];
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->inputs[k] != NITI_NONE) step->inputs[k] = e->tensors[o->inputs[k]];
    if (o->outputs[k] != NITI_NONE) step->outputs[k] = e->tensors[o->outputs[k]];
  }
  step->rq = (NitiRequantise){o->rounding.mode, o->rounding.purpose, o->rounding.stream, word(e, e->fused->tensor_count + i),
                              o->rounding.clip, image_of(e, o)};
  step->pool = o->pool; /* which pools alone read */
  int32_t gradient = NITI_NONE;
  if (o->opcode == NITI_OP_CONV_GRADIENT) gradient = o->outputs[0];
  if (o->phase == NITI_PHASE_UPDATE) gradient = o->inputs[1];
  if (gradient == NITI_NONE) return;
  const NitiTensorDesc *desc = &e->fused->tensors[gradient];
  step->gradient = (NitiGradient){
      .data = e->tensors[gradient].data, .bits = 8 * (int)niti_dtype_bytes(desc->dtype), .count = niti_tensor_count(desc, 1)};
  locate_exponents(e, gradient, step->gradient.exponents);
}

/* Of the sums over all ranks that begin with operation `first` in a row, those of one dtype follow each other in memory, so that
 * one exchange takes them all. */
static void locate_sums(NitiExecutable *e, int32_t first, int32_t end, NitiDtype dtype, size_t *kept) {
  for (int32_t i = first; i < end; ++i) {
    const int32_t t = e->fused->operations[i].inputs[0];
    if (e->fused->tensors[t].dtype == dtype) locate(e, t, kept);
  }
}

/* The end of the row of such sums that operation i belongs to; i: it is none. */
static int32_t end_of_sums(const NitiExecutable *e, int32_t i) {
  while (i < e->fused->operation_count && e->fused->operations[i].opcode == NITI_OP_ALL_SUM) ++i;
  return i;
}

static void locate_all(NitiExecutable *e) {
  size_t kept = 0;
  for (int32_t i = 0, end; i<e->fused->operation_count; i = end> i ? end : i + 1) {
    end = end_of_sums(e, i);
    locate_sums(e, i, end, NITI_DTYPE_S32, &kept);
    locate_sums(e, i, end, NITI_DTYPE_S64, &kept);
  }
  for (int32_t t = 0; t < e->fused->tensor_count; ++t) {
    if (!e->tensors[t].data) locate(e, t, &kept);
  }
}

static void connect_all(NitiExecutable *e) {
  locate_all(e);
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    locate_inputs(e, i);
    share_exponents(e, i);
    connect(e, i);
  }
}

static NitiStatus prepare_call(NitiExecutable *e, NitiConvCall *call) {
  const NitiKernels *k = e->backend->kernels;
  const NitiStatus status = k->conv_prepare ? k->conv_prepare(e->backend, call) : NITI_OK;
  if (status != NITI_OK) call->shape.n = 0; /* not prepared for this batch */
  return status;
}

static NitiStatus prepare(NitiExecutable *e, int32_t i, int variant, int32_t n) {
  const NitiKernels *k = e->backend->kernels;
  NitiConvCall *call = &e->steps[i].conv[variant];
  if (k->conv_release) k->conv_release(e->backend, call);
  *call = call_of(e, i);
  if (n != call->shape.n) set_images(e, call, n);
  return prepare_call(e, call);
}

static NitiStatus prepare_all(NitiExecutable *e, int variant, int32_t n) {
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    if (is_conv(e->fused->operations[i].opcode)) NITI_TRY(prepare(e, i, variant, n));
  }
  return NITI_OK;
}

static NitiStatus compile(NitiExecutable *e, const NitiProgram *program, bool plain) {
  NITI_TRY(plan(e, program, plain));
  NITI_TRY(allocate_all(e));
  connect_all(e);
  e->batch = program->batch;
  return prepare_all(e, WHOLE, program->batch);
}

NitiStatus niti_backend_compile(NitiExecutable **out, NitiBackend *backend, const NitiProgram *program,
                                const NitiCompileOptions *options) {
  NitiExecutable *e = calloc(1, sizeof *e);
  *out = NULL;
  if (!e) return out_of_memory();
  e->backend = backend;
  e->shared = options ? options->shared : NULL;
  const NitiStatus status = compile(e, program, options && options->plain);
  if (status != NITI_OK) {
    niti_executable_close(e);
    return status;
  }
  *out = e;
  return NITI_OK;
}

NitiStatus niti_backend_estimate(size_t *bytes, NitiBackend *backend, const NitiProgram *program,
                                 const NitiCompileOptions *options) {
  NitiExecutable *e = calloc(1, sizeof *e);
  *bytes = 0;
  if (!e) return out_of_memory();
  e->backend = backend;
  e->shared = options ? options->shared : NULL;
  const NitiStatus status = plan(e, program, options && options->plain);
  if (status == NITI_OK) {
    const Needs needs = needs_of(e);
    *bytes = sum_of(&needs);
  }
  niti_executable_close(e);
  return status;
}

static void release_calls(NitiExecutable *e) {
  for (int32_t i = 0; e->steps && e->fused && e->backend->kernels->conv_release && i < e->fused->operation_count; ++i) {
    for (int v = 0; v < VARIANTS; ++v) e->backend->kernels->conv_release(e->backend, &e->steps[i].conv[v]);
  }
}

void niti_executable_close(NitiExecutable *e) {
  if (!e) return;
  const NitiBackendOps *ops = e->backend->ops;
  if (e->recordings) e->backend->kernels->close_recordings(e->backend, e->recordings);
  release_calls(e);
  uint8_t *owned[] = {e->arena, e->kept, e->words, e->inputs};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; ++i) {
    if (owned[i]) ops->release(e->backend, owned[i]);
  }
  niti_places_close(&e->places);
  niti_program_close(e->program);
  niti_program_close(e->fused);
  free(e->tensors);
  free(e->steps);
  free(e->nonnegative);
  free(e->uses);
  free(e->staged);
  free(e);
}

const NitiProgram *niti_executable_program(const NitiExecutable *e) { return e->program; }

size_t niti_executable_bytes(const NitiExecutable *e) { return e->bytes; }

const char *niti_executable_kernel(const NitiExecutable *e, int32_t i) {
  const NitiOpcode opcode = e->fused->operations[i].opcode;
  if (opcode == NITI_OP_NONE) return "fused";
  return is_conv(opcode) ? e->backend->kernels->conv_kernel(e->backend, &e->steps[i].conv[WHOLE]) : "";
}

/* ---- ways ---- */

int niti_executable_ways(const NitiExecutable *e, int32_t i, char convolution[NITI_CONVOLUTION_MAX],
                         NitiWay ways[NITI_WAYS_MAX]) {
  if (i < 0 || i >= e->fused->operation_count || !is_conv(e->fused->operations[i].opcode)) return 0;
  const NitiConvCall *call = &e->steps[i].conv[WHOLE];
  niti_tuning_name(convolution, call);
  return e->backend->kernels->conv_ways(e->backend, call, ways);
}

NitiStatus niti_executable_choose(NitiExecutable *e, int32_t i, int number) {
  const NitiKernels *k = e->backend->kernels;
  if (i < 0 || i >= e->fused->operation_count || !is_conv(e->fused->operations[i].opcode))
    return niti_fail(NITI_ERROR_ARGUMENT, "operation %d is not a convolution", i);
  NitiConvCall *call = &e->steps[i].conv[WHOLE];
  NITI_TRY(e->backend->ops->synchronise(e->backend));
  if (e->recordings) k->close_recordings(e->backend, e->recordings); /* they run the former way */
  e->recordings = NULL;
  if (k->conv_release) k->conv_release(e->backend, call);
  call->shape.n = e->fused->batch;
  call->way = number;
  call->tuned = false;
  return prepare_call(e, call);
}

bool niti_executable_tuned(const NitiExecutable *e, char text[NITI_TUNED_MAX]) {
  const NitiTuningFacts *facts = niti_backend_tuning(e->backend);
  int32_t convolutions = 0, tuned = 0;
  text[0] = 0;
  if (!facts || facts->entries == 0) return false;
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    if (!is_conv(e->fused->operations[i].opcode)) continue;
    ++convolutions;
    tuned += e->steps[i].conv[WHOLE].tuned;
  }
  (void)snprintf(text, NITI_TUNED_MAX, "%d of %d convolutions as measured in %s", tuned, convolutions, facts->path);
  return true;
}

/* ---- running ---- */

typedef struct Run {
  NitiExecutable *executable;
  int32_t first, end;
  const NitiBindings *bindings;
} Run;

#ifndef NDEBUG
/* Whether an output does not overlap the inputs whose elements are read, or is exactly an input that the operation may overwrite.
 */
static bool is_apart(const NitiExecutable *e, int32_t i, int output, int input) {
  const NitiOperation *o = &e->fused->operations[i];
  const int32_t t = o->outputs[output], u = o->inputs[input];
  if (t == NITI_NONE || u == NITI_NONE || t == u) return true;
  if (!(uses_at(e, e->fused, i, input) & NITI_USE_OTHER)) return true;
  const int8_t *y = e->steps[i].outputs[output].data, *x = e->steps[i].inputs[input].data;
  if (!x || (x == y && niti_opcodes[o->opcode].in_place)) return true;
  return y + bytes_at(e, t, e->batch) <= x || x + bytes_at(e, u, e->batch) <= y;
}

/* Checks the contract of kernels.h as far as possible before an operation runs. check_run has checked the bindings. */
static void check_step(const NitiExecutable *e, int32_t i) {
  const NitiOperation *o = &e->fused->operations[i];
  const NitiStep *s = &e->steps[i];
  if (o->opcode == NITI_OP_NONE) return;
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    assert(o->inputs[k] == NITI_NONE || e->fused->tensors[o->inputs[k]].role == NITI_ROLE_INPUT || s->inputs[k].data);
    assert(o->outputs[k] == NITI_NONE || s->outputs[k].data);
    for (int j = 0; j < NITI_OPERANDS_MAX; ++j) assert(is_apart(e, i, k, j));
  }
  const NitiConv *conv = &s->conv[e->batch == e->fused->batch ? WHOLE : WHOLE + 1].shape;
  assert(niti_operands_fit(o->opcode, s->outputs, s->inputs, conv, &s->pool));
}
#else
#define check_step(e, i) ((void)0)
#endif

static NitiTensor *optional(const int32_t *operands, NitiTensor *tensors, int k) {
  return operands[k] == NITI_NONE ? NULL : &tensors[k];
}

/* The sums of one dtype in a row, from the first one's memory to the last one's. */
static void sum_row(NitiExecutable *e, int32_t first, int32_t end, NitiDtype dtype) {
  const size_t element = niti_dtype_bytes(dtype);
  int8_t *begin = NULL;
  size_t bytes = 0;
  for (int32_t i = first; i < end; ++i) {
    const int32_t t = e->fused->operations[i].inputs[0];
    if (e->fused->tensors[t].dtype != dtype) continue;
    if (!begin) begin = e->tensors[t].data;
    bytes = (size_t)(e->tensors[t].data - begin) + plain_bytes(e, t);
  }
  if (begin) e->backend->kernels->all_sum_begin(e->backend, begin, bytes / element, 8 * (int)element);
}

/* The last of a row begins all, whatever range is run, so that all ranks exchange the same. */
static void all_sum(NitiExecutable *e, int32_t i) {
  const int32_t end = end_of_sums(e, i);
  int32_t first = i;
  if (e->backend->together.whole == 0 || end > i + 1) return;
  while (first > 0 && e->fused->operations[first - 1].opcode == NITI_OP_ALL_SUM) --first;
  sum_row(e, first, end, NITI_DTYPE_S32);
  sum_row(e, first, end, NITI_DTYPE_S64);
}

/* Runs the updates `sgd` or `niti16` from operation i on, as many as one call takes; returns their number. */
static int run_updates(NitiExecutable *e, int32_t i, int32_t end) {
  NitiSgdUpdate updates[NITI_UPDATES_MAX];
  int count = 0;
  for (; count < NITI_UPDATES_MAX && i + count < end; ++count) {
    const NitiOperation *o = &e->fused->operations[i + count];
    NitiStep *s = &e->steps[i + count];
    if (!is_wide_update(o->opcode)) break;
    check_step(e, i + count);
    updates[count] = (NitiSgdUpdate){.w = s->outputs,
                                     .master = optional(o->outputs, s->outputs, 2),
                                     .velocity = &s->outputs[3],
                                     .gradient = &s->gradient,
                                     .scalars = &o->sgd,
                                     .rq = &s->rq,
                                     .squares = (const int64_t *)(const void *)s->inputs[4].data};
  }
  e->backend->kernels->update_sgd(e->backend, updates, count);
  return count;
}

/* The same of updates `niti`. */
static int run_weight_updates(NitiExecutable *e, int32_t i, int32_t end) {
  NitiWeightUpdate updates[NITI_UPDATES_MAX];
  int count = 0;
  for (; count < NITI_UPDATES_MAX && i + count < end; ++count) {
    const NitiOperation *o = &e->fused->operations[i + count];
    NitiStep *s = &e->steps[i + count];
    if (o->opcode != NITI_OP_UPDATE_NITI) break;
    check_step(e, i + count);
    updates[count] = (NitiWeightUpdate){.w = s->outputs, .gradient = &s->gradient, .scalar = o->scalar};
  }
  e->backend->kernels->update_niti(e->backend, updates, count);
  return count;
}

/* The same of sums of squares. */
static int run_squares(NitiExecutable *e, int32_t i, int32_t end) {
  NitiSquareSum squares[NITI_UPDATES_MAX];
  int count = 0;
  for (; count < NITI_UPDATES_MAX && i + count < end; ++count) {
    const NitiStep *s = &e->steps[i + count];
    if (e->fused->operations[i + count].opcode != NITI_OP_GRADIENT_SQUARES) break;
    check_step(e, i + count);
    squares[count] = (NitiSquareSum){.gradient = &s->gradient,
                                     .before = (const int64_t *)(const void *)s->inputs[0].data,
                                     .total = (int64_t *)(void *)s->outputs[0].data};
  }
  e->backend->kernels->gradient_squares(e->backend, squares, count);
  return count;
}

static void complete(const NitiExecutable *e, const NitiTensor *t) {
  if (t->placed && (t->layouts[0] || t->layouts[1])) e->backend->kernels->complete(e->backend, t);
}

/* Runs operation i, perhaps with those that follow it before `end`; returns their number. */
static int run_step(NitiExecutable *e, int32_t i, int32_t end, const NitiBindings *b) {
  const NitiOperation *o = &e->fused->operations[i];
  const NitiKernels *k = e->backend->kernels;
  NitiBackend *backend = e->backend;
  NitiStep *s = &e->steps[i];
  NitiTensor *x = s->inputs, *y = s->outputs;
  const NitiConvCall *conv = &s->conv[e->batch == e->fused->batch ? WHOLE : WHOLE + 1];
  const bool host = backend->ops->host_memory;
  check_step(e, i);
  switch (o->opcode) {
    case NITI_OP_INPUT:
      k->input(backend, y, b->pixels, b->source, host ? b->samples : (const NitiSample *)(const void *)x[1].data, &x[2],
               o->changes);
      break;
    case NITI_OP_CONV_FORWARD: k->conv_forward(backend, y, x, &x[1], optional(o->inputs, x, 2), conv, &s->rq); break;
    case NITI_OP_CONV_BACKWARD: k->conv_backward(backend, y, x, &x[1], optional(o->inputs, x, 2), conv, &s->rq); break;
    case NITI_OP_CONV_GRADIENT: k->conv_gradient(backend, &s->gradient, x, &x[1], conv); break;
    case NITI_OP_BIAS_GRADIENT: k->bias_gradient(backend, y, x); break;
    case NITI_OP_RELU_FORWARD: k->relu_forward(backend, y, x, o->relu_max); break;
    case NITI_OP_RELU_BACKWARD: k->relu_backward(backend, y, x, &x[1], o->relu_max); break;
    case NITI_OP_MAXPOOL_FORWARD: k->maxpool_forward(backend, y, (uint8_t *)y[1].data, x, &s->pool); break;
    case NITI_OP_MAXPOOL_BACKWARD:
      k->maxpool_backward(backend, y, x, (const uint8_t *)x[1].data, optional(o->inputs, x, 2), &s->pool, &s->rq);
      break;
    case NITI_OP_AVGPOOL_FORWARD: k->avgpool_forward(backend, y, x, &s->pool, &s->rq); break;
    case NITI_OP_AVGPOOL_BACKWARD: k->avgpool_backward(backend, y, x, &s->pool, &s->rq); break;
    case NITI_OP_ADD: k->add(backend, y, x, &x[1], optional(o->inputs, x, 2), o->relu, &s->rq); break;
    case NITI_OP_DROPOUT: k->dropout(backend, y, x, o->rounding.stream, &o->dropout); break;
    case NITI_OP_LOSS:
      k->loss(backend, optional(o->outputs, y, 1), (NitiMetrics *)(void *)y->data, x,
              host ? b->labels : (const int32_t *)(const void *)x[1].data, o->loss, &s->rq);
      break;
    case NITI_OP_NORM_FIT: k->norm_fit(backend, y, &x[3], optional(o->outputs, y, 2), x, &x[1], &x[2], o->norm.centred); break;
    case NITI_OP_NORM_FORWARD: k->norm_forward(backend, y, x, &x[1], o->relu, &s->rq); break;
    case NITI_OP_NORM_DELTA_FIT: k->norm_delta_fit(backend, y, &y[1], &y[2], &y[3], x, &x[1], &x[2], &x[3]); break;
    case NITI_OP_NORM_BACKWARD: k->norm_backward(backend, y, x, &x[1], &x[2], &s->rq); break;
    case NITI_OP_ALL_SUM: all_sum(e, i); break;
    case NITI_OP_ALL_SUM_WAIT: k->all_sum_wait(backend); break;
    case NITI_OP_UPDATE_NITI: return run_weight_updates(e, i, end);
    case NITI_OP_GRADIENT_SQUARES: return run_squares(e, i, end);
    case NITI_OP_UPDATE_NITI16:
    case NITI_OP_UPDATE_SGD: return run_updates(e, i, end);
    default: return 1; /* fused into another operation, or nothing to do */
  }
  for (int j = 0; j < NITI_OPERANDS_MAX; ++j) complete(e, &y[j]);
  return 1;
}

static void enqueue(void *context) {
  const Run *run = context;
  NitiExecutable *e = run->executable;
  int64_t *mark = run->bindings->marks;
  for (int32_t r = 0; r < run->bindings->repeat || r == 0; ++r) {
    if (mark) e->backend->kernels->mark(e->backend, mark);
    for (int32_t i = run->first, done; i < run->end; i += done) {
      done = run_step(e, i, mark ? i + 1 : run->end, run->bindings);
      if (mark) e->backend->kernels->mark(e->backend, mark + (i - run->first) + 1);
    }
  }
}

static NitiStatus set_batch(NitiExecutable *e, int32_t n) {
  if (n == e->batch) return NITI_OK;
  e->batch = 0; /* until every step is prepared, which may fail */
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    NitiStep *s = &e->steps[i];
    const NitiOperation *o = &e->fused->operations[i];
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
      if (o->inputs[k] != NITI_NONE) s->inputs[k].shape = niti_tensor_shape(&e->fused->tensors[o->inputs[k]], n);
      if (o->outputs[k] != NITI_NONE) s->outputs[k].shape = niti_tensor_shape(&e->fused->tensors[o->outputs[k]], n);
    }
    s->pool.n = n;
    if (is_conv(o->opcode) && n != e->fused->batch && s->conv[WHOLE + 1].shape.n != n) NITI_TRY(prepare(e, i, WHOLE + 1, n));
  }
  e->batch = n;
  return NITI_OK;
}

static NitiStatus check_images(const NitiExecutable *e, const NitiOperation *o, const NitiBindings *b) {
  const int32_t channels = (int32_t)e->fused->tensors[o->outputs[0]].dims[3];
  if (!b->pixels || !b->samples)
    return niti_fail(NITI_ERROR_ARGUMENT, "%s is NULL, and operation input reads it", b->pixels ? "samples" : "pixels");
  if (b->source.h < 1 || b->source.w < 1 || b->source.c != channels)
    return niti_fail(NITI_ERROR_ARGUMENT, "source images of %dx%dx%d (expected %d channels)", b->source.h, b->source.w,
                     b->source.c, channels);
  return NITI_OK;
}

static NitiStatus check_labels(const NitiExecutable *e, const NitiOperation *o, const NitiBindings *b) {
  const int32_t classes = e->tensors[o->inputs[0]].shape.c;
  if (!b->labels) return niti_fail(NITI_ERROR_ARGUMENT, "labels is NULL, and operation loss reads it");
  for (int32_t n = 0; n < b->batch + b->ahead; ++n) {
    if (b->labels[n] < 0 || niti_label_class(b->labels[n]) >= classes || niti_label_share(b->labels[n]) > NITI_SHARE_MAX)
      return niti_fail(NITI_ERROR_ARGUMENT, "labels[%d] is %d (expected 0 to %d)", n, b->labels[n], classes - 1);
  }
  return NITI_OK;
}

static NitiStatus check_mu(const NitiExecutable *e, const NitiOperation *o, const NitiBindings *b) {
  const int64_t mu = b->scalars[o->scalar];
  if (mu >= 0 && mu <= NITI_MU_MAX * NITI_MU_UNITS) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT, "%s is %lld millionths (expected 0 to 30000000)", e->fused->scalars[o->scalar],
                   (long long)mu);
}

static NitiStatus check_scalar(const NitiExecutable *e, int32_t scalar, const NitiBindings *b, int64_t least, int64_t most) {
  const int64_t value = scalar == NITI_NONE ? least : b->scalars[scalar];
  if (value >= least && value <= most) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT, "%s is %lld (expected %lld to %lld)", e->fused->scalars[scalar], (long long)value,
                   (long long)least, (long long)most);
}

static NitiStatus check_sgd(const NitiExecutable *e, const NitiOperation *o, const NitiBindings *b) {
  const int64_t unit = NITI_SGD_UNITS;
  NITI_TRY(check_scalar(e, o->sgd.rate, b, 0, 1000 * unit));
  NITI_TRY(check_scalar(e, o->sgd.momentum, b, 0, unit - 1));
  NITI_TRY(check_scalar(e, o->sgd.decay, b, 0, unit));
  NITI_TRY(check_scalar(e, o->sgd.clip, b, 1, NITI_CLIP_NORM_MAX));
  return check_scalar(e, o->sgd.images, b, 1, (int64_t)1 << 24);
}

/* Checks that everything that operations of the range read is bound. */
static NitiStatus check_bindings(const NitiExecutable *e, int32_t first, int32_t end, const NitiBindings *b) {
  for (int32_t i = first; i < end; ++i) {
    const NitiOperation *o = &e->fused->operations[i];
    if (o->opcode == NITI_OP_INPUT) NITI_TRY(check_images(e, o, b));
    if (o->opcode == NITI_OP_LOSS) NITI_TRY(check_labels(e, o, b));
    if (o->opcode == NITI_OP_UPDATE_NITI) NITI_TRY(check_mu(e, o, b));
    if (is_wide_update(o->opcode)) NITI_TRY(check_sgd(e, o, b));
  }
  return NITI_OK;
}

static NitiStatus check_run(const NitiExecutable *e, int32_t first, int32_t end, const NitiBindings *b) {
  if (first < 0 || first > end || end > e->fused->operation_count)
    return niti_fail(NITI_ERROR_ARGUMENT, "operations %d .. %d: the program has %d", first, end, e->fused->operation_count);
  if (b->batch < 1 || b->batch > e->fused->batch)
    return niti_fail(NITI_ERROR_ARGUMENT, "a batch of %d images (expected 1 to %d)", b->batch, e->fused->batch);
  if (b->whole < 0 || b->whole > e->fused->whole || (b->whole > 0 && (b->first < 0 || b->first > b->whole - b->batch)))
    return niti_fail(NITI_ERROR_ARGUMENT, "images %d .. %d of a batch of %d (expected at most %d)", b->first,
                     b->first + b->batch - 1, b->whole, e->fused->whole);
  return check_bindings(e, first, end, b);
}

/* Uploads samples and labels to a device that cannot read host memory. */
static void stage_inputs(NitiExecutable *e, const NitiBindings *b) {
  const size_t count = (size_t)b->batch + b->ahead, labels = count * sizeof *b->labels;
  const size_t samples = ((size_t)e->fused->batch + 1) * sizeof *b->samples;
  if (!e->inputs || (!b->samples && !b->labels)) return;
  if (b->samples) memcpy(e->staged, b->samples, count * sizeof *b->samples);
  if (b->labels) memcpy(e->staged + samples, b->labels, labels);
  e->backend->ops->upload(e->backend, e->inputs, e->staged, samples + labels);
}

NitiStatus niti_executable_run(NitiExecutable *e, int32_t first, int32_t end, const NitiBindings *b) {
  const NitiKernels *k = e->backend->kernels;
  const NitiStatus status = check_run(e, first, end, b);
  assert(status == NITI_OK); /* an error of the caller, which niti_error() describes */
  if (status != NITI_OK) return status;
  NITI_TRY(set_batch(e, b->batch));
  e->backend->together = (NitiTogether){e->backend->together.ranks, b->whole, b->first, b->idle, b->ahead};
  k->begin_step(e->backend, b->seed, b->step, b->scalars);
  stage_inputs(e, b);
  Run run = {e, first, end, b};
  if (!k->replay) {
    enqueue(&run);
    return NITI_OK;
  }
  const NitiRecordingKey key = {first,    end,      b->batch, b->repeat, b->pixels, b->source,
                                b->marks, b->whole, b->first, b->idle,   b->ahead};
  return k->replay(e->backend, &e->recordings, &key, enqueue, &run);
}

/* ---- tensors ---- */

static NitiStatus find_memory(NitiTensor *out, const NitiExecutable *e, int32_t t, int32_t n, bool elements) {
  if (t < 0 || t >= e->fused->tensor_count)
    return niti_fail(NITI_ERROR_ARGUMENT, "tensor %d: the program has %d", t, e->fused->tensor_count);
  if (n < 0 || n > e->fused->batch)
    return niti_fail(NITI_ERROR_ARGUMENT, "a batch of %d: expected at most %d", n, e->fused->batch);
  *out = e->tensors[t];
  if (elements && !out->data)
    return niti_fail(NITI_ERROR_ARGUMENT, "tensor %s has no memory: only a fused operation used it", e->fused->tensors[t].name);
  return NITI_OK;
}

NitiStatus niti_executable_read(NitiExecutable *e, int32_t t, int32_t n, void *elements, int32_t *exponent) {
  NitiTensor tensor = {0};
  NITI_TRY(find_memory(&tensor, e, t, n, elements));
  if (elements && e->places.outlasted[t])
    e->backend->kernels->download_elements(e->backend, elements, &tensor, n);
  else if (elements)
    e->backend->ops->download(e->backend, elements, tensor.data, bytes_at(e, t, n));
  if (exponent && tensor.exponent) e->backend->ops->download(e->backend, exponent, tensor.exponent, sizeof *exponent);
  return NITI_OK;
}

NitiStatus niti_executable_write(NitiExecutable *e, int32_t t, int32_t n, const void *elements, const int32_t *exponent) {
  NitiTensor tensor = {0};
  NITI_TRY(find_memory(&tensor, e, t, n, elements));
  if (elements) {
    e->backend->ops->upload(e->backend, tensor.data, elements, bytes_at(e, t, n));
    tensor.shape.n = e->fused->tensors[t].batched ? n : tensor.shape.n;
    complete(e, &tensor);
  }
  if (exponent && tensor.exponent) e->backend->ops->upload(e->backend, tensor.exponent, exponent, sizeof *exponent);
  for (int32_t i = 0; i < e->fused->operation_count && e->backend->kernels->conv_forget; ++i) {
    if (e->fused->operations[i].opcode != NITI_OP_CONV_FORWARD || e->fused->operations[i].inputs[1] != t) continue;
    for (int v = 0; v < VARIANTS; ++v) e->backend->kernels->conv_forget(e->backend, &e->steps[i].conv[v]);
  }
  return NITI_OK;
}

bool niti_executable_is_idle(const NitiExecutable *e, int32_t operation) {
  if (operation < 0 || operation >= e->fused->operation_count) return true;
  const NitiOpcode opcode = e->fused->operations[operation].opcode;
  return opcode == NITI_OP_NONE || opcode == NITI_OP_RESHAPE;
}

NitiStatus niti_executable_shift(NitiExecutable *e, int32_t operation, int32_t *shift) {
  int32_t prediction = 0;
  if (operation < 0 || operation >= e->fused->operation_count)
    return niti_fail(NITI_ERROR_ARGUMENT, "operation %d: the program has %d", operation, e->fused->operation_count);
  e->backend->ops->download(e->backend, &prediction, e->steps[operation].rq.prediction, sizeof prediction);
  *shift = niti_shift_prediction_last(prediction);
  return NITI_OK;
}

NitiStatus niti_executable_stats(NitiExecutable *e, int32_t t, NitiTensorStats *out) {
  NitiTensor tensor = {0};
  NITI_TRY(find_memory(&tensor, e, t, 0, true));
  if (e->fused->tensors[t].dtype != NITI_DTYPE_S8)
    return niti_fail(NITI_ERROR_ARGUMENT, "tensor %s is not s8", e->fused->tensors[t].name);
  e->backend->kernels->stats(e->backend, out, &tensor);
  return NITI_OK;
}
