/* niti train: a new run, or an old one resumed. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"
#include "platform/clock.h"

enum { SETS_MAX = LIST_MAX + 8 };

typedef struct Arguments {
  DeviceOptions device;
  const char *data, *folder, *resume, *init, *epochs, *steps, *batch, *seed;
  int64_t save_every;
  TextList sets;
  bool json, quiet;
} Arguments;

static const Option options[] = {
    TEXT("run", folder, "DIR", "the new folder for checkpoints, metrics and events"),
    TEXT("data", data, "DIR", "the data set's folder (default: the one that the recipe names, if any; --resume: the run's)"),
    TEXT("resume", resume, "DIR", "go on with the run in this folder"),
    TEXT("epochs", epochs, "N", "same as --set epochs=N"),
    TEXT("max-steps", steps, "N", "stop after N steps: --set max_steps=N"),
    TEXT("batch", batch, "N", "same as --set batch=N"),
    TEXT("seed", seed, "S", "same as --set seed=S"),
    LIST("set", sets, "KEY=VALUE", "set any value of the recipe, e.g. update.mu=4 (may be repeated)"),
    TEXT("init", init, "NETWORK", "start from the weights of a checkpoint or run, edited ones too, where names and shapes match"),
    NUMBER("save-every", save_every, "N", "keep every Nth epoch's checkpoint", 0, 1 << 20),
    DEVICE_OPTIONS(device),
    FLAG("json", json, "the last line on standard output is one JSON object"),
    FLAG("quiet", quiet, "no progress, only the result"),
    {0},
};

static int run(int argc, char **argv);
const Command command_train = {"train",
                               "RECIPE --run DIR [--data DIR] [OPTIONS]  |  niti train --resume DIR [OPTIONS]",
                               "train a network by a recipe (a file or a built-in's name)",
                               "niti train lenet5-fashion-mnist --run runs/first --set epochs=2",
                               "RECIPE",
                               options,
                               run};

/* How progress is shown: one line that changes on a terminal, a line an epoch elsewhere. */
typedef struct View {
  bool quiet, terminal, line_open;
  double drawn; /* when, in seconds */
} View;

static double seconds(void) { return (double)niti_clock_now() * 1e-9; }

static double rate(int64_t images, int64_t nanoseconds) {
  return nanoseconds > 0 ? (double)images * 1e9 / (double)nanoseconds : 0;
}

static void clear_line(View *view) {
  if (view->line_open) fputs("\r\033[K", stderr);
  view->line_open = false;
}

static void format_duration(char *text, size_t size, double s) {
  const int64_t t = (int64_t)(s + 0.5);
  if (t >= 3600) {
    (void)snprintf(text, size, "%" PRId64 "h%02" PRId64 "m left", t / 3600, t / 60 % 60);
  } else {
    (void)snprintf(text, size, "%" PRId64 "m%02" PRId64 "s left", t / 60, t % 60);
  }
}

static void format_line(char *line, size_t size, const NitiProgress *p) {
  char score[64] = "", left[48] = "";
  if (p->kind == NITI_PROGRESS_TEST) {
    (void)snprintf(line, size, "epoch %d/%d  testing %" PRId64 "/%" PRId64, p->epoch, p->epochs, p->batch, p->batches);
    return;
  }
  if (p->train.images > 0)
    (void)snprintf(score, sizeof score, "  loss %.4f  acc %.1f %%", nats(p->train), percent(p->train.correct, p->train.images));
  if (p->steps_here > 0)
    format_duration(left, sizeof left, (double)p->nanoseconds * 1e-9 / (double)p->steps_here * (double)(p->steps - p->step));
  (void)snprintf(line, size, "epoch %d/%d batch %" PRId64 "/%" PRId64 "%s  %.0f images/s  %s", p->epoch, p->epochs, p->batch,
                 p->batches, score, rate(p->images, p->nanoseconds), left);
}

/* On a terminal ten times a second over the last line; elsewhere a line of its own twice a minute. */
static void draw_line(View *view, const NitiProgress *p) {
  const double now = seconds();
  char line[256];
  if (now - view->drawn < (view->terminal ? 0.1 : 30.0)) return;
  view->drawn = now;
  view->line_open = view->terminal;
  format_line(line, sizeof line, p);
  if (view->terminal) {
    fprintf(stderr, "\r\033[K%.*s", terminal_columns() - 1, line);
  } else {
    fprintf(stderr, "%s\n", line);
  }
  fflush(stderr);
}

static void print_epoch(const NitiProgress *p) {
  printf("epoch %d/%d  train loss %.4f  accuracy %.2f %%  test loss %.4f  accuracy %.2f %%  best %.2f %%  %.0f images/s\n",
         p->epoch, p->epochs, nats(p->train), percent(p->train.correct, p->train.images), nats(p->test),
         percent(p->test.correct, p->test.images), percent(p->best.correct, p->best.images), rate(p->images, p->nanoseconds));
  output_flush();
}

