/* Recipes: the built-in ones, defaults, edits from the command line and round trips (test_recipe_refused.c: what is refused). */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <unistd.h>

#include <cmocka.h>
/* clang-format on */

#include "config/builtin.h"
#include "train/recipe_text.h"
#include "yaml_mutation.h"

#define HEAD "name: t\nmodel: lenet5\n" /* two lines */

static NitiRecipe *loaded(const char *name, const char *const *sets, int count) {
  NitiRecipe *r = NULL;
  if (niti_recipe_load(&r, name, sets, count) != NITI_OK) fail_msg("%s: %s", name, niti_error());
  return r;
}

static NitiRecipe *parsed(const char *text) {
  NitiRecipe *r = NULL;
  if (niti_recipe_parse(&r, text, "r.yaml", NULL, 0, NULL) != NITI_OK) fail_msg("%s", niti_error());
  return r;
}

static void assert_same(const NitiRecipe *a, const NitiRecipe *b) {
  assert_string_equal(a->name, b->name);
  assert_string_equal(a->model->text, b->model->text);
  assert_int_equal(a->model->node_count, b->model->node_count);
  assert_int_equal(a->data.kind, b->data.kind);
  assert_int_equal(a->data_default, b->data_default);
  assert_memory_equal(a->data.mean, b->data.mean, sizeof a->data.mean);
  assert_memory_equal(a->data.std, b->data.std, sizeof a->data.std);
  assert_int_equal(a->data.stat_count, b->data.stat_count);
  assert_int_equal(a->data.pad, b->data.pad);
  assert_int_equal(a->data.random_crop, b->data.random_crop);
  assert_int_equal(a->data.flip, b->data.flip);
  assert_int_equal(a->data.resized_crop, b->data.resized_crop);
  assert_memory_equal(a->data.scale, b->data.scale, sizeof a->data.scale);
  assert_memory_equal(a->data.aspect, b->data.aspect, sizeof a->data.aspect);
  assert_int_equal(a->data.cutout, b->data.cutout);
  assert_int_equal(a->data.mixup, b->data.mixup);
  assert_int_equal(a->data.brightness, b->data.brightness);
  assert_int_equal(a->data.contrast, b->data.contrast);
  assert_int_equal(a->data.saturation, b->data.saturation);
  assert_int_equal(a->data.fit, b->data.fit);
  assert_int_equal(a->data.resize, b->data.resize);
  assert_int_equal(a->data.bad_files, b->data.bad_files);
  assert_int_equal(a->data.validation_count, b->data.validation_count);
  assert_int_equal(a->data.validation_share, b->data.validation_share);
  assert_int_equal(a->batch, b->batch);
  assert_int_equal(a->epochs, b->epochs);
  assert_int_equal(a->max_steps, b->max_steps);
  assert_true(a->seed == b->seed);
  assert_int_equal(a->loss, b->loss);
  assert_int_equal(a->round_activation, b->round_activation);
  assert_int_equal(a->round_error, b->round_error);
  assert_ptr_equal(a->optimizer, b->optimizer);
  assert_int_equal(a->mu.count, b->mu.count);
  assert_memory_equal(a->mu.points, b->mu.points, (size_t)a->mu.count * sizeof *a->mu.points);
  assert_int_equal(a->rate.curve, b->rate.curve);
  assert_int_equal(a->rate.points.count, b->rate.points.count);
  for (int32_t i = 0; i < a->rate.points.count; ++i) {
    assert_true(a->rate.points.points[i].value == b->rate.points.points[i].value);
    assert_true(a->rate.points.points[i].at.unit == b->rate.points.points[i].at.unit);
    assert_true(a->rate.points.points[i].at.value == b->rate.points.points[i].at.value);
  }
  assert_true(a->rate.last == b->rate.last);
  assert_true(a->rate.warmup.unit == b->rate.warmup.unit && a->rate.warmup.value == b->rate.warmup.value);
  assert_true(a->momentum == b->momentum && a->decay == b->decay && a->nesterov == b->nesterov);
  assert_true(a->smoothing == b->smoothing);
  assert_int_equal(a->clip_activation, b->clip_activation);
  assert_int_equal(a->clip_error, b->clip_error);
  assert_string_equal(a->text, b->text);
}

