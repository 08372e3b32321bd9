"""`niti train`: its result, its folder, its options."""
import csv
import fcntl
import hashlib
import json
import os
import pathlib
import pty
import struct
import subprocess
import termios
import time

import numpy as np
import pytest
import yaml

import data_sets
import tool
from tool import content_of, fails, forge, hash_of, json_of, metadata_of, niti, output_of, resume, rows_of, timeless, train

COLUMNS = ["epoch", "step", "mu", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "best_test_accuracy", "seconds",
           "images_per_second"]


def test_the_result_as_json(trained):
    run, result = trained
    assert {"run", "hash", "epochs", "steps", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "best_test_accuracy",
            "best_epoch", "images_per_second", "shift_predictions", "shift_retries", "interrupted"} <= set(result)
    assert result["run"] == str(run) and result["epochs"] == 3 and result["steps"] == 30 and result["interrupted"] is False
    assert 0 <= result["shift_retries"] < result["shift_predictions"] and result["loss_unit"] == "nats"
    assert len(result["hash"]) == 64 and int(result["hash"], 16) >= 0
    assert result["test_accuracy"] == 100 and result["train_accuracy"] > 90 and result["images_per_second"] > 0


def test_the_folders_files(trained):
    run, result = trained
    names = set(content_of(run))
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events - {".lock"} == {"recipe.yaml", "model.yaml", "environment.json", "metrics.csv", "metrics.jsonl",
                                          "last.safetensors", "previous.safetensors", "best.safetensors"}
    last = metadata_of(run / "last.safetensors")
    assert (last["step"], last["epoch"], last["seed"], last["hash"]) == ("30", "3", "7", result["hash"])
    assert yaml.safe_load(last["recipe"])["batch"] == 16 and yaml.safe_load(last["model"])["name"] == "toy"
    assert metadata_of(run / "previous.safetensors")["step"] == "20"
    assert metadata_of(run / "best.safetensors")["best_epoch"] == str(result["best_epoch"])


def test_the_environment(trained, toy):
    environment = json.loads((trained[0] / "environment.json").read_text())
    assert output_of("--version").split() == ["niti", environment["niti"]]
    assert environment["seed"] == 7 and environment["threads"] == 1 and environment["backend"] == "cpu" and environment["device"]
    data = environment["data"]
    assert (data["kind"], data["train_images"], data["test_images"]) == ("idx", 160, 60)
    assert os.path.samefile(data["path"], toy)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        files = [(toy / f"{prefix}-{kind}-ubyte").read_bytes() for kind in ("images-idx3", "labels-idx1")]
        assert data[f"{split}_sha256"] == hashlib.sha256(b"".join(files)).hexdigest()


def test_metrics_agree_with_each_other_and_with_the_result(trained):
    run, result = trained
    rows = rows_of(run)
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        table = list(reader)
    assert reader.fieldnames == COLUMNS and [list(row) for row in rows] == [COLUMNS] * 3
    assert [{key: float(value) for key, value in row.items()} for row in table] == rows
    assert [(row["epoch"], row["step"], row["mu"]) for row in rows] == [(1, 10, 3), (2, 20, 3), (3, 30, 3)]
    for key in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "best_test_accuracy"):
        assert rows[-1][key] == pytest.approx(result[key], abs=6e-5), key
    best = 0
    for row in rows:
        best = max(best, row["test_accuracy"])
        assert row["best_test_accuracy"] == best
    first = next(row["epoch"] for row in rows if row["test_accuracy"] == best)
    assert result["best_epoch"] == first


def test_events_hold_the_run(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    run, _ = trained
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "histograms": 0}).Reload()
    rows = rows_of(run)
    for tag, key in (("loss/train", "train_loss"), ("loss/test", "test_loss"), ("accuracy/train", "train_accuracy"),
                     ("accuracy/test", "test_accuracy"), ("accuracy/best", "best_test_accuracy")):
        points = events.Scalars(tag)
        assert [point.step for point in points] == [10, 20, 30]
        assert [point.value for point in points] == pytest.approx([row[key] for row in rows], abs=1e-4)
    assert [(point.step, point.value) for point in events.Scalars("update/mu")] == [(10, 3), (20, 3), (30, 3)]
    scalars = set(events.Tags()["scalars"])
    for layer in ("conv1", "linear1"):
        assert {f"exponent_output/{layer}", f"shift_forward/{layer}", f"changed_weights/{layer}"} <= scalars
        weights = events.Histograms(f"weight/{layer}")
        assert [entry.step for entry in weights] == [10, 20, 30]
    assert weights[0].histogram_value.num == 4 * 4 * 4 * 4  # linear1: a 4x4x4 input, 4 classes
    assert {"shift_backward/linear1", "exponent_error/linear1"} <= scalars
    # what never changes, or repeats another curve
    assert not any(tag.startswith(("exponent_weight/", "exponent_input/", "update/epoch", "shift_backward/conv1")) for tag in scalars)
    for layer in ("relu1", "maxpool1", "flatten1"):
        assert not {f"exponent_output/{layer}", f"exponent_error/{layer}", f"shift_backward/{layer}"} & scalars


