"""Every command: its help, its misuse, its output for people and for machines."""
import json
import os
import subprocess

import numpy as np
import pytest

import data_sets
from tool import NITI, hash_of, json_of, metadata_of, misused, niti, output_of, train

COMMANDS = ("train", "eval", "predict", "summary", "info", "data", "hash", "bench")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_holds_the_options_and_an_example(command):
    text = output_of(command, "--help")
    assert text.startswith(f"usage: niti {command} ")
    example = text.split("example:\n")[1]
    assert example.strip().startswith(f"niti {command} ")
    assert "--json" in text


def test_help_of_the_whole_names_the_commands_and_the_exit_codes():
    for arguments in (("--help",), ("help",)):
        text = output_of(*arguments)
        for command in COMMANDS:
            assert f"  {command} " in text
        codes = text.split("exit codes:")[1]
        for code in ("0", "1", "2", "130", "143"):
            assert f" {code} " in codes


def test_version():
    assert output_of("--version").startswith("niti 0.")


@pytest.mark.parametrize("arguments", [(), ("fly",), ("--fast",), ("trains",)])
def test_no_command_and_unknown_ones_are_misuse(arguments):
    done = niti(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    for command in COMMANDS:
        assert f"  {command} " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_misuse(command):
    misused(command, "--no-such-option", says="--no-such-option")
    misused(command, "-x", says="-x")
    misused(command, "--json=yes", says="--json takes no value")


@pytest.mark.parametrize("arguments, says", [
    (("train",), "recipe"),
    (("train", "lenet5-mnist"), "--run"),
    (("train", "lenet5-mnist", "--run"), "--run needs a value"),
    (("train", "lenet5-mnist", "mlp-mnist", "--run", "x"), "one recipe"),
    (("train", "lenet5-mnist", "--run", "x", "--threads", "0"), "--threads"),
    (("train", "lenet5-mnist", "--run", "x", "--threads", "two"), "'two'"),
    (("train", "lenet5-mnist", "--run", "x", "--threads", ""), "--threads"),
    (("train", "lenet5-mnist", "--run", "x", "--threads", "1e3"), "'1e3'"),
    (("train", "lenet5-mnist", "--run", "x", "--threads", "99999999999999999999"), "--threads"),
    (("train", "lenet5-mnist", "--run", "x", "--save-every", "-1"), "--save-every"),
    (("train", "lenet5-mnist", "--run", "x", "--set"), "--set needs a value"),
    (("train", "--resume"), "--resume needs a value"),
    (("train", "--resume", "x", "--run", "y"), "--resume"),
    (("train", "--resume", "x", "lenet5-mnist"), "--resume"),
    (("train", "--resume", "x", "--epochs", "3"), "--resume"),
    (("train", "--resume", "x", "--set", "batch=1"), "--resume"),
    (("train", "--resume", "x", "--init", "y"), "--resume"),
    (("eval",), "checkpoint"),
    (("eval", "a", "b"), "one checkpoint"),
    (("eval", "a", "--data"), "--data needs a value"),
    (("predict",), "checkpoint"),
    (("predict", "a"), "image"),
    (("predict", "a", "b", "--top", "0"), "--top"),
    (("summary",), "model"),
    (("summary", "mlp", "lenet5"), "one model"),
    (("summary", "mlp", "--batch", "0"), "--batch"),
    (("summary", "mlp", "--batch", "9999999999"), "--batch"),
    (("info", "this"), "this"),
    (("data", "a", "b"), "one folder"),
    (("hash",), "checkpoint"),
    (("hash", "a", "b"), "one checkpoint"),
    (("bench",), "step, kernels, timeline or infer"),
    (("bench", "speed", "--model", "mlp"), "speed"),
    (("bench", "step"), "--model"),
    (("bench", "step", "--model", "mlp", "--batch", "-3"), "--batch"),
    (("bench", "step", "--model", "mlp", "--seconds", "0"), "--seconds"),
    (("bench", "kernels", "--model", "mlp", "--algorithm", "fast"), "--algorithm: 'fast' is not auto or direct"),
])
def test_misuse(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    misused(*arguments, says=says)
    assert not list(tmp_path.iterdir())


def test_options_may_be_written_with_an_equals_sign_and_stand_anywhere():
    assert json_of("summary", "--batch=3", "mlp") == json_of("summary", "mlp", "--batch", "3")
    assert json.loads(output_of("summary", "--json", "--", "mlp"))["model"] == "mlp"


# ---- summary ----

# By hand: kernel height * width * input channels * output channels, and that times the output's cells.
VGG_SMALL_7 = [  # side, input channels, output channels
    (32, 3, 128), (32, 128, 128), (16, 128, 256), (16, 256, 256), (8, 256, 512), (8, 512, 512)]
MAX_TERMS = (2**31 - 1) // 127**2


def headroom(terms):
    """How many times the terms can be doubled and still be summed in int32."""
    return (MAX_TERMS // terms).bit_length() - 1


def test_summary_of_vgg_small_7():
    summary = json_of("summary", "vgg-small-7")
    parameters = [9 * c * k for _, c, k in VGG_SMALL_7] + [8192 * 10]
    multiply_adds = [9 * c * k * side * side for side, c, k in VGG_SMALL_7] + [8192 * 10]
    weighted = [layer for layer in summary["layers"] if layer["parameters"]]
    assert [layer["parameters"] for layer in weighted] == parameters
    assert [layer["multiply_adds"] for layer in weighted] == multiply_adds
    assert summary["parameters"] == sum(parameters) == 4656512
    assert summary["multiply_adds"] == sum(multiply_adds) == 607600640
    # Forward 9 * input channels, backward 9 * output channels; the first layer sends no error back.
    terms = [9 * 3] + [9 * max(c, k) for _, c, k in VGG_SMALL_7[1:]] + [8192]
    assert [layer["accumulator_terms"] for layer in weighted] == terms
    assert [layer["headroom_bits"] for layer in weighted] == [headroom(n) for n in terms]
    assert summary["input"] == [32, 32, 3] and summary["classes"] == 10 and summary["batch"] == 1
    assert [layer["output"] for layer in weighted] == [[side, side, k] for side, _, k in VGG_SMALL_7] + [[1, 1, 10]]
    assert [layer["node"] for layer in summary["layers"]] == list(range(1, len(summary["layers"]) + 1))


def test_summary_of_lenet5():
    summary = json_of("summary", "lenet5", "--batch", 64)
    weighted = {layer["name"]: layer for layer in summary["layers"] if layer["parameters"]}
    assert {name: layer["parameters"] for name, layer in weighted.items()} == {
        "conv1": 25 * 20, "conv2": 25 * 20 * 50, "linear1": 800 * 500, "linear2": 500 * 10}
    assert {name: layer["multiply_adds"] for name, layer in weighted.items()} == {
        "conv1": 24 * 24 * 25 * 20, "conv2": 8 * 8 * 25 * 20 * 50, "linear1": 800 * 500, "linear2": 500 * 10}
    assert summary["parameters"] == 430500 and summary["multiply_adds"] == 2293000
    assert {name: layer["accumulator_terms"] for name, layer in weighted.items()} == {
        "conv1": 25, "conv2": 25 * 50, "linear1": 800, "linear2": 500}
    by_name = {layer["name"]: layer for layer in summary["layers"]}
    assert by_name["conv1"]["bytes"] == 64 * 24 * 24 * 20
    # The error at conv1's output lies in memory together with the pool's output, which is all that backward needs to know of the
    # ReLU between them; so conv1's own output is gone by then.
    assert 64 * 24 * 24 * 20 + 64 * 12 * 12 * 20 <= summary["activation_bytes"] < 2 * 64 * 24 * 24 * 20


def test_summary_for_people_shows_the_same_numbers():
    text = output_of("summary", "lenet5")
    lines = {words[0]: words for words in map(str.split, text.splitlines()) if words}
    assert lines["conv2"][1:5] == ["8x8x50", "25000", "1600000", "3200"]
    assert lines["conv2"][5:8] == ["1250", str(headroom(1250)), "bits"]
    assert lines["parameters"][1] == "430500" and lines["multiply-adds"][1] == "2293000"


def test_summary_of_a_file(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("name: own\ninput: [4, 6, 2]\nclasses: 3\nlayers:\n"
                    "  - residual: {body: [{conv: {out: 2, kernel: 3, padding: 1, name: inner}}]}\n"
                    "  - avgpool: {kernel: [2, 3]}\n  - flatten\n  - linear: {out: classes}\n")
    summary = json_of("summary", path)
    layers = {layer["name"]: layer for layer in summary["layers"]}
    assert summary["model"] == "own" and summary["parameters"] == 9 * 2 * 2 + 8 * 3
    assert summary["multiply_adds"] == 4 * 6 * 9 * 2 * 2 + 8 * 3
    assert layers["inner"]["output"] == [4, 6, 2] and layers["linear1"]["accumulator_terms"] == 8
    assert layers["flatten1"]["headroom_bits"] is None


def test_gradients_that_could_overflow_are_summed_in_parts():
    """batch * 32 * 32 terms: 131072 at batch 128 are fewer than 133144, more above it."""
    bits = [json_of("summary", "vgg-small-7", "--batch", batch)["layers"][0]["gradient_bits"] for batch in (1, 128, 131)]
    assert bits == [32, 32, 64]


# ---- info ----

def test_info():
    info = json_of("info", "--threads", 2)
    assert info["threads"] == 2 and info["backend"] == "cpu" and info["isa_available"][0] == "ref"
    assert set(info["isa_available"]) <= {"ref", "avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm"}
    for kernel in info["kernels"]:
        assert {"operation", "forward", "backward", "gradient"} <= set(kernel)
    assert {"lenet5", "mlp", "vgg-small-7", "vgg-small-8", "vgg-small-9", "vgg11", "vgg13", "vgg16", "alexnet",
            "alexnet-128"} <= set(info["models"])
    assert {"lenet5-mnist", "lenet5-fashion-mnist", "mlp-mnist", "vgg-small-7-cifar10", "vgg-small-8-cifar10",
            "vgg-small-9-cifar10", "vgg13-cifar10", "alexnet-imagenette"} <= set(info["recipes"])
    text = output_of("info")
    assert "hardware" in text and "threads" in text
    for isa in info["isa_available"]:
        assert isa in text


def test_threads_are_the_cores_that_may_be_used():
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert json_of("info")["threads"] == 1
    finally:
        os.sched_setaffinity(0, cores)
    assert json_of("info")["threads"] == len(cores)


def test_info_shows_the_kernels_that_the_instruction_set_gives():
    for isa in json_of("info")["isa_available"]:
        info = json_of("info", "--isa", isa)
        assert isa in info["device"]
        names = {kernel[way] for kernel in info["kernels"] for way in ("forward", "backward", "gradient")}
        assert all(names) and (names == {"ref"}) == (isa == "ref")


def test_every_built_in_model_and_recipe_loads():
    info = json_of("info")
    for model in info["models"]:
        summary = json_of("summary", model)
        assert summary["model"] == model and summary["parameters"] > 0
        assert summary["layers"][-1]["output"] == [1, 1, summary["classes"]]
    for recipe in info["recipes"]:  # the model and the recipe are right where only the data are missing
        done = niti("train", recipe, "--data", "/no/such/folder", "--run", "/no/such/run")
        assert done.returncode == 1 and "/no/such/folder" in done.stderr


# ---- data ----

def statistics(images):
    scaled = images.reshape(-1, images.shape[-1]) / 255
    return scaled.mean(axis=0), scaled.std(axis=0)


def check_statistics(facts, images):
    mean, std = statistics(images)
    np.testing.assert_allclose(facts["mean"], mean, atol=1.01e-6)
    np.testing.assert_allclose(facts["std"], std, atol=1.01e-6)


@pytest.mark.parametrize("compressed", [False, True])
def test_data_of_an_idx_folder(tmp_path, compressed):
    train, test = data_sets.squares(30, 1, side=6), data_sets.squares(9, 2, side=6)
    folder = data_sets.write_idx_set(tmp_path / "set", train, test, compressed)
    facts = json_of("data", folder)
    assert (facts["kind"], facts["shape"], facts["classes"]) == ("idx", [6, 6, 1], 4)
    assert (facts["train_images"], facts["test_images"]) == (30, 9)
    check_statistics(facts, train[0])
    text = output_of("data", folder)
    for words in ("idx", "6x6x1", "30 images", "9 images", f"{facts['mean'][0]:.6f}"):
        assert words in text


def test_data_of_cifar10(cifar):
    facts = json_of("data", cifar)
    assert (facts["kind"], facts["shape"], facts["classes"]) == ("cifar10", [32, 32, 3], 10)
    assert (facts["train_images"], facts["test_images"]) == (50, 20)
    records = [np.frombuffer((cifar / f"data_batch_{i}.bin").read_bytes(), np.uint8).reshape(-1, 3073) for i in range(1, 6)]
    check_statistics(facts, np.concatenate(records)[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1))


def test_data_of_an_image_folder(tmp_path):
    train, test = data_sets.squares(12, 1, channels=3), data_sets.squares(4, 2, channels=3)
    folder = data_sets.write_folder_set(tmp_path / "set", ["10", "9", "Zebra", "ant"], train, test)
    facts = json_of("data", folder)
    assert (facts["kind"], facts["shape"], facts["classes"]) == ("folder", [8, 8, 3], 4)
    assert facts["class_names"] == ["10", "9", "Zebra", "ant"]  # byte order
    assert "first image" in output_of("data", folder)
    assert (facts["train_images"], facts["test_images"]) == (12, 4)
    check_statistics(facts, train[0])


def test_data_finds_a_default(toy, monkeypatch):
    monkeypatch.setenv("NITI_DATA", str(toy))
    assert json_of("data")["train_images"] == 160


# ---- hash, eval, predict ----

def test_hash_is_the_one_of_the_contract(trained):
    run, result = trained
    for name in ("last.safetensors", "best.safetensors", "previous.safetensors"):
        expected = hash_of(run / name)
        assert output_of("hash", run / name) == expected + "\n"
        assert json_of("hash", run / name) == {"checkpoint": str(run / name), "hash": expected}
        assert metadata_of(run / name)["hash"] == expected
    assert hash_of(run / "last.safetensors") == result["hash"]
    assert hash_of(run / "previous.safetensors") != result["hash"]


@pytest.mark.parametrize("threads", [1, 3])
def test_eval_gives_what_training_reported(trained, toy, threads):
    run, result = trained
    score = json_of("eval", run / "last.safetensors", "--data", toy, "--threads", threads)
    assert score["test_accuracy"] == result["test_accuracy"]
    assert score["test_loss"] == pytest.approx(result["test_loss"], rel=1e-9)
    assert score["images"] == 60 and score["correct"] == round(result["test_accuracy"] * 0.6)
    assert score["hash"] == result["hash"]
    assert f"{score['correct']} of 60" in output_of("eval", run / "last.safetensors", "--data", toy)
    best = json_of("eval", run / "best.safetensors", "--data", toy)
    assert best["test_accuracy"] == result["best_test_accuracy"]


def test_eval_with_stochastic_rounding_and_dropout(every_layer, cifar, tmp_path):
    result = train(every_layer, cifar, tmp_path / "run")
    score = json_of("eval", tmp_path / "run" / "last.safetensors", "--data", cifar)
    assert (score["test_accuracy"], score["hash"]) == (result["test_accuracy"], result["hash"])
    assert score["test_loss"] == pytest.approx(result["test_loss"], rel=1e-9)


def test_predict_names_the_class(trained, tmp_path):
    run, _ = trained
    images, labels = data_sets.squares(12, 9)
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        data_sets.write_png(paths[-1], image)
    predictions = json_of("predict", run / "last.safetensors", *paths)["predictions"]
    assert [prediction["image"] for prediction in predictions] == [str(path) for path in paths]
    assert [prediction["top"][0]["class"] for prediction in predictions] == labels.tolist()
    for prediction in predictions:
        shares = [entry["percent"] for entry in prediction["top"]]
        assert len(shares) == 4 and shares == sorted(shares, reverse=True) and 99.99 < sum(shares) <= 100
        assert {entry["class"] for entry in prediction["top"]} == {0, 1, 2, 3}
    two = json_of("predict", run / "last.safetensors", paths[0], "--top", 2)["predictions"][0]["top"]
    assert two == predictions[0]["top"][:2]
    lines = output_of("predict", run / "last.safetensors", paths[1], "--top", 1).splitlines()
    assert lines[0] == str(paths[1]) and lines[1].split() == [f"{predictions[1]['top'][0]['percent']:.2f}", "%", "1"]
    assert len(lines) == 2


def test_predict_knows_the_folders_names_and_fits_any_size(tmp_path, recipe):
    names = ["blue", "green", "red", "white"]
    data = data_sets.write_folder_set(tmp_path / "set", names, data_sets.squares(80, 1, channels=3),
                                      data_sets.squares(20, 2, channels=3))
    run = tmp_path / "run"
    result = train(recipe(("[8, 8, 1]", "[8, 8, 3]")), data, run, "--set", "data.kind=folder")
    assert result["test_accuracy"] == 100
    images, labels = data_sets.squares(4, 3, side=24, channels=3)  # thrice the size
    for image, label in zip(images, labels):
        path = tmp_path / "image.png"
        data_sets.write_png(path, image)
        top = json_of("predict", run / "best.safetensors", path)["predictions"][0]["top"]
        assert (top[0]["class"], top[0]["name"]) == (label, names[label])


# ---- bench ----

def test_bench_step_and_infer():
    for what in ("step", "infer"):
        report = json_of("bench", what, "--model", "mlp", "--batch", 4, "--threads", 1, "--seconds", 1, timeout=60)
        times = report["milliseconds"]
        assert 0 < times["min"] <= times["median"] <= times["max"] and report["runs"] >= 5
        assert report["images_per_second"] == pytest.approx(4000 / times["median"], rel=1e-6)
        assert (report["model"], report["batch"], report["threads"]) == ("mlp", 4, 1)


def test_bench_kernels():
    report = json_of("bench", "kernels", "--model", "lenet5", "--batch", 2, "--threads", 1, "--seconds", 1)
    found = [(kernel["layer"], kernel["direction"]) for kernel in report["kernels"]]
    every = [(layer, way) for layer in ("conv1", "conv2", "linear1", "linear2") for way in ("forward", "backward", "gradient")]
    assert sorted(found) == sorted(entry for entry in every if entry != ("conv1", "backward"))  # nothing before it learns
    assert report["milliseconds"] == pytest.approx(sum(kernel["milliseconds"] for kernel in report["kernels"]))
    peak = report["peak_operations_per_second"]
    if peak > 0:  # the portable kernels have none
        assert all(0 < k["share_of_peak"] and 0 < k["best_share_of_peak"] for k in report["kernels"])
    else:
        assert "ref kernels" in report["device"]
    text = output_of("bench", "kernels", "--model", "mlp", "--batch", 2, "--threads", 1, "--seconds", 1)
    assert "images/s" in text and "linear1" in text


def test_bench_algorithm(tmp_path):
    model = tmp_path / "threes.yaml"
    model.write_text("name: threes\ninput: [32, 32, 3]\nclasses: 10\nlayers:\n  - conv: {out: 128, kernel: 3, padding: 1}\n"
                     "  - conv: {out: 128, kernel: 3, padding: 1}\n  - flatten\n  - linear: {out: classes}\n", encoding="utf-8")
    arguments = ("bench", "kernels", "--model", model, "--batch", 8, "--threads", 1, "--seconds", 1)
    direct = [k["kernel"] for k in json_of(*arguments, "--algorithm", "direct")["kernels"]]
    fastest = [k["kernel"] for k in json_of(*arguments)["kernels"]]
    assert not any("winograd" in name for name in direct)
    if "avx" in fastest[0]:
        assert any("winograd" in name for name in fastest)
    assert [k["kernel"] for k in json_of(*arguments, "--algorithm", "auto")["kernels"]] == fastest


def test_a_full_standard_output_is_noticed(trained):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([NITI, "hash", trained[0] / "last.safetensors"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1 and b"standard output" in done.stderr