/* The resolved text gives the recipe again, by itself and with its model's text beside it. */
static void assert_round_trip(const NitiRecipe *r) {
  NitiRecipe *alone = NULL, *beside = NULL;
  if (niti_recipe_parse(&alone, r->text, "alone", NULL, 0, NULL) != NITI_OK) fail_msg("%s\n%s", r->text, niti_error());
  if (niti_recipe_parse(&beside, r->text, "beside", NULL, 0, r->model->text) != NITI_OK)
    fail_msg("%s\n%s", r->text, niti_error());
  assert_same(r, alone);
  assert_same(r, beside);
  niti_recipe_close(alone);
  niti_recipe_close(beside);
}

/* ---- Built-in recipes ---- */

/* As many as the folder of recipes has, under their files' names. */
static void builtins_parse_and_round_trip(void **state) {
  const char *const *names = niti_builtin_recipes();
  char path[512];
  size_t count = 0, files = 0;
  (void)state;
  for (; names[count]; ++count) {
    (void)snprintf(path, sizeof path, "%s/recipes/%s.yaml", NITI_SOURCE_DIR, names[count]);
    assert_int_equal(access(path, R_OK), 0);
    NitiRecipe *r = loaded(names[count], NULL, 0);
    assert_string_equal(r->name, names[count]);
    assert_round_trip(r);
    niti_recipe_close(r);
  }
  DIR *folder = opendir(NITI_SOURCE_DIR "/recipes");
  assert_non_null(folder);
  for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) files += strstr(entry->d_name, ".yaml") != NULL;
  assert_int_equal(closedir(folder), 0);
  assert_int_equal(files, count);
}

static void published_settings_are_as_published(void **state) {
  static const char *const names[] = {"vgg-small-7-cifar10", "vgg-small-8-cifar10", "vgg-small-9-cifar10"};
  (void)state;
  for (size_t i = 0; i < 3; ++i) {
    NitiRecipe *r = loaded(names[i], NULL, 0);
    assert_int_equal(strncmp(r->model->name, names[i], 11), 0);
    assert_int_equal(r->batch, 256);
    assert_int_equal(r->epochs, 200);
    assert_int_equal(r->max_steps, 0);
    assert_int_equal(r->loss, NITI_LOSS_NITI);
    assert_int_equal(r->round_activation, NITI_NEAREST);
    assert_int_equal(r->round_error, NITI_NEAREST);
    assert_int_equal(niti_recipe_mu(r, 0), 5);
    assert_int_equal(niti_recipe_place(r, 196, 200 * 196), NITI_OK);
    assert_int_equal(niti_recipe_mu(r, 100 * 196 - 1), 5);
    assert_int_equal(niti_recipe_mu(r, 100 * 196), 4);
    assert_int_equal(niti_recipe_mu(r, 150 * 196 - 1), 4);
    assert_int_equal(niti_recipe_mu(r, 150 * 196), 3);
    assert_int_equal(niti_recipe_mu(r, 1000 * 196), 3);
    assert_int_equal(r->data.kind, NITI_DATA_CIFAR10);
    assert_int_equal(r->data.stat_count, 3);
    assert_int_equal(r->data.mean[0], 491400);
    assert_int_equal(r->data.mean[2], 446500);
    assert_int_equal(r->data.std[0], 247000);
    assert_int_equal(r->data.std[2], 261600);
    assert_int_equal(r->data.pad, 4);
    assert_true(r->data.random_crop);
    assert_true(r->data.flip);
    niti_recipe_close(r);
  }
}

static void absent_keys_have_the_documented_defaults(void **state) {
  NitiRecipe *r = parsed(HEAD);
  (void)state;
  assert_int_equal(r->data.kind, NITI_DATA_AUTO);
  assert_int_equal(r->data.stat_count, 0);
  assert_int_equal(r->data.pad, 0);
  assert_false(r->data.random_crop);
  assert_false(r->data.flip);
  assert_int_equal(r->data.fit, NITI_FIT_CROP);
  assert_int_equal(r->data.resize, 0);
  assert_int_equal(r->data.bad_files, NITI_BAD_ERROR);
  assert_int_equal(r->batch, 64);
  assert_int_equal(r->epochs, 10);
  assert_int_equal(r->max_steps, 0);
  assert_true(r->seed == 1);
  assert_int_equal(r->loss, NITI_LOSS_NITI);
  assert_int_equal(r->round_activation, NITI_NEAREST);
  assert_int_equal(r->round_error, NITI_NEAREST);
  assert_int_equal(r->optimizer == &niti_optimizer_niti, true);
  assert_int_equal(r->mu.count, 1);
  assert_int_equal(niti_recipe_mu(r, 7), 4);
  assert_round_trip(r);
  niti_recipe_close(r);
}

