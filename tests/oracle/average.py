"""The section Averaged weights of docs/arithmetic.md."""

from fractions import Fraction

import numpy as np

from . import arithmetic as a

FRACTION = 24
LIMIT = 32512
STATISTICS_STEPS = 100


def _shifted(x, right):
    x = np.asarray(x, dtype=np.int64)
    if right >= 62:
        return np.zeros_like(x)
    return x << -right if right <= 0 else a.shift_round(x, right, "nearest")


def add(total, values, exponent):
    """The sum (int64 array, largest exponent E, samples) with one more sample; total None: the first."""
    values = np.asarray(values, dtype=np.int64)
    if total is None:
        total = np.zeros_like(values), exponent, 0
    sums, largest, samples = total
    now = max(largest, exponent)
    sums = _shifted(sums, now - largest) + _shifted(values, now - exponent - FRACTION)
    assert np.abs(sums).max() <= (samples + 1) * LIMIT << FRACTION
    return sums, now, samples + 1


def mean(total):
    """(A, exponent) of a sum."""
    sums, largest, samples = total

    def divided(s):
        return [int(abs(Fraction(int(v), samples << s)) + Fraction(1, 2)) * (-1 if v < 0 else 1) for v in sums.reshape(-1)]

    s = FRACTION
    if np.any(sums):
        s = next(k for k in range(FRACTION + 1) if max(map(abs, divided(k))) <= LIMIT)
    return np.array(divided(s), dtype=np.int64).reshape(sums.shape), largest - FRACTION + s
