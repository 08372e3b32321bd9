"""Which images score a run: validation, test, how often and how many; and what `best` was chosen on."""
import csv
import json
import os
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import data_sets
from tool import (content_of, fails, forge, hash_of, json_of, metadata_of, misused, niti, output_of, resume, rows_of, start_training, stop,
                  timeless, train, wait_for)

EPOCHS = 8
NEW_KEYS = ("validation_set_images", "validation_set_sha256", "validation_set_names_sha256", "best_on_validation", "test_every", "test_limit",
            *(f"{split}_{sum}" for split in ("validation", "best_test") for sum in ("loss_sum", "correct", "images")))


def noisy(count, seed):
    """Images whose labels are partly wrong, so that no network gets all of them and accuracies differ from epoch to epoch."""
    images, labels = data_sets.squares(count, seed)
    random = np.random.default_rng(seed)
    labels = np.where(random.random(count) < 0.3, random.integers(0, 4, count), labels).astype(np.uint8)
    return images // 2 + random.integers(0, 128, images.shape).astype(np.uint8), labels


def write_set(folder, **splits):
    """IDX files of train, t10k and validation."""
    folder.mkdir()
    for split, (images, labels) in splits.items():
        data_sets.write_idx(folder / f"{split}-images-idx3-ubyte", images[:, :, :, 0])
        data_sets.write_idx(folder / f"{split}-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture(scope="module")
def three(shared):
    """A data set with validation images."""
    return write_set(shared / "three", train=noisy(320, 1), t10k=noisy(60, 2), validation=noisy(90, 3))


@pytest.fixture(scope="module")
def two(shared):
    """The same, but what was validation is the test split."""
    return write_set(shared / "two", train=noisy(320, 1), t10k=noisy(90, 3))


@pytest.fixture(scope="module")
def validated(shared, toy_recipe, three):
    run = shared / "validated"
    return run, train(toy_recipe, three, run, "--epochs", EPOCHS)


# ---- validation ----

def test_best_is_chosen_on_validation(validated, two, toy_recipe, tmp_path):
    """A run whose test images are this one's validation images chooses the same epoch from the same scores."""
    run, result = validated
    plain = train(toy_recipe, two, tmp_path / "plain", "--epochs", EPOCHS)
    assert result["hash"] == plain["hash"] and result["best_epoch"] == plain["best_epoch"]
    assert hash_of(run / "best.safetensors") == hash_of(tmp_path / "plain" / "best.safetensors")
    rows, others = rows_of(run), rows_of(tmp_path / "plain")
    for mine, theirs in (("validation_loss", "test_loss"), ("validation_accuracy", "test_accuracy"),
                         ("best_validation_accuracy", "best_test_accuracy")):
        assert [row[mine] for row in rows] == [row[theirs] for row in others] and result[mine] == plain[theirs]
    accuracies = [row["validation_accuracy"] for row in rows]
    assert len(set(accuracies)) > 2 and result["best_epoch"] == 1 + accuracies.index(max(accuracies)) < EPOCHS
    assert result["testing"] == {"chosen_on": "validation", "every": 1, "limit": None, "of": 90}
    assert plain["testing"] == {"chosen_on": "test", "every": 1, "limit": None, "of": 90}
    assert json.loads((run / "environment.json").read_text())["best_chosen_on"] == "validation"
    assert json.loads((tmp_path / "plain" / "environment.json").read_text())["best_chosen_on"] == "test"


def test_the_test_split_is_scored_once_at_the_end(validated, three):
    """Of the final weights and of the best ones, as `niti eval` scores them."""
    run, result = validated
    rows = rows_of(run)
    for row in rows[:-1]:
        assert row["test_loss"] is row["test_accuracy"] is row["best_test_accuracy"] is None
    final, best = json_of("eval", f"{run}:last", "--data", three), json_of("eval", f"{run}:best", "--data", three)
    assert final["images"] == best["images"] == 60
    assert (result["test_accuracy"], result["test_loss"]) == (final["test_accuracy"], final["test_loss"])
    assert result["best_test_accuracy"] == best["test_accuracy"] != final["test_accuracy"]
    assert rows[-1]["test_accuracy"] == pytest.approx(final["test_accuracy"], abs=6e-5)
    assert rows[-1]["best_test_accuracy"] == pytest.approx(best["test_accuracy"], abs=6e-5)
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["test_accuracy"] == "" for row in table] == [True] * (EPOCHS - 1) + [False]