/* The kind is a value like any other: read, kept, and written from what was kept. */
static void the_kind_of_update_is_kept(void **state) {
  NitiRecipe *r = parsed("name: t\nmodel: mlp\nupdate: {kind: niti}\n");
  (void)state;
  assert_int_equal(r->optimizer == &niti_optimizer_niti, true);
  assert_string_equal(r->optimizer->name, "niti");
  assert_non_null(strstr(r->text, "update:\n  kind: niti\n"));
  niti_recipe_close(r);
}

/* Keys for signed values; without `type` the data set decides. */
static void types_of_values_are_read(void **state) {
  (void)state;
  NitiRecipe *r = parsed(
      "name: t\nmodel: {name: lenet5, input: [28, 28, 2]}\n"
      "data: {type: int16, mean: [-0.000001, 0.5], std: [0.25, 1]}\n");
  assert_true(r->data.type_given);
  assert_int_equal(r->data.type, NITI_INT16);
  assert_int_equal(r->data.mean[0], -1);
  assert_int_equal(r->data.mean[1], 500000);
  assert_non_null(strstr(r->text, "type: int16"));
  assert_round_trip(r);
  niti_recipe_close(r);
  r = parsed("name: t\nmodel: lenet5\ndata: {kind: npy, mean: [-1], std: [0.25], validation: 12.5%}\n");
  assert_int_equal(r->data.kind, NITI_DATA_NPY);
  assert_false(r->data.type_given);
  assert_int_equal(r->data.type, NITI_UINT8);
  assert_int_equal(r->data.mean[0], -1000000);
  assert_int_equal(r->data.validation_share, 125000);
  assert_round_trip(r);
  niti_recipe_close(r);
  r = parsed("name: t\nmodel: lenet5\ndata: {kind: csv, validation: 100}\n");
  assert_int_equal(r->data.kind, NITI_DATA_CSV);
  assert_int_equal(r->data.validation_count, 100);
  assert_round_trip(r);
  niti_recipe_close(r);
}

static void every_value_is_read(void **state) {
  NitiRecipe *r = parsed(
      "name: t\nmodel: {name: alexnet-128, classes: 7, input: [130, 140, 2]}\n"
      "data: {kind: folder, mean: [0.000001, 1], std: [7.5, 0.25], pad: 3, crop: random, flip: true, fit: stretch, resize: 150, "
      "bad_files: skip, validation: 0.25}\n"
      "batch: 3\nepochs: 5\nmax_steps: 4294967295\nseed: 18446744073709551615\nloss: softmax\n"
      "rounding: {activation: stochastic, error: pseudo-stochastic}\n"
      "update: {kind: niti, mu: [{epoch: 0, mu: 30}, {mu: 1, epoch: 3}]}\n");
  (void)state;
  assert_int_equal(r->model->classes, 7);
  assert_int_equal(r->model->input.h, 130);
  assert_int_equal(r->model->input.w, 140);
  assert_int_equal(r->model->input.c, 2);
  assert_int_equal(r->data.kind, NITI_DATA_FOLDER);
  assert_int_equal(r->data.mean[0], 1);
  assert_int_equal(r->data.mean[1], 1000000);
  assert_int_equal(r->data.std[0], 7500000);
  assert_int_equal(r->data.std[1], 250000);
  assert_int_equal(r->data.stat_count, 2);
  assert_int_equal(r->data.pad, 3);
  assert_true(r->data.random_crop);
  assert_true(r->data.flip);
  assert_int_equal(r->data.fit, NITI_FIT_STRETCH);
  assert_int_equal(r->data.resize, 150);
  assert_int_equal(r->data.bad_files, NITI_BAD_SKIP);
  assert_int_equal(r->data.validation_share, 250000);
  assert_int_equal(r->batch, 3);
  assert_int_equal(r->epochs, 5);
  assert_true(r->max_steps == 4294967295);
  assert_true(r->seed == UINT64_MAX);
  assert_int_equal(r->loss, NITI_LOSS_SOFTMAX);
  assert_int_equal(r->round_activation, NITI_STOCHASTIC);
  assert_int_equal(r->round_error, NITI_PSEUDO_STOCHASTIC);
  assert_round_trip(r);
  assert_int_equal(niti_recipe_place(r, 10, 50), NITI_OK);
  assert_int_equal(niti_recipe_mu(r, 29), 30);
  assert_int_equal(niti_recipe_mu(r, 30), 1);
  niti_recipe_close(r);
}

