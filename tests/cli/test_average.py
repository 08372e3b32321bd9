"""Averaged weights of a run: beside the final ones, through every interruption, and what a recipe or a file may not say."""
import signal
import time

import numpy as np
import pytest

import data_sets
from tool import fails, forge, hash_of, json_of, metadata_of, output_of, resume, rows_of, start_training, stop, tensors_of, timeless, train, wait_for

AVERAGE = ("--epochs", 4, "--set", "average={from: {epoch: 1}, every: {step: 3}}")


@pytest.fixture(scope="module")
def whole(normed, toy, shared):
    """(run, result) of 40 steps, 10 of them samples."""
    run = shared / "averaged"
    return run, train(normed, toy, run, *AVERAGE, "--isa", "ref", "--save-every", 1)


def test_it_is_beside_the_final_weights(whole, normed, toy, tmp_path):
    run, result = whole
    other = train(normed, toy, tmp_path / "run", "--epochs", 4)
    assert other["hash"] == result["hash"] != result["averaged_hash"] and "averaged_hash" not in other
    assert metadata_of(run / "last.safetensors")["average_samples"] == "10"
    scored = json_of("eval", f"{run}:averaged", "--data", toy)
    assert scored["test_accuracy"] == result["averaged_test_accuracy"] and scored["hash"] == result["averaged_hash"] == hash_of(run / "averaged.safetensors")
    assert json_of("eval", f"{run}:last", "--data", toy)["test_accuracy"] == result["test_accuracy"]
    assert [row["averaged_test_accuracy"] is None for row in rows_of(run)] == [True, True, True, False]
    image = tmp_path / "image.png"
    data_sets.write_png(image, data_sets.squares(1, 5)[0][0])
    assert json_of("predict", f"{run}:averaged", image)["predictions"]
    names = {name for name in tensors_of(run / "averaged.safetensors") if not name.endswith(".exponent")}
    assert all(name.endswith((".weight", ".bias", ".running")) for name in names)
    text = output_of("train", normed, "--data", toy, "--run", tmp_path / "text", *AVERAGE)
    assert "averaged weights: test accuracy" in text and "best.safetensors, averaged.safetensors\n" in text


