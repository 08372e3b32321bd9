"""The oracle's update `sgd` against the usual formulas in float64, and its bounds."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from oracle import arithmetic as a
from oracle import sgd
from oracle.scalar import ZERO
from oracle.train import Moment


def float_step(w, v, g, rate, momentum, decay, nesterov):
    slope = g + decay * w
    v = momentum * v + slope
    return w - rate * (slope + momentum * v if nesterov else v), v


def real(tensor):
    return tensor[0] * 2.0**tensor[1]


def tensors(seed, size, largest=20000):
    """(master, velocity, gradient, images): their steps are of about the same size."""
    random = np.random.RandomState(seed)
    master = random.randint(-largest, largest + 1, size=size), -21
    velocity = random.randint(-32767, 32768, size=size), -22
    gradient = np.rint(random.normal(size=size) * 1e6).astype(np.int64), -24
    return master, velocity, gradient, 48


def numbers_of(rate, momentum, decay, nesterov):
    return sgd.constants({"lr": rate, "momentum": momentum, "weight_decay": decay, "nesterov": nesterov}, Moment(0, 1, 1, 1), True)


SETTINGS = [("0.1", "0.9", "0.0005", True), ("0.1", "0.9", "0.0005", False), ("0.05", 0, 0, False), ("0.003", "0.5", "0.7", True),
            ("0.000001", "0.99", "0.1", False), (0, "0.9", "0.01", True)]


@pytest.mark.parametrize("rate,momentum,decay,nesterov", SETTINGS)
@pytest.mark.parametrize("largest", [200, 13999, 14001, 20000, 32000, 32001])
def test_a_step_is_sgd_within_rounding(largest, rate, momentum, decay, nesterov):
    """Stochastic rounding is off by less than a unit, in either direction; the new exponents hold what they must."""
    master, velocity, gradient, images = tensors(largest, 500, largest)
    master[0][:2] = largest, -largest  # two of 500 are more than a 256th
    words = a.random_range(5, a.PURPOSE_UPDATE, 0, 1, 500)
    numbers = numbers_of(rate, momentum, decay, nesterov)
    new_master, new_velocity = sgd.step_of_tensor(master, velocity, gradient, images, numbers, words)
    w, v = float_step(real(master), real(velocity), real(gradient) / images, *map(float, (rate, momentum, decay)), nesterov)
    units = [2.0**t[1] for t in (new_master, new_velocity)]
    # times and g round to nearest, each to a fraction of 2^-14.
    assert (np.abs(real(new_velocity) - v) < units[1] * 1.001).all()
    assert (np.abs(real(new_master) - np.clip(w, -32512 * units[0], 32512 * units[0])) < units[0] * 1.001).all()
    assert new_master[1] - master[1] == (1 if largest > 32000 else -1 if largest <= 14000 else 0)
    assert np.abs(new_velocity[0]).max() <= 32767 and np.abs(new_master[0]).max() <= 32512


@pytest.mark.parametrize("size,beyond,limit,move", [
    (2560, 10, 32000, 0), (2560, 11, 32000, 1), (255, 1, 32000, 1), (256, 1, 32000, 0),
    (4096, 3, 14000, -1), (4096, 4, 14000, 0), (1024, 1, 14000, 0), (1025, 1, 14000, -1), (1023, 0, 14000, -1)])
def test_exponents_follow_shares(size, beyond, limit, move):
    """A 256th of the weights beyond 32000 raises the exponent, less than a 1024th beyond 14000 lowers it, and outliers are clipped."""
    weights = np.full(size, 14000 if limit == 14000 or not beyond else 32000, dtype=np.int64)
    weights[:beyond] = limit + 1
    weights[1::2] *= -1
    nothing = np.zeros(size, dtype=np.int64)
    numbers = numbers_of("0", "0.9", 0, True)
    (new, exponent), _ = sgd.step_of_tensor((weights, -20), (nothing + 1, -20), (nothing, -20), 1, numbers, nothing)
    assert exponent == -20 + move
    assert (new == np.clip(np.sign(weights) * np.floor(np.abs(weights) * 2.0**-move + 0.5 * (move > 0)), -32512, 32512)).all()


def test_rounding_is_unbiased():
    """The mean over many steps of the same operands is what float64 gives."""
    master, velocity, gradient, images = tensors(7, 40)
    setting = ("0.1", "0.9", "0.0005", True)
    w, v = float_step(real(master), real(velocity), real(gradient) / images, 0.1, 0.9, 0.0005, True)
    rounds, totals = 4000, [np.zeros(40), np.zeros(40)]
    for step in range(rounds):
        words = a.random_range(5, a.PURPOSE_UPDATE, step, 1, 40)
        out = sgd.step_of_tensor(master, velocity, gradient, images, numbers_of(*setting), words)
        totals = [total + real(tensor) for total, tensor in zip(totals, out)]
    for total, expected, tensor in zip(totals, (w, v), out):
        error = (total / rounds - expected) / 2.0**tensor[1]
        # A rounding has a deviation of at most half a unit; 5 deviations of the mean, and the 14 bits' own resolution.
        assert np.abs(error).max() < 5 * 0.5 / np.sqrt(rounds) + 2.0**-13
        assert abs(error.mean()) < 5 * 0.5 / np.sqrt(rounds * 40) + 2.0**-13


def test_stochastic_rounding_counts():
    """Of all 2^14 draws, as many round up as the fraction says; the two tensors use other bits of a word."""
    draws = np.arange(2**14)
    for x in (0, 1, 2**14 - 1, 5 * 2**14 + 77, -(3 * 2**14) - 9000):
        assert int(sgd._stochastic(np.full(2**14, x), draws, 32767).sum()) == x
    words = np.array([0xFFFC0000, 0x0000FFFC, 0x00030003])
    master = np.array([20000, 20000, 20000]), 0
    gradient = np.array([3, 3, 3]), 0
    numbers = numbers_of("0.3", 0, 0, False)
    (w, _), (v, e_v) = sgd.step_of_tensor(master, (np.zeros(3, dtype=np.int64), 0), gradient, 1, numbers, words)
    # 19999.1: the fraction is below 0.1 * 2^14 only for the words whose highest 14 bits are 0.
    assert w.tolist() == [19999, 20000, 20000] and np.allclose(v * 2.0**e_v, 3, atol=2.0**e_v)


def test_operand_is_the_high_byte():
    w, e = sgd.operand((np.array([32512, -32512, 127, 128, -128, 384, -127]), -16))
    assert w.tolist() == [127, -127, 0, 1, -1, 2, 0] and e == -8
    weights = np.arange(-127, 128)
    assert (sgd.operand((weights * 256, -15))[0] == weights).all()


def test_decimals_and_constants():
    for text in ("0.1", "0.0005", "1000", "0.000000001", "0.123456789"):
        exact = Fraction(Decimal(text))
        assert abs(sgd.decimal_scalar(text).exact() - exact) < exact / 2**29
    assert sgd.decimal_scalar(0) == ZERO
    update, moment = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.5, "nesterov": True}, Moment(0, 1, 1, 1)
    assert sgd.constants(update, moment, False).decay == ZERO and sgd.constants(update, moment, True).decay == sgd.decimal_scalar("0.5")
    with pytest.raises(AssertionError):
        sgd.decimal_scalar("0.0000000001")


def test_nothing_changes_without_slope_and_velocity():
    nothing = np.zeros(4, dtype=np.int64)
    master, velocity = (np.array([5, 30000, 0, -1]), -9), (nothing, 0)
    out = sgd.step_of_tensor(master, velocity, (nothing, -30), 8, numbers_of("0.1", "0.9", 0, True), nothing)
    assert out == (master, velocity)
    master = (nothing, -9)
    out = sgd.step_of_tensor(master, velocity, (nothing, -30), 8, numbers_of("0.1", "0.9", "0.5", True), nothing)
    assert out == (master, velocity)


def test_a_velocity_without_gradients_decays_to_the_least_exponent():
    """A layer that no longer learns must not drive the velocity's exponent out of a checkpoint's range."""
    nothing, master = np.zeros(3, dtype=np.int64), (np.array([5, 30000, -1]), -9)
    velocity, numbers = (np.array([32767, -16384, 20000]), -1000), numbers_of("0.1", "0.5", 0, True)
    for step in range(60):
        words = a.random_range(5, a.PURPOSE_UPDATE, step, 1, 3)
        before, (master, velocity) = (master, velocity), sgd.step_of_tensor(master, velocity, (nothing, -30), 8, numbers, words)
        assert velocity[1] >= -1024
    assert velocity[1] == -1024 and before == (master, velocity)  # where it has stopped
    gradient = np.array([1000, -3, 0]), -20
    _, (moving, exponent) = sgd.step_of_tensor(master, velocity, gradient, 8, numbers, nothing)
    assert exponent > -100 and np.allclose(real((moving, exponent)), real(gradient) / 8, atol=2.0**exponent)


def test_extremes_stay_in_range():
    """Whatever the operands, the bounds that a step asserts hold; a huge rate clips, a rate of 0 only moves exponents."""
    random = np.random.RandomState(9)
    clipped = 0
    for _ in range(500):
        size = random.randint(1, 5)
        w = random.choice([-32512, 32512, 32000, 14000, 100, 1, 0], size=size).astype(np.int64), int(random.randint(-60, 60))
        v = random.choice([-32767, 32767, 1, 0], size=size).astype(np.int64), int(random.randint(-90, 90))
        g = random.choice([-(2**61), 2**61, 2**30 + 1, 2**30, 1, 0], size=size).astype(np.int64), int(random.randint(-90, 90))
        rate = random.choice(["0", "0.1", "999999999"])
        momentum, decay = random.choice(["0", "0.9", "0.999999999"]), random.choice(["0", "1"])
        numbers = numbers_of(rate, momentum, decay, bool(random.randint(2)))
        words = random.randint(0, 2**32, size=size, dtype=np.int64)
        (new_w, e_w), (new_v, _) = sgd.step_of_tensor(w, v, g, int(random.randint(1, 2**20)), numbers, words)
        assert np.abs(new_w).max() <= 32512 and np.abs(new_v).max() <= 32767
        if rate == "0":
            assert (np.abs(new_w * 2.0**e_w - real(w)) <= 2.0**w[1]).all()
        clipped += rate == "999999999" and np.abs(new_w).max() == 32512
    assert clipped > 20


def test_clipping_is_the_norms_in_float():
    """What PyTorch's clip_grad_norm_ says of the same gradients in float64, within the bits that the squares keep."""
    random = np.random.RandomState(3)
    for round_ in range(60):
        gradients = [(np.rint(random.standard_t(3, size=random.randint(1, 4000)) * 2.0**random.randint(2, 40)).astype(np.int64),
                      int(random.randint(-45, -20))) for _ in range(random.randint(1, 8))]
        images, limit = int(random.randint(1, 300)), ("0.5", "1", "1000000")[round_ % 3]
        norm = np.sqrt(sum((real(g)**2).sum() for g in gradients)) / images
        factor = float(sgd.clip_factor(sgd.squares_sum(gradients), limit, images).exact())
        assert factor == pytest.approx(min(1.0, float(limit) / (norm + 1e-6)), rel=1e-4)


