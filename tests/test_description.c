/* Model descriptions: the built-in ones, what the format means, and the message of everything that it refuses. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
/* clang-format on */

#include "config/builtin.h"
#include "config/yaml.h"
#include "model/description.h"
#include "yaml_mutation.h"

#define HEAD "name: t\ninput: [8, 8, 3]\nclasses: 10\n" /* three lines */
#define TAIL "  - flatten\n  - linear: {out: classes}\n"

static NitiDescription *parsed(const char *text) {
  NitiDescription *d = NULL;
  const NitiStatus status = niti_description_parse(&d, text, "m.yaml", NULL);
  if (status != NITI_OK) fail_msg("%s", niti_error());
  return d;
}

static void assert_same(const NitiDescription *a, const NitiDescription *b) {
  assert_string_equal(a->name, b->name);
  assert_memory_equal(&a->input, &b->input, sizeof a->input);
  assert_int_equal(a->classes, b->classes);
  assert_int_equal(a->node_count, b->node_count);
  for (int32_t i = 0; i < a->node_count; ++i) {
    NitiDescribedNode x = a->nodes[i], y = b->nodes[i];
    x.spec.line = x.spec.column = y.spec.line = y.spec.column = 0; /* the texts are laid out differently */
    assert_memory_equal(&x, &y, offsetof(NitiDescribedNode, input_count) + sizeof x.input_count); /* no padding */
  }
  assert_string_equal(a->text, b->text);
}

/* Weights of the whole network, and the shape after each node. */
static int64_t weights_of(const NitiDescription *d) {
  NitiShape *shapes = calloc((size_t)d->node_count + 1, sizeof *shapes);
  int64_t total = 0;
  assert_non_null(shapes);
  shapes[0] = d->input;
  for (int32_t i = 0; i < d->node_count; ++i) {
    const NitiDescribedNode *node = &d->nodes[i];
    NitiShape in[NITI_INPUTS_MAX] = {shapes[node->inputs[0]]}, weight;
    if (node->input_count > 1) in[1] = shapes[node->inputs[1]];
    assert_int_equal(node->spec.type->shape(&node->spec, in, &shapes[i + 1]), NITI_OK);
    if (!node->spec.type->weight_shape) continue;
    node->spec.type->weight_shape(&node->spec, in[0], &weight);
    total += (int64_t)niti_shape_count(weight);
  }
  free(shapes);
  return total;
}

/* ---- Built-in models ---- */

static void builtins_parse_and_round_trip(void **state) {
  (void)state;
  for (const char *const *name = niti_builtin_models(); *name; ++name) {
    NitiDescription *d, *again;
    if (niti_description_load(&d, *name, NULL) != NITI_OK) fail_msg("%s", niti_error());
    assert_string_equal(d->name, *name);
    assert_int_equal(niti_description_parse(&again, d->text, "again", NULL), NITI_OK);
    assert_same(d, again);
    niti_description_close(d);
    niti_description_close(again);
  }
}

/* Known sizes: of AlexNet (61,100,840) and LeNet (431,080) as published less their biases, the VGGs from their widths;
 * MobileNetV2 as torchvision has it (3,504,872) with a linear layer of 10 classes, MobileNet as in MLPerf Tiny (221,794, running
 * statistics and biases included), ResNets as published for CIFAR-10 (ResNet-18 and -34 11,173,962 and 21,282,122; ResNet-20 and
 * -32 269,722 and 464,154, with convolutions in the two shortcuts that only pad there), torchvision's for 224x224 images
 * (11,689,512 and 21,797,672), VGG-16 with batch norm as github.com/kuangliu/pytorch-cifar counts it (14,728,266), VGG8B from its
 * widths (7.3 million in its paper), and of a norm its weight alone. */
