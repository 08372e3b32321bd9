/* Compiling a program for a device: what it needs, where every tensor lies, and steps with their operands in memory. */
#include <stdlib.h>
#include <string.h>

#include "backend/contract.h"
#include "backend/executable.h"
#include "backend/tuning.h"
#include "base/shift_prediction.h"
#include "base/size.h"
#include "program/bounds.h"

enum { BESIDE_LEAST = 64 << 20 /* bytes more for weight gradients beside the rest, where half as much again is less */ };

typedef struct Needs {
  size_t arena, kept, words, inputs, workspace;
} Needs;

static size_t align_up(size_t bytes) { return niti_round_up(bytes, NITI_ALIGN); }

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for compiling a program"); }

static bool is_kept(NitiRole role) {
  return role == NITI_ROLE_WEIGHT || role == NITI_ROLE_STATE || role == NITI_ROLE_CONSTANT || role == NITI_ROLE_METRIC;
}

/* ---- what a program needs ---- */

/* The same tensor in the executable whose memory this one shares, or NITI_NONE. */
static int32_t shared_tensor(const NitiExecutable *e, int32_t t) {
  const NitiTensorDesc *desc = &e->fused->tensors[t];
  if (!e->shared || !is_kept(desc->role)) return NITI_NONE;
  const int32_t found = niti_program_find(e->shared->program, desc->name);
  if (found == NITI_NONE) return NITI_NONE;
  const NitiTensorDesc *other = &e->shared->program->tensors[found];
  const bool same = other->dtype == desc->dtype && memcmp(other->dims, desc->dims, sizeof desc->dims) == 0;
  return same ? found : NITI_NONE;
}

size_t niti_executable_bytes_at(const NitiExecutable *e, int32_t t, int32_t n) {
  const NitiTensorDesc *desc = &e->fused->tensors[t];
  return niti_tensor_count(desc, n) * niti_dtype_bytes(desc->dtype);
}

static size_t plain_bytes(const NitiExecutable *e, int32_t t) { return niti_executable_bytes_at(e, t, e->fused->batch); }

/* Gradients take the memory of activations that backward is done with; those that ranks add up lie beside each other instead. */
static bool gradients_in_arena(const NitiProgram *p) {
  for (int32_t i = 0; i < p->operation_count; ++i) {
    if (p->operations[i].opcode == NITI_OP_ALL_SUM) return false;
  }
  return true;
}

static bool lives_in_arena(const NitiExecutable *e, int32_t t) {
  const NitiRole role = e->fused->tensors[t].role;
  return niti_role_in_arena(role) || (role == NITI_ROLE_GRADIENT && e->places_gradients);
}

