"""Fixtures that the tool's tests on the CPU and on a device share: what many tests read and none may change."""
import pytest

import data_sets
from recipes import EVERY_LAYER, NORMED, TOY


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """The folder for it."""
    return tmp_path_factory.mktemp("shared")


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


@pytest.fixture(scope="session")
def normed(shared):
    path = shared / "normed.yaml"
    path.write_text(NORMED)
    return path


@pytest.fixture(scope="session")
def odd(shared):
    """150 training images: epochs of 10 steps, the last one of 6 images."""
    return data_sets.write_idx_set(shared / "odd", data_sets.squares(150, 1), data_sets.squares(61, 2))
