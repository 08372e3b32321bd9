/* Folds the norms of a checkpoint. */
#include "train/fold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sgd.h"
#include "model/fold.h"
#include "platform/path.h"
#include "platform/system.h"
#include "train/snapshot.h"

typedef struct Folding {
  const NitiCheckpoint *from; /* checked: it fits the model */
  NitiCheckpoint *to;
  const NitiDescription *model;
  const char *source; /* for messages */
  NitiFolded *result;
} Folding;

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for a folded network"); }

static const NitiCheckpointTensor *find(const Folding *f, const char *layer, const char *what) {
  char name[NITI_TENSOR_NAME_MAX];
  (void)snprintf(name, sizeof name, "%s.%s", layer, what);
  return niti_checkpoint_find(f->from, name);
}

static size_t count_of(const NitiCheckpointTensor *t) {
  size_t count = 1;
  for (int32_t d = 0; d < t->ndim; ++d) count *= t->dims[d];
  return count;
}

/* ---- a layer with a norm after it ---- */

/* The weight in 16 bits as training left it, which a file has in 32; NULL: the file has none. */
static NitiStatus master_of(const NitiCheckpointTensor **out, const Folding *f, const char *layer,
                            const NitiCheckpointTensor *weight) {
  const NitiCheckpointTensor *m = *out = find(f, layer, "master");
  if (!m) return NITI_OK;
  bool same = m->dtype == NITI_I32 && m->ndim >= weight->ndim && count_of(m) == count_of(weight) &&
              m->exponent == weight->exponent - NITI_SGD_OPERAND_SHIFT;
  for (size_t i = 0; same && i < count_of(m); ++i) {
    const int32_t value = ((const int32_t *)m->data)[i];
    same = value >= -NITI_SGD_WEIGHT_MAX && value <= NITI_SGD_WEIGHT_MAX &&
           niti_sgd_operand((int16_t)value) == ((const int8_t *)weight->data)[i];
  }
  if (same) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s' is not what '%s' rounds (expected its 16 bits)", f->source, m->name,
                   weight->name);
}

/* The weight in 16 bits: its master, or 256 times its int8. */
static NitiStatus widen(int16_t **out, int32_t *exponent, const NitiCheckpointTensor *weight,
                        const NitiCheckpointTensor *master) {
  const size_t count = count_of(weight);
  const int finer = 1 << NITI_SGD_OPERAND_SHIFT;
  int16_t *values = *out = malloc(count * sizeof *values);
  if (!values) return out_of_memory();
  for (size_t i = 0; i < count; ++i)
    values[i] = (int16_t)(master ? ((const int32_t *)master->data)[i] : finer * ((const int8_t *)weight->data)[i]);
  *exponent = master ? master->exponent : weight->exponent - NITI_SGD_OPERAND_SHIFT;
  return NITI_OK;
}

static NitiStatus add(NitiCheckpoint *to, const char *layer, const char *what, NitiFileDtype dtype, int ndim,
                      const uint32_t *dims, int32_t exponent, void *data) {
  char name[NITI_TENSOR_NAME_MAX];
  (void)snprintf(name, sizeof name, "%s.%s", layer, what);
  const NitiStatus status = niti_checkpoint_add(to, name, dtype, ndim, dims, exponent, data);
  if (status == NITI_OK)
    to->tensors[to->tensor_count - 1].owned = true;
  else
    free(data);
  return status;
}

static NitiStatus add_folded(const Folding *f, const char *layer, const NitiCheckpointTensor *weight,
                             const NitiFoldLayer *parts) {
  int8_t *folded = malloc(count_of(weight));
  int16_t *bias = malloc((size_t)parts->channels * sizeof *bias);
  int32_t exponent = 0, bias_exponent = 0;
  if (!folded || !bias) {
    free(folded);
    free(bias);
    return out_of_memory();
  }
  niti_fold_norm(folded, &exponent, bias, &bias_exponent, parts);
  const NitiStatus status = add(f->to, layer, "weight", NITI_I8, weight->ndim, weight->dims, exponent, folded);
  if (status == NITI_OK) return add(f->to, layer, "bias", NITI_I16, 1, weight->dims, bias_exponent, bias);
  free(bias);
  return status;
}