def test_squares_have_room():
    """The largest gradients there are, as many as there may be: the sum that the page allows, and no more."""
    for count in (1, 2, 3, 2**20, 2**20 + 1, 2**34):
        shift = sgd.squares_shift(2**62 - 1, count)
        most = a.shift_round(np.array([2**62 - 1]), shift, "nearest")[0]
        assert count * int(most)**2 <= 2**62 < 16 * count * int(most)**2
    assert sgd.squares_shift(1000, 5) == 0
    assert sgd.squares_sum([(np.zeros(4, dtype=np.int64), -3)]) == ZERO


def test_a_factor_of_one_changes_no_bit():
    master, velocity, gradient, images = tensors(3, 50)
    words = a.random_range(5, a.PURPOSE_UPDATE, 0, 1, 50)
    numbers = numbers_of("0.1", "0.9", "0.0005", True)
    outs = [sgd.step_of_tensor(master, velocity, gradient, images, n, words) for n in (numbers, replace(numbers, clip=sgd.S(1, 0)))]
    assert all((x[0] == y[0]).all() and x[1] == y[1] for x, y in zip(*outs))
    assert sgd.clip_factor(sgd.squares_sum([gradient]), "1000000", images) == sgd.S(1, 0)
    (w, _), _ = sgd.step_of_tensor(master, velocity, gradient, images, replace(numbers, clip=sgd.S(1, -3)), words)
    assert (w != outs[0][0][0]).any()


