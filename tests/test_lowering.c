/* What layers, loss and optimiser lower to, checked against docs/arithmetic.md for the built-in models, a model with every layer,
 * and random ones. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "config/builtin.h"
#include "every_layer.h"
#include "program/bounds.h"
#include "programs.h"

enum { RANDOM_NETWORKS = 200 };

/* ---- what every program keeps to ---- */

static bool is_updated_in_place(NitiRole role) {
  return role == NITI_ROLE_WEIGHT || role == NITI_ROLE_STATE || role == NITI_ROLE_METRIC;
}

static bool reads(const NitiOperation *o, int32_t tensor) {
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->inputs[k] == tensor) return true;
  }
  return false;
}

/* Every tensor is written before it is read, and only once, except those that are updated in place. */
static void check_order(const NitiProgram *p) {
  int *writes = calloc((size_t)p->tensor_count, sizeof *writes);
  NitiPhase phase = NITI_PHASE_INPUT;
  assert_non_null(writes);
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    assert_true(o->phase >= phase);
    phase = o->phase;
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
      if (o->inputs[k] == NITI_NONE) continue;
      const NitiRole role = p->tensors[o->inputs[k]].role;
      const bool given = role == NITI_ROLE_INPUT || role == NITI_ROLE_CONSTANT || is_updated_in_place(role);
      assert_true(o->inputs[k] >= 0 && o->inputs[k] < p->tensor_count);
      if (!given && writes[o->inputs[k]] == 0) fail_msg("operation %d reads %s too early", i, p->tensors[o->inputs[k]].name);
    }
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
      const int32_t t = o->outputs[k];
      if (t == NITI_NONE) continue;
      assert_true(t >= 0 && t < p->tensor_count);
      const NitiRole role = p->tensors[t].role;
      assert_true(role != NITI_ROLE_INPUT && role != NITI_ROLE_CONSTANT);
      if (is_updated_in_place(role)) {
        assert_true(reads(o, t));
      } else if (writes[t]++ > 0) {
        fail_msg("operation %d writes %s again", i, p->tensors[t].name);
      }
    }
  }
  free(writes);
}

static void check_names(const NitiProgram *p) {
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    assert_true(p->tensors[t].name[0] != 0);
    assert_int_equal(niti_program_find(p, p->tensors[t].name), t);
  }
}

static bool has_dims(const NitiProgram *p, int32_t tensor, int64_t n, int64_t h, int64_t w, int64_t c) {
  const int64_t *d = p->tensors[tensor].dims;
  return d[0] == n && d[1] == h && d[2] == w && d[3] == c;
}

static void check_weight(const NitiProgram *p, const NitiConv *c, int32_t tensor) {
  const NitiTensorDesc *t = &p->tensors[tensor];
  if (t->rank == 2) {
    assert_true(has_dims(p, tensor, c->k, c->c, 1, 1) && c->h == 1 && c->w == 1 && c->kh == 1 && c->kw == 1);
  } else {
    assert_true(has_dims(p, tensor, c->k, c->kh, c->kw, niti_conv_group_inputs(c)));
  }
  assert_false(t->batched);
}

/* A gradient is s32 where batch * OH * OW products of 127^2 fit, else s64. */
static void check_gradient(const NitiProgram *p, const NitiOperation *o) {
  const NitiConv *c = &o->conv;
  const NitiTensorDesc *t = &p->tensors[o->outputs[0]];
  const int64_t largest = (int64_t)p->batch * c->oh * c->ow * 127 * 127;
  check_weight(p, c, o->outputs[0]);
  assert_int_equal(t->role, NITI_ROLE_GRADIENT);
  assert_int_equal(t->dtype, largest <= INT32_MAX ? NITI_DTYPE_S32 : NITI_DTYPE_S64);
  assert_int_equal(t->exponents, NITI_EXPONENTS_NONE);
  check_weight(p, c, t->weight);
  assert_int_equal(p->tensors[t->weight].role, NITI_ROLE_WEIGHT);
  assert_int_equal(p->tensors[t->weight].layer, o->layer);
}

static void check_conv(const NitiProgram *p, const NitiOperation *o, int32_t x, int32_t y) {
  const NitiConv *c = &o->conv;
  assert_true(c->n == p->batch);
  assert_int_equal(c->oh, (c->h + 2 * c->pad_h - c->kh) / c->stride_h + 1);
  assert_int_equal(c->ow, (c->w + 2 * c->pad_w - c->kw) / c->stride_w + 1);
  assert_true(has_dims(p, x, c->n, c->h, c->w, c->c) && has_dims(p, y, c->n, c->oh, c->ow, c->k));
}

