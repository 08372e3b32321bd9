/* niti show: the YAML of a recipe or model. */

#include "cli.h"

typedef struct Arguments {
  bool model, json;
} Arguments;

static const Option options[] = {
    FLAG("model", model, "of a recipe, run or checkpoint the model alone"),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_show = {"show",
                              "NETWORK [--model] [--json]",
                              "print the YAML of a recipe or model: a built-in one, a file's, a run's or a checkpoint's",
                              "niti show lenet5-mnist >my-recipe.yaml",
                              "NETWORK",
                              options,
                              run};

static int print(const char *name, bool model, const char *text, bool json) {
  if (json)
    return print_json(json_pack("{s:o, s:s, s:s}", "name", json_name(name), "kind", model ? "model" : "recipe", "text", text));
  fputs(text, stdout);
  return EXIT_OK;
}

/* Built-ins and files as they are written, the rest as it was resolved. */
static int show(const NitiLocation *where, const Arguments *given) {
  const bool model = given->model || where->kind == NITI_LOCATED_MODEL;
  if (where->text && model == (where->kind == NITI_LOCATED_MODEL)) return print(where->path, model, where->text, given->json);
  NitiRecipe *recipe;
  if (niti_location_recipe(&recipe, where) != NITI_OK) return fail();
  const int result = print(where->path, model, model ? recipe->model->text : recipe->text, given->json);
  niti_recipe_close(recipe);
  return result;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_show, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_show, count == 0 ? "a network is missing" : "one network at a time");
  NitiLocation where;
  if (niti_locate(&where, argv[1]) != NITI_OK) return fail();
  const int result = show(&where, &given);
  niti_location_close(&where);
  return result;
}