/* Their defaults, every value, and a square as long as the longer side. */
static void augmentation_is_read(void **state) {
  (void)state;
  NitiRecipe *r = parsed(HEAD "data: {crop: resized, brightness: 1, cutout: 28}\n");
  assert_true(r->data.resized_crop && !r->data.random_crop);
  assert_true(r->data.scale[0] == 80000 && r->data.scale[1] == 1000000);
  assert_true(r->data.aspect[0] == 750000 && r->data.aspect[1] == 1333333);
  assert_true(r->data.brightness == 1000000 && r->data.contrast == 0 && r->data.cutout == 28);
  assert_true(niti_recipe_lowering(r, 4, true).changes_images && !niti_recipe_lowering(r, 4, false).changes_images);
  assert_round_trip(r);
  niti_recipe_close(r);
  r = parsed(
      "name: t\nmodel: {name: vgg-small-7, input: [32, 40, 3]}\ndata: {crop: resized, scale: [0.000001, 0.25], aspect: "
      "[0.0625, 16], cutout: 40, brightness: 0.125, contrast: 0.000001, saturation: 0.5}\n");
  assert_true(r->data.scale[0] == 1 && r->data.scale[1] == 250000);
  assert_true(r->data.aspect[0] == 62500 && r->data.aspect[1] == 16000000);
  assert_true(r->data.brightness == 125000 && r->data.contrast == 1 && r->data.saturation == 500000 && r->data.cutout == 40);
  assert_round_trip(r);
  niti_recipe_close(r);
  r = parsed(HEAD "loss: softmax\ndata: {type: int16, mixup: 0.2}\n");
  assert_true(r->data.mixup == NITI_MIXUP_EDGES && niti_recipe_lowering(r, 4, true).changes_images);
  assert_round_trip(r);
  niti_recipe_close(r);
  r = parsed(HEAD "data: {type: int8, crop: random, cutout: 3}\n");
  assert_true(r->data.cutout == 3 && r->data.random_crop && !niti_recipe_lowering(r, 4, true).changes_images);
  assert_round_trip(r);
  niti_recipe_close(r);
}

/* Read by value, and written in one way. */
static void mixup_is_a_number(void **state) {
  static const struct {
    const char *written;
    NitiMixup mixup;
    const char *resolved; /* NULL: left out */
  } all[] = {{"0.2", NITI_MIXUP_EDGES, "mixup: 0.2,"},
             {"0.20", NITI_MIXUP_EDGES, "mixup: 0.2,"},
             {"0.200000", NITI_MIXUP_EDGES, "mixup: 0.2,"},
             {"'0.2'", NITI_MIXUP_EDGES, "mixup: 0.2,"},
             {"1", NITI_MIXUP_EVEN, "mixup: 1,"},
             {"1.0", NITI_MIXUP_EVEN, "mixup: 1,"},
             {"0", NITI_MIXUP_NONE, NULL},
             {"0.0", NITI_MIXUP_NONE, NULL}};
  static const char *const wrong[] = {"none", "0.21", "1.000001", "2", "-0.2", "0.2000001", ".2", "[0.2]", "~", "'0.20'"};
  NitiRecipe *r;
  char set[64];
  const char *const sets[] = {set};
  (void)state;
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    (void)snprintf(set, sizeof set, "data.mixup=%s", all[i].written);
    assert_int_equal(niti_recipe_parse(&r, HEAD "loss: softmax\ndata: {mixup: 1}\n", "r.yaml", sets, 1, NULL), NITI_OK);
    assert_int_equal(r->data.mixup, all[i].mixup);
    assert_true(all[i].resolved ? strstr(r->text, all[i].resolved) != NULL : strstr(r->text, "mixup") == NULL);
    assert_round_trip(r);
    niti_recipe_close(r);
  }
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
    (void)snprintf(set, sizeof set, "data.mixup=%s", wrong[i]);
    assert_int_equal(niti_recipe_parse(&r, HEAD "loss: softmax\n", "r.yaml", sets, 1, NULL), NITI_ERROR_ARGUMENT);
    assert_non_null(strstr(niti_error(), "data: mixup: expected one of: 0, 0.2, 1, found "));
  }
}

