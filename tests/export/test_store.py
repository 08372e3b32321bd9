"""State that outlives a loss of power."""

import os

import networks as nets
from conftest import HERE, Job, call


def test_power_cut_at_every_byte(tmp_path):
    job = Job(tmp_path, nets.RESIDUAL, max_steps=1)
    report = job.export()
    library, program = job.path("net.o"), job.path("store")
    call("gcc", "-std=c99", "-O2", "-c", job.path("c", "residual.c"), "-o", library)
    call("gcc", "-std=c99", "-O2", *job.defines(), os.path.join(HERE, "store.c"), library, "-o", program)
    assert call(program).decode() == f"{report['trained_weights'] + 41} cuts\n"
