"""The section Scalars of docs/arithmetic.md: m * 2^e with 2^30 <= abs(m) < 2^31, or 0, in Python integers."""

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

import numpy as np

INT64 = 1 << 63


def wide(x):
    """x, an integer that fits int64."""
    x = int(x)
    assert abs(x) < INT64, "an integer left int64"
    return x


def _signed(magnitude, sign):
    return -magnitude if sign < 0 else magnitude


@dataclass(frozen=True)
class Scalar:
    m: int
    e: int

    def __post_init__(self):
        assert 1 << 30 <= abs(self.m) < 1 << 31 or self.m == self.e == 0

    def __mul__(self, other):
        return S(self.m * other.m, self.e + other.e)

    def __truediv__(self, other):
        assert other.m != 0
        return S(_signed(wide(abs(self.m) << 32) // abs(other.m), self.m * other.m), self.e - other.e - 32)

    def __add__(self, other):
        if self.m == 0 or other.m == 0:
            return other if self.m == 0 else self
        a, b = (self, other) if self.e >= other.e else (other, self)
        d = a.e - b.e
        small = 0 if d > 62 else (abs(b.m) << 31) >> d
        return S(wide(a.m << 31) + _signed(small, b.m), a.e - 31)

    def __neg__(self):
        return Scalar(-self.m, self.e)

    def scaled(self, e):
        """The scalar with e added to its exponent; 0 stays 0."""
        return Scalar(self.m, self.e + e) if self.m else self

    def is_less(self, other):
        return self.exact() < other.exact()

    def exact(self):
        """The value as a fraction."""
        return Fraction(self.m) * Fraction(2)**self.e


def S(x, e):
    """The scalar x * 2^e: bits of abs(x) beyond the 31 are dropped."""
    x = wide(x)
    if x == 0:
        return ZERO
    shift = abs(x).bit_length() - 31
    magnitude = abs(x) >> shift if shift > 0 else abs(x) << -shift
    return Scalar(_signed(magnitude, x), e + shift)


ZERO = Scalar(0, 0)


def sqrt(a):
    assert a.m >= 0
    if a.m == 0:
        return ZERO
    odd = a.e % 2
    return Scalar(isqrt(wide(a.m << (30 + odd))), (a.e - 30 - odd) // 2)


def fixed(a, e, limit):
    """The integer nearest to a / 2^e, ties away from zero, clipped to [-limit, limit]."""
    shift = a.e - e
    # Beyond these shifts the result is the limit, or 0, whatever the mantissa is.
    if shift > 62:
        magnitude = limit if a.m else 0
    elif shift >= 0:
        magnitude = abs(a.m) << shift
    else:
        magnitude = 0 if shift < -62 else (abs(a.m) + (1 << (-shift - 1))) >> -shift
    return _signed(min(magnitude, limit), a.m)


def times(x, a, e):
    """The integers nearest to x * a / 2^e, ties towards plus infinity, of an int64 array; an overflow gives +-2^62."""
    x = np.asarray(x, dtype=np.int64)
    assert x.size == 0 or int(np.abs(x).max()) < 1 << 31
    product = x * a.m
    s = e - a.e
    if s > 62:
        return np.zeros_like(x)
    if s < 0:
        return np.sign(product) << 62
    return product if s == 0 else (product + (1 << (s - 1))) >> s
