/* Recipes that are refused: the message of every reason, with its place. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "config/builtin.h"
#include "train/recipe_text.h"

#define HEAD "name: t\nmodel: lenet5\n" /* two lines */

static void wrong_recipes_are_refused(void **state) {
  static const struct {
    const char *text;
    NitiStatus status;
    const char *message;
  } bad[] = {
#define F NITI_ERROR_FORMAT
      {"", F, "r.yaml:1:1: the file is empty"},
      {"relu", F, "r.yaml:1:1: recipe: expected a mapping, found 'relu'"},
      {"name: t\n", F, "r.yaml:1:1: recipe: missing key 'model'"},
      {"model: lenet5\n", F, "r.yaml:1:1: recipe: missing key 'name'"},
      {"name: [t]\nmodel: lenet5\n", F, "r.yaml:1:7: name: expected a name of 1 to 63 characters"},
      {HEAD "batches: 3\n", F,
       "r.yaml:3:1: recipe: unknown key 'batches', did you mean 'batch'? (expected: name, model, data, batch, epochs, max_steps, "
       "seed, loss, label_smoothing, rounding, clip, update, freeze, evaluation, average)"},
      {HEAD "update: {kind: sgd}\naverage: 0.75\n", F, "r.yaml:4:10: average: expected none or a mapping, found '0.75'"},
      {HEAD "update: {kind: sgd}\naverage: {every: {epoch: 1}}\n", F, "r.yaml:4:10: average: missing key 'from'"},
      {HEAD "update: {kind: sgd}\naverage: {from: 3}\n", F, "r.yaml:4:17: average: from: expected a mapping, found '3'"},
      {HEAD "update: {kind: sgd}\naverage: {from: {at: 50%}, to: 3}\n", F, "r.yaml:4:28: average: unknown key 'to'"},
      {HEAD "update: {kind: sgd}\naverage: {from: {at: 50%}, every: {at: 1%}}\n", F,
       "r.yaml:4:36: average: every: unknown key 'at' (expected: epoch, step)"},
      {HEAD "update: {kind: sgd}\naverage: {from: {at: 50%}, every: {step: 0}}\n", F,
       "r.yaml:4:35: average: every: 0 (expected at least 1)"},
      {HEAD "average: {from: {epoch: 1}}\n", F,
       "r.yaml:3:10: average: update niti has no weights of 16 bits to average (expected update: {kind: sgd} or {kind: niti16})"},
      {HEAD "evaluation: true\n", F, "r.yaml:3:13: evaluation: expected a mapping, found 'true'"},
      {HEAD "evaluation: {mirror: true}\n", F, "r.yaml:3:14: evaluation: unknown key 'mirror' (expected: flip)"},
      {HEAD "evaluation: {flip: 2}\n", F, "r.yaml:3:20: evaluation: flip: expected true or false, found '2'"},
      {HEAD "freeze: conv1\n", F, "r.yaml:3:9: freeze: expected a list, found 'conv1'"},
      {HEAD "freeze: [conv1, conv3]\n", F,
       "r.yaml:3:17: freeze: 'conv3' is no layer with weights, did you mean 'conv1'? (expected: one of model 'lenet5')"},
      {HEAD "freeze: [relu1]\n", F, "r.yaml:3:10: freeze: 'relu1' is no layer with weights"},
      {HEAD "freeze: [conv1, conv2, linear1, linear2]\n", F,
       "r.yaml:3:9: freeze: every layer with weights is frozen (expected at least one"},
      {HEAD "batch: 3\nbatch: 4\n", F, "r.yaml:4:1: duplicate key 'batch' (first at line 3)"},
      {HEAD "batch: 0\n", F, "r.yaml:3:8: batch: expected an integer from 1 to 65536, found '0'"},
      {HEAD "batch: 6.4e1\n", F, "r.yaml:3:8: batch: expected an integer from 1 to 65536, found '6.4e1'"},
      {HEAD "epochs: 0\n", F, "r.yaml:3:9: epochs: expected an integer from 1 to 1000000, found '0'"},
      {HEAD "max_steps: 4294967296\n", F, "r.yaml:3:12: max_steps: expected an integer from 0 to 4294967295, found '4294967296'"},
      {HEAD "seed: one\n", F, "r.yaml:3:7: seed: expected an integer from 0 to 18446744073709551615, found 'one'"},
      {HEAD "loss: hinge\n", F, "r.yaml:3:7: loss: expected one of: niti, softmax, found 'hinge'"},
      {HEAD "data: {flip: \"true\"}\n", F, "r.yaml:3:14: data: flip: expected true or false, found \"true\""},
      {HEAD "rounding: nearest\n", F, "r.yaml:3:11: rounding: expected a mapping, found 'nearest'"},
      {HEAD "rounding: {errors: nearest}\n", F,
       "r.yaml:3:12: rounding: unknown key 'errors', did you mean 'error'? (expected: activation, error)"},
      {HEAD "rounding: {error: up}\n", F,
       "r.yaml:3:19: rounding: error: expected one of: nearest, pseudo-stochastic, stochastic, truncate, stochastic-byte, found "
       "'up'"},
      {HEAD "update: 4\n", F, "r.yaml:3:9: update: expected a mapping, found '4'"},
      {HEAD "update: {kind: adam}\n", F, "r.yaml:3:16: update: kind: expected one of: niti, niti16, sgd, found 'adam'"},
      {HEAD "update: {mu: -1}\n", F,
       "r.yaml:3:14: update: mu: expected a decimal number from 0 to 30 with at most 6 decimals, found '-1'"},
      {HEAD "update: {mu: 3.0000001}\n", F,
       "r.yaml:3:14: update: mu: expected a decimal number from 0 to 30 with at most 6 decimals, found '3.0000001'"},
      {HEAD "update: {mu: 31}\n", F,
       "r.yaml:3:14: update: mu: expected a decimal number from 0 to 30 with at most 6 decimals, found '31'"},
      {HEAD "update: {mu: []}\n", F, "r.yaml:3:14: update: mu: 0 positions (expected 1 to 32)"},
      {HEAD "update: {mu: [4, 3]}\n", F, "r.yaml:3:15: update: mu: expected a mapping, found '4'"},
      {HEAD "update: {mu: [{epoch: 1, mu: 3}]}\n", F, "r.yaml:3:15: update: mu: the first position is epoch 1 (expected 0)"},
      {HEAD "update: {mu: [{mu: 3}]}\n", F, "r.yaml:3:15: update: mu: missing key 'epoch', 'step' or 'at'"},
      {HEAD "update: {mu: [{epoch: 0}]}\n", F, "r.yaml:3:15: update: mu: missing key 'mu'"},
      {HEAD "update: {mu: [{epoch: 0, mu: 3, lr: 2}]}\n", F,
       "r.yaml:3:33: update: mu: unknown key 'lr' (expected: epoch, step, at, mu)"},
      {HEAD "update:\n  mu:\n    - {epoch: 0, mu: 3}\n    - {epoch: 0, mu: 2}\n", F,
       "r.yaml:6:7: update: mu: epoch 0 after epoch 0 (expected ascending positions)"},
      {HEAD "update: {mu: [{at: 0%, mu: 3}, {step: 9, epoch: 1, mu: 2}]}\n", F,
       "r.yaml:3:39: update: mu: a second position (expected one of epoch, step and at)"},
      {HEAD "update: {mu: [{at: 1, mu: 3}]}\n", F, "r.yaml:3:20: update: mu: at: expected a decimal number from 0 to 0.999999"},
      {HEAD "update: {mu: [{at: 101%, mu: 3}]}\n", F, "r.yaml:3:20: update: mu: at: expected a percentage from 0% to 100%"},
      {HEAD "update: {mu: [{step: -1, mu: 3}]}\n", F, "r.yaml:3:22: update: mu: step: expected an integer from 0 to 4294967295"},
      {HEAD "data: idx\n", F, "r.yaml:3:7: data: expected a mapping, found 'idx'"},
      {HEAD "data: {sort: idx}\n", F,
       "r.yaml:3:8: data: unknown key 'sort' (expected: kind, type, default, mean, std, pad, crop, flip, scale, aspect, "
       "cutout, brightness, contrast, saturation, mixup, fit, resize, bad_files, validation)"},
      {HEAD "data: {kind: mnist}\n", F,
       "r.yaml:3:14: data: kind: expected one of: auto, idx, cifar10, cifar100, folder, npy, csv, found 'mnist'"},
      {HEAD "data: {mean: 0.5}\n", F, "r.yaml:3:14: data: mean: expected auto or a list of 1 to 4096 numbers"},
      {HEAD "data: {mean: [0.5]}\n", F, "r.yaml:3:14: data: 1 values of mean and 0 of std (expected as many of both)"},
      {HEAD "data: {std: [0.5]}\n", F, "r.yaml:3:13: data: 0 values of mean and 1 of std (expected as many of both)"},
      {HEAD "data: {mean: [0.5, 0.5], std: [0.5, 0.5]}\n", F,
       "r.yaml:3:14: data: mean and std of 2 channels, but the model's input has 1"},
      {HEAD "data: {mean: [0.1234567], std: [0.5]}\n", F,
       "r.yaml:3:15: data: mean: expected a decimal number from 0 to 1 with at most 6 decimals, found '0.1234567'"},
      {HEAD "data: {mean: [1.000001], std: [0.5]}\n", F, "r.yaml:3:15: data: mean: expected a decimal number from 0 to 1"},
      {HEAD "data: {mean: [1e-3], std: [0.5]}\n", F, "r.yaml:3:15: data: mean: expected a decimal number from 0 to 1"},
      {HEAD "data: {mean: [.5], std: [0.5]}\n", F, "r.yaml:3:15: data: mean: expected a decimal number from 0 to 1"},
      {HEAD "data: {mean: [0.], std: [0.5]}\n", F, "r.yaml:3:15: data: mean: expected a decimal number from 0 to 1"},
      {HEAD "data: {mean: [-0.5], std: [0.5]}\n", F, "r.yaml:3:15: data: mean: expected a decimal number from 0 to 1"},
      {HEAD "data: {mean: [nan], std: [0.5]}\n", F, "r.yaml:3:15: data: mean: expected a decimal number from 0 to 1"},
      {HEAD "data: {mean: [99999999999999999999], std: [0.5]}\n", F,
       "r.yaml:3:15: data: mean: expected a decimal number from 0 to 1"},
      {HEAD "data: {mean: [0.5], std: [0]}\n", F,
       "r.yaml:3:27: data: std: expected a decimal number from 0.000001 to 8 with at most 6"},
      {HEAD "data: {pad: -1}\n", F, "r.yaml:3:13: data: pad: expected an integer from 0 to 1024, found '-1'"},
      {HEAD "data: {crop: center}\n", F, "r.yaml:3:14: data: crop: expected one of: centre, random, resized, found 'center'"},
      {HEAD "data: {scale: [0.1, 1]}\n", F, "r.yaml:3:15: data: scale: only crop resized has one (expected crop: resized)"},
      {HEAD "data: {crop: random, aspect: [1, 1]}\n", F, "r.yaml:3:30: data: aspect: only crop resized has one"},
      {HEAD "data: {crop: resized, scale: 0.5}\n", F, "r.yaml:3:30: data: scale: expected a list of two numbers"},
      {HEAD "data: {crop: resized, scale: [0, 1]}\n", F,
       "r.yaml:3:31: data: scale: expected a decimal number from 0.000001 to 1"},
      {HEAD "data: {crop: resized, scale: [0.5, 1.5]}\n", F,
       "r.yaml:3:36: data: scale: expected a decimal number from 0.000001 to 1"},
      {HEAD "data: {crop: resized, scale: [0.5, 0.4]}\n", F,
       "r.yaml:3:30: data: scale: the first number is larger than the second"},
      {HEAD "data: {crop: resized, aspect: [0.06, 1]}\n", F,
       "r.yaml:3:32: data: aspect: expected a decimal number from 0.0625 to 16"},
      {HEAD "data: {crop: resized, aspect: [1, 16.1]}\n", F,
       "r.yaml:3:35: data: aspect: expected a decimal number from 0.0625 to 16"},
      {HEAD "data: {crop: resized, pad: 4}\n", F,
       "r.yaml:3:28: data: pad: crop resized takes a part of the image itself (expected 0)"},
      {HEAD "data: {type: int8, crop: resized}\n", F,
       "r.yaml:3:26: data: crop: resized is for images (expected data.type uint8, found int8)"},
      {HEAD "data: {cutout: 29}\n", F,
       "r.yaml:3:16: data: cutout: a square of 29 is larger than the network's input of 28x28 (expected 0 to 28)"},
      {HEAD "data: {cutout: -1}\n", F, "r.yaml:3:16: data: cutout: expected an integer from 0"},
      {HEAD "data: {brightness: 1.1}\n", F, "r.yaml:3:20: data: brightness: expected a decimal number from 0 to 1 with"},
      {HEAD "data: {contrast: -0.1}\n", F, "r.yaml:3:18: data: contrast: expected a decimal number from 0 to 1 with"},
      {HEAD "data: {type: int16, contrast: 0.1}\n", F,
       "r.yaml:3:31: data: contrast: colour jitter is for images (expected data.type uint8, found int16)"},
      {HEAD "data: {saturation: 0.2}\n", F,
       "r.yaml:3:20: data: saturation: images of 1 channel have none (expected a model input of 3 channels)"},
      {"name: t\nmodel: {name: lenet5, input: [28, 28, 2]}\ndata: {brightness: 0.2}\n", F,
       "r.yaml:3:20: data: brightness: images of 2 channels have none (expected a model input of 1 or 3 channels)"},
      {HEAD "loss: softmax\ndata: {mixup: 0.3}\n", F, "r.yaml:4:15: data: mixup: expected one of: 0, 0.2, 1, found '0.3'"},
      {HEAD "data: {mixup: 0.2}\n", F,
       "r.yaml:3:15: data: mixup gives an image two labels, of which loss niti takes one (expected loss: softmax)"},
      {HEAD "data: {flip: 1}\n", F, "r.yaml:3:14: data: flip: expected true or false, found '1'"},
      {HEAD "data: {fit: pad}\n", F, "r.yaml:3:13: data: fit: expected one of: crop, stretch, found 'pad'"},
      {HEAD "data: {validation: 1.5}\n", F, "r.yaml:3:20: data: validation: expected a decimal number from 0.000001 to 0.999999"},
      {HEAD "data: {validation: -1}\n", F, "r.yaml:3:20: data: validation: expected "},
      {HEAD "data: {validation: 120%}\n", F,
       "r.yaml:3:20: data: validation: expected a percentage from 0.0001% to 99.9999% with at most 4 decimals, found '120%'"},
      {HEAD "data: {validation: 1.00001%}\n", F, "r.yaml:3:20: data: validation: expected a percentage from 0.0001% to 99.9999%"},
      {HEAD "data: {validation: [1]}\n", F, "r.yaml:3:20: data: validation: expected "},
      {HEAD "data: {bad_files: ignore}\n", F, "r.yaml:3:19: data: bad_files: expected one of: error, skip"},
      {HEAD "data: {resize: 20}\n", F,
       "r.yaml:3:16: data: resize: 20 is less than the network's input of 28x28 (expected 0 or at least 28)"},
      {"name: t\nmodel:\n", F, "r.yaml:2:7: model: expected a mapping, found nothing"},
      {"name: t\nmodel: [lenet5]\n", F, "r.yaml:2:8: model: expected a mapping, found a list"},
      {"name: t\nmodel: lenet6\n", F,
       "r.yaml:2:8: model: no built-in model 'lenet6', did you mean 'lenet5'? (expected: alexnet, "},
      {"name: t\nmodel: {}\n", F, "r.yaml:2:8: model: expected either 'name', 'file' or a description with 'layers'"},
      {"name: t\nmodel: {name: lenet5, file: a.yaml}\n", F, "r.yaml:2:8: model: expected either 'name', 'file' or a description"},
      {"name: t\nmodel: {name: lenet5, width: 3}\n", F,
       "r.yaml:2:23: model: unknown key 'width' (expected: name, file, classes, input)"},
      {"name: t\nmodel: {name: [a]}\n", F, "r.yaml:2:15: model: expected a word, found a list"},
      {"name: t\nmodel: {name: lenet5, classes: 1}\n", F, "r.yaml:2:32: classes: expected an integer from 2 to 65536, found '1'"},
      {"name: t\nmodel: {name: lenet5, input: [28, 28]}\n", F, "r.yaml:2:30: input: expected [height, width, channels]"},
      {"name: t\nmodel: ./absent.yaml\n", NITI_ERROR_FILE,
       "r.yaml:2:8: model: ./absent.yaml: cannot open: No such file or directory"},
      {"name: t\nmodel: {name: x, layers: [relu]}\n", F, "r.yaml:2:8: model: missing key 'input'"},
      {"name: t\nmodel: {name: x, file: y, layers: [relu]}\n", F,
       "r.yaml:2:18: model: unknown key 'file' (expected: name, input, classes, blocks, layers, freeze)"},
      {"name: t\nmodel:\n  name: x\n  input: [4, 4, 1]\n  classes: 3\n  layers:\n    - linear: {out: 3}\n", NITI_ERROR_MODEL,
       "r.yaml:7:7: linear1: "},
#undef F
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    NitiRecipe *r = NULL;
    const NitiStatus status = niti_recipe_parse(&r, bad[i].text, "r.yaml", NULL, 0, NULL);
    if (status != bad[i].status || strncmp(niti_error(), bad[i].message, strlen(bad[i].message)) != 0) {
      fail_msg("%s\ngave status %d: %s\nexpected %d: %s", bad[i].text, (int)status, status ? niti_error() : "",
               (int)bad[i].status, bad[i].message);
    }
    assert_null(r);
  }
}

