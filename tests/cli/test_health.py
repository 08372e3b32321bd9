"""Training that cannot work is noticed: at chance, saturated, or without any change."""
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import data_sets
from test_validation import noisy, write_set
from tool import json_of, niti, train


def warnings_of(*arguments):
    """(the warnings of the result, standard error of the same run without progress)."""
    done = niti("train", *arguments, "--quiet", "--json", "--threads", 1)
    assert done.returncode == 0, done.stderr
    warnings = json.loads(done.stdout)["warnings"]
    assert [f"niti: {text}" for text in warnings] == done.stderr.splitlines()
    return warnings


def test_training_that_works_gives_no_warning(toy_recipe, toy, tmp_path):
    assert warnings_of(toy_recipe, "--data", toy, "--run", tmp_path / "run") == []


def test_a_learning_rate_far_too_large(toy_recipe, toy, tmp_path):
    """Every step moves the weights by more than they can hold. Each layer is told once, and what is told is the same everywhere."""
    arguments = (toy_recipe, "--data", toy, "--set", "update.mu=14")
    warnings = warnings_of(*arguments, "--run", tmp_path / "run")
    saturated = [text for text in warnings if "saturated, at +-127" in text]
    assert {text.split("layer ")[1].split(":")[0] for text in saturated} == {"conv1", "linear1"} and len(saturated) == 2
    assert all("update.mu, which is 14" in text and "niti find-lr" in text and "lower" in text for text in saturated)
    assert warnings_of(*arguments, "--run", tmp_path / "ref", "--isa", "ref") == warnings
    lines = niti("train", *map(str, arguments), "--run", tmp_path / "stream", "--json-stream").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["text"] for event in events if event["event"] == "warning"] == warnings == events[-1]["warnings"]


def test_update_sgd_names_its_learning_rate(recipe, toy, tmp_path):
    """A rate of 0 changes no weight, those of a norm (16 bits) neither; running statistics are not trained."""
    still = recipe(("{kind: niti, mu: 3}", "{kind: sgd, lr: 0, momentum: 0}"), ("    - relu\n", "    - norm\n    - relu\n"))
    warnings = warnings_of(still, "--data", toy, "--run", tmp_path / "run")
    unchanged = [text for text in warnings if "changed: its gradients" in text]
    told = {"conv1: none of the 36 values of conv1.weight", "norm1: none of the 4 values of norm1.weight",
            "norm1: none of the 4 values of norm1.bias", "linear1: none of the 256 values of linear1.weight"}
    assert {text.split("layer ")[1].split(" changed")[0] for text in unchanged} == told and len(unchanged) == 4
    assert all("update.lr, which is 0)" in text for text in unchanged)


def test_a_bias_that_rests_is_told_from_its_weight(recipe, toy, tmp_path):
    still = recipe(("{kind: niti, mu: 3}", "{kind: sgd, lr: 0, momentum: 0}"), ("kernel: 3, padding: 1}", "kernel: 3, padding: 1, bias: true}"))
    warnings = warnings_of(still, "--data", toy, "--run", tmp_path / "run")
    for text in ("36 values of conv1.weight changed", "4 values of conv1.bias changed"):
        assert len([warning for warning in warnings if f"layer conv1: none of the {text}" in warning]) == 1


def test_weights_may_rest_at_the_end_of_a_curve(recipe, toy, tmp_path):
    """The last three of 16 epochs begin below a tenth of the rate: some layer's int8 weights stay as they are, and that is no fault."""
    fades = recipe(("{kind: niti, mu: 3}", "{kind: sgd, lr: 0.002, momentum: 0, schedule: cosine}"))
    arguments = (fades, "--data", toy, "--epochs", 16, "--run", tmp_path / "run")
    assert [text for text in warnings_of(*arguments) if "changed: its gradients" in text and "epoch 1:" not in text] == []


