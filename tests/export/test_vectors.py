"""Vectors: what they say is what docs/arithmetic.md says, and they find faults in hardware."""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
from dataclasses import replace

import formulas
import networks as nets
import numpy as np
import pytest
from conftest import NITI, ROOT, Job, call, files_opened, niti_json
from hardware import Hardware, faults, load
from oracle.library import sanitizers

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
    """Of the program's own table, but for `none`, which stands for an operation that another does, and those that a backend makes of
    two others; and each is what the oracle says."""
    with open(os.path.join(ROOT, "src", "program", "program.c"), encoding="utf-8") as file:
        opcodes = set(re.findall(r'\[NITI_OP_\w+\] = \{"(\w+)"', file.read()))
    cases = {}
    for o in sets[0]["operations"]:
        if "inputs" in o:
            cases.setdefault(o["opcode"], set()).add(o["case"])
    assert len(opcodes) == 28 and set(cases) == opcodes - {"none", "norm_pool_forward", "norm_pool_backward"}
    assert all(found == {"zeros", "largest", "least", "turns", "all", "single", "small", "quiet"} for found in cases.values())
    wrong = [(o["opcode"], o["layer"], o["case"], said) for o in sets[0]["operations"] if "inputs" in o and (said := formulas.difference(o))]
    assert wrong == []


def test_a_directed_case_has_quiet_channels_that_matter(sets, monkeypatch):
    """Where they counted in the range, as up to arithmetic 1.1, the multipliers would be others."""
    statistics = formulas.norm.batch_statistics
    monkeypatch.setattr(formulas.norm, "batch_statistics", lambda x, e: replace(statistics(x, e), quiet=[False] * x.shape[-1]))
    differences = {formulas.difference(o) for o in sets[0]["operations"] if (o["opcode"], o.get("case")) == ("norm_delta_fit", "quiet")}
    assert any("delta_affine" in (said or "") for said in differences)


def test_steps_are_what_the_oracle_says(sets):
    assert [(o["opcode"], o["layer"], said) for index in sets[1:] for o in index["operations"] if (said := formulas.difference(o))] == []


NORMED = {"name": "normed", "input": [8, 8, 3], "classes": 4, "layers": [
    {"conv": {"out": 6, "kernel": 3, "padding": 1}}, "norm", {"relu": {"max": 2}}, {"maxpool": {"kernel": 2}},
    {"residual": {"body": [{"conv": {"out": 6, "kernel": 3, "padding": 1, "groups": 6}}, "norm"]}}, {"avgpool": {"kernel": 3, "padding": 1}},
    {"conv": {"out": 4, "kernel": 1, "bias": True}}, {"dropout": {"rate": 0.2}}, "flatten", {"linear": {"out": "classes", "bias": True}}]}


@pytest.mark.parametrize("update", [
    {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0005, "clip_norm": 1, "warmup": {"epoch": 1}},
    {"kind": "niti16", "lr": 4, "momentum": 0.9}], ids=["sgd", "niti16"])
def test_wide_updates_norms_biases_and_groups(update, tmp_path):
    """Of an untrained network, and of a trained one, whose masters and velocities come from its checkpoint."""
    job = Job(tmp_path, NORMED, images=40, batch=4, max_steps=12, loss="softmax", label_smoothing=0.1, update=update)
    niti_json("train", job.path("recipe.yaml"), "--data", job.path("data"), "--run", job.path("run"), "--quiet")
    for network in ("recipe.yaml", "run:last"):
        out = tmp_path / f"of-{network}"
        niti_json("vectors", job.path(network), "--steps", 2, "--out", out)
        found = load(out)["operations"]
        assert {"norm_fit", "norm_backward", "bias_gradient", f"update_{update['kind']}"} <= {o["opcode"] for o in found}
        assert {o.get("rounding") for o in found} >= {"stochastic-byte"}
        assert [(o["opcode"], o["layer"], said) for o in found if (said := formulas.difference(o))] == []
        masters = [entry["data"] for o in found if o["opcode"] == f"update_{update['kind']}" for entry in o["inputs"] if entry["name"] == "conv1.velocity"]
        assert masters[0].any() == (network == "run:last")


