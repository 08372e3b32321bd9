/* Whole networks on the CUDA backend: after the same steps every built-in model has the same hash and metrics as on the CPU, with
 * both families of kernels, whether steps are enqueued, recorded or replayed, with whole and last batches and tests between them.
 * And a network that does not fit says which batch would. NITI_TEST_ROUNDS: how many rounds of eight steps each model takes
 * (default 1). */
#include "cuda_test.h"
#include "every_layer.h"
#include "model/network.h"
#include "program/bounds.h"
#include "train/snapshot.h"
#include "train/step.h"

enum { IMAGES = 50, MACS_A_STEP = 4000 }; /* millions */

typedef struct Setup {
  const char *model; /* built in, or NULL: */
  const char *text;
  const char *more; /* lines of the recipe */
  bool resident;
} Setup;

typedef struct Outcome {
  char hash[65];
  NitiMetrics metrics;
} Outcome;

typedef struct Session {
  NitiBackend *backend;
  NitiRecipe *recipe;
  NitiNetwork *net;
  NitiFeed *feed;
  uint8_t *images;
  NitiSample *samples;
  int32_t *labels;
  uint32_t step;
} Session;

static void must(NitiStatus status, const char *what) {
  if (status != NITI_OK) fail_msg("%s: %s", what, niti_error());
}

static int rounds(void) {
  const char *text = getenv("NITI_TEST_ROUNDS");
  return text && atoi(text) > 0 ? atoi(text) : 1;
}

static NitiDescription *load_model(const Setup *setup) {
  NitiDescription *description = NULL;
  must(setup->model ? niti_description_load(&description, setup->model, NULL)
                    : niti_description_parse(&description, setup->text, "a test's model", NULL),
       "model");
  return description;
}

/* Some images, but never a whole number of blocks of 16. */
static int batch_of(const NitiDescription *description) {
  const NitiLowerOptions options = {.batch = 1};
  NitiProgram *program = NULL;
  int64_t macs = 0;
  must(niti_lower(&program, description, &options), "program");
  for (int32_t i = 0; i < program->operation_count; ++i) macs += niti_multiply_adds(&program->operations[i]);
  niti_program_close(program);
  const int64_t images = (int64_t)MACS_A_STEP * 1000000 / (3 * (macs + 1));
  return images > 37 ? 37 : images < 3 ? 3 : (int)images;
}

static void open_session(Session *s, const Setup *setup, const NitiBackendOptions *device) {
  NitiDescription *description = load_model(setup);
  const int batch = batch_of(description);
  char text[512];
  snprintf(text, sizeof text, "name: test\nmodel: test\nbatch: %d\nepochs: 1\nseed: 99\n%s", batch, setup->more);
  must(niti_recipe_parse(&s->recipe, text, "a test's recipe", NULL, 0, description->text), "recipe");
  niti_description_close(description);
  must(niti_backend_open(&s->backend, device), "backend");
  const NitiLowerOptions options = niti_recipe_lowering(s->recipe, batch, true);
  must(niti_network_open(&s->net, s->recipe->model, s->backend, &options), "network");
  must(niti_network_init(s->net, 5), "weights");
  const int32_t mean[NITI_CHANNELS_MAX] = {500000, 480000, 450000, 500000},
                std[NITI_CHANNELS_MAX] = {250000, 240000, 260000, 250000};
  const NitiShape input = s->recipe->model->input;
  must(niti_feed_open(&s->feed, s->backend, batch), "feed");
  must(niti_network_set_input(s->net, mean, std), "input");
  const size_t count = niti_shape_image(input) * IMAGES;
  s->images = malloc(count);
  s->samples = calloc(IMAGES, sizeof *s->samples);
  s->labels = calloc(IMAGES, sizeof *s->labels);
  assert_true(s->images && s->samples && s->labels);
  for (size_t i = 0; i < count; ++i) s->images[i] = (uint8_t)(niti_random(1, NITI_DRAW_INIT, 0, 0, i) >> 24);
}

static void close_session(Session *s) {
  niti_feed_close(s->feed);
  niti_network_close(s->net);
  niti_backend_close(s->backend);
  niti_recipe_close(s->recipe);
  free(s->images);
  free(s->samples);
  free(s->labels);
}

