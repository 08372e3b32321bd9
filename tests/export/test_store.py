"""State that outlives a loss of power."""

import os

import networks as nets
import pytest
from conftest import HERE, Job, call

# Trained weights that end in the middle of a flash's unit of 32 bytes, and at the end of one.
WHOLE = nets.network("even", (6, 6, 1), [nets.conv(8, 2), "relu", "flatten", nets.LINEAR], 4)


@pytest.mark.parametrize("model, rest", [(nets.RESIDUAL, 7), (WHOLE, 0)], ids=["padded", "whole"])
def test_power_cut_at_every_byte(model, rest, tmp_path):
    job = Job(tmp_path, model, max_steps=1)
    report = job.export()
    bytes_ = report["trained_weights"]
    assert bytes_ % 32 == rest
    library, program = job.path("net.o"), job.path("store")
    call("gcc", "-std=c99", "-O2", "-c", job.path("c", f"{job.name}.c"), "-o", library)
    call("gcc", "-std=c99", "-O2", *job.defines(), os.path.join(HERE, "store.c"), library, "-o", program)
    assert call(program).decode() == f"{(bytes_ + 31) // 32 * 32 + 64 + 1} cuts\n"
