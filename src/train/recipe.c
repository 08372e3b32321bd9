/* Loads recipes: finds the text, applies edits and parses each key. */
#include "train/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clip.h"
#include "base/sgd.h"
#include "base/update.h"
#include "config/builtin.h"
#include "config/closest.h"
#include "config/yaml.h"
#include "model/description_yaml.h"
#include "platform/file.h"
#include "platform/path.h"
#include "platform/system.h"
#include "train/augmentation.h"
#include "train/recipe_text.h"

/* Defaults of keys that a recipe omits (docs/recipe-reference.md). */
enum {
  BATCH_DEFAULT = 64,
  EPOCHS_DEFAULT = 10,
  SEED_DEFAULT = 1,
  MU_DEFAULT = 4 * NITI_MU_UNITS,
  RATE_DEFAULT = 100000000,
  MOMENTUM_DEFAULT = 900000000
};
#define STEPS_DEFAULT INT64_C(4000000000) /* of int8 weights: the rate of update `niti16` */
enum {
  WARM_UP_DEFAULT = 50000, /* of it: millionths */
  BATCH_MAX = 65536,
  EPOCHS_MAX = 1000000,
  PAD_MAX = 1024,
  RESIZE_MAX = 16384,
  CLIP_MAX = 7,
  MEAN_MAX = 1000000, /* millionths of full scale */
  STD_MAX = 8000000,
};

/* The context of reading a recipe. */
typedef struct Source {
  const char *name;       /* for messages */
  const char *path;       /* the recipe's file; NULL: not from a file */
  const char *model_text; /* the description to use; NULL: the recipe's */
} Source;

const char *const *niti_builtin_recipes(void) { return niti_builtin_recipe_names; }

/* ---- The model ---- */

/* `model: WORD` -> `model: {name: WORD}` or `{file: WORD}`, so that edits such as model.classes=100 find a mapping. */
static void normalise_model(NitiYamlDocument *document) {
  NitiYaml *root = niti_yaml_root(document), *word = niti_yaml_get(root, "model");
  if (!word || word->kind != NITI_YAML_SCALAR || niti_yaml_is_null(word)) return;
  NitiYaml *mapping = niti_yaml_mapping(document);
  if (!mapping) return; /* the document remembers */
  mapping->origin = word->origin;
  mapping->line = word->line;
  mapping->column = word->column;
  niti_yaml_put(document, mapping, niti_yaml_is_path(word->text) ? "file" : "name", word);
  niti_yaml_put(document, root, "model", mapping);
}

/* If the description is given by the caller, only its overrides can be set. */
static NitiStatus check_model_set(const char *set) {
  static const char *const allowed[] = {"model.classes", "model.input"};
  const size_t length = strcspn(set, ".=");
  if (length != 5 || strncmp(set, "model", 5) != 0) return NITI_OK;
  for (size_t i = 0; i < 2; ++i) {
    const size_t n = strlen(allowed[i]);
    if (strncmp(set, allowed[i], n) == 0 && (set[n] == '=' || set[n] == '.')) return NITI_OK;
  }
  return niti_fail(NITI_ERROR_ARGUMENT, "--set %.160s: the model is given (expected model.classes or model.input)", set);
}

static NitiYaml *layers_of(const NitiYaml *model) {
  return model && model->kind == NITI_YAML_MAPPING ? niti_yaml_get(model, "layers") : NULL;
}

/* A position is one of epoch, step and at: an edit of `update.warmup.at` replaces one in another unit. */
static void clear_position(NitiYamlDocument *document, const char *set) {
  static const char *const edits[] = {"update.warmup.epoch=", "update.warmup.step=", "update.warmup.at="};
  NitiYaml *update = niti_yaml_get(niti_yaml_root(document), "update");
  for (size_t i = 0; i < sizeof edits / sizeof *edits; ++i) {
    if (strncmp(set, edits[i], strlen(edits[i])) != 0 || !update || update->kind != NITI_YAML_MAPPING) continue;
    const NitiYaml *warmup = niti_yaml_get(update, "warmup");
    if (warmup && warmup->kind == NITI_YAML_MAPPING && warmup->count == 1)
      niti_yaml_put(document, update, "warmup", niti_yaml_mapping(document));
  }
}