def test_threads_and_kernels(whole, normed, toy, tmp_path):
    for isa in json_of("info")["isa_available"]:
        result = json_of("train", normed, "--data", toy, "--run", tmp_path / isa, *AVERAGE, "--isa", isa, "--threads", 3)
        assert result["averaged_hash"] == whole[1]["averaged_hash"]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_goes_on_from_every_epoch(stop, whole, tmp_path):
    """A checkpoint kept after an epoch becomes the last one of a run of its own."""
    run, result = whole
    again = tmp_path / "again"
    again.mkdir()
    for name in ("recipe.yaml", "model.yaml", "environment.json"):
        (again / name).write_bytes((run / name).read_bytes())
    (again / "last.safetensors").write_bytes((run / f"epoch-000{stop}.safetensors").read_bytes())
    resumed = resume(again)
    assert (resumed["hash"], resumed["averaged_hash"]) == (result["hash"], result["averaged_hash"])
    assert resumed["averaged_test_accuracy"] == result["averaged_test_accuracy"] == resume(again)["averaged_test_accuracy"]
    assert (again / "averaged.safetensors").read_bytes() == (run / "averaged.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_goes_on_from_within_an_epoch(number, normed, toy, tmp_path):
    options = ("--epochs", 40, "--set", "average={from: {epoch: 1}, every: {step: 3}}")
    expected = train(normed, toy, tmp_path / "whole", *options)
    run = tmp_path / "run"
    process = start_training(normed, "--data", toy, "--run", run, *options)
    wait_for(run / "last.safetensors", process)
    while int(metadata_of(run / "last.safetensors")["epoch"]) < 2 and process.poll() is None:
        time.sleep(0.001)
    stop(process, number)
    assert 0 < int(metadata_of(run / "last.safetensors")["step"]) < expected["steps"]
    result = resume(run)
    assert (result["hash"], result["averaged_hash"]) == (expected["hash"], expected["averaged_hash"])
    assert timeless(rows_of(run)) == timeless(rows_of(tmp_path / "whole"))


def test_an_extended_run_averages_on(normed, toy, tmp_path):
    steady = ("--set", "update={kind: sgd, lr: 0.05}")
    result = train(normed, toy, tmp_path / "whole", *AVERAGE, *steady)
    train(normed, toy, tmp_path / "run", "--epochs", 2, *AVERAGE[2:], *steady)
    assert resume(tmp_path / "run", "--epochs", 4)["averaged_hash"] == result["averaged_hash"]
    train(normed, toy, tmp_path / "shares", "--epochs", 2, "--set", "average={from: {at: 50%}}", *steady)
    fails("train", "--resume", tmp_path / "shares", "--epochs", 4, says="average.from is a share of the run")


def test_with_validation_images(normed, toy, tmp_path):
    run = tmp_path / "run"
    result = train(normed, toy, run, "--epochs", 2, "--set", "average={from: {epoch: 0}}", "--set", "data.validation=20", "--set", "evaluation.flip=true")
    for split in ("validation", "test"):
        assert json_of("eval", f"{run}:averaged", "--data", toy, "--split", split)[f"{split}_accuracy"] == result[f"averaged_{split}_accuracy"]
    assert rows_of(run)[-1]["averaged_validation_accuracy"] is not None


def test_an_average_of_one_sample_is_the_final_weight(normed, toy, tmp_path):
    """Its masters are those of the last step; only the running statistics are others."""
    run = tmp_path / "run"
    train(normed, toy, run, "--epochs", 2, "--set", "average={from: {epoch: 1}, every: {epoch: 2}}")
    averaged, last = tensors_of(run / "averaged.safetensors"), tensors_of(run / "last.safetensors")
    for name in ("norm1.weight", "norm2.bias"):
        values = [t[name] * 2.0**float(t[f"{name}.exponent"].reshape(-1)[0]) for t in (averaged, last)]
        assert (values[0] == values[1]).all()
    assert (averaged["norm1.running"] != last["norm1.running"]).any()
    exponent = int(averaged["conv1.weight.exponent"].reshape(-1)[0]) - int(last["conv1.weight.exponent"].reshape(-1)[0])
    master = np.round(last["conv1.master"] / 2.0**(8 + exponent))
    assert np.abs(averaged["conv1.weight"] - master).max() <= 1


@pytest.mark.parametrize("average, says", [
    ("{from: {epoch: 4}}", "0 samples from epoch 4 (step 40) on in this run of 40 steps"),
    ("{from: {at: 95%}, every: {step: 41}}", "expected 1 to 1048576"),
    ("{from: {epoch: 0}, every: {step: 0}}", "average: every: 0"),
    ("{from: {epoch: 0}, every: {at: 10%}}", "unknown key 'at'"),
])
def test_what_a_recipe_may_not_say(average, says, normed, toy, tmp_path):
    line = fails("train", normed, "--data", toy, "--run", tmp_path / "run", "--epochs", 4, "--set", f"average={average}", says=says)
    assert "average" in line and not (tmp_path / "run").exists()


def test_an_edit_switches_it_off(whole, normed, toy, tmp_path):
    averaging = tmp_path / "averaging.yaml"
    averaging.write_text((whole[0] / "recipe.yaml").read_text())
    assert "average:" in averaging.read_text()
    result = train(averaging, toy, tmp_path / "off", "--set", "average=none")
    assert result["hash"] == whole[1]["hash"] and "averaged_hash" not in result
    train(normed, toy, tmp_path / "without", "--epochs", 4)
    assert (tmp_path / "off" / "recipe.yaml").read_bytes() == (tmp_path / "without" / "recipe.yaml").read_bytes()


def test_what_a_checkpoint_may_not_hold(whole, tmp_path):
    run, _ = whole
    for name in ("recipe.yaml", "model.yaml", "environment.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())

    def broken(change, says):
        (tmp_path / "last.safetensors").write_bytes((run / "epoch-0003.safetensors").read_bytes())
        forge(tmp_path / "last.safetensors", change)
        fails("train", "--resume", tmp_path, says=says)

    def large(_, tensors):
        tensors["conv1.weight.average"] = tensors["conv1.weight.average"] | (1 << 30)

    def missing(_, tensors):
        del tensors["norm1.bias.average"], tensors["norm1.bias.average.exponent"]

    def samples(number):
        return lambda metadata, _: metadata.update(average_samples=str(number))

    broken(large, ("conv1.weight.average", "element ", "of 7 samples"))
    broken(missing, ("norm1.bias.average", "missing"))
    for number in (0, 6, 8, 1 << 20, (1 << 63) - 1):
        broken(samples(number), (f"'average_samples' is {number}", "expected 7 at this step"))


@pytest.mark.parametrize("held_out", [0, 20])
def test_scores_of_more_images_than_a_split_has_are_refused(held_out, normed, toy, tmp_path):
    run = tmp_path / "run"
    train(normed, toy, run, "--epochs", 2, "--set", "average={from: {epoch: 0}}", "--set", f"data.validation={held_out}")
    last = run / "last.safetensors"
    content = last.read_bytes()
    for key, most in (("averaged", 60), ("averaged_validation", held_out)):
        assert metadata_of(last)[f"{key}_images"] == str(most)
        forge(last, lambda metadata, _: metadata.update({f"{key}_images": str(most + 1)}))
        fails("train", "--resume", run, says=(last, f"'{key}_images' is {most + 1} (expected {'0 or' if most else 'at most'} {most},"))
        last.write_bytes(content)
    resume(run)