/* `none` is what a recipe without the key has, and what the resolved text leaves out. */
static void averages_can_be_switched_off(void **state) {
  static const char *const none[] = {"average=none"}, *const on[] = {"average={from: {at: 50%}}"};
  (void)state;
  NitiRecipe *without = parsed(HEAD "update: {kind: sgd}\n"), *r = parsed(HEAD "average: none\n");
  assert_false(niti_averaging_on(&r->average)); /* of update niti, which has no average */
  niti_recipe_close(r);
  assert_int_equal(niti_recipe_parse(&r, HEAD "update: {kind: sgd}\naverage: {from: {epoch: 1}}\n", "r.yaml", none, 1, NULL),
                   NITI_OK);
  assert_false(niti_averaging_on(&r->average));
  assert_string_equal(r->text, without->text);
  assert_round_trip(r);
  niti_recipe_close(r);
  niti_recipe_close(without);
  assert_int_equal(niti_recipe_parse(&r, HEAD "update: {kind: sgd}\naverage: none\n", "r.yaml", on, 1, NULL), NITI_OK);
  assert_true(niti_averaging_on(&r->average) && r->average.from.unit == NITI_POSITION_SHARE);
  niti_recipe_close(r);
}

static void choices_follow_the_enumerations(void **state) {
  static const char *const modes[] = {"nearest", "pseudo-stochastic", "stochastic", "truncate", "stochastic-byte"};
  static const NitiRounding values[] = {NITI_NEAREST, NITI_PSEUDO_STOCHASTIC, NITI_STOCHASTIC, NITI_TRUNCATE,
                                        NITI_STOCHASTIC_BYTE};
  static const char *const kinds[] = {"auto", "idx", "cifar10", "cifar100", "folder"};
  static const NitiDataKind kind_values[] = {NITI_DATA_AUTO, NITI_DATA_IDX, NITI_DATA_CIFAR10, NITI_DATA_CIFAR100,
                                             NITI_DATA_FOLDER};
  char text[128];
  (void)state;
  for (size_t i = 0; i < 5; ++i) {
    (void)snprintf(text, sizeof text, HEAD "rounding: {error: %s}\n", modes[i]);
    NitiRecipe *r = parsed(text);
    assert_int_equal(r->round_error, values[i]);
    assert_int_equal(r->round_activation, NITI_NEAREST);
    niti_recipe_close(r);
  }
  for (size_t i = 0; i < 5; ++i) {
    (void)snprintf(text, sizeof text, HEAD "data: {kind: %s}\n", kinds[i]);
    NitiRecipe *r = parsed(text);
    assert_int_equal(r->data.kind, kind_values[i]);
    niti_recipe_close(r);
  }
}

/* ---- Edits ---- */

static void sets_apply_in_order(void **state) {
  static const char *const sets[] = {"batch=32",
                                     "batch=128",
                                     "seed=9",
                                     "update.mu=[{epoch: 0, mu: 5}]",
                                     "data.mean=auto",
                                     "data.std=auto",
                                     "model.classes=100",
                                     "model.input=[64, 32, 3]",
                                     "rounding.error=stochastic",
                                     "data.flip=false",
                                     "update.mu.0.mu=6",
                                     "name=renamed"};
  NitiRecipe *r = loaded("vgg-small-7-cifar10", sets, sizeof sets / sizeof *sets);
  (void)state;
  assert_int_equal(r->batch, 128);
  assert_true(r->seed == 9);
  assert_int_equal(r->mu.count, 1);
  assert_int_equal(r->mu.points[0].value, 6000000);
  assert_int_equal(r->data.stat_count, 0);
  assert_int_equal(r->model->classes, 100);
  assert_int_equal(r->model->input.h, 64);
  assert_int_equal(r->round_error, NITI_STOCHASTIC);
  assert_false(r->data.flip);
  assert_string_equal(r->name, "renamed");
  assert_round_trip(r);
  niti_recipe_close(r);
}