static void measured_step(Session *s, const Setup *setup, int count, bool training, NitiMeasure *measure) {
  const NitiStepContext context = {.recipe = s->recipe, .net = s->net, .feed = s->feed, .measure = measure};
  for (int i = 0; i < count; ++i) {
    const uint32_t word = niti_random(3, NITI_DRAW_CROP, s->step, 0, (uint64_t)i);
    s->samples[i] = (NitiSample){.image = setup->resident ? word % IMAGES : (uint32_t)i,
                                 .dy = (int16_t)((int)(word >> 8 & 7) - 4),
                                 .dx = (int16_t)((int)(word >> 12 & 7) - 4),
                                 .flip = word >> 31};
    s->labels[i] = (int32_t)(word >> 16) % s->recipe->model->classes;
  }
  NitiShape source = s->recipe->model->input;
  source.n = 1;
  const NitiBatch batch = {.count = count,
                           .images = s->images,
                           .resident = setup->resident,
                           .total = setup->resident ? IMAGES : 0,
                           .source = source,
                           .samples = s->samples,
                           .labels = s->labels};
  must(training ? niti_step_train(&context, &batch, s->step) : niti_step_test(&context, &batch), "a step");
  ++s->step;
}

static void step(Session *s, const Setup *setup, int count, bool training) { measured_step(s, setup, count, training, NULL); }

static Outcome outcome_on(const Setup *setup, const NitiBackendOptions *device) {
  Session s = {0};
  Outcome outcome;
  open_session(&s, setup, device);
  const int whole = s.recipe->batch, last = whole > 17 ? 17 : whole - 1;
  for (int round = 0; round < rounds(); ++round) {
    for (int i = 0; i < 3; ++i) step(&s, setup, whole, true); /* enqueued, recorded, replayed */
    step(&s, setup, last, true);
    for (int i = 0; i < 3; ++i) step(&s, setup, i == 1 ? last : whole, false);
    must(niti_network_init_weight(s.net, s.net->weight_count / 2, 6), "other weights"); /* which the replayed step must see */
    step(&s, setup, whole, true);
  }
  must(niti_network_read_metrics(s.net, &outcome.metrics), "metrics");
  must(niti_snapshot_hash(s.net, outcome.hash), "hash");
  close_session(&s);
  return outcome;
}

static void check_same(const Setup *setup) {
  static const NitiBackendOptions on[DEVICES] = {
      {.name = "cpu"}, {.name = "cuda", .isa = "mma"}, {.name = "cuda", .isa = "wgmma"}};
  const Outcome expected = outcome_on(setup, &on[CPU]);
  for (int i = MMA; i < DEVICES; ++i) {
    if (!devices[i].backend) continue;
    const Outcome got = outcome_on(setup, &on[i]);
    const char *name = setup->model ? setup->model : "a test's model";
    if (strcmp(got.hash, expected.hash) != 0)
      fail_msg("%s, %s: hash %s instead of %s", name, devices[i].name, got.hash, expected.hash);
    assert_int_equal(got.metrics.images, expected.metrics.images);
    assert_int_equal(got.metrics.loss, expected.metrics.loss);
    assert_int_equal(got.metrics.correct, expected.metrics.correct);
  }
}

static bool has_norm(const char *model) {
  const Setup setup = {.model = model};
  NitiDescription *description = load_model(&setup);
  bool found = false;
  for (int32_t i = 0; i < description->node_count; ++i)
    found = found || strcmp(description->nodes[i].spec.type->name, "norm") == 0;
  niti_description_close(description);
  return found;
}

/* ---- every way ---- */

