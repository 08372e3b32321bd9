"""Vectors: what they say is what docs/arithmetic.md says, and they find faults in hardware."""

import hashlib
import json
import os
import shutil
import subprocess

import networks as nets
import numpy as np
import pytest
from conftest import NITI, Job, call, niti_json
from hardware import Hardware, faults, load

SETS = [(nets.POOLS, {"batch": 3}), (nets.POOLS, {"batch": 2, "rounding": {"activation": "stochastic", "error": "pseudo-stochastic"}}),
        (nets.FORKS, {"batch": 2, "rounding": {"activation": "truncate", "error": "stochastic"}, "loss": "softmax"}), (nets.A, {"batch": 2}), (nets.AVERAGE, {"batch": 2}),
        (nets.POOLS, {"batch": 2, "clip": {"activation": 2, "error": 1}})]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    for i, (model, recipe) in enumerate(SETS):
        job = Job(folder / f"job{i}", model, **recipe)
        niti_json("vectors", job.path("recipe.yaml"), "--steps", 2, "--out", folder / f"set{i}")
    niti_json("vectors", "--corners", "--out", folder / "corners")
    return folder


@pytest.fixture(scope="module")
def sets(folder):
    return [load(folder / "corners")] + [load(folder / f"set{i}") for i in range(len(SETS))]


def test_a_model_of_hardware_agrees(sets):
    for index in sets:
        check = Hardware().corner if index["kind"] == "corners" else Hardware().check
        assert [o for o in index["operations"] if not check(o)] == []
    opcodes = {o["opcode"] for index in sets[1:] for o in index["operations"]}
    assert opcodes == {"input", "conv_forward", "conv_backward", "conv_gradient", "relu_forward", "relu_backward", "maxpool_forward", "maxpool_backward",
                       "avgpool_forward", "avgpool_backward", "add", "dropout", "reshape", "loss", "update_niti"}


def test_faults_are_found(sets):
    seeded = faults(1, 300)
    missed = [name for name, hardware in seeded if hardware.passes(sets)]
    assert len(missed) <= len(seeded) // 100, missed


def test_index_and_formats(tmp_path):
    job = Job(tmp_path, nets.FORKS, batch=1)
    out = tmp_path / "v"
    niti_json("vectors", job.path("recipe.yaml"), "--out", out, "--formats", "npy,hex,h,safetensors", "--operations", "conv_forward,update")
    with open(out / "index.json", encoding="utf-8") as file:
        index = json.load(file)
    assert index["arithmetic"] == "1.0" and index["steps"] == 1 and {o["opcode"] for o in index["operations"]} == {"conv_forward", "update_niti"}
    for o in index["operations"]:
        for entry in [*o["inputs"], *o["outputs"], *[o[k] for k in ("accumulators", "steps") if k in o]]:
            values = np.load(out / f"{entry['file']}.npy")
            assert values.dtype == entry["dtype"] and list(values.shape) == entry["dims"]
            assert hashlib.sha256(values.tobytes()).hexdigest() == entry["sha256"]
            with open(out / f"{entry['file']}.hex", encoding="ascii") as file:
                lines = file.read().split()
            mask = (1 << 8 * values.itemsize) - 1
            assert [int(line, 16) for line in lines] == [int(v) & mask for v in values.reshape(-1)]
            assert len(lines[0]) == 2 * values.itemsize
            from safetensors.numpy import load_file
            assert load_file(out / f"{entry['file']}.safetensors")["values"].tobytes() == values.tobytes()
    entry = index["operations"][0]["accumulators"]
    program = tmp_path / "h.c"
    program.write_text(f'#include <stdint.h>\n#include <stdio.h>\n#include "v/{entry["file"]}.h"\n'
                       'int main(void) { for (unsigned i = 0; i < sizeof values / sizeof *values; ++i) printf("%d\\n", values[i]); }\n')
    call("gcc", program, "-o", tmp_path / "h")
    assert [int(v) for v in call(tmp_path / "h").split()] == np.load(out / f"{entry['file']}.npy").tolist()


