"""Folders of runs that are moved, replaced or removed while they are trained in, and what is put in the way of their files."""
import os
import shutil
import signal
import time

import numpy as np
import pytest

import data_sets
from tool import content_of, fails, hash_of, metadata_of, niti, output_of, rows_of, start_training, stop, train, wait_for


@pytest.fixture
def begun(toy_recipe, toy, tmp_path):
    """begin(): a run without an end in `mine`, after its first epoch: its process."""
    processes = []

    def begin(*arguments):
        process = start_training(toy_recipe, "--data", toy, "--run", tmp_path / "mine", "--epochs", 100000, "--quiet", *arguments)
        processes.append(process)
        wait_for(tmp_path / "mine" / "best.safetensors", process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            stop(process)


def ended(process):
    """What it says at its end, which must be a failure."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == "", (process.returncode, out, err)
    return err.splitlines()[-1]


def stop_after_an_epoch(run):
    """Resumes the run and interrupts it once it has saved a later epoch."""
    epoch = int(metadata_of(run / "last.safetensors")["epoch"])
    process = start_training("--resume", run)
    end = time.monotonic() + 60
    while int(metadata_of(run / "last.safetensors")["epoch"]) <= epoch:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)
    return stop(process, signal.SIGINT)


def check_resumable(run, under_way=None):
    """It continues, from its checkpoint on, with every row so far, but perhaps that of the epoch under way."""
    epoch = int(metadata_of(run / "last.safetensors")["epoch"])
    code, _, err = stop_after_an_epoch(run)
    assert code == 130, err
    epochs = [row["epoch"] for row in rows_of(run)]
    lost = sorted(set(range(1, epochs[-1] + 1)) - set(epochs))
    assert epochs == sorted(set(epochs)) and epochs[-1] > epoch and lost in ([], [under_way]), (epochs, under_way)
    assert metadata_of(run / "last.safetensors")["hash"] == hash_of(run / "last.safetensors")
    assert not [name for name in content_of(run) if name.endswith((".tmp", ".bak"))]


def test_a_run_whose_folder_is_replaced_by_another_run(begun, trained, tmp_path):
    mine, old = tmp_path / "mine", tmp_path / "mine.old"
    shutil.copytree(trained[0], tmp_path / "other")
    before = content_of(tmp_path / "other")
    process = begun()
    mine.rename(old)
    (tmp_path / "other").rename(mine)
    said = ended(process)
    assert f"{mine}: the run's folder was moved" in said and "the checkpoints saved before are where it is now" in said, said
    assert "--resume" not in said
    assert content_of(mine) == before
    assert output_of("hash", mine) == output_of("hash", trained[0])
    check_resumable(old)


def test_a_run_whose_folder_is_moved(begun, tmp_path):
    process = begun()
    (tmp_path / "mine").rename(tmp_path / "elsewhere")
    said = ended(process)
    assert "was moved" in said and "--resume" not in said, said
    assert not (tmp_path / "mine").exists()
    check_resumable(tmp_path / "elsewhere")


@pytest.mark.parametrize("again", [False, True])
def test_a_run_whose_folder_is_removed(begun, tmp_path, again):
    """Also where an empty one takes its place, which may get the number of the one that was removed."""
    mine = tmp_path / "mine"
    process = begun()
    mine.rename(tmp_path / "going")  # files that come meanwhile would keep it from being removed
    while (tmp_path / "going").exists():
        shutil.rmtree(tmp_path / "going", ignore_errors=True)
    if again:
        mine.mkdir()
    said = ended(process)
    assert str(mine) in said and ("was removed" in said or "was moved" in said) and "--resume" not in said, said
    assert list(mine.iterdir()) == [] if again else not mine.exists()


def test_a_folder_that_is_moved_just_before_the_end(toy_recipe, toy, tmp_path):
    """However late: a run that ends well names checkpoints that are there."""
    for pause in range(12):
        run, away = tmp_path / f"run{pause}", tmp_path / f"away{pause}"
        process = start_training(toy_recipe, "--data", toy, "--run", run, "--epochs", 20, "--quiet")
        wait_for(run / "best.safetensors", process)
        time.sleep(0.01 * pause)
        late = process.poll() is not None
        run.rename(away)
        _, err = process.communicate(timeout=60)
        assert process.returncode == (0 if late else process.returncode), err
        assert process.returncode == 0 or "was moved" in err, err
        if process.returncode == 0:
            assert metadata_of(away / "last.safetensors")["complete"] == "1"
        assert not run.exists()


def test_a_lock_that_is_removed(begun, tmp_path):
    """The process that let another one in ends; the other one trains on."""
    mine = tmp_path / "mine"
    process = begun()
    (mine / ".lock").unlink()
    said = ended(process)
    assert f"{mine / '.lock'}: was removed or replaced" in said, said
    check_resumable(mine)


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.jsonl"])
def test_a_log_that_is_replaced(begun, tmp_path, name):
    """As `sed -i` and editors do: the run ends with its state saved, and no row is lost but one that was about to be written."""
    mine = tmp_path / "mine"
    process = begun()
    process.send_signal(signal.SIGSTOP)  # else a row may come between the two
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    copied = (mine / name).read_bytes()
    (tmp_path / "copy").write_bytes(copied)
    (tmp_path / "copy").rename(mine / name)
    process.send_signal(signal.SIGCONT)
    said = ended(process)
    assert f"{mine / name}: was replaced" in said and "is saved; `niti train --resume" in said, said
    check_resumable(mine, under_way=copied.count(b"\n") + (name == "metrics.jsonl"))  # a table has a line of names


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.jsonl"])
@pytest.mark.parametrize("how", ["emptied", "saved"])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_log_that_is_changed_in_place(begun, tmp_path, name, how, resumed):
    """As `>` does, or an editor that writes back what it read before the last rows came: the run ends with its state saved."""
    mine = tmp_path / "mine"
    process = begun("--measure-every", 2)
    if resumed:
        assert stop(process, signal.SIGINT)[0] == 130
        epoch = int(metadata_of(mine / "last.safetensors")["epoch"])
        process = start_training("--resume", mine, "--quiet", "--measure-every", 2)
    else:
        epoch = 1
    read = (mine / name).read_bytes()
    lines = read.count(b"\n")
    end = time.monotonic() + 60
    while int(metadata_of(mine / "last.safetensors")["epoch"]) <= epoch or (mine / name).read_bytes().count(b"\n") <= lines:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)
    with open(mine / name, "r+b") as file:
        file.truncate(0)
        file.write(read if how == "saved" else b"")
    said = ended(process)
    assert f"{mine / name}: was changed while the run went on" in said and "rows may be missing" in said, said
    assert "is saved; `niti train --resume" in said, said
    assert how == "emptied" or (mine / name).read_bytes().startswith(read)  # a row may have been about to be written
    left = (mine / name).read_bytes()
    code, _, err = stop_after_an_epoch(mine)
    told = "are missing" in err or "set aside" in err  # unless that row is the checkpoint's, and in a CSV follows its header
    assert code == 130 and (told or (left != b"" and (how == "saved" or name == "metrics.jsonl"))), err
    other = mine / ("metrics.jsonl" if name == "metrics.csv" else "metrics.csv")
    for path in (mine / name, other):
        content = path.read_text()
        assert content.endswith("\n") and (path == other or how == "emptied" or content.startswith(read.decode()))


# ---- advice that helps ----


def test_a_folder_in_the_place_of_the_last_checkpoint(begun, tmp_path):
    mine = tmp_path / "mine"
    process = begun()
    wait_for(mine / "previous.safetensors", process)
    while process.poll() is None:  # the next save may come between the two
        (mine / "last.safetensors").unlink(missing_ok=True)
        try:
            (mine / "last.safetensors").mkdir()
        except FileExistsError:
            continue
        break
    said = ended(process)
    assert f"remove {mine / 'last.safetensors'}, then `niti train --resume {mine}` continues" in said, said
    assert niti("train", "--resume", mine, "--quiet").returncode == 1
    (mine / "last.safetensors").rmdir()
    process = start_training("--resume", mine, "--quiet")
    wait_for(mine / "last.safetensors", process)
    assert stop(process, signal.SIGINT)[0] == 130


def test_a_folder_in_the_place_of_the_lock(toy_recipe, toy, tmp_path):
    """Whether the run goes on there or is resumed; a new one is refused as in any folder that is not empty."""
    run, lock = tmp_path / "run", tmp_path / "run" / ".lock"
    train(toy_recipe, toy, run, "--epochs", 1)
    lock.unlink()
    lock.mkdir()
    fails("train", "--resume", run, "--epochs", 2, says=f"; remove {lock}, then `niti train --resume {run}` continues")
    (tmp_path / "new" / ".lock").mkdir(parents=True)
    for more in ([], ["--dry-run"]):
        fails("train", toy_recipe, "--data", toy, "--run", tmp_path / "new", *more, says="the folder holds '.lock' already")
    lock.rmdir()
    assert niti("train", "--resume", run, "--epochs", 2, "--quiet").returncode == 0


@pytest.mark.parametrize("what", ["folder", "link"])
def test_something_in_the_place_of_the_recipe(toy_recipe, toy, tmp_path, what):
    run = tmp_path / "run"
    train(toy_recipe, toy, run, "--epochs", 1)
    path = run / ("recipe.yaml" if what == "folder" else "recipe.yaml.tmp")
    if what == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    for _ in range(2):
        done = niti("train", "--resume", run, "--epochs", 2, "--quiet")
        assert done.returncode == 1 and f"remove {path}, then `niti train --resume {run}` continues" in done.stderr, done.stderr
    path.rmdir() if what == "folder" else path.unlink()
    assert niti("train", "--resume", run, "--quiet").returncode == 0


def test_checkpoints_that_are_removed(begun, tmp_path):
    """Without one there is nothing to resume, and nothing is said about it."""
    mine = tmp_path / "mine"
    process = begun()
    while process.poll() is None:
        for name in ("last", "previous"):
            path = mine / f"{name}.safetensors"
            try:  # the folder in the place of `last` may have become `previous`
                path.unlink(missing_ok=True)
                path.mkdir()
            except (FileExistsError, IsADirectoryError):
                pass
        if all((mine / f"{name}.safetensors").is_dir() for name in ("last", "previous")):
            break
    said = ended(process)
    assert "safetensors" in said and "--resume" not in said, said


# ---- several at once ----


def test_runs_that_begin_in_one_folder_at_once(toy_recipe, toy, tmp_path):
    """One trains; all others say why they do not, however far it has come."""
    for i in range(5):
        run = tmp_path / f"run{i}"
        all_of_them = [start_training(toy_recipe, "--data", toy, "--run", run, "--epochs", 1000000, "--quiet") for _ in range(4)]
        try:
            end = time.monotonic() + 60
            while sum(process.poll() is None for process in all_of_them) > 1:
                assert time.monotonic() < end
                time.sleep(0.005)
            losers = [process for process in all_of_them if process.poll() is not None]
            said = [process.communicate()[1] for process in losers]
            assert [process.returncode for process in losers] == [1, 1, 1], said
            assert said == [f"niti: {run}: another process is training in this folder\n"] * 3
        finally:
            for process in all_of_them:
                if process.poll() is None:
                    stop(process, signal.SIGINT)


# ---- data that has to come back ----


def image_set(folder):
    data_sets.write_folder_set(folder, ["a", "b", "c", "d"], data_sets.squares(160, 1), data_sets.squares(60, 2))
    return folder


def array_set(folder):
    folder.mkdir()
    for split, count, seed in (("train", 160, 1), ("test", 60, 2)):
        x, y = data_sets.squares(count, seed)
        np.save(folder / f"{split}_x.npy", x)
        np.save(folder / f"{split}_y.npy", y)


@pytest.mark.parametrize("change", ["removed", "folder", "pipe", "link", "cut"])
def test_an_image_that_has_gone(toy_recipe, tmp_path, change):
    """--resume fails until it is back, and so the advice says."""
    data, run = image_set(tmp_path / "data"), tmp_path / "run"
    victim = sorted((data / "train").glob("*/*"))[3]
    content = victim.read_bytes()
    process = start_training(toy_recipe, "--data", data, "--run", run, "--epochs", 1000000, "--quiet")
    wait_for(run / "previous.safetensors", process)
    if change == "cut":
        os.truncate(victim, len(content) // 2)
    else:
        victim.unlink()
        {"removed": lambda: None, "folder": victim.mkdir, "pipe": lambda: os.mkfifo(victim),
         "link": lambda: victim.symlink_to("/dev/zero")}[change]()
    check_data_lost(process, run, victim)
    if change != "removed":
        victim.rmdir() if change == "folder" else victim.unlink()
    victim.write_bytes(content)
    check_resumable(run)


@pytest.mark.parametrize("change", ["removed", "cut", "moved"])
def test_mapped_data_that_has_gone(toy_recipe, tmp_path, change):
    data, run, away = tmp_path / "data", tmp_path / "run", tmp_path / "away"
    array_set(data)
    process = start_training(toy_recipe, "--data", data, "--run", run, "--epochs", 1000000, "--quiet")
    wait_for(run / "previous.safetensors", process)
    shutil.copytree(data, away)
    path = data / "train_x.npy"
    {"removed": path.unlink, "cut": lambda: os.truncate(path, path.stat().st_size - 8),
     "moved": lambda: data.rename(tmp_path / "elsewhere")}[change]()
    check_data_lost(process, run, path)
    shutil.rmtree(data, ignore_errors=True)
    away.rename(data)
    check_resumable(run)


def check_data_lost(process, run, path):
    said = ended(process)
    assert str(path) in said and f"; once the file is restored, `niti train --resume {run}` continues" in said, said
    assert niti("train", "--resume", run, "--quiet").returncode == 1


def test_a_log_within_the_data_is_not_the_data(toy_recipe, tmp_path):
    data = image_set(tmp_path / "data")
    run = data / "runs" / "run"
    process = start_training(toy_recipe, "--data", data, "--run", run, "--epochs", 1000000, "--quiet")
    wait_for(run / "previous.safetensors", process)
    (run / "metrics.csv").unlink()
    said = ended(process)
    assert f"is saved; `niti train --resume {run}` continues" in said, said