static NitiStatus apply_sets(NitiYamlDocument *document, const char *const *sets, int count, bool model_given) {
  const NitiYaml *root = niti_yaml_root(document);
  normalise_model(document);
  for (int i = 0; i < count; ++i) {
    const NitiYaml *before = niti_yaml_get(root, "model");
    const bool described = layers_of(before) != NULL;
    if (model_given) NITI_TRY(check_model_set(sets[i]));
    clear_position(document, sets[i]);
    NITI_TRY(niti_yaml_set(document, sets[i]));
    const NitiYaml *after = niti_yaml_get(root, "model");
    if (after == before && !described && layers_of(after)) {
      return niti_yaml_fail(layers_of(after), "the recipe's model is described elsewhere and has no 'layers' to set");
    }
    normalise_model(document);
  }
  return NITI_OK;
}

/* A pipe that a stranger's recipe names could be waited for without an end; one that the user names is meant. */
static NitiStatus check_regular(const char *path) {
  int fd;
  uint64_t size;
  NITI_TRY(niti_file_open_read(&fd, &size, path));
  (void)niti_system.close(fd);
  return NITI_OK;
}

/* A file named in a recipe is relative to the recipe's folder, one named in an edit to the current folder. */
static NitiStatus load_model_file(NitiRecipe *r, const NitiYaml *node, const NitiDescriptionOverrides *overrides,
                                  const Source *source) {
  const char *slash = source->path && node->line > 0 && node->text[0] != '/' ? strrchr(source->path, '/') : NULL;
  const char *folder = slash ? source->path : niti_yaml_is_path(node->text) ? "" : "./"; /* "./" makes a bare name a file's */
  const size_t length = slash ? (size_t)(slash - source->path) + 1 : strlen(folder);
  char *path = malloc(length + strlen(node->text) + 1);
  if (!path) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for the model's path", source->name);
  memcpy(path, folder, length);
  memcpy(path + length, node->text, strlen(node->text) + 1);
  NitiStatus status = node->line > 0 ? check_regular(path) : NITI_OK;
  if (status == NITI_OK) status = niti_description_load(&r->model, path, overrides);
  if (status == NITI_ERROR_FILE) status = niti_yaml_fail_within(status, node, "model");
  free(path);
  return status;
}

static NitiStatus load_model_reference(NitiRecipe *r, const NitiYaml *mapping, const NitiDescriptionOverrides *overrides,
                                       const Source *source) {
  const NitiYaml *name = niti_yaml_get(mapping, "name"), *file = niti_yaml_get(mapping, "file");
  const NitiYaml *node = name ? name : file;
  char found[NITI_YAML_FOUND_MAX], names[512], hint[NITI_HINT_MAX];
  if (!node || (name && file))
    return niti_yaml_fail(mapping, "model: expected either 'name', 'file' or a description with 'layers'");
  if (node->kind != NITI_YAML_SCALAR || niti_yaml_is_null(node)) {
    return niti_yaml_fail(node, "model: expected a word, found %s", niti_yaml_found(found, node));
  }
  if (file) return load_model_file(r, file, overrides, source);
  if (!niti_builtin_model_text(name->text)) {
    return niti_yaml_fail(name, "model: no built-in model %s%s (expected: %s, or 'file')", niti_yaml_found(found, name),
                          niti_did_you_mean(hint, name->text, niti_builtin_model_names),
                          niti_builtin_list(names, sizeof names, niti_builtin_model_names));
  }
  return niti_description_load(&r->model, name->text, overrides);
}

