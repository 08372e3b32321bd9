"""A run's best.safetensors that is lost or another's by the time the run ends: no score of it is made up, and a warning says so."""
import json
import os
import shutil
import subprocess

import pytest

import data_sets
from test_validation import noisy, write_set
from tool import NITI, forge, hash_of, niti, resume, train

EPOCHS = 4  # the best is the third, also of five


@pytest.fixture(scope="module")
def runs(shared, toy_recipe):
    """{whether it has validation images: (a complete run, what it says when it is resumed to one epoch more, another run)}."""
    both = {}
    for validates in (False, True):
        folder = shared / f"best-{validates}"
        folder.mkdir()
        splits = {"t10k": noisy(60, 2), "validation": noisy(90, 3)} if validates else {"t10k": noisy(90, 3)}
        data = write_set(folder / "data", train=noisy(320, 1), **splits)
        assert train(toy_recipe, data, folder / "run", "--epochs", EPOCHS)["best_epoch"] < EPOCHS
        train(toy_recipe, data, folder / "other", "--epochs", EPOCHS, "--seed", 8)
        shutil.copytree(folder / "run", folder / "longer")
        both[validates] = folder / "run", resume(folder / "longer", "--epochs", EPOCHS + 1), folder / "other"
        assert both[validates][1]["best_epoch"] < EPOCHS and not both[validates][1]["warnings"]
    return both


@pytest.fixture(scope="module")
def strace():
    """The beginning of a command that a system call fails in."""
    command = [shutil.which("strace") or "strace", "-f", "-qq", "-o", "/dev/null"]
    try:
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
            pytest.skip("strace may not trace here")
    except FileNotFoundError:
        pytest.skip("no strace")
    return command


def resume_failing(strace, path, fault, run, *options):
    """`niti train --resume RUN`, whose calls on the path fail: CALL:error=WHY[:when=N]."""
    return subprocess.run([*strace, "-P", path, "-e", f"trace={fault.split(':')[0]}", "-e", f"inject={fault}", NITI, "train", "--resume", run, "--threads", "1", "--quiet",
                           *map(str, options)], capture_output=True, text=True, check=False)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace(path, by):
    path.unlink()
    by(path)


def remove_both(best):
    """previous.safetensors may hold the best weights, too."""
    best.unlink()
    best.with_name("previous.safetensors").unlink()


def damage_both(best, how):
    how(best)
    best.with_name("previous.safetensors").unlink()


SPOILT = {
    "removed": (lambda best, _: remove_both(best), "No such file"),
    "folder": (lambda best, _: replace(best, os.mkdir), "regular file"),
    "link": (lambda best, _: replace(best, lambda path: os.symlink("/nowhere/x", path)), "symbolic link"),
    "loop": (lambda best, _: replace(best, lambda path: path.symlink_to(path)), "symbolic link"),
    "pipe": (lambda best, _: replace(best, os.mkfifo), "regular file"),
    "cut": (lambda best, _: damage_both(best, lambda path: os.truncate(path, 100)), "not a safetensors file"),
    "bit": (lambda best, _: damage_both(best, flip), "does not have the hash"),
    "other": (lambda best, other: shutil.copy(other / "best.safetensors", best), "expected this run's"),
    "last": (lambda best, _: shutil.copy(best.with_name("last.safetensors"), best), "'step' is"),
    "state": (lambda best, _: forge(best, lambda metadata, _: metadata.pop("step")), "'step' is missing"),
}


