"""The walk-through of docs/microcontrollers.md, shortened: a device that adapts to turned images, with the same hash on the host."""

import os
import re
import sys

from conftest import NITI, ROOT, call


def test_adapting_helps(tmp_path):
    output = call(sys.executable, os.path.join(ROOT, "examples", "adapt", "adapt.py"), NITI, tmp_path / "run", "--steps", 150, "--epochs", 1).decode()
    accuracies = [float(v) for v in re.findall(r"([0-9.]+) %", output)]
    assert len(accuracies) == 4 and accuracies[2] == accuracies[3] > accuracies[1] + 10, output
