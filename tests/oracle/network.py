"""Forward and backward of a network as docs/arithmetic.md says. Tensors are pairs (int64 array of mantissas, exponent)."""

from dataclasses import dataclass

import numpy as np

from . import arithmetic as a


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


def avgpool_forward(x, kernel, stride):
    height, width = _out_size(x, kernel, stride, (0, 0))
    acc = np.zeros((x.shape[0], height, width, x.shape[3]), dtype=np.int64)
    for _, _, rows, columns in _spans(kernel, stride, height, width):
        acc += x[:, rows, columns]
    return acc * average_factor(kernel)[0]


def avgpool_backward(delta, x_shape, kernel, stride):
    acc = np.zeros(x_shape, dtype=np.int64)
    for _, _, rows, columns in _spans(kernel, stride, delta.shape[1], delta.shape[2]):
        acc[:, rows, columns] += delta * average_factor(kernel)[0]
    return acc


# The network


@dataclass
class Context:
    """What a pass needs to know besides the tensors. `training` False: no dropout, `stochastic` activations to nearest."""

    seed: int
    step: int
    activation: str
    error: str
    training: bool


class Network:
    """Weights and exponents by node number, and the passes over the model's nodes."""

    def __init__(self, model, seed):
        self.model = model
        self.weights = {}
        self.exponents = {}
        for node in model.nodes:
            if node.weight_shape is not None:
                self.weights[node.number] = a.initial_weights(seed, node.number, node.weight_shape)
                self.exponents[node.number] = a.initial_exponent(*node.fans)

    def forward(self, x, exponent, context):
        """The tensors of every node, node 0 the input, and what backward needs besides (masks, winners) by node."""
        tensors, notes = [(x, exponent)], {}
        for node in self.model.nodes[1:]:
            tensor, note = self._forward_node(node, [tensors[i] for i in node.inputs], context)
            assert tensor[0].shape == (len(x), *node.shape)
            tensors.append(tensor)
            notes[node.number] = note
        return tensors, notes

    def _requantise_activation(self, node, acc, exponent, context):
        mode = context.activation
        if mode == "stochastic" and not context.training:
            mode = "nearest"
        return a.requantise(acc, exponent, mode, lambda: a.random_range(
            context.seed, a.PURPOSE_ACTIVATION, context.step, node.number, acc.size))

    def _forward_node(self, node, inputs, context):
        (x, e), args = inputs[0], node.args
        if node.kind == "conv":
            acc = conv_forward(x, self.weights[node.number], args["stride"], args["padding"])
            return self._requantise_activation(node, acc, e + self.exponents[node.number], context), None
        if node.kind == "linear":
            acc = x.reshape(len(x), -1) @ self.weights[node.number].T  # x may be [N, 1, 1, C]
            return self._requantise_activation(node, acc, e + self.exponents[node.number], context), None
        if node.kind == "relu":
            return (np.maximum(x, 0), e), None
        if node.kind == "flatten":
            return (x.reshape(len(x), -1), e), None
        if node.kind == "maxpool":
            best, winner = maxpool_forward(x, args["kernel"], args["stride"], args["padding"])
            return (best, e), winner
        if node.kind in ("avgpool", "global-avgpool"):
            acc = avgpool_forward(x, args["kernel"], args["stride"])
            return self._requantise_activation(node, acc, e + average_factor(args["kernel"])[1], context), None
        if node.kind == "add":
            acc, exponent = a.add_tensors(x, e, *inputs[1])
            return self._requantise_activation(node, acc, exponent, context), None
        if node.kind == "dropout":
            if not context.training:
                return (x, e), None
            shape = x.shape if args["per"] == "element" else (1, *x.shape[1:])
            words = a.random_range(context.seed, a.PURPOSE_DROPOUT, context.step, node.number, int(np.prod(shape)))
            mask = (words >> 31).reshape(shape)
            return (x * mask, e + 1), mask
        raise ValueError(node.kind)

    def backward(self, tensors, notes, delta, context):
        """The weights' gradients by node number, from the delta (mantissas, exponent) at the last node's output."""
        trainable = self.model.trainable()
        arriving = {node.number: [] for node in self.model.nodes}  # in descending order of the consumers
        arriving[len(self.model.nodes) - 1].append(delta)
        gradients = {}
        for node in reversed(self.model.nodes[1:]):
            if not trainable[node.number]:
                continue
            m, e = self._gather(node, arriving[node.number], context)
            x = tensors[node.inputs[0]][0]
            if not self.model.is_trained(node):
                pass
            elif node.kind == "conv":
                gradients[node.number] = conv_gradient(x, m, node.args["kernel"], node.args["stride"], node.args["padding"])
            elif node.kind == "linear":
                gradients[node.number] = m.T @ x.reshape(len(x), -1)
            if any(trainable[i] for i in node.inputs):
                passed = self._backward_node(node, x, notes[node.number], m, e, context)
                for i in node.inputs:
                    arriving[i].append(passed)
        return gradients

    def _gather(self, node, deltas, context):
        """The sum of the consumers' deltas, two at a time from the highest consumer down."""
        m, e = deltas[0]
        for k, (other, other_exponent) in enumerate(deltas[1:]):
            acc, exponent = a.add_tensors(m, e, other, other_exponent)
            layer = node.number + 65536 * k
            m, e = a.requantise(acc, exponent, context.error, lambda: a.random_range(
                context.seed, a.PURPOSE_FORK, context.step, layer, acc.size))
        return m, e

    def _backward_node(self, node, x, note, m, e, context):
        args = node.args
        if node.kind == "relu":
            return np.where(x > 0, m, 0), e
        if node.kind == "flatten":
            return m.reshape(x.shape), e
        if node.kind == "add":
            return m, e
        if node.kind == "dropout":
            return m * note, e + 1
        if node.kind == "conv":
            acc = conv_backward(m, self.weights[node.number], x.shape, args["stride"], args["padding"])
            e += self.exponents[node.number]
        elif node.kind == "linear":
            acc = (m @ self.weights[node.number]).reshape(x.shape)
            e += self.exponents[node.number]
        elif node.kind == "maxpool":
            acc = maxpool_backward(m, note, x.shape, args["kernel"], args["stride"], args["padding"])
        else:
            acc = avgpool_backward(m, x.shape, args["kernel"], args["stride"])
            e += average_factor(args["kernel"])[1]
        return a.requantise(acc, e, context.error, lambda: a.random_range(
            context.seed, a.PURPOSE_ERROR, context.step, node.number, acc.size))
