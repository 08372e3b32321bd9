"""The oracle's scalars against exact rational arithmetic."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from oracle.scalar import S, ZERO, Scalar, fixed, sqrt, times, wide

PRECISION = Fraction(1, 2**29)
COUNT = 3000


def some_scalar(numbers, spread=40):
    m = numbers.choice([numbers.randrange(2**30, 2**31), 2**30, 2**31 - 1, 2**30 + 1])
    return Scalar(numbers.choice([-1, 1]) * m, numbers.randint(-spread, spread))


def is_near(result, exact):
    return result.exact() == exact == 0 or (exact != 0 and abs(result.exact() - exact) < PRECISION * abs(exact))


def test_integers_keep_their_highest_31_bits():
    numbers = random.Random(1)
    edges = [0, 1, -1, 2**31 - 1, 2**31, 2**30, 2**62, 2**63 - 1, -(2**63 - 1), -(2**31)]
    for x in edges + [numbers.randrange(-(2**63) + 1, 2**63) >> numbers.randrange(63) for _ in range(COUNT)]:
        s = S(x, -7)
        exact = Fraction(x, 2**7)
        assert abs(s.exact()) <= abs(exact) and is_near(s, exact)
        assert abs(x) >= 2**31 or s.exact() == exact
    assert S(0, 5) == ZERO and S(-3, 2) == Scalar(-3 * 2**29, 2 - 29)
    with pytest.raises(AssertionError, match="int64"):
        wide(2**63)


def test_products_and_quotients():
    numbers = random.Random(2)
    for _ in range(COUNT):
        a, b = some_scalar(numbers), some_scalar(numbers)
        for result, exact in ((a * b, a.exact() * b.exact()), (a / b, a.exact() / b.exact())):
            assert is_near(result, exact) and abs(result.exact()) <= abs(exact)
        assert (-a).exact() == -a.exact() and a * ZERO == ZERO * a == ZERO / a == ZERO
        assert a.scaled(9).exact() == a.exact() * 512 and ZERO.scaled(9) == ZERO
    assert (S(1, 0) / S(3, 0)) == Scalar(0x55555555, -32)  # 0.0101... in binary, cut after 31 significant bits


def test_sums():
    numbers = random.Random(3)
    for _ in range(COUNT):
        a, b = some_scalar(numbers), some_scalar(numbers)
        assert is_near(a + b, a.exact() + b.exact())
        assert a + b == b + a
        assert a + ZERO == ZERO + a == a and a + -a == ZERO
        # Numbers that nearly cancel lose no more.
        b = Scalar(-a.m, a.e) if abs(a.m) < 2**30 + 2 else Scalar(int(math.copysign(2**30, -a.m)), a.e + 1)
        assert is_near(a + b, a.exact() + b.exact())
    far = Scalar(2**31 - 1, 0)
    for d in (31, 32, 61, 62, 63, 200):
        assert is_near(far + Scalar(-(2**30), -d), far.exact() - Fraction(2**30, 2**d))


def test_sqrt_is_the_exact_floor():
    numbers = random.Random(4)
    for _ in range(COUNT):
        a = some_scalar(numbers)
        a = Scalar(abs(a.m), a.e)
        root = sqrt(a)
        unit = Fraction(2)**root.e
        assert root.exact()**2 <= a.exact() < (root.exact() + unit)**2
    assert sqrt(ZERO) == ZERO and sqrt(S(9, 4)) == S(3, 2) and sqrt(S(2, -1)) == S(1, 0)


def nearest_away(x):
    magnitude = math.floor(abs(x) + Fraction(1, 2))
    return -magnitude if x < 0 else magnitude


def test_fixed_is_the_nearest_integer():
    numbers = random.Random(5)
    for _ in range(COUNT):
        a, e, limit = some_scalar(numbers), numbers.randint(-60, 90), 2**numbers.randint(1, 61)
        expected = nearest_away(a.exact() / Fraction(2)**e)
        assert fixed(a, e, limit) == max(-limit, min(limit, expected))
    assert fixed(S(5, -1), 0, 100) == 3 and fixed(S(-5, -1), 0, 100) == -3 and fixed(ZERO, 900, 3) == fixed(ZERO, -900, 3) == 0
    assert fixed(S(-1, 900), 0, 77) == -77 and fixed(S(1, -900), 0, 77) == 0


def test_fixed_is_monotone():
    numbers = random.Random(6)
    for e in (-20, 0, 31, 40):
        values = sorted((some_scalar(numbers) for _ in range(500)), key=Scalar.exact)
        results = [fixed(v, e, 2**30) for v in values]
        assert results == sorted(results)


def test_times_rounds_ties_up():
    numbers = random.Random(7)
    for _ in range(COUNT // 3):
        a, e = some_scalar(numbers), numbers.randint(-30, 110)
        x = np.array([numbers.randrange(-(2**31) + 1, 2**31) >> numbers.randrange(31) for _ in range(6)] + [0, 1, 2**31 - 1])
        for value, result in zip(x.tolist(), times(x, a, e).tolist()):
            exact = value * a.exact() / Fraction(2)**e
            if e < a.e:
                assert result == (exact > 0) * 2**62 - (exact < 0) * 2**62
            else:
                assert result == math.floor(exact + Fraction(1, 2)) and abs(result) <= 2**62
    assert times([3, -3, 0], S(1, -1), 0).tolist() == [2, -1, 0]
    assert times([5, -5], ZERO, -40).tolist() == [0, 0]
