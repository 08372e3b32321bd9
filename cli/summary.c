/* niti summary: a network's layers, sizes and head-room, counted from its program. */
#include <inttypes.h>

#include "base/bounds.h"
#include "cli.h"
#include "model/lower.h"
#include "platform/status.h"
#include "program/bounds.h"
#include "program/fuse.h"
#include "program/places.h"

typedef struct Arguments {
  bool json;
  int64_t batch;
} Arguments;

static const Option options[] = {
    NUMBER("batch", batch, "N", "images per batch (default 1): decides bytes and the gradients' width", 1, 1 << 20),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_summary = {"summary",
                                 "NETWORK [--batch N] [--json]",
                                 "show a network's layers, sizes and accumulator head-room",
                                 "niti summary vgg-small-7 --batch 64",
                                 "NETWORK",
                                 options,
                                 run};

/* What the program says of one layer. */
typedef struct Row {
  NitiShape output;
  int64_t parameters, multiply_adds, bytes;
  int64_t length; /* of the longest sum in int32, forward or backward */
  int gradient_bits;
} Row;

static void count_tensor(Row *row, const NitiTensorDesc *t, int32_t batch) {
  const int64_t count = (int64_t)niti_tensor_count(t, batch);
  if (t->role == NITI_ROLE_WEIGHT) row->parameters += count;
  if (t->role == NITI_ROLE_GRADIENT) row->gradient_bits = 8 * (int)niti_dtype_bytes(t->dtype);
  if (t->role != NITI_ROLE_ACTIVATION) return;
  row->output = niti_tensor_shape(t, batch);
  row->bytes = count;
}

static void count_operation(Row *row, const NitiOperation *o) {
  const bool counts = o->opcode != NITI_OP_CONV_GRADIENT && o->rounding.purpose != NITI_DRAW_FORK;
  const int64_t length = niti_accumulation_length(o);
  if (o->opcode == NITI_OP_CONV_FORWARD) row->multiply_adds += niti_multiply_adds(o);
  if (counts && length > row->length) row->length = length;
}

static Row row_of(const NitiProgram *p, int32_t layer) {
  Row row = {.length = 0};
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    if (p->tensors[t].layer == layer) count_tensor(&row, &p->tensors[t], p->batch);
  }
  for (int32_t i = 0; i < p->operation_count; ++i) {
    if (p->operations[i].layer == layer) count_operation(&row, &p->operations[i]);
  }
  return row;
}

static void describe_output(char *text, size_t size, NitiShape s) {
  if (s.h == 1 && s.w == 1) {
    (void)snprintf(text, size, "%d", s.c);
  } else {
    (void)snprintf(text, size, "%dx%dx%d", s.h, s.w, s.c);
  }
}

static json_t *layer_json(const NitiDescription *d, int32_t layer, const Row *row) {
  const NitiLayerSpec *spec = &d->nodes[layer - 1].spec;
  return json_pack("{s:i, s:s, s:s, s:[i,i,i], s:I, s:I, s:I, s:I, s:o, s:i}", "node", layer, "name", spec->name, "type",
                   spec->type->name, "output", row->output.h, row->output.w, row->output.c, "parameters",
                   (json_int_t)row->parameters, "multiply_adds", (json_int_t)row->multiply_adds, "bytes", (json_int_t)row->bytes,
                   "accumulation_length", (json_int_t)row->length, "headroom_bits",
                   row->length > 0 ? json_integer(niti_headroom_bits(row->length)) : json_null(), "gradient_bits",
                   row->gradient_bits);
}

static void print_layer(const NitiDescription *d, int32_t layer, const Row *row) {
  char output[48], last[64] = "";
  describe_output(output, sizeof output, row->output);
  if (row->length > 0) (void)snprintf(last, sizeof last, "%9" PRId64 " %4d bits", row->length, niti_headroom_bits(row->length));
  printf("%-20s %14s %12" PRId64 " %15" PRId64 " %12" PRId64 " %s", d->nodes[layer - 1].spec.name, output, row->parameters,
         row->multiply_adds, row->bytes, last);
  if (row->gradient_bits) printf("   int%d", row->gradient_bits);
  putchar('\n');
}