static void check_pool(const NitiProgram *p, const NitiOperation *o, int32_t x, int32_t y) {
  const NitiPool *w = &o->pool;
  assert_int_equal(w->oh, (w->h + 2 * w->pad_h - w->kh) / w->stride_h + 1);
  assert_int_equal(w->ow, (w->w + 2 * w->pad_w - w->kw) / w->stride_w + 1);
  assert_true(w->n == p->batch && has_dims(p, x, w->n, w->h, w->w, w->c) && has_dims(p, y, w->n, w->oh, w->ow, w->c));
}

static void check_same(const NitiProgram *p, int32_t a, int32_t b) {
  assert_memory_equal(p->tensors[a].dims, p->tensors[b].dims, sizeof p->tensors[a].dims);
}

/* A tensor of a norm's channels: [channels][columns], or [rows][channels] where it is learned or running. */
static void check_channels(const NitiProgram *p, int32_t tensor, NitiRole role, NitiDtype dtype, int64_t first, int64_t second) {
  assert_int_not_equal(tensor, NITI_NONE);
  const NitiTensorDesc *t = &p->tensors[tensor];
  assert_int_equal(t->role, role);
  assert_int_equal(t->dtype, dtype);
  assert_int_equal(t->exponents, NITI_EXPONENTS_ONE);
  assert_false(t->batched);
  assert_true(has_dims(p, tensor, first, second, 1, 1));
}

static void check_norm(const NitiProgram *p, const NitiOperation *o, int32_t x, bool running) {
  const int64_t *d = p->tensors[x].dims;
  assert_int_equal(o->norm.positions, p->tensors[x].rank == 4 ? d[1] * d[2] : 1);
  assert_int_equal(o->norm.running, running);
}

/* A norm is centred if, and only if, the product before it subtracts its means; nothing but the norm reads that product. */
static void check_centred(const NitiProgram *p, const NitiOperation *fit) {
  int products = 0, strangers = 0;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    products += o->opcode == NITI_OP_CONV_FORWARD && o->inputs[2] == fit->inputs[3] && o->outputs[0] == fit->inputs[0];
    for (int k = 0; k < NITI_OPERANDS_MAX; ++k) strangers += o->inputs[k] == fit->inputs[0] && o->layer != fit->layer;
  }
  assert_int_equal(products, fit->norm.centred);
  if (fit->norm.centred) assert_int_equal(strangers, 0);
}

/* The statistics and the map of a norm's forward; evaluation takes the running ones and writes the map alone. */
static void check_norm_fit(const NitiProgram *p, const NitiOperation *o) {
  const int32_t *in = o->inputs, *out = o->outputs;
  const int64_t c = niti_tensor_shape(&p->tensors[in[0]], p->batch).c;
  const bool training = out[1] != NITI_NONE;
  check_norm(p, o, in[0], !training);
  check_channels(p, in[1], NITI_ROLE_WEIGHT, NITI_DTYPE_S16, c, 1);
  check_channels(p, in[2], NITI_ROLE_WEIGHT, NITI_DTYPE_S16, c, 1);
  check_channels(p, in[3], NITI_ROLE_WEIGHT, NITI_DTYPE_S64, 2, c);
  check_channels(p, out[0], NITI_ROLE_SAVED, NITI_DTYPE_S32, c, 2);
  assert_int_equal(p->tensors[in[1]].initial, NITI_INITIAL_ONE);
  assert_int_equal(p->tensors[in[2]].initial, NITI_INITIAL_ZERO);
  assert_int_equal(p->tensors[in[3]].initial, NITI_INITIAL_RUNNING);
  assert_int_equal(out[2] != NITI_NONE, training);
  check_centred(p, o);
  if (!training) return;
  assert_int_equal(out[1], in[3]);
  check_channels(p, out[2], NITI_ROLE_SAVED, NITI_DTYPE_S64, c, 2);
}

static void check_norm_delta_fit(const NitiProgram *p, const NitiOperation *o) {
  const int32_t *in = o->inputs, *out = o->outputs;
  const int64_t c = niti_tensor_shape(&p->tensors[in[0]], p->batch).c;
  check_same(p, in[0], in[1]);
  check_norm(p, o, in[0], false);
  check_channels(p, in[2], NITI_ROLE_SAVED, NITI_DTYPE_S64, c, 2);
  check_channels(p, in[3], NITI_ROLE_WEIGHT, NITI_DTYPE_S16, c, 1);
  check_channels(p, out[0], NITI_ROLE_SAVED, NITI_DTYPE_S32, c, 3);
  for (int k = 1; k <= 2; ++k) check_channels(p, out[k], NITI_ROLE_GRADIENT, NITI_DTYPE_S64, c, 1);
  check_channels(p, out[3], NITI_ROLE_SAVED, NITI_DTYPE_S64, c, 3);
  assert_int_equal(p->tensors[out[1]].weight, in[3]);
  const NitiTensorDesc *bias = &p->tensors[p->tensors[out[2]].weight];
  assert_true(bias->role == NITI_ROLE_WEIGHT && bias->layer == o->layer && bias->initial == NITI_INITIAL_ZERO);
}

