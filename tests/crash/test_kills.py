"""SIGKILL at every system call on a run's files, at every call of the library on files, and at random moments: the run goes on and ends
with the bits of one that nothing disturbed."""
import random
import shutil
import subprocess
import time

import pytest

import data_sets
import faults
import tool
from test_validation import noisy
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
    for name in ("best", "epoch-0001", "epoch-0002"):
        if (expected_run / f"{name}.safetensors").exists():
            assert hash_of(run / f"{name}.safetensors") == hash_of(expected_run / f"{name}.safetensors"), (case, name)
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


def was_killed(done, number, calls):
    """But for the last calls: the next run may make a few less."""
    return done.code == -9 or (done.code == 0 and number > calls - 5)


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
        assert was_killed(done, first + number, calls), (number, done)
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


# ---- the end of a run with --test-every, which is tested because it is the end, and is then extended ----

ENDS, LONGER = 3, 4
KINDS = {"test": (), "validation": ("--set", "data.validation=12"), "average": ("--set", "update={kind: sgd, lr: 0.1}", "--set", "average={from: {epoch: 1}}")}


def is_best_because_it_is_the_end(accuracy):
    """Tested it is the best of all, and where it is not, the second epoch is."""
    return accuracy[ENDS] > accuracy[2] >= accuracy[LONGER]


@pytest.fixture(scope="session", params=KINDS)
def ending(request, work, recipe):
    """(a run of two epochs, the hash of the weights after each epoch of the longest run)."""
    folder, options = work / f"ending-{request.param}", KINDS[request.param]
    faults.fresh(folder)
    data = data_sets.write_idx_set(folder / "data", noisy(64, 1), noisy(40, 2))
    for seed in range(1, 200):
        whole = faults.fresh(folder / "runs") / "whole"
        tool.train(recipe, data, whole, *options, "--seed", seed, "--epochs", LONGER, "--save-every", 1)
        key = "validation_accuracy" if request.param == "validation" else "test_accuracy"
        if is_best_because_it_is_the_end({row["epoch"]: row[key] for row in rows_of(whole)}):
            break
    else:
        pytest.fail("no seed trains such a run")
    tool.train(recipe, data, folder / "half", *options, "--seed", seed, "--epochs", 2, "--test-every", 2)
    return folder / "half", {epoch: hash_of(whole / f"epoch-{epoch:04}.safetensors") for epoch in range(1, LONGER + 1)}


def extend(run, epochs):
    return ["train", "--resume", run, "--epochs", epochs, "--threads", "1", "--json"]


def check_extends(run, hashes, case):
    """Returns the best epoch: whether the killed process has come as far as to test the third one is left open."""
    result = tool.json_of(*extend(run, LONGER)[:-1])
    best = result["best_epoch"]
    assert result["hash"] == hashes[LONGER] and best in (2, ENDS) and not result["warnings"], (case, result)
    assert hash_of(run / "best.safetensors") == hashes[best], (case, best)
    assert not [name for name in content_of(run) if name.endswith((".tmp", ".bak"))], (case, sorted(content_of(run)))
    return best


def test_at_every_system_call_of_an_end(ending, work):
    if not can_trace():
        pytest.skip("strace cannot trace processes here")
    half, hashes = ending
    found = []
    for call in [*ON_OPEN_FILES, "rename", "link", "unlink"]:
        for number in range(1, 100):
            run = prepare("half", work / "traced", half)
            if not kill_in(call, number, run, extend(run, ENDS)):
                break
            found.append(check_extends(run, hashes, (call, number)))
    print(f"{len(found)} kills, {found.count(ENDS)} of them after the last epoch was tested and saved")
    assert len(found) >= 40 and {2, ENDS} == set(found)


@pytest.mark.parametrize("when", ["kill", "killed"])
def test_at_every_call_on_files_of_an_end(when, ending, work):
    half, hashes = ending
    folder = work / f"end-{when}"
    run = prepare("half", folder, half)
    calls = faults.run("none", *extend(run, ENDS), report=folder / "report").calls
    first = calls - 250  # before that it reads the data set

    def check(number):
        case = folder / str(number)
        run = prepare("half", case, half)
        done = faults.run(f"{when}:{first + number}", *extend(run, ENDS), report=case / "report")
        assert was_killed(done, first + number, calls), (number, done)
        best = check_extends(run, hashes, (when, number))
        shutil.rmtree(case)
        return best

    found = faults.each(faults.some(calls - first, 25), check)
    print(f"{when}: {len(found)} kills, {found.count(ENDS)} of them after the last epoch was tested and saved")
    assert {2, ENDS} == set(found)
