/* The contracts of recipes, runs and models in niti.h: what is refused, with NULL for each pointer in turn and with absurd
 * values, and what a run and a model promise. */
/* clang-format off */
#include "api_test.h" /* first */
#include <pthread.h>
/* clang-format on */

#define CHECKPOINT NITI_SOURCE_DIR "/tests/data/run-0.1.0.safetensors"

/* ---- recipes and runs ---- */

static void a_recipe_refuses(void **state) {
  static const char function[] = "niti_recipe_load";
  const char *const sets[] = {"epochs=1", NULL}, *const long_set[] = {long_name()};
  NitiRecipe *recipe = (NitiRecipe *)(void *)&recipe;
  (void)state;
  check_refused(niti_recipe_load(NULL, "lenet5-mnist", NULL, 0), function, "out");
  check_refused(niti_recipe_load(&recipe, NULL, NULL, 0), function, "recipe");
  assert_null(recipe);
  check_refused(niti_recipe_load(&recipe, "lenet5-mnist", NULL, 1), function, "set_count is 1 with no sets");
  check_refused(niti_recipe_load(&recipe, "lenet5-mnist", sets, -1), function, "set_count is -1");
  check_refused(niti_recipe_load(&recipe, "lenet5-mnist", NULL, INT_MIN), function, "set_count");
  check_refused(niti_recipe_load(&recipe, "lenet5-mnist", sets, 2), function, "sets[1]");
  check_status(niti_recipe_load(&recipe, "lenet5-mnist", long_set, 1), NITI_ERROR_ARGUMENT, "--set xxx");
  check_status(niti_recipe_load(&recipe, long_name(), NULL, 0), NITI_ERROR_ARGUMENT, "xxx");
  check_status(niti_recipe_load(&recipe, "", NULL, 0), NITI_ERROR_ARGUMENT, "no built-in recipe ''");
  check_status(niti_recipe_load(&recipe, "./none.yaml", NULL, 0), NITI_ERROR_FILE, "./none.yaml");
  assert_null(recipe);
  niti_recipe_close(NULL);
  check_ok(niti_recipe_load(&recipe, "lenet5-mnist", sets, 1));
  niti_recipe_close(recipe);
}

/* Options with one fault each, for niti_train and niti_resume alike. */
static void check_options(NitiStatus (*run)(NitiTrainResult *, const char *, const NitiTrainOptions *), const char *function) {
  NitiTrainResult result;
  NitiTrainOptions options = {.save_every = -1};
  check_refused(run(&result, "run", &options), function, "options->save_every is -1");
  options = (NitiTrainOptions){.measure_every = -2};
  check_refused(run(&result, "run", &options), function, "options->measure_every is -2");
  options = (NitiTrainOptions){.device = {.threads = -1}};
  check_refused(run(&result, "run", &options), function, "options->device: threads is -1");
  options = (NitiTrainOptions){.device = {.threads = INT_MAX}};
  check_refused(run(&result, "run", &options), function, "options->device: threads");
  options = (NitiTrainOptions){.device = {.reserved = {0, 0, 1}}};
  check_refused(run(&result, "run", &options), function, "options->device has reserved");
  options = (NitiTrainOptions){.reserved = {0, 0, 0, UINT64_MAX}};
  check_refused(run(&result, "run", &options), function, "options has reserved");
  memset(&options, 0xa5, sizeof options);
  check_refused(run(&result, "run", &options), function, "options has reserved");
  assert_true(result.hash[0] == 0 && result.steps == 0 && result.test.images == 0);
  check_refused(run(NULL, "run", NULL), function, "out");
  check_refused(run(&result, NULL, NULL), function, "folder");
}

static NitiRecipe *toy;

static NitiStatus train_toy(NitiTrainResult *out, const char *folder, const NitiTrainOptions *options) {
  return niti_train(out, toy, folder, options);
}

typedef struct Watch {
  pthread_t caller;
  int calls;
  bool elsewhere, reserved;
} Watch;

/* Stops the run after its third step. */
static bool watch(void *context, const NitiProgress *progress) {
  static const uint64_t none[4];
  Watch *w = context;
  ++w->calls;
  w->elsewhere |= !pthread_equal(w->caller, pthread_self());
  w->reserved |= memcmp(progress->reserved, none, sizeof progress->reserved) != 0 || progress->train.reserved[0] ||
                 progress->best.reserved[1];
  return progress->kind != NITI_PROGRESS_BATCH || progress->step < 3;
}

