/* niti find-lr: short trials of learning rates, as a table with a suggestion. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "introduce.h"
#include "platform/clock.h"
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
    TEXT("values", values, "A,B,...", "the values to try (default for update.mu: 1,2,3,4,5,6,7,8)"),
    NUMBER("steps", steps, "N", "train N steps with each (default 100)", 2, 1 << 20),
    LIST("set", sets, "KEY=VALUE", "set any value of the recipe, e.g. batch=32 (may be repeated)"),
    DEVICE_OPTIONS(device),
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
  bool terminal, line_open;
  int64_t drawn; /* when, in nanoseconds */
  json_t *data;
} View;

static void clear_line(View *view) {
  if (view->line_open) fputs("\r\033[K", stderr);
  view->line_open = false;
}

/* Ten times per second on a terminal, twice a minute elsewhere. */
static bool is_due(View *view) {
  const int64_t now = niti_clock_now(), pause = view->terminal ? 100000000 : INT64_C(30000000000);
  if (now - view->drawn < pause) return false;
  view->drawn = now;
  view->line_open = view->terminal;
  return true;
}

static bool on_progress(void *context, const NitiProgress *p) {
  View *view = context;
  char what[48];
  if (p->kind == NITI_PROGRESS_START) {
    clear_line(view);
    view->data = data_json(&p->run->data);
    data_print(output_prose(), &p->run->data);
    output_flush();
  } else if (p->kind == NITI_PROGRESS_NOTE || p->kind == NITI_PROGRESS_WARNING) {
    clear_line(view);
    fprintf(stderr, "niti: %s\n", p->text);
  } else if (p->kind == NITI_PROGRESS_DATA && is_due(view)) {
    print_progress(view->terminal, p->text, p->batch, p->batches);
  } else if (p->kind == NITI_PROGRESS_BATCH && is_due(view)) {
    (void)snprintf(what, sizeof what, "value %d of %d, step", p->epoch, p->epochs);
    print_progress(view->terminal, what, p->batch, p->batches);
  }
  return signals_caught() == 0;
}

/* ---- results ---- */

typedef struct Search {
  NitiRateTrial trials[NITI_RATES_MAX];
  int32_t count;
  const NitiRecipe *recipe;
  const char *name; /* the last part of the setting */
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
  printf("%-10s %14s %14s %10s %18s\n", s->name, "loss, 1st half", "loss, 2nd half", "accuracy", "saturated weights");
  for (int32_t i = 0; i < s->count; ++i) {
    const NitiRateTrial *t = &s->trials[i];
    printf("%-10s %14.4f %14.4f %8.2f %% %16.2f %%%s\n", t->value, nats(t->first), nats(t->last),
           percent(t->last.correct, t->last.images), percent(t->saturated, t->all), i == best ? "  <- lowest loss" : "");
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
  clear_line(view);
  if (status == NITI_INTERRUPTED) return fail_with(128 + signals_caught(), "%s", niti_error());
  if (status != NITI_OK) return fail();
  const int32_t best = niti_rate_suggest(s->trials, s->count, s->recipe->model->classes);
  if (json) return print_object(s, best, view->data);
  print_table(s, best);
  return EXIT_OK;
}

static int run(int argc, char **argv) {
  Arguments given = {.values = "1,2,3,4,5,6,7,8", .steps = 100};
  int count;
  const int code = options_parse(&command_find_lr, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_find_lr, count == 0 ? "a recipe is missing" : "one recipe at a time");
  char values[1024];
  Search s = {.steps = given.steps, .name = "mu"};
  (void)snprintf(values, sizeof values, "%s", given.values);
  if (strlen(given.values) >= sizeof values || !split_values(&s, values))
    return usage_error(&command_find_lr, "--values %.64s: expected 1 to %d values with commas between them", given.values,
                       NITI_RATES_MAX);
  NitiRecipe *recipe;
  if (niti_recipe_load(&recipe, argv[1], given.sets.items, given.sets.count) != NITI_OK) return fail();
  s.recipe = recipe;
  signals_catch();
  introduce_recipe(output_prose(), recipe);
  View view = {.terminal = terminal_can_redraw(), .drawn = niti_clock_now() - INT64_C(29000000000)};
  const NitiRateSearch how = {
      .device = device_of(&given.device), .data = given.data, .steps = given.steps, .progress = on_progress, .context = &view};
  const int result = search(&s, &how, &view, given.json);
  json_decref(view.data);
  niti_recipe_close(recipe);
  return result;
}
