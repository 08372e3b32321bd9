/* Writes the constants and the steps of an exported network. */
#include "export/source.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "base/pool.h"
#include "base/update.h"

/* One of the two programs, while it is written. */
typedef struct Writing {
  FILE *to;
  const NitiExport *e;
  const NitiExportPlan *plan;
  char prefix;        /* of its symbols: t, trains; p, predicts */
  int32_t first_hint; /* among all */
} Writing;

static const NitiOperation *operation_of(const Writing *w, const NitiExportStep *s) {
  return &w->plan->program->operations[s->operation];
}

/* ---- names ---- */

static void c_word(char *out, size_t size, const char *name) {
  size_t i = 0;
  for (; name[i] && i + 1 < size; ++i) out[i] = isalnum((unsigned char)name[i]) ? name[i] : '_';
  out[i] = 0;
}

static const char *kind_name(const NitiExportStep *s) {
  static const char *const names[] = {"forward", "backward", "update", "forward", "forward", "backward",
                                      "forward", "backward", "sum",    "mask",    "loss"};
  return names[s->kind];
}

enum { SYMBOL_MAX = NITI_LAYER_NAME_MAX + 32 };

/* The step's constants: "t07_conv1_backward". */
static void symbol_of(char out[SYMBOL_MAX], const Writing *w, int32_t i) {
  const NitiExportStep *s = &w->plan->steps[i];
  char layer[NITI_LAYER_NAME_MAX];
  c_word(layer, sizeof layer, w->plan->program->layers[operation_of(w, s)->layer]);
  (void)snprintf(out, SYMBOL_MAX, "%c%02" PRId32 "%s%s_%s", w->prefix, i, layer[0] ? "_" : "", layer, kind_name(s));
}

static const NitiExportWeight *tensor_of(const NitiExport *e, int32_t layer, bool bias) {
  for (int32_t i = 0; i < e->weight_count; ++i) {
    if (e->weights[i].layer == layer && e->weights[i].bias == bias) return &e->weights[i];
  }
  return NULL;
}

static const NitiExportWeight *weight_of(const NitiExport *e, int32_t layer) { return tensor_of(e, layer, false); }

/* ---- constants ---- */

void niti_export_write_bytes(FILE *to, const int8_t *p, size_t count) {
  int column = 0;
  for (size_t i = 0; i < count; ++i) {
    if (column > 120) column = fprintf(to, "\n") - 1;
    column += fprintf(to, "%d,", p[i]);
  }
}

static void write_words(FILE *to, const int16_t *p, size_t count) {
  for (size_t i = 0; i < count; ++i) fprintf(to, "%d,%s", p[i], i % 16 == 15 ? "\n" : "");
}

static void write_weights(FILE *to, const NitiExport *e) {
  for (int32_t i = 0; i < e->weight_count; ++i) {
    const NitiExportWeight *w = &e->weights[i];
    const size_t count = (size_t)w->bytes / (w->bias ? sizeof(int16_t) : 1);
    /* Kernels read words, and so up to three bytes behind frozen weights. */
    fprintf(to, "RT_CONST static const int%d_t %s[%zu] = {%s\n", w->bias ? 16 : 8, w->symbol,
            count + (w->frozen && !w->bias ? 3 : 0), w->frozen ? " /* frozen */" : "");
    if (w->bias)
      write_words(to, w->tensor->data, count);
    else
      niti_export_write_bytes(to, w->tensor->data, count);
    fprintf(to, "\n};\n\n");
  }
}