static NitiStatus read_model(NitiRecipe *r, NitiYamlDocument *document, const Source *source) {
  static const char *const keys[] = {"name", "file", "classes", "input", NULL};
  NitiYaml *node;
  NITI_TRY(niti_yaml_want(&node, niti_yaml_root(document), "recipe", "model"));
  NITI_TRY(niti_yaml_want_mapping(node, "model"));
  const bool described = niti_yaml_get(node, "layers") != NULL;
  if (described && !source->model_text) return niti_description_from_yaml(&r->model, document, node, source->name, NULL);
  if (!described) NITI_TRY(niti_yaml_want_keys(node, "model", keys));
  NitiDescriptionOverrides overrides = {0, {0, 0, 0, 0}};
  const NitiYaml *classes = niti_yaml_get(node, "classes"), *input = niti_yaml_get(node, "input");
  if (classes) NITI_TRY(niti_description_classes(&overrides.classes, classes));
  if (input) NITI_TRY(niti_description_input(&overrides.input, input));
  if (!source->model_text) return load_model_reference(r, node, &overrides, source);
  return niti_description_parse(&r->model, source->model_text, source->name, &overrides);
}

/* ---- Data ---- */

/* A list of one number per channel, or `auto`: *count 0. */
static NitiStatus read_channels(int32_t out[NITI_CHANNELS_MAX], int32_t *count, const NitiYaml *node, const char *what,
                                int32_t min, int32_t max) {
  *count = 0;
  if (niti_yaml_is_word(node, "auto")) return NITI_OK;
  if (node->kind != NITI_YAML_SEQUENCE || node->count < 1 || node->count > NITI_CHANNELS_MAX) {
    return niti_yaml_fail(node, "%s: expected auto or a list of 1 to %d numbers", what, NITI_CHANNELS_MAX);
  }
  for (size_t i = 0; i < node->count; ++i) NITI_TRY(niti_yaml_millionths(&out[i], node->items[i], what, min, max));
  *count = (int32_t)node->count;
  return NITI_OK;
}

static NitiStatus read_statistics(NitiDataOptions *data, const NitiYaml *mapping, int32_t channels) {
  const bool sign = data->type != NITI_UINT8 || data->kind == NITI_DATA_NPY || data->kind == NITI_DATA_CSV;
  const NitiYaml *mean = niti_yaml_get(mapping, "mean"), *std = niti_yaml_get(mapping, "std");
  int32_t mean_count = 0, std_count = 0;
  if (mean) NITI_TRY(read_channels(data->mean, &mean_count, mean, "data: mean", sign ? -MEAN_MAX : 0, MEAN_MAX));
  if (std) NITI_TRY(read_channels(data->std, &std_count, std, "data: std", 1, STD_MAX));
  if (mean_count != std_count) {
    return niti_yaml_fail(std_count ? std : mean, "data: %d values of mean and %d of std (expected as many of both)", mean_count,
                          std_count);
  }
  if (mean_count && mean_count != channels) {
    return niti_yaml_fail(mean, "data: mean and std of %d channels, but the model's input has %d", mean_count, channels);
  }
  data->stat_count = mean_count;
  return NITI_OK;
}

/* A number of images or a share of them. */
static NitiStatus read_validation(NitiDataOptions *data, const NitiYaml *node) {
  static const char what[] = "data: validation";
  if (node->kind == NITI_YAML_SCALAR && strpbrk(node->text, ".%"))
    return niti_yaml_share(&data->validation_share, node, what, 1, NITI_WHOLE_SHARE - 1);
  return niti_yaml_int(&data->validation_count, node, what, 0, INT32_MAX);
}

