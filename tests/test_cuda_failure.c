/* What happens when the device fails: the failure persists and is reported, nothing downloaded after it is used, and a run
 * ends with its last checkpoint intact. A process's CUDA is dead afterwards, so each test has a process of its own: the program
 * runs itself with the test's name. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include <sys/wait.h>

#include "backend/kernels.h"
#include "io/checkpoint.h"
#include "train/recipe.h"
#include "train/snapshot.h"

/* Makes the device read where nothing is. */
static void break_device(NitiBackend *b) {
  int32_t *nowhere = (int32_t *)(uintptr_t)0x100;
  void *there = NULL;
  assert_int_equal(b->ops->alloc(b, &there, 4096), NITI_OK);
  const NitiTensor x = {.data = (int8_t *)nowhere, .exponent = nowhere, .shape = {1, 1, 1, 4096}};
  NitiTensor y = {.data = there, .exponent = there, .shape = x.shape};
  b->kernels->relu_forward(b, &y, &x, 0); /* a kernel, whose reading no call can check beforehand */
}

static NitiBackend *open_cuda(void) {
  const NitiBackendOptions options = {.name = "cuda"};
  NitiBackend *b = NULL;
  assert_int_equal(niti_backend_open(&b, &options), NITI_OK);
  return b;
}

static void the_failure_stays(void) {
  NitiBackend *b = open_cuda();
  NitiDescription *description = NULL;
  NitiNetwork *net = NULL;
  NitiCheckpoint *checkpoint = NULL;
  void *memory = NULL;
  const uint64_t sent = 0x0123456789abcdef;
  uint64_t back = 1;
  const NitiBindings bindings = {.batch = 1};
  const NitiLowerOptions options = {.batch = 4, .training = true};
  assert_int_equal(niti_description_load(&description, "mlp", NULL), NITI_OK);
  assert_int_equal(niti_network_open(&net, description, b, &options), NITI_OK);
  assert_int_equal(niti_network_init(net, 1), NITI_OK);
  assert_int_equal(b->ops->alloc(b, &memory, sizeof sent), NITI_OK);
  b->ops->upload(b, memory, &sent, sizeof sent);
  b->ops->download(b, &back, memory, sizeof back);
  assert_true(back == sent);
  assert_int_equal(b->ops->synchronise(b), NITI_OK);
  break_device(b);
  for (int i = 0; i < 3; ++i) {
    assert_int_equal(b->ops->synchronise(b), NITI_ERROR_DEVICE);
    print_message("%s\n", niti_error());
    assert_non_null(strstr(niti_error(), "cuda:0"));
    assert_non_null(strstr(niti_error(), "llegal")); /* "an illegal memory access was encountered" */
    assert_null(strchr(niti_error(), '\n'));
  }
  b->ops->download(b, &back, memory, sizeof back);
  assert_true(back == 0);
  assert_int_equal(niti_executable_run(net->training, 0, 0, &bindings), NITI_ERROR_DEVICE);
  assert_int_equal(b->ops->alloc(b, &memory, 64), NITI_ERROR_DEVICE);
  assert_int_equal(niti_checkpoint_open(&checkpoint), NITI_OK);
  assert_int_equal(niti_snapshot_take(checkpoint, net), NITI_ERROR_DEVICE);
  niti_checkpoint_close(checkpoint);
  niti_network_close(net);
  niti_description_close(description);
  niti_backend_close(b);
}

/* ---- a run ---- */

enum { TRAIN_IMAGES = 160, BATCH = 16 };
static const char recipe_text[] =
    "name: toy\nmodel: {name: toy, input: [8, 8, 1], classes: 4, layers: [{conv: {out: 8, kernel: 3, padding: 1}}, relu, "
    "flatten, "
    "{linear: {out: classes}}]}\nbatch: 16\nepochs: 5\nloss: softmax\nupdate: {kind: niti, mu: 3}\n";

static uint8_t pixel(size_t i) { return (uint8_t)(niti_random(1, NITI_DRAW_INIT, 0, 0, i) >> 24); }
static uint8_t label(size_t i) { return (uint8_t)(i % 4); }

/* Breaks the device in the middle of the third epoch. */
static bool sabotage(void *context, const NitiProgress *progress) {
  NitiBackend **saboteur = context;
  if (progress->kind == NITI_PROGRESS_BATCH && progress->step == 2 * TRAIN_IMAGES / BATCH + 3) {
    *saboteur = open_cuda();
    break_device(*saboteur);
  }
  return true;
}

