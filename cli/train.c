/* niti train: a new run, or an old one resumed. */
#include <inttypes.h>
#include <string.h>

#include "introduce.h"

enum { SETS_MAX = LIST_MAX + 8 };

typedef struct Arguments {
  DeviceOptions device;
  const char *data, *folder, *resume, *init, *epochs, *steps, *batch, *seed;
  int64_t save_every, measure_every;
  TextList sets;
  bool json, json_stream, quiet, dry_run;
} Arguments;

static const Option options[] = {
    TEXT("run", folder, "DIR", "the new folder for checkpoints, metrics and events (default: " RUNS "/DATE-RECIPE)"),
    TEXT("data", data, "DIR", "the data set's folder (default: the one that the recipe names, if any; --resume: the run's)"),
    TEXT("resume", resume, "RUN", "resume the run in this folder"),
    TEXT("epochs", epochs, "N", "same as --set epochs=N"),
    TEXT("max-steps", steps, "N", "stop after N steps: --set max_steps=N"),
    TEXT("batch", batch, "N", "same as --set batch=N"),
    TEXT("seed", seed, "S", "same as --set seed=S"),
    LIST("set", sets, "KEY=VALUE", "set any value of the recipe, e.g. update.mu=4 (may be repeated)"),
    TEXT("init", init, "NETWORK", "start from the weights of a checkpoint or run, edited ones too, where names and shapes match"),
    NUMBER("save-every", save_every, "N", "keep every Nth epoch's checkpoint", 0, 1 << 20),
    NUMBER("measure-every", measure_every, "N", "steps between measurements for TensorBoard (default 100; 0: none)", 0, 1 << 20),
    DEVICE_OPTIONS(device),
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
  bool quiet;
  ProgressLine line;
  bool timed;  /* the expected time was printed */
  json_t *run; /* introduce_json; NULL: not begun */
  bool stream;
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
  if (p->steps_here < 1) return;
  const double step = (double)p->nanoseconds * 1e-9 / (double)p->steps_here;
  const int64_t all = p->steps - p->step, here = p->batches - p->batch;
  format_duration(epoch, sizeof epoch, step * (double)(here < all ? here : all));
  format_duration(run, sizeof run, step * (double)all);
  (void)snprintf(text, size, "  epoch %s, run %s left", epoch, run);
}

static double epoch_rate(const View *view, const NitiProgress *p) {
  return rate(p->images - view->images, p->nanoseconds - view->nanoseconds);
}

static void format_line(char *line, size_t size, const View *view, const NitiProgress *p) {
  char score[64] = "", left[96] = "", bar[BAR_CELLS + 4] = "";
  if (p->kind == NITI_PROGRESS_TEST || p->kind == NITI_PROGRESS_CHECK) {
    (void)snprintf(line, size, "epoch %d/%d  %s %" PRId64 "/%" PRId64, p->epoch, p->epochs,
                   p->kind == NITI_PROGRESS_TEST ? "testing" : "reading images", p->batch, p->batches);
    return;
  }
  if (p->train.images > 0)
    (void)snprintf(score, sizeof score, "  loss %.4f  acc %.1f %%", nats(p->train), percent(p->train.correct, p->train.images));
  format_bar(bar, p->step, p->steps);
  format_left(left, sizeof left, p);
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

static void print_epoch(const View *view, const NitiProgress *p) {
  fprintf(output_prose(),
          "epoch %d/%d  train loss %.4f nats  accuracy %.2f %%  test loss %.4f nats  accuracy %.2f %%  best %.2f %%  %.0f "
          "images/s\n",
          p->epoch, p->epochs, nats(p->train), percent(p->train.correct, p->train.images), nats(p->test),
          percent(p->test.correct, p->test.images), percent(p->best.correct, p->best.images), epoch_rate(view, p));
  output_flush();
}

/* Figures over no images yet are null. */
static json_t *accuracy_json(NitiScore s) { return s.images > 0 ? json_real(percent(s.correct, s.images)) : json_null(); }
static json_t *loss_json(NitiScore s) { return s.images > 0 ? json_real(nats(s)) : json_null(); }

static json_t *scores_json(NitiScore train, NitiScore test, NitiScore best) {
  return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "loss_unit", "nats", "train_loss", loss_json(train), "train_accuracy",
                   accuracy_json(train), "test_loss", loss_json(test), "test_accuracy", accuracy_json(test), "best_test_accuracy",
                   accuracy_json(best));
}