static void sets_make_what_is_absent_and_replace_models(void **state) {
  static const char *const sets[] = {"data.pad=2", "model.classes=20", "model=mlp", "update.mu=7",
                                     "rounding={activation: truncate}"};
  NitiRecipe *r = NULL;
  (void)state;
  assert_int_equal(niti_recipe_parse(&r, HEAD "rounding:\n", "r.yaml", sets, 5, NULL), NITI_OK);
  assert_int_equal(r->data.pad, 2);
  assert_string_equal(r->model->name, "mlp");
  assert_int_equal(r->model->classes, 10);
  assert_int_equal(niti_recipe_mu(r, 0), 7);
  assert_int_equal(r->round_activation, NITI_TRUNCATE);
  niti_recipe_close(r);
}

static void bad_sets_name_themselves(void **state) {
  static const struct {
    const char *set;
    NitiStatus status;
    const char *message;
  } bad[] = {
      {"batch", NITI_ERROR_ARGUMENT, "--set batch: expected KEY.PATH=VALUE"},
      {"=3", NITI_ERROR_ARGUMENT, "--set =3: expected KEY.PATH=VALUE"},
      {"batch=", NITI_ERROR_ARGUMENT, "--set batch=: expected a value after '='"},
      {"data..pad=1", NITI_ERROR_ARGUMENT, "--set data..pad=1: expected KEY.PATH=VALUE"},
      {"a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a=1", NITI_ERROR_ARGUMENT,
       "--set a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a=1: expected KEY.PATH=VALUE"},
      {"batsch=3", NITI_ERROR_ARGUMENT,
       "--set batsch=3: recipe: unknown key 'batsch', did you mean 'batch'? (expected: name, model, "},
      {"data.padding=3", NITI_ERROR_ARGUMENT, "--set data.padding=3: data: unknown key 'padding' (expected: kind, "},
      {"update.nu=3", NITI_ERROR_ARGUMENT,
       "--set update.nu=3: update: unknown key 'nu', did you mean 'mu'? (expected: kind, mu)"},
      {"batch=many", NITI_ERROR_ARGUMENT, "--set batch=many: batch: expected an integer from 1 to 65536, found 'many'"},
      {"batch=[3]", NITI_ERROR_ARGUMENT, "--set batch=[3]: batch: expected an integer from 1 to 65536, found a list"},
      {"batch=[3", NITI_ERROR_ARGUMENT, "--set batch=[3: malformed YAML: "},
      {"batch.size=3", NITI_ERROR_ARGUMENT, "--set batch.size=3: 'size' lies below a plain value"},
      {"update.mu.x=3", NITI_ERROR_ARGUMENT, "--set update.mu.x=3: 'x' is not a position in a list"},
      {"update.mu.4=3", NITI_ERROR_ARGUMENT, "--set update.mu.4=3: the list has no item 4 (they count from 0)"},
      {"update.mu.0=3", NITI_ERROR_ARGUMENT, "--set update.mu.0=3: update: mu: expected a mapping, found '3'"},
      {"data.flip=yes", NITI_ERROR_ARGUMENT, "--set data.flip=yes: data: flip: expected true or false, found 'yes'"},
      {"seed=-1", NITI_ERROR_ARGUMENT, "--set seed=-1: seed: expected an integer from 0 to 18446744073709551615, found '-1'"},
      {"seed=18446744073709551616", NITI_ERROR_ARGUMENT, "--set seed=18446744073709551616: seed: expected an integer"},
      {"model=lenet6", NITI_ERROR_ARGUMENT,
       "--set model=lenet6: model: no built-in model 'lenet6', did you mean 'lenet5'? (expected: "},
      {"model.layers.0=relu", NITI_ERROR_ARGUMENT, "--set model.layers.0=relu: the recipe's model is described elsewhere"},
      {"model.classes=1", NITI_ERROR_ARGUMENT, "--set model.classes=1: classes: expected an integer from 2 to 65536, found '1'"},
      {"model.input=[4, 4, 1]", NITI_ERROR_MODEL, "built-in lenet5:6:5: conv1: "},
      {"model={name: x, input: [9, 9, 1], classes: 3, layers: [konv]}", NITI_ERROR_ARGUMENT,
       "--set model={name: x, input: [9, 9, 1], classes: 3, layers: [konv]}: unknown layer 'konv'"},
      {"model=absent.yaml", NITI_ERROR_FILE, "--set model=absent.yaml: model: absent.yaml: cannot open: "},
      {"a\nb=1", NITI_ERROR_ARGUMENT, "--set a?b=1: recipe: unknown key 'a?b'"},
      {"batch=*x", NITI_ERROR_ARGUMENT, "--set batch=*x: aliases (*) are not supported"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    NitiRecipe *r = NULL;
    const NitiStatus status = niti_recipe_load(&r, "lenet5-mnist", &bad[i].set, 1);
    if (status != bad[i].status || strncmp(niti_error(), bad[i].message, strlen(bad[i].message)) != 0) {
      fail_msg("status %d: %s\nexpected %d: %s", (int)status, status ? niti_error() : "", (int)bad[i].status, bad[i].message);
    }
    assert_null(r);
  }
}

/* A checkpoint's model text serves whatever the recipe calls its model, and only its overrides can change. */
static void a_given_model_text_is_used(void **state) {
  static const char *const classes[] = {"model.classes=5"}, *const layers[] = {"model.layers=[relu]"},
                           *const name[] = {"model=mlp"};
  const char *model = "name: own\ninput: [4, 4, 1]\nclasses: 3\nlayers: [flatten, {linear: {out: classes}}]\n";
  const char *recipe = "name: t\nmodel: {name: gone-since}\n";
  NitiRecipe *r = NULL;
  (void)state;
  assert_int_equal(niti_recipe_parse(&r, recipe, "c", NULL, 0, model), NITI_OK);
  assert_string_equal(r->model->name, "own");
  assert_int_equal(r->model->classes, 3);
  assert_round_trip(r);
  niti_recipe_close(r);
  assert_int_equal(niti_recipe_parse(&r, recipe, "c", classes, 1, model), NITI_OK);
  assert_int_equal(r->model->nodes[1].spec.out, 5);
  assert_round_trip(r);
  niti_recipe_close(r);
  r = NULL;
  assert_int_equal(niti_recipe_parse(&r, recipe, "c", layers, 1, model), NITI_ERROR_ARGUMENT);
  assert_string_equal(niti_error(), "--set model.layers=[relu]: the model is given (expected model.classes or model.input)");
  assert_int_equal(niti_recipe_parse(&r, recipe, "c", name, 1, model), NITI_ERROR_ARGUMENT);
  assert_null(r);
}

/* ---- Models in recipes ---- */

static void write_text(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0);
  assert_int_equal(fclose(file), 0);
}

