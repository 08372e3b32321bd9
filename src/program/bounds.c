/* Accumulation lengths, the proof that no accumulator overflows, and totals of a program. */
#include "program/bounds.h"

#include "base/bounds.h"

bool niti_conv_is_centred(const NitiProgram *p, const NitiOperation *o) {
  return o->inputs[2] != NITI_NONE && p->tensors[o->inputs[2]].dtype == NITI_DTYPE_S64;
}

int64_t niti_accumulation_length(const NitiOperation *o) {
  const NitiConv *c = &o->conv;
  const NitiPool *p = &o->pool;
  switch (o->opcode) {
    case NITI_OP_CONV_FORWARD:
      return niti_bound_conv_forward(c->kh, c->kw, niti_conv_group_inputs(c)) +
             (o->inputs[2] == NITI_NONE ? 0 : niti_bound_bias());
    case NITI_OP_CONV_BACKWARD:
      return niti_bound_conv_backward(c->kh, c->kw, c->stride_h, c->stride_w, niti_conv_group_outputs(c));
    case NITI_OP_CONV_GRADIENT: return niti_bound_conv_gradient(c->n, c->oh, c->ow);
    case NITI_OP_AVGPOOL_FORWARD: return niti_bound_avgpool_forward(p->kh, p->kw);
    case NITI_OP_AVGPOOL_BACKWARD: return niti_bound_avgpool_backward(p->kh, p->kw, p->stride_h, p->stride_w);
    case NITI_OP_ADD: return niti_bound_add();
    default: return 0;
  }
}

int niti_headroom_bits(int64_t length) { return length > 0 && length <= NITI_ACCUMULATION_MAX ? niti_bound_headroom(length) : 0; }

NitiDtype niti_gradient_dtype(int64_t length) { return length <= NITI_ACCUMULATION_MAX ? NITI_DTYPE_S32 : NITI_DTYPE_S64; }

int niti_accumulator_bits(const NitiProgram *p, const NitiOperation *o) {
  return o->opcode == NITI_OP_CONV_GRADIENT && p->tensors[o->outputs[0]].dtype == NITI_DTYPE_S64 ? 64 : 32;
}

int32_t niti_program_overflow(const NitiProgram *p) {
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    if (niti_accumulator_bits(p, o) == 32 && niti_accumulation_length(o) > NITI_ACCUMULATION_MAX) return i;
  }
  return NITI_NONE;
}

/* niti_tensor_count in 64 bits. */
static uint64_t count64(const NitiTensorDesc *t, int32_t n) {
  uint64_t count = t->batched ? (uint64_t)n : (uint64_t)t->dims[0];
  for (int i = 1; i < NITI_RANK_MAX; ++i) count *= (uint64_t)t->dims[i];
  return count;
}

int32_t niti_program_too_large(const NitiProgram *p) {
  uint64_t bytes = 0;
  for (int32_t i = 0; i < p->tensor_count; ++i) {
    const NitiTensorDesc *t = &p->tensors[i];
    const bool drawn = t->layer > 0 && (t->role == NITI_ROLE_ACTIVATION || t->role == NITI_ROLE_DELTA);
    bytes += 8 * count64(t, p->batch); /* at most, any dtype */
    if ((drawn && count64(t, p->whole) > (uint64_t)1 << 34) || bytes > PTRDIFF_MAX) return i;
  }
  return NITI_NONE;
}

int64_t niti_multiply_adds(const NitiOperation *o) {
  const NitiConv *c = &o->conv;
  if (o->opcode != NITI_OP_CONV_FORWARD && o->opcode != NITI_OP_CONV_BACKWARD && o->opcode != NITI_OP_CONV_GRADIENT) return 0;
  return (int64_t)c->oh * c->ow * c->k * c->kh * c->kw * niti_conv_group_inputs(c);
}

static int64_t bytes_of(const NitiProgram *p, int32_t tensor) {
  const NitiTensorDesc *t = &p->tensors[tensor];
  return (int64_t)(niti_tensor_count(t, p->batch) * niti_dtype_bytes(t->dtype));
}

int64_t niti_exchanged_bytes(const NitiProgram *p, const NitiOperation *o) {
  const int64_t range = sizeof(uint32_t);
  switch (o->opcode) {
    case NITI_OP_CONV_FORWARD:
    case NITI_OP_CONV_BACKWARD:
    case NITI_OP_AVGPOOL_FORWARD:
    case NITI_OP_AVGPOOL_BACKWARD:
    case NITI_OP_ADD: return range;
    case NITI_OP_MAXPOOL_BACKWARD: return niti_pool_apart(&o->pool) ? 0 : range;
    case NITI_OP_LOSS: {
      const bool rounds = o->outputs[1] != NITI_NONE && o->loss.kind == NITI_LOSS_SOFTMAX;
      return bytes_of(p, o->outputs[0]) + (rounds ? range : 0);
    }
    case NITI_OP_NORM_FIT: return o->norm.running ? 0 : bytes_of(p, o->outputs[2]);
    case NITI_OP_NORM_DELTA_FIT: return bytes_of(p, o->outputs[3]);
    case NITI_OP_ALL_SUM: return bytes_of(p, o->inputs[0]);
    default: return 0;
  }
}

int64_t niti_program_parameters(const NitiProgram *p) {
  int64_t sum = 0;
  for (int32_t i = 0; i < p->tensor_count; ++i) {
    if (p->tensors[i].role == NITI_ROLE_WEIGHT) sum += (int64_t)niti_tensor_count(&p->tensors[i], p->batch);
  }
  return sum;
}