static void builtins_have_their_known_sizes(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int32_t nodes, size, channels, classes;
    int64_t weights;
  } known[] = {
      {"lenet5", 10, 28, 1, 10, 431080 - 580},
      {"lenet5-wide", 10, 28, 1, 10, 25 * 32 + 25 * 32 * 64 + 1024 * 128 + 1280},
      {"conv3-bn", 14, 28, 1, 10, 9 * (32 + 32 * 64 + 64 * 128) + 224 + 1152 * 10},
      {"mlp", 6, 28, 1, 10, 784 * 256 + 256 * 128 + 1280},
      {"vgg-small-7", 18, 32, 3, 10, 4656512},
      {"vgg-small-8", 20, 32, 3, 10, 4656512 + 9 * 128 * 128},
      {"vgg-small-9", 22, 32, 3, 10, 4656512 + 9 * 128 * 128 + 9 * 256 * 256},
      {"vgg11", 29, 32, 3, 10, 9220480 - 2752 + 2 * 512 * 512 + 5120},
      {"vgg13", 33, 32, 3, 10, 9404992 - 2944 + 2 * 512 * 512 + 5120},
      {"vgg16", 39, 32, 3, 10, 14714688 - 4224 + 2 * 512 * 512 + 5120},
      {"alexnet", 21, 224, 3, 1000, 61100840 - 10344},
      {"mobilenet-v2", 151, 32, 3, 10, 3504872 - 1281000 - 17056 + 12800},
      {"mobilenet-v1-025", 83, 96, 3, 2, 221794 - 2 - 4 * 2736},
      {"ds-cnn", 29, 28, 1, 10, 576 + 4 * (576 + 4096) + 576 + 640},
      {"vgg-small-9-bn", 29, 32, 3, 10, 4656512 + 9 * 128 * 128 + 9 * 256 * 256 + 2176},
      {"vgg-small-7-bn", 23, 32, 3, 10, 4656512 + 1792},
      {"vgg-small-8-bn", 26, 32, 3, 10, 4656512 + 9 * 128 * 128 + 1920},
      {"vgg16-bn", 46, 32, 3, 10, 14728266 - 4224 - 4224 - 10},
      {"vgg8b", 28, 28, 1, 10, 9 * (128 + 128 * 256 + 256 * 256 + 256 * 512 + 2 * 512 * 512) + 512 * 1024 + 10240 + 3200},
      {"resnet18-imagenet", 69, 224, 3, 1000, 11689512 - 4800 - 1000},
      {"resnet34-imagenet", 125, 224, 3, 1000, 21797672 - 8512 - 1000},
      {"resnet18", 68, 32, 3, 10, 11173962 - 4800 - 10},
      {"resnet34", 124, 32, 3, 10, 21282122 - 8512 - 10},
      {"resnet20", 73, 32, 3, 10, 269722 - 688 - 10 + 17 * 32 + 33 * 64},
      {"resnet32", 115, 32, 3, 10, 464154 - 1136 - 10 + 17 * 32 + 33 * 64},
      {"alexnet-128", 21, 128, 3, 10, 61100840 - 10344 - (9216 - 2304) * 4096 - 990 * 4096},
  };
  size_t count = 0;
  while (niti_builtin_models()[count]) ++count;
  assert_int_equal(count, sizeof known / sizeof *known);
  for (size_t i = 0; i < count; ++i) {
    NitiDescription *d;
    assert_int_equal(niti_description_load(&d, known[i].name, NULL), NITI_OK);
    assert_int_equal(d->node_count, known[i].nodes);
    assert_int_equal(d->input.h, known[i].size);
    assert_int_equal(d->input.w, known[i].size);
    assert_int_equal(d->input.c, known[i].channels);
    assert_int_equal(d->classes, known[i].classes);
    if (weights_of(d) != known[i].weights) fail_msg("%s has %lld weights", d->name, (long long)weights_of(d));
    niti_description_close(d);
  }
}

static void overrides_are_applied_and_kept(void **state) {
  const NitiDescriptionOverrides overrides = {100, {1, 64, 48, 1}};
  NitiDescription *d, *again;
  (void)state;
  assert_int_equal(niti_description_load(&d, "vgg-small-7", &overrides), NITI_OK);
  assert_int_equal(d->classes, 100);
  assert_int_equal(d->nodes[d->node_count - 1].spec.out, 100);
  assert_int_equal(d->input.w, 48);
  assert_int_equal(niti_description_parse(&again, d->text, "again", NULL), NITI_OK);
  assert_same(d, again);
  niti_description_close(d);
  niti_description_close(again);
}

static void bad_overrides_are_refused(void **state) {
  const NitiDescriptionOverrides few = {1, {0, 0, 0, 0}}, small = {0, {1, 4, 4, 3}}, empty = {0, {1, 32, 0, 3}};
  NitiDescription *d = NULL;
  (void)state;
  assert_int_equal(niti_description_load(&d, "lenet5", &few), NITI_ERROR_ARGUMENT);
  assert_non_null(strstr(niti_error(), "built-in lenet5: 1 classes asked for (expected 2 to 65536)"));
  assert_int_equal(niti_description_load(&d, "vgg-small-7", &empty), NITI_ERROR_ARGUMENT);
  assert_non_null(strstr(niti_error(), "an input of 32x0x3 asked for"));
  /* 4 -> 2 -> 1, and the third pool finds nothing to halve */
  assert_int_equal(niti_description_load(&d, "vgg-small-7", &small), NITI_ERROR_MODEL);
  assert_ptr_equal(strstr(niti_error(), "built-in vgg-small-7:20:5: maxpool3: "), niti_error());
  assert_null(d);
}

/* ---- What the format means ---- */