/* Products with masks behind them, before and after a fork, at 64 channels and more. */
static const char masked[] =
    "name: masked\ninput: [12, 12, 3]\nclasses: 5\nlayers:\n"
    "  - conv: {out: 64, kernel: 3, padding: 1}\n"
    "  - relu\n"
    "  - residual:\n"
    "      body:\n"
    "        - conv: {out: 64, kernel: 3, padding: 1}\n"
    "        - relu\n"
    "        - conv: {out: 64, kernel: 3, padding: 1}\n"
    "  - relu\n"
    "  - conv: {out: 192, kernel: 3, padding: 1}\n"
    "  - relu\n"
    "  - conv: {out: 128, kernel: 3, stride: 2, padding: 1}\n"
    "  - relu\n"
    "  - residual:\n"
    "      body:\n"
    "        - conv: {out: 128, kernel: 3, padding: 1}\n"
    "        - relu\n"
    "        - conv: {out: 128, kernel: 3, padding: 1}\n"
    "  - relu\n"
    "  - conv: {out: 80, kernel: 1}\n"
    "  - relu\n"
    "  - maxpool: {kernel: 2}\n"
    "  - flatten\n"
    "  - linear: {out: classes}\n";

/* The same of ReLUs with a maximum, behind norms, and before and after convolutions in groups; some of 80 and 20 channels. */
static const char limited[] =
    "name: limited\ninput: [6, 6, 3]\nclasses: 5\nlayers:\n"
    "  - conv: {out: 64, kernel: 3, padding: 1}\n"
    "  - norm\n"
    "  - relu: {max: 1}\n"
    "  - conv: {out: 64, kernel: 3, padding: 1, groups: channels}\n"
    "  - norm\n"
    "  - relu: {max: 0.5}\n"
    "  - conv: {out: 128, kernel: 1}\n"
    "  - norm\n"
    "  - relu: {max: 1.5}\n"
    "  - conv: {out: 128, kernel: 3, stride: 2, padding: 1, groups: channels}\n"
    "  - norm\n"
    "  - relu: {max: 2}\n"
    "  - conv: {out: 80, kernel: 3, padding: 1}\n"
    "  - norm\n"
    "  - relu: {max: 6}\n"
    "  - conv: {out: 20, kernel: 1}\n"
    "  - norm\n"
    "  - relu: {max: 0.75}\n"
    "  - conv: {out: 40, kernel: 3, padding: 1, groups: 4}\n"
    "  - norm\n"
    "  - relu: {max: 1}\n"
    "  - conv: {out: 64, kernel: 1}\n"
    "  - relu: {max: 1}\n"
    "  - global-avgpool\n"
    "  - linear: {out: classes}\n";

/* Norms that do the work of the max-pool behind them, with a ReLU between, whose mask a product takes over, depthwise or through
 * a reshape, and without; and one that cannot: windows overlap. */
static const char pooled[] =
    "name: pooled\ninput: [16, 16, 3]\nclasses: 5\nlayers:\n"
    "  - conv: {out: 16, kernel: 3, padding: 1}\n"
    "  - norm\n"
    "  - relu\n"
    "  - maxpool: {kernel: 2}\n"
    "  - conv: {out: 16, kernel: 3, padding: 1, groups: channels}\n"
    "  - norm\n"
    "  - relu\n"
    "  - conv: {out: 128, kernel: 1}\n"
    "  - norm\n"
    "  - maxpool: {kernel: 2}\n"
    "  - conv: {out: 48, kernel: 1}\n"
    "  - norm\n"
    "  - relu\n"
    "  - maxpool: {kernel: 3, stride: 1, padding: 1}\n"
    "  - conv: {out: 80, kernel: 1}\n"
    "  - norm\n"
    "  - relu\n"
    "  - maxpool: {kernel: 2}\n"
    "  - flatten\n"
    "  - linear: {out: classes}\n";

/* Lets every convolution run in its way number `which`, counted round; returns the most ways that one has. */
static int choose_all(const Session *s, int which) {
  NitiExecutable *e = s->net->training;
  char convolution[NITI_CONVOLUTION_MAX];
  NitiWay ways[NITI_WAYS_MAX];
  int most = 0;
  for (int32_t i = 0; i < s->net->program->operation_count; ++i) {
    const int count = niti_executable_ways(e, i, convolution, ways);
    if (count == 0) continue;
    must(niti_executable_choose(e, i, ways[which % count].number), "a way");
    most = count > most ? count : most;
  }
  return most;
}

