/* Runs a training step operation by operation, since a tensor may be overwritten after its last use, and counts on the host. */
#include "train/measure.h"

#include <stdlib.h>
#include <string.h>

enum { LOOK_BYTES = 4 << 20, CHUNK = 1 << 12 };

/* ---- counting: in chunks, whose counts fit small integers, so that compilers vectorise the loops ---- */

static size_t chunk_at(size_t count, size_t i) { return count - i < CHUNK ? count - i : CHUNK; }

static int64_t count_saturated(const int8_t *m, size_t count) {
  int64_t all = 0;
  for (size_t i = 0; i < count; i += CHUNK) {
    uint16_t here = 0;
    for (size_t k = i; k < i + chunk_at(count, i); ++k) here = (uint16_t)(here + (m[k] == 127) + (m[k] == -127));
    all += here;
  }
  return all;
}

static int64_t count_different(const int8_t *a, const int8_t *b, size_t count) {
  int64_t all = 0;
  for (size_t i = 0; i < count; i += CHUNK) {
    uint16_t here = 0;
    for (size_t k = i; k < i + chunk_at(count, i); ++k) here = (uint16_t)(here + (a[k] != b[k]));
    all += here;
  }
  return all;
}

static int64_t count_zeros32(const int32_t *g, size_t count) {
  int64_t all = 0;
  for (size_t i = 0; i < count; i += CHUNK) {
    uint32_t here = 0;
    for (size_t k = i; k < i + chunk_at(count, i); ++k) here += g[k] == 0;
    all += here;
  }
  return all;
}

static int64_t count_zeros64(const int64_t *g, size_t count) {
  int64_t all = 0;
  for (size_t i = 0; i < count; ++i) all += g[i] == 0;
  return all;
}

/* Channels without a value above 0; `alive` has room for one byte per channel. */
static int64_t count_dead(const int8_t *y, size_t rows, size_t channels, uint8_t *alive) {
  int64_t dead = 0;
  memset(alive, 0, channels);
  for (size_t r = 0; r < rows; ++r, y += channels) {
    for (size_t c = 0; c < channels; ++c) alive[c] |= (uint8_t)y[c];
  }
  for (size_t c = 0; c < channels; ++c) dead += alive[c] == 0;
  return dead;
}

static void add(NitiShare *share, int64_t part, size_t whole) {
  share->part += part;
  share->whole += (int64_t)whole;
}

/* ---- tensors ---- */

static const NitiTensorDesc *tensor_of(const NitiExecutable *e, int32_t t) { return &niti_executable_program(e)->tensors[t]; }

/* How many of n images are looked at. */
static int32_t looked_at(const NitiTensorDesc *t, int32_t n) {
  if (!t->batched) return n;
  const size_t image = niti_tensor_count(t, 1) * niti_dtype_bytes(t->dtype), most = LOOK_BYTES / (image ? image : 1);
  return most < 1 ? 1 : most < (size_t)n ? (int32_t)most : n;
}

/* Reads a tensor's first images into the room; *count says how many elements. */
static NitiStatus read_tensor(NitiMeasure *m, NitiExecutable *e, int32_t t, int32_t n, size_t *count) {
  const NitiTensorDesc *desc = tensor_of(e, t);
  const int32_t images = looked_at(desc, n);
  *count = niti_tensor_count(desc, images);
  return niti_executable_read(e, t, images, m->room, NULL);
}

static NitiStatus look_saturated(NitiShare *share, NitiMeasure *m, NitiExecutable *e, int32_t t, int32_t n) {
  size_t count;
  NITI_TRY(read_tensor(m, e, t, n, &count));
  add(share, count_saturated(m->room, count), count);
  return NITI_OK;
}

/* Whether a tensor is a layer's matrix of weights. */
static bool is_matrix(const NitiTensorDesc *t) { return t->role == NITI_ROLE_WEIGHT && t->dtype == NITI_DTYPE_S8; }

