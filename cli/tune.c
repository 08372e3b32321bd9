/* niti tune: measures which kernels run a network's convolutions fastest on this device, and keeps that in a file. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench.h"
#include "platform/file.h"

enum { ROUNDS_MIN = 3, ROUNDS_MAX = 20, REPEATS_MAX = 100, WARM_UP = 3, TURNS = 9, DUELS = 5, SECONDS = 30 };
static const double shortest = 1, turn = 20, /* milliseconds of a measurement: of a convolution, of steps */
    limits[] = {3, 1.5, 1.15}, /* how many times as slow as the fastest a way may be in the first rounds and later */
    gain = 0.97,               /* a way that takes more of the cost model's time does not replace its choice */
    loss = 1.02;               /* nor are ways kept with which a whole step takes this much of the time without */

typedef struct Arguments {
  DeviceOptions device;
  const char *model, *out;
  int64_t batch, seconds;
  bool json;
} Arguments;

static const Option options[] = {
    TEXT("model", model, "MODEL", "instead of a recipe: a built-in model's name or a file"),
    NUMBER("batch", batch, "N", "images per batch (default: the recipe's; of a model 64)", 1, 65536),
    NUMBER("seconds", seconds, "S", "how long to measure (default 30)", 1, 86400),
    TEXT("out", out, "FILE", "the file to add the result to (default: " TUNING_FILE ")"),
    DEVICE_OPTIONS(device),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_tune = {"tune",
                              "RECIPE|--model MODEL [--batch N] [--seconds S] [--out FILE] [OPTIONS]",
                              "measure which kernels are fastest here, for train, eval and bench to use (same results)",
                              "niti tune lenet5-mnist --threads 2",
                              "RECIPE",
                              options,
                              run};

/* A convolution, and how fast its ways are. Way 0 is the cost model's. */
typedef struct Contest {
  int32_t operation; /* the first of that name */
  char convolution[NITI_CONVOLUTION_MAX];
  NitiWay ways[NITI_WAYS_MAX];
  double best[NITI_WAYS_MAX]; /* milliseconds of the fastest run; 0: none yet */
  bool lost[NITI_WAYS_MAX];
  int count, chosen;
} Contest;

typedef struct Tune {
  Bench bench;
  NitiExecutable *executable;
  Contest *contests;
  int32_t count;
  double modelled, tuned; /* milliseconds of a step, by the cost model's ways and by the chosen ones */
  bool kept;              /* the chosen ones are no slower */
} Tune;

/* ---- timing ---- */

typedef struct Work {
  Tune *tune;
  int32_t operation;
} Work;

static NitiStatus run_operation(void *context, int repeat) {
  const Work *w = context;
  NitiBindings bindings = w->tune->bench.bindings;
  bindings.repeat = repeat;
  return niti_executable_run(w->tune->executable, w->operation, w->operation + 1, &bindings);
}

static NitiStatus run_steps(void *context, int repeat) {
  const Work *w = context;
  for (int i = 0; i < repeat; ++i) NITI_TRY(bench_step(&w->tune->bench));
  return NITI_OK;
}

/* Milliseconds of one piece of work, of as many as take `least`; where work is queued they are recorded first. */
static NitiStatus time_work(double *milliseconds, Work *w, Timed timed, double least) {
  NitiBackend *b = w->tune->bench.backend;
  double one = 0;
  NITI_TRY(time_once(&one, timed, b, w, 1));
  const int repeat = one >= least ? 1 : one * REPEATS_MAX < least ? REPEATS_MAX : (int)(least / one) + 1;
  for (int i = 0; i < WARM_UP && !b->ops->host_memory; ++i) NITI_TRY(time_once(&one, timed, b, w, repeat));
  return time_once(milliseconds, timed, b, w, repeat);
}

static double fastest_of(const Contest *c) {
  double fastest = c->best[0];
  for (int i = 1; i < c->count; ++i) fastest = c->best[i] > 0 && c->best[i] < fastest ? c->best[i] : fastest;
  return fastest;
}

static NitiStatus time_way(Tune *t, Contest *c, int i) {
  Work work = {t, c->operation};
  double time = 0;
  NITI_TRY(niti_executable_choose(t->executable, c->operation, c->ways[i].number));
  NITI_TRY(time_work(&time, &work, run_operation, shortest));
  if (c->best[i] == 0 || time < c->best[i]) c->best[i] = time;
  return NITI_OK;
}

/* Times every way that has not lost; then those too far from the fastest lose. */
static NitiStatus run_round(Tune *t, Contest *c, double most) {
  for (int i = 0; i < c->count; ++i) {
    if (!c->lost[i]) NITI_TRY(time_way(t, c, i));
  }
  const double limit = fastest_of(c) * most;
  for (int i = 1; i < c->count; ++i) c->lost[i] = c->best[i] > limit;
  return NITI_OK;
}

static int choose(const Contest *c) {
  int chosen = 0;
  for (int i = 1; i < c->count; ++i) chosen = c->best[i] < c->best[chosen] ? i : chosen;
  return c->best[chosen] < gain * c->best[0] ? chosen : 0;
}

static NitiStatus hold_contest(Tune *t, Contest *c, double seconds) {
  const int64_t begin = niti_clock_now();
  for (int round = 0; round < ROUNDS_MAX && c->count > 1; ++round) {
    if (round >= ROUNDS_MIN && (double)(niti_clock_now() - begin) * 1e-9 > seconds) break;
    NITI_TRY(run_round(t, c, limits[round < 2 ? round : 2]));
  }
  c->chosen = choose(c);
  for (int duel = 0; duel < DUELS && c->chosen > 0; ++duel) { /* with the cost model's, which may have been disturbed */
    NITI_TRY(time_way(t, c, 0));
    NITI_TRY(time_way(t, c, c->chosen));
    c->chosen = choose(c);
  }
  return NITI_OK;
}

/* ---- the convolutions of a step ---- */

static Contest *find(const Tune *t, const char *convolution) {
  for (int32_t i = 0; i < t->count; ++i) {
    if (strcmp(t->contests[i].convolution, convolution) == 0) return &t->contests[i];
  }
  return NULL;
}

static NitiStatus gather(Tune *t) {
  const int32_t operations = niti_executable_program(t->executable)->operation_count;
  t->contests = calloc((size_t)operations, sizeof *t->contests);
  if (!t->contests) return niti_fail(NITI_ERROR_MEMORY, "out of memory for %d operations", operations);
  for (int32_t i = 0; i < operations; ++i) {
    Contest *c = &t->contests[t->count];
    c->count = niti_executable_ways(t->executable, i, c->convolution, c->ways);
    c->operation = i;
    if (c->count > 0 && !find(t, c->convolution)) ++t->count;
  }
  return NITI_OK;
}

/* Every convolution of the step runs in its chosen way, or in the cost model's. */
static NitiStatus apply(Tune *t, bool chosen) {
  char convolution[NITI_CONVOLUTION_MAX];
  NitiWay ways[NITI_WAYS_MAX];
  for (int32_t i = 0; i < niti_executable_program(t->executable)->operation_count; ++i) {
    if (niti_executable_ways(t->executable, i, convolution, ways) == 0) continue;
    const Contest *c = find(t, convolution);
    NITI_TRY(niti_executable_choose(t->executable, i, ways[chosen && c ? c->chosen : 0].number));
  }
  return NITI_OK;
}

/* In turns, so that what else the machine does meets both; of each the fastest counts. */
static NitiStatus compare_steps(Tune *t) {
  Work work = {t, 0};
  for (int i = 0; i < TURNS; ++i) {
    double times[2];
    for (int chosen = 0; chosen < 2; ++chosen) {
      NITI_TRY(apply(t, chosen));
      NITI_TRY(time_work(&times[chosen], &work, run_steps, turn));
    }
    if (i == 0 || times[0] < t->modelled) t->modelled = times[0];
    if (i == 0 || times[1] < t->tuned) t->tuned = times[1];
  }
  t->kept = t->tuned < loss * t->modelled;
  for (int32_t i = 0; i < t->count && !t->kept; ++i) t->contests[i].chosen = 0;
  return NITI_OK;
}

static NitiStatus measure_all(Tune *t, double seconds) {
  ProgressLine line;
  NITI_TRY(bench_step(&t->bench)); /* real values in every tensor */
  NITI_TRY(gather(t));
  progress_start(&line);
  NitiStatus status = NITI_OK;
  for (int32_t i = 0; i < t->count && status == NITI_OK; ++i) {
    progress_data(&line, "timing convolutions", i, t->count);
    status = hold_contest(t, &t->contests[i], seconds / t->count);
  }
  if (status == NITI_OK) status = compare_steps(t);
  progress_clear(&line);
  return status;
}

/* ---- the result ---- */

/* Makes the folders of the user's own file; a failure shows when the file is opened. */
static void make_folders(char *path) {
  for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    (void)mkdir(path, 0700);
    *slash = '/';
  }
}