static NitiStatus read_data(NitiRecipe *r, const NitiYaml *mapping) {
  static const char *const keys[] = {
      "kind", "type",   "default",   "mean",       "std", "pad", "crop", "flip", NITI_AUGMENTATION_KEYS,
      "fit",  "resize", "bad_files", "validation", NULL};
  NitiDataOptions *data = &r->data;
  const NitiShape input = r->model->input;
  const NitiYaml *node;
  int32_t choice;
  NITI_TRY(niti_yaml_want_keys(mapping, "data", keys));
  if ((node = niti_yaml_get(mapping, "kind")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, node, "data: kind", niti_recipe_kinds));
    data->kind = (NitiDataKind)choice;
  }
  if ((node = niti_yaml_get(mapping, "default")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, node, "data: default", niti_recipe_defaults));
    r->data_default = (NitiDefaultData)choice;
  }
  if ((node = niti_yaml_get(mapping, "type")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, node, "data: type", niti_recipe_types));
    data->type_given = choice > 0;
    data->type = choice > 0 ? (NitiDataType)(choice - 1) : NITI_UINT8;
  }
  NITI_TRY(read_statistics(data, mapping, input.c));
  if ((node = niti_yaml_get(mapping, "pad")) != NULL) NITI_TRY(niti_yaml_int(&data->pad, node, "data: pad", 0, PAD_MAX));
  if ((node = niti_yaml_get(mapping, "crop")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, node, "data: crop", niti_recipe_crops));
    data->random_crop = choice == 1;
    data->resized_crop = choice == 2;
  }
  NITI_TRY(niti_augmentation_read(data, mapping, input));
  if ((node = niti_yaml_get(mapping, "flip")) != NULL) NITI_TRY(niti_yaml_bool(&data->flip, node, "data: flip"));
  if ((node = niti_yaml_get(mapping, "fit")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, node, "data: fit", niti_recipe_fits));
    data->fit = (NitiFit)choice;
  }
  if ((node = niti_yaml_get(mapping, "bad_files")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, node, "data: bad_files", niti_recipe_bad_files));
    data->bad_files = (NitiBadFiles)choice;
  }
  if ((node = niti_yaml_get(mapping, "validation")) != NULL) NITI_TRY(read_validation(data, node));
  if ((node = niti_yaml_get(mapping, "resize")) == NULL) return NITI_OK;
  NITI_TRY(niti_yaml_int(&data->resize, node, "data: resize", 0, RESIZE_MAX));
  const int32_t shorter = input.h < input.w ? input.h : input.w;
  if (data->resize == 0 || data->resize >= shorter) return NITI_OK;
  return niti_yaml_fail(node, "data: resize: %d is less than the network's input of %dx%d (expected 0 or at least %d)",
                        data->resize, input.h, input.w, shorter);
}

/* ---- Training ---- */

static NitiStatus read_rounding(NitiRecipe *r, const NitiYaml *mapping) {
  static const char *const keys[] = {"activation", "error", NULL};
  const NitiYaml *activation, *error;
  int32_t choice;
  NITI_TRY(niti_yaml_want_keys(mapping, "rounding", keys));
  if ((activation = niti_yaml_get(mapping, "activation")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, activation, "rounding: activation", niti_recipe_roundings));
    r->round_activation = (NitiRounding)choice;
  }
  if ((error = niti_yaml_get(mapping, "error")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, error, "rounding: error", niti_recipe_roundings));
    r->round_error = (NitiRounding)choice;
  }
  return NITI_OK;
}

static NitiStatus read_evaluation(NitiRecipe *r, const NitiYaml *mapping) {
  static const char *const keys[] = {"flip", NULL};
  NITI_TRY(niti_yaml_want_mapping(mapping, "evaluation"));
  NITI_TRY(niti_yaml_want_keys(mapping, "evaluation", keys));
  const NitiYaml *node = niti_yaml_get(mapping, "flip");
  return node ? niti_yaml_bool(&r->test_flip, node, "evaluation: flip") : NITI_OK;
}

static NitiStatus read_clip(NitiRecipe *r, const NitiYaml *mapping) {
  static const char *const keys[] = {"activation", "error", NULL};
  const NitiYaml *node;
  NITI_TRY(niti_yaml_want_keys(mapping, "clip", keys));
  if ((node = niti_yaml_get(mapping, "activation")) != NULL)
    NITI_TRY(niti_yaml_int(&r->clip_activation, node, "clip: activation", 0, CLIP_MAX));
  if ((node = niti_yaml_get(mapping, "error")) != NULL) NITI_TRY(niti_yaml_int(&r->clip_error, node, "clip: error", 0, CLIP_MAX));
  return NITI_OK;
}

/* Normalised gradients do not shrink by themselves, so the rate must. */
static void set_normalised_rate(NitiRate *rate) {
  rate->curve = NITI_RATE_LINEAR;
  rate->points.points[0].value = STEPS_DEFAULT;
  rate->warmup = (NitiPosition){NITI_POSITION_SHARE, WARM_UP_DEFAULT};
}