@pytest.mark.parametrize("validates", (False, True))
@pytest.mark.parametrize("kind", SPOILT)
def test_a_best_that_is_lost(kind, validates, runs, tmp_path):
    """As the run ends, and whenever it is resumed afterwards."""
    whole, expected, other = runs[validates]
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    best = run / "best.safetensors"
    spoil, says = SPOILT[kind]
    spoil(best, other)
    untested = ("not tested",) if validates else ()
    for options in (["--epochs", EPOCHS + 1, "--json"], ["--json"]):
        done = niti("train", "--resume", run, "--threads", 1, "--quiet", *options)
        assert done.returncode == 0 and all(word in done.stderr for word in (str(best), says, "best", "last.safetensors", *untested)), done.stderr
        result = json.loads(done.stdout)
        assert ("or remove what is there" in done.stderr) == (kind != "removed"), done.stderr
        assert result["hash"] == expected["hash"] and result["best_epoch"] == expected["best_epoch"]
        assert result["test_accuracy"] == expected["test_accuracy"] and len(result["warnings"]) == 1
        assert result["best_test_accuracy"] == (None if validates else expected["best_test_accuracy"])
    done = niti("train", "--resume", run, "--threads", 1)
    assert done.returncode == 0 and str(best) in done.stderr, done.stderr
    assert done.stdout.splitlines()[-1] == f"checkpoints in {run}: last.safetensors" and " 0.00 %" not in done.stdout
    assert ("those of the best epoch are not tested" in done.stdout) == validates


@pytest.fixture(scope="module")
def rising(shared, toy_recipe, runs):
    """A run whose last epoch is its best."""
    run = shared / "rising"
    result = train(toy_recipe, runs[False][0].with_name("data"), run, "--epochs", EPOCHS - 1, "--save-every", 1)
    assert result["best_epoch"] == EPOCHS - 1
    return run


def earlier(best):
    shutil.copy(best.with_name("epoch-0001.safetensors"), best)


@pytest.mark.parametrize("longer", (False, True))
@pytest.mark.parametrize("kind", ["removed", "earlier", "cut", "bit"])
def test_a_best_that_a_crash_left_behind_is_made_again(kind, longer, rising, runs, tmp_path):
    """`last` holds the best epoch's weights, and they have not become best.safetensors."""
    run = tmp_path / "run"
    shutil.copytree(rising, run)
    best, whole = run / "best.safetensors", rising / "best.safetensors"
    {"removed": os.unlink, "earlier": earlier, "cut": lambda path: os.truncate(path, 100), "bit": flip}[kind](best)
    options = ["--epochs", EPOCHS + 1] if longer else []
    done = niti("train", "--resume", run, "--threads", 1, "--json", *options)
    assert done.returncode == 0 and f"best.safetensors made of last.safetensors, which holds the weights of epoch {EPOCHS - 1}" in done.stderr, done.stderr
    assert best.read_bytes() == whole.read_bytes()
    result = json.loads(done.stdout)
    assert not result["warnings"] and result["best_epoch"] == EPOCHS - 1
    assert not longer or result["hash"] == runs[False][1]["hash"]
    assert "made of" not in niti("train", "--resume", run, "--threads", 1, "--json").stderr


@pytest.mark.parametrize("kind", [kind for kind in SPOILT if kind not in ("removed", "last", "cut", "bit")])
def test_what_no_crash_left_stays(kind, rising, runs, tmp_path):
    """Another run's files, and what is no file: the warning says so."""
    run = tmp_path / "run"
    shutil.copytree(rising, run)
    best = run / "best.safetensors"
    spoil, says = SPOILT[kind]
    spoil(best, runs[False][2])
    before = best.lstat(), best.read_bytes() if best.is_file() else None
    done = niti("train", "--resume", run, "--threads", 1, "--json")
    assert done.returncode == 0 and str(best) in done.stderr and says in done.stderr and "or remove what is there" in done.stderr, done.stderr
    after = best.lstat(), best.read_bytes() if best.is_file() else None
    assert before[1] == after[1] and before[0].st_ino == after[0].st_ino


