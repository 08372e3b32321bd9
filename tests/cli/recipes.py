"""Recipes that train in a moment."""

TOY = """\
name: toy
model:
  name: toy
  input: [8, 8, 1]
  classes: 4
  layers:
    - conv: {out: 4, kernel: 3, padding: 1}
    - relu
    - maxpool: {kernel: 2}
    - flatten
    - linear: {out: classes}
data: {mean: auto, std: auto}
batch: 16
epochs: 3
seed: 7
loss: softmax
update: {kind: niti, mu: 3}
"""

EVERY_LAYER = """\
name: every-layer
model:
  name: every-layer
  input: [32, 32, 3]
  classes: 10
  layers:
    - conv: {out: 8, kernel: 3, stride: 2, padding: 1}
    - relu
    - residual:
        body:
          - conv: {out: 8, kernel: 3, padding: 1}
          - relu
          - conv: {out: 8, kernel: 3, padding: 1}
    - relu
    - maxpool: {kernel: 3, stride: 2, padding: 1}
    - residual:
        body:
          - conv: {out: 12, kernel: 3, stride: 2, padding: 1}
          - relu
        shortcut:
          - conv: {out: 12, kernel: 1, stride: 2}
    - avgpool: {kernel: 2}
    - flatten
    - linear: {out: 24}
    - relu
    - dropout
    - linear: {out: 10, name: last}
    - residual: {body: [dropout]}
data: {kind: cifar10, mean: [0.49, 0.48, 0.45], std: [0.25, 0.24, 0.26], pad: 2, crop: random, flip: true}
batch: 16
epochs: 2
seed: 5
loss: niti
rounding: {activation: stochastic, error: stochastic}
update: {kind: niti, mu: 3}
"""

# Batch norm, update sgd with clipping by norm, a schedule, smoothed labels, groups, dropout of any rate: what has state, and what depends on the step.
NORMED = """\
name: normed
model:
  name: normed
  input: [8, 8, 1]
  classes: 4
  layers:
    - conv: {out: 6, kernel: 3, padding: 1}
    - norm
    - relu
    - residual:
        body:
          - conv: {out: 6, kernel: 3, padding: 1, groups: 2}
          - norm
          - relu: {max: 6}
        shortcut:
          - norm
    - maxpool: {kernel: 2}
    - dropout: {rate: 0.2}
    - flatten
    - linear: {out: classes}
data: {mean: auto, std: auto, pad: 1, crop: random}
batch: 16
epochs: 3
seed: 9
label_smoothing: 0.05
rounding: {activation: stochastic-byte, error: stochastic-byte}
update:
  {kind: sgd, lr: 0.05, schedule: cosine, final_lr: 0.001, warmup: {at: 10%}, momentum: 0.9, nesterov: true, weight_decay: 0.0005,
   clip_norm: 1.5}
"""
