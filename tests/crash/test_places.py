"""Full disks, folders that cannot be written, data sets that change while they are read, and two processes in one folder."""
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

import data_sets
import faults
import tool
from tool import content_of, hash_of, metadata_of


def checkpoint_hash(run):
    return tool.json_of("hash", run / "last.safetensors")["hash"]


@pytest.fixture
def small_disk(tmp_path):
    """mount(bytes, read_only=False): a file system of that size, or None where that is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size, *options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", place], capture_output=True, check=False)
        return place if done.returncode == 0 else None

    yield mount
    subprocess.run(["umount", "-l", place], capture_output=True, check=False)


def fill(disk, leave):
    """Fills it up to so many bytes."""
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))


def test_a_full_disk(small_disk, half, whole, toy, recipe):
    """However little room is left, a run fails with a message, keeps its checkpoint, and goes on when there is room."""
    disk = small_disk(256 << 10)
    if not disk:
        pytest.skip("no file system can be mounted here; tests/cli/test_resume.py limits the size of files")
    failures = 0
    for leave in range(0, 20 * 4096, 4096):
        shutil.rmtree(disk / "run", ignore_errors=True)
        (disk / "filler").unlink(missing_ok=True)
        shutil.copytree(half, disk / "run")
        fill(disk, leave)
        done = tool.niti("train", "--resume", disk / "run", "--epochs", 2, "--threads", 1, "--json")
        assert done.returncode in (0, 1), done
        if done.returncode == 1:
            failures += 1
            assert "No space left on device" in done.stderr and "free space" in done.stderr, done.stderr
            checkpoint_hash(disk / "run")
            (disk / "filler").unlink()
            tool.resume(disk / "run", "--epochs", 2)
        assert hash_of(disk / "run" / "last.safetensors") == whole[1]["hash"]
    assert failures >= 3
    (disk / "filler").unlink(missing_ok=True)
    shutil.rmtree(disk / "run")
    fill(disk, 0)
    tool.fails("train", recipe, "--data", toy, "--run", disk / "new", "--quiet", says="No space left on device")
    assert not (disk / "new").exists()


def test_a_folder_that_cannot_be_written(small_disk, half, toy, recipe):
    disk = small_disk(1 << 20)
    if not disk:
        pytest.skip("no file system can be mounted here")
    shutil.copytree(half, disk / "run")
    before = content_of(disk / "run")
    if subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be mounted read-only here")
    tool.fails("train", "--resume", disk / "run", "--quiet", says=("Read-only file system", "choose a folder that can be written"))
    tool.fails("train", recipe, "--data", toy, "--run", disk / "new", "--quiet", says="Read-only file system")
    tool.fails("export", "c", disk / "run", "--out", disk / "out", says="Read-only file system")
    tool.fails("vectors", recipe, "--out", disk / "out", says="Read-only file system")
    for command in ("eval", "hash", "summary"):
        tool.output_of(command, disk / "run")
    assert content_of(disk / "run") == before


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_closed_descriptors(descriptor, half, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half, run)
    done = subprocess.run([tool.NITI, "train", "--resume", run, "--epochs", "2", "--threads", "1"], preexec_fn=lambda: os.close(descriptor),
                          check=False, timeout=60, stdout=None if descriptor == 1 else subprocess.PIPE, stderr=None if descriptor == 2 else subprocess.PIPE)
    assert done.returncode == 0, done
    assert hash_of(run / "last.safetensors") == whole[1]["hash"]


# ---- data that changes ----


def begin_long(recipe, data, run, *settings):
    process = tool.start_training(recipe, "--data", data, "--run", run, "--epochs", 100000, "--test-every", 100000, *settings)
    tool.wait_for(run / "metrics.jsonl", process)
    end = time.monotonic() + 30
    while int(metadata_of(run / "last.safetensors")["epoch"]) < 1 and time.monotonic() < end:
        time.sleep(0.01)
    return process


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def write_arrays(folder):
    """A .npy file long enough that whole pages lie beyond its end once it is cut short."""
    folder.mkdir()
    images, labels = data_sets.squares(400, 1)
    np.save(folder / "train_x.npy", images)
    np.save(folder / "train_y.npy", labels.astype(np.int32))
    np.save(folder / "test_x.npy", images[:40])
    np.save(folder / "test_y.npy", labels[:40].astype(np.int32))
    return folder


def test_a_mapped_file_that_shrinks(recipe, work):
    data = write_arrays(faults.fresh(work / "arrays") / "data")
    run = work / "arrays" / "run"
    process = begin_long(recipe, data, run)
    os.truncate(data / "train_x.npy", 4096)
    code, _, err = finish(process)
    path = f"{os.path.realpath(data)}/train_x.npy"  # whichever sees it first
    assert code == 1 and len([line for line in err.splitlines() if path in line and ("became shorter" in line or "was changed" in line)]) == 1, (code, err)
    checkpoint_hash(run)


@pytest.mark.parametrize("change", ["overwrite", "date", "replace"])
def test_a_mapped_file_that_changes(change, recipe, work):
    """Overwritten in place, also where its date is put back, or replaced: no checkpoint holds steps on other data than it names."""
    folder = faults.fresh(work / f"arrays-{change}")
    data, run = write_arrays(folder / "data"), folder / "run"
    victim = data / "train_x.npy"
    content, dates = victim.read_bytes(), victim.stat()
    process = begin_long(recipe, data, run)
    if change == "replace":
        (data / "new").write_bytes(content[:1024] + bytes(len(content) - 1024))
        (data / "new").rename(victim)
    else:
        with victim.open("r+b") as file:
            file.seek(1024)
            file.write(bytes(len(content) - 1024))
    if change == "date":
        os.utime(victim, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    code, _, err = finish(process)
    assert code == 1 and f"{victim}: the file was changed" in err and "--resume" in err, (code, err)
    tool.fails("train", "--resume", run, "--quiet", says="SHA-256")
    victim.write_bytes(content)
    steps = metadata_of(run / "last.safetensors")["step"]
    tool.train(recipe, data, folder / "again", "--epochs", 100000, "--test-every", 100000, "--max-steps", steps)
    assert checkpoint_hash(run) == checkpoint_hash(folder / "again")


def test_files_that_were_read_may_go(recipe, work):
    folder = faults.fresh(work / "gone")
    data = data_sets.write_idx_set(folder / "data", data_sets.squares(32, 1), data_sets.squares(8, 2))
    process = begin_long(recipe, data, folder / "run")
    for path in data.iterdir():
        path.unlink()
    code, _, err = tool.stop(process, signal.SIGTERM)
    assert code == 143, err
    checkpoint_hash(folder / "run")


@pytest.mark.parametrize("change", ["shrink", "remove", "empty", "replace"])
def test_images_that_change(change, recipe, work):
    """An image that cannot be read any more ends the run, with its state saved; it goes on when the image is back."""
    folder = faults.fresh(work / f"images-{change}")
    data = data_sets.write_folder_set(folder / "data", "abcd", data_sets.squares(32, 1), data_sets.squares(8, 2))
    process = begin_long(recipe, data, folder / "run")
    victim = sorted((data / "train").rglob("*.png"))[7]
    content = victim.read_bytes()
    {"shrink": lambda: os.truncate(victim, len(content) // 2), "remove": victim.unlink, "empty": lambda: os.truncate(victim, 0),
     "replace": lambda: victim.write_bytes(b"something else")}[change]()
    code, _, err = finish(process)
    assert code == 1 and victim.name in err and "is saved" in err and "--resume" in err, (code, err)
    step = int(metadata_of(folder / "run" / "last.safetensors")["step"])
    victim.write_bytes(content)
    process = tool.start_training("--resume", folder / "run")
    end = time.monotonic() + 30
    while int(metadata_of(folder / "run" / "last.safetensors")["step"]) <= step and time.monotonic() < end:
        time.sleep(0.01)
    code, _, err = tool.stop(process, signal.SIGTERM)
    assert code == 143, err
    assert int(metadata_of(folder / "run" / "last.safetensors")["step"]) > step


# ---- two processes ----

STRACE = shutil.which("strace")


@pytest.mark.parametrize("locks", [True, False])
def test_two_processes_in_one_folder(locks, recipe, toy, whole, half, work):
    """Whichever starts first trains; the other says why it does not. The same without flock, as on some file systems."""
    environment = {**os.environ, **({} if locks else {"LD_PRELOAD": str(faults.LIBRARY), "NITI_FAULT": "flock:38"})}
    rounds = 100 if faults.SLOW else 8
    for number in range(rounds):
        folder = faults.fresh(work / f"two-{locks}")
        if number % 2:
            shutil.copytree(half, folder / "run")
            command = ["train", "--resume", folder / "run", "--epochs", "2", "--threads", "1", "--json"]
        else:
            command = ["train", recipe, "--data", toy, "--run", folder / "run", "--threads", "1", "--json"]
        both = [subprocess.Popen([tool.NITI, *map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env=environment) for _ in range(2)]
        ended = [(*process.communicate(timeout=60), process.returncode) for process in both]
        codes = sorted(code for _, _, code in ended)
        assert codes in ([0, 0], [0, 1]), ended
        assert codes == [0, 1] or number % 2, ended  # a new run refuses a folder that holds one, a resumed one may follow another
        for _, err, code in ended:
            assert code == 0 or "another process" in err or "holds" in err, err
        assert hash_of(folder / "run" / "last.safetensors") == whole[1]["hash"]
        assert not [name for name in content_of(folder / "run") if name.endswith(".tmp")]
        assert not (folder / "run" / ".lock.owner").exists()


def test_a_run_that_ends_before_another_locks_its_folder(recipe, toy, whole, work):
    """The other has looked into the folder before, and seen nothing: it must neither train over that run nor remove it."""
    run = faults.fresh(work / "between") / "run"
    if not STRACE or subprocess.run([STRACE, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("strace cannot trace processes here")
    command = [tool.NITI, "train", recipe, "--data", toy, "--run", run, "--threads", "1", "--json"]
    held = [STRACE, "-f", "-qq", "-o", "/dev/null", "-P", run / ".lock", "-e", "trace=openat", "-e",
            f"inject=openat:delay_enter={int(4e6 * tool.SLOWER)}:when=1"]
    late = subprocess.Popen([*map(str, [*held, *command, "--set", "seed=99"])], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 30
    while not run.exists() and time.monotonic() < end:  # the late one makes it
        time.sleep(0.01)
    time.sleep(0.5)
    first = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=60 * tool.SLOWER)
    _, err = late.communicate(timeout=60 * tool.SLOWER)
    assert first.returncode == 0, first
    assert late.returncode == 1 and "holds" in err and "--resume" in err, err
    assert hash_of(run / "last.safetensors") == whole[1]["hash"]


def began_without_flock(recipe, toy, folder):
    """A run that was killed on a file system without flock: its lock is left behind. (process, environment)"""
    environment = {**os.environ, "LD_PRELOAD": str(faults.LIBRARY), "NITI_FAULT": "flock:38"}
    process = subprocess.Popen([tool.NITI, "train", recipe, "--data", toy, "--run", folder, "--epochs", "100000", "--threads", "1"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    tool.wait_for(folder / "metrics.jsonl", process)
    process.kill()
    process.wait()
    assert (folder / ".lock.owner").exists()
    return environment


def test_two_processes_take_a_dead_ones_lock(recipe, toy, work):
    """Each is held up, between finding that the owner has died and taking its place, until the other has found the same."""
    run = faults.fresh(work / "taken") / "run"
    if not STRACE or subprocess.run([STRACE, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("strace cannot trace processes here")
    environment = began_without_flock(recipe, toy, run)
    del environment["LD_PRELOAD"], environment["NITI_FAULT"]

    def begin(seconds):
        delays = [(f"?{name}", 1) for name in ("unlink", "unlinkat")] + [(f"?{name}", 2) for name in ("rename", "renameat", "renameat2")]
        wait = [f"--inject={name}:delay_enter={int(seconds * 1e6)}:when={which}" for name, which in delays]
        return subprocess.Popen([STRACE, "-f", "-qq", "-o", "/dev/null", "--inject=flock:error=ENOLCK", *wait, tool.NITI, "train", "--resume", run,
                                 "--threads", "1"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                start_new_session=True)

    both = [begin(0.5), begin(1.5)]
    try:
        end = time.monotonic() + 8 * tool.SLOWER
        while all(process.poll() is None for process in both) and time.monotonic() < end:
            time.sleep(0.05)
        ended = [process for process in both if process.poll() is not None]
        assert len(ended) == 1, "both train, or neither"
        assert ended[0].returncode == 1 and "another process" in ended[0].stderr.read()
    finally:
        for process in both:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def test_a_restart_under_the_same_number(recipe, toy, work):
    """In a new container a killed run's number is soon another's, even that of the run which continues it."""
    run = faults.fresh(work / "restarted") / "run"
    inside = ["unshare", "-pf", "--kill-child", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*inside, "true; true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no process namespace can be made here")
    command = f"LD_PRELOAD='{faults.LIBRARY}' NITI_FAULT=flock:38 '{tool.NITI}' train --threads 1"
    first = subprocess.Popen([*inside, f"{command} '{recipe}' --data '{toy}' --run '{run}' --epochs 100000; true"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tool.wait_for(run / "metrics.jsonl", first)
    first.kill()
    first.wait()
    assert (run / ".lock.owner").exists()
    epoch = int(metadata_of(run / "last.safetensors")["epoch"])
    for _ in range(3):  # what was killed may need a moment to go; its lock must not stay
        done = subprocess.run([*inside, f"{command} --resume '{run}' & sleep 1; kill -TERM $!; wait $!"], capture_output=True, text=True,
                              check=False, timeout=60)
        if "another process" not in done.stderr:
            break
    assert done.returncode == 143 and int(metadata_of(run / "last.safetensors")["epoch"]) > epoch + 1, (done.returncode, os.listdir(run), done.stderr)
    assert not (run / ".lock.owner").exists()
