/* Plans an exported network's steps: which operations join, and in which order they run. */
#include "export/plan.h"

#include <stdlib.h>
#include <string.h>

#include "export/arena.h"
#include "program/bounds.h"
#include "program/fuse.h"

enum { HALF = 500000 /* millionths: the rate of a dropout */ };
enum { SEARCHED = 256 /* spaces: of more, all are placed once, and not again for each update's sums */ };

typedef struct Planning {
  NitiExportPlan *plan;
  const NitiProgram *program;
  int32_t *reads; /* [tensors] how many operands read it */
  bool *joined;   /* [operations] part of another's step */
  int64_t fast_bytes;
} Planning;

static const NitiOperation *operation_at(const Planning *p, int32_t i) { return &p->program->operations[i]; }

/* ---- what the runtime can do ---- */

static NitiStatus refuse(const NitiProgram *p, const NitiOperation *o, const char *why) {
  const char *name = o->opcode < NITI_OPCODES ? niti_opcodes[o->opcode].name : "an unknown operation";
  return niti_fail(NITI_ERROR_UNSUPPORTED, "%s%s%s: cannot be exported to C%s%s", o->layer > 0 ? p->layers[o->layer] : "",
                   o->layer > 0 ? ": " : "", name, why[0] ? ": " : "", why);
}

static bool is_plain(const NitiTensorDesc *t) {
  return t->exponents != NITI_EXPONENTS_PER_CHANNEL && (!niti_role_in_arena(t->role) || niti_dtype_bytes(t->dtype) == 1);
}

static NitiStatus check_conv(const NitiProgram *p, const NitiOperation *o) {
  const NitiConv *c = &o->conv;
  const int32_t weight = o->opcode == NITI_OP_CONV_GRADIENT ? p->tensors[o->outputs[0]].weight : o->inputs[1];
  const NitiTensorDesc *w = &p->tensors[weight];
  const int64_t window = (int64_t)c->kh * c->kw * niti_conv_group_inputs(c);
  if (w->dtype != NITI_DTYPE_S8 || niti_tensor_count(w, 0) != (size_t)c->k * (size_t)window)
    return refuse(p, o, "its weights are not of a plain convolution");
  const int32_t sizes[] = {c->h, c->w, c->oh, c->ow, c->kh, c->kw, c->stride_h, c->stride_w, c->pad_h, c->pad_w};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    if (sizes[i] > UINT16_MAX) return refuse(p, o, "a side is longer than 65535");
  }
  if (o->opcode == NITI_OP_CONV_GRADIENT && p->tensors[o->outputs[0]].dtype != NITI_DTYPE_S32)
    return refuse(p, o, "its sums need 64 bits (expected a smaller batch)");
  return NITI_OK;
}

/* What the operation has that the runtime lacks; "": nothing that has a name. */
static const char *lacking(const NitiOperation *o) {
  const bool conv = o->opcode == NITI_OP_CONV_FORWARD || o->opcode == NITI_OP_CONV_BACKWARD || o->opcode == NITI_OP_CONV_GRADIENT;
  const bool average = o->opcode == NITI_OP_AVGPOOL_FORWARD || o->opcode == NITI_OP_AVGPOOL_BACKWARD;
  const bool relu = o->opcode == NITI_OP_RELU_FORWARD || o->opcode == NITI_OP_RELU_BACKWARD;
  if (conv && niti_conv_grouped(&o->conv) && o->opcode == NITI_OP_CONV_GRADIENT) return "it has groups";
  if (conv && niti_conv_grouped(&o->conv) && o->opcode == NITI_OP_CONV_BACKWARD)
    return "it has groups, and a layer before it is trained (expected --train of layers behind it)";
  if (average && o->pool.pad_h + o->pool.pad_w > 0) return "it has padding";
  if (relu && o->relu_max > 0) return "it has a maximum";
  if (o->opcode == NITI_OP_DROPOUT && o->dropout.rate != HALF) return "its rate is not 0.5";
  if (o->opcode == NITI_OP_LOSS && o->loss.off != 0 && o->outputs[1] != NITI_NONE) return "it has label smoothing";
  if (o->opcode == NITI_OP_ADD && (o->inputs[2] != NITI_NONE || o->relu)) return "it has a ReLU";
  return o->rounding.mode == NITI_STOCHASTIC_BYTE ? "its rounding is stochastic-byte" : "";
}

