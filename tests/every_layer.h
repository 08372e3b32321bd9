/* Descriptions that use every layer type, for tests. */
#ifndef NITI_TESTS_EVERY_LAYER_H
#define NITI_TESTS_EVERY_LAYER_H

/* Forks, sums, dropout, overlapping and padded pools, groups, ReLUs in every position, clipped ones too. */
static const char every_layer[] =
    "name: every-layer\ninput: [20, 18, 3]\nclasses: 7\nlayers:\n"
    "  - conv: {out: 24, kernel: 3, padding: 1}\n"
    "  - relu\n"
    "  - residual:\n"
    "      body:\n"
    "        - conv: {out: 24, kernel: 3, padding: 1}\n"
    "        - relu\n"
    "        - conv: {out: 24, kernel: 3, padding: 1}\n"
    "  - relu\n"
    "  - maxpool: {kernel: 3, stride: 2, padding: 1}\n"
    "  - relu\n"
    "  - residual:\n"
    "      body:\n"
    "        - conv: {out: 64, kernel: 3, stride: 2, padding: 1}\n"
    "        - relu\n"
    "      shortcut:\n"
    "        - conv: {out: 64, kernel: 1, stride: 2}\n"
    "  - dropout: {per: element}\n"
    "  - conv: {out: 64, kernel: 3, padding: 1}\n"
    "  - relu\n"
    "  - maxpool: {kernel: 2}\n"
    "  - dropout\n"
    "  - conv: {out: 32, kernel: 1}\n"
    "  - relu\n"
    "  - conv: {out: 32, kernel: 3, padding: 1, groups: channels}\n"
    "  - relu: {max: 6}\n"
    "  - dropout: {rate: 0.2}\n"
    "  - conv: {out: 32, kernel: 1, groups: 4}\n"
    "  - relu: {max: 0.5}\n"
    "  - avgpool: {kernel: 3, stride: 2, padding: 1}\n"
    "  - flatten\n"
    "  - linear: {out: 24}\n"
    "  - relu\n"
    "  - dropout\n"
    "  - linear: {out: classes}\n"
    "  - residual: {body: [dropout]}\n";

/* The layers with 16-bit parameters, of which update sgd trains all: biases, and batch norm before and after sums, pools and
 * ReLUs; besides, groups, limited ReLUs, padded average pools and other rates of dropout. */
static const char every_layer_normed[] =
    "name: every-layer-normed\ninput: [12, 10, 3]\nclasses: 5\nlayers:\n"
    "  - norm\n"
    "  - conv: {out: 16, kernel: 3, padding: 1}\n"
    "  - norm\n"
    "  - relu\n"
    "  - residual:\n"
    "      body:\n"
    "        - conv: {out: 16, kernel: 3, padding: 1, groups: 4}\n"
    "        - norm\n"
    "        - relu: {max: 6}\n"
    "        - conv: {out: 16, kernel: 3, padding: 1, groups: channels, bias: true}\n"
    "        - norm\n"
    "      shortcut:\n"
    "        - norm\n"
    "  - relu\n"
    "  - avgpool: {kernel: 3, stride: 2, padding: 1}\n"
    "  - norm\n"
    "  - dropout: {rate: 0.25}\n"
    "  - maxpool: {kernel: 2}\n"
    "  - flatten\n"
    "  - norm\n"
    "  - linear: {out: 24, bias: true}\n"
    "  - norm\n"
    "  - relu\n"
    "  - linear: {out: classes}\n";

#endif
