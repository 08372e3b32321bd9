"""The process among others: closed descriptors, signals, broken outputs, terminals, and file systems without locks."""
import csv
import errno
import fcntl
import json
import os
import pty
import resource
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

import data_sets
import tool
from tool import NITI, metadata_of, niti, resume, start_training, stop, train, wait_for

FOREVER = 100000


def start(run, *arguments, recipe, data, **options):
    """A run without end, begun in the background; returns when its first state is saved."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [NITI, "train", recipe, "--data", data, "--run", run, "--threads", "1", "--epochs", str(FOREVER), *arguments]
    process = subprocess.Popen([str(part) for part in command], text=True, **options)
    wait_for(run / "last.safetensors", process)
    return process


@pytest.fixture
def begin(toy_recipe, toy, tmp_path):
    """begin(*arguments, **options): such a run in tmp_path/run. What is left of it is ended."""
    processes = []

    def run(*arguments, **options):
        processes.append(start(tmp_path / "run", *arguments, recipe=toy_recipe, data=toy, **options))
        return processes[-1]

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def step_of(run):
    return int(metadata_of(run / "last.safetensors")["step"])


def wait_until(condition, process, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


# ---- descriptors ----

def close_all():
    for fd in range(3):
        os.close(fd)


def test_closed_descriptors_do_not_become_files(toy_recipe, toy, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen([NITI, "train", toy_recipe, "--data", toy, "--run", run, "--threads", "1", "--epochs", "5"],
                               preexec_fn=close_all)
    assert process.wait(timeout=60) == 0
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["epoch", "1", "2", "3", "4", "5"] and len({len(row) for row in rows}) == 1
    assert resume(run)["epochs"] == 5


# ---- signals ----

@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_state_saved(begin, tmp_path, number):
    process = begin()
    wait_until(lambda: (tmp_path / "run" / "best.safetensors").exists(), process)
    process.send_signal(number)
    code, _, err = stop(process, number)  # a pair, as terminals and `timeout` send it
    assert code == 128 + number and "the state is saved" in err
    assert step_of(tmp_path / "run") > 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_the_parent_ignores_stays_ignored(begin, tmp_path, number):
    """nohup ignores SIGHUP, a shell's background jobs SIGINT."""
    process = begin(preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
    process.send_signal(number)
    before = step_of(tmp_path / "run")
    wait_until(lambda: step_of(tmp_path / "run") > before, process)
    assert stop(process, signal.SIGTERM)[0] == 143


def test_sigusr1_saves_within_an_epoch(toy, recipe, tmp_path):
    """Epochs of more steps than are done here: only the signal saves, and the run goes on."""
    long = recipe(("batch: 16", "batch: 2"))
    data = tmp_path / "data"
    data_sets.write_idx_set(data, data_sets.squares(60000, 1), data_sets.squares(4, 2))
    run = tmp_path / "run"
    process = start(run, recipe=long, data=data)
    try:
        for _ in range(2):
            before = step_of(run)
            time.sleep(0.05)
            process.send_signal(signal.SIGUSR1)
            wait_until(lambda: step_of(run) > before, process)
        assert step_of(run) < 30000
    finally:
        code, _, err = stop(process, signal.SIGTERM)
    assert code == 143 and "as requested" in err


def reader_of(fifo, process):
    """The end of a pipe to write to, once the process has opened the other."""
    while True:
        assert process.poll() is None, process.communicate()
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
            time.sleep(0.002)


@pytest.mark.parametrize("command", ["train", "show"])
def test_sigusr1_before_there_is_anything_to_save(command, toy, toy_recipe, tmp_path):
    """The recipe comes by a pipe, so that the signal comes while it is awaited; and commands that save nothing go on too."""
    fifo = tmp_path / "recipe.yaml"
    os.mkfifo(fifo)
    arguments = ["--data", toy, "--run", tmp_path / "run", "--threads", "1"] if command == "train" else []
    process = subprocess.Popen([NITI, command, fifo, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pipe = reader_of(fifo, process)
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.05)
    os.write(pipe, toy_recipe.read_bytes())
    os.close(pipe)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    assert command == "show" or metadata_of(tmp_path / "run" / "last.safetensors")["complete"] == "1"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_first_weights_are_awaited(toy, toy_recipe, tmp_path, number):
    """A pipe that nobody opens, and one that somebody opens and does not write to; then one that is written to is read."""
    fifo, run = tmp_path / "init.yaml", tmp_path / "run"
    os.mkfifo(fifo)
    for opened in False, True:
        process = start_training(toy_recipe, "--data", toy, "--run", run, "--init", fifo)
        pipe = reader_of(fifo, process) if opened else time.sleep(0.5)
        code, _, err = stop(process, number)
        assert code == 128 + number and f"{fifo}: interrupted while it was read; nothing was trained or written" in err, (code, err)
        assert not run.exists()
        if opened:
            os.close(pipe)
    process = start_training(toy_recipe, "--data", toy, "--run", run, "--init", fifo)
    pipe = reader_of(fifo, process)
    time.sleep(0.2)
    os.write(pipe, toy_recipe.read_bytes())
    os.close(pipe)
    assert process.wait(timeout=60) == 0, process.communicate()
    process.communicate()


def test_a_reader_that_has_gone_ends_the_run_with_its_state_saved(begin, tmp_path):
    process = begin()
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE
    assert "nobody reads" in err and "the state is saved" in err and step_of(tmp_path / "run") > 0


def test_a_full_output_does_not_stop_the_run(toy_recipe, toy, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run([NITI, "train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--threads", "1"], stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "cannot write to standard output" in done.stderr
    assert metadata_of(tmp_path / "run" / "last.safetensors")["complete"] == "1"


def limit_stack(size):
    """For preexec_fn."""
    return lambda: resource.setrlimit(resource.RLIMIT_STACK, (size, resource.getrlimit(resource.RLIMIT_STACK)[1]))


@pytest.mark.skipif(tool.SLOWER > 1, reason="sanitizers need more")
def test_small_stacks(toy, toy_recipe, tmp_path):
    """Refused before they are too small: threads have stacks of that size too."""
    options = ["train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--threads", 4]
    for size in (64 << 10, (512 << 10) - 4096):
        tool.fails(*options, says=(f"the limit on the stack is {size >> 10} KiB (expected at least 512", "ulimit -s"), preexec_fn=limit_stack(size))
        assert not (tmp_path / "run").exists()
    done = niti(*options, "--json", preexec_fn=limit_stack(64 << 10))
    assert done.returncode == 1 and json.loads(done.stdout)["exit_code"] == 1
    tool.output_of(*options, preexec_fn=limit_stack(512 << 10))


def test_a_file_size_limit_is_an_error_with_the_state_saved(trained, begin, tmp_path):
    """The logs grow beyond it, the checkpoint does not."""
    def limit():
        size = 2 * (trained[0] / "last.safetensors").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    process = begin(preexec_fn=limit)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "File too large" in err and "is saved" in err, out + err
    assert step_of(tmp_path / "run") > 0


def test_a_log_that_cannot_be_written_costs_no_row(toy_recipe, toy, tmp_path):
    """Resuming writes the row that could not be written: the same rows and the same bits as a run that nothing ended."""
    from tool import rows_of, timeless
    whole = train(toy_recipe, toy, tmp_path / "whole", "--epochs", 40)
    run = tmp_path / "run"
    size = 3 * (tmp_path / "whole" / "last.safetensors").stat().st_size

    done = niti("train", toy_recipe, "--data", toy, "--run", run, "--threads", 1, "--epochs", 40, "--quiet",
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    assert done.returncode == 1 and "is saved" in done.stderr, done.stderr
    assert resume(run)["hash"] == whole["hash"]
    assert timeless(rows_of(run)) == timeless(rows_of(tmp_path / "whole"))


# ---- terminals ----

def on_terminal(command, columns, term, signal_at=None):
    """What the command writes on standard error where that is a terminal with this many columns; signal_at: sends SIGINT then."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
                               env={**os.environ, "TERM": term})
    os.close(theirs)
    text = b""
    while True:
        if signal_at and signal_at():
            process.send_signal(signal.SIGINT)
            signal_at = None
        if not select.select([ours], [], [], 0.01)[0]:
            continue
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.close(ours)
    return process.wait(timeout=60), text.decode()


def training(recipe, data, run, *arguments):
    return [NITI, "train", recipe, "--data", data, "--run", run, "--threads", "1", *arguments]


def test_a_dumb_terminal_gets_no_escape_sequences(toy_recipe, toy, tmp_path):
    code, text = on_terminal(training(toy_recipe, toy, tmp_path / "run"), 80, "dumb")
    assert code == 0 and "\x1b" not in text


@pytest.mark.parametrize("columns", [2, 20, 40])
def test_a_narrow_terminal_is_never_wrapped(toy_recipe, toy, tmp_path, columns):
    code, text = on_terminal(training(toy_recipe, toy, tmp_path / "run", "--epochs", 20), columns, "xterm")
    assert code == 0 and "\r\x1b[K" in text
    drawn = [part for part in text.split("\r\x1b[K") if not part.startswith("niti: ")]
    assert max(len(part.split("\r\n")[0]) for part in drawn) < columns


@pytest.mark.parametrize("columns", [20, 80])
def test_eval_shows_how_far_it_is(trained, toy, columns):
    """A line that changes and is gone in the end; elsewhere than on a terminal nothing, as long as it takes less than a second."""
    code, text = on_terminal([NITI, "eval", trained[0], "--data", toy, "--threads", "1"], columns, "xterm")
    drawn = text.split("\r\x1b[K")
    assert code == 0 and drawn[0] == drawn[-1] == "" and len(drawn) >= 3
    assert all(part.startswith("niti: ") and len(part) < columns for part in drawn[1:-1])
    assert niti("eval", trained[0], "--data", toy).stderr == ""


def test_a_key_pressed_in_a_long_step_is_answered(cifar, tmp_path):
    """One step of some seconds, by the portable kernels."""
    recipe = tmp_path / "slow.yaml"
    recipe.write_text("""\
name: slow
model:
  name: slow
  input: [32, 32, 3]
  classes: 10
  layers:
    - conv: {out: 64, kernel: 3, padding: 1}
    - conv: {out: 64, kernel: 3, padding: 1}
    - maxpool: {kernel: 8}
    - flatten
    - linear: {out: classes}
data: {mean: auto, std: auto}
batch: 50
epochs: 1
loss: niti
update: {kind: niti, mu: 3}
""")
    run = tmp_path / "run"
    code, text = on_terminal(training(recipe, cifar, run, "--isa", "ref", "--quiet"), 80, "xterm",
                             signal_at=(run / "last.safetensors").exists)
    assert code == 130 and "finishing the step" in text and "the state is saved" in text, text
    assert step_of(run) == 1


# ---- no locks ----

@pytest.fixture(scope="module")
def no_flock(tmp_path_factory):
    """A library that takes flock away, as some network file systems do."""
    folder = tmp_path_factory.mktemp("flock")
    (folder / "no_flock.c").write_text("#include <errno.h>\nint flock(int fd, int how) { (void)fd, (void)how; errno = ENOLCK; return -1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "no_flock.so", folder / "no_flock.c"], check=True)
    options = "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", "")  # this library comes before the sanitizer's
    return {**os.environ, "LD_PRELOAD": str(folder / "no_flock.so"), "ASAN_OPTIONS": options}


def test_a_file_system_without_locks(begin, no_flock, toy_recipe, toy, tmp_path):
    run = tmp_path / "run"
    process = begin(env=no_flock)
    done = niti("train", "--resume", run, "--threads", 1, env=no_flock)
    assert done.returncode == 1 and f"process {process.pid}" in done.stderr and str(run / ".lock.owner") in done.stderr
    code, _, err = stop(process)  # killed: its lock is left behind
    assert code == -signal.SIGKILL and "no file locks" in err and (run / ".lock.owner").exists()
    process = subprocess.Popen([NITI, "train", "--resume", run, "--threads", "1"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, env=no_flock)
    before = step_of(run)
    wait_until(lambda: step_of(run) > before, process)
    assert stop(process, signal.SIGTERM)[0] == 143
    assert not (run / ".lock.owner").exists()
