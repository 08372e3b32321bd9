/* niti train: a new run, or an old one resumed. */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compare.h"
#include "introduce.h"
#include "platform/path.h"
#include "ranks/ranks.h"

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
    FLAG("quiet", quiet, "no progress, only the result"),
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

/* How progress is shown. */
typedef struct View {
  NitiRanks *ranks;   /* NULL: a process by itself */
  bool silent;        /* another rank reports */
  _Atomic bool begun; /* the ranks have come together; read by another thread */
  bool quiet;
  ProgressLine line;
  bool timed;       /* the expected time was printed */
  json_t *run;      /* introduce_json; NULL: not begun */
  json_t *warnings; /* texts */
  bool stream;
  NitiSplit scored;            /* after epochs */
  int64_t batches;             /* per epoch */
  int64_t images, nanoseconds; /* at the last epoch's end: the rate shown is the epoch's, as in metrics.csv */
} View;

static double rate(int64_t images, int64_t nanoseconds) {
  return nanoseconds > 0 ? (double)images * 1e9 / (double)nanoseconds : 0;
}

static void format_duration(char *text, size_t size, double s) {
  const int64_t t = (int64_t)(s + 0.5);
  if (t >= 3600) {
    (void)snprintf(text, size, "%" PRId64 "h%02" PRId64 "m", t / 3600, t / 60 % 60);
  } else {
    (void)snprintf(text, size, "%" PRId64 "m%02" PRId64 "s", t / 60, t % 60);
  }
}

enum { BAR_CELLS = 12, BAR_COLUMNS = 60 };

/* "[====>       ] " of the whole run; nothing on a narrow terminal. */
static void format_bar(char bar[BAR_CELLS + 4], int64_t done, int64_t all) {
  bar[0] = 0;
  if (all < 1 || terminal_columns() < BAR_COLUMNS) return;
  const int filled = (int)(BAR_CELLS * done / all);
  char cells[BAR_CELLS + 1];
  for (int i = 0; i < BAR_CELLS; ++i) cells[i] = i < filled ? '=' : i == filled ? '>' : ' ';
  cells[BAR_CELLS] = 0;
  (void)snprintf(bar, BAR_CELLS + 4, "[%s] ", cells);
}

/* "epoch 0m12s, run 1m40s left" */
static void format_left(char *text, size_t size, const NitiProgress *p) {
  char epoch[32], run[32];
  text[0] = 0;
  if (p->run_left < 0) return;
  format_duration(epoch, sizeof epoch, (double)p->epoch_left * 1e-9);
  format_duration(run, sizeof run, (double)p->run_left * 1e-9);
  (void)snprintf(text, size, "  epoch %s, run %s left", epoch, run);
}

static double epoch_rate(const View *view, const NitiProgress *p) {
  return rate(p->images - view->images, p->nanoseconds - view->nanoseconds);
}

static void format_line(char *line, size_t size, const View *view, const NitiProgress *p) {
  char score[64] = "", left[96] = "", bar[BAR_CELLS + 4] = "";
  format_left(left, sizeof left, p);
  if (p->kind == NITI_PROGRESS_TEST) {
    (void)snprintf(line, size, "epoch %d/%d  %s %" PRId64 "/%" PRId64 "%s", p->epoch, p->epochs,
                   p->kind == NITI_PROGRESS_TEST ? "testing" : "reading images", p->batch, p->batches, left);
    return;
  }
  if (p->train.images > 0)
    (void)snprintf(score, sizeof score, "  loss %.4f  acc %.1f %%", nats(p->train), percent(p->train.correct, p->train.images));
  format_bar(bar, p->step, p->steps);
  (void)snprintf(line, size, "%sepoch %d/%d batch %" PRId64 "/%" PRId64 "%s%s  %.0f images/s", bar, p->epoch, p->epochs, p->batch,
                 p->batches, left, score, epoch_rate(view, p));
}