/* What is left after the last step is its test alone, and after that nothing. */
static bool watch_left(void *context, const NitiProgress *progress) {
  int *ends = context;
  if (progress->kind == NITI_PROGRESS_BATCH) assert_true(progress->run_left >= progress->epoch_left && progress->epoch_left > 0);
  if (progress->kind != NITI_PROGRESS_BATCH && progress->kind != NITI_PROGRESS_EPOCH) return true;
  if (progress->step < progress->steps) return true;
  ++*ends;
  assert_true(progress->run_left == progress->epoch_left);
  assert_true((progress->run_left > 0) == (progress->kind == NITI_PROGRESS_BATCH));
  return true;
}

static uint8_t pixel(size_t i) { return (uint8_t)(niti_random(1, NITI_DRAW_INIT, 0, 0, i) >> 24); }
static uint8_t label(size_t i) { return (uint8_t)(i % 4); }

static const char recipe_text[] =
    "name: toy\nmodel: {name: toy, input: [8, 8, 1], classes: 4, layers: [{conv: {out: 4, kernel: 3, padding: 1}}, relu, "
    "flatten, "
    "{linear: {out: classes}}]}\nbatch: 16\nepochs: 2\nloss: softmax\n";

/* Counts calls; stops at the first test batch where `stop`. */
typedef struct Score {
  int tests;
  bool stop;
} Score;

static bool score_told(void *context, const NitiProgress *progress) {
  Score *score = context;
  if (progress->kind != NITI_PROGRESS_TEST) return true;
  ++score->tests;
  assert_true(progress->batch == score->tests && progress->batches == 4);
  return !score->stop;
}

static void a_model_counts_its_answers(const char *run) {
  const NitiDevice cpu = {.backend = "cpu", .threads = 1};
  Score told = {.stop = false};
  NitiModel *model;
  NitiScore score;
  int64_t all = 0, right = 0;
  check_ok(niti_model_open(&model, run, &cpu));
  niti_model_watch(model, score_told, &told);
  check_ok(niti_model_evaluate(model, &score, NULL));
  const int64_t *counts = niti_model_confusion(model);
  assert_true(told.tests == 4 && counts);
  for (int i = 0; i < 16; ++i) {
    all += counts[i];
    if (i % 5 == 0) right += counts[i];
  }
  assert_true(all == score.images && right == score.correct && score.images == 64);
  for (int row = 0; row < 4; ++row)
    assert_int_equal(counts[4 * row] + counts[4 * row + 1] + counts[4 * row + 2] + counts[4 * row + 3], 16);
  told = (Score){.stop = true};
  check_status(niti_model_evaluate(model, &score, NULL), NITI_INTERRUPTED, "testing");
  assert_true(told.tests == 1 && score.images == 0 && !niti_model_confusion(model));
  niti_model_watch(model, NULL, NULL);
  check_ok(niti_model_evaluate(model, &score, NULL));
  assert_true(told.tests == 1 && niti_model_confusion(model));
  niti_model_close(model);
}

