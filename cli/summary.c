/* niti summary: a network's layers, sizes and head-room. */
#include <inttypes.h>

#include "base/bounds.h"
#include "cli.h"
#include "model/plan.h"

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

typedef struct Totals {
  int64_t parameters, multiply_adds;
} Totals;

static void describe_output(char *text, size_t size, NitiShape s) {
  if (s.h == 1 && s.w == 1) {
    (void)snprintf(text, size, "%d", s.c);
  } else {
    (void)snprintf(text, size, "%dx%dx%d", s.h, s.w, s.c);
  }
}

static int64_t parameters_of(const NitiNode *node) { return (int64_t)niti_shape_count(node->weight.shape); }
static int64_t multiply_adds_of(const NitiNode *node) {
  return node->spec.type->multiply_adds ? node->spec.type->multiply_adds(node) : 0;
}

static json_t *layers_json(const NitiPlan *plan, Totals *totals) {
  json_t *layers = json_array();
  for (int32_t i = 1; i <= plan->count; ++i) {
    const NitiNode *node = &plan->nodes[i];
    const NitiNodeTerms terms = niti_plan_terms(plan, i);
    totals->parameters += parameters_of(node);
    totals->multiply_adds += multiply_adds_of(node);
    json_array_append_new(
        layers,
        json_pack("{s:i, s:s, s:s, s:[i,i,i], s:I, s:I, s:I, s:I, s:o, s:i}", "node", i, "name", node->spec.name, "type",
                  node->spec.type->name, "output", node->out.h, node->out.w, node->out.c, "parameters",
                  (json_int_t)parameters_of(node), "multiply_adds", (json_int_t)multiply_adds_of(node), "bytes",
                  (json_int_t)niti_shape_count(node->out), "accumulator_terms", (json_int_t)terms.terms, "headroom_bits",
                  terms.terms > 0 ? json_integer(terms.headroom_bits) : json_null(), "gradient_bits", terms.gradient_bits));
  }
  return layers;
}

static void print_table(const NitiDescription *description, const NitiPlan *plan) {
  printf("%s: input %dx%dx%d, %d classes, batch %d\n\n", description->name, description->input.h, description->input.w,
         description->input.c, description->classes, plan->batch);
  printf("%-20s %14s %12s %15s %12s %9s %9s %9s\n", "layer", "output", "parameters", "multiply-adds", "bytes", "terms",
         "head-room", "gradient");
  Totals totals = {0};
  for (int32_t i = 1; i <= plan->count; ++i) {
    const NitiNode *node = &plan->nodes[i];
    const NitiNodeTerms terms = niti_plan_terms(plan, i);
    char output[48], last[64] = "";
    describe_output(output, sizeof output, node->out);
    if (terms.terms > 0) (void)snprintf(last, sizeof last, "%9" PRId64 " %4d bits", terms.terms, terms.headroom_bits);
    printf("%-20s %14s %12" PRId64 " %15" PRId64 " %12zu %s", node->spec.name, output, parameters_of(node),
           multiply_adds_of(node), niti_shape_count(node->out), last);
    if (terms.gradient_bits) printf("   int%d", terms.gradient_bits);
    putchar('\n');
    totals.parameters += parameters_of(node);
    totals.multiply_adds += multiply_adds_of(node);
  }
  printf("\nparameters      %" PRId64 "\nmultiply-adds   %" PRId64
         " an image, forward\nactivations and errors %zu bytes at this batch, lifetimes shared\n",
         totals.parameters, totals.multiply_adds, plan->arena_bytes);
  printf(
      "terms: products in the widest int32 accumulator, forward or backward (at most %d are provably exact); gradients that\n"
      "could have more are summed in int64\n",
      NITI_MAX_TERMS);
}

static int show(const NitiDescription *description, const NitiPlan *plan, bool json) {
  if (!json) {
    print_table(description, plan);
    return EXIT_OK;
  }
  Totals totals = {0};
  json_t *layers = layers_json(plan, &totals);
  return print_json(json_pack("{s:s, s:[i,i,i], s:i, s:i, s:I, s:I, s:I, s:o}", "model", description->name, "input",
                              description->input.h, description->input.w, description->input.c, "classes", description->classes,
                              "batch", plan->batch, "parameters", (json_int_t)totals.parameters, "multiply_adds",
                              (json_int_t)totals.multiply_adds, "activation_bytes", (json_int_t)plan->arena_bytes, "layers",
                              layers));
}

static int run(int argc, char **argv) {
  Arguments given = {.batch = 1};
  int count;
  const int code = options_parse(&command_summary, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_summary, count == 0 ? "a model is missing" : "one model at a time");
  NitiLocation where;
  NitiRecipe *recipe = NULL;
  NitiPlan *plan = NULL;
  NitiStatus status = niti_locate(&where, argv[1]);
  if (status == NITI_OK) status = niti_location_recipe(&recipe, &where);
  if (status == NITI_OK) status = niti_plan_open(&plan, recipe->model, NULL, (int32_t)given.batch, true);
  const int result = status == NITI_OK ? show(recipe->model, plan, given.json) : fail();
  niti_plan_close(plan);
  niti_recipe_close(recipe);
  niti_location_close(&where);
  return result;
}