static void end_epoch(View *view, const NitiProgress *p) {
  if (!view->quiet) print_epoch(view, p);
  if (view->stream) {
    json_t *object = scores_json(p->train, p->test, p->best);
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
  format_duration(all, sizeof all, (double)p->nanoseconds * 1e-9 / (double)p->steps_here * (double)(p->steps - p->step));
  fprintf(output_prose(), "%-10s about %s of training, at %.0f images/s\n", "time", all, rate(p->images, p->nanoseconds));
  output_flush();
}

static bool on_progress(void *context, const NitiProgress *p) {
  View *view = context;
  if (p->kind == NITI_PROGRESS_START) {
    view->run = introduce_json(p);
    view->batches = p->batches;
    progress_clear(&view->line);
    if (!view->quiet) introduce_run(output_prose(), p);
    if (view->stream) (void)print_event("start", json_deep_copy(view->run));
    return true;
  }
  if (p->kind == NITI_PROGRESS_BATCH && !view->quiet) tell_time(view, p);
  if (p->kind == NITI_PROGRESS_DATA) {
    if (!view->quiet && !view->run) progress_data(&view->line, p->text, p->batch, p->batches);
  } else if (p->kind == NITI_PROGRESS_WARNING) {
    progress_clear(&view->line);
    fprintf(stderr, "niti: %s\n", p->text);
  } else if (!view->quiet) {
    if (p->kind == NITI_PROGRESS_BATCH || p->kind == NITI_PROGRESS_TEST || p->kind == NITI_PROGRESS_CHECK) {
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

/* epochs: complete ones; max_steps may end a run within the last one begun. */
static json_t *result_json(const View *view, const NitiTrainResult *r, const char *folder, bool stopped) {
  const int64_t begun = view->batches > 0 ? (r->steps + view->batches - 1) / view->batches : 0;
  json_t *object = scores_json(r->train, r->test, r->best);
  json_object_update_new(
      object, json_pack("{s:o, s:s, s:i, s:I, s:I, s:o, s:f, s:I, s:I, s:b, s:O}", "run", json_name(folder), "hash", r->hash,
                        "epochs", r->epochs, "epochs_begun", (json_int_t)begun, "steps", (json_int_t)r->steps, "best_epoch",
                        r->best.images > 0 ? json_integer(r->best_epoch) : json_null(), "images_per_second",
                        rate(r->images, r->nanoseconds), "shift_predictions", (json_int_t)r->shift_predictions, "shift_retries",
                        (json_int_t)r->shift_retries, "interrupted", stopped, "data", json_object_get(view->run, "data")));
  return object;
}

static int report(NitiStatus status, const View *view, const NitiTrainResult *r, const char *folder, bool json) {
  const bool stopped = status == NITI_INTERRUPTED;
  if (stopped) say("%s; `niti train --resume %s` continues", niti_error(), folder);
  if (json) {
    const int code = print_event("result", result_json(view, r, folder, stopped));
    if (code != EXIT_OK) return code;
  } else if (!stopped) {
    printf("test accuracy %.2f %% (best %.2f %% after epoch %d), %" PRId64 " steps, %.0f images/s\n",
           percent(r->test.correct, r->test.images), percent(r->best.correct, r->best.images), r->best_epoch, r->steps,
           rate(r->images, r->nanoseconds));
    printf("hash %s\ncheckpoints in ", r->hash);
    print_name(stdout, folder);
    printf(": last.safetensors, best.safetensors\n");
  }
  const int caught = signals_caught();
  return stopped ? (caught ? 128 + caught : EXIT_FAILED) : EXIT_OK;
}

/* A dry run's introduction was printed as it began. */
static int report_dry(NitiStatus status, json_t *run, bool json) {
  const int caught = signals_caught();
  if (status != NITI_OK) {
    (void)fail();
    return caught ? 128 + caught : EXIT_FAILED;
  }
  json_object_set_new(run, "dry_run", json_true());
  if (json) return print_event("result", json_incref(run));
  puts("dry run: no problem found; nothing was trained or written");
  return EXIT_OK;
}

static int finish(NitiStatus status, const NitiTrainResult *result, const char *folder, View *view, const Arguments *given) {
  int code;
  progress_clear(&view->line);
  if (given->dry_run) {
    code = report_dry(status, view->run, given->json);
  } else if (status == NITI_INTERRUPTED && !view->run) {
    code = fail_with(128 + signals_caught(), "%s; nothing was trained or written", niti_error());
  } else if (status == NITI_OK || status == NITI_INTERRUPTED) {
    code = report(status, view, result, folder, given->json);
  } else {
    code = fail();
  }
  json_decref(view->run);
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
  if (niti_recipe_load(&recipe, name, sets, count) != NITI_OK) return fail();
  if (!view->quiet) introduce_recipe(output_prose(), recipe);
  signals_catch();
  NitiStatus status = given->folder ? NITI_OK : run_name(&own, recipe->name, !given->dry_run);
  const char *folder = given->folder ? given->folder : own.path;
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
  const NitiTrainOptions how = {.device = device_of(&given.device),
                                .data = given.data,
                                .init = given.init,
                                .save_every = (int32_t)given.save_every,
                                .measure_every = given.measure_every == 0  ? -1
                                                 : given.measure_every > 0 ? (int32_t)given.measure_every
                                                                           : 0,
                                .dry_run = given.dry_run,
                                .progress = on_progress,
                                .save_now = signals_save_asked,
                                .context = &view};
  if (!given.resume) {
    if (count != 1) return usage_error(&command_train, count == 0 ? "a recipe is missing" : "one recipe at a time");
    return train(&given, argv[1], sets, set_count, &how, &view);
  }
  if (count > 0 || given.folder || given.init || set_count > 0 || given.save_every || given.dry_run) {
    return usage_error(&command_train,
                       "--resume goes on with the run's own recipe: only --data, --measure-every, --threads, --isa, --backend, "
                       "--json, --json-stream and --quiet go with it");
  }
  return resume(&given, &how, &view);
}