/* The operation with those of its attributes that the runtime knows. */
static NitiOperation known_part(const NitiOperation *o) {
  NitiOperation k = niti_operation(o->opcode, o->phase, o->layer);
  const NitiConv *c = &o->conv;
  const NitiPool *w = &o->pool;
  memcpy(k.inputs, o->inputs, sizeof k.inputs);
  memcpy(k.outputs, o->outputs, sizeof k.outputs);
  k.rounding = (NitiRoundingRecord){
      .mode = o->rounding.mode, .purpose = o->rounding.purpose, .stream = o->rounding.stream, .clip = o->rounding.clip};
  if (o->opcode == NITI_OP_CONV_FORWARD) k.relu = o->relu;
  if (o->opcode == NITI_OP_CONV_FORWARD || o->opcode == NITI_OP_CONV_BACKWARD || o->opcode == NITI_OP_CONV_GRADIENT) {
    k.conv = (NitiConv){.n = c->n,
                        .h = c->h,
                        .w = c->w,
                        .c = c->c,
                        .oh = c->oh,
                        .ow = c->ow,
                        .k = c->k,
                        .kh = c->kh,
                        .kw = c->kw,
                        .stride_h = c->stride_h,
                        .stride_w = c->stride_w,
                        .pad_h = c->pad_h,
                        .pad_w = c->pad_w,
                        .groups = c->groups};
  } else if (o->opcode >= NITI_OP_MAXPOOL_FORWARD && o->opcode <= NITI_OP_AVGPOOL_BACKWARD) {
    k.pool = (NitiPool){.n = w->n,
                        .h = w->h,
                        .w = w->w,
                        .c = w->c,
                        .oh = w->oh,
                        .ow = w->ow,
                        .kh = w->kh,
                        .kw = w->kw,
                        .stride_h = w->stride_h,
                        .stride_w = w->stride_w,
                        .pad_h = w->pad_h,
                        .pad_w = w->pad_w};
  } else if (o->opcode == NITI_OP_LOSS) {
    k.loss = o->loss;
  } else if (o->opcode == NITI_OP_DROPOUT) {
    k.dropout = (NitiDropout){o->dropout.shared, HALF};
  } else if (o->opcode == NITI_OP_UPDATE_NITI) {
    k.scalar = o->scalar;
  }
  return k;
}

/* Anything else that an operation has, now or in time to come, would be ignored. */
static NitiStatus check_attributes(const NitiProgram *p, const NitiOperation *o) {
  const NitiOperation known = known_part(o);
  const char *why = lacking(o);
  if (o->opcode != NITI_OP_NONE && why[0]) return refuse(p, o, why);
  if (o->opcode != NITI_OP_NONE && memcmp(&known, o, sizeof known) != 0)
    return refuse(p, o, "it has an attribute that the runtime lacks");
  return NITI_OK;
}

static NitiStatus check_opcode(const NitiProgram *p, const NitiOperation *o) {
  switch (o->opcode) {
    case NITI_OP_CONV_FORWARD:
    case NITI_OP_CONV_BACKWARD:
    case NITI_OP_CONV_GRADIENT:
    case NITI_OP_NONE:
    case NITI_OP_INPUT:
    case NITI_OP_RELU_FORWARD:
    case NITI_OP_RELU_BACKWARD:
    case NITI_OP_MAXPOOL_FORWARD:
    case NITI_OP_MAXPOOL_BACKWARD:
    case NITI_OP_AVGPOOL_FORWARD:
    case NITI_OP_AVGPOOL_BACKWARD:
    case NITI_OP_ADD:
    case NITI_OP_DROPOUT:
    case NITI_OP_RESHAPE:
    case NITI_OP_LOSS:
    case NITI_OP_UPDATE_NITI: return check_attributes(p, o);
    case NITI_OP_GRADIENT_SQUARES: return refuse(p, o, "expected update niti, whose gradients are not clipped");
    case NITI_OP_UPDATE_NITI16:
    case NITI_OP_UPDATE_SGD: return refuse(p, o, "expected update niti");
    case NITI_OP_NORM_FIT: return refuse(p, o, "once it is trained, niti fold makes weights and a bias of it, for --train none");
    default: return refuse(p, o, "");
  }
}

