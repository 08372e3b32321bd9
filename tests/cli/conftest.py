"""The command line, tested from outside: small data sets, small networks, and the tool in NITI_BUILD."""
import os

import pytest

import data_sets
import tool
from recipes import TOY
from small_data import cifar, every_layer, normed, odd, shared, toy_recipe  # noqa: F401 (fixtures)

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # these are the CPU's tests; tests/cuda has the others
os.environ["XDG_CACHE_HOME"] = "/dev/null"  # a tuning file of the user does not count


@pytest.fixture(scope="session", autouse=True)
def built():
    assert tool.NITI.exists(), f"{tool.NITI} is not built"


@pytest.fixture(scope="session")
def toy(shared):
    """A data set that a small network learns: 160 training and 60 test images in IDX files."""
    return data_sets.write_idx_set(shared / "toy", data_sets.squares(160, 1), data_sets.squares(60, 2))


@pytest.fixture(scope="session")
def trained(shared, toy, toy_recipe):
    """(run folder, the result) of the recipe on the data set."""
    run = shared / "trained"
    return run, tool.train(toy_recipe, toy, run)


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
