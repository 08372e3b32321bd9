"""The oracle's learning rates against the usual formulas in exact fractions and float64, at the ends and along the way."""

import math
from fractions import Fraction

import pytest

from oracle import arithmetic as a
from oracle import rate


def rates(steps, steps_per_epoch=5, **update):
    return [rate.rate_at(update, step, steps_per_epoch, steps) for step in range(steps)]


def test_cosine_table():
    assert rate.COSINE_TABLE[0] == 2**30 and rate.COSINE_TABLE[256] == 0
    for i, value in enumerate(rate.COSINE_TABLE):
        assert abs(value - math.cos(math.pi * i / 512) * 2**30) <= 0.5 + 1e-6


def test_constant_and_steps():
    assert rates(4, lr=0.000000001) == [1] * 4
    points = [{"step": 0, "lr": 1000}, {"epoch": 1, "lr": 0.5}, {"at": "70%", "lr": 0}]
    assert rates(10, lr=points) == [10**12] * 5 + [5 * 10**8] * 2 + [0] * 3


@pytest.mark.parametrize("top,last", [(0.1, 0), (1000, 0.000000001), (0.02, 0.7)])
def test_linear_is_the_fraction_rounded_towards_the_start(top, last):
    start, end = rate.billionths(top), rate.billionths(last)
    for x, value in enumerate(rates(37, schedule="linear", lr=top, final_lr=last)):
        moved = abs(end - start) * Fraction(x, 37) // 1
        assert value == (start - moved if start > end else start + moved)


@pytest.mark.parametrize("steps", [1, 2, 3, 500, 4096])
def test_cosine_and_one_cycle(steps):
    """Within half of the angle's 17 bits, the interpolation's error and the roundings."""
    bound = (math.pi / 2**17 + (math.pi / 512)**2 / 8 + 4e-9) / 2

    def near(value, start, end, share):
        real = end + (start - end) * (1 + math.cos(math.pi * share)) / 2
        assert abs(value - real) <= bound * abs(start - end) + 2

    for x, value in enumerate(rates(steps, schedule="cosine", lr=0.8, final_lr=0.05)):
        near(value, 8e8, 5e7, x / steps)
    cycle, warm = rates(steps, schedule="one-cycle", lr=0.8), int(Fraction(3, 10) * steps)
    for step, value in enumerate(cycle):
        if step < warm:
            near(value, 32000000, 8e8, step / warm)
        else:
            near(value, 8e8, 3200, (step - warm) / (steps - warm))
    assert cycle[warm] == 8 * 10**8 and (warm == 0 or cycle[0] == 32000000)


def test_warm_up():
    assert rates(8, lr=0.7, warmup={"step": 3}) == [7 * 10**8 * (t + 1) // 3 for t in range(3)] + [7 * 10**8] * 5
    assert rates(12, schedule="linear", lr=0.4, warmup={"epoch": 1})[:6] == [8 * 10**7 * (t + 1) for t in range(5)] + [4 * 10**8]


def test_smoothed_labels_expect_one_in_all():
    assert a.smoothed_share(0, 10) == 0
    for smoothing, classes in ((0.1, 10), (0.999999999, 2), (0.000000001, 3), (0.3, 1000)):
        off = a.smoothed_share(smoothing, classes)
        exact = Fraction(str(smoothing)) / classes * 2**24
        assert exact - 1 < off <= exact
        assert 0 <= (1 << 24) - (classes - 1) * off - exact < 2**24 * (1 - Fraction(str(smoothing))) + classes


def test_bytes_of_words():
    """Element i rounds with byte i mod 4 of word floor(i / 4), and goes up in 256 draws as often as a ninth bit allows."""
    words = a.random_range(7, 6, 3, 2, 3)
    drawn = a.rounding_words("stochastic-byte", 7, 6, 3, 2, 11)
    assert drawn.tolist() == [int(words[i // 4]) >> (8 * (i % 4)) & 255 for i in range(11)]
    for shift in (1, 5, 8, 9, 10, 20, 32):
        for rest in {0, 1, (1 << shift) // 3, (1 << shift) - 1}:
            x = [(5 << shift) + rest] * 256
            ups = int((a.shift_round(x, shift, "stochastic-byte", list(range(256))) - 5).sum())
            assert abs(Fraction(ups, 256) - Fraction(rest, 1 << shift)) <= Fraction(1, 2**9)
            negative = a.shift_round([-v for v in x], shift, "stochastic-byte", list(range(256)))
            assert int((negative + 5).sum()) == -ups