/* A norm or the recipe's update comes before what only follows from it, such as the rounding that update sgd has by itself. */
static NitiStatus check_causes(const NitiProgram *p) {
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOpcode opcode = p->operations[i].opcode;
    if (opcode == NITI_OP_NORM_FIT || opcode == NITI_OP_GRADIENT_SQUARES || opcode == NITI_OP_UPDATE_SGD ||
        opcode == NITI_OP_UPDATE_NITI16)
      return check_opcode(p, &p->operations[i]);
  }
  return NITI_OK;
}

NitiStatus niti_export_check(const NitiProgram *p) {
  NITI_TRY(check_causes(p));
  for (int32_t i = 0; i < p->operation_count; ++i) NITI_TRY(check_opcode(p, &p->operations[i]));
  return NITI_OK;
}

static NitiStatus check_operation(const NitiProgram *p, const NitiOperation *o) {
  const bool conv = o->opcode == NITI_OP_CONV_FORWARD || o->opcode == NITI_OP_CONV_BACKWARD || o->opcode == NITI_OP_CONV_GRADIENT;
  if (conv) NITI_TRY(check_conv(p, o));
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->inputs[k] != NITI_NONE && !is_plain(&p->tensors[o->inputs[k]])) return refuse(p, o, p->tensors[o->inputs[k]].name);
    if (o->outputs[k] != NITI_NONE && !is_plain(&p->tensors[o->outputs[k]])) return refuse(p, o, p->tensors[o->outputs[k]].name);
  }
  return NITI_OK;
}

/* Indices in the runtime are int32, and saved states hold weights alone. */
static NitiStatus check_tensors(const NitiProgram *p) {
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    if (p->tensors[t].role == NITI_ROLE_STATE)
      return niti_fail(NITI_ERROR_UNSUPPORTED, "%s: an optimiser's state cannot be exported to C (expected update niti)",
                       p->tensors[t].name);
    if (p->tensors[t].role == NITI_ROLE_INPUT || niti_tensor_count(&p->tensors[t], p->batch) < (size_t)1 << 28) continue;
    return niti_fail(NITI_ERROR_UNSUPPORTED, "%s: %zu values cannot be exported to C (expected fewer than 2^28)",
                     p->tensors[t].name, niti_tensor_count(&p->tensors[t], p->batch));
  }
  return NITI_OK;
}

/* ---- steps ---- */

static NitiExportStep *add_step(Planning *p, NitiExportKind kind, int32_t operation) {
  NitiExportStep *s = &p->plan->steps[p->plan->step_count++];
  const NitiOperation *o = operation_at(p, operation);
  *s = (NitiExportStep){.kind = kind, .operation = operation, .pool = NITI_NONE, .hint = NITI_NONE};
  for (int k = 0; k < NITI_EXPORT_USES; ++k) s->use[k] = NITI_NONE;
  s->use[NITI_EXPORT_FROM] = o->inputs[0];
  s->use[NITI_EXPORT_TO] = o->outputs[0];
  return s;
}

/* Scratch of at least one byte. */
static int32_t scratch(Planning *p, int64_t bytes) { return niti_export_space(p->plan, bytes); }

static int64_t elements(const Planning *p, int32_t tensor) {
  return (int64_t)niti_tensor_count(&p->program->tensors[tensor], p->program->batch);
}

/* Rounding that needs no bit far below the shift. */
static bool can_be_late(const NitiOperation *o) { return o->rounding.mode == NITI_NEAREST || o->rounding.mode == NITI_TRUNCATE; }

static void make_late(Planning *p, NitiExportStep *s) {
  if (!can_be_late(operation_at(p, s->operation))) return;
  s->use[NITI_EXPORT_HIGH] = scratch(p, elements(p, s->use[NITI_EXPORT_TO]));
  s->hint = p->plan->hint_count++;
}

static int32_t reader_of(const Planning *p, int32_t tensor, NitiOpcode opcode, int operand) {
  for (int32_t i = 0; i < p->program->operation_count; ++i) {
    if (operation_at(p, i)->opcode == opcode && operation_at(p, i)->inputs[operand] == tensor) return i;
  }
  return NITI_NONE;
}

