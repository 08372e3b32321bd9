"""Runs the tool as several ranks, by mpirun."""
import json
import os
import shutil
import signal
import subprocess

import pytest

from tool import NITI

PLUGIN = NITI.parent / "libniti_mpi.so"
needs_mpi = pytest.mark.skipif(not PLUGIN.exists() or not shutil.which("mpirun"), reason="no MPI here, or a build without it")
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "NITI_RANKS_WAIT": "60"}  # other tests may run, too


def launch(*parts):
    """mpirun of (number of ranks, program, arguments ...)."""
    words = ["mpirun", "--oversubscribe"]
    for count, program, *arguments in parts:
        words += [*([":"] if len(words) > 2 else []), "-n", str(count), str(program), "train", *map(str, arguments)]
    return words


def start(*parts, environment=None):
    return subprocess.Popen(launch(*parts), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **ROOT, **(environment or {})}, start_new_session=True)


def give_up(launcher, why):
    """Fails, leaving nothing of what was started behind."""
    os.killpg(launcher.pid, signal.SIGKILL)
    out, err = launcher.communicate()
    pytest.fail(f"{why}\n{out}{err}")


def end_of(launcher, timeout=100):
    """(exit code, output, errors) of what was started."""
    try:
        out, err = launcher.communicate(timeout=timeout)
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
