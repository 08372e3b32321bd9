/* A recipe as YAML with every value written out. */
#include "train/recipe_text.h"

#include <inttypes.h>
#include <string.h>

#include "config/builtin.h"
#include "config/yaml.h"
#include "train/augmentation.h"

const char *const niti_recipe_kinds[] = {"auto", "idx", "cifar10", "cifar100", "folder", "npy", "csv", NULL};
const char *const niti_recipe_types[] = {"auto", "uint8", "int8", "int16", NULL};
const char *const niti_recipe_defaults[] = {"none", "fashion-mnist", NULL};
const char *const niti_recipe_crops[] = {"centre", "random", "resized", NULL};
const char *const niti_recipe_fits[] = {"crop", "stretch", NULL};
const char *const niti_recipe_bad_files[] = {"error", "skip", NULL};
const char *const niti_recipe_losses[] = {"niti", "softmax", NULL};
const char *const niti_recipe_roundings[] = {"nearest", "pseudo-stochastic", "stochastic", "truncate", "stochastic-byte", NULL};

static void put_int(NitiYamlDocument *d, NitiYaml *mapping, const char *key, int64_t value) {
  niti_yaml_put(d, mapping, key, niti_yaml_printf(d, "%" PRId64, value));
}

static void put_word(NitiYamlDocument *d, NitiYaml *mapping, const char *key, const char *word) {
  niti_yaml_put(d, mapping, key, niti_yaml_scalar(d, word));
}

static void put_bool(NitiYamlDocument *d, NitiYaml *mapping, const char *key, bool value) {
  put_word(d, mapping, key, value ? "true" : "false");
}

static void put_decimal(NitiYamlDocument *d, NitiYaml *mapping, const char *key, int64_t value) {
  char text[32];
  niti_yaml_decimal_text(text, sizeof text, value, NITI_RATE_PLACES);
  put_word(d, mapping, key, text);
}

static void put_millionths(NitiYamlDocument *d, NitiYaml *mapping, const char *key, const int32_t *values, int32_t count) {
  NitiYaml *list = niti_yaml_sequence(d);
  if (count == 0) {
    put_word(d, mapping, key, "auto");
    return;
  }
  for (int32_t i = 0; i < count; ++i) {
    const int32_t magnitude = values[i] < 0 ? -values[i] : values[i];
    niti_yaml_append(
        d, list,
        niti_yaml_printf(d, "%s%" PRId32 ".%06" PRId32, values[i] < 0 ? "-" : "", magnitude / 1000000, magnitude % 1000000));
  }
  niti_yaml_put(d, mapping, key, list);
}

/* Whether the built-in model of this name, with these classes and this input, is identical to the description. */
static NitiStatus is_builtin(bool *out, const NitiDescription *model) {
  const NitiDescriptionOverrides same = {model->classes, model->input};
  NitiDescription *builtin;
  *out = false;
  if (!niti_builtin_model_text(model->name)) return NITI_OK;
  const NitiStatus status = niti_description_load(&builtin, model->name, &same);
  if (status == NITI_ERROR_MEMORY) return status;
  if (status == NITI_OK) *out = strcmp(builtin->text, model->text) == 0;
  niti_description_close(builtin);
  return NITI_OK;
}

static void put_reference(NitiYamlDocument *d, NitiYaml *root, const NitiDescription *model) {
  NitiYaml *mapping = niti_yaml_mapping(d), *input = niti_yaml_sequence(d);
  put_word(d, mapping, "name", model->name);
  put_int(d, mapping, "classes", model->classes);
  niti_yaml_append(d, input, niti_yaml_printf(d, "%" PRId32, model->input.h));
  niti_yaml_append(d, input, niti_yaml_printf(d, "%" PRId32, model->input.w));
  niti_yaml_append(d, input, niti_yaml_printf(d, "%" PRId32, model->input.c));
  niti_yaml_put(d, mapping, "input", input);
  niti_yaml_put(d, root, "model", mapping);
}

