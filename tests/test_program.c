/* Programs: building them record by record, and what layers, loss and optimiser lower to, checked against docs/arithmetic.md for
 * the built-in models, a model with every layer, and random ones. */
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

/* ---- building ---- */

static int32_t add_named(NitiProgram *p, const char *name, int32_t layer) {
  NitiTensorDesc t = niti_tensor_desc(NITI_ROLE_ACTIVATION, (NitiShape){2, 3, 4, 5});
  (void)snprintf(t.name, sizeof t.name, "%s", name);
  t.layer = layer;
  return niti_program_add_tensor(p, &t);
}

static void names_are_unique_and_found(void **state) {
  NitiProgram *p = NULL;
  (void)state;
  must(niti_program_open(&p, 2));
  assert_int_equal(niti_program_add_layer(p, "conv1"), 1);
  assert_int_equal(niti_program_add_layer(p, "input"), 2);
  assert_int_equal(p->layer_count, 2);
  assert_string_equal(p->layers[0], "");
  assert_string_equal(p->layers[2], "input");
  const int32_t a = add_named(p, "conv1.delta", 1), b = add_named(p, "conv1.delta", 1), c = add_named(p, "conv1.delta", 1);
  assert_string_equal(p->tensors[a].name, "conv1.delta");
  assert_string_equal(p->tensors[b].name, "conv1.delta.2");
  assert_string_equal(p->tensors[c].name, "conv1.delta.3");
  const int32_t network = add_named(p, "input.out", 0), layer = add_named(p, "input.out", 2);
  assert_string_equal(p->tensors[layer].name, "input.out.2"); /* a layer may be called like the network's input */
  assert_int_equal(niti_program_find(p, "input.out"), network);
  assert_int_equal(niti_program_find(p, "conv1.delta.2"), b);
  assert_int_equal(niti_program_find(p, "conv1"), NITI_NONE);
  must(niti_program_check(p));
  niti_program_close(p);
}

static void scalars_are_declared_once(void **state) {
  NitiProgram *p = NULL;
  char name[16];
  (void)state;
  must(niti_program_open(&p, 1));
  assert_int_equal(niti_program_find_scalar(p, "mu"), NITI_NONE);
  for (int i = 0; i < NITI_SCALARS_MAX; ++i) {
    (void)snprintf(name, sizeof name, "s%d", i);
    assert_int_equal(niti_program_scalar(p, name), i);
    assert_int_equal(niti_program_scalar(p, name), i);
    assert_int_equal(niti_program_find_scalar(p, name), i);
  }
  assert_int_equal(niti_program_scalar(p, "one more"), NITI_NONE);
  assert_int_equal(p->scalar_count, NITI_SCALARS_MAX);
  niti_program_close(p);
}

/* Many more records than there is room for at first. */
static void programs_grow_and_copy(void **state) {
  NitiProgram *p = NULL;
  (void)state;
  must(niti_program_open(&p, 2));
  for (int32_t i = 0; i < 1000; ++i) {
    char name[32];
    NitiOperation o = niti_operation(NITI_OP_RESHAPE, NITI_PHASE_FORWARD, i + 1);
    (void)snprintf(name, sizeof name, "layer%d", i);
    assert_int_equal(niti_program_add_layer(p, name), i + 1);
    o.outputs[0] = add_named(p, name, i + 1);
    assert_int_equal(o.outputs[0], i);
    niti_program_add_operation(p, &o);
  }
  NitiProgram *copy = niti_program_copy(p);
  assert_non_null(copy);
  assert_true(niti_program_equal(p, copy));
  assert_string_equal(copy->layers[1000], "layer999");
  assert_string_equal(copy->tensors[999].name, "layer999");
  niti_program_add_operation(copy, &copy->operations[3]); /* a copy grows like any other, and alone */
  assert_int_equal(copy->operation_count, 1001);
  assert_int_equal(p->operation_count, 1000);
  assert_false(niti_program_equal(p, copy));
  must(niti_program_check(copy));
  niti_program_close(copy);
  niti_program_close(p);
  niti_program_close(NULL);
}

