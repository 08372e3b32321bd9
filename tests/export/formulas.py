"""What docs/arithmetic.md says of every operation of a program, by the oracle of tests/oracle: (values, exponent) of each output of an entry of vectors.

An exponent of None is not checked: the tensor has none, or its exponent means nothing.
"""

import numpy as np
from conftest import ROOT  # noqa: F401  (puts the oracle on the path)
from oracle import arithmetic as a
from oracle import network as net
from oracle import norm, sgd
from oracle.scalar import S, ZERO, Scalar, sqrt


def four(x):
    """[N][F] as [N][1][1][F]."""
    return x if x.ndim == 4 else x.reshape(x.shape[0], 1, 1, -1)


class Entry:
    def __init__(self, o):
        self.o, self.attributes = o, o["attributes"]
        self.x = [entry["data"] for entry in o["inputs"]]
        self.e = [entry.get("exponent", 0) for entry in o["inputs"]]
        self.names = [entry["name"] for entry in o["inputs"]]
        self.shapes = [tuple(entry["dims"]) for entry in o["outputs"]]
        self.window = [tuple(self.attributes[key]) for key in ("kernel", "stride", "padding") if key in self.attributes]

    def words(self):
        return self.o["words"]["data"]

    def named(self, ending):
        """(values, exponent) of the input of that name, or None."""
        return next(((x, e) for x, e, name in zip(self.x, self.e, self.names) if name.endswith(ending)), None)

    def rounded(self, acc, exponent):
        values, e = a.requantise(acc, exponent, self.o["rounding"], self.words, self.o.get("clip", 0))
        return [(values.reshape(self.shapes[0]), e)]

    def affine(self, acc, exponent):
        return [(norm._rounded(acc, 1 << 31, self.o["rounding"], self.words), exponent)]


def conv_forward(n):
    _, stride, padding = n.window
    acc = net.grouped_forward(four(n.x[0]), four(n.x[1]), stride, padding, n.attributes.get("groups", 1))
    exponent = n.e[0] + n.e[1]
    if len(n.x) > 2:
        acc = acc + (norm.centring(n.x[2], exponent) if n.attributes["centred"] else a.bias_at(n.x[2], n.e[2] - exponent))
    return n.rounded(acc, exponent)


def conv_backward(n):
    _, stride, padding = n.window
    shape = n.shapes[0] if len(n.shapes[0]) == 4 else (n.shapes[0][0], 1, 1, n.shapes[0][1])
    return n.rounded(net.grouped_backward(four(n.x[0]), four(n.x[1]), shape, stride, padding, n.attributes.get("groups", 1)), n.e[0] + n.e[1])


def conv_gradient(n):
    acc = net.grouped_gradient(four(n.x[1]), four(n.x[0]), *n.window, n.attributes.get("groups", 1))
    return [(acc.reshape(n.shapes[0]), None)]


def maxpool_forward(n):
    best, winner = net.maxpool_forward(n.x[0], *n.window)
    return [(best, n.e[0]), (winner, None)]


def avgpool(n, acc):
    return n.rounded(acc, n.e[0] + net.average_factor(n.window[0])[1])


def relu_forward(n):
    limit = a.relu_limit(n.attributes["max"], n.e[0]) if n.attributes["max"] else 127
    return [(np.minimum(np.maximum(n.x[0], 0), limit), n.e[0])]


def relu_backward(n):
    limit = a.relu_limit(n.attributes["max"], n.e[1]) if n.attributes["max"] else 128
    return [(np.where((n.x[1] > 0) & (n.x[1] < limit), n.x[0], 0), n.e[0])]


def dropout(n):
    threshold, factor, k = a.dropout_scale(n.attributes["rate"])
    return [(np.where(n.words() >= threshold, a.shift_round(n.x[0] * factor, 15, "nearest"), 0), n.e[0] + k)]


def loss(n):
    (logits, targets, metrics), exponent = n.x, n.e[0]
    logits = logits.reshape(len(logits), -1)
    seen = np.array([a.loss_sum(logits, exponent, targets), a.correct_count(logits, targets), len(targets)])
    if n.attributes["loss"] == "niti":
        delta = a.loss_error_niti(logits, exponent, targets, n.words().reshape(logits.shape))
    else:
        delta = a.loss_error_softmax(logits, exponent, targets, n.o["rounding"], lambda: n.words().reshape(logits.shape), n.attributes["off"])
    return [(metrics + seen, None), (delta[0].reshape(n.shapes[1]), delta[1])]


def norm_fit(n):
    x, w, b, running = n.x
    statistics = norm.batch_statistics(x, n.e[0])
    factors, offsets, exponent = norm.factors_of(statistics, (w, n.e[1]), (b, n.e[2]))
    flat = x.reshape(-1, x.shape[-1])
    return [(np.stack([factors, offsets], axis=1), exponent), (norm.moved_running(running, statistics, n.e[0], n.attributes["centred"]), norm.RUNNING_EXPONENT),
            (np.stack([flat.sum(axis=0), (flat * flat).sum(axis=0)], axis=1), None)]