/* A way that does not read a mask as the plan assumed gets it out of the bits that are left of it. */
static void check_every_way(const Setup *setup) {
  static const NitiBackendOptions on[DEVICES] = {
      {.name = "cpu"}, {.name = "cuda", .isa = "mma"}, {.name = "cuda", .isa = "wgmma"}};
  char want[65] = "", got[65];
  for (int i = CPU; i < DEVICES; ++i) {
    if (i != CPU && is_left_out()) continue;
    for (int which = 0, most = 1; devices[i].backend && which < most; ++which) {
      Session s = {0};
      open_session(&s, setup, &on[i]);
      if (i != CPU) most = choose_all(&s, which);
      for (int k = 0; k < 4; ++k) step(&s, setup, k == 2 ? 19 : s.recipe->batch, true);
      must(niti_snapshot_hash(s.net, i == CPU ? want : got), "hash");
      if (i != CPU && strcmp(want, got) != 0) fail_msg("%s, way %d: hash %s instead of %s", devices[i].name, which, got, want);
      close_session(&s);
    }
  }
}

static void test_every_way_of_masked_products(void **unused) {
  static const Setup setup = {NULL, masked, "update: {kind: niti, mu: 4}\nrounding: {error: stochastic-byte}\n", true};
  (void)unused;
  need_cuda();
  check_every_way(&setup);
}

/* With update sgd and each of `count` lines of roundings. */
static void check_roundings(const char *text, const char *const *rounding, int count) {
  for (int i = 0; i < count; ++i) {
    char more[256];
    snprintf(more, sizeof more, "loss: softmax\nupdate: {kind: sgd, lr: 0.05, momentum: 0.9, weight_decay: 0.0005}\n%s",
             rounding[i]);
    const Setup setup = {NULL, text, more, true};
    check_every_way(&setup);
  }
}

static void test_every_way_of_limited_products(void **unused) {
  static const char *const rounding[] = {"", "rounding: {activation: stochastic-byte, error: stochastic-byte}\n"};
  (void)unused;
  need_cuda();
  check_roundings(limited, rounding, 2);
}

static void test_every_way_of_pooled_norms(void **unused) {
  static const char *const rounding[] = {"", "rounding: {activation: stochastic-byte, error: stochastic-byte}\n",
                                         "rounding: {activation: stochastic, error: truncate}\n"};
  (void)unused;
  need_cuda();
  check_roundings(pooled, rounding, 3);
}

/* What is measured of a step: a ReLU whose output nothing has written has as many dead channels all the same. */
static void test_measured_pools(void **unused) {
  static const NitiBackendOptions on[DEVICES] = {
      {.name = "cpu"}, {.name = "cuda", .isa = "mma"}, {.name = "cuda", .isa = "wgmma"}};
  static const Setup setup = {NULL, pooled, "loss: softmax\nupdate: {kind: sgd, lr: 0.05}\n", true};
  NitiLayerCounts want[64], got[64];
  (void)unused;
  need_cuda();
  for (int i = CPU; i < DEVICES; ++i) {
    Session s = {0};
    NitiMeasure *measure = NULL;
    if (!devices[i].backend) continue;
    open_session(&s, &setup, &on[i]);
    must(niti_measure_open(&measure, s.net), "measuring");
    for (int k = 0; k < 3; ++k) measured_step(&s, &setup, k == 1 ? 19 : s.recipe->batch, true, measure);
    const size_t layers = (size_t)s.net->program->layer_count + 1;
    assert_true(layers <= sizeof want / sizeof *want);
    memcpy(i == CPU ? want : got, measure->layers, layers * sizeof *want);
    if (i != CPU) assert_memory_equal(want, got, layers * sizeof *want);
    niti_measure_close(measure);
    close_session(&s);
  }
}

