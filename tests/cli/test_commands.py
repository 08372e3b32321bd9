"""Every command: its help, its misuse, its output for people and for machines."""
import gzip
import hashlib
import json
import os
import shutil
import subprocess

import numpy as np
import pytest

import data_sets
from recipes import TOY
from tool import NITI, ROOT, fails, hash_of, json_of, metadata_of, misused, niti, output_of, train

WORKERS = ("train", "find-lr", "eval", "predict", "summary", "program", "show", "info", "data", "hash", "fold", "export", "import", "replay", "vectors",
           "compare", "bench", "tune")
COMMANDS = WORKERS + ("help", "completion", "man")


def options_of(command):
    """The options that a command's help lists: {name with dashes: the word after it, or ""}."""
    lines = output_of(command, "--help").split("options:\n")[1].split("\n\n")[0].splitlines()
    words = [line.split() + [""] for line in lines if line.startswith("  -")]
    return {("--help" if word[0] == "-h," else word[0]): word[1] if word[1].isupper() or "=" in word[1] else "" for word in words}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_holds_the_options_and_an_example(command):
    text = output_of(command, "--help")
    assert text == output_of(command, "-h") == output_of("help", command) == output_of("--help", command)
    assert text.startswith(f"usage: niti {command} ")
    example = text.split("example:\n")[1]
    assert example.strip().startswith(f"niti {command} ")
    assert ("--json" in options_of(command)) == (command in WORKERS) and "--help" in options_of(command)
    assert max(map(len, text.split("options:\n")[1].splitlines())) <= 110


def test_help_of_the_whole_names_the_commands_and_the_exit_codes():
    for arguments in (("--help",), ("help",), ("-h",)):
        text = output_of(*arguments)
        for command in COMMANDS:
            assert f"  {command} " in text
        codes = text.split("exit codes:")[1]
        for code in ("0", "1", "2", "3", "130", "141", "143"):
            assert f" {code} " in codes


def test_version():
    assert output_of("--version") == output_of("-V")
    assert output_of("-V").startswith("niti 0.")


