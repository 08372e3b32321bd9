/* niti program: a step as a list of operations, one line per operation: what a hardware engineer reads first. */
#include <inttypes.h>
#include <string.h>

#include "base/bounds.h"
#include "cli.h"
#include "platform/status.h"
#include "program/bounds.h"
#include "program/fuse.h"
#include "program/portion.h"

typedef struct Arguments {
  bool json, evaluation, fused;
  int64_t batch, ranks;
  const char *phase;
} Arguments;

static const Option options[] = {
    CHOICE("phase", phase, "input|forward|loss|backward|reduce|update", "only the operations of this phase"),
    NUMBER("batch", batch, "N", "images per batch (default: the recipe's; 1 for a model)", 1, 1 << 20),
    NUMBER("ranks", ranks, "N", "the program of each of N ranks that share a batch, with the bytes that it exchanges", 1,
           1 << 20),
    FLAG("evaluation", evaluation, "the program that evaluates instead of the one that trains"),
    FLAG("fused", fused, "the operations that are left when others do the ReLUs and their masks beside their own work"),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_program = {"program",
                                 "NETWORK [--phase PHASE] [--batch N] [--ranks N] [--evaluation] [--fused] [--json]",
                                 "list the operations of a training step, with shapes, exponents and head-room",
                                 "niti program lenet5 --phase forward --batch 64",
                                 "NETWORK",
                                 options,
                                 run};

enum { TEXT_MAX = 160 };

/* "relu1.out s8[64][28][28][6] e": one exponent; "g s32[6][5][5][1]": none. */
static void describe_tensor(char *text, size_t size, const NitiTensorDesc *t) {
  size_t used = (size_t)snprintf(text, size, "%s %s", t->name, niti_dtype_name(t->dtype));
  for (int i = 0; i < t->rank && used < size; ++i)
    used += (size_t)snprintf(text + used, size - used, "[%" PRId64 "]", t->dims[i]);
  if (t->exponents != NITI_EXPONENTS_NONE && used < size)
    (void)snprintf(text + used, size - used, "%s", t->exponents == NITI_EXPONENTS_ONE ? " e" : " e[c]");
}

static void describe_window(char *text, size_t size, int32_t kh, int32_t kw, const int32_t stride[2], const int32_t pad[2]) {
  (void)snprintf(text, size, " %dx%d stride %d,%d pad %d,%d", kh, kw, stride[0], stride[1], pad[0], pad[1]);
}

/* " rate 0.5": without trailing zeros. */
static void describe_millionths(char *text, size_t size, const char *what, int32_t value) {
  int n = snprintf(text, size, " %s %d.%06d", what, value / 1000000, value % 1000000);
  while (text[n - 1] == '0') text[--n] = 0;
  if (text[n - 1] == '.') text[n - 1] = 0;
}

static void describe_attributes(char *text, size_t size, const NitiProgram *p, const NitiOperation *o) {
  text[0] = 0;
  switch (o->opcode) {
    case NITI_OP_CONV_FORWARD:
    case NITI_OP_CONV_BACKWARD:
    case NITI_OP_CONV_GRADIENT: {
      const NitiConv *c = &o->conv;
      describe_window(text, size, c->kh, c->kw, (const int32_t[]){c->stride_h, c->stride_w},
                      (const int32_t[]){c->pad_h, c->pad_w});
      if (niti_conv_grouped(c)) (void)snprintf(text + strlen(text), size - strlen(text), " groups %d", c->groups);
      break;
    }
    case NITI_OP_MAXPOOL_FORWARD:
    case NITI_OP_MAXPOOL_BACKWARD:
    case NITI_OP_AVGPOOL_FORWARD:
    case NITI_OP_AVGPOOL_BACKWARD: {
      const NitiPool *w = &o->pool;
      describe_window(text, size, w->kh, w->kw, (const int32_t[]){w->stride_h, w->stride_w},
                      (const int32_t[]){w->pad_h, w->pad_w});
      break;
    }
    case NITI_OP_DROPOUT:
      describe_millionths(text, size, "rate", o->dropout.rate);
      (void)snprintf(text + strlen(text), size - strlen(text), " per %s", o->dropout.shared ? "feature" : "element");
      break;
    case NITI_OP_RELU_FORWARD:
    case NITI_OP_RELU_BACKWARD:
      if (o->relu_max > 0) describe_millionths(text, size, "max", o->relu_max);
      break;
    case NITI_OP_LOSS:
      (void)snprintf(text, size, " %s", o->loss.kind == NITI_LOSS_NITI ? "niti" : "softmax");
      if (o->loss.off > 0) (void)snprintf(text, size, " softmax, %" PRId32 " * 2^-24 expected of other classes", o->loss.off);
      break;
    case NITI_OP_NORM_FIT:
      (void)snprintf(text, size, " %s%s", o->norm.running ? "of running statistics" : "of the batch",
                     o->norm.centred ? ", centred" : "");
      break;
    case NITI_OP_UPDATE_NITI16:
    case NITI_OP_UPDATE_SGD:
      (void)snprintf(text, size, "%s %s%s", o->sgd.nesterov ? " nesterov" : "", p->scalars[o->sgd.rate],
                     o->sgd.clip != NITI_NONE ? " clipped by norm" : "");
      break;
    case NITI_OP_UPDATE_NITI: (void)snprintf(text, size, " %s", p->scalars[o->scalar]); break;
    default: break;
  }
}

/* How the accumulators become int8: mode, and the stream of its random words where it draws any. */
static void describe_rounding(char *text, size_t size, const NitiOperation *o) {
  const NitiRoundingRecord *r = &o->rounding;
  text[0] = 0;
  if (r->purpose == 0) return;
  if (niti_rounding_draws(r->mode) || o->opcode == NITI_OP_DROPOUT) {
    (void)snprintf(text, size, "%s, purpose %" PRIu32 " stream %" PRIu32,
                   o->opcode == NITI_OP_DROPOUT ? "draws" : niti_rounding_name(r->mode), r->purpose, r->stream);
  } else {
    (void)snprintf(text, size, "%s", niti_rounding_name(r->mode));
  }
}

static const char *layer_name(const NitiProgram *p, const NitiOperation *o) { return o->layer > 0 ? p->layers[o->layer] : "-"; }

static void print_operands(const NitiProgram *p, const int32_t *operands, const char *before) {
  char text[TEXT_MAX];
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (operands[k] == NITI_NONE) continue;
    describe_tensor(text, sizeof text, &p->tensors[operands[k]]);
    printf("%s%s", before, text);
    before = ", ";
  }
}