/* Before anything is measured: whether the file can be written. */
static NitiStatus check_file(const char *path) {
  NitiFile *file = NULL;
  NITI_TRY(niti_file_open_patiently(&file, path));
  niti_file_discard(file);
  return NITI_OK;
}

static NitiStatus write_result(const Tune *t, const char *path) {
  const size_t room = (size_t)t->count + 1;
  const char **names = calloc(room, sizeof *names), **ways = calloc(room, sizeof *ways);
  NitiStatus status = names && ways ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for %d convolutions", t->count);
  for (int32_t i = 0; i < t->count && status == NITI_OK; ++i) {
    names[i] = t->contests[i].convolution;
    ways[i] = t->contests[i].ways[t->contests[i].chosen].name;
  }
  if (status == NITI_OK) status = niti_tuning_write(path, t->bench.backend, names, ways, t->count);
  free(names);
  free(ways);
  return status;
}

static json_t *contest_json(const Contest *c) {
  json_t *ways = json_array();
  for (int i = 0; i < c->count; ++i) {
    json_array_append_new(ways, json_pack("{s:s, s:o}", "way", c->ways[i].name, "milliseconds",
                                          c->best[i] > 0 ? json_real(c->best[i]) : json_null()));
  }
  return json_pack("{s:s, s:s, s:s, s:o}", "convolution", c->convolution, "model", c->ways[0].name, "chosen",
                   c->ways[c->chosen].name, "ways", ways);
}

