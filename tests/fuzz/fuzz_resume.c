/* Runs that go on from a checkpoint of a stranger, with hash and checksum right: resumed for some steps, used as initial weights,
 * and opened for inference. Input: a byte that says which, then the checkpoint. The corpus begins with one that this target's
 * own settings made: `fuzz_resume` with NITI_FUZZ_SEED=FILE writes it, with NITI_FUZZ_SET=KEY=VALUE;... of another recipe. */
#define _GNU_SOURCE /* memmem */
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
  char *list = getenv("NITI_FUZZ_SET");
  const char *sets[8];
  int count = 0;
  NitiRecipe *r;
  NitiTrainResult result;
  for (char *set = list ? strtok(list, ";") : NULL; set && count < 8; set = strtok(NULL, ";")) sets[count++] = set;
  FUZZ_CHECK(niti_recipe_parse(&r, recipe, "seed", sets, count, NULL) == NITI_OK);
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

/* The texts of a run, as they stand in the header: from the key to the last quotation mark. */
typedef struct Texts {
  const uint8_t *at[2]; /* the recipe, the model */
  size_t length[2];
} Texts;

/* False: a text is not there, or in more than one place. A file in which a key stands twice is refused, so texts that were small
 * in another file are small in this one, or it is refused. */
static bool find_texts(Texts *out, const uint8_t *data, size_t size) {
  static const char *const keys[] = {"\"recipe\":\"", "\"model\":\""};
  uint64_t stated = 0;
  for (size_t i = 0; i < 8 && size >= 8; ++i) stated |= (uint64_t)data[i] << (8 * i);
  const uint8_t *end = data + (size >= 8 && stated < size - 8 ? (size_t)stated + 8 : size);
  for (int i = 0; i < 2; ++i) {
    const size_t length = strlen(keys[i]);
    const uint8_t *at = memmem(data, (size_t)(end - data), keys[i], length);
    if (!at || memmem(at + 1, (size_t)(end - at - 1), keys[i], length)) return false;
    const uint8_t *to = at + length;
    while (to < end && *to != '"') to += *to == '\\' ? 2 : 1;
    if (to >= end) return false;
    out->at[i] = at;
    out->length[i] = (size_t)(to - at);
  }
  return true;
}

/* The last small ones: most mutations change other parts. */
static uint8_t *known[2];
static size_t known_length[2];

static bool are_known(const Texts *texts) {
  for (int i = 0; i < 2; ++i)
    if (known_length[i] != texts->length[i] || memcmp(known[i], texts->at[i], texts->length[i]) != 0) return false;
  return true;
}

static void know(const Texts *texts) {
  for (int i = 0; i < 2; ++i) {
    free(known[i]);
    known[i] = malloc(texts->length[i]);
    FUZZ_CHECK(known[i]);
    memcpy(known[i], texts->at[i], texts->length[i]);
    known_length[i] = texts->length[i];
  }
}

static bool is_small_run(const char *path, const uint8_t *data, size_t size) {
  NitiCheckpoint *checkpoint;
  NitiSafetensors content;
  Texts texts;
  const bool found = find_texts(&texts, data, size);
  if (found && are_known(&texts)) return true;
  if (niti_safetensors_read(&content, path) != NITI_OK) return true;
  const char *recipe_text = value_of(&content, "recipe"), *model_text = value_of(&content, "model");
  const bool plain = recipe_text && model_text;
  bool small = plain && is_small_recipe(recipe_text, model_text);
  niti_safetensors_clear(&content);
  if (found && small) know(&texts);
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
  if (is_small_run(path, data, size - 1)) {
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
