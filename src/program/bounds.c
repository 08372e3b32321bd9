/* Accumulation lengths, the proof that no accumulator overflows, and totals of a program. */
#include "program/bounds.h"

#include "base/round.h"

enum { AVERAGE_BITS = 15 };
/* A residual sum is at most 127 * 2^15 + 127, in units of 127^2. */
enum { ADD_LENGTH = 259 };

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* The most windows that cover one cell of the input. */
static int64_t cover(int32_t kernel, int32_t stride) { return divide_up(kernel, stride); }

/* Sums of mantissas times the multiplier 2^15 / cells, in units of 127^2. */
static int64_t average_length(const NitiPool *p, int64_t summands) {
  const int64_t cells = (int64_t)p->kh * p->kw;
  const int64_t multiplier = (cells & (cells - 1)) == 0 ? 1 : ((1 << AVERAGE_BITS) + cells / 2) / cells;
  return divide_up(summands * multiplier, NITI_MANTISSA_MAX);
}

int64_t niti_accumulation_length(const NitiOperation *o) {
  const NitiConv *c = &o->conv;
  const NitiPool *p = &o->pool;
  switch (o->opcode) {
    case NITI_OP_CONV_FORWARD: return (int64_t)c->kh * c->kw * c->c;
    case NITI_OP_CONV_BACKWARD: return cover(c->kh, c->stride_h) * cover(c->kw, c->stride_w) * c->k;
    case NITI_OP_CONV_GRADIENT: return (int64_t)c->n * c->oh * c->ow;
    case NITI_OP_AVGPOOL_FORWARD: return average_length(p, (int64_t)p->kh * p->kw);
    case NITI_OP_AVGPOOL_BACKWARD: return average_length(p, cover(p->kh, p->stride_h) * cover(p->kw, p->stride_w));
    case NITI_OP_ADD: return ADD_LENGTH;
    default: return 0;
  }
}

int niti_headroom_bits(int64_t length) {
  int bits = 0;
  for (int64_t t = length; t > 0 && 2 * t <= NITI_MAX_TERMS; t *= 2) ++bits;
  return bits;
}

NitiDtype niti_gradient_dtype(int64_t length) { return length <= NITI_MAX_TERMS ? NITI_DTYPE_S32 : NITI_DTYPE_S64; }

int32_t niti_program_overflow(const NitiProgram *p) {
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    const bool wide = o->opcode == NITI_OP_CONV_GRADIENT && p->tensors[o->outputs[0]].dtype == NITI_DTYPE_S64;
    if (!wide && niti_accumulation_length(o) > NITI_MAX_TERMS) return i;
  }
  return NITI_NONE;
}

int32_t niti_program_too_large(const NitiProgram *p) {
  for (int32_t i = 0; i < p->tensor_count; ++i) {
    const NitiTensorDesc *t = &p->tensors[i];
    const bool drawn = t->role == NITI_ROLE_ACTIVATION || t->role == NITI_ROLE_DELTA;
    if (drawn && niti_tensor_count(t, p->batch) > (size_t)1 << 34) return i;
  }
  return NITI_NONE;
}

int64_t niti_multiply_adds(const NitiOperation *o) {
  const NitiConv *c = &o->conv;
  if (o->opcode != NITI_OP_CONV_FORWARD && o->opcode != NITI_OP_CONV_BACKWARD && o->opcode != NITI_OP_CONV_GRADIENT) return 0;
  return (int64_t)c->oh * c->ow * c->k * c->kh * c->kw * c->c;
}

int64_t niti_program_parameters(const NitiProgram *p) {
  int64_t sum = 0;
  for (int32_t i = 0; i < p->tensor_count; ++i) {
    if (p->tensors[i].role == NITI_ROLE_WEIGHT) sum += (int64_t)niti_tensor_count(&p->tensors[i], p->batch);
  }
  return sum;
}