static void model_files_lie_beside_the_recipe(void **state) {
  char folder[] = "/tmp/niti-recipe-XXXXXX", model[64], recipe[64];
  const char *set_missing[] = {"model.file=m.yaml"};
  (void)state;
  assert_non_null(mkdtemp(folder));
  (void)snprintf(model, sizeof model, "%s/m.yaml", folder);
  (void)snprintf(recipe, sizeof recipe, "%s/r.yaml", folder);
  write_text(model, "name: own\ninput: [4, 4, 1]\nclasses: 3\nlayers: [flatten, {linear: {out: classes}}]\n");
  write_text(recipe, "name: t\nmodel: m.yaml\n");
  NitiRecipe *r = loaded(recipe, NULL, 0);
  assert_string_equal(r->model->name, "own");
  assert_string_equal(r->model->source, model);
  assert_round_trip(r); /* its text holds the model in full */
  niti_recipe_close(r);
  write_text(recipe, "name: t\nmodel: {file: m.yaml, classes: 4}\n");
  r = loaded(recipe, NULL, 0);
  assert_int_equal(r->model->nodes[1].spec.out, 4);
  niti_recipe_close(r);
  r = NULL;
  assert_int_equal(niti_recipe_load(&r, recipe, set_missing, 1), NITI_ERROR_FILE); /* of the command line: the current folder's */
  write_text(model, "name: own\ninput: [4, 4, 1]\nclasses: 3\nlayers: [flatten, {linear: {oud: classes}}]\n");
  assert_int_equal(niti_recipe_load(&r, recipe, NULL, 0), NITI_ERROR_FORMAT);
  assert_ptr_equal(strstr(niti_error(), model), niti_error());
  assert_non_null(strstr(niti_error(), "m.yaml:4:29: linear1: unknown key 'oud'"));
  (void)unlink(model);
  assert_int_equal(niti_recipe_load(&r, recipe, NULL, 0), NITI_ERROR_FILE);
  assert_ptr_equal(strstr(niti_error(), recipe), niti_error());
  assert_non_null(strstr(niti_error(), "r.yaml:2:15: model: "));
  assert_null(r);
  (void)unlink(recipe);
  (void)rmdir(folder);
}

