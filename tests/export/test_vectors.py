"""Vectors: what they say is what docs/arithmetic.md says, and they find faults in hardware."""

import hashlib
import json
import os
import re
import shutil
import subprocess

import formulas
import networks as nets
import numpy as np
import pytest
from conftest import NITI, ROOT, Job, call, niti_json
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


def test_every_opcode_has_directed_cases(sets):
    """Of the program's own table, but for `none`, which stands for an operation that another does; and each is what the oracle says."""
    with open(os.path.join(ROOT, "src", "program", "program.c"), encoding="utf-8") as file:
        opcodes = set(re.findall(r'\[NITI_OP_\w+\] = \{"(\w+)"', file.read()))
    cases = {}
    for o in sets[0]["operations"]:
        if "inputs" in o:
            cases.setdefault(o["opcode"], set()).add(o["case"])
    assert len(opcodes) == 26 and set(cases) == opcodes - {"none"}
    assert all(found == {"zeros", "largest", "least", "turns", "all", "single", "small"} for found in cases.values())
    wrong = [(o["opcode"], o["layer"], o["case"], said) for o in sets[0]["operations"] if "inputs" in o and (said := formulas.difference(o))]
    assert wrong == []


def test_steps_are_what_the_oracle_says(sets):
    assert [(o["opcode"], o["layer"], said) for index in sets[1:] for o in index["operations"] if (said := formulas.difference(o))] == []


def test_directed_cases_reach_what_they_are_for(sets):
    """Ties, both ends of the range, operands that are 0, shifts of 0 and of many bits, either operand of an addition larger, masks of both values."""
    found = [o for o in sets[0]["operations"] if "inputs" in o]
    products = [o for o in found if o["opcode"] in ("conv_forward", "conv_backward")]
    assert {o["shift"] == 0 for o in products} == {True, False} and {o.get("clip", 0) for o in products} == {0, 1}
    assert any((np.abs(o["outputs"][0]["data"]) == 127).any() for o in products) and any((o["outputs"][0]["data"] == 0).all() for o in products)
    assert {o["attributes"].get("groups", 1) for o in products} == {1, 2} and {o["attributes"].get("centred") for o in products} == {None, True, False}
    apart = [o["inputs"][0]["exponent"] - o["inputs"][1]["exponent"] for o in found if o["opcode"] == "add"]
    assert min(apart) < 0 or max(apart) > 0
    updates = [o for o in found if o["opcode"] == "update_niti"]
    assert {min(o["bits"], 1) for o in updates} == {0, 1} and any(o["shift"] < 1 for o in updates)
    assert {o["attributes"]["loss"] for o in found if o["opcode"] == "loss"} == {"niti", "softmax"}


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
    names = set()
    assert index["arithmetic"] == "1.1" and index["steps"] == 1 and {o["opcode"] for o in index["operations"]} == {"conv_forward", "update_niti"}
    for o in index["operations"]:
        for entry in [*o["inputs"], *o["outputs"], *[o[k] for k in ("accumulators", "steps") if k in o]]:
            values = np.load(out / f"{entry['file']}.npy")
            assert values.dtype == entry["dtype"] and list(values.shape) == entry["dims"]
            assert len(entry["layout"]) == values.ndim and entry["layout"] in {"NHWC", "NC", "OHWI", "OI"}
            assert (entry["layout"] in {"OHWI", "OI"}) == any(word in entry["name"] for word in ("weight", "gradient", "steps"))
            assert hashlib.sha256(values.tobytes()).hexdigest() == entry["sha256"]
            with open(out / f"{entry['file']}.hex", encoding="ascii") as file:
                lines = file.read().split()
            mask = (1 << 8 * values.itemsize) - 1
            assert [int(line, 16) for line in lines] == [int(v) & mask for v in values.reshape(-1)]
            assert len(lines[0]) == 2 * values.itemsize
            from safetensors.numpy import load_file
            assert load_file(out / f"{entry['file']}.safetensors")["values"].tobytes() == values.tobytes()
            names.add(entry["file"])
    """Arrays of C have names of their own: all of them in one file."""
    array = lambda name: re.sub(r"\W", "_", name)  # noqa: E731
    program = tmp_path / "h.c"
    entry = index["operations"][0]["accumulators"]
    program.write_text("#include <stdint.h>\n#include <stdio.h>\n" + "".join(f'#include "v/{name}.h"\n' for name in sorted(names)) +
                       f'int main(void) {{ for (unsigned i = 0; i < sizeof {array(entry["file"])} / 4; ++i) printf("%d\\n", {array(entry["file"])}[i]); '
                       f'return (int)(0 * ({" + ".join(f"sizeof {array(name)}" for name in sorted(names))})); }}\n')
    call("gcc", "-Wall", "-Werror", program, "-o", tmp_path / "h")
    assert [int(v) for v in call(tmp_path / "h").split()] == np.load(out / f"{entry['file']}.npy").reshape(-1).tolist()


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
    values.reshape(-1)[[17, 30]] += 1
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
    (["lenet5", "--formats", "npy,vcd"], "expected npy, hex, h, safetensors"),
    (["lenet5", "--operations", "convolve"], "--operations convolve: the network has no such operation: 'convolve'"),
    (["lenet5", "--operations", "conv,nope"], "--operations conv,nope: the network has no such operation: 'nope'"),
    (["lenet5", "--operations", "conv,,add"], "no such operation: ''"), (["lenet5", "--operations", ""], "--operations: expected words"),
    (["lenet5", "--operations", "add"], "the network has no such operation: 'add'"),
    (["--corners", "--operations", "add,nope"], "--operations add,nope: there is no such operation: 'nope'"),
    (["--corners", "lenet5"], "takes no network"), (["--corners", "--steps", "2"], "--corners has no --steps"), (["--corners", "--batch", "2"], "--corners has no --batch")])
def test_refusals(options, why, tmp_path):
    result = subprocess.run([NITI, "vectors", "--out", tmp_path / "v", *options], capture_output=True, text=True, check=False)
    assert result.returncode in (1, 2) and why in result.stderr
    assert not os.path.exists(tmp_path / "v")


def test_corners_of_some_operations(tmp_path):
    niti_json("vectors", "--corners", "--out", tmp_path / "v", "--operations", "requantise,update_sgd")
    index = json.loads((tmp_path / "v" / "index.json").read_text())
    assert {o["opcode"] for o in index["operations"]} == {"requantise", "update_sgd"}
    assert all(entry["layout"] == "P" for o in index["operations"] if o["opcode"] == "requantise" for entry in o.values() if isinstance(entry, dict))