def test_console_and_introduction_name_the_splits(three, two, toy_recipe, tmp_path):
    text = output_of("train", toy_recipe, "--data", three, "--run", tmp_path / "three", "--threads", 1)
    lines = text.splitlines()
    assert any(line.startswith("  validation 90 images, SHA-256 ") for line in lines)
    assert any(line.startswith("testing ") and "90 validation images" in line and "test split once, at the end" in line for line in lines)
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert all("validation loss" in line for line in epochs) and ["test loss" in line for line in epochs] == [False, False, True]
    assert "chosen on the validation split" in text and "of the final weights" in text and "of the best" in text
    text = output_of("train", toy_recipe, "--data", two, "--run", tmp_path / "two", "--threads", 1)
    assert text.count("chosen on the test split") == 2 and "validation" not in text.replace("data.validation", "")
    held = output_of("train", toy_recipe, "--data", two, "--run", tmp_path / "held", "--threads", 1, "--set", "data.validation=10%")
    assert "validation 32 images, held out of the training files" in held and "SHA-256" in held


def test_images_held_out_choose_best(toy_recipe, two, three, tmp_path):
    """And a data set with validation images has none to hold out."""
    result = train(toy_recipe, two, tmp_path / "run", "--epochs", EPOCHS, "--set", "data.validation=80")
    rows = rows_of(tmp_path / "run")
    accuracies = [row["validation_accuracy"] for row in rows]
    assert result["best_epoch"] == 1 + accuracies.index(max(accuracies)) and result["testing"]["of"] == 80
    assert all(abs(value * 80 / 100 - round(value * 80 / 100)) < 1e-4 for value in accuracies)
    assert result["data"]["validation"] == {"images": 80, "sha256": result["data"]["train"]["sha256"]}
    assert metadata_of(tmp_path / "run" / "last.safetensors")["validation_set_images"] == "80"
    fails("train", toy_recipe, "--data", three, "--run", tmp_path / "none", "--set", "data.validation=80", says="data.validation must be 0")


def test_a_folder_val_beside_test_is_validation(recipe, tmp_path):
    colour = recipe(("[8, 8, 1]", "[8, 8, 3]"))
    names = ["a", "b", "c", "d"]
    data = data_sets.write_folder_set(tmp_path / "data", names, data_sets.squares(80, 1, channels=3), data_sets.squares(20, 2, channels=3))
    data_sets.write_folder_set(tmp_path / "more", names, data_sets.squares(4, 1, channels=3), data_sets.squares(12, 3, channels=3))
    (tmp_path / "more" / "test").rename(data / "val")
    result = train(colour, data, tmp_path / "run")
    assert result["testing"]["chosen_on"] == "validation" and result["data"]["validation"]["images"] == 12
    assert result["data"]["test"]["images"] == 20 and result["test_accuracy"] is not None


def test_a_run_without_test_images_may_validate(toy_recipe, tmp_path):
    data = write_set(tmp_path / "data", train=noisy(160, 1))
    fails("train", toy_recipe, "--data", data, "--run", tmp_path / "run", says=(data, "test"))
    result = train(toy_recipe, data, tmp_path / "run", "--set", "data.validation=20%")
    assert result["test_accuracy"] is result["best_test_accuracy"] is None and result["best_validation_accuracy"] > 0
    assert resume(tmp_path / "run")["hash"] == result["hash"]
    assert "test" not in result["data"]


# ---- how often, and how many ----

def test_test_every(toy_recipe, two, tmp_path):
    every = train(toy_recipe, two, tmp_path / "one", "--epochs", EPOCHS)
    result = train(toy_recipe, two, tmp_path / "three", "--epochs", EPOCHS, "--test-every", 3)
    rows, expected = rows_of(tmp_path / "three"), rows_of(tmp_path / "one")
    tested = [3, 6, EPOCHS]
    assert [row["epoch"] for row in rows if row["test_accuracy"] is not None] == tested
    for row, other in zip(rows, expected):
        if row["epoch"] in tested:
            assert (row["test_loss"], row["test_accuracy"]) == (other["test_loss"], other["test_accuracy"])
    best = max(tested, key=lambda epoch: (expected[epoch - 1]["test_accuracy"], -epoch))
    assert result["best_epoch"] == best and result["hash"] == every["hash"] and result["testing"]["every"] == 3
    text = output_of("train", toy_recipe, "--data", two, "--run", tmp_path / "text", "--threads", 1, "--test-every", 2)
    assert "after every 2 epochs" in text
    assert ["not tested" in line for line in text.splitlines() if line.startswith("epoch ")] == [True, False, False]


