"""Tests of the oracle itself, by reasons that do not come from its code: definitions, exact identities, published vectors."""

import hashlib
import math
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest

from oracle import arithmetic as a
from oracle import cases, make_data, network, sgd
from oracle.model import read_model
from oracle.network import Context, Network
from oracle.train import evaluate, hash_checkpoint, train

getcontext().prec = 60


# Rounding


def test_bits_is_the_smallest_power():
    for v in range(5000):
        b = a.bits(v)
        assert v <= 2**b and (b == 0 or v > 2**(b - 1))
    assert [a.bits(v) for v in (0, 1, 2, 3, 128, 129)] == [0, 0, 1, 2, 7, 8]


def exact(x, s, mode):
    """The table of the contract for one integer, on fractions and strings of binary digits."""
    magnitude = Fraction(abs(x), 2**s)
    whole = math.floor(magnitude)
    if mode == "nearest":
        out = math.floor(magnitude + Fraction(1, 2))
    elif mode == "truncate":
        out = whole
    else:
        digits = format(abs(x) % 2**s, f"0{s}b")
        high, low = digits[:s - s // 2], digits[s - s // 2:] + "0" * (s % 2)
        out = whole + (int(high, 2) > int(low or "0", 2))
    return out if x >= 0 else -out


@pytest.mark.parametrize("mode", ["nearest", "truncate", "pseudo-stochastic"])
@pytest.mark.parametrize("s", [1, 2, 3, 4, 7, 8, 11, 23, 24])
def test_rounding_by_definition(mode, s):
    random = np.random.RandomState(s)
    edges = [2**31 - 1, -2**31 + 1, 2**s, 2**s - 1, 2**(s - 1), 3 * 2**(s - 1), 2**(s - 1) - 1]
    x = np.concatenate([np.arange(-600, 601), random.randint(-2**31, 2**31, size=2000), edges])
    assert a.shift_round(x, s, mode).tolist() == [exact(int(v), s, mode) for v in x]


def test_rounding_is_exact_for_wide_gradients():
    x = np.array([2**62 - 1, -(2**62 - 1), 2**55 + 12345], dtype=np.int64)
    for mode in ("nearest", "truncate", "pseudo-stochastic"):
        assert a.shift_round(x, 50, mode).tolist() == [exact(int(v), 50, mode) for v in x]


def test_pseudo_stochastic_examples():
    assert a.shift_round([1, -1, 3], 1, "pseudo-stochastic").tolist() == [1, -1, 2]  # s = 1 rounds every half up
    # s = 3: high bits r >> 1, low bit doubled: r = 1 -> 0 > 2 no, 2 -> 1 > 0, 3 -> 1 > 2 no, 4, 5 (2 > 2 no), 6, 7 (3 > 2)
    assert a.shift_round(np.arange(8), 3, "pseudo-stochastic").tolist() == [0, 0, 1, 0, 1, 0, 1, 1]


@pytest.mark.parametrize("s", [1, 4, 9])
def test_stochastic_is_unbiased(s):
    """Over the 2^s equally likely draws, the results sum to x exactly."""
    draws = np.arange(2**s, dtype=np.int64) << (32 - s)
    for x in (0, 1, 2**s - 1, 2**s, 5 * 2**s + 3, -77, -(2**s)):
        for low in (0, 2**(32 - s) - 1):
            assert int(a.shift_round(np.full(2**s, x), s, "stochastic", draws + low).sum()) == x


def test_rounding_clips():
    assert a.round_clip([300, -300, -128, 127], 0, "nearest").tolist() == [127, -127, -127, 127]
    assert a.round_clip([255, -255], 1, "nearest").tolist() == [127, -127]


def test_requantise_takes_the_least_shift_that_fits():
    for largest in (0, 1, 127, 128, 129, 256, 257, 2**31 - 1):
        acc = np.array([largest, -(largest // 3)])
        m, e = a.requantise(acc, -9, "truncate")
        s = e + 9
        assert largest <= 128 * 2**s and (s == 0 or largest > 128 * 2**(s - 1))
        assert m.tolist() == [min(127, largest >> s), -((largest // 3) >> s)]


# Random numbers


def test_philox_known_answers():
    vectors = [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
         [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ]
    for counter, key, expected in vectors:
        assert [int(w) for w in a.philox4x32_10(counter, key)] == expected


def philox_scalar(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k[0], q % 2**32, (p >> 32) ^ c[3] ^ k[1], p % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def test_random_words_follow_the_counter():
    seed = 0x0123456789ABCDEF
    words = a.random_range(seed, 6, 17, 65536 + 3, 11)
    assert words.tolist() == [philox_scalar((i >> 2, 17, 65536 + 3, 6), (0x89ABCDEF, 0x01234567))[i & 3] for i in range(11)]
    index = np.array([[10, 3], [0, 2**33 + 5]])
    picked = a.random_words(seed, 6, 17, 65536 + 3, index)
    assert picked[0].tolist() == [words[10], words[3]] and picked[1, 0] == words[0]
    assert picked[1, 1] == philox_scalar((2**31 + 1, 17, 65536 + 3, 6), (0x89ABCDEF, 0x01234567))[1]


def test_shuffle_is_a_permutation_that_changes():
    orders = [a.shuffled(5, epoch, 200) for epoch in range(3)]
    assert all(sorted(order) == list(range(200)) for order in orders)
    assert orders[0] != orders[1] != orders[2] and orders[0] == a.shuffled(5, 0, 200)


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_signed_values(kind):
    """Against exact fractions: (v - mean) / std in steps of 2^-5, to the nearest, clipped."""
    full = a.FULL_SCALE[kind]
    values = np.array([-full, -full // 3, -1, 0, 1, 17, full - 1])
    for mean, std in ((0, 1000000), (250000, 300000), (-1000000, 1), (1000000, 8000000), (-3, 500)):
        for value, got in zip(values, a.value_mantissas(values, full, mean, std)):
            exact = (Fraction(int(value), full) - Fraction(mean, 10**6)) / Fraction(std, 10**6) * 32
            rounded = int(abs(exact) + Fraction(1, 2)) * (1 if exact > 0 else -1)
            assert got == max(-127, min(127, rounded))


def test_validation_split_is_stratified_and_depends_on_the_seed():
    assert [a.validation_count(v, 75) for v in (7, 0.1, "10%", 0.5, "0.6667%")] == [7, 8, 8, 38, 1]  # 7.5 and 37.5 go up
    labels = np.array([0] * 30 + [1] * 20 + [2] * 1 + [4] * 9)[np.random.RandomState(3).permutation(60)]
    for wanted in range(1, 60):
        held = np.array(a.held_out(labels, wanted, 5))
        counts = [int(held[labels == c].sum()) for c in (0, 1, 2, 4)]
        assert counts[2] == 0  # its only image
        assert sum(counts) == min(wanted, 56)  # each class keeps one
        for count, size in zip(counts, (30, 20, 1, 9)):
            assert size * wanted // 60 <= count <= size * wanted // 60 + 1 and count < size
        assert held.tolist() == a.held_out(labels, wanted, 5)
    assert a.held_out(labels, 12, 5) != a.held_out(labels, 12, 6)


def test_crop_and_flip_cover_their_ranges():
    corners = {a.random_corner(1, 0, image, 2, 3) for image in range(300)}
    assert corners == {(y, x) for y in range(3) for x in range(4)}
    flips = [a.is_flipped(1, 0, image) for image in range(400)]
    assert 150 < sum(flips) < 250


def test_window():
    raw = np.arange(1, 13, dtype=np.uint8).reshape(3, 4, 1)
    assert a.window(raw, 2, 3, 0)[:, :, 0].tolist() == [[1, 2, 3], [5, 6, 7]]
    assert a.window(raw, 3, 4, 1)[:, :, 0].tolist() == raw[:, :, 0].tolist()
    assert a.window(raw, 3, 4, 1, (0, 2), True)[:, :, 0].tolist() == [[0, 0, 0, 0], [0, 4, 3, 2], [0, 8, 7, 6]]


# Tables and loss


def test_exp2_table():
    for i in range(257):
        exact_value = (Decimal(i) / 256 * Decimal(2).ln()).exp() * 2**30
        assert abs(exact_value - int(a.EXP2_TABLE[i])) < Decimal("0.5")


@pytest.mark.parametrize("i", [0, 1, 2, 37, 128, 200, 255, 256])
def test_log2_table(i):
    """n = round(x) means n - 1/2 <= x < n + 1/2, and 2^17 * log2(v) is compared with an integer by an exact power."""
    n = int(a.LOG2_TABLE[i])
    power = Fraction(256 + i, 256)**(2**17)
    ratio = power.numerator, power.denominator
    assert ratio[0] << 1 >= ratio[1] << (2 * n) and ratio[0] < ratio[1] << (2 * n + 1)


def test_constant_of_the_loss():
    assert a.LOG2_E == int((1 / Decimal(2).ln() * 65536).to_integral_value())


def test_exp2_and_log2_are_close():
    for f in range(0, 65536, 97):
        assert abs(int(a.exp2_frac(f)) / 2**30 - 2**(f / 65536)) < 3e-6
    for v in list(range(1, 2000)) + [2**30, 10 * 2**30, 3 * 2**40 + 12345]:
        assert abs(a.log2_fixed(v) / 65536 - math.log2(v)) < 3e-5


def logits_and_targets():
    random = np.random.RandomState(3)
    return random.randint(-127, 128, size=(40, 10)), random.randint(0, 10, size=40)


@pytest.mark.parametrize("exponent", [-8, -5, -4])
def test_reported_loss_is_the_cross_entropy(exponent):
    logits, targets = logits_and_targets()
    z = logits * 2.0**exponent
    expected = (np.log(np.exp(z).sum(axis=1)) - z[np.arange(40), targets]).sum()
    assert abs(a.loss_sum(logits, exponent, targets) / 65536 * math.log(2) - expected) < 0.01


def test_loss_at_extreme_exponents():
    logits, targets = np.array([[127, -127], [-127, 127], [5, 5]]), [0, 0, 1]
    assert a.loss_sum(logits[:1], 30, targets[:1]) == 0
    assert a.loss_sum(logits[1:2], 30, targets[1:2]) == 254 * 94548 * 65536  # e > 16 counts as 16
    assert a.loss_sum(logits, -60, targets) <= 3 * 65536 + 6  # floor makes -1 of every negative logit
    assert a.loss_sum(logits[2:], -3, targets[2:]) == 65536  # two equal logits: one bit


def test_softmax_error_is_softmax_less_target():
    logits, targets = logits_and_targets()
    m, e = a.loss_error_softmax(logits, -5, targets, "nearest", None)
    z = np.exp(logits / 32.0)
    expected = z / z.sum(axis=1, keepdims=True)
    expected[np.arange(40), targets] -= 1
    assert e == -7  # the largest is near -2^24, which needs a shift by 17; -128 is clipped
    assert np.abs(m - np.clip(expected * 128, -127, 127)).max() <= 0.51


def test_niti_error_balances_and_points_at_the_target():
    logits, targets = logits_and_targets()
    zeros = np.zeros(logits.shape, dtype=np.int64)
    m, e = a.loss_error_niti(logits, -4, targets, zeros)  # u = 0: rounded away from zero wherever a fraction is left
    assert e == 0
    z = logits * 2.0**-4
    p = np.maximum(0, 2.0**(np.log2(np.e) * (z - z.max(axis=1, keepdims=True)) + 10) - 1)
    g = np.floor(p / p.sum(axis=1, keepdims=True) * 2048)
    g[np.arange(40), targets] -= g.sum(axis=1)
    away = np.sign(g) * np.ceil(np.abs(g) / 16)
    # A quotient may floor to the integer below where the table's error moves it across: one unit of 2048 of each class.
    assert np.abs(m - np.clip(away, -127, 127)).max() <= 1
    assert (m[np.arange(40), targets] <= 0).all()


def test_niti_error_example():
    # Equal logits: s = 10 for both, p equal, g = (1024, 1024), target 1 gets 1024 - 2048; /16 = 64 exactly.
    m, e = a.loss_error_niti(np.array([[9, 9]]), -3, [1], np.zeros((1, 2), dtype=np.int64))
    assert m.tolist() == [[64, -64]] and e == 0
    # Three: 2048 / 3 floors to 682; 682 / 16 = 42.625; the sum is 2046, so the target gets -1364 / 16 = -85.25.
    m, _ = a.loss_error_niti(np.array([[9, 9, 9]]), -3, [0], np.full((1, 3), 2**32 - 1, dtype=np.int64))
    assert m.tolist() == [[-85, 42, 42]]


# Layers


def naive_windows(x, kernel, stride, padding):
    """Yields (oh, ow, list of (tap, h, w)) of the cells inside the image."""
    height, width = x.shape[1:3]
    for oh in range((height + 2 * padding[0] - kernel[0]) // stride[0] + 1):
        for ow in range((width + 2 * padding[1] - kernel[1]) // stride[1] + 1):
            cells = []
            for kh in range(kernel[0]):
                for kw in range(kernel[1]):
                    h, w = oh * stride[0] + kh - padding[0], ow * stride[1] + kw - padding[1]
                    if 0 <= h < height and 0 <= w < width:
                        cells.append((kh, kw, h, w))
            yield oh, ow, cells


GEOMETRIES = [((3, 3), (1, 1), (1, 1)), ((2, 3), (2, 1), (0, 1)), ((1, 1), (2, 3), (0, 0)), ((4, 1), (1, 2), (2, 0)),
              ((5, 5), (3, 2), (2, 2)), ((3, 2), (2, 2), (1, 1))]


@pytest.mark.parametrize("kernel,stride,padding", GEOMETRIES)
def test_conv_forward_and_the_exact_identity(kernel, stride, padding):
    random = np.random.RandomState(1)
    x = random.randint(-127, 128, size=(2, 7, 6, 3))
    w = random.randint(-127, 128, size=(4, *kernel, 3))
    y = network.conv_forward(x, w, stride, padding)
    for oh, ow, cells in naive_windows(x, kernel, stride, padding):
        expected = sum(x[:, h, c] @ w[:, kh, kw].T for kh, kw, h, c in cells)
        assert (y[:, oh, ow] == expected).all()
    delta = random.randint(-127, 128, size=y.shape)
    product = int((y * delta).sum())
    assert product == int((x * network.conv_backward(delta, w, x.shape, stride, padding)).sum())
    assert product == int((w * network.conv_gradient(x, delta, kernel, stride, padding)).sum())


@pytest.mark.parametrize("kernel,stride,padding", [g for g in GEOMETRIES if g[2] != (2, 0)])
def test_maxpool(kernel, stride, padding):
    x = np.random.RandomState(2).randint(-3, 4, size=(2, 7, 6, 3))  # many ties, windows of negative numbers
    y, winner = network.maxpool_forward(x, kernel, stride, padding)
    delta = np.random.RandomState(4).randint(-127, 128, size=y.shape)
    expected_back = np.zeros(x.shape, dtype=np.int64)
    for oh, ow, cells in naive_windows(x, kernel, stride, padding):
        for n in range(2):
            for c in range(3):
                values = [x[n, h, w, c] for _, _, h, w in cells]
                first = values.index(max(values))
                assert y[n, oh, ow, c] == max(values)
                expected_back[n, cells[first][2], cells[first][3], c] += delta[n, oh, ow, c]
    assert (network.maxpool_backward(delta, winner, x.shape, kernel, stride, padding) == expected_back).all()


@pytest.mark.parametrize("kernel,stride,padding", [((3, 3), (3, 3), (0, 0)), ((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 2), (2, 1)),
                                                   ((2, 4), (2, 1), (0, 3)), ((1, 1), (1, 1), (0, 0))])
def test_average(kernel, stride, padding):
    x = np.random.RandomState(2).randint(-127, 128, size=(2, 7, 6, 3))
    factor, change = network.average_factor(kernel)
    y = network.avgpool_forward(x, kernel, stride, padding)
    for oh, ow, cells in naive_windows(x, kernel, stride, padding):
        mean = sum(x[:, h, w] for _, _, h, w in cells) / (kernel[0] * kernel[1])
        assert np.abs(y[:, oh, ow] * 2.0**change - mean).max() < 0.02
    delta = np.random.RandomState(3).randint(-127, 128, size=y.shape)
    assert int((y * delta).sum()) == int((x * network.avgpool_backward(delta, x.shape, kernel, stride, padding)).sum())
    assert network.average_factor((3, 3)) == (3641, -15) and network.average_factor((4, 2)) == (1, -3)


def test_addition():
    m, e = np.array([127, -127, 3]), -4
    for d in range(0, 40):
        n, f = np.array([-127, -100, 64]), e - d
        acc, exponent = a.add_tensors(m, e, n, f)
        other, other_exponent = a.add_tensors(n, f, m, e)
        assert exponent == other_exponent == max(f, e - 15) and (acc == other).all()
        for i in range(3):
            true = Fraction(int(m[i])) * Fraction(2)**(e - exponent) + Fraction(int(n[i])) * Fraction(2)**(f - exponent)
            assert abs(acc[i] - true) <= (0 if d <= 15 else Fraction(1, 2))


def test_numbering_and_names():
    model = read_model({"name": "n", "input": [4, 4, 2], "classes": 3, "layers": [
        {"residual": {"body": [{"residual": {"body": [{"conv": {"out": 2, "kernel": 1}}]}}, "relu"],
                      "shortcut": [{"conv": {"out": 2, "kernel": 3, "padding": 1}}]}},
        {"repeat": {"times": 2, "layers": ["relu"]}}, "global-avgpool", "flatten", {"linear": {"out": "classes"}}]})
    assert [(n.name, n.inputs) for n in model.nodes[1:]] == [
        ("conv1", [0]), ("add1", [1, 0]), ("relu1", [2]), ("conv2", [0]), ("add2", [3, 4]), ("relu2", [5]), ("relu3", [6]),
        ("global-avgpool1", [7]), ("flatten1", [8]), ("linear1", [9])]
    assert model.nodes[4].weight_shape == (2, 3, 3, 2) and model.nodes[4].fans == (18, 18)
    assert model.nodes[10].weight_shape == (3, 2)


def test_linear_takes_1x1_images_as_flat_features():
    """A linear layer after 1x1xC is the same as after a flatten: weights, passes and the delta's shape."""
    def layers(*between):
        return [{"conv": {"out": 5, "kernel": 3, "padding": 1}}, "global-avgpool", *between, {"linear": {"out": "classes"}}]

    direct, flat = (read_model({"name": "n", "input": [4, 3, 2], "classes": 7, "layers": layers(*between)})
                    for between in ([], ["flatten"]))
    assert direct.nodes[3].weight_shape == flat.nodes[4].weight_shape == (7, 5)
    assert direct.nodes[3].fans == flat.nodes[4].fans == (5, 7) and direct.nodes[3].shape == (7,)
    nets, context = (Network(direct, 8), Network(flat, 8)), Context(8, 0, "nearest", "nearest", True)
    nets[1].weights[4, 0] = nets[0].weights[3, 0]  # initial weights depend on the layer's number
    random = np.random.RandomState(5)
    x, delta = random.randint(-127, 128, size=(6, 4, 3, 2)), (random.randint(-127, 128, size=(6, 7)), -3)
    passes = [net.forward(x, -5, context) for net in nets]
    assert passes[0][0][2][0].shape == (6, 1, 1, 5)
    logits = [tensors[-1] for tensors, _ in passes]
    assert (logits[0][0] == logits[1][0]).all() and logits[0][1] == logits[1][1]
    gradients = [net.backward(*p, delta, context) for net, p in zip(nets, passes)]
    for there, here in (((1, 0), (1, 0)), ((3, 0), (4, 0))):
        (sums, exponent), (same, same_exponent) = gradients[0][there], gradients[1][here]
        assert sums.any() and (sums == same).all() and exponent == same_exponent
    with pytest.raises(AssertionError, match="1x1"):
        read_model({"name": "n", "input": [1, 2, 1], "classes": 2, "layers": [{"linear": {"out": "classes"}}]})


def test_errors_of_a_fork_are_added_from_the_highest_consumer():
    model = read_model({"name": "n", "input": [1, 1, 1], "classes": 1, "layers": [{"conv": {"out": 1, "kernel": 1}}, "flatten"]})
    net, context = Network(model, 0), Context(0, 0, "nearest", "truncate", True)
    errors = [(np.array([127, 127]), 0), (np.array([127, 2]), 0), (np.array([1, 3]), 0)]
    m, e = net._gather(model.nodes[1], errors, context)
    # 254, 129 shift by 1: 127, 64 (truncated); then at exponent 0: 255, 131 shift by 1: 127, 65.
    assert (m.tolist(), e) == ([127, 65], 1)
    m, e = net._gather(model.nodes[1], errors[::-1], context)
    # 128, 5 need no shift and clip: 127, 5; then 254, 132 shift by 1: 127, 66.
    assert (m.tolist(), e) == ([127, 66], 1)


# Update, initial weights, input


def test_update():
    w = np.array([127, -127, 0, 5])
    assert a.update_niti(w, np.array([1, -1, 0, 1]), 5).tolist() == w.tolist()  # B = 0: no change
    assert a.update_niti(w, np.array([-32, 32, 2, -3]), 5).tolist() == [127, -127, -2, 8]  # B = 5, s = 0
    # B(1000) = 10, s = 5: r = 8 -> high bits 8 >> 2 = 2, low 0 doubled: up; 1000 / 32 = 31 rest 8 -> 32.
    assert a.update_niti(w, np.array([1000, -1000, 31, 0]), 5).tolist() == [95, -95, -1, 5]
    mu = [{"epoch": 0, "mu": 5}, {"epoch": 2, "mu": 3}, {"step": 17, "mu": 2}, {"at": "25%", "mu": 1}, {"at": 0.33, "mu": 0}]
    assert [a.mu_at(mu, step, 8, 80) for step in (0, 15, 16, 17, 19, 20, 25, 26)] == [5, 5, 3, 2, 2, 1, 1, 0]


def test_initial_weights():
    assert [a.initial_exponent(n, 0) for n in (1, 2, 5, 6, 23, 24, 95, 96)] == [-5, -6, -6, -7, -7, -8, -8, -9]
    w = a.initial_weights(9, 4, (50, 3, 3, 20))
    assert w.min() == -127 and w.max() == 127 and abs(w.mean()) < 3 and len(np.unique(w)) == 255
    assert not (w == a.initial_weights(9, 5, (50, 3, 3, 20))).all()


def test_input_table():
    table, e = a.input_table([491400, 482200, 446500], [247000, 243500, 261600])
    assert e == -5
    for c, (mean, std) in enumerate([(0.4914, 0.247), (0.4822, 0.2435), (0.4465, 0.2616)]):
        assert np.abs(table[c] - (np.arange(256) / 255 - mean) / std * 32).max() <= 0.5 + 1e-9
    assert max(abs((1 - 0.4465) / 0.2616), 0.4822 / 0.2435, 0.4914 / 0.247, 1.0 - 0.4822 / 0.2435) * 64 > 127.5  # -6 clips
    table, e = a.input_table([0], [1000])  # 1 / 0.001 = 1000 needs 2^3
    assert e == 3 and table[0][255] == 125 and table[0][0] == 0


# Whole networks


def real_forward(model, weights, x):
    """The same network in real numbers, written with windows of the padded image."""
    tensors = [x]
    for node in model.nodes[1:]:
        t, args = tensors[node.inputs[0]], node.args
        if "kernel" in args:
            pad, fill = args.get("padding", (0, 0)), -np.inf if node.kind == "maxpool" else 0
            t = np.pad(t, ((0, 0), (pad[0],) * 2, (pad[1],) * 2, (0, 0)), constant_values=fill)
            t = np.lib.stride_tricks.sliding_window_view(t, args["kernel"], axis=(1, 2))
            t = t[:, ::args["stride"][0], ::args["stride"][1]]  # [N, OH, OW, C, KH, KW]
        if node.kind == "conv":
            t = np.einsum("nyxckl,oklc->nyxo", t, weights[node.number, 0], optimize=True)
        elif node.kind == "linear":
            t = t.reshape(len(t), -1) @ weights[node.number, 0].T
        elif node.kind == "norm":
            axes = tuple(range(t.ndim - 1))
            t = (t - t.mean(axis=axes)) / np.sqrt(t.var(axis=axes) + 1e-5) * weights[node.number, 0] + weights[node.number, 1]
        elif node.kind == "relu":
            t = np.maximum(t, 0)
        elif node.kind == "flatten":
            t = t.reshape(len(t), -1)
        elif node.kind == "maxpool":
            t = t.max(axis=(4, 5))
        elif node.kind in ("avgpool", "global-avgpool"):
            t = t.mean(axis=(4, 5))
        elif node.kind == "add":
            t = t + tensors[node.inputs[1]]
        tensors.append(t)
    return tensors[-1]


@pytest.mark.parametrize("name", ["resnet", "forks", "forks-truncate", "averages", "averages-stochastic", "overlap", "strides",
                                  "norm-resnet", "norm-pools", "norm-eight-channels"])
def test_forward_and_gradients_are_near_the_real_network(name):
    model, recipe, _ = cases.read_case(name)
    has_norm = any(node.kind == "norm" for node in model.nodes)
    random = np.random.RandomState(6)
    x = random.randint(-127, 128, size=(8, *model.input_shape))
    net, context = Network(model, 17), Context(17, 0, "nearest", "nearest", True)
    tensors, notes = net.forward(x, -6, context)
    real = {key: w * 2.0**net.exponents[key] for key, w in net.weights.items()}
    logits = real_forward(model, real, x * 2.0**-6)
    assert np.corrcoef(logits.ravel(), tensors[-1][0].ravel())[0, 1] > 0.98
    assert 0.8 < np.linalg.norm(tensors[-1][0] * 2.0**tensors[-1][1]) / np.linalg.norm(logits) < 1.25
    error = random.randint(-127, 128, size=logits.shape)
    passes = [net.backward(tensors, notes, (error, 0), context)]
    if has_norm:  # deltas out of norms are small mantissas; rounded stochastically, they are right on average
        draws = [Context(17, step, "nearest", "stochastic", True) for step in range(16)]
        passes = [net.backward(tensors, notes, (error, 0), draw) for draw in draws]
    assert all(sorted(gradients) == sorted(net.weights) for gradients in passes)
    for key in net.weights:
        exponent = min(gradients[key][1] for gradients in passes)
        gradient = np.mean([gradients[key][0] * 2.0**(gradients[key][1] - exponent) for gradients in passes], axis=0)
        where = model.nodes[key[0]].parameter_name(key[1])
        picked = random.permutation(gradient.size)[:25 if has_norm else 60]
        slopes = []
        for i in picked:
            ends = []
            for sign in (1, -1):
                moved = real[key].copy()
                moved.reshape(-1)[i] += sign * 1e-5
                ends.append((real_forward(model, {**real, key: moved}, x * 2.0**-6) * error).sum())
            slopes.append((ends[0] - ends[1]) / 2e-5)
        if np.linalg.norm(slopes) < 1e-4 * np.linalg.norm(error):
            continue  # what lies between two norms cannot matter
        assert np.corrcoef(slopes, gradient.reshape(-1)[picked])[0, 1] > (0.8 if has_norm else 0.9), where
        assert 0.75 < np.linalg.norm(gradient.reshape(-1)[picked]) * 2.0**exponent / np.linalg.norm(slopes) < 1.33, where


def test_dropout_masks():
    net = Network(read_model({"name": "n", "input": [4, 4, 8], "classes": 128, "layers": ["dropout", "flatten"]}), 0)
    x = np.full((6, 4, 4, 8), 100)
    words = a.random_range(3, a.PURPOSE_DROPOUT, 2, 1, 6 * 128)
    for per, expected in (("feature", np.tile(words[:128], 6)), ("element", words)):
        net.model.nodes[1].args["per"] = per
        m, e = net.forward(x, -3, Context(3, 2, "nearest", "nearest", True))[0][1]
        assert e == -2 and (m.reshape(-1) == np.where(expected >= 2**31, 100, 0)).all()
        m, e = net.forward(x, -3, Context(3, 2, "nearest", "nearest", False))[0][1]
        assert e == -3 and (m == x).all()


def test_dropout_rates():
    """Exact shares, and what stays keeps its expected value; every rate keeps the largest mantissas within their range."""
    assert a.dropout_scale(500000) == (2**31, 2**15, 1) and a.dropout_scale(0) == (0, 2**15, 0)
    assert a.dropout_scale(200000) == (858993459, 20480, 1) and a.dropout_scale(999999)[2] == 20
    for rate in (1, 1000, 123456, 333333, 499999, 500001, 749999, 999998):
        threshold, factor, more = a.dropout_scale(rate)
        assert 2**14 <= factor <= 2**15 and 0 <= threshold < 2**32
        assert abs(threshold / 2**32 - rate / 1e6) < 1e-9
        assert abs(factor / 2**15 * 2**more * (1 - rate / 1e6) - 1) < 4e-5


def test_relu_limits():
    assert a.relu_limit(6 * 10**6, -4) == 96 and a.relu_limit(6 * 10**6, 2) == 2 and a.relu_limit(6 * 10**6, 4) == 0
    net = Network(read_model({"name": "n", "input": [1, 1, 6], "classes": 6, "layers": [{"relu": {"max": 1.5}}, "flatten"]}), 0)
    x = np.array([-5, 0, 1, 23, 24, 100]).reshape(1, 1, 1, 6)
    context = Context(3, 2, "nearest", "nearest", True)
    tensors, notes = net.forward(x, -4, context)
    assert tensors[1][0].reshape(-1).tolist() == [0, 0, 1, 23, 24, 24] and tensors[1][1] == -4
    assert notes[1].reshape(-1).tolist() == [False, False, True, True, False, False]
    assert net.forward(x, -7, context)[0][1][0].reshape(-1).tolist() == [0, 0, 1, 23, 24, 100]


def test_grouped_convolution():
    """The same sums as one group's with zeros between the groups."""
    numbers = np.random.RandomState(4)
    x, w = numbers.randint(-127, 128, size=(2, 6, 5, 6)), numbers.randint(-127, 128, size=(9, 3, 2, 2))
    full = np.zeros((9, 3, 2, 6), dtype=np.int64)
    for k in range(9):
        full[k, :, :, k // 3 * 2:k // 3 * 2 + 2] = w[k]
    stride, padding = (2, 1), (1, 1)
    y = network.grouped_forward(x, w, stride, padding, 3)
    assert (y == network.conv_forward(x, full, stride, padding)).all()
    delta = numbers.randint(-127, 128, size=y.shape)
    back = network.grouped_backward(delta, w, x.shape, stride, padding, 3)
    assert (back == network.conv_backward(delta, full, x.shape, stride, padding)).all()
    gradient = network.conv_gradient(x, delta, (3, 2), stride, padding)
    got = network.grouped_gradient(x, delta, (3, 2), stride, padding, 3)
    assert all((got[k] == gradient[k, :, :, k // 3 * 2:k // 3 * 2 + 2]).all() for k in range(9))


def test_hash_of_a_checkpoint():
    weights = {"conv2.weight": np.arange(-2, 2, dtype=np.int8).reshape(1, 2, 1, 2), "conv10.weight": np.int8([[7]])}
    data = (b"conv10.weight\0" + bytes([2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]) + bytes([0xF8, 255, 255, 255]) + bytes([7])
            + b"conv2.weight\0" + bytes([4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])
            + bytes([0xF7, 255, 255, 255]) + bytes([254, 255, 0, 1]))
    assert hash_checkpoint(weights, {"conv10.weight": -8, "conv2.weight": -9}) == hashlib.sha256(data).hexdigest()
    # norm1 comes last; its tensors in byte order: bias, running, weight.
    weights |= {"norm1.weight": np.int16([-2, 258]), "norm1.bias": np.int16([3]), "norm1.running": np.int64([[-1], [2**40 + 5]])}
    exponents = {"conv10.weight": -8, "conv2.weight": -9, "norm1.weight": -14, "norm1.bias": -15, "norm1.running": -32}
    data += (b"norm1.bias\0" + bytes([1, 0, 0, 0, 1, 0, 0, 0]) + bytes([0xF1, 255, 255, 255]) + bytes([3, 0])
             + b"norm1.running\0" + bytes([2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]) + bytes([0xE0, 255, 255, 255])
             + bytes([255] * 8) + bytes([5, 0, 0, 0, 0, 1, 0, 0])
             + b"norm1.weight\0" + bytes([1, 0, 0, 0, 2, 0, 0, 0]) + bytes([0xF2, 255, 255, 255]) + bytes([254, 255, 2, 1]))
    assert hash_checkpoint(weights, exponents) == hashlib.sha256(data).hexdigest()


# A norm of one value in each channel gives its bias, whatever that value is.
WITHOUT_GRADIENT = {"norm-one": {"linear1.weight", "norm2.weight"}}


@pytest.mark.parametrize("name", cases.NAMES)
def test_case_is_alive_and_repeats(name):
    """Every weight tensor that a case trains has a gradient in at least ten steps, and no other has one, the run repeats and depends on the seed."""
    model, recipe, data = cases.read_case(name)
    sets = make_data.generate(name)
    assert sets["train"][0].shape[0] == data["train"] and sets["train"][0].dtype == data.get("type", "uint8")
    moved = {}

    def observe(step, net, gradients, tensors):
        for key, (gradient, _) in gradients.items():
            moved[key] = moved.get(key, 0) + (a.bits(np.abs(gradient).max()) > 0)

    first = train(model, *sets["train"], recipe, observe=observe)
    assert 10 <= first["steps"] <= 25 and len(first["loss_sums"]) == first["steps"]
    still = {(number, k) for (number, k), count in moved.items() if count < 10}
    assert {model.nodes[number].parameter_name(k) for number, k in still} == WITHOUT_GRADIENT.get(name, set())
    frozen = set(recipe.get("freeze", model.frozen))
    assert len(moved) == sum(not name.endswith(".running") and name.split(".")[0] not in frozen for name in first["weights"])
    again = train(model, *sets["train"], recipe)
    digest = hash_checkpoint(first["weights"], first["exponents"])
    assert digest == hash_checkpoint(again["weights"], again["exponents"])
    other = train(model, *sets["train"], {**recipe, "seed": recipe["seed"] ^ 1})
    assert digest != hash_checkpoint(other["weights"], other["exponents"])
    result = evaluate(model, first["weights"], first["exponents"], *sets["test"], recipe)
    assert result["images"] == data["test"] and 0 <= result["correct"] <= data["test"]


def test_learning_reduces_the_loss():
    for name in ("mlp", "learning-rates", "overlap"):
        model, recipe, _ = cases.read_case(name)
        epochs = train(model, *make_data.generate(name)["train"], recipe)["epochs"]
        means = [epoch["loss_sum"] / epoch["images"] for epoch in epochs]
        assert means[-1] < means[0] / 2


def test_cases_cover_the_contract(monkeypatch):
    """The union of the cases reaches every layer, mode and branch."""
    seen = set()
    add, requantise, master_exponent = a.add_tensors, a.requantise, sgd.master_exponent

    def add_spy(m, e, n, f):
        if m.any() and n.any():
            d = abs(e - f)
            seen.add("d = 0" if d == 0 else "d <= 15" if d <= 15 else "d > 15")
        return add(m, e, n, f)

    def requantise_spy(acc, exponent, mode, words=None, clip_bits=0):
        out = requantise(acc, exponent, mode, words, clip_bits)
        seen.add(("clip", clip_bits))
        seen.add((mode, "shift" if out[1] > exponent else "no shift"))
        return out

    monkeypatch.setattr(a, "add_tensors", add_spy)
    def master_exponent_spy(weights, exponent):
        out = master_exponent(weights, exponent)
        seen.add(("master", out - exponent))
        return out

    monkeypatch.setattr(a, "requantise", requantise_spy)
    monkeypatch.setattr(sgd, "master_exponent", master_exponent_spy)
    for name in cases.NAMES:
        model, recipe, data = cases.read_case(name)
        consumers = [sum(n.inputs.count(node.number) for n in model.nodes) for node in model.nodes]
        for node, count in zip(model.nodes, consumers):
            seen.update([node.kind, (node.kind, node.args.get("per"))])
            seen.update((node.kind, "of", model.nodes[i].kind) for i in node.inputs)
            if node.number > 0 and model.trainable()[node.number] and count >= 3:
                seen.add(("fork", recipe["rounding"]["error"]))
            if "kernel" in node.args:
                kernel, stride = node.args["kernel"], node.args["stride"]
                seen.add((node.kind, "overlap" if kernel[0] > stride[0] else "apart"))
                seen.add((node.kind, "padded" if max(node.args.get("padding", (0, 0))) else "bare"))
                seen.add((node.kind, "whole" if network.average_factor(kernel)[0] == 1 else "factor"))
        for key in ("activation", "error"):
            seen.add((key, recipe["rounding"][key], "rounding"))
            if any(node.kind == "norm" for node in model.nodes):
                seen.add((key, recipe["rounding"][key], "norm"))
        update = recipe["update"]
        seen.add(("update", update["kind"]))
        if update["kind"] == "sgd":
            seen.update([("nesterov", update.get("nesterov", False)), ("momentum", update.get("momentum", 0.9) > 0)])
            seen.update([("decay", update.get("weight_decay", 0) > 0), ("schedule", update.get("schedule", "steps")),
                         ("smoothing", recipe.get("label_smoothing", 0) > 0)])
        seen.update([("loss", recipe["loss"]), ("channels", model.input_shape[2]),
                     ("crop", recipe["data"].get("crop", "centre")), ("flip", recipe["data"].get("flip", False)),
                     ("type", data.get("type", "uint8")), ("validation", recipe["data"].get("validation", 0) != 0)])
        if data["train"] % recipe["batch"]:
            seen.add("partial batch")
        train(model, *make_data.generate(name)["train"], recipe)
    wanted = {"conv", "linear", "relu", "flatten", "add", ("dropout", "feature"), ("dropout", "element"), "global-avgpool",
              ("maxpool", "overlap"), ("maxpool", "apart"), ("maxpool", "padded"), ("avgpool", "whole"), ("avgpool", "factor"),
              ("avgpool", "overlap"), ("avgpool", "padded"), ("global-avgpool", "whole"), ("global-avgpool", "factor"), "d = 0", "d <= 15", "d > 15",
              ("loss", "niti"), ("loss", "softmax"), ("channels", 1), ("channels", 3), ("crop", "random"), ("flip", True),
              ("type", "int8"), ("type", "int16"), ("validation", True), "partial batch", ("fork", "stochastic"), ("fork", "truncate"),
              ("fork", "stochastic-byte")}
    wanted |= {(key, mode, "rounding") for key in ("activation", "error") for mode in a.MODES}
    wanted |= {("norm", "of", kind) for kind in ("input", "conv", "linear", "norm", "maxpool", "avgpool", "global-avgpool")}
    wanted |= {(kind, "of", "norm") for kind in ("relu", "maxpool", "avgpool", "add", "linear", "flatten")}
    wanted |= {(key, mode, "norm") for key in ("activation", "error") for mode in a.MODES}
    wanted |= {(key, on) for key in ("nesterov", "momentum", "decay") for on in (True, False)}
    wanted |= {("update", "niti"), ("update", "sgd")}
    wanted |= {("schedule", kind) for kind in ("steps", "cosine", "one-cycle")} | {("smoothing", True), ("smoothing", False)}
    wanted |= {("clip", 0), ("clip", 1), ("clip", 2)}
    wanted |= {("master", change) for change in (-1, 0, 1)}
    wanted |= {(mode, shift) for mode in a.MODES for shift in ("shift", "no shift")}
    assert wanted - seen == set()


@pytest.mark.parametrize("mu", ["3.5", "0.25", "6.999999", "4.000001", "6.321928"])
def test_fractional_mu_is_a_power_of_two(mu):
    """A step is 2^mu / 2^b of the gradient: to within a unit, and on average to within the rounding's own bias."""
    random = np.random.RandomState(2)
    for width in (12, 30, 44, 46, 58):
        gradient = random.randint(-2**width, 2**width, size=4000)
        gradient[0] = 2**width
        step = -a.update_niti(np.zeros(4000, dtype=np.int64), gradient, mu)
        exact = gradient * 2.0**(float(mu) - width)
        assert np.abs(step - np.clip(exact, -127, 127)).max() <= 1 + 2.0**-8
        assert abs((step - exact)[np.abs(exact) < 120].mean()) < 0.05
    assert (a.update_niti(np.zeros(3, dtype=np.int64), np.array([5, -3, 1]), mu) == np.array([-5, 3, -1])).all() or float(mu) < 3


def test_mu_factors():
    assert a.mu_factor(500000) == 46341 and a.mu_factor(1) == 2**15 and 2**16 - 2 <= a.mu_factor(999999) <= 2**16
    assert all(abs(a.mu_factor(r) - 2.0**(15 + r / 10**6)) < 2 for r in range(1, 10**6, 997))
