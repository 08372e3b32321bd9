/* Runs that go on from a checkpoint of a stranger, with hash and checksum right: resumed for some steps, used as initial weights,
 * and opened for inference. Input: a byte that says which, then the checkpoint. The corpus begins with one that this target's
 * own settings made: `fuzz_resume` with NITI_FUZZ_SEED=FILE writes it, with NITI_FUZZ_SET=KEY=VALUE of another recipe. */
#include "forge.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "train/recipe.h"

enum { SIDE = 4, TRAIN = 12, TEST = 6, STEPS_MAX = 5, ELEMENTS_MAX = 1 << 18 };

static const char recipe[] =
    "name: fuzz\nmodel:\n  name: small\n  input: [4, 4, 1]\n  classes: 3\n  layers:\n"
    "    - conv: {out: 4, kernel: 3, padding: 1}\n    - norm\n    - relu\n    - maxpool: {kernel: 2}\n    - flatten\n"
    "    - linear: {out: classes}\n"
    "data: {kind: idx, mean: [0.5], std: [0.25], pad: 1, crop: random, flip: true, validation: 25%}\nbatch: 4\nepochs: 3\n"
    "loss: softmax\nupdate: {kind: sgd, lr: 0.05, momentum: 0.9}\n";

static void put_split(const char *images, const char *labels, uint8_t count) {
  uint8_t bytes[16 + TRAIN * SIDE * SIDE] = {0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, SIDE, 0, 0, 0, SIDE},
                                    label[8 + TRAIN] = {0, 0, 8, 1, 0, 0, 0, count};
  for (int i = 0; i < count * SIDE * SIDE; ++i) bytes[16 + i] = (uint8_t)(i * 37 + i / 16 * 101);
  for (int i = 0; i < count; ++i) label[8 + i] = (uint8_t)(i % 3);
  (void)fuzz_put(images, bytes, 16 + (size_t)count * SIDE * SIDE);
  (void)fuzz_put(labels, label, 8 + (size_t)count);
}

static bool stop_soon(void *context, const NitiProgress *progress) {
  int *steps = context;
  if (progress->kind == NITI_PROGRESS_BATCH) ++*steps;
  return *steps < STEPS_MAX;
}

static NitiTrainOptions options(int *steps) {
  return (NitiTrainOptions){.device = {.backend = "cpu", .isa = "ref", .threads = 1},
                            .data = fuzz_at("data"),
                            .measure_every = -1,
                            .progress = stop_soon,
                            .context = steps};
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  FUZZ_CHECK(niti_system.mkdir(fuzz_at("data"), 0777) == 0);
  put_split("data/train-images-idx3-ubyte", "data/train-labels-idx1-ubyte", TRAIN);
  put_split("data/t10k-images-idx3-ubyte", "data/t10k-labels-idx1-ubyte", TEST);
  const char *seed = getenv("NITI_FUZZ_SEED");
  if (!seed) return 0;
  int steps = 0;
  const NitiTrainOptions o = options(&steps);
  const char *set = getenv("NITI_FUZZ_SET");
  NitiRecipe *r;
  NitiTrainResult result;
  FUZZ_CHECK(niti_recipe_parse(&r, recipe, "seed", &set, set != NULL, NULL) == NITI_OK);
  FUZZ_CHECK(niti_train(&result, r, fuzz_at("seed"), &o) == NITI_INTERRUPTED);
  niti_recipe_close(r);
  FUZZ_CHECK(rename(fuzz_at("seed/last.safetensors"), seed) == 0);
  return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
  if (size < 2 || seed % 64 == 0) return LLVMFuzzerMutate(data, size, room);
  if (seed % 16 == 1) data[0] = (uint8_t)(seed >> 8);
  return 1 + forge_mutate(data + 1, size - 1, room - 1, seed);
}

/* Whether the run is so small that memory and time are not the model's own. */
static bool is_small(const NitiRecipe *r) {
  const NitiLowerOptions how = niti_recipe_lowering(r, r->batch, true);
  NitiProgram *program;
  size_t elements = 0;
  if (niti_lower(&program, r->model, &how) != NITI_OK) return true; /* refused soon */
  for (int32_t i = 0; i < program->tensor_count && elements < ELEMENTS_MAX; ++i)
    elements += niti_tensor_count(&program->tensors[i], r->batch);
  niti_program_close(program);
  return elements < ELEMENTS_MAX;
}