def test_a_fractional_mu_is_reported_as_it_was_written(recipe, toy, tmp_path):
    between = recipe(("{kind: niti, mu: 3}", "{kind: niti, mu: [{epoch: 0, mu: 3.5}, {epoch: 1, mu: 3}, {epoch: 2, mu: 2.25}]}"))
    hashes = {train(between, toy, tmp_path / isa, "--isa", isa)["hash"] for isa in ("ref", "auto")}
    assert [row["mu"] for row in rows_of(tmp_path / "ref")] == [3.5, 3, 2.25]
    text = (tmp_path / "ref" / "metrics.csv").read_text()
    assert [line.split(",")[2] for line in text.splitlines()[1:]] == ["3.5", "3", "2.25"]
    assert hashes != {train(between, toy, tmp_path / "whole", "--set", "update.mu=3")["hash"]} and len(hashes) == 1


def test_reports_of_update_sgd(recipe, toy, tmp_path):
    """The rate is a column and a curve `lr`: from 0.06 to 0 along a line in 30 steps. What a run never reaches is named by it too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    line = recipe(("{kind: niti, mu: 3}", "{kind: sgd, lr: 0.06, schedule: linear}"), ("    - relu\n", "    - norm\n    - relu\n"))
    train(line, toy, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert [list(row) for row in rows] == [["lr" if name == "mu" else name for name in COLUMNS]] * 3
    assert [row["lr"] for row in rows] == [0.042, 0.022, 0.002]
    assert (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1].split(",")[2] == "0.042000000"
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0, "images": 0}).Reload()
    assert [point.value for point in events.Scalars("update/lr")] == pytest.approx([0.042, 0.022, 0.002])
    assert 0 < events.Scalars("changed_weights/conv1")[0].value <= 100
    steps = recipe(("{kind: niti, mu: 3}", "{kind: sgd, lr: [{epoch: 0, lr: 0.1}, {epoch: 9, lr: 0.01}]}"))
    done = niti("train", steps, "--data", toy, "--dry-run")
    assert "update.lr: 1 of 2 values never take effect, the first at epoch 9" in done.stderr


def test_the_confusion_matrix_is_that_of_the_split_that_chooses(toy_recipe, toy, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    train(toy_recipe, toy, tmp_path / "run", "--set", "data.validation=40")
    tags = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload().Tags()["images"]
    assert "validation/confusion" in tags and not any(tag.startswith("test/") for tag in tags)


def test_measuring_changes_no_bit_and_can_be_switched_off(trained, toy_recipe, toy, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    for every in (0, 1, 7):
        run = tmp_path / str(every)
        assert train(toy_recipe, toy, run, "--measure-every", every)["hash"] == trained[1]["hash"]
        assert timeless(rows_of(run)) == timeless(rows_of(trained[0]))
        events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
        steps = [point.step for point in events.Scalars("loss/train_steps")] if every else None
        assert steps == {0: None, 1: list(range(1, 31)), 7: [7, 17, 27]}[every]
        assert every or not any(tag.startswith(("update", "changed_weights")) for tag in events.Tags()["scalars"])


def test_the_resolved_recipe_reproduces_the_run(trained, toy, tmp_path):
    run, result = trained
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert set(recipe) == {"name", "model", "data", "batch", "epochs", "max_steps", "seed", "loss", "label_smoothing", "rounding", "update", "freeze"}
    assert len(recipe["data"]["mean"]) == 1 and recipe["rounding"] == {"activation": "nearest", "error": "nearest"}
    again = train(run / "recipe.yaml", toy, tmp_path / "again")
    assert again["hash"] == result["hash"]
    assert timeless(rows_of(tmp_path / "again")) == timeless(rows_of(run))
    assert (tmp_path / "again" / "recipe.yaml").read_text() == (run / "recipe.yaml").read_text()


def test_auto_statistics_are_those_of_the_data(trained, toy):
    data = yaml.safe_load((trained[0] / "recipe.yaml").read_text())["data"]
    facts = json_of("data", toy)
    assert data["mean"] == facts["mean"] and data["std"] == facts["std"]


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "last.safetensors"])
def test_a_folder_that_holds_anything_is_refused(name, toy_recipe, toy, tmp_path):
    (tmp_path / name).write_text("mine")
    fails("train", toy_recipe, "--data", toy, "--run", tmp_path, says=(tmp_path, name))
    assert content_of(tmp_path) == {name: b"mine"}


def test_another_run_is_refused_and_left_as_it_was(trained, toy_recipe, toy):
    run, _ = trained
    before = content_of(run)
    fails("train", toy_recipe, "--data", toy, "--run", run, says=(run, "--resume"))
    assert content_of(run) == before


def test_an_empty_folder_and_folders_not_yet_there_serve(toy_recipe, toy, tmp_path, trained):
    (tmp_path / "empty").mkdir()
    for run in (tmp_path / "empty", tmp_path / "not" / "yet" / "there", f"{tmp_path}/slash/"):
        assert train(toy_recipe, toy, run)["hash"] == trained[1]["hash"]


def test_short_options_and_set_are_the_same(toy_recipe, toy, tmp_path):
    short = train(toy_recipe, toy, tmp_path / "a", "--epochs", 4, "--max-steps", 13, "--batch", 32, "--seed", 2**64 - 1)
    long = train(toy_recipe, toy, tmp_path / "b", *[part for value in (
        "epochs=4", "max_steps=13", "batch=32", "seed=18446744073709551615") for part in ("--set", value)])
    assert short["steps"] == long["steps"] == 13  # 5 steps an epoch
    assert short["epochs"] == 2 and short["hash"] == long["hash"]
    assert [(row["epoch"], row["step"]) for row in rows_of(tmp_path / "a")] == [(1, 5), (2, 10), (3, 13)]
    recipe = yaml.safe_load((tmp_path / "a" / "recipe.yaml").read_text())
    assert (recipe["epochs"], recipe["max_steps"], recipe["batch"], recipe["seed"]) == (4, 13, 32, 2**64 - 1)
    assert int(json.loads((tmp_path / "a" / "environment.json").read_text())["seed"]) == 2**64 - 1


def test_set_forms(toy_recipe, toy, tmp_path):
    sets = ["update.mu=[{epoch: 0, mu: 4}, {epoch: 1, mu: 2}]", "update.mu.0.mu=5", "rounding.error=stochastic",
            "data={mean: [0.25], std: [0.5]}", "data.pad=1", "data.crop=random", "data.flip=true", "loss=niti", "name=mine",
            "epochs=9", "epochs=2", "model.classes=4"]
    train(toy_recipe, toy, tmp_path / "run", *[part for value in sets for part in ("--set", value)])
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["update"]["mu"] == [{"epoch": 0, "mu": 5}, {"epoch": 1, "mu": 2}]
    assert recipe["rounding"] == {"activation": "nearest", "error": "stochastic"} and recipe["loss"] == "niti"
    assert recipe["data"] == {"kind": "auto", "default": "none", "mean": [0.25], "std": [0.5], "pad": 1, "crop": "random", "flip": True,
                              "fit": "crop", "resize": 0, "bad_files": "error", "type": "auto", "validation": 0}
    assert recipe["name"] == "mine" and recipe["epochs"] == 2
    assert [row["mu"] for row in rows_of(tmp_path / "run")] == [5, 2]


def test_a_built_in_model_and_recipe_train(tmp_path):
    data = data_sets.write_idx_set(tmp_path / "data", data_sets.squares(40, 1, side=28, classes=10),
                                   data_sets.squares(10, 2, side=28, classes=10))
    result = train("lenet5-mnist", data, tmp_path / "run", "--batch", 8, "--max-steps", 2)
    assert result["steps"] == 2 and yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["model"]["name"] == "lenet5"
    result = train("lenet5-mnist", data, tmp_path / "mlp", "--max-steps", 1, "--set", "model=mlp")
    assert json_of("summary", tmp_path / "mlp" / "model.yaml")["parameters"] == json_of("summary", "mlp")["parameters"]


def test_a_recipe_finds_its_model_beside_it(trained, toy, tmp_path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    model = (trained[0] / "model.yaml").read_text()
    (folder / "own.yaml").write_text(model)
    recipe = yaml.safe_load((trained[0] / "recipe.yaml").read_text())
    recipe["model"] = "./own.yaml"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert train(folder / "recipe.yaml", toy, tmp_path / "run")["hash"] == trained[1]["hash"]


def test_save_every(toy_recipe, toy, tmp_path):
    train(toy_recipe, toy, tmp_path / "run", "--epochs", 5, "--save-every", 2)
    kept = sorted(path.name for path in (tmp_path / "run").glob("epoch-*"))
    assert kept == ["epoch-0002.safetensors", "epoch-0004.safetensors"]
    assert metadata_of(tmp_path / "run" / kept[1])["step"] == "40"
    assert hash_of(tmp_path / "run" / kept[0]) != hash_of(tmp_path / "run" / kept[1])


# ---- --init ----

WIDER = """\
name: wider
model:
  name: wider
  input: [8, 8, 1]
  classes: 4
  layers:
    - conv: {out: 4, kernel: 3, padding: 1}
    - relu
    - conv: {out: 6, kernel: 3, padding: 1, name: added}
    - relu
    - maxpool: {kernel: 2}
    - flatten
    - linear: {out: classes}
