"""--json and --json-stream: objects alone on standard output, failures too, and the same figures everywhere."""
import csv
import json

import pytest

import data_sets
from tool import niti, start_training, stop


def objects_of(done):
    """The objects on standard output, a line each, and nothing else."""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def image(shared):
    path = shared / "json.png"
    data_sets.write_png(path, data_sets.squares(1, 3)[0][0])
    return path


def test_json_is_alone_on_standard_output(trained, toy, toy_recipe, image, tmp_path):
    last = trained[0] / "last.safetensors"
    for arguments in (("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--threads", 1), ("eval", last, "--data", toy),
                      ("train", toy_recipe, "--data", toy, "--dry-run"), ("predict", last, image), ("summary", "lenet5"), ("info",),
                      ("hash", last), ("data", toy), ("show", "lenet5"), ("train", "--resume", trained[0]),
                      ("bench", "infer", "--model", "mlp", "--batch", 1, "--seconds", 1)):
        done = niti(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert len(objects_of(done)) == 1, done.stdout


@pytest.mark.parametrize("arguments, code", [
    (("train", "no-such-recipe"), 1), (("eval", "none.safetensors"), 1), (("predict", "none.safetensors", "a.png"), 1),
    (("summary", "none.yaml"), 1), (("hash", "none.safetensors"), 1), (("data", "none"), 1), (("show", "none.yaml"), 1),
    (("info", "--backend", "none"), 1), (("bench", "step", "--model", "none"), 1),
    (("train",), 2), (("eval", "--nonsense"), 2), (("hash",), 2), (("nonsense",), 2), (("info", "--threads", "x"), 2)])
def test_failures_are_objects(tmp_path, arguments, code):
    done = niti(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == code
    failure, = objects_of(done)
    assert failure["exit_code"] == code and failure["error"] in done.stderr and len(failure["error"]) > 5
    assert niti(*arguments, cwd=tmp_path).stdout == ""


def test_a_failure_within_a_run_is_an_object(toy, toy_recipe, tmp_path):
    """The folder is taken."""
    (tmp_path / "file").write_text("x")
    failure, = objects_of(niti("train", toy_recipe, "--data", toy, "--run", tmp_path, "--json"))
    assert failure["exit_code"] == 1 and str(tmp_path) in failure["error"]


def test_the_stream_has_an_object_per_epoch(toy, toy_recipe, tmp_path):
    run = tmp_path / "run"
    done = niti("train", toy_recipe, "--data", toy, "--run", run, "--threads", 1, "--json-stream")
    start, *epochs, result = objects_of(done)
    assert [start["event"], *(epoch["event"] for epoch in epochs), result["event"]] == ["start", *["epoch"] * 3, "result"]
    assert start["epochs"] == 3 and start["steps"] == 30 and start["data"]["train"]["images"] == 160
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3] and [epoch["step"] for epoch in epochs] == [10, 20, 30]
    for key in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "best_test_accuracy", "loss_unit"):
        assert epochs[-1][key] == result[key]
    assert result["loss_unit"] == "nats" and result["epochs"] == result["epochs_begun"] == 3
    quiet = objects_of(niti("train", "--resume", run, "--json-stream", "--quiet"))
    assert quiet[-1]["event"] == "result" and quiet[-1]["hash"] == result["hash"]
    failure, = objects_of(niti("train", "no-such-recipe", "--json-stream"))
    assert failure["event"] == "error"


def test_the_stream_comes_as_it_happens(toy, toy_recipe, tmp_path):
    process = start_training(toy_recipe, "--data", toy, "--run", tmp_path / "run", "--epochs", 100000, "--json-stream")
    assert [json.loads(process.stdout.readline())["event"] for _ in range(4)] == ["start", "epoch", "epoch", "epoch"]
    code, out, err = stop(process, 15)
    assert code == 143 and json.loads(out.splitlines()[-1])["interrupted"] is True, err


def test_images_per_second_is_one_quantity(toy, toy_recipe, tmp_path):
    """In metrics.csv, metrics.jsonl, the stream and on the console: images trained in the epoch divided by the time that its steps took."""
    run = tmp_path / "run"
    done = niti("train", toy_recipe, "--data", toy, "--run", run, "--threads", 1, "--json-stream")
    streamed = [part["images_per_second"] for part in objects_of(done) if part["event"] == "epoch"]
    printed = [int(line.split()[-2]) for line in done.stderr.splitlines() if line.startswith("epoch ") and "images/s" in line
               and "best" in line]
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        logged = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    assert len(streamed) == len(printed) == len(logged) == 3
    for a, b, c in zip(streamed, printed, logged):
        assert abs(a - b) <= 0.51 and abs(a - c) < 0.051


def test_epochs_begun_and_completed(toy, toy_recipe, tmp_path):
    """A run that max_steps ends within its second epoch."""
    result, = objects_of(niti("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--max-steps", 13, "--json"))
    assert (result["epochs"], result["epochs_begun"], result["steps"]) == (1, 2, 13) and 1 <= result["best_epoch"] <= 2


def test_losses_name_their_unit(trained, toy):
    done = niti("eval", trained[0] / "last.safetensors", "--data", toy)
    assert "nats" in done.stdout
    result, = objects_of(niti("eval", trained[0] / "last.safetensors", "--data", toy, "--json"))
    assert result["loss_unit"] == "nats"