@pytest.mark.parametrize("arguments", [(), ("fly",), ("--fast",), ("trains",)])
def test_no_command_and_unknown_ones_are_misuse(arguments):
    done = niti(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    for command in COMMANDS:
        assert f"  {command} " in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_misuse(command):
    misused(command, "--no-such-option", says="--no-such-option")
    misused(command, "-x", says="-x")
    if command in WORKERS:
        misused(command, "--json=yes", says="--json takes no value")


@pytest.mark.parametrize("arguments, meant", [
    (("trian",), "train"), (("evl",), "eval"), (("summery",), "summary"), (("help", "sumary"), "summary"), (("man", "trein"), "train"),
    (("train", "--epocs", "3"), "--epochs"), (("train", "--steps=3"), "--max-steps"), (("eval", "a", "--jsno"), "--json"),
    (("predict", "--treads"), "--threads"), (("hash", "--hepl"), "--help"),
])
def test_a_slip_is_answered_with_what_was_meant(arguments, meant):
    done = niti(*arguments)
    assert done.returncode == 2 and f"did you mean '{meant}'?" in done.stderr.splitlines()[0], done.stderr


@pytest.mark.parametrize("arguments, meant", [
    (("train", "lenet5-minst", "--run", "x"), "lenet5-mnist"), (("summary", "vgg-small7"), "vgg-small-7"),
    (("train", "mlp-mnist", "--run", "x", "--set", "epoch=3"), "epochs"),
    (("train", "mlp-mnist", "--run", "x", "--set", "data.crp=random"), "crop"),
    (("train", "mlp-mnist", "--run", "x", "--set", "model=lenet"), "lenet5"),
])
def test_slips_in_names_and_keys_too(arguments, meant):
    done = niti(*arguments)
    assert done.returncode == 1 and f"did you mean '{meant}'?" in done.stderr, done.stderr


def test_what_is_far_from_everything_is_answered_without_a_guess():
    for arguments in (("xyzzy",), ("train", "--xyzzy")):
        assert "did you mean" not in niti(*arguments).stderr


def test_a_name_that_lacks_its_ending_and_a_folder_for_a_recipe(tmp_path, trained):
    (tmp_path / "own.yaml").write_text(TOY)
    fails("train", "own", cwd=tmp_path, says="no built-in recipe 'own', did you mean 'own.yaml'?")
    fails("train", trained[0], says=(f"{trained[0]}: a folder, not a recipe", f"`niti train --resume {trained[0]}`"))


def test_an_image_needs_the_scale_that_training_takes_from_the_data(recipe, tmp_path):
    data_sets.write_png(tmp_path / "image.png", np.zeros((8, 8, 1), np.uint8))
    done = niti("predict", recipe(), tmp_path / "image.png")
    assert done.returncode == 1 and "data.mean and data.std are 'auto'" in done.stderr.splitlines()[-1], done.stderr


# ---- completion and manual pages ----

def candidates(*words):
    return [line.split("\t")[0] for line in output_of("complete", "--", *words).splitlines()]


def test_completion_knows_commands_options_and_names():
    assert candidates("") == list(COMMANDS)
    assert candidates("s") == ["summary", "show"] and candidates("xyzzy") == []
    for command in COMMANDS:
        assert set(candidates(command, "--")) == set(options_of(command))
    assert candidates("train", "--ba") == ["--batch", "--backend"]
    info = json_of("info")
    assert candidates("train", "") == info["recipes"] + [":file"]
    assert candidates("train", "lenet5-m") == ["lenet5-mnist", ":file"]
    assert set(info["models"]) < set(candidates("summary", ""))
    assert candidates("help", "tr") == ["train"] and candidates("bench", "ker") == ["kernels"]
    assert candidates("completion", "") == ["bash", "zsh", "fish"]


def test_completion_knows_the_values_of_options():
    assert candidates("info", "--backend", "") == ["auto", "cpu", "cuda"]
    assert candidates("info", "--backend", "=", "cu") == ["cuda"]  # as bash splits words
    assert candidates("info", "--backend", "=") == ["auto", "cpu", "cuda"]
    assert candidates("info", "--backend=cu") == ["--backend=cuda"]
    assert candidates("train", "--run", "") == candidates("data", "") == [":dir"]
    assert candidates("train", "--epochs", "") == []  # a number: nothing to offer
    assert candidates("bench", "step", "--model", "ml") == ["mlp", ":file"]
    assert candidates("train", "--quiet", "mlp-") == ["mlp-mnist", ":file"]  # a flag takes no value
    assert candidates("train", "--epochs", "3", "mlp-") == ["mlp-mnist", ":file"]


SHELLS = {
    "bash": ("source niti.bash; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _niti; printf '%s\\n' \"${COMPREPLY[@]}\"",),
    "zsh": ("compdef() { :; }; _describe() { print -l -- ${found%%:*}; }; _files() { print -l ${words[CURRENT]}*(N); }; "
            "source ./niti.zsh; words=(\"$@\"); CURRENT=$#; _niti", "-f"),
    "fish": ("source niti.fish; complete -C (string join ' ' -- $argv) | string replace -r '\\t.*' ''", "--no-config"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_in_a_shell(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / f"niti.{shell}").write_text(output_of("completion", shell))
    (tmp_path / "own.yaml").write_text("")
    (tmp_path / "folder").mkdir()

    def complete(*words):
        script, *options = SHELLS[shell]
        command = [shell, *options, "-c", script] + ([] if shell == "fish" else ["-"]) + ["niti", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
                              env=os.environ | {"PATH": f"{NITI.parent}:{os.environ['PATH']}"})
        assert done.stderr == "", done.stderr
        return sorted(line.rstrip("/") for line in done.stdout.splitlines() if line)

    assert complete("tr") == ["train"]
    assert complete("train", "--ba") == ["--backend", "--batch"]
    assert complete("bench", "") == ["infer", "kernels", "step", "timeline"]
    assert complete("train", "o") == ["own.yaml"]
    assert complete("data", "fo") == ["folder"]
    assert complete("bench", "step", "--model", "vgg-small") == [
        "vgg-small-7", "vgg-small-7-bn", "vgg-small-8", "vgg-small-8-bn", "vgg-small-9", "vgg-small-9-bn"]


def test_completion_of_an_unknown_shell_is_misuse():
    misused("completion", says="bash, zsh or fish")
    misused("completion", "tcsh", says="tcsh")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_manual_page_holds_the_options(command, tmp_path):
    page = output_of("man", command)
    plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "").replace("\\&", "")
    assert page.startswith(f".TH niti-{command} 1 ") and f"niti-{command} - " in plain
    for option, value in options_of(command).items():
        assert f".TP\n{option} {value}".rstrip() in plain
    lines = output_of(command, "--help").splitlines()
    assert lines[2] in plain and lines[-1].strip() in plain  # what it is for, and the example
    assert f"niti\\-{command} (1)" in output_of("man")
    assert niti("man", "--all", tmp_path).returncode == 0 and (tmp_path / f"niti-{command}.1").read_text() == page
    if shutil.which("mandoc"):
        lint = subprocess.run(["mandoc", "-T", "lint", "-W", "error"], input=page, capture_output=True, text=True, check=False)
        assert lint.returncode == 0, lint.stdout


def test_manual_pages_that_cannot_be_written(tmp_path):
    fails("man", "--all", tmp_path / "none", says=tmp_path / "none")


@pytest.mark.parametrize("arguments, says", [
    (("train",), "recipe"),
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
    (("train", "--resume", "x", "--epochs", "3", "--batch", "4"), "--resume"),
    (("train", "--resume", "x", "--test-every", "3"), "--resume"),
    (("find-lr",), "a recipe is missing"),
    (("train", "--resume", "x", "--set", "batch=1"), "--resume"),
    (("train", "--resume", "x", "--init", "y"), "--resume"),
    (("train", "--resume", "x", "--dry-run"), "--resume"),
    (("eval",), "a network is missing"),
    (("eval", "a", "b"), "one network"),
    (("eval", "a", "--data"), "--data needs a value"),
    (("predict",), "a network is missing"),
    (("predict", "a"), "image"),
    (("predict", "a", "b", "--top", "0"), "--top"),
    (("summary",), "a network is missing"),
    (("summary", "mlp", "lenet5"), "one network"),
    (("show",), "a network is missing"),
    (("show", "mlp", "lenet5"), "one network"),
    (("summary", "mlp", "--batch", "0"), "--batch"),
    (("summary", "mlp", "--batch", "9999999999"), "--batch"),
    (("info", "this"), "this"),
    (("data", "a", "b"), "one folder"),
    (("hash",), "a network is missing"),
    (("hash", "a", "b"), "one network"),
    (("bench",), "step, kernels, timeline or infer"),
    (("bench", "speed", "--model", "mlp"), "speed"),
    (("bench", "step"), "--model"),
    (("bench", "step", "--model", "mlp", "--batch", "-3"), "--batch"),
    *((("bench", "step", "--model", "mlp", "--seconds", value), f"--seconds: '{value}' is not a number from 0.001 to 3600")
      for value in ("0", "-1", "0.0001", "3600.001", "1.", ".5", "1e3", "0.3s", "", "99999999999")),
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
ACCUMULATION_MAX = (2**31 - 1) // 127**2


def headroom(length):
    """How many times the accumulation length can be doubled and still be summed in int32."""
    return (ACCUMULATION_MAX // length).bit_length() - 1


def test_summary_of_vgg_small_7():
    summary = json_of("summary", "vgg-small-7")
    parameters = [9 * c * k for _, c, k in VGG_SMALL_7] + [8192 * 10]
    multiply_adds = [9 * c * k * side * side for side, c, k in VGG_SMALL_7] + [8192 * 10]
    weighted = [layer for layer in summary["layers"] if layer["parameters"]]
    assert [layer["parameters"] for layer in weighted] == parameters
    assert [layer["multiply_adds"] for layer in weighted] == multiply_adds
    assert summary["parameters"] == sum(parameters) == 4656512
    assert summary["multiply_adds"] == sum(multiply_adds) == 607600640
    # Forward 9 * input channels, backward 9 * output channels; the first layer sends no delta back.
    terms = [9 * 3] + [9 * max(c, k) for _, c, k in VGG_SMALL_7[1:]] + [8192]
    assert [layer["accumulation_length"] for layer in weighted] == terms
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
    assert {name: layer["accumulation_length"] for name, layer in weighted.items()} == {
        "conv1": 25, "conv2": 25 * 50, "linear1": 800, "linear2": 500}
    by_name = {layer["name"]: layer for layer in summary["layers"]}
    assert by_name["conv1"]["bytes"] == 64 * 24 * 24 * 20
    # The delta of conv1's output is in memory together with the pool's output, which is all that backward needs to know of the
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
    assert layers["inner"]["output"] == [4, 6, 2] and layers["linear1"]["accumulation_length"] == 8
    assert layers["flatten1"]["headroom_bits"] is None


def test_gradients_that_could_overflow_are_summed_in_parts():
    """batch * 32 * 32 products: 131072 at batch 128 are fewer than 133144, more above it."""
    bits = [json_of("summary", "vgg-small-7", "--batch", batch)["layers"][0]["gradient_bits"] for batch in (1, 128, 131)]
    assert bits == [32, 32, 64]


# ---- whatever names a network ----

@pytest.fixture
def named(trained, toy, tmp_path):
    """Names of the network of a trained run: {name: file of its weights, or None for those that its seed gives}."""
    run, _ = trained
    (tmp_path / "weights").write_bytes((run / "previous.safetensors").read_bytes())
    (tmp_path / "recipe").write_text((run / "recipe.yaml").read_text())
    kept = tmp_path / "kept"
    train(run / "recipe.yaml", toy, kept, "--epochs", 2, "--save-every", 1)
    return {run: "best", f"{run}/": "best", f"{run}:last": "last", f"{run}:best": "best", f"{run}:previous": "previous",
            run / "last.safetensors": "last", tmp_path / "weights": "previous", f"{kept}:1": kept / "epoch-0001.safetensors",
            f"{kept}:epoch-0002": kept / "epoch-0002.safetensors", run / "recipe.yaml": None, run / "model.yaml": None,
            tmp_path / "recipe": None}


def test_every_command_takes_whatever_names_a_network(named, trained, toy, toy_recipe, tmp_path):
    run, _ = trained
    data_sets.write_png(tmp_path / "image.png", data_sets.squares(3, 5)[0][2])
    summary = json_of("summary", run / "model.yaml")
    model = output_of("show", run / "model.yaml")
    start = tmp_path / "start"
    train(toy_recipe, toy, start, "--max-steps", 1)
    for number, (name, weights) in enumerate(named.items()):
        file = run / f"{weights}.safetensors" if isinstance(weights, str) else weights or start / "previous.safetensors"
        seed = ("--seed", 1) if str(name).endswith("model.yaml") else ()  # a model alone has the default seed
        if seed:
            train(toy_recipe, toy, tmp_path / "seed", "--max-steps", 1, *seed)
            file = tmp_path / "seed" / "previous.safetensors"
        assert json_of("hash", name)["hash"] == hash_of(file), name
        assert json_of("hash", name)["trained"] == (weights is not None)
        assert json_of("summary", name) == summary
        assert output_of("show", name, "--model") == model
        train(toy_recipe, toy, tmp_path / f"init{number}", "--init", name, "--max-steps", 1)
        assert hash_of(tmp_path / f"init{number}" / "previous.safetensors") == hash_of(file), name
        done = niti("eval", name, "--data", toy)
        assert done.returncode == 0 and ("is not trained" in done.stderr) == (weights is None), name
        if weights:
            assert done.stdout == output_of("eval", file, "--data", toy)
            assert output_of("predict", name, tmp_path / "image.png") == output_of("predict", file, tmp_path / "image.png")


def test_networks_by_a_built_in_name():
    assert json_of("summary", "lenet5-mnist") == json_of("summary", "lenet5")
    assert output_of("hash", "lenet5-mnist") == output_of("hash", "lenet5")  # both of seed 1
    assert not set(json_of("info")["models"]) & set(json_of("info")["recipes"])


def test_a_built_in_name_goes_before_a_file(tmp_path, trained):
    (tmp_path / "mlp").write_text((trained[0] / "model.yaml").read_text())
    assert json_of("summary", "mlp", cwd=tmp_path)["model"] == "mlp"
    assert json_of("summary", "./mlp", cwd=tmp_path)["model"] == "toy"


def test_a_network_from_a_pipe(trained):
    done = subprocess.run(f"'{NITI}' show '{trained[0]}/recipe.yaml' | '{NITI}' summary /dev/stdin --json", shell=True,
                          capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["model"] == "toy"


def test_names_of_no_network(tmp_path, trained):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.yaml").write_text("a: 1\n")
    (tmp_path / "odd.yaml").write_text("a: [1\n")
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    for command in ("summary", "show", "hash", "eval"):
        fails(command, "lenet4", says=("'lenet4'", "did you mean 'lenet5'", "mlp-mnist", "a run's folder"))
        fails(command, "lenet5-minst", says="did you mean 'lenet5-mnist'")
        fails(command, tmp_path / "empty", says=(tmp_path / "empty", "without a checkpoint", "best.safetensors"))
        fails(command, tmp_path / "none.yaml", says=(tmp_path / "none.yaml", "No such file"))
        fails(command, tmp_path / "none.safetensors", says=(tmp_path / "none.safetensors", "No such file"))
        fails(command, tmp_path / "other.yaml", says=(tmp_path / "other.yaml", "names no network", "'model'"))
        fails(command, tmp_path / "odd.yaml", says=f"{tmp_path}/odd.yaml:2:1: ")
        fails(command, tmp_path / "noise", says=tmp_path / "noise")
        fails(command, f"{trained[0]}:77", says=(trained[0], "epoch-0077.safetensors", "RUN:last"))
        fails(command, f"{trained[0]}:first", says=(trained[0], "first.safetensors"))


def test_show_prints_the_built_in_files():
    info = json_of("info")
    for kind in ("models", "recipes"):
        for name in info[kind]:
            text = (ROOT / kind / f"{name}.yaml").read_text()
            assert output_of("show", name) == text
            assert json_of("show", name) == {"name": name, "kind": kind[:-1], "text": text}
    assert "layers:" in output_of("show", "lenet5-mnist", "--model")


# ---- info ----

def test_info():
    info = json_of("info", "--threads", 2)
    assert info["threads"] == 2 and info["backend"] == "cpu" and info["isa_available"][0] == "ref"
    assert set(info["isa_available"]) <= {"ref", "avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm"}
    for kernel in info["kernels"]:
        assert {"operation", "forward", "backward", "gradient"} <= set(kernel)
    assert {"lenet5", "mlp", "vgg-small-7", "vgg-small-8", "vgg-small-9", "vgg11", "vgg13", "vgg16", "alexnet",
            "alexnet-128", "vgg-small-7-bn", "vgg-small-8-bn", "vgg16-bn", "vgg8b", "resnet18-imagenet", "resnet34-imagenet",
            "conv3-bn"} <= set(info["models"])
    assert {"lenet5-mnist", "lenet5-fashion-mnist", "mlp-mnist", "sensor-windows", "vgg-small-7-cifar10", "vgg-small-8-cifar10",
            "vgg-small-9-cifar10", "vgg13-cifar10", "alexnet-imagenette", "vgg-small-7-sgd-cifar10", "vgg-small-8-sgd-cifar10",
            "vgg-small-9-sgd-cifar10", "vgg-small-7-bn-cifar10", "vgg-small-8-bn-cifar10", "vgg-small-9-bn-cifar10", "vgg16-bn-cifar10",
            "vgg8b-cifar10", "vgg8b-mnist", "vgg8b-fashion-mnist", "resnet18-cifar10", "resnet20-cifar10", "resnet32-cifar10",
            "resnet34-cifar10", "resnet18-imagenette", "resnet34-imagenette", "alexnet-sgd-imagenette",
            "conv3-bn-fashion-mnist"} <= set(info["recipes"])
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
    opener = gzip.open if compressed else open
    for split, prefix in (("train", "train"), ("test", "t10k")):
        files = sorted(folder.glob(f"{prefix}-*"), key=lambda path: "labels" in path.name)
        assert facts[f"{split}_sha256"] == hashlib.sha256(b"".join(opener(path, "rb").read() for path in files)).hexdigest()
        assert facts[f"{split}_sha256"] in text
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
        assert json_of("hash", run / name) == {"checkpoint": str(run / name), "hash": expected, "trained": True}
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


def test_eval_says_what_it_scores(trained, toy):
    run, result = trained
    facts = json_of("eval", run, "--data", toy)
    files = [(toy / f"t10k-{kind}-ubyte").read_bytes() for kind in ("images-idx3", "labels-idx1")]
    sha256 = hashlib.sha256(b"".join(files)).hexdigest()
    assert facts["data"] == {"kind": "idx", "path": os.path.realpath(toy), "classes": 4, "of_run": True,
                             "test": {"images": 60, "sha256": sha256}}
    assert facts["checkpoint"] == str(run / "best.safetensors") and facts["trained"] is True
    done = niti("eval", run, "--data", toy)
    assert done.stderr == ""
    for words in (os.path.realpath(toy), "idx", "4 classes", "60 images", sha256):
        assert words in done.stdout


@pytest.fixture
def moved(trained, toy, toy_recipe, tmp_path):
    """(run, its data set): one that the test may change or remove."""
    data = shutil.copytree(toy, tmp_path / "data")
    train(toy_recipe, data, tmp_path / "run")
    return tmp_path / "run", data


def test_eval_without_data_takes_the_runs_own(moved, tmp_path, monkeypatch):
    run, data = moved
    other = data_sets.write_idx_set(tmp_path / "other", data_sets.squares(20, 5), data_sets.squares(30, 6))
    monkeypatch.setenv("NITI_DATA", str(other))
    monkeypatch.chdir(tmp_path / "other")
    done = niti("eval", run, "--json")
    assert done.stderr == "" and json.loads(done.stdout)["data"]["path"] == os.path.realpath(data)
    assert json.loads(done.stdout)["images"] == 60


def test_eval_says_that_the_data_are_not_the_runs(moved, tmp_path):
    run, data = moved
    other = data_sets.write_idx_set(tmp_path / "other", data_sets.squares(20, 5), data_sets.squares(30, 6))
    for path, arguments in ((other, ("--data", other)), (data, ())):
        if not arguments:  # the folder is where it was, with another content
            shutil.copy(other / "t10k-images-idx3-ubyte", data)
            shutil.copy(other / "t10k-labels-idx1-ubyte", data)
        done = niti("eval", run, "--json", *arguments)
        says = "is not the data of the run" if arguments else "has changed since the run began"
        assert done.returncode == 0 and says in done.stderr and str(path) in done.stderr, done.stderr
        assert json.loads(done.stdout)["data"]["of_run"] is False
    same = data_sets.write_idx_set(tmp_path / "same", data_sets.squares(160, 1), data_sets.squares(60, 2), compressed=True)
    done = niti("eval", run, "--data", same, "--json")  # another folder with the run's images
    assert done.stderr == "" and json.loads(done.stdout)["data"]["of_run"] is True


def test_eval_without_the_runs_data(moved, tmp_path, monkeypatch):
    """Fashion-MNIST, or what stands for it, is not scored in its place unless the recipe asks for it."""
    run, data = moved
    other = data_sets.write_idx_set(tmp_path / "other", data_sets.squares(20, 5), data_sets.squares(30, 6))
    monkeypatch.setenv("NITI_DATA", str(other))
    shutil.rmtree(data)
    fails("eval", run, says=(os.path.realpath(data), "no longer exists", "--data"))


def test_a_network_without_a_run_and_without_data(toy_recipe, toy, monkeypatch):
    monkeypatch.setenv("NITI_DATA", str(toy))
    done = niti("eval", toy_recipe)
    assert done.returncode == 1 and "--data" in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def coloured(shared):
    """(run on a folder of images, its data set): classes ant, bee, cat, dog."""
    data = data_sets.write_folder_set(shared / "coloured", ["ant", "bee", "cat", "dog"],
                                      data_sets.squares(80, 1, channels=3), data_sets.squares(20, 2, channels=3))
    recipe = shared / "coloured.yaml"
    recipe.write_text(TOY.replace("[8, 8, 1]", "[8, 8, 3]"))
    train(recipe, data, shared / "coloured-run")
    return shared / "coloured-run", data


def test_eval_maps_classes_by_name(coloured, tmp_path):
    """A folder whose classes come in another order, or that has only some of them, is scored as it is labelled."""
    run, data = coloured
    whole = json_of("eval", run, "--data", data)
    assert whole["test_accuracy"] > 90
    # the same images; a fifth class of the training images alone cannot be there, so rename by links into an order of its own
    some = shutil.copytree(data, tmp_path / "some")
    for split in ("train", "test"):
        shutil.rmtree(some / split / "ant")
        shutil.rmtree(some / split / "cat")
    part = json_of("eval", run, "--data", some)
    assert part["images"] == 10 and part["data"]["classes"] == 2 and part["data"]["of_run"] is False
    each = {}
    for name in ("ant", "bee", "cat", "dog"):
        one = shutil.copytree(data, tmp_path / name)
        for split in ("train", "test"):
            for other in {"ant", "bee", "cat", "dog"} - {name}:
                shutil.rmtree(one / split / other)
        each[name] = json_of("eval", run, "--data", one)["correct"]
    assert sum(each.values()) == whole["correct"] and each["bee"] + each["dog"] == part["correct"]


def test_eval_refuses_other_class_names(coloured, tmp_path):
    run, data = coloured
    other = shutil.copytree(data, tmp_path / "other")
    for split in ("train", "test"):
        (other / split / "bee").rename(other / split / "wasp")
    fails("eval", run, "--data", other, says=(other, "'wasp'", "ant, cat, dog, wasp", "ant, bee, cat, dog"))


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


def test_bench_for_part_of_a_second():
    """A thousandth is over before the five runs that are the least."""
    report = json_of("bench", "step", "--model", "mlp", "--batch", 1024, "--threads", 1, "--seconds", "0.001")
    assert report["runs"] == 5


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


@pytest.mark.parametrize("option", ["--version", "-V", "--help", "-h"])
def test_a_full_standard_output_is_noticed_without_a_command(option):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([NITI, option], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1 and done.stderr == b"niti: cannot write to standard output\n"


def test_a_full_standard_output_is_noticed(trained):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([NITI, "hash", trained[0] / "last.safetensors"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1 and b"standard output" in done.stderr
