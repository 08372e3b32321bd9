"""Ranks that are lost while MPI starts or ends, when nobody can ask it."""
import os
import random
import re
import subprocess

import pytest

from launch import ROOT, end_of, needs_mpi, start
from test_ranks import script
from tool import NITI, ROOT as SOURCES, niti

pytestmark = needs_mpi
slow = pytest.mark.skipif(not os.environ.get("NITI_TEST_SLOW"), reason="set NITI_TEST_SLOW: it takes minutes")
LIBRARY = NITI.parent / "tests" / "libfaults.so"
SOON = {"NITI_RANKS_WAIT": "2"}


def lost(*parts, environment=None):
    """The line that says who is lost."""
    code, out, err = end_of(start(*parts, environment=environment), timeout=60)
    lines = [line for line in err.splitlines() if line.startswith("niti: ") and "the run ends" in line]
    assert code == 3 and lines, (code, out, err)
    return lines[0]


# ---- the start ----

def test_a_rank_that_ends_before_mpi_starts_is_named(normed, odd, tmp_path):
    """By niti, or by mpirun, where rank 0 has started MPI before rank 1 ended: then mpirun ends it at once."""
    how = (NITI, normed, "--data", odd, "--run", tmp_path / "run")
    code, _, err = end_of(start((1, *how), (1, NITI, "--help"), environment=SOON), timeout=60)
    line = next((line for line in err.splitlines() if line.startswith("niti: ") and "the run ends" in line), "")
    if code == 3:
        assert "have not come together in" in line and "rank 1 does not run" in line and "nothing was trained" in line, err
    else:
        assert code != 0 and "process rank 1" in err and "exiting improperly" in err, (code, err)
    assert not (tmp_path / "run").exists()


def test_a_rank_that_never_starts_mpi_is_named(normed, odd, tmp_path):
    waits = script(tmp_path / "waits", "exec sleep 100")
    line = lost((1, waits), (1, NITI, normed, "--data", odd, "--run", tmp_path / "run"), environment=SOON)
    assert "have not come together in" in line and "rank 0 has not started MPI" in line, line


def test_how_long_ranks_wait_is_checked(normed, odd, tmp_path):
    for value in ("0", "5s"):
        code, out, err = end_of(start((1, NITI, normed, "--data", odd, "--run", tmp_path / "run"), (1, NITI, "--help"),
                                      environment={"NITI_RANKS_WAIT": value}))
        assert code == 1 and f"NITI_RANKS_WAIT is '{value}' (expected seconds, 1 to 3600)" in err, (value, code, out, err)


def alone(normed, odd, run, **environment):
    """One process by itself that a launcher says is one of several."""
    return niti("train", normed, "--data", odd, "--run", run, "--threads", 1, "--max-steps", 2, env={**os.environ, **ROOT, **environment})