/* Changes one thing of a copy: the two differ. */
static void equality_sees_every_part(void **state) {
  const NitiLowerOptions options = {.batch = 2, .training = true};
  NitiProgram *p = program_of(every_layer, &options), *same = program_of(every_layer, &options);
  (void)state;
  assert_true(niti_program_equal(p, same));
  for (int part = 0; part < 7; ++part) {
    NitiProgram *q = niti_program_copy(p);
    assert_non_null(q);
    if (part == 0) q->batch = 3;
    if (part == 1) q->tensors[5].dims[2] += 1;
    if (part == 2) q->operations[q->operation_count - 1].scalar = 1;
    if (part == 3) q->operations[3].rounding.stream += 1;
    if (part == 4) q->layers[2][0] = 'x';
    if (part == 5) q->scalars[0][0] = 'x';
    if (part == 6) --q->operation_count;
    assert_false(niti_program_equal(p, q));
    niti_program_close(q);
  }
  niti_program_close(p);
  niti_program_close(same);
}

static void phases_are_ranges(void **state) {
  static const NitiPhase phases[] = {NITI_PHASE_INPUT,    NITI_PHASE_FORWARD,  NITI_PHASE_FORWARD, NITI_PHASE_LOSS,
                                     NITI_PHASE_BACKWARD, NITI_PHASE_BACKWARD, NITI_PHASE_UPDATE};
  static const int32_t ends[NITI_PHASES + 1] = {0, 1, 3, 4, 6, 6, 7}; /* where each phase begins; there is no reduce */
  NitiProgram *p = NULL;
  (void)state;
  must(niti_program_open(&p, 1));
  for (size_t i = 0; i < sizeof phases / sizeof *phases; ++i) {
    const NitiOperation o = niti_operation(NITI_OP_NONE, phases[i], 0);
    niti_program_add_operation(p, &o);
  }
  for (int from = 0; from < NITI_PHASES; ++from) {
    for (int to = from; to < NITI_PHASES; ++to) {
      int32_t first = -1, end = -1;
      niti_program_phases(p, (NitiPhase)from, (NitiPhase)to, &first, &end);
      assert_int_equal(first, ends[from]);
      assert_int_equal(end, ends[to + 1]);
    }
  }
  niti_program_close(p);
}

static void sizes_and_words(void **state) {
  NitiTensorDesc t = niti_tensor_desc(NITI_ROLE_ACTIVATION, (NitiShape){7, 3, 4, 5});
  static const size_t bytes[NITI_DTYPES] = {1, 1, 2, 4, 8};
  (void)state;
  assert_int_equal(niti_tensor_count(&t, 2), 2 * 3 * 4 * 5);
  t.batched = false;
  assert_int_equal(niti_tensor_count(&t, 2), 7 * 3 * 4 * 5);
  t.rank = 2;
  t.dims[1] = 60;
  t.dims[2] = t.dims[3] = 1;
  const NitiShape matrix = niti_tensor_shape(&t, 2);
  assert_true(matrix.n == 7 && matrix.h == 1 && matrix.w == 1 && matrix.c == 60);
  for (int i = 0; i < NITI_DTYPES; ++i) assert_int_equal(niti_dtype_bytes((NitiDtype)i), bytes[i]);
  assert_string_equal(niti_dtype_name(NITI_DTYPE_S64), "s64");
  assert_string_equal(niti_role_name(NITI_ROLE_METRIC), "metric");
  assert_string_equal(niti_phase_name(NITI_PHASE_UPDATE), "update");
  assert_string_equal(niti_rounding_name(NITI_TRUNCATE), "truncate");
  for (int i = 0; i < NITI_OPCODES; ++i) assert_true(niti_opcodes[i].name && niti_opcodes[i].name[0]);
}

/* ---- what every program keeps to ---- */

static bool is_updated_in_place(NitiRole role) {
  return role == NITI_ROLE_WEIGHT || role == NITI_ROLE_STATE || role == NITI_ROLE_METRIC;
}

