"""Averaged weights: the oracle's sums by their definition, the public functions and whole runs of niti against the oracle."""

import ctypes
from fractions import Fraction

import numpy as np
import pytest

from oracle import average, cases, make_data
from oracle.test_against_niti import check_tensor, last_object, read_safetensors, run_niti
from oracle.test_public import at, library  # noqa: F401 (fixture)
from oracle.train import evaluate, hash_checkpoint, train

WALKS = ([-9] * 5, [-12, -11, -10, -9, -8], [-3, -20, -27, 4], [0, 60, 120], [5, -60], [-30, -1, -2])


def samples_of(walk, zeros=False):
    random = np.random.RandomState(len(walk) + sum(walk) % 97)
    return [(random.randint(-32512, 32513, size=50) * (0 if zeros else 1), e) for e in walk]


@pytest.mark.parametrize("walk", WALKS)
def test_the_mean_is_within_half_a_unit_while_exponents_are_near(walk):
    total, exact = None, [Fraction(0)] * 50
    for values, e in samples_of(walk):
        total = average.add(total, values, e)
        exact = [s + Fraction(int(v)) * Fraction(2)**e for s, v in zip(exact, values)]
    mean, exponent = average.mean(total)
    assert 16000 < np.abs(mean).max() <= average.LIMIT
    errors = [abs(int(m) * Fraction(2)**exponent - s / len(walk)) for m, s in zip(mean, exact)]
    near = max(walk) - min(walk) <= average.FRACTION
    assert max(errors) <= Fraction(2)**exponent * (Fraction(1, 2) if near else Fraction(501, 1000))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("walk", WALKS)
def test_the_public_functions_are_the_oracles(walk, zeros, library):  # noqa: F811
    total, sums, exponent = None, np.full(50, 77, np.int64), ctypes.c_int32(-5)
    for k, (values, e) in enumerate(samples_of(walk, zeros)):
        total = average.add(total, values, e)
        library.niti_average_add(at(sums), ctypes.byref(exponent), ctypes.c_int64(k), at(values.astype(np.int16)), e, ctypes.c_size_t(50))
        assert (sums == total[0]).all() and exponent.value == total[1] - average.FRACTION
    mean, mean_exponent = average.mean(total)
    out, out_exponent = np.zeros(50, np.int16), ctypes.c_int32()
    library.niti_average_take(at(out), ctypes.byref(out_exponent), at(sums), exponent, ctypes.c_int64(len(walk)), ctypes.c_size_t(50))
    assert (out == mean).all() and out_exponent.value == mean_exponent


def test_the_bound_of_the_sums(library):  # noqa: F811
    """As many samples as there may be, all of them the largest: checked by the last addition, from what comes before."""
    most = 1 << 20
    sums, exponent = np.array([(most - 1) * average.LIMIT << 24], np.int64), ctypes.c_int32(-30)
    library.niti_average_add(at(sums), ctypes.byref(exponent), ctypes.c_int64(most - 1), at(np.array([32512], np.int16)), -6, ctypes.c_size_t(1))
    assert sums[0] == most * average.LIMIT << 24 < 1 << 59
    out, out_exponent = np.zeros(1, np.int16), ctypes.c_int32()
    library.niti_average_take(at(out), ctypes.byref(out_exponent), at(sums), exponent, ctypes.c_int64(most), ctypes.c_size_t(1))
    assert (out[0], out_exponent.value) == (32512, -6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(data folder, what the oracle trained, its evaluation of the averaged weights)."""
    folder = tmp_path_factory.mktemp("averaged") / "data"
    model, recipe, _ = cases.read_case("averaged")
    sets = make_data.generate("averaged")
    make_data.write("averaged", str(folder))
    result = train(model, *sets["train"], recipe)
    assert len({e for name, (_, e, _) in result["sums"].items()}) > 1 and {n for *_, n in result["sums"].values()} == {5}
    return folder, result, evaluate(model, result["averaged_weights"], result["averaged_exponents"], *sets["test"], recipe)


@pytest.mark.parametrize("isa", ["ref", "auto"])
def test_niti_averages_the_same_bits(isa, trained, tmp_path):
    data, expected, evaluation = trained
    result = last_object(run_niti("train", cases.recipe_path("averaged"), "--data", data, "--run", tmp_path / "run", "--isa", isa, "--json", "--quiet"))
    tensors = read_safetensors(tmp_path / "run" / "averaged.safetensors")
    assert {name for name in tensors if not name.endswith(".exponent")} == set(expected["averaged_weights"])
    for name, values in expected["averaged_weights"].items():
        check_tensor(tensors, name, values, expected["averaged_exponents"][name])
    hashed = hash_checkpoint(expected["averaged_weights"], expected["averaged_exponents"])
    assert result["averaged_hash"] == hashed != result["hash"]
    assert result["averaged_test_accuracy"] == pytest.approx(100 * evaluation["correct"] / evaluation["images"], abs=1e-9)
    last = read_safetensors(tmp_path / "run" / "last.safetensors")
    for name, (sums, largest, _) in expected["sums"].items():
        halves = last[f"{name}.average"].astype(np.int64)
        check_tensor({name: (halves[..., 1] << 32) + (halves[..., 0] & 0xFFFFFFFF), f"{name}.exponent": last[f"{name}.average.exponent"]},
                     name, sums, largest - average.FRACTION)