/* Whether only this layer's products read a delta. */
static bool feeds_products(const Planning *p, int32_t tensor, int32_t layer) {
  int32_t found = 0;
  for (int32_t i = 0; i < p->program->operation_count; ++i) {
    const NitiOperation *o = operation_at(p, i);
    const bool product = o->opcode == NITI_OP_CONV_GRADIENT || o->opcode == NITI_OP_CONV_BACKWARD;
    if (product && o->layer == layer && o->inputs[0] == tensor) ++found;
  }
  return found == p->reads[tensor];
}

/* The pool that a convolution with ReLU can do itself: windows apart, of at most four cells. Of its backward nothing is left to
 * do, as the products read the pool's own delta. */
static int32_t pool_after(const Planning *p, const NitiOperation *conv) {
  const int32_t i = reader_of(p, conv->outputs[0], NITI_OP_MAXPOOL_FORWARD, 0);
  if (!conv->relu || i == NITI_NONE || p->reads[conv->outputs[0]] != 1) return NITI_NONE;
  const NitiPool *w = &operation_at(p, i)->pool;
  if (niti_conv_grouped(&conv->conv) || w->kh * w->kw > 4 || !niti_pool_apart(w) || w->pad_h + w->pad_w > 0 ||
      conv->conv.oh * conv->conv.ow == 1)
    return NITI_NONE;
  const int32_t winner = operation_at(p, i)->outputs[1];
  const int32_t backward = winner == NITI_NONE ? NITI_NONE : reader_of(p, winner, NITI_OP_MAXPOOL_BACKWARD, 1);
  if (backward == NITI_NONE || feeds_products(p, operation_at(p, backward)->outputs[0], conv->layer)) return i;
  return NITI_NONE;
}

static int32_t winner_bits(const NitiPool *w) {
  const int32_t cells = w->kh * w->kw;
  return cells <= 2 ? 1 : cells <= 4 ? 2 : cells <= 16 ? 4 : 8;
}

/* The winners of a pool, where backward reads them. */
static void keep_winners(Planning *p, NitiExportStep *s, const NitiOperation *pool, int32_t bits) {
  const int32_t winner = pool->outputs[1];
  s->width = bits;
  if (winner == NITI_NONE || p->reads[winner] == 0) return;
  s->use[NITI_EXPORT_PACKED] = winner;
  p->plan->spaces[winner].bytes = (elements(p, winner) * bits + 7) / 8;
}

static void plan_conv_forward(Planning *p, int32_t i) {
  const NitiOperation *o = operation_at(p, i);
  const NitiConv *c = &o->conv;
  const int32_t pool = pool_after(p, o);
  NitiExportStep *s = add_step(p, NITI_EXPORT_CONV_FORWARD, i);
  if (pool != NITI_NONE) {
    const NitiOperation *pooling = operation_at(p, pool);
    s->pool = pool;
    s->use[NITI_EXPORT_TO] = pooling->outputs[0];
    p->joined[pool] = true;
    keep_winners(p, s, pooling, 2);
    if (s->use[NITI_EXPORT_PACKED] != NITI_NONE) {
      const int32_t backward = reader_of(p, pooling->outputs[1], NITI_OP_MAXPOOL_BACKWARD, 1);
      s->use[NITI_EXPORT_WINNERS] = scratch(p, elements(p, pooling->outputs[0]));
      p->joined[backward] = true;
    }
  }
  make_late(p, s);
  if (!niti_conv_grouped(c) && !niti_export_is_linear(c))
    s->use[NITI_EXPORT_WORK] = scratch(p, NITI_EXPORT_COLUMN_BYTES * (((int64_t)c->kh * c->kw * c->c + 3) / 4 * 4));
}

/* Where products find the delta of their output: as it is, or as the pool's with its winners. */
static void read_deltas(const Planning *p, NitiExportStep *s, int32_t dy) {
  s->use[NITI_EXPORT_FROM] = dy;
  for (int32_t i = 0; i < p->program->operation_count; ++i) {
    const NitiOperation *o = operation_at(p, i);
    if (o->opcode != NITI_OP_MAXPOOL_BACKWARD || !p->joined[i] || o->outputs[0] != dy) continue;
    s->use[NITI_EXPORT_FROM] = o->inputs[0];
    s->use[NITI_EXPORT_PACKED] = o->inputs[1];
    s->use[NITI_EXPORT_MASK] = o->inputs[2];
  }
}

