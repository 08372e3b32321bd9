"""Runs the tool as several ranks, by mpirun."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from tool import NITI, SLOWER

PLUGIN = NITI.parent / "libniti_mpi.so"
needs_mpi = pytest.mark.skipif(not PLUGIN.exists() or not shutil.which("mpirun"), reason="no MPI here, or a build without it")
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "NITI_RANKS_WAIT": "60"}  # other tests may run, too


def launch(*parts):
    """mpirun of (number of ranks, program, arguments ...)."""
    words = ["mpirun", "--oversubscribe"]
    for count, program, *arguments in parts:
        words += [*([":"] if len(words) > 2 else []), "-n", str(count), str(program), "train", *map(str, arguments)]
    return words


def start(*parts, environment=None, folder=None):
    return subprocess.Popen(launch(*parts), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **ROOT, **(environment or {})}, start_new_session=True, cwd=folder)


def give_up(launcher, why):
    """Fails, leaving nothing of what was started behind."""
    os.killpg(launcher.pid, signal.SIGKILL)
    out, err = launcher.communicate()
    pytest.fail(f"{why}\n{out}{err}")


def processes_of(launcher, count, seconds=60):
    """The process number of each rank, when all are there."""
    end = time.monotonic() + seconds * SLOWER
    found = []
    while time.monotonic() < end:
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                own = parent == launcher.pid and os.readlink(entry / "exe") == str(NITI)
                number = own and re.search(rb"OMPI_COMM_WORLD_RANK=(\d+)", (entry / "environ").read_bytes())
            except (OSError, ValueError):
                continue
            if number:  # a process that has only just begun has no environment yet
                found.append((int(number[1]), int(entry.name)))
        if len(found) == count:
            return dict(found)
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.01)
    give_up(launcher, "the ranks have not begun")


def end_of(launcher, timeout=100):
    """(exit code, output, errors) of what was started."""
    try:
        out, err = launcher.communicate(timeout=timeout * SLOWER)
    except subprocess.TimeoutExpired:
        give_up(launcher, "it has not ended")
    return launcher.returncode, out, err


def together(*parts):
    """The one JSON object that all ranks print together."""
    code, out, err = end_of(start(*parts))
    assert code == 0, f"exit {code}\n{out}{err}"
    assert len(out.splitlines()) == 1, out
    return json.loads(out)


def train_in(ranks, recipe, data, run, *arguments):
    return together((ranks, NITI, recipe, "--data", data, "--run", run, "--threads", 1, "--json", *arguments))