/* Names are arrays: no attribute reaches a string literal. */
static void write_names(FILE *to, const NitiExport *e) {
  for (int32_t i = 0; i < e->weight_count; ++i)
    fprintf(to, "RT_CONST static const char %s_name[] = \"%s\";\n", e->weights[i].symbol, e->weights[i].tensor->name);
  fprintf(to, "/* In the order in which the hash has them. */\nRT_CONST static const rt_named tensors[] = {\n");
  for (int32_t i = 0; i < e->weight_count; ++i) {
    const NitiExportWeight *w = &e->weights[i];
    fprintf(to, "    {%s_name, %s%s, %" PRId64 "u, %" PRId64 "u, %" PRId32 "u, {", w->symbol, w->bias ? "(const int8_t *)" : "",
            w->frozen ? w->symbol : "NULL", w->offset, w->bytes, w->tensor->ndim);
    for (int d = 0; d < 4; ++d) fprintf(to, "%s%" PRIu32 "u", d ? ", " : "", d < w->tensor->ndim ? w->tensor->dims[d] : 0);
    fprintf(to, "}, %" PRId32 "},\n", w->tensor->exponent);
  }
  fprintf(to, "};\n\n");
}

/* ---- operands ---- */

static void write_place(const Writing *w, const char *member, int32_t space) {
  const int64_t offset = niti_export_offset(w->plan, space);
  if (offset < 0) {
    fprintf(w->to, " .%s = RT_NONE,", member);
  } else {
    fprintf(w->to, " .%s = %" PRId64 "u,", member, offset);
  }
}

/* The number of a tensor's exponent; of a reshape's output its input's. */
static int32_t exponent_of(const Writing *w, int32_t tensor) {
  const NitiProgram *p = w->plan->program;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    if (p->operations[i].opcode == NITI_OP_RESHAPE && p->operations[i].outputs[0] == tensor)
      return exponent_of(w, p->operations[i].inputs[0]);
  }
  return tensor;
}

static void write_exponent(const Writing *w, const char *member, int32_t tensor) {
  fprintf(w->to, " .%s = %" PRId32 ",", member, exponent_of(w, tensor));
}

static void write_rounding(const Writing *w, const NitiOperation *o) {
  static const char *const modes[] = {"RT_NEAREST", "RT_PSEUDO_STOCHASTIC", "RT_STOCHASTIC", "RT_TRUNCATE"};
  fprintf(w->to, " .rounding = {%" PRIu32 "u, %s, %" PRIu32 "u, %" PRId32 "u}", o->rounding.stream, modes[o->rounding.mode],
          o->rounding.purpose, o->rounding.clip);
}

static void write_hint(const Writing *w, const NitiExportStep *s) {
  fprintf(w->to, " .hint = %" PRId32 ",", s->hint == NITI_NONE ? 0 : w->first_hint + s->hint);
}

static void write_deltas(const Writing *w, const NitiExportStep *s) {
  fprintf(w->to, " .from = {");
  write_place(w, "dy", s->use[NITI_EXPORT_FROM]);
  write_place(w, "winner", s->use[NITI_EXPORT_PACKED]);
  write_place(w, "mask", s->use[NITI_EXPORT_MASK]);
  fprintf(w->to, "},");
}

/* ---- layers ---- */

static const NitiExportStep *forward_step(const NitiExportPlan *plan, int32_t layer) {
  for (int32_t i = 0; i < plan->step_count; ++i) {
    const NitiExportStep *s = &plan->steps[i];
    if (s->kind == NITI_EXPORT_CONV_FORWARD && plan->program->operations[s->operation].layer == layer) return s;
  }
  return NULL;
}

/* Whether both programs have the same pool behind this layer's convolution. */
static bool shares_conv(const NitiExport *e, int32_t layer) {
  if (!niti_export_trains(e)) return false;
  return (forward_step(&e->training, layer)->pool == NITI_NONE) == (forward_step(&e->inference, layer)->pool == NITI_NONE);
}

static void write_conv_symbol(const Writing *w, int32_t layer) {
  char name[NITI_LAYER_NAME_MAX];
  c_word(name, sizeof name, w->plan->program->layers[layer]);
  fprintf(w->to, "%c%02" PRId32 "_%s", shares_conv(w->e, layer) ? 't' : w->prefix, layer, name);
}