static NitiStatus look_at_gradient(NitiShare *share, NitiMeasure *m, NitiExecutable *e, int32_t gradient) {
  const NitiTensorDesc *desc = tensor_of(e, gradient);
  size_t count;
  if (!is_matrix(tensor_of(e, desc->weight))) return NITI_OK;
  NITI_TRY(read_tensor(m, e, gradient, 0, &count));
  add(share, desc->dtype == NITI_DTYPE_S32 ? count_zeros32(m->room, count) : count_zeros64(m->room, count), count);
  return NITI_OK;
}

static bool is_update(NitiOpcode opcode) {
  return opcode == NITI_OP_UPDATE_NITI || opcode == NITI_OP_UPDATE_NITI16 || opcode == NITI_OP_UPDATE_SGD;
}

/* Before an operation that reads them: what goes into a gradient or an update, and the logits. */
static NitiStatus look_before(NitiMeasure *m, NitiExecutable *e, const NitiOperation *o, int32_t n) {
  NitiLayerCounts *layer = &m->layers[o->layer];
  if (is_update(o->opcode)) return look_at_gradient(&layer->zero_gradients, m, e, o->inputs[1]);
  if (o->opcode == NITI_OP_LOSS) return look_saturated(&m->layers[0].saturated_logits, m, e, o->inputs[0], n);
  if (o->opcode != NITI_OP_CONV_GRADIENT) return NITI_OK;
  return look_saturated(&layer->saturated_inputs, m, e, o->inputs[1], n);
}

/* The first ReLU without a maximum that reads ReLU i's output, and so has the same one; NITI_NONE: none does. */
static int32_t same_relu(const NitiProgram *p, int32_t i) {
  for (int32_t k = i + 1; k < p->operation_count && p->operations[i].opcode == NITI_OP_RELU_FORWARD; ++k) {
    const NitiOperation *o = &p->operations[k];
    if (o->opcode == NITI_OP_RELU_FORWARD && o->relu_max == 0 && o->inputs[0] == p->operations[i].outputs[0]) return k;
  }
  return NITI_NONE;
}

/* Counts for ReLU `last`, and for those before it that have the same output. */
static void add_dead(NitiMeasure *m, const NitiProgram *p, int32_t last, int64_t dead, size_t channels) {
  for (int32_t i = last; i >= 0; --i) {
    if (i != last && same_relu(p, i) != last) continue;
    add(&m->layers[p->operations[i].layer].dead, dead, channels);
    last = i;
  }
}

/* Where a ReLU's output is not in memory since a norm has done the work of the max-pool behind it, the pool's: a channel without
 * a positive value has none there either, as the windows share out the image. */
static int32_t in_memory(const NitiExecutable *e, int32_t t) {
  const NitiProgram *p = niti_executable_program(e);
  for (int32_t i = 0; i < p->operation_count && !niti_executable_has(e, t); ++i) {
    if (p->operations[i].opcode == NITI_OP_MAXPOOL_FORWARD && p->operations[i].inputs[0] == t) return p->operations[i].outputs[0];
  }
  return t;
}

/* Of ReLUs that follow each other only the last one's output is sure to be in memory: the others may be fused. */
static NitiStatus look_after(NitiMeasure *m, NitiExecutable *e, int32_t i, int32_t n) {
  const NitiProgram *p = niti_executable_program(e);
  const NitiOperation *o = &p->operations[i];
  if (o->opcode != NITI_OP_RELU_FORWARD || same_relu(p, i) != NITI_NONE) return NITI_OK;
  const int32_t t = in_memory(e, o->outputs[0]), images = looked_at(tensor_of(e, o->outputs[0]), n);
  const NitiTensorDesc *desc = tensor_of(e, t);
  const size_t channels = (size_t)desc->dims[desc->rank - 1], count = niti_tensor_count(desc, images);
  NITI_TRY(niti_executable_read(e, t, images, m->room, NULL));
  uint8_t *alive = (uint8_t *)m->room + count;
  add_dead(m, p, i, count_dead(m->room, count / channels, channels, alive), channels);
  return NITI_OK;
}

