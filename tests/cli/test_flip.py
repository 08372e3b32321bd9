"""Test-time flip: scores of runs, eval and predict; the same on every instruction set and number of threads."""
import numpy as np
import pytest

import data_sets
from tool import json_of, misused, niti, output_of, train


def test_scores_do_not_depend_on_kernels_or_threads(trained, toy):
    run, _ = trained
    expected = json_of("eval", run, "--data", toy, "--flip", "--isa", "ref", "--threads", 1)
    assert expected["flip"] and not json_of("eval", run, "--data", toy)["flip"]
    for isa in json_of("info")["isa_available"]:
        assert json_of("eval", run, "--data", toy, "--flip", "--isa", isa, "--threads", 3) == expected
    assert "images and their mirrors" in output_of("eval", run, "--data", toy, "--flip")


def test_a_recipe_flips_every_score_and_no_weight(trained, toy, toy_recipe, tmp_path):
    result = train(toy_recipe, toy, tmp_path / "run", "--set", "evaluation.flip=true", "--set", "data.validation=20")
    other = train(toy_recipe, toy, tmp_path / "other", "--set", "data.validation=20")
    assert result["hash"] == other["hash"]
    assert result["flip"] is True and other["flip"] is False
    assert (result["validation_loss"], result["test_loss"]) != (other["validation_loss"], other["test_loss"])
    for split in ("validation", "test"):
        scored = json_of("eval", f"{tmp_path / 'run'}:last", "--data", toy, "--split", split)
        assert scored["flip"] and scored[f"{split}_loss"] == result[f"{split}_loss"]
        again = json_of("eval", f"{tmp_path / 'other'}:last", "--data", toy, "--split", split, "--flip")
        assert again[f"{split}_loss"] == result[f"{split}_loss"]
        plain = json_of("eval", f"{tmp_path / 'run'}:last", "--data", toy, "--split", split, "--no-flip")
        assert not plain["flip"] and plain[f"{split}_loss"] == other[f"{split}_loss"]


def test_a_prediction_is_the_same_for_an_image_and_its_mirror(trained, tmp_path):
    run, _ = trained
    image = data_sets.squares(1, 5)[0][0]
    for name, pixels in (("image", image), ("mirror", np.ascontiguousarray(image[:, ::-1]))):
        data_sets.write_png(tmp_path / f"{name}.png", pixels)

    def top(name, *options):
        return json_of("predict", run, tmp_path / f"{name}.png", *options)["predictions"][0]["top"]

    assert top("image", "--flip") == top("mirror", "--flip")
    assert top("image") != top("mirror") and top("image", "--no-flip") == top("image")


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_one_of_them_at_a_time(command, trained):
    image = ("image.png",) if command == "predict" else ()
    misused(command, trained[0], *image, "--flip", "--no-flip", says="one of them at a time")


def test_a_run_says_that_it_flips(trained, toy, toy_recipe, tmp_path):
    arguments = ("train", toy_recipe, "--data", toy, "--threads", 1, "--epochs", 1)
    plain = output_of(*arguments, "--run", tmp_path / "plain")
    flipped = output_of(*arguments, "--run", tmp_path / "run", "--set", "evaluation.flip=true")
    assert "60 test images and their mirrors, which choose" in flipped and "every score is of images and their mirrors" in flipped
    assert "mirrors" not in plain
    done = niti("export", "c", tmp_path / "run", "--out", tmp_path / "c")
    assert done.returncode == 0 and "without its mirror" in done.stderr
    done = niti("export", "c", trained[0], "--out", tmp_path / "plain-c")
    assert done.returncode == 0 and "mirror" not in done.stderr
