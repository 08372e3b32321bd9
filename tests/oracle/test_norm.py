"""The oracle's batch norm against the usual formulas in float64."""

import numpy as np
import pytest

from oracle import norm
from oracle.network import Context, Network
from oracle.model import read_model

EPSILON = 1e-5
RELATIVE = 2.0**-26  # some operations of 2^-29 each


def layer(seed, shape, x_exponent, spread=40):
    """(x, weight, bias) of a norm layer: channels of different means and deviations, weights of both signs."""
    random = np.random.RandomState(seed)
    channels = shape[-1]
    x = random.normal(size=shape) * random.uniform(3, spread, size=channels) + random.uniform(-60, 60, size=channels)
    x = np.clip(np.rint(x), -127, 127).astype(np.int64)
    weight = random.randint(6000, 32001, size=channels) * random.choice([-1, 1], size=channels), -14 + random.randint(-3, 4)
    bias = random.randint(-32000, 32001, size=channels), -15 + random.randint(-3, 3)
    return x, weight, bias


def real(tensor):
    return tensor[0] * 2.0**tensor[1]


def float_statistics(x, x_exponent):
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axis=axes), x.var(axis=axes)
    return mean, variance, np.sqrt(variance + EPSILON * 4.0**-x_exponent)


SHAPES = [(16, 5, 4, 7), (32, 9), (3, 1, 1, 5), (2, 3, 3, 1), (200, 3, 3, 2)]
EXPONENTS = [-9, -5, 0, 6]


def to_floats(scalars):
    return np.array([float(s.exact()) for s in scalars])