static void fields_take_defaults_pairs_and_words(void **state) {
  NitiDescription *d = parsed(HEAD
                              "layers:\n"
                              "  - conv: {out: 6, kernel: [3, 1], stride: 2, padding: [1, 0]}\n"
                              "  - relu:\n"
                              "  - conv:\n"
                              "      out: 4\n"
                              "      kernel: 1\n"
                              "      name: second\n"
                              "  - maxpool: {kernel: [2, 1]}\n"
                              "  - avgpool: {kernel: 2, stride: 1}\n"
                              "  - dropout: {per: element}\n"
                              "  - dropout\n"
                              "  - global-avgpool: {}\n" TAIL);
  (void)state;
  const NitiLayerSpec *conv = &d->nodes[0].spec;
  assert_string_equal(conv->name, "conv1");
  assert_int_equal(conv->out, 6);
  assert_int_equal(conv->kernel[0], 3);
  assert_int_equal(conv->kernel[1], 1);
  assert_int_equal(conv->stride[0], 2);
  assert_int_equal(conv->stride[1], 2);
  assert_int_equal(conv->padding[0], 1);
  assert_int_equal(conv->padding[1], 0);
  assert_int_equal(conv->line, 5);
  assert_int_equal(conv->column, 5);
  assert_string_equal(d->nodes[2].spec.name, "second");
  assert_int_equal(d->nodes[2].spec.stride[1], 1);
  assert_int_equal(d->nodes[2].spec.padding[0], 0);
  assert_int_equal(d->nodes[3].spec.stride[0], 2);
  assert_int_equal(d->nodes[3].spec.stride[1], 1);
  assert_int_equal(d->nodes[4].spec.stride[0], 1);
  assert_int_equal(d->nodes[5].spec.per, 1);
  assert_string_equal(d->nodes[5].spec.name, "dropout1");
  assert_int_equal(d->nodes[6].spec.per, 0);
  assert_string_equal(d->nodes[6].spec.name, "dropout2");
  assert_string_equal(d->nodes[9].spec.name, "linear1");
  assert_int_equal(d->nodes[9].spec.out, 10);
  for (int32_t i = 0; i < d->node_count; ++i) {
    assert_int_equal(d->nodes[i].inputs[0], i);
    assert_int_equal(d->nodes[i].inputs[1], -1);
    assert_int_equal(d->nodes[i].input_count, 1);
  }
  niti_description_close(d);
}

static void assert_node(const NitiDescription *d, int32_t number, const char *name, int32_t a, int32_t b) {
  const NitiDescribedNode *node = &d->nodes[number - 1];
  assert_in_range(number, 1, d->node_count);
  assert_string_equal(node->spec.name, name);
  assert_int_equal(node->inputs[0], a);
  assert_int_equal(node->inputs[1], b);
}

/* docs/arithmetic.md: repeats unrolled; of a residual the body's nodes, the shortcut's, the addition. */
static void constructs_number_their_nodes_in_order(void **state) {
  NitiDescription *d = parsed(HEAD
                              "blocks:\n"
                              "  down:\n"
                              "    - residual:\n"
                              "        body: [{conv: {out: 6, kernel: 3, stride: 2, padding: 1, name: a}}, relu]\n"
                              "        shortcut: [{conv: {out: 6, kernel: 1, stride: 2, name: b}}]\n"
                              "        name: sum\n"
                              "layers:\n"
                              "  - block: {use: down, name: first}\n"
                              "  - repeat:\n"
                              "      times: 2\n"
                              "      layers:\n"
                              "        - residual: {body: [{conv: {out: 6, kernel: 3, padding: 1, name: c}}]}\n"
                              "        - relu\n"
                              "  - block: down\n" TAIL);
  (void)state;
  assert_int_equal(d->node_count, 16);
  assert_node(d, 1, "first.a", 0, -1);
  assert_node(d, 2, "relu1", 1, -1);
  assert_node(d, 3, "first.b", 0, -1);
  assert_node(d, 4, "first.sum", 2, 3);
  assert_node(d, 5, "c.1", 4, -1);
  assert_node(d, 6, "add2", 5, 4);
  assert_node(d, 7, "relu2", 6, -1);
  assert_node(d, 8, "c.2", 7, -1);
  assert_node(d, 9, "add3", 8, 7);
  assert_node(d, 10, "relu3", 9, -1);
  assert_node(d, 11, "a", 10, -1);
  assert_node(d, 12, "relu4", 11, -1);
  assert_node(d, 13, "b", 10, -1);
  assert_node(d, 14, "sum", 12, 13);
  assert_node(d, 15, "flatten1", 14, -1);
  assert_node(d, 16, "linear1", 15, -1);
  NitiDescription *again = parsed(d->text);
  assert_same(d, again);
  niti_description_close(d);
  niti_description_close(again);
}

static void nested_repeats_number_names_from_the_outside(void **state) {
  NitiDescription *d =
      parsed(HEAD
             "layers:\n  - repeat:\n      times: 2\n      layers:\n        - repeat: {times: 3, layers: [{relu: {name: r}}]}\n"
             "        - {relu: {name: end}}\n" TAIL);
  (void)state;
  assert_string_equal(d->nodes[2].spec.name, "r.1.3");
  assert_string_equal(d->nodes[3].spec.name, "end.1");
  assert_string_equal(d->nodes[4].spec.name, "r.2.1");
  niti_description_close(d);
}

/* ---- What it refuses ---- */