@pytest.mark.parametrize("kind", ["folder", "link", "loop", "pipe"])
def test_what_is_in_the_place_of_the_best(kind, rising, runs, tmp_path):
    """A run that trains on does not pass by the only state that could go there."""
    run = tmp_path / "run"
    shutil.copytree(rising, run)
    best = run / "best.safetensors"
    SPOILT[kind][0](best, None)
    for _ in range(2):
        done = niti("train", "--resume", run, "--threads", 1, "--quiet", "--epochs", EPOCHS + 1)
        assert done.returncode == 1 and str(best) in done.stderr and "remove what is there" in done.stderr, done.stderr
        assert hash_of(run / "last.safetensors") == hash_of(rising / "last.safetensors")
    (best.rmdir if kind == "folder" else best.unlink)()
    result = resume(run, "--epochs", EPOCHS + 1)
    assert not result["warnings"] and result["hash"] == runs[False][1]["hash"] and best.read_bytes() == (rising / "best.safetensors").read_bytes()


def test_the_best_of_a_run_alike_stays(rising, toy_recipe, runs, tmp_path):
    """One that differs in its rate alone, or in its images alone."""
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(rising, run)
    data = runs[False][0].with_name("data")
    train(toy_recipe, data, other, "--epochs", 1, "--set", "update.mu=4")
    shutil.copy(other / "best.safetensors", run)
    done = niti("train", "--resume", run, "--threads", 1, "--quiet")
    assert done.returncode == 0 and "or remove what is there" in done.stderr, done.stderr
    assert hash_of(run / "best.safetensors") == hash_of(other / "best.safetensors")
    shutil.rmtree(other)
    train(toy_recipe, write_set(tmp_path / "data", train=noisy(320, 5), t10k=noisy(90, 3)), other, "--epochs", 1)
    shutil.copy(other / "best.safetensors", run)
    done = niti("train", "--resume", run, "--threads", 1, "--quiet")
    assert done.returncode == 0 and "or remove what is there" in done.stderr, done.stderr
    assert hash_of(run / "best.safetensors") == hash_of(other / "best.safetensors")


@pytest.mark.parametrize("how", ["bit", "removed"])
def test_the_last_of_a_complete_run_is_made_again(how, rising, tmp_path):
    """Of a newer best, or of previous."""
    run = tmp_path / "run"
    shutil.copytree(rising, run)
    for others in ((), ("best.safetensors",)):
        {"bit": flip, "removed": os.unlink}[how](run / "last.safetensors")
        for name in others:
            (run / name).unlink()
        done = niti("train", "--resume", run, "--threads", 1, "--json")
        assert done.returncode == 0 and "continuing from" in done.stderr, done.stderr
        assert hash_of(run / "last.safetensors") == hash_of(run / "best.safetensors") == hash_of(rising / "last.safetensors")
        assert not resume(run)["warnings"]


@pytest.mark.parametrize("how", ["bit", "removed"])
def test_a_best_that_is_newer_than_previous(how, rising, runs, tmp_path):
    """Where `last` is damaged the run goes on from it."""
    run = tmp_path / "run"
    shutil.copytree(rising, run)
    {"bit": flip, "removed": os.unlink}[how](run / "last.safetensors")
    done = niti("train", "--resume", run, "--threads", 1, "--json", "--epochs", EPOCHS + 1)
    assert done.returncode == 0 and "continuing from best.safetensors, which is newer" in done.stderr, done.stderr
    result = json.loads(done.stdout)
    assert result["hash"] == runs[False][1]["hash"] and result["best_epoch"] == EPOCHS - 1 and len(result["warnings"]) == 1
    assert (run / "best.safetensors").read_bytes() == (rising / "best.safetensors").read_bytes()


def test_a_newer_best_of_another_run(rising, toy_recipe, runs, tmp_path):
    """It is not taken in the place of a damaged `last`."""
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(rising, run)
    train(toy_recipe, runs[False][0].with_name("data"), other, "--epochs", EPOCHS, "--set", "update.mu=4")
    shutil.copy(other / "last.safetensors", run / "best.safetensors")
    flip(run / "last.safetensors")
    done = niti("train", "--resume", run, "--threads", 1, "--quiet")
    assert done.returncode == 0 and "continuing from the checkpoint before it" in done.stderr, done.stderr
    assert hash_of(run / "last.safetensors") == hash_of(rising / "last.safetensors")