data: {mean: auto, std: auto}
batch: 16
epochs: 1
max_steps: 1
update: {kind: niti, mu: 1}
"""


def first_weights(recipe, data, run, *arguments):
    """The tensors at the start of a run: what the checkpoint before the first step holds; and standard error."""
    from safetensors.numpy import load_file
    done = niti("train", recipe, "--data", data, "--run", run, "--threads", 1, "--max-steps", 1, *arguments)
    assert done.returncode == 0, done.stderr
    start = run / "previous.safetensors"
    assert metadata_of(start)["step"] == "0"
    return load_file(start), done.stderr


def test_init_copies_what_matches_and_lists_the_rest(trained, toy, recipe, tmp_path):
    from safetensors.numpy import load_file
    source = load_file(trained[0] / "last.safetensors")
    fresh, _ = first_weights(recipe(WIDER), toy, tmp_path / "fresh")
    tuned, notes = first_weights(recipe(WIDER), toy, tmp_path / "tuned", "--init", trained[0] / "last.safetensors")
    assert np.array_equal(tuned["conv1.weight"], source["conv1.weight"])
    assert not np.array_equal(fresh["conv1.weight"], source["conv1.weight"])
    for name in ("added.weight", "linear1.weight"):  # a new name; the old name with another shape
        assert np.array_equal(tuned[name], fresh[name])
    assert source["linear1.weight"].shape != fresh["linear1.weight"].shape
    lines = [line for line in notes.splitlines() if "afresh" in line]
    assert len(lines) == 2 and "afresh: added.weight (no tensor of its name" in lines[0] and "afresh: linear1.weight (" in lines[1]
    assert "1 of 3 tensors of weights taken from" in notes


def edit(path, change, metadata=None):
    """Opens a checkpoint with the safetensors package, changes its tensors and writes them to edited.safetensors beside it."""
    from safetensors.numpy import load_file, save_file
    tensors = load_file(path)
    change(tensors)
    edited = path.with_name("edited.safetensors")
    save_file(tensors, edited, metadata)
    return edited


def own_copy(trained, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((trained[0] / "last.safetensors").read_bytes())
    return copy


@pytest.mark.parametrize("keep_metadata", [False, True])
def test_edited_weights_are_brought_back(keep_metadata, trained, toy, toy_recipe, tmp_path):
    """Its hash and checksum are those of other weights, or are missing: the run's hash is computed from the weights that are there."""
    def change(tensors):
        tensors["conv1.weight"][0, 0, 0, 0] ^= 1
        tensors["conv1.weight.exponent"] = np.array([tensors["conv1.weight.exponent"] - 1], np.int64)
        tensors["linear1.bias"] = np.zeros(4, np.float32)  # passed over

    original = own_copy(trained, tmp_path)
    edited = edit(original, change, metadata_of(original) if keep_metadata else None)
    fails("eval", edited, "--data", toy, says=edited)
    weights, notes = first_weights(toy_recipe, toy, tmp_path / "run", "--init", edited)
    before = own_copy(trained, tmp_path)
    from safetensors.numpy import load_file
    expected = load_file(before)
    change(expected)
    assert np.array_equal(weights["conv1.weight"], expected["conv1.weight"])
    assert int(weights["conv1.weight.exponent"]) == int(expected["conv1.weight.exponent"][0])
    assert np.array_equal(weights["linear1.weight"], expected["linear1.weight"])
    assert "2 of 2" in notes and "edited" in notes and "afresh" not in notes
    start = tmp_path / "run" / "previous.safetensors"
    assert output_of("hash", start).strip() == hash_of(start) != hash_of(before)