typedef struct Bad {
  const char *text;
  NitiStatus status;
  const char *message; /* the beginning of it */
} Bad;

static void assert_refused(const Bad *bad) {
  NitiDescription *d = (NitiDescription *)1;
  const NitiStatus status = niti_description_parse(&d, bad->text, "m.yaml", NULL);
  if (status != bad->status || strncmp(niti_error(), bad->message, strlen(bad->message)) != 0) {
    fail_msg("%s\ngave status %d: %s\nexpected %d: %s", bad->text, (int)status, status ? niti_error() : "", (int)bad->status,
             bad->message);
  }
  assert_null(d);
  assert_null(strchr(niti_error(), '\n'));
}

#define F NITI_ERROR_FORMAT
#define M NITI_ERROR_MODEL

static void malformed_documents_are_refused(void **state) {
  static const Bad bad[] = {
      {"", F, "m.yaml:1:1: the file is empty"},
      {"# nothing\n", F, "m.yaml:1:1: the file is empty"},
      {"---\n", F, "m.yaml:2:1: model: expected a mapping, found nothing"},
      {"just words", F, "m.yaml:1:1: model: expected a mapping, found 'just words'"},
      {"[1, 2]", F, "m.yaml:1:1: model: expected a mapping, found a list"},
      {"name: a\n---\nname: b\n", F, "m.yaml:2:1: a second document (expected one)"},
      {"name: a\n\xff\n", F, "m.yaml:2:1: not plain UTF-8 text: "},
      {"name: \x01\n", F, "m.yaml:1:7: not plain UTF-8 text: "},
      {"name: [a\ninput: 3\n", F, "m.yaml:2:6: malformed YAML: "},
      {"name: \"a\n", F, "m.yaml:2:1: malformed YAML: "},
      {"name: a\n\tinput: 3\n", F, "m.yaml:2:1: malformed YAML: "},
      {"name: &n a\ninput: *n\n", F, "m.yaml:1:7: anchors (&) are not supported"},
      {"name: *n\n", F, "m.yaml:1:7: aliases (*) are not supported"},
      {"name: !!str a\n", F, "m.yaml:1:7: tags (!) are not supported"},
      {"%TAG ! b\n---\nname: a\n", F, "m.yaml:1:1: directives (%TAG) are not supported"},
      {"\xef\xbb\xbf%TAG ! b\n---\nname: a\n", F, "m.yaml:1:1: directives (%TAG) are not supported"},
      {"name: a\n%TAG ! b\n", F, "m.yaml:2:1: directives (%TAG) are not supported"},
      {"name: a\r%TAG ! b\r", F, "m.yaml:1:1: directives (%TAG) are not supported"},
      {"name: a\xc2\x85%TAG ! b\n", F, "m.yaml:1:1: directives (%TAG) are not supported"},
      {"name: a\xe2\x80\xa8%TAG ! b\n", F, "m.yaml:1:1: directives (%TAG) are not supported"},
      {"name: %TAG\n", F, "m.yaml:1:7: malformed YAML: "},
      {"name: a\ninput: [8, 8, 3]\nname: b\n", F, "m.yaml:3:1: duplicate key 'name' (first at line 1)"},
      {"? [a]\n: b\n", F, "m.yaml:1:3: expected a word as key, found a list"},
      {"name: \"a\\0b\"\n", F, "m.yaml:1:7: a zero character in a text"},
      {HEAD, F, "m.yaml:1:1: model: missing key 'layers'"},
      {"input: [8, 8, 3]\nclasses: 10\nlayers: [relu]\n", F, "m.yaml:1:1: model: missing key 'name'"},
      {"name: a\nclasses: 10\nlayers: [relu]\n", F, "m.yaml:1:1: model: missing key 'input'"},
      {"name: a\ninput: [8, 8, 3]\nlayers: [relu]\n", F, "m.yaml:1:1: model: missing key 'classes'"},
      {HEAD "layer: [relu]\n", F,
       "m.yaml:4:1: model: unknown key 'layer', did you mean 'layers'? (expected: name, input, classes, blocks, layers, freeze)"},
      {"name: a b\n", F, "m.yaml:1:7: name: expected a name of 1 to 63 characters from A-Z a-z 0-9 _ . -, found 'a b'"},
      {"name: a\ninput: 8\nclasses: 10\n", F, "m.yaml:2:8: input: expected [height, width, channels]"},
      {"name: a\ninput: [8, 8]\nclasses: 10\n", F, "m.yaml:2:8: input: expected [height, width, channels]"},
      {"name: a\ninput: [8, 0, 3]\nclasses: 10\n", F, "m.yaml:2:12: input: expected an integer from 1 to 65536, found '0'"},
      {"name: a\ninput: [8, 8.0, 3]\nclasses: 10\n", F, "m.yaml:2:12: input: expected an integer from 1 to 65536, found '8.0'"},
      {"name: a\ninput: [65536, 65536, 3]\nclasses: 10\n", F,
       "m.yaml:2:8: input: 12884901888 values (expected at most 268435456)"},
      {"name: a\ninput: [8, 8, 3]\nclasses: ten\n", F, "m.yaml:3:10: classes: expected an integer from 2 to 65536, found 'ten'"},
      {"name: a\ninput: [8, 8, 3]\nclasses: \"10\"\n", F,
       "m.yaml:3:10: classes: expected an integer from 2 to 65536, found \"10\""},
      {"name: a\ninput: [8, 8, 3]\nclasses: 010\n", F, "m.yaml:3:10: classes: expected an integer from 2 to 65536, found '010'"},
      {"name: a\ninput: [8, 8, 3]\nclasses: 99999999999999999999\n", F, "m.yaml:3:10: classes: expected an integer from 2"},
      {"name: a\ninput: [8, 8, 3]\nclasses:\n", F, "m.yaml:3:9: classes: expected an integer from 2 to 65536, found nothing"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) assert_refused(&bad[i]);
}

static void wrong_layers_are_refused(void **state) {
  static const Bad bad[] = {
      {HEAD "layers: relu\n", F, "m.yaml:4:9: layers: expected a list, found 'relu'"},
      {HEAD "layers: []\n", F, "m.yaml:4:9: layers: expected at least one layer"},
      {HEAD "layers: [[relu]]\n", F, "m.yaml:4:10: expected a layer, found a list"},
      {HEAD "layers:\n  -\n", F, "m.yaml:5:4: expected a layer, found nothing"},
      {HEAD "layers:\n  - konv: {out: 1}\n", F,
       "m.yaml:5:5: unknown layer 'konv', did you mean 'conv'? (expected: conv, linear, relu, maxpool, avgpool, "
       "global-avgpool, flatten, dropout, norm, repeat, block, residual)"},
      {HEAD "layers: [add]\n", F, "m.yaml:4:10: unknown layer 'add'"},
      {HEAD "layers: [\"relu\"]\n", F, "m.yaml:4:10: unknown layer \"relu\""},
      {HEAD "layers: [conv]\n", F, "m.yaml:4:10: conv1: missing key 'out'"},
      {HEAD "layers:\n  - conv: {out: 2}\n", F, "m.yaml:5:5: conv1: missing key 'kernel'"},
      {HEAD "layers:\n  - conv: {out: 2, kernel: 1}\n  - conv: {out: 2, kernal: 3}\n", F,
       "m.yaml:6:20: conv2: unknown key 'kernal', did you mean 'kernel'? (expected: out, kernel, stride, padding, groups, bias, "
       "name)"},
      {HEAD "layers:\n  - conv:\n    out: 2\n", F, "m.yaml:6:5: a layer is one key with its fields"},
      {HEAD "layers:\n  - linear: 10\n", F, "m.yaml:5:13: linear1: expected a mapping, found '10'"},
      {HEAD "layers:\n  - relu: {kernel: 3}\n", F, "m.yaml:5:12: relu1: unknown key 'kernel' (expected: max, name)"},
      {HEAD "layers:\n  - relu: {max: 0}\n", F,
       "m.yaml:5:17: relu1: max: expected a decimal number from 0.000001 to 2000 with at most 6 decimals, found '0'"},
      {HEAD "layers:\n  - dropout: {rate: 1}\n", F,
       "m.yaml:5:21: dropout1: rate: expected a decimal number from 0 to 0.999999 with at most 6 decimals, found '1'"},
      {HEAD "layers:\n  - dropout: {rate: 0.1234567}\n", F,
       "m.yaml:5:21: dropout1: rate: expected a decimal number from 0 to 0.999999"},
      {HEAD "layers:\n  - conv: {out: 2, kernel: 1, groups: 0}\n", F,
       "m.yaml:5:39: conv1: groups: expected an integer from 1 to "},
      {HEAD "layers:\n  - conv: {out: 2, out: 2, kernel: 3}\n", F, "m.yaml:5:20: duplicate key 'out' (first at line 5)"},
      {HEAD "layers:\n  - conv: {out: many, kernel: 3}\n", F,
       "m.yaml:5:17: conv1: out: expected an integer from 1 to 65536, found 'many'"},
      {HEAD "layers:\n  - conv: {out: 70000, kernel: 3}\n", F,
       "m.yaml:5:17: conv1: out: expected an integer from 1 to 65536, found '70000'"},
      {HEAD "layers:\n  - conv: {out: 2, kernel: 0}\n", F, "m.yaml:5:28: conv1: kernel: expected an integer from 1 to "},
      {HEAD "layers:\n  - conv: {out: 2, kernel: -3}\n", F, "m.yaml:5:28: conv1: kernel: expected an integer from 1 to "},
      {HEAD "layers:\n  - conv: {out: 2, kernel: 3.5}\n", F, "m.yaml:5:28: conv1: kernel: expected an integer from 1 to "},
      {HEAD "layers:\n  - conv: {out: 2, kernel: [3, 3, 3]}\n", F,
       "m.yaml:5:28: conv1: kernel: expected an integer or [height, width]"},
      {HEAD "layers:\n  - conv: {out: 2, kernel: {h: 3}}\n", F,
       "m.yaml:5:28: conv1: kernel: expected an integer or [height, width]"},
      {HEAD "layers:\n  - conv: {out: 2, kernel: [3, x]}\n", F, "m.yaml:5:32: conv1: kernel: expected an integer"},
      {HEAD "layers:\n  - conv: {out: 2, kernel: 1, stride: -1}\n", F, "m.yaml:5:39: conv1: stride: expected an integer from 1"},
      {HEAD "layers:\n  - maxpool: {kernel: 2, stride: -1}\n", F, "m.yaml:5:34: maxpool1: stride: expected an integer from 1"},
      {HEAD "layers:\n  - dropout: {per: image}\n", F,
       "m.yaml:5:20: dropout1: per: expected one of: feature, element, found 'image'"},
      {HEAD "layers:\n  - relu: {name: a/b}\n", F, "m.yaml:5:18: relu1: name: expected a name of 1 to 63 characters"},
      {HEAD "layers:\n  - relu: {name: \"\"}\n", F, "m.yaml:5:18: relu1: name: expected a name of 1 to 63 characters"},
      {HEAD "layers:\n  - relu: {name: a}\n  - relu: {name: a}\n", F,
       "m.yaml:6:5: a: the name is taken by the layer at line 5, node 1"},
      {HEAD "layers:\n  - dropout: {name: relu1}\n  - relu\n", F, "m.yaml:6:5: relu1: the name is taken by the layer at line 5"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) assert_refused(&bad[i]);
}

static void wrong_constructs_are_refused(void **state) {
  static const Bad bad[] = {
      {HEAD "layers: [repeat]\n", F, "m.yaml:4:10: repeat: expected fields"},
      {HEAD "layers:\n  - repeat:\n", F, "m.yaml:5:12: repeat: expected a mapping, found nothing"},
      {HEAD "layers:\n  - repeat: {layers: [relu]}\n", F, "m.yaml:5:13: repeat: missing key 'times'"},
      {HEAD "layers:\n  - repeat: {times: 2}\n", F, "m.yaml:5:13: repeat: missing key 'layers'"},
      {HEAD "layers:\n  - repeat: {times: 0, layers: [relu]}\n", F,
       "m.yaml:5:21: repeat: times: expected an integer from 1 to 4096, found '0'"},
      {HEAD "layers:\n  - repeat: {times: 2, layers: []}\n", F, "m.yaml:5:32: repeat: layers: expected at least one layer"},
      {HEAD "layers:\n  - repeat: {times: 2, layers: [relu], name: a}\n", F,
       "m.yaml:5:40: repeat: unknown key 'name' (expected: times, layers)"},
      {HEAD "layers:\n  - repeat: {times: 4096, layers: [{repeat: {times: 4096, layers: [relu]}}]}\n" TAIL, M,
       "m.yaml:5:68: relu4097: the network has more than 4096 layers"},
      {HEAD "layers:\n  - block: a\n", F, "m.yaml:5:12: block: no block 'a' (expected a key of `blocks`)"},
      {HEAD "blocks: [relu]\nlayers: [relu]\n", F, "m.yaml:4:9: blocks: expected a mapping, found a list"},
      {HEAD "blocks: {a: relu}\nlayers: [{block: a}]\n", F, "m.yaml:4:13: a: expected a list, found 'relu'"},
      {HEAD "blocks: {a: []}\nlayers: [{block: a}]\n", F, "m.yaml:4:13: a: expected at least one layer"},
      {HEAD "blocks: {a: [{block: a}]}\nlayers: [{block: a}]\n", F, "m.yaml:4:22: block: 'a' uses itself"},
      {HEAD "blocks: {a: [{block: b}], b: [relu, {block: a}]}\nlayers: [{block: a}]\n", F, "m.yaml:4:45: block: 'a' uses itself"},
      {HEAD "blocks: {a: [relu], b: [relu]}\nlayers: [{block: a}, flatten, {linear: {out: 10}}]\n", F,
       "m.yaml:4:21: blocks: 'b' is never used"},
      {HEAD "blocks: {a b: [relu]}\nlayers: [relu]\n", F, "m.yaml:4:10: blocks: expected a name"},
      {HEAD "blocks: {a: [{relu: {name: r}}]}\nlayers: [{block: a}, {block: a}]\n", F,
       "m.yaml:4:14: r: the name is taken by the layer at line 4, node 1"},
      {HEAD "blocks: {a: [relu]}\nlayers: [{block: {use: a, as: b}}]\n", F,
       "m.yaml:5:27: block: unknown key 'as' (expected: use, name)"},
      {HEAD "layers:\n  - residual: {shortcut: [relu]}\n", F, "m.yaml:5:15: residual: missing key 'body'"},
      {HEAD "layers:\n  - residual: {body: []}\n", F, "m.yaml:5:22: residual: body: expected at least one layer"},
      {HEAD "layers:\n  - residual: {body: [relu], skip: []}\n", F,
       "m.yaml:5:30: residual: unknown key 'skip' (expected: body, shortcut, name)"},
      {HEAD "layers:\n  - residual: {body: [relu], shortcut: relu}\n", F,
       "m.yaml:5:40: residual: shortcut: expected a list, found 'relu'"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) assert_refused(&bad[i]);
}

static void impossible_shapes_are_refused(void **state) {
  static const Bad bad[] = {
      {HEAD "layers:\n  - conv: {out: 2, kernel: 9}\n" TAIL, M, "m.yaml:5:5: conv1: "},
      {HEAD "layers:\n  - conv: {out: 2, kernel: 3, name: wide}\n  - maxpool: {kernel: 7, name: big}\n" TAIL, M,
       "m.yaml:6:5: big: "},
      {HEAD "layers:\n  - conv: {out: 4, kernel: 1, groups: 2}\n" TAIL, M,
       "m.yaml:5:5: conv1: 2 groups do not divide 3 input channels (expected a divisor of 3 input and 4 output channels)"},
      {HEAD "layers:\n  - conv: {out: 4, kernel: 1, groups: channels}\n" TAIL, M,
       "m.yaml:5:5: conv1: 3 groups do not divide 4 output channels (expected a divisor of 3 input and 4 output channels)"},
      {HEAD "layers:\n  - avgpool: {kernel: 2, padding: [1, 2]}\n" TAIL, M,
       "m.yaml:5:5: avgpool1: padding 1x2 leaves windows without a cell (expected less than the kernel, 2x2)"},
      {HEAD "layers:\n  - linear: {out: 10}\n", M, "m.yaml:5:5: linear1: "},
      {HEAD "layers:\n  - residual: {body: [{conv: {out: 2, kernel: 1}}]}\n" TAIL, M, "m.yaml:5:5: add1: "},
      {HEAD "layers:\n  - residual: {body: [{conv: {out: 3, kernel: 3}}]}\n" TAIL, M, "m.yaml:5:5: add1: "},
      {HEAD "layers:\n  - flatten\n  - linear: {out: 9}\n", M,
       "m.yaml:6:5: linear1: the last layer gives 1x1x9, expected 1x1x10"},
      {HEAD "layers: [relu]\n", M, "m.yaml:4:10: relu1: the last layer gives 8x8x3, expected 1x1x10"},
      {"name: a\ninput: [4096, 4096, 16]\nclasses: 10\nlayers:\n  - conv: {out: 17, kernel: 1}\n", M,
       "m.yaml:5:5: conv1: an output of 4096x4096x17 values per image (expected 1 to 268435456)"},
      {"name: a\ninput: [1024, 1024, 3]\nclasses: 10\nlayers:\n  - flatten\n  - linear: {out: 65536}\n", M,
       "m.yaml:6:5: linear1: 65536x1x1x3145728 weights (expected at most 2147483647)"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) assert_refused(&bad[i]);
}

/* Ten blocks of ten uses of the next one: 10^10 layers. */
static void blocks_that_multiply_are_refused(void **state) {
  char text[4096];
  size_t n = (size_t)snprintf(text, sizeof text, HEAD "blocks:\n  b9: [relu]\n");
  (void)state;
  for (int b = 0; b < 9; ++b) {
    n += (size_t)snprintf(text + n, sizeof text - n, "  b%d: [", b);
    for (int i = 0; i < 10; ++i) n += (size_t)snprintf(text + n, sizeof text - n, "%s{block: b%d}", i ? ", " : "", b + 1);
    n += (size_t)snprintf(text + n, sizeof text - n, "]\n");
  }
  (void)snprintf(text + n, sizeof text - n, "layers: [{block: b0}]\n");
  assert_refused(&(Bad){text, M, "m.yaml:5:8: relu4097: the network has more than 4096 layers"});
}

/* Deep nesting and long files end early. */
static void large_documents_are_refused(void **state) {
  char *text = malloc(NITI_YAML_BYTES_MAX + 64);
  (void)state;
  assert_non_null(text);
  memset(text, '[', 100000);
  text[100000] = 0;
  assert_refused(&(Bad){text, F, "m.yaml:1:65: nested more than 64 levels deep"});
  memset(text, '\n', NITI_YAML_BYTES_MAX + 1);
  text[NITI_YAML_BYTES_MAX + 1] = 0;
  assert_refused(&(Bad){text, F, "m.yaml: longer than 1048576 bytes"});
  size_t n = 0;
  for (int i = 0; i < 1025; ++i) n += (size_t)sprintf(text + n, "k%d: 1\n", i);
  assert_refused(&(Bad){text, F, "m.yaml:1025:1: a mapping has more than 1024 keys"});
  text[0] = '[';
  for (n = 1; n < 2 * 65536 + 1; n += 2) memcpy(text + n, "1,", 3);
  assert_refused(&(Bad){text, F, "m.yaml:1:131072: more than 65536 values"});
  strcpy(text, HEAD "layers: [");
  for (int i = 0; i < 16; ++i) strcat(text, "{repeat: {times: 1, layers: [");
  strcat(text, "relu");
  for (int i = 0; i < 16; ++i) strcat(text, "]}}");
  strcat(text, "]\n");
  assert_refused(&(Bad){text, F, "m.yaml:4:"});
  assert_non_null(strstr(niti_error(), "repeat: layers: nested more than 16 deep"));
  free(text);
}

static void unreadable_files_are_refused(void **state) {
  NitiDescription *d = NULL;
  (void)state;
  assert_int_equal(niti_description_load(&d, "./absent.yaml", NULL), NITI_ERROR_FILE);
  assert_string_equal(niti_error(), "./absent.yaml: cannot open: No such file or directory");
  assert_int_equal(niti_description_load(&d, "/", NULL), NITI_ERROR_FILE);
  assert_string_equal(niti_error(), "/: cannot read: Is a directory");
  assert_int_equal(niti_description_load(&d, "/dev/zero", NULL), NITI_ERROR_FORMAT);
  assert_int_equal(niti_description_load(&d, "lenet6", NULL), NITI_ERROR_ARGUMENT);
  assert_ptr_equal(
      strstr(niti_error(),
             "no built-in model 'lenet6', did you mean 'lenet5'? (expected: alexnet, alexnet-128, conv3-bn, ds-cnn, lenet5, "),
      niti_error());
  assert_null(d);
}

static void files_are_read(void **state) {
  char path[] = "/tmp/niti-model-XXXXXX.yaml";
  const int file = mkstemps(path, 5);
  const char *text = niti_builtin_model_text("lenet5");
  NitiDescription *d;
  (void)state;
  assert_true(file >= 0);
  assert_int_equal(write(file, text, strlen(text)), (ssize_t)strlen(text));
  assert_int_equal(niti_description_load(&d, path, NULL), NITI_OK);
  assert_string_equal(d->source, path);
  niti_description_close(d);
  assert_int_equal(ftruncate(file, 0), 0);
  assert_int_equal(pwrite(file, "name: a\0b\n", 10, 0), 10);
  assert_int_equal(niti_description_load(&d, path, NULL), NITI_ERROR_FORMAT);
  assert_non_null(strstr(niti_error(), ".yaml:1:8: not plain UTF-8 text: "));
  (void)close(file);
  (void)unlink(path);
}

/* ---- Anything else ---- */

static bool try_text(const char *text) {
  NitiDescription *d = NULL, *again = NULL;
  const NitiStatus status = niti_description_parse(&d, text, "mutated", NULL);
  if (status != NITI_OK) {
    assert_null(d);
    assert_ptr_equal(strstr(niti_error(), "mutated:"), niti_error());
    assert_null(strchr(niti_error(), '\n'));
    return false;
  }
  if (niti_description_parse(&again, d->text, "again", NULL) != NITI_OK) fail_msg("%s\n%s\n%s", text, d->text, niti_error());
  assert_same(d, again);
  niti_description_close(d);
  niti_description_close(again);
  return true;
}

/* Whatever the bytes: an error with its place, or a description that round-trips. */
static void mutated_texts_never_crash(void **state) {
  const char *graph = HEAD
      "blocks:\n  b: [{conv: {out: 3, kernel: 3, padding: 1, name: c}}, relu]\n"
      "layers:\n  - repeat: {times: 2, layers: [{residual: {body: [{block: b}], shortcut: []}}, {dropout: {per: element}}]}\n"
      "  - avgpool: {kernel: 2, stride: [1, 2]}\n" TAIL;
  (void)state;
  size_t accepted = mutate_text(graph, 2000, 7, try_text);
  for (size_t i = 0; niti_builtin_model_texts[i]; ++i)
    accepted += mutate_text(niti_builtin_model_texts[i], 400, 11 + i, try_text);
  assert_true(accepted > 0); /* else the mutations are too wild to show anything */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(builtins_parse_and_round_trip),
      cmocka_unit_test(builtins_have_their_known_sizes),
      cmocka_unit_test(overrides_are_applied_and_kept),
      cmocka_unit_test(bad_overrides_are_refused),
      cmocka_unit_test(fields_take_defaults_pairs_and_words),
      cmocka_unit_test(constructs_number_their_nodes_in_order),
      cmocka_unit_test(nested_repeats_number_names_from_the_outside),
      cmocka_unit_test(malformed_documents_are_refused),
      cmocka_unit_test(wrong_layers_are_refused),
      cmocka_unit_test(wrong_constructs_are_refused),
      cmocka_unit_test(impossible_shapes_are_refused),
      cmocka_unit_test(blocks_that_multiply_are_refused),
      cmocka_unit_test(large_documents_are_refused),
      cmocka_unit_test(unreadable_files_are_refused),
      cmocka_unit_test(files_are_read),
      cmocka_unit_test(mutated_texts_never_crash),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