/* A state of the weight's shape, updated in place. */
static void check_state(const NitiProgram *p, const NitiOperation *o, int k, NitiInitial initial) {
  const NitiTensorDesc *t = &p->tensors[o->inputs[k]];
  assert_int_equal(o->outputs[k], o->inputs[k]);
  check_same(p, o->inputs[k], o->inputs[0]);
  assert_int_equal(t->role, NITI_ROLE_STATE);
  assert_int_equal(t->dtype, NITI_DTYPE_S16);
  assert_int_equal(t->initial, initial);
  assert_int_equal(t->weight, o->inputs[0]);
}

static bool is_scalar(const NitiProgram *p, int32_t scalar, const char *name) {
  return scalar >= 0 && scalar < p->scalar_count && strcmp(p->scalars[scalar], name) == 0;
}

/* Int8 weights have a master and decay; s16 ones are their own masters and do not. */
static void check_update_sgd(const NitiProgram *p, const NitiOperation *o) {
  const bool operand = p->tensors[o->inputs[0]].dtype == NITI_DTYPE_S8;
  assert_true(operand || p->tensors[o->inputs[0]].dtype == NITI_DTYPE_S16);
  assert_int_equal(o->outputs[0], o->inputs[0]);
  assert_int_equal(p->tensors[o->inputs[1]].weight, o->inputs[0]);
  assert_int_equal(o->outputs[1], NITI_NONE);
  assert_true((o->inputs[2] != NITI_NONE) == operand && (o->sgd.decay != NITI_NONE) == operand);
  if (operand) check_state(p, o, 2, NITI_INITIAL_MASTER);
  check_state(p, o, 3, NITI_INITIAL_ZERO);
  assert_true(is_scalar(p, o->sgd.rate, "rate") && is_scalar(p, o->sgd.momentum, "momentum"));
  const bool normalised = o->opcode == NITI_OP_UPDATE_NITI16;
  assert_int_equal(o->sgd.normalised, normalised);
  assert_true((normalised ? o->sgd.images == NITI_NONE : is_scalar(p, o->sgd.images, "images")) &&
              (!operand || is_scalar(p, o->sgd.decay, "decay")));
}

/* The sum over all gradients before, or none, and one gradient's. */
static void check_squares(const NitiProgram *p, const NitiOperation *o) {
  const int32_t before = o->inputs[0], total = o->outputs[0];
  assert_int_equal(p->tensors[o->inputs[1]].role, NITI_ROLE_GRADIENT);
  assert_true(has_dims(p, total, 2, 1, 1, 1) && p->tensors[total].dtype == NITI_DTYPE_S64);
  assert_true(before == NITI_NONE || strstr(p->tensors[before].name, ".squares") != NULL);
}

/* Every trained tensor's gradient is looked at once, in the order of the layers, before the first weight changes. */
static void check_clipping(const NitiProgram *p, bool clips) {
  int32_t last = NITI_NONE, layer = 0, looks = 0, updates = 0;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    if (o->opcode == NITI_OP_GRADIENT_SQUARES) {
      assert_true(updates == 0 && o->inputs[0] == last && o->layer >= layer);
      last = o->outputs[0];
      layer = o->layer;
      ++looks;
    } else if (o->opcode == NITI_OP_UPDATE_SGD) {
      assert_true(o->inputs[4] == last && (o->sgd.clip != NITI_NONE) == clips);
      ++updates;
    }
  }
  assert_int_equal(looks, clips ? updates : 0);
}