static void unknown_recipes_are_refused(void **state) {
  NitiRecipe *r = NULL;
  (void)state;
  assert_int_equal(niti_recipe_load(&r, "lenet5", NULL, 0), NITI_ERROR_ARGUMENT);
  assert_ptr_equal(strstr(niti_error(), "no built-in recipe 'lenet5', did you mean 'lenet5-fashion-mnist'? (expected: alexnet-"),
                   niti_error());
  for (const char *const *name = niti_builtin_recipe_names; *name; ++name) assert_non_null(strstr(niti_error(), *name));
  assert_int_equal(niti_recipe_load(&r, "absent.yml", NULL, 0), NITI_ERROR_FILE);
  assert_string_equal(niti_error(), "absent.yml: cannot open: No such file or directory");
  assert_null(r);
}

static void lists_of_names_end_with_a_whole_one(void **state) {
  static const char *const names[] = {"first", "second", "third", NULL};
  static const struct {
    size_t size;
    const char *list;
  } expected[] = {{21, "first, second, third"},
                  {20, "first, second, ..."},
                  {19, "first, second, ..."},
                  {18, "first, ..."},
                  {11, "first, ..."},
                  {10, "..."},
                  {6, "..."}};
  (void)state;
  for (size_t i = 0; i < sizeof expected / sizeof *expected; ++i) {
    char buffer[32];
    memset(buffer, 'x', sizeof buffer);
    assert_string_equal(niti_builtin_list(buffer, expected[i].size, names), expected[i].list);
    assert_int_equal(buffer[expected[i].size], 'x');
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(wrong_recipes_are_refused),
      cmocka_unit_test(unknown_recipes_are_refused),
      cmocka_unit_test(lists_of_names_end_with_a_whole_one),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