static NitiStatus read_wide(NitiRecipe *r, const NitiYaml *mapping) {
  const bool true_scale = r->optimizer->true_scale;
  const char *const keys[] = {
      "kind", "lr", "schedule", "warmup", "final_lr", "momentum", "nesterov", "weight_decay", true_scale ? "clip_norm" : NULL,
      NULL};
  const NitiYaml *node = niti_yaml_get(mapping, "kind"), *mu = niti_yaml_get(mapping, "mu");
  if (node && node->line == 0 && mu && mu->line > 0) /* an edit of the kind alone */
    return niti_yaml_fail(node, "update %s has no mu, which the recipe sets (expected --set 'update={kind: %s}', all of update)",
                          r->optimizer->name, r->optimizer->name);
  NITI_TRY(niti_yaml_want_keys(mapping, "update", keys));
  if (!true_scale) set_normalised_rate(&r->rate);
  NITI_TRY(niti_rate_read(&r->rate, mapping));
  if ((node = niti_yaml_get(mapping, "momentum")) != NULL)
    NITI_TRY(niti_yaml_decimal(&r->momentum, node, "update: momentum", NITI_RATE_PLACES, 0, NITI_SGD_UNITS - 1));
  if ((node = niti_yaml_get(mapping, "nesterov")) != NULL) NITI_TRY(niti_yaml_bool(&r->nesterov, node, "update: nesterov"));
  if ((node = niti_yaml_get(mapping, "weight_decay")) != NULL)
    NITI_TRY(niti_yaml_decimal(&r->decay, node, "update: weight_decay", NITI_RATE_PLACES, 0, NITI_SGD_UNITS));
  if ((node = niti_yaml_get(mapping, "clip_norm")) != NULL)
    NITI_TRY(niti_yaml_decimal(&r->clip_norm, node, "update: clip_norm", NITI_RATE_PLACES, 0, NITI_CLIP_NORM_MAX));
  return NITI_OK;
}

static NitiStatus read_update(NitiRecipe *r, const NitiYaml *mapping) {
  static const char *const keys[] = {"kind", "mu", NULL};
  const NitiYaml *node;
  int32_t choice;
  NITI_TRY(niti_yaml_want_mapping(mapping, "update"));
  if ((node = niti_yaml_get(mapping, "kind")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, node, "update: kind", niti_optimizer_names()));
    r->optimizer = niti_optimizer_find(niti_optimizer_names()[choice]);
  }
  if (r->optimizer->wide) return read_wide(r, mapping);
  if ((node = niti_yaml_get(mapping, "lr")) != NULL && !niti_yaml_get(mapping, "kind"))
    return niti_yaml_fail(node, "update: lr belongs to other kinds than niti (expected kind: sgd or kind: niti16 beside it)");
  NITI_TRY(niti_yaml_want_keys(mapping, "update", keys));
  node = niti_yaml_get(mapping, "mu");
  return node ? niti_schedule_read(&r->mu, node, "update: mu", "mu", NITI_MU_PLACES, NITI_MU_MAX * NITI_MU_UNITS) : NITI_OK;
}

static bool has_wide_layer(const NitiDescription *model) {
  for (int32_t i = 0; i < model->node_count; ++i) {
    if (model->nodes[i].spec.type->wide || model->nodes[i].spec.bias) return true;
  }
  return false;
}

/* The place of a contradiction between keys, either of which may be absent: one that an edit set, else the first that is there.
 */
static const NitiYaml *place_of(const NitiYaml *root, const NitiYaml *first, const NitiYaml *second) {
  if (second && second->line == 0) return first && first->line == 0 ? first : second;
  return first ? first : second ? second : root;
}

static NitiStatus check_loss(const NitiRecipe *r, const NitiYaml *root) {
  const NitiYaml *data = niti_yaml_get(root, "data"), *update = niti_yaml_get(root, "update"),
                 *loss = niti_yaml_get(root, "loss");
  const NitiYaml *mixup = data ? niti_yaml_get(data, "mixup") : NULL;
  if (r->loss == NITI_LOSS_SOFTMAX) return NITI_OK;
  if (r->data.mixup != NITI_MIXUP_NONE)
    return niti_yaml_fail(place_of(root, mixup, loss),
                          "data: mixup gives an image two labels, of which loss niti takes one (expected loss: softmax)");
  const NitiYaml *kind = update ? niti_yaml_get(update, "kind") : NULL;
  if (r->optimizer->true_scale)
    return niti_yaml_fail(place_of(root, loss, kind),
                          "update %s follows true derivatives, which loss niti does not give (expected loss: softmax)",
                          r->optimizer->name);
  return NITI_OK;
}

