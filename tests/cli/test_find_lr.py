"""`niti find-lr`: short trials of learning rates."""
import signal
import subprocess

import pytest

from test_validation import noisy, write_set
from tool import NITI, fails, json_of, misused, niti, output_of, train


@pytest.fixture(scope="module")
def data(shared):
    return write_set(shared / "rates", train=noisy(640, 1), t10k=noisy(40, 2))


def find(recipe, data, *arguments, **options):
    return json_of("find-lr", recipe, "--data", data, "--threads", 1, *arguments, **options)


def test_trials_are_the_first_steps_of_runs(toy_recipe, data, tmp_path):
    """20 steps with a value, half of them in each column: their mean is what a run of 20 steps has."""
    found = find(toy_recipe, data, "--steps", 20, "--values", "2,5,9")
    assert (found["setting"], found["steps"], found["batch"], found["recipe"]) == ("update.mu", 20, 16, "toy")
    for trial in found["trials"]:
        result = train(toy_recipe, data, tmp_path / trial["value"], "--max-steps", 20, "--set", f"update.mu={trial['value']}")
        assert (trial["first_loss"] + trial["loss"]) / 2 == pytest.approx(result["train_loss"], abs=1e-9)
    losses = {trial["value"]: trial["loss"] for trial in found["trials"]}
    assert list(losses) == ["2", "5", "9"] and found["suggestion"] == min(losses, key=losses.get)
    assert find(toy_recipe, data, "--steps", 20, "--values", "2,5,9", "--isa", "ref") == found


def test_update_sgd(recipe, data, tmp_path):
    """Decades of update.lr, each as a constant: a curve and a warm-up of the recipe have no part in it."""
    sgd = recipe(("{kind: niti, mu: 3}", "{kind: sgd, lr: 0.5, schedule: cosine, final_lr: 0.1, warmup: {step: 5}}"))
    found = find(sgd, data, "--steps", 6, "--values", "0.001,0.05")
    constant = recipe(("{kind: niti, mu: 3}", "{kind: sgd, lr: 0.5}"))
    for trial in found["trials"]:
        result = train(constant, data, tmp_path / trial["value"], "--max-steps", 6, "--set", f"update.lr={trial['value']}")
        assert (trial["first_loss"] + trial["loss"]) / 2 == pytest.approx(result["train_loss"], abs=1e-9)
    assert found["setting"] == "update.lr"
    tried = find(constant, data, "--steps", 2)["trials"]
    assert [float(trial["value"]) for trial in tried] == [10.0**n for n in range(-4, 2)]


def test_update_niti16(recipe, data):
    """Its rates are steps of int8 weights, and constant while they are tried."""
    found = find(recipe(("{kind: niti, mu: 3}", "{kind: niti16}")), data, "--steps", 3)
    assert found["setting"] == "update.lr" and [trial["value"] for trial in found["trials"]] == ["0.5", "1", "2", "4", "8", "16", "32"]


def test_the_table_says_the_same(toy_recipe, toy):
    found = find(toy_recipe, toy, "--steps", 10, "--values", "1,3,12")
    text = output_of("find-lr", toy_recipe, "--data", toy, "--threads", 1, "--steps", 10, "--values", "1,3,12")
    assert "each value is tried as a constant rate for 10 steps" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line[:2].strip().isdigit()}
    for trial in found["trials"]:
        words = rows[trial["value"]].split()
        assert words[1:4] == [f"{trial['first_loss']:.4f}", f"{trial['loss']:.4f}", f"{trial['accuracy']:.2f}"]
        assert words[5] == f"{trial['saturated_weights']:.2f}"
        assert ("suggested" in rows[trial["value"]]) == (trial["value"] == found["suggestion"])
    assert f"begin with update.mu={found['suggestion']}" in text and "training 160 images" in text and "recipe" in text


def test_more_steps_than_an_epoch_has(toy_recipe, toy, tmp_path):
    """Epochs of 10 steps: 25 steps are two and a half of them."""
    found = find(toy_recipe, toy, "--steps", 25, "--values", "3", "--set", "data.crop=random", "--set", "data.pad=1")
    assert found["trials"][0]["accuracy"] > 90 and found["suggestion"] == "3"


def test_no_file_is_written(toy_recipe, toy, tmp_path):
    find(toy_recipe, toy, "--steps", 2, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_suggested_where_nothing_learns(toy_recipe, toy):
    arguments = ("--steps", 10, "--values", "20,28")
    assert find(toy_recipe, toy, *arguments)["suggestion"] is None
    assert "no suggestion" in output_of("find-lr", toy_recipe, "--data", toy, "--threads", 1, *arguments)


@pytest.mark.parametrize("values", ["", "1,,2", "1,", ",", ",".join(map(str, range(33)))])
def test_wrong_lists_are_refused(values, toy_recipe, toy):
    misused("find-lr", toy_recipe, "--data", toy, "--values", values, says="--values")


@pytest.mark.parametrize("values, says", [("1,31", "update.mu=31"), ("x", "update.mu=x"), ("-1", "update.mu=-1"), ("[]", "update.mu")])
def test_wrong_values_are_refused_before_any_step(values, says, toy_recipe, toy):
    done = niti("find-lr", toy_recipe, "--data", toy, "--values", values)
    assert done.returncode == 1 and says in done.stderr and "loss" not in done.stdout


def test_other_mistakes(toy_recipe, toy, tmp_path):
    misused("find-lr", says="a recipe is missing")
    misused("find-lr", toy_recipe, toy_recipe, says="one recipe")
    misused("find-lr", toy_recipe, "--steps", "1", says="--steps")
    fails("find-lr", tmp_path / "none.yaml", says="none.yaml")
    done = niti("find-lr", toy_recipe, "--data", tmp_path / "none")
    assert done.returncode == 1 and str(tmp_path / "none") in done.stderr
    done = niti("find-lr", toy_recipe, "--data", toy, "--set", "model.classes=5")
    assert done.returncode == 1 and "4 classes" in done.stderr


def test_ctrl_c_ends_it(toy_recipe, toy):
    with subprocess.Popen([NITI, "find-lr", toy_recipe, "--data", toy, "--threads", "1", "--steps", "1000000"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not process.stdout.readline().startswith("  test "):  # the data are read
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err