static void write_conv(const Writing *w, const NitiExportStep *s) {
  const NitiOperation *o = operation_of(w, s);
  const NitiConv *c = &o->conv;
  const NitiExportWeight *weight = weight_of(w->e, o->layer), *bias = tensor_of(w->e, o->layer, true);
  if (w->prefix == 'p' && shares_conv(w->e, o->layer)) return;
  fprintf(w->to, "RT_CONST static const rt_conv ");
  write_conv_symbol(w, o->layer);
  fprintf(w->to,
          " = {\n    .h = %" PRId32 ", .w = %" PRId32 ", .c = %" PRId32 ", .oh = %" PRId32 ", .ow = %" PRId32 ", .k = %" PRId32
          ", .kh = %" PRId32 ", .kw = %" PRId32 ", .stride_h = %" PRId32 ", .stride_w = %" PRId32 ", .pad_h = %" PRId32
          ", .pad_w = %" PRId32 ",\n",
          c->h, c->w, c->c, c->oh, c->ow, c->k, c->kh, c->kw, c->stride_h, c->stride_w, c->pad_h, c->pad_w);
  if (s->pool != NITI_NONE) {
    const NitiPool *p = &w->plan->program->operations[s->pool].pool;
    fprintf(w->to,
            "    .pool_h = %" PRId32 ", .pool_w = %" PRId32 ", .pool_stride_h = %" PRId32 ", .pool_stride_w = %" PRId32
            ", .pool_oh = %" PRId32 ", .pool_ow = %" PRId32 ",\n",
            p->kh, p->kw, p->stride_h, p->stride_w, p->oh, p->ow);
  }
  fprintf(w->to, "    .frozen = %s, .weight_exponent = %" PRId32, weight->frozen ? weight->symbol : "NULL",
          weight->tensor->exponent);
  if (!weight->frozen) fprintf(w->to, ", .weight = %" PRId64 "u", weight->offset);
  if (niti_conv_grouped(c)) fprintf(w->to, ", .groups = %" PRId32, c->groups);
  if (bias) fprintf(w->to, ",\n    .bias = %s, .bias_exponent = %" PRId32, bias->symbol, bias->tensor->exponent);
  fprintf(w->to, "};\n");
}

static void write_pool(const Writing *w, int32_t i, const NitiExportStep *s) {
  const NitiOperation *o = operation_of(w, s);
  const NitiPool *p = &o->pool;
  const bool average = o->opcode == NITI_OP_AVGPOOL_FORWARD || o->opcode == NITI_OP_AVGPOOL_BACKWARD;
  const NitiReciprocal by = average ? niti_reciprocal(p->kh * p->kw) : (NitiReciprocal){1, 0};
  fprintf(w->to,
          "RT_CONST static const rt_pool %c%02" PRId32 "_pool = {.h = %" PRId32 ", .w = %" PRId32 ", .c = %" PRId32
          ", .oh = %" PRId32 ", .ow = %" PRId32 ", .kh = %" PRId32 ", .kw = %" PRId32 ", .stride_h = %" PRId32
          ", .stride_w = %" PRId32 ", .pad_h = %" PRId32 ", .pad_w = %" PRId32 ", .factor = %" PRId32 ", .exponent = %" PRId32
          ", .width = %" PRId32 "u};\n",
          w->prefix, i, p->h, p->w, p->c, p->oh, p->ow, p->kh, p->kw, p->stride_h, p->stride_w, p->pad_h, p->pad_w, by.factor,
          by.exponent, s->width > 0 ? s->width : 8);
}

/* ---- steps ---- */