@pytest.mark.parametrize("x_exponent", EXPONENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_statistics(shape, x_exponent):
    x, _, _ = layer(1, shape, x_exponent)
    statistics = norm.batch_statistics(x, x_exponent)
    for scalars, expected in zip((statistics.mean, statistics.variance, statistics.deviation), float_statistics(x, x_exponent)):
        assert np.allclose(to_floats(scalars), expected, rtol=RELATIVE, atol=1e-12)


@pytest.mark.parametrize("x_exponent", EXPONENTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_forward(seed, shape, x_exponent):
    """The factor is off by half of 2^-16, and so are both parts of the offset; the rounding is off by half a unit."""
    x, weight, bias = layer(seed, shape, x_exponent)
    statistics = norm.batch_statistics(x, x_exponent)
    y, exponent = norm.forward(x, statistics, weight, bias, "nearest")
    mean, _, deviation = float_statistics(x, x_exponent)
    factor = real(weight) / deviation
    assert np.abs(factor * 2.0**(16 - exponent)).max() < norm.FACTOR_LIMIT
    expected = ((x - mean) * factor + real(bias)) / 2.0**exponent
    allowed = 0.5 + 2.0**-17 * (np.abs(x - mean) + 2) + RELATIVE * (np.abs(expected) + np.abs(mean * factor) / 2.0**exponent + 127)
    assert (np.abs(np.clip(expected, -127, 127) - y) <= allowed).all()
    # Four deviations of the widest channel fill the range at least by half.
    reach = (4 * np.abs(real(weight)) + np.abs(real(bias))).max()
    assert 63 <= reach / 2.0**exponent <= 127 * (1 + RELATIVE)


@pytest.mark.parametrize("mode", ["stochastic", "pseudo-stochastic", "truncate"])
def test_other_roundings_are_within_a_unit_and_draw_for_every_value(mode):
    x, weight, bias = layer(9, (8, 6, 6, 5), -4)
    statistics = norm.batch_statistics(x, -4)
    drawn = []

    def words():
        drawn.append(1)
        return np.random.RandomState(3).randint(0, 2**32, size=x.shape, dtype=np.int64)

    y, exponent = norm.forward(x, statistics, weight, bias, mode, words)
    assert np.abs(y - norm.forward(x, statistics, weight, bias, "nearest")[0]).max() == 1
    assert len(drawn) == (mode == "stochastic")


@pytest.mark.parametrize("x_exponent,delta_exponent", [(-9, -20), (-5, -3), (0, 4), (6, 0)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_backward(seed, shape, x_exponent, delta_exponent):
    x, weight, _ = layer(seed, shape, x_exponent)
    random = np.random.RandomState(seed + 50)
    delta = np.clip(np.rint(random.normal(size=shape) * 25 + x * random.uniform(-0.5, 0.5) + 10), -127, 127).astype(np.int64)
    statistics = norm.batch_statistics(x, x_exponent)
    dx, exponent = norm.backward(x, x_exponent, delta, delta_exponent, statistics, weight, "nearest")
    mean, variance, deviation = float_statistics(x, x_exponent)
    axes = tuple(range(x.ndim - 1))
    hat = (x - mean) / deviation
    unit = 2.0**(exponent - delta_exponent + x_exponent)  # of dx, in mantissas of delta over mantissas of x
    factor = real(weight) / deviation
    slope = (delta * hat).mean(axis=axes) / deviation
    expected = factor * (delta - delta.mean(axis=axes) - slope * (x - mean)) / unit
    distance = np.abs(delta - delta.mean(axis=axes)) + np.abs(x - mean) + 1
    parts = np.abs(factor / unit) * (254 + np.abs(slope) * 254)
    assert (np.abs(np.clip(expected, -127, 127) - dx) <= 0.5 + 2.0**-17 * distance + RELATIVE * parts).all()
    # Sixty-four root mean squares fill the range at least by half.
    quiet = variance < EPSILON * 4.0**-x_exponent
    assert not quiet.all()
    reach = 64 * np.sqrt((np.where(quiet, 0, expected)**2).mean())
    assert 63 < reach < 127.01
    (by_weight, weight_exponent), (by_bias, bias_exponent) = norm.gradients(x, delta, delta_exponent, statistics, weight)
    assert weight_exponent == delta_exponent - 8 and bias_exponent == delta_exponent
    exact = (delta * hat).sum(axis=axes) * 256
    assert (np.abs(by_weight - exact) <= 0.5 + RELATIVE * np.abs(exact)).all()
    assert (by_bias == delta.sum(axis=axes)).all()


def test_quiet_channels_do_not_decide_on_the_range():
    """A variance below 10^-5 is quiet: those channels' deltas are clipped where they are beyond the others' range."""
    random = np.random.RandomState(1)
    x, _, _ = layer(1, (64, 6), -3)
    x[:, 0], x[:, 3], loud = 0, 5, [1, 2, 4, 5]
    weight = np.full(6, 1 << 14), -14
    delta = random.randint(-100, 101, size=x.shape)
    statistics = norm.batch_statistics(x, -3)
    *expected, expected_reach = norm.delta_factors(x[:, loud], delta[:, loud], norm.batch_statistics(x[:, loud], -3), (weight[0][:4], -14))
    *found, reach = norm.delta_factors(x, delta, statistics, weight)
    assert statistics.quiet == [True, False, False, True, False, False]
    assert expected_reach - reach in (0, 1)  # their mean is of all six: less by the root of 4 / 6
    for row, alone in zip(found, expected):
        assert np.allclose(row[loud] * 2.0**reach, alone * 2.0**expected_reach, rtol=2**-10, atol=2.0**expected_reach)
    dx, _ = norm.backward(x, -3, delta, 0, statistics, weight, "nearest")
    assert (np.abs(dx[:, 0]) == 127).mean() > 0.8 and np.abs(dx[:, loud]).max(axis=0).min() > 0
    for value, quiet in ((3, True), (4, False)):  # epsilon is 2.62 squares of mantissas, the variance 2.25 or 4
        x[:, 3] = np.arange(64) % 2 * value
        assert norm.batch_statistics(x, -9).quiet[3] == (np.var(x[:, 3]) < EPSILON * 4**9) == quiet
    # Alone they decide: sixty-four root mean squares fill the range.
    x = np.zeros((64, 2), dtype=np.int64)
    x[:, 1] = np.arange(64) % 2
    delta = random.randint(-100, 101, size=x.shape)
    p, q, o, reach = norm.delta_factors(x, delta, norm.batch_statistics(x, -9), (weight[0][:2], -14))
    exact = (p * delta + q * x + o) / 2.0**16
    assert 63 < 64 * np.sqrt((exact**2).mean()) < 127.01


def test_running_statistics_move_by_a_tenth():
    x, _, _ = layer(3, (16, 5, 5, 6), -4)
    statistics = norm.batch_statistics(x, -4)
    running = norm.initial_running(6)
    assert (running == [[0] * 6, [2**32] * 6]).all()
    mean, variance, _ = float_statistics(x, -4)
    expected = np.stack([np.zeros(6), np.ones(6)])
    for _ in range(30):
        running = norm.moved_running(running, statistics, -4)
        expected += (np.stack([mean / 16, variance / 256]) - expected) / 10
        assert np.allclose(running * 2.0**-32, expected, rtol=RELATIVE, atol=1e-8)
    # Evaluation reads them for an input of any exponent.
    read = norm.running_statistics(running, 3)
    assert np.allclose(to_floats(read.mean), expected[0] / 8, rtol=RELATIVE, atol=1e-8)
    assert np.allclose(to_floats(read.variance), expected[1] / 64, rtol=RELATIVE, atol=1e-8)
    assert np.allclose(to_floats(read.deviation), np.sqrt(expected[1] + EPSILON) / 8, rtol=1e-7)


def test_tenths_round_away_from_zero():
    assert [norm._tenth(q) for q in (0, 4, 5, 14, 15, -4, -5, -15)] == [0, 0, 1, 1, 2, 0, -1, -2]


@pytest.mark.parametrize("value", [0, 5, -127])
@pytest.mark.parametrize("x_exponent", [-12, -5, 3])
def test_constant_channel(value, x_exponent):
    """Its output is the bias, its weight has no gradient, and the deltas of its input cancel."""
    x, weight, bias = layer(5, (8, 3, 3, 2), x_exponent)
    x[..., 1] = value
    statistics = norm.batch_statistics(x, x_exponent)
    y, exponent = norm.forward(x, statistics, weight, bias, "nearest")
    assert statistics.variance[1].m == 0
    assert np.abs(y[..., 1] - real(bias)[1] / 2.0**exponent).max() <= 0.501
    delta = np.random.RandomState(1).randint(-127, 128, size=x.shape)
    (by_weight, _), _ = norm.gradients(x, delta, 0, statistics, weight)
    assert by_weight[1] == 0
    dx, _ = norm.backward(x, x_exponent, delta, 0, statistics, weight, "nearest")
    assert np.abs(dx).max() >= 2  # 127 / 64 at the root mean square, at least half of that


def test_nothing_at_all():
    """Weights, biases, deltas of 0: every range is 0, and so is every result."""
    x = layer(5, (8, 3, 3, 2), 0)[0]
    nothing = np.zeros(2, dtype=np.int64)
    statistics = norm.batch_statistics(x, 0)
    y, exponent = norm.forward(x, statistics, (nothing, -14), (nothing, -15), "nearest")
    assert exponent == 0 and not y.any()
    dx, exponent = norm.backward(x, -3, np.zeros_like(x), -7, statistics, (nothing, -14), "nearest")
    assert exponent == -7 + 3 and not dx.any()


def test_extremes_stay_in_range():
    """Whatever the operands, the bounds that forward and backward assert hold."""
    random = np.random.RandomState(8)
    for _ in range(300):
        channels = random.randint(1, 4)
        shape = (random.randint(1, 6), random.randint(1, 4), 1, channels)
        x = random.choice([-127, 127, 126, 0], size=shape).astype(np.int64)
        delta = random.choice([-127, 127, 0], size=shape).astype(np.int64)
        weight = random.choice([-32767, 32767, 1, 0], size=channels), int(random.randint(-40, 40))
        bias = random.choice([-32767, 32767, 1, 0], size=channels), int(random.randint(-60, 60))
        e_x, e_d = (int(e) for e in random.randint(-30, 30, size=2))
        statistics = norm.batch_statistics(x, e_x)
        y, _ = norm.forward(x, statistics, weight, bias, "nearest")
        dx, _ = norm.backward(x, e_x, delta, e_d, statistics, weight, "nearest")
        norm.gradients(x, delta, e_d, statistics, weight)
        assert max(np.abs(y).max(), np.abs(dx).max()) <= 127
        read = norm.running_statistics(norm.moved_running(norm.initial_running(channels), statistics, e_x), e_x)
        norm.forward(x, read, weight, bias, "nearest")


def test_node_of_a_network():
    """Names, shapes and evaluation: a step moves what evaluation reads, evaluation moves nothing and draws nothing."""
    layers = [{"conv": {"out": 3, "kernel": 1}}, "norm", "flatten", {"linear": {"out": "classes"}}, "norm"]
    net = Network(read_model({"name": "n", "input": [2, 2, 1], "classes": 2, "layers": layers}), 3)
    weights, exponents = net.named()
    assert {name: (str(w.dtype), w.shape, exponents[name]) for name, w in weights.items() if "norm" in name} == {
        "norm1.weight": ("int16", (3,), -14), "norm1.bias": ("int16", (3,), -15), "norm1.running": ("int64", (2, 3), -32),
        "norm2.weight": ("int16", (2,), -14), "norm2.bias": ("int16", (2,), -15), "norm2.running": ("int64", (2, 2), -32)}
    x = np.random.RandomState(2).randint(-127, 128, size=(6, 2, 2, 1))
    evaluation = Context(3, 0, "stochastic", "nearest", False)
    before = net.forward(x, -5, evaluation)[0][-1]
    assert (net.named()[0]["norm1.running"] == weights["norm1.running"]).all()
    net.forward(x, -5, Context(3, 0, "nearest", "nearest", True))
    assert not (net.named()[0]["norm1.running"] == weights["norm1.running"]).all()
    assert (net.forward(x, -5, evaluation)[0][-1][0] != before[0]).any()
