"""`niti train --resume RUN --epochs N`: a run extended is the run that was N epochs long from the start."""
import json
import shutil
import signal

import pytest

from test_validation import noisy, write_set
from tool import (content_of, fails, forge, hash_of, metadata_of, misused, niti, output_of, resume, rows_of, start_training, stop, timeless, train,
                  wait_for)

SCHEDULE = ("--set", "update.mu=[{epoch: 0, mu: 3}, {epoch: 2, mu: 2}, {step: 55, mu: 1}]")


@pytest.fixture(scope="module")
def data(shared):
    return write_set(shared / "extended-data", train=noisy(160, 1), t10k=noisy(40, 2))


@pytest.fixture(scope="module")
def straight(shared, toy_recipe, data):
    """(run, result) of 8 epochs of 10 steps."""
    run = shared / "straight"
    return run, train(toy_recipe, data, run, *SCHEDULE, "--epochs", 8)


def check_as_straight(run, result, straight):
    whole, expected = straight
    for key in ("hash", "epochs", "steps", "best_epoch", "train_loss", "test_loss", "best_test_accuracy"):
        assert result[key] == expected[key], key
    assert timeless(rows_of(run)) == timeless(rows_of(whole))
    assert hash_of(run / "best.safetensors") == hash_of(whole / "best.safetensors")
    assert (run / "recipe.yaml").read_text() == (whole / "recipe.yaml").read_text()
    assert metadata_of(run / "last.safetensors")["recipe"] == metadata_of(whole / "last.safetensors")["recipe"]


def test_an_extended_run_is_the_longer_run(toy_recipe, data, straight, tmp_path):
    run = tmp_path / "run"
    train(toy_recipe, data, run, *SCHEDULE, "--epochs", 3)
    assert resume(run, "--epochs", 5)["epochs"] == 5
    done = niti("train", "--resume", run, "--threads", 1, "--epochs", 8, "--json")
    assert done.returncode == 0 and "extended to 8 epochs" in done.stderr, done.stderr
    check_as_straight(run, json.loads(done.stdout), straight)
    assert metadata_of(run / "last.safetensors")["extensions"] == "step 30: 3 to 5 epochs; step 50: 5 to 8 epochs"
    assert resume(run)["hash"] == straight[1]["hash"]


@pytest.mark.parametrize("change, says", [
    ({"step": "35", "complete": "0"}, "step 35 is not in epoch 3"), ({"step": "29", "epoch": "2"}, "'complete' is 1 after step 29"),
])
def test_a_damaged_run_is_not_extended(toy_recipe, data, tmp_path, change, says):
    """What its own end does not allow, a later one does not either."""
    run = tmp_path / "run"
    train(toy_recipe, data, run, "--epochs", 3)
    forge(run / "last.safetensors", lambda metadata, _: metadata.update(change))
    before = content_of(run)
    for epochs in ((), ("--epochs", 8)):
        fails("train", "--resume", run, "--quiet", *epochs, says=("last.safetensors", says))
    assert content_of(run) == before


def test_a_run_that_is_not_over_is_extended_too(toy_recipe, data, tmp_path):
    """Stopped within its first epochs, extended, killed, and gone on with by --resume alone."""
    expected = train(toy_recipe, data, tmp_path / "whole", "--epochs", 400)
    run = tmp_path / "run"
    process = start_training(toy_recipe, "--data", data, "--run", run, "--epochs", 300)
    wait_for(run / "best.safetensors", process)
    assert stop(process, signal.SIGINT)[0] == 130
    process = start_training("--resume", run, "--epochs", 400)
    while "extensions" not in metadata_of(run / "last.safetensors"):
        assert process.poll() is None
    stop(process, signal.SIGKILL)
    step = json.loads(json.dumps(metadata_of(run / "last.safetensors")))["extensions"]
    assert step.endswith(": 300 to 400 epochs")
    assert resume(run)["hash"] == expected["hash"] and rows_of(run)[-1]["epoch"] == 400
    assert (run / "recipe.yaml").read_text() == (tmp_path / "whole" / "recipe.yaml").read_text()


def test_an_extended_run_with_validation(toy_recipe, tmp_path):
    """The test split is scored at the new end."""
    data = write_set(tmp_path / "data", train=noisy(160, 1), t10k=noisy(40, 2), validation=noisy(50, 3))
    expected = train(toy_recipe, data, tmp_path / "whole", "--epochs", 6)
    run = tmp_path / "run"
    train(toy_recipe, data, run, "--epochs", 5)
    shutil.copytree(run, tmp_path / "damaged")
    result = resume(run, "--epochs", 6)
    for key in ("hash", "best_epoch", "validation_accuracy", "best_validation_accuracy", "test_accuracy", "best_test_accuracy"):
        assert result[key] == expected[key], key
    assert [row["test_accuracy"] is None for row in rows_of(run)] == [True, True, True, True, False, False]
    assert expected["best_epoch"] == 5  # so that the extended run needs best.safetensors, which is damaged now, and last.safetensors is that
    (tmp_path / "damaged" / "best.safetensors").write_bytes(b"x")
    done = niti("train", "--resume", tmp_path / "damaged", "--threads", 1, "--epochs", 6, "--json")
    assert done.returncode == 0 and "best.safetensors made of last.safetensors" in done.stderr, done.stderr
    result = json.loads(done.stdout)
    assert all(result[key] == expected[key] for key in ("hash", "best_epoch", "test_accuracy", "best_test_accuracy"))


def refused(run, epochs, *says):
    before = content_of(run)
    fails("train", "--resume", run, "--epochs", epochs, "--quiet", says=says)
    assert content_of(run) == before


def test_what_cannot_be_extended(toy_recipe, data, tmp_path, straight):
    run = tmp_path / "share"
    train(toy_recipe, data, run, "--set", "update.mu=[{epoch: 0, mu: 3}, {at: 50%, mu: 1}]")
    refused(run, 5, "update.mu", "shares", "30 steps")
    sgd = "update={kind: sgd, lr: 0.01, schedule: cosine}"
    train(toy_recipe, data, tmp_path / "cosine", "--set", sgd)
    refused(tmp_path / "cosine", 8, "update.schedule is cosine, a curve over the whole run", "a run of 8 epochs", "30 steps")
    train(toy_recipe, data, tmp_path / "lr", "--set", "update={kind: sgd, lr: [{epoch: 0, lr: 0.01}, {at: 50%, lr: 0.001}]}")
    refused(tmp_path / "lr", 5, "update.lr has positions in shares of the run")
    run = tmp_path / "steps"
    train(toy_recipe, data, run, "--max-steps", 25)
    refused(run, 5, "max_steps", "step 25")
    refused(straight[0], 7, "epochs: 7", "has 8")


def test_as_many_epochs_as_it_has(straight):
    before = content_of(straight[0])
    assert resume(straight[0], "--epochs", 8)["hash"] == straight[1]["hash"]
    assert content_of(straight[0]) == before


@pytest.mark.parametrize("epochs", ["0", "-3", "x", "1000001", "4.5", "08", ""])
def test_bad_numbers_of_epochs(epochs, straight):
    misused("train", "--resume", straight[0], "--epochs", epochs, says="--epochs")


def test_the_help_says_so():
    assert "extend the run to N epochs" in " ".join(output_of("help", "train").split())