def compare(a, b):
    result = subprocess.run([NITI, "compare", a, b], capture_output=True, text=True, check=False)
    return result.returncode, result.stdout.strip()


def test_compare_names_the_first_element(folder, tmp_path):
    assert compare(folder / "set0", folder / "set0") == (0, "equal")
    shutil.copytree(folder / "set0", tmp_path / "other")
    with open(tmp_path / "other" / "index.json", encoding="utf-8") as file:
        index = json.load(file)
    number, o = next((i, o) for i, o in enumerate(index["operations"]) if o["opcode"] == "conv_backward")
    entry = o["accumulators"]
    values = np.load(tmp_path / "other" / f"{entry['file']}.npy")
    values[17] += 1
    values[30] += 1
    np.save(tmp_path / "other" / f"{entry['file']}.npy", values)
    entry["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()
    with open(tmp_path / "other" / "index.json", "w", encoding="utf-8") as file:
        json.dump(index, file)
    code, where = compare(folder / "set0", tmp_path / "other")
    assert code == 1 and where == f"step 0, operation {o['operation']}, {o['layer']} conv_backward: element 17 of accumulators ({entry['file']})"


def test_compare_reads_the_files(folder, tmp_path):
    """A simulator that writes values beside a copied index has not passed by that."""
    shutil.copytree(folder / "set0", tmp_path / "other")
    index = json.loads((tmp_path / "other" / "index.json").read_text())
    o = next(o for o in index["operations"] if o["opcode"] == "conv_forward")
    path = tmp_path / "other" / f"{o['accumulators']['file']}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, where = compare(folder / "set0", tmp_path / "other")
    assert code == 1 and f"conv_forward: element {len(np.load(path).ravel()) - 1} of accumulators" in where
    path.unlink()
    result = subprocess.run([NITI, "compare", folder / "set0", tmp_path / "other"], capture_output=True, text=True, check=False)
    assert result.returncode != 0 and "is not there in any format" in result.stderr
    index["arithmetic"] = "2.0"
    (tmp_path / "other" / "index.json").write_text(json.dumps(index))
    code, where = compare(folder / "set0", tmp_path / "other")
    assert code == 1 and where.endswith("here, 2.0 there")


def test_compare_prints_a_strangers_names_as_text(tmp_path):
    """No line of its own and no escape sequence reaches the terminal."""
    for name, opcode in (("one", "a\\n\\u001b[31mb"), ("other", "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(f'{{"operations": [{{"opcode": "{opcode}"}}]}}')
    code, where = compare(tmp_path / "one", tmp_path / "other")
    assert code == 1 and "\n" not in where and "\x1b" not in where and "c there" in where


def test_compare_finds_the_epoch_in_which_two_runs_part(tmp_path):
    job = Job(tmp_path, nets.FORKS, images=12, batch=4, epochs=9, max_steps=27)
    hashes = []
    for run, mu in (("one", 4), ("same", 4), ("other", [{"epoch": 0, "mu": 4}, {"epoch": 6, "mu": 5}])):
        hashes.append(niti_json("train", job.path("recipe.yaml"), "--data", job.path("data"), "--run", tmp_path / run, "--save-every", 1, "--quiet",
                                "--set", f"update.mu={json.dumps(mu)}".replace('"', ""))["hash"])
    assert hashes[0] == hashes[1] != hashes[2]
    assert compare(tmp_path / "one", tmp_path / "same") == (0, "equal")
    code, where = compare(tmp_path / "one", tmp_path / "other")
    assert code == 1 and where.startswith("epoch-0007.safetensors: element ")


@pytest.mark.parametrize("options, why", [
    (["--formats", "npy,vcd"], "expected npy, hex, h, safetensors"), (["--operations", "convolve"], "no such operation"), (["--corners"], "takes no network")])
def test_refusals(options, why, tmp_path):
    result = subprocess.run([NITI, "vectors", "lenet5", "--batch", "1", "--out", tmp_path / "v", *options], capture_output=True, text=True, check=False)
    assert result.returncode in (1, 2) and why in result.stderr
    assert not os.path.exists(tmp_path / "v" / "index.json")
