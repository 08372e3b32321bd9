/* niti find-lr: short trials of learning rates, as a table with a suggestion. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "introduce.h"
#include "train/find_rate.h"

typedef struct Arguments {
  DeviceOptions device;
  const char *data, *values;
  int64_t steps;
  TextList sets;
  bool json;
} Arguments;

static const Option options[] = {
    TEXT("data", data, "DIR", "the data set's folder (default: the one that the recipe names, if any)"),
    TEXT("values", values, "A,B,...",
         "the values to try (default for update.mu: 1,2,3,4,5,6,7,8; for update.lr: 0.0001,0.001,0.01,0.1,1,10, with niti16 "
         "0.5,1,2,4,8,16,32)"),
    NUMBER("steps", steps, "N", "train N steps with each (default 100)", 2, 1 << 20),
    LIST("set", sets, "KEY=VALUE", "set any value of the recipe, e.g. batch=32 (may be repeated)"),
    DEVICE_OPTIONS(device),
    TUNING_OPTION(device),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_find_lr = {"find-lr",
                                 "RECIPE [--data DIR] [--values A,B,...] [--steps N] [OPTIONS]",
                                 "try learning rates for a few steps each, and suggest one; writes no file",
                                 "niti find-lr lenet5-mnist --data ~/mnist --steps 200",
                                 "RECIPE",
                                 options,
                                 run};

typedef struct View {
  ProgressLine line;
  json_t *data;
} View;

static bool on_progress(void *context, const NitiProgress *p) {
  View *view = context;
  char text[96];
  if (p->kind == NITI_PROGRESS_START) {
    progress_clear(&view->line);
    view->data = data_json(&p->run->data);
    data_print(output_prose(), &p->run->data);
    output_flush();
  } else if (p->kind == NITI_PROGRESS_NOTE || p->kind == NITI_PROGRESS_WARNING) {
    progress_clear(&view->line);
    fprintf(stderr, "niti: %s\n", p->text);
  } else if (p->kind == NITI_PROGRESS_DATA) {
    progress_data(&view->line, p->text, p->batch, p->batches);
  } else if (p->kind == NITI_PROGRESS_BATCH && progress_is_due(&view->line, INT64_C(30000000000))) {
    (void)snprintf(text, sizeof text, "niti: value %d of %d, step: %" PRId64 " of %" PRId64, p->epoch, p->epochs, p->batch,
                   p->batches);
    progress_draw(&view->line, text);
  }
  return signals_caught() == 0;
}

/* ---- results ---- */

typedef struct Search {
  NitiRateTrial trials[NITI_RATES_MAX];
  int32_t count;
  const NitiRecipe *recipe;
  int64_t steps;
} Search;

static json_t *trial_json(const NitiRateTrial *t) {
  return json_pack("{s:s, s:f, s:f, s:f, s:f}", "value", t->value, "first_loss", nats(t->first), "loss", nats(t->last),
                   "accuracy", percent(t->last.correct, t->last.images), "saturated_weights", percent(t->saturated, t->all));
}

static int print_object(const Search *s, int32_t best, json_t *data) {
  json_t *trials = json_array();
  for (int32_t i = 0; i < s->count; ++i) json_array_append_new(trials, trial_json(&s->trials[i]));
  return print_json(json_pack("{s:s, s:s, s:I, s:i, s:s, s:o, s:o, s:O}", "recipe", s->recipe->name, "setting",
                              niti_rate_setting(s->recipe), "steps", (json_int_t)s->steps, "batch", s->recipe->batch, "loss_unit",
                              "nats", "trials", trials, "suggestion", best < 0 ? json_null() : json_string(s->trials[best].value),
                              "data", data));
}

static void print_table(const Search *s, int32_t best) {
  printf("each value is tried as a constant rate for %" PRId64 " steps, without schedule or warm-up\n", s->steps);
  printf("%-10s %14s %14s %10s %18s\n", strchr(niti_rate_setting(s->recipe), '.') + 1, "loss, 1st half", "loss, 2nd half",
         "accuracy", "saturated weights");
  for (int32_t i = 0; i < s->count; ++i) {
    const NitiRateTrial *t = &s->trials[i];
    printf("%-10s %14.4f %14.4f %8.2f %% %16.2f %%%s\n", t->value, nats(t->first), nats(t->last),
           percent(t->last.correct, t->last.images), percent(t->saturated, t->all), i == best ? "  <- suggested" : "");
  }
  if (best < 0) {
    printf("no suggestion: in %" PRId64 " steps none was better than guessing; try other values or more steps\n", s->steps);
    return;
  }
  printf("suggestion: begin with %s=%s (--set), and lower it later\n", niti_rate_setting(s->recipe), s->trials[best].value);
  if (s->count > 1 && (best == 0 || best == s->count - 1))
    puts("it is at the end of the values tried: one beyond it may be better");
}

/* ---- the command ---- */

/* Splits "1,2,3" in place; false: too many, or an empty one. */
static bool split_values(Search *s, char *text) {
  for (char *next, *at = text; at; at = next) {
    next = strchr(at, ',');
    if (next) *next++ = 0;
    if (!*at || s->count == NITI_RATES_MAX) return false;
    s->trials[s->count++].value = at;
  }
  return true;
}

static int search(Search *s, const NitiRateSearch *how, View *view, bool json) {
  const NitiStatus status = niti_find_rates(s->trials, s->count, s->recipe, how);
  progress_clear(&view->line);
  if (status == NITI_INTERRUPTED) return fail_with(128 + signals_caught(), "%s", niti_error());
  if (status != NITI_OK) return fail();
  const int32_t best = niti_rate_suggest(s->trials, s->count, s->recipe->model->classes);
  if (json) return print_object(s, best, view->data);
  print_table(s, best);
  return EXIT_OK;
}

static const char *default_values(const NitiRecipe *recipe) {
  if (!recipe->optimizer->wide) return "1,2,3,4,5,6,7,8";
  return recipe->optimizer->true_scale ? "0.0001,0.001,0.01,0.1,1,10" : "0.5,1,2,4,8,16,32";
}

static int find(const Arguments *given, const NitiRecipe *recipe) {
  char values[1024];
  const char *tried = given->values ? given->values : default_values(recipe);
  Search s = {.steps = given->steps, .recipe = recipe};
  (void)snprintf(values, sizeof values, "%s", tried);
  if (strlen(tried) >= sizeof values || !split_values(&s, values))
    return usage_error(&command_find_lr, "--values %.64s: expected 1 to %d values with commas between them", tried,
                       NITI_RATES_MAX);
  introduce_recipe(output_prose(), recipe);
  View view = {.data = NULL};
  progress_start(&view.line);
  const NitiRateSearch how = {
      .device = device_of(&given->device), .data = given->data, .steps = given->steps, .progress = on_progress, .context = &view};
  const int result = search(&s, &how, &view, given->json);
  json_decref(view.data);
  return result;
}

static int run(int argc, char **argv) {
  Arguments given = {.steps = 100};
  int count;
  const int code = options_parse(&command_find_lr, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_find_lr, count == 0 ? "a recipe is missing" : "one recipe at a time");
  NitiRecipe *recipe;
  if (niti_recipe_load(&recipe, argv[1], given.sets.items, given.sets.count) != NITI_OK) return fail();
  signals_catch();
  const int result = find(&given, recipe);
  niti_recipe_close(recipe);
  return result;
}
