"""The tool on a CUDA device: NITI_BUILD names the build folder. Without a device every test skips and says why; with NITI_TEST_GPU set
(make test-gpu) that is a failure instead."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

import data_sets
import tool
from small_data import cifar, every_layer, normed, odd, shared, toy_recipe  # noqa: F401 (fixtures)


def why_not():
    """None, or why there is no CUDA device that niti can use."""
    done = tool.niti("info", "--backend", "cuda")
    return None if done.returncode == 0 else done.stderr.strip()


@pytest.fixture(scope="session", autouse=True)
def device():
    why = why_not()
    if why and os.environ.get("NITI_TEST_GPU"):
        pytest.fail(why)
    if why:
        pytest.skip(why)


@pytest.fixture(scope="session")
def families(device):
    """The families of kernels that the device has."""
    wgmma = tool.niti("info", "--backend", "cuda", "--isa", "wgmma").returncode == 0
    return ["mma", "wgmma"] if wgmma else ["mma"]


@pytest.fixture(scope="session")
def toy(shared):
    """1,000 training images: epochs of 63 steps at batch 16."""
    return data_sets.write_idx_set(shared / "toy", data_sets.squares(1000, 1), data_sets.squares(40, 2))
