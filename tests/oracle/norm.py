"""The section Batch norm of docs/arithmetic.md: one channel's numbers are scalars, a tensor's are int64 arrays [..., C]."""

from dataclasses import dataclass

import numpy as np

from . import arithmetic as a
from .scalar import S, ZERO, fixed, sqrt, wide

MAX_VALUES = 1 << 24
WEIGHT, WEIGHT_EXPONENT = 1 << 14, -14
BIAS_EXPONENT = -15
RUNNING_EXPONENT = -32
EPSILON = S(1, 0) / S(100000, 0)
FRACTION = 16
FACTOR_LIMIT = 1 << 22
OFFSET_LIMIT = 1 << 29


@dataclass
class Statistics:
    """Of every channel, in mantissas of the input."""

    mean: list
    variance: list
    deviation: list
    quiet: list


def initial_running(channels):
    """int64 [2][C]: means 0, variances 1."""
    return np.stack([np.zeros(channels, dtype=np.int64), np.full(channels, 1 << -RUNNING_EXPONENT, dtype=np.int64)])


def _channels(x):
    return np.asarray(x, dtype=np.int64).reshape(-1, x.shape[-1])


def _sum(x):
    """The sums of the channels of [n, C]: Python integers."""
    return [int(v) for v in x.sum(axis=0)]


def _below_62(v):
    assert abs(v) < 1 << 62
    return v


def _statistics(mean, variance, exponent):
    epsilon = EPSILON.scaled(-2 * exponent)
    return Statistics(mean, variance, [sqrt(v + epsilon) for v in variance], [v.is_less(epsilon) for v in variance])


def batch_statistics(x, exponent):
    """The statistics of a batch of mantissas x [..., C]."""
    x = _channels(x)
    n = len(x)
    assert 1 <= n <= MAX_VALUES and np.abs(x).max() <= a.LIMIT
    mean, variance = [], []
    for total, squares in zip(_sum(x), _sum(x * x)):
        mean.append(S(total, 0) / S(n, 0))
        assert n * squares < 1 << 62 and total**2 < 1 << 62
        variance.append(S(n * squares - total**2, 0) / (S(n, 0) * S(n, 0)))
    return _statistics(mean, variance, exponent)


def running_statistics(running, exponent, centred=False):
    """The statistics that evaluation takes, for an input of this exponent."""
    mean = [ZERO if centred else S(int(v), RUNNING_EXPONENT - exponent) for v in running[0]]
    variance = [S(int(v), RUNNING_EXPONENT - 2 * exponent) for v in running[1]]
    return _statistics(mean, variance, exponent)


def _tenth(q):
    """q / 10 to the nearest integer, ties away from zero."""
    magnitude = (abs(wide(q)) + 5) // 10
    return -magnitude if q < 0 else magnitude


def centring(running, exponent):
    """What a centred norm's product adds to its accumulators at this exponent: [C]."""
    return np.array([-fixed(S(int(v), RUNNING_EXPONENT), exponent, OFFSET_LIMIT) for v in running[0]], dtype=np.int64)


def _moved_centred(running, now):
    return max(-(1 << 60), min(1 << 60, int(running) + _tenth(fixed(now, RUNNING_EXPONENT, 1 << 60))))


def moved_running(running, statistics, exponent, centred=False):
    """The running statistics after a training step."""
    targets = [[v.scaled(exponent) for v in statistics.mean], [v.scaled(2 * exponent) for v in statistics.variance]]
    out = [[int(r) + _tenth(fixed(v, RUNNING_EXPONENT, 1 << 60) - int(r)) for r, v in zip(*row)] for row in zip(running, targets)]
    if centred:
        out[0] = [_moved_centred(r, v) for r, v in zip(running[0], targets[0])]
    assert all(abs(r) <= 1 << 60 for row in out for r in row)
    return np.array(out, dtype=np.int64)


def range_exponent(largest):
    """The exponent at which 127 holds the scalar `largest`."""
    if largest.m == 0:
        return 0
    return largest.e + (25 if largest.m > 127 << 24 else 24)


def _rounded(acc, bound, mode, words):
    assert acc.size == 0 or int(np.abs(acc).max()) < bound <= 1 << 31
    return a.round_clip(acc, FRACTION, mode, words() if mode in a.DRAWING else None)