static void write_forward(const Writing *w, const NitiExportStep *s) {
  const NitiOperation *o = operation_of(w, s);
  write_conv_symbol(w, o->layer);
  fprintf(w->to, ",");
  write_place(w, "x", s->use[NITI_EXPORT_FROM]);
  write_place(w, "y", s->use[NITI_EXPORT_TO]);
  write_place(w, "high", s->use[NITI_EXPORT_HIGH]);
  write_place(w, "columns", s->use[NITI_EXPORT_WORK]);
  if (niti_export_trains(w->e)) write_place(w, "winner", s->use[NITI_EXPORT_WINNERS]);
  if (niti_export_trains(w->e)) write_place(w, "packed", s->use[NITI_EXPORT_PACKED]);
  write_exponent(w, "ex", s->use[NITI_EXPORT_FROM]);
  write_exponent(w, "ey", s->use[NITI_EXPORT_TO]);
  write_hint(w, s);
  fprintf(w->to, " .relu = %d,", o->relu);
  write_rounding(w, o);
}

static void write_backward(const Writing *w, const NitiExportStep *s) {
  const NitiOperation *o = operation_of(w, s);
  write_conv_symbol(w, o->layer);
  fprintf(w->to, ",");
  write_deltas(w, s);
  write_place(w, "dx", s->use[NITI_EXPORT_TO]);
  write_place(w, "high", s->use[NITI_EXPORT_HIGH]);
  write_place(w, "mask", s->use[NITI_EXPORT_CUT]);
  write_place(w, "rows", s->use[NITI_EXPORT_WORK]);
  write_exponent(w, "ed", s->use[NITI_EXPORT_FROM]);
  write_exponent(w, "edx", s->use[NITI_EXPORT_TO]);
  write_hint(w, s);
  write_rounding(w, o);
}

static void write_update(const Writing *w, const NitiExportStep *s) {
  write_conv_symbol(w, operation_of(w, s)->layer);
  fprintf(w->to, ",");
  write_deltas(w, s);
  write_place(w, "x", s->use[NITI_EXPORT_OTHER]);
  write_place(w, "sums", s->use[NITI_EXPORT_WORK]);
  fprintf(w->to, " .kept = %" PRId32, s->kept);
}

static void write_pooling(const Writing *w, int32_t i, const NitiExportStep *s) {
  fprintf(w->to, "%c%02" PRId32 "_pool,", w->prefix, i);
  write_place(w, "from", s->use[NITI_EXPORT_FROM]);
  write_place(w, "to", s->use[NITI_EXPORT_TO]);
  write_place(w, "packed", s->use[NITI_EXPORT_PACKED]);
  write_place(w, "mask", s->use[NITI_EXPORT_MASK]);
  write_exponent(w, "ef", s->use[NITI_EXPORT_FROM]);
  write_exponent(w, "et", s->use[NITI_EXPORT_TO]);
  write_rounding(w, operation_of(w, s));
}

static void write_pointwise(const Writing *w, const NitiExportStep *s) {
  const NitiOperation *o = operation_of(w, s);
  const int32_t other = s->use[NITI_EXPORT_OTHER] == NITI_NONE ? s->use[NITI_EXPORT_FROM] : s->use[NITI_EXPORT_OTHER];
  write_place(w, "a", s->use[NITI_EXPORT_FROM]);
  write_place(w, "b", other);
  write_place(w, "y", s->use[NITI_EXPORT_TO]);
  write_exponent(w, "ea", s->use[NITI_EXPORT_FROM]);
  write_exponent(w, "eb", other);
  write_exponent(w, "ey", s->use[NITI_EXPORT_TO]);
  fprintf(w->to, " .shared = %d,", niti_export_shares_mask(o));
  fprintf(w->to, " .count = %zu,", niti_tensor_count(&w->plan->program->tensors[s->use[NITI_EXPORT_TO]], 1));
  write_rounding(w, o);
}

static void write_loss(const Writing *w, const NitiExportStep *s) {
  const NitiOperation *o = operation_of(w, s);
  write_place(w, "logits", s->use[NITI_EXPORT_FROM]);
  write_place(w, "delta", s->use[NITI_EXPORT_TO]);
  write_exponent(w, "el", s->use[NITI_EXPORT_FROM]);
  write_exponent(w, "ed", s->use[NITI_EXPORT_TO]);
  fprintf(w->to, " .classes = %" PRId32 ", .softmax = %d,", w->e->recipe->model->classes, niti_export_is_softmax(o));
  write_rounding(w, o);
}