/* The operands' shapes are what the attributes say. */
static void check_operands(const NitiProgram *p, const NitiOperation *o) {
  const int32_t *in = o->inputs, *out = o->outputs;
  switch (o->opcode) {
    case NITI_OP_INPUT:
      check_same(p, in[0], out[0]); /* pixels */
      assert_true(has_dims(p, in[1], p->batch, NITI_SAMPLE_WORDS, 1, 1) &&
                  has_dims(p, in[2], p->tensors[out[0]].dims[3], 256, 1, 1));
      break;
    case NITI_OP_CONV_FORWARD:
      check_conv(p, o, in[0], out[0]);
      check_weight(p, &o->conv, in[1]);
      assert_false(o->relu); /* fusing is a backend's business */
      if (in[2] != NITI_NONE && !niti_conv_is_centred(p, o))
        check_channels(p, in[2], NITI_ROLE_WEIGHT, NITI_DTYPE_S16, o->conv.k, 1);
      break;
    case NITI_OP_BIAS_GRADIENT:
      check_channels(p, out[0], NITI_ROLE_GRADIENT, NITI_DTYPE_S64, niti_tensor_shape(&p->tensors[in[0]], p->batch).c, 1);
      assert_int_equal(p->tensors[p->tensors[out[0]].weight].layer, o->layer);
      break;
    case NITI_OP_CONV_BACKWARD:
      check_conv(p, o, out[0], in[0]);
      check_weight(p, &o->conv, in[1]);
      assert_int_equal(in[2], NITI_NONE);
      break;
    case NITI_OP_CONV_GRADIENT:
      check_conv(p, o, in[1], in[0]);
      check_gradient(p, o);
      break;
    case NITI_OP_MAXPOOL_FORWARD:
      check_pool(p, o, in[0], out[0]);
      check_same(p, out[0], out[1]);
      assert_int_equal(p->tensors[out[1]].dtype, NITI_DTYPE_U8);
      break;
    case NITI_OP_MAXPOOL_BACKWARD:
      check_pool(p, o, out[0], in[0]);
      check_same(p, in[0], in[1]);
      assert_int_equal(in[2], NITI_NONE);
      break;
    case NITI_OP_AVGPOOL_FORWARD: check_pool(p, o, in[0], out[0]); break;
    case NITI_OP_AVGPOOL_BACKWARD: check_pool(p, o, out[0], in[0]); break;
    case NITI_OP_RELU_BACKWARD:
    case NITI_OP_ADD:
      check_same(p, in[0], in[1]);
      check_same(p, in[0], out[0]);
      break;
    case NITI_OP_RELU_FORWARD:
    case NITI_OP_DROPOUT: check_same(p, in[0], out[0]); break;
    case NITI_OP_RESHAPE:
      assert_int_equal(niti_tensor_count(&p->tensors[in[0]], p->batch), niti_tensor_count(&p->tensors[out[0]], p->batch));
      break;
    case NITI_OP_LOSS:
      assert_true(has_dims(p, in[1], p->batch, 1, 1, 1) && in[2] == out[0]);
      if (out[1] != NITI_NONE) check_same(p, in[0], out[1]);
      break;
    case NITI_OP_UPDATE_NITI:
      assert_true(in[0] == out[0] && p->tensors[in[1]].weight == in[0]);
      assert_string_equal(p->scalars[o->scalar], "mu");
      break;
    case NITI_OP_NORM_FIT: check_norm_fit(p, o); break;
    case NITI_OP_NORM_FORWARD:
      check_same(p, in[0], out[0]);
      check_channels(p, in[1], NITI_ROLE_SAVED, NITI_DTYPE_S32, niti_tensor_shape(&p->tensors[in[0]], p->batch).c, 2);
      assert_false(o->relu);
      break;
    case NITI_OP_NORM_DELTA_FIT: check_norm_delta_fit(p, o); break;
    case NITI_OP_NORM_BACKWARD:
      check_same(p, in[0], in[1]);
      check_same(p, in[0], out[0]);
      check_channels(p, in[2], NITI_ROLE_SAVED, NITI_DTYPE_S32, niti_tensor_shape(&p->tensors[in[0]], p->batch).c, 3);
      break;
    case NITI_OP_GRADIENT_SQUARES: check_squares(p, o); break;
    case NITI_OP_UPDATE_NITI16:
    case NITI_OP_UPDATE_SGD: check_update_sgd(p, o); break;
    default: fail_msg("no layer lowers to %s", niti_opcodes[o->opcode].name);
  }
}

static void check_rounding_is(const NitiOperation *o, NitiRounding mode, NitiPurpose purpose, int64_t stream) {
  if (o->rounding.mode != mode || o->rounding.purpose != (uint32_t)purpose || o->rounding.stream != (uint32_t)stream)
    fail_msg("%s of layer %d: rounding %d, purpose %u, stream %u", niti_opcodes[o->opcode].name, o->layer, (int)o->rounding.mode,
             o->rounding.purpose, o->rounding.stream);
}

