"""The tool as several ranks: small data sets, small networks, and the tool in NITI_BUILD."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

import tool
from small_data import cifar, normed, odd, shared  # noqa: F401 (fixtures)

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # tests/cuda has the tests of ranks on devices
os.environ.setdefault("TSAN_OPTIONS", f"suppressions={pathlib.Path(__file__).parent / 'open_mpi.supp'}")


@pytest.fixture(scope="session", autouse=True)
def built():
    assert tool.NITI.exists(), f"{tool.NITI} is not built"
