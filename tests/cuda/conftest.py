"""The tool on a CUDA device: NITI_BUILD names the build folder. Without a device every test skips and says why; with NITI_TEST_GPU set
(make test-gpu) that is a failure instead."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

import data_sets
import tool
from recipes import EVERY_LAYER, TOY


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
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def toy(shared):
    """1,000 training images: epochs of 63 steps at batch 16."""
    return data_sets.write_idx_set(shared / "toy", data_sets.squares(1000, 1), data_sets.squares(40, 2))


@pytest.fixture(scope="session")
def toy_recipe(shared):
    path = shared / "toy.yaml"
    path.write_text(TOY)
    return path


@pytest.fixture(scope="session")
def cifar(shared):
    """CIFAR-10's files: 50 training and 20 test images."""
    return data_sets.write_cifar10_set(shared / "cifar", 10, 20)


@pytest.fixture(scope="session")
def every_layer(shared):
    path = shared / "every-layer.yaml"
    path.write_text(EVERY_LAYER)
    return path