/* docs/arithmetic.md, "Random numbers", save forks, which check_deltas counts. */
static void check_rounding(const NitiProgram *p, const NitiOperation *o, const NitiLowerOptions *options) {
  const bool draws = options->training || !niti_rounding_draws(options->round_activation);
  const bool loss = o->opcode == NITI_OP_LOSS;
  if (loss && options->training && options->loss == NITI_LOSS_NITI) {
    check_rounding_is(o, NITI_STOCHASTIC, NITI_DRAW_LOSS, 0);
  } else if (loss && options->training) {
    check_rounding_is(o, options->round_delta, NITI_DRAW_ROUND_DELTA, 0);
  } else if (o->opcode == NITI_OP_DROPOUT) {
    check_rounding_is(o, NITI_NEAREST, NITI_DRAW_DROPOUT, o->layer);
  } else if (o->opcode == NITI_OP_UPDATE_SGD || o->opcode == NITI_OP_UPDATE_NITI16) {
    const bool bias = strstr(p->tensors[o->inputs[0]].name, ".bias") != NULL;
    check_rounding_is(o, NITI_STOCHASTIC, NITI_DRAW_UPDATE, o->layer + (bias ? 65536 : 0));
  } else if (!niti_opcodes[o->opcode].rounds || loss) {
    check_rounding_is(o, NITI_NEAREST, 0, 0);
  } else if (o->phase == NITI_PHASE_FORWARD) {
    check_rounding_is(o, draws ? options->round_activation : NITI_NEAREST, NITI_DRAW_ROUND_ACT, o->layer);
  } else if (o->opcode != NITI_OP_ADD) {
    check_rounding_is(o, options->round_delta, NITI_DRAW_ROUND_DELTA, o->layer);
  }
}

/* ---- the walk back ---- */

typedef struct Walked {
  const NitiProgram *program;
  const NitiDescription *description;
  const NitiLowerOptions *options;
  bool *trained;  /* [nodes + 1] the layer or one before it has weights */
  int32_t *delta; /* [nodes + 1] the tensor that holds the whole delta of the layer's output; NITI_NONE: there is none */
} Walked;

static const NitiLayerType *type_of(const Walked *w, int32_t layer) { return w->description->nodes[layer - 1].spec.type; }

static void find_trained(Walked *w) {
  for (int32_t i = 1; i <= w->description->node_count; ++i) {
    const NitiDescribedNode *node = &w->description->nodes[i - 1];
    w->trained[i] = type_of(w, i)->weight_shape;
    for (int32_t k = 0; k < node->input_count; ++k) w->trained[i] |= w->trained[node->inputs[k]];
  }
}

/* How many operations of this kind a layer has; *found is the last of them. */
static int operations_of(const NitiProgram *p, int32_t layer, NitiPhase phase, NitiOpcode opcode, const NitiOperation **found) {
  int count = 0;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    if (o->layer != layer || o->phase != phase || o->opcode != opcode) continue;
    *found = o;
    ++count;
  }
  return count;
}

/* What backward sends to the layer's input. */
static NitiOpcode backward_opcode(const NitiLayerType *type) {
  if (type == &niti_layer_conv || type == &niti_layer_linear) return NITI_OP_CONV_BACKWARD;
  if (type == &niti_layer_norm) return NITI_OP_NORM_BACKWARD;
  if (type == &niti_layer_relu) return NITI_OP_RELU_BACKWARD;
  if (type == &niti_layer_maxpool) return NITI_OP_MAXPOOL_BACKWARD;
  if (type == &niti_layer_avgpool || type == &niti_layer_global_avgpool) return NITI_OP_AVGPOOL_BACKWARD;
  if (type == &niti_layer_dropout) return NITI_OP_DROPOUT;
  assert_ptr_equal(type, &niti_layer_flatten);
  return NITI_OP_RESHAPE;
}

/* The delta that one consumer sends back: the output of its backward operation, or for an addition its own delta. */
static int32_t delta_from(const Walked *w, int32_t consumer) {
  const NitiOperation *o = NULL;
  if (type_of(w, consumer) == &niti_layer_add) return w->delta[consumer];
  assert_int_equal(operations_of(w->program, consumer, NITI_PHASE_BACKWARD, backward_opcode(type_of(w, consumer)), &o), 1);
  assert_int_equal(o->inputs[0], w->delta[consumer]);
  return o->outputs[0];
}

/* The k-th addition of deltas at a layer's output: the sum so far and the next consumer's, rounded with a stream of its own. */
static int32_t check_addition(const Walked *w, int32_t layer, int32_t k, int32_t sum, int32_t next) {
  int32_t seen = 0;
  for (int32_t i = 0; i < w->program->operation_count; ++i) {
    const NitiOperation *o = &w->program->operations[i];
    if (o->phase != NITI_PHASE_BACKWARD || o->opcode != NITI_OP_ADD || o->layer != layer || seen++ != k) continue;
    assert_int_equal(o->inputs[0], sum);
    assert_int_equal(o->inputs[1], next);
    check_rounding_is(o, w->options->round_delta, NITI_DRAW_FORK, layer + 65536LL * k);
    return o->outputs[0];
  }
  fail_msg("addition %d at the output of layer %d is missing", k, layer);
  return NITI_NONE;
}

