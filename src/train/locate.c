/* Names of networks: built-ins, files, and checkpoints in runs' folders. */
#include "train/locate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/builtin.h"
#include "config/closest.h"
#include "config/yaml.h"
#include "platform/file.h"
#include "platform/path.h"
#include "platform/system.h"
#include "train/snapshot.h"

#define SUFFIX ".safetensors"

static bool ends_with(const char *text, const char *end) {
  const size_t a = strlen(text), b = strlen(end);
  return a >= b && strcmp(text + a - b, end) == 0;
}

/* Takes `text`, which may be NULL, also after a failure. */
static NitiStatus set(NitiLocation *out, NitiLocated kind, const char *path, char *text) {
  out->kind = kind;
  out->path = strdup(path);
  out->text = out->path ? text : NULL;
  if (out->path) return NITI_OK;
  free(text);
  return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
}

static NitiStatus set_builtin(NitiLocation *out, NitiLocated kind, const char *name, const char *text) {
  char *copy = strdup(text);
  return copy ? set(out, kind, name, copy) : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", name);
}

/* ---- files ---- */

/* A safetensors file begins with the length of its header, followed by the header, a JSON object. */
static NitiStatus is_safetensors(bool *out, const char *path) {
  unsigned char head[9];
  uint64_t size, length = 0;
  int fd;
  *out = ends_with(path, SUFFIX);
  bool file;
  if (*out) return NITI_OK;
  NITI_TRY(niti_path_is_file(&file, path));
  if (!file) return NITI_OK; /* a pipe can be read once: it is taken for YAML */
  NITI_TRY(niti_file_open_read(&fd, &size, path));
  size_t got = 0;
  for (ssize_t part = 1; part > 0 && got<sizeof head; got += part> 0 ? (size_t)part : 0)
    part = niti_system.read(fd, head + got, sizeof head - got);
  const bool whole = got == sizeof head && head[8] == '{';
  (void)niti_system.close(fd);
  for (int i = 0; i < 8 && whole; ++i) length |= (uint64_t)head[i] << (8 * i);
  *out = whole && length <= size - 8;
  return NITI_OK;
}

/* What a YAML text describes: *recipe and *model. */
static NitiStatus look_into(bool *recipe, bool *model, const char *text, const char *path) {
  NitiYamlDocument *document;
  NITI_TRY(niti_yaml_parse(&document, text, path));
  const NitiYaml *root = niti_yaml_root(document);
  const bool mapping = root->kind == NITI_YAML_MAPPING;
  *recipe = mapping && niti_yaml_get(root, "model");
  *model = mapping && niti_yaml_get(root, "layers");
  niti_yaml_close(document);
  if (*recipe || *model) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: names no network (expected a checkpoint, or YAML with 'model' or 'layers')", path);
}

static NitiStatus set_file(NitiLocation *out, const char *path) {
  bool safetensors, recipe, model;
  char *text;
  NITI_TRY(is_safetensors(&safetensors, path));
  if (safetensors) return set(out, NITI_LOCATED_CHECKPOINT, path, NULL);
  NITI_TRY(niti_yaml_read_text(&text, path));
  const NitiStatus status = look_into(&recipe, &model, text, path);
  if (status == NITI_OK) return set(out, recipe ? NITI_LOCATED_RECIPE : NITI_LOCATED_MODEL, path, text);
  free(text);
  return status;
}

/* ---- a run's folder ---- */

static NitiStatus set_in_run(NitiLocation *out, const char *folder, const char *name) {
  char *path;
  NITI_TRY(niti_path_join(&path, folder, name));
  out->kind = NITI_LOCATED_CHECKPOINT;
  out->path = path;
  return NITI_OK;
}

static NitiStatus set_run(NitiLocation *out, const char *folder) {
  static const char *const names[] = {"best" SUFFIX, "last" SUFFIX, "previous" SUFFIX};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) { /* one that cannot be read is not passed over without a word */
    bool there;
    NITI_TRY(niti_path_has_entry(&there, folder, names[i]));
    if (there) return set_in_run(out, folder, names[i]);
  }
  return niti_fail(NITI_ERROR_FILE,
                   "%s: a folder without a checkpoint (expected a run with best.safetensors or last.safetensors)", folder);
}