def factors_of(statistics, weight, bias):
    """(factors, offsets, exponent). weight and bias: (int16 values [C], exponent)."""
    (w, e_w), (b, e_b) = weight, bias
    largest = ZERO
    for w_c, b_c in zip(w, b):
        reach = S(4 * abs(int(w_c)), e_w) + S(abs(int(b_c)), e_b)
        largest = reach if largest.is_less(reach) else largest
    exponent = range_exponent(largest)
    factors, offsets = [], []
    for w_c, b_c, mean, deviation in zip(w, b, statistics.mean, statistics.deviation):
        factor = fixed(S(int(w_c), e_w) / deviation, exponent - FRACTION, FACTOR_LIMIT)
        factors.append(factor)
        offsets.append(fixed(S(int(b_c), e_b), exponent - FRACTION, OFFSET_LIMIT) - fixed(S(factor, 0) * mean, 0, OFFSET_LIMIT))
    return factors, offsets, exponent


def forward(x, statistics, weight, bias, mode, words=None):
    """(mantissas, exponent). words: as in arithmetic.requantise."""
    factors, offsets, exponent = factors_of(statistics, weight, bias)
    product = x * np.array(factors, dtype=np.int64)
    assert np.abs(product).max() < 1 << 29 and max(map(abs, offsets)) <= 1 << 30
    return _rounded(product + np.array(offsets, dtype=np.int64), 1 << 31, mode, words), exponent


def _mean_square(squares):
    """The mean of the channels' squares, all at the exponent of the largest."""
    present = [q for q in squares if q.m]
    if not present:
        return ZERO
    top = max(q.e for q in present)
    total = sum(q.m >> (top - q.e) for q in present if top - q.e <= 62)
    return S(total, top) / S(len(squares), 0)


@dataclass
class _Channel:
    """What backward knows of a channel."""

    mean_d: object
    factor: object
    slope: object
    square: object
    weight_gradient: int
    bias_gradient: int


def _channel(n, sums, w, variance, deviation):
    total_x, total_d, products, squares = sums
    joint = n * products - total_x * total_d
    assert abs(n * products) < 1 << 62 and abs(total_x * total_d) < 1 << 62
    count = S(n, 0) * S(n, 0)
    covariance = S(_below_62(joint), 0) / count
    factor = w / deviation
    slope = covariance / (deviation * deviation)
    spread = S(_below_62(n * squares - total_d**2), 0) / count
    cross = slope * covariance
    square = (factor * factor) * ((spread + -(cross + cross)) + ((slope * slope) * variance))
    return _Channel(mean_d=S(total_d, 0) / S(n, 0), factor=factor, slope=slope, square=ZERO if square.m < 0 else square,
                    weight_gradient=fixed((S(joint, 0) / S(n, 0)) / deviation, -8, 1 << 60), bias_gradient=total_d)


def _channels_backward(x, delta, statistics, weight):
    x, d = _channels(x), _channels(delta)
    assert np.abs(d).max() <= a.LIMIT
    sums = zip(_sum(x), _sum(d), _sum(d * x), _sum(d * d))
    scales = [S(int(w_c), weight[1]) for w_c in weight[0]]
    return [_channel(len(x), *row) for row in zip(sums, scales, statistics.variance, statistics.deviation)]


def gradients(x, delta, delta_exponent, statistics, weight):
    """((gradient of the weight [C], exponent), (gradient of the bias [C], exponent))."""
    channels = _channels_backward(x, delta, statistics, weight)
    return ((np.array([c.weight_gradient for c in channels], dtype=np.int64), delta_exponent - 8),
            (np.array([c.bias_gradient for c in channels], dtype=np.int64), delta_exponent))


def delta_factors(x, delta, statistics, weight):
    """(p, q, o, exponent relative to the delta's in mantissas of x)."""
    channels = _channels_backward(x, delta, statistics, weight)
    squares = [c.square for c in channels]
    loud = [ZERO if quiet else square for quiet, square in zip(statistics.quiet, squares)]
    reach = range_exponent(S(64, 0) * sqrt(_mean_square(loud if any(square.m for square in loud) else squares)))
    u = reach - FRACTION
    p = [fixed(c.factor, u, FACTOR_LIMIT) for c in channels]
    q = [fixed(-(c.factor * c.slope), u, FACTOR_LIMIT) for c in channels]
    o = [-fixed(S(p_c, 0) * c.mean_d + S(q_c, 0) * mean, 0, OFFSET_LIMIT)
         for p_c, q_c, c, mean in zip(p, q, channels, statistics.mean)]
    return *(np.array(v, dtype=np.int64) for v in (p, q, o)), reach


def backward(x, x_exponent, delta, delta_exponent, statistics, weight, mode, words=None):
    """(mantissas, exponent) of the delta of the input."""
    p, q, o, reach = delta_factors(x, delta, statistics, weight)
    return _rounded(delta * p + x * q + o, 3 << 29, mode, words), reach + delta_exponent - x_exponent