@pytest.mark.parametrize("launcher", [
    {"PMI_SIZE": "2", "PMI_RANK": "1"},  # MPICH's
    {"OMPI_COMM_WORLD_SIZE": "2"},
    {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"},  # srun without PMIx
])
def test_a_launcher_that_mpi_does_not_know_is_refused(launcher, normed, odd, tmp_path):
    done = alone(normed, odd, tmp_path / "run", **launcher)
    assert done.returncode == 1 and "started as one of 2 processes (" in done.stderr and "found 1" in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_processes_that_are_meant_to_be_alone_train(normed, odd, tmp_path):
    """In a job's script, where Slurm says how many tasks the job has; in a step of one; and where the environment says so."""
    for i, launcher in enumerate(({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"},
                                  {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"},
                                  {"PMI_SIZE": "2", "PMI_RANK": "1", "NITI_RANKS": "off"})):
        done = alone(normed, odd, tmp_path / str(i), **launcher)
        assert done.returncode == 0, done.stderr
    done = alone(normed, odd, tmp_path / "none", NITI_RANKS="on")
    assert done.returncode == 1 and "NITI_RANKS is 'on' (expected off, or unset)" in done.stderr, done.stderr


@slow
def test_a_rank_with_any_limit_of_memory_ends_the_run(normed, odd, tmp_path):
    """Wherever memory runs out, MPI's start included."""
    found = {}
    for limit in range(20000, 220000, 5000):  # KiB of addresses
        limited = script(tmp_path / "limited", f"ulimit -v {limit}; exec {NITI} \"$@\"")
        how = (normed, "--data", odd, "--threads", 1, "--epochs", 1, "--run", tmp_path / f"run-{limit}")
        code, out, err = end_of(start((1, NITI, *how), (1, limited, *how), environment={"NITI_RANKS_WAIT": "7"}), timeout=40)
        assert code in (0, 1, 2, 3, 139, 134) and (code == 0) == ("hash" in out), (limit, code, out, err)
        assert code == 0 or any(word in err for word in ("niti: ", "mpirun", "MPI_INIT failed")), (limit, code, out, err)
        assert code != 3 or "rank 1, which may use" in err, (limit, code, out, err)
        found[code] = found.get(code, 0) + 1
    assert found[0] and found[1], found


# ---- the end ----

@pytest.fixture(scope="module")
def stops(tmp_path_factory):
    library = tmp_path_factory.mktemp("stops") / "stop.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCES / "tests" / "ranks" / "stop.c", "-ldl"], check=True)
    return library


def faulty(library, **faults):
    return {"LD_PRELOAD": str(library), **faults, "ASAN_OPTIONS": "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", "")}


@pytest.mark.parametrize("rank, at", [(1, "begin"), *(pytest.param(*case, marks=slow) for case in ((0, "begin"), (1, "end"), (2, "begin")))])
def test_a_rank_that_is_stopped_at_the_end_is_named(rank, at, stops, normed, odd, tmp_path):
    how = (NITI, normed, "--data", odd, "--run", tmp_path / "run", "--threads", 1, "--max-steps", 2)
    line = lost((max(2, rank + 1), *how), environment=faulty(stops, ST_AT=at, ST_RANK=str(rank), NITI_RANKS_WAIT="20"))
    assert f"rank {rank} (" in line and "has not answered for" in line and "not known where" not in line, line
    assert (tmp_path / "run" / "last.safetensors").exists()


# ---- memory ----

def test_a_failure_of_mpi_names_rank_host_and_memory(stops, normed, odd, tmp_path):
    how = (NITI, normed, "--data", odd, "--run", tmp_path / "run", "--threads", 1)
    code, out, err = end_of(start((2, *how), environment=faulty(stops, ST_AT="reduce", ST_RANK="1")))
    assert code == 1 and re.search(r"niti: rank 1 \(\S+\): Open MPI \S+ failed to exchange data: MPI_ERR_INTERN.*; memory may have run out", err), err
    assert "--resume" not in err, err


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_alone_says_how_to_go_on(rank, named, stops, normed, odd, tmp_path):
    """Rank 0 alone knows the name of a folder that nobody gave."""
    how = (NITI, normed, "--data", odd, "--threads", 1, "--epochs", 1000, *(["--run", tmp_path / "run"] if named else []))
    code, out, err = end_of(start((2, *how), environment=faulty(stops, ST_AT="reduce", ST_RANK=str(rank), ST_AFTER="100"), folder=tmp_path))
    run, = (tmp_path / "run",) if named else (tmp_path / "runs").iterdir()
    advice = f"; `niti train --resume {run if named else run.relative_to(tmp_path)}` continues" if named or rank == 0 else "; `niti train --resume` continues from the last checkpoint"
    line = next(line for line in err.splitlines() if line.startswith(f"niti: rank {rank} ("))
    assert code == 1 and line.endswith(advice) and (run / "last.safetensors").exists(), (code, out, err)


@slow
def test_any_allocation_that_fails_ends_the_run_or_changes_nothing(normed, odd, tmp_path):
    """Inside MPI too, while it starts and ends."""
    dice = random.Random(2)
    how = (normed, "--data", odd, "--threads", 1, "--max-steps", 2)
    for i in range(60):
        number, rank = dice.randrange(1, 33000), i % 2
        command = script(tmp_path / "faulty", f'[ "$OMPI_COMM_WORLD_RANK" = {rank} ] && export LD_PRELOAD={LIBRARY} NITI_FAULT=allocation:{number}\n'
                                              f'exec {NITI} "$@"')
        code, out, err = end_of(start((2, command, *how, "--run", tmp_path / str(i)), environment={"NITI_RANKS_WAIT": "7"}), timeout=60)
        assert (code == 0) == ("hash" in out) or code == 3, (number, rank, code, out, err)
        assert code == 0 or any(word in err for word in ("niti: ", "mpirun", "MPI_INIT failed")), (number, rank, code, out, err)