@pytest.mark.parametrize("rate,momentum,decay,nesterov", [("4", "0.9", "0.001", True), ("0.5", 0, "0.3", False), ("8", "0.99", 0, False)])
def test_niti16_is_sgd_of_normalised_gradients(rate, momentum, decay, nesterov):
    """In steps of int8 weights: the gradient as shares of a power of two, the weight as shares of 128; nothing else has a scale."""
    master, velocity, gradient, _ = tensors(11, 500)
    velocity = velocity[0], master[1] - 6  # of up to a few steps
    update = {"lr": rate, "momentum": momentum, "weight_decay": decay, "nesterov": nesterov}
    numbers = sgd.constants(update, Moment(0, 1, 1, 1), True, normalised=True)
    words = a.random_range(5, a.PURPOSE_UPDATE, 0, 1, 500)
    new_master, new_velocity = sgd.step_of_tensor(master, velocity, (gradient[0], 55), 7, numbers, words)
    unit = 2.0**(master[1] + 8)  # a step of an int8 weight
    share = gradient[0] / 2.0**a.bits(int(np.abs(gradient[0]).max()))
    w, v = float_step(master[0] / 2.0**15, real(velocity) / unit, share, 0, float(momentum), float(decay), nesterov)
    slope = share + float(decay) * master[0] / 2.0**15
    moved = master[0] / 256 - float(rate) * (slope + float(momentum) * v if nesterov else v)
    assert (np.abs(new_master[0] / 256 - np.clip(moved, -127, 127)) < 1.001 / 256).all()
    assert (np.abs(real(new_velocity) / unit - v) < 1.001 * 2.0**new_velocity[1] / unit).all()
    assert new_master[1] == master[1] and np.abs(share).max() > 0.5


