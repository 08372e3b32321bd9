"""The tool where machines fail. NITI_TEST_SLOW=N: N times as many cases, at most all there are."""
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

import data_sets
import faults
import tool
from recipes import TOY

os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session", autouse=True)
def built():
    assert tool.NITI.exists(), f"{tool.NITI} is not built"
    assert faults.LIBRARY.exists(), f"{faults.LIBRARY} is not built"


@pytest.fixture(scope="session")
def work():
    """A folder in memory where there is one: thousands of processes write there."""
    memory = pathlib.Path("/dev/shm")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="niti-crash-", dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def toy(work):
    """32 training and 8 test images: two steps an epoch."""
    return data_sets.write_idx_set(work / "toy", data_sets.squares(32, 1), data_sets.squares(8, 2))


@pytest.fixture(scope="session")
def recipe(work):
    path = work / "toy.yaml"
    path.write_text(TOY.replace("epochs: 3", "epochs: 2"))
    return path


@pytest.fixture(scope="session")
def whole(work, toy, recipe):
    """(folder, result) of the run that nothing disturbs."""
    return work / "whole", tool.train(recipe, toy, work / "whole")


@pytest.fixture(scope="session")
def half(work, toy, recipe):
    """A run that has done the first of the two epochs; it is for copies."""
    tool.train(recipe, toy, work / "half", "--epochs", 1)
    return work / "half"