static const char *type_of(NitiExportKind kind) {
  static const char *const types[] = {"rt_forward",   "rt_backward",  "rt_gradient",  "rt_pooling",   "rt_pooling", "rt_pooling",
                                      "rt_pointwise", "rt_pointwise", "rt_pointwise", "rt_pointwise", "rt_loss"};
  return types[kind];
}

static const char *function_of(NitiExportKind kind) {
  static const char *const functions[] = {
      "rt_conv_forward", "rt_conv_backward", "rt_conv_update", "rt_maxpool_forward", "rt_avgpool_forward", "rt_pool_backward",
      "rt_relu_forward", "rt_relu_backward", "rt_add",         "rt_dropout",         "rt_loss_delta"};
  return functions[kind];
}

static void write_step(const Writing *w, int32_t i) {
  const NitiExportStep *s = &w->plan->steps[i];
  char symbol[SYMBOL_MAX];
  symbol_of(symbol, w, i);
  const bool pool =
      s->kind == NITI_EXPORT_MAXPOOL_FORWARD || s->kind == NITI_EXPORT_AVGPOOL_FORWARD || s->kind == NITI_EXPORT_POOL_BACKWARD;
  if (s->kind == NITI_EXPORT_CONV_FORWARD) write_conv(w, s);
  if (pool) write_pool(w, i, s);
  fprintf(w->to, "RT_CONST static const %s %s = {", type_of(s->kind), symbol);
  if (s->kind <= NITI_EXPORT_UPDATE) fprintf(w->to, ".conv = &");
  if (pool) fprintf(w->to, ".pool = &");
  switch (s->kind) {
    case NITI_EXPORT_CONV_FORWARD: write_forward(w, s); break;
    case NITI_EXPORT_CONV_BACKWARD: write_backward(w, s); break;
    case NITI_EXPORT_UPDATE: write_update(w, s); break;
    case NITI_EXPORT_MAXPOOL_FORWARD:
    case NITI_EXPORT_AVGPOOL_FORWARD:
    case NITI_EXPORT_POOL_BACKWARD: write_pooling(w, i, s); break;
    case NITI_EXPORT_LOSS: write_loss(w, s); break;
    default: write_pointwise(w, s); break;
  }
  fprintf(w->to, "};\n");
}

static int32_t input_tensor(const Writing *w) {
  for (int32_t i = 0;; ++i) {
    if (w->plan->program->operations[i].opcode == NITI_OP_INPUT) return w->plan->program->operations[i].outputs[0];
  }
}

static void write_program(const Writing *w) {
  char symbol[SYMBOL_MAX];
  const int32_t logits = niti_program_logits(w->plan->program);
  for (int32_t i = 0; i < w->plan->step_count; ++i) write_step(w, i);
  fprintf(w->to, "enum {\n  %c_INPUT = %" PRId64 ",\n  %c_INPUT_EXPONENT = %" PRId32 ",\n  %c_LOGITS = %" PRId64 "\n};\n\n",
          w->prefix, niti_export_offset(w->plan, input_tensor(w)), w->prefix, exponent_of(w, input_tensor(w)), w->prefix,
          niti_export_offset(w->plan, logits));
  fprintf(w->to, "static void %s(rt *r%s) {\n  r->exponents[%c_INPUT_EXPONENT] = INPUT_EXPONENT;\n",
          w->prefix == 't' ? "train" : "predict", w->prefix == 't' ? ", const uint16_t *labels" : "", w->prefix);
  for (int32_t i = 0; i < w->plan->step_count; ++i) {
    const NitiExportKind kind = w->plan->steps[i].kind;
    symbol_of(symbol, w, i);
    if (kind == NITI_EXPORT_LOSS) {
      fprintf(w->to, "  if (!rt_loss_delta(r, &%s, labels)) return; /* no weight would change */\n", symbol);
    } else {
      fprintf(w->to, "  %s(r, &%s);\n", function_of(kind), symbol);
    }
  }
  fprintf(w->to, "}\n\n");
}