def test_weights_made_elsewhere_are_taken(toy, toy_recipe, tmp_path):
    from safetensors.numpy import save_file
    random = np.random.default_rng(1)
    shapes = {"conv1.weight": (4, 3, 3, 1), "linear1.weight": (4, 64)}
    made = {name: random.integers(-127, 128, shape).astype(np.int8) for name, shape in shapes.items()}
    save_file(made | {name + ".exponent": np.array(-9, np.int8) for name in shapes}, tmp_path / "made")
    weights, _ = first_weights(toy_recipe, toy, tmp_path / "run", "--init", tmp_path / "made")
    for name in shapes:
        assert np.array_equal(weights[name], made[name]) and int(weights[name + ".exponent"]) == -9


@pytest.mark.parametrize("change, says", [
    (lambda t: t.update({"conv1.weight": t["conv1.weight"].astype(np.float32)}), ("conv1.weight", "I8")),
    (lambda t: t["conv1.weight"].__setitem__((1, 2, 0, 0), -128), ("conv1.weight", "-128")),
    (lambda t: t.update({"conv1.weight.exponent": np.array(2000, np.int32)}), ("conv1.weight", "2000")),
    (lambda t: t.update({"conv1.weight.exponent": np.array([1, 2], np.int32)}), ("conv1.weight.exponent", "one integer")),
    (lambda t: t.update({"conv1.weight.exponent": np.array(1.0, np.float32)}), ("conv1.weight.exponent", "one integer")),
    (lambda t: [t.pop(name + ".exponent") for name in ("conv1.weight", "linear1.weight")], "LAYER.weight.exponent"),
])
def test_edited_weights_that_cannot_be_used(change, says, trained, toy, toy_recipe, tmp_path):
    edited = edit(own_copy(trained, tmp_path), change)
    says = says if isinstance(says, tuple) else (says,)
    fails("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--init", edited, says=(edited, *says))
    assert not (tmp_path / "run").exists()


