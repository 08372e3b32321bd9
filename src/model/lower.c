/* Lowers a network's description: forward layer by layer, then the loss, backward and the update. */
#include "model/lower.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/bounds.h"
#include "base/norm.h"
#include "base/softmax.h"
#include "program/bounds.h"

typedef struct Walk {
  NitiLowering lowering;
  const NitiDescription *description;
  const NitiLowerOptions *options;
  NitiLayer *layers;  /* [count + 1]; layers[0].y is the network's input */
  bool *trained;      /* [count + 1] the layer or one before it has weights that are trained: its backward runs */
  int32_t *deltas;    /* [count + 1] the delta of each layer's output so far, or NITI_NONE */
  int32_t *additions; /* [count + 1] how many deltas have been added to it */
  int32_t count, metrics, labels;
} Walk;

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for a network's program"); }

static int32_t add_plain(NitiProgram *p, const char *name, NitiDtype dtype, NitiRole role, int32_t rank, const int64_t *dims) {
  NitiTensorDesc t = niti_tensor_desc(role, (NitiShape){1, 1, 1, 1});
  t.dtype = dtype;
  t.exponents = role == NITI_ROLE_CONSTANT ? NITI_EXPONENTS_ONE : NITI_EXPONENTS_NONE;
  t.batched = role == NITI_ROLE_INPUT;
  t.rank = rank;
  for (int i = 0; i < rank; ++i) t.dims[i] = dims[i];
  (void)snprintf(t.name, sizeof t.name, "%s", name);
  return niti_program_add_tensor(p, &t);
}

_Static_assert(sizeof(NitiSample) == NITI_SAMPLE_WORDS * sizeof(int32_t), "a row of the tensor of samples");

static void lower_input(Walk *w, bool changes) {
  NitiProgram *p = w->lowering.program;
  const NitiShape in = w->layers[0].out;
  const int64_t pixels[4] = {in.n, in.h, in.w, in.c}, samples[2] = {in.n, NITI_SAMPLE_WORDS}, labels[1] = {in.n},
                table[2] = {in.c, 256}, metrics[1] = {3};
  NitiOperation o = niti_operation(NITI_OP_INPUT, NITI_PHASE_INPUT, 0);
  o.changes = changes;
  o.inputs[0] = add_plain(p, NITI_TENSOR_PIXELS, NITI_DTYPE_U8, NITI_ROLE_INPUT, 4, pixels);
  o.inputs[1] = add_plain(p, NITI_TENSOR_SAMPLES, NITI_DTYPE_S32, NITI_ROLE_INPUT, 2, samples);
  o.inputs[2] = add_plain(p, NITI_TENSOR_TABLE, NITI_DTYPE_S8, NITI_ROLE_CONSTANT, 2, table);
  w->labels = add_plain(p, NITI_TENSOR_LABELS, NITI_DTYPE_S32, NITI_ROLE_INPUT, 1, labels);
  w->metrics = add_plain(p, NITI_TENSOR_METRICS, NITI_DTYPE_S64, NITI_ROLE_METRIC, 1, metrics);
  w->layers[0].y = o.outputs[0] = niti_lower_output(&w->lowering, &w->layers[0]);
  niti_lower_append(&w->lowering, &o);
}

static NitiStatus fail_at(const NitiDescription *d, int32_t layer, const char *what) {
  const NitiLayerSpec *spec = &d->nodes[layer - 1].spec;
  return niti_fail(NITI_ERROR_MODEL, "%s:%d:%d: %s: %s", d->source, spec->line, spec->column, spec->name, what);
}

static int32_t readers_of(const NitiDescription *d, int32_t number) {
  int32_t readers = 0;
  for (int32_t i = 0; i < d->node_count; ++i) {
    for (int k = 0; k < d->nodes[i].input_count; ++k) readers += d->nodes[i].inputs[k] == number;
  }
  return readers;
}

static NitiStatus lower_layer(Walk *w, int32_t number) {
  const NitiDescribedNode *node = &w->description->nodes[number - 1];
  const NitiLayerType *type = node->spec.type;
  NitiLayer *layer = &w->layers[number];
  *layer = (NitiLayer){.spec = &node->spec, .number = number, .weight = NITI_NONE, .bias = NITI_NONE, .saved = NITI_NONE};
  layer->frozen = node->frozen;
  layer->alone = readers_of(w->description, node->inputs[0]) == 1;
  w->trained[number] = type->weight_shape != NULL && !node->frozen;
  for (int k = 0; k < node->input_count; ++k) {
    const int32_t from = node->inputs[k];
    layer->sources[k] = from;
    layer->in[k] = w->layers[from].out;
    layer->x[k] = w->layers[from].y;
    w->trained[number] = w->trained[number] || w->trained[from];
  }
  if (type->shape(&node->spec, layer->in, &layer->out) != NITI_OK) return fail_at(w->description, number, niti_error());
  (void)niti_program_add_layer(w->lowering.program, node->spec.name);
  NITI_TRY(niti_program_check(w->lowering.program));
  w->lowering.clip_activation = number == w->count ? 0 : w->options->clip_activation; /* the loss compares whole logits */
  type->forward(&w->lowering, layer);
  return niti_program_check(w->lowering.program);
}