/* The deltas of one layer's output are added, that of the consumer with the highest number first. Returns the sum. */
static int32_t check_forks(const Walked *w, int32_t layer, int32_t loss_delta) {
  int32_t sum = layer == w->description->node_count ? loss_delta : NITI_NONE, additions = 0;
  const NitiOperation *found = NULL;
  for (int32_t i = w->description->node_count; i > layer; --i) {
    const NitiDescribedNode *node = &w->description->nodes[i - 1];
    for (int32_t k = 0; k < node->input_count; ++k) {
      if (node->inputs[k] != layer) continue;
      const int32_t delta = delta_from(w, i);
      sum = sum == NITI_NONE ? delta : check_addition(w, layer, additions++, sum, delta);
    }
  }
  assert_int_equal(operations_of(w->program, layer, NITI_PHASE_BACKWARD, NITI_OP_ADD, &found), additions);
  return sum;
}

/* Backward operations of a layer exist exactly where there are weights for them to reach. */
static void check_backward(const Walked *w, int32_t layer) {
  const NitiLayerType *type = type_of(w, layer);
  const NitiOperation *found = NULL;
  const NitiDescribedNode *node = &w->description->nodes[layer - 1];
  if (type->weight_shape) {
    const bool norm = type == &niti_layer_norm, bias = norm || w->description->nodes[layer - 1].spec.bias;
    const NitiOpcode gradient = norm ? NITI_OP_NORM_DELTA_FIT : NITI_OP_CONV_GRADIENT;
    const NitiOptimizer *optimizer = w->options->optimizer;
    const NitiOpcode update = optimizer == &niti_optimizer_sgd      ? NITI_OP_UPDATE_SGD
                              : optimizer == &niti_optimizer_niti16 ? NITI_OP_UPDATE_NITI16
                                                                    : NITI_OP_UPDATE_NITI;
    assert_int_equal(operations_of(w->program, layer, NITI_PHASE_BACKWARD, gradient, &found), 1);
    assert_int_equal(found->inputs[0], w->delta[layer]);
    assert_int_equal(operations_of(w->program, layer, NITI_PHASE_UPDATE, update, &found), bias ? 2 : 1);
    assert_int_equal(operations_of(w->program, layer, NITI_PHASE_BACKWARD, NITI_OP_BIAS_GRADIENT, &found), bias && !norm);
  }
  if (type != &niti_layer_add)
    assert_int_equal(operations_of(w->program, layer, NITI_PHASE_BACKWARD, backward_opcode(type), &found),
                     w->trained[node->inputs[0]]);
}

/* Deltas exist exactly where a layer or one before it has weights, and forks add them in the documented order. */
static void check_deltas(const NitiProgram *p, const NitiDescription *description, const NitiLowerOptions *options) {
  const size_t n = (size_t)description->node_count + 1;
  Walked w = {p, description, options, calloc(n, sizeof *w.trained), calloc(n, sizeof *w.delta)};
  const NitiOperation *loss = NULL;
  assert_true(w.trained && w.delta);
  find_trained(&w);
  assert_int_equal(operations_of(p, 0, NITI_PHASE_LOSS, NITI_OP_LOSS, &loss), 1);
  for (int32_t i = description->node_count; i >= 1; --i) {
    w.delta[i] = w.trained[i] ? check_forks(&w, i, loss->outputs[1]) : NITI_NONE;
    assert_true((w.delta[i] != NITI_NONE) == w.trained[i]);
    check_backward(&w, i);
  }
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    if (p->tensors[t].role == NITI_ROLE_DELTA) assert_true(w.trained[p->tensors[t].layer]);
  }
  free(w.trained);
  free(w.delta);
}

static void check_evaluation(const NitiProgram *p) {
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    assert_true(o->phase <= NITI_PHASE_LOSS && o->opcode != NITI_OP_DROPOUT && !niti_rounding_draws(o->rounding.mode));
    if (o->opcode == NITI_OP_LOSS) assert_true(o->outputs[1] == NITI_NONE);
  }
  for (int32_t t = 0; t < p->tensor_count; ++t)
    assert_true(p->tensors[t].role != NITI_ROLE_DELTA && p->tensors[t].role != NITI_ROLE_GRADIENT);
}

