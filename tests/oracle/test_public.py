"""The public functions of niti.h for update sgd, batch norm, rates and smoothed labels, called in libniti.so, against the oracle."""

import ctypes
import os

import numpy as np
import pytest

from oracle import arithmetic as a
from oracle import norm, rate, sgd
from oracle.scalar import S, Scalar
from oracle.test_against_niti import NITI

LIBRARY = os.path.join(os.path.dirname(NITI), "libniti.so")


class Step(ctypes.Structure):
    _fields_ = [("rate", ctypes.c_int64), ("momentum", ctypes.c_int64), ("decay", ctypes.c_int64), ("images", ctypes.c_int64),
                ("nesterov", ctypes.c_bool), ("seed", ctypes.c_uint64), ("step", ctypes.c_uint32), ("layer", ctypes.c_uint32),
                ("clip", ctypes.c_int64 * 2), ("reserved", ctypes.c_uint64 * 2)]


class NormLayer(ctypes.Structure):
    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("weight_exponent", ctypes.c_int32),
                ("bias_exponent", ctypes.c_int32), ("count", ctypes.c_int64), ("channels", ctypes.c_int32),
                ("rounding", ctypes.c_int), ("seed", ctypes.c_uint64), ("step", ctypes.c_uint32), ("layer", ctypes.c_uint32),
                ("reserved", ctypes.c_uint64 * 2)]


@pytest.fixture(scope="module")
def library():
    with open(LIBRARY, "rb") as file:
        if b"__asan_init" in file.read():
            pytest.skip("a library with sanitizers cannot be loaded into Python")
    loaded = ctypes.CDLL(LIBRARY)
    loaded.niti_rate_along_cosine.restype = ctypes.c_int64
    return loaded


def at(array):
    return array.ctypes.data_as(ctypes.c_void_p)


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


def layer_of(random, count, channels, mode):
    weight = random.randint(-32512, 32513, size=channels).astype(np.int16)
    bias = random.randint(-32512, 32513, size=channels).astype(np.int16)
    exponents = int(random.randint(-18, -10)), int(random.randint(-18, -10))
    layer = NormLayer(at(weight), at(bias), *exponents, count, channels, a.MODES.index(mode), 1234567890123, 5, 9)
    layer.kept = weight, bias  # it has their addresses only
    return layer, (weight.astype(np.int64), exponents[0]), (bias.astype(np.int64), exponents[1])


@pytest.mark.parametrize("mode", ["nearest", "pseudo-stochastic", "stochastic", "truncate", "stochastic-byte"])
@pytest.mark.parametrize("seed", range(6))
def test_norm(seed, mode, library):
    random = np.random.RandomState(seed)
    count, channels, e_x, e_d = int(random.choice([1, 2, 7, 60])), int(random.randint(1, 9)), int(random.randint(-9, 3)), -13
    layer, weight, bias = layer_of(random, count, channels, mode)
    x = random.randint(-127, 128, size=(count, 1, 1, channels)) // (1 + 60 * (seed == 3))
    running = np.stack([random.randint(-2**33, 2**33, size=channels), random.randint(0, 2**34, size=channels)]).astype(np.int64)
    for training in (True, False):
        bytes_x, moved, y, exponent = x.astype(np.int8), running.copy(), np.zeros(x.shape, dtype=np.int8), ctypes.c_int32()
        library.niti_norm_forward(at(y), ctypes.byref(exponent), at(moved), ctypes.byref(layer), training, at(bytes_x), e_x)
        statistics = norm.batch_statistics(x, e_x) if training else norm.running_statistics(running, e_x)

        def words(purpose=a.PURPOSE_ACTIVATION):
            return a.rounding_words(mode, 1234567890123, purpose, 5, 9, x.size).reshape(x.shape)

        expected, expected_exponent = norm.forward(x, statistics, weight, bias, mode, words)
        assert exponent.value == expected_exponent and (y == expected).all()
        assert (moved == (norm.moved_running(running, statistics, e_x) if training else running)).all()
    statistics = norm.batch_statistics(x, e_x)
    d = random.randint(-127, 128, size=x.shape)
    bytes_d, dx, gradients = d.astype(np.int8), np.zeros(x.shape, dtype=np.int8), np.zeros((2, channels), dtype=np.int64)
    library.niti_norm_backward(at(dx), ctypes.byref(exponent), at(gradients[0]), at(gradients[1]), ctypes.byref(layer), at(bytes_d),
                                  e_d, at(bytes_x), e_x)
    expected, expected_exponent = norm.backward(x, e_x, d, e_d, statistics, weight, mode, lambda: words(a.PURPOSE_ERROR))
    assert exponent.value == expected_exponent and (dx == expected).all()
    (weight_gradient, e_w), (bias_gradient, e_b) = norm.gradients(x, d, e_d, statistics, weight)
    assert (e_w, e_b) == (e_d - 8, e_d)
    assert (gradients[0] == weight_gradient).all() and (gradients[1] == bias_gradient).all()


def test_rates(library):
    for start, end, steps in ((10**12, 0, 7), (5, 3, 1), (10**8, 9 * 10**8, 1000), (10**12, 1, 2**32 - 1)):
        for x in sorted({0, 1, steps // 3, steps // 2, steps - 1, steps}):
            got = library.niti_rate_along_cosine(*(ctypes.c_int64(v) for v in (start, end, x, steps)))
            assert got == rate.annealed(start, end, x, steps)
    assert library.niti_rate_along_cosine(*(ctypes.c_int64(v) for v in (5, 3, 2, 1))) == 0


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