def test_init_of_the_same_network_takes_everything(trained, toy, toy_recipe, tmp_path):
    from safetensors.numpy import load_file
    tuned, notes = first_weights(toy_recipe, toy, tmp_path / "run", "--init", trained[0] / "last.safetensors")
    source = load_file(trained[0] / "last.safetensors")
    assert all((tuned[name] == source[name]).all() for name in source) and "afresh" not in notes


def test_init_with_nothing_in_common_is_an_error(trained, toy, recipe, tmp_path):
    other = recipe(("conv: {out: 4, kernel: 3, padding: 1}", "conv: {out: 5, kernel: 3, padding: 1, name: a}"),
                   ("linear: {out: classes}", "linear: {out: classes, name: b}"))
    done = niti("train", other, "--data", toy, "--run", tmp_path / "run", "--init", trained[0] / "last.safetensors")
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    assert len(lines) == 3 and str(trained[0] / "last.safetensors") in lines[-1] and "no tensor matches" in lines[-1]


# ---- what is printed ----

def test_quiet_prints_the_result_and_nothing_else(toy_recipe, toy, tmp_path):
    done = niti("train", toy_recipe, "--data", toy, "--run", tmp_path / "a", "--quiet", "--json")
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 1
    json.loads(done.stdout)
    done = niti("train", toy_recipe, "--data", toy, "--run", tmp_path / "b", "--quiet")
    assert done.stderr == "" and "hash " in done.stdout and "epoch 1/3" not in done.stdout


def test_elsewhere_than_on_a_terminal_plain_lines_come(toy_recipe, toy, tmp_path):
    done = niti("train", toy_recipe, "--data", toy, "--run", tmp_path / "run")
    lines = done.stdout.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split("  ")[0] for line in epochs] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    for line in epochs:
        assert "loss" in line and "accuracy" in line and "images/s" in line
    assert "\r" not in done.stdout + done.stderr and "\033" not in done.stdout + done.stderr
    assert f"hash {hash_of(tmp_path / 'run' / 'last.safetensors')}" in lines