/* ---- the interface's functions ---- */

static void write_open(FILE *to, const NitiExport *e) {
  fprintf(to, "static rt open(%s *network, int32_t n) {\n  rt r;\n  r.arena = network->arena;\n  r.weights = %s;\n", e->name,
          niti_export_trains(e) ? "network->weights" : "NULL");
  fprintf(
      to,
      "  r.exponents = network->exponents;\n  r.hints = network->hints;\n  r.seed = network->seed;\n  r.step = network->step;\n"
      "  r.n = n;\n  r.mu = network->mu;\n  return r;\n}\n\n");
  fprintf(to, "void %s_init(%s *network, void *arena) {\n  network->arena = arena;\n  network->seed = UINT64_C(%" PRIu64 ");\n",
          e->name, e->name, e->start.seed);
  fprintf(to,
          "  network->step = %" PRIu32
          "u;\n  network->mu = %d;\n  rt_zero_bytes(network->hints, (int32_t)sizeof network->hints);\n",
          e->start.step, e->start.mu);
  for (int32_t i = 0; i < e->weight_count; ++i) {
    const NitiExportWeight *w = &e->weights[i];
    if (!w->frozen) fprintf(to, "  memcpy(network->weights + %" PRId64 ", %s, sizeof %s);\n", w->offset, w->symbol, w->symbol);
  }
  fprintf(to, "}\n\n");
}

static void write_predict(FILE *to, const NitiExport *e) {
  fprintf(to,
          "int32_t %s_predict_rows(%s *network, %s_rows rows, void *user, int8_t *logits) {\n"
          "  rt r = open(network, 1);\n"
          "  const int8_t *found = r.arena + p_LOGITS;\n"
          "  read_images(r.arena + p_INPUT, rows, user, 1);\n"
          "  predict(&r);\n"
          "  if (logits) memcpy(logits, found, %s_CLASSES);\n"
          "  return first_largest(found);\n"
          "}\n\n"
          "int32_t %s_predict(%s *network, const uint8_t *pixels, int8_t *logits) {\n"
          "  return %s_predict_rows(network, copy_row, &pixels, logits);\n"
          "}\n\n"
          "void %s_hash(const %s *network, char text[65]) {\n"
          "  rt_hash(%s, tensors, (int32_t)(sizeof tensors / sizeof *tensors), text);\n"
          "%s}\n",
          e->name, e->name, e->name, e->upper, e->name, e->name, e->name, e->name, e->name,
          niti_export_trains(e) ? "network->weights" : "NULL", niti_export_trains(e) ? "" : "  (void)network;\n");
}