static void put_data(NitiYamlDocument *d, NitiYaml *root, const NitiRecipe *r) {
  const NitiDataOptions *data = &r->data;
  NitiYaml *mapping = niti_yaml_mapping(d);
  put_word(d, mapping, "kind", niti_recipe_kinds[data->kind]);
  put_word(d, mapping, "type", niti_recipe_types[data->type_given ? (int)data->type + 1 : 0]);
  put_word(d, mapping, "default", niti_recipe_defaults[r->data_default]);
  put_millionths(d, mapping, "mean", data->mean, data->stat_count);
  put_millionths(d, mapping, "std", data->std, data->stat_count);
  put_int(d, mapping, "pad", data->pad);
  put_word(d, mapping, "crop", niti_recipe_crops[data->resized_crop ? 2 : data->random_crop]);
  niti_augmentation_write(d, mapping, data);
  put_bool(d, mapping, "flip", data->flip);
  put_word(d, mapping, "fit", niti_recipe_fits[data->fit]);
  put_int(d, mapping, "resize", data->resize);
  put_word(d, mapping, "bad_files", niti_recipe_bad_files[data->bad_files]);
  if (data->validation_share > 0)
    niti_yaml_put(d, mapping, "validation", niti_yaml_printf(d, "0.%06" PRId32, data->validation_share));
  else
    put_int(d, mapping, "validation", data->validation_count);
  niti_yaml_put(d, root, "data", mapping);
}

static void put_wide(NitiYamlDocument *d, NitiYaml *update, const NitiRecipe *r) {
  niti_rate_write(d, update, &r->rate);
  put_decimal(d, update, "momentum", r->momentum);
  put_bool(d, update, "nesterov", r->nesterov);
  put_decimal(d, update, "weight_decay", r->decay);
  if (r->clip_norm > 0) put_decimal(d, update, "clip_norm", r->clip_norm);
}

static void put_frozen(NitiYamlDocument *d, NitiYaml *root, const NitiDescription *model) {
  NitiYaml *list = niti_yaml_sequence(d);
  for (int32_t i = 0; i < model->node_count; ++i) {
    if (model->nodes[i].frozen) niti_yaml_append(d, list, niti_yaml_scalar(d, model->nodes[i].spec.name));
  }
  niti_yaml_put(d, root, "freeze", list);
}

static void put_training(NitiYamlDocument *d, NitiYaml *root, const NitiRecipe *r) {
  NitiYaml *rounding = niti_yaml_mapping(d), *update = niti_yaml_mapping(d);
  put_int(d, root, "batch", r->batch);
  put_int(d, root, "epochs", r->epochs);
  put_int(d, root, "max_steps", r->max_steps);
  niti_yaml_put(d, root, "seed", niti_yaml_printf(d, "%" PRIu64, r->seed));
  put_word(d, root, "loss", niti_recipe_losses[r->loss]);
  if (r->loss == NITI_LOSS_SOFTMAX) put_decimal(d, root, "label_smoothing", r->smoothing);
  put_word(d, rounding, "activation", niti_recipe_roundings[r->round_activation]);
  put_word(d, rounding, "error", niti_recipe_roundings[r->round_error]);
  niti_yaml_put(d, root, "rounding", rounding);
  if (r->clip_activation > 0 || r->clip_error > 0) {
    NitiYaml *clip = niti_yaml_mapping(d);
    put_int(d, clip, "activation", r->clip_activation);
    put_int(d, clip, "error", r->clip_error);
    niti_yaml_put(d, root, "clip", clip);
  }
  put_word(d, update, "kind", r->optimizer->name);
  if (r->optimizer->wide)
    put_wide(d, update, r);
  else
    niti_yaml_put(d, update, "mu", niti_schedule_write(d, &r->mu, "mu", NITI_MU_PLACES));
  niti_yaml_put(d, root, "update", update);
  niti_averaging_write(d, root, &r->average);
  if (!r->test_flip) return;
  NitiYaml *evaluation = niti_yaml_mapping(d);
  put_bool(d, evaluation, "flip", true);
  niti_yaml_put(d, root, "evaluation", evaluation);
}

/* Writes a built-in model by name and any other in full, so the text needs no other file. `model` must outlive the document. */
static NitiStatus write_recipe(NitiRecipe *r, NitiYamlDocument *d, const NitiYamlDocument *model) {
  NitiYaml *root = niti_yaml_root(d);
  put_word(d, root, "name", r->name);
  if (model) {
    niti_yaml_put(d, root, "model", niti_yaml_root(model));
  } else {
    put_reference(d, root, r->model);
  }
  put_frozen(d, root, r->model);
  put_data(d, root, r);
  put_training(d, root, r);
  return niti_yaml_write(&r->text, d, root);
}

NitiStatus niti_recipe_resolve(NitiRecipe *recipe) {
  NitiYamlDocument *document, *model = NULL;
  bool builtin;
  NITI_TRY(is_builtin(&builtin, recipe->model));
  if (!builtin) NITI_TRY(niti_yaml_parse(&model, recipe->model->text, recipe->model->source));
  NitiStatus status = niti_yaml_open(&document);
  if (status == NITI_OK) {
    status = write_recipe(recipe, document, model);
    niti_yaml_close(document);
  }
  niti_yaml_close(model);
  return status;
}