static NitiStatus fold_layer(const Folding *f, const char *layer, const char *norm) {
  const NitiCheckpointTensor *weight = find(f, layer, "weight"), *bias = find(f, layer, "bias"), *master,
                             *norm_weight = find(f, norm, "weight"), *norm_bias = find(f, norm, "bias");
  NitiFoldLayer parts = {.bias = bias ? bias->data : NULL,
                         .norm_weight = norm_weight->data,
                         .norm_bias = norm_bias->data,
                         .running = find(f, norm, "running")->data,
                         .bias_exponent = bias ? bias->exponent : 0,
                         .norm_weight_exponent = norm_weight->exponent,
                         .norm_bias_exponent = norm_bias->exponent,
                         .channels = (int32_t)weight->dims[0],
                         .size = (int64_t)(count_of(weight) / weight->dims[0])};
  int16_t *values = NULL;
  NITI_TRY(master_of(&master, f, layer, weight));
  NITI_TRY(widen(&values, &parts.weight_exponent, weight, master));
  parts.weight = values;
  const NitiStatus status = add_folded(f, layer, weight, &parts);
  free(values);
  ++f->result->norms;
  f->result->masters += master != NULL;
  return status;
}

/* ---- the rest ---- */

static NitiStatus copy(const Folding *f, const char *layer, const char *what) {
  const NitiCheckpointTensor *t = find(f, layer, what);
  if (!t) return NITI_OK;
  return niti_checkpoint_add(f->to, t->name, t->dtype, t->ndim, t->dims, t->exponent, t->data); /* borrowed */
}

static NitiStatus fold_weights(const Folding *f) {
  for (int32_t i = 1; i <= f->model->node_count; ++i) {
    const NitiLayerSpec *spec = &f->model->nodes[i - 1].spec;
    const int32_t norm = niti_description_norm_after(f->model, i);
    if (!spec->type->weight_shape || strcmp(spec->type->name, "norm") == 0) continue;
    if (norm > 0) NITI_TRY(fold_layer(f, spec->name, f->model->nodes[norm - 1].spec.name));
    if (norm == 0) NITI_TRY(copy(f, spec->name, "weight"));
    if (norm == 0) NITI_TRY(copy(f, spec->name, "bias"));
  }
  return NITI_OK;
}

static bool ends_with(const char *text, const char *end) {
  const size_t length = strlen(text), most = strlen(end);
  return length >= most && strcmp(text + length - most, end) == 0;
}

/* Whether it says how the network scored, which the folded one does not, or that its run is tested and recorded. */
static bool is_of_scores(const char *key) {
  static const char *const ends[] = {"_loss_sum", "_correct", "_images"};
  static const char *const keys[] = {"complete", "best_epoch", "best_on_validation", "average_samples"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i) {
    if (strcmp(key, keys[i]) == 0) return true;
  }
  for (size_t i = 0; i < sizeof ends / sizeof *ends; ++i) {
    if (ends_with(key, ends[i])) return !ends_with(key, "_set_images"); /* the data's */
  }
  return false;
}

/* What is known of the run and its data, but for scores, the model and the recipe. */
static NitiStatus copy_values(const Folding *f, const NitiRecipe *recipe) {
  for (size_t i = 0; i < f->from->value_count; ++i) {
    const NitiPair *value = &f->from->values[i];
    if (!is_of_scores(value->key)) NITI_TRY(niti_checkpoint_set(f->to, value->key, value->value));
  }
  NITI_TRY(niti_checkpoint_set(f->to, "recipe", recipe->text));
  return niti_checkpoint_set(f->to, "model", recipe->model->text);
}

/* Whether the checkpoint has the recipe's tensors, with nothing in them that training cannot have left, and no sum of the network
 * can overflow. */
static NitiStatus check(const NitiCheckpoint *checkpoint, const NitiRecipe *recipe, const char *source) {
  const NitiBackendOptions options = {.name = "cpu", .threads = 1};
  const NitiLowerOptions smallest = niti_recipe_lowering(recipe, 1, false);
  NitiBackend *backend;
  NitiNetwork *net = NULL;
  NITI_TRY(niti_backend_open(&backend, &options));
  NitiStatus status = niti_network_open(&net, recipe->model, backend, &smallest);
  if (status == NITI_OK) status = niti_snapshot_restore(net, checkpoint, source);
  niti_network_close(net);
  niti_backend_close(backend);
  return status;
}