def test_a_network_that_is_dead(recipe, toy, tmp_path):
    """Pixels are not negative and all weights are: behind the ReLU everything is 0, and no weight changes."""
    weights = {"conv1.weight": np.full((4, 3, 3, 1), -100, np.int8), "linear1.weight": np.full((4, 64), -3, np.int8)}
    save_file(weights | {name + ".exponent": np.array(-9, np.int32) for name in weights}, tmp_path / "dead.safetensors")
    dead = recipe(("mean: auto, std: auto", "mean: [0], std: [0.5]"))
    warnings = warnings_of(dead, "--data", toy, "--run", tmp_path / "run", "--init", tmp_path / "dead.safetensors")
    warnings = [text for text in warnings if "afresh" not in text and "modified" not in text]
    for layer, count in (("conv1", 36), ("linear1", 256)):
        assert len([text for text in warnings if f"layer {layer}: none of the {count} values of {layer}.weight changed" in text]) == 1
    assert len([text for text in warnings if "is that of guessing (the most frequent class has 25.00 %)" in text]) == 1
    assert len([text for text in warnings if "layer linear1: the logits are the same for every image" in text]) == 1
    assert all("epoch 1: " in text for text in warnings)


def test_guessing_counts_the_most_frequent_class(toy_recipe, tmp_path):
    """Labels that say nothing about the images, three quarters of them the same: as many right as always naming that one."""
    random = np.random.default_rng(5)
    images, labels = random.integers(0, 256, (1600, 8, 8, 1)).astype(np.uint8), np.zeros(1600, np.uint8)
    labels[::4] = np.arange(400) % 3 + 1
    data = write_set(tmp_path / "data", train=(images, labels), t10k=(images[:40], labels[:40]))
    warnings = warnings_of(toy_recipe, "--data", data, "--run", tmp_path / "run", "--epochs", 1)
    assert any("is that of guessing (the most frequent class has 75.00 %)" in text for text in warnings), warnings


def test_part_of_an_epoch_is_not_judged(toy_recipe, tmp_path):
    """One step says nothing about an epoch."""
    data = write_set(tmp_path / "data", train=noisy(160, 1), t10k=noisy(40, 2))
    assert warnings_of(toy_recipe, "--data", data, "--run", tmp_path / "run", "--max-steps", 1, "--set", "update.mu=0") == []


def test_the_number_in_the_recipe_is_the_one_to_change(recipe, toy, tmp_path):
    """Of a curve the rate at an epoch's end is another number, which is named apart."""
    wild = recipe(("{kind: niti, mu: 3}", "{kind: niti16, lr: 900, schedule: linear, final_lr: 100, warmup: {step: 0}}"))
    warnings = [text for text in warnings_of(wild, "--data", toy, "--run", tmp_path / "run") if "update.lr" in text]
    assert warnings
    for text in warnings:
        epoch = int(text.split("epoch ")[1].split(":")[0])
        last = float(text.split("update.lr, which is 900 and came to ")[1].split(" in the last step")[0])
        assert last == pytest.approx(900 - 800 * (10 * epoch - 1) / 30)  # 30 steps, of which the first has number 0


@pytest.mark.parametrize("kind, error", [("sgd", "nearest"), ("niti16", "truncate"), ("sgd", "pseudo-stochastic")])
def test_deltas_that_are_rounded_with_a_bias(kind, error, toy_recipe, toy, tmp_path):
    warnings = warnings_of(toy_recipe, "--data", toy, "--run", tmp_path / "run", "--max-steps", 1, "--set", f"update={{kind: {kind}}}",
                           "--set", f"rounding.error={error}")
    assert len(warnings) == 1 and f"rounding.error is {error}" in warnings[0] and "rounding.error=stochastic-byte" in warnings[0]
    assert warnings_of(toy_recipe, "--data", toy, "--run", tmp_path / "good", "--max-steps", 1, "--set", f"update={{kind: {kind}}}",
                       "--set", "rounding.error=stochastic") == []


def test_a_norm_over_one_value(recipe, toy, tmp_path):
    normed = recipe(("{kind: niti, mu: 3}", "{kind: sgd}"), ("    - linear: {out: classes}\n", "    - norm: {name: lonely}\n    - linear: {out: classes}\n"))
    warnings = warnings_of(normed, "--data", toy, "--run", tmp_path / "run", "--max-steps", 1, "--batch", 1)
    assert len(warnings) == 1 and "layer lonely: a norm over one value" in warnings[0] and "raise batch" in warnings[0]
    assert warnings_of(normed, "--data", toy, "--run", tmp_path / "two", "--max-steps", 1, "--batch", 2) == []