static NitiStatus read_training(NitiRecipe *r, const NitiYaml *root) {
  const NitiYaml *node;
  uint64_t steps = 0;
  int32_t choice;
  if ((node = niti_yaml_get(root, "batch")) != NULL) NITI_TRY(niti_yaml_int(&r->batch, node, "batch", 1, BATCH_MAX));
  if ((node = niti_yaml_get(root, "epochs")) != NULL) NITI_TRY(niti_yaml_int(&r->epochs, node, "epochs", 1, EPOCHS_MAX));
  if ((node = niti_yaml_get(root, "max_steps")) != NULL) NITI_TRY(niti_yaml_uint64(&steps, node, "max_steps", UINT32_MAX));
  r->max_steps = (int64_t)steps;
  if ((node = niti_yaml_get(root, "seed")) != NULL) NITI_TRY(niti_yaml_uint64(&r->seed, node, "seed", UINT64_MAX));
  if (has_wide_layer(r->model)) r->optimizer = &niti_optimizer_sgd; /* unless the recipe chooses */
  if ((node = niti_yaml_get(root, "update")) != NULL) NITI_TRY(read_update(r, node));
  if ((node = niti_yaml_get(root, "loss")) != NULL) {
    NITI_TRY(niti_yaml_choice(&choice, node, "loss", niti_recipe_losses));
    r->loss = (NitiLossKind)choice;
  } else if (r->optimizer->wide) {
    r->loss = NITI_LOSS_SOFTMAX;
  }
  if ((node = niti_yaml_get(root, "label_smoothing")) != NULL) {
    NITI_TRY(niti_yaml_decimal(&r->smoothing, node, "label_smoothing", NITI_RATE_PLACES, 0, NITI_SGD_UNITS - 1));
    if (r->loss != NITI_LOSS_SOFTMAX && r->smoothing > 0)
      return niti_yaml_fail(node, "label_smoothing: loss niti has none (expected loss: softmax)");
  }
  if (r->optimizer->wide) r->round_error = NITI_STOCHASTIC_BYTE; /* unless the recipe chooses */
  if ((node = niti_yaml_get(root, "rounding")) != NULL) NITI_TRY(read_rounding(r, node));
  if ((node = niti_yaml_get(root, "clip")) != NULL) NITI_TRY(read_clip(r, node));
  if ((node = niti_yaml_get(root, "evaluation")) != NULL) NITI_TRY(read_evaluation(r, node));
  if ((node = niti_yaml_get(root, "average")) != NULL) {
    NITI_TRY(niti_averaging_read(&r->average, node));
    if (niti_averaging_on(&r->average) && !r->optimizer->wide)
      return niti_yaml_fail(
          node, "average: update %s has no weights of 16 bits to average (expected update: {kind: sgd} or {kind: niti16})",
          r->optimizer->name);
  }
  return check_loss(r, root);
}

/* ---- The whole ---- */

static NitiStatus read_recipe(NitiRecipe *r, NitiYamlDocument *document, const Source *source) {
  static const char *const keys[] = {
      "name",     "model", "data",   "batch",  "epochs",     "max_steps", "seed", "loss", "label_smoothing",
      "rounding", "clip",  "update", "freeze", "evaluation", "average",   NULL};
  const NitiYaml *root = niti_yaml_root(document), *data, *freeze;
  NitiYaml *name;
  NITI_TRY(niti_yaml_want_keys(root, "recipe", keys));
  NITI_TRY(niti_yaml_want(&name, root, "recipe", "name"));
  NITI_TRY(niti_yaml_name(r->name, sizeof r->name, name, "name"));
  NITI_TRY(read_model(r, document, source));
  if ((freeze = niti_yaml_get(root, "freeze")) != NULL) NITI_TRY(niti_description_freeze(r->model, freeze));
  if ((data = niti_yaml_get(root, "data")) != NULL) NITI_TRY(read_data(r, data));
  NITI_TRY(read_training(r, root));
  return niti_recipe_resolve(r);
}

