"""Forward and backward of a network as docs/arithmetic.md says. Tensors are pairs (int64 array of mantissas, exponent)."""

from dataclasses import dataclass

import numpy as np

from . import arithmetic as a
from . import norm


# Exact linear operations: every tap of the kernel is one matrix product in int64.


def _spans(kernel, stride, out_height, out_width):
    """(kh, kw, rows, columns): the cells of the padded image that meet each tap."""
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            yield (kh, kw, slice(kh, kh + stride[0] * (out_height - 1) + 1, stride[0]),
                   slice(kw, kw + stride[1] * (out_width - 1) + 1, stride[1]))


def _pad(x, padding, value=0):
    return np.pad(x, ((0, 0), (padding[0], padding[0]), (padding[1], padding[1]), (0, 0)), constant_values=value)


def _out_size(x, kernel, stride, padding):
    return [(x.shape[1 + i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in range(2)]


def conv_forward(x, w, stride, padding):
    """x [N, H, W, Cin], w [Cout, KH, KW, Cin] to the sums [N, OH, OW, Cout]."""
    kernel = w.shape[1:3]
    height, width = _out_size(x, kernel, stride, padding)
    padded = _pad(x, padding)
    acc = np.zeros((x.shape[0], height, width, w.shape[0]), dtype=np.int64)
    for kh, kw, rows, columns in _spans(kernel, stride, height, width):
        acc += padded[:, rows, columns] @ w[:, kh, kw].T
    return acc


def conv_backward(delta, w, x_shape, stride, padding):
    """error [N, OH, OW, Cout] to the sums at the input [N, H, W, Cin]."""
    count, height, width, channels = x_shape
    acc = np.zeros((count, height + 2 * padding[0], width + 2 * padding[1], channels), dtype=np.int64)
    for kh, kw, rows, columns in _spans(w.shape[1:3], stride, delta.shape[1], delta.shape[2]):
        acc[:, rows, columns] += delta @ w[:, kh, kw]
    return acc[:, padding[0]:padding[0] + height, padding[1]:padding[1] + width]


def conv_gradient(x, delta, kernel, stride, padding):
    """The sums at the weights [Cout, KH, KW, Cin]."""
    padded = _pad(x, padding)
    acc = np.zeros((delta.shape[3], *kernel, x.shape[3]), dtype=np.int64)
    flat = delta.reshape(-1, delta.shape[3])
    for kh, kw, rows, columns in _spans(kernel, stride, delta.shape[1], delta.shape[2]):
        acc[:, kh, kw] = flat.T @ padded[:, rows, columns].reshape(-1, x.shape[3])
    return acc


# Grouped convolutions: each group is a convolution of its own.


def _groups(groups, tensor, axis):
    return np.split(tensor, groups, axis=axis)


def grouped_forward(x, w, stride, padding, groups):
    return np.concatenate([conv_forward(one, weights, stride, padding)
                           for one, weights in zip(_groups(groups, x, 3), _groups(groups, w, 0))], axis=3)


def grouped_backward(delta, w, x_shape, stride, padding, groups):
    shape = (*x_shape[:3], x_shape[3] // groups)
    return np.concatenate([conv_backward(one, weights, shape, stride, padding)
                           for one, weights in zip(_groups(groups, delta, 3), _groups(groups, w, 0))], axis=3)


def grouped_gradient(x, delta, kernel, stride, padding, groups):
    return np.concatenate([conv_gradient(one, deltas, kernel, stride, padding)
                           for one, deltas in zip(_groups(groups, x, 3), _groups(groups, delta, 3))], axis=0)


# Pools


def maxpool_forward(x, kernel, stride, padding):
    """(maxima, winner): winner is the number kh * KW + kw of the first largest cell of each window."""
    height, width = _out_size(x, kernel, stride, padding)
    outside = -1000  # below every mantissa
    padded = _pad(x, padding, outside)
    best = np.full((x.shape[0], height, width, x.shape[3]), outside, dtype=np.int64)
    winner = np.full(best.shape, -1, dtype=np.int64)
    for kh, kw, rows, columns in _spans(kernel, stride, height, width):
        cell = padded[:, rows, columns]
        better = cell > best
        best[better] = cell[better]
        winner[better] = kh * kernel[1] + kw
    assert (winner >= 0).all(), "a window lies wholly in the padding"
    return best, winner


def maxpool_backward(delta, winner, x_shape, kernel, stride, padding):
    count, height, width, channels = x_shape
    acc = np.zeros((count, height + 2 * padding[0], width + 2 * padding[1], channels), dtype=np.int64)
    for kh, kw, rows, columns in _spans(kernel, stride, delta.shape[1], delta.shape[2]):
        acc[:, rows, columns] += np.where(winner == kh * kernel[1] + kw, delta, 0)
    return acc[:, padding[0]:padding[0] + height, padding[1]:padding[1] + width]


def average_factor(kernel):
    """(factor, exponent change) of an average over the kernel's cells."""
    cells = kernel[0] * kernel[1]
    if cells & (cells - 1) == 0:
        return 1, -a.bits(cells)
    return ((1 << 15) + cells // 2) // cells, -15


def avgpool_forward(x, kernel, stride, padding):
    height, width = _out_size(x, kernel, stride, padding)
    padded = _pad(x, padding)
    acc = np.zeros((x.shape[0], height, width, x.shape[3]), dtype=np.int64)
    for _, _, rows, columns in _spans(kernel, stride, height, width):
        acc += padded[:, rows, columns]
    return acc * average_factor(kernel)[0]


def avgpool_backward(delta, x_shape, kernel, stride, padding):
    count, height, width, channels = x_shape
    acc = np.zeros((count, height + 2 * padding[0], width + 2 * padding[1], channels), dtype=np.int64)
    for _, _, rows, columns in _spans(kernel, stride, delta.shape[1], delta.shape[2]):
        acc[:, rows, columns] += delta * average_factor(kernel)[0]
    return acc[:, padding[0]:padding[0] + height, padding[1]:padding[1] + width]


# The network


@dataclass
class Context:
    """What a pass needs to know besides the tensors. `training` False: no dropout, activations drawn in training to nearest."""

    seed: int
    step: int
    activation: str
    error: str
    training: bool
    clip_activation: int = 0
    clip_error: int = 0


class Network:
    """Weights and exponents by (node number, k), running statistics by node number, and the passes over the model's nodes."""

    def __init__(self, model, seed):
        self.model = model
        self.weights = {}
        self.exponents = {}
        self.running = {}
        self.centred = {node.inputs[0]: node.number for node in model.nodes if model.is_centred(node)}  # product: its norm
        for node in model.nodes:
            if node.kind == "norm":
                self._start_norm(node)
            elif node.weight_shape is not None:
                self.weights[node.number, 0] = a.initial_weights(seed, node.number, node.weight_shape)
                self.exponents[node.number, 0] = a.initial_exponent(*node.fans)
                if node.args["bias"]:
                    self.weights[node.number, 1] = np.zeros(node.weight_shape[0], dtype=np.int64)
                    self.exponents[node.number, 1] = -15

    def _start_norm(self, node):
        channels, = node.weight_shape
        self.weights[node.number, 0] = np.full(channels, norm.WEIGHT, dtype=np.int64)
        self.weights[node.number, 1] = np.zeros(channels, dtype=np.int64)
        self.exponents[node.number, 0], self.exponents[node.number, 1] = norm.WEIGHT_EXPONENT, norm.BIAS_EXPONENT
        self.running[node.number] = norm.initial_running(channels)

    def parameter(self, number, k=0):
        return self.weights[number, k], self.exponents[number, k]

    def named(self):
        """({name: values}, {name: exponent}) of every weight tensor that a checkpoint's hash covers."""
        weights, exponents = {}, {}
        for (number, k), values in self.weights.items():
            node = self.model.nodes[number]
            name = node.parameter_name(k)
            weights[name], exponents[name] = values.astype(np.int16 if node.is_wide(k) else np.int8), self.exponents[number, k]
        for number, values in self.running.items():
            name = self.model.nodes[number].running_name
            weights[name], exponents[name] = values.astype(np.int64), norm.RUNNING_EXPONENT
        return weights, exponents

    def load(self, weights, exponents):
        """Takes what `named` returns."""
        for number, k in self.weights:
            name = self.model.nodes[number].parameter_name(k)
            self.weights[number, k], self.exponents[number, k] = np.asarray(weights[name], dtype=np.int64), exponents[name]
        for number in self.running:
            self.running[number] = np.asarray(weights[self.model.nodes[number].running_name], dtype=np.int64)

    def forward(self, x, exponent, context):
        """The tensors of every node, node 0 the input, and what backward needs besides (masks, winners) by node."""
        tensors, notes = [(x, exponent)], {}
        for node in self.model.nodes[1:]:
            tensor, note = self._forward_node(node, [tensors[i] for i in node.inputs], context)
            assert tensor[0].shape == (len(x), *node.shape)
            tensors.append(tensor)
            notes[node.number] = note
        return tensors, notes

    def _activation_rounding(self, node, size, context):
        """(mode, function that draws the random words) of `size` values of a node's output."""
        mode = context.activation
        if mode in a.DRAWING and not context.training:
            mode = "nearest"
        return mode, lambda: a.rounding_words(mode, context.seed, a.PURPOSE_ACTIVATION, context.step, node.number, size)

    def _requantise_activation(self, node, acc, exponent, context):
        clip = context.clip_activation if node is not self.model.nodes[-1] else 0
        return a.requantise(acc, exponent, *self._activation_rounding(node, acc.size, context), clip)

    def _finish_product(self, node, acc, exponent, context):
        exponent += self.exponents[node.number, 0]
        if node.args["bias"]:
            acc = acc + a.bias_at(self.weights[node.number, 1], self.exponents[node.number, 1] - exponent)
        if node.number in self.centred:
            acc = acc + norm.centring(self.running[self.centred[node.number]], exponent)
        assert np.abs(acc).max() < 1 << 31
        return self._requantise_activation(node, acc, exponent, context)

    def _forward_norm(self, node, x, exponent, context):
        centred = node.inputs[0] in self.centred
        if context.training:
            statistics = norm.batch_statistics(x, exponent)
            self.running[node.number] = norm.moved_running(self.running[node.number], statistics, exponent, centred)
        else:
            statistics = norm.running_statistics(self.running[node.number], exponent, centred)
        mode, words = self._activation_rounding(node, x.size, context)
        out = norm.forward(x, statistics, self.parameter(node.number, 0), self.parameter(node.number, 1), mode,
                           lambda: words().reshape(x.shape))
        return out, statistics

    def _forward_node(self, node, inputs, context):
        (x, e), args = inputs[0], node.args
        if node.kind == "conv":
            acc = grouped_forward(x, self.weights[node.number, 0], args["stride"], args["padding"], args["groups"])
            return self._finish_product(node, acc, e, context), None
        if node.kind == "linear":
            acc = x.reshape(len(x), -1) @ self.weights[node.number, 0].T  # x may be [N, 1, 1, C]
            return self._finish_product(node, acc, e, context), None
        if node.kind == "norm":
            return self._forward_norm(node, x, e, context)
        if node.kind == "relu":
            y, limit = np.maximum(x, 0), None
            if args["max"] is not None:
                limit = min(a.relu_limit(args["max"], e), 128)  # mantissas are at most 127
                y = np.minimum(y, limit)
            return (y, e), (y > 0) & (limit is None or y < limit)
        if node.kind == "flatten":
            return (x.reshape(len(x), -1), e), None
        if node.kind == "maxpool":
            best, winner = maxpool_forward(x, args["kernel"], args["stride"], args["padding"])
            return (best, e), winner
        if node.kind in ("avgpool", "global-avgpool"):
            acc = avgpool_forward(x, args["kernel"], args["stride"], args["padding"])
            return self._requantise_activation(node, acc, e + average_factor(args["kernel"])[1], context), None
        if node.kind == "add":
            acc, exponent = a.add_tensors(x, e, *inputs[1])
            return self._requantise_activation(node, acc, exponent, context), None
        if node.kind == "dropout":
            if not context.training:
                return (x, e), None
            shape = x.shape if args["per"] == "element" else (1, *x.shape[1:])
            words = a.random_range(context.seed, a.PURPOSE_DROPOUT, context.step, node.number, int(np.prod(shape)))
            threshold, factor, more = a.dropout_scale(args["rate"])
            mask = (words >= threshold).reshape(shape)
            return (a.shift_round(x * mask * factor, 15, "nearest"), e + more), mask
        raise ValueError(node.kind)

    def backward(self, tensors, notes, delta, context):
        """The gradients (exact sums, exponent) by (node number, k), from the delta at the last node's output."""
        trainable = self.model.trainable()
        arriving = {node.number: [] for node in self.model.nodes}  # in descending order of the consumers
        arriving[len(self.model.nodes) - 1].append(delta)
        gradients = {}
        for node in reversed(self.model.nodes[1:]):
            if not trainable[node.number]:
                continue
            m, e = self._gather(node, arriving[node.number], context)
            x, x_exponent = tensors[node.inputs[0]]
            if self.model.is_trained(node):
                self._add_gradients(gradients, node, x, x_exponent, m, e, notes[node.number])
            if any(trainable[i] for i in node.inputs):
                passed = self._backward_node(node, x, x_exponent, notes[node.number], m, e, context)
                for i in node.inputs:
                    arriving[i].append(passed)
        return gradients

    def _add_gradients(self, gradients, node, x, x_exponent, m, e, note):
        """Those of a node's own parameters, from the delta (m, e) at its output."""
        if node.kind == "conv":
            sums = grouped_gradient(x, m, *(node.args[k] for k in ("kernel", "stride", "padding", "groups")))
            gradients[node.number, 0] = sums, x_exponent + e
        elif node.kind == "linear":
            gradients[node.number, 0] = m.T @ x.reshape(len(x), -1), x_exponent + e
        if node.args.get("bias"):
            gradients[node.number, 1] = m.reshape(-1, m.shape[-1]).sum(axis=0), e
        if node.kind == "norm":
            gradients[node.number, 0], gradients[node.number, 1] = norm.gradients(x, m, e, note, self.parameter(node.number))

    def _gather(self, node, deltas, context):
        """The sum of the consumers' deltas, two at a time from the highest consumer down."""
        m, e = deltas[0]
        for k, (other, other_exponent) in enumerate(deltas[1:]):
            acc, exponent = a.add_tensors(m, e, other, other_exponent)
            layer = node.number + 65536 * k
            m, e = a.requantise(acc, exponent, context.error, lambda: a.rounding_words(
                context.error, context.seed, a.PURPOSE_FORK, context.step, layer, acc.size), context.clip_error)
        return m, e

    def _backward_node(self, node, x, x_exponent, note, m, e, context):
        args = node.args

        def words():
            return a.rounding_words(context.error, context.seed, a.PURPOSE_ERROR, context.step, node.number, x.size).reshape(x.shape)

        if node.kind == "norm":
            return norm.backward(x, x_exponent, m, e, note, self.parameter(node.number), context.error, words)
        if node.kind == "relu":
            return np.where(note, m, 0), e
        if node.kind == "flatten":
            return m.reshape(x.shape), e
        if node.kind == "add":
            return m, e
        if node.kind == "dropout":
            _, factor, more = a.dropout_scale(args["rate"])
            return a.shift_round(m * note * factor, 15, "nearest"), e + more
        if node.kind == "conv":
            acc = grouped_backward(m, self.weights[node.number, 0], x.shape, args["stride"], args["padding"], args["groups"])
            e += self.exponents[node.number, 0]
        elif node.kind == "linear":
            acc = (m @ self.weights[node.number, 0]).reshape(x.shape)
            e += self.exponents[node.number, 0]
        elif node.kind == "maxpool":
            acc = maxpool_backward(m, note, x.shape, args["kernel"], args["stride"], args["padding"])
        else:
            acc = avgpool_backward(m, x.shape, args["kernel"], args["stride"], args["padding"])
            e += average_factor(args["kernel"])[1]
        return a.requantise(acc, e, context.error, words, context.clip_error)