def vectors(network, out, *options):
    """The operations, which agree with the oracle, or the message of a refusal, after which there is no folder."""
    result = subprocess.run([NITI, "vectors", network, "--out", out, *options], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        assert not os.path.exists(out)
        return result.stderr
    found = load(out)["operations"]
    assert [(o["opcode"], o["layer"], said) for o in found if (said := formulas.difference(o))] == []
    return found


def rates(found, opcode="update_niti"):
    """Of each step, the rate of all its updates."""
    steps = {}
    for o in found:
        if o["opcode"] == opcode:
            steps.setdefault(o["step"], set()).add(o["mu"] if opcode == "update_niti" else o["attributes"]["rate"])
    assert all(len(rate) == 1 for rate in steps.values())
    return {step: rate.pop() for step, rate in steps.items()}


def test_rates_follow_the_recipes_schedule(tmp_path):
    """Step by step; one that is not whole is refused where it is in force, and only there."""
    mu = lambda rate: [{"epoch": 0, "mu": 4}, {"step": 2, "mu": rate}]  # noqa: E731
    job = Job(tmp_path, nets.AVERAGE, batch=2, epochs=2, max_steps=9, update={"mu": mu(3)})
    assert rates(vectors(job.path("recipe.yaml"), tmp_path / "v", "--steps", "5")) == {0: 4, 1: 4, 2: 3, 3: 3, 4: 3}
    job = Job(tmp_path / "fraction", nets.AVERAGE, batch=2, epochs=2, max_steps=9, update={"mu": mu(3.5)})
    assert rates(vectors(job.path("recipe.yaml"), tmp_path / "two", "--steps", "2")) == {0: 4, 1: 4}
    said = vectors(job.path("recipe.yaml"), tmp_path / "no", "--steps", "3")
    assert "update.mu, which is 3.5: cannot be written as the vectors of step 2 (expected a whole number)" in said


@pytest.mark.parametrize("update, key, opcode, unit", [({}, "mu", "update_niti", 1), ({"kind": "sgd"}, "lr", "update_sgd", 10**9), ({"kind": "niti16", "schedule": "steps"}, "lr", "update_niti16", 10**9)],
                         ids=["niti", "sgd", "niti16"])
def test_rates_begin_where_a_run_stands(update, key, opcode, unit, tmp_path):
    """With its last step's, and go on from there to the run's end."""
    schedule = [{"epoch": 0, key: 4}, {"epoch": 2, key: 3}, {"at": 0.9, key: 2}]
    job = Job(tmp_path, nets.AVERAGE, images=10, batch=2, epochs=5, max_steps=25, loss="softmax", update={**update, key: schedule})
    niti_json("train", job.path("recipe.yaml"), "--data", job.path("data"), "--run", job.path("run"), "--save-every", 1, "--quiet")
    for epoch, expected in ((1, [4, 4, 4]), (2, [4, 3, 3]), (3, [3, 3, 3]), ("last", [2, 2, 2])):
        found = vectors(job.path(f"run:{epoch}"), tmp_path / f"v{epoch}", "--steps", "3")
        assert rates(found, opcode) == {step: rate * unit for step, rate in enumerate(expected)}


def test_a_rate_that_a_run_reaches_is_refused(tmp_path):
    job = Job(tmp_path, nets.AVERAGE, images=10, batch=2, epochs=3, max_steps=15, update={"mu": [{"epoch": 0, "mu": 4}, {"epoch": 2, "mu": 3.5}]})
    niti_json("train", job.path("recipe.yaml"), "--data", job.path("data"), "--run", job.path("run"), "--save-every", 1, "--quiet")
    assert rates(vectors(job.path("run:2"), tmp_path / "v")) == {0: 4}
    assert "update.mu, which is 3.5: cannot be written as the vectors of step 1" in vectors(job.path("run:2"), tmp_path / "no", "--steps", "2")
    assert "update.mu, which is 3.5: cannot be written as vectors" in vectors(job.path("run:3"), tmp_path / "no")


def test_vectors_begin_where_a_device_stands(tmp_path):
    """At its step, on which random words depend, and with its own rate, whatever the recipe's schedule says."""
    job = Job(tmp_path, nets.AVERAGE, images=10, batch=2, max_steps=9, rounding={"activation": "stochastic"}, update={"mu": [{"epoch": 0, "mu": 4}, {"step": 1, "mu": 5}]})
    job.export()
    with open(job.path("log"), "w", encoding="ascii") as file:
        file.write("0:0 1:1\n1:2 3:0\nmu 3\n4:1\n5:2\n")
    niti_json("replay", job.path("log"), job.path("c", "average.safetensors"), "--data", job.path("data"), "--out", job.path("device.safetensors"))
    found = vectors(job.path("device.safetensors"), tmp_path / "v", "--steps", "3")
    assert rates(found) == {4: 3, 5: 3, 6: 3} and {o["draw"]["time"] for o in found if "draw" in o} == {4, 5, 6}


def test_words_are_those_that_are_used(sets):
    """A mask that images share has words for one image."""
    found = set()
    for o in (o for index in sets for o in index["operations"] if o["opcode"] == "dropout"):
        shared, dims = o["attributes"]["shared_mask"], o["inputs"][0]["dims"]
        assert o["words"]["dims"] == [1 if shared else dims[0], *dims[1:]] and list(o["words"]["data"].shape) == o["words"]["dims"]
        found.add((shared, dims[0] > 1))
    assert {(True, True), (False, True)} <= found


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
    assert index["arithmetic"] == "1.2" and index["steps"] == 1 and {o["opcode"] for o in index["operations"]} == {"conv_forward", "update_niti"}
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


@pytest.mark.parametrize("index, says", [('{"operations":[' + "{}," * 1000 + "{}]}", "values in"), ("[" * 1000, "nested more than 16")])
def test_compare_counts_before_it_parses(folder, tmp_path, index, says):
    (tmp_path / "index.json").write_text(index)
    result = subprocess.run([NITI, "compare", folder / "set0", tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and says in result.stderr and str(tmp_path / "index.json") in result.stderr


FORMATS = ("npy", "hex", "h", "safetensors")


@pytest.fixture(scope="module")
def every_format(tmp_path_factory):
    """Vectors in every format, and an entry of one file of each dtype."""
    folder = tmp_path_factory.mktemp("formats")
    job = Job(folder, nets.FORKS, batch=1, rounding={"activation": "stochastic", "error": "pseudo-stochastic"})
    niti_json("vectors", job.path("recipe.yaml"), "--out", folder / "v", "--formats", ",".join(FORMATS), "--operations", "input,conv_forward")
    index = json.loads((folder / "v" / "index.json").read_text())
    entries = {}
    for o in index["operations"]:
        for entry in [*o["inputs"], *o["outputs"], *[o[k] for k in ("accumulators", "words") if k in o]]:
            entries[entry["dtype"]] = entry
    assert {"int8", "uint8", "int32", "uint32"} <= set(entries)
    return folder / "v", entries


def only(source, to, entry, *formats):
    """A copy in which one entry has only files of these formats."""
    shutil.copytree(source, to)
    for ending in set(FORMATS) - set(formats):
        (to / f"{entry['file']}.{ending}").unlink()
    return to


def change_last(folder, entry, ending):
    """The last value of a file becomes another, which is still one of its dtype."""
    path = folder / f"{entry['file']}.{ending}"
    content = bytearray(path.read_bytes())
    if ending in ("npy", "safetensors"):
        content[-1] ^= 1
    else:
        at = max(i for i, c in enumerate(content) if chr(c) in ("0123456789abcdef" if ending == "hex" else "0123456789"))
        content[at] = ord("2") if content[at] == ord("1") else ord("1")
    path.write_bytes(content)


@pytest.mark.parametrize("here, there", [(a, b) for a in FORMATS for b in FORMATS])
def test_compare_reads_every_format(here, there, every_format, tmp_path):
    """Whatever the two folders have, equal values are equal, and the last one is read: the index and its digests are the same."""
    source, entries = every_format
    for dtype, entry in entries.items():
        a, b = only(source, tmp_path / f"a{dtype}", entry, here), only(source, tmp_path / f"b{dtype}", entry, there)
        assert compare(a, b) == (0, "equal")
        change_last(b, entry, there)
        code, where = compare(a, b)
        assert code == 1 and f"element {np.prod(entry['dims']) - 1} of {entry['name']} ({entry['file']}" in where
        assert (f".{here} here, .{there} there" in where) == (here != there)


@pytest.mark.parametrize("changed", FORMATS[1:])
def test_compare_reads_formats_beside_each_other(changed, every_format, tmp_path):
    source, entries = every_format
    shutil.copytree(source, tmp_path / "v")
    change_last(tmp_path / "v", entries["int32"], changed)
    code, where = compare(source, tmp_path / "v")
    assert code == 1 and f".npy here, .{changed} there" in where
    code, where = compare(tmp_path / "v", source)
    assert code == 1 and f".npy and .{changed} of {tmp_path / 'v'}" in where


def test_compare_reads_hex_as_verilog_writes_it(every_format, tmp_path):
    """Comments, CRLF, capitals, white space, underscores and addresses are no difference; another value behind them is."""
    source, entries = every_format
    entry = entries["int32"]
    lines = (source / f"{entry['file']}.hex").read_text().split()
    ways = [
        "// 0x00000000\n" + "\n".join(lines) + "\n", "\r\n".join(lines) + "\r\n", "\n".join(lines).upper(), "  ".join(lines) + " /* the\nend */",
        "@0\n" + "\t// one\n".join(lines), "@0 " + lines[0] + " @1\n" + "\n".join(lines[1:]), "\n".join(f"{line[:4]}_{line[4:]}" for line in lines),
        "\n".join(line.lstrip("0") or "0" for line in lines)]
    for i, text in enumerate(ways):
        other = only(source, tmp_path / str(i), entry, "hex")
        path = other / f"{entry['file']}.hex"
        path.write_bytes(text.encode())
        assert compare(source, other) == (0, "equal"), text[:40]
        assert compare(other, source) == (0, "equal"), text[:40]
        at = text.rindex(lines[-1][-1] if lines[-1][-1] in text else lines[-1][-1].upper(), 0, text.rindex("/*") if "/*" in text else None)
        path.write_bytes((text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1:]).encode())
        code, where = compare(source, other)
        assert code == 1 and f"element {len(lines) - 1} of " in where


@pytest.mark.parametrize("ending, change, says", [
    ("hex", lambda text: text.replace("\n", "\nxxxxxxxx\n", 1), ":2: 'xxxxxxxx' (expected hexadecimal digits"),
    ("hex", lambda text: "1" + text, ":1: '1"), ("hex", lambda text: text + "0\n", ": more than "), ("hex", lambda text: text[9:], " values (expected "),
    ("hex", lambda text: "@4 " + text, ":1: '@4' (expected the address of the next value"), ("hex", lambda text: text + "/* no end", "'/*' (expected the end of the comment)"),
    ("h", lambda text: text.replace("{", "{1,"), ": more than "), ("h", lambda text: text.replace("{\n", "{\n2147483648,"), ":3: '2147483648"),
    ("h", lambda text: text.replace("};", ""), "(expected } at the array's end)"), ("h", lambda text: "", "(expected an array"), ("h", lambda text: text.replace("{\n", "{\n1.5f,"), "'1.5f'")])
def test_compare_names_what_it_cannot_read(ending, change, says, every_format, tmp_path):
    source, entries = every_format
    other = only(source, tmp_path / "v", entries["int32"], ending)
    path = other / f"{entries['int32']['file']}.{ending}"
    path.write_text(change(path.read_text()))
    result = subprocess.run([NITI, "compare", source, other], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stdout == "" and f"{path}:" in result.stderr and says in result.stderr


@pytest.mark.parametrize("change, says", [
    (lambda text: text + "\0{{{", "a zero byte"),
    (lambda text: text.rstrip()[:-1] + ', "operations": []}', "duplicate"),
    (lambda text: '{"operations": [1, 2, []]}', "operation 0 has no opcode"),
    (lambda text: '{"operations": [{"opcode": 5}]}', "operation 0 has no opcode"),
])
def test_compare_refuses_an_index_that_is_not_one(change, says, every_format, tmp_path):
    source, _ = every_format
    shutil.copytree(source, tmp_path / "v")
    path = tmp_path / "v" / "index.json"
    path.write_text(change(path.read_text()))
    for pair in ((source, tmp_path / "v"), (tmp_path / "v", source), (tmp_path / "v", tmp_path / "v")):
        result = subprocess.run([NITI, "compare", *pair], capture_output=True, text=True, check=False)
        assert result.returncode == 1 and result.stdout == "" and f"{path}:" in result.stderr and says in result.stderr


def test_compare_reads_a_file_once_however_often_it_is_named(tmp_path):
    entry = {"name": "a", "file": "x", "dtype": "int8", "dims": [4]}
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.hex").write_text("01\n02\n03\n04\n")
        (tmp_path / name / "index.json").write_text(json.dumps({"operations": [{"opcode": "c", "inputs": [entry] * 50}] * 50}))
    opened = files_opened(tmp_path / "log", NITI, "compare", tmp_path / "a", tmp_path / "b")
    assert opened.count('/x.hex"') == 2
    (tmp_path / "b" / "x.hex").write_text("01\n02\n03\n05\n")
    code, where = compare(tmp_path / "a", tmp_path / "b")
    assert code == 1 and "element 3 of a" in where


@pytest.mark.parametrize("network", ["lenet5", None])
def test_vectors_that_fail_leave_nothing(network, tmp_path):
    """The folder that they made is gone, and one that was empty is empty."""
    (tmp_path / "empty").mkdir()
    for out in ("new/deep", "empty"):
        words = [NITI, "vectors", *([network, "--batch", "1"] if network else ["--corners"]), "--out", str(tmp_path / out)]
        limited = subprocess.run(["sh", "-c", 'trap "" XFSZ; ulimit -f 1; exec "$@"', "sh", *words], capture_output=True, text=True, check=False)
        assert limited.returncode == 1 and limited.stderr.count("\n") == 1, limited
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty"]
        subprocess.run(words, check=True, capture_output=True)
        shutil.rmtree(tmp_path / out)
        (tmp_path / "empty").mkdir(exist_ok=True)
        shutil.rmtree(tmp_path / "new", ignore_errors=True)


def test_compare_names_another_dtype_and_missing_operands(every_format, tmp_path):
    source, entries = every_format
    number = {}

    def changed(name, edit):
        shutil.copytree(source, tmp_path / name)
        index = json.loads((source / "index.json").read_text())
        number[name] = next(i for i, o in enumerate(index["operations"]) if o["opcode"] == "conv_forward")
        edit(index["operations"][number[name]])
        (tmp_path / name / "index.json").write_text(json.dumps(index))
        return compare(source, tmp_path / name)

    code, where = changed("dtype", lambda o: o["accumulators"].update(dtype="uint32"))
    assert code == 1 and where.endswith("conv_forward: the dtype of accumulators")
    for name, edit in (("operands", lambda o: o["inputs"].pop()), ("accumulators", lambda o: o.pop("accumulators"))):
        code, where = changed(name, edit)
        assert code == 1 and where.endswith(f"conv_forward: {name.replace('operands', 'inputs')}")
    np.save(tmp_path / "accumulators" / f"{entries['int32']['file']}.npy", np.zeros(3, np.int32))
    result = subprocess.run([NITI, "compare", tmp_path / "accumulators", source], capture_output=True, text=True, check=False)
    assert result.returncode == 1


def test_compare_prints_a_strangers_names_as_text(tmp_path):
    """No line of its own and no escape sequence reaches the terminal."""
    for name, opcode in (("one", "a\\n\\u001b[31mb"), ("other", "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(f'{{"operations": [{{"opcode": "{opcode}"}}]}}')
    code, where = compare(tmp_path / "one", tmp_path / "other")
    assert code == 1 and "\n" not in where and "\x1b" not in where and "c there" in where


def test_compare_takes_no_more_memory_than_files_fill(tmp_path):
    """Whatever size the index gives: of each format, a file of three values."""
    built_with = sanitizers(NITI)
    if "tsan" in built_with:
        pytest.skip("the thread sanitizer takes terabytes of addresses, and has no limit")
    environment, limit = dict(os.environ), lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
    if "asan" in built_with:  # takes terabytes, too, but has limits of its own
        own = "max_allocation_size_mb=256:allocator_may_return_null=1:hard_rss_limit_mb=512:"
        environment["ASAN_OPTIONS"], limit = own + environment.get("ASAN_OPTIONS", ""), None
    entry = {"name": "a", "file": "a", "dtype": "int8", "layout": "N", "dims": [1 << 30]}
    for ending, write in (("npy", lambda path: np.save(path, np.zeros(3, np.int8))), ("hex", lambda path: path.write_text("01\n02\n03\n")),
                          ("h", lambda path: path.write_text("const int8_t a[3] = {1, 2, 3};"))):
        folder = tmp_path / ending
        folder.mkdir()
        (folder / "index.json").write_text(json.dumps({"operations": [{"opcode": "add", "a": entry}]}))
        write(folder / f"a.{ending}")
        result = subprocess.run([NITI, "compare", folder, folder], capture_output=True, text=True, check=False, env=environment, preexec_fn=limit)
        assert result.returncode == 1 and f"a.{ending}: " in result.stderr and "index.json has" in result.stderr, result.stderr


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


def test_compare_says_that_two_runs_ended_apart(tmp_path):
    """One is longer: their last weights belong to different steps, and none of them is the first that differs."""
    job = Job(tmp_path, nets.FORKS, images=12, batch=4, epochs=3, max_steps=1000)
    for run, epochs in (("short", 3), ("long", 4)):
        niti_json("train", job.path("recipe.yaml"), "--data", job.path("data"), "--run", tmp_path / run, "--save-every", 1, "--quiet", "--epochs", epochs)
    assert compare(tmp_path / "short", tmp_path / "long") == (1, "last.safetensors: after step 9 here, after step 12 there")


@pytest.mark.parametrize("options, why", [
    (["lenet5", "--formats", "npy,vcd"], "expected npy, hex, h, safetensors"),
    (["lenet5", "--operations", "convolve"], "--operations convolve: the network has no such operation: 'convolve'"),
    (["lenet5", "--operations", "conv,nope"], "--operations conv,nope: the network has no such operation: 'nope'"),
    (["lenet5", "--operations", "conv,,add"], "no such operation: ''"), (["lenet5", "--operations", ""], "--operations: expected words"),
    (["lenet5", "--operations", "conv,"], "--operations conv,: expected a word after the last comma"), (["--corners", "--operations", "add,"], "expected a word after the last comma"),
    (["lenet5", "--formats", "npy,"], "--formats npy,: expected npy, hex, h, safetensors"), (["lenet5", "--formats", ""], "--formats : expected npy, hex, h, safetensors"),
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
