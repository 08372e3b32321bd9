/* Helpers for lowering layers: tensors named after their layer, and records with its number and rounding. */
#include "layer/lowering.h"

#include <stdio.h>
#include <string.h>

#include "program/bounds.h"

enum { EXCHANGE_BYTES = 1 << 20 /* of gradients that are worth an exchange by themselves */ };

static void name_tensor(NitiTensorDesc *t, const NitiProgram *p, int32_t layer, const char *what) {
  const char *name = layer > 0 && layer <= p->layer_count ? p->layers[layer] : "input";
  t->layer = layer;
  (void)snprintf(t->name, sizeof t->name, "%s.%s", name, what);
}

/* "conv1.weight" becomes "conv1.what", "norm1.bias" "norm1.bias.what". */
static void append_name(NitiTensorDesc *t, const char *what) {
  static const char weight[] = ".weight";
  size_t length = strlen(t->name);
  if (length >= sizeof weight && strcmp(t->name + length - (sizeof weight - 1), weight) == 0) length -= sizeof weight - 1;
  (void)snprintf(t->name + length, sizeof t->name - length, ".%s", what);
}

int32_t niti_lower_output(NitiLowering *l, const NitiLayer *layer) {
  NitiTensorDesc t = niti_tensor_desc(NITI_ROLE_ACTIVATION, layer->out);
  name_tensor(&t, l->program, layer->number, "out");
  return niti_program_add_tensor(l->program, &t);
}

int32_t niti_lower_delta(NitiLowering *l, const NitiLayer *layer, int i) {
  NitiTensorDesc t = niti_tensor_desc(NITI_ROLE_DELTA, layer->in[i]);
  name_tensor(&t, l->program, layer->sources[i], "delta");
  return niti_program_add_tensor(l->program, &t);
}

int32_t niti_lower_weight(NitiLowering *l, const NitiLayer *layer, NitiShape shape, int32_t rank, int64_t fan_in,
                          int64_t fan_out) {
  NitiTensorDesc t = niti_tensor_desc(NITI_ROLE_WEIGHT, shape);
  t.batched = false;
  if (rank == 2) {
    t.rank = 2;
    t.dims[1] = shape.c;
    t.dims[2] = t.dims[3] = 1;
  }
  t.initial = NITI_INITIAL_UNIFORM;
  t.fan_in = fan_in;
  t.fan_out = fan_out;
  name_tensor(&t, l->program, layer->number, "weight");
  return niti_program_add_tensor(l->program, &t);
}

static NitiTensorDesc matrix(NitiRole role, NitiDtype dtype, int64_t rows, int64_t columns) {
  NitiTensorDesc t = niti_tensor_desc(role, (NitiShape){1, 1, 1, 1});
  t.dtype = dtype;
  t.batched = false;
  t.rank = rows > 0 ? 2 : 1;
  t.dims[0] = rows > 0 ? rows : columns;
  if (rows > 0) t.dims[1] = columns;
  return t;
}

int32_t niti_lower_parameter(NitiLowering *l, const NitiLayer *layer, const char *what, NitiDtype dtype, NitiInitial initial,
                             int64_t rows, int64_t columns) {
  NitiTensorDesc t = matrix(NITI_ROLE_WEIGHT, dtype, rows, columns);
  t.initial = initial;
  name_tensor(&t, l->program, layer->number, what);
  return niti_program_add_tensor(l->program, &t);
}

int32_t niti_lower_channels(NitiLowering *l, const NitiLayer *layer, const char *what, NitiDtype dtype, int64_t channels,
                            int64_t columns) {
  NitiTensorDesc t = matrix(NITI_ROLE_SAVED, dtype, channels, columns);
  name_tensor(&t, l->program, layer->number, what);
  return niti_program_add_tensor(l->program, &t);
}

int32_t niti_lower_gradient(NitiLowering *l, int32_t weight, int64_t length) {
  NitiTensorDesc t = l->program->tensors[weight];
  t.role = NITI_ROLE_GRADIENT;
  t.exponents = NITI_EXPONENTS_NONE;
  t.dtype = niti_gradient_dtype(length);
  t.initial = NITI_INITIAL_ZERO;
  t.fan_in = t.fan_out = 0;
  t.weight = weight;
  name_tensor(&t, l->program, t.layer, "gradient");
  return niti_program_add_tensor(l->program, &t);
}

int32_t niti_lower_sum(NitiLowering *l, int32_t weight) {
  NitiTensorDesc t = l->program->tensors[weight];
  t.role = NITI_ROLE_GRADIENT;
  t.dtype = NITI_DTYPE_S64;
  t.initial = NITI_INITIAL_ZERO;
  t.weight = weight;
  append_name(&t, "gradient");
  return niti_program_add_tensor(l->program, &t);
}

