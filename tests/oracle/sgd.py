"""The sections Update `sgd` and Update `niti16` of docs/arithmetic.md: one step of one tensor. Tensors are pairs (int64 array, exponent)."""

from dataclasses import dataclass

import numpy as np

from . import arithmetic as a
from . import rate
from .scalar import S, ZERO, sqrt, times

VELOCITY_LIMIT = 32767
MASTER_LIMIT = 32512
FRACTION = 14


@dataclass(frozen=True)
class Constants:
    """The recipe's numbers as scalars."""

    rate: object
    momentum: object
    decay: object
    nesterov: bool
    clip: object = S(1, 0)
    normalised: bool = False  # update `niti16`


def decimal_scalar(decimal):
    """A decimal of at most nine places."""
    return S(rate.billionths(decimal), 0) / S(10**9, 0)


def constants(update, moment, decays, clip=S(1, 0), normalised=False):
    """decays: whether the tensor is an int8 operand's master; clip: the factor of clipping by norm."""
    step_rate = S(rate.rate_at(update, moment.step, moment.steps_per_epoch, moment.steps), 0) / S(10**9, 0)
    return Constants(step_rate, decimal_scalar(update.get("momentum", 0.9)),
                     decimal_scalar(update.get("weight_decay", 0)) if decays else ZERO, update.get("nesterov", False), clip, normalised)


def operand(master):
    """The int8 operand (mantissas, exponent) of a master (W, exponent)."""
    return a.round_clip(master[0], 8, "nearest"), master[1] + 8


def _largest(x):
    return int(np.abs(x).max())


def squares_shift(largest, count):
    return max(0, a.bits(largest) - (62 - a.bits(count)) // 2)


def squares_sum(gradients):
    """The sum of the squares of gradients, pairs (int64 array, exponent) in the order of the tensors."""
    total = ZERO
    for values, exponent in gradients:
        shift = squares_shift(_largest(values), values.size)
        rounded = [int(v) for v in (a.shift_round(values, shift, "nearest") if shift else values).reshape(-1)]
        q = sum(v * v for v in rounded)
        assert q <= 1 << 62
        total = total + S(q, 2 * (exponent + shift))
    return total


def clip_factor(total, clip_norm, images):
    """The factor of every gradient, at most 1."""
    factor = decimal_scalar(clip_norm) / (sqrt(total) / S(images, 0) + S(1, 0) / S(10**6, 0))
    return S(1, 0) if factor.exact() >= 1 else factor


def scaled_gradient(gradient, images):
    """(g at most 2^30 in magnitude, c_g, whether any gradient is not 0)."""
    values, exponent = gradient
    largest = _largest(values)
    k = a.bits(largest) - 30 if largest else 0
    g = a.shift_round(values, k, "nearest") if k > 0 else values << -k
    assert _largest(g) <= 1 << 30
    return g, S(1, exponent + k) / S(images, 0), largest != 0


def normalised_gradient(values, weight_exponent):
    """Of update `niti16`: (g at most 2^30 in magnitude, c_g, whether any gradient is not 0)."""
    largest = _largest(values)
    k = max(a.bits(largest) - 30, -23)
    g = a.shift_round(values, k, "nearest") if k > 0 else values << -k
    assert _largest(g) <= 1 << 30
    return g, S(1, weight_exponent - 22), largest != 0


def _stochastic(x, draws, limit):
    """x / 2^14 rounded up in magnitude where the 14 bits drawn are less than the fraction."""
    size = np.abs(x)
    q = (size >> FRACTION) + (draws < (size & ((1 << FRACTION) - 1)))
    return np.clip(np.where(x < 0, -q, q), -limit, limit)


def master_exponent(weights, exponent):
    count, magnitudes = weights.size, np.abs(weights)
    if np.count_nonzero(magnitudes > 32000) * 256 > count:
        return exponent + 1
    return exponent - 1 if magnitudes.any() and np.count_nonzero(magnitudes > 14000) * 1024 < count else exponent


def _below(x, bound):
    assert _largest(x) < bound
    return x


def step_of_tensor(master, velocity, gradient, images, numbers, words):
    """The new master and velocity. gradient: the exact sums; numbers: Constants; words: the random words of the weights."""
    (w, e_w), (v, e_v) = master, velocity
    if numbers.normalised:
        g, c_g, has_gradient = normalised_gradient(gradient[0], e_w)
    else:
        g, c_g, has_gradient = scaled_gradient(gradient, images)
        c_g = c_g * numbers.clip
    c_v, c_w = numbers.momentum.scaled(e_v), numbers.decay.scaled(e_w - 7 if numbers.normalised else e_w)
    bound = c_v * S(_largest(v), 0)
    if has_gradient:
        bound = bound + c_g * S(1, 30)
    bound = bound + c_w * S(_largest(w), 0)
    new_e_v = bound.e + 16
    if bound.m == 0 or new_e_v < -1024:
        return master, velocity
    u = new_e_v - FRACTION
    new_e_w = e_w if numbers.normalised else master_exponent(w, e_w)
    slope = _below(times(g, c_g, u) + times(w, c_w, u), 1 << 30)
    moving = _below(slope + times(v, c_v, u), 1 << 30)
    step = _below(slope + times(moving, numbers.momentum, 0) if numbers.nesterov else moving, 1 << 31)
    moved = times(step, numbers.rate, new_e_w - FRACTION - u)
    assert _largest(moved) <= 1 << 62
    x = (w << (FRACTION + e_w - new_e_w)) - moved
    words = np.asarray(words, dtype=np.int64).reshape(w.shape)
    return ((_stochastic(x, words >> 18, MASTER_LIMIT), new_e_w),
            (_stochastic(moving, (words >> 2) & 16383, VELOCITY_LIMIT), new_e_v))
