"""The walk-through of docs/microcontrollers.md, shortened: a device that adapts to turned images, with the same hash on the host."""

import os
import re
import subprocess

import pytest
from conftest import NITI, ROOT, call

# Debian's own Python, which has no packages of the tests' environment.
ADAPT = ["/usr/bin/python3", "-I", os.path.join(ROOT, "examples", "adapt", "adapt.py")]


def test_adapting_helps_and_can_be_done_again(tmp_path):
    """With Python alone; a second run does the same, and leaves what is not its own."""
    command = [*ADAPT, NITI, tmp_path / "run", "--steps", 150, "--epochs", 1]
    output = call(*command).decode()
    accuracies = [float(v) for v in re.findall(r"([0-9.]+) %", output)]
    assert len(accuracies) == 4 and accuracies[2] == accuracies[3] > accuracies[1] + 10, output
    (tmp_path / "run" / "mine.txt").write_text("mine")
    assert call(*command).decode() == output and (tmp_path / "run" / "mine.txt").exists()


@pytest.mark.parametrize("niti, data, cc, says", [
    ("/nowhere/niti", None, "gcc", "/nowhere/niti: No such file or directory"), (NITI, "nowhere", "gcc", "expected Debian's package dataset-fashion-mnist, or NITI_DATA"),
    (NITI, None, "no-such-cc", "no-such-cc: No such file or directory"), ("/bin/false", None, "gcc", "failed with code 1")])
def test_what_is_missing_is_said(niti, data, cc, says, tmp_path):
    environment = os.environ | {"CC": cc} | ({"NITI_DATA": data} if data else {})
    result = subprocess.run([*ADAPT, niti, tmp_path / "run", "--steps", "1", "--epochs", "1"], capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 1 and says in result.stderr and "Traceback" not in result.stderr, result


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    result = subprocess.run([*ADAPT, NITI, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "the folder is not empty" in result.stderr and os.listdir(tmp_path) == ["run"]
