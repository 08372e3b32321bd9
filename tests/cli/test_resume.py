"""Runs that are killed, interrupted or damaged go on and end with the bits of a run that never stopped."""
import hashlib
import json
import pathlib
import random
import shutil
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import data_sets
import tool
from recipes import NORMED
from tool import (content_of, fails, forge, hash_of, json_of, metadata_of, niti, resume, rows_of, start_training, stop, tensors_of, timeless, train,
                  wait_for)

KILLS = 20


@pytest.fixture(scope="module")
def long_set(shared):
    """1,000 training images: epochs of 63 steps at batch 16."""
    return data_sets.write_idx_set(shared / "long", data_sets.squares(1000, 1), data_sets.squares(40, 2))


def events_of(run, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return [(point.step, point.value) for point in events.Scalars(tag)]


def check_same(run, whole, result, expected):
    """The run in folder `run` ended as the one in `whole` that was never stopped, and left nothing half done."""
    for key in ("hash", "epochs", "steps", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "best_test_accuracy",
                "best_epoch"):
        assert result[key] == expected[key], key
    assert hash_of(run / "last.safetensors") == expected["hash"]
    assert timeless(rows_of(run)) == timeless(rows_of(whole))
    columns = [[line.split(",")[:8] for line in (folder / "metrics.csv").read_text().splitlines()] for folder in (run, whole)]
    assert columns[0] == columns[1]
    assert hash_of(run / "best.safetensors") == hash_of(whole / "best.safetensors")
    assert not [name for name in content_of(run) if name.endswith(".tmp")]


def kill_again_and_again(recipe, data, run, epochs, kills):
    """Kills the run so many times, goes on each time, and returns the steps saved by then; None: it ended before. Every kill but each
    fourth, which may come while the process starts, waits until it has saved more than the one before did."""
    draw = random.Random(1913)
    process = start_training(recipe, "--data", data, "--run", run, "--epochs", epochs)
    wait_for(run / "last.safetensors", process)
    steps = [0]
    for number in range(kills):
        while number % 4 != 3 and process.poll() is None and int(metadata_of(run / "last.safetensors")["step"]) <= steps[-1]:
            time.sleep(0.001)
        time.sleep(0.03 * draw.random())
        code, _, err = stop(process)
        if code == 0:
            return None
        assert code == -signal.SIGKILL, err
        steps.append(int(metadata_of(run / "last.safetensors")["step"]))
        process = start_training("--resume", run)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return steps


def check_kills(recipe, data, folder, kills):
    """Where a fast or busy machine lets the run end before the last kill, a longer one takes its place."""
    epochs, steps = 2 * kills, None
    while not steps:
        run = folder / f"run-{epochs}"
        steps = kill_again_and_again(recipe, data, run, epochs, kills)
        epochs *= 1 if steps else 4
        assert epochs < 1000000
    whole = folder / "whole"
    expected = train(recipe, data, whole, "--epochs", epochs, timeout=300)
    assert steps == sorted(steps) and len(set(steps)) > kills // 2 and steps[-1] < expected["steps"]
    check_same(run, whole, resume(run), expected)
    assert events_of(run, "accuracy/test") == events_of(whole, "accuracy/test")
    return run, whole


def test_killed_at_twenty_moments(toy_recipe, long_set, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(toy_recipe.read_text().replace("- flatten", "- dropout\n    - flatten").replace(
        "loss: softmax", "loss: niti\nrounding: {activation: stochastic, error: stochastic}"))
    check_kills(recipe, long_set, tmp_path, KILLS)


def test_killed_with_norms_and_masters(long_set, tmp_path):
    """The optimiser's state goes on with the same bits too."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(NORMED)
    run, whole = check_kills(recipe, long_set, tmp_path, KILLS // 2)
    kept, expected = (tensors_of(folder / "last.safetensors") for folder in (run, whole))
    assert kept.keys() == expected.keys() and "conv1.master" in kept and "norm1.bias.velocity" in kept
    assert all((kept[name] == expected[name]).all() for name in kept)


def test_interrupted_in_the_middle_of_an_epoch(toy_recipe, tmp_path):
    """Three epochs of about a second each, and signals within them: the state is saved at the step, not at the epoch."""
    data = data_sets.write_idx_set(tmp_path / "data", data_sets.squares(1000, 1), data_sets.squares(40, 2))
    measured = train(toy_recipe, data, tmp_path / "measured", "--batch", 2, "--epochs", 20)
    times = max(1, int(measured["images_per_second"] / 1000))
    images, labels = data_sets.squares(1000 * times, 1)
    data_sets.write_idx_set(data, (images, labels), data_sets.squares(40, 2))
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = ("--batch", 2, "--epochs", 3, "--set", "data.crop=random", "--set", "data.pad=1", "--set", "data.flip=true", "--set",
               "data.cutout=3", "--set", "data.contrast=0.5")
    expected = train(toy_recipe, data, whole, *options)
    per_epoch = 500 * times
    assert expected["steps"] == 3 * per_epoch

    process = start_training(toy_recipe, "--data", data, "--run", run, "--json", *options)
    wait_for(run / "last.safetensors", process)
    steps, pause = [], 0.25
    for number, exit_code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        while True:
            time.sleep(pause)
            code, out, err = stop(process, number)
            assert code == exit_code, out + err
            report = json.loads(out.splitlines()[-1])
            if "error" not in report:
                break
            assert "nothing was trained or written" in err and pause < 8  # a busy machine: not yet at its first step
            pause *= 2
            process = start_training("--resume", run, "--json")
        assert report["interrupted"] is True and f"niti train --resume {run}" in err
        steps.append(report["steps"])
        saved = metadata_of(run / "last.safetensors")
        assert saved["step"] == str(report["steps"]) and saved["hash"] == report["hash"]
        process = start_training("--resume", run, "--json")
    assert 0 < steps[0] < steps[1] < steps[2] < expected["steps"]
    assert sum(step % per_epoch != 0 for step in steps) >= 2, "the signals did not come in the middle of an epoch"
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and f"step {steps[2]}" in err, err
    check_same(run, whole, json.loads(out.splitlines()[-1]), expected)
    for tag in ("update/mu", "changed_weights/conv1", "changed_weights/linear1"):
        assert events_of(run, tag) == events_of(whole, tag)


def test_a_finished_run_just_reports(trained, toy):
    run, result = trained
    before = content_of(run)
    again = resume(run)
    of_the_call = ("images_per_second", "shift_predictions", "shift_retries")
    assert {key: again[key] for key in again if key not in of_the_call} == {
        key: result[key] for key in result if key not in of_the_call}
    assert content_of(run) == before
    done = niti("train", "--resume", run)
    assert done.returncode == 0 and "complete" in done.stderr and result["hash"] in done.stdout


def test_a_run_that_ended_within_an_epoch_is_complete(toy_recipe, toy, tmp_path):
    result = train(toy_recipe, toy, tmp_path / "run", "--max-steps", 13)
    rows = rows_of(tmp_path / "run")
    assert resume(tmp_path / "run")["hash"] == result["hash"] and rows_of(tmp_path / "run") == rows


# ---- a checkpoint of an earlier program ----

# tests/data/run-0.1.0.safetensors: this recipe on striped(1200, 0) and striped(40, 1200), stopped by SIGINT after step 453 of 900, as
# the program wrote it before the state of a run was one table. That program's undisturbed run ended with this hash.
BEFORE = tool.ROOT / "tests" / "data" / "run-0.1.0.safetensors"
BEFORE_HASH = "f1af48d0492a003f8a9600862cf466efe63fab32782426d911f2b581f7e3fa10"
BEFORE_RECIPE = """\
name: before
model:
  name: before
  input: [8, 8, 1]
  classes: 4
  layers:
    - conv: {out: 4, kernel: 3, padding: 1}
    - relu
    - maxpool: {kernel: 2}
    - dropout
    - flatten
    - linear: {out: classes}
data: {kind: idx, mean: auto, std: auto, pad: 1, crop: random, flip: true}
batch: 4
epochs: 3
seed: 18446744073709551615
loss: niti
rounding: {activation: stochastic, error: stochastic}
update: {kind: niti, mu: [{epoch: 0, mu: 4}, {epoch: 2, mu: 3}]}
"""


def striped(count, first):
    """Images of 8x8 by a formula that no release of a random generator can change, and labels that go round."""
    number = np.arange(first, first + count, dtype=np.uint64)
    index = np.arange(count * 64, dtype=np.uint64).reshape(count, 8, 8, 1)
    images = (index + number[:, None, None, None]) * 2654435761 % 2**32 >> 26
    for image, label in zip(images, number % 4):
        y, x = 4 * int(label // 2), 4 * int(label % 2)
        image[y:y + 4, x:x + 4] += 120
    return images.astype(np.uint8), (number % 4).astype(np.uint8)


@pytest.fixture(scope="module")
def before_set(shared):
    return data_sets.write_idx_set(shared / "before", striped(1200, 0), striped(40, 1200))


@pytest.fixture
def before(tmp_path):
    """A folder with that checkpoint alone."""
    run = tmp_path / "before"
    run.mkdir()
    shutil.copy(BEFORE, run / "last.safetensors")
    return run


def test_a_run_from_before_goes_on(before, before_set, tmp_path):
    (tmp_path / "recipe.yaml").write_text(BEFORE_RECIPE)
    whole = train(tmp_path / "recipe.yaml", before_set, tmp_path / "whole")
    result = resume(before, "--data", before_set)
    assert result["hash"] == whole["hash"] == BEFORE_HASH
    for key in ("epochs", "steps", "train_loss", "test_loss", "best_test_accuracy", "best_epoch"):
        assert result[key] == whole[key], key
    assert timeless(rows_of(before)) == timeless(rows_of(tmp_path / "whole"))[1:]


def test_a_run_from_before_counts_no_more_than_the_split(before, before_set):
    """It does not say which split chose its best epoch: the data set has no larger one than test, with 40."""
    forge(before / "last.safetensors", lambda metadata, _: metadata.update(best_images="41"))
    fails("train", "--resume", before, "--data", before_set, says=(before / "last.safetensors", "'best_images' is 41 (expected 0 or 40,"))


# ---- damage ----

EPOCHS = 50


@pytest.fixture(scope="module")
def stopped(toy_recipe, toy, shared):
    """(folder of a run stopped after its first epochs, result of the whole run, its folder)."""
    whole, run = shared / "whole", shared / "stopped"
    expected = train(toy_recipe, toy, whole, "--epochs", EPOCHS)
    process = start_training(toy_recipe, "--data", toy, "--run", run, "--epochs", EPOCHS)
    wait_for(run / "best.safetensors", process)
    code, out, err = stop(process, signal.SIGTERM)
    assert code == 143, out + err
    return run, expected, whole


@pytest.fixture
def half(stopped, tmp_path):
    """The same with a folder of one's own."""
    return shutil.copytree(stopped[0], tmp_path / "run"), *stopped[1:]


def truncate(content):
    return content[:len(content) // 2]


def flip_a_weight(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def flip_metadata(content):
    at = content.index(b'"step":"') + 8
    return content[:at] + bytes([(content[at] - 48 + 1) % 9 + 49]) + content[at + 1:]


def empty(_):
    return b""


def noise(content):
    return np.random.default_rng(1).bytes(len(content))


@pytest.mark.parametrize("damage", [truncate, flip_a_weight, flip_metadata, empty, noise, None])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(half, damage):
    run, expected, whole = half
    last = run / "last.safetensors"
    if damage:
        damaged = damage(last.read_bytes())
        assert damaged != last.read_bytes()
        last.unlink()  # previous may be a link to the same file
        last.write_bytes(damaged)
    else:
        last.unlink()
    done = niti("train", "--resume", run, "--threads", 1, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    warning, = done.stderr.splitlines()
    assert str(last) in warning and "the checkpoint before" in warning
    result = json.loads(done.stdout)
    assert result["warnings"] == [warning.removeprefix("niti: ")]
    check_same(run, whole, result, expected)


def test_both_checkpoints_damaged(half):
    run, _, _ = half
    for name in ("last.safetensors", "previous.safetensors"):
        content = (run / name).read_bytes()
        (run / name).unlink()
        (run / name).write_bytes(truncate(content))
    before = content_of(run)
    fails("train", "--resume", run, says=run / "last.safetensors")
    assert content_of(run) == before


def test_torn_metrics_are_mended(half):
    """A line half written, and rows of epochs after the checkpoint, as a crash can leave them."""
    run, expected, whole = half
    with open(run / "metrics.csv", "a", encoding="utf-8") as file:
        file.write("49,490,3,0.1,99.0,0.1,99.0,99.0,0.1,5.0\n50,5")
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"epoch": 49, "step": 490}\n{"epoch": 50, "st')
    check_same(run, whole, resume(run), expected)


def test_metrics_without_their_last_newline(half):
    """As some editors save them: the row is whole, and stays."""
    run, expected, whole = half
    for name in ("metrics.csv", "metrics.jsonl"):
        (run / name).write_bytes((run / name).read_bytes().removesuffix(b"\n"))
    check_same(run, whole, resume(run), expected)


def test_metrics_with_a_blank_last_line(half):
    """As other editors save them: no warning, and no blank line is left amid the rows."""
    run, expected, whole = half
    for name in ("metrics.csv", "metrics.jsonl"):
        (run / name).write_bytes((run / name).read_bytes() + b"\n")
    done = niti("train", "--resume", run, "--threads", 1, "--quiet", "--json")
    assert done.returncode == 0 and not done.stderr, done.stderr
    check_same(run, whole, json.loads(done.stdout), expected)
    assert b"\n\n" not in (run / "metrics.csv").read_bytes() + (run / "metrics.jsonl").read_bytes()


def spoil_with_other_line_ends(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def spoil_with_a_mark(path):
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def spoil_with_a_blank_line(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n\n", 1))


def spoil_with_semicolons(path):
    path.write_bytes(path.read_bytes().replace(b",", b";"))


def spoil_with_another_table(path):
    path.write_bytes(b"epoch,notes\n1,good\n")


def spoil_with_a_single_line(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b" "))


def spoil_with_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [spoil_with_other_line_ends, spoil_with_a_mark, spoil_with_a_blank_line, spoil_with_semicolons,
                                   spoil_with_another_table, spoil_with_a_single_line, spoil_with_a_folder])
def test_logs_that_cannot_be_continued_are_set_aside(half, spoil):
    """The run goes on with the same bits; metrics.jsonl, which was left alone, has every row, and metrics.csv the later ones."""
    run, expected, whole = half
    epoch = int(metadata_of(run / "last.safetensors")["epoch"])
    for events in run.glob("events.*"):
        events.write_bytes(events.read_bytes()[:-5] + b"!")
    spoil(run / "metrics.csv")
    spoiled = (run / "metrics.csv").read_bytes() if (run / "metrics.csv").is_file() else None
    done = niti("train", "--resume", run, "--threads", 1, "--json")
    assert done.returncode == 0 and f"set aside as {run / 'metrics.csv.bak'}" in done.stderr, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["hash"] == expected["hash"]
    assert timeless(rows_of(run)) == timeless(rows_of(whole))
    lines = (run / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", *map(str, range(epoch + 1, EPOCHS + 1))]
    assert spoiled is None or (run / "metrics.csv.bak").read_bytes() == spoiled


def test_a_log_that_is_set_aside_is_told_even_under_quiet(half):
    run, _, _ = half
    spoil_with_semicolons(run / "metrics.csv")
    done = niti("train", "--resume", run, "--threads", 1, "--quiet", "--json")
    assert done.returncode == 0 and "set aside as" in done.stderr, done.stderr
    assert len(json.loads(done.stdout.splitlines()[-1])["warnings"]) == 1


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.jsonl"])
@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_a_log_that_lost_its_rows_is_told_even_under_quiet(half, name, how):
    run, expected, _ = half
    epoch = int(metadata_of(run / "last.safetensors")["epoch"])
    (run / name).unlink()
    if how == "emptied":
        (run / name).touch()
    done = niti("train", "--resume", run, "--threads", 1, "--quiet", "--json")
    assert done.returncode == 0 and f"{run / name}: the rows up to epoch {epoch} are missing" in done.stderr, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["warnings"]) == 1 and result["hash"] == expected["hash"]
    assert len((run / name).read_text().splitlines()) == EPOCHS - epoch + (name == "metrics.csv")


def test_a_row_that_is_missing_amid_others_is_told_even_under_quiet(stopped, tmp_path):
    """Each time that the run goes on, since it does not bring the row back."""
    run = shutil.copytree(stopped[2], tmp_path / "run")
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[:2] + lines[3:]))
    for more in (1, 2):
        done = niti("train", "--resume", run, "--epochs", EPOCHS + more, "--threads", 1, "--quiet", "--json")
        assert done.returncode == 0, done.stderr
        told, = json.loads(done.stdout)["warnings"]
        assert f"{run / 'metrics.csv'}: after the row of epoch 1 comes that of epoch 3: rows are missing" in told and told in done.stderr
    rows = (run / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", *map(str, range(3, EPOCHS + 3))]


def limit_descriptors(count):
    """For preexec_fn: no more descriptors than that."""
    def limit():
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    return limit


@pytest.mark.parametrize("need", ["room", "descriptors"])
def test_logs_of_a_run_that_fails_again_and_again_keep_their_rows(half, need):
    """Logs with a torn row are written anew on resuming. Where the system refuses that, they stay as they are, however often."""
    run, expected, whole = half
    for name, end in (("metrics.csv", "99"), ("metrics.jsonl", '{"epoch": 9')):
        with open(run / name, "a", encoding="utf-8") as file:
            file.write(end)
    logs = {name: (run / name).read_bytes() for name in ("metrics.csv", "metrics.jsonl")}
    limits = [limit_files(size) for size in (0, 50, 200)] if need == "room" else [limit_descriptors(count) for count in range(4, 9)]
    for limit in limits:
        done = niti("train", "--resume", run, "--threads", 1, "--quiet", preexec_fn=limit)
        assert done.returncode == 1 and ("too large" if need == "room" else "open files") in done.stderr, done.stderr
        for name, content in logs.items():  # perhaps without what was torn
            assert (run / name).read_bytes() in (content, content[:content.rindex(b"\n") + 1]), (name, done.stderr)
        assert not list(run.glob("*.bak*")), done.stderr
    check_same(run, whole, resume(run), expected)


# ---- the state, key by key ----

STATE = ("model recipe seed data train_set_images train_set_sha256 test_set_images test_set_sha256 save_every step epoch complete "
         "train_loss_sum train_correct train_images test_loss_sum test_correct test_images best_loss_sum best_correct best_images "
         "best_epoch").split()


def test_the_keys_of_a_checkpoint(before, trained):
    """What a run saves is what it demands, and what the program saved before."""
    since = ["train_set_names_sha256", "test_set_names_sha256", "validation_set_images", "best_on_validation", "test_every", "test_limit", "arithmetic",
             *(f"{split}_{sum}" for split in ("validation", "best_test") for sum in ("loss_sum", "correct", "images"))]  # not in files from before
    for path, more in ((before / "last.safetensors", ["classes"]), (trained[0] / "last.safetensors", since)):  # numbers, then
        assert sorted(metadata_of(path)) == sorted([*STATE, *more, "format", "version", "hash", "checksum"])


@pytest.mark.parametrize("change", [{"best_images": str((1 << 63) - 1)}, {"train_images": str(1 << 31)}, {"test_correct": "1000000"},
                                    {"train_loss_sum": str((1 << 62) + 1)}, {"best_loss_sum": str(-(1 << 63))}, {"train_loss_sum": "-1"}, {"test_loss_sum": "-1"},
                                    {"best_loss_sum": "-1"}, {"validation_loss_sum": "1"}])
def test_scores_that_no_run_has_are_refused(change, trained, tmp_path):
    """They would be added to and multiplied until they overflow."""
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    forge(run / "last.safetensors", lambda metadata, _: metadata.update(change))
    (key, value), = change.items()
    fails("train", "--resume", run, says=(run / "last.safetensors", key.split("_")[0] + "_loss_sum", value, "expected at most"))


@pytest.mark.parametrize("change, says", [
    ({"best_epoch": "61"}, "'best_epoch' is 61"), ({"best_epoch": "0"}, "'best_epoch' is 0"),
    ({"train_set_images": "0"}, "'train_set_images' is 0"), ({"test_set_images": "0"}, "'test_set_images' is 0"),
    ({"validation_set_sha256": "0" * 64}, "'validation_set_images' is 0"), ({"best_on_validation": "1"}, "'validation_set_images' is 0"),
    ({"epoch": "2"}, "'epoch' is"), ({"epoch": "4"}, "'epoch' is 4 (expected at most the recipe's 3)"),
    ({"epoch": "2147483647"}, "'epoch' is 2147483647 (expected at most the recipe's 3)"), ({"step": "1", "epoch": "0"}, "'complete' is 1 after step 1"),
    ({"train_images": "1000000"}, "'train_images' is 1000000"), ({"train_images": "159", "train_correct": "0"}, "'train_images' is 159 (expected 160, those of the last epoch"),
    ({"train_images": "0", "train_correct": "0", "train_loss_sum": "0"}, "'train_images' is 0 (expected 160,"),
    ({"test_images": "61"}, "'test_images' is 61 (expected 0 or 60,"), ({"best_images": "61"}, "'best_images' is 61 (expected 0 or 60,"),
    ({"test_images": "59", "test_correct": "0"}, "'test_images' is 59 (expected 0 or 60, the number of test images"),
    ({"best_images": "1", "best_correct": "1", "best_loss_sum": "0"}, "'best_images' is 1 (expected 0 or 60,"),
    ({"test_limit": "3"}, "'test_images' is 60 (expected 0 or 3, 'test_limit'"),
    ({"best_loss_sum": str((60 << 41) + 1)}, "'best_loss_sum' is 131941395333121, with"),
    ({"train_loss_sum": str((160 << 41) + 1)}, "'train_loss_sum' is"),
    *(({key: names}, f"'{key}'{says}") for key in ("classes", "class_labels") for names, says in (
        ("a\nb\nc\n", " has 3 names (expected 4,"), ("a\nb\nc\nd\ne\n", " has 5 names (expected 4,"), ("a\nb\nc\nd", ": the name of class 3 does not end in a newline (expected 4"),
        ("a\n\nc\nd\n", ": the name of class 1 is empty (expected 4"), ("", " has 0 names"), ("a\n" * 5000, " has 5000 names"))),
    ({"validation_images": "1"}, "'validation_images' is 1 (expected at most 0,"),
    ({"best_test_images": "1"}, "'best_test_images' is 1 (expected at most 0,"), ({"average_samples": "1"}, "'average_samples' is 1 (expected at most 0,"),
    ({"averaged_images": "1"}, "'averaged_images' is 1 (expected at most 0,"),
    ({"averaged_validation_images": "1"}, "'averaged_validation_images' is 1 (expected at most 0,"), ({"seed": "8"}, "'seed' is 8 (expected the recipe's 7)"),
    *(({"extensions": text}, "'extensions' is '") for text in (
        "", "x" * 100000, "\x1b[31m", "step 1: 1 to 3 epochs; ", "step 01: 1 to 3 epochs", "step 1: 1 to 3 epochs.",
        "step 1: 1 to 4 epochs", "step 1000000: 1 to 3 epochs", "step -1: 1 to 3 epochs",
        "step 2: 1 to 2 epochs; step 1: 2 to 3 epochs", "step 1: 1 to 2 epochs; step 2: 1 to 3 epochs",
        "step 1: 3 to 3 epochs")),
])
def test_a_state_that_no_run_has_is_refused(change, says, trained, tmp_path):
    """The run has three epochs of ten steps."""
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    forge(run / "last.safetensors", lambda metadata, _: metadata.update(change))
    line = fails("train", "--resume", run, says=(run / "last.safetensors", says, "expected"))
    assert line.isprintable()


@pytest.fixture(scope="module")
def within(shared, toy_recipe, long_set):
    """A run that was interrupted within an epoch of 63 steps, of 1,000 images at batch 16."""
    run = shared / "within"
    process = start_training(toy_recipe, "--data", long_set, "--run", run, "--epochs", 100000)
    wait_for(run / "best.safetensors", process)
    assert stop(process, signal.SIGINT)[0] == 130
    while int(metadata_of(run / "last.safetensors")["step"]) % 63 == 0:
        process = start_training("--resume", run)
        time.sleep(0.01)
        stop(process, signal.SIGINT)
    return run


@pytest.mark.parametrize("images", (0, -1, 1, 16, 1000))
def test_training_scores_within_an_epoch(images, within, tmp_path):
    """They are of the steps since its beginning, neither of more nor of fewer images."""
    run = tmp_path / "run"
    shutil.copytree(within, run)
    last = run / "last.safetensors"
    is_now = metadata_of(last)
    trained = int(is_now["step"]) % 63 * 16
    assert int(is_now["train_images"]) == trained
    forged = {0: 0, 1000: 1000}.get(images, trained + images)
    forge(last, lambda metadata, _: metadata.update(train_images=str(forged), train_correct="0", train_loss_sum="0"))
    fails("train", "--resume", run, says=(last, f"'train_images' is {forged} (expected {trained}, those of the epoch under way"))


def test_names_may_be_equal(toy_recipe, toy, tmp_path):
    """As in a data set's own list, or in the labels of ImageNet."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(toy, data)
    (data / "classes.txt").write_text("crane\ncrane\nship\ncar\n")
    train(toy_recipe, data, run, "--epochs", 1)
    assert metadata_of(run / "last.safetensors")["classes"] == "crane\ncrane\nship\ncar\n"
    resume(run, "--epochs", 2)
    json_of("eval", run)


@pytest.mark.parametrize("change, says", [
    ({"hash.escaped": "0"}, "a key cannot be 'hash.escaped'"), ({"recipe.escaped": "x"}, "a key cannot be 'recipe.escaped'"),
    ({"classes.escaped.escaped": "x"}, "a key cannot be 'classes.escaped.escaped'"),
    ({"extensions.escaped": r"a\x00b"}, "'extensions.escaped' has a zero byte"),
])
def test_keys_in_disguise_are_refused(change, says, trained, tmp_path):
    """They would be one of the format's own, or there twice, or shorter than the file has them."""
    last = tmp_path / "last.safetensors"
    shutil.copy(trained[0] / "last.safetensors", last)
    forge(last, lambda metadata, _: metadata.update(change))
    fails("eval", last, says=(last, says, "expected"))


def test_another_arithmetic_is_refused(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    forge(run / "last.safetensors", lambda metadata, _: metadata.update(arithmetic="2.0"))
    fails("train", "--resume", run, says=(run / "last.safetensors", "arithmetic 2.0", "expected 1.2"))
    fails("eval", run / "last.safetensors", says=(run / "last.safetensors", "arithmetic 2.0 (expected 1.2"))


@pytest.mark.parametrize("says", ({"arithmetic": "1.1"}, {"arithmetic": "1.0"}, {}))
def test_runs_of_earlier_arithmetics_go_on_where_no_norm_trains(trained, toy, tmp_path, says):
    """1.1 and 1.2 changed batch norm's deltas alone. The first checkpoints did not say their version."""
    plain, normed, recipe = tmp_path / "plain", tmp_path / "normed", tmp_path / "normed.yaml"
    shutil.copytree(trained[0], plain)
    recipe.write_text(NORMED)
    train(recipe, toy, normed, "--epochs", 1)
    for run in (plain, normed):
        forge(run / "last.safetensors", lambda metadata, _: (metadata.pop("arithmetic"), metadata.update(says)))
        json_of("eval", f"{run}:last", "--data", toy)
    resume(plain, "--epochs", 4)
    fails("train", "--resume", normed, says=(normed / "last.safetensors", f"arithmetic {says.get('arithmetic', '1.0')}", "expected 1.2", "--init"))


@pytest.mark.parametrize("key", STATE)
def test_a_missing_key_is_named(before, before_set, key):
    last = before / "last.safetensors"
    forge(last, lambda metadata, _: metadata.pop(key))
    files = content_of(before)
    fails("train", "--resume", before, "--data", before_set, says=(last, f"'{key}' is missing"))
    assert content_of(before) | {".lock": b""} == files | {".lock": b""}


def test_only_class_names_may_be_missing(before, before_set):
    forge(before / "last.safetensors", lambda metadata, _: metadata.pop("classes"))
    assert resume(before, "--data", before_set)["hash"] == BEFORE_HASH


def test_an_unknown_key_or_tensor_is_named(before, before_set):
    """As a later program may write them: ignoring them would give other bits."""
    last = before / "last.safetensors"
    content = last.read_bytes()
    forge(last, lambda metadata, _: metadata.update(momentum="3"))
    fails("train", "--resume", before, "--data", before_set, says=(last, "unknown key 'momentum'"))
    assert json_of("hash", last)["hash"] == metadata_of(last)["hash"]  # the weights may still be used
    last.write_bytes(content)
    forge(last, lambda _, tensors: tensors.update({"conv1.momentum": np.zeros(3, np.int32),
                                                     "conv1.momentum.exponent": np.zeros((), np.int32)}))
    fails("train", "--resume", before, "--data", before_set, says=(last, "unknown tensor 'conv1.momentum'"))
    last.write_bytes(content)
    assert resume(before, "--data", before_set)["hash"] == BEFORE_HASH


@pytest.mark.parametrize("key, value", [
    ("step", "-1"), ("step", "x"), ("step", "453 "), ("step", "0453"), ("step", "+453"), ("step", "9223372036854775808"), ("step", ""),
    ("epoch", "2147483648"), ("epoch", "4294967297"), ("seed", "-1"), ("seed", "18446744073709551616"), ("complete", "2"),
    ("complete", "true"), ("test_loss_sum", "1e3"), ("train_set_sha256", "af66"), ("test_set_sha256", "A" * 64),
])
def test_a_malformed_value_is_named(before, before_set, key, value):
    last = before / "last.safetensors"
    forge(last, lambda metadata, _: metadata.update({key: value}))
    fails("train", "--resume", before, "--data", before_set, says=(last, f"'{key}' is '{value}' (expected "))


def test_a_checkpoint_of_a_later_version_is_not_passed_over(half):
    """Falling back to the one before would overwrite it."""
    run, _, _ = half
    last = run / "last.safetensors"
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content)
    forge(last, lambda metadata, _: metadata.update(version="9"))
    files = content_of(run)
    fails("train", "--resume", run, says=(last, "version is '9'", "later niti"))
    fails("hash", last, says=(last, "version is '9'"))
    assert content_of(run) == files


# ---- refusals ----

def test_a_folder_in_use_is_refused(toy_recipe, toy, tmp_path):
    run = tmp_path / "run"
    process = start_training(toy_recipe, "--data", toy, "--run", run, "--epochs", 1000000)
    try:
        wait_for(run / "last.safetensors", process)
        fails("train", "--resume", run, says=(run, "another process"))
        fails("train", toy_recipe, "--data", toy, "--run", run, says=run)
        assert process.poll() is None
    finally:
        code, _, _ = stop(process, signal.SIGTERM)
    assert code == 143


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_a_folder_without_a_run_is_refused(make, tmp_path):
    path = tmp_path / "run"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    fails("train", "--resume", path, says=(path, "no run to resume"))
    assert sorted(tmp_path.rglob("*")) == before


def refuses_data(half, data):
    run, _, _ = half
    before = content_of(run)
    fails("train", "--resume", run, "--threads", 1, "--data", data, says=data)
    assert content_of(run) == before


@pytest.mark.parametrize("train_count, test_count", [(320, 60), (80, 60), (159, 60), (160, 59)])
def test_another_number_of_images_is_an_error(half, tmp_path, train_count, test_count):
    """Even where it gives as many steps an epoch (159)."""
    refuses_data(half, data_sets.write_idx_set(tmp_path / "other", data_sets.squares(train_count, 1),
                                               data_sets.squares(test_count, 2)))


def test_other_classes_or_shapes_are_an_error(half, tmp_path):
    refuses_data(half, data_sets.write_idx_set(tmp_path / "three", data_sets.squares(160, 1, classes=3),
                                               data_sets.squares(60, 2, classes=3)))
    refuses_data(half, data_sets.write_idx_set(tmp_path / "small", data_sets.squares(160, 1, side=6),
                                               data_sets.squares(60, 2, side=6)))


def test_data_that_has_moved_is_named_again(half, tmp_path):
    run, expected, whole = half
    data_sets.write_idx_set(tmp_path / "moved", data_sets.squares(160, 1), data_sets.squares(60, 2), compressed=True)
    check_same(run, whole, resume(run, "--data", tmp_path / "moved"), expected)


def test_other_data_of_equal_count_are_refused(half, tmp_path):
    run, _, _ = half
    before = content_of(run)
    data_sets.write_idx_set(tmp_path / "other", data_sets.squares(160, 3), data_sets.squares(60, 2))
    fails("train", "--resume", run, "--data", tmp_path / "other", says=(tmp_path / "other", "training images", "SHA-256"))
    assert content_of(run) == before


@pytest.fixture
def on_folder(recipe, tmp_path):
    """(stopped run on a folder of images, the folder)."""
    data = data_sets.write_folder_set(tmp_path / "data", ["a", "b", "c", "d"], data_sets.squares(80, 1, channels=3),
                                      data_sets.squares(20, 2, channels=3))
    run = tmp_path / "run"
    process = start_training(recipe(("[8, 8, 1]", "[8, 8, 3]")), "--data", data, "--run", run, "--epochs", 100000)
    wait_for(run / "best.safetensors", process)
    assert stop(process, signal.SIGINT)[0] == 130
    return run, data


def test_other_class_names_are_refused(on_folder):
    """When a class is renamed, its images get another label."""
    run, data = on_folder
    for split in ("train", "test"):
        (data / split / "a").rename(data / split / "z")
    before = content_of(run)
    fails("train", "--resume", run, "--quiet", says=(data, "b, c, d, z", "a, b, c, d"))
    assert content_of(run) == before


@pytest.mark.parametrize("split", ["train", "test"])
def test_other_file_names_are_refused(on_folder, split):
    """The same number of images in the same classes: only the names tell that they are others, or in another order."""
    run, data = on_folder
    file = sorted((data / split / "b").iterdir())[0]
    file.rename(file.with_name("zzz.png"))
    before = content_of(run)
    fails("train", "--resume", run, "--quiet", says=(data, "training" if split == "train" else "test", "not the files"))
    assert content_of(run) == before


def test_changed_contents_are_noted_even_under_quiet(on_folder):
    run, data = on_folder
    file = sorted((data / "train" / "b").iterdir())[0]
    data_sets.write_png(file, data_sets.squares(1, 9, channels=3)[0][0])
    process = start_training("--resume", run, "--quiet")
    first = process.stderr.readline()
    code, _, err = stop(process, signal.SIGINT)
    assert code == 130 and "image files have changed" in first, (code, first + err)


def test_a_folder_in_place_of_files_without_names_is_refused(half, tmp_path):
    run, _, _ = half
    data = data_sets.write_folder_set(tmp_path / "folder", ["0", "1", "2", "3"], data_sets.squares(160, 1),
                                      data_sets.squares(60, 2))
    fails("train", "--resume", run, "--data", data, says=(data, "not the files"))


def test_a_relative_folder_is_found_from_elsewhere(toy_recipe, toy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    process = start_training(toy_recipe, "--data", toy, "--run", tmp_path / "run", "--epochs", EPOCHS)
    wait_for(tmp_path / "run" / "last.safetensors", process)
    assert stop(process, signal.SIGINT)[0] == 130
    assert resume("../run", cwd=tmp_path / "elsewhere")["epochs"] == EPOCHS


# ---- a full disk ----

def limit_files(size):
    """For preexec_fn: no file may grow beyond so many bytes, as on a disk without room."""
    def limit():
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return limit


def test_a_full_disk_leaves_the_last_checkpoint(half):
    run, expected, whole = half
    files = content_of(run)
    size = len(files["last.safetensors"])
    done = niti("train", "--resume", run, "--threads", 1, "--quiet", preexec_fn=limit_files(size // 2))
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 1 and str(run) in lines[0] and "too large" in lines[0], done.stderr
    assert metadata_of(run / "last.safetensors")["hash"] == hash_of(run / "last.safetensors")
    assert (run / "last.safetensors").read_bytes() == files["last.safetensors"]
    assert not [name for name in content_of(run) if name.endswith(".tmp")]
    check_same(run, whole, resume(run), expected)


def test_a_run_that_cannot_start_for_lack_of_room_leaves_nothing(toy_recipe, toy, tmp_path):
    for size in (0, 300, 1500):
        fails("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", says=tmp_path / "run", preexec_fn=limit_files(size))
        assert not (tmp_path / "run").exists()


def test_seeds_of_fuzzing_are_of_this_arithmetic(tmp_path):
    """Others are refused before anything else of them is read."""
    folder = pathlib.Path(__file__).resolve().parents[1] / "fuzz" / "corpus" / "resume"
    seeds, arithmetic = sorted(folder.iterdir()), json_of("info")["arithmetic"]
    assert len(seeds) > 10
    for seed in seeds:
        last = tmp_path / seed.name
        last.write_bytes(seed.read_bytes()[1:])
        assert metadata_of(last)["arithmetic"] == arithmetic, seed