def norm_forward(n):
    return n.affine(n.x[0] * n.x[1][:, 0] + n.x[1][:, 1], n.e[1])


def norm_delta_fit(n):
    dy, x, sums, w = n.x
    flat, d = x.reshape(-1, x.shape[-1]), dy.reshape(-1, x.shape[-1])
    assert (sums == np.stack([flat.sum(axis=0), (flat * flat).sum(axis=0)], axis=1)).all()
    statistics = norm.batch_statistics(x, n.e[1])
    p, q, o, reach = norm.delta_factors(x, dy, statistics, (w, n.e[3]))
    weight, bias = norm.gradients(x, dy, n.e[0], statistics, (w, n.e[3]))
    return [(np.stack([p, q, o], axis=1), reach + n.e[0] - n.e[1]), weight, bias,
            (np.stack([d.sum(axis=0), (d * flat).sum(axis=0), (d * d).sum(axis=0)], axis=1), None)]


def norm_backward(n):
    dy, x, map_ = n.x
    return n.affine(dy * map_[:, 0] + x * map_[:, 1] + map_[:, 2], n.e[2])


def gradient_squares(n):
    before = Scalar(*map(int, n.x[0])) if len(n.x) > 1 else ZERO
    total = before + sgd.squares_sum([(n.x[-1], n.attributes["gradient_exponent"])])
    return [(np.array([total.m, total.e]), None)]


def update_wide(n):
    given, units = n.attributes, S(10**9, 0)
    share = lambda key: S(given[key], 0) / units if given.get(key) else ZERO  # noqa: E731
    clip = S(1, 0)
    if "clip_norm" in given:
        total = Scalar(*map(int, n.named("squares")[0]))
        factor = (S(given["clip_norm"], 0) / units) / (sqrt(total) / S(given["images"], 0) + S(1, 0) / S(10**6, 0))
        clip = factor if factor.exact() < 1 else clip
    numbers = sgd.Constants(share("rate"), share("momentum"), share("decay"), given["nesterov"], clip, n.o["opcode"] == "update_niti16")
    master = n.named(".master")
    moved, velocity = sgd.step_of_tensor(master or (n.x[0], n.e[0]), n.named(".velocity"), (n.x[1], given["gradient_exponent"]), given.get("images", 1), numbers,
                                         n.words())
    return [sgd.operand(moved), moved, velocity] if master else [moved, velocity]


FORMULAS = {
    "input": lambda n: [(n.x[2][np.arange(n.x[2].shape[0]), n.x[0]], n.e[2])],
    "conv_forward": conv_forward,
    "conv_backward": conv_backward,
    "conv_gradient": conv_gradient,
    "bias_gradient": lambda n: [(n.x[0].reshape(-1, n.x[0].shape[-1]).sum(axis=0), n.e[0])],
    "relu_forward": relu_forward,
    "relu_backward": relu_backward,
    "maxpool_forward": maxpool_forward,
    "maxpool_backward": lambda n: n.rounded(net.maxpool_backward(n.x[0], n.x[1], n.shapes[0], *n.window), n.e[0]),
    "avgpool_forward": lambda n: avgpool(n, net.avgpool_forward(n.x[0], *n.window)),
    "avgpool_backward": lambda n: avgpool(n, net.avgpool_backward(n.x[0], n.shapes[0], *n.window)),
    "add": lambda n: n.rounded(*a.add_tensors(n.x[0], n.e[0], n.x[1], n.e[1])),
    "dropout": dropout,
    "reshape": lambda n: [(n.x[0].reshape(n.shapes[0]), n.e[0])],
    "loss": loss,
    "norm_fit": norm_fit,
    "norm_forward": norm_forward,
    "norm_delta_fit": norm_delta_fit,
    "norm_backward": norm_backward,
    "all_sum": lambda n: [(n.x[0], None)],  # in a process by itself
    "all_sum_wait": lambda n: [],
    "update_niti": lambda n: [(a.update_niti(n.x[0], n.x[1], n.o["mu"]), n.e[0])],
    "gradient_squares": gradient_squares,
    "update_niti16": update_wide,
    "update_sgd": update_wide,
}


def difference(o):
    """What is wrong with an entry; None: nothing."""
    expected = FORMULAS[o["opcode"]](Entry(o))
    if len(expected) != len(o["outputs"]):
        return f"{len(o['outputs'])} outputs"
    for (values, exponent), found in zip(expected, o["outputs"]):
        if exponent is not None and exponent != found.get("exponent"):
            return f"{found['name']}: exponent {found.get('exponent')}, not {exponent}"
        if values.shape != found["data"].shape or (values != found["data"]).any():
            return f"{found['name']}: values"
    return None