static void a_run_refuses_and_keeps_its_promises(void **state) {
  char *folder = make_temp(), *data = put_idx_folder(64, 64, 8, pixel, label), *run = strdup(path_of("%s/run", folder));
  static const uint64_t none[4];
  Watch w = {.caller = pthread_self()};
  NitiTrainResult result;
  (void)state;
  put_file(path_of("%s/toy.yaml", folder), recipe_text, sizeof recipe_text - 1);
  check_ok(niti_recipe_load(&toy, path_of("%s/toy.yaml", folder), NULL, 0));

  check_refused(niti_train(&result, NULL, run, NULL), "niti_train", "recipe");
  check_refused(niti_train(&result, toy, run, &(NitiTrainOptions){.epochs = 3}), "niti_train", "options->epochs is 3");
  check_options(train_toy, "niti_train");
  check_options(niti_resume, "niti_resume");
  NitiTrainOptions options = {.device = {.backend = "cpu"}, .data = data, .progress = watch, .context = &w};
  check_status(niti_train(&result, toy, "", &options), NITI_ERROR_ARGUMENT, "empty");
  check_status(niti_resume(&result, "", &options), NITI_ERROR_ARGUMENT, "empty");
  check_status(niti_resume(&result, run, &options), NITI_ERROR_FILE, run);
  options.device.backend = "abacus";
  check_status(niti_train(&result, toy, run, &options), NITI_ERROR_UNSUPPORTED, "abacus");
  options.device.backend = "cpu";
  options.device.isa = long_name();
  check_status(niti_train(&result, toy, run, &options), NITI_ERROR_ARGUMENT, "instruction set \"xxx");
  options.device.isa = NULL;
  assert_int_equal(access(run, F_OK), -1); /* nothing was begun */

  check_status(niti_train(&result, toy, run, &options), NITI_INTERRUPTED, "step 3 of 8");
  assert_int_equal(strlen(result.hash), 64);
  assert_int_equal(result.steps, 3);
  assert_true(w.calls >= 3 && !w.elsewhere && !w.reserved);
  int ends = 0;
  options.progress = watch_left;
  options.context = &ends;
  check_ok(niti_resume(&result, run, &options));
  assert_int_equal(ends, 2);
  assert_int_equal(result.steps, 8);
  assert_true(result.shift_predictions > 0 && result.shift_retries <= result.shift_predictions);
  assert_memory_equal(result.reserved, none, sizeof result.reserved);
  assert_true(result.test.images == 64 && result.test.reserved[0] == 0);
  a_model_counts_its_answers(run);
  niti_recipe_close(toy);
  free(run);
  remove_temp(data);
  remove_temp(folder);
}

/* ---- models ---- */

static void a_model_refuses(void **state) {
  const NitiDevice cpu = {.backend = "cpu", .threads = 1};
  NitiDevice device = {.threads = -7};
  NitiModel *model = (NitiModel *)(void *)&model;
  (void)state;
  check_refused(niti_model_open(NULL, CHECKPOINT, &cpu), "niti_model_open", "out");
  check_refused(niti_model_open(&model, NULL, &cpu), "niti_model_open", "network");
  assert_null(model);
  check_refused(niti_model_open(&model, NULL, NULL), "niti_model_open", "network");
  check_refused(niti_model_open(&model, CHECKPOINT, &device), "niti_model_open", "device: threads is -7");
  device = (NitiDevice){.reserved = {1}};
  check_refused(niti_model_open(&model, CHECKPOINT, &device), "niti_model_open", "device has reserved");
  device = (NitiDevice){.backend = "abacus"};
  check_status(niti_model_open(&model, CHECKPOINT, &device), NITI_ERROR_UNSUPPORTED, "abacus");
  check_status(niti_model_open(&model, long_name(), &cpu), NITI_ERROR_ARGUMENT, "xxx");
  check_status(niti_model_open(&model, NITI_SOURCE_DIR "/include/niti.h", &cpu), NITI_ERROR_FORMAT, "niti.h");
  assert_null(model);
  niti_model_close(NULL);
}