def test_a_best_that_cannot_be_made_again(rising, tmp_path):
    """The reason, and how to go on; then the run is whole."""
    run = tmp_path / "run"
    shutil.copytree(rising, run)
    best = run / "best.safetensors"
    best.unlink()
    best.with_name("best.safetensors.tmp").mkdir()
    done = niti("train", "--resume", run, "--threads", 1, "--quiet", "--epochs", EPOCHS + 1)
    assert done.returncode == 1 and f"remove {best}.tmp, then `niti train --resume {run}` continues" in done.stderr, done.stderr
    best.with_name("best.safetensors.tmp").rmdir()
    assert not resume(run)["warnings"] and best.read_bytes() == (rising / "best.safetensors").read_bytes()


def test_a_best_that_came_back(runs, tmp_path):
    """It is listed again; that it was not tested stays true."""
    run = tmp_path / "run"
    shutil.copytree(runs[True][0], run)
    (run / "best.safetensors").rename(tmp_path / "away")
    (run / "previous.safetensors").unlink()
    niti("train", "--resume", run, "--threads", 1, "--quiet", "--epochs", EPOCHS + 1)
    (tmp_path / "away").rename(run / "best.safetensors")
    done = niti("train", "--resume", run, "--threads", 1, "--quiet")
    assert done.returncode == 0 and "not tested" in done.stderr and "`niti eval`" in done.stderr, done.stderr
    assert "best.safetensors" in done.stdout.splitlines()[-1] and "not tested" in done.stdout and " 0.00 %" not in done.stdout


@pytest.mark.parametrize("validates", (False, True))
def test_a_best_that_cannot_be_read(validates, runs, strace, tmp_path):
    """It may be whole: the run's last step is saved, and it goes on once the file can be read."""
    whole, expected, _ = runs[validates]
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    best = run / "best.safetensors"
    for options in (["--epochs", EPOCHS + 1], []):
        done = resume_failing(strace, best, "openat:error=EIO", run, *options)
        assert done.returncode == 1 and all(word in done.stderr for word in (str(best), "Input/output error", "--resume")), done.stderr
        assert not done.stdout
    result = resume(run, "--epochs", EPOCHS + 1)
    assert result["hash"] == expected["hash"] and result["best_test_accuracy"] == expected["best_test_accuracy"]


def test_a_run_of_a_part_of_an_epoch(toy_recipe, runs, tmp_path):
    """Its best weights are those of its last step."""
    data = data_sets.write_idx_set(tmp_path / "data", data_sets.squares(160, 1), data_sets.squares(40, 2))
    result = train(toy_recipe, data, tmp_path / "run", "--max-steps", 3)
    assert result["best_epoch"] == 1 and not result["warnings"] and not resume(tmp_path / "run")["warnings"]