/* RUN:WHICH, where RUN is a folder; *found false: not of that form. */
static NitiStatus set_run_which(NitiLocation *out, bool *found, const char *name) {
  const char *colon = strrchr(name, ':');
  char which[64], *folder = colon && colon > name ? strndup(name, (size_t)(colon - name)) : NULL;
  *found = false;
  NitiStatus status = folder ? niti_path_is_dir(found, folder) : NITI_OK;
  if (*found) {
    const bool number = colon[1] && strspn(colon + 1, "0123456789") == strlen(colon + 1) && strlen(colon + 1) < 9;
    (void)snprintf(which, sizeof which, number ? "epoch-%.0s%04d" SUFFIX : "%.40s" SUFFIX, colon + 1,
                   number ? atoi(colon + 1) : 0);
    bool kept;
    status = niti_path_has_entry(&kept, folder, which);
    if (status == NITI_OK && kept)
      status = set_in_run(out, folder, which);
    else if (status == NITI_OK)
      status =
          niti_fail(NITI_ERROR_FILE, "%s: no %s in it (expected RUN:best, RUN:last, RUN:averaged or the number of an epoch kept)",
                    folder, which);
  }
  free(folder);
  return status;
}

/* ---- names ---- */

static NitiStatus no_such(const char *name) {
  enum { NAMES_MAX = 256 };
  const char *const *lists[] = {niti_builtin_model_names, niti_builtin_recipe_names};
  const char *both[NAMES_MAX + 1];
  char hint[NITI_HINT_MAX], models[384], recipes[384];
  size_t count = 0;
  for (int k = 0; k < 2; ++k) {
    for (size_t i = 0; lists[k][i] && count < NAMES_MAX; ++i) both[count++] = lists[k][i];
  }
  both[count] = NULL;
  return niti_fail(NITI_ERROR_ARGUMENT,
                   "no network '%s'%s (expected a checkpoint, a run's folder, a file, a model: %s; or a recipe: %s)", name,
                   niti_did_you_mean(hint, name, both), niti_builtin_list(models, sizeof models, lists[0]),
                   niti_builtin_list(recipes, sizeof recipes, lists[1]));
}

NitiStatus niti_locate(NitiLocation *out, const char *name) {
  bool found;
  *out = (NitiLocation){0};
  const char *model = niti_builtin_model_text(name), *recipe = niti_builtin_recipe_text(name);
  if (model) return set_builtin(out, NITI_LOCATED_MODEL, name, model);
  if (recipe) return set_builtin(out, NITI_LOCATED_RECIPE, name, recipe);
  NITI_TRY(niti_path_is_dir(&found, name));
  if (found) return set_run(out, name);
  NITI_TRY(niti_path_is_there(&found, name));
  if (!found) {
    NITI_TRY(set_run_which(out, &found, name));
    if (found) return NITI_OK;
    if (!niti_yaml_is_path(name) && !ends_with(name, SUFFIX)) return no_such(name);
  }
  return set_file(out, name);
}

void niti_location_close(NitiLocation *location) {
  free(location->path);
  free(location->text);
  *location = (NitiLocation){0};
}

/* ---- contents ---- */

/* Loads a regular file by path, so that a recipe finds the model in its folder; a bare name would mean a built-in. */
static NitiStatus file_recipe(NitiRecipe **out, const char *file) {
  char *path;
  NITI_TRY(niti_path_join(&path, niti_yaml_is_path(file) ? "" : ".", file));
  const NitiStatus status = niti_recipe_load(out, path, NULL, 0);
  free(path);
  return status;
}

static NitiStatus model_recipe(NitiRecipe **out, const NitiLocation *location) {
  NitiDescription *model;
  char text[2 * NITI_NAME_MAX + 32];
  NITI_TRY(niti_description_parse(&model, location->text, location->path, NULL));
  (void)snprintf(text, sizeof text, "name: %s\nmodel: %s\n", model->name, model->name);
  const NitiStatus status = niti_recipe_parse(out, text, model->source, NULL, 0, model->text);
  niti_description_close(model);
  return status;
}