static NitiStatus fold_all(const Folding *f, const NitiRecipe *recipe, const char *out) {
  NITI_TRY(copy_values(f, recipe));
  NITI_TRY(fold_weights(f));
  NITI_TRY(check(f->to, recipe, f->source));
  NITI_TRY(niti_checkpoint_hash(f->to, f->result->hash));
  return niti_checkpoint_save(f->to, out);
}

/* The recipe with the folded model. Frozen layers are no matter any more, and may be gone. */
static NitiStatus fold_recipe(NitiRecipe **out, const NitiRecipe *recipe) {
  const char *const sets[] = {"freeze=[]"};
  NitiDescription *folded;
  *out = NULL;
  NITI_TRY(niti_description_fold(&folded, recipe->model));
  const NitiStatus status = niti_recipe_parse(out, recipe->text, recipe->source, sets, 1, folded->text);
  niti_description_close(folded);
  return status;
}

static NitiStatus fold_checkpoint(NitiFolded *result, const NitiCheckpoint *from, const NitiRecipe *recipe, const char *source,
                                  const char *out) {
  Folding f = {.from = from, .model = recipe->model, .source = source, .result = result};
  NitiRecipe *folded;
  NITI_TRY(fold_recipe(&folded, recipe));
  (void)snprintf(result->model, sizeof result->model, "%s", folded->model->name);
  NitiStatus status = check(from, recipe, source);
  if (status == NITI_OK) status = niti_checkpoint_open(&f.to);
  if (status == NITI_OK) status = fold_all(&f, folded, out);
  niti_checkpoint_close(f.to);
  niti_recipe_close(folded);
  return status;
}

/* ---- the file to write ---- */

/* The name of a checkpoint that a run writes. */
static bool is_of_run(const char *name) {
  static const char *const names[] = {"last", "previous", "best", "averaged"}, suffix[] = ".safetensors";
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    const size_t length = strlen(names[i]);
    if (strncmp(name, names[i], length) == 0 && strcmp(name + length, suffix) == 0) return true;
  }
  return strncmp(name, "epoch-", 6) == 0;
}

/* Checkpoints of a run are the run's alone, and a network is not written over itself. */
static NitiStatus check_out(const NitiLocation *network, const char *out) {
  const char *slash = strrchr(out, '/'), *name = slash ? slash + 1 : out;
  char *folder = slash ? strndup(out, (size_t)(slash - out) + 1) : strdup("./");
  if (!folder) return out_of_memory();
  bool run = false, same;
  NitiStatus status = niti_path_has_file(&run, folder, "recipe.yaml");
  if (run) status = niti_path_has_file(&run, folder, "last.safetensors");
  free(folder);
  NITI_TRY(status);
  NITI_TRY(niti_path_same(&same, network->path, out));
  if (same) return niti_fail(NITI_ERROR_ARGUMENT, "%s: this is the network to fold (expected another file)", out);
  if (run && !is_of_run(name)) NITI_TRY(niti_path_is_there(&run, out));
  if (run) return niti_fail(NITI_ERROR_ARGUMENT, "%s: the file belongs to the run in that folder (expected another name)", out);
  return NITI_OK;
}

NitiStatus niti_fold(NitiFolded *result, const NitiLocation *network, const char *out) {
  NitiCheckpoint *checkpoint = NULL;
  NitiRecipe *recipe = NULL;
  *result = (NitiFolded){.norms = 0};
  NITI_TRY(check_out(network, out));
  NitiStatus status = niti_location_weights(&checkpoint, network);
  if (status == NITI_OK) status = niti_checkpoint_recipe(&recipe, checkpoint, network->path);
  if (status == NITI_OK) status = fold_checkpoint(result, checkpoint, recipe, network->path, out);
  niti_recipe_close(recipe);
  niti_checkpoint_close(checkpoint);
  return status;
}
