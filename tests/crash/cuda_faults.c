/* Every call of a small run to the CUDA runtime fails in turn, and every allocation of the device's memory: the run ends with a
 * status and a message, or with the right hash where it can do without the call; its last checkpoint loads, and the run goes on
 * from there. The table here takes the place of src/backend/cuda/runtime.c. NITI_TEST_SLOW=1: every call, not CASES of each kind;
 * NITI_TEST_SHARE=K/N: those of one process of N.
 * With NITI_PRETENDED the device is a pretended one, whose results are no results; no run may end otherwise than with a status.
 */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include "backend/kernels.h"
#ifdef NITI_PRETENDED
#include "cuda_pretended.h"
#define REAL(name) pretended_##name
enum { PRETENDED = 1 };
#else
#include "backend/cuda/runtime.h"
#define REAL(name) name
enum { PRETENDED = 0 };
#endif
#include "io/checkpoint.h"
#include "share.h"
#include "train/recipe.h"

/* ---- the table ---- */

typedef enum Fault { FAULT_NONE, FAULT_ONCE, FAULT_FROM_THEN_ON, FAULT_MEMORY, FAULT_MEMORY_FROM_THEN_ON } Fault;

static Fault fault;
static long fault_at, call_count, allocation_count;
static char met[64]; /* the call that the fault hit first */

/* Calls that are made all the same: they end something, or what follows depends on them. */
static bool is_made(const char *name) {
  static const char *const made[] = {"cudaFree",
                                     "cudaFreeHost",
                                     "cudaStreamDestroy",
                                     "cudaEventDestroy",
                                     "cudaGraphDestroy",
                                     "cudaGraphExecDestroy",
                                     "cudaStreamEndCapture",
                                     "cudaGetLastError",
                                     "cudaIpcCloseMemHandle"};
  for (size_t i = 0; i < sizeof made / sizeof *made; ++i) {
    if (strcmp(made[i], name) == 0) return true;
  }
  return false;
}

/* The error of this call; cudaSuccess: it is not to fail. */
static cudaError_t meet(const char *name) {
  const bool allocates = strcmp(name, "cudaMalloc") == 0 || strcmp(name, "cudaMallocHost") == 0;
  const bool memory = fault == FAULT_MEMORY || fault == FAULT_MEMORY_FROM_THEN_ON;
  const long number = memory ? allocation_count + allocates : call_count + 1;
  ++call_count;
  allocation_count += allocates;
  if (fault == FAULT_NONE || (memory && !allocates)) return cudaSuccess;
  const bool once = fault == FAULT_ONCE || fault == FAULT_MEMORY;
  if (once ? number != fault_at : number < fault_at) return cudaSuccess;
  if (!met[0]) snprintf(met, sizeof met, "%s", name);
  return memory ? cudaErrorMemoryAllocation : cudaErrorLaunchFailure;
}