/* The delta of the logits, if any layer before them is trained. */
static void lower_loss(Walk *w) {
  NitiProgram *p = w->lowering.program;
  NitiOperation o = niti_operation(NITI_OP_LOSS, NITI_PHASE_LOSS, 0);
  o.inputs[0] = w->layers[w->count].y;
  o.inputs[1] = w->labels;
  o.inputs[2] = o.outputs[0] = w->metrics;
  o.loss = (NitiLoss){w->options->loss, niti_loss_off(w->options->smoothing, w->layers[w->count].out.c)};
  if (w->options->training && w->trained[w->count]) {
    NitiTensorDesc delta = niti_tensor_desc(NITI_ROLE_DELTA, w->layers[w->count].out);
    delta.layer = w->count;
    (void)snprintf(delta.name, sizeof delta.name, "%s.delta", w->layers[w->count].spec->name);
    o.outputs[1] = w->deltas[w->count] = niti_program_add_tensor(p, &delta);
    o.rounding = o.loss.kind == NITI_LOSS_NITI ? (NitiRoundingRecord){NITI_STOCHASTIC, NITI_DRAW_LOSS, 0, 0}
                                               : (NitiRoundingRecord){w->options->round_delta, NITI_DRAW_ROUND_DELTA, 0, 0};
  }
  niti_lower_append(&w->lowering, &o);
}

/* Adds the delta of another consumer to the sum so far. */
static void add_delta(Walk *w, const NitiLayer *layer, int i, int32_t dx) {
  const int32_t from = layer->sources[i];
  NitiOperation o = niti_operation(NITI_OP_ADD, NITI_PHASE_BACKWARD, from);
  o.inputs[0] = w->deltas[from];
  o.inputs[1] = dx;
  o.outputs[0] = w->deltas[from] = niti_lower_delta(&w->lowering, layer, i);
  o.rounding = (NitiRoundingRecord){w->options->round_delta, NITI_DRAW_FORK,
                                    (uint32_t)from + 65536u * (uint32_t)w->additions[from]++, w->options->clip_delta};
  niti_lower_append(&w->lowering, &o);
}

/* The consumer with the highest number comes first; the delta of each further one is added to the sum so far. */
static void lower_backward(Walk *w, int32_t number) {
  const NitiLayer *layer = &w->layers[number];
  const int inputs = layer->spec->type->inputs;
  bool wanted[NITI_INPUTS_MAX] = {false};
  int32_t dx[NITI_INPUTS_MAX] = {NITI_NONE, NITI_NONE};
  if (!w->trained[number] || w->deltas[number] == NITI_NONE) return;
  for (int k = 0; k < inputs; ++k) wanted[k] = w->trained[layer->sources[k]];
  layer->spec->type->backward(&w->lowering, layer, w->deltas[number], wanted, dx);
  for (int k = 0; k < inputs; ++k) {
    if (dx[k] == NITI_NONE || !wanted[k]) continue;
    if (w->deltas[layer->sources[k]] == NITI_NONE) {
      w->deltas[layer->sources[k]] = dx[k];
    } else {
      add_delta(w, layer, k, dx[k]);
    }
  }
}

static int32_t gradient_of(const NitiProgram *p, int32_t weight) {
  for (int32_t i = p->tensor_count - 1; i > weight; --i) {
    if (p->tensors[i].role == NITI_ROLE_GRADIENT && p->tensors[i].weight == weight) return i;
  }
  return NITI_NONE;
}

static void lower_all_backward(Walk *w) {
  const NitiOperation wait = niti_operation(NITI_OP_ALL_SUM_WAIT, NITI_PHASE_REDUCE, 0);
  for (int32_t i = w->count; i >= 1; --i) lower_backward(w, i);
  niti_lower_sums(&w->lowering);
  if (w->options->whole > 0) niti_lower_append(&w->lowering, &wait);
}

/* Weights are declared in the order of the layers, a layer's weight before its bias. Gradients are sums over all ranks by now. */
static void lower_looks(Walk *w, const NitiOptimizer *optimizer) {
  const NitiProgram *p = w->lowering.program;
  const int32_t count = p->tensor_count;
  for (int32_t t = 0; t < count && optimizer->look; ++t) {
    if (p->tensors[t].role != NITI_ROLE_WEIGHT || w->layers[p->tensors[t].layer].frozen) continue;
    const int32_t gradient = gradient_of(p, t);
    if (gradient != NITI_NONE) optimizer->look(&w->lowering, t, gradient);
  }
}

