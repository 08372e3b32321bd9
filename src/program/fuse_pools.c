/* Fusing of batch norms with the max-pools after them. The pool's windows share out the norm's output, so the norm rounds a
 * window, keeps its first maximum, and nothing of the size of its output is written. Backward, a delta goes to the winner alone:
 * sums over the deltas are sums over the windows', with what the winner was made of in the norm's input; and the norm's backward
 * finds each value's delta by its window. The ReLU between them has become a mask of the pool's backward by then (fuse.c). Its
 * place is taken by a mask of the product that the deltas come from: a mask of windows either way. */
#include <stdio.h>
#include <stdlib.h>

#include "program/fuse.h"

typedef struct Readers {
  int32_t writer, count; /* the operation that writes a tensor, NITI_NONE: none; operands that read it */
} Readers;

typedef struct Fusing {
  NitiProgram *program;
  Readers *readers; /* [tensors], of those that the program had at first */
  NitiPoolsNorm serves;
  const void *context;
} Fusing;

/* A norm's operations and its pool's; NULL: there is none. */
typedef struct Pair {
  NitiOperation *norm, *pool; /* forward */
  NitiOperation *pool_back, *delta_fit, *norm_back;
  NitiOperation *source; /* the product whose output pool_back reads, maybe reshaped; where it is to have a mask */
} Pair;

static NitiOperation *writer_of(const Fusing *f, int32_t t) {
  return t == NITI_NONE || f->readers[t].writer == NITI_NONE ? NULL : &f->program->operations[f->readers[t].writer];
}

static void count_operands(Fusing *f) {
  for (int32_t t = 0; t < f->program->tensor_count; ++t) f->readers[t] = (Readers){NITI_NONE, 0};
  for (int32_t i = 0; i < f->program->operation_count; ++i) {
    const NitiOperation *o = &f->program->operations[i];
    for (int k = 0; k < NITI_OPERANDS_MAX && o->opcode != NITI_OP_NONE; ++k) {
      if (o->outputs[k] != NITI_NONE) f->readers[o->outputs[k]].writer = i;
      if (o->inputs[k] != NITI_NONE) ++f->readers[o->inputs[k]].count;
    }
  }
}

/* The operation of this kind whose input k is the tensor. */
static NitiOperation *reader_of(const Fusing *f, NitiOpcode opcode, int k, int32_t t) {
  for (int32_t i = 0; i < f->program->operation_count; ++i) {
    NitiOperation *o = &f->program->operations[i];
    if (o->opcode == opcode && o->inputs[k] == t) return o;
  }
  return NULL;
}

static bool shares_out(const NitiPool *p) {
  return p->kh == 2 && p->kw == 2 && p->stride_h == 2 && p->stride_w == 2 && p->pad_h == 0 && p->pad_w == 0 &&
         p->h == 2 * p->oh && p->w == 2 * p->ow;
}

/* The product that alone determines a tensor with one reader, through reshapes, and has no mask yet. */
static NitiOperation *product_of(const Fusing *f, int32_t t) {
  NitiOperation *o = writer_of(f, t);
  while (o && f->readers[t].count == 1 && o->opcode == NITI_OP_RESHAPE) {
    t = o->inputs[0];
    o = writer_of(f, t);
  }
  const bool product = o && f->readers[t].count == 1 && o->opcode == NITI_OP_CONV_BACKWARD && o->inputs[2] == NITI_NONE;
  return product ? o : NULL;
}

/* Whether backward can follow: only the norm's two operations read the delta of the pool's input. */
static bool find_backward(const Fusing *f, Pair *p) {
  const int32_t delta = p->pool_back->outputs[0], x = p->norm->inputs[0], mask = p->pool_back->inputs[2];
  p->delta_fit = reader_of(f, NITI_OP_NORM_DELTA_FIT, 0, delta);
  p->norm_back = reader_of(f, NITI_OP_NORM_BACKWARD, 0, delta);
  if (f->readers[delta].count != 2 || !p->delta_fit || !p->norm_back) return false;
  if (p->delta_fit->inputs[1] != x || p->norm_back->inputs[1] != x || !f->serves(f->context, p->norm_back, &p->pool->pool))
    return false;
  if (mask == NITI_NONE) return true;
  p->source = product_of(f, p->pool_back->inputs[0]);
  return mask == p->pool->outputs[0] && p->source;
}