#define WRAPPED(result, name, parameters, arguments)           \
  static result call_##name parameters {                       \
    const cudaError_t error = meet(#name);                     \
    if (error != cudaSuccess && !is_made(#name)) return error; \
    const cudaError_t real = REAL(name) arguments;             \
    return error != cudaSuccess ? error : real;                \
  }
NITI_CUDA_CALLS(WRAPPED)

#define ENTRY(result, name, parameters, arguments) .name = call_##name,
const NitiCudaRuntime niti_cuda_runtime = {NITI_CUDA_CALLS(ENTRY)};

/* ---- the run ---- */

enum { TRAIN_IMAGES = 40, BATCH = 16, CASES = 60 };
static const char recipe_text[] =
    "name: toy\nmodel: {name: toy, input: [8, 8, 1], classes: 4, layers: [{conv: {out: 8, kernel: 3, padding: 1}}, norm, relu, "
    "{maxpool: {kernel: 2}}, flatten, {linear: {out: classes}}]}\nbatch: 16\nepochs: 2\nloss: softmax\n"
    "update: {kind: sgd, lr: 0.05, momentum: 0.9}\n";

static char *folder, *data;
static NitiRecipe *recipe;
static char expected[65];

static uint8_t pixel(size_t i) { return (uint8_t)(niti_random(1, NITI_DRAW_INIT, 0, 0, i) >> 24); }
static uint8_t label(size_t i) { return (uint8_t)(i % 4); }

static NitiStatus train(NitiTrainResult *result, const char *run, const char *backend) {
  const NitiTrainOptions options = {.device = {.backend = backend}, .data = data};
  return niti_train(result, recipe, run, &options);
}

static void begin(Fault kind, long at) {
  fault = kind;
  fault_at = at;
  call_count = allocation_count = 0;
  met[0] = 0;
}

/* Returns whether the run failed. */
static bool run_with(Fault kind, long at) {
  NitiTrainResult result;
  char run[600], last[640], hash[65];
  snprintf(run, sizeof run, "%s/run", folder);
  snprintf(last, sizeof last, "%s/last.safetensors", run);
  begin(kind, at);
  const NitiStatus status = train(&result, run, "cuda");
  begin(FAULT_NONE, 0);
  if (status == NITI_OK) {
    if (!PRETENDED && strcmp(result.hash, expected) != 0) fail_msg("fault %d at %ld (%s): a wrong hash", (int)kind, at, met);
  } else {
    const bool known = status == NITI_ERROR_DEVICE || status == NITI_ERROR_MEMORY || status == NITI_ERROR_UNSUPPORTED;
    if (!known || !niti_error()[0] || strchr(niti_error(), '\n'))
      fail_msg("fault %d at %ld (%s): status %d: %s", (int)kind, at, met, (int)status, niti_error());
  }
  if (!PRETENDED && status != NITI_OK && access(last, F_OK) == 0) {
    const NitiTrainOptions on_cpu = {.device = {.backend = "cpu", .threads = 1}, .data = data};
    assert_int_equal(niti_checkpoint_file_hash(last, hash), NITI_OK);
    if (niti_resume(&result, run, &on_cpu) != NITI_OK) fail_msg("fault %d at %ld: resume: %s", (int)kind, at, niti_error());
    assert_string_equal(result.hash, expected);
  }
  (void)nftw(run, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
  return status != NITI_OK;
}

/* Where there are fewer cases than calls, half of them are the first calls, which open the device. */
static void fail_in_turn(Fault kind, long count, const char *what) {
  const long cases = getenv("NITI_TEST_SLOW") || count < CASES ? count : CASES, first = cases / 2;
  long failed = 0, done = 0;
  for (long i = 0; i < cases; ++i) {
    if (is_left_out()) continue;
    failed += run_with(kind, 1 + (i < first ? i : first + (i - first) * (count - first) / (cases - first)));
    ++done;
  }
  print_message("%s: %ld of %ld, the run failed %ld times\n", what, done, count, failed);
}

static const char *why_not(void) {
  const NitiBackendOptions options = {.name = "cuda"};
  NitiBackend *b = NULL;
  const NitiStatus status = niti_backend_open(&b, &options);
  niti_backend_close(b);
  return status == NITI_OK ? NULL : niti_error();
}

static void test_faults(void **state) {
  const uint32_t images[3] = {TRAIN_IMAGES, 8, 8};
  char path[600];
  NitiTrainResult result;
  const char *why = why_not();
  (void)state;
  if (why && getenv("NITI_TEST_GPU")) fail_msg("%s", why);
  if (why) {
    print_message("skipped: %s\n", why);
    skip();
  }
  folder = make_temp();
  data = strdup(path_of("%s/data", folder));
  put_dir(data);
  put_idx(path_of("%s/train-images-idx3-ubyte", data), 3, images, pixel, false);
  put_idx(path_of("%s/train-labels-idx1-ubyte", data), 1, images, label, false);
  put_idx(path_of("%s/t10k-images-idx3-ubyte", data), 3, images, pixel, false);
  put_idx(path_of("%s/t10k-labels-idx1-ubyte", data), 1, images, label, false);
  put_file(path_of("%s/recipe.yaml", folder), recipe_text, sizeof recipe_text - 1);
  if (niti_recipe_load(&recipe, path_of("%s/recipe.yaml", folder), NULL, 0) != NITI_OK) fail_msg("%s", niti_error());
  snprintf(path, sizeof path, "%s/plain", folder);
  assert_int_equal(train(&result, path, "cpu"), NITI_OK);
  snprintf(expected, sizeof expected, "%s", result.hash);
  assert_false(run_with(FAULT_NONE, 0)); /* kernels are loaded */
  snprintf(path, sizeof path, "%s/counted", folder);
  begin(FAULT_NONE, 0);
  if (train(&result, path, "cuda") != NITI_OK) fail_msg("%s", niti_error());
  const long calls = call_count, allocations = allocation_count;
  fail_in_turn(FAULT_ONCE, calls, "one call fails");
  fail_in_turn(FAULT_FROM_THEN_ON, calls, "all calls fail from one on");
  fail_in_turn(FAULT_MEMORY, allocations, "one allocation fails");
  fail_in_turn(FAULT_MEMORY_FROM_THEN_ON, allocations, "all allocations fail from one on");
  niti_recipe_close(recipe);
  free(data);
  remove_temp(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_faults)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