static NitiStatus lower_updates(Walk *w) {
  const NitiOptimizer *optimizer = w->options->optimizer ? w->options->optimizer : &niti_optimizer_niti;
  NitiProgram *p = w->lowering.program;
  char what[128];
  lower_looks(w, optimizer);
  for (int32_t i = p->tensor_count - 1; i >= 0; --i) { /* gradients were declared during backward */
    if (p->tensors[i].role != NITI_ROLE_GRADIENT) continue;
    const int32_t weight = p->tensors[i].weight;
    if (w->layers[p->tensors[weight].layer].frozen) continue; /* a norm's come with the delta of its input */
    if (p->tensors[weight].dtype != NITI_DTYPE_S8 && !optimizer->wide) {
      const NitiLayerType *type = w->description->nodes[p->tensors[weight].layer - 1].spec.type;
      (void)snprintf(what, sizeof what, "update %s trains int8 weights only, not %s of %s (expected update sgd or niti16)",
                     optimizer->name, type->wide ? "those" : "the bias", type->name);
      return fail_at(w->description, p->tensors[weight].layer, what);
    }
    optimizer->update(&w->lowering, weight, i);
  }
  return NITI_OK;
}

static NitiStatus lower_all(Walk *w) {
  lower_input(w, w->options->changes_images);
  NITI_TRY(niti_program_check(w->lowering.program));
  for (int32_t i = 1; i <= w->count; ++i) NITI_TRY(lower_layer(w, i));
  lower_loss(w);
  if (w->options->training) lower_all_backward(w);
  if (w->options->training) NITI_TRY(lower_updates(w));
  return niti_program_check(w->lowering.program);
}

/* Products of mantissas are at most 127^2: an accumulation length above NITI_ACCUMULATION_MAX could overflow int32. */
static NitiStatus prove(const NitiProgram *p, const NitiDescription *d) {
  char what[192];
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    const int64_t count = o->opcode == NITI_OP_NORM_FIT && !o->norm.running ? p->whole * o->norm.positions : 0;
    if (count <= (int64_t)1 << NITI_NORM_COUNT_LOG2) continue;
    (void)snprintf(what, sizeof what, "%lld values per channel in a batch of %d images (expected at most 2^%d)", (long long)count,
                   p->whole, NITI_NORM_COUNT_LOG2);
    return fail_at(d, p->operations[i].layer, what);
  }
  const int32_t large = niti_program_too_large(p), overflow = niti_program_overflow(p);
  if (large != NITI_NONE) {
    (void)snprintf(what, sizeof what, "%zu values in a batch of %d images (expected at most 2^34%s)",
                   niti_tensor_count(&p->tensors[large], p->whole), p->whole,
                   sizeof(size_t) < 8 ? ", and all tensors within 2^31 bytes" : "");
    return fail_at(d, p->tensors[large].layer, what);
  }
  if (overflow == NITI_NONE) return NITI_OK;
  (void)snprintf(what, sizeof what, "an accumulation length of %lld could overflow int32 (expected at most %d)",
                 (long long)niti_accumulation_length(&p->operations[overflow]), NITI_ACCUMULATION_MAX);
  return fail_at(d, p->operations[overflow].layer, what);
}

static NitiStatus lower_with(Walk *w) {
  const size_t n = (size_t)w->count + 1;
  w->layers = calloc(n, sizeof *w->layers);
  w->trained = calloc(n, sizeof *w->trained);
  w->deltas = malloc(n * sizeof *w->deltas);
  w->additions = calloc(n, sizeof *w->additions);
  if (!w->layers || !w->trained || !w->deltas || !w->additions) return out_of_memory();
  for (size_t i = 0; i < n; ++i) w->deltas[i] = NITI_NONE;
  w->layers[0].out = w->description->input;
  w->layers[0].out.n = w->options->batch;
  NITI_TRY(lower_all(w));
  return prove(w->lowering.program, w->description);
}

NitiStatus niti_lower(NitiProgram **out, const NitiDescription *description, const NitiLowerOptions *options) {
  NitiProgram *program = NULL;
  *out = NULL;
  if (options->batch < 1 || options->batch > 1 << 20)
    return niti_fail(NITI_ERROR_ARGUMENT, "batch: %d is not in 1..%d", options->batch, 1 << 20);
  NITI_TRY(niti_program_open(&program, options->batch));
  if (options->whole > 0) program->whole = options->whole;
  Walk w = {.lowering = {program, options->training, options->round_activation, options->round_delta, options->clip_activation,
                         options->clip_delta, options->nesterov, options->clips_norm, NITI_NONE, options->whole > 0, 0},
            .description = description,
            .options = options,
            .count = description->node_count};
  const NitiStatus status = lower_with(&w);
  free(w.layers);
  free(w.trained);
  free(w.deltas);
  free(w.additions);
  if (status != NITI_OK) {
    niti_program_close(program);
    return status;
  }
  *out = program;
  return NITI_OK;
}

int32_t niti_program_logits(const NitiProgram *p) {
  for (int32_t i = 0; i < p->operation_count; ++i) {
    if (p->operations[i].opcode == NITI_OP_LOSS) return p->operations[i].inputs[0];
  }
  return NITI_NONE;
}