static bool reads(const NitiOperation *o, int32_t tensor) {
  return o->inputs[0] == tensor || o->inputs[1] == tensor || o->inputs[2] == tensor;
}

/* Every tensor is written before it is read, and once, save what is updated in place. */
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
    assert_true(has_dims(p, tensor, c->k, c->kh, c->kw, c->c));
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

/* The operands' shapes are what the attributes say. */
static void check_operands(const NitiProgram *p, const NitiOperation *o) {
  const int32_t *in = o->inputs, *out = o->outputs;
  switch (o->opcode) {
    case NITI_OP_INPUT:
      check_same(p, in[0], out[0]); /* pixels */
      assert_true(has_dims(p, in[1], p->batch, 4, 1, 1) && has_dims(p, in[2], p->tensors[out[0]].dims[3], 256, 1, 1));
      break;
    case NITI_OP_CONV_FORWARD:
      check_conv(p, o, in[0], out[0]);
      check_weight(p, &o->conv, in[1]);
      assert_false(o->relu); /* fusing is a backend's business */
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
    case NITI_OP_AVGPOOL_FORWARD:
      check_pool(p, o, in[0], out[0]);
      break;
    case NITI_OP_AVGPOOL_BACKWARD:
      check_pool(p, o, out[0], in[0]);
      break;
    case NITI_OP_RELU_BACKWARD:
    case NITI_OP_ADD:
      check_same(p, in[0], in[1]);
      check_same(p, in[0], out[0]);
      break;
    case NITI_OP_RELU_FORWARD:
    case NITI_OP_DROPOUT:
      check_same(p, in[0], out[0]);
      break;
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
    default:
      fail_msg("no layer lowers to %s", niti_opcodes[o->opcode].name);
  }
}

static void check_rounding_is(const NitiOperation *o, NitiRounding mode, NitiPurpose purpose, int64_t stream) {
  if (o->rounding.mode != mode || o->rounding.purpose != (uint32_t)purpose || o->rounding.stream != (uint32_t)stream)
    fail_msg("%s of layer %d: rounding %d, purpose %u, stream %u", niti_opcodes[o->opcode].name, o->layer, (int)o->rounding.mode,
             o->rounding.purpose, o->rounding.stream);
}