def test_small_sums_are_not_amplified():
    """A largest gradient of up to 127 counts as it is, in 128ths."""
    for largest in (1, 2, 64, 100, 127, 128, 129):
        g, c, some = sgd.normalised_gradient(np.array([largest, 0]), -20)
        assert some and g[0] == (largest << 23 if largest <= 128 else largest << 22) and float(c.exact()) == 2.0**-42


def test_niti16_stays_in_range():
    random = np.random.RandomState(19)
    for _ in range(500):
        size = random.randint(1, 5)
        w = random.choice([-32512, 32512, 100, 1, 0], size=size).astype(np.int64), int(random.randint(-60, 60))
        v = random.choice([-32767, 32767, 1, 0], size=size).astype(np.int64), int(random.randint(-90, 90))
        g = random.choice([-(2**61), 2**61, 2**30 + 1, 2**30, 1, 0], size=size).astype(np.int64), 0
        update = {"lr": random.choice(["0", "4", "1000"]), "momentum": random.choice(["0", "0.9", "0.999999999"]),
                  "weight_decay": random.choice(["0", "1"]), "nesterov": bool(random.randint(2))}
        numbers = sgd.constants(update, Moment(0, 1, 1, 1), True, normalised=True)
        words = random.randint(0, 2**32, size=size, dtype=np.int64)
        (new_w, e_w), (new_v, _) = sgd.step_of_tensor(w, v, g, 1, numbers, words)
        assert np.abs(new_w).max() <= 32512 and np.abs(new_v).max() <= 32767 and e_w == w[1]
