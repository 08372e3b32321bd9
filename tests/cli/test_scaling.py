"""bench/scaling.py, which predicts steps of many ranks, and bench/local_ranks.sh, which starts some without MPI."""
import subprocess
import sys

import pytest

from tool import NITI, ROOT


def predict(network, *options, latency=20, step=("1024:3.2", "512:1.7")):
    words = [sys.executable, ROOT / "bench/scaling.py", network, "--latency", latency, "--bandwidth", 213, "--niti", NITI, *options]
    return subprocess.run([str(word) for word in words] + [word for text in step for word in ("--step", text)], capture_output=True, text=True)


def rows_of(done):
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    return [[float(cell) for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_prediction_is_that_of_the_formula():
    done = predict("lenet5", "--batch", 256, "--ranks", "1,2,8", step=("256:12", "64:6"))
    gradients = 4 * (10 * 500 + 500 * 800 + 50 * 25 * 20) + 8 * 20 * 25  # conv1 sums 256 * 24 * 24 products, in 64 bits
    sizes = [(1, 256, 12.0), (2, 128, 8.0 + 7 * 20e-3 + gradients / 213e6), (8, 32, 5.0 + 7 * 3 * 20e-3 + 2 * 7 / 8 * gradients / 213e6)]
    for (ranks, share, ms), row in zip(sizes, rows_of(done), strict=True):
        assert row[:4] == [ranks, 256, share, 7 if ranks > 1 else 0] and row[5] == pytest.approx(ms, abs=6e-4)
        assert row[7] == pytest.approx(12 / ms, abs=6e-3)
    assert "does not take" not in done.stdout


def test_a_batch_beyond_what_niti_takes_is_predicted_with_a_smaller_one_s_exchanges():
    done = predict("vgg-small-7-cifar10", "--batch", 1024, "--weak")
    rows = rows_of(done)
    assert [row[0] for row in rows] == [2**k for k in range(11)] and [row[1] for row in rows] == [2**(k + 10) for k in range(11)]
    assert {row[3] for row in rows[1:]} == {13} and rows[-1][4] == rows[7][4]
    assert "\nFrom 128 ranks on niti does not take the batch: a batch of 131072 images (expected at most 65536 in a recipe)" in done.stdout
    assert "does not take" not in predict("vgg-small-7-cifar10", "--batch", 1024, "--weak", "--ranks", "1,64").stdout
    done = predict("vgg-small-7-cifar10", "--batch", 1024, "--weak", "--ranks", "1,256")  # the first that niti does not even lower
    assert "From 256 ranks on" in done.stdout and "a batch of 262144 images (expected at most 2^34)" in done.stdout
    assert rows_of(done) == [rows[0], rows[8]]


@pytest.mark.parametrize("network, options, step, code, says", [
    ("nope", (), ("64:1",), 1, "scaling.py: no network 'nope' (expected"),
    ("lenet5", ("--niti", "/nowhere/niti"), ("64:1",), 1, "scaling.py: /nowhere/niti: No such file or directory"),
    ("lenet5", ("--ranks", "2,2000000"), ("64:1",), 1, "scaling.py: --ranks: '2000000' is not a whole number from"),
    ("lenet5", ("--ranks", "0"), ("64:1",), 2, "argument --ranks: "),
    ("lenet5", (), ("64:1", "64:2"), 2, "argument --step: expected one, or two with different numbers of images"),
    ("lenet5", (), ("64",), 2, "argument --step: "),
])
def test_what_cannot_be_predicted_is_said_in_a_line(network, options, step, code, says):
    done = predict(network, "--batch", 64, *options, step=step)
    assert done.returncode == code and done.stdout == "" and says in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr and (code == 2 or done.stderr.count("\n") == 1)


def start(*arguments):
    return subprocess.run([ROOT / "bench/local_ranks.sh", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [(), ("2",), ("0", "true"), ("two", "true"), ("2x", "true"), ("-1", "true"), ("65", "true")])
def test_local_ranks_wants_a_number_and_a_command(arguments):
    done = start(*arguments)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr == "usage: bench/local_ranks.sh N COMMAND ARGUMENT... (N from 1 to 64)\n"


@pytest.mark.parametrize("count", ["1", "9", "10", "64"])
def test_local_ranks_starts_that_many(count):
    done = start(count, "sh", "-c", "echo $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE; exit 3")
    assert done.returncode == 3 and sorted(done.stdout.split("\n")) == sorted(["", *(f"{rank} of {count}" for rank in range(int(count)))])
