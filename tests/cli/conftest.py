"""The command line, tested from outside: small data sets, small networks, and the tool in NITI_BUILD."""
import os

import pytest

import data_sets
import tool
from recipes import EVERY_LAYER, TOY

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # these are the CPU's tests; tests/cuda has the others


@pytest.fixture(scope="session", autouse=True)
def built():
    assert tool.NITI.exists(), f"{tool.NITI} is not built"


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder for what many tests read and none may change."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def toy(shared):
    """A data set that a small network learns: 160 training and 60 test images in IDX files."""
    return data_sets.write_idx_set(shared / "toy", data_sets.squares(160, 1), data_sets.squares(60, 2))


@pytest.fixture(scope="session")
def toy_recipe(shared):
    path = shared / "toy.yaml"
    path.write_text(TOY)
    return path


@pytest.fixture(scope="session")
def trained(shared, toy, toy_recipe):
    """(run folder, the result) of the recipe on the data set."""
    run = shared / "trained"
    return run, tool.train(toy_recipe, toy, run)


@pytest.fixture(scope="session")
def cifar(shared):
    """CIFAR-10's files: 50 training and 20 test images."""
    return data_sets.write_cifar10_set(shared / "cifar", 10, 20)


@pytest.fixture(scope="session")
def every_layer(shared):
    path = shared / "every-layer.yaml"
    path.write_text(EVERY_LAYER)
    return path


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe of one's own: recipe(text), or recipe((old, new)...) for the small one with parts replaced."""
    def write(*parts):
        text = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else TOY
        for old, new in parts if text is TOY else ():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write
