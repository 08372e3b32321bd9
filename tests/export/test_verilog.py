"""examples/verilog: a multiply-accumulate with requantisation, simulated on vectors."""

import json
import math
import os
import shutil

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


def simulate(job, folder, o):
    """What the bench says to one entry of an index."""
    arguments = []
    if o["opcode"] == "dot":
        arguments += [f"+LENGTH={o['a']['dims'][0]}"]
        arguments += [f"+{plus}={job.path(folder, o[key]['file'])}.hex" for plus, key in (("A", "a"), ("B", "b"), ("SUM", "accumulators"))]
    else:
        results = o.get("results") or o["outputs"][0]
        arguments += [f"+COUNT={math.prod(o['accumulators']['dims'])}", f"+SHIFT={o['shift']}", f"+SUMS={job.path(folder, o['accumulators']['file'])}.hex",
                      f"+RESULTS={job.path(folder, results['file'])}.hex"]
    return call("vvp", job.path("bench"), *arguments).decode().splitlines()[-1]


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
            assert simulate(vectors, folder, o).startswith("passed"), o


@pytest.mark.parametrize("right, wrong", [("33'd1 << (shift - 1)", "33'd1 << shift"), ("rounded > 127 ? 8'd127", "rounded > 128 ? 8'd127"), ("a * b", "$signed(a) * {1'b0, b[6:0]}")])
def test_a_mistake_in_it_is_found(right, wrong, vectors):
    build(vectors, lambda text: text.replace(right, wrong))
    said = [simulate(vectors, "corners", o) for o in entries(vectors, "corners")[5:7] + entries(vectors, "corners")[-1:]]
    assert not all(line.startswith("passed") for line in said), said