int32_t niti_lower_state(NitiLowering *l, int32_t weight, const char *what, NitiDtype dtype) {
  NitiTensorDesc t = l->program->tensors[weight];
  t.role = NITI_ROLE_STATE;
  t.dtype = dtype;
  t.initial = NITI_INITIAL_ZERO;
  t.fan_in = t.fan_out = 0;
  t.weight = weight;
  append_name(&t, what);
  return niti_program_add_tensor(l->program, &t);
}

int32_t niti_lower_scalar(NitiLowering *l, int32_t weight, const char *what) {
  NitiTensorDesc t = matrix(NITI_ROLE_SAVED, NITI_DTYPE_S64, 0, 2);
  t.exponents = NITI_EXPONENTS_NONE;
  t.layer = l->program->tensors[weight].layer;
  (void)snprintf(t.name, sizeof t.name, "%s", l->program->tensors[weight].name);
  append_name(&t, what);
  return niti_program_add_tensor(l->program, &t);
}

int32_t niti_lower_saved(NitiLowering *l, const NitiLayer *layer, const char *what) {
  NitiTensorDesc t = niti_tensor_desc(NITI_ROLE_SAVED, layer->out);
  t.dtype = NITI_DTYPE_U8;
  t.exponents = NITI_EXPONENTS_NONE;
  name_tensor(&t, l->program, layer->number, what);
  return niti_program_add_tensor(l->program, &t);
}

static NitiOperation record(NitiOpcode opcode, NitiPhase phase, const NitiLayer *layer, int32_t from, int32_t to) {
  NitiOperation o = niti_operation(opcode, phase, layer->number);
  o.inputs[0] = from;
  o.outputs[0] = to;
  return o;
}

/* A norm has a range of its own. */
static NitiRoundingRecord rounding(NitiRounding mode, NitiPurpose purpose, const NitiLayer *layer, NitiOpcode opcode,
                                   int32_t clip) {
  const bool ranges = opcode != NITI_OP_NORM_FORWARD && opcode != NITI_OP_NORM_BACKWARD;
  return (NitiRoundingRecord){mode, (uint32_t)purpose, (uint32_t)layer->number, ranges ? clip : 0};
}

NitiOperation niti_lower_forward(const NitiLowering *l, const NitiLayer *layer, NitiOpcode opcode, int32_t x, int32_t y) {
  NitiOperation o = record(opcode, NITI_PHASE_FORWARD, layer, x, y);
  const bool allowed = l->training || !niti_rounding_draws(l->round_activation); /* evaluation draws no random words */
  if (niti_opcodes[opcode].rounds)
    o.rounding = rounding(allowed ? l->round_activation : NITI_NEAREST, NITI_DRAW_ROUND_ACT, layer, opcode, l->clip_activation);
  return o;
}

NitiOperation niti_lower_backward(const NitiLowering *l, const NitiLayer *layer, NitiOpcode opcode, int32_t dy, int32_t dx) {
  NitiOperation o = record(opcode, NITI_PHASE_BACKWARD, layer, dy, dx);
  if (niti_opcodes[opcode].rounds) o.rounding = rounding(l->round_delta, NITI_DRAW_ROUND_DELTA, layer, opcode, l->clip_delta);
  return o;
}

static bool is_summed(const NitiOperation *o) { return o->opcode == NITI_OP_CONV_GRADIENT || o->opcode == NITI_OP_BIAS_GRADIENT; }

static size_t unsummed_bytes(const NitiLowering *l) {
  const NitiProgram *p = l->program;
  size_t bytes = 0;
  for (int32_t i = l->summed; i < p->operation_count; ++i) {
    if (!is_summed(&p->operations[i])) continue;
    const NitiTensorDesc *gradient = &p->tensors[p->operations[i].outputs[0]];
    bytes += niti_tensor_count(gradient, 1) * niti_dtype_bytes(gradient->dtype);
  }
  return bytes;
}

void niti_lower_append(NitiLowering *l, const NitiOperation *operation) {
  if (l->ranks && !is_summed(operation) && unsummed_bytes(l) >= EXCHANGE_BYTES) niti_lower_sums(l);
  niti_program_add_operation(l->program, operation);
}

void niti_lower_sums(NitiLowering *l) {
  const int32_t end = l->program->operation_count;
  for (; l->ranks && l->summed < end; ++l->summed) {
    const NitiOperation *from = &l->program->operations[l->summed];
    if (!is_summed(from)) continue;
    NitiOperation o = niti_operation(NITI_OP_ALL_SUM, NITI_PHASE_BACKWARD, from->layer);
    o.inputs[0] = o.outputs[0] = from->outputs[0];
    niti_program_add_operation(l->program, &o);
  }
}