/* Sums of one width in a row are one exchange: the next one that travels with operation i, or NITI_NONE. */
static int32_t travels_with(const NitiProgram *p, int32_t i) {
  const NitiOperation *o = &p->operations[i];
  if (o->opcode != NITI_OP_ALL_SUM) return NITI_NONE;
  for (int32_t k = i + 1; p->operations[k].opcode == NITI_OP_ALL_SUM; ++k) { /* a wait comes after all */
    if (p->tensors[p->operations[k].inputs[0]].dtype == p->tensors[o->inputs[0]].dtype) return k;
  }
  return NITI_NONE;
}

static void print_operation(const NitiProgram *p, int32_t i, bool ranks) {
  const NitiOperation *o = &p->operations[i];
  const int64_t length = niti_accumulation_length(o);
  char attributes[TEXT_MAX], rounding[TEXT_MAX];
  describe_attributes(attributes, sizeof attributes, p, o);
  describe_rounding(rounding, sizeof rounding, o);
  printf("%4d %-8s %-14s %s%s%s:", i, niti_phase_name(o->phase), layer_name(p, o), niti_opcodes[o->opcode].name, attributes,
         o->relu ? " relu" : "");
  print_operands(p, o->outputs, " ");
  print_operands(p, o->inputs, " <- ");
  if (length > 0) {
    const int bits = niti_accumulator_bits(p, o);
    printf("; s%d sums of %" PRId64, bits, length);
    if (bits == 32) printf(", %d bits free", niti_headroom_bits(length));
  }
  if (rounding[0]) printf("; %s", rounding);
  const int64_t bytes = ranks ? niti_exchanged_bytes(p, o) : 0;
  if (bytes > 0) printf("; exchanges %" PRId64 " bytes", bytes);
  const int32_t with = ranks ? travels_with(p, i) : NITI_NONE;
  if (with == i + 1) printf(", together with the next");
  if (with > i + 1) printf(", together with operation %" PRId32, with);
  putchar('\n');
}

