"""SIGKILL at every system call on a run's files, at every call of the library on files, and at random moments: the run goes on and ends
with the bits of one that nothing disturbed."""
import random
import shutil
import subprocess
import time

import pytest

import faults
import tool
from tool import content_of, hash_of, rows_of, timeless

FILES = ["last.safetensors", "previous.safetensors", "best.safetensors", "epoch-0001.safetensors", "epoch-0002.safetensors",
         "recipe.yaml", "model.yaml", "environment.json", "metrics.csv", "metrics.jsonl", ".lock"]
ON_OPEN_FILES = ["flock", "newfstatat", "write", "fsync", "close"]
STRACE = shutil.which("strace")


def arguments_of(kind, run, toy, recipe):
    """A new run of two epochs, or one that continues after the first."""
    if kind == "new":
        return ["train", recipe, "--data", toy, "--run", run, "--threads", "1", "--json", "--save-every", "1"]
    return ["train", "--resume", run, "--epochs", "2", "--threads", "1", "--json"]


def prepare(kind, folder, half):
    run = faults.fresh(folder) / "run"
    if kind == "half":
        shutil.copytree(half, run)
    return run


def check_goes_on(run, whole, case):
    """Returns whether there was a checkpoint to go on from."""
    expected_run, expected = whole
    started = (run / "last.safetensors").exists() or (run / "previous.safetensors").exists()
    if not started:
        if run.exists():
            tool.fails("train", "--resume", run, says="no run to resume")
        return False
    done = tool.niti("train", "--resume", run, "--epochs", 2, "--threads", 1, "--json")
    assert done.returncode == 0, (case, done.stderr)
    assert hash_of(run / "last.safetensors") == expected["hash"], case
    assert hash_of(run / "best.safetensors") == hash_of(expected_run / "best.safetensors"), case
    assert timeless(rows_of(run)) == timeless(rows_of(expected_run)), case
    assert not [name for name in content_of(run) if name.endswith((".tmp", ".bak"))], (case, sorted(content_of(run)))
    return True


def can_trace():
    return STRACE and subprocess.run([STRACE, "-f", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


def kill_in(call, number, run, arguments):
    """strace kills the process as a thread enters its Nth system call of this name, on one of the run's files where it takes an open
    file. Returns whether the process was killed; otherwise it has ended well."""
    paths = [f"-P{run}", *(f"-P{run / name}{end}" for name in FILES for end in ("", ".tmp"))] if call in ON_OPEN_FILES else []
    command = [STRACE, "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", *paths, "-e", f"inject={call}:signal=KILL:when={number}", tool.NITI, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode in (0, -9, 137), (call, number, done)
    return done.returncode != 0


@pytest.mark.parametrize("kind", ["new", "half"])
def test_at_every_system_call(kind, work, toy, recipe, half, whole):
    """The calls are counted for each thread by itself: each save has its own."""
    if not can_trace():
        pytest.skip("strace cannot trace processes here")
    kills = went_on = 0
    for call in [*ON_OPEN_FILES, "rename", "link", "unlink", "fdatasync", "mkdir"]:
        for number in range(1, 100):
            run = prepare(kind, work / "traced", half)
            if not kill_in(call, number, run, arguments_of(kind, run, toy, recipe)):
                break
            kills += 1
            went_on += check_goes_on(run, whole, (kind, call, number))
    print(f"{kind}: {kills} kills, {went_on} of them with a checkpoint to go on from")
    assert kills >= 40 and went_on >= 20


@pytest.mark.parametrize("kind", ["new", "half"])
@pytest.mark.parametrize("when", ["kill", "killed"])
def test_at_every_call_on_files(kind, when, work, toy, recipe, half, whole):
    """Before and after each call that the library makes, whichever thread makes it."""
    folder = work / f"calls-{kind}-{when}"
    run = prepare(kind, folder, half)
    calls = faults.run("none", *arguments_of(kind, run, toy, recipe), report=folder / "report").calls
    first = calls - 220 if kind == "half" else calls - 330  # before that it reads the data set

    def check(number):
        case = folder / str(number)
        run = prepare(kind, case, half)
        done = faults.run(f"{when}:{first + number}", *arguments_of(kind, run, toy, recipe), report=case / "report")
        assert done.code == -9, (number, done)
        check_goes_on(run, whole, (kind, when, number))
        shutil.rmtree(case)
        return 1

    kills = sum(faults.each(faults.some(calls - first, 10), check))
    print(f"{kind}, {when}: {kills} kills")


def test_at_random_moments(work, toy, recipe, half, whole):
    draw = random.Random(19)
    kills = 0
    for number in range(min(400, 10 * max(faults.SLOW, 1))):
        kind = draw.choice(["new", "half"])
        run = prepare(kind, work / "random", half)
        command = [tool.NITI, *map(str, arguments_of(kind, run, toy, recipe))]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.03 * draw.random())
        process.kill()
        kills += process.wait() != 0
        check_goes_on(run, whole, (kind, number))
    print(f"{kills} kills")
