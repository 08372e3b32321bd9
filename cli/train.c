/* niti train: a new run, or an old one resumed. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compare.h"
#include "introduce.h"
#include "ranks/ranks.h"
#include "train_view.h"

enum { SETS_MAX = LIST_MAX + 8 };

typedef struct Arguments {
  DeviceOptions device;
  const char *data, *folder, *resume, *init, *epochs, *steps, *batch, *seed;
  int64_t save_every, test_every, test_limit, measure_every;
  TextList sets;
  bool json, json_stream, quiet, dry_run;
} Arguments;

static const Option options[] = {
    TEXT("run", folder, "DIR", "the new folder for checkpoints, metrics and events (default: " RUNS "/DATE-RECIPE)"),
    TEXT("data", data, "DIR", "the data set's folder (default: the one that the recipe names, if any; --resume: the run's)"),
    TEXT("resume", resume, "RUN", "resume the run in this folder"),
    TEXT("epochs", epochs, "N", "same as --set epochs=N; --resume: extend the run to N epochs"),
    TEXT("max-steps", steps, "N", "stop after N steps: --set max_steps=N"),
    TEXT("batch", batch, "N", "same as --set batch=N"),
    TEXT("seed", seed, "S", "same as --set seed=S"),
    LIST("set", sets, "KEY=VALUE", "set any value of the recipe, e.g. update.mu=4 (may be repeated)"),
    TEXT("init", init, "NETWORK", "start from the weights of a checkpoint or run, edited ones too, where names and shapes match"),
    NUMBER("save-every", save_every, "N", "keep every Nth epoch's checkpoint", 0, 1 << 20),
    NUMBER("test-every", test_every, "N", "test after every Nth epoch and the last one (default 1)", 1, 1 << 20),
    NUMBER("test-limit", test_limit, "N",
           "score N images, evenly spread, of the split that is scored after epochs (default: all)", 1, INT32_MAX),
    NUMBER("measure-every", measure_every, "N", "steps between measurements for TensorBoard (default 100; 0: none)", 0, 1 << 20),
    DEVICE_OPTIONS(device),
    TUNING_OPTION(device),
    FLAG("dry-run", dry_run, "check everything, each image too, and print what the run would be; train nothing"),
    FLAG("json", json, "one JSON object on standard output; the rest on standard error"),
    FLAG("json-stream", json_stream, "the same, and before it an object at the start and after each epoch"),
    FLAG("quiet", quiet, "no progress: only warnings and the result"),
    {0},
};

static int run(int argc, char **argv);
const Command command_train = {"train",
                               "RECIPE [--data DIR] [--run DIR] [OPTIONS]  |  niti train --resume RUN [OPTIONS]",
                               "train a network by a recipe (a file or a built-in's name)",
                               "niti train lenet5-mnist --data ~/mnist --run runs/first --set epochs=2",
                               "RECIPE",
                               options,
                               run};

/* What asked to stop. */
typedef struct Stop {
  int signal;                        /* 0: none */
  char who[64 + NITI_RANK_NAME_MAX]; /* "rank 2 (node7) received SIGTERM: "; "": this process */
} Stop;

static const char *signal_name(int signal) {
  return signal == SIGINT ? "SIGINT" : signal == SIGTERM ? "SIGTERM" : signal == SIGHUP ? "SIGHUP" : "a signal";
}

/* All ranks come here where one was asked to stop. The lowest that was counts. */
static Stop find_stop(const View *view) {
  Stop stop = {.signal = signals_caught()};
  const int own = stop.signal, size = niti_ranks_size(view->ranks);
  int *all = view->ranks ? calloc((size_t)size, sizeof *all) : NULL;
  if (all && niti_ranks_gather(view->ranks, all, &own, sizeof own) != NITI_OK) memset(all, 0, (size_t)size * sizeof *all);
  for (int rank = size; all && rank-- > 0;) {
    if (all[rank] == 0) continue;
    stop.signal = all[rank];
    (void)snprintf(stop.who, sizeof stop.who, "rank %d (%s) received %s: ", rank, niti_ranks_host(view->ranks, rank),
                   signal_name(all[rank]));
  }
  free(all);
  return stop;
}

static int stopped_code(const Stop *stop) { return stop->signal ? 128 + stop->signal : EXIT_FAILED; }

static int report(const Stop *stop, const View *view, const NitiTrainResult *r, const char *folder, bool json) {
  const bool stopped = stop != NULL;
  if (stopped) say("%s%s; `niti train --resume %s` continues", stop->who, niti_error(), folder);
  if (json) {
    const int code = print_event("result", view_result_json(view, r, folder, stopped));
    if (code != EXIT_OK) return code;
  } else if (!stopped) {
    view_result(view, r, folder);
  }
  return stopped ? stopped_code(stop) : EXIT_OK;
}