/* Elsewhere than on a terminal twice a minute. */
static void draw_line(View *view, const NitiProgress *p) {
  char line[256];
  if (!progress_is_due(&view->line, INT64_C(30000000000))) return;
  format_line(line, sizeof line, view, p);
  progress_draw(&view->line, line);
}

/* "  NAME loss 0.1234 nats  accuracy 97.00 %"; nothing where no image was scored. */
static void print_score(FILE *to, const char *name, NitiScore s) {
  if (s.images > 0) fprintf(to, "  %s loss %.4f nats  accuracy %.2f %%", name, nats(s), percent(s.correct, s.images));
}

static void print_epoch(const View *view, const NitiProgress *p) {
  FILE *to = output_prose();
  fprintf(to, "epoch %d/%d", p->epoch, p->epochs);
  print_score(to, "train", p->train);
  print_score(to, "validation", p->validation);
  print_score(to, "test", p->test);
  if (p->test.images == 0 && p->validation.images == 0) fputs("  not tested", to);
  if (p->best.images > 0) fprintf(to, "  best %.2f %%", percent(p->best.correct, p->best.images));
  fprintf(to, "  %.0f images/s\n", epoch_rate(view, p));
  output_flush();
}

/* Figures over no images yet are null. */
static json_t *accuracy_json(NitiScore s) { return s.images > 0 ? json_real(percent(s.correct, s.images)) : json_null(); }
static json_t *loss_json(NitiScore s) { return s.images > 0 ? json_real(nats(s)) : json_null(); }

typedef struct Scores {
  NitiScore train, validation, test, best, best_test;
} Scores;

static json_t *scores_json(const View *view, const Scores *s) {
  const bool validates = view->scored == NITI_VALIDATION;
  json_t *object = json_pack("{s:s, s:o, s:o}", "loss_unit", "nats", "train_loss", loss_json(s->train), "train_accuracy",
                             accuracy_json(s->train));
  if (validates)
    json_object_update_new(object,
                           json_pack("{s:o, s:o, s:o}", "validation_loss", loss_json(s->validation), "validation_accuracy",
                                     accuracy_json(s->validation), "best_validation_accuracy", accuracy_json(s->best)));
  json_object_update_new(object,
                         json_pack("{s:o, s:o, s:o}", "test_loss", loss_json(s->test), "test_accuracy", accuracy_json(s->test),
                                   "best_test_accuracy", accuracy_json(validates ? s->best_test : s->best)));
  return object;
}

static void end_epoch(View *view, const NitiProgress *p) {
  if (!view->quiet) print_epoch(view, p);
  if (view->stream) {
    json_t *object = scores_json(view, &(Scores){p->train, p->validation, p->test, p->best, p->best_test});
    json_object_update_new(object, json_pack("{s:i, s:I, s:f}", "epoch", p->epoch, "step", (json_int_t)p->step,
                                             "images_per_second", epoch_rate(view, p)));
    (void)print_event("epoch", object);
  }
  view->images = p->images;
  view->nanoseconds = p->nanoseconds;
}

/* Once, when the first steps have shown how long they take. */
static void tell_time(View *view, const NitiProgress *p) {
  char all[32];
  if (view->timed || p->steps_here < 3 || p->nanoseconds < 1000000000) return;
  view->timed = true;
  progress_clear(&view->line);
  format_duration(all, sizeof all, (double)p->run_left * 1e-9);
  fprintf(output_prose(), "%-10s about %s left, testing included, at %.0f images/s\n", "time", all,
          rate(p->images, p->nanoseconds));
  output_flush();
}

static void tell_warning(View *view, const char *text) {
  progress_clear(&view->line);
  fprintf(stderr, "niti: %s\n", text);
  if (!view->warnings) view->warnings = json_array();
  json_array_append_new(view->warnings, json_string(text));
  if (view->stream) (void)print_event("warning", json_pack("{s:s}", "text", text));
}

