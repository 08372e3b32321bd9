/* niti bench: how fast a model's training step, its kernels, or its inference are, on made-up images. */
#include "bench.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 3, REPEAT_MAX = 1000 };
static const double run_milliseconds = 20; /* at least, where work is queued */

typedef struct Arguments {
  DeviceOptions device;
  const char *model, *algorithm;
  int64_t batch, milliseconds;
  bool json;
} Arguments;

static const Option options[] = {
    TEXT("model", model, "MODEL", "a built-in's name or a file"),
    NUMBER("batch", batch, "N", "images per batch (default 64)", 1, 65536),
    DECIMAL("seconds", milliseconds, "S", "how long to measure (default 5; at most 3 decimals; kernels: all together)", 1,
            3600000),
    DEVICE_OPTIONS(device),
    TUNING_OPTION(device),
    CHOICE("algorithm", algorithm, "auto|direct",
           "convolutions: auto, the fastest; direct: no Winograd, which `kernels` reports as a fraction of peak (same "
           "results)"),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_bench = {"bench",
                               "step|kernels|timeline|infer --model MODEL [--batch N] [OPTIONS]",
                               "time a training step, its operations or inference",
                               "niti bench step --model vgg-small-7 --batch 64 --threads 2",
                               "step|kernels|timeline|infer",
                               options,
                               run};

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

NitiStatus time_once(double *milliseconds, Timed timed, NitiBackend *backend, void *context, int repeat) {
  const int64_t start = niti_clock_now();
  NITI_TRY(timed(context, repeat));
  NITI_TRY(backend->ops->synchronise(backend));
  *milliseconds = (double)(niti_clock_now() - start) * 1e-6 / repeat;
  return NITI_OK;
}

void times_sort(Times *times) {
  qsort(times->milliseconds, (size_t)times->count, sizeof(double), by_value);
  times->min = times->milliseconds[0];
  times->max = times->milliseconds[times->count - 1];
  times->median = (times->milliseconds[(times->count - 1) / 2] + times->milliseconds[times->count / 2]) / 2;
}

NitiStatus measure(Times *times, Timed timed, NitiBackend *backend, void *context, double seconds) {
  double one = 0;
  int repeat = 1;
  const bool queues = !backend->ops->host_memory;
  for (int i = 0; i < (queues ? WARM_UP : 1); ++i) NITI_TRY(time_once(&one, timed, backend, context, repeat));
  if (queues && one < run_milliseconds) {
    const double wanted = run_milliseconds / (one > 1e-3 ? one : 1e-3);
    repeat = wanted < REPEAT_MAX ? (int)wanted + 1 : REPEAT_MAX;
    for (int i = 0; i < WARM_UP; ++i) NITI_TRY(time_once(&one, timed, backend, context, repeat)); /* `repeat` at once, recorded */
  }
  const int64_t begin = niti_clock_now();
  times->count = 0;
  while (times->count < RUNS_MIN || (times->count < RUNS_MAX && (double)(niti_clock_now() - begin) * 1e-9 < seconds)) {
    NITI_TRY(time_once(&times->milliseconds[times->count++], timed, backend, context, repeat));
  }
  times_sort(times);
  return NITI_OK;
}

static NitiStatus make_batch(Bench *b) {
  const NitiShape input = b->recipe->model->input;
  const int32_t n = b->recipe->batch;
  const size_t image = niti_shape_image(input);
  b->images = malloc(image * (size_t)n);
  b->samples = calloc((size_t)n, sizeof *b->samples);
  b->labels = calloc((size_t)n, sizeof *b->labels);
  if (!b->images || !b->samples || !b->labels) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a batch of %d images", n);
  for (size_t i = 0; i < image * (size_t)n; ++i) b->images[i] = (uint8_t)(niti_random(1, NITI_DRAW_INIT, 0, 0, i) >> 24);
  for (int32_t i = 0; i < n; ++i) {
    b->samples[i].image = (uint32_t)i;
    b->labels[i] = i % b->recipe->model->classes;
  }
  b->batch = (NitiBatch){
      .count = n, .images = b->images, .resident = true, .total = n, .source = input, .samples = b->samples, .labels = b->labels};
  return NITI_OK;
}

static NitiStatus set_input(Bench *b) {
  const int32_t channels = b->recipe->model->input.c;
  int32_t *mean = malloc(2 * (size_t)channels * sizeof *mean);
  if (!mean) return niti_fail(NITI_ERROR_MEMORY, "out of memory for %d channels", channels);
  for (int32_t c = 0; c < channels; ++c) {
    mean[c] = 500000;
    mean[channels + c] = 250000;
  }
  const NitiStatus status = niti_network_set_input(b->net, mean, mean + channels);
  free(mean);
  return status;
}

NitiStatus bench_open(Bench *b, const char *model, int64_t batch, bool training, const NitiBackendOptions *backend) {
  char text[256];
  (void)snprintf(text, sizeof text, "name: bench\nmodel: bench\nbatch: %" PRId64 "\nepochs: 1\n", batch);
  NITI_TRY(niti_recipe_parse(&b->recipe, text, "bench", NULL, 0, model));
  NITI_TRY(niti_backend_open(&b->backend, backend));
  const NitiLowerOptions options = niti_recipe_lowering(b->recipe, (int32_t)batch, training);
  NITI_TRY(niti_network_open(&b->net, b->recipe->model, b->backend, &options));
  NITI_TRY(niti_network_init(b->net, 1));
  NITI_TRY(set_input(b));
  NITI_TRY(niti_feed_open(&b->feed, b->backend, (int32_t)batch));
  return make_batch(b);
}

static void introduce_tuning(const Bench *b) {
  char text[NITI_TUNED_MAX];
  const NitiTuningFacts *facts = niti_backend_tuning(b->backend);
  if (facts && facts->note) say("%s", facts->note);
  if (niti_executable_tuned(b->net->main, text)) fprintf(output_prose(), "tuning: %s\n", text);
}

static NitiStatus open_bench(Bench *b, const Arguments *given, bool training, bool direct) {
  NitiDescription *described = NULL;
  const NitiDevice device = device_of(&given->device);
  const NitiBackendOptions backend = {
      .name = device.backend, .isa = device.isa, .threads = device.threads, .direct = direct, .tuning = device.tuning};
  NITI_TRY(niti_description_load(&described, given->model, NULL));
  const NitiStatus status = bench_open(b, described->text, given->batch, training, &backend);
  niti_description_close(described);
  if (status == NITI_OK) introduce_tuning(b);
  return status;
}

void bench_close(Bench *b) {
  niti_feed_close(b->feed);
  niti_network_close(b->net);
  niti_backend_close(b->backend);
  niti_recipe_close(b->recipe);
  free(b->images);
  free(b->samples);
  free(b->labels);
}

NitiStatus bench_step(Bench *b) {
  b->bindings = (NitiBindings){.seed = b->recipe->seed, .step = b->step++};
  NITI_TRY(niti_feed_batch(b->feed, &b->batch, &b->bindings));
  niti_recipe_scalars(b->bindings.scalars, b->recipe, b->net->program, 0, b->bindings.batch);
  return niti_network_train(b->net, &b->bindings);
}

static NitiStatus run_steps(void *context, int repeat) {
  for (int i = 0; i < repeat; ++i) NITI_TRY(bench_step(context));
  return NITI_OK;
}

static NitiStatus run_inferences(void *context, int repeat) {
  Bench *b = context;
  const NitiStepContext step = {b->recipe, b->net, b->feed, NULL, NULL};
  for (int i = 0; i < repeat; ++i) NITI_TRY(niti_step_test(&step, &b->batch));
  return NITI_OK;
}

static int report_whole(const Bench *b, const char *what, const char *model, const Times *t, bool json) {
  const double rate = b->recipe->batch / t->median * 1e3;
  const NitiShiftCounts shifts = b->backend->ops->shift_counts(b->backend);
  char tuning[NITI_TUNED_MAX];
  if (json) {
    const bool tuned = niti_executable_tuned(b->net->main, tuning);
    return print_json(json_pack("{s:o, s:s, s:o, s:i, s:s, s:i, s:i, s:f, s:{s:f, s:f, s:f}, s:I, s:I, s:I}", "tuning",
                                tuned ? json_name(tuning) : json_null(), "bench", what, "model", json_name(model), "batch",
                                b->recipe->batch, "device", b->backend->ops->describe(b->backend), "threads",
                                b->backend->ops->threads(b->backend), "runs", t->count, "images_per_second", rate, "milliseconds",
                                "min", t->min, "median", t->median, "max", t->max, "memory_bytes",
                                (json_int_t)b->net->memory_bytes, "shift_predictions", (json_int_t)shifts.predictions,
                                "shift_retries", (json_int_t)shifts.retries));
  }
  printf("%s of %s, batch %d, %s: %.1f images/s; %.2f ms (min %.2f, max %.2f, %d runs)\n", what, model, b->recipe->batch,
         b->backend->ops->describe(b->backend), rate, t->median, t->min, t->max, t->count);
  return EXIT_OK;
}

static int run(int argc, char **argv) {
  Arguments given = {.algorithm = "auto", .batch = 64, .milliseconds = 5000};
  int count;
  const int code = options_parse(&command_bench, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_bench, "say what to time: step, kernels, timeline or infer");
  const bool step = strcmp(argv[1], "step") == 0, kernels = strcmp(argv[1], "kernels") == 0,
             timeline = strcmp(argv[1], "timeline") == 0, infer = strcmp(argv[1], "infer") == 0;
  if (!step && !kernels && !timeline && !infer)
    return usage_error(&command_bench, "'%s' is not step, kernels, timeline or infer", argv[1]);
  if (!given.model) return usage_error(&command_bench, "--model MODEL is missing");
  const bool direct = strcmp(given.algorithm, "direct") == 0;
  if (!direct && strcmp(given.algorithm, "auto") != 0)
    return usage_error(&command_bench, "--algorithm: '%s' is not auto or direct", given.algorithm);

  const double seconds = (double)given.milliseconds * 1e-3;
  Bench b = {0};
  Times times;
  int result = EXIT_OK;
  if (open_bench(&b, &given, !infer, direct) != NITI_OK) {
    result = fail();
  } else if (kernels) {
    result = bench_kernels(&b, given.model, seconds, given.json);
  } else if (timeline) {
    result = bench_timeline(&b, given.model, given.json);
  } else if (measure(&times, infer ? run_inferences : run_steps, b.backend, &b, seconds) != NITI_OK) {
    result = fail();
  } else {
    result = report_whole(&b, infer ? "inference" : "training step", given.model, &times, given.json);
  }
  bench_close(&b);
  return result;
}