static bool on_progress(void *context, const NitiProgress *p) {
  View *view = context;
  if (p->kind == NITI_PROGRESS_WARNING) {
    clear_line(view);
    fprintf(stderr, "niti: %s\n", p->text);
  } else if (!view->quiet) {
    if (p->kind == NITI_PROGRESS_BATCH || p->kind == NITI_PROGRESS_TEST) {
      draw_line(view, p);
    } else {
      clear_line(view);
      if (p->kind == NITI_PROGRESS_NOTE) fprintf(stderr, "niti: %s\n", p->text);
      if (p->kind == NITI_PROGRESS_EPOCH) print_epoch(p);
    }
  }
  return signals_caught() == 0;
}

/* Figures over no images yet are null. */
static json_t *accuracy_json(NitiScore s) { return s.images > 0 ? json_real(percent(s.correct, s.images)) : json_null(); }
static json_t *loss_json(NitiScore s) { return s.images > 0 ? json_real(nats(s)) : json_null(); }

static int report(NitiStatus status, const NitiTrainResult *r, const char *folder, bool json) {
  const bool stopped = status == NITI_INTERRUPTED;
  if (stopped) fprintf(stderr, "niti: %s; `niti train --resume %s` goes on\n", niti_error(), folder);
  if (json) {
    const int code = print_json(json_pack(
        "{s:s, s:s, s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:i, s:f, s:I, s:I, s:b}", "run", folder, "hash", r->hash, "epochs",
        r->epochs, "steps", (json_int_t)r->steps, "train_loss", loss_json(r->train), "train_accuracy", accuracy_json(r->train),
        "test_loss", loss_json(r->test), "test_accuracy", accuracy_json(r->test), "best_test_accuracy", accuracy_json(r->best),
        "best_epoch", r->best_epoch, "images_per_second", rate(r->images, r->nanoseconds), "predictions",
        (json_int_t)r->shift_predictions, "wrong_predictions", (json_int_t)r->shift_retries, "interrupted", stopped));
    if (code != EXIT_OK) return code;
  } else if (!stopped) {
    printf("test accuracy %.2f %% (best %.2f %% after epoch %d), %" PRId64 " steps, %.0f images/s\n",
           percent(r->test.correct, r->test.images), percent(r->best.correct, r->best.images), r->best_epoch, r->steps,
           rate(r->images, r->nanoseconds));
    printf("hash %s\ncheckpoints in %s: last.safetensors, best.safetensors\n", r->hash, folder);
  }
  const int caught = signals_caught();
  return stopped ? (caught ? 128 + caught : EXIT_FAILED) : EXIT_OK;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_train, &given, argc, argv, &count);
  if (code != -1) return code;
  /* a first line at once on a terminal, after a while elsewhere */
  View view = {.quiet = given.quiet, .terminal = terminal_can_redraw(), .drawn = seconds() - 1};
  const char *list[SETS_MAX];
  char numbers[4][64];
  int listed = 0;
  for (; listed < given.sets.count; ++listed) list[listed] = given.sets.items[listed];
  const char *const keys[4] = {"epochs", "max_steps", "batch", "seed"}, *const values[4] = {given.epochs, given.steps,
                                                                                            given.batch, given.seed};
  for (int i = 0; i < 4; ++i) {
    if (!values[i]) continue;
    if ((size_t)snprintf(numbers[i], sizeof numbers[i], "%s=%s", keys[i], values[i]) >= sizeof numbers[i]) {
      return usage_error(&command_train, "'%s' is too long for a number", values[i]);
    }
    list[listed++] = numbers[i];
  }

  const NitiTrainOptions how = {.device = device_of(&given.device),
                                .data = given.data,
                                .init = given.init,
                                .save_every = (int32_t)given.save_every,
                                .progress = on_progress,
                                .save_now = signals_save_asked,
                                .context = &view};
  NitiTrainResult result;
  NitiStatus status;
  if (given.resume) {
    if (count > 0 || given.folder || given.init || listed > 0 || given.save_every) {
      return usage_error(
          &command_train,
          "--resume goes on with the run's own recipe: only --data, --threads, --isa, --backend, --json and --quiet go with it");
    }
    signals_catch();
    status = niti_resume(&result, given.resume, &how);
  } else {
    if (count != 1) return usage_error(&command_train, count == 0 ? "a recipe is missing" : "one recipe at a time");
    if (!given.folder) return usage_error(&command_train, "--run DIR is missing");
    NitiRecipe *recipe = NULL;
    if (niti_recipe_load(&recipe, argv[1], list, listed) != NITI_OK) return fail();
    signals_catch();
    status = niti_train(&result, recipe, given.folder, &how);
    niti_recipe_close(recipe);
  }
  clear_line(&view);
  if (status != NITI_OK && status != NITI_INTERRUPTED) return fail();
  return report(status, &result, given.resume ? given.resume : given.folder, given.json);
}