static int64_t show_layers(const NitiDescription *d, const NitiProgram *p, json_t *layers) {
  int64_t multiply_adds = 0;
  for (int32_t layer = 1; layer <= p->layer_count; ++layer) {
    const Row row = row_of(p, layer);
    multiply_adds += row.multiply_adds;
    if (layers) {
      json_array_append_new(layers, layer_json(d, layer, &row));
    } else {
      print_layer(d, layer, &row);
    }
  }
  return multiply_adds;
}

static int print_table(const NitiDescription *d, const NitiProgram *p, size_t arena) {
  printf("%s: input %dx%dx%d, %d classes, batch %d\n\n", d->name, d->input.h, d->input.w, d->input.c, d->classes, p->batch);
  printf("%-20s %14s %12s %15s %12s %9s %9s %9s\n", "layer", "output", "parameters", "multiply-adds", "bytes", "length",
         "head-room", "gradient");
  const int64_t multiply_adds = show_layers(d, p, NULL);
  printf("\nparameters      %" PRId64 "\nmultiply-adds   %" PRId64
         " per image, forward\nactivations and deltas %zu bytes at this batch, lifetimes shared\n",
         niti_program_parameters(p), multiply_adds, arena);
  printf(
      "length: products in the longest sum of an int32 accumulator, forward or backward (at most %d are provably exact);\n"
      "gradients that could be longer are summed in int64\n",
      NITI_ACCUMULATION_MAX);
  return EXIT_OK;
}

/* As backends lay it out: with ReLUs joined to their neighbours. */
static NitiStatus measure_arena(size_t *bytes, const NitiProgram *p) {
  NitiPlaces places = {0};
  NitiProgram *fused = niti_program_copy(p);
  if (!fused) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a network's program");
  NitiStatus status = niti_fuse(fused);
  if (status == NITI_OK) status = niti_places_open(&places, fused, &(NitiPlacing){0});
  *bytes = places.arena_bytes;
  niti_places_close(&places);
  niti_program_close(fused);
  return status;
}

static int show(const NitiDescription *d, const NitiProgram *p, bool json) {
  size_t arena = 0;
  if (measure_arena(&arena, p) != NITI_OK) return fail();
  if (!json) return print_table(d, p, arena);
  json_t *layers = json_array();
  const int64_t multiply_adds = show_layers(d, p, layers);
  return print_json(json_pack("{s:s, s:[i,i,i], s:i, s:i, s:I, s:I, s:I, s:o}", "model", d->name, "input", d->input.h, d->input.w,
                              d->input.c, "classes", d->classes, "batch", p->batch, "parameters",
                              (json_int_t)niti_program_parameters(p), "multiply_adds", (json_int_t)multiply_adds,
                              "activation_bytes", (json_int_t)arena, "layers", layers));
}

static int run(int argc, char **argv) {
  Arguments given = {.batch = 1};
  int count;
  const int code = options_parse(&command_summary, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_summary, count == 0 ? "a network is missing" : "one network at a time");
  NitiLocation where;
  NitiRecipe *recipe = NULL;
  NitiProgram *program = NULL;
  NitiStatus status = niti_locate(&where, argv[1]);
  if (status == NITI_OK) status = niti_location_recipe(&recipe, &where);
  if (status == NITI_OK) {
    const NitiLowerOptions lowering = niti_recipe_lowering(recipe, (int32_t)given.batch, true);
    status = niti_lower(&program, recipe->model, &lowering);
  }
  const int result = status == NITI_OK ? show(recipe->model, program, given.json) : fail();
  niti_program_close(program);
  niti_recipe_close(recipe);
  niti_location_close(&where);
  return result;
}