def test_test_limit(toy_recipe, two, tmp_path):
    """20 of 90 images are numbers 0, 4, 9, 13 and so on: floor(i * 90 / 20)."""
    images, labels = noisy(90, 3)
    chosen = [i * 90 // 20 for i in range(20)]
    few = write_set(tmp_path / "few", train=noisy(320, 1), t10k=(images[chosen], labels[chosen]))
    expected = train(toy_recipe, few, tmp_path / "expected")
    result = train(toy_recipe, two, tmp_path / "limited", "--test-limit", 20)
    keys = ("hash", "test_loss", "test_accuracy", "best_test_accuracy", "best_epoch")
    assert [result[key] for key in keys] == [expected[key] for key in keys]
    assert result["testing"] == {"chosen_on": "test", "every": 1, "limit": 20, "of": 90}
    assert timeless(rows_of(tmp_path / "limited")) == timeless(rows_of(tmp_path / "expected"))
    text = output_of("train", toy_recipe, "--data", two, "--run", tmp_path / "text", "--threads", 1, "--test-limit", 20)
    assert "20 of 90 test images" in text and "scored on 20 of 90 test images, evenly spread" in text
    whole = train(toy_recipe, two, tmp_path / "whole", "--test-limit", 90)
    assert whole["testing"]["limit"] is None


def test_a_limit_does_not_touch_the_final_test(toy_recipe, three, tmp_path):
    result = train(toy_recipe, three, tmp_path / "run", "--test-limit", 9)
    assert result["testing"] == {"chosen_on": "validation", "every": 1, "limit": 9, "of": 90}
    assert result["test_accuracy"] == json_of("eval", f"{tmp_path / 'run'}:last")["test_accuracy"]


@pytest.mark.parametrize("option", ["--test-every", "--test-limit"])
def test_bad_numbers_are_refused(option, toy_recipe, two, validated):
    for value in ("0", "-1", "x", "1.5"):
        misused("train", toy_recipe, "--data", two, option, value, says=option)
    misused("train", "--resume", validated[0], option, "2", says="--resume")


# ---- resuming ----

def test_a_resumed_run_goes_on_with_the_same_validation_and_best(toy_recipe, three, tmp_path):
    """Stopped again and again, it ends as the run that was never stopped."""
    options = ("--epochs", 60, "--test-every", 2, "--test-limit", 45)
    expected = train(toy_recipe, three, tmp_path / "whole", *options)
    run = tmp_path / "run"
    process = start_training(toy_recipe, "--data", three, "--run", run, *options)
    wait_for(run / "best.safetensors", process)
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        stop(process, number)
        process = start_training("--resume", run)
        step = metadata_of(run / "last.safetensors")["step"]
        while process.poll() is None and metadata_of(run / "last.safetensors")["step"] == step:
            pass
    process.communicate(timeout=60)
    result = resume(run)
    for key in ("hash", "best_epoch", "validation_accuracy", "best_validation_accuracy", "test_accuracy", "best_test_accuracy", "testing"):
        assert result[key] == expected[key], key
    assert timeless(rows_of(run)) == timeless(rows_of(tmp_path / "whole"))
    assert hash_of(run / "best.safetensors") == hash_of(tmp_path / "whole" / "best.safetensors")


def stopped(recipe, data, run):
    process = start_training(recipe, "--data", data, "--run", run, "--epochs", 100000)
    wait_for(run / "best.safetensors", process)
    assert stop(process, signal.SIGINT)[0] == 130


def test_a_run_from_before_goes_on_choosing_on_test(toy_recipe, three, tmp_path):
    """Its checkpoint has no key of validation, and its metrics no columns."""
    run = tmp_path / "run"
    stopped(toy_recipe, three, run)
    forge(run / "last.safetensors", lambda metadata, _: [metadata.pop(key) for key in NEW_KEYS])
    process = start_training("--resume", run, "--json")
    step = metadata_of(run / "last.safetensors")["step"]
    while metadata_of(run / "last.safetensors")["step"] == step:
        assert process.poll() is None
    code, out, _ = stop(process, signal.SIGINT)
    result = json.loads(out.splitlines()[-1])
    assert code == 130 and result["testing"]["chosen_on"] == "test" and "validation_accuracy" not in result
    assert metadata_of(run / "last.safetensors")["best_on_validation"] == "0"


def test_other_validation_images_are_refused(toy_recipe, three, tmp_path):
    run = tmp_path / "run"
    stopped(toy_recipe, three, run)
    for name, validation in (("fewer", noisy(89, 3)), ("others", noisy(90, 4))):
        data = write_set(tmp_path / name, train=noisy(320, 1), t10k=noisy(60, 2), validation=validation)
        before = content_of(run)
        fails("train", "--resume", run, "--data", data, says=(data, "validation images"))
        assert content_of(run) == before


@pytest.mark.parametrize("limit", [None, 20])
def test_scores_of_other_images_than_a_split_has_are_refused(limit, toy_recipe, three, tmp_path):
    """Of 90 validation images, or as many as --test-limit says, and 60 test images."""
    run = tmp_path / "run"
    result = train(toy_recipe, three, run, *(["--test-limit", limit] if limit else []))
    last, scored = run / "last.safetensors", limit or 90
    content = last.read_bytes()
    assert resume(run)["hash"] == result["hash"]
    for key, most in (("validation", scored), ("best", scored), ("test", 60), ("best_test", 60)):
        assert metadata_of(last)[f"{key}_images"] == str(most)
        forge(last, lambda metadata, _: metadata.update({f"{key}_images": str(most + 1)}))
        fails("train", "--resume", run, says=(last, f"'{key}_images' is {most + 1} (expected 0 or {most},"))
        last.write_bytes(content)
        forge(last, lambda metadata, _: metadata.update({f"{key}_images": "1", f"{key}_correct": "1"}))
        fails("train", "--resume", run, says=(last, f"'{key}_images' is 1 (expected 0 or {most},"))
        last.write_bytes(content)


# ---- niti eval --split ----

def test_eval_scores_any_split(validated, three, tmp_path):
    """Validation as the run scored it; and it alone suffices."""
    run, result = validated
    last = f"{run}:last"
    scored = json_of("eval", last, "--split", "validation")
    assert (scored["split"], scored["images"], scored["validation_accuracy"]) == ("validation", 90, result["validation_accuracy"])
    assert scored["data"]["of_run"] is True and "test" not in scored["data"]
    assert json_of("eval", last, "--split", "test")["test_accuracy"] == json_of("eval", last)["test_accuracy"] == result["test_accuracy"]
    assert json_of("eval", last, "--split", "train")["images"] == 320
    alone = write_set(tmp_path / "alone", validation=noisy(90, 3))
    assert json_of("eval", last, "--data", alone, "--split", "validation")["validation_accuracy"] == scored["validation_accuracy"]
    fails("eval", last, "--data", alone, says=(alone, "test"))
    assert "validation accuracy" in output_of("eval", last, "--split", "validation")
    misused("eval", last, "--split", "val", says="--split")


def test_eval_knows_what_was_held_out(toy_recipe, two, tmp_path):
    """The images scored after the last epoch, and those trained on."""
    result = train(toy_recipe, two, tmp_path / "run", "--set", "data.validation=25%")
    scored = json_of("eval", f"{tmp_path / 'run'}:last", "--split", "validation")
    assert scored["images"] == 80 and scored["validation_accuracy"] == result["validation_accuracy"]
    assert scored["validation_loss"] == result["validation_loss"] and scored["data"]["of_run"] is True
    assert json_of("eval", f"{tmp_path / 'run'}:last", "--split", "train")["images"] == 240


def test_eval_of_a_folder_with_val_alone(recipe, tmp_path):
    names = ["a", "b", "c", "d"]
    data = data_sets.write_folder_set(tmp_path / "data", names, data_sets.squares(80, 1, channels=3), data_sets.squares(20, 2, channels=3))
    (data / "test").rename(data / "val")
    train(recipe(("[8, 8, 1]", "[8, 8, 3]")), data, tmp_path / "run")
    both = [json_of("eval", tmp_path / "run", "--split", split) for split in ("test", "validation")]
    assert both[0]["correct"] == both[1]["correct"] and both[0]["images"] == both[1]["images"] == 20