static bool find_pair(const Fusing *f, NitiOperation *pool, Pair *p) {
  const int32_t y = pool->inputs[0];
  *p = (Pair){.norm = writer_of(f, y), .pool = pool};
  if (!p->norm || p->norm->opcode != NITI_OP_NORM_FORWARD || p->norm->relu_max > 0 || f->readers[y].count != 1) return false;
  if (!shares_out(&pool->pool) || !f->serves(f->context, p->norm, &pool->pool)) return false;
  p->pool_back = reader_of(f, NITI_OP_MAXPOOL_BACKWARD, 1, pool->outputs[1]);
  return !p->pool_back || find_backward(f, p);
}

/* A tensor like another one, of its layer, under its name and `suffix`. */
static int32_t add_like(NitiProgram *program, int32_t t, const char *suffix, NitiRole role) {
  NitiTensorDesc desc = program->tensors[t];
  (void)snprintf(desc.name, sizeof desc.name, "%.*s%s", NITI_TENSOR_NAME_MAX - 24, program->tensors[t].name, suffix);
  desc.role = role;
  return niti_program_add_tensor(program, &desc);
}

/* The tensor that a mask of the source's output is: the pool's output as the source's layer read it. */
static int32_t mask_of(const Fusing *f, const Pair *p) {
  int32_t mask = p->pool->outputs[0];
  for (int32_t t = p->pool_back->inputs[0]; writer_of(f, t)->opcode == NITI_OP_RESHAPE; t = writer_of(f, t)->inputs[0])
    mask = reader_of(f, NITI_OP_RESHAPE, 0, mask)->outputs[0];
  return mask;
}

/* Backward: deltas of windows, which the source masks. */
static void fuse_backward(Fusing *f, const Pair *p, int32_t won) {
  int32_t deltas = p->pool_back->inputs[0];
  if (p->source) {
    const int32_t mask = mask_of(f, p), masked = add_like(f->program, deltas, ".masked", NITI_ROLE_DELTA);
    for (NitiOperation *o = writer_of(f, deltas); o != p->source; o = writer_of(f, o->inputs[0])) o->opcode = NITI_OP_NONE;
    p->source->inputs[2] = mask;
    p->source->outputs[0] = deltas = masked;
  }
  p->delta_fit->inputs[0] = p->norm_back->inputs[0] = deltas;
  p->delta_fit->inputs[1] = won;
  p->norm_back->opcode = NITI_OP_NORM_POOL_BACKWARD;
  p->norm_back->inputs[3] = p->pool->outputs[1];
  p->norm_back->pool = p->pool->pool;
  p->pool_back->opcode = NITI_OP_NONE;
}

static void fuse_pair(Fusing *f, const Pair *p) {
  int32_t won = NITI_NONE;
  if (p->pool_back) {
    won = add_like(f->program, p->pool->outputs[0], ".won", NITI_ROLE_SAVED);
    fuse_backward(f, p, won);
  }
  p->norm->opcode = NITI_OP_NORM_POOL_FORWARD;
  p->norm->pool = p->pool->pool;
  p->norm->outputs[0] = p->pool->outputs[0];
  p->norm->outputs[1] = p->pool->outputs[1];
  p->norm->outputs[2] = won;
  p->pool->opcode = NITI_OP_NONE;
}

NitiStatus niti_fuse_pools(NitiProgram *program, NitiPoolsNorm serves, const void *context) {
  Fusing f = {.program = program,
              .readers = calloc((size_t)program->tensor_count + 1, sizeof *f.readers),
              .serves = serves,
              .context = context};
  if (!f.readers) return niti_fail(NITI_ERROR_MEMORY, "out of memory for compiling a program");
  count_operands(&f);
  for (int32_t i = 0; i < program->operation_count; ++i) {
    Pair pair;
    if (program->operations[i].opcode == NITI_OP_MAXPOOL_FORWARD && find_pair(&f, &program->operations[i], &pair))
      fuse_pair(&f, &pair);
  }
  free(f.readers);
  return niti_program_check(program);
}
