/* Operator fusion. A ReLU's forward is fused into the product, norm or sum before it; its backward becomes a mask of the product,
 * sum or pool whose delta it filters. One with a maximum is fused into a norm, and becomes a mask of a product. */
#include "program/fuse.h"

#include <stdlib.h>

typedef struct Fusing {
  NitiProgram *program;
  int32_t *writer; /* [tensors] the operation that writes it, NITI_NONE: none */
  int32_t *reads;  /* [tensors] the number of operands that read it */
  bool all;        /* additions take over ReLUs, too, and others take over ReLUs with a maximum */
} Fusing;

static void count_operands(Fusing *f) {
  for (int32_t t = 0; t < f->program->tensor_count; ++t) f->writer[t] = NITI_NONE;
  for (int32_t i = 0; i < f->program->operation_count; ++i) {
    const NitiOperation *o = &f->program->operations[i];
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
      if (o->outputs[k] != NITI_NONE) f->writer[o->outputs[k]] = i;
      if (o->inputs[k] != NITI_NONE) ++f->reads[o->inputs[k]];
    }
  }
}

/* The operation whose only reader of its first output is `reader`'s first input; NULL: there is none. */
static NitiOperation *only_source(const Fusing *f, const NitiOperation *reader) {
  const int32_t t = reader->inputs[0];
  return f->writer[t] != NITI_NONE && f->reads[t] == 1 ? &f->program->operations[f->writer[t]] : NULL;
}

static void take_over(Fusing *f, NitiOperation *source, NitiOperation *done) {
  source->outputs[0] = done->outputs[0];
  f->writer[done->outputs[0]] = (int32_t)(source - f->program->operations);
  done->opcode = NITI_OP_NONE;
}

/* A ReLU takes rounded mantissas m to max(m, 0), and keeps their exponent e: to do it after rounding, before they are stored, is
 * the same. One with a maximum takes the least of that and a limit which it has from the maximum and e. A norm's e follows from
 * its weights alone and is known before it rounds, so that it has the same limit. (That of products and sums follows from all
 * values.) Where a norm has taken over a ReLU already, that one's output must stay. */
static bool applies(const Fusing *f, const NitiOperation *source, const NitiOperation *relu) {
  if (relu->relu_max > 0) return f->all && source->opcode == NITI_OP_NORM_FORWARD && !source->relu;
  return source->opcode == NITI_OP_CONV_FORWARD || source->opcode == NITI_OP_NORM_FORWARD ||
         (source->opcode == NITI_OP_ADD && f->all);
}

static void fuse_relu_forward(Fusing *f, NitiOperation *relu) {
  NitiOperation *source = only_source(f, relu);
  if (!source || !applies(f, source, relu)) return;
  source->relu = true;
  if (relu->relu_max > 0) source->relu_max = relu->relu_max;
  take_over(f, source, relu);
}

/* The maximum of the ReLU whose output a tensor is, 0: it has none. */
static int32_t limit_of(const NitiOperation *writer) {
  return writer->opcode == NITI_OP_RELU_FORWARD || writer->relu ? writer->relu_max : 0;
}

/* The output of the pool that saved these winners, if `x` was its input. */
static int32_t pooled(const Fusing *f, int32_t winner, int32_t x) {
  const NitiOperation *forward = &f->program->operations[f->writer[winner]];
  return forward->opcode == NITI_OP_MAXPOOL_FORWARD && forward->inputs[0] == x ? forward->outputs[0] : NITI_NONE;
}

/* What `source` needs as a mask to do the work of the ReLU's backward; NITI_NONE: it cannot. A pool's winner is positive exactly
 * where its output is, so the smaller tensor is used as the mask. */
static int32_t mask_for(const Fusing *f, const NitiOperation *source, const NitiOperation *relu) {
  const int32_t y = relu->inputs[1];
  const bool conv = source->opcode == NITI_OP_CONV_BACKWARD;
  if (relu->relu_max > 0 && !(conv && f->all)) return NITI_NONE;
  if (conv || (source->opcode == NITI_OP_ADD && f->all)) return y;
  return source->opcode == NITI_OP_MAXPOOL_BACKWARD && niti_pool_apart(&source->pool) ? pooled(f, source->inputs[1], y)
                                                                                      : NITI_NONE;
}

/* Backward, a ReLU turns mantissas of a delta to 0 and keeps the exponent, which follows from all accumulators: so does a mask,
 * after rounding. The maximum is that of the ReLU which wrote the mask. */