/* A dry run's introduction was printed as it began. */
static int report_dry(NitiStatus status, const Stop *stop, const View *view, bool json) {
  json_t *run = view->run;
  if (status != NITI_OK) {
    (void)fail_with(stopped_code(stop), "%s%s", stop->who, niti_error());
    return stopped_code(stop);
  }
  json_object_set_new(run, "dry_run", json_true());
  json_object_set_new(run, "warnings", view_warnings(view));
  if (json) return print_event("result", json_incref(run));
  puts("dry run: no problem found; nothing was trained or written");
  return EXIT_OK;
}

/* ---- failures ---- */

enum { WHY_MAX = 1024, ADVISED_MAX = 2048 };

/* Whether the message is about the path or what is in it; a rank's name may come before. */
static bool is_about(const char *why, const char *path) {
  const char *at = *path ? strstr(why, path) : NULL;
  return at && (at[strlen(path)] == '/' || at[strlen(path)] == ':');
}

/* Whether a resumed run would find the data as wrong as this one did. Not where the system lacked something, which the message
 * says. */
static bool is_data_lost(const View *view, const char *folder, const char *why) {
  const char *data = json_string_value(json_object_get(json_object_get(view->run, "data"), "path"));
  if (!data || !is_about(why, data) || strstr(why, " (raise ") || strstr(why, " (check ")) return false;
  return strlen(folder) <= strlen(data) || !is_about(why, folder); /* the run may be within the data */
}

/* The last failure's message, with how to go on. began: there was a checkpoint; else only what has to be removed is said. */
static void advise(char text[ADVISED_MAX], const View *view, const char *folder, bool began) {
  char why[WHY_MAX]; /* looking into the folder may fail too */
  (void)snprintf(why, sizeof why, "%s", niti_error());
  char *way_on = view_way_on(view, folder, why);
  const bool blocked = way_on && strncmp(way_on, "remove ", strlen("remove ")) == 0;
  const bool told = way_on && (began || blocked);
  const char *first = !told ? "" : !blocked && is_data_lost(view, folder, why) ? "; once the file is restored, " : "; ";
  (void)snprintf(text, ADVISED_MAX, "%s%s%s", why, first, told ? way_on : "");
  free(way_on);
}

/* A failure of this rank alone: the others are at work, and will not come to an end by themselves. folder: of a run that began;
 * NULL: none did, as far as this rank knows. */
static int end_all(const View *view, const char *folder) {
  char text[ADVISED_MAX];
  const int rank = niti_ranks_rank(view->ranks);
  if (folder)
    advise(text, view, folder, true);
  else
    (void)snprintf(text, sizeof text, "%s", niti_error());
  say("rank %d (%s): %s", rank, niti_ranks_host(view->ranks, rank), text);
  (void)print_failure(text, EXIT_FAILED);
  niti_ranks_abort(view->ranks, EXIT_FAILED);
  return EXIT_FAILED;
}

static int fail_advised(const View *view, const char *folder, bool began) {
  char text[ADVISED_MAX];
  advise(text, view, folder, began);
  return fail_with(EXIT_FAILED, "%s", text);
}

static int finish(NitiStatus status, const NitiTrainResult *result, const char *folder, View *view, const Arguments *given) {
  int code;
  if (status != NITI_OK && status != NITI_INTERRUPTED && !niti_ranks_agreed(view->ranks))
    return end_all(view, view->running && !given->dry_run ? folder : NULL);
  const bool stopped = status == NITI_INTERRUPTED;
  const Stop stop = stopped ? find_stop(view) : (Stop){.signal = signals_caught()};
  if (view->silent) return status == NITI_OK ? EXIT_OK : stopped_code(&stop);
  progress_clear(&view->line);
  if (given->dry_run) {
    code = report_dry(status, &stop, view, given->json);
  } else if (stopped && !view->run) {
    code = fail_with(stopped_code(&stop), "%s%s; nothing was trained or written", stop.who, niti_error());
  } else if (status == NITI_OK || stopped) {
    code = report(stopped ? &stop : NULL, view, result, folder, given->json);
  } else if (view->run) { /* it began, so there was a checkpoint */
    code = fail_advised(view, folder, true);
  } else if (given->resume) {
    code = fail_advised(view, folder, false);
  } else {
    code = fail();
  }
  if (view->folder >= 0) (void)close(view->folder);
  json_decref(view->run);
  json_decref(view->warnings);
  return code;
}

static int resume(const Arguments *given, const NitiTrainOptions *how, View *view) {
  NitiTrainResult result;
  signals_catch();
  const NitiStatus status = niti_resume(&result, given->resume, how);
  return finish(status, &result, given->resume, view, given);
}

static int train(const Arguments *given, const char *name, const char *const *sets, int count, const NitiTrainOptions *how,
                 View *view) {
  NitiRecipe *recipe = NULL;
  NitiTrainResult result;
  RunName own = {.claimed = false};
  if (niti_ranks_agree(view->ranks, niti_recipe_load(&recipe, name, sets, count)) != NITI_OK) {
    niti_recipe_close(recipe);
    return view->silent ? EXIT_FAILED : fail();
  }
  if (!view->quiet && !view->silent) introduce_recipe(output_prose(), recipe);
  signals_catch();
  NitiStatus status = given->folder || view->silent ? NITI_OK : run_name(&own, recipe->name, !given->dry_run);
  const char *folder = given->folder ? given->folder : view->silent ? "" : own.path;
  if (status == NITI_OK) status = niti_train(&result, recipe, folder, how);
  const int code = finish(status, &result, folder, view, given);
  run_name_release(&own);
  niti_recipe_close(recipe);
  return code;
}