static bool on_progress(void *context, const NitiProgress *p) {
  View *view = context;
  if (view->silent) return signals_caught() == 0;
  if (p->kind == NITI_PROGRESS_START) {
    view->run = introduce_json(p);
    view->batches = p->batches;
    view->scored = p->run->data.scored;
    progress_clear(&view->line);
    if (!view->quiet) introduce_run(output_prose(), p);
    if (view->stream) (void)print_event("start", json_deep_copy(view->run));
    return true;
  }
  if (p->kind == NITI_PROGRESS_BATCH && !view->quiet) tell_time(view, p);
  if (p->kind == NITI_PROGRESS_DATA) {
    if (!view->quiet && !view->run) progress_data(&view->line, p->text, p->batch, p->batches);
  } else if (p->kind == NITI_PROGRESS_WARNING) {
    tell_warning(view, p->text);
  } else if (!view->quiet) {
    if (p->kind == NITI_PROGRESS_BATCH || p->kind == NITI_PROGRESS_TEST) {
      draw_line(view, p);
    } else {
      progress_clear(&view->line);
      if (p->kind == NITI_PROGRESS_NOTE) fprintf(stderr, "niti: %s\n", p->text);
    }
  }
  if (p->kind == NITI_PROGRESS_EPOCH) {
    progress_clear(&view->line);
    end_epoch(view, p);
  }
  return signals_caught() == 0;
}

static json_t *warnings_json(const View *view) { return view->warnings ? json_incref(view->warnings) : json_array(); }

/* The averaged weights' file. Returns whether its hash could be taken. */
static bool averaged_hash(char hash[65], const char *folder) {
  char *path = NULL;
  const NitiStatus status = niti_path_join(&path, folder, "averaged.safetensors");
  const bool taken = status == NITI_OK && niti_checkpoint_file_hash(path, hash) == NITI_OK;
  free(path);
  return taken;
}

static void add_averaged(json_t *object, const NitiTrainResult *r, const char *folder) {
  char hash[65];
  const NitiScore test = {.correct = r->averaged_correct, .images = r->averaged_images};
  const NitiScore validation = {.correct = r->averaged_validation_correct, .images = r->validation.images};
  json_object_set_new(object, "averaged_test_accuracy", accuracy_json(test));
  if (r->chosen_on == NITI_VALIDATION) json_object_set_new(object, "averaged_validation_accuracy", accuracy_json(validation));
  json_object_set_new(object, "averaged_hash", averaged_hash(hash, folder) ? json_string(hash) : json_null());
}

static void print_averaged(const NitiTrainResult *r, const char *folder) {
  char hash[65];
  fputs("averaged weights:", stdout);
  if (r->chosen_on == NITI_VALIDATION)
    printf(" validation accuracy %.2f %%", percent(r->averaged_validation_correct, r->validation.images));
  if (r->averaged_images > 0) printf(" test accuracy %.2f %%", percent(r->averaged_correct, r->averaged_images));
  if (averaged_hash(hash, folder)) printf(" (averaged.safetensors, hash %s)", hash);
  putchar('\n');
}

/* epochs: complete ones; max_steps may end a run within the last one begun. */
static json_t *result_json(const View *view, const NitiTrainResult *r, const char *folder, bool stopped) {
  const int64_t begun = view->batches > 0 ? (r->steps + view->batches - 1) / view->batches : 0;
  json_t *object = scores_json(view, &(Scores){r->train, r->validation, r->test, r->best, r->best_test});
  json_object_update_new(
      object, json_pack("{s:o, s:s, s:i, s:I, s:I, s:o, s:f, s:I, s:I, s:b, s:O}", "run", json_name(folder), "hash", r->hash,
                        "epochs", r->epochs, "epochs_begun", (json_int_t)begun, "steps", (json_int_t)r->steps, "best_epoch",
                        r->best.images > 0 ? json_integer(r->best_epoch) : json_null(), "images_per_second",
                        rate(r->images, r->nanoseconds), "shift_predictions", (json_int_t)r->shift_predictions, "shift_retries",
                        (json_int_t)r->shift_retries, "interrupted", stopped, "data", json_object_get(view->run, "data")));
  json_object_set(object, "testing", json_object_get(view->run, "testing"));
  json_object_set(object, "flip", json_object_get(view->run, "flip"));
  if (r->averaged_images > 0 || r->averaged_validation_correct > 0) add_averaged(object, r, folder);
  json_object_set_new(object, "warnings", warnings_json(view));
  return object;
}