static void fuse_relu_backward(Fusing *f, NitiOperation *relu) {
  NitiOperation *source = only_source(f, relu);
  const int32_t writer = f->writer[relu->inputs[1]];
  const int32_t limit = writer == NITI_NONE ? 0 : limit_of(&f->program->operations[writer]);
  if (!source || source->inputs[2] != NITI_NONE || limit != relu->relu_max) return;
  const int32_t mask = mask_for(f, source, relu);
  if (mask == NITI_NONE) return;
  source->inputs[2] = mask;
  take_over(f, source, relu);
}

/* For a delta that comes out of a dropout, the dropout's output can replace its input as the mask: the delta is 0 wherever they
 * differ. So the dropout may work in place. */
static void mask_after_dropout(Fusing *f, NitiOperation *o, int k) {
  if (o->inputs[k] == NITI_NONE || f->writer[o->inputs[0]] == NITI_NONE) return;
  const NitiOperation *backward = &f->program->operations[f->writer[o->inputs[0]]];
  for (int32_t i = 0; i < f->program->operation_count && backward->opcode == NITI_OP_DROPOUT; ++i) {
    const NitiOperation *forward = &f->program->operations[i];
    if (forward->opcode == NITI_OP_DROPOUT && forward->phase == NITI_PHASE_FORWARD && forward->layer == backward->layer &&
        forward->inputs[0] == o->inputs[k])
      o->inputs[k] = forward->outputs[0];
  }
}

static void fuse_all(Fusing *f) {
  for (int32_t i = 0; i < f->program->operation_count; ++i) {
    NitiOperation *o = &f->program->operations[i];
    if (o->opcode == NITI_OP_RELU_FORWARD) fuse_relu_forward(f, o);
    if (o->opcode == NITI_OP_RELU_BACKWARD) fuse_relu_backward(f, o);
  }
  for (int32_t i = 0; i < f->program->operation_count; ++i) {
    NitiOperation *o = &f->program->operations[i];
    if (o->opcode == NITI_OP_RELU_BACKWARD && o->relu_max == 0) mask_after_dropout(f, o, 1);
    if (o->opcode == NITI_OP_MAXPOOL_BACKWARD) mask_after_dropout(f, o, 2);
  }
}

static NitiStatus fuse(NitiProgram *program, bool all) {
  Fusing f = {.program = program,
              .writer = calloc((size_t)program->tensor_count + 1, sizeof *f.writer),
              .reads = calloc((size_t)program->tensor_count + 1, sizeof *f.reads),
              .all = all};
  const bool room = f.writer && f.reads;
  if (room) {
    count_operands(&f);
    fuse_all(&f);
  }
  free(f.writer);
  free(f.reads);
  return room ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for compiling a program");
}

NitiStatus niti_fuse(NitiProgram *program) { return fuse(program, true); }

NitiStatus niti_fuse_products(NitiProgram *program) { return fuse(program, false); }

void niti_find_nonnegative(bool *nonnegative, const NitiProgram *p) {
  for (int32_t t = 0; t < p->tensor_count; ++t) nonnegative[t] = false;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    bool *y = o->outputs[0] == NITI_NONE ? NULL : &nonnegative[o->outputs[0]];
    if (!y || o->phase > NITI_PHASE_FORWARD) continue;
    const bool x = nonnegative[o->inputs[0]];
    switch (o->opcode) {
      case NITI_OP_RELU_FORWARD: *y = true; break;
      case NITI_OP_CONV_FORWARD:
      case NITI_OP_NORM_FORWARD:
      case NITI_OP_NORM_POOL_FORWARD: *y = o->relu; break;
      case NITI_OP_ADD: *y = o->relu || (x && nonnegative[o->inputs[1]]); break;
      case NITI_OP_MAXPOOL_FORWARD: /* padding cells never win */
      case NITI_OP_AVGPOOL_FORWARD:
      case NITI_OP_DROPOUT:
      case NITI_OP_RESHAPE: *y = x; break;
      default: break;
    }
  }
}

void niti_find_limits(int32_t *limits, const NitiProgram *p) {
  for (int32_t t = 0; t < p->tensor_count; ++t) limits[t] = 0;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    if (o->outputs[0] != NITI_NONE && o->opcode != NITI_OP_NONE) limits[o->outputs[0]] = limit_of(o);
  }
}

NitiUses niti_use_of(const NitiOperation *o, int k) {
  if (o->opcode == NITI_OP_CONV_GRADIENT) return niti_conv_grouped(&o->conv) ? NITI_USE_OTHER : NITI_USE_GRADIENT;
  return (o->opcode == NITI_OP_CONV_BACKWARD || o->opcode == NITI_OP_ADD) && k == 2 ? NITI_USE_MASK : NITI_USE_OTHER;
}
