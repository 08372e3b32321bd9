"""The public functions of niti.h for the formulas of docs/arithmetic.md, called in libniti.so, against the oracle. test_average.py, test_flip.py
and test_fold.py have those of their sections."""

import ctypes
import os
import re

import numpy as np
import pytest

from oracle import arithmetic as a
from oracle import augment, network, norm, rate, sgd
from oracle.library import load
from oracle.scalar import S, Scalar, fixed, sqrt, times
from oracle.test_against_niti import NITI

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
LIBRARY = os.path.join(os.path.dirname(NITI), "libniti.so")


class Step(ctypes.Structure):
    _fields_ = [("rate", ctypes.c_int64), ("momentum", ctypes.c_int64), ("decay", ctypes.c_int64), ("images", ctypes.c_int64),
                ("nesterov", ctypes.c_bool), ("seed", ctypes.c_uint64), ("step", ctypes.c_uint32), ("layer", ctypes.c_uint32),
                ("clip", ctypes.c_int64 * 2), ("reserved", ctypes.c_uint64 * 2)]


class NormLayer(ctypes.Structure):
    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("weight_exponent", ctypes.c_int32),
                ("bias_exponent", ctypes.c_int32), ("count", ctypes.c_int64), ("channels", ctypes.c_int32), ("centred", ctypes.c_bool),
                ("rounding", ctypes.c_int), ("seed", ctypes.c_uint64), ("step", ctypes.c_uint32), ("layer", ctypes.c_uint32),
                ("reserved", ctypes.c_uint64 * 2)]


@pytest.fixture(scope="module")
def library():
    loaded = load(LIBRARY)
    for name in ("rate_along_cosine", "rate_along_line", "rate_in_warmup", "step_at_share", "norm_move", "norm_move_centred", "scalar_nearest", "scalar_multiple"):
        getattr(loaded, f"niti_{name}").restype = ctypes.c_int64
    for name in ("weight_operand", "dropout_value", "mixup_value", "input_value"):
        getattr(loaded, f"niti_{name}").restype = ctypes.c_int8
    for name in ("pixel_scale", "pixel_grey", "jitter_value"):
        getattr(loaded, f"niti_{name}").restype = ctypes.c_uint8
    loaded.niti_image_grey.restype = ctypes.c_uint16
    loaded.niti_random_rounding.restype = ctypes.c_uint32
    loaded.niti_flip_draw.restype = ctypes.c_bool
    return loaded