/* The scores of the last and the best weights, and on which images. */
static void print_result(const View *view, const NitiTrainResult *r) {
  const bool validates = r->chosen_on == NITI_VALIDATION;
  const NitiScore last = validates ? r->validation : r->test;
  const json_t *limit = json_object_get(json_object_get(view->run, "testing"), "limit");
  const char *split = validates ? "validation" : "test";
  printf("%s accuracy %.2f %% (best %.2f %% after epoch %d, chosen on the %s split%s), %" PRId64 " steps, %.0f images/s\n", split,
         percent(last.correct, last.images), percent(r->best.correct, r->best.images), r->best_epoch, split,
         validates ? "" : " itself", r->steps, rate(r->images, r->nanoseconds));
  if (json_is_true(json_object_get(view->run, "flip"))) puts("every score is of images and their mirrors (evaluation.flip)");
  if (json_is_integer(limit))
    printf("scored on %" PRId64 " of %" JSON_INTEGER_FORMAT " %s images, evenly spread (--test-limit)\n", last.images,
           json_integer_value(json_object_get(json_object_get(view->run, "testing"), "of")), split);
  if (validates && r->test.images > 0)
    printf("test accuracy %.2f %% of the final weights, %.2f %% of the best (last.safetensors, best.safetensors)\n",
           percent(r->test.correct, r->test.images), percent(r->best_test.correct, r->best_test.images));
}

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
    const int code = print_event("result", result_json(view, r, folder, stopped));
    if (code != EXIT_OK) return code;
  } else if (!stopped) {
    print_result(view, r);
    if (r->averaged_images > 0 || r->averaged_validation_correct > 0) print_averaged(r, folder);
    printf("hash %s\ncheckpoints in ", r->hash);
    print_name(stdout, folder);
    const bool averaged = r->averaged_images > 0 || r->averaged_validation_correct > 0;
    printf(": last.safetensors, best.safetensors%s\n", averaged ? ", averaged.safetensors" : "");
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
  json_object_set_new(run, "warnings", warnings_json(view));
  if (json) return print_event("result", json_incref(run));
  puts("dry run: no problem found; nothing was trained or written");
  return EXIT_OK;
}

/* A failure of this rank alone: the others are at work, and will not come to an end by themselves. */
static int end_all(const View *view) {
  const int rank = niti_ranks_rank(view->ranks);
  say("rank %d (%s): %s", rank, niti_ranks_host(view->ranks, rank), niti_error());
  (void)print_failure(niti_error(), EXIT_FAILED);
  niti_ranks_abort(view->ranks, EXIT_FAILED);
  return EXIT_FAILED;
}

static int finish(NitiStatus status, const NitiTrainResult *result, const char *folder, View *view, const Arguments *given) {
  int code;
  if (status != NITI_OK && status != NITI_INTERRUPTED && !niti_ranks_agreed(view->ranks)) return end_all(view);
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
  } else if (view->run) { /* it began, so there is a checkpoint */
    code = fail_with(EXIT_FAILED, "%s; `niti train --resume %s` continues", niti_error(), folder);
  } else {
    code = fail();
  }
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
  if (!niti_ranks_agreed(view->ranks)) return end_all(view);
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
  View view = {.quiet = given.quiet, .stream = given.json_stream};
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
                          .progress = on_progress,
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