static json_t *tensor_json(const NitiTensorDesc *t) {
  static const char *const exponents[] = {"none", "one", "per channel"};
  json_t *dims = json_array();
  for (int i = 0; i < t->rank; ++i) json_array_append_new(dims, json_integer(t->dims[i]));
  return json_pack("{s:s, s:s, s:s, s:s, s:b, s:o}", "name", t->name, "dtype", niti_dtype_name(t->dtype), "role",
                   niti_role_name(t->role), "exponents", exponents[t->exponents], "batched", t->batched, "dims", dims);
}

static json_t *operands_json(const NitiProgram *p, const int32_t *operands) {
  json_t *names = json_array();
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (operands[k] != NITI_NONE) json_array_append_new(names, json_string(p->tensors[operands[k]].name));
  }
  return names;
}

static json_t *window_json(int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw) {
  return json_pack("{s:[i,i], s:[i,i], s:[i,i]}", "kernel", kh, kw, "stride", sh, sw, "padding", ph, pw);
}

static json_t *attributes_json(const NitiProgram *p, const NitiOperation *o) {
  const NitiConv *c = &o->conv;
  const NitiPool *w = &o->pool;
  switch (o->opcode) {
    case NITI_OP_CONV_FORWARD:
    case NITI_OP_CONV_BACKWARD:
    case NITI_OP_CONV_GRADIENT: {
      json_t *attributes = window_json(c->kh, c->kw, c->stride_h, c->stride_w, c->pad_h, c->pad_w);
      if (niti_conv_grouped(c)) json_object_set_new(attributes, "groups", json_integer(c->groups));
      return attributes;
    }
    case NITI_OP_MAXPOOL_FORWARD:
    case NITI_OP_MAXPOOL_BACKWARD:
    case NITI_OP_AVGPOOL_FORWARD:
    case NITI_OP_AVGPOOL_BACKWARD: return window_json(w->kh, w->kw, w->stride_h, w->stride_w, w->pad_h, w->pad_w);
    case NITI_OP_DROPOUT:
      return json_pack("{s:s, s:i}", "per", o->dropout.shared ? "feature" : "element", "rate_millionths", o->dropout.rate);
    case NITI_OP_RELU_FORWARD:
    case NITI_OP_RELU_BACKWARD: return o->relu_max > 0 ? json_pack("{s:i}", "max_millionths", o->relu_max) : json_object();
    case NITI_OP_LOSS:
      return json_pack("{s:s, s:i}", "loss", o->loss.kind == NITI_LOSS_NITI ? "niti" : "softmax", "off", o->loss.off);
    case NITI_OP_NORM_FIT:
      return json_pack("{s:s, s:b}", "statistics", o->norm.running ? "running" : "batch", "centred", o->norm.centred);
    case NITI_OP_UPDATE_NITI16:
    case NITI_OP_UPDATE_SGD:
      return json_pack("{s:s, s:b, s:b}", "scalar", p->scalars[o->sgd.rate], "nesterov", o->sgd.nesterov, "clipped",
                       o->sgd.clip != NITI_NONE);
    case NITI_OP_UPDATE_NITI: return json_pack("{s:s}", "scalar", p->scalars[o->scalar]);
    default: return json_object();
  }
}

static json_t *operation_json(const NitiProgram *p, int32_t i, bool ranks) {
  const NitiOperation *o = &p->operations[i];
  const int64_t length = niti_accumulation_length(o);
  json_t *row = json_pack("{s:i, s:s, s:s, s:s, s:o, s:o, s:o, s:I}", "number", i, "phase", niti_phase_name(o->phase), "layer",
                          layer_name(p, o), "opcode", niti_opcodes[o->opcode].name, "attributes", attributes_json(p, o),
                          "outputs", operands_json(p, o->outputs), "inputs", operands_json(p, o->inputs),
                          "multiply_adds_per_image", (json_int_t)niti_multiply_adds(o));
  if (o->relu) json_object_set_new(row, "relu", json_true());
  if (ranks) json_object_set_new(row, "exchanged_bytes", json_integer(niti_exchanged_bytes(p, o)));
  if (o->opcode == NITI_OP_ALL_SUM) json_object_set_new(row, "with_next", json_boolean(travels_with(p, i) != NITI_NONE));
  if (length > 0) {
    json_object_set_new(row, "accumulation_length", json_integer(length));
    const int bits = niti_accumulator_bits(p, o);
    json_object_set_new(row, "accumulator_bits", json_integer(bits));
    if (bits == 32) json_object_set_new(row, "headroom_bits", json_integer(niti_headroom_bits(length)));
  }
  if (o->rounding.purpose != 0)
    json_object_set_new(row, "rounding",
                        json_pack("{s:s, s:I, s:I}", "mode", niti_rounding_name(o->rounding.mode), "purpose",
                                  (json_int_t)o->rounding.purpose, "stream", (json_int_t)o->rounding.stream));
  return row;
}

