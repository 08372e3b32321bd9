/* Runs the steps of a compiled program, one operation after the other, on whatever device it was compiled for. */
#include <assert.h>
#include <string.h>

#include "backend/contract.h"
#include "backend/executable.h"
#include "base/clip.h"
#include "base/sgd.h"
#include "base/shift_prediction.h"
#include "base/size.h"
#include "base/update.h"
#include "program/bounds.h"

static bool is_wide_update(NitiOpcode opcode) { return opcode == NITI_OP_UPDATE_SGD || opcode == NITI_OP_UPDATE_NITI16; }

/* Whether one call of a kernel can do both. */
static bool is_same_call(NitiOpcode a, NitiOpcode b) { return a == b || (is_wide_update(a) && is_wide_update(b)); }

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
  if (!(niti_executable_uses(e, e->fused, i, input) & NITI_USE_OTHER)) return true;
  const int8_t *y = e->steps[i].outputs[output].data, *x = e->steps[i].inputs[input].data;
  if (!x || (x == y && niti_opcodes[o->opcode].in_place)) return true;
  return y + niti_executable_bytes_at(e, t, e->batch) <= x || x + niti_executable_bytes_at(e, u, e->batch) <= y;
}

/* Whether each layout that operation i reads of its input k has a place. */
static bool has_layouts(const NitiExecutable *e, int32_t i, int k) {
  const NitiTensor *x = &e->steps[i].inputs[k];
  if (e->fused->operations[i].inputs[k] == NITI_NONE || !x->placed) return true;
  const int uses = niti_executable_uses(e, e->fused, i, k);
  for (int layout = 0; layout < NITI_LAYOUTS; ++layout) {
    if (uses >> layout & 1 && !x->layouts[layout]) return false;
  }
  return true;
}

/* Checks the contract of kernels.h as far as possible before an operation runs. check_run has checked the bindings. */
static void check_step(const NitiExecutable *e, int32_t i) {
  const NitiOperation *o = &e->fused->operations[i];
  const NitiStep *s = &e->steps[i];
  if (o->opcode == NITI_OP_NONE) return;
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    assert(o->inputs[k] == NITI_NONE || e->fused->tensors[o->inputs[k]].role == NITI_ROLE_INPUT || s->inputs[k].data);
    assert(o->outputs[k] == NITI_NONE || s->outputs[k].data);
    assert(has_layouts(e, i, k));
    for (int j = 0; j < NITI_OPERANDS_MAX; ++j) assert(is_apart(e, i, k, j));
  }
  assert(niti_operands_fit(o->opcode, s->outputs, s->inputs, niti_executable_conv(e, s), &s->pool));
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
    bytes = (size_t)(e->tensors[t].data - begin) + niti_executable_bytes_at(e, t, e->fused->batch);
  }
  if (begin) e->backend->kernels->all_sum_begin(e->backend, begin, bytes / element, 8 * (int)element);
}

/* The last of a row begins all, whatever range is run, so that all ranks exchange the same. */
static void all_sum(NitiExecutable *e, int32_t i) {
  const int32_t end = niti_executable_sums_end(e, i);
  int32_t first = i;
  if (e->backend->together.whole == 0 || end > i + 1) return;
  while (first > 0 && e->fused->operations[first - 1].opcode == NITI_OP_ALL_SUM) --first;
  sum_row(e, first, end, NITI_DTYPE_S32);
  sum_row(e, first, end, NITI_DTYPE_S64);
}

/* How many operations from i on, before `end`, are one call of a kernel: as many of its kind in a row as a call takes. */
static int count_row(const NitiExecutable *e, int32_t i, int32_t end) {
  const NitiOperation *o = &e->fused->operations[i];
  const int32_t most = end - i < NITI_UPDATES_MAX ? end - i : NITI_UPDATES_MAX;
  int count = 1;
  while (count < most && is_same_call(o->opcode, o[count].opcode)) {
    check_step(e, i + count);
    ++count;
  }
  return count;
}

static void update_niti(NitiExecutable *e, int32_t i, int count) {
  NitiWeightUpdate updates[NITI_UPDATES_MAX];
  for (int k = 0; k < count; ++k) {
    const NitiOperation *o = &e->fused->operations[i + k];
    NitiStep *s = &e->steps[i + k];
    updates[k] = (NitiWeightUpdate){.w = s->outputs, .gradient = &s->gradient, .scalar = o->scalar};
  }
  e->backend->kernels->update_niti(e->backend, updates, count);
}

static void update_sgd(NitiExecutable *e, int32_t i, int count) {
  NitiSgdUpdate updates[NITI_UPDATES_MAX];
  for (int k = 0; k < count; ++k) {
    const NitiOperation *o = &e->fused->operations[i + k];
    NitiStep *s = &e->steps[i + k];
    updates[k] = (NitiSgdUpdate){.w = s->outputs,
                                 .master = optional(o->outputs, s->outputs, 2),
                                 .velocity = &s->outputs[3],
                                 .gradient = &s->gradient,
                                 .scalars = &o->sgd,
                                 .rq = &s->rq,
                                 .squares = (const int64_t *)(const void *)s->inputs[4].data};
  }
  e->backend->kernels->update_sgd(e->backend, updates, count);
}