static void write_train(FILE *to, const NitiExport *e) {
  fprintf(to,
          "\nint32_t %s_train_rows(%s *network, %s_rows rows, void *user, const uint16_t *labels, int32_t n) {\n"
          "  int32_t i, correct = 0;\n"
          "  rt r;\n"
          "  if (n < 1 || n > %s_BATCH || network->mu < 0 || network->mu > %d) return -1;\n"
          "  for (i = 0; i < n; ++i) {\n"
          "    if (labels[i] >= %s_CLASSES) return -1;\n"
          "  }\n"
          "  r = open(network, n);\n"
          "  read_images(r.arena + t_INPUT, rows, user, n);\n"
          "  train(&r, labels);\n"
          "  for (i = 0; i < n; ++i) correct += first_largest(r.arena + t_LOGITS + i * %s_CLASSES) == labels[i];\n"
          "  ++network->step;\n"
          "  return correct;\n"
          "}\n\n"
          "int32_t %s_train(%s *network, const uint8_t *pixels, const uint16_t *labels, int32_t n) {\n"
          "  return %s_train_rows(network, copy_row, &pixels, labels, n);\n"
          "}\n",
          e->name, e->name, e->name, e->upper, NITI_MU_MAX, e->upper, e->upper, e->name, e->name, e->name);
  fprintf(to,
          "\nint %s_save(const %s *network, %s_read read, %s_write write, void *user) {\n"
          "  const rt_state state = {%s_NETWORK, 0, network->step, network->seed, network->mu};\n"
          "  return rt_save(&state, network->weights, %s_WEIGHT_BYTES, read, write, user);\n"
          "}\n\n"
          "int %s_load(%s *network, %s_read read, void *user) {\n"
          "  rt_state state = {%s_NETWORK, 0, 0, 0, 0};\n"
          "  if (rt_load(&state, network->weights, %s_WEIGHT_BYTES, read, user) != 0) return -1;\n"
          "  network->step = state.step;\n  network->seed = state.seed;\n  network->mu = state.mu;\n"
          "  return 0;\n"
          "}\n",
          e->name, e->name, e->name, e->name, e->upper, e->upper, e->name, e->name, e->name, e->upper, e->upper);
}

/* ---- which parts of the runtime are wanted ---- */

static const char *part_of(const NitiExportPlan *plan, const NitiExportStep *s) {
  const NitiOperation *o = &plan->program->operations[s->operation];
  const NitiConv *c = &o->conv;
  switch (s->kind) {
    case NITI_EXPORT_CONV_FORWARD:
      if (niti_conv_grouped(c)) return "GROUPED";
      if (s->pool != NITI_NONE) return "POOLED";
      return niti_export_is_linear(c) ? "LINEAR" : "PLAIN";
    case NITI_EXPORT_MAXPOOL_FORWARD: return "MAXPOOL";
    case NITI_EXPORT_AVGPOOL_FORWARD: return "AVGPOOL";
    case NITI_EXPORT_RELU_FORWARD: return "RELU";
    case NITI_EXPORT_RELU_BACKWARD: return "RELU_BACKWARD";
    case NITI_EXPORT_ADD: return "ADD";
    case NITI_EXPORT_DROPOUT: return "DROPOUT";
    case NITI_EXPORT_LOSS: return niti_export_is_softmax(o) ? "SOFTMAX" : "";
    default: return "";
  }
}

static bool has_part(const NitiExportPlan *plan, const char *part) {
  for (int32_t i = 0; i < plan->step_count; ++i) {
    if (strcmp(part_of(plan, &plan->steps[i]), part) == 0) return true;
  }
  return false;
}

/* The modes of everything that is rounded but the loss `niti` and updates, which have their own. */
static unsigned modes_of(const NitiExportPlan *plan) {
  unsigned modes = 0;
  for (int32_t i = 0; i < plan->step_count; ++i) {
    const NitiExportStep *s = &plan->steps[i];
    const NitiOperation *o = &plan->program->operations[s->operation];
    const bool own = s->kind == NITI_EXPORT_UPDATE || s->kind == NITI_EXPORT_DROPOUT ||
                     (s->kind == NITI_EXPORT_LOSS && !niti_export_is_softmax(o));
    if (!own) modes |= 1u << o->rounding.mode;
  }
  return modes;
}

static bool has_clips(const NitiExportPlan *plan) {
  for (int32_t i = 0; i < plan->step_count; ++i) {
    if (plan->program->operations[plan->steps[i].operation].rounding.clip > 0) return true;
  }
  return false;
}

