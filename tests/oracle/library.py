"""The library as it is built, for Python to call."""
import ctypes

import pytest


def sanitizers(path):
    """The sanitizers in a program or library: "asan", "tsan"."""
    with open(path, "rb") as file:
        content = file.read()
    return [name for name in ("asan", "tsan") if f"__{name}_init".encode() in content]


def load(path):
    """The library at path. One with a sanitizer needs that in Python's process from the start, as scripts/run_pytest.sh has the
    address sanitizer's; Python cannot begin with the thread sanitizer's."""
    for name in sanitizers(path):
        if not hasattr(ctypes.CDLL(None), f"__{name}_init"):
            pytest.skip(f"Python has begun without {name}")
    return ctypes.CDLL(path)