static bool lives_outside(const NitiExecutable *e, int32_t t) {
  const NitiRole role = e->fused->tensors[t].role;
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

NitiConvCall niti_executable_call(const NitiExecutable *e, int32_t operation) {
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
int niti_executable_uses(const void *context, const NitiProgram *p, int32_t i, int k) {
  const NitiExecutable *e = context;
  const NitiOperation *o = &p->operations[i];
  const int32_t t = o->inputs[k];
  const NitiUses use = niti_use_of(o, k);
  if (use == NITI_USE_OTHER || !has_layouts(e, t)) return NITI_USE_OTHER;
  if (use == NITI_USE_GRADIENT) return NITI_USE_GRADIENT;
  if (is_reshaped(p, t)) return NITI_USE_OTHER;
  const NitiConvCall call = niti_is_conv(o->opcode) ? niti_executable_call(e, i) : (NitiConvCall){0};
  return e->backend->kernels->mask_uses(e->backend, o, niti_tensor_shape(&p->tensors[t], p->batch), &call);
}

/* Of all operations; a reshape's reader reads its input. */
static void find_uses(const NitiExecutable *e) {
  for (int32_t i = e->fused->operation_count - 1; i >= 0; --i) {
    const NitiOperation *o = &e->fused->operations[i];
    for (int k = 0; k < NITI_OPERANDS_MAX && o->opcode != NITI_OP_NONE; ++k) {
      if (o->inputs[k] == NITI_NONE) continue;
      e->uses[o->inputs[k]] |= o->opcode == NITI_OP_RESHAPE ? e->uses[o->outputs[0]] : niti_executable_uses(e, e->fused, i, k);
    }
  }
}

/* Beside the arena. */
static size_t workspace_of(const NitiExecutable *e, int32_t i) {
  const NitiOperation *o = &e->fused->operations[i];
  if (o->opcode == NITI_OP_INPUT && o->changes) return niti_tensor_count(&e->fused->tensors[o->outputs[0]], 1);
  if (!niti_is_conv(o->opcode) || e->backend->kernels->takes_workspace) return 0;
  const NitiConvCall call = niti_executable_call(e, i);
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

/* Packed weights have their own memory, workspaces one for all. */
static size_t place_temporaries_apart(NitiExecutable *e, size_t offset) {
  size_t workspace = 0;
  for (int32_t i = 0; i < 2 * e->fused->operation_count; i += 2) {
    e->places.temporaries[i] = (int64_t)offset;
    offset += align_up(e->temporaries[i].bytes);
    if (e->temporaries[i + 1].bytes > workspace) workspace = e->temporaries[i + 1].bytes;
  }
  for (int32_t i = 1; i < 2 * e->fused->operation_count; i += 2) e->places.temporaries[i] = (int64_t)offset;
  return offset + align_up(workspace);
}

/* Gives every tensor its own memory, as if each were read until the end, and every layout that an operation reads: the caller may
 * write what no operation does. */
static void place_apart(NitiExecutable *e) {
  size_t offset = 0;
  for (int32_t t = 0; t < e->fused->tensor_count; ++t) {
    if (!lives_in_arena(e, t)) continue;
    e->places.offsets[t] = (int64_t)offset;
    offset += align_up(plain_bytes(e, t));
    e->places.outlasted[t] = false;
    for (int i = 0; i < NITI_LAYOUTS; ++i) {
      const size_t bytes = layout_bytes(e, e->fused, t, i);
      e->places.layouts[i][t] = bytes > 0 ? (int64_t)offset : -1;
      offset += align_up(bytes);
    }
  }
  e->places.arena_bytes = place_temporaries_apart(e, offset);
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

static bool pools_norm(const void *context, const NitiOperation *norm, const NitiPool *pool) {
  const NitiBackend *backend = context;
  return backend->kernels->norm_pool_serves(backend, norm, pool);
}

static NitiStatus fuse(NitiExecutable *e) {
  NITI_TRY(niti_fuse(e->fused));
  return e->backend->kernels->norm_pool_serves ? niti_fuse_pools(e->fused, pools_norm, e->backend) : NITI_OK;
}

static NitiStatus place_in_order(NitiExecutable *e) {
  NitiPlacing placing = {
      .gradients = e->places_gradients, .context = e, .layout = layout_bytes, .reads = niti_executable_uses, .ends = e->ends};
  NITI_TRY(niti_executable_find_temporaries(e, &placing));
  return niti_places_open(&e->places, e->fused, &placing);
}

static void forget_places(NitiExecutable *e) {
  niti_places_close(&e->places);
  free(e->temporaries);
  e->temporaries = NULL;
}

/* Where the device can, with weight gradients beside all of backward or, if that takes too much memory, a few more gradients. */
static NitiStatus place(NitiExecutable *e, bool plain) {
  NITI_TRY(place_in_order(e));
  const size_t in_order = e->places.arena_bytes, more = in_order / 2 > BESIDE_LEAST ? in_order / 2 : BESIDE_LEAST;
  for (int window = 0; !plain && e->backend->kernels->begin_aside; window += NITI_BESIDE_WINDOW) {
    forget_places(e);
    NITI_TRY(niti_executable_find_ends(e, window));
    NITI_TRY(place_in_order(e));
    if (e->places.arena_bytes <= in_order + more) return NITI_OK;
    if (window == 0) continue;
    forget_places(e);
    free(e->ends);
    e->ends = NULL;
    return place_in_order(e);
  }
  return NITI_OK;
}

/* Does everything that needs no backend memory. */
static NitiStatus plan(NitiExecutable *e, const NitiProgram *program, bool plain) {
  e->program = niti_program_copy(program);
  e->fused = niti_program_copy(program);
  e->places_gradients = gradients_in_arena(program);
  if (!e->program || !e->fused) return out_of_memory();
  NITI_TRY(check_support(e));
  if (!plain) NITI_TRY(fuse(e));
  const size_t tensors = (size_t)e->fused->tensor_count + 1, operations = (size_t)program->operation_count + 1;
  e->tensors = calloc(tensors, sizeof *e->tensors);
  e->steps = calloc(operations, sizeof *e->steps);
  e->nonnegative = calloc(tensors, sizeof *e->nonnegative);
  e->limits = calloc(tensors, sizeof *e->limits);
  e->uses = calloc(tensors, sizeof *e->uses);
  if (!e->tensors || !e->steps || !e->nonnegative || !e->limits || !e->uses) return out_of_memory();
  niti_find_nonnegative(e->nonnegative, e->fused);
  niti_find_limits(e->limits, e->fused);
  find_uses(e);
  for (int32_t t = 0; plain && t < program->tensor_count; ++t) e->uses[t] |= NITI_USE_OTHER;
  NITI_TRY(place(e, plain));
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
  uint8_t *arena = niti_executable_arena(e);
  NitiTensor *tensor = &e->tensors[t];
  if (other != NITI_NONE) {
    *tensor = e->shared->tensors[other];
    return;
  }
  *tensor = (NitiTensor){.shape = niti_tensor_shape(desc, e->fused->batch), .uses = e->uses[t], .limit = e->limits[t]};
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

/* A reshape's output has its input's exponent, and so has that of a pool whose work a norm does; a tensor that only a fused
 * operation would have written, its successor's. */
static void share_exponents(NitiExecutable *e, int32_t i) {
  const NitiOperation *o = &e->fused->operations[i];
  const NitiOpcode opcode = e->program->operations[i].opcode;
  const int32_t before = e->program->operations[i].outputs[0], now = o->outputs[0];
  const bool pool = opcode == NITI_OP_MAXPOOL_BACKWARD && o->opcode == NITI_OP_NONE;
  if (opcode == NITI_OP_RESHAPE || pool) e->tensors[now].exponent = e->tensors[o->inputs[0]].exponent;
  if (opcode == NITI_OP_MAXPOOL_FORWARD && o->opcode == NITI_OP_NONE)
    e->tensors[o->inputs[0]].exponent = e->tensors[now].exponent;
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

/* Elements per image of what an operation rounds: of the loss, its delta; before a pool, the pool's input. */
static size_t image_of(const NitiExecutable *e, const NitiOperation *o) {
  if (o->opcode == NITI_OP_NORM_POOL_FORWARD) return (size_t)o->pool.h * (size_t)o->pool.w * (size_t)o->pool.c;
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
int32_t niti_executable_sums_end(const NitiExecutable *e, int32_t i) {
  while (i < e->fused->operation_count && e->fused->operations[i].opcode == NITI_OP_ALL_SUM) ++i;
  return i;
}

static void locate_all(NitiExecutable *e) {
  size_t kept = 0;
  for (int32_t i = 0, end; i<e->fused->operation_count; i = end> i ? end : i + 1) {
    end = niti_executable_sums_end(e, i);
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

NitiStatus niti_executable_prepare_call(NitiExecutable *e, NitiConvCall *call) {
  const NitiKernels *k = e->backend->kernels;
  const NitiStatus status = k->conv_prepare ? k->conv_prepare(e->backend, call) : NITI_OK;
  if (status != NITI_OK) call->shape.n = 0; /* not prepared for this batch */
  return status;
}

NitiStatus niti_executable_prepare(NitiExecutable *e, int32_t i, int variant, int32_t n) {
  const NitiKernels *k = e->backend->kernels;
  NitiConvCall *call = &e->steps[i].conv[variant];
  if (k->conv_release) k->conv_release(e->backend, call);
  *call = niti_executable_call(e, i);
  if (n != call->shape.n) set_images(e, call, n);
  niti_executable_locate_temporaries(e, i, call);
  return niti_executable_prepare_call(e, call);
}

static NitiStatus prepare_all(NitiExecutable *e, int variant, int32_t n) {
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    if (niti_is_conv(e->fused->operations[i].opcode)) NITI_TRY(niti_executable_prepare(e, i, variant, n));
  }
  return NITI_OK;
}

static NitiStatus compile(NitiExecutable *e, const NitiProgram *program, bool plain) {
  NITI_TRY(plan(e, program, plain));
  NITI_TRY(allocate_all(e));
  connect_all(e);
  e->batch = program->batch;
  return prepare_all(e, NITI_WHOLE, program->batch);
}

/* NULL: out of memory. */
static NitiExecutable *begin(NitiBackend *backend, const NitiCompileOptions *options) {
  NitiExecutable *e = calloc(1, sizeof *e);
  if (!e) return NULL;
  e->backend = backend;
  e->shared = options ? options->shared : NULL;
  return e;
}

NitiStatus niti_backend_compile(NitiExecutable **out, NitiBackend *backend, const NitiProgram *program,
                                const NitiCompileOptions *options) {
  NitiExecutable *e = begin(backend, options);
  *out = NULL;
  if (!e) return out_of_memory();
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
  NitiExecutable *e = begin(backend, options);
  *bytes = 0;
  if (!e) return out_of_memory();
  const NitiStatus status = plan(e, program, options && options->plain);
  if (status == NITI_OK) {
    const Needs needs = needs_of(e);
    *bytes = sum_of(&needs);
  }
  niti_executable_close(e);
  return status;
}