static NitiStatus recipe_from(NitiRecipe **out, NitiYamlDocument *document, const char *const *sets, int set_count,
                              const Source *source) {
  *out = NULL;
  NITI_TRY(niti_yaml_want_mapping(niti_yaml_root(document), "recipe"));
  NITI_TRY(apply_sets(document, sets, set_count, source->model_text != NULL));
  NitiRecipe *r = calloc(1, sizeof *r);
  if (r) r->source = strdup(source->name);
  if (!r || !r->source) {
    niti_recipe_close(r);
    return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for the recipe", source->name);
  }
  r->batch = BATCH_DEFAULT;
  r->epochs = EPOCHS_DEFAULT;
  r->seed = SEED_DEFAULT;
  r->mu = (NitiSchedule){.points = {{.value = MU_DEFAULT}}, .count = 1};
  r->rate = (NitiRate){.points = {.points = {{.value = RATE_DEFAULT}}, .count = 1}};
  r->momentum = MOMENTUM_DEFAULT;
  r->optimizer = &niti_optimizer_niti;
  const NitiStatus status = read_recipe(r, document, source);
  if (status != NITI_OK) {
    niti_recipe_close(r);
    return status;
  }
  *out = r;
  return NITI_OK;
}

NitiStatus niti_recipe_parse(NitiRecipe **out, const char *text, const char *source, const char *const *sets, int set_count,
                             const char *model_text) {
  const Source from = {.name = source, .model_text = model_text};
  NitiYamlDocument *document;
  *out = NULL;
  NITI_TRY(niti_yaml_parse(&document, text, source));
  const NitiStatus status = recipe_from(out, document, sets, set_count, &from);
  niti_yaml_close(document);
  return status;
}

static NitiStatus check_sets(const char *const *sets, int count) {
  if (count < 0 || (count > 0 && !sets)) {
    return niti_fail(NITI_ERROR_ARGUMENT, "niti_recipe_load: set_count is %d with %s (expected as many as sets has)", count,
                     sets ? "sets" : "no sets");
  }
  for (int i = 0; i < count; ++i) {
    if (!sets[i]) return niti_fail(NITI_ERROR_ARGUMENT, "niti_recipe_load: sets[%d] is NULL", i);
  }
  return NITI_OK;
}

NitiStatus niti_recipe_load(NitiRecipe **out, const char *recipe, const char *const *sets, int set_count) {
  NITI_WANT(out, "out");
  *out = NULL;
  NITI_WANT(recipe, "recipe");
  NITI_TRY(check_sets(sets, set_count));
  bool folder, file;
  NITI_TRY(niti_path_is_dir(&folder, recipe));
  if (folder && !niti_builtin_recipe_text(recipe)) {
    return niti_fail(NITI_ERROR_FILE, "%s: a folder, not a recipe (`niti train --resume %s` continues a run that is there)",
                     recipe, recipe);
  }
  if (niti_yaml_is_path(recipe)) {
    const Source from = {.name = recipe, .path = recipe};
    NitiYamlDocument *document;
    NITI_TRY(niti_yaml_read(&document, recipe));
    const NitiStatus status = recipe_from(out, document, sets, set_count, &from);
    niti_yaml_close(document);
    return status;
  }
  const char *text = niti_builtin_recipe_text(recipe);
  char source[NITI_NAME_MAX + 16];
  if (!text) {
    char names[768], hint[NITI_HINT_MAX];
    (void)snprintf(hint, sizeof hint, "%s.yaml", recipe);
    NITI_TRY(niti_path_is_file(&file, hint));
    if (file) return niti_fail(NITI_ERROR_ARGUMENT, "no built-in recipe '%s', did you mean '%s'?", recipe, hint);
    return niti_fail(NITI_ERROR_ARGUMENT, "no built-in recipe '%s'%s (expected: %s, or a file with '/' or ending in .yaml)",
                     recipe, niti_did_you_mean(hint, recipe, niti_builtin_recipe_names),
                     niti_builtin_list(names, sizeof names, niti_builtin_recipe_names));
  }
  (void)snprintf(source, sizeof source, "built-in %s", recipe);
  return niti_recipe_parse(out, text, source, sets, set_count, NULL);
}

