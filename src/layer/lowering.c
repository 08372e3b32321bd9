/* Helpers for lowering layers: tensors named after their layer, and records with its number and rounding. */
#include "layer/lowering.h"

#include <stdio.h>

#include "program/bounds.h"

static void name_tensor(NitiTensorDesc *t, const NitiProgram *p, int32_t layer, const char *what) {
  const char *name = layer > 0 && layer <= p->layer_count ? p->layers[layer] : "input";
  t->layer = layer;
  (void)snprintf(t->name, sizeof t->name, "%s.%s", name, what);
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
  t.fan_in = fan_in;
  t.fan_out = fan_out;
  name_tensor(&t, l->program, layer->number, "weight");
  return niti_program_add_tensor(l->program, &t);
}

int32_t niti_lower_gradient(NitiLowering *l, int32_t weight, int64_t length) {
  NitiTensorDesc t = l->program->tensors[weight];
  t.role = NITI_ROLE_GRADIENT;
  t.exponents = NITI_EXPONENTS_NONE;
  t.dtype = niti_gradient_dtype(length);
  t.fan_in = t.fan_out = 0;
  t.weight = weight;
  name_tensor(&t, l->program, t.layer, "gradient");
  return niti_program_add_tensor(l->program, &t);
}

int32_t niti_lower_state(NitiLowering *l, int32_t weight, const char *what, NitiDtype dtype) {
  NitiTensorDesc t = l->program->tensors[weight];
  t.role = NITI_ROLE_STATE;
  t.dtype = dtype;
  t.fan_in = t.fan_out = 0;
  t.weight = weight;
  name_tensor(&t, l->program, t.layer, what);
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

static NitiRoundingRecord rounding(NitiRounding mode, NitiPurpose purpose, const NitiLayer *layer) {
  return (NitiRoundingRecord){mode, (uint32_t)purpose, (uint32_t)layer->number};
}

NitiOperation niti_lower_forward(const NitiLowering *l, const NitiLayer *layer, NitiOpcode opcode, int32_t x, int32_t y) {
  NitiOperation o = record(opcode, NITI_PHASE_FORWARD, layer, x, y);
  const bool allowed = l->training || l->round_activation != NITI_STOCHASTIC; /* evaluation draws no random words */
  if (niti_opcodes[opcode].rounds)
    o.rounding = rounding(allowed ? l->round_activation : NITI_NEAREST, NITI_DRAW_ROUND_ACT, layer);
  return o;
}

NitiOperation niti_lower_backward(const NitiLowering *l, const NitiLayer *layer, NitiOpcode opcode, int32_t dy, int32_t dx) {
  NitiOperation o = record(opcode, NITI_PHASE_BACKWARD, layer, dy, dx);
  if (niti_opcodes[opcode].rounds) o.rounding = rounding(l->round_delta, NITI_DRAW_ROUND_DELTA, layer);
  return o;
}

void niti_lower_append(NitiLowering *l, const NitiOperation *operation) { niti_program_add_operation(l->program, operation); }