static void test_built_in_models(void **unused) {
#define NITI "update: {kind: niti, mu: 4}\n"
#define SGD "loss: softmax\nupdate: {kind: sgd, lr: 0.05, momentum: 0.9, weight_decay: 0.0005, nesterov: "
  static const char *const recipes[] = {NITI "loss: niti\n", NITI "loss: softmax\n",
                                        NITI "loss: softmax\nrounding: {activation: stochastic, error: stochastic}\n",
                                        NITI "loss: niti\nrounding: {activation: pseudo-stochastic, error: truncate}\n",
                                        "loss: niti\nupdate: {kind: niti16, schedule: steps, warmup: {step: 0}}\n"};
  static const char *const sgd[] = {SGD "true}\n", SGD "false, clip_norm: 0.5}\nclip: {activation: 1, error: 2}\n",
                                    SGD
                                    "true}\nlabel_smoothing: 0.1\nrounding: {activation: stochastic-byte, error: stochastic}\n",
                                    SGD "false}\nrounding: {activation: truncate, error: pseudo-stochastic}\n",
                                    "loss: softmax\nupdate: {kind: niti16, lr: 6, nesterov: true, weight_decay: 0.001}\n"};
  (void)unused;
  need_cuda();
  const char *const *models = niti_builtin_models();
  for (int i = 0; models[i]; ++i) {
    if (is_left_out()) continue;
    const Setup setup = {models[i], NULL, (has_norm(models[i]) ? sgd : recipes)[i % 5], i % 2 == 0};
    print_message("%s\n", models[i]);
    check_same(&setup);
  }
}

static void test_every_layer(void **unused) {
  static const char *const modes[] = {"nearest", "pseudo-stochastic", "stochastic", "truncate", "stochastic-byte"};
  (void)unused;
  need_cuda();
  for (int i = 0; i < 10; ++i) {
    if (is_left_out()) continue;
    char more[160];
    snprintf(more, sizeof more, "update: {kind: niti, mu: 4}\nloss: %s\nrounding: {activation: %s, error: %s}\n",
             i % 2 ? "niti" : "softmax", modes[i % 5], modes[(i + i / 5) % 5]);
    const Setup setup = {NULL, every_layer, more, i % 3 == 0};
    check_same(&setup);
  }
}

/* ---- memory ---- */

static void test_a_batch_that_fits_is_suggested(void **unused) {
  static const Setup setup = {.model = "vgg-small-7"};
  static const char before[] = "a batch of ";
  const size_t left = (size_t)4 << 30;
  (void)unused;
  need_cuda();
  if (is_one_of_many()) {
    print_message("left out: it takes the device's memory, and other processes test at the same time\n");
    skip();
  }
  (void)close_devices(NULL);
  const NitiBackendOptions on = {.name = "cuda"};
  NitiBackend *b = NULL;
  NitiNetwork *net = NULL;
  NitiDescription *description = load_model(&setup);
  void *ballast = NULL;
  must(niti_backend_open(&b, &on), "backend");
  const size_t available = b->ops->free_bytes(b);
  if (available > left) must(b->ops->alloc(b, &ballast, available - left), "all but 4 GiB");
  NitiLowerOptions options = {.batch = 60000, .training = true}; /* 50 GB */
  assert_int_equal(niti_network_open(&net, description, b, &options), NITI_ERROR_MEMORY);
  assert_null(net);
  print_message("%s\n", niti_error());
  assert_non_null(strstr(niti_error(), "asked for"));
  assert_non_null(strstr(niti_error(), " free"));
  const char *suggested = strstr(niti_error(), before);
  assert_non_null(suggested);
  const int batch = atoi(suggested + sizeof before - 1);
  assert_in_range(batch, 1, 59999);
  options.batch = batch;
  must(niti_network_open(&net, description, b, &options), "the batch that would fit");
  niti_network_close(net);
  options.batch = batch + batch / 8;
  assert_int_equal(niti_network_open(&net, description, b, &options), NITI_ERROR_MEMORY); /* it was no understatement */
  assert_int_equal(b->ops->synchronise(b), NITI_OK);
  niti_description_close(description);
  if (ballast) b->ops->release(b, ballast);
  niti_backend_close(b);
}

static int open_all(void **unused) {
  (void)unused;
  return open_devices("auto", MIB);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_layer),
                                     cmocka_unit_test(test_every_way_of_masked_products),
                                     cmocka_unit_test(test_every_way_of_limited_products),
                                     cmocka_unit_test(test_every_way_of_pooled_norms),
                                     cmocka_unit_test(test_measured_pools),
                                     cmocka_unit_test(test_built_in_models),
                                     cmocka_unit_test(test_a_batch_that_fits_is_suggested)};
  return cmocka_run_group_tests(tests, open_all, close_devices);
}