void niti_recipe_close(NitiRecipe *recipe) {
  if (!recipe) return;
  niti_description_close(recipe->model);
  free(recipe->source);
  free(recipe->text);
  free(recipe);
}

NitiStatus niti_recipe_place(NitiRecipe *recipe, int64_t steps_per_epoch, int64_t steps) {
  if (recipe->optimizer->wide) return niti_rate_place(&recipe->rate, steps_per_epoch, steps);
  return niti_schedule_place(&recipe->mu, "update: mu", steps_per_epoch, steps);
}

NitiStatus niti_recipe_check_distinct(const NitiRecipe *recipe) {
  if (recipe->optimizer->wide) return niti_schedule_check_distinct(&recipe->rate.points, "update: lr");
  return niti_schedule_check_distinct(&recipe->mu, "update: mu");
}

void niti_recipe_scalars(int64_t scalars[NITI_SCALARS_MAX], const NitiRecipe *recipe, const NitiProgram *program, int64_t step,
                         int32_t images) {
  const struct {
    const char *name;
    int64_t value;
  } all[] = {{"mu", niti_schedule_value(&recipe->mu, step)},
             {"rate", niti_rate_value(&recipe->rate, step)},
             {"momentum", recipe->momentum},
             {"decay", recipe->decay},
             {"images", images},
             {"clip", recipe->clip_norm}};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    const int32_t scalar = niti_program_find_scalar(program, all[i].name);
    if (scalar != NITI_NONE) scalars[scalar] = all[i].value;
  }
}

const char *niti_recipe_depends_on_length(const NitiRecipe *recipe) {
  if (niti_averaging_on(&recipe->average) && recipe->average.from.unit == NITI_POSITION_SHARE)
    return "average.from is a share of the run";
  if (recipe->optimizer->wide) return niti_rate_depends_on_length(&recipe->rate);
  return niti_schedule_has_share(&recipe->mu) ? "update.mu has positions in shares of the run" : NULL;
}

int niti_recipe_mu(const NitiRecipe *recipe, int64_t step) {
  return (int)(niti_schedule_value(&recipe->mu, step) / NITI_MU_UNITS);
}

NitiStatus niti_recipe_whole_mu(int *out, const NitiRecipe *recipe, int64_t step, const char *what) {
  const int64_t mu = niti_schedule_value(&recipe->mu, step);
  char text[32];
  niti_yaml_decimal_text(text, sizeof text, mu, NITI_MU_PLACES);
  *out = (int)(mu / NITI_MU_UNITS);
  if (mu % NITI_MU_UNITS == 0) return NITI_OK;
  return niti_fail(NITI_ERROR_UNSUPPORTED, "update.mu, which is %s: %s (expected a whole number)", text, what);
}

NitiLearningRate niti_recipe_rate(const NitiRecipe *recipe, int64_t step) {
  if (recipe->optimizer->wide) return (NitiLearningRate){"lr", niti_rate_value(&recipe->rate, step), NITI_RATE_PLACES};
  NitiLearningRate mu = {"mu", niti_schedule_value(&recipe->mu, step), NITI_MU_PLACES};
  for (; mu.places > 0 && mu.value % 10 == 0; --mu.places) mu.value /= 10; /* a whole one is written as such */
  return mu;
}

NitiLowerOptions niti_recipe_lowering(const NitiRecipe *recipe, int32_t batch, bool training) {
  return (NitiLowerOptions){.batch = batch,
                            .training = training,
                            .round_activation = recipe->round_activation,
                            .round_delta = recipe->round_error,
                            .loss = recipe->loss,
                            .smoothing = recipe->smoothing,
                            .clip_activation = recipe->clip_activation,
                            .clip_delta = recipe->clip_error,
                            .nesterov = recipe->nesterov,
                            .clips_norm = recipe->clip_norm > 0,
                            .changes_images = training && niti_data_changes(&recipe->data),
                            .optimizer = recipe->optimizer};
}