def test_a_last_that_cannot_be_read(rising, strace, tmp_path):
    """It may be intact: the run does not go back behind it, and nothing changes."""
    run = tmp_path / "run"
    shutil.copytree(rising, run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    for call in ("openat:error=EIO", "openat:error=EACCES", "pread64:error=EIO"):
        done = resume_failing(strace, run / "last.safetensors", f"{call}:when=1", run, "--epochs", EPOCHS + 1)
        assert done.returncode == 1 and "last.safetensors" in done.stderr and "if that stays so, remove it: another checkpoint takes its place" in done.stderr, done.stderr
        assert {path.name: path.read_bytes() for path in run.iterdir() if path.name != ".lock"} == {name: text for name, text in before.items() if name != ".lock"}


@pytest.mark.parametrize("call", ["openat:error=ENOSPC:when=1", "write:error=ENOSPC:when=1", "fsync:error=EIO:when=1"])
def test_a_best_that_could_not_be_saved(call, runs, strace, tmp_path):
    """The epoch before the last is the best, and its save fails as the run ends: it is saved once more, and best made of previous."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    folder = runs[True][0].with_name("data")
    recipe = runs[True][0] / "recipe.yaml"
    result = train(recipe, folder, whole, "--epochs", EPOCHS)
    assert result["best_epoch"] == EPOCHS - 1
    train(recipe, folder, run, "--epochs", EPOCHS - 2)
    done = resume_failing(strace, run / "best.safetensors.tmp", call, run, "--epochs", EPOCHS)
    assert done.returncode == 1, done.stderr
    done = niti("train", "--resume", run, "--threads", 1, "--json")
    assert done.returncode == 0 and "best.safetensors made of" in done.stderr, done.stderr
    assert hash_of(run / "best.safetensors") == hash_of(whole / "best.safetensors")
    resumed = json.loads(done.stdout)
    assert not resumed["warnings"] and all(resumed[key] == result[key] for key in ("hash", "best_epoch", "best_test_accuracy", "best_validation_accuracy"))


def test_an_epoch_that_could_not_be_kept(runs, tmp_path):
    """It is trained again, with what comes after it: the run does not pass by an epoch whose save failed."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    folder, recipe = runs[True][0].with_name("data"), runs[True][0] / "recipe.yaml"
    result = train(recipe, folder, whole, "--epochs", EPOCHS, "--save-every", 1)
    assert result["best_epoch"] == EPOCHS - 1
    train(recipe, folder, run, "--epochs", EPOCHS - 2, "--save-every", 1)
    kept = run / f"epoch-{EPOCHS - 1:04}.safetensors"
    kept.mkdir()
    done = niti("train", "--resume", run, "--epochs", EPOCHS, "--threads", 1, "--quiet")
    assert done.returncode == 1 and f"remove {kept}, then `niti train --resume {run}` continues" in done.stderr, done.stderr
    kept.rmdir()
    resumed = resume(run)
    assert not resumed["warnings"] and all(resumed[key] == result[key] for key in ("hash", "best_epoch", "best_test_accuracy", "best_validation_accuracy"))
    for name in ("best", "last", *(f"epoch-{epoch:04}" for epoch in range(1, EPOCHS + 1))):
        assert hash_of(run / f"{name}.safetensors") == hash_of(whole / f"{name}.safetensors"), name


def test_a_file_that_cannot_be_read_is_not_passed_by(runs, rising, strace, tmp_path):
    """One failure ends the command before anything is saved, and the next one makes best.safetensors again."""
    for name, of, spoil in (("best", rising, earlier), ("previous", runs[False][0], os.unlink)):
        run = tmp_path / name
        shutil.copytree(of, run)
        expected = hash_of(run / "best.safetensors")
        spoil(run / "best.safetensors")
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        done = resume_failing(strace, run / f"{name}.safetensors", "openat:error=EIO:when=1", run, "--epochs", EPOCHS + 1)
        assert done.returncode == 1 and f"{name}.safetensors: cannot open: Input/output error" in done.stderr, done.stderr
        assert {path.name: path.read_bytes() for path in run.iterdir() if path.name != ".lock"} == {key: text for key, text in before.items() if key != ".lock"}
        done = niti("train", "--resume", run, "--threads", 1)
        assert done.returncode == 0 and "best.safetensors made of" in done.stderr and hash_of(run / "best.safetensors") == expected, done.stderr


def test_neither_last_nor_previous_can_be_read(rising, strace, tmp_path):
    """Both are named."""
    run = tmp_path / "run"
    shutil.copytree(rising, run)
    (run / "last.safetensors").unlink()
    done = resume_failing(strace, run / "previous.safetensors", "openat:error=EIO:when=1", run)
    assert done.returncode == 1 and "last.safetensors: cannot open: No such file" in done.stderr and "previous.safetensors: cannot open: Input/output error" in done.stderr, done.stderr


def test_an_only_last_that_cannot_be_read(rising, strace, tmp_path):
    """Nothing could take its place."""
    run = tmp_path / "run"
    shutil.copytree(rising, run)
    (run / "previous.safetensors").unlink()
    done = resume_failing(strace, run / "last.safetensors", "openat:error=EMFILE:when=1", run)
    assert done.returncode == 1 and "Too many open files" in done.stderr and "remove it" not in done.stderr, done.stderr
