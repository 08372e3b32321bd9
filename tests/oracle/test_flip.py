"""Test-time flip: niti's scores, sums and losses against the oracle, and the oracle's sums by their definition."""

import ctypes
import math
from fractions import Fraction

import numpy as np
import pytest

from oracle import arithmetic as a
from oracle import cases, make_data
from oracle.test_against_niti import last_object, run_niti
from oracle.test_public import at, library  # noqa: F401 (fixture)
from oracle.train import evaluate, train


@pytest.mark.parametrize("distance", [0, 1, 14, 15, 16, 20, 23, 24, 300])
def test_sums_are_exact_up_to_a_distance_of_fifteen(distance):
    random = np.random.RandomState(distance)
    m, n = random.randint(-127, 128, size=(2, 60))
    for e, f in ((-9, -9 - distance), (-9 - distance, -9)):
        sums, exponent = a.flip_sums(m, e, n, f)
        for k in range(60):
            exact = (int(m[k]) * Fraction(2)**e + int(n[k]) * Fraction(2)**f) / 2
            error = abs(int(sums[k]) * Fraction(2)**exponent - exact)
            assert error == 0 if distance <= 15 else error <= Fraction(2)**exponent / 2
        assert np.abs(sums).max() < 2**22


@pytest.mark.parametrize("exponents", [(-4, -4), (-4, -5), (-6, -3), (-3, -20), (-30, -2), (3, 17), (40, 16), (-50, -1000)])
def test_the_public_functions_are_the_oracles(exponents, library):  # noqa: F811
    random = np.random.RandomState(7)
    m, n = (random.randint(-127, 128, size=(20, 10)).astype(np.int8) for _ in range(2))
    sums, exponent = np.zeros((20, 10), np.int32), ctypes.c_int32()
    library.niti_flip_sums(at(sums), ctypes.byref(exponent), at(m), exponents[0], at(n), exponents[1], ctypes.c_size_t(200))
    expected, mean = a.flip_sums(m, exponents[0], n, exponents[1])
    assert (sums == expected).all() and exponent.value == mean
    library.niti_flip_loss.restype = ctypes.c_int64
    for row in sums:
        loss = library.niti_flip_loss(at(np.ascontiguousarray(row)), exponent, 10, 3)
        assert loss == a.loss_sum(row[None], mean, [3])


def test_the_loss_is_that_of_the_mean_logits():
    random = np.random.RandomState(9)
    m, n = random.randint(-127, 128, size=(2, 30, 10))
    z = (m * 2.0**-5 + n * 2.0**-6) / 2
    expected = (np.log(np.exp(z).sum(axis=1)) - z[:, 4]).sum()
    assert abs(a.loss_sum(*a.flip_sums(m, -5, n, -6), [4] * 30) / 65536 * math.log(2) - expected) < 0.01


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(run's folder, data folder, the oracle's evaluation with and without)."""
    folder = tmp_path_factory.mktemp("flip")
    model, recipe, _ = cases.read_case("test-flip")
    sets = make_data.generate("test-flip")
    make_data.write("test-flip", str(folder / "data"))
    run_niti("train", cases.recipe_path("test-flip"), "--data", folder / "data", "--run", folder / "run", "--quiet", "--threads", 1)
    trained = train(model, *sets["train"], recipe)
    scores = [evaluate(model, trained["weights"], trained["exponents"], *sets["test"], recipe, flip=flip) for flip in (False, True)]
    assert scores[0]["loss_sum"] != scores[1]["loss_sum"]
    return folder / "run", folder / "data", scores


@pytest.mark.parametrize("options, flip", [((), True), (("--flip",), True), (("--no-flip",), False)])
def test_eval(options, flip, run):
    folder, data, scores = run
    result = last_object(run_niti("eval", f"{folder}:last", "--data", data, "--json", "--per-class", *options))
    assert result["flip"] == flip and result["images"] == scores[flip]["images"] and result["correct"] == scores[flip]["correct"]
    assert result["test_loss"] == pytest.approx(scores[flip]["loss_sum"] / 65536 / result["images"] * math.log(2), rel=1e-9)
    assert sum(entry["correct"] for entry in result["per_class"]) == result["correct"]
