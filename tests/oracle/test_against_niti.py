"""Trains every case with niti and with the oracle and compares hashes, weights, losses and accuracies bit for bit.

The tool is NITI_BUILD/niti; NITI_BUILD is `build` in the repository unless the environment sets it.
"""

import json
import math
import os
import struct
import subprocess

import numpy as np
import pytest

from oracle import cases, make_data
from oracle.train import evaluate, hash_checkpoint, train

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NITI = os.path.join(ROOT, os.environ.get("NITI_BUILD", "build"), "niti")  # an absolute NITI_BUILD stays as it is
ISAS = ("ref", "avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm")
THREADS = (1, 3)


def run_niti(*arguments):
    """The standard output of the tool; a failure shows what it printed."""
    result = subprocess.run([NITI, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    command = " ".join(map(str, arguments))
    assert result.returncode == 0, f"niti {command}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


def last_object(output):
    return json.loads(output.strip().splitlines()[-1])


def read_safetensors(path):
    """{name: array} of a safetensors file; tensors of signed integers only."""
    with open(path, "rb") as file:
        content = file.read()
    length, = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8:8 + length]), content[8 + length:]
    dtypes = {"I8": np.int8, "I16": np.dtype("<i2"), "I32": np.dtype("<i4"), "I64": np.dtype("<i8")}
    out = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] in dtypes:
            begin, end = entry["data_offsets"]
            out[name] = np.frombuffer(data[begin:end], dtype=dtypes[entry["dtype"]]).reshape(entry["shape"])
    return out


@pytest.fixture(scope="session")
def available_isas():
    if not os.path.exists(NITI):
        if "NITI_BUILD" in os.environ:
            pytest.fail(f"{NITI} does not exist")
        pytest.skip(f"{NITI} is not built and NITI_BUILD is not set")
    available = last_object(run_niti("info", "--json"))["isa_available"]
    assert "ref" in available
    return available


@pytest.fixture(scope="session", params=cases.NAMES)
def case(request, tmp_path_factory):
    """(name, data folder, what the oracle trained, its evaluation on the test set)."""
    name = request.param
    model, recipe, _ = cases.read_case(name)
    sets = make_data.generate(name)
    folder = tmp_path_factory.mktemp(name) / "data"
    make_data.write(name, str(folder))
    trained = train(model, *sets["train"], recipe)
    return name, folder, trained, evaluate(model, trained["weights"], trained["exponents"], *sets["test"], recipe)


def check_tensor(tensors, name, values, exponent):
    """The checkpoint's tensor has these values at this exponent."""
    assert tensors[name].shape == values.shape
    wrong = int((tensors[name] != values).sum())
    assert wrong == 0, f"{name}: {wrong} of {values.size} values differ"
    assert int(tensors[f"{name}.exponent"].reshape(-1)[0]) == exponent, name


def check_weights(path, trained):
    """Every weight tensor of the oracle is in the checkpoint, and no other is; so are update `sgd`'s masters and velocities."""
    tensors = read_safetensors(path)
    assert {name for name in tensors if name.endswith((".weight", ".bias", ".running"))} == set(trained["weights"])
    for name, weight in trained["weights"].items():
        assert tensors[name].dtype == weight.dtype
        check_tensor(tensors, name, weight, trained["exponents"][name])
    for kind in ("master", "velocity"):
        expected = {f"{name.removesuffix('.weight')}.{kind}": state for name, state in trained.get(kind, {}).items()}
        assert {name for name in tensors if name.endswith(f".{kind}")} == set(expected)
        for name, state in expected.items():
            check_tensor(tensors, name, *state)


def check_metrics(path, trained):
    """The training loss and accuracy of each epoch that the run reports. The last epoch may be reported or not if it was cut."""
    with open(path, encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if "train_loss" in row]
    assert len(rows) <= len(trained["epochs"])
    for row, epoch in zip(rows, trained["epochs"]):
        loss = epoch["loss_sum"] / 65536 / epoch["images"] * math.log(2)
        assert float(row["train_loss"]) == pytest.approx(loss, abs=1e-4, rel=1e-6), f"epoch {epoch['epoch']}"
        if "train_accuracy" in row:
            accuracy = 100 * epoch["correct"] / epoch["images"]
            assert float(row["train_accuracy"]) == pytest.approx(accuracy, abs=1e-4), f"epoch {epoch['epoch']}"


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("isa", ISAS)
def test_niti_trains_the_same_bits(case, isa, threads, available_isas, tmp_path):
    if isa not in available_isas:
        pytest.skip(f"this machine has no {isa}")
    name, data, trained, evaluation = case
    run = tmp_path / "run"
    report = last_object(run_niti("train", cases.recipe_path(name), "--data", data, "--run", run, "--isa", isa,
                                  "--threads", threads, "--json", "--quiet"))
    # The metrics and the weights come first: they say where a difference lies, the hash only that there is one.
    metrics = run / "metrics.jsonl"
    if metrics.exists():
        check_metrics(metrics, trained)
    check_weights(run / "last.safetensors", trained)
    assert report["steps"] == trained["steps"]
    expected = hash_checkpoint(trained["weights"], trained["exponents"])
    assert report["hash"] == expected
    assert expected in run_niti("hash", run / "last.safetensors")
    assert report["test_accuracy"] == pytest.approx(100 * evaluation["correct"] / evaluation["images"], abs=0.006)