static void plan_conv_backward(Planning *p, int32_t i) {
  const NitiOperation *o = operation_at(p, i);
  NitiExportStep *s = add_step(p, NITI_EXPORT_CONV_BACKWARD, i);
  read_deltas(p, s, o->inputs[0]);
  s->use[NITI_EXPORT_CUT] = o->inputs[2];
  s->use[NITI_EXPORT_WORK] = scratch(p, 4 * (int64_t)o->conv.kh * o->conv.w * o->conv.c);
  make_late(p, s);
}

/* The layer's own update at once, after the delta of its input, which reads the weights: the same bits as at the end. */
static void plan_gradient(Planning *p, int32_t i) {
  const NitiOperation *o = operation_at(p, i);
  const int64_t row = 4 * (int64_t)o->conv.kh * o->conv.kw * o->conv.c, all = row * o->conv.k;
  const int32_t next = i + 1;
  if (next < p->program->operation_count && operation_at(p, next)->opcode == NITI_OP_CONV_BACKWARD &&
      operation_at(p, next)->layer == o->layer) {
    plan_conv_backward(p, next);
    p->joined[next] = true;
  }
  NitiExportStep *s = add_step(p, NITI_EXPORT_UPDATE, i);
  read_deltas(p, s, o->inputs[0]);
  s->use[NITI_EXPORT_OTHER] = o->inputs[1];
  s->use[NITI_EXPORT_TO] = NITI_NONE;
  s->kept = all <= p->fast_bytes ? o->conv.k : 0;
  s->use[NITI_EXPORT_WORK] = scratch(p, s->kept > 0 ? all : row);
}

static void plan_pool_backward(Planning *p, int32_t i) {
  const NitiOperation *o = operation_at(p, i);
  NitiExportStep *s = add_step(p, NITI_EXPORT_POOL_BACKWARD, i);
  if (o->opcode != NITI_OP_MAXPOOL_BACKWARD) return;
  s->use[NITI_EXPORT_PACKED] = o->inputs[1];
  s->use[NITI_EXPORT_MASK] = o->inputs[2];
  s->width = winner_bits(&o->pool);
}

static void plan_pointwise(Planning *p, NitiExportKind kind, int32_t i) {
  const NitiOperation *o = operation_at(p, i);
  NitiExportStep *s = add_step(p, kind, i);
  s->use[NITI_EXPORT_OTHER] = o->inputs[1];
}

static void plan_operation(Planning *p, int32_t i) {
  const NitiOperation *o = operation_at(p, i);
  if (p->joined[i]) return;
  switch (o->opcode) {
    case NITI_OP_CONV_FORWARD: plan_conv_forward(p, i); break;
    case NITI_OP_CONV_BACKWARD: plan_conv_backward(p, i); break;
    case NITI_OP_CONV_GRADIENT: plan_gradient(p, i); break;
    case NITI_OP_RELU_FORWARD: plan_pointwise(p, NITI_EXPORT_RELU_FORWARD, i); break;
    case NITI_OP_RELU_BACKWARD: plan_pointwise(p, NITI_EXPORT_RELU_BACKWARD, i); break;
    case NITI_OP_ADD: plan_pointwise(p, NITI_EXPORT_ADD, i); break;
    case NITI_OP_DROPOUT: (void)add_step(p, NITI_EXPORT_DROPOUT, i); break;
    case NITI_OP_MAXPOOL_FORWARD: {
      NitiExportStep *s = add_step(p, NITI_EXPORT_MAXPOOL_FORWARD, i);
      keep_winners(p, s, o, winner_bits(&o->pool));
      break;
    }
    case NITI_OP_AVGPOOL_FORWARD: (void)add_step(p, NITI_EXPORT_AVGPOOL_FORWARD, i); break;
    case NITI_OP_MAXPOOL_BACKWARD:
    case NITI_OP_AVGPOOL_BACKWARD: plan_pool_backward(p, i); break;
    case NITI_OP_LOSS:
      if (o->outputs[1] != NITI_NONE) add_step(p, NITI_EXPORT_LOSS, i)->use[NITI_EXPORT_TO] = o->outputs[1];
      break;
    default: break; /* the input is read by the generated code; reshapes are names; updates are part of gradients */
  }
}

