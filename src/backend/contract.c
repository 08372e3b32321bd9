/* What operands an operation may have. */
#include "backend/contract.h"

/* ---- types, when a program is compiled ---- */

/* What kernels can read and write. */
static bool has_kernels(const NitiTensorDesc *t) {
  switch (t->role) {
    case NITI_ROLE_INPUT: return t->dtype == NITI_DTYPE_U8 || t->dtype == NITI_DTYPE_S32;
    case NITI_ROLE_GRADIENT: return t->dtype == NITI_DTYPE_S32 || t->dtype == NITI_DTYPE_S64;
    case NITI_ROLE_SAVED: return t->dtype == NITI_DTYPE_U8 || t->dtype == NITI_DTYPE_S32 || t->dtype == NITI_DTYPE_S64;
    case NITI_ROLE_METRIC: return t->dtype == NITI_DTYPE_S64;
    case NITI_ROLE_WEIGHT:
    case NITI_ROLE_STATE:
      return t->exponents == NITI_EXPONENTS_ONE &&
             (t->dtype == NITI_DTYPE_S8 || t->dtype == NITI_DTYPE_S16 || t->dtype == NITI_DTYPE_S64);
    default: return t->dtype == NITI_DTYPE_S8 && t->exponents == NITI_EXPONENTS_ONE;
  }
}

/* Products and update niti have kernels for int8 weights only; a bias, operand 2, is int16, or int64 if a norm's statistics are
 * subtracted. */
static bool takes(NitiOpcode opcode, const NitiTensorDesc *t, int operand) {
  const bool narrow = opcode == NITI_OP_CONV_FORWARD || opcode == NITI_OP_CONV_BACKWARD || opcode == NITI_OP_UPDATE_NITI;
  if (!has_kernels(t)) return false;
  if (!narrow || t->role != NITI_ROLE_WEIGHT) return true;
  if (operand != 2) return t->dtype == NITI_DTYPE_S8;
  return t->dtype == NITI_DTYPE_S16 || (t->dtype == NITI_DTYPE_S64 && opcode == NITI_OP_CONV_FORWARD);
}

int32_t niti_foreign_operand(const NitiProgram *p, const NitiOperation *o) {
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->inputs[k] != NITI_NONE && !takes(o->opcode, &p->tensors[o->inputs[k]], k)) return o->inputs[k];
    if (o->outputs[k] != NITI_NONE && !takes(o->opcode, &p->tensors[o->outputs[k]], k)) return o->outputs[k];
  }
  return NITI_NONE;
}

/* ---- sizes, when an operation runs ---- */

static bool has_shape(const NitiTensor *t, int32_t n, int32_t h, int32_t w, int32_t c) {
  return niti_shape_count(t->shape) == niti_shape_count((NitiShape){n, h, w, c});
}

static bool fits_conv(const NitiTensor *x, const NitiTensor *y, const NitiConv *c) {
  return has_shape(x, c->n, c->h, c->w, c->c) && has_shape(y, c->n, c->oh, c->ow, c->k);
}

static bool fits_weights(const NitiTensor *w, const NitiConv *c) {
  return has_shape(w, c->k, c->kh, c->kw, niti_conv_group_inputs(c));
}

/* Where the call is centred, a norm's running means and variances. */
static bool fits_bias(const NitiTensor *bias, const NitiConvCall *call) {
  return niti_shape_count(bias->shape) == (call->centred ? 2 : 1) * (size_t)call->shape.k;
}

static bool fits_pool(const NitiTensor *x, const NitiTensor *y, const NitiPool *p) {
  return has_shape(x, p->n, p->h, p->w, p->c) && has_shape(y, p->n, p->oh, p->ow, p->c);
}

/* A mask that may be missing, and has no limit. */
static bool fits_mask(const NitiTensor *mask, const NitiTensor *y) {
  return !mask->data || (mask->limit == 0 && niti_shape_count(mask->shape) == niti_shape_count(y->shape));
}

static bool same_size(const NitiTensor *a, const NitiTensor *b) {
  return niti_shape_count(a->shape) == niti_shape_count(b->shape);
}

bool niti_operands_fit(NitiOpcode opcode, const NitiTensor *y, const NitiTensor *x, const NitiConvCall *call,
                       const NitiPool *pool) {
  const NitiConv *conv = &call->shape;
  switch (opcode) {
    case NITI_OP_CONV_FORWARD:
      return fits_conv(x, y, conv) && fits_weights(&x[1], conv) && (!x[2].data || fits_bias(&x[2], call));
    case NITI_OP_ALL_SUM: return y->data == x->data;
    case NITI_OP_BIAS_GRADIENT: return niti_shape_count(y->shape) == (size_t)x->shape.c;
    case NITI_OP_CONV_BACKWARD: return fits_conv(y, x, conv) && fits_weights(&x[1], conv) && (!x[2].data || same_size(&x[2], y));
    case NITI_OP_CONV_GRADIENT: return fits_conv(&x[1], x, conv) && fits_weights(y, conv);
    case NITI_OP_MAXPOOL_FORWARD:
    case NITI_OP_AVGPOOL_FORWARD: return fits_pool(x, y, pool);
    case NITI_OP_MAXPOOL_BACKWARD: return fits_pool(y, x, pool) && fits_mask(&x[2], x) && (!x[2].data || niti_pool_apart(pool));
    case NITI_OP_AVGPOOL_BACKWARD: return fits_pool(y, x, pool);
    case NITI_OP_NORM_FORWARD: return same_size(y, x) && x[1].shape.n == x[0].shape.c;
    case NITI_OP_NORM_BACKWARD: return same_size(y, x) && same_size(&x[1], x) && x[2].shape.n == x[0].shape.c;
    case NITI_OP_NORM_POOL_FORWARD:
      return fits_pool(x, y, pool) && x[1].shape.n == x[0].shape.c && same_size(&y[1], y) && (!y[2].data || same_size(&y[2], y));
    case NITI_OP_NORM_POOL_BACKWARD:
      return fits_pool(y, x, pool) && same_size(&x[1], y) && x[2].shape.n == x[1].shape.c && same_size(&x[3], x);
    case NITI_OP_NORM_DELTA_FIT: return same_size(&x[1], x) && niti_shape_count(x[3].shape) == (size_t)x->shape.c;
    case NITI_OP_RELU_BACKWARD: return same_size(&x[1], x) && same_size(y, x);
    case NITI_OP_ADD: return same_size(&x[1], x) && same_size(y, x) && fits_mask(&x[2], x);
    case NITI_OP_RELU_FORWARD:
    case NITI_OP_DROPOUT:
    case NITI_OP_RESHAPE: return same_size(y, x);
    default: return true;
  }
}
