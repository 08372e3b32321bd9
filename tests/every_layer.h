/* A description that uses every layer type, for tests. */
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

#endif
