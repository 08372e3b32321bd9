"""The section Folded norm of docs/arithmetic.md, on a description as a dictionary and on one layer's arrays."""

import copy

import numpy as np

from . import norm
from .scalar import S, ZERO, fixed, sqrt


def fold_layers(layers):
    """The list without norms: the layer before each gets a bias."""
    out = []
    for item in layers:
        if item == "norm" or isinstance(item, dict) and "norm" in item:
            (args,) = out[-1].values()
            args["bias"] = True
            continue
        item = copy.deepcopy(item)
        if isinstance(item, dict):
            (args,) = item.values()
            for key in ("layers", "body", "shortcut"):
                if isinstance(args, dict) and key in args:
                    args[key] = fold_layers(args[key])
        out.append(item)
    return out


def _magnitude(s):
    return S(abs(s.m), s.e) if s.m else ZERO


def _exponent(values):
    """The exponent that the largest of some scalars needs."""
    largest = max((_magnitude(v) for v in values), key=lambda s: (s.m > 0, s.e if s.m else 0, s.m))
    return norm.range_exponent(largest)


def fold(weight, bias, norm_weight, norm_bias, running):
    """((int8 weights, exponent), (int16 bias, exponent)). weight: (int16 array [channels, ...], exponent); bias: a pair or None;
    norm_weight, norm_bias: pairs; running: int64 [2][channels]."""
    w, e_w = weight
    channels = len(w)
    factors, offsets = [], []
    for c in range(channels):
        deviation = sqrt(S(int(running[1][c]), -32) + norm.EPSILON)
        factor = S(int(norm_weight[0][c]), norm_weight[1]) / deviation
        own = S(int(bias[0][c]), bias[1]) if bias else ZERO
        mean = S(int(running[0][c]), -32)
        factors.append(factor)
        offsets.append((own + S(-mean.m, mean.e)) * factor + S(int(norm_bias[0][c]), norm_bias[1]))
    flat = np.asarray(w, dtype=np.int64).reshape(channels, -1)
    e = _exponent([S(int(np.abs(row).max()), e_w) * factor for row, factor in zip(flat, factors)])
    e_b = _exponent(offsets) - 8
    new = [[fixed(S(int(v), e_w) * factor, e, 127) for v in row] for row, factor in zip(flat, factors)]
    return ((np.array(new, dtype=np.int64).reshape(np.shape(w)), e),
            (np.array([fixed(o, e_b, 32512) for o in offsets], dtype=np.int64), e_b))
