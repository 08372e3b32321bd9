"""Exported networks train the same bits as niti."""

import networks as nets
import pytest
from conftest import Job

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
]
CASES += [(f"{net['name']}-{a}-{d}", net, {"batch": 3, "rounding": {"activation": a, "error": d}, "loss": loss, "max_steps": 20})
          for net in (nets.A, nets.POOLS, nets.FORKS) for a, d, loss in zip(MODES[1:] + MODES[:1], MODES[2:] + MODES[:2], ("softmax", "niti") * 2)]


@pytest.mark.parametrize("name, model, recipe", CASES, ids=[c[0] for c in CASES])
def test_host(name, model, recipe, tmp_path):
    job = Job(tmp_path, model, **recipe)
    job.export()
    assert job.c_hash() == job.host_hash()


def test_2000_steps(tmp_path):
    job = Job(tmp_path, nets.A, max_steps=2000)
    job.export()
    assert job.c_hash() == job.host_hash()
