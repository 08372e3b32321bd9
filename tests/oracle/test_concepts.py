"""The worked examples of docs/concepts.md: the oracle finds the same; tests/cli/test_documents.py runs the page's program on the library."""
import pathlib
import re

import numpy as np

from oracle import arithmetic as a

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "concepts.md").read_text()
MODES = ("nearest", "pseudo-stochastic", "truncate")


def numbers(pattern):
    """The numbers in the groups of the one place in the page that matches."""
    found, = re.findall(pattern, PAGE)
    return [int(number) for number in found]


def test_requantising():
    accumulators = numbers(r"accumulators  \[\s*(-?\d+)\s+(-?\d+)\s+(-?\d+) \]   exponent -12")
    mantissas, exponent = a.requantise(accumulators, -12, "nearest")
    assert [*mantissas, exponent] == numbers(r"mantissas     \[\s*(-?\d+)\s+(-?\d+)\s+(-?\d+) \]   exponent\s+(-\d+)")


def test_rounding_modes():
    for x in (1000, 300, 77):
        ups = sum(int(a.shift_round([x], 3, "stochastic", [u << 29])[0]) > x >> 3 for u in range(8))
        found = [int(a.shift_round([x], 3, mode)[0]) for mode in MODES]
        assert f"{x} / 2^3: {' '.join(map(str, found))}, up in {ups} of 8\n" in PAGE
        column = {1000: 1, 300: 2, 77: 3}[x]
        for mode, value in zip(MODES, found):
            row, = re.findall(rf"^\| `{mode}` \|(.*)$", PAGE, re.MULTILINE)[:1]
            assert int(row.split("|")[column - 1]) == value


def test_the_update():
    for mu in (5, 4, 3):
        weights = a.update_niti(np.full(3, 100), np.array([5000, -700, 90]), mu)
        assert f"mu {mu}: {' '.join(map(str, weights))}\n" in PAGE
        assert list(100 - weights) + list(weights) == numbers(rf"mu {mu}      shift.*?(-?\d+)\s+(-?\d+)\s+(-?\d+)\s+(\d+)\s+(\d+)\s+(\d+)\n")


def test_the_losses():
    logits = np.array([[20, 0, -10]])
    found, exponent = a.loss_error_softmax(logits, -4, [0], "nearest", None)
    assert [*found[0], exponent] == numbers(r"shifted by 16 for int8\s+(-\d+)\s+(\d+)\s+(\d+)\s+exponent (-\d+)")
    shown = numbers(r"by 16, at random up or down\s+(-\d+)\s+(\d+)\s+(\d+)\s+or (\d+)")
    up, down = (a.loss_error_niti(logits, -4, [0], np.full((1, 3), word, dtype=np.uint64))[0][0] for word in (0, 2**32 - 1))
    assert shown == [up[0], down[1], down[2], up[2]]