def at(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def test_the_documents_name_every_function():
    with open(os.path.join(ROOT, "include", "niti.h"), encoding="utf-8") as file:
        section = file.read().split("/* ---- Arithmetic")[1].split("/* ---- Training")[0]
    with open(os.path.join(ROOT, "docs", "c-library.md"), encoding="utf-8") as file:
        page = file.read()
    names = re.findall(r"^NITI_API .*?(niti_\w+)\(", section, re.MULTILINE)
    assert len(names) > 60 and [name for name in names if f"`{name}`" not in page] == []


def longs(*values):
    return [ctypes.c_int64(int(v)) for v in values]


def ints(*values):
    return (ctypes.c_int32 * len(values))(*(int(v) for v in values))


def outputs(function, count, *arguments):
    """What a function leaves in its first `count` arguments, int32 each."""
    out = [ctypes.c_int32(77) for _ in range(count)]
    function(*(ctypes.byref(o) for o in out), *arguments)
    return tuple(o.value for o in out)


def pair(scalar):
    return (ctypes.c_int64 * 2)(scalar.m, scalar.e)


def billionths(decimal):
    return rate.billionths(decimal)


@pytest.mark.parametrize("seed", range(40))
def test_update_sgd(seed, library):
    random = np.random.RandomState(seed)
    size = random.randint(1, 40)
    w = random.randint(-32512, 32513, size=size) // random.choice([1, 1, 3, 500])
    v, e_w, e_v = random.randint(-32767, 32768, size=size) * random.randint(2), int(random.randint(-30, 5)), int(random.randint(-40, 5))
    g = (random.normal(size=size) * 2.0**random.randint(1, 58)).astype(np.int64) * random.randint(2)
    e_g, images = int(random.randint(-60, 0)), int(random.randint(1, 300))
    lr, momentum, decay = random.choice(["0", "0.1", "1000"]), random.choice(["0", "0.9", "0.999999999"]), random.choice(["0", "0.0005", "1"])
    nesterov = bool(random.randint(2))
    weight, velocity, gradient = w.astype(np.int16), v.astype(np.int16), np.ascontiguousarray(g)
    weight_exponent, velocity_exponent = ctypes.c_int32(e_w), ctypes.c_int32(e_v)
    clip = Scalar(random.randint(2**30, 2**31), int(random.randint(-50, -30))) if random.randint(2) else S(1, 0)
    factor = (ctypes.c_int64 * 2)(*((0, 0) if clip == S(1, 0) and random.randint(2) else (clip.m, clip.e)))
    step = Step(billionths(lr), billionths(momentum), billionths(decay), images, nesterov, seed << 35, 77, 65536 + 3, factor)
    library.niti_update_sgd(at(weight), ctypes.byref(weight_exponent), at(velocity), ctypes.byref(velocity_exponent), at(gradient),
                            e_g, ctypes.c_size_t(size), ctypes.byref(step))
    numbers = sgd.Constants(*(S(billionths(d), 0) / S(10**9, 0) for d in (lr, momentum, decay)), nesterov, clip)
    words = a.random_range(seed << 35, a.PURPOSE_UPDATE, 77, 65536 + 3, size)
    (new_w, new_e_w), (new_v, new_e_v) = sgd.step_of_tensor((w.astype(np.int64), e_w), (v.astype(np.int64), e_v), (g, e_g), images,
                                                            numbers, words)
    assert (weight == new_w).all() and (velocity == new_v).all()
    assert (weight_exponent.value, velocity_exponent.value) == (new_e_w, new_e_v)


@pytest.mark.parametrize("exponent", [-1024, -1023, -1010, -1009, -1008])
@pytest.mark.parametrize("largest", [1, 16383, 16384, 32767])
@pytest.mark.parametrize("momentum", ["0.5", "0.9", "0.999999999"])
def test_update_sgd_of_velocities_that_nothing_feeds(momentum, largest, exponent, library):
    velocity = np.array([largest, -1, 0], dtype=np.int16)
    weight, gradient = np.array([300, -32000, 7], dtype=np.int16), np.zeros(3, dtype=np.int64)
    weight_exponent, velocity_exponent = ctypes.c_int32(-20), ctypes.c_int32(exponent)
    wanted = (weight.astype(np.int64), -20), (velocity.astype(np.int64), exponent)
    numbers = sgd.Constants(S(10**8, 0) / S(10**9, 0), S(billionths(momentum), 0) / S(10**9, 0), S(0, 0), True, S(1, 0))
    for step in range(20):
        library.niti_update_sgd(at(weight), ctypes.byref(weight_exponent), at(velocity), ctypes.byref(velocity_exponent), at(gradient), -30,
                                ctypes.c_size_t(3), ctypes.byref(Step(10**8, billionths(momentum), 0, 8, True, 3, step, 1)))
        wanted = sgd.step_of_tensor(*wanted, (gradient, -30), 8, numbers, a.random_range(3, a.PURPOSE_UPDATE, step, 1, 3))
        assert (weight == wanted[0][0]).all() and (velocity == wanted[1][0]).all()
        assert (weight_exponent.value, velocity_exponent.value) == (wanted[0][1], wanted[1][1]) and velocity_exponent.value >= -1024


@pytest.mark.parametrize("seed", range(40))
def test_update_niti_fraction(seed, library):
    random = np.random.RandomState(seed)
    for mu in (1, 999999, 1500000, 4321928, int(random.randint(0, 30000001)), 30000000):
        size = random.randint(1, 60)
        weight = random.randint(-127, 128, size=size).astype(np.int8)
        g = (random.normal(size=size) * 2.0**random.randint(1, 59)).astype(np.int64)
        expected = a.update_niti(weight.astype(np.int64), g, mu / 10**6)
        library.niti_update_niti_fraction(at(weight), at(g), ctypes.c_size_t(size), mu)
        assert (weight == expected).all()


@pytest.mark.parametrize("seed", range(40))
def test_update_niti16(seed, library):
    random = np.random.RandomState(seed)
    size = random.randint(1, 40)
    w = random.randint(-32512, 32513, size=size) // random.choice([1, 1, 3, 500])
    v, e_w, e_v = random.randint(-32767, 32768, size=size) * random.randint(2), int(random.randint(-30, 5)), int(random.randint(-40, 5))
    g = (random.normal(size=size) * 2.0**random.randint(1, 58)).astype(np.int64) * random.randint(2)
    lr, momentum, decay = random.choice(["0", "4", "1000"]), random.choice(["0", "0.9", "0.999999999"]), random.choice(["0", "0.001", "1"])
    nesterov = bool(random.randint(2))
    weight, velocity, velocity_exponent = w.astype(np.int16), v.astype(np.int16), ctypes.c_int32(e_v)
    step = Step(billionths(lr), billionths(momentum), billionths(decay), 1, nesterov, seed << 35, 77, 65536 + 3)
    library.niti_update_niti16(at(weight), e_w, at(velocity), ctypes.byref(velocity_exponent), at(g), ctypes.c_size_t(size),
                               ctypes.byref(step))
    numbers = sgd.Constants(*(S(billionths(d), 0) / S(10**9, 0) for d in (lr, momentum, decay)), nesterov, normalised=True)
    words = a.random_range(seed << 35, a.PURPOSE_UPDATE, 77, 65536 + 3, size)
    (new_w, new_e_w), (new_v, new_e_v) = sgd.step_of_tensor((w.astype(np.int64), e_w), (v.astype(np.int64), e_v), (g, 99), 1, numbers,
                                                            words)
    assert (weight == new_w).all() and (velocity == new_v).all() and (velocity_exponent.value, e_w) == (new_e_v, new_e_w)


@pytest.mark.parametrize("seed", range(40))
def test_clipping(seed, library):
    random = np.random.RandomState(seed)
    gradients, total = [], (ctypes.c_int64 * 2)(0, 0)
    for _ in range(random.randint(1, 6)):
        size = random.randint(1, 3000)
        values = (random.normal(size=size) * 2.0**random.randint(1, 58)).astype(np.int64) * random.randint(2)
        gradients.append((values, int(random.randint(-80, 10))))
        library.niti_gradient_squares(total, at(values), gradients[-1][1], ctypes.c_size_t(size))
    expected = sgd.squares_sum(gradients)
    assert tuple(total) == (expected.m, expected.e)
    for norm in ("0.000000001", "1", "1000000"):
        factor, images = (ctypes.c_int64 * 2)(), int(random.randint(1, 300))
        library.niti_clip_factor(factor, total, ctypes.c_int64(billionths(norm)), ctypes.c_int64(images))
        wanted = sgd.clip_factor(expected, norm, images)
        assert tuple(factor) == (wanted.m, wanted.e)


def test_bad_arguments_of_clipping_change_nothing(library):
    values, total, factor = np.array([1, -2**62]), (ctypes.c_int64 * 2)(2**30, 5), (ctypes.c_int64 * 2)(7, 7)
    library.niti_gradient_squares(total, at(values), -9, ctypes.c_size_t(2))
    library.niti_gradient_squares(total, at(values), 1025, ctypes.c_size_t(1))
    assert tuple(total) == (2**30, 5)
    for norm, images in ((0, 1), (10**15 + 1, 1), (1, 0), (1, 2**20 + 1)):
        library.niti_clip_factor(factor, total, ctypes.c_int64(norm), ctypes.c_int64(images))
    total[0] = 2**31
    library.niti_clip_factor(factor, total, ctypes.c_int64(1), ctypes.c_int64(1))
    library.niti_gradient_squares(total, at(values), -9, ctypes.c_size_t(1))
    assert tuple(factor) == (7, 7) and tuple(total) == (2**31, 5)


def layer_of(random, count, channels, mode, centred=False):
    weight = random.randint(-32512, 32513, size=channels).astype(np.int16)
    bias = random.randint(-32512, 32513, size=channels).astype(np.int16)
    exponents = int(random.randint(-18, -10)), int(random.randint(-18, -10))
    layer = NormLayer(at(weight), at(bias), *exponents, count, channels, centred, a.MODES.index(mode), 1234567890123, 5, 9)
    layer.kept = weight, bias  # it has their addresses only
    return layer, (weight.astype(np.int64), exponents[0]), (bias.astype(np.int64), exponents[1])


def check_norm_numbers(library, layer, statistics, running, moved, before, x, e_x):
    found = np.zeros((3, layer.channels, 2), dtype=np.int64)
    library.niti_norm_statistics(*(at(row) for row in found), None if running is None else at(running), ctypes.byref(layer),
                                 at(x) if running is None else None, e_x)
    for values, row in zip((statistics.mean, statistics.variance, statistics.deviation), found.tolist()):
        assert row == [[v.m, v.e] for v in values]
    if running is None:
        for c in range(layer.channels):
            for k, values in enumerate((statistics.mean, statistics.variance)):
                now = pair(values[c].scaled((k + 1) * e_x))
                move = library.niti_norm_move_centred if layer.centred and k == 0 else library.niti_norm_move
                assert move(ctypes.c_int64(int(before[k, c])), now) == moved[k, c]


@pytest.mark.parametrize("mode", ["nearest", "pseudo-stochastic", "stochastic", "truncate", "stochastic-byte"])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("seed", range(9))
def test_norm(seed, centred, mode, library):
    random = np.random.RandomState(seed)
    count, channels, e_x, e_d = int(random.choice([1, 2, 7, 60])), int(random.randint(1, 9)), int(random.randint(-9, 3)), -13
    layer, weight, bias = layer_of(random, count, channels, mode, centred)
    x = random.randint(-127, 128, size=(count, 1, 1, channels)) // (1 + 60 * (seed == 3))
    if seed in (6, 7):  # channels that do not vary, or hardly; all of them
        x[..., ::1 + seed % 2 * 2] = random.randint(0, 2, size=x[..., ::1 + seed % 2 * 2].shape) * (e_x < -7) - 3
    if seed == 8 and count > 1:  # the smallest variance beside epsilon: 2^18 / 10^5 at exponent -9
        x[:], e_x = 0, -9
        x[0, ..., 0] = 2
    running = np.stack([random.randint(-2**33, 2**33, size=channels), random.randint(0, 2**34, size=channels)]).astype(np.int64)
    for training in (True, False):
        bytes_x, moved, y, exponent = x.astype(np.int8), running.copy(), np.zeros(x.shape, dtype=np.int8), ctypes.c_int32()
        library.niti_norm_forward(at(y), ctypes.byref(exponent), at(moved), ctypes.byref(layer), training, at(bytes_x), e_x)
        statistics = norm.batch_statistics(x, e_x) if training else norm.running_statistics(running, e_x, centred)

        def words(purpose=a.PURPOSE_ACTIVATION):
            return a.rounding_words(mode, 1234567890123, purpose, 5, 9, x.size).reshape(x.shape)

        expected, expected_exponent = norm.forward(x, statistics, weight, bias, mode, words)
        assert exponent.value == expected_exponent and (y == expected).all()
        assert (moved == (norm.moved_running(running, statistics, e_x, centred) if training else running)).all()
        check_norm_numbers(library, layer, statistics, None if training else running, moved, running, bytes_x, e_x)
        found = np.zeros((2, channels), dtype=np.int32)
        library.niti_norm_factors(at(found[0]), at(found[1]), ctypes.byref(exponent), None if training else at(running), ctypes.byref(layer),
                                  at(bytes_x) if training else None, e_x)
        factors, offsets, factors_exponent = norm.factors_of(statistics, weight, bias)
        assert found.tolist() == [factors, offsets] and exponent.value == factors_exponent
    statistics = norm.batch_statistics(x, e_x)
    d = random.randint(-127, 128, size=x.shape)
    bytes_d, dx, gradients = d.astype(np.int8), np.zeros(x.shape, dtype=np.int8), np.zeros((2, channels), dtype=np.int64)
    library.niti_norm_backward(at(dx), ctypes.byref(exponent), at(gradients[0]), at(gradients[1]), ctypes.byref(layer), at(bytes_d),
                                  e_d, at(bytes_x), e_x)
    expected, expected_exponent = norm.backward(x, e_x, d, e_d, statistics, weight, mode, lambda: words(a.PURPOSE_ERROR))
    assert exponent.value == expected_exponent and (dx == expected).all()
    found = np.zeros((3, channels), dtype=np.int32)
    library.niti_norm_delta_factors(*(at(row) for row in found), ctypes.byref(exponent), ctypes.byref(layer), at(bytes_d), e_d, at(bytes_x), e_x)
    *rows, reach = norm.delta_factors(x, d, statistics, weight)
    assert (found == np.array(rows)).all() and exponent.value == reach + e_d - e_x == expected_exponent
    (weight_gradient, e_w), (bias_gradient, e_b) = norm.gradients(x, d, e_d, statistics, weight)
    assert (e_w, e_b) == (e_d - 8, e_d)
    assert (gradients[0] == weight_gradient).all() and (gradients[1] == bias_gradient).all()


def test_centring(library):
    random = np.random.RandomState(7)
    running = (random.normal(size=(2, 300)) * 2.0**random.randint(0, 58, size=(2, 300))).astype(np.int64)
    running[0, :3] = 2**60, -2**60, 0
    for exponent in (-1024, -60, -32, -31, -17, -8, 0, 30, 1024):
        found = np.full(300, 7, dtype=np.int32)
        library.niti_norm_centring(at(found), at(running), 300, exponent)
        assert (found == norm.centring(running, exponent)).all() and abs(found.astype(np.int64)).max() <= 2**29
    library.niti_norm_centring(at(found), at(running), 300, 1025)
    running[0, 299] = 2**60 + 1
    library.niti_norm_centring(at(found), at(running), 300, -8)
    assert (found == norm.centring(running[:, :1].repeat(300, 1), 1024)).all()  # as it was: zeros
    now = (ctypes.c_int64 * 2)(2**31 - 1, 10)
    for before in (2**60, 2**60 - 2**59 // 10):
        assert library.niti_norm_move_centred(ctypes.c_int64(before), now) == 2**60


def test_rates(library):
    for start, end, steps in ((10**12, 0, 7), (5, 3, 1), (10**8, 9 * 10**8, 1000), (10**12, 1, 2**32 - 1)):
        for x in sorted({0, 1, steps // 3, steps // 2, steps - 1, steps}):
            got = library.niti_rate_along_cosine(*(ctypes.c_int64(v) for v in (start, end, x, steps)))
            assert got == rate.annealed(start, end, x, steps)
            assert library.niti_rate_along_line(*longs(start, end, x, steps)) == rate.linear(start, end, x, steps)
            if x < steps:
                assert library.niti_rate_in_warmup(*longs(start, x, steps)) == start * (x + 1) // steps
    assert library.niti_rate_along_cosine(*longs(5, 3, 2, 1)) == 0
    for share in ("0", "0.000001", "0.333333", "0.5", "1"):
        for steps in (0, 1, 12345, 2**32 - 1):
            assert library.niti_step_at_share(a.millionths(share), ctypes.c_int64(steps)) == a.position_step({"at": share}, 9, steps)


def test_smoothed_labels(library):
    random = np.random.RandomState(4)
    for classes, smoothing in ((2, "0.999999999"), (10, "0.1"), (1000, "0.000000001"), (7, "0")):
        logits, exponent, target = random.randint(-127, 128, size=classes), -4, int(random.randint(classes))
        acc = np.zeros(classes, dtype=np.int32)
        library.niti_loss_softmax_smoothed(at(acc), at(logits.astype(np.int8)), exponent, classes, target,
                                           ctypes.c_int64(billionths(smoothing)))
        p = a.softmax_terms(a.scaled_logits(logits[np.newaxis], exponent))
        expected = np.full(classes, a.smoothed_share(smoothing, classes))
        expected[target] = (1 << 24) - (classes - 1) * a.smoothed_share(smoothing, classes)
        assert (acc == (p << 24)[0] // p.sum() - expected).all()


def test_bad_arguments_change_nothing(library):
    weight, velocity, gradient = (np.full(2, v, dtype=t) for v, t in ((5, np.int16), (6, np.int16), (7, np.int64)))
    exponents = ctypes.c_int32(-9), ctypes.c_int32(-8)
    good = {"rate": 10**8, "momentum": 9 * 10**8, "decay": 0, "images": 4}

    def run(weight_at=at(weight), **changed):
        library.niti_update_sgd(weight_at, ctypes.byref(exponents[0]), at(velocity), ctypes.byref(exponents[1]), at(gradient), -9,
                                ctypes.c_size_t(2), ctypes.byref(Step(**{**good, **changed})))

    for changed in ({"rate": -1}, {"rate": 10**12 + 1}, {"momentum": 10**9}, {"decay": 10**9 + 1}, {"images": 0}, {"clip": (ctypes.c_int64 * 2)(1, 0)},
                    {"clip": (ctypes.c_int64 * 2)(2**30, -29)}):
        run(**changed)
    run(weight_at=None)
    gradient[0] = -2**62
    run()
    gradient[0], velocity[1] = 7, -32768
    run()
    assert weight.tolist() == [5, 5] and velocity.tolist() == [6, -32768] and [e.value for e in exponents] == [-9, -8]


@pytest.mark.parametrize("seed", range(40))
def test_mixed_labels(seed, library):
    random = np.random.RandomState(seed)
    classes, smoothing = int(random.choice([2, 3, 10, 1000])), random.choice(["0", "0.1", "0.999999999"])
    logits, exponent = random.randint(-127, 128, size=(2, classes)), -4
    targets, q = [int(random.randint(classes)) for _ in range(2)], int(random.choice([0, 1, 127, 128]))
    off, acc = a.smoothed_share(smoothing, classes), np.zeros(classes, dtype=np.int32)
    library.niti_loss_softmax_mixed(at(acc), at(logits[0].astype(np.int8)), exponent, classes, *targets, q, ctypes.c_int64(billionths(smoothing)))
    p = a.softmax_terms(a.scaled_logits(logits, exponent))
    expected = np.full((2, classes), off)
    expected[np.arange(2), targets] = (1 << 24) - (classes - 1) * off
    assert (acc == ((p << 24) // p.sum(axis=1, keepdims=True) - augment.mixed_labels(expected, targets, [q, 0], off))[0]).all()


@pytest.mark.parametrize("mode", a.MODES)
def test_what_rounding_draws(mode, library):
    expected = a.rounding_words(mode, 5 << 33, a.PURPOSE_ERROR, 7, 9, 50) if mode in a.DRAWING else np.zeros(50)
    found = [library.niti_random_rounding(a.MODES.index(mode), ctypes.c_uint64(5 << 33), a.PURPOSE_ERROR, 7, 9, ctypes.c_uint64(i)) for i in range(50)]
    assert found == expected.tolist()


def test_clipped_shifts(library):
    for largest in (0, 1, 127, 128, 129, 5000, 2**31 - 1):
        for clip in range(8):
            assert library.niti_requantise_shift_clipped(largest, clip) == max(0, a.bits(largest) - 7 - clip)


@pytest.mark.parametrize("seed", range(60))
def test_scalars(seed, library):
    random, out = np.random.RandomState(seed), (ctypes.c_int64 * 2)()
    numbers = [int(random.randint(-2**62, 2**62)) >> int(random.randint(62)) for _ in range(2)]
    numbers[1] *= random.randint(6) > 0
    x, y = (S(n, int(random.randint(-40, 40))) for n in numbers)
    library.niti_scalar_of(out, ctypes.c_int64(numbers[0]), 12)
    assert tuple(out) == (S(numbers[0], 12).m, S(numbers[0], 12).e)
    results = {"product": x * y, "sum": x + y}
    if y.m:
        results["quotient"] = x / y
    for name, expected in results.items():
        getattr(library, f"niti_scalar_{name}")(out, pair(x), pair(y))
        assert tuple(out) == (expected.m, expected.e)
    root = sqrt(Scalar(abs(x.m), x.e))
    library.niti_scalar_root(out, (ctypes.c_int64 * 2)(abs(x.m), x.e))
    assert tuple(out) == (root.m, root.e)
    for e in (x.e, x.e - 31, x.e + 1, x.e + 20, x.e + 33, x.e + 60, x.e + 63):
        assert library.niti_scalar_nearest(pair(x), e, ctypes.c_int64(2**29)) == fixed(x, e, 2**29)
        factor = int(random.randint(-2**31 + 1, 2**31))
        assert library.niti_scalar_multiple(ctypes.c_int64(factor), pair(x), e) == int(times([factor], x, e)[0])


@pytest.mark.parametrize("seed", range(20))
def test_weights_in_16_bits(seed, library):
    random = np.random.RandomState(seed)
    weights = random.randint(-32512, 32513, size=2000) // random.choice([1, 2, 3, 500])
    weights[:random.randint(8)] = 32512 * random.randint(-1, 2)
    assert [library.niti_weight_operand(int(w)) for w in weights] == sgd.operand((weights, 0))[0].tolist()
    assert library.niti_weight_exponent_step(at(weights.astype(np.int16)), ctypes.c_size_t(2000)) == sgd.master_exponent(weights, 0)


def test_biases(library):
    random = np.random.RandomState(1)
    for d in (*range(-20, 34), 2000):
        for b in (0, 1, -1, 32512, -32512, int(random.randint(-32512, 32513))):
            assert library.niti_bias_align(b, d - 1000, -1000) == int(a.bias_at([b], d)[0])
    delta, gradient = random.randint(-127, 128, size=(50, 7)), np.full(7, 77)
    library.niti_bias_gradient(at(gradient), at(delta.astype(np.int8)), ctypes.c_int64(50), 7)
    assert (gradient == delta.sum(axis=0)).all()


def test_clipped_relus(library):
    for maximum in (1, 6000000, 123456, 2147000000):
        for exponent in range(-40, 20):
            limit = a.relu_limit(maximum, exponent)
            assert library.niti_relu_top(maximum, exponent) == (limit if limit <= 127 else 128)
    assert library.niti_relu_top(0, -3) == 128


def test_average_pools(library):
    for cells in (*range(1, 300), 32767, 32768):
        assert outputs(library.niti_avgpool_factor, 2, cells) == network.average_factor((cells, 1))


def test_dropout(library):
    random = np.random.RandomState(1)
    for rate_ in (0, 1, 200000, 500000, 500001, 750000, 999999):
        threshold, factor, more = a.dropout_scale(rate_)
        found = outputs(library.niti_dropout_factor, 3, rate_)
        assert (found[0] & 0xFFFFFFFF, *found[1:]) == (threshold, factor, more)
        for word in (0, threshold - 1 if threshold else 0, threshold, 2**32 - 1):
            m = random.randint(-127, 128, size=20)
            expected = a.shift_round(m * factor, 15, "nearest") * (word >= threshold)
            assert [library.niti_dropout_value(int(v), rate_, ctypes.c_uint32(word)) for v in m] == expected.tolist()


def test_additions(library):
    random = np.random.RandomState(1)
    x, y = random.randint(-127, 128, size=(2, 30))
    for e_x, e_y in ((0, 0), (3, -9), (-9, 6), (-9, 9), (-20, 3), (4, -30)):
        acc, exponent = np.zeros(30, dtype=np.int32), ctypes.c_int32()
        library.niti_add_aligned(at(acc), ctypes.byref(exponent), at(x.astype(np.int8)), e_x, at(y.astype(np.int8)), e_y, ctypes.c_size_t(30))
        expected, expected_exponent = a.add_tensors(x, e_x, y, e_y)
        assert (acc == expected).all() and exponent.value == expected_exponent


def test_the_order_of_images_crops_and_flips(library):
    for count in (0, 1, 2, 5, 1001):
        order = np.zeros(count, dtype=np.uint32)
        library.niti_order_shuffle(at(order), ctypes.c_int64(count), ctypes.c_uint64(3 << 40), 6)
        assert order.tolist() == a.shuffled(3 << 40, 6, count)
    for image in range(30):
        spans = image % 9, 2 * image
        assert outputs(library.niti_crop_draw, 2, *spans, ctypes.c_uint64(3 << 40), 6, image) == a.random_corner(3 << 40, 6, image, *spans)
        assert library.niti_flip_draw(ctypes.c_uint64(3 << 40), 6, image) == a.is_flipped(3 << 40, 6, image)


@pytest.mark.parametrize("scale, aspect", [(augment.SCALE, augment.ASPECT), ((0.000001, 0.000001), (0.0625, 16)), ((1, 1), (16, 16))])
def test_resized_crops(scale, aspect, library):
    random = np.random.RandomState(1)
    for image in range(40):
        height, width, c = random.randint(1, 40, size=2).tolist() + [int(random.choice([1, 3]))]
        raw, size = random.randint(0, 256, size=(height, width, c)).astype(np.uint8), random.randint(1, 12, size=2).tolist()
        rectangle = ints(*[77] * 4)
        library.niti_rectangle_draw(rectangle, ints(*map(a.millionths, scale)), ints(*map(a.millionths, aspect)), height, width,
                                    ctypes.c_uint64(9 << 40), 3, image)
        assert tuple(rectangle) == augment.rectangle(9 << 40, 3, image, height, width, scale, aspect)
        expected = augment.resized(9 << 40, 3, image, raw, *size, scale, aspect)
        found = [library.niti_pixel_scale(at(raw), ints(height, width, c), rectangle, ints(*size), *place) for place in np.ndindex(*size, c)]
        assert found == expected.reshape(-1).tolist()


@pytest.mark.parametrize("channels, strengths", [(3, (0.4, 0.4, 0.4)), (3, (1, 1, 1)), (3, (0, 0, 0.7)), (1, (0.3, 0.9, 0)), (3, (0.000001, 0, 0))])
def test_colour_jitter(channels, strengths, library):
    random = np.random.RandomState(1)
    for image in range(20):
        raw, map_ = random.randint(0, 256, size=(5, 7, channels)).astype(np.uint8), ints(0, 0, 0)
        mean = library.niti_image_grey(at(raw), ctypes.c_int64(35), channels)
        assert mean == augment.mean_grey(raw)
        library.niti_jitter_draw(map_, ints(*map(a.millionths, strengths)), mean, ctypes.c_uint64(9 << 40), 3, image)
        greys = [library.niti_pixel_grey(*map(int, p)) if channels == 3 else int(p[0]) for p in raw.reshape(-1, channels)]
        assert greys == augment.grey(raw).reshape(-1).tolist()
        found = [library.niti_jitter_value(map_, int(v), y) for p, y in zip(raw.reshape(-1, channels), greys) for v in p]
        assert found == augment.coloured(9 << 40, 3, image, raw, raw, *strengths).reshape(-1).tolist()


def test_cutout(library):
    for image in range(60):
        size, height, width = image % 9 + 1, image % 13 + 1, image % 5 + 1
        y, x = outputs(library.niti_square_draw, 2, size, height, width, ctypes.c_uint64(9 << 40), 3, image)
        found = tuple(slice(max(0, start), max(0, start + size)) for start in (y, x))
        assert found == augment.square(9 << 40, 3, image, size, height, width)


@pytest.mark.parametrize("mixup", [0.2, 1])
def test_mixup(mixup, library):
    shares = [library.niti_mixup_draw(a.millionths(mixup), ctypes.c_uint64(9 << 40), 3, i) for i in range(300)]
    assert shares == [augment.share(9 << 40, 3, i, mixup) for i in range(300)]
    values = np.random.RandomState(1).randint(-127, 128, size=(300, 1, 1, 1))
    found = [library.niti_mixup_value(int(v), int(values[(i + 1) % 300, 0, 0, 0]), q) for i, (v, q) in enumerate(zip(values[:, 0, 0, 0], shares))]
    assert found == augment.mixed(values, shares).reshape(-1).tolist()


def test_values_as_mantissas(library):
    values = np.array([-128, -1, 0, 1, 77, 127])
    for full, mean, std in ((128, 0, 1), (128, -1000000, 8000000), (32768, 3, 250000), (32768, 1000000, 8000000)):
        scaled = values * (full // 128)
        assert [library.niti_input_value(int(v), full, mean, std) for v in scaled] == a.value_mantissas(scaled, full, mean, std).tolist()