static void check_program(const NitiDescription *description, const NitiLowerOptions *options) {
  NitiProgram *p = lowered(description, options), *again = lowered(description, options);
  assert_true(niti_program_equal(p, again));
  assert_int_equal(p->layer_count, description->node_count);
  for (int32_t i = 1; i <= p->layer_count; ++i) assert_string_equal(p->layers[i], description->nodes[i - 1].spec.name);
  check_order(p);
  check_names(p);
  for (int32_t i = 0; i < p->operation_count; ++i) {
    check_operands(p, &p->operations[i]);
    check_rounding(p, &p->operations[i], options);
  }
  check_clipping(p, options->training && options->clips_norm);
  if (options->training) {
    check_deltas(p, description, options);
  } else {
    check_evaluation(p);
  }
  assert_int_equal(niti_program_overflow(p), NITI_NONE);
  niti_program_close(again);
  niti_program_close(p);
}

static void check_description(const NitiDescription *description, NitiLowerOptions options) {
  for (int training = 0; training < 2; ++training) {
    options.training = training;
    check_program(description, &options);
  }
}

static bool has_norm(const NitiDescription *d) {
  for (int32_t i = 0; i < d->node_count; ++i) {
    if (d->nodes[i].spec.type == &niti_layer_norm) return true;
  }
  return false;
}

static void builtin_models_lower(void **state) {
  (void)state;
  for (const char *const *name = niti_builtin_models(); *name; ++name) {
    NitiDescription *d = NULL;
    must(niti_description_load(&d, *name, NULL));
    check_description(
        d, (NitiLowerOptions){
               .batch = 3, .round_delta = NITI_PSEUDO_STOCHASTIC, .loss = NITI_LOSS_SOFTMAX, .optimizer = &niti_optimizer_sgd});
    if (!has_norm(d))
      check_description(d, (NitiLowerOptions){.batch = 256, .round_activation = NITI_STOCHASTIC, .loss = NITI_LOSS_SOFTMAX});
    niti_description_close(d);
  }
}

static void every_layer_lowers(void **state) {
  NitiDescription *d = described(every_layer);
  (void)state;
  for (int mode = NITI_NEAREST; mode <= NITI_STOCHASTIC_BYTE; ++mode)
    check_description(d, (NitiLowerOptions){.batch = 24,
                                            .round_activation = (NitiRounding)mode,
                                            .round_delta = (NitiRounding)(NITI_STOCHASTIC_BYTE - mode),
                                            .loss = mode % 2 ? NITI_LOSS_SOFTMAX : NITI_LOSS_NITI});
  niti_description_close(d);
  d = described(every_layer_normed);
  for (int mode = NITI_NEAREST; mode <= NITI_STOCHASTIC_BYTE; ++mode)
    check_description(d, (NitiLowerOptions){.batch = 24,
                                            .round_activation = (NitiRounding)mode,
                                            .round_delta = (NitiRounding)(NITI_STOCHASTIC_BYTE - mode),
                                            .loss = NITI_LOSS_SOFTMAX,
                                            .nesterov = mode % 2,
                                            .clips_norm = mode % 2 == 0,
                                            .optimizer = &niti_optimizer_sgd});
  niti_description_close(d);
}

static void random_networks_lower(void **state) {
  static RandomNetwork r;
  (void)state;
  random_state = 13;
  for (int i = 0; i < RANDOM_NETWORKS; ++i) {
    NitiDescription *d = described(random_network(&r));
    NitiLowerOptions options = random_lowering(&r);
    check_description(d, options);
    options.optimizer = &niti_optimizer_niti16;
    options.clips_norm = false;
    check_description(d, options);
    niti_description_close(d);
  }
}

/* One tensor with four consumers: the relu's output goes into two nested bodies and both their sums. */
static void forks_of_several_are_added_downwards(void **state) {
  static const char text[] =
      "name: t\ninput: [4, 4, 1]\nclasses: 2\nlayers:\n  - conv: {out: 3, kernel: 1}\n  - residual:\n      body:\n"
      "        - residual: {body: [relu], shortcut: [relu]}\n      shortcut:\n        - residual: {body: [relu]}\n"
      "  - flatten\n  - linear: {out: classes}\n";
  const NitiLowerOptions options = {.batch = 1, .training = true, .round_delta = NITI_STOCHASTIC};
  NitiProgram *p = program_of(text, &options);
  int32_t additions = 0;
  (void)state;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    if (o->phase != NITI_PHASE_BACKWARD || o->opcode != NITI_OP_ADD) continue;
    assert_int_equal(o->layer, 1);
    assert_int_equal(o->rounding.stream, 1 + 65536 * additions);
    ++additions;
  }
  assert_int_equal(additions, 3); /* nodes 2 and 3 (relu), 5 (relu) and 6 (its sum): four deltas */
  niti_program_close(p);
}

