"""Exported networks train the same bits as niti."""

import os
import re
from decimal import ROUND_HALF_UP, Decimal, localcontext

import networks as nets
import pytest
from conftest import ROOT, Job, call

MODES = ("nearest", "pseudo-stochastic", "stochastic", "truncate")

CASES = [
    ("a", nets.A, {}),
    ("a-batch", nets.A, {"batch": 8}),
    ("b", nets.B, {"max_steps": 20}),
    ("b-batch", nets.B, {"batch": 8, "loss": "softmax", "max_steps": 10}),
    ("narrow", nets.NARROW, {"batch": 8}),
    ("residual", nets.RESIDUAL, {"batch": 3}),
    ("pools", nets.POOLS, {"batch": 4}),
    ("forks", nets.FORKS, {"batch": 5, "loss": "softmax"}),
    ("strides", nets.STRIDES, {"batch": 2}),
    ("border", nets.BORDER, {"batch": 2}),
    ("beyond", nets.BEYOND, {"batch": 2}),
    ("rest", nets.REST, {"batch": 2}),
    ("clip", nets.A, {"batch": 3, "clip": {"activation": 2, "error": 1}}),
    ("clip-far", nets.POOLS, {"batch": 2, "clip": {"activation": 7, "error": 7}, "rounding": {"activation": "truncate", "error": "stochastic"}, "max_steps": 20}),
    ("clip-sums", nets.FORKS, {"batch": 3, "clip": {"activation": 1, "error": 2}, "loss": "softmax", "max_steps": 20}),
    # Pixels on a line of their own for each channel, and those that only a table gives.
    ("channels", nets.POOLS, {"batch": 2, "max_steps": 5, "data": {"mean": [0.49, 0.48, 0.44], "std": [0.247, 0.244, 0.262]}}),
]
CASES += [(f"{net['name']}-{a}-{d}", net, {"batch": 3, "rounding": {"activation": a, "error": d}, "loss": loss, "max_steps": 20})
          for net in (nets.A, nets.POOLS, nets.FORKS) for a, d, loss in zip(MODES[1:] + MODES[:1], MODES[2:] + MODES[:2], ("softmax", "niti") * 2)]


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("name, model, recipe", CASES, ids=[c[0] for c in CASES])
def test_host(name, model, recipe, tmp_path):
    job = Job(tmp_path, model, **recipe)
    job.export()
    assert job.c_hash() == job.host_hash()


def test_powers_of_two(tmp_path):
    """The loss's table is made of two small ones: all of its values, against their definition."""
    program = tmp_path / "powers.c"
    program.write_text('#include <stdio.h>\n#define RT_TRAINING 1\n#define RT_MODES 1\n#define RT_CLIPS 0\n#include "niti_rt_loss.h"\n'
                       'int main(void) { for (uint32_t i = 0; i <= 256; ++i) printf("%u\\n", rt_exp2_entry(i)); }\n')
    call("gcc", "-std=gnu99", "-I", os.path.join(ROOT, "src", "export", "runtime"), program, "-o", tmp_path / "powers")
    with localcontext() as context:
        context.prec = 50
        expected = [int((Decimal(2) ** (Decimal(i) / 256) * 2**30).to_integral_value(ROUND_HALF_UP)) for i in range(257)]
    assert [int(v) for v in call(tmp_path / "powers").split()] == expected


def test_rows(tmp_path):
    """Rows that a callback gives, which the network asks for in order, train as images do."""
    job = Job(tmp_path, nets.RESIDUAL, batch=3, max_steps=10)
    job.export()
    assert job.c_hash("gcc", "c", "-DBY_ROWS") == job.host_hash()


def test_tight_budget(tmp_path):
    """Outputs whose upper bytes are not kept take a second pass, which only such an export has."""
    job = Job(tmp_path, nets.A)
    roomy = job.export()
    assert "RT_WRITES" not in read(job.path("c", "a.c"))
    assert job.c_hash() == job.host_hash()
    job.export("tight", "--budget", roomy["ram"] - 500)
    assert "RT_WRITES" in read(job.path("tight", "a.c"))
    assert job.c_hash("gcc", "tight") == job.host_hash()


def test_sums_that_fit(tmp_path):
    """Updates keep sums where the arena has room: memory does not grow, and each kind of update gives the same bits."""
    job = Job(tmp_path, nets.B, max_steps=8)
    report = job.export()
    kept = [int(k) for k in re.findall(r"[.]kept = ([0-9]+)", read(job.path("c", "b.c")))]
    assert kept[-1] == 16 and min(kept) < 10 and any(0 < k < 32 for k in kept)  # conv1: all; conv3: hardly any; some in between
    assert report["arena"] <= 22028  # what it needs without kept sums
    assert job.c_hash() == job.host_hash()


def test_2000_steps(tmp_path):
    job = Job(tmp_path, nets.A, max_steps=2000)
    job.export()
    assert job.c_hash() == job.host_hash()