static NitiStatus run_and_look(NitiMeasure *m, NitiNetwork *net, const NitiBindings *b) {
  const NitiProgram *p = niti_executable_program(net->training);
  for (int32_t i = 0; i < p->operation_count; ++i) {
    NITI_TRY(look_before(m, net->training, &p->operations[i], b->batch));
    NITI_TRY(niti_executable_run(net->training, i, i + 1, b));
    NITI_TRY(look_after(m, net->training, i, b->batch));
  }
  return NITI_OK;
}

/* ---- weights ---- */

static NitiStatus keep_weights(NitiMeasure *m, NitiExecutable *e) {
  const NitiProgram *p = niti_executable_program(e);
  int8_t *at = m->before;
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    if (!is_matrix(&p->tensors[t])) continue;
    NITI_TRY(niti_executable_read(e, t, 0, at, NULL));
    at += niti_tensor_count(&p->tensors[t], 0);
  }
  return NITI_OK;
}

static NitiStatus look_at_weights(NitiMeasure *m, NitiExecutable *e) {
  const NitiProgram *p = niti_executable_program(e);
  const int8_t *before = m->before;
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    NitiLayerCounts *layer = &m->layers[p->tensors[t].layer];
    size_t count;
    if (!is_matrix(&p->tensors[t])) continue;
    NITI_TRY(read_tensor(m, e, t, 0, &count));
    add(&layer->changed, count_different(before, m->room, count), count);
    add(&layer->saturated_weights, count_saturated(m->room, count), count);
    before += count;
  }
  return NITI_OK;
}

/* ---- the measurement ---- */

/* The bytes of the largest tensor that is read, and behind it one byte per channel of a ReLU. */
static size_t room_bytes(const NitiProgram *p) {
  size_t most = 0;
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    const NitiTensorDesc *desc = &p->tensors[t];
    const size_t bytes = niti_tensor_count(desc, looked_at(desc, p->batch)) * niti_dtype_bytes(desc->dtype);
    const size_t channels = (size_t)desc->dims[desc->rank > 0 ? desc->rank - 1 : 0];
    if (desc->role != NITI_ROLE_INPUT && bytes + channels > most) most = bytes + channels;
  }
  return most;
}

NitiStatus niti_measure_open(NitiMeasure **out, const NitiNetwork *net) {
  const NitiProgram *p = niti_executable_program(net->training);
  size_t weights = 1;
  for (int32_t t = 0; t < p->tensor_count; ++t) weights += is_matrix(&p->tensors[t]) ? niti_tensor_count(&p->tensors[t], 0) : 0;
  NitiMeasure *m = *out = calloc(1, sizeof *m);
  if (m) {
    m->layers = calloc((size_t)p->layer_count + 1, sizeof *m->layers);
    m->before = malloc(weights);
    m->room = malloc(room_bytes(p) + 1);
    if (m->layers && m->before && m->room) return NITI_OK;
  }
  niti_measure_close(m);
  *out = NULL;
  return niti_fail(NITI_ERROR_MEMORY, "out of memory for measuring a step");
}

void niti_measure_close(NitiMeasure *m) {
  if (!m) return;
  free(m->layers);
  free(m->before);
  free(m->room);
  free(m);
}

NitiStatus niti_measure_train(NitiMeasure *m, NitiNetwork *net, const NitiBindings *b) {
  const NitiProgram *p = niti_executable_program(net->training);
  memset(m->layers, 0, ((size_t)p->layer_count + 1) * sizeof *m->layers);
  NITI_TRY(keep_weights(m, net->training));
  NITI_TRY(run_and_look(m, net, b));
  NITI_TRY(look_at_weights(m, net->training));
  return net->backend->ops->synchronise(net->backend); /* else what was read is not valid */
}