/* Whether an output is measured in a pass of its own: its rounding needs all bits, or its upper bytes are not kept. */
static bool has_writes(const NitiExportPlan *plan) {
  for (int32_t i = 0; i < plan->step_count; ++i) {
    const NitiExportStep *s = &plan->steps[i];
    const bool product = s->kind == NITI_EXPORT_CONV_FORWARD || s->kind == NITI_EXPORT_CONV_BACKWARD;
    const bool other = s->kind == NITI_EXPORT_AVGPOOL_FORWARD || s->kind == NITI_EXPORT_POOL_BACKWARD ||
                       s->kind == NITI_EXPORT_ADD ||
                       (s->kind == NITI_EXPORT_LOSS && niti_export_is_softmax(&plan->program->operations[s->operation]));
    if (other || (product && s->use[NITI_EXPORT_HIGH] == NITI_NONE)) return true;
  }
  return false;
}

/* Whether a pool that is joined to a convolution leaves some of its outputs out. */
static bool has_rest(const NitiExportPlan *plan) {
  for (int32_t i = 0; i < plan->step_count; ++i) {
    const NitiExportStep *s = &plan->steps[i];
    if (s->kind != NITI_EXPORT_CONV_FORWARD || s->pool == NITI_NONE) continue;
    const NitiConv *c = &plan->program->operations[s->operation].conv;
    const NitiPool *p = &plan->program->operations[s->pool].pool;
    if (p->kh * p->kw * p->oh * p->ow != c->oh * c->ow) return true;
  }
  return false;
}

static void write_parts(FILE *to, const NitiExport *e) {
  static const char *const parts[] = {"GROUPED", "POOLED",        "PLAIN", "LINEAR",  "MAXPOOL", "AVGPOOL",
                                      "RELU",    "RELU_BACKWARD", "ADD",   "DROPOUT", "SOFTMAX"};
  fprintf(to, "#define RT_MODES %u /* of rounding */\n", modes_of(&e->training) | modes_of(&e->inference));
  fprintf(to, "#define RT_CLIPS %d\n", has_clips(&e->training) || has_clips(&e->inference));
  if (has_writes(&e->training) || has_writes(&e->inference)) fprintf(to, "#define RT_WRITES\n");
  if (has_rest(&e->training) || has_rest(&e->inference)) fprintf(to, "#define RT_REST\n");
  for (size_t k = 0; k < sizeof parts / sizeof *parts; ++k) {
    if (has_part(&e->training, parts[k]) || has_part(&e->inference, parts[k])) fprintf(to, "#define RT_%s\n", parts[k]);
  }
}

static bool has_bias(const NitiExport *e) {
  for (int32_t i = 0; i < e->weight_count; ++i) {
    if (e->weights[i].bias) return true;
  }
  return false;
}

void niti_export_write_source(FILE *to, const NitiExport *e) {
  const bool trains = niti_export_trains(e);
  const Writing training = {to, e, &e->training, 't', e->inference.hint_count}, inference = {to, e, &e->inference, 'p', 0};
  fprintf(to, "/* %s: constants and steps, exported by niti %s. Do not edit. */\n#include \"%s.h\"\n\n", e->name, niti_version(),
          e->name);
  fprintf(to, "#ifndef %s_CONST\n#define %s_CONST\n#endif\n#define RT_CONST %s_CONST\n#define RT_TRAINING %d\n", e->upper,
          e->upper, e->upper, trains);
  write_parts(to, e);
  if (has_bias(e)) fprintf(to, "#define RT_BIAS\n");
  fprintf(to, "#include \"niti_rt_conv.h\"\n");
  if (trains) fprintf(to, "#include \"niti_rt_update.h\"\n");
  fprintf(to, "#include \"niti_rt_hash.h\"\n#include \"niti_rt_layers.h\"\n");
  if (trains) fprintf(to, "#include \"niti_rt_loss.h\"\n#include \"niti_rt_store.h\"\n");
  fprintf(to, "\nenum { INPUT_EXPONENT = %" PRId32 " };\n\n", e->table_exponent);
  niti_export_write_mantissas(to, e);
  write_weights(to, e);
  write_names(to, e);
  if (trains) write_program(&training);
  write_program(&inference);
  niti_export_write_input(to, e);
  write_open(to, e);
  write_predict(to, e);
  if (trains) write_train(to, e);
}