static int show_json(const NitiDescription *d, const NitiProgram *p, int32_t first, int32_t end, bool ranks) {
  json_t *tensors = json_array(), *operations = json_array();
  for (int32_t t = 0; t < p->tensor_count; ++t) json_array_append_new(tensors, tensor_json(&p->tensors[t]));
  for (int32_t i = first; i < end; ++i) {
    if (p->operations[i].opcode != NITI_OP_NONE) json_array_append_new(operations, operation_json(p, i, ranks));
  }
  return print_json(
      json_pack("{s:s, s:i, s:o, s:o}", "model", d->name, "batch", p->batch, "tensors", tensors, "operations", operations));
}

static int32_t count_operations(const NitiProgram *p) {
  int32_t count = 0;
  for (int32_t i = 0; i < p->operation_count; ++i) count += p->operations[i].opcode != NITI_OP_NONE;
  return count;
}

static int show(const NitiDescription *d, const NitiProgram *p, const Arguments *given) {
  const char *phase = given->phase;
  const bool ranks = given->ranks > 0;
  int32_t first = 0, end = p->operation_count;
  for (int i = 0; phase && i < NITI_PHASES; ++i) {
    if (strcmp(phase, niti_phase_name((NitiPhase)i)) == 0) niti_program_phases(p, (NitiPhase)i, (NitiPhase)i, &first, &end);
  }
  if (given->json) return show_json(d, p, first, end, ranks);
  printf(
      "%s, batch %d: %d operations; s8, s32: integers of 8, 32 bits; e: one exponent per tensor; sums are in products of\n"
      "two mantissas, of which %d are exact in int32\n\n",
      d->name, p->batch, count_operations(p), NITI_ACCUMULATION_MAX);
  for (int32_t i = first; i < end; ++i) {
    if (p->operations[i].opcode != NITI_OP_NONE) print_operation(p, i, ranks);
  }
  return EXIT_OK;
}

static bool is_phase(const char *name) {
  for (int i = 0; i < NITI_PHASES; ++i) {
    if (strcmp(name, niti_phase_name((NitiPhase)i)) == 0) return true;
  }
  return false;
}

/* A recipe decides rounding, loss and batch; a model alone is lowered with the defaults, for one image. */
static NitiStatus lower(NitiProgram **program, NitiRecipe **recipe, const NitiLocation *where, const Arguments *given) {
  NITI_TRY(niti_location_recipe(recipe, where));
  const int32_t batch = given->batch > 0 ? (int32_t)given->batch : where->kind == NITI_LOCATED_MODEL ? 1 : (*recipe)->batch;
  const int32_t ranks = given->ranks > 0 ? (int32_t)given->ranks : 1;
  NitiLowerOptions lowering = niti_recipe_lowering(*recipe, niti_portion_most(batch, ranks), !given->evaluation);
  if (given->ranks > 0) lowering.whole = batch;
  NITI_TRY(niti_lower(program, (*recipe)->model, &lowering));
  return given->fused ? niti_fuse(*program) : NITI_OK;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_program, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_program, count == 0 ? "a network is missing" : "one network at a time");
  if (given.phase && !is_phase(given.phase))
    return usage_error(&command_program, "--phase: '%s' is not input, forward, loss, backward, reduce or update", given.phase);
  NitiLocation where;
  NitiRecipe *recipe = NULL;
  NitiProgram *program = NULL;
  NitiStatus status = niti_locate(&where, argv[1]);
  if (status == NITI_OK) status = lower(&program, &recipe, &where, &given);
  const int result = status == NITI_OK ? show(recipe->model, program, &given) : fail();
  niti_program_close(program);
  niti_recipe_close(recipe);
  niti_location_close(&where);
  return result;
}
