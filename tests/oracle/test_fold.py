"""niti fold: the folded tensors and what the tool evaluates with them, bit for bit those of the oracle; and that the folded layer does
what the two did, in exact numbers."""

import ctypes
import math
import os
from fractions import Fraction

import numpy as np
import pytest
import yaml

from oracle import cases, make_data
from oracle.fold import fold, fold_layers
from oracle.model import read_model, read_recipe
from oracle.test_against_niti import check_tensor, last_object, read_safetensors, run_niti
from oracle.test_public import at, library  # noqa: F401 (fixture)
from oracle.train import evaluate

FOLDABLE = ("norm-resnet", "averaged", "test-flip")


def description(name):
    with open(os.path.join(cases.FOLDER, read_recipe(cases.recipe_path(name))["model"]), encoding="utf-8") as file:
        return yaml.safe_load(file)


def tensor(tensors, name):
    """(array, exponent) or None."""
    return (tensors[name], int(tensors[f"{name}.exponent"].reshape(-1)[0])) if name in tensors else None


def expected_tensors(name, tensors):
    """{name: (array, exponent)} of the folded network."""
    model, out = read_model(description(name)), {}
    norm_after = {node.inputs[0]: node.name for node in model.nodes if node.kind == "norm"}
    for node in model.nodes:
        if node.kind not in ("conv", "linear"):
            continue
        weight, bias = tensor(tensors, f"{node.name}.weight"), tensor(tensors, f"{node.name}.bias")
        if node.number in norm_after:
            norm = norm_after[node.number]
            master = tensor(tensors, f"{node.name}.master") or (weight[0].astype(np.int64) * 256, weight[1] - 8)
            weight, bias = fold((master[0].reshape(weight[0].shape), master[1]), bias, tensor(tensors, f"{norm}.weight"),
                                tensor(tensors, f"{norm}.bias"), tensors[f"{norm}.running"])
        out[f"{node.name}.weight"] = weight
        if bias:
            out[f"{node.name}.bias"] = bias
    return out


@pytest.fixture(scope="module", params=FOLDABLE)
def run(request, tmp_path_factory):
    """(case, data folder, run's folder)."""
    folder = tmp_path_factory.mktemp(request.param)
    make_data.write(request.param, str(folder / "data"))
    run_niti("train", cases.recipe_path(request.param), "--data", folder / "data", "--run", folder / "run", "--quiet", "--threads", 1)
    return request.param, folder / "data", folder / "run"


def check_folded(name, data, before, after):
    expected, tensors = expected_tensors(name, read_safetensors(before)), read_safetensors(after)
    assert {n for n in tensors if not n.endswith(".exponent")} == set(expected)
    for n, values in expected.items():
        assert tensors[n].dtype == (np.int16 if n.endswith(".bias") else np.int8)
        check_tensor(tensors, n, *values)
    folded = {**description(name), "layers": fold_layers(description(name)["layers"])}
    weights = {n: v[0] for n, v in expected.items()}
    exponents = {n: v[1] for n, v in expected.items()}
    score = evaluate(read_model(folded), weights, exponents, *make_data.generate(name)["test"], read_recipe(cases.recipe_path(name)))
    for isa in last_object(run_niti("info", "--json"))["isa_available"]:
        result = last_object(run_niti("eval", after, "--data", data, "--json", "--isa", isa))
        assert result["correct"] == score["correct"] and result["images"] == score["images"]
        assert result["test_loss"] == pytest.approx(score["loss_sum"] / 65536 / score["images"] * math.log(2), rel=1e-9)


def test_from_masters(run, tmp_path):
    name, data, folder = run
    result = last_object(run_niti("fold", f"{folder}:last", "--out", tmp_path / "folded.safetensors", "--json"))
    assert result["from_masters"] == result["norms"] == sum(node.kind == "norm" for node in read_model(description(name)).nodes)
    check_folded(name, data, folder / "last.safetensors", tmp_path / "folded.safetensors")


def test_from_averaged_weights_which_have_no_masters(run, tmp_path):
    name, data, folder = run
    if name != "averaged":
        pytest.skip("the recipe has no average")
    result = last_object(run_niti("fold", f"{folder}:averaged", "--out", tmp_path / "folded.safetensors", "--json"))
    assert result["from_masters"] == 0 < result["norms"]
    check_folded(name, data, folder / "averaged.safetensors", tmp_path / "folded.safetensors")


