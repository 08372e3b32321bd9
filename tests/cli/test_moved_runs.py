"""Folders of runs that are moved, replaced or removed while they are trained in, and what is put in the way of their files."""
import os
import shutil
import signal
import time

import pytest

from tool import content_of, hash_of, metadata_of, niti, output_of, rows_of, start_training, stop, train, wait_for


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
    code, _, err = stop_after_an_epoch(mine)
    assert code == 130 and ("are missing" in err or "set aside" in err) == (how == "emptied"), err
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
