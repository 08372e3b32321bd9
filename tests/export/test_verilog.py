"""examples/verilog: a multiply-accumulate with requantisation, simulated on vectors."""

import json
import math
import os
import shutil
import subprocess

import networks as nets
import pytest
from conftest import ROOT, Job, call, niti_json

SOURCE = os.path.join(ROOT, "examples", "verilog")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    job = Job(tmp_path_factory.mktemp("verilog"), nets.RESIDUAL, batch=1)
    niti_json("vectors", job.path("recipe.yaml"), "--out", job.path("v"), "--formats", "npy,hex", "--operations", "conv_forward,conv_backward")
    niti_json("vectors", "--corners", "--out", job.path("corners"), "--formats", "hex")
    return job


def build(job, change=lambda text: text):
    if not shutil.which("iverilog"):
        pytest.fail("iverilog is not there: run scripts/setup.sh test")
    with open(os.path.join(SOURCE, "requantise.v"), encoding="utf-8") as file:
        text = change(file.read())
    with open(job.path("block.v"), "w", encoding="utf-8") as file:
        file.write(text)
    call("iverilog", "-g2005", "-Wall", "-Wno-timescale", "-o", job.path("bench"), os.path.join(SOURCE, "bench.v"), job.path("block.v"))


def arguments_of(job, folder, o):
    """For one entry of an index, by their names."""
    file = lambda entry: job.path(folder, f"{entry['file']}.hex")  # noqa: E731
    if o["opcode"] == "dot":
        return {"LENGTH": o["a"]["dims"][0], "A": file(o["a"]), "B": file(o["b"]), "SUM": file(o["accumulators"])}
    results = o.get("results") or o["outputs"][0]
    return {"COUNT": math.prod(o["accumulators"]["dims"]), "SHIFT": o["shift"], "SUMS": file(o["accumulators"]), "RESULTS": file(results)}


def simulate(job, arguments):
    """Whether the bench passes, and what it says last."""
    result = subprocess.run(["vvp", job.path("bench"), *(f"+{key}={value}" for key, value in arguments.items())], capture_output=True, text=True, check=False)
    said = result.stdout.splitlines()[-1]
    passed = said == f"passed {arguments.get('COUNT', 0) or arguments.get('LENGTH', 0)}"
    assert result.returncode == (0 if passed else 1), result
    return passed, said


def entries(job, folder):
    with open(job.path(folder, "index.json"), encoding="utf-8") as file:
        found = [o for o in json.load(file)["operations"] if o.get("rounding", "nearest") == "nearest" and o["opcode"] in
                 ("conv_forward", "conv_backward", "requantise", "dot", "add")]
    return sorted(found, key=lambda o: o["opcode"] == "dot")  # the sums of products last


def test_the_block_agrees(vectors):
    build(vectors)
    for folder in ("v", "corners"):
        found = entries(vectors, folder)
        assert len(found) >= 10
        for o in found[:12] + found[-2:]:
            assert simulate(vectors, arguments_of(vectors, folder, o))[0], o


@pytest.mark.parametrize("right, wrong", [("33'd1 << (shift - 1)", "33'd1 << shift"), ("rounded > 127 ? 8'd127", "rounded > 128 ? 8'd127"), ("a * b", "$signed(a) * {1'b0, b[6:0]}")])
def test_a_mistake_in_it_is_found(right, wrong, vectors):
    build(vectors, lambda text: text.replace(right, wrong))
    found = [simulate(vectors, arguments_of(vectors, "corners", o)) for o in entries(vectors, "corners")[5:7] + entries(vectors, "corners")[-1:]]
    assert not all(passed for passed, _ in found), found


def test_nothing_compared_is_no_pass(vectors):
    """A missing file, argument or value, an x, or a COUNT that is not the files' fails."""
    build(vectors)
    product = arguments_of(vectors, "corners", next(o for o in entries(vectors, "corners") if o["opcode"] == "requantise"))
    dot = arguments_of(vectors, "corners", entries(vectors, "corners")[-1])
    unknown, long = vectors.path("unknown.hex"), vectors.path("long.hex")
    with open(product["RESULTS"], encoding="ascii") as file:
        lines = file.read().splitlines()
    for path, text in ((unknown, ["xx", *lines[1:]]), (long, ["1" + lines[0], *lines[1:]])):
        with open(path, "w", encoding="ascii") as file:
            file.write("\n".join(text) + "\n")
    usage, missing, value, more = "expected +COUNT=N", "cannot open", "has no hexadecimal value", "has more than"
    cases = [(product, {key: None}, usage) for key in product] + [(dot, {key: None}, usage) for key in dot]
    cases += [(whole, {key: "/nowhere/at-all.hex"}, missing) for whole in (product, dot) for key in whole if "/" in str(whole[key])]
    cases += [(product, {"COUNT": product["COUNT"] + 1}, value), (product, {"COUNT": product["COUNT"] - 1}, more), (product, {"COUNT": 1179648}, value)]
    cases += [(dot, {"LENGTH": dot["LENGTH"] + 1}, value), (dot, {"LENGTH": dot["LENGTH"] - 1}, more), (product, {"SHIFT": 32}, usage), (product, {"SHIFT": -1}, usage)]
    cases += [(product, {"COUNT": count}, usage) for count in (0, -3)] + [(product, {"RESULTS": path}, value) for path in (unknown, long)]
    for whole, change, why in cases:
        passed, said = simulate(vectors, {key: v for key, v in {**whole, **change}.items() if v is not None})
        assert not passed and why in said, (change, said)


def test_more_sums_than_a_memory_held(vectors):
    """All are compared: the last one is wrong."""
    build(vectors)
    count = (1 << 20) + 1
    with open(vectors.path("sums.hex"), "w", encoding="ascii") as file:
        file.write("00000011\n" * count)
    with open(vectors.path("many.hex"), "w", encoding="ascii") as file:
        file.write("02\n" * (count - 1) + "03\n")
    passed, said = simulate(vectors, {"COUNT": count, "SHIFT": 3, "SUMS": vectors.path("sums.hex"), "RESULTS": vectors.path("many.hex")})
    assert not passed and said == f"element {count - 1}: 17 at shift 3 gave 2, expected 3"