static void models_can_be_written_in_recipes(void **state) {
  const char *text =
      "name: t\nmodel:\n  name: own\n  input: [4, 4, 1]\n  classes: 3\n  blocks: {b: [flatten]}\n  layers:\n    - block: b\n"
      "    - linear: {out: classes}\nbatch: 8\n";
  static const char *const sets[] = {"model.classes=6", "model.layers.1.linear.name=head"};
  NitiRecipe *r = parsed(text);
  (void)state;
  assert_string_equal(r->model->name, "own");
  assert_int_equal(r->model->nodes[1].spec.line, 9);
  assert_round_trip(r);
  niti_recipe_close(r);
  assert_int_equal(niti_recipe_parse(&r, text, "r.yaml", sets, 2, NULL), NITI_OK);
  assert_int_equal(r->model->nodes[1].spec.out, 6);
  assert_string_equal(r->model->nodes[1].spec.name, "head");
  assert_round_trip(r);
  niti_recipe_close(r);
}

/* ---- Anything else ---- */

static bool try_text(const char *text) {
  NitiRecipe *r = NULL;
  const NitiStatus status = niti_recipe_parse(&r, text, "mutated", NULL, 0, NULL);
  if (status != NITI_OK) {
    assert_null(r);
    assert_true(niti_error()[0] != 0);
    assert_null(strchr(niti_error(), '\n'));
    return false;
  }
  assert_round_trip(r);
  niti_recipe_close(r);
  return true;
}

static bool try_set(const char *text) {
  NitiRecipe *r = NULL;
  const NitiStatus status = niti_recipe_load(&r, "lenet5-mnist", &text, 1);
  if (status != NITI_OK) {
    assert_null(r);
    assert_null(strchr(niti_error(), '\n'));
    return false;
  }
  assert_round_trip(r);
  niti_recipe_close(r);
  return true;
}

static void mutated_texts_never_crash(void **state) {
  const char *inline_model =
      "name: t\nmodel: {name: m, input: [6, 6, 1], classes: 4, blocks: {b: [relu, {dropout: {per: element}}]}, "
      "layers: [{block: {use: b, name: x}}, flatten, {linear: {out: classes}}]}\nbatch: 2\n";
  size_t accepted = 0;
  (void)state;
  for (size_t i = 0; niti_builtin_recipe_texts[i]; ++i)
    accepted += mutate_text(niti_builtin_recipe_texts[i], 400, 3 + i, try_text);
  accepted += mutate_text(inline_model, 1000, 5, try_text);
  accepted += mutate_text("update.mu=[{epoch: 0, mu: 5}, {epoch: 3, mu: 4}]", 1000, 6, try_set);
  accepted += mutate_text("model.input=[29, 30, 1]", 500, 8, try_set);
  assert_true(accepted > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(builtins_parse_and_round_trip),
      cmocka_unit_test(published_settings_are_as_published),
      cmocka_unit_test(absent_keys_have_the_documented_defaults),
      cmocka_unit_test(the_kind_of_update_is_kept),
      cmocka_unit_test(types_of_values_are_read),
      cmocka_unit_test(every_value_is_read),
      cmocka_unit_test(choices_follow_the_enumerations),
      cmocka_unit_test(sets_apply_in_order),
      cmocka_unit_test(sets_make_what_is_absent_and_replace_models),
      cmocka_unit_test(augmentation_is_read),
      cmocka_unit_test(mixup_is_a_number),
      cmocka_unit_test(averages_can_be_switched_off),
      cmocka_unit_test(bad_sets_name_themselves),
      cmocka_unit_test(a_given_model_text_is_used),
      cmocka_unit_test(model_files_lie_beside_the_recipe),
      cmocka_unit_test(models_can_be_written_in_recipes),
      cmocka_unit_test(mutated_texts_never_crash),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