static void an_open_model_refuses(void **state) {
  const NitiDevice cpu = {.backend = "cpu", .threads = 1};
  const uint8_t pixels[64] = {0};
  int8_t logits[4] = {77, 77, 77, 77};
  int32_t exponent = 77, hwc[3] = {7, 7, 7};
  NitiModel *model = NULL;
  NitiScore score = {.images = 77};
  (void)state;
  check_ok(niti_model_open(&model, CHECKPOINT, &cpu));

  niti_model_input(model, NULL);
  niti_model_input(NULL, NULL);
  niti_model_input(model, hwc);
  assert_true(hwc[0] == 8 && hwc[1] == 8 && hwc[2] == 1);
  niti_model_input(NULL, hwc);
  assert_true(hwc[0] == 0 && hwc[1] == 0 && hwc[2] == 0);
  assert_int_equal(niti_model_classes(NULL), 0);
  assert_int_equal(niti_model_classes(model), 4);
  assert_string_equal(niti_model_class_name(NULL, 0), "");
  assert_string_equal(niti_model_class_name(model, -1), "");
  assert_string_equal(niti_model_class_name(model, INT32_MIN), "");
  assert_string_equal(niti_model_class_name(model, 4), "");
  assert_string_equal(niti_model_class_name(model, 3), "3");

  check_refused(niti_model_predict(NULL, logits, &exponent, pixels), "niti_model_predict", "model");
  check_refused(niti_model_predict(model, NULL, &exponent, pixels), "niti_model_predict", "logits");
  check_refused(niti_model_predict(model, logits, NULL, pixels), "niti_model_predict", "exponent");
  check_refused(niti_model_predict(model, logits, &exponent, NULL), "niti_model_predict", "pixels");
  check_refused(niti_model_predict_file(NULL, logits, &exponent, "a.png"), "niti_model_predict_file", "model");
  check_refused(niti_model_predict_file(model, NULL, &exponent, "a.png"), "niti_model_predict_file", "logits");
  check_refused(niti_model_predict_file(model, logits, NULL, "a.png"), "niti_model_predict_file", "exponent");
  check_refused(niti_model_predict_file(model, logits, &exponent, NULL), "niti_model_predict_file", "path");
  check_status(niti_model_predict_file(model, logits, &exponent, long_name()), NITI_ERROR_FILE, "xxx");
  static const uint8_t bytes[4] = {'t', 'e', 'x', 't'};
  check_refused(niti_model_predict_bytes(NULL, logits, &exponent, bytes, 4, "a"), "niti_model_predict_bytes", "model");
  check_refused(niti_model_predict_bytes(model, NULL, &exponent, bytes, 4, "a"), "niti_model_predict_bytes", "logits");
  check_refused(niti_model_predict_bytes(model, logits, NULL, bytes, 4, "a"), "niti_model_predict_bytes", "exponent");
  check_refused(niti_model_predict_bytes(model, logits, &exponent, NULL, 0, "a"), "niti_model_predict_bytes", "bytes");
  check_refused(niti_model_predict_bytes(model, logits, &exponent, bytes, 4, NULL), "niti_model_predict_bytes", "name");
  check_status(niti_model_predict_bytes(model, logits, &exponent, bytes, 4, "some bytes"), NITI_ERROR_FORMAT,
               "some bytes: byte 0");
  assert_true(logits[0] == 77 && exponent == 77);
  check_ok(niti_model_predict(model, logits, &exponent, pixels));
  assert_true(exponent != 77);

  check_refused(niti_model_evaluate(NULL, &score, NULL), "niti_model_evaluate", "model");
  assert_int_equal(score.images, 0);
  check_refused(niti_model_evaluate(model, NULL, NULL), "niti_model_evaluate", "out");
  check_refused(niti_model_evaluate_split(model, &score, NULL, (NitiSplit)3), "niti_model_evaluate_split", "split is 3");
  assert_null(niti_model_data(NULL));
  assert_null(niti_model_data(model));
  assert_null(niti_model_confusion(NULL));
  assert_null(niti_model_confusion(model));
  niti_model_watch(NULL, NULL, NULL);
  niti_model_flip(NULL, true);
  niti_model_flip(model, true);
  niti_model_flip(model, false);
  niti_model_watch(model, NULL, NULL);
  check_status(niti_model_evaluate(model, &score, long_name()), NITI_ERROR_FILE, "xxx");
  assert_null(niti_model_data(model));
  niti_model_close(model);
}

static void a_hash_refuses(void **state) {
  char text[65] = "x";
  (void)state;
  check_refused(niti_model_hash(NULL, text), "niti_model_hash", "model");
  check_refused(niti_checkpoint_file_hash(NULL, text), "niti_checkpoint_file_hash", "network");
  assert_string_equal(text, "");
  check_refused(niti_checkpoint_file_hash(CHECKPOINT, NULL), "niti_checkpoint_file_hash", "text");
  check_status(niti_checkpoint_file_hash("none", text), NITI_ERROR_ARGUMENT, "none");
  check_status(niti_checkpoint_file_hash("none.safetensors", text), NITI_ERROR_FILE, "none");
  check_ok(niti_checkpoint_file_hash(CHECKPOINT, text));
  assert_int_equal(strlen(text), 64);

  const NitiDevice cpu = {.backend = "cpu"};
  NitiModel *model = NULL;
  char of_model[65];
  check_ok(niti_model_open(&model, CHECKPOINT, &cpu));
  check_refused(niti_model_hash(model, NULL), "niti_model_hash", "text");
  check_ok(niti_model_hash(model, of_model));
  assert_string_equal(of_model, text);
  niti_model_close(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_recipe_refuses), cmocka_unit_test(a_run_refuses_and_keeps_its_promises),
      cmocka_unit_test(a_model_refuses),  cmocka_unit_test(an_open_model_refuses),
      cmocka_unit_test(a_hash_refuses),
  };
  return cmocka_run_group_tests_name("api_runs", tests, NULL, NULL);
}