static void count_reads(Planning *p) {
  for (int32_t i = 0; i < p->program->operation_count; ++i) {
    const NitiOperation *o = operation_at(p, i);
    for (int k = 0; k < NITI_OPERANDS_MAX && o->opcode != NITI_OP_NONE; ++k) {
      if (o->inputs[k] != NITI_NONE) ++p->reads[o->inputs[k]];
    }
  }
}

/* The tensor whose memory holds a delta that nothing else reads: before any reshapes. */
static int32_t before_reshapes(const Planning *p, int32_t tensor) {
  for (int32_t i = p->program->operation_count - 1; i >= 0; --i) {
    const NitiOperation *o = operation_at(p, i);
    if (o->opcode == NITI_OP_RESHAPE && o->outputs[0] == tensor && p->reads[o->inputs[0]] == 1) tensor = o->inputs[0];
  }
  return tensor;
}

/* A delta that only a pool's backward reads, behind a mask, can be masked where it is made: the mask need not stay. */
static void mask_early(Planning *p, int32_t step) {
  NitiExportStep *s = &p->plan->steps[step];
  const int32_t dy = s->use[NITI_EXPORT_FROM], made = before_reshapes(p, dy);
  if (s->use[NITI_EXPORT_MASK] == NITI_NONE || p->reads[dy] != 1) return;
  for (int32_t i = 0; i < step; ++i) {
    NitiExportStep *maker = &p->plan->steps[i];
    if (maker->kind != NITI_EXPORT_CONV_BACKWARD || maker->use[NITI_EXPORT_TO] != made) continue;
    const int32_t mask = s->use[NITI_EXPORT_MASK];
    if (maker->use[NITI_EXPORT_CUT] != NITI_NONE && maker->use[NITI_EXPORT_CUT] != mask) return;
    maker->use[NITI_EXPORT_CUT] = mask;
    s->use[NITI_EXPORT_MASK] = NITI_NONE;
    return;
  }
}

static NitiStatus plan_all(Planning *p) {
  NITI_TRY(niti_export_check(p->program));
  for (int32_t i = 0; i < p->program->operation_count; ++i) NITI_TRY(check_operation(p->program, operation_at(p, i)));
  NITI_TRY(check_tensors(p->program));
  count_reads(p);
  for (int32_t i = 0; i < p->program->operation_count; ++i) plan_operation(p, i);
  for (int32_t i = 0; i < p->plan->step_count; ++i) mask_early(p, i);
  return niti_export_place(p->plan);
}

static NitiStatus plan_program(NitiExportPlan *plan, int64_t fast_bytes) {
  const size_t tensors = (size_t)plan->program->tensor_count + 1, operations = (size_t)plan->program->operation_count + 1;
  Planning p = {.plan = plan,
                .program = plan->program,
                .reads = calloc(tensors, sizeof *p.reads),
                .joined = calloc(operations, sizeof *p.joined),
                .fast_bytes = fast_bytes};
  plan->space_capacity = (int32_t)(tensors + 4 * operations);
  plan->steps = calloc(operations, sizeof *plan->steps);
  plan->spaces = calloc((size_t)plan->space_capacity, sizeof *plan->spaces);
  NitiStatus status = niti_fail(NITI_ERROR_MEMORY, "out of memory for planning an export");
  if (p.reads && p.joined && plan->steps && plan->spaces) {
    for (int32_t t = 0; t < plan->program->tensor_count; ++t) (void)niti_export_space(plan, elements(&p, t));
    status = plan_all(&p);
  }
  free(p.reads);
  free(p.joined);
  return status;
}

NitiStatus niti_export_plan_open(NitiExportPlan *out, const NitiDescription *description, const NitiLowerOptions *options,
                                 int64_t fast_bytes) {
  *out = (NitiExportPlan){0};
  NitiStatus status = niti_lower(&out->program, description, options);
  if (status == NITI_OK) status = niti_fuse_products(out->program);
  if (status == NITI_OK) status = plan_program(out, fast_bytes);
  if (status != NITI_OK) niti_export_plan_close(out);
  return status;
}