/* A layer may have the name that the network's own tensors begin with. */
static void a_layer_may_be_called_input(void **state) {
  static const char text[] =
      "name: t\ninput: [4, 4, 1]\nclasses: 2\nlayers:\n  - conv: {out: 3, kernel: 1, name: input}\n"
      "  - relu: {name: pixels}\n  - flatten: {name: labels}\n  - linear: {out: classes, name: table}\n";
  NitiDescription *d = described(text);
  (void)state;
  check_description(d, (NitiLowerOptions){.batch = 2});
  niti_description_close(d);
}

/* Without weights there is nothing to train, and no delta is sent back. */
static void nothing_trained_nothing_sent_back(void **state) {
  static const char text[] =
      "name: t\ninput: [4, 4, 2]\nclasses: 2\nlayers:\n  - relu\n  - maxpool: {kernel: 2}\n"
      "  - avgpool: {kernel: 2}\n  - flatten\n";
  const NitiLowerOptions options = {.batch = 2, .training = true};
  NitiProgram *p = program_of(text, &options);
  (void)state;
  for (int32_t i = 0; i < p->operation_count; ++i) assert_true(p->operations[i].phase <= NITI_PHASE_LOSS);
  for (int32_t t = 0; t < p->tensor_count; ++t) assert_true(p->tensors[t].role != NITI_ROLE_DELTA);
  niti_program_close(p);
}

/* Frozen layers get no gradient, and nothing before the first trained one is sent a delta. */
static void frozen_layers_stay(void **state) {
  static const char text[] =
      "name: t\ninput: [8, 8, 1]\nclasses: 2\nfreeze: [a, c]\nlayers:\n  - conv: {out: 3, kernel: 3, name: a}\n  - relu\n"
      "  - conv: {out: 3, kernel: 3, name: b}\n  - relu\n  - conv: {out: 3, kernel: 3, name: c}\n  - flatten\n"
      "  - linear: {out: classes, name: d}\n";
  const NitiLowerOptions options = {.batch = 2, .training = true};
  NitiProgram *p = program_of(text, &options);
  const int32_t gradients[] = {7, 3}, deltas[] = {7, 5}; /* layers; b's input is a relu of a, which is not trained */
  int32_t found[2] = {0, 0};
  (void)state;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    if (o->opcode == NITI_OP_CONV_GRADIENT) assert_int_equal(o->layer, gradients[found[0]++]);
    if (o->opcode == NITI_OP_CONV_BACKWARD) assert_int_equal(o->layer, deltas[found[1]++]);
  }
  assert_int_equal(found[0], 2);
  assert_int_equal(found[1], 2);
  niti_program_close(p);
}

/* No update reaches the parameters of a frozen layer, whatever their type; a norm among trained ones still sends a delta back. */
static void frozen_biases_and_norms_stay(void **state) {
  static const char text[] =
      "name: t\ninput: [8, 8, 1]\nclasses: 2\nfreeze: [b, c]\nlayers:\n  - conv: {out: 3, kernel: 3, name: a}\n"
      "  - norm: {name: b}\n  - conv: {out: 3, kernel: 3, bias: true, name: c}\n  - flatten\n"
      "  - linear: {out: classes, name: d}\n";
  const NitiOptimizer *const optimizers[] = {&niti_optimizer_niti, &niti_optimizer_sgd};
  (void)state;
  for (int k = 0; k < 2; ++k) {
    const NitiLowerOptions options = {.batch = 2, .training = true, .optimizer = optimizers[k]};
    NitiProgram *p = program_of(text, &options);
    int32_t updates = 0, backward = 0, sums = 0;
    for (int32_t i = 0; i < p->operation_count; ++i) {
      const NitiOperation *o = &p->operations[i];
      if (o->phase == NITI_PHASE_UPDATE) assert_true(o->layer == 1 || o->layer == 5);
      updates += o->phase == NITI_PHASE_UPDATE;
      backward += o->opcode == NITI_OP_NORM_BACKWARD;
      sums += o->opcode == NITI_OP_BIAS_GRADIENT;
    }
    assert_int_equal(updates, 2);
    assert_int_equal(backward, 1);
    assert_int_equal(sums, 0);
    niti_program_close(p);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(builtin_models_lower),        cmocka_unit_test(every_layer_lowers),
      cmocka_unit_test(random_networks_lower),       cmocka_unit_test(forks_of_several_are_added_downwards),
      cmocka_unit_test(a_layer_may_be_called_input), cmocka_unit_test(nothing_trained_nothing_sent_back),
      cmocka_unit_test(frozen_layers_stay),          cmocka_unit_test(frozen_biases_and_norms_stay),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