/* docs/arithmetic.md, "Random numbers", save forks, which check_deltas counts. */
static void check_rounding(const NitiOperation *o, const NitiLowerOptions *options) {
  const bool draws = options->training || options->round_activation != NITI_STOCHASTIC;
  const bool loss = o->opcode == NITI_OP_LOSS;
  if (loss && options->training && options->loss == NITI_LOSS_NITI) {
    check_rounding_is(o, NITI_STOCHASTIC, NITI_DRAW_LOSS, 0);
  } else if (loss && options->training) {
    check_rounding_is(o, options->round_delta, NITI_DRAW_ROUND_DELTA, 0);
  } else if (o->opcode == NITI_OP_DROPOUT) {
    check_rounding_is(o, NITI_NEAREST, NITI_DRAW_DROPOUT, o->layer);
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
  bool *trained;  /* [nodes + 1] weights lie in the layer or before it */
  int32_t *delta; /* [nodes + 1] the tensor that holds the whole error at the layer's output; NITI_NONE: there is none */
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
  if (type == &niti_layer_relu) return NITI_OP_RELU_BACKWARD;
  if (type == &niti_layer_maxpool) return NITI_OP_MAXPOOL_BACKWARD;
  if (type == &niti_layer_avgpool || type == &niti_layer_global_avgpool) return NITI_OP_AVGPOOL_BACKWARD;
  if (type == &niti_layer_dropout) return NITI_OP_DROPOUT;
  assert_ptr_equal(type, &niti_layer_flatten);
  return NITI_OP_RESHAPE;
}

/* The error that one consumer sends to input k: made by an operation of its own, or a sum's own error as it is. */
static int32_t error_from(const Walked *w, int32_t consumer) {
  const NitiOperation *o = NULL;
  if (type_of(w, consumer) == &niti_layer_add) return w->delta[consumer];
  assert_int_equal(operations_of(w->program, consumer, NITI_PHASE_BACKWARD, backward_opcode(type_of(w, consumer)), &o), 1);
  assert_int_equal(o->inputs[0], w->delta[consumer]);
  return o->outputs[0];
}

/* The k-th addition of errors at a layer's output: the sum so far and the next consumer's, rounded with a stream of its own. */
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

/* The errors at one layer's output, of the consumer with the highest number first. */
static int32_t check_forks(const Walked *w, int32_t layer, int32_t loss_delta) {
  int32_t sum = layer == w->description->node_count ? loss_delta : NITI_NONE, additions = 0;
  const NitiOperation *found = NULL;
  for (int32_t i = w->description->node_count; i > layer; --i) {
    const NitiDescribedNode *node = &w->description->nodes[i - 1];
    for (int32_t k = 0; k < node->input_count; ++k) {
      if (node->inputs[k] != layer) continue;
      const int32_t error = error_from(w, i);
      sum = sum == NITI_NONE ? error : check_addition(w, layer, additions++, sum, error);
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
    assert_int_equal(operations_of(w->program, layer, NITI_PHASE_BACKWARD, NITI_OP_CONV_GRADIENT, &found), 1);
    assert_int_equal(found->inputs[0], w->delta[layer]);
    assert_int_equal(operations_of(w->program, layer, NITI_PHASE_UPDATE, NITI_OP_UPDATE_NITI, &found), 1);
  }
  if (type != &niti_layer_add)
    assert_int_equal(operations_of(w->program, layer, NITI_PHASE_BACKWARD, backward_opcode(type), &found),
                     w->trained[node->inputs[0]]);
}

/* Errors exist exactly where weights lie in a layer or before it, and forks add them in the documented order. */
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
    assert_true(o->phase <= NITI_PHASE_LOSS && o->opcode != NITI_OP_DROPOUT && o->rounding.mode != NITI_STOCHASTIC);
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
    check_rounding(&p->operations[i], options);
  }
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

static void builtin_models_lower(void **state) {
  (void)state;
  for (const char *const *name = niti_builtin_models(); *name; ++name) {
    NitiDescription *d = NULL;
    must(niti_description_load(&d, *name, NULL));
    check_description(d, (NitiLowerOptions){.batch = 3, .round_delta = NITI_PSEUDO_STOCHASTIC});
    check_description(d, (NitiLowerOptions){.batch = 256, .round_activation = NITI_STOCHASTIC, .loss = NITI_LOSS_SOFTMAX});
    niti_description_close(d);
  }
}

static void every_layer_lowers(void **state) {
  NitiDescription *d = described(every_layer);
  (void)state;
  for (int mode = NITI_NEAREST; mode <= NITI_TRUNCATE; ++mode)
    check_description(d, (NitiLowerOptions){.batch = 24,
                                            .round_activation = (NitiRounding)mode,
                                            .round_delta = (NitiRounding)(NITI_TRUNCATE - mode),
                                            .loss = mode % 2 ? NITI_LOSS_SOFTMAX : NITI_LOSS_NITI});
  niti_description_close(d);
}

static void random_networks_lower(void **state) {
  static RandomNetwork r;
  (void)state;
  random_state = 13;
  for (int i = 0; i < RANDOM_NETWORKS; ++i) {
    NitiDescription *d = described(random_network(&r));
    check_description(d, random_lowering());
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
  assert_int_equal(additions, 3); /* nodes 2 and 3 (relu), 5 (relu) and 6 (its sum): four errors */
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

/* Nothing trained lies before a network's first weights: no error is sent there. */
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

/* ---- bounds ---- */

/* 2^31 - 1 = 133,144 * 127^2 + 3,871. */
static void gradients_widen_at_the_bound(void **state) {
  static const char text[] = "name: t\ninput: [1, 1, 1]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {out: classes}\n";
  (void)state;
  for (int32_t batch = 133144; batch <= 133145; ++batch) {
    const NitiLowerOptions options = {.batch = batch, .training = true};
    NitiProgram *p = program_of(text, &options);
    const int32_t gradient = niti_program_find(p, "linear1.gradient");
    assert_int_equal(p->tensors[gradient].dtype, batch == 133144 ? NITI_DTYPE_S32 : NITI_DTYPE_S64);
    assert_int_equal(niti_program_overflow(p), NITI_NONE); /* in either width it is exact */
    niti_program_close(p);
  }
}

static NitiStatus try_lower(const char *text, int32_t batch) {
  NitiDescription *description = NULL;
  NitiProgram *p = NULL;
  const NitiLowerOptions options = {.batch = batch, .training = true};
  must(niti_description_parse(&description, text, "wide.yaml", NULL));
  const NitiStatus status = niti_lower(&p, description, &options);
  assert_true((p != NULL) == (status == NITI_OK));
  niti_program_close(p);
  niti_description_close(description);
  return status;
}

static void wide_sums_are_refused_with_their_place(void **state) {
  static const char format[] =
      "name: t\ninput: [4, %d, 1]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {out: classes, name: head}\n";
  char text[256];
  (void)state;
  (void)snprintf(text, sizeof text, format, 133144 / 4);
  must(try_lower(text, 1));
  (void)snprintf(text, sizeof text, format, 133144 / 4 + 1);
  assert_int_equal(try_lower(text, 1), NITI_ERROR_MODEL);
  assert_string_equal(niti_error(),
                      "wide.yaml:6:5: head: an accumulator of 133148 terms could overflow int32 (expected at most 133144)");
}

static void batches_out_of_range_are_refused(void **state) {
  static const char text[] = "name: t\ninput: [1, 1, 1]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {out: classes}\n";
  (void)state;
  assert_int_equal(try_lower(text, 0), NITI_ERROR_ARGUMENT);
  assert_non_null(strstr(niti_error(), "batch: 0"));
  assert_int_equal(try_lower(text, (1 << 20) + 1), NITI_ERROR_ARGUMENT);
  must(try_lower(text, 1 << 20));
}

/* 2^34 random words index a tensor: 2^20 images of 2^14 values have one each, of 2^14 + 1 do not. */
static void tensors_beyond_random_words_are_refused(void **state) {
  static const char format[] =
      "name: t\ninput: [1, 1, 1]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {out: %d, name: broad}\n"
      "  - linear: {out: classes}\n";
  char text[256];
  (void)state;
  (void)snprintf(text, sizeof text, format, 1 << 14);
  must(try_lower(text, 1 << 20));
  (void)snprintf(text, sizeof text, format, (1 << 14) + 1);
  assert_int_equal(try_lower(text, 1 << 20), NITI_ERROR_MODEL);
  assert_string_equal(niti_error(),
                      "wide.yaml:6:5: broad: 17180917760 values in a batch of 1048576 images (expected at most 2^34)");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_are_unique_and_found),
      cmocka_unit_test(scalars_are_declared_once),
      cmocka_unit_test(programs_grow_and_copy),
      cmocka_unit_test(equality_sees_every_part),
      cmocka_unit_test(phases_are_ranges),
      cmocka_unit_test(sizes_and_words),
      cmocka_unit_test(builtin_models_lower),
      cmocka_unit_test(every_layer_lowers),
      cmocka_unit_test(random_networks_lower),
      cmocka_unit_test(forks_of_several_are_added_downwards),
      cmocka_unit_test(a_layer_may_be_called_input),
      cmocka_unit_test(nothing_trained_nothing_sent_back),
      cmocka_unit_test(gradients_widen_at_the_bound),
      cmocka_unit_test(wide_sums_are_refused_with_their_place),
      cmocka_unit_test(batches_out_of_range_are_refused),
      cmocka_unit_test(tensors_beyond_random_words_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