bool niti_export_is_linear(const NitiConv *c) {
  return c->h == 1 && c->w == 1 && c->kh == 1 && c->kw == 1 && c->pad_h == 0 && c->pad_w == 0;
}

bool niti_export_is_softmax(const NitiOperation *o) { return o->loss.kind == NITI_LOSS_SOFTMAX; }

bool niti_export_shares_mask(const NitiOperation *o) { return o->opcode == NITI_OP_DROPOUT && o->dropout.shared; }

/* The next step that gives up its upper bytes: the fullest, else the last that still has some; or NITI_NONE. */
static int32_t next_to_shrink(const NitiExportPlan *plan) {
  int64_t alive;
  const int32_t fullest = niti_export_fullest(plan, &alive);
  if (fullest < plan->step_count && plan->steps[fullest].use[NITI_EXPORT_HIGH] != NITI_NONE) return fullest;
  int32_t i = plan->step_count - 1;
  while (i >= 0 && plan->steps[i].use[NITI_EXPORT_HIGH] == NITI_NONE) --i;
  return i;
}

NitiStatus niti_export_plan_shrink(NitiExportPlan *plan, int64_t bytes) {
  int64_t least = plan->arena_bytes;
  if (least <= bytes) return NITI_OK;
  NITI_TRY(niti_export_place_well(plan));
  for (int32_t i; plan->arena_bytes > bytes && (i = next_to_shrink(plan)) >= 0;) {
    if (plan->arena_bytes < least) least = plan->arena_bytes;
    plan->steps[i].use[NITI_EXPORT_HIGH] = NITI_NONE;
    NITI_TRY(niti_export_place_well(plan));
  }
  if (plan->arena_bytes > least) plan->arena_bytes = least;
  return NITI_OK;
}

static NitiStatus keep_sums(NitiExportPlan *plan, NitiExportStep *s, int32_t kept, int64_t bytes) {
  const NitiConv *c = &plan->program->operations[s->operation].conv;
  const int64_t rows = kept < c->k ? kept + 1 : c->k;
  plan->spaces[s->use[NITI_EXPORT_WORK]].bytes = 4 * rows * c->kh * c->kw * c->c;
  s->kept = kept;
  if (plan->space_count <= SEARCHED) return niti_export_place_within(plan, bytes);
  niti_export_replace(plan, s->use[NITI_EXPORT_WORK]);
  return NITI_OK;
}

/* By bisection. kept: room for the plan's spaces, as they are with the most channels that fit so far. */
static NitiStatus fill_step(NitiExportPlan *plan, NitiExportStep *s, int64_t bytes, NitiExportSpace *kept) {
  const size_t size = (size_t)plan->space_count * sizeof *kept;
  int32_t good = s->kept, bad = plan->program->operations[s->operation].conv.k + 1;
  memcpy(kept, plan->spaces, size);
  while (good + 1 < bad) {
    const int32_t middle = good + (bad - good) / 2;
    NITI_TRY(keep_sums(plan, s, middle, bytes));
    if (plan->arena_bytes <= bytes) {
      good = middle;
      memcpy(kept, plan->spaces, size);
    } else {
      bad = middle;
    }
  }
  s->kept = good;
  memcpy(plan->spaces, kept, size);
  return NITI_OK;
}

NitiStatus niti_export_plan_fill(NitiExportPlan *plan, int64_t bytes) {
  NitiExportSpace *kept = calloc((size_t)plan->space_count + 1, sizeof *kept);
  NitiStatus status = kept ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for planning an export");
  for (int32_t i = 0; i < plan->step_count && status == NITI_OK; ++i) {
    if (plan->steps[i].kind == NITI_EXPORT_UPDATE) status = fill_step(plan, &plan->steps[i], bytes, kept);
  }
  plan->arena_bytes = bytes;
  free(kept);
  return status;
}

void niti_export_plan_close(NitiExportPlan *plan) {
  niti_program_close(plan->program);
  free(plan->steps);
  free(plan->spaces);
  *plan = (NitiExportPlan){0};
}
