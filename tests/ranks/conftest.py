"""The tool as several ranks: small data sets, small networks, and the tool in NITI_BUILD."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

import tool
from small_data import cifar, normed, odd, shared  # noqa: F401 (fixtures)

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # tests/cuda has the tests of ranks on devices
HERE = pathlib.Path(__file__).parent
os.environ.setdefault("TSAN_OPTIONS", f"suppressions={HERE / 'open_mpi.supp'}")
os.environ.setdefault("LSAN_OPTIONS", f"suppressions={HERE / 'open_mpi_leaks.supp'}:print_suppressions=0")
# whole stacks: Open MPI has no frame pointers, and has closed its own plugins, which are nameless then, when leaks are looked for
os.environ.setdefault("ASAN_OPTIONS", "fast_unwind_on_malloc=0")


@pytest.fixture(scope="session", autouse=True)
def built():
    assert tool.NITI.exists(), f"{tool.NITI} is not built"