static void add_squares(NitiExecutable *e, int32_t i, int count) {
  NitiSquareSum squares[NITI_UPDATES_MAX];
  for (int k = 0; k < count; ++k) {
    const NitiStep *s = &e->steps[i + k];
    squares[k] = (NitiSquareSum){.gradient = &s->gradient,
                                 .before = (const int64_t *)(const void *)s->inputs[0].data,
                                 .total = (int64_t *)(void *)s->outputs[0].data};
  }
  e->backend->kernels->gradient_squares(e->backend, squares, count);
}

/* Runs a row of updates or of sums of squares that begins with operation i; returns their number. */
static int run_row(NitiExecutable *e, int32_t i, int32_t end) {
  const NitiOpcode opcode = e->fused->operations[i].opcode;
  const int count = count_row(e, i, end);
  if (opcode == NITI_OP_UPDATE_NITI) {
    update_niti(e, i, count);
  } else if (opcode == NITI_OP_GRADIENT_SQUARES) {
    add_squares(e, i, count);
  } else {
    update_sgd(e, i, count);
  }
  return count;
}

void niti_executable_complete(const NitiExecutable *e, const NitiTensor *t) {
  if (t->placed && (t->layouts[0] || t->layouts[1])) e->backend->kernels->complete(e->backend, t);
}

/* Runs operation i, perhaps with those that follow it before `end`; returns their number. */
static int run_step(NitiExecutable *e, int32_t i, int32_t end, const NitiBindings *b) {
  const NitiOperation *o = &e->fused->operations[i];
  const NitiKernels *k = e->backend->kernels;
  NitiBackend *backend = e->backend;
  NitiStep *s = &e->steps[i];
  NitiTensor *x = s->inputs, *y = s->outputs;
  const NitiConvCall *conv = niti_executable_conv(e, s);
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
    case NITI_OP_NORM_POOL_FORWARD:
      k->norm_pool_forward(backend, y, (uint8_t *)y[1].data, optional(o->outputs, y, 2), x, &x[1], o->relu, &s->pool, &s->rq);
      break;
    case NITI_OP_NORM_DELTA_FIT:
      k->norm_delta_fit(backend, y, &y[1], &y[2], &y[3], x, &x[1], &x[2], &x[3], o->norm.positions);
      break;
    case NITI_OP_NORM_BACKWARD: k->norm_backward(backend, y, x, &x[1], &x[2], &s->rq); break;
    case NITI_OP_NORM_POOL_BACKWARD:
      k->norm_pool_backward(backend, y, x, &x[1], &x[2], (const uint8_t *)x[3].data, &s->pool, &s->rq);
      break;
    case NITI_OP_ALL_SUM: all_sum(e, i); break;
    case NITI_OP_ALL_SUM_WAIT: k->all_sum_wait(backend); break;
    case NITI_OP_UPDATE_NITI:
    case NITI_OP_UPDATE_NITI16:
    case NITI_OP_UPDATE_SGD:
    case NITI_OP_GRADIENT_SQUARES: return run_row(e, i, end);
    default: return 1; /* fused into another operation, or nothing to do */
  }
  for (int j = 0; j < NITI_OPERANDS_MAX; ++j) niti_executable_complete(e, &y[j]);
  return 1;
}

static void enqueue(void *context) {
  const Run *run = context;
  NitiExecutable *e = run->executable;
  int64_t *mark = run->bindings->marks;
  const bool alone = run->end == run->first + 1; /* nothing else takes the memory of its packed weights */
  NitiBeside beside = {.count = 0};
  for (int32_t r = 0; r < run->bindings->repeat || r == 0; ++r) {
    if (r == 0 || !alone) niti_executable_pack(e, run->first, run->first, run->end);
    if (mark) e->backend->kernels->mark(e->backend, mark);
    for (int32_t i = run->first, done; i < run->end; i += done) {
      if (!mark && !alone) niti_beside_before(&beside, e, i);
      if (i > run->first) niti_executable_pack(e, i, run->first, run->end);
      done = run_step(e, i, mark ? i + 1 : run->end, run->bindings);
      niti_beside_after(&beside, e);
      if (mark) e->backend->kernels->mark(e->backend, mark + (i - run->first) + 1);
    }
    niti_beside_end(&beside, e);
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
    if (niti_is_conv(o->opcode) && n != e->fused->batch && s->conv[NITI_WHOLE + 1].shape.n != n)
      NITI_TRY(niti_executable_prepare(e, i, NITI_WHOLE + 1, n));
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