@pytest.mark.parametrize("columns", [120, 40])
def test_on_a_terminal_a_progress_line_comes_that_never_wraps(columns, toy_recipe, toy, tmp_path):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen([tool.NITI, "train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--threads", "1", "--epochs",
                           "40"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower, text=True,
                          env=os.environ | {"TERM": "xterm"}) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
            shown += part
        process.communicate(timeout=60)
    os.close(leader)
    text = shown.decode()
    assert process.returncode == 0 and "\r" in text
    for word in ("epoch ", "batch ", "images/s", "left", "[", ">", ", run ") if columns == 120 else ("epoch ", "batch "):
        assert word in text
    assert ("[" in text.replace("\033[", "")) == (columns == 120)  # no room for a bar
    drawn = [line.replace("\033[K", "") for line in text.split("\r")]
    assert max(map(len, drawn)) < columns and "\n" not in text


# ---- the introduction ----

def test_a_run_introduces_itself(toy_recipe, toy, tmp_path):
    """By hand: the convolution has 3 * 3 * 1 * 4 weights at 8 * 8 places, the linear layer 4 * 4 * 4 * 4."""
    done = niti("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--max-steps", 25)
    lines = {line.split()[0]: line for line in reversed(done.stdout.splitlines())}
    for word, parts in {"recipe": ("toy", toy_recipe, "batch 16", "3 epochs", "seed 7"),
                        "model": ("toy", "8x8x1", f"{36 + 256} parameters", f"{36 * 64 + 256} multiply-adds"),
                        "data": (os.path.realpath(toy), "idx", "4 classes"), "training": ("160 images", "SHA-256"),
                        "test": ("60 images", "SHA-256"), "device": ("cpu", "thread", "kernels"), "steps": ("25", "10 per epoch"),
                        "run": (tmp_path / "run",)}.items():
        for part in parts:
            assert str(part) in lines[word], (part, lines[word])
    order = [line.split()[0] for line in done.stdout.splitlines()]
    assert order.index("recipe") == 0 and order.index("run") < order.index("epoch")


def test_the_result_says_which_data(trained, toy):
    environment = json.loads((trained[0] / "environment.json").read_text())["data"]
    assert trained[1]["data"] == {
        "kind": "idx", "path": os.path.realpath(toy), "classes": 4,
        "train": {"images": 160, "sha256": environment["train_sha256"]},
        "test": {"images": 60, "sha256": environment["test_sha256"]}}


def test_a_resumed_run_introduces_itself_too(trained, toy):
    text = output_of("train", "--resume", trained[0])
    assert os.path.realpath(toy) in text and "multiply-adds" in text


def test_a_dry_run_checks_and_trains_nothing(toy_recipe, toy, tmp_path):
    text = output_of("train", toy_recipe, "--data", toy, "--run", tmp_path / "not" / "yet", "--dry-run")
    assert "multiply-adds" in text and str(tmp_path / "not" / "yet") in text and "nothing was trained" in text
    facts = json_of("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--dry-run", "--max-steps", 25)
    assert facts["dry_run"] is True and facts["run"] == str(tmp_path / "run") and facts["steps"] == 25
    assert (facts["parameters"], facts["multiply_adds"], facts["data"]["train"]["images"]) == (292, 2560, 160)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_finds_what_training_would(toy_recipe, recipe, toy, tmp_path, trained):
    def refused(name, *arguments, says):
        done = niti("train", name, "--dry-run", *arguments)
        assert done.returncode == 1 and "no problem found" not in done.stdout
        for text in says if isinstance(says, tuple) else (says,):
            assert str(text) in done.stderr, done.stderr

    refused(toy_recipe, "--data", tmp_path / "none", says=tmp_path / "none")
    refused(toy_recipe, "--data", toy, "--run", trained[0], says=(trained[0], "--resume"))
    (tmp_path / "file").write_text("x")
    refused(toy_recipe, "--data", toy, "--run", tmp_path / "file" / "below", says=tmp_path / "file")
    refused(toy_recipe, "--data", toy, "--run", "", says="empty")
    refused(toy_recipe, "--data", toy, "--init", tmp_path / "none.safetensors", says="none.safetensors")
    refused(toy_recipe, "--data", toy, "--isa", "sse9", says="sse9")
    refused(toy_recipe, "--data", toy, "--set", "model.classes=5", says="4 classes")
    data = data_sets.write_folder_set(tmp_path / "set", ["a", "b", "c", "d"], data_sets.squares(80, 1, channels=3),
                                      data_sets.squares(20, 2, channels=3))
    colour = recipe(("[8, 8, 1]", "[8, 8, 3]"), ("mean: auto, std: auto", "mean: [0.5, 0.5, 0.5], std: [1, 1, 1]"))
    assert niti("train", colour, "--data", data, "--dry-run").returncode == 0
    for image in (data / "train" / "d" / "0079.png", data / "test" / "b" / "0013.png"):
        content = image.read_bytes()
        image.write_bytes(content[:-20])
        refused(colour, "--data", data, says=image)
        image.write_bytes(content)


def test_resnet34_takes_a_folder_of_small_images(tmp_path):
    """Its recipe scales them to windows of 224x224."""
    data = data_sets.write_folder_set(tmp_path / "set", [f"class-{i}" for i in range(10)], data_sets.squares(20, 1, channels=3, classes=10),
                                      data_sets.squares(10, 2, channels=3, classes=10))
    done = niti("train", "resnet34-imagenette", "--data", data, "--run", tmp_path / "run", "--batch", 2, "--dry-run")
    assert done.returncode == 0 and "resnet34-imagenet, input 224x224x3" in done.stdout + done.stderr, done.stderr
    assert "no accuracy was measured" in " ".join(output_of("show", "resnet34-imagenette").split())


# ---- schedules ----

def test_positions_in_epochs_steps_and_shares_are_the_same(toy_recipe, toy, tmp_path):
    """3 epochs of 10 steps: two thirds, rounded down, are step 19; then the epoch's last step has the new value."""
    results = {}
    for name, position in (("epoch", "epoch: 2"), ("step", "step: 20"), ("at", "at: 66.6667%"), ("decimal", "at: 0.666667"),
                           ("before", "at: 66.6666%")):
        results[name] = train(toy_recipe, toy, tmp_path / name, "--set", f"update.mu=[{{epoch: 0, mu: 3}}, {{{position}, mu: 1}}]")
    assert len({results[name]["hash"] for name in ("epoch", "step", "at", "decimal")}) == 1
    assert results["before"]["hash"] != results["step"]["hash"]
    assert [row["mu"] for row in rows_of(tmp_path / "step")] == [3, 3, 1]
    assert [row["mu"] for row in rows_of(tmp_path / "before")] == [3, 1, 1]
    again = train(tmp_path / "at" / "recipe.yaml", toy, tmp_path / "again")
    assert again["hash"] == results["at"]["hash"]


def test_what_a_run_never_reaches_is_a_warning(toy_recipe, toy, tmp_path):
    mu = "update.mu=[{epoch: 0, mu: 3}, {epoch: 2, mu: 2}, {epoch: 5, mu: 1}]"
    def warnings(run, *arguments):
        done = niti("train", toy_recipe, "--data", toy, "--run", tmp_path / run, "--threads", 1, "--quiet", "--set", mu, *arguments)
        assert done.returncode == 0
        return done.stderr.splitlines()

    assert warnings("all", "--epochs", 6) == []
    line, = warnings("three")
    assert "update.mu" in line and "1 of 3" in line and "epoch 5" in line and "ends after 3 epochs" in line
    line, = warnings("short", "--epochs", 6, "--max-steps", 20, "--dry-run")
    assert "2 of 3" in line and "epoch 2" in line and "max_steps" in line and "step 20" in line
    assert ["save_every" in line for line in warnings("saved", "--epochs", 6, "--save-every", 7)] == [True]


def test_positions_that_do_not_ascend_in_the_run(toy_recipe, toy, tmp_path):
    fails("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--set",
          "update.mu=[{epoch: 0, mu: 3}, {epoch: 2, mu: 2}, {at: 50%, mu: 1}]", says=("at 50%", "step 15", "epoch 2", "step 20"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("update, says", [
    ("{mu: [{epoch: 0, mu: 3}, {epoch: 1, mu: 2}, {step: 10, mu: 1}]}", ("update: mu", "epoch 1 and step 10 are both step 10 of this run")),
    ("{kind: sgd, lr: [{epoch: 0, lr: 0.1}, {at: 20%, lr: 0.01}, {step: 6, lr: 0.3}]}", ("update: lr", "at 20% and step 6 are both step 6")),
])
def test_positions_that_are_the_same_step(toy_recipe, toy, tmp_path, update, says):
    for more in ((), ("--dry-run",)):
        fails("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--set", f"update={update}", *more, says=says)
    assert not (tmp_path / "run").exists()


def test_shares_of_a_few_steps_may_be_the_same(toy_recipe, toy, tmp_path):
    done = niti("train", toy_recipe, "--data", toy, "--run", tmp_path / "run", "--max-steps", 1, "--set",
                "update.mu=[{epoch: 0, mu: 3}, {at: 30%, mu: 2}, {at: 60%, mu: 1}]")
    assert done.returncode == 0 and "update.mu: the value of epoch 0 never takes effect: at 30% is step 0 of this run, too" in done.stderr


def test_a_run_of_an_earlier_version_with_such_positions_goes_on(toy_recipe, toy, tmp_path):
    """The later value holds, as if the other were not there."""
    run = tmp_path / "run"
    train(toy_recipe, toy, run, "--max-steps", 10, "--set", "update.mu=[{epoch: 0, mu: 3}, {epoch: 1, mu: 0}, {step: 11, mu: 2}]")
    expected = train(toy_recipe, toy, tmp_path / "one", "--set", "update.mu=[{epoch: 0, mu: 3}, {step: 10, mu: 2}]")

    def change(metadata, _):
        metadata["recipe"] = metadata["recipe"].replace("step: 11", "step: 10").replace("max_steps: 10", "max_steps: 0")
        metadata |= dict.fromkeys(("complete", "train_images", "train_correct", "train_loss_sum"), "0")  # between two epochs

    forge(run / "last.safetensors", change)
    assert resume(run)["hash"] == expected["hash"]


def test_the_first_value_beyond_the_end_is_named(toy_recipe, toy):
    done = niti("train", toy_recipe, "--data", toy, "--dry-run", "--set", "update.mu=[{epoch: 0, mu: 3}, {at: 100%, mu: 2}]")
    assert done.returncode == 0 and "1 of 2 values never take effect, the first at 100%: the run ends" in done.stderr, done.stderr


# ---- the run's folder by default ----

def today():
    return time.strftime("%Y-%m-%d")


def test_runs_without_a_name_get_one(toy_recipe, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = today()
    runs = [json_of("train", toy_recipe, "--data", toy, "--threads", 1, "--max-steps", 1)["run"] for _ in range(3)]
    if today() == before:  # not at midnight
        assert runs == [f"runs/{before}-toy", f"runs/{before}-toy-2", f"runs/{before}-toy-3"]
    assert len(set(runs)) == 3 and all((tmp_path / run / "last.safetensors").exists() for run in runs)
    dry = json_of("train", toy_recipe, "--data", toy, "--dry-run")["run"]
    assert dry not in runs and not (tmp_path / dry).exists()


def test_runs_that_start_together_part_ways(toy_recipe, toy, tmp_path):
    started = [subprocess.Popen([tool.NITI, "train", toy_recipe, "--data", toy, "--threads", "1", "--max-steps", "1", "--json"],
                                cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    results = [process.communicate(timeout=60)[0] for process in started]
    assert all(process.returncode == 0 for process in started)
    assert len({json.loads(text.splitlines()[-1])["run"] for text in results}) == 4


def test_a_run_that_cannot_begin_leaves_no_folder_of_its_own(toy_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails("train", toy_recipe, "--data", "none", says="none")
    assert not list(tmp_path.iterdir())
    (tmp_path / "runs").write_text("x")
    fails("train", toy_recipe, "--data", "none", says="runs/")


ASKS = ("--set", "data.default=fashion-mnist")


def test_a_recipe_may_ask_for_the_default_data_set(toy, toy_recipe, tmp_path, monkeypatch, trained):
    monkeypatch.setenv("NITI_DATA", str(toy))
    assert json_of("train", toy_recipe, "--run", tmp_path / "run", *ASKS)["hash"] == trained[1]["hash"]
    monkeypatch.setenv("NITI_DATA", str(tmp_path))  # the run knows its own
    assert json_of("eval", tmp_path / "run" / "best.safetensors")["images"] == 60
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["data"]["default"] == "fashion-mnist"
    assert yaml.safe_load(output_of("show", "lenet5-fashion-mnist"))["data"]["default"] == "fashion-mnist"


@pytest.mark.parametrize("recipe", [None, "lenet5-mnist", "mlp-mnist", "vgg-small-7-cifar10", "alexnet-imagenette"])
def test_others_get_no_data_set_that_they_did_not_ask_for(recipe, toy, toy_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("NITI_DATA", str(toy))
    fails("train", recipe or toy_recipe, "--run", tmp_path / "run", says=("--data", "data.default", recipe or "toy"))
    assert not (tmp_path / "run").exists()


def test_a_default_data_set_that_is_not_there(toy_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("NITI_DATA", str(tmp_path / "none"))
    fails("train", toy_recipe, "--run", tmp_path / "run", *ASKS, says=tmp_path / "none")


def test_fashion_mnist_of_debian_is_found(monkeypatch):
    folder = pathlib.Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    monkeypatch.delenv("NITI_DATA", raising=False)
    facts = json_of("data")
    assert (facts["kind"], facts["shape"], facts["classes"]) == ("idx", [28, 28, 1], 10)
    assert (facts["train_images"], facts["test_images"]) == (60000, 10000)
    assert facts["mean"][0] == pytest.approx(0.2860, abs=1e-4) and facts["std"][0] == pytest.approx(0.3530, abs=1e-4)