static bool is_small_recipe(const char *recipe_text, const char *model_text) {
  NitiRecipe *r;
  bool small = true;
  if (recipe_text && niti_recipe_parse(&r, recipe_text, "small", NULL, 0, model_text) == NITI_OK) {
    small = is_small(r);
    niti_recipe_close(r);
  }
  return small;
}

static const char *value_of(const NitiSafetensors *content, const char *key) {
  for (size_t i = 0; i < content->metadata_count; ++i)
    if (strcmp(content->metadata[i].key, key) == 0) return content->metadata[i].value;
  return NULL;
}

/* The last small ones are known again, since most mutations change other parts. */
static bool are_small_texts(const char *recipe_text, const char *model_text) {
  static char *known[2];
  if (known[0] && known[1] && strcmp(known[0], recipe_text) == 0 && strcmp(known[1], model_text) == 0) return true;
  if (!is_small_recipe(recipe_text, model_text)) return false;
  for (int i = 0; i < 2; ++i) {
    free(known[i]);
    known[i] = strdup(i ? model_text : recipe_text);
  }
  return true;
}

static bool is_small_run(const char *path) {
  NitiCheckpoint *checkpoint;
  NitiSafetensors content;
  if (niti_safetensors_read(&content, path) != NITI_OK) return true;
  const char *recipe_text = value_of(&content, "recipe"), *model_text = value_of(&content, "model");
  const bool plain = recipe_text && model_text;
  bool small = plain && are_small_texts(recipe_text, model_text);
  niti_safetensors_clear(&content);
  if (plain || niti_checkpoint_load(&checkpoint, path) != NITI_OK) return small || !plain;
  small = is_small_recipe(niti_checkpoint_get(checkpoint, "recipe"), niti_checkpoint_get(checkpoint, "model")); /* escaped */
  niti_checkpoint_close(checkpoint);
  return small;
}

static void resume(int32_t epochs) {
  int steps = 0;
  NitiTrainOptions o = options(&steps);
  NitiTrainResult result;
  o.epochs = epochs;
  const NitiStatus status = fuzz_status(niti_resume(&result, fuzz_at("run"), &o));
  if (status != NITI_OK && status != NITI_INTERRUPTED) return;
  NitiCheckpoint *last;
  FUZZ_CHECK(niti_checkpoint_load(&last, fuzz_at("run/last.safetensors")) == NITI_OK);
  niti_checkpoint_close(last);
}

static void train_from(const char *path) {
  int steps = 0;
  NitiTrainOptions o = options(&steps);
  NitiTrainResult result;
  NitiRecipe *r;
  o.init = path;
  FUZZ_CHECK(niti_recipe_parse(&r, recipe, "seed", NULL, 0, NULL) == NITI_OK);
  (void)fuzz_status(niti_train(&result, r, fuzz_at("run/new"), &o));
  niti_recipe_close(r);
}

static void infer(const char *path) {
  const NitiDevice device = {.backend = "cpu", .isa = "ref", .threads = 1};
  NitiModel *model;
  NitiScore score;
  char hash[65];
  if (fuzz_status(niti_model_open(&model, path, &device)) != NITI_OK) return;
  (void)fuzz_status(niti_model_evaluate(model, &score, fuzz_at("data")));
  (void)fuzz_status(niti_model_hash(model, hash));
  for (int32_t i = 0; i < 4; ++i) FUZZ_CHECK(niti_model_class_name(model, i));
  niti_model_close(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  const unsigned which = *data++ % 8;
  FUZZ_CHECK(niti_system.mkdir(fuzz_at("run"), 0777) == 0);
  const char *path = fuzz_put("run/last.safetensors", data, size - 1);
  if (is_small_run(path)) {
    if (which < 4)
      resume(0);
    else if (which == 4)
      resume(5);
    else if (which == 5)
      train_from(path);
    else
      infer(path);
  }
  FUZZ_CHECK(fuzz_remove(fuzz_at("run")));
  return 0;
}