const char *niti_checkpoint_arithmetic(const NitiCheckpoint *checkpoint) {
  const char *version = niti_checkpoint_get(checkpoint, "arithmetic");
  return version ? version : "1.0";
}

bool niti_arithmetic_infers_alike(const char *version) {
  return strcmp(version, NITI_ARITHMETIC) == 0 || strcmp(version, "1.1") == 0 || strcmp(version, "1.0") == 0;
}

NitiStatus niti_checkpoint_recipe(NitiRecipe **out, const NitiCheckpoint *checkpoint, const char *source) {
  const char *recipe, *model, *arithmetic = niti_checkpoint_arithmetic(checkpoint);
  if (!niti_arithmetic_infers_alike(arithmetic)) {
    return niti_fail(NITI_ERROR_UNSUPPORTED, "%s: arithmetic %.16s (expected %s: another version gives other bits)", source,
                     arithmetic, NITI_ARITHMETIC);
  }
  NITI_TRY(niti_checkpoint_want(&recipe, checkpoint, "recipe"));
  NITI_TRY(niti_checkpoint_want(&model, checkpoint, "model"));
  const NitiStatus status = niti_recipe_parse(out, recipe, source, NULL, 0, model);
  if (status == NITI_OK) return NITI_OK;
  return niti_fail_within(status == NITI_ERROR_MEMORY ? status : NITI_ERROR_FORMAT, "%s: the recipe in the checkpoint", source);
}

NitiStatus niti_location_recipe(NitiRecipe **out, const NitiLocation *location) {
  NitiCheckpoint *checkpoint;
  *out = NULL;
  if (location->kind == NITI_LOCATED_MODEL) return model_recipe(out, location);
  if (location->kind == NITI_LOCATED_RECIPE) {
    bool file = false;
    if (!niti_builtin_recipe_text(location->path)) NITI_TRY(niti_path_is_file(&file, location->path));
    return file ? file_recipe(out, location->path) : niti_recipe_parse(out, location->text, location->path, NULL, 0, NULL);
  }
  NITI_TRY(niti_checkpoint_load(&checkpoint, location->path));
  const NitiStatus status = niti_checkpoint_recipe(out, checkpoint, location->path);
  niti_checkpoint_close(checkpoint);
  return status;
}

/* On the CPU, one thread: the weights are the same everywhere. */
static NitiStatus take_initial(NitiCheckpoint *checkpoint, const NitiRecipe *recipe) {
  const NitiBackendOptions options = {.name = "cpu", .threads = 1};
  const NitiLowerOptions smallest = niti_recipe_lowering(recipe, 1, false);
  NitiBackend *backend;
  NitiNetwork *net = NULL;
  NITI_TRY(niti_backend_open(&backend, &options));
  NitiStatus status = niti_network_open(&net, recipe->model, backend, &smallest);
  if (status == NITI_OK) status = niti_network_init(net, recipe->seed);
  if (status == NITI_OK) status = niti_snapshot_take(checkpoint, net);
  if (status == NITI_OK) status = niti_checkpoint_set(checkpoint, "recipe", recipe->text);
  if (status == NITI_OK) status = niti_checkpoint_set(checkpoint, "model", recipe->model->text);
  niti_network_close(net);
  niti_backend_close(backend);
  return status;
}

NitiStatus niti_location_weights(NitiCheckpoint **out, const NitiLocation *location) {
  NitiRecipe *recipe;
  *out = NULL;
  if (location->kind == NITI_LOCATED_CHECKPOINT) return niti_checkpoint_load(out, location->path);
  NITI_TRY(niti_location_recipe(&recipe, location));
  NitiStatus status = niti_checkpoint_open(out);
  if (status == NITI_OK) status = take_initial(*out, recipe);
  niti_recipe_close(recipe);
  if (status != NITI_OK) {
    niti_checkpoint_close(*out);
    *out = NULL;
  }
  return status;
}