class Layer(ctypes.Structure):
    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("norm_weight", ctypes.c_void_p), ("norm_bias", ctypes.c_void_p),
                ("running", ctypes.c_void_p), ("weight_exponent", ctypes.c_int32), ("bias_exponent", ctypes.c_int32),
                ("norm_weight_exponent", ctypes.c_int32), ("norm_bias_exponent", ctypes.c_int32), ("channels", ctypes.c_int32),
                ("size", ctypes.c_int64), ("reserved", ctypes.c_uint64 * 2)]


def random_layer(seed):
    random = np.random.RandomState(seed)
    channels, size = random.randint(1, 9), random.randint(1, 30)
    weight = random.randint(-32512, 32513, size=(channels, size)) * random.randint(2, size=(channels, 1))
    if seed == 7:
        weight[:] = 0
    bias = (random.randint(-32512, 32513, size=channels), int(random.randint(-30, -8))) if random.randint(2) else None
    norms = [(random.randint(-32512, 32513, size=channels) * (seed != 8), int(random.randint(-18, -10))) for _ in range(2)]
    running = np.stack([random.randint(-2**40, 2**40, size=channels), random.randint(0, 2**36, size=channels) * random.randint(2, size=channels)])
    return (weight, int(random.randint(-30, -10))), bias, *norms, running.astype(np.int64)


@pytest.mark.parametrize("seed", range(40))
def test_the_public_function_is_the_oracles(seed, library):  # noqa: F811
    weight, bias, norm_weight, norm_bias, running = random_layer(seed)
    channels, size = weight[0].shape
    arrays = [np.ascontiguousarray(pair[0].astype(np.int16)) if pair else None for pair in (weight, bias, norm_weight, norm_bias)]
    layer = Layer(*(at(array) if array is not None else None for array in arrays), at(running), weight[1], bias[1] if bias else 0,
                  norm_weight[1], norm_bias[1], channels, size)
    out, out_bias = np.full((channels, size), 77, np.int8), np.full(channels, 77, np.int16)
    e, e_b = ctypes.c_int32(), ctypes.c_int32()
    library.niti_fold_norm(at(out), ctypes.byref(e), at(out_bias), ctypes.byref(e_b), ctypes.byref(layer))
    (expected, exponent), (expected_bias, bias_exponent) = fold(weight, bias, norm_weight, norm_bias, running)
    assert (out == expected).all() and (out_bias == expected_bias).all() and (e.value, e_b.value) == (exponent, bias_exponent)


@pytest.mark.parametrize("seed", range(10, 20))
def test_the_folded_layer_computes_what_both_did(seed):
    """For any input x: folded weight * x + bias against weight * (conv(x) + bias - mean) / deviation + bias, within what rounding the
    weights and the bias can have changed."""
    (w, e_w), bias, (nw, e_nw), (nb, e_nb), running = random_layer(seed)
    (new, e), (new_bias, e_b) = fold((w, e_w), bias, (nw, e_nw), (nb, e_nb), running)
    x = np.random.RandomState(seed).randint(-127, 128, size=w.shape[1])
    for c in range(len(w)):
        real = sum(Fraction(int(a)) * int(b) for a, b in zip(w[c], x)) * Fraction(2)**e_w
        real += Fraction(int(bias[0][c])) * Fraction(2)**bias[1] if bias else 0
        deviation = math.sqrt(int(running[1][c]) * 2.0**-32 + 1e-5)
        both = float(Fraction(int(nw[c])) * Fraction(2)**e_nw * (real - Fraction(int(running[0][c]), 2**32))) / deviation + nb[c] * 2.0**e_nb
        one = float(sum(Fraction(int(a)) * int(b) for a, b in zip(new[c], x)) * Fraction(2)**e) + new_bias[c] * 2.0**e_b
        assert abs(one - both) <= 0.51 * (2.0**e * np.abs(x).sum() + 2.0**e_b) + 1e-6 * (abs(both) + abs(nb[c] * 2.0**e_nb) + 1)