static int print_object(const Tune *t, const char *path) {
  json_t *contests = json_array();
  const NitiBackend *b = t->bench.backend;
  for (int32_t i = 0; i < t->count; ++i) json_array_append_new(contests, contest_json(&t->contests[i]));
  return print_json(json_pack("{s:s, s:i, s:{s:f, s:f}, s:b, s:o, s:o}", "device", b->ops->describe(b), "batch",
                              t->bench.recipe->batch, "step_milliseconds", "model", t->modelled, "tuned", t->tuned, "kept",
                              t->kept, "path", json_name(path), "convolutions", contests));
}

static int print_table(const Tune *t, const char *path) {
  int32_t other = 0;
  printf("%-64s %10s %10s  %s\n", "convolution", "model, ms", "chosen, ms", "way");
  for (int32_t i = 0; i < t->count; ++i) {
    const Contest *c = &t->contests[i];
    other += c->chosen != 0;
    printf("%-64s %10.3f %10.3f  %s%s\n", c->convolution, c->best[0], c->best[c->chosen], c->ways[c->chosen].name,
           c->chosen == 0 ? " (the cost model's)" : "");
  }
  printf("a step of %d images on %s: %.3f ms by the cost model, %.3f ms as chosen (%+.1f %%)\n", t->bench.recipe->batch,
         t->bench.backend->ops->describe(t->bench.backend), t->modelled, t->tuned, 100 * (t->tuned / t->modelled - 1));
  if (!t->kept) printf("so the cost model's choices were kept\n");
  printf("%d of %d convolutions run otherwise than by the cost model; written to ", other, t->count);
  print_name(stdout, path);
  putchar('\n');
  return EXIT_OK;
}

/* ---- the command ---- */

static NitiStatus open_tune(Tune *t, const Arguments *given, const char *recipe) {
  const NitiBackendOptions backend = {
      .name = given->device.backend, .isa = given->device.isa, .threads = (int)given->device.threads};
  NitiRecipe *read = NULL;
  NitiDescription *described = NULL;
  NitiStatus status = recipe ? niti_recipe_load(&read, recipe, NULL, 0) : niti_description_load(&described, given->model, NULL);
  if (status == NITI_OK)
    status = bench_open(&t->bench, read ? read->model->text : described->text,
                        given->batch > 0 ? given->batch
                        : read           ? read->batch
                                         : 64,
                        true, &backend);
  niti_recipe_close(read);
  niti_description_close(described);
  if (status == NITI_OK) t->executable = t->bench.net->training;
  return status;
}

static int tune(const Arguments *given, const char *recipe, const char *path) {
  Tune t = {.count = 0};
  NitiStatus status = check_file(path);
  if (status == NITI_OK) status = open_tune(&t, given, recipe);
  if (status == NITI_OK) status = measure_all(&t, (double)given->seconds);
  if (status == NITI_OK) status = write_result(&t, path);
  const int code = status != NITI_OK ? fail() : given->json ? print_object(&t, path) : print_table(&t, path);
  bench_close(&t.bench);
  free(t.contests);
  return code;
}

static int run(int argc, char **argv) {
  Arguments given = {.seconds = SECONDS};
  char own[TUNING_PATH_MAX];
  int count;
  const int code = options_parse(&command_tune, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count > 1) return usage_error(&command_tune, "one recipe at a time");
  if (!given.model == (count == 0)) return usage_error(&command_tune, "expected either a recipe or --model MODEL");
  if (!given.out && !tuning_path(own))
    return usage_error(&command_tune, "neither XDG_CACHE_HOME nor HOME is set: say --out FILE");
  if (!given.out) make_folders(own);
  return tune(&given, count == 1 ? argv[1] : NULL, given.out ? given.out : own);
}