/* The options that are short for settings, after those of --set. Returns how many there are in all; -1: one is too long. */
static int gather_sets(const char *list[SETS_MAX], char numbers[4][64], const Arguments *given) {
  static const char *const keys[4] = {"epochs", "max_steps", "batch", "seed"};
  const char *const values[4] = {given->epochs, given->steps, given->batch, given->seed};
  int count = 0;
  for (; count < given->sets.count; ++count) list[count] = given->sets.items[count];
  for (int i = 0; i < 4; ++i) {
    if (!values[i]) continue;
    if ((size_t)snprintf(numbers[i], sizeof numbers[i], "%s=%s", keys[i], values[i]) >= sizeof numbers[i]) {
      (void)usage_error(&command_train, "'%s' is too long for a number", values[i]);
      return -1;
    }
    list[count++] = numbers[i];
  }
  return count;
}

enum { EPOCHS_MAX = 1000000 };

static bool parse_epochs(int32_t *out, const char *text) {
  char *end;
  const long value = strtol(text, &end, 10);
  const bool good = *text >= '1' && *text <= '9' && *end == 0 && strlen(text) < 9 && value <= EPOCHS_MAX;
  if (good) *out = (int32_t)value;
  return good;
}

/* Called on a thread of its own. */
static void on_lost(void *context, const char *text) {
  const View *view = context;
  const char *next = view->begun ? " (`niti train --resume` continues from the last checkpoint)" : "; nothing was trained";
  say("%s; the run ends%s", text, next);
  niti_ranks_abort(view->ranks, EXIT_LOST);
  _exit(EXIT_LOST); /* MPI has not started, or ends: its launcher ends the others */
}

/* Returns -1 to go on, else the exit code. */
static int join_ranks(View *view, const Arguments *given, bool recipe) {
  if (niti_ranks_open(&view->ranks, on_lost, view) != NITI_OK) return fail();
  view->silent = niti_ranks_rank(view->ranks) > 0;
  const NitiStatus status = options_compare(view->ranks, options, given, recipe);
  view->begun = true;
  if (status == NITI_OK) return -1;
  if (!niti_ranks_agreed(view->ranks)) return end_all(view, NULL);
  const int code = view->silent ? EXIT_FAILED : fail();
  niti_ranks_close(view->ranks);
  return code;
}

static int run(int argc, char **argv) {
  Arguments given = {.measure_every = -1}; /* not given */
  const char *sets[SETS_MAX];
  char numbers[4][64];
  int count;
  const int code = options_parse(&command_train, &given, argc, argv, &count);
  if (code != -1) return code;
  given.json = given.json || given.json_stream;
  const int set_count = gather_sets(sets, numbers, &given);
  if (set_count < 0) return EXIT_USAGE;
  View view = {.quiet = given.quiet, .stream = given.json_stream, .folder = -1};
  progress_start(&view.line);
  NitiTrainOptions how = {.device = device_of(&given.device),
                          .data = given.data,
                          .init = given.init,
                          .save_every = (int32_t)given.save_every,
                          .measure_every = given.measure_every == 0  ? -1
                                           : given.measure_every > 0 ? (int32_t)given.measure_every
                                                                     : 0,
                          .test_every = (int32_t)given.test_every,
                          .test_limit = (int32_t)given.test_limit,
                          .dry_run = given.dry_run,
                          .progress = view_progress,
                          .save_now = signals_save_asked,
                          .context = &view};
  if (!given.resume) {
    if (count != 1) return usage_error(&command_train, count == 0 ? "a recipe is missing" : "one recipe at a time");
    const int refused = join_ranks(&view, &given, true);
    if (refused >= 0) return refused;
    how.ranks = view.ranks;
    const int ended = train(&given, argv[1], sets, set_count, &how, &view);
    niti_ranks_close(view.ranks);
    return ended;
  }
  if (count > 0 || given.folder || given.init || set_count > (given.epochs ? 1 : 0) || given.save_every || given.test_every ||
      given.test_limit || given.dry_run) {
    return usage_error(&command_train,
                       "--resume goes on with the run's own recipe: only --epochs, --data, --measure-every, --threads, --isa, "
                       "--backend, --tuning, --json, --json-stream and --quiet go with it");
  }
  if (given.epochs && !parse_epochs(&how.epochs, given.epochs))
    return usage_error(&command_train, "--epochs %s: expected a whole number from 1 to %d", given.epochs, EPOCHS_MAX);
  const int refused = join_ranks(&view, &given, false);
  if (refused >= 0) return refused;
  how.ranks = view.ranks;
  const int ended = resume(&given, &how, &view);
  niti_ranks_close(view.ranks);
  return ended;
}