static void a_run_ends_with_its_checkpoint_intact(void) {
  char *folder = make_temp();
  const uint32_t images[3] = {TRAIN_IMAGES, 8, 8};
  char *data = strdup(path_of("%s/data", folder)), *run = strdup(path_of("%s/run", folder));
  char *two_epochs = strdup(path_of("%s/two-epochs", folder));
  char recipe_path[600], last[600], hash[65];
  put_dir(data);
  put_idx(path_of("%s/train-images-idx3-ubyte", data), 3, images, pixel, false);
  put_idx(path_of("%s/train-labels-idx1-ubyte", data), 1, images, label, false);
  put_idx(path_of("%s/t10k-images-idx3-ubyte", data), 3, images, pixel, false);
  put_idx(path_of("%s/t10k-labels-idx1-ubyte", data), 1, images, label, false);
  snprintf(recipe_path, sizeof recipe_path, "%s/recipe.yaml", folder);
  snprintf(last, sizeof last, "%s/last.safetensors", run);
  put_file(recipe_path, recipe_text, sizeof recipe_text - 1);

  NitiRecipe *recipe = NULL, *shorter = NULL;
  NitiTrainResult result;
  NitiBackend *saboteur = NULL;
  const char *const set[] = {"epochs=2"};
  const NitiTrainOptions options = {.device = {.backend = "cuda"}, .data = data, .progress = sabotage, .context = &saboteur};
  const NitiTrainOptions on_cpu = {.device = {.backend = "cpu"}, .data = data};
  if (niti_recipe_load(&recipe, recipe_path, NULL, 0) != NITI_OK) fail_msg("%s", niti_error());
  assert_int_equal(niti_recipe_load(&shorter, recipe_path, set, 1), NITI_OK);
  assert_int_equal(niti_train(&result, recipe, run, &options), NITI_ERROR_DEVICE);
  print_message("%s\n", niti_error());
  assert_non_null(saboteur);
  assert_int_equal(niti_checkpoint_file_hash(last, hash), NITI_OK);
  assert_int_equal(niti_train(&result, shorter, two_epochs, &on_cpu), NITI_OK);
  assert_string_equal(hash, result.hash); /* the second epoch's end */

  /* And the run goes on elsewhere from there. */
  assert_int_equal(niti_resume(&result, run, &on_cpu), NITI_OK);
  assert_int_equal(result.epochs, 5);
  assert_int_equal(result.steps, 5 * TRAIN_IMAGES / BATCH);
  niti_recipe_close(recipe);
  niti_recipe_close(shorter);
  free(two_epochs);
  free(data);
  free(run);
  remove_temp(folder);
}

/* ---- one process a test ---- */

static const struct {
  const char *name;
  void (*run)(void);
} tests[] = {{"the_failure_stays", the_failure_stays},
             {"a_run_ends_with_its_checkpoint_intact", a_run_ends_with_its_checkpoint_intact}};

static size_t chosen;

static void run_chosen(void **unused) {
  (void)unused;
  tests[chosen].run();
}

/* NULL, or why there is no CUDA device; asked in a process of its own. */
static const char *why_not(void) {
  static char why[512];
  const NitiBackendOptions options = {.name = "cuda"};
  NitiBackend *b = NULL;
  const NitiStatus status = niti_backend_open(&b, &options);
  snprintf(why, sizeof why, "%s", niti_error());
  niti_backend_close(b);
  return status == NITI_OK ? NULL : why;
}

static void test_in_processes(void **state) {
  const char *program = *state, *why = why_not();
  if (why && getenv("NITI_TEST_GPU")) fail_msg("%s", why);
  if (why) {
    print_message("skipped: %s\n", why);
    skip();
  }
  for (size_t i = 0; i < sizeof tests / sizeof *tests; ++i) {
    char command[1200];
    snprintf(command, sizeof command, "'%s' %s", program, tests[i].name);
    const int status = system(command);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("%s failed", tests[i].name);
  }
}

int main(int argc, char **argv) {
  for (chosen = 0; argc > 1 && chosen < sizeof tests / sizeof *tests; ++chosen) {
    if (strcmp(argv[1], tests[chosen].name) != 0) continue;
    const struct CMUnitTest one[] = {{tests[chosen].name, run_chosen, NULL, NULL, NULL}};
    return cmocka_run_group_tests(one, NULL, NULL);
  }
  const struct CMUnitTest all[] = {cmocka_unit_test_prestate(test_in_processes, argv[0])};
  return cmocka_run_group_tests(all, NULL, NULL);
}
